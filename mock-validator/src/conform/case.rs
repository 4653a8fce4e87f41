//! What a case is, and how it can end.

use std::{pin::Pin, time::Duration};

use monosign_protocol::message::RemoteSignerError;
use monosign_protocol::{Dialect, Hrs, Step};

use super::Bench;
use crate::link::LinkError;
use crate::node::Misbehaviour;

/// One rule, and how it is tried.
pub struct Case {
    /// Its name, which stays: `group/what`.
    pub id: &'static str,
    /// The rule, in a sentence.
    pub rule: &'static str,
    /// Where the rule comes from.
    pub source: &'static str,
    /// What is at stake.
    pub level: Level,
    pub(super) dialects: fn(Dialect) -> bool,
    pub(super) needs: &'static [Need],
    pub(super) run: Run,
}

/// How a case is tried on a bench.
pub(super) type Run = for<'b> fn(&'b mut Bench) -> Pin<Box<dyn Future<Output = Verdict> + 'b>>;

/// What trying a case gives.
pub(super) type Verdict = Result<(), Ended>;

/// What is at stake for the validator of a signer that fails a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The stake: there is, or after one more accident there can be, evidence of a double sign.
    Slashing,
    /// Blocks: the node goes without a signature, or stops.
    MissedBlocks,
    /// The signer itself, where its peer is hostile: no unmodified node asks for that.
    Robustness,
    /// Nothing. It is good to have, and some signers have reasons not to.
    Advisory,
}

/// What a case cannot be tried without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// The listener is `tcp://`.
    SecretConnection,
    /// The listener is `noise://`.
    Noise,
    /// The listener is a unix socket with a file.
    UnixFile,
    /// The signer serves two validators at once.
    SecondValidator,
    /// The suite can start and kill the signer.
    Command,
    /// The suite knows the file of the signer's state.
    StateFile,
}

/// How a case ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The rule holds.
    Passed,
    /// It does not.
    Failed {
        /// What the signer did.
        reason: String,
    },
    /// It was not tried.
    Skipped {
        /// Why.
        reason: String,
    },
}

/// Why a case ended early.
#[derive(Debug)]
pub(super) enum Ended {
    Failed(Failed),
    Skipped(&'static str),
}

impl<T: Into<Failed>> From<T> for Ended {
    fn from(failed: T) -> Self {
        Self::Failed(failed.into())
    }
}

/// What a signer did against a rule.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error(transparent)]
    Misbehaved(#[from] Misbehaviour),
    #[error("signed `{hrs}`, which had to be refused")]
    NotRefused { hrs: Hrs },
    #[error("refused what is safe to sign: {0}")]
    Refused(RemoteSignerError),
    #[error("did not repeat its answer for `{hrs}`: a second signature or timestamp exists")]
    NotRepeated { hrs: Hrs },
    #[error("two messages are signed at `{hrs}`: a DOUBLE SIGN")]
    SignedTwice { hrs: Hrs },
    #[error("gave no answer within {} s", limit.as_secs_f64())]
    Silent { limit: Duration },
    #[error("did not answer: {0}")]
    Lost(#[from] LinkError),
    #[error("did not connect within {} s", limit.as_secs_f64())]
    NotConnected { limit: Duration },
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error(
        "signed {signatures} messages and flushed to the disk {flushes} times: what a power cut takes away is signed again"
    )]
    NotSynced { signatures: u64, flushes: u64 },
    #[error("{0}")]
    Broke(String),
}

impl Failed {
    /// What is at stake when a case of this level fails so.
    pub(super) fn level(&self, case: Level) -> Level {
        match self {
            // The same vote or proposal once more: it is no evidence, and nodes drop it.
            Self::NotRepeated { .. } => Level::Advisory,
            // Only votes are evidence.
            Self::NotRefused { hrs } | Self::SignedTwice { hrs } => match (case, hrs.step) {
                (Level::Slashing, Step::Proposal) => Level::MissedBlocks,
                (Level::MissedBlocks, Step::Prevote | Step::Precommit) => Level::Slashing,
                _ => case,
            },
            _ => case,
        }
    }

