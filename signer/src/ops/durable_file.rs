//! Files that are changed whole or not at all, and are on stable storage when a function returns; over the disk's seam.

use std::io;
use std::path::{Path, PathBuf};

use crate::seams::{Disk, Open};

/// The disk failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} `{}`: {source}", path.display())]
pub struct DurableFileError {
    /// What was done.
    pub doing: &'static str,
    /// The file.
    pub path: PathBuf,
    /// The disk's error.
    pub source: io::Error,
}

impl DurableFileError {
    pub(crate) fn at(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { doing, path: path.into(), source }
    }
}

/// Gives a file new content.
pub(crate) async fn replace(disk: &dyn Disk, path: &Path, content: &[u8]) -> Result<(), DurableFileError> {
    let temporary = path.with_added_extension("new");
    remove(disk, &temporary).await?;
    let file = disk.open(&temporary, Open::New).await.map_err(DurableFileError::at("create", &temporary))?;
    file.write_durable(0, content).await.map_err(DurableFileError::at("write", &temporary))?;
    rename(disk, &temporary, path).await
}

/// Takes a name away, if there is one.
pub(crate) async fn remove(disk: &dyn Disk, path: &Path) -> Result<(), DurableFileError> {
    match disk.remove(path).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(DurableFileError::at("remove", path)(error)),
        Ok(()) => sync(disk, path).await,
    }
}

/// Renames, over what has the name.
pub(crate) async fn rename(disk: &dyn Disk, from: &Path, to: &Path) -> Result<(), DurableFileError> {
    disk.rename(from, to).await.map_err(DurableFileError::at("rename", from))?;
    sync(disk, to).await
}

async fn sync(disk: &dyn Disk, path: &Path) -> Result<(), DurableFileError> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    disk.sync_dir(dir).await.map_err(DurableFileError::at("sync", dir))
}
