//! The durable watermark: one file per chain and key.
//!
//! What always holds:
//!
//! * a record belongs to one chain and one public key, and one process has it locked: by the file, and by a name of the host that
//!   does not depend on where the file lies ([`claim`]);
//! * [`Record::raise`] returns only when the raised watermark is on stable storage, in the file that the record's path leads to: one
//!   that was moved or replaced meanwhile is what nobody will start from;
//! * the watermark only rises, from file to file too: an existing record is never replaced;
//! * after a failed write or sync the record is unusable: what the disk holds is not known, and asking again could be
//!   answered from a cache that is lost at the next power cut.

mod claim;
mod format;
mod permit;

use std::any::Any;
use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};

use monosign_protocol::{ChainId, Height};

use crate::guard::{Question, Recorded, Watermark};
use crate::ops::durable_file::{DurableFileError, Fresh};
use crate::seams::{Disk, DiskFile, Holder, Open};
use claim::User;
use format::hash_in;
pub use format::{Entry, FILE_LEN, FormatError, Header, MAX_SIGN_BYTES, PAGE, SLOTS, decode_file};
pub use permit::Permit;

/// How often a record that is written to is read until what was read is whole.
const PEEKS: u32 = 100;

/// An open, locked record.
pub struct Record {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    header: Header,
    newest: Entry,
    newest_hash: [u8; 32],
    usable: Usable,
    #[allow(dead_code, reason = "held for its drop")]
    claim: Box<dyn Any>,
}

/// Whether a record may be raised and signed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Usable {
    Yes,
    /// What the disk holds is not known.
    WriteFailed,
    /// The path leads elsewhere.
    Moved,
}

/// Where a record lies, and who opens it. Each way to open one takes the lock of the file and the name of the host.
#[derive(Clone, Copy)]
pub struct Opener<'a> {
    disk: &'a dyn Disk,
    path: &'a Path,
    user: User,
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
    /// Another process holds it, or another record of the same chain and key on this host.
    #[error("`{}` is locked: {}", path.display(), locked_by(*by))]
    Locked {
        /// The record.
        path: PathBuf,
        /// Who has claimed chain and key, if anybody has.
        by: Option<Holder>,
    },
    /// The path leads to another file than the one that is open, or to none.
    #[error(
        "`{}` was moved, removed or replaced while it was in use: nothing is signed any more (last signed h/r/s {last})",
        path.display()
    )]
    Moved {
        /// Where it was.
        path: PathBuf,
        /// Its watermark, as height/round/step.
        last: String,
        /// The first height of which nothing was signed.
        next_height: i64,
    },
    /// The file is damaged or something else.
    #[error("`{}` cannot be read as a record: {source}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: FormatError,
        /// Whether another process has it locked, as a signer does that runs on it.
        in_use: bool,
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
    pub fn hint(&self) -> Cow<'static, str> {
        if let Self::Moved { next_height, .. } = self {
            return format!(
                "put back the very file that it wrote to; if that is gone, raise the one that is there by \
                 `monosign state raise -c FILE --to-height {next_height}`, with the configuration that `start` was given (and `--chain ID` if it \
                 has several chains), and never start from an older copy"
            )
            .into();
        }
        self.fixed_hint().into()
    }

    fn fixed_hint(&self) -> &'static str {
        match self {
            Self::Missing { .. } => {
                "a new validator: `monosign state init`; one that has signed before: `monosign state import` its state; \
                 a lost or moved file: restore it, never start from an older copy"
            }
            Self::Exists { .. } => "`monosign state show` prints it; `monosign state raise` raises it",
            Self::Locked { by: Some(_), .. } => {
                "stop that process first: on one host, one process at a time uses the records of a chain and key"
            }
            Self::Locked { by: None, .. } => "stop the other signer first; `fuser FILE` names its process",
            Self::Damaged { in_use: true, .. } => {
                "a process has it open, so leave the file where it is: stop that process, then look again"
            }
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
            Self::Io { .. } | Self::Failed { .. } | Self::Moved { .. } => {
                "check the disk, its free space and the file's permissions"
            }
        }
    }
}

