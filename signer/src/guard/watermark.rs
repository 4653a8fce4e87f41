//! The highest place that was signed, and what was signed there.

use std::fmt;

use monosign_protocol::message::Timestamp;
use monosign_protocol::{Height, Hrs, Round, Step};

use super::Refusal;

/// The floor under all signatures of one chain: nothing below it is signed, and at it only its own message again.
///
/// `step` is `None` for a floor that was set by an operator for a whole round (CometBFT's step 0).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Watermark {
    /// The highest height.
    pub height: Height,
    /// The highest round of that height.
    pub round: Round,
    /// The highest step of that round.
    pub step: Option<Step>,
    /// What was signed there; a floor that was set or imported may not know.
    pub signed: Option<Signed>,
}

/// A message that was signed. Ed25519 is deterministic, so its sign bytes are enough to repeat the signature.
#[derive(Clone, PartialEq, Eq)]
pub struct Signed {
    /// The canonical sign bytes with their length prefix.
    pub sign_bytes: Vec<u8>,
    /// The timestamp within them.
    pub timestamp: Timestamp,
}

impl Watermark {
    /// The watermark of a message at `hrs`.
    pub fn signed(hrs: Hrs, sign_bytes: Vec<u8>, timestamp: Timestamp) -> Self {
        Self {
            height: hrs.height,
            round: hrs.round,
            step: Some(hrs.step),
            signed: Some(Signed { sign_bytes, timestamp }),
        }
    }

    /// A floor without a message.
    pub fn floor(height: Height, round: Round, step: Option<Step>) -> Self {
        Self { height, round, step, signed: None }
    }

    /// What orders watermarks: height, round, step.
    pub fn place(&self) -> (Height, Round, Option<Step>) {
        (self.height, self.round, self.step)
    }

    /// Whether this is the watermark of that place.
    pub fn is_at(&self, hrs: Hrs) -> bool {
        self.place() == (hrs.height, hrs.round, Some(hrs.step))
    }

    /// CometBFT's `CheckHRS`: the place must not be below.
    pub(super) fn admits(&self, asked: Hrs) -> Result<(), Refusal> {
        if asked.height < self.height {
            return Err(Refusal::HeightRegression { asked, last: self.height });
        }
        if asked.height > self.height {
            return Ok(());
        }
        if asked.round < self.round {
            return Err(Refusal::RoundRegression { asked, last: self.round });
        }
        if asked.round == self.round && Some(asked.step) < self.step {
            return Err(Refusal::StepRegression { asked, last: self.step });
        }
        Ok(())
    }
}

/// `height/round/step`, with 0 for a floor without a step.
impl fmt::Display for Watermark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.height, self.round, self.step.map_or(0, Step::number))
    }
}

impl fmt::Debug for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signed")
            .field("sign_bytes", &data_encoding::HEXLOWER.encode(&self.sign_bytes))
            .field("timestamp", &self.timestamp)
            .finish()
    }
}
