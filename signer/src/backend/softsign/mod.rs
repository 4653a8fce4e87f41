//! A consensus key in a file, signing in this process.
//!
//! [`key_file`] is the file at rest and [`unlock`] how it is opened at start; [`Softsign`] is what signs
//! afterwards. Softsign alone cannot stop a second copy of the disk from signing: that takes an HSM or threshold
//! signing.

pub mod key_file;
pub mod unlock;
pub mod vault;

use std::fmt;

use ed25519_dalek::VerifyingKey;
use ed25519_dalek::hazmat::{ExpandedSecretKey, raw_sign};
use sha2::Sha512;

use crate::consensus_key::ConsensusKey;
use crate::pubkey::PublicKey;

/// A consensus key, ready to sign.
///
/// Holds the 64 bytes that signing needs, in one heap allocation that is wiped on drop, and no seed. Signing takes
/// `&self`, allocates nothing and is deterministic: the same message gives the same signature.
pub struct Softsign {
    secret: Box<ExpandedSecretKey>,
    verifying_key: VerifyingKey,
}

impl Softsign {
    /// Takes over a key. The seed, if it has one, is wiped.
    pub fn new(key: ConsensusKey) -> Self {
        let secret = key.to_expanded_secret();
        let verifying_key = VerifyingKey::from(secret.as_ref());
        Self { secret, verifying_key }
    }

    /// The public key of every signature.
    pub fn public_key(&self) -> PublicKey {
        PublicKey::from_bytes(self.verifying_key.to_bytes())
    }

    /// Signs `message` with Ed25519 (RFC 8032 section 5.1.6). What may be signed is for the guard to say.
    pub(super) fn sign(&self, message: &[u8]) -> [u8; 64] {
        raw_sign::<Sha512>(&self.secret, message, &self.verifying_key).to_bytes()
    }
}

impl fmt::Debug for Softsign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Softsign").field("public_key", &self.public_key()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signature, Signer, SigningKey};
    use proptest::prelude::*;
    use sha2::Digest;

    use super::*;

    proptest! {
        #[test]
        fn signs_as_the_signing_key_of_the_seed_does(seed: [u8; 32], message: Vec<u8>) {
            let reference = SigningKey::from_bytes(&seed);
            let softsign = Softsign::new(ConsensusKey::from_seed(&seed));
            prop_assert_eq!(softsign.sign(&message), reference.sign(&message).to_bytes());
            prop_assert_eq!(*softsign.public_key().as_bytes(), reference.verifying_key().to_bytes());
        }

        #[test]
        fn expanded_secret_signs_as_its_seed_does(seed: [u8; 32], message: Vec<u8>) {
            let reference = SigningKey::from_bytes(&seed);
            let public_key = PublicKey::from_bytes(reference.verifying_key().to_bytes());
            let expanded: [u8; 64] = Sha512::digest(seed).into();
            let softsign = Softsign::new(ConsensusKey::from_expanded(&expanded, &public_key).unwrap());
            prop_assert_eq!(softsign.sign(&message), reference.sign(&message).to_bytes());
            let signature = Signature::from_bytes(&softsign.sign(&message));
            prop_assert!(reference.verifying_key().verify_strict(&message, &signature).is_ok());
        }
    }

    #[test]
    fn debug_shows_the_public_key_only() {
        let softsign = Softsign::new(ConsensusKey::from_seed(&[7; 32]));
        assert_eq!(
            format!("{softsign:?}"),
            format!("Softsign {{ public_key: {:?}, .. }}", softsign.public_key())
        );
    }
}
