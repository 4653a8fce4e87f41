//! The rules that decide whether to sign, and nothing else.
//!
//! The guard is pure: it takes a question and says [`Verdict::Sign`], [`Verdict::Replay`] or [`Verdict::Refuse`]. It holds
//! no key, no file and no clock. The rules are those of CometBFT's `FilePV` (`privval/file.go`, the same in v0.34 to
//! v2.0-rc), with three of our own: the jump limit, a highest first height, and that no round is negative.
//!
//! What always holds:
//!
//! * nothing below the recorded watermark is signed: by height, then round, then step;
//! * for one height, round and step there is one message: a question for the same place is answered with that
//!   message's own timestamp, or refused;
//! * the guard remembers nothing: the durable record is the only memory, so the two cannot come apart.

mod question;
mod refusal;
mod skipped;
mod watermark;

pub use question::{Content, Question};
pub use refusal::Refusal;
pub use skipped::Skipped;
pub use watermark::{Signed, Watermark};

use monosign_protocol::message::Timestamp;
use monosign_protocol::{Hrs, Round};

/// What the guard says to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing was signed here or above: record this watermark durably, then sign its sign bytes.
    Sign(Watermark),
    /// This was signed before, but perhaps for the timestamp: answer with the recorded message, which has this one.
    Replay(Timestamp),
    /// Neither; the validator is told why.
    Refuse(Refusal),
}

/// How far above the watermark a request may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JumpLimit {
    /// At most so many heights, so that bad requests cannot carry the watermark beyond the chain's reach. What is left of them over
    /// time, [`Skipped`] says.
    Heights(u64),
    /// Any height, as CometBFT's FilePV.
    Off,
}

/// The highest height that a record without any takes first, if jumps are limited: no chain can be above it, since blocks every fifth
/// of a second take thirty years to come there.
pub const HIGHEST_FIRST: i64 = 5_000_000_000;

/// What the record says, as the guard needs it.
#[derive(Debug, Clone, Copy)]
pub struct Recorded<'a> {
    /// The highest place that is on stable storage.
    pub watermark: &'a Watermark,
    /// Whether no signature has risen from this record yet: there is no height to measure a jump from.
    pub unused: bool,
}

/// The rules of one chain.
#[derive(Debug, Clone, Copy)]
pub struct Guard {
    /// How far above the watermark a request may be.
    pub jump_limit: JumpLimit,
}

impl Guard {
    /// Decides, and changes nothing.
    pub fn judge(&self, recorded: Recorded<'_>, question: &Question<'_>) -> Verdict {
        // FilePV's order: the place, then the extension, then the content.
        let hrs = question.hrs();
        if let Err(refusal) = recorded.watermark.admits(hrs) {
            return Verdict::Refuse(refusal);
        }
        if question.has_misplaced_extension() {
            return Verdict::Refuse(Refusal::UnexpectedExtension { asked: hrs });
        }
        if recorded.watermark.is_at(hrs) {
            return repeat(recorded.watermark, question);
        }
        // FilePV signs it, and no node takes it (`types/vote.go` and `types/proposal.go`, `ValidateBasic`).
        if hrs.round < Round(0) {
            return Verdict::Refuse(Refusal::NegativeRound { asked: hrs });
        }
        if let Some(refusal) = self.jump(recorded, hrs) {
            return Verdict::Refuse(refusal);
        }
        Verdict::Sign(Watermark::signed(hrs, question.sign_bytes(), question.timestamp()))
    }

    fn jump(&self, recorded: Recorded<'_>, asked: Hrs) -> Option<Refusal> {
        let JumpLimit::Heights(limit) = self.jump_limit else { return None };
        let limit = if recorded.unused { HIGHEST_FIRST.unsigned_abs() } else { limit };
        let last = recorded.watermark.height;
        let jump = asked.height.0.checked_sub(last.0).and_then(|d| u64::try_from(d).ok()).unwrap_or(u64::MAX);
        (jump > limit).then_some(Refusal::HeightJump { asked, last, limit })
    }
}

/// The same place again: the same message, the same but for its timestamp, or a conflict.
fn repeat(watermark: &Watermark, question: &Question<'_>) -> Verdict {
    let asked = question.hrs();
    let Some(signed) = &watermark.signed else {
        return Verdict::Refuse(Refusal::NoSignBytes { asked });
    };
    if question.sign_bytes_at(signed.timestamp) == signed.sign_bytes {
        return Verdict::Replay(signed.timestamp);
    }
    Verdict::Refuse(Refusal::ConflictingData { asked })
}

#[cfg(test)]
mod tests;