impl<'a> Opener<'a> {
    /// For the whole key.
    pub fn new(disk: &'a dyn Disk, path: &'a Path) -> Self {
        Self { disk, path, user: User(None) }
    }

    pub(crate) fn disk(self) -> &'a dyn Disk {
        self.disk
    }

    pub(crate) fn path(self) -> &'a Path {
        self.path
    }

    /// For the cosigner that has this identity on connections: others of its group may run on the same host.
    pub fn of_cosigner(self, identity: [u8; 32]) -> Self {
        Self { user: User(Some(identity)), ..self }
    }

    /// Makes a record with a floor: zero-filled, synced, its name too, and locked.
    ///
    /// It is written under a temporary name first, so that a crash leaves a whole record or none.
    ///
    /// # Errors
    /// [`RecordError::Exists`] if the name is taken, [`RecordError::Locked`], [`RecordError::Io`].
    pub async fn create(self, header: Header, floor: Watermark) -> Result<Record, RecordError> {
        let Self { disk, path, .. } = self;
        let claim = self.claim(&header).await?;
        match disk.open(path, Open::Existing).await {
            Ok(_) => return Err(RecordError::Exists { path: path.into() }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(io_error("open", path)(e)),
        }
        let (fresh, newest, page) = self.write_new(&header, floor).await?;
        match fresh.name_new(disk, path).await {
            Err(e) if e.source.kind() == io::ErrorKind::AlreadyExists => {
                Err(RecordError::Exists { path: path.into() })
            }
            other => Ok(self.opened(other?, header, newest, &page, claim)),
        }
    }

    /// Makes a record in the place of a file that is none: another signer's state, whose `content` the caller has read and
    /// kept. The path must be the file itself, not a link to it.
    ///
    /// # Errors
    /// [`RecordError::Exists`] if the file is a record, [`RecordError::Changed`] if the other signer has written to it since,
    /// [`RecordError::Locked`], [`RecordError::Io`].
    pub async fn replace_foreign(
        self,
        content: &[u8],
        header: Header,
        floor: Watermark,
    ) -> Result<Record, RecordError> {
        let Self { disk, path, .. } = self;
        if decode_file(content) != Err(FormatError::NotARecord) {
            return Err(RecordError::Exists { path: path.into() });
        }
        let claim = self.claim(&header).await?;
        // Two that do not see each other's claims, as in containers, may both find it: one at a time, and the second sees that the name
        // leads elsewhere by then.
        let old = existing(disk, path).await?;
        if !old.try_lock().await.map_err(io_error("lock", path))? {
            return Err(RecordError::Locked { path: path.into(), by: None });
        }
        let (fresh, newest, page) = self.write_new(&header, floor).await?;
        match self.still_holds(&*old, content).await {
            Ok(true) => {}
            other => {
                fresh.give_up(disk).await;
                return Err(other.err().unwrap_or(RecordError::Changed { path: path.into() }));
            }
        }
        Ok(self.opened(fresh.name(disk, path).await?, header, newest, &page, claim))
    }

    /// Whether the path leads to this file, and its content is this.
    async fn still_holds(self, file: &dyn DiskFile, content: &[u8]) -> Result<bool, RecordError> {
        let there = file.read_all(FILE_LEN).await.map_err(io_error("read", self.path))?;
        Ok(there == content && file.is_at(self.path).await.map_err(io_error("look at", self.path))?)
    }

    /// Writes a whole record under a temporary name.
    async fn write_new(
        self,
        header: &Header,
        floor: Watermark,
    ) -> Result<(Fresh, Entry, Vec<u8>), RecordError> {
        let newest = Entry { sequence: 0, watermark: floor, previous: [0; 32] };
        let mut bytes = vec![0; FILE_LEN];
        bytes[..PAGE].copy_from_slice(&header.encode());
        let page = newest.page();
        bytes[PAGE..2 * PAGE].copy_from_slice(&page);
        let fresh = Fresh::make(self.disk, self.path).await?.fill(self.disk, &bytes).await?;
        Ok((fresh, newest, page))
    }

    /// Opens and locks the record of a chain and key.
    ///
    /// # Errors
    /// Each [`RecordError`] but `Exists` and `NotRising`: missing, locked, damaged, of another chain or key.
    pub async fn open(self, chain_id: &ChainId, public_key: &[u8; 32]) -> Result<Record, RecordError> {
        self.open_if(|header| header.is_of(self.path, chain_id, Some(public_key))).await
    }

    /// Opens and locks the record of a chain, whatever its key: for a key that is still sealed.
    ///
    /// # Errors
    /// As [`open`](Self::open), but for [`RecordError::ForeignKey`].
    pub async fn open_of_chain(self, chain_id: &ChainId) -> Result<Record, RecordError> {
        self.open_if(|header| header.is_of(self.path, chain_id, None)).await
    }

    /// A record that is another's is not written to.
    async fn open_if(
        self,
        check: impl FnOnce(&Header) -> Result<(), RecordError>,
    ) -> Result<Record, RecordError> {
        let Self { disk, path, user } = self;
        let file = existing(disk, path).await?;
        if !file.try_lock().await.map_err(io_error("lock", path))? {
            // Whose it is, if it can be told.
            let by = match read(&*file, path).await {
                Ok((header, _)) => user.holder(disk, &header).await.ok().flatten(),
                Err(_) => None,
            };
            return Err(RecordError::Locked { path: path.into(), by });
        }
        let (header, newest) = read(&*file, path).await?;
        check(&header)?;
        let claim = self.claim(&header).await?;
        let page = newest.page();
        if !settle(disk, &*file, path, newest.offset(), &page).await? {
            return Err(RecordError::Changed { path: path.into() });
        }
        Ok(self.opened(file, header, newest, &page, claim))
    }

    async fn claim(self, header: &Header) -> Result<Box<dyn Any>, RecordError> {
        let claimed = self.user.claim(self.disk, header).await.map_err(io_error("claim", self.path))?;
        claimed.map_err(|holder| RecordError::Locked { path: self.path.into(), by: Some(holder) })
    }

    fn opened(
        self,
        file: Box<dyn DiskFile>,
        header: Header,
        newest: Entry,
        page: &[u8],
        claim: Box<dyn Any>,
    ) -> Record {
        let newest_hash = hash_in(page);
        Record { file, path: self.path.into(), header, newest, newest_hash, usable: Usable::Yes, claim }
    }
}

