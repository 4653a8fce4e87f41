use std::{collections::VecDeque, fmt};

use ed25519_dalek::SigningKey;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroize;

use super::{
    auth::{self, AuthMessage},
    keys,
    peer::PeerIdentity,
    seal::{FRAME_SIZE, OpenError, Opener, Sealer},
};
use crate::wire::{self, DecodeError, Fields};

/// The longest first message accepted, in bytes without its length. Honest peers send 34. Go reads 1 MiB, but
/// uses no more than 32 bytes of it.
pub const MAX_EPHEMERAL_MESSAGE: usize = 1024;

/// The longest authentication message accepted, in bytes without its length. Honest peers send 102; an identity
/// of the largest key type that CometBFT knows (ML-DSA-65) fits, so that it is refused by its name.
pub const MAX_AUTH_MESSAGE: usize = 8192;

/// One side of the handshake. See the [module](super) for the order of calls.
///
/// After an error, `handle` keeps answering with that error and there is nothing more to send. The ephemeral
/// secret and the identity key are wiped on drop.
pub struct Handshake {
    identity: SigningKey,
    secret: StaticSecret,
    public: [u8; 32],
    outbox: VecDeque<Vec<u8>>,
    /// Present once the peer's ephemeral key came.
    session: Option<Session>,
    failed: Option<HandshakeError>,
}

/// The connection while the peer has yet to prove who it is.
struct Session {
    sealer: Sealer,
    opener: Opener,
    challenge: [u8; 32],
    /// Opened and not yet understood; after the proof, what came behind it.
    plain: Vec<u8>,
    peer: Option<PeerIdentity>,
}

/// A connection whose peer has proven its identity.
#[derive(Debug)]
#[non_exhaustive]
pub struct Established {
    /// Seals what we send.
    pub sealer: Sealer,
    /// Opens what the peer sends.
    pub opener: Opener,
    /// Who the peer is.
    pub peer: PeerIdentity,
    /// The first data of the connection, already opened: what the peer's frames carried behind its proof.
    /// Empty with every known release.
    pub leftover: Vec<u8>,
}

impl Handshake {
    /// Starts a handshake as the holder of `identity`.
    ///
    /// `ephemeral` is the X25519 secret of this connection: 32 fresh bytes from a cryptographic source, never
    /// used for another one. (X25519 clamps them on use.)
    pub fn new(identity: &SigningKey, mut ephemeral: [u8; 32]) -> Self {
        let secret = StaticSecret::from(ephemeral);
        ephemeral.zeroize();
        let public = PublicKey::from(&secret).to_bytes();
        Self {
            identity: identity.clone(),
            secret,
            public,
            outbox: VecDeque::from([ephemeral_message(&public)]),
            session: None,
            failed: None,
        }
    }

