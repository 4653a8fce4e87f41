//! A record file that was not written by this program: `golden/wrapped.record` was made by another one, in another language, from
//! the description in `record/format.rs`. Here it is read by code that shares nothing with that module, then by the module, and
//! written by it once more. So a writer and a reader that are wrong together are found, and a file of today is read tomorrow.

use std::fs;
use std::path::Path;

use monosign::guard::Watermark;
use monosign::record::{Header, Record, RecordError};
use monosign::seams::StdDisk;
use monosign_protocol::message::Timestamp;
use monosign_protocol::{ChainId, Height, Hrs, Round, Step};
use sha2::{Digest as _, Sha256};

const GOLDEN: &[u8] = include_bytes!("golden/wrapped.record");
const PAGE: usize = 4096;
const ENTRIES: u64 = 71;

fn chain() -> ChainId {
    "golden-1".parse().expect("a chain id")
}

fn key() -> [u8; 32] {
    std::array::from_fn(|n| n as u8)
}

/// What stands at each sequence, as the maker of the file had it.
fn watermark(n: u64) -> Watermark {
    let place = (n.max(1) - 1) % 3;
    let step = [Step::Proposal, Step::Prevote, Step::Precommit][place as usize];
    let height = Height(41 + (n as i64 + 2) / 3);
    if n == 0 {
        return Watermark::floor(Height(41), Round(0), None);
    }
    if n.is_multiple_of(7) {
        return Watermark::floor(height, Round(0), Some(step));
    }
    let message = (0..100 + n).map(|i| (n + i) as u8).collect();
    let timestamp = Timestamp { seconds: 1_700_000_000 + n as i64, nanos: n as i32 };
    Watermark::signed(Hrs { height, round: Round(0), step }, message, timestamp)
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("so many bytes")
}

fn is_sealed(bytes: &[u8]) -> bool {
    let (body, hash) = bytes.split_at(bytes.len() - 32);
    Sha256::digest(body)[..] == *hash
}

#[test]
fn its_hash_chain_is_one_by_code_that_knows_only_the_description() {
    assert_eq!(GOLDEN.len(), 65 * PAGE);
    let header = &GOLDEN[..PAGE];
    assert!(is_sealed(header) && header.starts_with(b"monosign\x01\0\0\0\x40\0\0\0"));
    assert_eq!((number(header, 32), &header[64..74]), (key(), &b"\x08\0golden-1"[..]));
    let mut before: Option<[u8; 32]> = None;
    for sequence in ENTRIES - 64..ENTRIES {
        let page = &GOLDEN[PAGE * (1 + (sequence % 64) as usize)..][..PAGE];
        let entry = &page[..512];
        assert!(is_sealed(entry) && entry.starts_with(b"HRS1"), "{sequence}");
        assert_eq!(entry, &page[2048..2560], "it stands there twice");
        assert!(page[512..2048].iter().chain(&page[2560..]).all(|byte| *byte == 0));
        assert_eq!(u64::from_le_bytes(number(entry, 4)), sequence);
        let expected = watermark(sequence);
        assert_eq!(i64::from_le_bytes(number(entry, 12)), expected.height.0);
        assert_eq!(entry[24], expected.step.map_or(0, Step::number));
        let message = expected.signed.as_ref().map(|signed| signed.sign_bytes.as_slice());
        assert_eq!(entry[25], u8::from(message.is_some()));
        let len = usize::from(u16::from_le_bytes(number(entry, 38)));
        assert_eq!(&entry[72..72 + len], message.unwrap_or_default());
        if let Some(before) = before {
            assert_eq!(number::<32>(entry, 40), before, "{sequence} follows the one before");
        }
        before = Some(number(entry, 480));
    }
}

