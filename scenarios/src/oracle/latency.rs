//! Times of answers.

use std::time::Duration;

use crate::outcome::Latencies;

/// The times of one kind of message, in whole milliseconds: the grain of simulated time.
#[derive(Debug, Default)]
pub(super) struct Samples(std::collections::BTreeMap<u64, u64>);

impl Samples {
    pub(super) fn add(&mut self, took: Duration) {
        *self.0.entry(took.as_millis() as u64).or_default() += 1;
    }

    pub(super) fn summary(&self) -> Latencies {
        Latencies {
            count: self.0.values().sum(),
            p50_ms: self.percentile(50),
            p99_ms: self.percentile(99),
            max_ms: self.0.keys().next_back().copied().unwrap_or_default(),
        }
    }

    /// The smallest time that at least so many percent of the answers did not exceed.
    fn percentile(&self, percent: u64) -> u64 {
        let rank = (self.0.values().sum::<u64>() * percent).div_ceil(100);
        let mut seen = 0;
        let found = self.0.iter().find(|(_, count)| {
            seen += **count;
            seen >= rank
        });
        found.map(|(millis, _)| *millis).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Samples;

    #[test]
    fn percentiles_are_of_the_answers() {
        let mut samples = Samples::default();
        for millis in 1..=100 {
            samples.add(Duration::from_millis(millis));
        }
        let summary = samples.summary();
        assert_eq!((summary.count, summary.p50_ms, summary.p99_ms, summary.max_ms), (100, 50, 99, 100));
    }
}
