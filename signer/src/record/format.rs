//! The bytes of a record: a header page and slots of one page each.
//!
//! ```text
//! header page   magic 8 | format 4 | slots 4 | reserved 16 | public key 32 | chain id length 2, bytes 50 | … | SHA-256 32
//! slot page     entry 512 | zeros | the same entry 512 at 2048 | zeros
//! entry         magic 4 | sequence 8 | height 8 | round 4 | step 1 | has message 1 | seconds 8 | nanos 4
//!               | sign bytes length 2 | SHA-256 of the entry before 32 | sign bytes | zeros | SHA-256 32
//! ```
//!
//! Numbers are little-endian. An entry fits one 512-byte sector, the unit that disks write whole, and stands twice in
//! its page, in different sectors: a write torn between sectors leaves an old or a new entry in each, never half of one.

use monosign_protocol::message::Timestamp;
use monosign_protocol::{ChainId, Height, Round, Step};
use sha2::{Digest as _, Sha256};

use crate::guard::{Signed, Watermark};

/// The unit of every write, in bytes.
pub const PAGE: usize = 4096;
/// The slots of the ring.
pub const SLOTS: u64 = 64;
/// The length of a record file in bytes.
pub const FILE_LEN: usize = PAGE * (1 + SLOTS as usize);

const MAGIC: &[u8; 8] = b"monosign";
const FORMAT: u32 = 1;
const HASH: usize = 32;
/// Bytes of the header that mean nothing: any are read.
const RESERVED: usize = 16;

const ENTRY: usize = 512;
const ENTRY_MAGIC: &[u8; 4] = b"HRS1";
const ENTRY_HEAD: usize = 4 + 8 + 8 + 4 + 1 + 1 + 8 + 4 + 2 + HASH;
const COPY_AT: usize = PAGE / 2;

/// The longest sign bytes that an entry holds. Votes and proposals of a chain id of 50 bytes take 200.
pub const MAX_SIGN_BYTES: usize = ENTRY - HASH - ENTRY_HEAD;

const _: () = assert!(MAX_SIGN_BYTES >= 256 && PAGE.is_multiple_of(ENTRY) && COPY_AT >= ENTRY);

/// Whom a record belongs to; written once, when it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The chain whose signatures it guards.
    pub chain_id: ChainId,
    /// The Ed25519 public key that signs for it.
    pub public_key: [u8; 32],
}

/// One step of the watermark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Counts entries from 0; the entry lies in slot `sequence % SLOTS`.
    pub sequence: u64,
    /// The watermark as it rose.
    pub watermark: Watermark,
    /// The hash of the entry before; zero for the first.
    pub previous: [u8; HASH],
}

/// Why a header page or a slot is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// Not a record file at all.
    #[error("it is not a monosign record")]
    NotARecord,
    /// Made by another version.
    #[error("its format is {0}, and this version reads {FORMAT}")]
    UnknownFormat(u32),
    /// The header does not match its checksum.
    #[error("its header is damaged")]
    DamagedHeader,
    /// A slot holds neither zeros nor a valid entry.
    #[error("slot {slot} is damaged")]
    DamagedSlot {
        /// The slot, from 0.
        slot: u64,
    },
    /// The entries do not follow each other.
    #[error("the entries around sequence {sequence} do not follow each other")]
    BrokenSequence {
        /// Where the break is.
        sequence: u64,
    },
    /// The file has another length than a record.
    #[error("it has {0} bytes, and a record has {FILE_LEN}")]
    WrongLength(usize),
    /// The file is longer than a record, and was not read.
    #[error("it is longer than a record, which has {FILE_LEN} bytes")]
    TooLong,
    /// No slot holds an entry.
    #[error("it holds no entry")]
    Empty,
}

impl Header {
    /// The header page.
    pub fn encode(&self) -> Vec<u8> {
        let mut page = Vec::with_capacity(PAGE);
        page.extend_from_slice(MAGIC);
        page.extend_from_slice(&FORMAT.to_le_bytes());
        page.extend_from_slice(&(SLOTS as u32).to_le_bytes());
        page.extend_from_slice(&[0; RESERVED]);
        page.extend_from_slice(&self.public_key);
        let chain_id = self.chain_id.as_str().as_bytes();
        page.extend_from_slice(&(chain_id.len() as u16).to_le_bytes());
        page.extend_from_slice(chain_id);
        seal(page, PAGE)
    }

