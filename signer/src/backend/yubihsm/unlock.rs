//! The way on after an alarm of the witness, for an operator who knows what has happened.

use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use super::audit_file::{AuditFile, AuditFileError, Noted};
use super::witness::{Asked, AuditLog, Cursor, LogEntry, Watched};
use crate::seams::Disk;

/// What is known of a device's log, held against the log. The file is locked as long as this lives, so that no signer uses it.
pub struct Examined {
    file: AuditFile,
    path: PathBuf,
    alarm: Option<String>,
    /// What is known once the log is, if there is no alarm.
    followed: Noted,
    last: u16,
    unaccounted: BTreeSet<u16>,
}

impl Examined {
    /// Reads the file at `path` and looks at the log as the signer would.
    ///
    /// # Errors
    /// [`AuditFileError`]
    pub async fn new(
        disk: &dyn Disk,
        path: &Path,
        log: &AuditLog,
        watched: &Watched,
    ) -> Result<Self, AuditFileError> {
        let (file, Noted { cursor, asked, alarm: kept }) = AuditFile::open(disk, path).await?;
        let mut followed = Noted { cursor, asked: asked.clone(), alarm: kept.clone() };
        let found = followed.cursor.follow(log, watched, &mut followed.asked).err();
        // Not each is to be seen in the log again.
        let alarm = found.map(|alarm| alarm.to_string()).or(kept);
        let unaccounted = unaccounted(cursor, log, watched, asked);
        Ok(Self { file, path: path.into(), alarm, followed, last: cursor.item, unaccounted })
    }

    /// What the signer stops at, if it does.
    pub fn alarm(&self) -> Option<&str> {
        self.alarm.as_deref()
    }

    /// The newest entry that was accounted for.
    pub fn last(&self) -> u16 {
        self.last
    }

    /// Whether the entry is a signature by one of our keys that this signer did not ask for.
    pub fn is_unaccounted(&self, entry: &LogEntry) -> bool {
        self.unaccounted.contains(&entry.item())
    }

    /// Notes how far the log is accounted for, where nothing in it is an alarm: from then on, what comes before may be marked as read. When this
    /// returns, it is on stable storage.
    ///
    /// # Errors
    /// [`AuditFileError::Io`]
    pub async fn keep(&mut self) -> Result<(), AuditFileError> {
        let noted = self.file.note(&self.followed).await;
        noted.map_err(|source| AuditFileError::Io { path: self.path.clone(), source })
    }

    /// Takes all that is in the log for known. When this returns, it is on stable storage.
    ///
    /// # Errors
    /// [`AuditFileError::Io`]
    pub async fn go_on_from(mut self, cursor: Cursor) -> Result<(), AuditFileError> {
        // What is still on its way is forgotten, too: if it comes after all, it is found again.
        let noted = Noted { cursor, asked: VecDeque::new(), alarm: None };
        self.file.note(&noted).await.map_err(|source| AuditFileError::Io { path: self.path, source })
    }
}

/// Takes back that a device's log has raised an alarm, where an operator goes on without that device.
///
/// # Errors
/// [`AuditFileError`]
pub async fn forget_alarm(disk: &dyn Disk, path: &Path) -> Result<(), AuditFileError> {
    AuditFile::forget_alarm(disk, path).await
}

/// The entries that the alarm is about. Where the cursor's entry is not in the log, nothing in it is known.
fn unaccounted(
    cursor: Cursor,
    log: &AuditLog,
    watched: &Watched,
    mut open: VecDeque<Asked>,
) -> BTreeSet<u16> {
    let known = |entry: &LogEntry| entry.item() == cursor.item && entry.digest == cursor.digest;
    let begin = log.entries.iter().position(known).map_or(0, |at| at + 1);
    let news = log.entries[begin..].iter();
    news.filter(|entry| entry.account(watched, &mut open).is_err()).map(LogEntry::item).collect()
}
