//! One log line per decision, in the words that operators' guides grep for.

use std::time::Duration;

use monosign_protocol::{ChainId, Hrs};

use super::SignError;
use crate::guard::Refusal;
use crate::ops::log_limit::SIGNED;
use crate::ops::told::told;

/// What was decided, made into text only after the answer is out.
pub(super) struct Event {
    subject: Subject,
    result: Result<Signed, SignError>,
}

/// What was asked for.
pub(super) enum Subject {
    /// A vote or proposal.
    Consensus {
        hrs: Hrs,
        /// The first bytes of the block's hash, or `nil`.
        block: String,
        extension_bytes: usize,
    },
    /// Raw bytes.
    Raw,
    /// Something that has no place in consensus.
    Other,
}

struct Signed {
    replayed: bool,
}

impl Event {
    pub(super) fn signed(subject: Subject, replayed: bool) -> Self {
        Self { subject, result: Ok(Signed { replayed }) }
    }

    pub(super) fn refused(subject: Subject, error: SignError) -> Self {
        Self { subject, result: Err(error) }
    }

    /// Why nothing was signed, with what to do about it.
    pub(super) fn failure(&self) -> Option<String> {
        let error = self.result.as_ref().err()?;
        let hint = match error {
            SignError::Record(error) => error.hint(),
            _ => "see the lines above".into(),
        };
        Some(format!("{error}\nhint: {hint}; then start the signer anew"))
    }

    pub(super) fn log(&self, chain_id: &ChainId, peer: &str, latency: Duration) {
        let latency_us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        match (&self.result, &self.subject) {
            (Ok(signed), subject) => log_signed(chain_id, peer, subject, signed.replayed, latency_us),
            (Err(error), subject) => log_refused(chain_id, peer, subject, error, latency_us),
        }
    }
}

fn log_signed(chain_id: &ChainId, peer: &str, subject: &Subject, replayed: bool, latency_us: u64) {
    let Subject::Consensus { hrs, block, extension_bytes } = subject else {
        tracing::info!(%chain_id, peer, kind = "raw", result = "succeeded", latency_us, "signed raw bytes");
        return;
    };
    let (height, round, step, kind) = (hrs.height.0, hrs.round.0, hrs.step.number(), hrs.step);
    // A repeat costs a peer nothing, so that there may be very many.
    if replayed {
        tracing::info!(
            %chain_id, peer, height, round, step, %kind, block_id = block.as_str(), extension_bytes, replayed,
            result = "succeeded", latency_us,
            "repeated {kind}:{block} at h/r/s {hrs} ({latency_us} µs)"
        );
        return;
    }
    tracing::info!(
        target: SIGNED,
        %chain_id, peer, height, round, step, %kind, block_id = block.as_str(), extension_bytes, replayed,
        result = "succeeded", latency_us,
        "signed {kind}:{block} at h/r/s {hrs} ({latency_us} µs)"
    );
}

fn log_refused(chain_id: &ChainId, peer: &str, subject: &Subject, error: &SignError, latency_us: u64) {
    let reason = error.reason();
    let (result, what) = match subject {
        Subject::Consensus { hrs, block, .. } => {
            (error.result(), format!("{}:{block} at h/r/s {hrs}", hrs.step))
        }
        Subject::Raw => (error.result(), "raw bytes".into()),
        Subject::Other => (error.result(), "request".into()),
    };
    // Fields without a value are left out.
    let (hrs, block_id) = match subject {
        Subject::Consensus { hrs, block, .. } => (Some(hrs), Some(block.as_str())),
        _ => (None, None),
    };
    let (height, round) = (hrs.map(|hrs| hrs.height.0), hrs.map(|hrs| hrs.round.0));
    let (step, kind) = (hrs.map(|hrs| hrs.step.number()), hrs.map(|hrs| hrs.step.to_string()));
    match error {
        SignError::Refused(Refusal::ConflictingData { .. }) => tracing::error!(
            %chain_id, peer, height, round, step, kind, block_id, result, reason, latency_us,
            "attempted double sign {what}: refused, another message was signed there"
        ),
        SignError::Refused(refusal) => tracing::warn!(
            %chain_id, peer, height, round, step, kind, block_id, result, reason, latency_us, hint = hint_of(refusal).map(display),
            "refused {what}: {error}"
        ),
        _ => {
            let (error, hint) = told(&error.to_string());
            tracing::error!(
                %chain_id, peer, height, round, step, kind, block_id, result, reason, latency_us, hint,
                "failed to sign {what}: {error}"
            );
        }
    }
}

/// The heights of a chain that has just begun, however many of them a validator has missed.
const YOUNG: i64 = 100;

/// What a refusal may mean that nobody thinks of who reads it.
fn hint_of(refusal: &Refusal) -> Option<&'static str> {
    match refusal {
        Refusal::HeightRegression { asked, last } if asked.height.0 <= YOUNG && last.0 > YOUNG => Some(
            "if the chain begins anew under its old id, its operators said so: see \"A chain that begins anew\" in the README. \
             Otherwise the node has lost its blocks, and signs again when it has caught up",
        ),
        _ => None,
    }
}

impl SignError {
    /// `denied` if we refused, `failed` if we broke: never one number.
    fn result(&self) -> &'static str {
        match self {
            Self::Refused(_) => "denied",
            _ => "failed",
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.reason(),
            Self::Record(_) | Self::Jumps(_) => "record_failed",
            Self::Backend(_) => "backend_failed",
            Self::Group(_) => "no_quorum",
            Self::WrongSignature(_) => "wrong_signature",
        }
    }
}