    /// Reads a header page.
    ///
    /// # Errors
    /// [`FormatError`] if it is none, damaged, or of another format.
    pub fn decode(page: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader(page);
        if reader.take(MAGIC.len()) != Some(MAGIC) {
            return Err(FormatError::NotARecord);
        }
        let format = reader.u32().ok_or(FormatError::NotARecord)?;
        if format != FORMAT {
            return Err(FormatError::UnknownFormat(format));
        }
        if !is_sealed(page, PAGE) {
            return Err(FormatError::DamagedHeader);
        }
        Self::fields(&mut reader).ok_or(FormatError::DamagedHeader)
    }

    fn fields(reader: &mut Reader<'_>) -> Option<Self> {
        if u64::from(reader.u32()?) != SLOTS {
            return None;
        }
        reader.take(RESERVED)?;
        let public_key = reader.array()?;
        let len = usize::from(reader.u16()?);
        let chain_id = std::str::from_utf8(reader.take(len)?).ok()?.parse().ok()?;
        Some(Self { chain_id, public_key })
    }
}

impl Entry {
    /// The entry that follows this one.
    pub fn next(&self, watermark: Watermark) -> Self {
        self.next_after(self.hash(), watermark)
    }

    /// The same, when this entry's hash is known: to make it again would take as long as to make the next entry's.
    pub(super) fn next_after(&self, hash: [u8; HASH], watermark: Watermark) -> Self {
        Self { sequence: self.sequence + 1, watermark, previous: hash }
    }

    /// Where the entry's page starts in the file.
    pub fn offset(&self) -> u64 {
        (1 + self.sequence % SLOTS) * PAGE as u64
    }

    /// The entry's page.
    pub fn page(&self) -> Vec<u8> {
        let entry = self.encode();
        let mut page = vec![0; PAGE];
        page[..ENTRY].copy_from_slice(&entry);
        page[COPY_AT..COPY_AT + ENTRY].copy_from_slice(&entry);
        page
    }

    fn hash(&self) -> [u8; HASH] {
        hash_in(&self.encode())
    }

    fn encode(&self) -> Vec<u8> {
        let w = &self.watermark;
        let mut out = Vec::with_capacity(ENTRY);
        out.extend_from_slice(ENTRY_MAGIC);
        out.extend_from_slice(&self.sequence.to_le_bytes());
        out.extend_from_slice(&w.height.0.to_le_bytes());
        out.extend_from_slice(&w.round.0.to_le_bytes());
        out.push(w.step.map_or(0, Step::number));
        out.push(u8::from(w.signed.is_some()));
        let timestamp = w.signed.as_ref().map_or(Timestamp::GO_ZERO, |s| s.timestamp);
        out.extend_from_slice(&timestamp.seconds.to_le_bytes());
        out.extend_from_slice(&timestamp.nanos.to_le_bytes());
        let sign_bytes = w.signed.as_ref().map_or(&[][..], |s| &s.sign_bytes);
        assert!(sign_bytes.len() <= MAX_SIGN_BYTES, "sign bytes of a vote or proposal fit an entry");
        out.extend_from_slice(&(sign_bytes.len() as u16).to_le_bytes());
        out.extend_from_slice(&self.previous);
        out.extend_from_slice(sign_bytes);
        seal(out, ENTRY)
    }

    fn decode(entry: &[u8]) -> Option<Self> {
        if !is_sealed(entry, ENTRY) {
            return None;
        }
        let mut reader = Reader(entry);
        if reader.take(ENTRY_MAGIC.len())? != ENTRY_MAGIC {
            return None;
        }
        let sequence = reader.u64()?;
        let height = Height(reader.i64()?);
        let round = Round(reader.i32()?);
        let step = match reader.u8()? {
            0 => None,
            1 => Some(Step::Proposal),
            2 => Some(Step::Prevote),
            3 => Some(Step::Precommit),
            _ => return None,
        };
        let has_message = reader.u8()? == 1;
        let timestamp = Timestamp { seconds: reader.i64()?, nanos: reader.i32()? };
        let len = usize::from(reader.u16()?);
        let previous = reader.array()?;
        let sign_bytes = reader.take(len)?.to_vec();
        let signed = has_message.then_some(Signed { sign_bytes, timestamp });
        Some(Self { sequence, watermark: Watermark { height, round, step, signed }, previous })
    }
}

