//! What protects a link: nothing, a SecretConnection or libp2p Noise.

use ed25519_dalek::SigningKey;
use monosign_protocol::{noise, secret_connection};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{LinkError, Peer, read, write};

/// What a handshake makes of a stream.
pub(super) struct Secured {
    pub(super) channel: Channel,
    pub(super) peer: Peer,
    /// Received behind the handshake: not yet opened, and opened.
    pub(super) wire: Vec<u8>,
    pub(super) plain: Vec<u8>,
}

impl Secured {
    pub(super) fn plain() -> Self {
        Self { channel: Channel::Plain, peer: Peer::Unknown, wire: Vec::new(), plain: Vec::new() }
    }

    pub(super) async fn secret<Io: AsyncRead + AsyncWrite + Unpin>(
        io: &mut Io,
        identity: &SigningKey,
        ephemeral: [u8; 32],
    ) -> Result<Self, LinkError> {
        let mut handshake = secret_connection::Handshake::new(identity, ephemeral);
        let wire = shake_hands(io, &mut handshake).await?;
        let connection = handshake.established().ok_or(LinkError::Closed)?;
        let channel = Channel::Secret { sealer: connection.sealer, opener: connection.opener };
        Ok(Self { channel, peer: Peer::Secret(connection.peer), wire, plain: connection.leftover })
    }

    pub(super) async fn noise<Io: AsyncRead + AsyncWrite + Unpin>(
        io: &mut Io,
        identity: &SigningKey,
        signer: noise::PeerId,
        entropy: noise::Entropy,
    ) -> Result<Self, LinkError> {
        let mut handshake = noise::Handshake::responder(identity, Some(signer), entropy);
        let wire = shake_hands(io, &mut handshake).await?;
        let connection = handshake.established().ok_or(LinkError::Closed)?;
        let channel =
            Channel::Noise { sealer: Box::new(connection.sealer), opener: Box::new(connection.opener) };
        Ok(Self { channel, peer: Peer::Noise(connection.peer), wire, plain: Vec::new() })
    }
}

pub(super) enum Channel {
    Plain,
    Secret { sealer: secret_connection::Sealer, opener: secret_connection::Opener },
    // Boxed: Noise's state is several times as large.
    Noise { sealer: Box<noise::Sealer>, opener: Box<noise::Opener> },
}

impl Channel {
    pub(super) fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), LinkError> {
        match self {
            Self::Plain => out.extend_from_slice(plain),
            Self::Secret { sealer, .. } => sealer.seal(plain, out).map_err(LinkError::seal)?,
            Self::Noise { sealer, .. } => sealer.seal(plain, out).map_err(LinkError::seal)?,
        }
        Ok(())
    }

    /// Appends to `plain` what `wire` holds, and says how much of `wire` that took.
    pub(super) fn open(&mut self, wire: &[u8], plain: &mut Vec<u8>) -> Result<usize, LinkError> {
        Ok(match self {
            Self::Plain => {
                plain.extend_from_slice(wire);
                wire.len()
            }
            Self::Secret { opener, .. } => opener.open(wire, plain)?,
            Self::Noise { opener, .. } => opener.open(wire, plain)?,
        })
    }
}

/// Both handshakes have the same calls.
trait Handshake {
    fn poll_transmit(&mut self) -> Option<Vec<u8>>;
    fn handle(&mut self, input: &[u8]) -> Result<usize, LinkError>;
    fn is_established(&self) -> bool;
}

/// Drives a handshake to its end and returns what the peer sent behind it.
///
/// Both ends write before they read, so the stream has to buffer one handshake message, 1044 bytes at most. Every
/// socket does.
async fn shake_hands<Io, H>(io: &mut Io, handshake: &mut H) -> Result<Vec<u8>, LinkError>
where
    Io: AsyncRead + AsyncWrite + Unpin,
    H: Handshake,
{
    let mut wire = Vec::new();
    loop {
        while let Some(bytes) = handshake.poll_transmit() {
            write(io, &bytes).await?;
        }
        if handshake.is_established() {
            return Ok(wire);
        }
        read(io, &mut wire).await?;
        let used = handshake.handle(&wire)?;
        wire.drain(..used);
    }
}

impl Handshake for secret_connection::Handshake {
    fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.poll_transmit()
    }

    fn handle(&mut self, input: &[u8]) -> Result<usize, LinkError> {
        Ok(self.handle(input)?)
    }

    fn is_established(&self) -> bool {
        self.is_established()
    }
}

impl Handshake for noise::Handshake {
    fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.poll_transmit()
    }

    fn handle(&mut self, input: &[u8]) -> Result<usize, LinkError> {
        Ok(self.handle(input)?)
    }

    fn is_established(&self) -> bool {
        self.is_established()
    }
}
