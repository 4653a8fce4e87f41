//! The node's end of a connection, in the hands of an attacker.
//!
//! All keys are fixed: the same input is the same run. The peers that hold the keys of a session and say what no
//! honest peer says are written from the specifications, not with the signer's own code.

use std::cmp::Ordering;

use chacha20poly1305::{AeadInPlace, ChaCha20Poly1305, KeyInit};
use ed25519_dalek::{Signer, SigningKey};
use hkdf::Hkdf;
use monosign::session::{Event, Session};
use monosign_protocol::{noise, secret_connection};
use sha2::Sha256;
use x25519_dalek::{PublicKey, StaticSecret};

const SIGNER: [u8; 32] = [1; 32];
const SIGNER_EPHEMERAL: [u8; 32] = [2; 32];
const NODE: [u8; 32] = [3; 32];
const NODE_EPHEMERAL: [u8; 32] = [4; 32];
const NODE_STATIC: [u8; 32] = [5; 32];

fn identity(seed: [u8; 32]) -> SigningKey {
    SigningKey::from_bytes(&seed)
}

/// The signer's session over SecretConnection, before the peer said anything.
pub fn secret_session() -> Session {
    Session::secret(secret_connection::Handshake::new(&identity(SIGNER), SIGNER_EPHEMERAL), None)
}

/// The signer's session over noise, which expects the node.
pub fn noise_session() -> Session {
    let entropy = noise::Entropy { static_key: [6; 32], ephemeral: SIGNER_EPHEMERAL };
    let expected = noise::PeerId::from(&identity(NODE).verifying_key());
    Session::noise(noise::Handshake::initiator(&identity(SIGNER), expected, entropy))
}

/// An honest handshake over SecretConnection: the established session, and what seals for it.
pub fn honest_secret() -> (Session, secret_connection::Sealer) {
    let mut session = secret_session();
    let mut node = secret_connection::Handshake::new(&identity(NODE), NODE_EPHEMERAL);
    while !(session.is_established() && node.is_established()) {
        assert_eq!(node.handle(session.outbox()), Ok(session.outbox().len()));
        session.sent();
        while let Some(bytes) = node.poll_transmit() {
            session.handle_bytes(&bytes).expect("an honest node");
        }
        expect_established(&mut session);
    }
    (session, node.established().expect("established").sealer)
}

/// An honest handshake over noise: the established session, and what seals for it.
pub fn honest_noise() -> (Session, noise::Sealer) {
    let mut session = noise_session();
    let entropy = noise::Entropy { static_key: NODE_STATIC, ephemeral: NODE_EPHEMERAL };
    let mut node = noise::Handshake::responder(&identity(NODE), None, entropy);
    while !(session.is_established() && node.is_established()) {
        assert_eq!(node.handle(session.outbox()), Ok(session.outbox().len()));
        session.sent();
        while let Some(bytes) = node.poll_transmit() {
            session.handle_bytes(&bytes).expect("an honest node");
        }
        expect_established(&mut session);
    }
    (session, node.established().expect("established").sealer)
}

/// Takes the event that follows the end of a handshake, if it is there.
fn expect_established(session: &mut Session) {
    while let Some(event) = session.poll_event().expect("an honest node") {
        assert!(matches!(event, Event::Established(_)));
    }
}

/// A peer of a [`secret_session`] that agreed on keys and then seals whatever it likes in place of its proof.
pub struct SecretPeer {
    cipher: ChaCha20Poly1305,
    nonce: u64,
}

impl SecretPeer {
    /// The peer, and the message with its ephemeral key.
    pub fn new() -> (Self, Vec<u8>) {
        let secret = StaticSecret::from(NODE_EPHEMERAL);
        let ours = PublicKey::from(&secret);
        let theirs = PublicKey::from(&StaticSecret::from(SIGNER_EPHEMERAL));
        let (receive, send) = keys(&secret, &ours, &theirs);
        drop(receive);
        let message = [&[0x22, 0x0a, 0x20], &ours.as_bytes()[..]].concat();
        (Self { cipher: send, nonce: 0 }, message)
    }

