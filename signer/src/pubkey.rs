//! An Ed25519 consensus public key and the forms in which chains, nodes and explorers show it.

use std::fmt;
use std::str::FromStr;

use bech32::{Bech32, Hrp};
use data_encoding::{BASE64, HEXLOWER, HEXLOWER_PERMISSIVE, HEXUPPER};
use sha2::{Digest, Sha256};
use thiserror::Error;

/// The 32 bytes of an Ed25519 public key, as a chain knows its validator.
///
/// Displays as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Wraps the 32 bytes of the key as RFC 8032 encodes a point. Whether they are one is not checked here.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes of the key.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The validator address: the first 20 bytes of the key's SHA-256 (CometBFT v0.38
    /// `crypto/ed25519/ed25519.go`, `PubKey.Address`).
    pub fn address(&self) -> Address {
        let mut address = [0; 20];
        address.copy_from_slice(&Sha256::digest(self.0)[..20]);
        Address(address)
    }

    /// Standard base64 of the 32 bytes.
    pub fn to_base64(&self) -> String {
        BASE64.encode(&self.0)
    }

    /// The Cosmos SDK's JSON, as in `create-validator` and the output of `comet show-validator`.
    pub fn to_cosmos_json(&self) -> String {
        format!(r#"{{"@type":"/cosmos.crypto.ed25519.PubKey","key":"{}"}}"#, self.to_base64())
    }

    /// CometBFT's JSON, as in `genesis.json`, `priv_validator_key.json` and the RPC answer of `/status`.
    pub fn to_cometbft_json(&self) -> String {
        format!(r#"{{"type":"tendermint/PubKeyEd25519","value":"{}"}}"#, self.to_base64())
    }

    /// The validator address in bech32 under `prefix`, for instance `cosmosvalcons`.
    ///
    /// # Errors
    /// If `prefix` is no bech32 prefix.
    pub fn valcons(&self, prefix: &str) -> Result<String, PrefixError> {
        bech32(prefix, self.address().as_bytes())
    }

    /// The key in bech32 under `prefix`, for instance `cosmosvalconspub`: the form of tmkms's `key_format` and of
    /// Cosmos SDK before v0.43.
    ///
    /// # Errors
    /// If `prefix` is no bech32 prefix.
    pub fn valconspub(&self, prefix: &str) -> Result<String, PrefixError> {
        // Amino's prefix of `tendermint/PubKeyEd25519`, then the length of the key.
        const AMINO_ED25519: [u8; 5] = [0x16, 0x24, 0xde, 0x64, 0x20];

        let mut amino = [0; 37];
        amino[..5].copy_from_slice(&AMINO_ED25519);
        amino[5..].copy_from_slice(&self.0);
        bech32(prefix, &amino)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// Reads the 64 hex digits that [`PublicKey`] displays as, in either case.
impl FromStr for PublicKey {
    type Err = PublicKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(|_| PublicKeyError)?;
        bytes.try_into().map(Self).map_err(|_| PublicKeyError)
    }
}

/// A validator address, 20 bytes. Displays as 40 upper-case hex digits, as CometBFT writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address([u8; 20]);

impl Address {
    /// The 20 bytes of the address.
    pub const fn as_bytes(&self) -> &[u8; 20] {
        &self.0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXUPPER.encode(&self.0))
    }
}

/// The prefix of addresses that belongs to a prefix of keys: `cosmosvalcons` for `cosmosvalconspub`.
///
/// `None` where the chain did not follow that pattern (IRISnet's `icp` and `ica`, for instance).
pub fn valcons_prefix(key_prefix: &str) -> Option<&str> {
    key_prefix.strip_suffix("pub").filter(|prefix| prefix.ends_with("valcons"))
}

/// Text that was meant to be a public key and is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a public key is 64 hex digits")]
pub struct PublicKeyError;

/// A prefix that bech32 does not allow.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "`{prefix}` is no bech32 prefix: use 1 to 40 characters without blanks and upper case, as in `cosmosvalconspub`"
)]
pub struct PrefixError {
    prefix: String,
}

/// Whether addresses and keys can be shown under a prefix.
///
/// # Errors
/// If `prefix` is no bech32 prefix.
pub fn check_prefix(prefix: &str) -> Result<(), PrefixError> {
    bech32(prefix, &[0; 37]).map(drop)
}

fn bech32(prefix: &str, data: &[u8]) -> Result<String, PrefixError> {
    // Bech32 itself allows 83 characters; a longer one than this would not leave room for a key within
    // bech32's 90.
    let ordinary = (1..=40).contains(&prefix.len())
        && prefix.bytes().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase());
    let error = || PrefixError { prefix: prefix.to_owned() };
    if !ordinary {
        return Err(error());
    }
    let hrp = Hrp::parse(prefix).map_err(|_| error())?;
    bech32::encode::<Bech32>(hrp, data).map_err(|_| error())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> PublicKey {
        "4A25C6640A1F72B9C975338294EF51B6D1C33158BB6ECBA69FBC3FB5A33C9DCE".parse().unwrap()
    }

    #[test]
    fn valconspub_equals_the_vector_of_tendermint_rs() {
        // tendermint-rs v0.34 `tendermint/src/public_key.rs`, `test_consensus_serialization`.
        assert_eq!(
            example().valconspub("cosmosvalconspub").unwrap(),
            "cosmosvalconspub1zcjduepqfgjuveq2raetnjt4xwpffm63kmguxv2chdhvhf5lhslmtgeunh8qmf7exk"
        );
    }

    #[test]
    fn valcons_holds_the_address_as_bech32() {
        let text = example().valcons("osmovalcons").unwrap();
        let (hrp, bytes) = bech32::decode(&text).unwrap();
        assert_eq!(hrp.as_str(), "osmovalcons");
        assert_eq!(bytes, example().address().as_bytes());
        let checked = bech32::primitives::decode::CheckedHrpstring::new::<Bech32>(&text);
        assert!(checked.is_ok(), "bech32, not bech32m");
    }

    #[test]
    fn json_forms_hold_the_same_base64() {
        let key = example();
        let base64 = "SiXGZAofcrnJdTOClO9RttHDMVi7bsumn7w/taM8nc4=";
        assert_eq!(
            key.to_cosmos_json(),
            format!(r#"{{"@type":"/cosmos.crypto.ed25519.PubKey","key":"{base64}"}}"#)
        );
        assert_eq!(
            key.to_cometbft_json(),
            format!(r#"{{"type":"tendermint/PubKeyEd25519","value":"{base64}"}}"#)
        );
    }

    #[test]
    fn hex_is_read_back_and_other_lengths_are_refused() {
        let key = example();
        assert_eq!(key.to_string().parse::<PublicKey>(), Ok(key));
        for bad in ["", "4a25", &format!("{key}00"), &key.to_string().replace('4', "g")] {
            assert_eq!(bad.parse::<PublicKey>(), Err(PublicKeyError));
        }
    }

    #[test]
    fn refuses_what_is_no_prefix() {
        for bad in ["", "Cosmos", "cosmos valcons", "cosmos\n", &"x".repeat(41)] {
            assert!(example().valcons(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn address_prefix_follows_from_the_usual_key_prefix_only() {
        assert_eq!(valcons_prefix("cosmosvalconspub"), Some("cosmosvalcons"));
        assert_eq!(valcons_prefix("icp"), None);
        assert_eq!(valcons_prefix("cosmospub"), None);
    }
}
