//! The bytes of a file, as reads show them and as the platter holds them.

use std::collections::BTreeMap;
use std::rc::{Rc, Weak};

use super::loss::PowerCut;

/// What a disk writes whole.
pub(super) const SECTOR: usize = 512;

/// How many states of one sector are remembered between syncs: any may be what was last written back. A signer that never syncs
/// makes ever more of them, and the older ones show no other failure.
const VERSIONS: usize = 4;

pub(super) type Sector = [u8; SECTOR];

/// A file, whatever its names.
#[derive(Debug, Default)]
pub(super) struct Content {
    cache: Vec<u8>,
    platter: Vec<u8>,
    /// The sectors that were written since the last sync, and what they held after each write, oldest first.
    unsynced: BTreeMap<usize, Vec<Version>>,
    /// The lengths that the file has had since the last sync, oldest first.
    lengths: Vec<usize>,
    writes: u64,
    lock: Option<Lock>,
}

/// What a sector held after a write.
#[derive(Debug)]
pub(super) struct Version {
    pub(super) write: u64,
    pub(super) bytes: Sector,
}

/// Void once the process or the handle is gone.
#[derive(Debug)]
struct Lock {
    incarnation: u64,
    handle: Weak<()>,
}

impl Content {
    /// A file that has been synced.
    pub(super) fn durable_from(bytes: Vec<u8>) -> Self {
        Self { cache: bytes.clone(), platter: bytes, ..Self::default() }
    }

    /// What reads show.
    pub(super) fn cached(&self) -> &[u8] {
        &self.cache
    }

    /// What is left if a power cut loses all that may be lost.
    pub(super) fn durable(&self) -> &[u8] {
        &self.platter
    }

    pub(super) fn is_unsynced(&self) -> bool {
        !self.unsynced.is_empty() || !self.lengths.is_empty()
    }

    /// As flock(2): a lock belongs to one open file, and goes with it.
    pub(super) fn try_lock(&mut self, incarnation: u64, handle: &Rc<()>) -> bool {
        let free = self.lock.as_ref().is_none_or(|lock| {
            let holder = lock.handle.upgrade().filter(|_| lock.incarnation == incarnation);
            holder.is_none_or(|holder| Rc::ptr_eq(&holder, handle))
        });
        if free {
            self.lock = Some(Lock { incarnation, handle: Rc::downgrade(handle) });
        }
        free
    }

    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if end > self.cache.len() {
            self.cache.resize(end, 0);
            self.lengths.push(end);
        }
        self.cache[offset..end].copy_from_slice(bytes);
        self.writes += 1;
        for sector in offset / SECTOR..end.div_ceil(SECTOR) {
            let version = Version { write: self.writes, bytes: sector_of(&self.cache, sector) };
            let versions = self.unsynced.entry(sector).or_default();
            if versions.len() == VERSIONS {
                versions.remove(0);
            }
            versions.push(version);
        }
    }

    pub(super) fn sync(&mut self) {
        self.platter.resize(self.cache.len(), 0);
        for sector in std::mem::take(&mut self.unsynced).into_keys() {
            put(&mut self.platter, sector, &sector_of(&self.cache, sector));
        }
        self.lengths.clear();
    }

    /// A sync that fails: Linux takes the pages for clean all the same, so that no later sync writes them.
    pub(super) fn fail_sync(&mut self) {
        self.unsynced.clear();
        self.lengths.clear();
    }

    /// The power is cut: the cache is gone, and of what was not synced some of it was written. True if a write was torn.
    pub(super) fn settle(&mut self, cut: &mut PowerCut) -> bool {
        let lengths = std::mem::take(&mut self.lengths);
        self.platter.resize(cut.length(self.platter.len(), &lengths), 0);
        // Of each write, whether some of it was kept and whether some was lost.
        let mut fates = BTreeMap::<u64, [bool; 2]>::new();
        for (sector, versions) in std::mem::take(&mut self.unsynced) {
            let before = sector_of(&self.platter, sector);
            let after = cut.sector(&before, &versions);
            put(&mut self.platter, sector, &after);
            let newest_kept = versions.iter().rposition(|version| version.bytes == after);
            let half = newest_kept.is_none() && after != before;
            for (n, version) in versions.iter().enumerate().filter(|(_, version)| version.bytes != before) {
                let kept = newest_kept.is_some_and(|newest| n <= newest);
                let [some_kept, some_lost] = fates.entry(version.write).or_default();
                *some_kept |= kept || half;
                *some_lost |= !kept;
            }
        }
        self.cache.clone_from(&self.platter);
        fates.values().any(|[kept, lost]| *kept && *lost)
    }
}

/// A sector of a file, with zeros after its end.
fn sector_of(bytes: &[u8], sector: usize) -> Sector {
    let mut copy = [0; SECTOR];
    let at = sector * SECTOR;
    if let Some(rest) = bytes.get(at..) {
        let len = rest.len().min(SECTOR);
        copy[..len].copy_from_slice(&rest[..len]);
    }
    copy
}

/// Writes as much of a sector as lies within the file.
fn put(bytes: &mut [u8], sector: usize, new: &Sector) {
    if let Some(rest) = bytes.get_mut(sector * SECTOR..) {
        let len = rest.len().min(SECTOR);
        rest[..len].copy_from_slice(&new[..len]);
    }
}
