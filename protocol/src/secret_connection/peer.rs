use std::{fmt, str::FromStr};

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use ed25519_dalek::VerifyingKey;
use sha2::{Digest, Sha256};

/// Who the peer proved to be in the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerIdentity {
    key: VerifyingKey,
}

impl PeerIdentity {
    /// The identity that has this key.
    pub fn new(key: VerifyingKey) -> Self {
        Self { key }
    }

    /// The peer's Ed25519 identity key.
    pub fn key(&self) -> &VerifyingKey {
        &self.key
    }

    /// The short name of the key, as in `tcp://PEER_ID@host:port`.
    pub fn id(&self) -> PeerId {
        PeerId::from(&self.key)
    }
}

/// The address of an Ed25519 identity key: the first 20 bytes of its SHA-256, written as 40 hexadecimal digits
/// (CometBFT `p2p/key.go`, `PubKeyToID`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId([u8; PeerId::LENGTH]);

impl PeerId {
    /// Bytes in a peer id.
    pub const LENGTH: usize = 20;

    /// The 20 bytes.
    pub fn as_bytes(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }
}

impl From<&VerifyingKey> for PeerId {
    fn from(key: &VerifyingKey) -> Self {
        let digest: [u8; 32] = Sha256::digest(key.as_bytes()).into();
        let mut id = [0; Self::LENGTH];
        id.copy_from_slice(&digest[..Self::LENGTH]);
        Self(id)
    }
}

impl FromStr for PeerId {
    type Err = ParsePeerIdError;

    /// Reads 40 hexadecimal digits of either case.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || ParsePeerIdError { text: text.chars().take(2 * Self::LENGTH).collect() };
        if text.len() != 2 * Self::LENGTH {
            return Err(refused());
        }
        let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(|_| refused())?;
        bytes.try_into().map(Self).map_err(|_| refused())
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerId({self})")
    }
}

/// The text is not a [`PeerId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a peer id: expected 40 hexadecimal digits, the address of the peer's identity key")]
pub struct ParsePeerIdError {
    text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_ids_are_the_first_half_of_the_keys_hash_in_hex() {
        let key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]).verifying_key();
        let id = PeerIdentity::new(key).id();
        assert_eq!(id.as_bytes()[..], Sha256::digest(key.as_bytes())[..20]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.to_string().to_uppercase().parse(), Ok(id));
        assert_eq!(format!("{id:?}"), format!("PeerId({id})"));
    }

    #[test]
    fn refuses_what_is_not_forty_digits() {
        for text in ["", "ab", &"g".repeat(40), &"a".repeat(39), &"a".repeat(42), &"é".repeat(20)] {
            assert!(text.parse::<PeerId>().is_err(), "{text}");
        }
    }
}
