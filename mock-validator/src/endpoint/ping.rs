use std::cell::Cell;

use tokio::time::{Instant, sleep_until};

use super::PING_INTERVAL;

/// Go's `time.Ticker`: it ticks on whether or not anybody looks, and keeps one tick for who looks late.
pub(super) struct Ticker {
    next: Cell<Instant>,
    missed: Cell<bool>,
    /// Whether a reset leaves a tick that was missed before it.
    keeps_missed: bool,
}

impl Ticker {
    pub(super) fn new(keeps_missed: bool) -> Self {
        Self { next: Cell::new(Instant::now() + PING_INTERVAL), missed: Cell::new(false), keeps_missed }
    }

    /// The next tick is a whole interval away.
    pub(super) fn reset(&self) {
        self.missed.set(self.keeps_missed && self.take());
        self.next.set(Instant::now() + PING_INTERVAL);
    }

    pub(super) async fn tick(&self) {
        while !self.take() {
            sleep_until(self.next.get()).await;
        }
    }

    /// Takes the tick that is due, if one is.
    pub(super) fn take(&self) -> bool {
        let now = Instant::now();
        let is_due = self.next.get() <= now;
        while self.next.get() <= now {
            self.next.set(self.next.get() + PING_INTERVAL);
        }
        self.missed.take() || is_due
    }
}
