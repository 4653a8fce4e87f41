//! The jump limit over time: what requests have skipped is not to be skipped again at once.
//!
//! One limit for each request would be none: two hundred requests in a row would carry the record two hundred times as far. So all
//! that is skipped comes out of one limit, and the clock gives it back no faster than a chain can make blocks. The next height skips
//! nothing, at whatever speed.

use std::time::Duration;

use monosign_protocol::Height;

use super::JumpLimit;

/// How many heights were skipped that the clock does not explain yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Skipped(pub u64);

/// No chain makes its blocks faster; 18 000 heights an hour.
const BLOCK: Duration = Duration::from_millis(200);

impl Skipped {
    /// What a rise skips: nothing if it is to the next height.
    pub fn between(last: Height, asked: Height) -> Self {
        let rise = asked.0.checked_sub(last.0).and_then(|rise| u64::try_from(rise).ok()).unwrap_or(u64::MAX);
        Self(rise.saturating_sub(1))
    }

    /// Both together.
    pub fn and(self, more: Self) -> Self {
        Self(self.0.saturating_add(more.0))
    }

    /// Without some of it.
    pub fn without(self, some: Self) -> Self {
        Self(self.0.saturating_sub(some.0))
    }

    /// What is left of it after a time.
    pub fn after(self, time: Duration) -> Self {
        let explained = time.as_millis() / BLOCK.as_millis();
        self.without(Self(u64::try_from(explained).unwrap_or(u64::MAX)))
    }

    /// How far a request may be above the record now. The next height always is.
    pub fn leaves(self, limit: JumpLimit) -> JumpLimit {
        match limit {
            JumpLimit::Heights(limit) => JumpLimit::Heights(limit.saturating_sub(self.0).max(1)),
            JumpLimit::Off => JumpLimit::Off,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: JumpLimit = JumpLimit::Heights(100);

    #[test]
    fn the_next_height_skips_nothing() {
        for (last, asked, skipped) in
            [(5, 5, 0), (5, 6, 0), (5, 7, 1), (0, 100, 99), (-1, i64::MAX, u64::MAX - 1)]
        {
            assert_eq!(Skipped::between(Height(last), Height(asked)), Skipped(skipped), "{last} {asked}");
        }
    }

    #[test]
    fn what_was_skipped_is_taken_from_the_limit_until_the_clock_explains_it() {
        assert_eq!(Skipped(0).leaves(LIMIT), LIMIT);
        assert_eq!(Skipped(60).leaves(LIMIT), JumpLimit::Heights(40));
        assert_eq!(Skipped(60).after(Duration::from_secs(4)).leaves(LIMIT), JumpLimit::Heights(60));
        assert_eq!(Skipped(60).after(Duration::from_secs(12)), Skipped(0));
        assert_eq!(Skipped(60).after(Duration::MAX), Skipped(0));
        for spent in [99, 100, u64::MAX] {
            assert_eq!(
                Skipped(spent).leaves(LIMIT),
                JumpLimit::Heights(1),
                "the next height is never a jump"
            );
        }
        assert_eq!(Skipped(u64::MAX).leaves(JumpLimit::Off), JumpLimit::Off);
    }

    #[test]
    fn an_hour_gives_back_no_more_than_the_fastest_chain_makes() {
        assert_eq!(Skipped(100_000).after(Duration::from_secs(3600)), Skipped(82_000));
    }
}