    /// The next bytes to send, if there are any: first our ephemeral key (35 bytes, without waiting for the
    /// peer), and when the peer's came, one frame with our proof of identity.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.outbox.pop_front()
    }

    /// Takes in what the peer sent and says how many of the bytes it used. The caller keeps the others, at
    /// most [`MAX_UNUSED`](super::MAX_UNUSED) until the handshake is done, and passes them again with more behind
    /// them. Nothing is used once the peer has proven its identity: the rest is for the [`Opener`].
    ///
    /// # Errors
    ///
    /// [`HandshakeError`] says what the peer did; the connection is to be closed.
    pub fn handle(&mut self, input: &[u8]) -> Result<usize, HandshakeError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let mut used = 0;
        loop {
            match self.advance(&input[used..]) {
                Ok(0) => return Ok(used),
                Ok(step) => used += step,
                Err(error) => {
                    self.outbox.clear();
                    self.session = None;
                    self.failed = Some(error.clone());
                    return Err(error);
                }
            }
        }
    }

    /// Whether the peer has proven its identity and there is nothing left to send.
    pub fn is_established(&self) -> bool {
        self.outbox.is_empty() && self.session.as_ref().is_some_and(|session| session.peer.is_some())
    }

    /// The connection, or `None` if [`is_established`](Self::is_established) does not hold.
    pub fn established(self) -> Option<Established> {
        if !self.is_established() {
            return None;
        }
        let Session { sealer, opener, plain, peer, .. } = self.session?;
        Some(Established { sealer, opener, peer: peer?, leftover: plain })
    }

    /// Uses one message or one frame of `input`, or nothing.
    fn advance(&mut self, input: &[u8]) -> Result<usize, HandshakeError> {
        match &mut self.session {
            None => match read_ephemeral(input)? {
                None => Ok(0),
                Some((theirs, used)) => self.agree(&theirs).map(|()| used),
            },
            Some(session) if session.peer.is_some() => Ok(0),
            Some(session) => match input.get(..FRAME_SIZE) {
                None => Ok(0),
                Some(frame) => session.receive(frame).map(|()| FRAME_SIZE),
            },
        }
    }

    /// Both ephemeral keys are known: derives the connection's keys and queues our proof.
    fn agree(&mut self, theirs: &[u8; 32]) -> Result<(), HandshakeError> {
        // Frames of our own would not open either way; this says why.
        if *theirs == self.public {
            return Err(HandshakeError::Reflected);
        }
        let dh = self.secret.diffie_hellman(&PublicKey::from(*theirs));
        if !dh.was_contributory() {
            return Err(HandshakeError::LowOrderPoint);
        }
        let challenge = keys::challenge(&self.public, theirs, &dh);
        let (mut sealer, opener) = keys::seals(&self.public, theirs, &dh);
        let mut proof = Vec::with_capacity(FRAME_SIZE);
        sealer
            .seal(&auth::encode(&self.identity, &challenge), &mut proof)
            .expect("a new sealer has all its nonces");
        self.outbox.push_back(proof);
        self.session = Some(Session { sealer, opener, challenge, plain: Vec::new(), peer: None });
        Ok(())
    }
}

impl Session {
    /// Opens one frame of the peer's proof. The proof may be split over several.
    fn receive(&mut self, frame: &[u8]) -> Result<(), HandshakeError> {
        let before = self.plain.len();
        self.opener.open(frame, &mut self.plain)?;
        // Go takes an empty frame in the first place for an empty message. Endless empty frames would keep a
        // handshake alive for nothing, so they are refused in any place.
        if self.plain.len() == before {
            return Err(HandshakeError::EmptyAuthFrame);
        }
        let Some((length, prefix)) = wire::varint(&self.plain).map_err(|_| HandshakeError::AuthMalformed)?
        else {
            return Ok(());
        };
        let length = bounded(length, MAX_AUTH_MESSAGE).ok_or(HandshakeError::AuthTooLong { length })?;
        if let Some(message) = self.plain.get(prefix..prefix + length) {
            let message = AuthMessage::decode(message).map_err(|_| HandshakeError::AuthMalformed)?;
            self.peer = Some(message.verify(&self.challenge)?);
            self.plain.drain(..prefix + length);
        }
        Ok(())
    }
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake")
            .field("key_received", &self.session.is_some())
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

/// What the peer did that ends the handshake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The peer's first bytes are those of a release with amino encoding.
    #[error(
        "the peer speaks tendermint v0.33 or older (amino), which is not supported; upgrade the node to v0.34 or newer"
    )]
    AminoPeer,
    /// The peer's first message is longer than [`MAX_EPHEMERAL_MESSAGE`].
    #[error(
        "first message of {length} bytes, where 34 are expected; check that the address is a validator's `priv_validator_laddr`"
    )]
    EphemeralTooLong {
        /// The length that the peer announced, in bytes.
        length: u64,
    },
    /// The peer's first message does not decode.
    #[error(
        "first message is not an ephemeral key; check that the address is a validator's `priv_validator_laddr`"
    )]
    EphemeralMalformed,
    /// The peer's ephemeral key makes a shared secret that everybody knows.
    #[error("ephemeral key is a point of low order: the peer is broken or hostile")]
    LowOrderPoint,
    /// The peer sent our own ephemeral key back.
    #[error("the peer echoes our own bytes; check that the address is a validator's `priv_validator_laddr`")]
    Reflected,
    /// A frame of the peer's proof does not open.
    #[error("proof of identity: {0}")]
    Frame(#[from] OpenError),
    /// The peer sent a frame without data where its proof of identity belongs.
    #[error("proof of identity: frame without data")]
    EmptyAuthFrame,
    /// The peer's proof of identity is longer than [`MAX_AUTH_MESSAGE`].
    #[error("proof of identity of {length} bytes, where 102 are expected")]
    AuthTooLong {
        /// The length that the peer announced, in bytes.
        length: u64,
    },
    /// The peer's proof of identity does not decode.
    #[error("proof of identity does not decode")]
    AuthMalformed,
    /// The peer's proof of identity names no key.
    #[error("proof of identity names no key")]
    NoIdentity,
    /// The peer's identity key is of a type that SecretConnection does not have.
    #[error(
        "identity key is of type `{kind}`, where only ed25519 is allowed; check the node's `node_key.json`"
    )]
    IdentityNotEd25519 {
        /// The type of the key.
        kind: &'static str,
    },
    /// The peer's identity key is not a point of Ed25519.
    #[error("identity key of {length} bytes is not an ed25519 key")]
    IdentityInvalid {
        /// The length of the key, in bytes.
        length: usize,
    },
    /// The peer's signature is not one of its identity key over this connection's challenge.
    #[error("signature does not prove the peer's identity: somebody may be between the signer and the node")]
    SignatureInvalid,
}

