//! A session with one validator, without sockets or clocks.
//!
//! Bytes go in by [`Session::handle_bytes`], requests come out of [`Session::poll_event`], answers go in by
//! [`Session::respond`], and what is to be sent lies in [`Session::outbox`], all sealed frames of a message in one piece, so
//! that one write carries it.
//!
//! What always holds: requests come out in the order of the wire; a peer that breaks framing or cryptography gets an
//! error and nothing more out of the session; buffers are bounded by the longest message.

mod transport;

use monosign_protocol::frame::{self, Frame, FrameError, MAX_MESSAGE_LEN};
use monosign_protocol::message::Message;
use monosign_protocol::{noise, secret_connection};

use crate::chain::Arm;
pub use transport::Peer;
use transport::Transport;

/// The state of one connection.
pub struct Session {
    transport: Transport,
    /// What came and is not unsealed yet: less than one sealed frame.
    wire: Vec<u8>,
    /// What was unsealed, and how much of it is read. What is left moves to the front when more comes, and not at each message: a peer
    /// that sends many small ones at once would have us move the rest of them each time.
    plain: Vec<u8>,
    read: usize,
    outbox: Vec<u8>,
    scratch: Vec<u8>,
    failed: bool,
}

/// What came out of the bytes.
#[derive(Debug)]
pub enum Event {
    /// The peer has shown who it is; requests may follow.
    Established(Peer),
    /// A request; each wants one response.
    Request(Box<Message>),
    /// A whole frame that is no request that we know. The stream is still in step.
    Unreadable {
        /// The arm in which it is to be answered; without one, the answer is an empty message, as stock signers give.
        arm: Option<Arm>,
        /// What is wrong with it.
        error: String,
    },
}

