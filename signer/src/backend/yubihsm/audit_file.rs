//! The file of a witness: what is known of the device's log, durable before a signature is asked for.
//!
//! ```text
//! two slots of 4096 bytes, written in turn; in each one sector of 512:
//! magic 8 | sequence 8 | item 2 | digest 16 | signatures asked for 1 | key 2, length 2, for each of 32
//! | length of the alarm 2 | alarm, if there was one | zeros | SHA-256 32
//! ```
//!
//! The newest valid slot counts. A write that was torn leaves the other one, which is what was true before; the signature that the torn
//! one was for was never asked for. A file that is missing or has no valid slot means: do not sign, since nothing is known.
//!
//! An alarm is written down here too: in place, which takes neither room on the disk nor leave to make files, and where each start
//! looks before it asks the device.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::witness::{Asked, Cursor};
use crate::ops::durable_file;
use crate::seams::{Disk, DiskFile, Open};

const MAGIC: &[u8; 8] = b"monoaud1";
const SLOT: usize = 4096;
const SECTOR: usize = 512;
const HASH: usize = 32;
/// How many signatures may be on their way. A device does one at a time; more than one are left of answers that were lost.
pub(super) const MAX_ASKED: usize = 32;
const ASKED: usize = 35;
const ALARM: usize = ASKED + 4 * MAX_ASKED;
const MAX_ALARM: usize = SECTOR - HASH - ALARM - 2;

/// An open file, locked.
pub(super) struct AuditFile {
    file: Box<dyn DiskFile>,
    sequence: u64,
}

/// What the file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Noted {
    pub(super) cursor: Cursor,
    pub(super) asked: VecDeque<Asked>,
    /// What the log has told of that must not be, until an operator has gone on.
    pub(super) alarm: Option<String>,
}

