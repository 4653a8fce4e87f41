//! SecretConnection step by step, so that each step can be done wrongly.
//!
//! An implementation of its own beside [`monosign_protocol::secret_connection`], which can do nothing wrong; the two check
//! each other (CometBFT v0.38 `p2p/conn/secret_connection.go`).

use chacha20poly1305::{AeadInPlace, ChaCha20Poly1305, Key, KeyInit, Nonce, Tag};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use hkdf::Hkdf;
use merlin::Transcript;
use sha2::Sha256;
use x25519_dalek::{PublicKey, StaticSecret};

/// Bytes of data in a frame, and of a frame on the wire.
pub const FRAME_DATA: usize = 1024;
/// Length, data and tag.
pub const FRAME_SIZE: usize = 4 + FRAME_DATA + 16;
/// Bytes of the first message: length, tag, length, key.
pub const HELLO_SIZE: usize = 35;

/// One end's ephemeral key.
pub struct Ephemeral {
    secret: StaticSecret,
    public: [u8; 32],
}

/// What both ends derive from their ephemeral keys.
pub struct Keys {
    /// What the identities sign.
    pub challenge: [u8; 32],
    /// Whether the peer's point was of an order that makes a secret.
    pub is_contributory: bool,
    send: ChaCha20Poly1305,
    receive: ChaCha20Poly1305,
    /// How many frames were sealed.
    pub sent: u64,
    /// How many frames were opened.
    pub received: u64,
}

impl Ephemeral {
    /// The key whose secret is `bytes`.
    pub fn new(bytes: [u8; 32]) -> Self {
        let secret = StaticSecret::from(bytes);
        let public = PublicKey::from(&secret).to_bytes();
        Self { secret, public }
    }

    /// The first message.
    pub fn hello(&self) -> Vec<u8> {
        hello(&self.public)
    }

    /// Takes the peer's key, whatever it is.
    pub fn agree(&self, theirs: &[u8; 32]) -> Keys {
        let ours = &self.public;
        let secret = self.secret.diffie_hellman(&PublicKey::from(*theirs));
        let (lower, upper) = if ours < theirs { (ours, theirs) } else { (theirs, ours) };
        let mut transcript = Transcript::new(b"TENDERMINT_SECRET_CONNECTION_TRANSCRIPT_HASH");
        transcript.append_message(b"EPHEMERAL_LOWER_PUBLIC_KEY", lower);
        transcript.append_message(b"EPHEMERAL_UPPER_PUBLIC_KEY", upper);
        transcript.append_message(b"DH_SECRET", secret.as_bytes());
        let mut challenge = [0; 32];
        transcript.challenge_bytes(b"SECRET_CONNECTION_MAC", &mut challenge);
        let mut okm = [0; 96];
        Hkdf::<Sha256>::new(None, secret.as_bytes())
            .expand(b"TENDERMINT_SECRET_CONNECTION_KEY_AND_CHALLENGE_GEN", &mut okm)
            .expect("96 bytes are less than HKDF-SHA256's limit of 8160");
        let [first, second] =
            [&okm[..32], &okm[32..64]].map(|key| ChaCha20Poly1305::new(Key::from_slice(key)));
        let (receive, send) = if ours < theirs { (first, second) } else { (second, first) };
        Keys { challenge, is_contributory: secret.was_contributory(), send, receive, sent: 0, received: 0 }
    }
}

/// The first message for a key: `BytesValue{1: key}` behind its length.
pub fn hello(key: &[u8; 32]) -> Vec<u8> {
    [&[0x22, 0x0a, 0x20], &key[..]].concat()
}

/// The key in a first message.
pub fn key_of(hello: &[u8]) -> Option<[u8; 32]> {
    hello.strip_prefix(&[0x22, 0x0a, 0x20])?.try_into().ok()
}

/// The message that proves an identity, in plain: `AuthSigMessage{1: PublicKey{kind: key}, 2: signature}` behind its length.
///
/// `kind` is 1 for ed25519.
pub fn proof(kind: u8, key: &[u8; 32], signature: &[u8; 64]) -> Vec<u8> {
    let tag = kind << 3 | 2;
    [&[102, 0x0a, 34, tag, 32], &key[..], &[0x12, 64], &signature[..]].concat()
}

/// Whether a message in plain proves an identity of type ed25519, and which.
pub fn proven(message: &[u8], challenge: &[u8; 32]) -> Option<VerifyingKey> {
    let rest = message.strip_prefix(&[102, 0x0a, 34, 0x0a, 32])?;
    let (key, rest) = rest.split_first_chunk::<32>()?;
    let signature = Signature::from_slice(rest.strip_prefix(&[0x12, 64])?).ok()?;
    let key = VerifyingKey::from_bytes(key).ok()?;
    key.verify_strict(challenge, &signature).is_ok().then_some(key)
}

impl Keys {
    /// The honest proof of an identity, in plain.
    pub fn proof(&self, identity: &SigningKey) -> Vec<u8> {
        let signature = identity.sign(&self.challenge).to_bytes();
        proof(1, identity.verifying_key().as_bytes(), &signature)
    }

    /// All frames of `data`.
    pub fn seal(&mut self, data: &[u8]) -> Vec<u8> {
        data.chunks(FRAME_DATA).flat_map(|data| self.seal_frame(data.len() as u32, data, 0)).collect()
    }

    /// One frame that claims to hold `length` bytes, with `padding` behind the data.
    pub fn seal_frame(&mut self, length: u32, data: &[u8], padding: u8) -> Vec<u8> {
        let mut frame = length.to_le_bytes().to_vec();
        frame.extend_from_slice(data);
        frame.resize(FRAME_SIZE - 16, padding);
        let tag = self.send.encrypt_in_place_detached(&nonce(self.sent), &[], &mut frame);
        frame.extend_from_slice(&tag.expect("a frame is shorter than the cipher's limit of 256 GiB"));
        self.sent += 1;
        frame
    }

    /// The data of a frame, if it is the peer's next one.
    pub fn open(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        let (length, mut data) = self.open_whole(frame)?;
        let length = usize::try_from(length).ok().filter(|length| *length <= FRAME_DATA)?;
        data.truncate(length);
        Some(data)
    }

    /// The length that a frame claims, and its data with the padding, if it is the peer's next one.
    pub fn open_whole(&mut self, frame: &[u8]) -> Option<(u32, Vec<u8>)> {
        let (sealed, tag) = frame.split_at_checked(FRAME_SIZE - 16)?;
        let mut plain = sealed.to_vec();
        let (nonce, tag) = (nonce(self.received), Tag::from_slice(tag));
        self.receive.decrypt_in_place_detached(&nonce, &[], &mut plain, tag).ok()?;
        self.received += 1;
        let data = plain.split_off(4);
        Some((u32::from_le_bytes(plain.try_into().ok()?), data))
    }
}

fn nonce(counter: u64) -> Nonce {
    let mut nonce = Nonce::default();
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}
