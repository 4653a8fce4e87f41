use monosign_protocol::message::{Timestamp, Vote};
use monosign_protocol::{Height, Hrs, Round, Step};
use std::cell::{Cell, RefCell};
use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::guard::Watermark;
use crate::seams::interrupted::{Interrupted, now};
use crate::seams::{Local, StdDisk};

/// A key of this test alone: on one host, one record at a time is open of a chain and key. Each test has a thread of its own.
fn key() -> [u8; 32] {
    static TESTS: AtomicU32 = AtomicU32::new(0);
    thread_local!(static TEST: u32 = TESTS.fetch_add(1, Ordering::Relaxed));
    let mut key = [7; 32];
    key[..4].copy_from_slice(&std::process::id().to_le_bytes());
    key[4..8].copy_from_slice(&TEST.with(|test| *test).to_le_bytes());
    key
}

fn chain(id: &str) -> ChainId {
    id.parse().expect("a chain id")
}

fn header() -> Header {
    Header { chain_id: chain("test-1"), public_key: key() }
}

fn watermark(height: i64) -> Watermark {
    let hrs = Hrs { height: Height(height), round: Round(0), step: Step::Prevote };
    Watermark::signed(hrs, vec![height as u8; 150], Default::default())
}

struct Rig {
    dir: tempfile::TempDir,
    disk: StdDisk,
}

