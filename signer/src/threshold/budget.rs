//! How much somebody may do in a time: so much at once, and then so much a second.

use std::time::Duration;

use tokio::time::Instant;

/// What is left of it.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    per_second: u64,
    most: u64,
    /// In millionths: a microsecond gives back as many as `per_second` has ones.
    left: u64,
    at: Instant,
}

const MILLION: u64 = 1_000_000;

impl Budget {
    /// A full one.
    pub(super) fn new(per_second: u64, most: u64, now: Instant) -> Self {
        Self { per_second, most, left: most * MILLION, at: now }
    }

    /// Spends so much, at most all there can be.
    ///
    /// # Errors
    /// How long to wait, if there is not so much left: then nothing is spent.
    pub(super) fn spend(&mut self, now: Instant, cost: u64) -> Result<(), Duration> {
        let elapsed = u64::try_from(now.saturating_duration_since(self.at).as_micros()).unwrap_or(u64::MAX);
        let given_back = elapsed.saturating_mul(self.per_second);
        self.left = self.left.saturating_add(given_back).min(self.most * MILLION);
        self.at = now;
        let cost = cost.min(self.most) * MILLION;
        match self.left.checked_sub(cost) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(Duration::from_micros((cost - self.left).div_ceil(self.per_second.max(1)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_spent_at_once_and_given_back_with_time() {
        let now = Instant::now();
        let mut budget = Budget::new(10, 4, now);
        assert!((0..4).all(|_| budget.spend(now, 1).is_ok()));
        let wait = budget.spend(now, 1).expect_err("nothing is left");
        assert_eq!(wait, Duration::from_millis(100));
        assert!(budget.spend(now + wait / 2, 1).is_err());
        assert_eq!(budget.spend(now + wait, 1), Ok(()));
        // Never more than all of it, however long nothing was spent.
        let later = now + Duration::from_secs(1 << 40);
        assert!((0..4).all(|_| budget.spend(later, 1).is_ok()) && budget.spend(later, 1).is_err());
        // What costs more than there can be costs all there can be.
        assert_eq!(budget.spend(later + Duration::from_secs(9), 1000), Ok(()));
    }
}