/// Reads a whole file: its header and its newest entry.
///
/// Every slot must be zero or hold a valid entry, and the entries must be the newest ones of one chain of hashes, with
/// no gap: anything else may hide a signature that was released.
///
/// # Errors
/// [`FormatError`] naming what is wrong and where.
pub fn decode_file(bytes: &[u8]) -> Result<(Header, Entry), FormatError> {
    if bytes.len() < PAGE {
        return Err(FormatError::NotARecord);
    }
    let header = Header::decode(&bytes[..PAGE])?;
    if bytes.len() != FILE_LEN {
        return Err(FormatError::WrongLength(bytes.len()));
    }
    let mut entries = Vec::new();
    for (slot, page) in (0u64..).zip(bytes[PAGE..].chunks_exact(PAGE)) {
        if let Some(entry) = decode_slot(slot, page)? {
            entries.push(entry);
        }
    }
    entries.sort_by_key(|entry| entry.sequence);
    check_sequence(&entries)?;
    entries.pop().map(|newest| (header, newest)).ok_or(FormatError::Empty)
}

/// The newer of a slot's two copies, or `None` for a slot that was never used.
fn decode_slot(slot: u64, page: &[u8]) -> Result<Option<Entry>, FormatError> {
    if page.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let damaged = FormatError::DamagedSlot { slot };
    let first = Entry::decode(&page[..ENTRY]);
    let second = Entry::decode(&page[COPY_AT..COPY_AT + ENTRY]);
    let newest = first.into_iter().chain(second).max_by_key(|entry| entry.sequence).ok_or(damaged)?;
    if newest.sequence % SLOTS != slot {
        return Err(damaged);
    }
    Ok(Some(newest))
}

fn check_sequence(entries: &[Entry]) -> Result<(), FormatError> {
    for pair in entries.windows(2) {
        let [before, after] = pair else { continue };
        let follows = before.sequence.checked_add(1) == Some(after.sequence)
            && after.previous == before.hash()
            && after.watermark.place() > before.watermark.place();
        if !follows {
            return Err(FormatError::BrokenSequence { sequence: after.sequence });
        }
    }
    // The ring is full, or it begins at 0. (While it fills, a newest slot that went back to zeros cannot be told from one that
    // was never written; a torn write leaves the old or the new entry, and zeros are the old one there.)
    let complete = match entries {
        [] => true,
        [first, ..] => first.sequence == 0 || entries.len() as u64 == SLOTS,
    };
    let sequence = entries.first().map_or(0, |entry| entry.sequence);
    complete.then_some(()).ok_or(FormatError::BrokenSequence { sequence })
}

/// The hash of the entry that a page, or the entry alone, begins with.
pub(super) fn hash_in(page: &[u8]) -> [u8; HASH] {
    let mut hash = [0; HASH];
    hash.copy_from_slice(&page[ENTRY - HASH..ENTRY]);
    hash
}

/// Pads to `len` with zeros and ends with the SHA-256 of all before.
fn seal(mut bytes: Vec<u8>, len: usize) -> Vec<u8> {
    bytes.resize(len - HASH, 0);
    let hash = Sha256::digest(&bytes);
    bytes.extend_from_slice(&hash);
    bytes
}