/// Why the file is of no use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditFileError {
    /// There is none.
    #[error(
        "`{}` is missing, so what the device has signed is not known\nhint: if no other signer ever used this key and this disk is no \
         copy, `monosign yubihsm audit init` makes it",
        .0.display()
    )]
    Missing(PathBuf),
    /// Another process has it.
    #[error("`{}` is locked: another signer runs on this device", .0.display())]
    Locked(PathBuf),
    /// No slot is valid.
    #[error("`{}` is damaged\nhint: compare the device's log with what this signer signed, then remove the file and run `monosign yubihsm audit init`", .0.display())]
    Damaged(PathBuf),
    /// It is there already.
    #[error("`{}` exists and is never overwritten\nhint: `monosign yubihsm audit show` tells what it says", .0.display())]
    Exists(PathBuf),
    /// The disk failed.
    #[error("`{}`: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl AuditFile {
    /// Makes a file that begins at `cursor`.
    ///
    /// # Errors
    /// [`AuditFileError::Exists`], [`AuditFileError::Io`]
    pub(super) async fn create(disk: &dyn Disk, path: &Path, cursor: Cursor) -> Result<(), AuditFileError> {
        let noted = Noted { cursor, asked: VecDeque::new(), alarm: None };
        let mut content = encode(0, &noted);
        content.resize(2 * SLOT, 0);
        durable_file::create(disk, path, &content).await.map_err(|error| match error.source.kind() {
            io::ErrorKind::AlreadyExists => AuditFileError::Exists(path.into()),
            _ => AuditFileError::Io { path: error.path, source: error.source },
        })
    }

    /// Opens and locks a file.
    ///
    /// # Errors
    /// [`AuditFileError`]
    pub(super) async fn open(disk: &dyn Disk, path: &Path) -> Result<(Self, Noted), AuditFileError> {
        let at = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => AuditFileError::Missing(path.into()),
            _ => AuditFileError::Io { path: path.into(), source },
        };
        let file = disk.open(path, Open::Existing).await.map_err(at)?;
        if !file.try_lock().await.map_err(at)? {
            return Err(AuditFileError::Locked(path.into()));
        }
        let bytes = file.read_all(2 * SLOT).await.map_err(at)?;
        let slots = bytes.chunks(SLOT).filter_map(decode);
        let newest = slots.max_by_key(|(sequence, _)| *sequence);
        let (sequence, noted) = newest.ok_or_else(|| AuditFileError::Damaged(path.into()))?;
        // What is read may be in the kernel's cache alone.
        let mut opened = Self { file, sequence };
        opened.note(&noted).await.map_err(at)?;
        Ok((opened, noted))
    }

    /// What a file holds, for who only looks: nothing is locked and nothing is written.
    ///
    /// # Errors
    /// [`AuditFileError`]
    pub(super) async fn peek(disk: &dyn Disk, path: &Path) -> Result<Noted, AuditFileError> {
        let at = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => AuditFileError::Missing(path.into()),
            _ => AuditFileError::Io { path: path.into(), source },
        };
        let file = disk.open(path, Open::Existing).await.map_err(at)?;
        let bytes = file.read_all(2 * SLOT).await.map_err(at)?;
        let newest = bytes.chunks(SLOT).filter_map(decode).max_by_key(|(sequence, _)| *sequence);
        newest.map(|(_, noted)| noted).ok_or_else(|| AuditFileError::Damaged(path.into()))
    }

    /// Writes down that the log has told of what must not be. What is there already stays.
    ///
    /// # Errors
    /// [`AuditFileError`]
    pub(super) async fn keep_alarm(disk: &dyn Disk, path: &Path, alarm: &str) -> Result<(), AuditFileError> {
        let (mut file, noted) = Self::open(disk, path).await?;
        if noted.alarm.is_some() {
            return Ok(());
        }
        let noted = Noted { alarm: Some(alarm.to_owned()), ..noted };
        file.note(&noted).await.map_err(|source| AuditFileError::Io { path: path.into(), source })
    }

    /// Takes an alarm back, for an operator who goes on. What the log still shows is found again when it is looked at.
    ///
    /// # Errors
    /// [`AuditFileError`], but for a file that says nothing.
    pub(super) async fn forget_alarm(disk: &dyn Disk, path: &Path) -> Result<(), AuditFileError> {
        let (mut file, noted) = match Self::open(disk, path).await {
            Err(AuditFileError::Missing(_) | AuditFileError::Damaged(_)) => return Ok(()),
            other => other?,
        };
        if noted.alarm.is_none() {
            return Ok(());
        }
        let noted = Noted { alarm: None, ..noted };
        file.note(&noted).await.map_err(|source| AuditFileError::Io { path: path.into(), source })
    }

    /// Makes this durable.
    pub(super) async fn note(&mut self, noted: &Noted) -> io::Result<()> {
        self.sequence += 1;
        let offset = (self.sequence % 2) * SLOT as u64;
        self.file.write_durable(offset, &encode(self.sequence, noted)).await
    }
}

fn encode(sequence: u64, noted: &Noted) -> Vec<u8> {
    let mut out = Vec::with_capacity(SLOT);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&sequence.to_le_bytes());
    out.extend_from_slice(&noted.cursor.item.to_le_bytes());
    out.extend_from_slice(&noted.cursor.digest);
    out.push(noted.asked.len().min(MAX_ASKED) as u8);
    for asked in noted.asked.iter().take(MAX_ASKED) {
        out.extend_from_slice(&asked.key.to_le_bytes());
        out.extend_from_slice(&asked.length.to_le_bytes());
    }
    if let Some(alarm) = &noted.alarm {
        let alarm = &alarm[..alarm.floor_char_boundary(MAX_ALARM)];
        out.resize(ALARM, 0);
        out.extend_from_slice(&(alarm.len() as u16).to_le_bytes());
        out.extend_from_slice(alarm.as_bytes());
    }
    out.resize(SECTOR - HASH, 0);
    let hash = Sha256::digest(&out);
    out.extend_from_slice(&hash);
    out.resize(SLOT, 0);
    out
}

