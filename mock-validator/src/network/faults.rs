//! What goes wrong, and how often.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::consensus::Peer;

use super::random::Stream;

/// How often things go wrong by themselves, all in so many of a million cases. Nothing does by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// A message is lost.
    pub loss: u32,
    /// A node dies while it asks its signer: half of the time before the signer got the request, half after it signed.
    pub death_in_ask: u32,
    /// A node dies before its log is flushed.
    pub death_in_flush: u32,
    /// A node dies at the save of a decided block: before it, or after it and before the log's end of the height.
    pub death_in_save: u32,
    /// An answer of a signer is lost, and the node asks again with the same bytes 200 ms later.
    pub lost_answer: u32,
    /// A signer answers with an error although it could have signed, or signed and lost it.
    pub error_answer: u32,
    /// A signer is slow: the answer takes up to [`Faults::SLOW`].
    pub slow_answer: u32,
}

/// How long messages take on a link: between the two, evenly spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latency {
    /// The shortest.
    pub min: Duration,
    /// The longest.
    pub max: Duration,
}

/// What the links between nodes do to messages.
#[derive(Debug)]
pub(super) struct Links {
    seed: u64,
    default: Latency,
    latency: BTreeMap<(Peer, Peer), Latency>,
    cut: BTreeSet<(Peer, Peer)>,
    streams: BTreeMap<(Peer, Peer), Stream>,
}

impl Faults {
    /// The longest that a slow answer takes.
    pub const SLOW: Duration = Duration::from_secs(3);
}

impl Latency {
    /// Every message takes as long.
    pub const fn constant(latency: Duration) -> Self {
        Self { min: latency, max: latency }
    }

    pub(super) fn draw(&self, stream: &mut Stream) -> Duration {
        let spread = self.max.saturating_sub(self.min);
        let nanos = u64::try_from(spread.as_nanos()).unwrap_or(u64::MAX);
        if nanos == 0 { self.min } else { self.min + Duration::from_nanos(stream.below(nanos)) }
    }
}

impl Links {
    pub(super) fn new(seed: u64, default: Latency) -> Self {
        Self { seed, default, latency: BTreeMap::new(), cut: BTreeSet::new(), streams: BTreeMap::new() }
    }

    pub(super) fn set_latency(&mut self, from: Peer, to: Peer, latency: Latency) {
        self.latency.insert((from, to), latency);
    }

    pub(super) fn cut(&mut self, from: Peer, to: Peer) {
        self.cut.insert((from, to));
    }

    pub(super) fn heal(&mut self) {
        self.cut.clear();
    }

    pub(super) fn is_up(&self, from: Peer, to: Peer) -> bool {
        !self.cut.contains(&(from, to))
    }

    /// How long a message takes; `None` if it is lost.
    pub(super) fn carry(&mut self, from: Peer, to: Peer, loss: u32) -> Option<Duration> {
        if !self.is_up(from, to) {
            return None;
        }
        let seed = self.seed;
        let stream =
            self.streams.entry((from, to)).or_insert_with(|| Stream::new(seed, "link", [from.0, to.0]));
        let latency = self.latency.get(&(from, to)).unwrap_or(&self.default).draw(stream);
        (!stream.happens(loss)).then_some(latency)
    }
}