fn is_sealed(bytes: &[u8], len: usize) -> bool {
    bytes.len() == len && Sha256::digest(&bytes[..len - HASH])[..] == bytes[len - HASH..]
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(len)?;
        self.0 = tail;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_le_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use monosign_protocol::Hrs;

    fn header() -> Header {
        Header { chain_id: "test-1".parse().expect("a chain id"), public_key: [7; 32] }
    }

    /// A file after `signatures` signatures, and its entries.
    fn file(signatures: u64) -> (Vec<u8>, Vec<Entry>) {
        let mut bytes = vec![0; FILE_LEN];
        bytes[..PAGE].copy_from_slice(&header().encode());
        let first = Entry { sequence: 0, watermark: Watermark::default(), previous: [0; 32] };
        let mut entries = vec![first];
        for n in 1..=signatures {
            let hrs = Hrs { height: Height(n as i64), round: Round(0), step: Step::Prevote };
            let timestamp = Timestamp { seconds: n as i64, nanos: 1 };
            let next = entries[n as usize - 1].next(Watermark::signed(hrs, vec![n as u8; 150], timestamp));
            entries.push(next);
        }
        for entry in &entries {
            let at = entry.offset() as usize;
            bytes[at..at + PAGE].copy_from_slice(&entry.page());
        }
        (bytes, entries)
    }

    #[test]
    fn reads_the_newest_entry_at_every_fill_of_the_ring() {
        for n in [0, 1, 62, 63, 64, 65, 200] {
            let (bytes, entries) = file(n);
            let (read_header, newest) = decode_file(&bytes).expect("valid");
            assert_eq!(read_header, header());
            assert_eq!(Some(&newest), entries.last(), "{n} signatures");
        }
    }

    #[test]
    fn a_write_torn_between_sectors_gives_the_old_or_the_new_watermark() {
        for n in [0, 5, 63, 64, 100] {
            let (bytes, entries) = file(n);
            let last = entries.last().expect("an entry");
            let next = last.next(Watermark::floor(Height(1000), Round(0), None));
            let (at, page) = (next.offset() as usize, next.page());
            // Each of the page's eight sectors is old or new, in every combination.
            for torn in 0u32..256 {
                let mut bytes = bytes.clone();
                for sector in (0..8).filter(|s| torn & (1 << s) != 0) {
                    let range = sector * ENTRY..(sector + 1) * ENTRY;
                    bytes[at..][range.clone()].copy_from_slice(&page[range]);
                }
                let (_, newest) = decode_file(&bytes).expect("old or new, never damaged");
                assert!(newest == *last || newest == next, "{n} signatures, sectors {torn:#b}");
                assert!(torn != 255 || newest == next);
            }
        }
    }

    #[test]
    fn every_flipped_bit_of_the_newest_entry_is_caught_or_harmless() {
        let (bytes, entries) = file(70);
        let last = entries.last().expect("an entry");
        for byte in 0..ENTRY {
            let mut bytes = bytes.clone();
            bytes[last.offset() as usize + byte] ^= 0x10;
            // One copy damaged: the other speaks. Both damaged: refused.
            assert_eq!(decode_file(&bytes).expect("the second copy is whole").1, *last);
            bytes[last.offset() as usize + COPY_AT + byte] ^= 0x10;
            assert_eq!(decode_file(&bytes), Err(FormatError::DamagedSlot { slot: last.sequence % SLOTS }));
        }
    }

    #[test]
    fn a_slot_that_went_back_or_vanished_is_refused() {
        let (bytes, entries) = file(70);
        for victim in &entries[7..=70] {
            let at = victim.offset() as usize;
            let mut gone = bytes.clone();
            gone[at..at + PAGE].fill(0);
            assert!(decode_file(&gone).is_err(), "slot of {} zeroed", victim.sequence);
        }
        let mut swapped = bytes.clone();
        let (a, b) = (entries[69].offset() as usize, entries[68].offset() as usize);
        swapped.copy_within(a..a + PAGE, b);
        assert!(decode_file(&swapped).is_err());
    }

    #[test]
    fn another_header_format_and_length_are_named() {
        let (bytes, _) = file(3);
        let mut other = bytes.clone();
        other[8] = 2;
        assert_eq!(decode_file(&other), Err(FormatError::UnknownFormat(2)));
        let mut damaged = bytes.clone();
        damaged[40] ^= 1;
        assert_eq!(decode_file(&damaged), Err(FormatError::DamagedHeader));
        assert_eq!(decode_file(&bytes[..FILE_LEN - 1]), Err(FormatError::WrongLength(FILE_LEN - 1)));
        assert_eq!(decode_file(b"{\"height\":\"1\"}"), Err(FormatError::NotARecord));
    }
}