impl Rig {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a directory"), disk: StdDisk::default() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("test.record")
    }

    async fn create(&self) -> Result<Record, RecordError> {
        Record::create(&self.disk, &self.path(), header(), Watermark::default()).await
    }

    async fn replace(&self) -> Result<Record, RecordError> {
        let content = fs::read(self.path()).expect("readable");
        Record::replace_foreign(&self.disk, &self.path(), &content, header(), Watermark::default()).await
    }

    async fn open(&self) -> Result<Record, RecordError> {
        Record::open(&self.disk, &self.path(), &chain("test-1"), &key()).await
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_record_is_found_again_as_it_was_left() {
    let rig = Rig::new();
    let mut record = rig.create().await.expect("new");
    for height in 1..200 {
        record.raise(watermark(height)).await.expect("rises");
    }
    drop(record);
    let record = rig.open().await.expect("there");
    assert_eq!(*record.watermark(), watermark(199));
    assert!(record.permit().is_some() && !record.recorded().unused);
    let (_, peeked) = Record::peek(&rig.disk, &rig.path()).await.expect("readable beside its owner");
    assert_eq!(peeked, watermark(199));
}

#[tokio::test(flavor = "current_thread")]
async fn an_existing_record_is_never_replaced() {
    let rig = Rig::new();
    rig.create().await.expect("new").raise(watermark(9)).await.expect("rises");
    assert!(matches!(rig.create().await, Err(RecordError::Exists { .. })));
    let replaced = rig.replace().await;
    assert!(matches!(replaced, Err(RecordError::Exists { .. })));
    assert_eq!(rig.open().await.expect("there").watermark().height, Height(9));
}

#[tokio::test(flavor = "current_thread")]
async fn a_damaged_record_is_not_replaced_as_foreign() {
    let rig = Rig::new();
    drop(rig.create().await.expect("new"));
    let mut bytes = fs::read(rig.path()).expect("readable");
    bytes[20] ^= 1;
    fs::write(rig.path(), bytes).expect("writable");
    assert!(matches!(rig.open().await, Err(RecordError::Damaged { .. })));
    let replaced = rig.replace().await;
    assert!(matches!(replaced, Err(RecordError::Exists { .. })));
}

#[tokio::test(flavor = "current_thread")]
async fn missing_locked_and_foreign_records_are_refused_by_name() {
    let rig = Rig::new();
    assert!(matches!(rig.open().await, Err(RecordError::Missing { .. })));
    let record = rig.create().await.expect("new");
    assert!(matches!(rig.open().await, Err(RecordError::Locked { .. })));
    drop(record);
    let other_chain = Record::open(&rig.disk, &rig.path(), &chain("test-2"), &key()).await;
    assert!(matches!(other_chain, Err(RecordError::ForeignChain { .. })));
    let other_key = Record::open(&rig.disk, &rig.path(), &chain("test-1"), &[8; 32]).await;
    assert!(matches!(other_key, Err(RecordError::ForeignKey { .. })));
    rig.open().await.expect("its own");
}

#[tokio::test(flavor = "current_thread")]
async fn nothing_lowers_a_record_or_signs_its_place_again() {
    let rig = Rig::new();
    let mut record = rig.create().await.expect("new");
    record.raise(watermark(5)).await.expect("rises");
    for height in [5, 4, -1] {
        assert!(matches!(record.raise(watermark(height)).await, Err(RecordError::NotRising { .. })));
    }
    record.raise(watermark(6)).await.expect("a refusal breaks nothing");
}

/// What is done to a record under a running signer, by its path.
type Disturbance = fn(&Path);

const DISTURBANCES: [(&str, Disturbance); 6] = [
    ("removed", |path| fs::remove_file(path).expect("removed")),
    ("moved", |path| fs::rename(path, path.with_extension("moved")).expect("moved")),
    ("replaced by a copy", |path| {
        let copy = path.with_extension("copy");
        fs::copy(path, &copy).expect("copied");
        fs::rename(&copy, path).expect("renamed");
    }),
    ("replaced by a directory", |path| {
        fs::rename(path, path.with_extension("moved")).expect("moved");
        fs::create_dir(path).expect("a directory");
    }),
    ("replaced by a link to a copy", |path| {
        let copy = path.with_extension("copy");
        fs::copy(path, &copy).expect("copied");
        fs::remove_file(path).expect("removed");
        symlink(copy, path).expect("a link");
    }),
    ("in a directory that was moved and copied", |path| {
        let dir = path.parent().expect("a directory");
        let moved = dir.with_extension("moved");
        fs::rename(dir, &moved).expect("moved");
        fs::create_dir(dir).expect("a directory");
        fs::copy(moved.join("test.record"), path).expect("copied");
    }),
];

#[tokio::test(flavor = "current_thread")]
async fn a_record_that_is_no_longer_at_its_path_signs_nothing_more() {
    for (how, disturb) in DISTURBANCES {
        for others_wait in [false, true] {
            let outer = tempfile::tempdir().expect("a directory");
            let (disk, path) = (StdDisk::default(), outer.path().join("state/test.record"));
            fs::create_dir(outer.path().join("state")).expect("a directory");
            disk.others_wait(others_wait);
            let mut record = Record::create(&disk, &path, header(), Watermark::default()).await.expect("new");
            record.raise(watermark(5)).await.expect("rises");
            disturb(&path);
            match record.raise(watermark(6)).await {
                Err(error @ RecordError::Moved { next_height: 6, .. }) => {
                    assert!(error.hint().contains("--to-height 6"), "{}", error.hint());
                }
                other => panic!("{how}: {other:?}"),
            }
            assert!(record.permit().is_none(), "{how}");
            // For good, with the same words: also if what was done is undone.
            for height in [6, 7] {
                assert!(
                    matches!(record.raise(watermark(height)).await, Err(RecordError::Moved { .. })),
                    "{how}"
                );
            }
        }
    }
}

#[tokio::test(flavor = "current_thread")]
async fn an_older_copy_that_takes_the_place_of_a_record_is_raised_to_what_was_signed() {
    let rig = Rig::new();
    let mut record = rig.create().await.expect("new");
    record.raise(watermark(5)).await.expect("rises");
    let old = rig.dir.path().join("old");
    fs::copy(rig.path(), &old).expect("copied");
    record.raise(watermark(6)).await.expect("rises");
    record.raise(watermark(7)).await.expect("rises");
    fs::rename(&old, rig.path()).expect("renamed");
    let raised = record.raise_or_hand_down(&rig.disk, watermark(8)).await;
    assert!(matches!(raised, Err(RecordError::Moved { .. })), "{raised:?}");
    drop(record);
    let record = rig.open().await.expect("there");
    assert_eq!(*record.watermark(), watermark(7), "the last that was signed, with its message");
}

#[tokio::test(flavor = "current_thread")]
async fn what_takes_the_place_of_a_record_and_is_none_of_it_is_left_alone() {
    let others =
        [Header { public_key: [1; 32], ..header() }, Header { chain_id: chain("test-2"), ..header() }];
    for other in others {
        let rig = Rig::new();
        let mut record = rig.create().await.expect("new");
        record.raise(watermark(5)).await.expect("rises");
        let path = rig.dir.path().join("other");
        drop(Record::create(&rig.disk, &path, other, Watermark::default()).await.expect("new"));
        fs::rename(&path, rig.path()).expect("renamed");
        let before = fs::read(rig.path()).expect("readable");
        assert!(record.raise_or_hand_down(&rig.disk, watermark(6)).await.is_err());
        assert_eq!(fs::read(rig.path()).expect("readable"), before);
    }
}

#[tokio::test(flavor = "current_thread")]
async fn another_name_of_the_same_file_and_a_way_back_do_no_harm() {
    let rig = Rig::new();
    let mut record = rig.create().await.expect("new");
    fs::hard_link(rig.path(), rig.dir.path().join("second")).expect("a second name");
    record.raise(watermark(5)).await.expect("rises");
    let away = rig.dir.path().join("away");
    fs::rename(rig.path(), &away).expect("moved");
    symlink(&away, rig.path()).expect("a link");
    record.raise(watermark(6)).await.expect("the path leads to it");
    fs::rename(&away, rig.path()).expect("moved back");
    record.raise(watermark(7)).await.expect("rises");
}

#[tokio::test(flavor = "current_thread")]
async fn one_record_of_a_chain_and_key_is_open_on_a_host_wherever_it_lies() {
    let rig = Rig::new();
    let copy = rig.dir.path().join("copy");
    let mut record = rig.create().await.expect("new");
    fs::copy(rig.path(), &copy).expect("copied");
    let me = std::process::id().to_string();
    let open_copy = async || Record::open(&rig.disk, &copy, &chain("test-1"), &key()).await;
    let new = rig.dir.path().join("new");
    let create = async || Record::create(&rig.disk, &new, header(), watermark(1)).await;
    fs::write(rig.dir.path().join("foreign"), b"{}").expect("writable");
    let foreign = rig.dir.path().join("foreign");
    let replace = async || Record::replace_foreign(&rig.disk, &foreign, b"{}", header(), watermark(1)).await;
    for refused in [open_copy().await, create().await, replace().await, rig.open().await] {
        match refused {
            Err(error @ RecordError::Locked { by: Some(_), .. }) => {
                assert!(error.to_string().contains(&format!("process {me} ")), "{error}");
            }
            other => panic!("{:?}", other.map(|record| record.path().to_owned())),
        }
    }
    assert!(!new.exists() && fs::read(&foreign).expect("readable") == b"{}", "nothing was made");
    // Another key or chain is another matter.
    let (disk, other) = (&rig.disk, Header { public_key: [1; 32], ..header() });
    let beside = Record::create(disk, &rig.dir.path().join("b"), other, Watermark::default()).await;
    drop(beside.expect("another key"));
    let other = Header { chain_id: chain("test-2"), ..header() };
    let beside = Record::create(disk, &rig.dir.path().join("c"), other, Watermark::default()).await;
    drop(beside.expect("another chain"));
    // A moved record frees nothing, as long as its signer lives.
    fs::rename(rig.path(), rig.dir.path().join("moved")).expect("moved");
    assert!(matches!(rig.create().await, Err(RecordError::Locked { .. })));
    assert!(record.raise(watermark(5)).await.is_err());
    assert!(matches!(rig.create().await, Err(RecordError::Locked { .. })));
    drop(record);
    open_copy().await.expect("free with its process");
}

#[tokio::test(flavor = "current_thread")]
async fn cosigners_share_a_host_but_not_with_their_copies_or_the_whole_key() {
    let rig = Rig::new();
    let path = |name: &str| rig.dir.path().join(name);
    let cosigner = async |name: &str, identity: u8| {
        let path = path(name);
        Opener::new(&rig.disk, &path).of_cosigner([identity; 32]).create(header(), watermark(1)).await
    };
    let (_one, _two) = (cosigner("1", 1).await.expect("new"), cosigner("2", 2).await.expect("new"));
    assert!(matches!(cosigner("copy of 1", 1).await, Err(RecordError::Locked { by: Some(_), .. })));
    let whole = rig.create().await.expect("seen by those who come later only");
    assert!(matches!(cosigner("3", 3).await, Err(RecordError::Locked { by: Some(_), .. })));
    drop(whole);
    cosigner("3", 3).await.expect("new");
}

#[tokio::test(flavor = "current_thread")]
async fn only_a_file_that_is_not_there_is_missing() {
    let rig = Rig::new();
    let open = async |path: &Path| Record::open(&rig.disk, path, &chain("test-1"), &key()).await;
    let peek = async |path: &Path| Record::peek(&rig.disk, path).await;
    for path in [rig.path(), rig.dir.path().join("no such directory/r")] {
        assert!(matches!(open(&path).await, Err(RecordError::Missing { .. })));
        assert!(matches!(peek(&path).await, Err(RecordError::Missing { .. })));
    }
    fs::write(rig.dir.path().join("file"), b"").expect("writable");
    let (looped, long) = (rig.dir.path().join("loop"), rig.dir.path().join("x".repeat(300)));
    symlink("loop", &looped).expect("a link");
    let below_a_file = rig.dir.path().join("file/r");
    for path in [rig.dir.path(), &below_a_file, &looped, &long] {
        let create = Record::create(&rig.disk, path, header(), watermark(1)).await;
        for error in [open(path).await.err(), peek(path).await.err(), create.err()] {
            match error {
                Some(error @ RecordError::Io { .. }) => {
                    assert!(!error.hint().contains("state init"), "{error}");
                }
                other => panic!("{}: {other:?}", path.display()),
            }
        }
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_record_that_is_in_use_is_never_said_to_be_in_the_way() {
    let rig = Rig::new();
    let mut record = rig.create().await.expect("new");
    record.raise(watermark(5)).await.expect("rises");
    // Both copies of the newest entry.
    let mut bytes = fs::read(rig.path()).expect("readable");
    bytes[2 * PAGE + 20] ^= 1;
    bytes[2 * PAGE + PAGE / 2 + 20] ^= 1;
    fs::write(rig.path(), bytes).expect("writable");
    let error = Record::peek(&rig.disk, &rig.path()).await.expect_err("damaged");
    assert!(matches!(error, RecordError::Damaged { in_use: true, .. }), "{error:?}");
    assert!(!error.hint().contains("move the file") && !error.hint().contains("init"), "{}", error.hint());
    drop(record);
    let error = Record::peek(&rig.disk, &rig.path()).await.expect_err("damaged");
    assert!(matches!(error, RecordError::Damaged { in_use: false, .. }), "{error:?}");
}

/// A file that shows other bytes at each reading, the last ones for ever.
struct Changing(RefCell<Vec<Vec<u8>>>);

impl DiskFile for Changing {
    fn try_lock(&self) -> Local<'_, io::Result<bool>> {
        Box::pin(async { Ok(false) })
    }

    fn read_all(&self, _: usize) -> Local<'_, io::Result<Vec<u8>>> {
        let mut readings = self.0.borrow_mut();
        let read = if readings.len() > 1 { readings.remove(0) } else { readings[0].clone() };
        Box::pin(async { Ok(read) })
    }

    fn write_at<'a>(&'a self, _: u64, _: &'a [u8]) -> Local<'a, io::Result<()>> {
        panic!("who looks writes nothing")
    }

    fn sync_data(&self) -> Local<'_, io::Result<()>> {
        panic!("who looks syncs nothing")
    }

    fn is_at<'a>(&'a self, _: &'a Path) -> Local<'a, io::Result<bool>> {
        panic!("who looks does not mind")
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_record_that_is_written_while_it_is_read_is_read_again_before_it_is_judged() {
    let rig = Rig::new();
    let mut record = rig.create().await.expect("new");
    let mut states = Vec::new();
    for height in 1..=70 {
        record.raise(watermark(height)).await.expect("rises");
        states.push(fs::read(rig.path()).expect("readable"));
    }
    // Its beginning was read before the last signatures, its end after them: the entries do not follow each other.
    let torn = |n: usize| {
        let mut bytes = states[n].clone();
        bytes[..5 * PAGE].copy_from_slice(&states[65][..5 * PAGE]);
        bytes
    };
    assert!(decode_file(&torn(67)).is_err() && decode_file(&torn(68)).is_err());
    let look = async |readings: Vec<Vec<u8>>| {
        Record::look(&Changing(RefCell::new(readings)), Path::new("r")).await.map(|(_, watermark)| watermark)
    };
    let whole = states[69].clone();
    assert_eq!(look(vec![torn(67), whole.clone()]).await.expect("whole"), watermark(70));
    assert_eq!(look(vec![torn(67), torn(68), torn(67), whole]).await.expect("whole"), watermark(70));
    assert!(matches!(look(vec![torn(67)]).await, Err(RecordError::Damaged { in_use: true, .. })));
}

#[tokio::test(flavor = "current_thread")]
async fn what_a_crash_left_of_a_creation_is_taken_away() {
    let rig = Rig::new();
    let left = rig.dir.path().join(".test.record.monosign-0");
    fs::write(&left, b"half a record").expect("writable");
    drop(rig.create().await.expect("new"));
    rig.open().await.expect("whole");
    let names: Vec<_> = fs::read_dir(rig.dir.path()).expect("readable").collect();
    assert_eq!(names.len(), 1, "nothing is left over: {names:?}");
}

#[tokio::test(flavor = "current_thread")]
async fn a_file_of_another_is_not_taken_for_a_leftover() {
    let rig = Rig::new();
    let other = rig.path().with_added_extension("new");
    let floor = Watermark::floor(Height(9), Round(0), None);
    let header_of_other = Header { chain_id: chain("test-2"), ..header() };
    drop(Record::create(&rig.disk, &other, header_of_other, floor).await.expect("new"));
    drop(rig.create().await.expect("new"));
    let (_, kept) = Record::peek(&rig.disk, &other).await.expect("it is there");
    assert_eq!(kept.height, Height(9));
}

#[tokio::test(flavor = "current_thread")]
async fn a_leftover_that_is_a_second_name_of_a_record_is_not_written_to() {
    let rig = Rig::new();
    rig.create().await.expect("new").raise(watermark(9)).await.expect("rises");
    let moved = rig.dir.path().join("moved");
    fs::hard_link(rig.path(), rig.dir.path().join(".test.record.monosign-0")).expect("a second name");
    fs::rename(rig.path(), &moved).expect("moved away");
    drop(rig.create().await.expect("new"));
    let (_, kept) = Record::peek(&rig.disk, &moved).await.expect("whole");
    assert_eq!(kept, watermark(9));
}

#[test]
fn of_two_that_make_a_record_without_seeing_each_other_none_loses_what_the_other_has_raised() {
    for is_anew in [true, false] {
        for at in 0.. {
            let (dir, raised) = (tempfile::tempdir().expect("a directory"), Cell::new(None));
            let path = dir.path().join("test.record");
            if !is_anew {
                fs::write(&path, b"{}").expect("writable");
            }
            let make = async |disk: &dyn Disk| match is_anew {
                true => Record::create(disk, &path, header(), watermark(100)).await,
                false => Record::replace_foreign(disk, &path, b"{}", header(), watermark(100)).await,
            };
            let others = || {
                let nobody = Interrupted::new(u32::MAX, &|| ()).contained();
                let risen =
                    now(make(&nobody)).is_ok_and(|mut record| now(record.raise(watermark(200))).is_ok());
                raised.set(Some(risen));
            };
            let disk = Interrupted::new(at, &others).contained();
            let made = now(make(&disk)).is_ok();
            let Some(raised) = raised.get() else { break };
            assert!(made || raised, "operation {at}: one of them has it");
            let (_, found) = now(Record::peek(&StdDisk::default(), &path)).expect("a record");
            assert_eq!(found, watermark(if raised { 200 } else { 100 }), "operation {at}, anew: {is_anew}");
        }
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_state_that_its_signer_still_writes_to_is_not_replaced() {
    let rig = Rig::new();
    fs::write(rig.path(), b"{\"height\":\"101\"}").expect("writable");
    let stale = b"{\"height\":\"100\"}";
    let replaced =
        Record::replace_foreign(&rig.disk, &rig.path(), stale, header(), Watermark::default()).await;
    assert!(matches!(replaced, Err(RecordError::Changed { .. })));
    drop(rig.replace().await.expect("the current content"));
    rig.open().await.expect("a record");
}

#[tokio::test(flavor = "current_thread")]
async fn the_longest_message_that_an_entry_holds_is_found_again() {
    for len in [MAX_SIGN_BYTES - 1, MAX_SIGN_BYTES] {
        let rig = Rig::new();
        let hrs = Hrs { height: Height(5), round: Round(0), step: Step::Prevote };
        let longest = Watermark::signed(hrs, vec![0xab; len], Default::default());
        let mut record = rig.create().await.expect("new");
        record.raise(longest.clone()).await.expect("rises");
        drop(record);
        assert_eq!(*rig.open().await.expect("there").watermark(), longest, "{len} bytes");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn leave_for_another_timestamp_ends_with_the_record() {
    let rig = Rig::new();
    let mut record = rig.create().await.expect("new");
    let chain_id = "test-1";
    let vote = |seconds: i64| Vote {
        vote_type: 1,
        height: Height(5),
        timestamp: Timestamp { seconds, nanos: 0 },
        ..Vote::default()
    };
    let (first, later) = (vote(1), vote(2));
    let asked = Question::vote(chain_id, &first, false).expect("a question");
    record.raise(Watermark::signed(asked.hrs(), asked.sign_bytes(), asked.timestamp())).await.expect("rises");
    let alike = Question::vote(chain_id, &later, false).expect("a question");
    assert!(record.permit().is_some() && record.permit_alike(&alike).is_some());
    let elsewhere = Vote { height: Height(6), ..vote(2) };
    let elsewhere = Question::vote(chain_id, &elsewhere, false).expect("a question");
    assert!(record.permit_alike(&elsewhere).is_none(), "another place");
    fs::remove_file(rig.path()).expect("removed");
    record.raise(watermark(9)).await.expect_err("it is nowhere");
    assert!(record.permit().is_none() && record.permit_alike(&alike).is_none());
}

#[tokio::test(flavor = "current_thread")]
async fn only_a_record_at_height_0_is_unused() {
    let rig = Rig::new();
    assert!(rig.create().await.expect("new").recorded().unused);
    let imported = rig.dir.path().join("imported");
    let record = Record::create(&rig.disk, &imported, header(), watermark(9)).await.expect("new");
    assert!(!record.recorded().unused, "an imported height is one to measure a jump from");
}
