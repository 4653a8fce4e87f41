use std::{collections::VecDeque, fmt, sync::Arc};

use ed25519_dalek::SigningKey;
use snow::{Builder, HandshakeState, StatelessTransportState};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::{
    Framed, PREFIX, PeerId,
    crypto::Resolver,
    payload,
    seal::{Opener, Sealer},
    unframe,
};

/// The longest handshake message accepted, in bytes without its length. Honest peers send 32, 202 and 170; an
/// RSA identity of libp2p fits, so that it is refused by its name.
pub const MAX_HANDSHAKE_MESSAGE: usize = 4096;

const PROTOCOL: &str = "Noise_XX_25519_ChaChaPoly_SHA256";

/// The random numbers of one connection: fresh bytes from a cryptographic source, never used for another one.
/// (X25519 clamps them on use.) Wiped on drop.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Entropy {
    /// The secret static Noise key, which the identity key vouches for.
    pub static_key: [u8; 32],
    /// The secret ephemeral Noise key.
    pub ephemeral: [u8; 32],
}

impl fmt::Debug for Entropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entropy").finish_non_exhaustive()
    }
}

/// One side of the handshake. See the [module](super) for the order of calls.
///
/// After an error, `handle` keeps answering with that error and there is nothing more to send. The X25519 secrets
/// and the ciphers' keys are wiped on drop; Noise's chaining key, which lives in `snow` until the handshake ends,
/// is not.
pub struct Handshake {
    expected: Option<PeerId>,
    /// What proves our identity.
    payload: Vec<u8>,
    outbox: VecDeque<Vec<u8>>,
    /// Present until the handshake has ended, well or not.
    running: Option<Box<HandshakeState>>,
    done: Option<(Arc<StatelessTransportState>, PeerId)>,
    failed: Option<HandshakeError>,
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
    pub peer: PeerId,
}

impl Handshake {
    /// Starts a handshake as the signer, the holder of `identity`, with the node `expected`.
    pub fn initiator(identity: &SigningKey, expected: PeerId, entropy: Entropy) -> Self {
        let mut noise = build(&entropy, Builder::build_initiator);
        let first = write(&mut noise, &[]).expect("the first message is the ephemeral key alone");
        Self::new(identity, Some(expected), &entropy, noise, VecDeque::from([first]))
    }

    /// Starts a handshake as the node, the holder of `identity`, with the signer `expected`, or with whoever comes
    /// if that is `None`. (CometBFT's node always expects one signer.)
    pub fn responder(identity: &SigningKey, expected: Option<PeerId>, entropy: Entropy) -> Self {
        let noise = build(&entropy, Builder::build_responder);
        Self::new(identity, expected, &entropy, noise, VecDeque::new())
    }

    fn new(
        identity: &SigningKey,
        expected: Option<PeerId>,
        entropy: &Entropy,
        noise: HandshakeState,
        outbox: VecDeque<Vec<u8>>,
    ) -> Self {
        let static_public = PublicKey::from(&StaticSecret::from(entropy.static_key));
        let payload = payload::encode(identity, static_public.as_bytes());
        Self { expected, payload, outbox, running: Some(Box::new(noise)), done: None, failed: None }
    }

    /// The next bytes to send, if there are any: one message with its length.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.outbox.pop_front()
    }

    /// Takes in what the peer sent and says how many of the bytes it used. The caller keeps the others, at most
    /// [`MAX_UNUSED`](super::MAX_UNUSED) until the handshake is done, and passes them again with more behind them.
    /// Nothing is used once the peer has proven its identity: the rest is for the [`Opener`].
    ///
    /// # Errors
    ///
    /// [`HandshakeError`] says what the peer did; the connection is to be closed. If the identity is not the
    /// expected one, the initiator has not yet shown its own.
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
                    self.running = None;
                    self.failed = Some(error.clone());
                    return Err(error);
                }
            }
        }
    }

    /// Whether the peer has proven its identity and there is nothing left to send.
    pub fn is_established(&self) -> bool {
        self.outbox.is_empty() && self.done.is_some()
    }

    /// The connection, or `None` if [`is_established`](Self::is_established) does not hold.
    pub fn established(self) -> Option<Established> {
        let (transport, peer) = self.done.filter(|_| self.outbox.is_empty())?;
        let sealer = Sealer::new(Arc::clone(&transport));
        Some(Established { sealer, opener: Opener::new(transport), peer })
    }

    /// Uses one message of `input`, or nothing, and queues the answer to it.
    fn advance(&mut self, input: &[u8]) -> Result<usize, HandshakeError> {
        let Some(noise) = &mut self.running else { return Ok(0) };
        let message = match unframe(input) {
            Framed::Complete(message) if message.len() <= MAX_HANDSHAKE_MESSAGE => message,
            Framed::Partial(length) if length <= MAX_HANDSHAKE_MESSAGE => return Ok(0),
            Framed::Unknown => return Ok(0),
            Framed::Partial(length) => return Err(HandshakeError::MessageTooLong { length }),
            Framed::Complete(message) => {
                return Err(HandshakeError::MessageTooLong { length: message.len() });
            }
        };
        let payload = read(noise, message)?;
        // The peer's static key and payload come together, and in the last message that this side reads. The
        // payload of the very first message is nobody's proof and not encrypted; go-libp2p ignores it too.
        let peer = match noise.get_remote_static() {
            Some(static_public) => Some(authenticate(&payload, static_public, self.expected)?),
            None => None,
        };
        if !noise.is_handshake_finished() {
            self.outbox.push_back(write(noise, &self.payload)?);
        }
        if let Some(peer) = peer {
            self.finish(peer);
        }
        Ok(PREFIX + message.len())
    }

    fn finish(&mut self, peer: PeerId) {
        if let Some(noise) = self.running.take() {
            let transport = noise.into_stateless_transport_mode().expect("XX ends with the peer's payload");
            self.done = Some((Arc::new(transport), peer));
        }
    }
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake")
            .field("expected", &self.expected)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