impl Record {
    /// As [`Opener::create`], for the whole key.
    ///
    /// # Errors
    /// As there.
    pub async fn create(
        disk: &dyn Disk,
        path: &Path,
        header: Header,
        floor: Watermark,
    ) -> Result<Self, RecordError> {
        Opener::new(disk, path).create(header, floor).await
    }

    /// As [`Opener::replace_foreign`], for the whole key.
    ///
    /// # Errors
    /// As there.
    pub async fn replace_foreign(
        disk: &dyn Disk,
        path: &Path,
        content: &[u8],
        header: Header,
        floor: Watermark,
    ) -> Result<Self, RecordError> {
        Opener::new(disk, path).replace_foreign(content, header, floor).await
    }

    /// As [`Opener::open`], for the whole key.
    ///
    /// # Errors
    /// As there.
    pub async fn open(
        disk: &dyn Disk,
        path: &Path,
        chain_id: &ChainId,
        public_key: &[u8; 32],
    ) -> Result<Self, RecordError> {
        Opener::new(disk, path).open(chain_id, public_key).await
    }

    /// As [`Opener::open_of_chain`], for the whole key.
    ///
    /// # Errors
    /// As there.
    pub async fn open_of_chain(
        disk: &dyn Disk,
        path: &Path,
        chain_id: &ChainId,
    ) -> Result<Self, RecordError> {
        Opener::new(disk, path).open_of_chain(chain_id).await
    }

