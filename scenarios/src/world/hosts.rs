//! What every host knows of the others without asking: whether they have power, and who is cut off from whom.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use super::keepalive::Pair;

/// Whether a host runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Power {
    /// Its process runs.
    On,
    /// Its process is gone, its kernel runs.
    ProcessDown,
    /// It has no power.
    Off,
}

/// The hosts of a world.
pub(super) struct Hosts {
    power: RefCell<BTreeMap<String, Power>>,
    cut: RefCell<BTreeSet<(String, String)>>,
    /// Hosts that were copied, with their copies: these answer at the address of the first one, for whoever cannot reach that.
    copies: RefCell<BTreeMap<String, Vec<String>>>,
    /// Connections whose listener's end is open.
    accepted: RefCell<BTreeSet<Pair>>,
    /// Whether writes are chopped.
    pub(super) chops: bool,
}

impl Hosts {
    pub(super) fn new(chops: bool) -> Self {
        Self {
            power: RefCell::default(),
            cut: RefCell::default(),
            copies: RefCell::default(),
            accepted: RefCell::default(),
            chops,
        }
    }

    pub(super) fn power(&self, host: &str) -> Power {
        self.power.borrow().get(host).copied().unwrap_or(Power::Off)
    }

    pub(super) fn set_power(&self, host: &str, power: Power) {
        self.power.borrow_mut().insert(host.into(), power);
    }

    /// Whether what `from` sends never reaches `to`.
    pub(super) fn is_cut(&self, from: &str, to: &str) -> bool {
        self.cut.borrow().contains(&(from.into(), to.into()))
    }

    /// A host was copied to another.
    pub(super) fn copied(&self, from: &str, to: &str) {
        let mut copies = self.copies.borrow_mut();
        let copies = copies.entry(from.into()).or_default();
        if !copies.iter().any(|copy| copy == to) {
            copies.push(to.into());
        }
    }

    /// Who answers at the address of `to` when `from` dials it: the host itself, or a copy of it if only that can be reached.
    pub(super) fn at_address(&self, from: &str, to: &str) -> String {
        let reached = |host: &str| {
            self.power(host) == Power::On && !self.is_cut(from, host) && !self.is_cut(host, from)
        };
        let copies = self.copies.borrow();
        let copy =
            copies.get(to).and_then(|copies| copies.iter().find(|copy| reached(copy) && *copy != from));
        match copy.filter(|_| !reached(to)) {
            Some(copy) => copy.clone(),
            None => to.into(),
        }
    }

    pub(super) fn set_cut(&self, from: &str, to: &str, cut: bool) {
        let pair = (from.to_owned(), to.to_owned());
        match cut {
            true => self.cut.borrow_mut().insert(pair),
            false => self.cut.borrow_mut().remove(&pair),
        };
    }

    /// Whether the listener's end of a connection is open.
    pub(super) fn has_accepted(&self, pair: &Pair) -> bool {
        self.accepted.borrow().contains(pair)
    }

    pub(super) fn set_accepted(&self, pair: Pair, open: bool) {
        match open {
            true => self.accepted.borrow_mut().insert(pair),
            false => self.accepted.borrow_mut().remove(&pair),
        };
    }
}