/// The peer broke framing or cryptography; the connection must be closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerMisbehaved {
    /// In the handshake of the secret connection.
    #[error("secret connection handshake: {0}")]
    SecretHandshake(#[from] secret_connection::HandshakeError),
    /// A frame that does not open.
    #[error("secret connection: {0}")]
    SecretFrame(#[from] secret_connection::OpenError),
    /// In the noise handshake.
    #[error("noise handshake: {0}")]
    NoiseHandshake(#[from] noise::HandshakeError),
    /// A noise message that does not open.
    #[error("noise: {0}")]
    NoiseFrame(#[from] noise::OpenError),
    /// A message that cannot be delimited.
    #[error("framing: {0}")]
    Framing(#[from] FrameError),
    /// The peer is somebody else than the configuration says.
    #[error("the peer is `{found}`, and `addr` pins `{expected}`")]
    WrongPeer {
        /// Who it is.
        found: String,
        /// Who it should be.
        expected: String,
    },
    /// All nonces of a direction are used up: after 2^64 frames.
    #[error("the connection's nonces are used up")]
    NoncesUsedUp,
    /// It misbehaved before.
    #[error("the session has failed")]
    Failed,
}

/// Buffers that a long message has grown beyond this are given back, in bytes.
const KEEP_CAPACITY: usize = 64 * 1024;

impl Session {
    /// A session without protection, for unix sockets. It is established by the first byte.
    pub fn plain() -> Self {
        Self::with(Transport::Plain { announced: false })
    }

    /// A session over SecretConnection. `pinned` is the peer id that the node must have, if any.
    pub fn secret(
        handshake: secret_connection::Handshake,
        pinned: Option<secret_connection::PeerId>,
    ) -> Self {
        Self::with(Transport::SecretHandshake { handshake: Box::new(handshake), pinned })
    }

    /// A session over libp2p noise; the handshake knows whom to expect.
    pub fn noise(handshake: noise::Handshake) -> Self {
        Self::with(Transport::NoiseHandshake(Box::new(handshake)))
    }

    fn with(transport: Transport) -> Self {
        let mut session = Self {
            transport,
            wire: Vec::new(),
            plain: Vec::new(),
            read: 0,
            outbox: Vec::new(),
            scratch: Vec::new(),
            failed: false,
        };
        session.transport.poll_transmit(&mut session.outbox);
        session
    }

    /// Takes in what the peer sent.
    ///
    /// # Errors
    /// [`PeerMisbehaved`]; the session is over then.
    pub fn handle_bytes(&mut self, bytes: &[u8]) -> Result<(), PeerMisbehaved> {
        self.guarded(|session| {
            session.forget_read();
            if session.wire.is_empty() {
                let used = session.transport.open(bytes, &mut session.plain)?;
                session.wire.extend_from_slice(&bytes[used..]);
            } else {
                session.wire.extend_from_slice(bytes);
                session.open_wire()?;
            }
            session.transport.poll_transmit(&mut session.outbox);
            Ok(())
        })
    }

    /// The next event, or `None` if more bytes are needed.
    ///
    /// # Errors
    /// [`PeerMisbehaved`]; the session is over then.
    pub fn poll_event(&mut self) -> Result<Option<Event>, PeerMisbehaved> {
        self.guarded(|session| {
            if let Some(peer) = session.transport.poll_established(&mut session.plain)? {
                // The peer may have sent frames right behind its handshake.
                session.open_wire()?;
                return Ok(Some(Event::Established(peer)));
            }
            if !session.transport.is_established() {
                return Ok(None);
            }
            session.poll_request()
        })
    }

    fn open_wire(&mut self) -> Result<(), PeerMisbehaved> {
        let used = self.transport.open(&self.wire, &mut self.plain)?;
        consume(&mut self.wire, used);
        Ok(())
    }

    fn poll_request(&mut self) -> Result<Option<Event>, PeerMisbehaved> {
        let unread = &self.plain[self.read..];
        let (start, end) = match frame::find(unread, MAX_MESSAGE_LEN)? {
            Frame::Incomplete => return Ok(None),
            Frame::Complete { start, end } => (start, end),
        };
        let body = &unread[start..end];
        if frame::is_amino(body) {
            return Err(FrameError::Amino.into());
        }
        let event = read_request(body);
        self.read += end;
        if self.read == self.plain.len() {
            self.forget_read();
        }
        Ok(Some(event))
    }

    fn forget_read(&mut self) {
        let read = std::mem::take(&mut self.read);
        consume(&mut self.plain, read);
    }

    /// Queues a response.
    ///
    /// # Errors
    /// [`PeerMisbehaved::NoncesUsedUp`] after 2^64 frames, [`PeerMisbehaved::Failed`] once the session is over.
    pub fn respond(&mut self, response: &Message) -> Result<(), PeerMisbehaved> {
        self.scratch.clear();
        frame::encode(response, &mut self.scratch);
        self.seal_scratch()
    }

    /// Queues an empty message: what stock signers answer to what they do not know.
    ///
    /// # Errors
    /// [`PeerMisbehaved::NoncesUsedUp`] after 2^64 frames, [`PeerMisbehaved::Failed`] once the session is over.
    pub fn respond_empty(&mut self) -> Result<(), PeerMisbehaved> {
        self.scratch.clear();
        self.scratch.push(0);
        self.seal_scratch()
    }

    fn seal_scratch(&mut self) -> Result<(), PeerMisbehaved> {
        self.guarded(|session| session.transport.seal(&session.scratch, &mut session.outbox))
    }

    /// What is to be sent now.
    pub fn outbox(&self) -> &[u8] {
        &self.outbox
    }

    /// The outbox was sent, whole.
    pub fn sent(&mut self) {
        let all = self.outbox.len();
        consume(&mut self.outbox, all);
    }

    /// Whether the peer has shown who it is.
    pub fn is_established(&self) -> bool {
        self.transport.is_established()
    }

    fn guarded<T>(
        &mut self,
        step: impl FnOnce(&mut Self) -> Result<T, PeerMisbehaved>,
    ) -> Result<T, PeerMisbehaved> {
        if self.failed {
            return Err(PeerMisbehaved::Failed);
        }
        let result = step(self);
        if result.is_err() {
            self.failed = true;
            self.outbox.clear();
        }
        result
    }
}

/// Takes `used` bytes from the front, and gives memory back after a long message.
fn consume(buffer: &mut Vec<u8>, used: usize) {
    buffer.drain(..used);
    if buffer.len() < KEEP_CAPACITY && buffer.capacity() > KEEP_CAPACITY {
        buffer.shrink_to(KEEP_CAPACITY);
    }
}

fn read_request(body: &[u8]) -> Event {
    // The first tag tells the arm, even where the rest cannot be read.
    let arm = match body.first().map(|tag| tag >> 3) {
        Some(1) => Some(Arm::PubKey),
        Some(3) => Some(Arm::Vote),
        Some(5) => Some(Arm::Proposal),
        Some(9) => Some(Arm::Raw),
        _ => None,
    };
    match Message::decode(body) {
        Err(error) => Event::Unreadable { arm, error: error.to_string() },
        Ok(None) => Event::Unreadable { arm: None, error: "an empty or unknown message".into() },
        Ok(Some(message)) => match message {
            Message::PubKeyRequest(_)
            | Message::SignVoteRequest(_)
            | Message::SignProposalRequest(_)
            | Message::PingRequest
            | Message::RawRequest(_) => Event::Request(Box::new(message)),
            response => {
                Event::Unreadable { arm: None, error: format!("a {} is no request", response.name()) }
            }
        },
    }
}

#[cfg(test)]
mod tests;
