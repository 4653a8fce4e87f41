//! How long to wait before dialing again.
//!
//! A node gives its signer three seconds to connect when it starts (CometBFT `node/node.go`, `privval/signer_listener_endpoint.go`,
//! `timeoutAccept`), and waits for it with every signature afterwards. So a refused port, which costs nothing to try, is tried
//! often: every 50 to 150 ms, and after ten minutes still twice within those three seconds. Only what costs time or
//! shows a fault (an unreachable host, a failed handshake) backs off to five seconds.

use std::time::Duration;

/// The shortest wait after a failed attempt.
const SHORTEST: Duration = Duration::from_millis(50);
/// The longest wait while the port is refused.
const LONGEST_REFUSED: Duration = Duration::from_millis(150);
/// The longest wait while the port is refused for more than ten minutes.
const LONGEST_REFUSED_FOR_LONG: Duration = Duration::from_secs(1);
const FOR_LONG: Duration = Duration::from_secs(600);
/// The longest wait otherwise.
const LONGEST: Duration = Duration::from_secs(5);

/// What the last attempt ended with, as far as waiting goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// A good session has ended.
    Served,
    /// A session that served requests has ended soon, or one that waited in line.
    Brief,
    /// Nobody listens: tried again soon.
    Refused,
    /// Anything else.
    Failed,
}

/// Counts failures since the last session that served.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// How long to wait, `outage` after the last good session ended. `random` spreads the waits of many signers by a
    /// quarter either way.
    pub(super) fn wait(&mut self, outcome: Outcome, outage: Duration, random: u8) -> Duration {
        let wait = match outcome {
            Outcome::Served => {
                self.failures = 0;
                return Duration::from_millis(u64::from(random) / 25);
            }
            Outcome::Brief => {
                self.failures = 0;
                SHORTEST
            }
            Outcome::Refused if outage > FOR_LONG => LONGEST_REFUSED_FOR_LONG,
            Outcome::Refused => (outage / 50).clamp(SHORTEST, LONGEST_REFUSED),
            Outcome::Failed => SHORTEST.saturating_mul(1 << self.failures.min(7)).min(LONGEST),
        };
        if outcome == Outcome::Failed {
            self.failures = self.failures.saturating_add(1);
        }
        wait.mul_f64(0.75 + f64::from(random) / 512.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redials_at_once_after_a_good_session_and_slower_the_longer_it_fails() {
        let mut backoff = Backoff::default();
        assert!(backoff.wait(Outcome::Served, Duration::ZERO, 255) <= Duration::from_millis(10));
        let waits: Vec<_> = (0..10).map(|_| backoff.wait(Outcome::Failed, Duration::ZERO, 128)).collect();
        assert_eq!(waits[0], Duration::from_millis(50));
        assert!(waits.is_sorted() && waits[9] == LONGEST);
        backoff.wait(Outcome::Served, Duration::ZERO, 0);
        assert_eq!(backoff.wait(Outcome::Failed, Duration::ZERO, 128), Duration::from_millis(50));
    }

    #[test]
    fn a_brief_session_is_followed_by_a_short_wait_and_ends_a_row_of_failures() {
        let mut backoff = Backoff::default();
        for _ in 0..5 {
            backoff.wait(Outcome::Failed, Duration::ZERO, 128);
        }
        assert_eq!(backoff.wait(Outcome::Brief, Duration::ZERO, 128), SHORTEST);
        assert_eq!(backoff.wait(Outcome::Failed, Duration::ZERO, 128), SHORTEST);
    }

    #[test]
    fn a_refused_port_is_always_tried_twice_within_a_nodes_three_seconds() {
        let mut backoff = Backoff::default();
        for outage in [0, 1, 10, 100, 100_000] {
            let wait = backoff.wait(Outcome::Refused, Duration::from_secs(outage), 255);
            assert!(wait <= Duration::from_secs(2), "{outage} s: {wait:?}");
        }
        assert!(backoff.wait(Outcome::Refused, Duration::from_secs(300), 255) < Duration::from_millis(200));
    }
}