fn decode(slot: &[u8]) -> Option<(u64, Noted)> {
    let (body, hash) = slot.get(..SECTOR)?.split_at(SECTOR - HASH);
    if Sha256::digest(body)[..] != *hash || !body.starts_with(MAGIC) {
        return None;
    }
    let sequence = u64::from_le_bytes(body[8..16].try_into().ok()?);
    let item = u16::from_le_bytes([body[16], body[17]]);
    let cursor = Cursor { item, digest: body[18..34].try_into().ok()? };
    let asked = body[ASKED..ALARM].chunks_exact(4).take(usize::from(body[34]).min(MAX_ASKED));
    let asked = asked.map(|four| Asked {
        key: u16::from_le_bytes([four[0], four[1]]),
        length: u16::from_le_bytes([four[2], four[3]]),
    });
    let len = usize::from(u16::from_le_bytes([body[ALARM], body[ALARM + 1]]));
    let alarm = body[ALARM + 2..].get(..len).filter(|alarm| !alarm.is_empty());
    let alarm = alarm.map(|alarm| String::from_utf8_lossy(alarm).into_owned());
    Some((sequence, Noted { cursor, asked: asked.collect(), alarm }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seams::StdDisk;

    fn noted(item: u16) -> Noted {
        let asked = (0..3).map(|n| Asked { key: n, length: 122 }).collect();
        Noted { cursor: Cursor { item, digest: [7; 16] }, asked, alarm: None }
    }

    fn run<T>(test: impl Future<Output = T>) -> T {
        crate::deadline::for_this_test();
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(test)
    }

    #[test]
    fn the_newest_note_is_found_and_after_a_torn_write_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let (path, disk) = (dir.path().join("audit"), StdDisk::default());
        run(async {
            AuditFile::create(&disk, &path, noted(1).cursor).await.unwrap();
            for item in 2..6 {
                let (mut file, _) = AuditFile::open(&disk, &path).await.unwrap();
                file.note(&noted(item)).await.unwrap();
                drop(file);
                let (file, found) = AuditFile::open(&disk, &path).await.unwrap();
                assert_eq!(found, noted(item));
                drop(file);
            }
            let (mut file, _) = AuditFile::open(&disk, &path).await.unwrap();
            file.note(&noted(6)).await.unwrap();
            let torn = (file.sequence % 2) as usize * SLOT + 100;
            drop(file);
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[torn] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(AuditFile::open(&disk, &path).await.unwrap().1, noted(5));
        });
    }

    #[test]
    fn an_alarm_stands_beside_what_was_asked_for_and_long_ones_are_cut_between_letters() {
        let cursor = Cursor { item: 9, digest: [7; 16] };
        let asked: VecDeque<Asked> = (0..MAX_ASKED as u16).map(|key| Asked { key, length: 122 }).collect();
        for (text, kept) in [("x".repeat(7), "x".repeat(7)), ("é".repeat(400), "é".repeat(MAX_ALARM / 2))] {
            let noted = Noted { cursor, asked: asked.clone(), alarm: Some(text) };
            let expected = Noted { alarm: Some(kept), ..noted.clone() };
            assert_eq!(decode(&encode(3, &noted)), Some((3, expected)));
        }
        let none = Noted { cursor, asked, alarm: None };
        assert_eq!(decode(&encode(4, &none)), Some((4, none)));
    }

    #[test]
    fn a_file_that_is_missing_damaged_or_in_use_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (path, disk) = (dir.path().join("audit"), StdDisk::default());
        run(async {
            let missing = AuditFile::open(&disk, &path).await.err().unwrap();
            assert!(matches!(missing, AuditFileError::Missing(_)), "{missing}");
            AuditFile::create(&disk, &path, noted(1).cursor).await.unwrap();
            let again = AuditFile::create(&disk, &path, noted(1).cursor).await.err().unwrap();
            assert!(matches!(again, AuditFileError::Exists(_)), "{again}");
            let open = AuditFile::open(&disk, &path).await.unwrap();
            let locked = AuditFile::open(&disk, &path).await.err().unwrap();
            assert!(matches!(locked, AuditFileError::Locked(_)), "{locked}");
            drop(open);
            std::fs::write(&path, [1; 2 * SLOT]).unwrap();
            let damaged = AuditFile::open(&disk, &path).await.err().unwrap();
            assert!(matches!(damaged, AuditFileError::Damaged(_)), "{damaged}");
        });
    }
}