    /// Seals one frame: length and data are the attacker's, and need not agree.
    pub fn seal(&mut self, length: u32, data: &[u8], out: &mut Vec<u8>) {
        let mut frame = length.to_le_bytes().to_vec();
        frame.extend_from_slice(&data[..data.len().min(secret_connection::FRAME_DATA)]);
        frame.resize(4 + secret_connection::FRAME_DATA, 0);
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&self.nonce.to_le_bytes());
        self.nonce += 1;
        self.cipher.encrypt_in_place(&nonce.into(), &[], &mut frame).expect("a short frame");
        out.extend_from_slice(&frame);
    }
}

/// The proof that the node would send to a [`secret_session`]: a seed for [`SecretPeer`].
pub fn honest_proof() -> Vec<u8> {
    let mut node = secret_connection::Handshake::new(&identity(NODE), NODE_EPHEMERAL);
    node.handle(secret_session().outbox()).expect("an honest signer");
    let _ephemeral = node.poll_transmit();
    let mut frame = node.poll_transmit().expect("the proof");
    let (cipher, nonce) = (SecretPeer::new().0.cipher, [0; 12]);
    cipher.decrypt_in_place(&nonce.into(), &[], &mut frame).expect("sealed by the node");
    let length = u32::from_le_bytes([frame[0], frame[1], frame[2], frame[3]]) as usize;
    frame[4..4 + length].to_vec()
}

/// Receiving and sending cipher of the side with `ours`.
fn keys(secret: &StaticSecret, ours: &PublicKey, theirs: &PublicKey) -> (ChaCha20Poly1305, ChaCha20Poly1305) {
    let mut okm = [0; 96];
    Hkdf::<Sha256>::new(None, secret.diffie_hellman(theirs).as_bytes())
        .expand(b"TENDERMINT_SECRET_CONNECTION_KEY_AND_CHALLENGE_GEN", &mut okm)
        .expect("96 bytes are few");
    let first = ChaCha20Poly1305::new(okm[..32].into());
    let second = ChaCha20Poly1305::new(okm[32..64].into());
    match ours.as_bytes().cmp(theirs.as_bytes()) {
        Ordering::Less => (first, second),
        _ => (second, first),
    }
}

/// The answer of a noise peer to a [`noise_session`], well-formed but for its payload, which is the attacker's.
pub fn noise_answer(first_message: &[u8], payload: &[u8]) -> Vec<u8> {
    let protocol = "Noise_XX_25519_ChaChaPoly_SHA256".parse().expect("a protocol");
    let mut noise = snow::Builder::new(protocol)
        .local_private_key(&NODE_STATIC)
        .map(|builder| builder.fixed_ephemeral_key_for_testing_only(&NODE_EPHEMERAL))
        .and_then(snow::Builder::build_responder)
        .expect("fixed keys");
    let mut message = vec![0; 2 * usize::from(u16::MAX)];
    noise.read_message(&first_message[2..], &mut message).expect("an honest signer");
    let payload = &payload[..payload.len().min(60_000)];
    let length = noise.write_message(payload, &mut message).expect("room for it");
    let prefix = u16::try_from(length).expect("a noise message").to_be_bytes();
    [&prefix, &message[..length]].concat()
}

/// The payload that the node would send: a seed for [`noise_answer`].
pub fn honest_payload() -> Vec<u8> {
    let identity = identity(NODE);
    let static_public = PublicKey::from(&StaticSecret::from(NODE_STATIC));
    let signature = identity.sign(&[b"noise-libp2p-static-key:", &static_public.as_bytes()[..]].concat());
    let key = [&[0x08, 0x01, 0x12, 0x20], &identity.verifying_key().as_bytes()[..]].concat();
    [&[0x0a, 36][..], &key, &[0x12, 64], &signature.to_bytes(), &[0x22, 0]].concat()
}
