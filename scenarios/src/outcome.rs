//! What a run gives.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// All that is known of a run after it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Outcome {
    /// What did not hold, in the order it was seen.
    pub violations: Vec<Violation>,
    /// What the run came by, and how often.
    pub reached: BTreeMap<&'static str, u64>,
    /// The times of answers, by kind of message.
    pub latencies: BTreeMap<&'static str, Latencies>,
    /// How many blocks our validator has signed for.
    pub blocks: u64,
    /// The hash of every event, down to the packets, in hexadecimal.
    pub trace: String,
    /// How many events.
    pub events: u64,
    /// How many crash points the disk of the first signer passed: two for each operation.
    pub disk_points: u64,
    /// How many crash points each host's disk passed from the order of a ceremony to its end there.
    pub ceremony_points: BTreeMap<String, u64>,
    /// How long the run was in simulated time, in milliseconds.
    pub simulated_ms: u64,
}

/// The times between a node's request and the answer's arrival, in simulated milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Latencies {
    /// How many answers.
    pub count: u64,
    /// The median.
    pub p50_ms: u64,
    /// The 99th percentile.
    pub p99_ms: u64,
    /// The longest.
    pub max_ms: u64,
}

/// An invariant that did not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// When, in simulated milliseconds since the start.
    pub at_ms: u64,
    /// What was seen.
    pub seen: String,
}

/// What always holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Invariant {
    /// No two conflicting signatures for a chain, height, round and step, over all signers of a key.
    OneSignature,
    /// The same height, round and step is answered with the same bytes for ever.
    SameAnswer,
    /// What was signed or released is on stable storage.
    DurableBeforeReleased,
    /// Records only rise.
    RecordsRise,
    /// What is given out verifies.
    SignaturesVerify,
    /// No panic, not even one that a runtime swallowed.
    NoPanic,
    /// Signing resumes after the faults within the budget.
    Resumes,
    /// A refusal is an answer, and the connection stays.
    RefusalsAnswered,
    /// Nothing is refused that CometBFT's own signer would sign.
    NoNeedlessRefusal,
    /// No height is signed that is further above the last one than the signer's limit.
    JumpsRefused,
    /// A nonce makes one share.
    NonceOnce,
    /// A cosigner that was started anew is the only one of its number: whoever has heard of it lets no earlier life of it in.
    Fenced,
    /// New shares and old ones are never both enough to sign.
    OneQuorum,
    /// Memory and queues stay within their bounds.
    Bounded,
    /// Answers come within the scenario's budgets.
    InTime,
    /// What the scenario expects besides.
    Expected,
}

impl Outcome {
    /// Something did not hold.
    pub fn violated(&mut self, invariant: Invariant, at_ms: u64, seen: String) {
        self.violations.push(Violation { invariant, at_ms, seen });
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {} ms: {}", self.invariant, self.at_ms, self.seen)
    }
}
