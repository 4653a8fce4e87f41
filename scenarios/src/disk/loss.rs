//! What a power cut leaves of what was not synced.

use super::content::{SECTOR, Sector, Version};
use crate::streams::Stream;

/// What becomes of the sectors, lengths and names that were not synced when the power is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Loss {
    /// All of it is lost: what POSIX permits at the worst.
    All,
    /// Nothing is lost: the kernel happened to have written everything.
    None,
    /// Drawn for each sector, length and name: they may reach the platter in any order. Sectors are old or new as a whole.
    #[default]
    Random,
    /// As `Random`, and sectors may be torn at any byte, which disks with 512-byte sectors promise not to do.
    Torn,
}

/// How much of what was not synced survives a power cut, in percent: drawn for each cut, since a coin for each sector would almost
/// never keep, or lose, all sectors of a page.
const KEPT_PERCENT: [u64; 5] = [0, 10, 50, 90, 100];

/// How many of the sectors that survive are torn where they may be.
const TORN_PERCENT: u64 = 40;

/// The decisions of one power cut.
pub(super) struct PowerCut {
    loss: Loss,
    kept_percent: u64,
    stream: Stream,
}

impl PowerCut {
    pub(super) fn new(loss: Loss, mut stream: Stream) -> Self {
        let kept_percent = *stream.pick(&KEPT_PERCENT);
        Self { loss, kept_percent, stream }
    }

    /// Whether a change of a name is kept.
    pub(super) fn keeps(&mut self) -> bool {
        match self.loss {
            Loss::All => false,
            Loss::None => true,
            Loss::Random | Loss::Torn => self.stream.percent(self.kept_percent),
        }
    }

    /// The length of a file that had `durable` bytes at its last sync and the lengths `later` since.
    pub(super) fn length(&mut self, durable: usize, later: &[usize]) -> usize {
        match (self.keeps(), self.loss) {
            (true, Loss::None) => later.last().copied().unwrap_or(durable),
            (true, _) if !later.is_empty() => *self.stream.pick(later),
            _ => durable,
        }
    }

    /// What a sector holds that held `before` at its last sync and `later` since.
    pub(super) fn sector(&mut self, before: &Sector, later: &[Version]) -> Sector {
        let newest = later.last().map_or(*before, |version| version.bytes);
        match (self.keeps(), self.loss) {
            (false, _) => *before,
            (true, Loss::All | Loss::None) => newest,
            (true, Loss::Random) => self.stream.pick(later).bytes,
            (true, Loss::Torn) => {
                let after = self.stream.pick(later).bytes;
                match self.stream.percent(TORN_PERCENT) {
                    true => self.torn(before, &after),
                    false => after,
                }
            }
        }
    }

    fn torn(&mut self, before: &Sector, after: &Sector) -> Sector {
        let at = self.stream.between(1, SECTOR as u64 - 1) as usize;
        let (head, tail) = if self.stream.percent(50) { (before, after) } else { (after, before) };
        let mut sector = *head;
        sector[at..].copy_from_slice(&tail[at..]);
        sector
    }
}
