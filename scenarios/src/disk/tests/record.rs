//! The product's record on the simulated disk: what it returned for is never lost, whatever dies when.

use std::cell::Cell;
use std::io;

use monosign::guard::Watermark;
use monosign::record::{Header, Record, RecordError};
use monosign::seams::{Claim, Holder, Local};
use monosign_protocol::{ChainId, Height, Hrs, Round, Step};

use super::*;
use crate::scenario::DiskFault;

const RECORD: &str = "/state/test.record";
const KEY: [u8; 32] = [7; 32];
fn chain() -> ChainId {
    "test-1".parse().expect("a chain id")
}

fn watermark(height: i64) -> Watermark {
    let hrs = Hrs { height: Height(height), round: Round(0), step: Step::Prevote };
    Watermark::signed(hrs, vec![height as u8; 150], Default::default())
}

async fn create_record(disk: &dyn Disk) -> Result<Record, RecordError> {
    let header = Header { chain_id: chain(), public_key: KEY };
    Record::create(disk, Path::new(RECORD), header, Watermark::default()).await
}

async fn open_record(disk: &dyn Disk) -> Result<Record, RecordError> {
    Record::open(disk, Path::new(RECORD), &chain(), &KEY).await
}

/// What the world outside knows of a record.
#[derive(Debug, Default)]
struct Witness {
    /// The record has been said to exist.
    exists: Cell<bool>,
    /// The highest height that was answered from.
    released: Cell<i64>,
    /// The highest height that was asked for.
    asked: Cell<i64>,
}

impl Witness {
    /// A process: it opens the record, or makes it if there is none and never was, and raises it so often. True if it
    /// could.
    async fn life(&self, disk: &dyn Disk, raises: i64) -> Result<bool, String> {
        let mut record = match open_record(disk).await {
            Err(RecordError::Missing { .. }) if !self.exists.get() => {
                create_record(disk).await.map_err(|error| error.to_string())?
            }
            Err(RecordError::Damaged { .. }) => return Ok(false),
            other => other.map_err(|error| format!("{error}, and {self:?}"))?,
        };
        let Height(found) = record.watermark().height;
        if !(self.released.get()..=self.asked.get()).contains(&found) {
            return Err(format!("the record is at {found}, and {self:?}"));
        }
        self.exists.set(true);
        self.released.set(found);
        for height in found + 1..=found + raises {
            self.asked.set(height.max(self.asked.get()));
            record.raise(watermark(height)).await.map_err(|error| error.to_string())?;
            self.released.set(height);
        }
        Ok(true)
    }
}

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Death {
    Kill,
    Cut(Loss),
}

impl Death {
    const ALL: [Self; 4] = [Self::Kill, Self::Cut(Loss::All), Self::Cut(Loss::None), Self::Cut(Loss::Random)];

    fn befall(self, host: &HostDisk) {
        match self {
            Self::Kill => host.kill(),
            Self::Cut(loss) => host.power_cut(loss),
        }
    }
}

/// What the process gets for a disk: the honest one, or one with a planted bug.
type Mount = fn(Rc<dyn Disk>) -> Rc<dyn Disk>;

/// Two processes die, each at a crash point and in a way, and a third lives after a last, total power cut. True if both points
/// came up.
async fn three_lives(
    host: &Rc<HostDisk>,
    mount: Mount,
    [first, second]: [(u64, Death); 2],
) -> Result<[bool; 2], String> {
    let witness = Witness::default();
    let mut hit = [false; 2];
    for (n, (point, death)) in [first, second].into_iter().enumerate() {
        host.crash_at(point);
        let raises = if n == 0 { 3 } else { 1 };
        if ever(witness.life(&*mount(host.mount()), raises)).await.transpose()? == Some(false) {
            return may_refuse(death, first, hit);
        }
        hit[n] = host.crash_hit().is_some();
        host.disarm();
        death.befall(host);
    }
    host.power_cut(Loss::All);
    match ever(witness.life(&*mount(host.mount()), 1)).await.transpose()? {
        Some(true) => Ok(hit),
        Some(false) => may_refuse(second.1, first, hit),
        None => Err("a process hangs on a sound disk".into()),
    }
}

/// A record that cannot be read is refused, which is safe, and happens only if sectors were torn.
fn may_refuse(second: Death, first: (u64, Death), hit: [bool; 2]) -> Result<[bool; 2], String> {
    match [first.1, second].contains(&Death::Cut(Loss::Torn)) {
        true => Ok(hit),
        false => Err("the record is damaged, though sectors are written whole".into()),
    }
}

/// All of `three_lives` for a pair of deaths: every crash point, and every crash point of the process after it.
fn sweep(reach: &Reach, mount: Mount, deaths: [Death; 2], seed: u64) -> Result<u64, String> {
    let mut runs = 0;
    for first in 0.. {
        for second in 0.. {
            let host = host_of(seed ^ (first << 16) ^ (second << 32), reach.clone());
            let hit = simulated(three_lives(&host, mount, [(first, deaths[0]), (second, deaths[1])]))
                .map_err(|seen| format!("{deaths:?} at points {first} and {second}: {seen}"))?;
            runs += 1;
            match hit {
                [false, _] => return Ok(runs),
                [true, false] => break,
                [true, true] => {}
            }
        }
    }
    Ok(runs)
}

