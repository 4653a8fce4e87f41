//! Record files that a disk, a copy or an operator damaged: they are refused, or read as a watermark that was written;
//! and whatever a power cut leaves of the write that it interrupts, it is the old watermark or the new one.
//!
//! Input: entries in the file 1 byte, then operations of 1 byte and their operands.
#![no_main]

use std::cell::LazyCell;

use libfuzzer_sys::fuzz_target;
use monosign::guard::Watermark;
use monosign::record::{Entry, FILE_LEN, FormatError, Header, PAGE, SLOTS, decode_file};
use monosign_fuzz::head;
use monosign_protocol::message::Timestamp;
use monosign_protocol::{Height, Hrs, Round, Step};

const SECTOR: usize = 512;
const STEPS: [Step; 3] = [Step::Proposal, Step::Prevote, Step::Precommit];

thread_local! {
    static ENTRIES: LazyCell<Vec<Entry>> = const { LazyCell::new(entries) };
}

fuzz_target!(|input: &[u8]| {
    ENTRIES.with(|entries| check(entries, input));
});

fn check(entries: &[Entry], mut input: &[u8]) {
    let [count] = head(&mut input);
    let newest = usize::from(count).min(entries.len() - 2);
    let mut file = File::new(&entries[..=newest]);

    while !input.is_empty() {
        file.operate(entries, newest, &mut input);
    }
    match decode_file(&file.bytes) {
        Err(error) => {
            assert!(!file.only_torn, "a power cut leaves the old or the new entry");
            assert!(!error.to_string().is_empty());
            let is_one = file.bytes.len() >= PAGE && file.bytes.starts_with(b"monosign");
            assert_eq!(error == FormatError::NotARecord, !is_one);
        }
        Ok((read, found)) => {
            assert_eq!(read, header());
            if file.only_rotten {
                assert_eq!(found, entries[newest], "bits that rot are noticed");
            }
            if file.only_lost && newest >= SLOTS as usize {
                assert!(entries[newest..=newest + 1].contains(&found), "what was lost is missed");
            }
            if file.only_torn {
                assert!(entries[newest..=newest + 1].contains(&found));
            }
            let written = entries[..=newest + 1].contains(&found);
            assert!(written || file.forged.contains(&found));
        }
    }
}

struct File {
    bytes: Vec<u8>,
    /// Valid entries that were never part of the chain of hashes, as an attacker writes them.
    forged: Vec<Entry>,
    /// Nothing but the next write was done, in part.
    only_torn: bool,
    /// Bytes were changed at will, but no entry was put in another's place. While the ring fills, a newest page that is zeros
    /// again cannot be told from one that was never written; once it is full, nothing gets lost unnoticed.
    only_lost: bool,
    /// Nothing but single bytes were changed.
    only_rotten: bool,
}

impl File {
    fn new(entries: &[Entry]) -> Self {
        let mut bytes = vec![0; FILE_LEN];
        bytes[..PAGE].copy_from_slice(&header().encode());
        for entry in &entries[entries.len().saturating_sub(SLOTS as usize)..] {
            let at = entry.offset() as usize;
            bytes[at..at + PAGE].copy_from_slice(&entry.page());
        }
        Self { bytes, forged: Vec::new(), only_torn: true, only_lost: true, only_rotten: true }
    }

    fn operate(&mut self, entries: &[Entry], newest: usize, input: &mut &[u8]) {
        let [operation, a, b, c] = head(input);
        // Every byte of the file can be reached.
        let at = (usize::from(a) * PAGE / 2 + usize::from(u16::from_le_bytes([b, c]))) % FILE_LEN;
        let sector = at / SECTOR * SECTOR;
        let whole = self.bytes.len() == FILE_LEN;
        self.only_torn &= operation % 9 == 8;
        self.only_lost &= !matches!(operation % 9, 3 | 4 | 7);
        self.only_rotten &= operation % 9 == 0;
        match operation % 9 {
            _ if !whole => {}
            0 => {
                let [value] = head(input);
                self.bytes[at] = value;
            }
            1 => self.bytes[sector..sector + SECTOR].fill(0),
            2 => self.bytes[at / PAGE * PAGE..][..PAGE].fill(0),
            3 => {
                // A page of another entry, in the place of this one or in its own.
                let entry = &entries[usize::from(a).min(newest + 1)];
                let page =
                    if b & 1 == 0 { entry.offset() as usize } else { PAGE * (1 + usize::from(c) % 64) };
                self.bytes[page..page + PAGE].copy_from_slice(&entry.page());
            }
            4 => {
                let from = usize::from(u16::from_le_bytes([b, c])) * SECTOR % FILE_LEN;
                self.bytes.copy_within(from..from + SECTOR, usize::from(a) * 2 * SECTOR % FILE_LEN);
            }
            5 => self.bytes.truncate(at),
            6 => self.bytes[sector..sector + SECTOR].fill(a),
            7 => self.forge(&entries[usize::from(a).min(newest)], [b, c], input),
            _ => self.tear(&entries[newest + 1], a),
        }
    }

    /// Writes some of the sectors of the next entry's page.
    fn tear(&mut self, next: &Entry, sectors: u8) {
        let (at, page) = (next.offset() as usize, next.page());
        for sector in (0..PAGE / SECTOR).filter(|sector| sectors >> sector & 1 == 1) {
            let range = sector * SECTOR..(sector + 1) * SECTOR;
            self.bytes[at..][range.clone()].copy_from_slice(&page[range]);
        }
    }

    /// Writes an entry that nobody signed, whole.
    fn forge(&mut self, before: &Entry, [kind, round]: [u8; 2], input: &mut &[u8]) {
        let watermark = Watermark::floor(Height(i64::from_le_bytes(head(input))), Round(round.into()), None);
        let mut entry = before.next(watermark);
        if kind & 1 != 0 {
            entry.sequence = u64::from_le_bytes(head(input));
        }
        if kind & 2 != 0 {
            entry.previous = [kind; 32];
        }
        let at = entry.offset() as usize;
        self.bytes[at..at + PAGE].copy_from_slice(&entry.page());
        self.forged.push(entry);
    }
}

fn header() -> Header {
    Header { chain_id: "test-1".parse().expect("a chain id"), public_key: [7; 32] }
}

/// The life of a record, longer than its ring.
fn entries() -> Vec<Entry> {
    let mut entries = vec![Entry { sequence: 0, watermark: Watermark::default(), previous: [0; 32] }];
    for n in 1..202u8 {
        let step = STEPS[usize::from(n % 3)];
        let hrs = Hrs { height: Height(1 + i64::from(n / 3)), round: Round(0), step };
        let timestamp = Timestamp { seconds: n.into(), nanos: 1 };
        let watermark = match n % 50 {
            49 => Watermark::floor(hrs.height, hrs.round, Some(step)),
            _ => Watermark::signed(hrs, vec![n; 100 + usize::from(n)], timestamp),
        };
        let next = entries[usize::from(n) - 1].next(watermark);
        entries.push(next);
    }
    entries
}
