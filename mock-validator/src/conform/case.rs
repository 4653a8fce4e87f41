//! What a case is, and how it can end.

use std::{pin::Pin, time::Duration};

use monosign_protocol::message::RemoteSignerError;
use monosign_protocol::{Dialect, Hrs};

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
    /// Whether the suite is passed without it.
    pub level: Level,
    pub(super) dialects: fn(Dialect) -> bool,
    pub(super) needs: &'static [Need],
    pub(super) run: Run,
}

/// How a case is tried on a bench.
pub(super) type Run = for<'b> fn(&'b mut Bench) -> Pin<Box<dyn Future<Output = Verdict> + 'b>>;

/// What trying a case gives.
pub(super) type Verdict = Result<(), Ended>;

/// Whether a signer has to pass a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// A signer that fails signs twice, harms its validator, or is of no use to it.
    Required,
    /// Good to have. Some signers have reasons not to.
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
    #[error("{0}")]
    Broke(String),
}

impl Failed {
    /// For what has no name of its own.
    pub(super) fn because(what: impl Into<String>) -> Self {
        Self::Broke(what.into())
    }
}

impl Case {
    pub(super) fn required(id: &'static str, rule: &'static str, source: &'static str, run: Run) -> Self {
        Self { id, rule, source, level: Level::Required, dialects: |_| true, needs: &[], run }
    }

    pub(super) fn advisory(id: &'static str, rule: &'static str, source: &'static str, run: Run) -> Self {
        Self { level: Level::Advisory, ..Self::required(id, rule, source, run) }
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
    /// `required` or `advisory`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Advisory => "advisory",
        }
    }
}
