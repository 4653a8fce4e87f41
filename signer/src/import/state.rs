//! Sign states of other signers: how far a validator has signed, in CometBFT's, tmkms's and Horcrux's files.
//!
//! The three look alike and number the steps differently: tmkms counts proposal, prevote, precommit as 0, 1, 2, the
//! other two as 1, 2, 3. A precommit copied from tmkms to CometBFT by hand reads as a prevote and opens the
//! precommit again. So a file is taken only in a dialect that it shows, or that the operator names, and whatever is
//! out of the ordinary is refused.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use monosign_protocol::Step;

mod format;

/// Whose file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateDialect {
    /// CometBFT's and Tendermint's `priv_validator_state.json`.
    CometBft,
    /// tmkms's `state_file`.
    Tmkms,
    /// Horcrux's `CHAIN_priv_validator_state.json` and `CHAIN_share_sign_state.json`.
    Horcrux,
}

/// What was signed last, as another signer wrote it down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignState {
    /// Whose file it is.
    pub dialect: StateDialect,
    /// Height in blocks, not negative.
    pub height: i64,
    /// Round, not negative; `i32` as in CometBFT's messages.
    pub round: i32,
    /// The step signed last at this height and round; `None` if nothing was.
    pub step: Option<Step>,
    /// The canonical sign bytes with their length prefix, if the file has them (tmkms's has not).
    pub sign_bytes: Option<Vec<u8>>,
    /// The signature over [`Self::sign_bytes`], of any key type.
    pub signature: Option<Vec<u8>>,
    /// What was voted on, if known. Only tmkms writes it; the sign bytes of the others hold it.
    pub block: Option<SignedBlock>,
    /// Why the height below was taken as signed, all of it, if it was: what was signed there is not known.
    pub above: Option<&'static str>,
}

/// What a proposal or vote was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignedBlock {
    /// A vote for no block.
    Nil,
    /// A block id.
    Block {
        /// The hash of the block's header.
        hash: [u8; 32],
        /// The number of parts.
        part_set_total: u32,
        /// The Merkle root of the parts.
        part_set_hash: [u8; 32],
    },
}

impl ForeignState {
    /// Reads a state file in the dialect given, or in the one that it shows.
    ///
    /// # Errors
    /// If the content is no state file, shows no dialect or another one than given, or holds a value that its
    /// signer cannot have written.
    pub fn parse(content: &[u8], dialect: Option<StateDialect>) -> Result<Self, StateError> {
        format::parse(content, dialect)
    }

    /// Writes the state in a dialect, byte for byte as its signer does.
    ///
    /// What the dialect has no place for is left out: sign bytes and signature in tmkms's, the block in the others, and
    /// sign bytes without their signature in CometBFT's, whose `FilePV` panics on such a file.
    /// tmkms has no way to say that nothing was signed at a height and round, so that a floor without a step comes
    /// out as a proposal, which is the next higher state.
    ///
    /// # Errors
    /// [`StateError::BlockUnknown`] for tmkms, if [`Self::block`] is not known: with `null` in its place, tmkms would
    /// sign nil again after a vote for a block.
    pub fn write(&self, dialect: StateDialect) -> Result<String, StateError> {
        format::write(self, dialect)
    }
}

impl StateDialect {
    /// The name of the dialect, as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::CometBft => "cometbft",
            Self::Tmkms => "tmkms",
            Self::Horcrux => "horcrux",
        }
    }
}

impl fmt::Display for StateDialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for StateDialect {
    type Err = StateError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        [Self::CometBft, Self::Tmkms, Self::Horcrux]
            .into_iter()
            .find(|dialect| dialect.name() == name)
            .ok_or_else(|| StateError::UnknownDialect { name: name.to_owned() })
    }
}

/// Why a state was not taken or not written.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StateError {
    /// Not one JSON object with the fields of a state file.
    #[error("not a state file: {reason}\nhint: give the file that the other signer wrote, unchanged")]
    Malformed {
        /// The parser's words.
        reason: String,
    },
    /// A name that is none of the dialects.
    #[error("`{name}` is no state file dialect\nhint: use `cometbft`, `tmkms` or `horcrux`")]
    UnknownDialect {
        /// The name given.
        name: String,
    },
    /// The content could be tmkms's or Horcrux's or an old Tendermint's, and a step means something else in each.
    #[error(
        "the state file could be of several signers, which number the steps differently\n\
         hint: if Horcrux wrote it, or Tendermint up to v0.33 (steps 1, 2, 3), the same command with `--dialect horcrux`; \
         tmkms's own file says `block_id`, and is recognised"
    )]
    Ambiguous,
    /// The content shows another dialect than the one named.
    #[error(
        "the state file is not `{dialect}`'s: {reason}\n\
         hint: name the signer that wrote the file, or leave the name out to have it recognised"
    )]
    OtherDialect {
        /// The dialect named.
        dialect: StateDialect,
        /// What does not fit.
        reason: &'static str,
    },
    /// A field that the dialect always has is not there.
    #[error(
        "`{field}` is missing\nhint: the file is damaged or was edited; take it from the other signer again"
    )]
    Missing {
        /// The field.
        field: &'static str,
    },
    /// A value that no signer can have written.
    #[error(
        "`{field}` is not {expected}\nhint: the file is damaged or was edited; take it from the other signer again"
    )]
    BadValue {
        /// The field.
        field: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// Sign bytes, signature and step do not go together.
    #[error("{reason}\nhint: the file is damaged or was edited; take it from the other signer again")]
    Inconsistent {
        /// What contradicts what.
        reason: &'static str,
    },
    /// tmkms's file needs the block, and it is not known.
    #[error(
        "tmkms's state holds the block voted on, and this state does not say which\n\
         hint: raise the state by one round first, or export it in another dialect"
    )]
    BlockUnknown,
}

#[cfg(test)]
mod tests;