    /// Reads a record that a signer may be running on: takes nothing, and is of no use for signing.
    ///
    /// # Errors
    /// [`RecordError::Missing`], [`RecordError::Damaged`], [`RecordError::Io`].
    pub async fn peek(disk: &dyn Disk, path: &Path) -> Result<(Header, Watermark), RecordError> {
        Self::look(&*existing(disk, path).await?, path).await
    }

    async fn look(file: &dyn DiskFile, path: &Path) -> Result<(Header, Watermark), RecordError> {
        let mut bytes = read_bytes(file, path).await?;
        for _ in 0..PEEKS {
            let Err(source) = decode_file(&bytes) else { break };
            // Entries that were written while they were read do not follow each other.
            let again = read_bytes(file, path).await?;
            if again == bytes {
                // A start on this file would find it as damaged, so that to try its lock holds nobody up.
                let in_use = !file.try_lock().await.map_err(io_error("lock", path))?;
                return Err(RecordError::Damaged { path: path.into(), source, in_use });
            }
            bytes = again;
        }
        let in_use = true;
        let read = decode_file(&bytes);
        let (header, newest) =
            read.map_err(|source| RecordError::Damaged { path: path.into(), source, in_use })?;
        Ok((header, newest.watermark))
    }

    /// The process that has claimed a chain and key on this host, if any has; a cosigner is not seen. Takes nothing.
    pub async fn user(disk: &dyn Disk, header: &Header) -> Option<Holder> {
        User(None).holder(disk, header).await.ok().flatten()
    }

    /// The same for the cosigner that has this identity on connections.
    pub async fn user_of_share(disk: &dyn Disk, header: &Header, identity: [u8; 32]) -> Option<Holder> {
        User(Some(identity)).holder(disk, header).await.ok().flatten()
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
        let signed = self.newest.watermark.signed.as_ref().filter(|_| self.usable == Usable::Yes)?;
        Some(Permit::recorded(&signed.sign_bytes))
    }

