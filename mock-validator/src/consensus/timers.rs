//! Timeouts: how long each step lasts, and the one timer that a node has.

use std::time::Duration;

use monosign_protocol::message::Timestamp;
use monosign_protocol::{Height, Round};

use super::RoundStep;

/// How long to wait in each step: `[consensus]` of CometBFT's `config.toml`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a proposal.
    pub propose: Duration,
    /// Longer by this with each round.
    pub propose_delta: Duration,
    /// For agreeing prevotes, once two thirds prevoted.
    pub prevote: Duration,
    /// Longer by this with each round.
    pub prevote_delta: Duration,
    /// For agreeing precommits, once two thirds precommitted.
    pub precommit: Duration,
    /// Longer by this with each round.
    pub precommit_delta: Duration,
    /// Between a commit and the next height.
    pub commit: Duration,
}

/// A timeout that was set, and comes back as [`Input::Timeout`](super::Input::Timeout).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeout {
    /// How long after it was set it fires.
    pub after: Duration,
    /// The height it was set for.
    pub height: Height,
    /// The round it was set for.
    pub round: Round,
    /// What it ends.
    pub step: RoundStep,
}

/// The rule of a node's only timer (`consensus/ticker.go`): a timeout of a later height, round and step replaces the
/// one before; others are dropped.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ticker {
    last: Option<(Height, Round, RoundStep)>,
}

impl Default for Timeouts {
    /// The defaults of v0.38 (`config/config.go`, DefaultConsensusConfig).
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self {
            propose: ms(3000),
            propose_delta: ms(500),
            prevote: ms(1000),
            prevote_delta: ms(500),
            precommit: ms(1000),
            precommit_delta: ms(500),
            commit: ms(1000),
        }
    }
}

impl Timeouts {
    pub(crate) fn of(&self, step: RoundStep, round: Round) -> Duration {
        let (base, delta) = match step {
            RoundStep::Propose => (self.propose, self.propose_delta),
            RoundStep::PrevoteWait => (self.prevote, self.prevote_delta),
            RoundStep::PrecommitWait => (self.precommit, self.precommit_delta),
            _ => (Duration::ZERO, Duration::ZERO),
        };
        base.saturating_add(delta.saturating_mul(u32::try_from(round.0).unwrap_or(0)))
    }
}

impl Ticker {
    /// Whether the timer is to be set anew for this.
    pub(crate) fn takes(&mut self, height: Height, round: Round, step: RoundStep) -> bool {
        let next = (height, round, step);
        let is_later = self.last.is_none_or(|last| last < next);
        if is_later {
            self.last = Some(next);
        }
        is_later
    }
}

/// A time some while later.
pub fn later(time: Timestamp, by: Duration) -> Timestamp {
    let nanos = i64::from(time.nanos) + i64::from(by.subsec_nanos());
    let seconds = i64::try_from(by.as_secs()).unwrap_or(i64::MAX);
    Timestamp {
        seconds: time.seconds.saturating_add(seconds).saturating_add(nanos / NANOS),
        nanos: i32::try_from(nanos % NANOS).unwrap_or_default(),
    }
}

/// How long it is from one time to the other; nothing if that is past.
pub fn until(from: Timestamp, to: Timestamp) -> Duration {
    let nanos = i128::from(to.seconds - from.seconds) * i128::from(NANOS) + i128::from(to.nanos)
        - i128::from(from.nanos);
    Duration::from_nanos(u64::try_from(nanos.max(0)).unwrap_or(u64::MAX))
}

const NANOS: i64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timer_is_set_for_later_steps_only() {
        let mut ticker = Ticker::default();
        let (one, two, zero) = (Height(1), Height(2), Round(0));
        assert!(ticker.takes(one, zero, RoundStep::Propose));
        assert!(!ticker.takes(one, zero, RoundStep::Propose));
        assert!(ticker.takes(one, Round(1), RoundStep::NewHeight));
        assert!(!ticker.takes(one, zero, RoundStep::PrecommitWait));
        assert!(ticker.takes(two, zero, RoundStep::NewHeight));
    }

    #[test]
    fn times_carry_over_seconds() {
        let time = Timestamp { seconds: 5, nanos: 999_999_999 };
        let after = later(time, Duration::from_millis(1));
        assert_eq!(after, Timestamp { seconds: 6, nanos: 999_999 });
        assert_eq!(until(time, after), Duration::from_millis(1));
        assert_eq!(until(after, time), Duration::ZERO);
    }
}
