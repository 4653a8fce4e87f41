//! The node's side of a connection to a remote signer, over any byte stream.
//!
//! A [`NodeLink`] asks one question at a time and matches the answer by order, as CometBFT's `SignerClient` does
//! (`privval/signer_client.go`): the protocol has no request ids. It reads no clock: time limits are the caller's,
//! who drops the link when one passes, since a late answer would be taken for the next one.
//!
//! For tests of signers there is a way past every layer: [`NodeLink::send_raw`] writes to the stream below the
//! encryption, [`NodeLink::send_plain_bytes`] below the framing, [`NodeLink::send`] sends any message at any time.
//!
//! [`Listener`] gives such streams on real sockets.

mod address;
mod channel;
mod error;
mod listener;
mod socket;
mod transport;

use ed25519_dalek::SigningKey;
use monosign_protocol::frame::{self, Frame};
use monosign_protocol::message::Message;
use monosign_protocol::{Dialect, noise, secret_connection};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

pub use address::{Address, InvalidAddress};
pub use error::LinkError;
pub use listener::Listener;
pub use socket::Socket;
pub use transport::Transport;

use channel::{Channel, Secured};

/// A connection to a signer, as a node holds it.
///
/// Dropping it closes the stream.
pub struct NodeLink<Io> {
    io: Io,
    channel: Channel,
    peer: Peer,
    read_limit: usize,
    /// Received, not yet opened.
    wire: Vec<u8>,
    /// Opened, not yet read.
    plain: Vec<u8>,
    /// The message being sent, before and after sealing; kept so that sending allocates nothing.
    framed: Vec<u8>,
    sealed: Vec<u8>,
}

/// Who the signer proved to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// Nobody: the link is not encrypted.
    Unknown,
    /// The holder of a SecretConnection identity. Nodes do not check it.
    Secret(secret_connection::PeerIdentity),
    /// The holder of the libp2p identity that the node pins.
    Noise(noise::PeerId),
}

impl<Io: AsyncRead + AsyncWrite + Unpin> NodeLink<Io> {
    /// A link without encryption, as on `unix://`.
    pub fn accept_plain(io: Io) -> Self {
        Self::new(io, Secured::plain())
    }

    /// Does the SecretConnection handshake, as on `tcp://`.
    ///
    /// `identity` is the node's key, which no signer can pin: nodes make a new one at each start. `ephemeral` is 32
    /// fresh random bytes for this connection alone.
    ///
    /// # Errors
    /// [`LinkError`] if the stream ends or the signer breaks the handshake.
    pub async fn accept_secret(
        mut io: Io,
        identity: &SigningKey,
        ephemeral: [u8; 32],
    ) -> Result<Self, LinkError> {
        let secured = Secured::secret(&mut io, identity, ephemeral).await?;
        Ok(Self::new(io, secured))
    }

    /// Does the libp2p Noise handshake, as on v0.40's `noise://`: the signer is the initiator, and only the holder
    /// of `signer` is let in.
    ///
    /// # Errors
    /// [`LinkError`] if the stream ends, or the signer breaks the handshake or is another one.
    pub async fn accept_noise(
        mut io: Io,
        identity: &SigningKey,
        signer: noise::PeerId,
        entropy: noise::Entropy,
    ) -> Result<Self, LinkError> {
        let secured = Secured::noise(&mut io, identity, signer, entropy).await?;
        Ok(Self::new(io, secured))
    }

    /// Does the handshake of `transport`.
    ///
    /// `entropy` gives 32 fresh random bytes at each call.
    ///
    /// # Errors
    /// [`LinkError`] as of the transport's own function, and the stream, which is still open.
    pub async fn accept(
        mut io: Io,
        transport: &Transport,
        identity: &SigningKey,
        entropy: &mut dyn FnMut() -> [u8; 32],
    ) -> Result<Self, (LinkError, Io)> {
        let secured = match transport {
            Transport::Plain => Ok(Secured::plain()),
            Transport::SecretConnection => Secured::secret(&mut io, identity, entropy()).await,
            Transport::Noise { signer } => {
                let entropy = noise::Entropy { static_key: entropy(), ephemeral: entropy() };
                Secured::noise(&mut io, identity, *signer, entropy).await
            }
        };
        match secured {
            Ok(secured) => Ok(Self::new(io, secured)),
            Err(error) => Err((error, io)),
        }
    }

    /// Reads answers of at most `bytes`; see [`read_limit`] for what the nodes of a dialect read.
    ///
    /// Without this the limit is the one of most dialects, 10 240 bytes.
    pub fn with_read_limit(mut self, bytes: usize) -> Self {
        self.read_limit = bytes;
        self
    }