/// What the peer did that ends the handshake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// A message is longer than [`MAX_HANDSHAKE_MESSAGE`].
    #[error(
        "handshake message of {length} bytes; check that the address is a validator's `priv_validator_laddr` with `noise://`"
    )]
    MessageTooLong {
        /// The length that the peer announced, in bytes.
        length: usize,
    },
    /// A message is too short for the keys that it must hold.
    #[error(
        "handshake message of {length} bytes is too short; check that the address is a validator's `priv_validator_laddr` with `noise://`"
    )]
    MessageTooShort {
        /// The length of the message, in bytes.
        length: usize,
    },
    /// A message does not decrypt: altered, or of another protocol or connection.
    #[error("handshake message does not decrypt: it was altered on the way or is of another protocol")]
    NotAuthentic,
    /// One of the peer's Noise keys makes a shared secret that everybody knows.
    #[error("noise key is a point of low order: the peer is broken or hostile")]
    LowOrderPoint,
    /// The payload with the peer's identity does not decode.
    #[error("proof of identity does not decode")]
    PayloadMalformed,
    /// The payload names no identity key.
    #[error("proof of identity names no key")]
    NoIdentity,
    /// The peer's identity key is of a type that CometBFT nodes do not have.
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
    /// The identity key did not sign this connection's Noise key.
    #[error("signature does not prove the peer's identity: somebody may be between the signer and the node")]
    SignatureInvalid,
    /// The peer is who it says, but not who it should be.
    #[error(
        "peer is `{found}`, expected `{expected}`; check the pinned peer id, and that the address is the right node's"
    )]
    WrongPeer {
        /// The pinned identity.
        expected: PeerId,
        /// The identity that the peer has proven.
        found: PeerId,
    },
}

fn build<'a>(
    entropy: &'a Entropy,
    role: impl FnOnce(Builder<'a>) -> Result<HandshakeState, snow::Error>,
) -> HandshakeState {
    let resolver = Resolver { ephemeral: Zeroizing::new(entropy.ephemeral) };
    let protocol = PROTOCOL.parse().expect("the name of a Noise protocol that snow knows");
    Builder::with_resolver(protocol, Box::new(resolver))
        .local_private_key(&entropy.static_key)
        .and_then(role)
        .expect("the resolver has all that the protocol needs")
}

/// The next handshake message, with its length.
fn write(noise: &mut HandshakeState, payload: &[u8]) -> Result<Vec<u8>, HandshakeError> {
    // An ephemeral key, an encrypted static key and an encrypted payload.
    let mut message = vec![0; PREFIX + 32 + 48 + payload.len() + 16];
    let length = noise.write_message(payload, &mut message[PREFIX..]).map_err(|error| blame(&error, 0))?;
    message.truncate(PREFIX + length);
    message[..PREFIX].copy_from_slice(&(length as u16).to_be_bytes());
    Ok(message)
}

/// The payload of the peer's next handshake message.
fn read(noise: &mut HandshakeState, message: &[u8]) -> Result<Vec<u8>, HandshakeError> {
    let mut payload = vec![0; message.len()];
    let length = noise.read_message(message, &mut payload).map_err(|error| blame(&error, message.len()))?;
    payload.truncate(length);
    Ok(payload)
}