    /// Leave to sign a message that is the recorded one but for its timestamp; `None` if another one is recorded, or after a
    /// failed write.
    pub fn permit_alike(&self, question: &Question<'_>) -> Option<Permit<'static>> {
        let watermark = &self.newest.watermark;
        let is_usable = self.usable == Usable::Yes && watermark.is_at(question.hrs());
        let signed = watermark.signed.as_ref().filter(|_| is_usable)?;
        let is_alike = question.sign_bytes_at(signed.timestamp) == signed.sign_bytes;
        is_alike.then(|| Permit::alike(question.sign_bytes()))
    }

    /// Whether it is of no use any more: what the disk holds is not known, or the path leads elsewhere.
    pub fn has_failed(&self) -> bool {
        self.usable != Usable::Yes
    }

    /// Where the record lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Raises the watermark; when this returns, it is on stable storage.
    ///
    /// # Errors
    /// [`RecordError::NotRising`] changes nothing. After [`RecordError::Io`] and [`RecordError::Moved`] the record is unusable.
    pub async fn raise(&mut self, watermark: Watermark) -> Result<(), RecordError> {
        self.check_usable()?;
        if watermark.place() <= self.newest.watermark.place() {
            let (recorded, asked) = (self.newest.watermark.to_string(), watermark.to_string());
            return Err(RecordError::NotRising { path: self.path.clone(), recorded, asked });
        }
        let next = self.newest.next_after(self.newest_hash, watermark);
        let page = next.page();
        // Until the disk says otherwise, also if this future is dropped in between.
        self.usable = Usable::WriteFailed;
        let written = self.file.write_durable_at(&self.path, next.offset(), &page).await;
        // Looked at after the sync: what befell the name until then is seen, and what comes later is seen by the next raise.
        let is_at_its_path = written.map_err(io_error("write", &self.path))?;
        self.usable = if is_at_its_path { Usable::Yes } else { Usable::Moved };
        self.check_usable()?;
        (self.newest, self.newest_hash) = (next, hash_in(&page));
        Ok(())
    }

    /// As [`raise`](Self::raise); and if the path leads to another record of this chain and key by now, raises that to what was signed
    /// last: a supervisor starts the signer from it, and it may be an older copy.
    ///
    /// # Errors
    /// As [`raise`](Self::raise): nothing is signed any more.
    pub async fn raise_or_hand_down(
        &mut self,
        disk: &dyn Disk,
        watermark: Watermark,
    ) -> Result<(), RecordError> {
        let raised = self.raise(watermark).await;
        if let Err(RecordError::Moved { path, last, .. }) = &raised {
            match self.hand_down(disk).await {
                Ok(()) => tracing::warn!("`{}`, as it is now, stands at {last} at least", path.display()),
                Err(error) => {
                    tracing::error!(
                        "`{}` was not raised to {last}, which is signed: {error}",
                        path.display()
                    );
                }
            }
        }
        raised
    }

    /// Floors only rise, so this does no harm to whatever record it is.
    async fn hand_down(&self, disk: &dyn Disk) -> Result<(), RecordError> {
        let path = &self.path;
        let file = existing(disk, path).await?;
        if !file.try_lock().await.map_err(io_error("lock", path))? {
            return Err(RecordError::Locked { path: path.clone(), by: None });
        }
        let (header, newest) = read(&*file, path).await?;
        header.is_of(path, &self.header.chain_id, Some(&self.header.public_key))?;
        let next = match self.newest.watermark.place() > newest.watermark.place() {
            true => newest.next(self.newest.watermark.clone()),
            false => newest,
        };
        match settle(disk, &*file, path, next.offset(), &next.page()).await? {
            true => Ok(()),
            false => Err(RecordError::Changed { path: path.clone() }),
        }
    }

    /// That it may be signed from.
    ///
    /// # Errors
    /// [`RecordError::Failed`], [`RecordError::Moved`]: for good.
    pub fn check_usable(&self) -> Result<(), RecordError> {
        let path = self.path.clone();
        match self.usable {
            Usable::Yes => Ok(()),
            Usable::WriteFailed => Err(RecordError::Failed { path }),
            Usable::Moved => {
                let watermark = &self.newest.watermark;
                let next_height = watermark.height.0.saturating_add(1);
                Err(RecordError::Moved { path, last: watermark.to_string(), next_height })
            }
        }
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
    let bytes = read_bytes(file, path).await?;
    decode_file(&bytes).map_err(|source| RecordError::Damaged { path: path.into(), source, in_use: false })
}

async fn read_bytes(file: &dyn DiskFile, path: &Path) -> Result<Vec<u8>, RecordError> {
    file.read_all(FILE_LEN).await.map_err(|error| match error.kind() {
        io::ErrorKind::FileTooLarge => {
            let source = FormatError::TooLong;
            RecordError::Damaged { path: path.into(), source, in_use: false }
        }
        _ => io_error("read", path)(error),
    })
}

/// Brings what was read to stable storage, before anything is answered from it.
///
/// A signer that was killed between its write and its sync leaves an entry that only the kernel's cache may hold, and after a
/// failed sync the kernel takes the page for clean: so the entry is written again, not only synced. The same goes for
/// the record's name. False if the name leads to another file by now.
async fn settle(
    disk: &dyn Disk,
    file: &dyn DiskFile,
    path: &Path,
    offset: u64,
    newest: &[u8],
) -> Result<bool, RecordError> {
    file.write_durable(offset, newest).await.map_err(io_error("write", path))?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    disk.sync_dir(dir).await.map_err(io_error("sync", dir))?;
    file.is_at(path).await.map_err(io_error("look at", path))
}

fn locked_by(holder: Option<Holder>) -> String {
    match holder {
        Some(holder) => format!("{holder} uses this chain and key on this host"),
        None => "another signer runs on it".into(),
    }
}

impl From<DurableFileError> for RecordError {
    fn from(DurableFileError { doing, path, source }: DurableFileError) -> Self {
        Self::Io { doing, path, source }
    }
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RecordError {
    move |source| RecordError::Io { doing, path: path.into(), source }
}

#[cfg(test)]
mod tests;