    /// Who the signer proved to be.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Sends `request` and waits for the answer. `None` is a message without content.
    ///
    /// # Errors
    /// [`LinkError`]; the link is of no use afterwards, except after [`LinkError::Decode`].
    pub async fn ask(&mut self, request: &Message) -> Result<Option<Message>, LinkError> {
        self.send(request).await?;
        self.receive().await
    }

    /// Sends one message, in one write.
    ///
    /// # Errors
    /// [`LinkError`] if the stream fails.
    pub async fn send(&mut self, message: &Message) -> Result<(), LinkError> {
        self.framed.clear();
        frame::encode(message, &mut self.framed);
        self.sealed.clear();
        self.channel.seal(&self.framed, &mut self.sealed)?;
        write(&mut self.io, &self.sealed).await
    }

    /// Sends bytes encrypted as the link is, but without a length before them: for broken framing, and for
    /// messages that no codec makes.
    ///
    /// # Errors
    /// [`LinkError`] if the stream fails.
    pub async fn send_plain_bytes(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        self.sealed.clear();
        self.channel.seal(bytes, &mut self.sealed)?;
        write(&mut self.io, &self.sealed).await
    }

    /// Writes bytes to the stream as they are, below the encryption.
    ///
    /// # Errors
    /// [`LinkError`] if the stream fails.
    pub async fn send_raw(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        write(&mut self.io, bytes).await
    }

    /// Waits for the next message. `None` is a message without content.
    ///
    /// # Errors
    /// [`LinkError`]; after [`LinkError::Decode`] the stream is still in step. After [`LinkError::Frame`] it is not:
    /// as a node's reader, that stops behind the length it refused (CometBFT `libs/protoio/reader.go`), the next
    /// call takes what follows for the start of a message. Nothing more is read after [`LinkError::SecretOpen`] and
    /// [`LinkError::NoiseOpen`].
    pub async fn receive(&mut self) -> Result<Option<Message>, LinkError> {
        loop {
            match frame::find(&self.plain, self.read_limit) {
                Ok(Frame::Complete { start, end }) => {
                    let message = Message::decode(&self.plain[start..end]);
                    self.plain.drain(..end);
                    return message.map_err(LinkError::decode);
                }
                Ok(Frame::Incomplete) => self.read_more().await?,
                Err(error) => {
                    self.plain.drain(..length_prefix(&self.plain));
                    return Err(error.into());
                }
            }
        }
    }

    /// The stream below the link, whatever was buffered being lost.
    pub fn into_inner(self) -> Io {
        self.io
    }

    fn new(io: Io, secured: Secured) -> Self {
        let Secured { channel, peer, wire, plain } = secured;
        Self {
            io,
            channel,
            peer,
            read_limit: SHORT_READ_LIMIT,
            wire,
            plain,
            framed: Vec::new(),
            sealed: Vec::new(),
        }
    }

    /// Opens what is there, and reads only if that gave nothing: bytes behind the handshake come first.
    async fn read_more(&mut self) -> Result<(), LinkError> {
        loop {
            let used = self.channel.open(&self.wire, &mut self.plain).inspect_err(|_| self.wire.clear())?;
            self.wire.drain(..used);
            if used > 0 {
                return Ok(());
            }
            read(&mut self.io, &mut self.wire).await?;
        }
    }
}

/// How many bytes of `plain` are its first length, at most the ten that a length can have.
fn length_prefix(plain: &[u8]) -> usize {
    let last = plain.iter().take(MAX_PREFIX).position(|byte| byte & 0x80 == 0);
    last.map_or(MAX_PREFIX.min(plain.len()), |last| last + 1)
}

const MAX_PREFIX: usize = 10;

/// The longest message that a node of `dialect` reads, in bytes.
///
/// v0.40 made it a vote extension, two signatures of ML-DSA-65 (3309 bytes) and 1024 bytes; before, and in the side
/// lines v1.0 and v2.0, it is 10 KiB (CometBFT `privval/signer_endpoint.go`, `maxRemoteSignerMsgSize`).
pub const fn read_limit(dialect: Dialect) -> usize {
    match dialect {
        Dialect::V0_40 => 1024 * 1024 + 2 * 3309 + 1024,
        _ => SHORT_READ_LIMIT,
    }
}

const SHORT_READ_LIMIT: usize = 10 * 1024;

/// Room made for each read, in bytes: an answer of the usual size comes in one.
const READ_CHUNK: usize = 16 * 1024;

async fn write<Io: AsyncWrite + Unpin>(io: &mut Io, bytes: &[u8]) -> Result<(), LinkError> {
    io.write_all(bytes).await?;
    io.flush().await?;
    Ok(())
}

async fn read<Io: AsyncRead + Unpin>(io: &mut Io, wire: &mut Vec<u8>) -> Result<(), LinkError> {
    wire.reserve(READ_CHUNK);
    match io.read_buf(wire).await? {
        0 => Err(LinkError::Closed),
        _ => Ok(()),
    }
}