/// A kill as the second would be followed by the last power cut at once, and be the same as that.
fn pairs_of_deaths() -> impl Iterator<Item = [Death; 2]> {
    let pairs = Death::ALL.into_iter().flat_map(|first| Death::ALL.map(|second| [first, second]));
    pairs.filter(|[_, second]| *second != Death::Kill)
}

#[test]
fn no_crash_at_any_point_lowers_a_record() {
    let reach = Reach::default();
    let mut runs = 0;
    for (seed, deaths) in (1..).zip(pairs_of_deaths()) {
        runs += sweep(&reach, |disk| disk, deaths, seed).expect("old or new, and never lower");
    }
    assert!(runs > 12 * 300, "{runs} runs");
    for op in ["create", "rename_new", "remove", "sync_dir", "try_lock", "read_all", "write_at", "sync_data"]
    {
        for side in ["before", "after"] {
            assert!(
                reach.count(&format!("crash point {side} {op}")) > 0,
                "{side} {op}: {:?}",
                reach.counts()
            );
        }
    }
    for what in [
        "power cut between write and sync",
        "kill between write and sync",
        "power cut tore a write",
        "unsynced name lost",
        "unsynced name kept",
    ] {
        assert!(reach.count(what) > 0, "{what}: {:?}", reach.counts());
    }
}

#[test]
fn sectors_torn_inside_give_a_refusal_at_the_worst() {
    for seed in 0..4 {
        let deaths = [Death::Cut(Loss::Torn), Death::Cut(Loss::Torn)];
        sweep(&Reach::default(), |disk| disk, deaths, seed).expect("old, new or refused, and never lower");
    }
}

/// The bugs that the sweep is there for.
#[derive(Clone, Copy, PartialEq)]
enum Lie {
    /// Data is said to be synced, and is not.
    SyncData,
    /// Names are said to be synced, and are not.
    SyncDir,
    /// What is there already is not written and synced again: an entry that only the page cache holds is answered from.
    WriteAgain,
}

struct LyingDisk(Rc<dyn Disk>, Lie);

struct LyingFile(Box<dyn DiskFile>, Lie);

impl Disk for LyingDisk {
    fn open<'a>(&'a self, path: &'a Path, how: Open) -> Local<'a, io::Result<Box<dyn DiskFile>>> {
        Box::pin(async move {
            let file = self.0.open(path, how).await?;
            Ok(Box::new(LyingFile(file, self.1)) as Box<dyn DiskFile>)
        })
    }

    fn rename_new<'a>(&'a self, from: &'a Path, to: &'a Path) -> Local<'a, io::Result<()>> {
        self.0.rename_new(from, to)
    }

    fn remove<'a>(&'a self, path: &'a Path) -> Local<'a, io::Result<()>> {
        self.0.remove(path)
    }

    fn rename<'a>(&'a self, from: &'a Path, to: &'a Path) -> Local<'a, io::Result<()>> {
        self.0.rename(from, to)
    }

    fn sync_dir<'a>(&'a self, dir: &'a Path) -> Local<'a, io::Result<()>> {
        match self.1 {
            Lie::SyncDir => Box::pin(async { Ok(()) }),
            _ => self.0.sync_dir(dir),
        }
    }

    fn read_small<'a>(&'a self, path: &'a Path) -> Local<'a, io::Result<Option<String>>> {
        self.0.read_small(path)
    }

    fn claim<'a>(&'a self, name: &'a str) -> Local<'a, io::Result<Claim>> {
        self.0.claim(name)
    }

    fn holder<'a>(&'a self, name: &'a str) -> Local<'a, io::Result<Option<Holder>>> {
        self.0.holder(name)
    }
}

impl DiskFile for LyingFile {
    fn is_at<'a>(&'a self, path: &'a Path) -> Local<'a, io::Result<bool>> {
        self.0.is_at(path)
    }

    fn try_lock(&self) -> Local<'_, io::Result<bool>> {
        self.0.try_lock()
    }

    fn read_all(&self, max_len: usize) -> Local<'_, io::Result<Vec<u8>>> {
        self.0.read_all(max_len)
    }

    fn write_at<'a>(&'a self, offset: u64, bytes: &'a [u8]) -> Local<'a, io::Result<()>> {
        self.0.write_at(offset, bytes)
    }

    fn sync_data(&self) -> Local<'_, io::Result<()>> {
        match self.1 {
            Lie::SyncData => Box::pin(async { Ok(()) }),
            _ => self.0.sync_data(),
        }
    }

    fn write_durable<'a>(&'a self, offset: u64, bytes: &'a [u8]) -> Local<'a, io::Result<()>> {
        Box::pin(async move {
            let there = self.read_all(usize::MAX).await?;
            if self.1 == Lie::WriteAgain && there[offset as usize..].starts_with(bytes) {
                return Ok(());
            }
            self.write_at(offset, bytes).await?;
            self.sync_data().await
        })
    }
}

