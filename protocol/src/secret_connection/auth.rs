//! The message by which each side proves its identity: `AuthSigMessage{1: PublicKey, 2: signature}`, delimited
//! by its length (CometBFT `proto/tendermint/p2p/conn.proto`).

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

use super::{HandshakeError, peer::PeerIdentity};
use crate::wire::{self, DecodeError, Fields};

/// What the peer claims. The claim holds once [`AuthMessage::verify`] says so.
#[derive(Debug, Default)]
pub(super) struct AuthMessage<'a> {
    identity: Option<Identity<'a>>,
    signature: &'a [u8],
}

#[derive(Debug, Clone, Copy)]
enum Identity<'a> {
    Ed25519(&'a [u8]),
    Other(&'static str),
}

impl<'a> AuthMessage<'a> {
    /// Reads the message without its length.
    pub(super) fn decode(message: &'a [u8]) -> Result<Self, DecodeError> {
        let mut decoded = Self::default();
        let mut fields = Fields::new("AuthSigMessage", message);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => decoded.identity = decode_public_key(field.bytes()?)?,
                2 => decoded.signature = field.bytes()?,
                _ => {}
            }
        }
        Ok(decoded)
    }

    /// Checks that the peer's identity key signed the challenge.
    ///
    /// Strict verification: Go's cofactorless equation (or, since v0.38, ZIP-215's laxer one), and besides no
    /// keys or nonces of small order. No honest peer has those, and a small-order key would have signatures that
    /// hold for any challenge, so it would prove nothing about this connection.
    pub(super) fn verify(&self, challenge: &[u8; 32]) -> Result<PeerIdentity, HandshakeError> {
        let key = match self.identity.ok_or(HandshakeError::NoIdentity)? {
            Identity::Ed25519(key) => key,
            Identity::Other(kind) => return Err(HandshakeError::IdentityNotEd25519 { kind }),
        };
        let invalid = || HandshakeError::IdentityInvalid { length: key.len() };
        let key = VerifyingKey::from_bytes(key.try_into().map_err(|_| invalid())?).map_err(|_| invalid())?;
        let signature =
            Signature::from_slice(self.signature).map_err(|_| HandshakeError::SignatureInvalid)?;
        key.verify_strict(challenge, &signature).map_err(|_| HandshakeError::SignatureInvalid)?;
        Ok(PeerIdentity::new(key))
    }
}

/// Our own message, with its length.
pub(super) fn encode(identity: &SigningKey, challenge: &[u8; 32]) -> Vec<u8> {
    let mut key = Vec::with_capacity(34);
    wire::put_bytes(&mut key, 1, identity.verifying_key().as_bytes());
    let mut message = Vec::with_capacity(103);
    message.push(102);
    wire::put_bytes(&mut message, 1, &key);
    wire::put_bytes(&mut message, 2, &identity.sign(challenge).to_bytes());
    debug_assert_eq!(message.len(), 103);
    message
}

/// Reads `tendermint.crypto.PublicKey`: of a oneof's arms the last one counts.
fn decode_public_key(message: &[u8]) -> Result<Option<Identity<'_>>, DecodeError> {
    let mut identity = None;
    let mut fields = Fields::new("PublicKey", message);
    while let Some(field) = fields.next()? {
        identity = Some(match field.number {
            1 => Identity::Ed25519(field.bytes()?),
            2 => Identity::Other("secp256k1"),
            3 => Identity::Other("bls12_381"),
            4 => Identity::Other("mldsa65"),
            5 => Identity::Other("secp256k1eth"),
            _ => continue,
        });
    }
    Ok(identity)
}