#[tokio::test]
async fn it_is_read_opened_and_written_once_more_to_the_byte() {
    let dir = tempfile::tempdir().expect("a directory");
    let disk = StdDisk::default();
    let golden = dir.path().join("golden");
    fs::write(&golden, GOLDEN).expect("written");
    let (header, newest) = Record::peek(&disk, &golden).await.expect("a record");
    assert_eq!(header, Header { chain_id: chain(), public_key: key() });
    assert_eq!(newest, watermark(ENTRIES - 1));

    let mut record = Record::open(&disk, &golden, &chain(), &key()).await.expect("a record");
    assert_eq!(*record.watermark(), newest);
    assert!(fs::read(&golden).expect("readable") == GOLDEN, "an open changes nothing");
    record.raise(watermark(ENTRIES)).await.expect("rises");
    drop(record);

    let ours = dir.path().join("ours");
    let header = Header { chain_id: chain(), public_key: key() };
    let mut record = Record::create(&disk, &ours, header, watermark(0)).await.expect("new");
    for n in 1..ENTRIES {
        record.raise(watermark(n)).await.expect("rises");
    }
    assert!(fs::read(&ours).expect("readable") == GOLDEN, "written otherwise than described");
    record.raise(watermark(ENTRIES)).await.expect("rises");
    assert!(fs::read(&ours).expect("readable") == fs::read(&golden).expect("readable"));
}

/// Changes one entry of the golden file, and makes both of its copies valid again.
fn forged(sequence: u64, change: impl Fn(&mut [u8])) -> Vec<u8> {
    let mut file = GOLDEN.to_vec();
    let at = PAGE * (1 + (sequence % 64) as usize);
    let mut entry = file[at..at + 512].to_vec();
    change(&mut entry);
    let hash = Sha256::digest(&entry[..480]);
    entry[480..].copy_from_slice(&hash);
    file[at..at + 512].copy_from_slice(&entry);
    file[at + 2048..at + 2560].copy_from_slice(&entry);
    file
}

async fn opens(dir: &Path, content: &[u8]) -> Result<Watermark, RecordError> {
    let path = dir.join("forged");
    fs::write(&path, content).expect("written");
    Record::peek(&StdDisk::default(), &path).await.map(|(_, watermark)| watermark)
}

/// Each link by itself: an entry that is valid as such, and does not follow in one respect alone.
#[tokio::test]
async fn an_entry_that_does_not_follow_in_one_respect_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let newest = ENTRIES - 1;
    opens(dir.path(), &forged(newest, |_| ())).await.expect("unchanged");
    let height_of = |sequence: u64| watermark(sequence).height.0.to_le_bytes();
    let round_below = (-1i32).to_le_bytes();
    let cases: [(&str, Vec<u8>); 7] = [
        ("another hash of the one before", forged(newest, |entry| entry[40] ^= 1)),
        ("no hash of the one before", forged(newest, |entry| entry[40..72].fill(0))),
        ("a lower height", forged(newest, |entry| entry[12..20].copy_from_slice(&height_of(0)))),
        // 68 and 69 are steps 2 and 3 of one height.
        ("a lower round", relinked(forged(69, |entry| entry[20..24].copy_from_slice(&round_below)), newest)),
        ("a lower step", relinked(forged(69, |entry| entry[24] = 1), newest)),
        ("the same place", relinked(forged(69, |entry| entry[24] = 2), newest)),
        (
            "a sequence of the round before",
            forged(newest, |entry| entry[4..12].copy_from_slice(&6u64.to_le_bytes())),
        ),
    ];
    for (what, content) in cases {
        let refused = opens(dir.path(), &content).await;
        assert!(matches!(refused, Err(RecordError::Damaged { .. })), "{what}: {refused:?}");
    }
    // What comes of a forged entry that does follow, so that the cases above are refused for what they are.
    let higher = forged(newest, |entry| entry[12..20].copy_from_slice(&1000i64.to_le_bytes()));
    assert_eq!(opens(dir.path(), &higher).await.expect("follows").height, Height(1000));
}

/// Lets an entry follow the one before it again.
fn relinked(file: Vec<u8>, sequence: u64) -> Vec<u8> {
    let at = |sequence: u64| PAGE * (1 + (sequence % 64) as usize);
    let before: [u8; 32] = number(&file, at(sequence - 1) + 480);
    let mut file = file;
    let mut entry = file[at(sequence)..at(sequence) + 512].to_vec();
    entry[40..72].copy_from_slice(&before);
    let hash = Sha256::digest(&entry[..480]);
    entry[480..].copy_from_slice(&hash);
    let at = at(sequence);
    file[at..at + 512].copy_from_slice(&entry);
    file[at + 2048..at + 2560].copy_from_slice(&entry);
    file
}