#[test]
fn a_disk_that_does_not_sync_data_is_caught() {
    let lying: Mount = |disk| Rc::new(LyingDisk(disk, Lie::SyncData));
    let missed: Vec<_> =
        pairs_of_deaths().filter(|deaths| sweep(&Reach::default(), lying, *deaths, 1).is_ok()).collect();
    let keeps = Death::Cut(Loss::None);
    assert_eq!(missed, [[Death::Kill, keeps], [keeps, keeps]], "those that lose nothing, and no other");
}

#[test]
fn a_disk_that_does_not_sync_names_is_caught() {
    let lying: Mount = |disk| Rc::new(LyingDisk(disk, Lie::SyncDir));
    assert!(sweep(&Reach::default(), lying, [Death::Cut(Loss::All); 2], 1).is_err());
}

#[test]
fn a_record_that_trusts_the_page_cache_is_caught() {
    let lying: Mount = |disk| Rc::new(LyingDisk(disk, Lie::WriteAgain));
    let deaths = [Death::Kill, Death::Cut(Loss::All)];
    let seen = sweep(&Reach::default(), lying, deaths, 1).expect_err("answered from the cache, then lost");
    assert!(seen.contains("the record is at"), "{seen}");
}

#[test]
fn a_failed_sync_ends_the_record_and_a_restart_finds_one_of_both() {
    simulated(async {
        for (death, found) in [(Death::Kill, 2), (Death::Cut(Loss::All), 1), (Death::Cut(Loss::None), 1)] {
            let host = host(1);
            let disk = host.mount();
            let mut record = create_record(&*disk).await.expect("new");
            record.raise(watermark(1)).await.expect("sound");
            host.set_fault(Some(DiskFault::SyncError));
            assert!(matches!(record.raise(watermark(2)).await, Err(RecordError::Io { doing: "write", .. })));
            assert!(matches!(record.raise(watermark(3)).await, Err(RecordError::Failed { .. })));
            assert!(record.permit().is_none());
            death.befall(&host);
            let record = open_record(&*host.mount()).await.expect("whole");
            assert_eq!(*record.watermark(), watermark(found), "after {death:?}");
            host.power_cut(Loss::All);
            let record = open_record(&*host.mount()).await.expect("whole");
            assert_eq!(*record.watermark(), watermark(found), "what was answered from is durable");
        }
    });
}

#[test]
fn a_full_or_read_only_disk_gets_no_record_and_no_half_of_one() {
    simulated(async {
        for (fault, step) in [(DiskFault::NoSpace, "create"), (DiskFault::ReadOnly, "create")] {
            let host = host(1);
            let disk = host.mount();
            host.set_fault(Some(fault));
            let refused = create_record(&*disk).await.err().expect("refused");
            assert!(matches!(refused, RecordError::Io { doing, .. } if doing == step), "{refused}");
            assert_eq!(host.snapshot(), Default::default());
            host.set_fault(None);
            create_record(&*disk).await.expect("sound again");
        }
    });
}

#[test]
fn a_disk_that_fills_up_takes_signatures_on() {
    simulated(async {
        let host = host(1);
        let mut record = create_record(&*host.mount()).await.expect("new");
        host.set_fault(Some(DiskFault::NoSpace));
        for height in 1..200 {
            record.raise(watermark(height)).await.expect("written over in place");
        }
    });
}

#[test]
fn a_record_that_hangs_is_raised_when_the_disk_is_back() {
    simulated(async {
        let host = host(1);
        let disk = host.mount();
        let mut record = create_record(&*disk).await.expect("new");
        host.set_fault(Some(DiskFault::Hang));
        assert!(ever(record.raise(watermark(1))).await.is_none());
        assert!(record.permit().is_none(), "given up on half-way");
        let second = ever(open_record(&*disk)).await;
        assert!(second.is_none());
        host.set_fault(None);
        assert!(matches!(open_record(&*disk).await, Err(RecordError::Locked { .. })));
    });
}

#[test]
fn a_record_is_locked_until_its_process_dies() {
    simulated(async {
        let host = host(1);
        let record = create_record(&*host.mount()).await.expect("new");
        assert!(matches!(open_record(&*host.mount()).await, Err(RecordError::Locked { .. })));
        host.kill();
        open_record(&*host.mount()).await.expect("free");
        drop(record);
    });
}

#[test]
fn the_same_seed_gives_the_same_disk() {
    let run = |seed| {
        let reach = Reach::default();
        let host = host_of(seed, reach.clone());
        let images = simulated(async {
            let mut images = Vec::new();
            for point in 0..40 {
                host.crash_at(point);
                let _ = ever(Witness::default().life(&*host.mount(), 3)).await;
                host.power_cut(Loss::Random);
                images.push(host.snapshot());
            }
            images
        });
        (images, reach.counts(), host.points_passed())
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}
