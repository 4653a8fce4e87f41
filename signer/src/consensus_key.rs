//! A consensus key in memory: an Ed25519 secret, checked against its public key.

use std::fmt;

use ed25519_dalek::SigningKey;
use ed25519_dalek::VerifyingKey;
use ed25519_dalek::hazmat::ExpandedSecretKey;
use secrecy::{ExposeSecret, SecretBox};
use subtle::ConstantTimeEq;
use thiserror::Error;

use crate::pubkey::PublicKey;

/// An Ed25519 secret and the public key that it was checked to belong to.
///
/// The secret lives in one heap allocation that is wiped on drop; moving the value moves a pointer. `Debug` shows
/// the public key only.
pub struct ConsensusKey {
    secret: Secret,
    public_key: PublicKey,
}

/// The two forms in which consensus keys exist.
enum Secret {
    /// RFC 8032's 32-byte private key, from which scalar and prefix are hashed.
    Seed(SecretBox<[u8; 32]>),
    /// The hash itself: 32 bytes of clamped scalar, little-endian, then the 32-byte prefix. Only keys that come
    /// out of an HSM have no seed.
    Expanded(SecretBox<[u8; 64]>),
}

impl ConsensusKey {
    /// Takes the 32-byte seed of RFC 8032 and computes its public key.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let public_key = PublicKey::from_bytes(SigningKey::from_bytes(seed).verifying_key().to_bytes());
        let secret =
            Secret::Seed(SecretBox::init_with_mut(|bytes: &mut [u8; 32]| bytes.copy_from_slice(seed)));
        Self { secret, public_key }
    }

    /// Takes an expanded secret, 32 bytes of clamped little-endian scalar and 32 bytes of prefix, that must belong
    /// to `public_key`.
    ///
    /// # Errors
    /// If the scalar yields another public key; or if the bytes are a seed followed by its public key, the form of
    /// CometBFT: read as an expanded secret, its prefix would be public, and one signature would give the secret
    /// away.
    pub fn from_expanded(expanded: &[u8; 64], public_key: &PublicKey) -> Result<Self, ExpandedKeyError> {
        if seed_of_pair(expanded).is_some() {
            return Err(ExpandedKeyError::SeedAndPublicKey);
        }
        let belongs = VerifyingKey::from(&ExpandedSecretKey::from_bytes(expanded)).to_bytes();
        if belongs != *public_key.as_bytes() {
            return Err(ExpandedKeyError::OtherPublicKey { belongs: PublicKey::from_bytes(belongs) });
        }
        let mut secret = Box::new([0; 64]);
        secret.copy_from_slice(expanded);
        Ok(Self { secret: Secret::Expanded(SecretBox::new(secret)), public_key: *public_key })
    }

    /// The public key of this secret.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// The seed, if the key has one. The caller must not let it leave the process in the clear.
    pub fn expose_seed(&self) -> Option<&[u8; 32]> {
        match &self.secret {
            Secret::Seed(seed) => Some(seed.expose_secret()),
            Secret::Expanded(_) => None,
        }
    }

    /// The expanded secret, if that is the form the key came in; see [`Self::from_expanded`].
    pub fn expose_expanded(&self) -> Option<&[u8; 64]> {
        match &self.secret {
            Secret::Seed(_) => None,
            Secret::Expanded(expanded) => Some(expanded.expose_secret()),
        }
    }

    /// The form that signs: scalar and prefix.
    pub(crate) fn to_expanded_secret(&self) -> Box<ExpandedSecretKey> {
        match &self.secret {
            Secret::Seed(seed) => Box::new(ExpandedSecretKey::from(seed.expose_secret())),
            Secret::Expanded(expanded) => Box::new(ExpandedSecretKey::from_bytes(expanded.expose_secret())),
        }
    }
}

impl fmt::Debug for ConsensusKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsensusKey").field("public_key", &self.public_key).finish_non_exhaustive()
    }
}

/// The seed, if the 64 bytes are a seed followed by its own public key (the value of CometBFT's
/// `tendermint/PrivKeyEd25519` and Go's `ed25519.PrivateKey`).
pub(crate) fn seed_of_pair(pair: &[u8; 64]) -> Option<&[u8; 32]> {
    let (seed, public_key) = pair.split_first_chunk::<32>()?;
    let own = SigningKey::from_bytes(seed).verifying_key().to_bytes();
    bool::from(own.as_slice().ct_eq(public_key)).then_some(seed)
}

/// Why 64 bytes are not the expanded secret of the given public key.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ExpandedKeyError {
    /// The bytes are CometBFT's seed and public key.
    #[error("the 64 bytes are a seed and its public key, not an expanded secret")]
    SeedAndPublicKey,
    /// The scalar belongs to another public key.
    #[error("the expanded secret belongs to public key `{belongs}`, not to the one given")]
    OtherPublicKey {
        /// The public key of the scalar.
        belongs: PublicKey,
    },
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha512};

    use super::*;

    const SEED: [u8; 32] = [7; 32];

    /// RFC 8032 section 5.1.5, steps 1 and 2.
    fn expand(seed: &[u8; 32]) -> [u8; 64] {
        let mut expanded: [u8; 64] = Sha512::digest(seed).into();
        expanded[0] &= 248;
        expanded[31] &= 127;
        expanded[31] |= 64;
        expanded
    }

    #[test]
    fn expanded_secret_of_a_seed_has_the_same_public_key() {
        let key = ConsensusKey::from_seed(&SEED);
        let expanded = ConsensusKey::from_expanded(&expand(&SEED), key.public_key()).unwrap();
        assert_eq!(expanded.public_key(), key.public_key());
        assert!(expanded.expose_seed().is_none() && key.expose_expanded().is_none());
    }

    #[test]
    fn refuses_an_expanded_secret_of_another_key() {
        let other = *ConsensusKey::from_seed(&[8; 32]).public_key();
        let error = ConsensusKey::from_expanded(&expand(&SEED), &other).unwrap_err();
        assert_eq!(
            error,
            ExpandedKeyError::OtherPublicKey { belongs: *ConsensusKey::from_seed(&SEED).public_key() }
        );
    }

    #[test]
    fn refuses_seed_and_public_key_as_expanded_secret_even_with_the_key_it_would_yield() {
        let pair = SigningKey::from_bytes(&SEED).to_keypair_bytes();
        let would_be = VerifyingKey::from(&ExpandedSecretKey::from_bytes(&pair)).to_bytes();
        let error = ConsensusKey::from_expanded(&pair, &PublicKey::from_bytes(would_be)).unwrap_err();
        assert_eq!(error, ExpandedKeyError::SeedAndPublicKey);
    }

    #[test]
    fn debug_shows_the_public_key_only() {
        let key = ConsensusKey::from_seed(&SEED);
        let shown = format!("{key:?}");
        assert!(shown.contains(&key.public_key().to_string()));
        assert!(!shown.contains("07070707") && !shown.contains("7, 7"));
    }
}
