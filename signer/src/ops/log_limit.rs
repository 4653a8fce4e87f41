//! A bound on log lines that a peer can cause.

use std::time::Duration;

use tokio::time::Instant;

/// Lets some lines through in each window of time and counts the others.
#[derive(Debug, Default)]
pub struct LogLimit {
    window: Option<Instant>,
    said: u32,
    unsaid: u64,
}

const WINDOW: Duration = Duration::from_secs(10);
const LINES: u32 = 20;

impl LogLimit {
    /// Whether a line may be written now, and how many were left out since the last one that was.
    pub fn admit(&mut self) -> Option<u64> {
        if self.window.is_none_or(|start| start.elapsed() >= WINDOW) {
            self.window = Some(Instant::now());
            self.said = 0;
        }
        if self.said == LINES {
            self.unsaid += 1;
            return None;
        }
        self.said += 1;
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn lets_some_lines_through_and_counts_the_others() {
        let mut limit = LogLimit::default();
        assert_eq!((0..100).filter(|_| limit.admit().is_some()).count(), LINES as usize);
        tokio::time::advance(WINDOW).await;
        assert_eq!(limit.admit(), Some(100 - u64::from(LINES)));
    }
}
