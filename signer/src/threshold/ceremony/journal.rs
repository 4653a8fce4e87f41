//! Which sharing of the key counts on this host: the *generation*, and how far the last ceremony has come.
//!
//! A small file beside the record. What always holds:
//!
//! * the generation only rises, and no share of an earlier one is used again, whatever backup it comes from;
//! * a step of a ceremony is written down, durably, before anything is done or said that relies on it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::ops::durable_file::{self, DurableFileError};
use crate::seams::Disk;
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
    #[error(transparent)]
    Io(#[from] DurableFileError),
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
        let text = disk.read_small(path).await.map_err(DurableFileError::at("read", path))?;
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
        Ok(durable_file::replace(disk, path, text.as_bytes()).await?)
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
