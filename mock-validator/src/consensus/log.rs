//! What a node has on disk: decided blocks, and the write-ahead log of all that went into consensus.

use std::collections::BTreeMap;

use monosign_protocol::Height;

use super::{Decided, Gossip, Peer, Timeout};

/// An entry of the write-ahead log.
#[derive(Debug, Clone)]
pub enum Entry {
    /// The block of this height is saved.
    EndHeight(Height),
    /// A message: from a peer, or the node's own.
    Message {
        /// Who sent it; `None` is the node itself.
        from: Option<Peer>,
        /// What was said.
        message: Gossip,
    },
    /// A timeout fired.
    Timeout(Timeout),
}

/// The entries that a node at `height` runs again when it starts (`consensus/replay.go`, catchupReplay): those after the
/// end of the height `before`, which is 0 for the chain's first. `None` if that end is missing, or that of `height` itself
/// is there: the node then starts without.
pub(crate) fn replayed(log: &[Entry], before: Height, height: Height) -> Option<&[Entry]> {
    let end_of =
        |ended: Height| log.iter().rposition(|entry| matches!(entry, Entry::EndHeight(h) if *h == ended));
    if end_of(height).is_some() {
        return None;
    }
    end_of(before).map(|end| &log[end + 1..])
}

/// A disk that keeps what was flushed: what survives a node's death.
#[derive(Debug, Clone)]
pub struct Storage {
    log: Vec<Entry>,
    flushed: usize,
    blocks: BTreeMap<Height, Decided>,
}

impl Default for Storage {
    /// The disk of a node that never ran. A new log begins with the end of height 0 (`consensus/wal.go`, OnStart).
    fn default() -> Self {
        Self { log: vec![Entry::EndHeight(Height(0))], flushed: 1, blocks: BTreeMap::new() }
    }
}

impl Storage {
    /// Appends to the log. A crash loses it until [`Storage::flush`].
    pub fn append(&mut self, entry: Entry) {
        self.log.push(entry);
    }

    /// What was appended survives from now on.
    pub fn flush(&mut self) {
        self.flushed = self.log.len();
        self.forget_old_heights();
    }

    /// Saves a decided block, durably.
    pub fn save(&mut self, decided: Decided) {
        self.blocks.insert(decided.block.height, decided);
    }

    /// The node died: the end of the log that was not flushed is gone.
    pub fn crash(&mut self) {
        self.log.truncate(self.flushed);
    }

    /// The log is gone as a whole, as after an operator's reset or a restored snapshot.
    pub fn lose_log(&mut self) {
        self.log.clear();
        self.flushed = 0;
    }

    /// All entries, oldest first.
    pub fn log(&self) -> &[Entry] {
        &self.log
    }

    /// The last decided block.
    pub fn last(&self) -> Option<&Decided> {
        self.blocks.last_key_value().map(|(_, decided)| decided)
    }

    /// The decided block of a height.
    pub fn decided(&self, height: Height) -> Option<&Decided> {
        self.blocks.get(&height)
    }

    /// Forgets the blocks below a height, which no peer will ask for any more.
    pub fn prune(&mut self, below: Height) {
        self.blocks = self.blocks.split_off(&below);
    }

    /// Keeps the entries since the end of the height before the last: no start reads more.
    fn forget_old_heights(&mut self) {
        if self.log.len() < 512 {
            return;
        }
        let ends = self.log.iter().enumerate().rev();
        let mut ends = ends.filter(|(_, entry)| matches!(entry, Entry::EndHeight(_))).map(|(at, _)| at);
        if let Some(start) = ends.nth(1) {
            self.log.drain(..start);
            self.flushed = self.log.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::RoundStep;
    use monosign_protocol::Round;
    use std::time::Duration;

    fn timeout(height: i64) -> Entry {
        Entry::Timeout(Timeout {
            after: Duration::ZERO,
            height: Height(height),
            round: Round(0),
            step: RoundStep::NewHeight,
        })
    }

    #[test]
    fn replay_takes_what_follows_the_end_of_the_last_height() {
        let log =
            [Entry::EndHeight(Height(0)), timeout(1), Entry::EndHeight(Height(1)), timeout(2), timeout(2)];
        assert_eq!(replayed(&log, Height(1), Height(2)).map(<[_]>::len), Some(2));
        assert!(replayed(&log, Height(0), Height(1)).is_none(), "the height has ended");
        assert!(replayed(&log, Height(2), Height(3)).is_none(), "the end of the height before is missing");
    }

    #[test]
    fn a_crash_loses_what_was_not_flushed() {
        let mut storage = Storage::default();
        storage.append(timeout(1));
        storage.flush();
        storage.append(timeout(1));
        storage.crash();
        assert_eq!(storage.log().len(), 2);
    }

    #[test]
    fn a_long_log_keeps_what_a_start_needs() {
        let mut storage = Storage::default();
        for height in 1..=1000 {
            storage.append(timeout(height));
            storage.append(Entry::EndHeight(Height(height)));
            storage.flush();
        }
        storage.append(timeout(1001));
        assert!(storage.log().len() < 1024);
        assert_eq!(replayed(storage.log(), Height(1000), Height(1001)).map(<[_]>::len), Some(1));
    }
}
