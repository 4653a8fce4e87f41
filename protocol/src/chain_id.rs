//! The name of a chain, as a signer accepts it in its configuration.

use std::fmt;
use std::str::FromStr;

/// A chain id: 1 to 50 printable ASCII characters without white space, slashes or quotes.
///
/// 50 is CometBFT's `MaxChainIDLen` (types/genesis.go). Slashes are refused since chain ids name files.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChainId(String);

/// Why a text is not a chain id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a chain id: it must have 1 to 50 printable ASCII characters, no space, slash or quote"
)]
pub struct InvalidChainId {
    text: String,
}

/// The longest chain id that CometBFT's genesis allows, in bytes.
pub const MAX_CHAIN_ID_LEN: usize = 50;

impl ChainId {
    /// The chain id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ChainId {
    type Err = InvalidChainId;

    fn from_str(text: &str) -> Result<Self, InvalidChainId> {
        let printable = text.bytes().all(|b| b.is_ascii_graphic() && !b"/\\\"'".contains(&b));
        if text.is_empty() || text.len() > MAX_CHAIN_ID_LEN || !printable || text.starts_with('.') {
            return Err(InvalidChainId { text: text.escape_debug().take(80).collect() });
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_could_leave_a_directory() {
        for text in ["", "../../x", "a/b", "a b", "a\nb", "..", &"x".repeat(51)] {
            assert!(text.parse::<ChainId>().is_err(), "{text:?}");
        }
        for text in ["cosmoshub-4", "x", &"x".repeat(50), "test_chain.1"] {
            assert!(text.parse::<ChainId>().is_ok(), "{text:?}");
        }
    }
}
