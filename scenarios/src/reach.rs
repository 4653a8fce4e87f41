//! What a run came by: "a power cut between write and sync", "a sync that failed", and how often.
//!
//! A run in which nothing went wrong proves nothing. So the rare conjunctions count themselves, and a scenario can demand that
//! they were met.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// The counters of a run, shared by all that count.
#[derive(Debug, Clone, Default)]
pub struct Reach(Rc<RefCell<BTreeMap<&'static str, u64>>>);

impl Reach {
    /// Counts one more.
    pub fn hit(&self, what: &'static str) {
        *self.0.borrow_mut().entry(what).or_default() += 1;
    }

    /// How often it was counted.
    pub fn count(&self, what: &str) -> u64 {
        self.0.borrow().get(what).copied().unwrap_or_default()
    }

    /// All counters that are not zero.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.0.borrow().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::Reach;

    #[test]
    fn all_that_share_it_count_together() {
        let reach = Reach::default();
        let other = reach.clone();
        reach.hit("power cut");
        other.hit("power cut");
        assert_eq!((reach.count("power cut"), reach.count("kill")), (2, 0));
        assert_eq!(other.counts(), [("power cut", 2)].into());
    }
}
