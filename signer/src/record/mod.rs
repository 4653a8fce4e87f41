//! The durable watermark: one file per chain and key.
//!
//! What always holds:
//!
//! * a record belongs to one chain and one public key, and one process has it locked;
//! * [`Record::raise`] returns only when the raised watermark is on stable storage;
//! * the watermark only rises, from file to file too: an existing record is never replaced;
//! * after a failed write or sync the record is unusable: what the disk holds is not known, and asking again could be
//!   answered from a cache that is lost at the next power cut.

mod format;
mod permit;

use std::io;
use std::path::{Path, PathBuf};

use monosign_protocol::{ChainId, Height};

use crate::guard::{Question, Recorded, Watermark};
use crate::seams::{Disk, DiskFile, Open};
use format::hash_in;
pub use format::{Entry, FILE_LEN, FormatError, Header, MAX_SIGN_BYTES, PAGE, SLOTS, decode_file};
pub use permit::Permit;

/// An open, locked record.
pub struct Record {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    header: Header,
    newest: Entry,
    newest_hash: [u8; 32],
    failed: bool,
}

/// Why a record cannot be made, read or raised. None of these is ever passed over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// There is no record.
    #[error("no record at `{}`", path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// There is one already.
    #[error("`{}` exists and is never overwritten", path.display())]
    Exists {
        /// The record.
        path: PathBuf,
    },
    /// Another process holds it.
    #[error("`{}` is locked: another signer runs on it", path.display())]
    Locked {
        /// The record.
        path: PathBuf,
    },
    /// The file is damaged or something else.
    #[error("`{}` cannot be read as a record: {source}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: FormatError,
    },
    /// It guards another chain.
    #[error("`{}` is the record of chain `{found}`, not of `{expected}`", path.display())]
    ForeignChain {
        /// The record.
        path: PathBuf,
        /// Its chain.
        found: ChainId,
        /// The chain that was wanted.
        expected: ChainId,
    },
    /// It guards another key.
    #[error(
        "`{}` is the record of public key {}, not of {}", path.display(),
        data_encoding::HEXLOWER.encode(found), data_encoding::HEXLOWER.encode(expected)
    )]
    ForeignKey {
        /// The record.
        path: PathBuf,
        /// Its public key.
        found: [u8; 32],
        /// The key that was wanted.
        expected: [u8; 32],
    },
    /// The new watermark is not above the recorded one.
    #[error("`{}` is at {recorded} and is only ever raised: {asked} is not above it", path.display())]
    NotRising {
        /// The record.
        path: PathBuf,
        /// Its watermark, as height/round/step.
        recorded: String,
        /// The watermark that was wanted.
        asked: String,
    },
    /// The file that was to be replaced has changed.
    #[error("`{}` has changed while it was read: another signer writes to it", path.display())]
    Changed {
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
    /// An earlier write failed; the record must be opened anew.
    #[error("an earlier write to `{}` failed: restart the signer once the disk is sound", path.display())]
    Failed {
        /// The record.
        path: PathBuf,
    },
}

impl RecordError {
    /// What the operator can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Missing { .. } => {
                "a new validator: `monosign state init`; one that has signed before: `monosign state import` its state; \
                 a lost or moved file: restore it, never start from an older copy"
            }
            Self::Exists { .. } => "`monosign state show` prints it; `monosign state raise` raises it",
            Self::Locked { .. } => "stop the other signer first; `fuser FILE` names its process",
            Self::Damaged { source: FormatError::NotARecord, .. } => {
                "the state of another signer (CometBFT, tmkms, Horcrux) is taken over by `monosign state import`; if it is \
                 none, restore the record, or look up the chain's height and make one with `monosign state init --height H`"
            }
            Self::Damaged { .. } => {
                "what was signed last is not known: move the file away, look up the chain's height, and \
                 `monosign state init --height H` with a height that this validator has certainly not signed"
            }
            Self::ForeignChain { .. } | Self::ForeignKey { .. } => {
                "each chain and key has a record of its own: check `state_file` and the key's `path`"
            }
            Self::Changed { .. } => "stop the other signer for good, then try again",
            Self::NotRising { .. } => "there is no way to lower a record",
            Self::Io { .. } | Self::Failed { .. } => {
                "check the disk, its free space and the file's permissions"
            }
        }
    }
}

impl Record {
    /// Makes a record with a floor: zero-filled, synced, its name too, and locked.
    ///
    /// It is written under a temporary name first, so that a crash leaves a whole record or none.
    ///
    /// # Errors
    /// [`RecordError::Exists`] if the name is taken, [`RecordError::Io`].
    pub async fn create(
        disk: &dyn Disk,
        path: &Path,
        header: Header,
        floor: Watermark,
    ) -> Result<Self, RecordError> {
        match disk.open(path, Open::Existing).await {
            Ok(_) => return Err(RecordError::Exists { path: path.into() }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(io_error("open", path)(e)),
        }
        let (temporary, record) = Self::write_new(disk, path, header, floor).await?;
        match disk.rename_new(&temporary, path).await {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                Err(RecordError::Exists { path: path.into() })
            }
            other => {
                other.map_err(io_error("rename", &temporary))?;
                record.named(disk).await
            }
        }
    }