/// `BytesValue{1: key}` with its length: the first message.
fn ephemeral_message(key: &[u8; 32]) -> Vec<u8> {
    let mut message = Vec::with_capacity(35);
    message.push(34);
    wire::put_bytes(&mut message, 1, key);
    message
}

/// Reads the peer's first message: its key and how many bytes it took, or `None` if more are needed.
fn read_ephemeral(input: &[u8]) -> Result<Option<([u8; 32], usize)>, HandshakeError> {
    // Amino writes length 33, then the array with its own length 32. In protobuf that would be field 4, which
    // `BytesValue` does not have.
    if input.starts_with(&[0x21, 0x20]) {
        return Err(HandshakeError::AminoPeer);
    }
    let Some((length, prefix)) = wire::varint(input).map_err(|_| HandshakeError::EphemeralMalformed)? else {
        return Ok(None);
    };
    let length = bounded(length, MAX_EPHEMERAL_MESSAGE).ok_or(HandshakeError::EphemeralTooLong { length })?;
    let Some(message) = input.get(prefix..prefix + length) else { return Ok(None) };
    let key = decode_ephemeral(message).map_err(|_| HandshakeError::EphemeralMalformed)?;
    Ok(Some((key, prefix + length)))
}

/// Go copies whatever length into an array of 32 (`copy(_remEphPub[:], bytes.Value)`): shorter keys end in
/// zeros, longer ones are cut. The transcript then has those 32 bytes, so both sides must do the same.
fn decode_ephemeral(message: &[u8]) -> Result<[u8; 32], DecodeError> {
    let mut value: &[u8] = &[];
    let mut fields = Fields::new("BytesValue", message);
    while let Some(field) = fields.next()? {
        if field.number == 1 {
            value = field.bytes()?;
        }
    }
    let mut key = [0; 32];
    let length = value.len().min(key.len());
    key[..length].copy_from_slice(&value[..length]);
    Ok(key)
}

fn bounded(length: u64, max: usize) -> Option<usize> {
    usize::try_from(length).ok().filter(|&length| length <= max)
}
