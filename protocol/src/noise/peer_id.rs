use std::{fmt, str::FromStr};

use ed25519_dalek::VerifyingKey;

/// The name of an Ed25519 identity in libp2p, written in base58: "12D3KooW…".
///
/// It holds the whole key: an identity multihash (`00 24`) of the protobuf
/// `PublicKey{1: Ed25519, 2: key}` (<https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md>).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId([u8; 32]);

/// Identity multihash, 36 bytes; `PublicKey`: type 1 (Ed25519), 32 bytes of key.
const PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

/// Characters in the base58 of 38 bytes that begin with `00 24`.
const TEXT_LENGTH: usize = 52;

impl PeerId {
    /// The identity's Ed25519 public key.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<&VerifyingKey> for PeerId {
    fn from(key: &VerifyingKey) -> Self {
        Self(key.to_bytes())
    }
}

impl FromStr for PeerId {
    type Err = ParsePeerIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || ParsePeerIdError { text: text.chars().take(TEXT_LENGTH).collect() };
        if text.len() != TEXT_LENGTH {
            return Err(refused());
        }
        let bytes = base58_decode(text).ok_or_else(refused)?;
        let key = bytes.strip_prefix(&PREFIX).and_then(|key| key.try_into().ok()).ok_or_else(refused)?;
        VerifyingKey::from_bytes(key).map(|key| Self::from(&key)).map_err(|_| refused())
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base58_encode(&[&PREFIX[..], &self.0].concat()))
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerId({self})")
    }
}

/// The text is not a [`PeerId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not the libp2p peer id of an ed25519 key: expected 52 base58 characters that begin with `12D3KooW`"
)]
pub struct ParsePeerIdError {
    text: String,
}

const ALPHABET: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";

/// Base58 with Bitcoin's alphabet: one `1` for each zero byte in front, then the number in base 58. Quadratic:
/// for short inputs only.
fn base58_encode(bytes: &[u8]) -> String {
    let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
    let digits = change_base(bytes[zeros..].iter().copied(), 256, 58);
    let digits = digits.iter().rev().map(|&digit| char::from(ALPHABET[usize::from(digit)]));
    std::iter::repeat_n('1', zeros).chain(digits).collect()
}

/// The inverse of [`base58_encode`], or `None` for a character that is not in the alphabet.
fn base58_decode(text: &str) -> Option<Vec<u8>> {
    let digit = |c| ALPHABET.iter().position(|&a| a == c).map(|digit| digit as u8);
    let digits: Vec<u8> = text.bytes().map(digit).collect::<Option<_>>()?;
    let zeros = digits.iter().take_while(|&&digit| digit == 0).count();
    let bytes = change_base(digits[zeros..].iter().copied(), 58, 256);
    Some(std::iter::repeat_n(0, zeros).chain(bytes.into_iter().rev()).collect())
}

/// The number whose digits in base `from` come most significant first, as digits in base `to`, least significant
/// first.
fn change_base(digits: impl Iterator<Item = u8>, from: u32, to: u32) -> Vec<u8> {
    let mut number: Vec<u8> = Vec::with_capacity(TEXT_LENGTH);
    for digit in digits {
        let mut carry = u32::from(digit);
        for place in &mut number {
            carry += u32::from(*place) * from;
            *place = (carry % to) as u8;
            carry /= to;
        }
        while carry > 0 {
            number.push((carry % to) as u8);
            carry /= to;
        }
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(seed: u8) -> PeerId {
        PeerId::from(&ed25519_dalek::SigningKey::from_bytes(&[seed; 32]).verifying_key())
    }

    #[test]
    fn base58_agrees_with_its_draft() {
        // draft-msporny-base58-03, section 5.
        for (bytes, text) in [
            (&b"Hello World!"[..], "2NEpo7TZRRrLZSi2U"),
            (
                b"The quick brown fox jumps over the lazy dog.",
                "USm3fpXnKG5EUBx2ndxBDMPVciP5hGey2Jh4NDv6gmeo1LkMeiKrLJUUBk6Z",
            ),
            (&[0x00, 0x00, 0x28, 0x7f, 0xb4, 0xcd], "11233QC4"),
            (b"", ""),
            (&[0, 0], "11"),
        ] {
            assert_eq!(base58_encode(bytes), text);
            assert_eq!(base58_decode(text).unwrap(), bytes);
        }
        for text in ["0", "O", "I", "l", "2NEpo7TZ ", "é"] {
            assert_eq!(base58_decode(text), None, "{text}");
        }
    }

    #[test]
    fn peer_ids_are_printed_and_parsed_alike() {
        for seed in 0..=255 {
            let text = id(seed).to_string();
            assert!(text.starts_with("12D3KooW") && text.len() == TEXT_LENGTH, "{text}");
            assert_eq!(text.parse(), Ok(id(seed)));
        }
    }

    #[test]
    fn refuses_ids_of_other_keys_and_forms() {
        let text = id(1).to_string();
        let other_type = {
            let mut bytes = base58_decode(&text).unwrap();
            bytes[3] = 2;
            base58_encode(&bytes)
        };
        let not_a_point = base58_encode(&[&PREFIX[..], &[2; 32]].concat());
        let sha256_id = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N";
        for text in ["", "1", &text[1..], &format!("{text}1"), &other_type, &not_a_point, sha256_id] {
            assert!(text.parse::<PeerId>().is_err(), "{text}");
        }
    }
}
