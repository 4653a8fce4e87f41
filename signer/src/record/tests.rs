use monosign_protocol::{Height, Hrs, Round, Step};
use std::fs;

use super::*;
use crate::guard::Watermark;
use crate::seams::StdDisk;

const KEY: [u8; 32] = [7; 32];

fn chain(id: &str) -> ChainId {
    id.parse().expect("a chain id")
}

fn header() -> Header {
    Header { chain_id: chain("test-1"), public_key: KEY }
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
        Record::open(&self.disk, &self.path(), &chain("test-1"), &KEY).await
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
    let other_chain = Record::open(&rig.disk, &rig.path(), &chain("test-2"), &KEY).await;
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

#[tokio::test(flavor = "current_thread")]
async fn a_creation_that_was_cut_short_is_made_whole() {
    let rig = Rig::new();
    fs::write(rig.path().with_added_extension("new"), b"half a record").expect("writable");
    drop(rig.create().await.expect("new"));
    rig.open().await.expect("whole");
    let names: Vec<_> = fs::read_dir(rig.dir.path()).expect("readable").collect();
    assert_eq!(names.len(), 1, "nothing is left over: {names:?}");
}

#[tokio::test(flavor = "current_thread")]
async fn a_leftover_that_is_a_second_name_of_a_record_is_not_written_to() {
    let rig = Rig::new();
    rig.create().await.expect("new").raise(watermark(9)).await.expect("rises");
    let moved = rig.dir.path().join("moved");
    fs::hard_link(rig.path(), rig.path().with_added_extension("new")).expect("a second name");
    fs::rename(rig.path(), &moved).expect("moved away");
    drop(rig.create().await.expect("new"));
    let (_, kept) = Record::peek(&rig.disk, &moved).await.expect("whole");
    assert_eq!(kept, watermark(9));
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
async fn only_a_record_at_height_0_is_unused() {
    let rig = Rig::new();
    assert!(rig.create().await.expect("new").recorded().unused);
    let imported = rig.dir.path().join("imported");
    let record = Record::create(&rig.disk, &imported, header(), watermark(9)).await.expect("new");
    assert!(!record.recorded().unused, "an imported height is one to measure a jump from");
}