    /// Makes a record in the place of a file that is none: another signer's state, whose `content` the caller has read and
    /// kept. `path` must be the file itself, not a link to it.
    ///
    /// # Errors
    /// [`RecordError::Exists`] if the file is a record, [`RecordError::Changed`] if the other signer has written to it since,
    /// [`RecordError::Io`].
    pub async fn replace_foreign(
        disk: &dyn Disk,
        path: &Path,
        content: &[u8],
        header: Header,
        floor: Watermark,
    ) -> Result<Self, RecordError> {
        if decode_file(content) != Err(FormatError::NotARecord) {
            return Err(RecordError::Exists { path: path.into() });
        }
        let (temporary, record) = Self::write_new(disk, path, header, floor).await?;
        let file = existing(disk, path).await?;
        if file.read_all(FILE_LEN).await.map_err(io_error("read", path))? != content {
            return Err(RecordError::Changed { path: path.into() });
        }
        disk.rename(&temporary, path).await.map_err(io_error("rename", &temporary))?;
        record.named(disk).await
    }

    /// Writes a whole record under a temporary name.
    async fn write_new(
        disk: &dyn Disk,
        path: &Path,
        header: Header,
        floor: Watermark,
    ) -> Result<(PathBuf, Self), RecordError> {
        let newest = Entry { sequence: 0, watermark: floor, previous: [0; 32] };
        let mut bytes = vec![0; FILE_LEN];
        bytes[..PAGE].copy_from_slice(&header.encode());
        let page = newest.page();
        bytes[PAGE..2 * PAGE].copy_from_slice(&page);

        let temporary = path.with_added_extension("new");
        // Left by a crash during creation. The name goes, never the content: it may be a second name of a record.
        match disk.remove(&temporary).await {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io_error("remove", &temporary)(e)),
            _ => {}
        }
        let file = disk.open(&temporary, Open::New).await.map_err(io_error("create", &temporary))?;
        lock(&*file, &temporary).await?;
        file.write_at(0, &bytes).await.map_err(io_error("write", &temporary))?;
        file.sync_data().await.map_err(io_error("sync", &temporary))?;
        let newest_hash = hash_in(&page);
        Ok((temporary, Self { file, path: path.into(), header, newest, newest_hash, failed: false }))
    }

    /// Makes the record's name durable.
    async fn named(self, disk: &dyn Disk) -> Result<Self, RecordError> {
        sync_name(disk, &self.path).await?;
        Ok(self)
    }

    /// Opens and locks the record of a chain and key.
    ///
    /// # Errors
    /// Each [`RecordError`] but `Exists` and `NotRising`: missing, locked, damaged, of another chain or key.
    pub async fn open(
        disk: &dyn Disk,
        path: &Path,
        chain_id: &ChainId,
        public_key: &[u8; 32],
    ) -> Result<Self, RecordError> {
        Self::open_if(disk, path, |header| header.is_of(path, chain_id, Some(public_key))).await
    }

    /// Opens and locks the record of a chain, whatever its key: for a key that is still sealed.
    ///
    /// # Errors
    /// As [`open`](Self::open), but for [`RecordError::ForeignKey`].
    pub async fn open_of_chain(
        disk: &dyn Disk,
        path: &Path,
        chain_id: &ChainId,
    ) -> Result<Self, RecordError> {
        Self::open_if(disk, path, |header| header.is_of(path, chain_id, None)).await
    }

    /// A record that is another's is not written to.
    async fn open_if(
        disk: &dyn Disk,
        path: &Path,
        check: impl FnOnce(&Header) -> Result<(), RecordError>,
    ) -> Result<Self, RecordError> {
        let file = existing(disk, path).await?;
        lock(&*file, path).await?;
        let (header, newest) = read(&*file, path).await?;
        check(&header)?;
        let page = newest.page();
        settle(disk, &*file, path, newest.offset(), &page).await?;
        Ok(Self { file, path: path.into(), header, newest, newest_hash: hash_in(&page), failed: false })
    }

    /// Reads a record that a signer may be running on: without a lock, and of no use for signing.
    ///
    /// # Errors
    /// [`RecordError::Missing`], [`RecordError::Damaged`], [`RecordError::Io`].
    pub async fn peek(disk: &dyn Disk, path: &Path) -> Result<(Header, Watermark), RecordError> {
        let file = existing(disk, path).await?;
        let (header, newest) = read(&*file, path).await?;
        Ok((header, newest.watermark))
    }

    /// Whom the record belongs to.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The recorded watermark.
    pub fn watermark(&self) -> &Watermark {
        &self.newest.watermark
    }

    /// What the guard needs to know.
    pub fn recorded(&self) -> Recorded<'_> {
        let watermark = &self.newest.watermark;
        Recorded { watermark, unused: self.newest.sequence == 0 && watermark.height == Height(0) }
    }

    /// Leave to sign the recorded message; `None` if the floor has none, or after a failed write.
    pub fn permit(&self) -> Option<Permit<'_>> {
        let signed = self.newest.watermark.signed.as_ref().filter(|_| !self.failed)?;
        Some(Permit::recorded(&signed.sign_bytes))
    }

    /// Leave to sign a message that is the recorded one but for its timestamp; `None` if another one is recorded, or after a
    /// failed write.
    pub fn permit_alike(&self, question: &Question<'_>) -> Option<Permit<'static>> {
        let watermark = &self.newest.watermark;
        let signed = watermark.signed.as_ref().filter(|_| !self.failed && watermark.is_at(question.hrs()))?;
        let is_alike = question.sign_bytes_at(signed.timestamp) == signed.sign_bytes;
        is_alike.then(|| Permit::alike(question.sign_bytes()))
    }

    /// Whether it is of no use any more: what the disk holds is not known.
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// Where the record lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Raises the watermark; when this returns, it is on stable storage.
    ///
    /// # Errors
    /// [`RecordError::NotRising`] changes nothing. After [`RecordError::Io`] the record is unusable.
    pub async fn raise(&mut self, watermark: Watermark) -> Result<(), RecordError> {
        if self.failed {
            return Err(RecordError::Failed { path: self.path.clone() });
        }
        if watermark.place() <= self.newest.watermark.place() {
            let (recorded, asked) = (self.newest.watermark.to_string(), watermark.to_string());
            return Err(RecordError::NotRising { path: self.path.clone(), recorded, asked });
        }
        let next = self.newest.next_after(self.newest_hash, watermark);
        let page = next.page();
        // Until the disk says otherwise, also if this future is dropped in between.
        self.failed = true;
        self.file.write_durable(next.offset(), &page).await.map_err(io_error("write", &self.path))?;
        self.failed = false;
        (self.newest, self.newest_hash) = (next, hash_in(&page));
        Ok(())
    }
}

