//! What votes and proposals are made of.

use std::fmt;

use crate::hrs::{Height, Hrs, Round, Step};

/// `SignedMsgType` of a prevote.
pub(crate) const TYPE_PREVOTE: i32 = 1;
/// `SignedMsgType` of a precommit.
pub(crate) const TYPE_PRECOMMIT: i32 = 2;
/// `SignedMsgType` of a proposal.
pub(crate) const TYPE_PROPOSAL: i32 = 32;

/// Text from a peer: any bytes, since Go's strings hold any. Shown escaped, so that it cannot forge a log line.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Text(pub Vec<u8>);

/// Seconds and nanoseconds since 1970, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Seconds since 1970-01-01T00:00:00Z; negative before.
    pub seconds: i64,
    /// Nanoseconds in `[0, 1e9)`.
    pub nanos: i32,
}

/// A block, by its hash and by the header of its parts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockId {
    /// 32 bytes, or empty for nil; other lengths come from malformed requests only.
    pub hash: Vec<u8>,
    /// The header of the set of parts that the block is gossiped in.
    pub part_set_header: PartSetHeader,
}

/// The number of a block's parts and the root of their hashes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartSetHeader {
    /// The number of parts.
    pub total: u32,
    /// 32 bytes, or empty.
    pub hash: Vec<u8>,
}

/// A prevote or precommit (`types.Vote`; fields 9 and 10 since v0.38, 11 and 12 in v2.0-rc only).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vote {
    /// `SignedMsgType`: 1 prevote, 2 precommit; anything else is never signed.
    pub vote_type: i32,
    /// The height voted on.
    pub height: Height,
    /// The round voted in.
    pub round: Round,
    /// The block voted for; all empty for nil.
    pub block_id: BlockId,
    /// When the vote was made.
    pub timestamp: Timestamp,
    /// The voter's address, 20 bytes. Not signed.
    pub validator_address: Vec<u8>,
    /// The voter's place in the validator set. Not signed.
    pub validator_index: i32,
    /// The vote's signature.
    pub signature: Vec<u8>,
    /// What the application attaches to a precommit for a block.
    pub extension: Vec<u8>,
    /// The extension's signature.
    pub extension_signature: Vec<u8>,
    /// v2.0-rc: an extension that is signed as it is, without chain id or height.
    pub non_rp_extension: Vec<u8>,
    /// The signature of that.
    pub non_rp_extension_signature: Vec<u8>,
}

/// A proposal of a block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proposal {
    /// `SignedMsgType`: 32. CometBFT signs 32 whatever stands here.
    pub proposal_type: i32,
    /// The height proposed for.
    pub height: Height,
    /// The round proposed in.
    pub round: Round,
    /// The round of the proof of lock, or -1.
    pub pol_round: Round,
    /// The proposed block.
    pub block_id: BlockId,
    /// When it was proposed.
    pub timestamp: Timestamp,
    /// The proposal's signature.
    pub signature: Vec<u8>,
}

/// Why a signer refuses a request. Its presence in an answer makes the refusal final for the node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RemoteSignerError {
    /// A number that nodes print and do not read; see [`ErrorCode`].
    pub code: i32,
    /// What went wrong, for the node's log.
    pub description: Text,
}

/// The codes of `privval.Errors` (v0.34 to v0.40) that a signer has use for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
#[non_exhaustive]
pub enum ErrorCode {
    /// What the stock signer sends for everything.
    Unknown = 0,
}

/// A public key as v0.34 to v0.40 write it (`crypto/keys.proto`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PublicKey {
    /// The key's kind and bytes; nodes and signers write an empty message for "none".
    pub sum: Option<(PublicKeyKind, Vec<u8>)>,
}

/// The kinds of public keys, by their field in `PublicKey`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
#[non_exhaustive]
pub enum PublicKeyKind {
    /// 32 bytes.
    Ed25519 = 1,
    /// 33 bytes, compressed.
    Secp256k1 = 2,
    /// 96 bytes; v0.39 and v1.0 on.
    Bls12381 = 3,
    /// 1952 bytes; v0.38.26 and v0.40. In v2.0.0-rc1 this field is secp256k1eth, which its privval does not use.
    MlDsa65 = 4,
    /// 33 bytes; v0.40.
    Secp256k1Eth = 5,
}

impl Timestamp {
    /// Go's zero `time.Time`, 0001-01-01T00:00:00Z: what an absent timestamp decodes to.
    pub const GO_ZERO: Self = Self { seconds: -62_135_596_800, nanos: 0 };

    /// The first second that Go refuses: 10000-01-01T00:00:00Z.
    pub const END_SECONDS: i64 = 253_402_300_800;
}

impl Default for Timestamp {
    fn default() -> Self {
        Self::GO_ZERO
    }
}

impl BlockId {
    /// Whether this stands for nil: all of it empty. A partial id is not nil (CometBFT `types/canonical.go`).
    pub fn is_nil(&self) -> bool {
        self.hash.is_empty() && self.part_set_header.total == 0 && self.part_set_header.hash.is_empty()
    }

    /// Whether both hashes have a length that CometBFT can sign (`ValidateHash`: 0 or 32 bytes).
    pub fn is_well_formed(&self) -> bool {
        let fits = |hash: &[u8]| matches!(hash.len(), 0 | 32);
        fits(&self.hash) && fits(&self.part_set_header.hash)
    }
}

impl Vote {
    /// The vote's step, or `None` if its type is neither prevote nor precommit.
    pub fn step(&self) -> Option<Step> {
        match self.vote_type {
            TYPE_PREVOTE => Some(Step::Prevote),
            TYPE_PRECOMMIT => Some(Step::Precommit),
            _ => None,
        }
    }

    /// Where in consensus the vote stands, or `None` if its type is neither prevote nor precommit.
    pub fn hrs(&self) -> Option<Hrs> {
        self.step().map(|step| Hrs { height: self.height, round: self.round, step })
    }

    /// Whether this vote may carry an extension: a precommit for a block.
    pub fn is_extendable(&self) -> bool {
        self.step() == Some(Step::Precommit) && !self.block_id.is_nil()
    }
}

impl Proposal {
    /// Where in consensus the proposal stands.
    pub fn hrs(&self) -> Hrs {
        Hrs { height: self.height, round: self.round, step: Step::Proposal }
    }
}

impl Text {
    /// Whether the bytes are exactly `text`.
    pub fn is(&self, text: &str) -> bool {
        self.0 == text.as_bytes()
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(text.into_bytes())
    }
}

/// The text with all but printable ASCII escaped, cut after 200 characters.
impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, c) in String::from_utf8_lossy(&self.0).chars().enumerate() {
            if n == 200 {
                return f.write_str("…");
            }
            if c == ' ' || c.is_ascii_graphic() {
                write!(f, "{c}")?;
            } else {
                write!(f, "{}", c.escape_default())?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{self}`")
    }
}

impl fmt::Display for RemoteSignerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (code {})", self.description, self.code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_a_peer_cannot_forge_a_log_line() {
        let text = Text(b"x\nERROR \x1b[31m\xff".to_vec());
        assert_eq!(text.to_string(), "x\\nERROR \\u{1b}[31m\\u{fffd}");
    }

    #[test]
    fn a_partial_block_id_is_not_nil() {
        let mut id = BlockId::default();
        assert!(id.is_nil());
        id.part_set_header.total = 1;
        assert!(!id.is_nil());
    }
}