    /// For what has no name of its own.
    pub(super) fn because(what: impl Into<String>) -> Self {
        Self::Broke(what.into())
    }
}

impl Case {
    fn new(level: Level, id: &'static str, rule: &'static str, source: &'static str, run: Run) -> Self {
        Self { id, rule, source, level, dialects: |_| true, needs: &[], run }
    }

    pub(super) fn slashing(id: &'static str, rule: &'static str, source: &'static str, run: Run) -> Self {
        Self::new(Level::Slashing, id, rule, source, run)
    }

    pub(super) fn missed_blocks(
        id: &'static str,
        rule: &'static str,
        source: &'static str,
        run: Run,
    ) -> Self {
        Self::new(Level::MissedBlocks, id, rule, source, run)
    }

    pub(super) fn robustness(id: &'static str, rule: &'static str, source: &'static str, run: Run) -> Self {
        Self::new(Level::Robustness, id, rule, source, run)
    }

    pub(super) fn advisory(id: &'static str, rule: &'static str, source: &'static str, run: Run) -> Self {
        Self::new(Level::Advisory, id, rule, source, run)
    }

    pub(super) fn of(self, dialects: fn(Dialect) -> bool) -> Self {
        Self { dialects, ..self }
    }

    pub(super) fn with_extensions(self) -> Self {
        self.of(Dialect::has_extensions)
    }

    pub(super) fn needs(self, needs: &'static [Need]) -> Self {
        Self { needs, ..self }
    }

    /// The part of its name before the slash.
    pub fn group(&self) -> &'static str {
        self.id.split_once('/').map_or(self.id, |(group, _)| group)
    }

    /// Whether validators of `dialect` want this rule kept.
    pub fn is_for(&self, dialect: Dialect) -> bool {
        (self.dialects)(dialect)
    }
}

impl Need {
    /// Why a case that needs this is skipped.
    pub(super) fn missing(self) -> &'static str {
        match self {
            Self::SecretConnection => "only over tcp://",
            Self::Noise => "only over noise://",
            Self::UnixFile => "only over unix:///PATH",
            Self::SecondValidator => "needs a signer that serves two validators, and a second --listen",
            Self::Command => "needs --signer-cmd",
            Self::StateFile => "needs --signer-cmd and --state",
        }
    }
}

impl Level {
    /// All of them, the worst first.
    pub const ALL: [Self; 4] = [Self::Slashing, Self::MissedBlocks, Self::Robustness, Self::Advisory];

    /// In a word or two.
    pub fn name(self) -> &'static str {
        match self {
            Self::Slashing => "slashing",
            Self::MissedBlocks => "missed blocks",
            Self::Robustness => "robustness",
            Self::Advisory => "advisory",
        }
    }

    /// Why that is at stake, and where CometBFT says so. Lines are v0.38.26's.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Slashing => {
                "two votes for different blocks at one height, round and type are evidence \
                 (evidence/verify.go:193, VerifyDuplicateVote)"
            }
            Self::MissedBlocks => {
                "without a good answer the node goes on without the vote, or stops \
                 (consensus/state.go:2456, signAddVote; node/setup.go:632)"
            }
            Self::Robustness => {
                "no unmodified node sends that: it takes who holds the node, or the wire \
                 (CometBFT's own signer panics on some of it: privval/file.go:40)"
            }
            Self::Advisory => {
                "no verdict hangs on it: not every signer can, or no node minds. The same vote with another \
                 time or signature is a line at debug level \
                 (consensus/state.go:2097, ErrVoteNonDeterministicSignature)"
            }
        }
    }

    /// Whether a signer that fails at this level is not conformant.
    pub fn is_required(self) -> bool {
        self != Self::Advisory
    }
}
