//! The payload of the second and third handshake message: `NoiseHandshakePayload{1: identity key, 2: signature,
//! 4: extensions}`, which ties the connection's static Noise key to the sender's identity
//! (libp2p specs, `noise/README.md`, "The libp2p Handshake Payload").

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

use super::{HandshakeError, PeerId};
use crate::wire::{self, DecodeError, Fields};

/// What stands before the static key in the signed text.
const SIGNED_PREFIX: &[u8] = b"noise-libp2p-static-key:";

/// `PublicKey{1: Ed25519, 2: 32 bytes}` without the key.
const ED25519_KEY_PREFIX: [u8; 4] = [0x08, 0x01, 0x12, 0x20];

/// The payload by which `identity` vouches for its static Noise key. Like go-libp2p's it ends in extensions
/// without any content, so that the messages are the same byte for byte.
pub(super) fn encode(identity: &SigningKey, static_public: &[u8; 32]) -> Vec<u8> {
    let key = [&ED25519_KEY_PREFIX[..], identity.verifying_key().as_bytes()].concat();
    let signature = identity.sign(&signed_text(static_public)).to_bytes();
    let mut payload = Vec::with_capacity(106);
    wire::put_bytes(&mut payload, 1, &key);
    wire::put_bytes(&mut payload, 2, &signature);
    wire::put_bytes_always(&mut payload, 4, &[]);
    payload
}

/// Whose payload it is, if that identity vouches for `static_public`.
///
/// Strict verification, for the reason given for SecretConnection: a key of small order would vouch for anything.
pub(super) fn verify(payload: &[u8], static_public: &[u8]) -> Result<PeerId, HandshakeError> {
    let (identity, signature) = decode(payload).map_err(|_| HandshakeError::PayloadMalformed)?;
    let key = decode_identity(identity.ok_or(HandshakeError::NoIdentity)?)?;
    let signature = Signature::from_slice(signature).map_err(|_| HandshakeError::SignatureInvalid)?;
    key.verify_strict(&signed_text(static_public), &signature)
        .map_err(|_| HandshakeError::SignatureInvalid)?;
    Ok(PeerId::from(&key))
}

fn signed_text(static_public: &[u8]) -> Vec<u8> {
    [SIGNED_PREFIX, static_public].concat()
}

/// Identity key and signature. Extensions name libp2p's stream muxers and the like, which `noise://` has not.
fn decode(payload: &[u8]) -> Result<(Option<&[u8]>, &[u8]), DecodeError> {
    let (mut identity, mut signature): (Option<&[u8]>, &[u8]) = (None, &[]);
    let mut fields = Fields::new("NoiseHandshakePayload", payload);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => identity = Some(field.bytes()?),
            2 => signature = field.bytes()?,
            _ => {}
        }
    }
    Ok((identity, signature))
}

/// Reads libp2p's `PublicKey{1: type, 2: data}` of type Ed25519.
fn decode_identity(message: &[u8]) -> Result<VerifyingKey, HandshakeError> {
    let (kind, data) = decode_public_key(message).map_err(|_| HandshakeError::PayloadMalformed)?;
    match kind {
        Some(1) => {}
        Some(0) => return Err(HandshakeError::IdentityNotEd25519 { kind: "RSA" }),
        Some(2) => return Err(HandshakeError::IdentityNotEd25519 { kind: "secp256k1" }),
        Some(3) => return Err(HandshakeError::IdentityNotEd25519 { kind: "ECDSA" }),
        Some(_) => return Err(HandshakeError::IdentityNotEd25519 { kind: "unknown" }),
        None => return Err(HandshakeError::NoIdentity),
    }
    let invalid = || HandshakeError::IdentityInvalid { length: data.len() };
    VerifyingKey::from_bytes(data.try_into().map_err(|_| invalid())?).map_err(|_| invalid())
}

fn decode_public_key(message: &[u8]) -> Result<(Option<u64>, &[u8]), DecodeError> {
    let (mut kind, mut data): (Option<u64>, &[u8]) = (None, &[]);
    let mut fields = Fields::new("PublicKey", message);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => kind = Some(field.varint()?),
            2 => data = field.bytes()?,
            _ => {}
        }
    }
    Ok((kind, data))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(payload: &[u8]) -> HandshakeError {
        verify(payload, &[7; 32]).unwrap_err()
    }

    #[test]
    fn names_what_is_wrong_with_a_payload() {
        let identity = SigningKey::from_bytes(&[1; 32]);
        let good = encode(&identity, &[7; 32]);
        assert_eq!(verify(&good, &[7; 32]), Ok(PeerId::from(&identity.verifying_key())));
        assert_eq!(verify(&good, &[8; 32]), Err(HandshakeError::SignatureInvalid));
        assert_eq!(refused(&[]), HandshakeError::NoIdentity);
        assert_eq!(refused(&[0x0a, 0x00]), HandshakeError::NoIdentity);
        assert_eq!(refused(&good[..good.len() - 1]), HandshakeError::PayloadMalformed);
        assert_eq!(refused(&good[..38]), HandshakeError::SignatureInvalid);
        for (kind, name) in [(0, "RSA"), (2, "secp256k1"), (3, "ECDSA"), (9, "unknown")] {
            let mut payload = good.clone();
            payload[3] = kind;
            assert_eq!(refused(&payload), HandshakeError::IdentityNotEd25519 { kind: name });
        }
    }

    #[test]
    fn refuses_an_identity_that_would_vouch_for_anything() {
        // The neutral element as key, and R = S = 0 in matching form: Go's equation holds for every message.
        let mut neutral = [0u8; 32];
        neutral[0] = 1;
        let mut payload = Vec::new();
        wire::put_bytes(&mut payload, 1, &[&ED25519_KEY_PREFIX[..], &neutral].concat());
        wire::put_bytes(&mut payload, 2, &[neutral, [0; 32]].concat());
        assert_eq!(refused(&payload), HandshakeError::SignatureInvalid);
    }
}
