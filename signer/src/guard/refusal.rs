//! Why a request is not signed. Each refusal protects the validator and is told to it.

use monosign_protocol::{Height, Hrs, Round, Step};

/// A request that would be, or could be, a double signature or that CometBFT cannot sign.
///
/// The texts hold the words that CometBFT's own signer and its operators' guides use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Below the recorded height.
    #[error("state file height regression: asked to sign {asked}, already signed at height {last}")]
    HeightRegression {
        /// What was asked.
        asked: Hrs,
        /// The recorded height.
        last: Height,
    },
    /// At the recorded height, below its round.
    #[error("state file round regression: asked to sign {asked}, already signed in round {last}")]
    RoundRegression {
        /// What was asked.
        asked: Hrs,
        /// The recorded round.
        last: Round,
    },
    /// In the recorded round, below its step.
    #[error("state file step regression: asked to sign {asked}, already signed step {}", last.map_or(0, Step::number))]
    StepRegression {
        /// What was asked.
        asked: Hrs,
        /// The recorded step.
        last: Option<Step>,
    },
    /// Another message at the same place: this would be the double signature.
    #[error("attempted double sign: conflicting data at {asked}")]
    ConflictingData {
        /// What was asked.
        asked: Hrs,
    },
    /// At a floor that was set or imported without its message.
    #[error(
        "no SignBytes found: {asked} is the floor this record was set to, what was signed there is not known"
    )]
    NoSignBytes {
        /// What was asked.
        asked: Hrs,
    },
    /// An extension where CometBFT allows none.
    #[error("unexpected vote extension at {asked}: extensions are only allowed in non-nil precommits")]
    UnexpectedExtension {
        /// What was asked.
        asked: Hrs,
    },
    /// Further above the record than the chain can have come.
    #[error(
        "height jump: {asked} is more than {limit} above the recorded height {last}; if the chain really is there, \
         run `monosign state allow-jump -c CONFIG --to-height {}`", asked.height
    )]
    HeightJump {
        /// What was asked.
        asked: Hrs,
        /// The recorded height.
        last: Height,
        /// The limit in heights, or what is left of it.
        limit: u64,
    },
    /// A round below 0, which no node sends.
    #[error("negative round: {asked}")]
    NegativeRound {
        /// What was asked.
        asked: Hrs,
    },
    /// Above the height at which the operator wants this validator to stop.
    #[error("requested signature above stop height: {asked} is above max_height {max_height}")]
    AboveMaxHeight {
        /// What was asked.
        asked: Hrs,
        /// The configured limit.
        max_height: Height,
    },
    /// A type that is neither prevote nor precommit.
    #[error("vote type {vote_type} is neither prevote (1) nor precommit (2)")]
    NotAVote {
        /// The type as it came.
        vote_type: i32,
    },
    /// A hash that is neither empty nor 32 bytes.
    #[error("malformed block id at {asked}: hashes have 32 bytes, or none for nil")]
    MalformedBlockId {
        /// What was asked.
        asked: Hrs,
    },
    /// The request holds no vote or proposal.
    #[error("the request holds no {what}")]
    Missing {
        /// `vote` or `proposal`.
        what: &'static str,
    },
    /// The request is for another chain.
    #[error("unexpected chain ID `{asked}`: this connection signs for `{expected}`")]
    WrongChain {
        /// The chain that was asked for.
        asked: String,
        /// The chain of this connection.
        expected: String,
    },
    /// Raw signing that is switched off.
    #[error(
        "{what} is switched off for this chain; `{setting} = true` in its [[chain]] table switches it on"
    )]
    SwitchedOff {
        /// What was asked.
        what: &'static str,
        /// The setting that allows it.
        setting: &'static str,
    },
    /// Raw bytes that could be a consensus message.
    #[error("raw bytes that could be a vote, a proposal or an extension are never signed")]
    WrongDomain,
    /// A raw-bytes request of Celestia without content or purpose.
    #[error("raw bytes and their unique id must not be empty")]
    EmptyRawBytes,
    /// The bytes in a well-formed frame are no privval message.
    #[error("malformed message: {0}")]
    Malformed(String),
}

impl Refusal {
    /// The label for logs and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::HeightRegression { .. } => "height_regression",
            Self::RoundRegression { .. } => "round_regression",
            Self::StepRegression { .. } => "step_regression",
            Self::ConflictingData { .. } => "conflicting_data",
            Self::NoSignBytes { .. } => "no_signbytes_found",
            Self::UnexpectedExtension { .. } => "unexpected_vote_extension",
            Self::HeightJump { .. } => "height_jump",
            Self::NegativeRound { .. } => "negative_round",
            Self::AboveMaxHeight { .. } => "above_max_height",
            Self::NotAVote { .. } => "not_a_vote",
            Self::MalformedBlockId { .. } => "malformed_block_id",
            Self::Missing { .. } => "missing_content",
            Self::WrongChain { .. } => "wrong_chain",
            Self::SwitchedOff { .. } => "switched_off",
            Self::WrongDomain => "wrong_domain",
            Self::EmptyRawBytes => "empty_raw_bytes",
            Self::Malformed(_) => "malformed",
        }
    }
}
