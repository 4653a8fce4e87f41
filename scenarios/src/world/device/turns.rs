//! What a device has to do, one thing after the other.
//!
//! It is done in its turn, whether or not anybody still waits for it: what a connector or a library has taken goes to the device
//! although the process that asked has given up, or is dead. So signatures are made late, which is what signers have to live with.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::time::Duration;

/// The turns of a device.
#[derive(Default)]
pub(super) struct Turns {
    queue: RefCell<VecDeque<Turn>>,
    /// When it is done with all that it has to do.
    busy_until: Cell<Duration>,
    now: Cell<Duration>,
}

/// How long something takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Takes {
    /// Until it is done.
    pub(super) before: Duration,
    /// Until its answer is there.
    pub(super) after: Duration,
}

impl Takes {
    /// What takes so long is done in the middle of it, and later if the device is slow.
    pub(super) fn new(usual: Duration, slow_by: Duration) -> Self {
        Self { before: slow_by + usual / 2, after: usual - usual / 2 }
    }
}

struct Turn {
    due: Duration,
    work: Box<dyn FnOnce()>,
}

impl Turns {
    /// The time of the whole world, which devices share: hosts do.
    pub(super) fn now(&self) -> Duration {
        self.now.get()
    }

    /// `work` is done when everything before it is.
    pub(super) fn take(&self, takes: Takes, work: impl FnOnce() + 'static) {
        let begins = self.busy_until.get().max(self.now());
        let due = begins + takes.before;
        self.busy_until.set(due + takes.after);
        self.queue.borrow_mut().push_back(Turn { due, work: Box::new(work) });
    }

    /// Others have it do something, so that whoever asks now waits at least as long as this.
    pub(super) fn keep_busy(&self, backlog: Duration) {
        if self.busy_until.get() < self.now() + backlog {
            self.busy_until.set(self.now() + backlog);
        }
    }

    /// The time has come to `now`, and what is due is done. Nothing is while the device hangs.
    pub(super) fn advance(&self, now: Duration, hangs: bool) {
        self.now.set(now);
        while let Some(work) = self.next_due(hangs) {
            work();
        }
    }

    fn next_due(&self, hangs: bool) -> Option<Box<dyn FnOnce()>> {
        let mut queue = self.queue.borrow_mut();
        let is_due = !hangs && queue.front().is_some_and(|turn| turn.due <= self.now());
        is_due.then(|| queue.pop_front()).flatten().map(|turn| turn.work)
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    /// Turns that note when they were done.
    fn noted(turns: &Rc<Turns>, takes: &[u64]) -> Rc<RefCell<Vec<u128>>> {
        let done = Rc::new(RefCell::new(Vec::new()));
        for takes in takes {
            let (turns_at, done) = (Rc::clone(turns), Rc::clone(&done));
            turns.take(Takes::new(Duration::from_millis(*takes), Duration::ZERO), move || {
                done.borrow_mut().push(turns_at.now().as_millis());
            });
        }
        done
    }

    fn advance(turns: &Turns, millis: std::ops::Range<u64>, hangs: bool) {
        millis.for_each(|now| turns.advance(Duration::from_millis(now), hangs));
    }

    #[test]
    fn one_thing_is_done_after_the_other() {
        let turns = Rc::new(Turns::default());
        let done = noted(&turns, &[10, 4, 20]);
        advance(&turns, 0..100, false);
        assert_eq!(*done.borrow(), [5, 12, 24]);
    }

    #[test]
    fn what_was_taken_before_a_hang_is_done_after_it() {
        let turns = Rc::new(Turns::default());
        let done = noted(&turns, &[10, 4]);
        advance(&turns, 0..50, true);
        assert!(done.borrow().is_empty());
        advance(&turns, 50..51, false);
        assert_eq!(*done.borrow(), [50, 50]);
    }
}
