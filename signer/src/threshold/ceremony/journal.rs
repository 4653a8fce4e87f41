//! Which sharing of the key counts on this host: the *generation*, and how far the last ceremony has come.
//!
//! A small file beside the record. What always holds:
//!
//! * the generation only rises, and no share of an earlier one is used again, whatever backup it comes from;
//! * a step of a ceremony is written down, durably, before anything is done or said that relies on it.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::seams::{Disk, Open};
use crate::threshold::message::Place;

/// How far a ceremony has come on one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// The new share is proven and on stable storage, or this host gets none. The old one still signs.
    Staged,
    /// The old share is destroyed.
    Retired,
    /// The new share is in its place.
    Active,
}

/// A ceremony, as a host remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Taken {
    /// What was to be done: the digest of its plan.
    pub plan: String,
    /// Which run of it: the digest of what all have said in public.
    pub id: String,
    /// How far it has come here.
    pub stage: Stage,
    /// Where the guard of the old share stood when it was destroyed.
    pub guard: Option<Place>,
}

/// The file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Journal {
    /// The version of this file's form.
    monosign_epoch: u32,
    /// The lowest epoch whose shares may be used here.
    pub epoch: u32,
    /// The ceremony that is not known to have ended on every host.
    pub ceremony: Option<Taken>,
}

/// Why the file cannot be read or written, or forbids what was wanted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// It is damaged.
    #[error(
        "`{}` is damaged\nhint: restore it; it holds which sharing of the key counts, and without it a retired share could sign",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The share is of an earlier sharing.
    #[error(
        "the share is of epoch {found}, and this host has gone on to epoch {epoch}: an earlier share signs no more\n\
         hint: if a ceremony was interrupted, give its command again on every host; a share from a backup is of no use"
    )]
    Retired {
        /// The share's epoch.
        found: u32,
        /// The lowest that counts.
        epoch: u32,
    },
    /// The disk failed.
    #[error("cannot {doing} `{}`: {source}", path.display())]
    Io {
        /// What was done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The disk's error.
        source: io::Error,
    },
}

impl Journal {
    /// Where the file lies: beside the record.
    pub fn path(record: &Path) -> PathBuf {
        record.with_added_extension("epoch")
    }

    /// Reads the file; an empty one if there is none.
    ///
    /// # Errors
    /// [`JournalError::Damaged`] and [`JournalError::Io`].
    pub async fn load(disk: &dyn Disk, path: &Path) -> Result<Self, JournalError> {
        let text = disk.read_small(path).await.map_err(failed("read", path))?;
        let Some(text) = text else { return Ok(Self { monosign_epoch: 1, ..Self::default() }) };
        let damaged = || JournalError::Damaged { path: path.into() };
        let journal: Self = serde_json::from_str(&text).map_err(|_| damaged())?;
        if journal.monosign_epoch == 1 { Ok(journal) } else { Err(damaged()) }
    }

    /// Writes the file; when this returns, it is on stable storage.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub async fn store(&self, disk: &dyn Disk, path: &Path) -> Result<(), JournalError> {
        let text = serde_json::to_string(self).unwrap_or_default();
        replace(disk, path, text.as_bytes()).await
    }

    /// Refuses a share of an earlier sharing than the one that counts here.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn admit(disk: &dyn Disk, record: &Path, found: u32) -> Result<(), JournalError> {
        let epoch = Self::load(disk, &Self::path(record)).await?.epoch;
        if found < epoch { Err(JournalError::Retired { found, epoch }) } else { Ok(()) }
    }
}

/// Gives a file new content, whole or not at all; when this returns, it is on stable storage.
pub(super) async fn replace(disk: &dyn Disk, path: &Path, content: &[u8]) -> Result<(), JournalError> {
    let temporary = path.with_added_extension("new");
    remove(disk, &temporary).await?;
    let file = disk.open(&temporary, Open::New).await.map_err(failed("create", &temporary))?;
    file.write_durable(0, content).await.map_err(failed("write", &temporary))?;
    rename(disk, &temporary, path).await
}

/// Takes a name away, durably, if there is one.
pub(super) async fn remove(disk: &dyn Disk, path: &Path) -> Result<(), JournalError> {
    match disk.remove(path).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed("remove", path)(error)),
        Ok(()) => sync(disk, path).await,
    }
}

/// Renames durably, over what has the name.
pub(super) async fn rename(disk: &dyn Disk, from: &Path, to: &Path) -> Result<(), JournalError> {
    disk.rename(from, to).await.map_err(failed("rename", from))?;
    sync(disk, to).await
}

async fn sync(disk: &dyn Disk, path: &Path) -> Result<(), JournalError> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    disk.sync_dir(dir).await.map_err(failed("sync", dir))
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> JournalError {
    move |source| JournalError::Io { doing, path: path.into(), source }
}
