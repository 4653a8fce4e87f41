//! Which life of a cosigner: every start is a new one, and its peers refuse the ones before.
//!
//! A cosigner that was stopped may have left shares behind that a coordinator can still complete, and a copy of it may still
//! run. Nonces live in memory only, so a session of an earlier life is known by its commitments; a peer that has heard of a
//! later life takes no part in it. That is the *fence*. It outlives the peer's own restart: it lies in a file beside
//! the record.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::rounds::MemberId;
use crate::seams::{Disk, Entropy, Open};

/// One life. Later ones are greater; two lives of equal count, as of a copied disk, differ by chance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Incarnation {
    /// Counts starts.
    pub count: u64,
    /// Random.
    pub id: u64,
}

/// Our own life, and the latest known of each peer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lives {
    /// Ours.
    pub own: Incarnation,
    /// The peers'.
    pub peers: BTreeMap<MemberId, Incarnation>,
}

/// Why the file of lives cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LivesError {
    /// It is damaged.
    #[error("`{}` is damaged\nhint: remove it: the cosigner then rejoins as one whose disk is new", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
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

impl Incarnation {
    /// A life after this one.
    pub fn next(self, entropy: &dyn Entropy) -> Self {
        let mut id = [0; 8];
        entropy.fill(&mut id);
        Self { count: self.count.saturating_add(1), id: u64::from_le_bytes(id) }
    }
}

impl Lives {
    /// Where the file lies: beside the record.
    pub fn path(record: &Path) -> PathBuf {
        record.with_added_extension("lives")
    }

    /// Reads the file; `None` if there is none, as on a disk that is new.
    ///
    /// # Errors
    /// [`LivesError`].
    pub async fn load(disk: &dyn Disk, path: &Path) -> Result<Option<Self>, LivesError> {
        let text = disk.read_small(path).await.map_err(io_error("read", path))?;
        let Some(text) = text else { return Ok(None) };
        serde_json::from_str(&text).map(Some).map_err(|_| LivesError::Damaged { path: path.into() })
    }

    /// Writes the file; when this returns, it is on stable storage.
    ///
    /// # Errors
    /// [`LivesError::Io`].
    pub async fn store(&self, disk: &dyn Disk, path: &Path) -> Result<(), LivesError> {
        let text = serde_json::to_string(self).unwrap_or_default();
        let temporary = path.with_added_extension("new");
        match disk.remove(&temporary).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error("remove", &temporary)(error));
            }
            _ => {}
        }
        let file = disk.open(&temporary, Open::New).await.map_err(io_error("create", &temporary))?;
        file.write_durable(0, text.as_bytes()).await.map_err(io_error("write", &temporary))?;
        disk.rename(&temporary, path).await.map_err(io_error("rename", &temporary))?;
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        disk.sync_dir(dir).await.map_err(io_error("sync", dir))
    }
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LivesError {
    move |source| LivesError::Io { doing, path: path.into(), source }
}