/// Who the peer is, if it is who it should be.
fn authenticate(
    payload: &[u8],
    static_public: &[u8],
    expected: Option<PeerId>,
) -> Result<PeerId, HandshakeError> {
    let found = payload::verify(payload, static_public)?;
    match expected {
        Some(expected) if expected != found => Err(HandshakeError::WrongPeer { expected, found }),
        _ => Ok(found),
    }
}

fn blame(error: &snow::Error, length: usize) -> HandshakeError {
    match error {
        snow::Error::Dh => HandshakeError::LowOrderPoint,
        snow::Error::Input => HandshakeError::MessageTooShort { length },
        _ => HandshakeError::NotAuthentic,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn identity(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn id(seed: u8) -> PeerId {
        PeerId::from(&identity(seed).verifying_key())
    }

    fn entropy(seed: u8) -> Entropy {
        Entropy { static_key: [seed; 32], ephemeral: [seed + 100; 32] }
    }

    fn exchange(a: &mut Handshake, b: &mut Handshake) -> Result<(), HandshakeError> {
        for _ in 0..2 {
            while let Some(bytes) = a.poll_transmit() {
                b.handle(&bytes)?;
            }
            while let Some(bytes) = b.poll_transmit() {
                a.handle(&bytes)?;
            }
        }
        Ok(())
    }

    pub(in super::super) fn established_pair() -> (Established, Established) {
        let mut a = Handshake::initiator(&identity(1), id(2), entropy(3));
        let mut b = Handshake::responder(&identity(2), Some(id(1)), entropy(4));
        exchange(&mut a, &mut b).unwrap();
        (a.established().unwrap(), b.established().unwrap())
    }

    #[test]
    fn both_sides_know_each_other_in_the_end() {
        let (a, b) = established_pair();
        assert_eq!((a.peer, b.peer), (id(2), id(1)));
    }

    #[test]
    fn an_initiator_that_meets_the_wrong_peer_does_not_show_itself() {
        let mut a = Handshake::initiator(&identity(1), id(9), entropy(3));
        let mut b = Handshake::responder(&identity(2), None, entropy(4));
        let wrong = HandshakeError::WrongPeer { expected: id(9), found: id(2) };
        assert_eq!(exchange(&mut a, &mut b), Err(wrong.clone()));
        assert_eq!(a.poll_transmit(), None);
        assert_eq!(a.handle(&[]), Err(wrong));
        assert!(!a.is_established() && a.established().is_none() && b.established().is_none());
    }

    #[test]
    fn a_responder_refuses_the_wrong_signer() {
        let mut a = Handshake::initiator(&identity(1), id(2), entropy(3));
        let mut b = Handshake::responder(&identity(2), Some(id(9)), entropy(4));
        let wrong = HandshakeError::WrongPeer { expected: id(9), found: id(1) };
        assert_eq!(exchange(&mut a, &mut b), Err(wrong));
    }

    #[test]
    fn is_not_established_before_its_last_message_is_taken() {
        let mut a = Handshake::initiator(&identity(1), id(2), entropy(3));
        let mut b = Handshake::responder(&identity(2), None, entropy(4));
        b.handle(&a.poll_transmit().unwrap()).unwrap();
        a.handle(&b.poll_transmit().unwrap()).unwrap();
        assert!(!a.is_established());
        b.handle(&a.poll_transmit().unwrap()).unwrap();
        assert!(a.is_established() && b.is_established());
    }

    #[test]
    fn refuses_ephemeral_keys_of_low_order_in_either_role() {
        let mut b = Handshake::responder(&identity(2), None, entropy(4));
        let mut first = vec![0; PREFIX + 32];
        first[1] = 32;
        assert_eq!(b.handle(&first), Err(HandshakeError::LowOrderPoint));
        let mut a = Handshake::initiator(&identity(1), id(2), entropy(3));
        let mut second = vec![0; PREFIX + 202];
        second[1] = 202;
        assert_eq!(a.handle(&second), Err(HandshakeError::LowOrderPoint));
    }

    #[test]
    fn refuses_long_and_short_messages_by_their_length() {
        let fresh = || Handshake::responder(&identity(2), None, entropy(4));
        assert_eq!(fresh().handle(&[0x10, 0x00]), Ok(0));
        assert_eq!(fresh().handle(&[0x10, 0x01]), Err(HandshakeError::MessageTooLong { length: 4097 }));
        assert_eq!(fresh().handle(&[0, 3, 1, 2, 3]), Err(HandshakeError::MessageTooShort { length: 3 }));
        assert_eq!(fresh().handle(&[0, 0]), Err(HandshakeError::MessageTooShort { length: 0 }));
    }
}