impl Header {
    /// That the record at `path` is that of a chain and, if one is given, of a key.
    ///
    /// # Errors
    /// [`RecordError::ForeignChain`], [`RecordError::ForeignKey`].
    pub fn is_of(
        &self,
        path: &Path,
        chain_id: &ChainId,
        public_key: Option<&[u8; 32]>,
    ) -> Result<(), RecordError> {
        if self.chain_id != *chain_id {
            let (found, expected) = (self.chain_id.clone(), chain_id.clone());
            return Err(RecordError::ForeignChain { path: path.into(), found, expected });
        }
        match public_key {
            Some(expected) if self.public_key != *expected => {
                let (found, expected) = (self.public_key, *expected);
                Err(RecordError::ForeignKey { path: path.into(), found, expected })
            }
            _ => Ok(()),
        }
    }
}

async fn existing(disk: &dyn Disk, path: &Path) -> Result<Box<dyn DiskFile>, RecordError> {
    match disk.open(path, Open::Existing).await {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(RecordError::Missing { path: path.into() }),
        other => other.map_err(io_error("open", path)),
    }
}

async fn read(file: &dyn DiskFile, path: &Path) -> Result<(Header, Entry), RecordError> {
    let bytes = file.read_all(FILE_LEN).await.map_err(|error| match error.kind() {
        io::ErrorKind::FileTooLarge => {
            RecordError::Damaged { path: path.into(), source: FormatError::TooLong }
        }
        _ => io_error("read", path)(error),
    })?;
    decode_file(&bytes).map_err(|source| RecordError::Damaged { path: path.into(), source })
}

/// Brings what was read to stable storage, before anything is answered from it.
///
/// A signer that was killed between its write and its sync leaves an entry that only the kernel's cache may hold, and after a
/// failed sync the kernel takes the page for clean: so the entry is written again, not only synced. The same goes for
/// the record's name.
async fn settle(
    disk: &dyn Disk,
    file: &dyn DiskFile,
    path: &Path,
    offset: u64,
    newest: &[u8],
) -> Result<(), RecordError> {
    file.write_durable(offset, newest).await.map_err(io_error("write", path))?;
    sync_name(disk, path).await
}

async fn sync_name(disk: &dyn Disk, path: &Path) -> Result<(), RecordError> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    disk.sync_dir(dir).await.map_err(io_error("sync", dir))
}

async fn lock(file: &dyn DiskFile, path: &Path) -> Result<(), RecordError> {
    match file.try_lock().await {
        Ok(true) => Ok(()),
        Ok(false) => Err(RecordError::Locked { path: path.into() }),
        Err(e) => Err(io_error("lock", path)(e)),
    }
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RecordError {
    move |source| RecordError::Io { doing, path: path.into(), source }
}

#[cfg(test)]
mod tests;
