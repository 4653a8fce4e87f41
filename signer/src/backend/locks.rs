//! Keys that sign nothing, on any device and for any chain.
//!
//! What the witness of one device finds is about the key and its records, and not about that device: who has signed elsewhere, or has put
//! an old disk back, is not harmless because another device holds the same key. What always holds:
//!
//! * a locked key signs nowhere in this process, from the moment at which the alarm is found and before anybody is told of it; what
//!   another device signs at that moment is withheld;
//! * a file beside each record of the key says so, durable before the refusal goes out, and is read before a chain is served. Only
//!   `monosign yubihsm unlock` takes it away, after the records were raised;
//! * a held key signs nowhere either, for as long as it is held: at a start until the log of each device of the key that has a witness was looked at, and
//!   while what is known of such a log cannot be read or kept. Where nothing is known, there is nothing to go on from.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use tokio::sync::Notify;

use super::{Backend, BackendError};
use crate::ops::durable_file::{self, DurableFileError};
use crate::pubkey::PublicKey;
use crate::record::Permit;
use crate::seams::{Disk, Local};

/// The keys of a process that sign nothing, and why.
#[derive(Default)]
pub struct KeyLocks {
    keys: RefCell<BTreeMap<PublicKey, Key>>,
    changed: Notify,
}

#[derive(Default)]
struct Key {
    /// Until an operator has gone on.
    locked: Option<String>,
    /// By which device it is held.
    held: BTreeMap<String, Held>,
    records: BTreeMap<PathBuf, Beside>,
}

/// Where a lock is kept.
struct Beside {
    disk: Rc<dyn Disk>,
    is_kept: bool,
}

/// Why a key is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// A log was not looked at yet.
    Awaited(String),
    /// What is known of a log cannot be read or kept.
    Unwatched(String),
}

/// Where it is written that a record's key is locked: beside the record.
pub fn lock_path(record: &Path) -> PathBuf {
    record.with_added_extension("locked")
}

/// Why a record's key is locked, if it is.
///
/// # Errors
/// If that cannot be read.
pub async fn lock_of(disk: &dyn Disk, record: &Path) -> std::io::Result<Option<String>> {
    Ok(disk.read_small(&lock_path(record)).await?.map(|why| why.trim_end().to_owned()))
}

/// Takes a lock away. For `monosign yubihsm unlock` alone, once the record is above all that was signed.
///
/// # Errors
/// [`DurableFileError`]: then it may still be there.
pub async fn unlock(disk: &dyn Disk, record: &Path) -> Result<(), DurableFileError> {
    durable_file::remove(disk, &lock_path(record)).await
}

impl KeyLocks {
    /// A chain's record, beside which a lock of its key is kept, unless this process only looks. If there is one already, the key is
    /// locked.
    pub async fn admit(&self, disk: &Rc<dyn Disk>, public_key: PublicKey, record: &Path, only_looks: bool) {
        let found = lock_of(&**disk, record).await;
        if !only_looks {
            let beside = Beside { disk: Rc::clone(disk), is_kept: matches!(found, Ok(Some(_))) };
            self.keys.borrow_mut().entry(public_key).or_default().records.insert(record.into(), beside);
        }
        let why = match found {
            Ok(None) => None,
            Ok(Some(why)) => Some(why),
            Err(error) => Some(format!("`{}` cannot be read: {error}", lock_path(record).display())),
        };
        if let Some(why) = why {
            self.lock(public_key, &why);
        }
    }

    /// Locks a key, at once and in this process. [`keep`](Self::keep) makes it last.
    pub fn lock(&self, public_key: PublicKey, why: &str) {
        self.keys.borrow_mut().entry(public_key).or_default().locked.get_or_insert_with(|| why.to_owned());
        self.changed.notify_waiters();
    }

    /// Writes down which keys are locked.
    ///
    /// # Errors
    /// [`DurableFileError`]: what could not be written is locked until the process ends.
    pub async fn keep(&self) -> Result<(), DurableFileError> {
        let mut done = Ok(());
        for (public_key, record, disk, why) in self.not_kept() {
            let text = format!("{why}\n");
            let written = durable_file::replace(&*disk, &lock_path(&record), text.as_bytes()).await;
            let mut keys = self.keys.borrow_mut();
            if let Some(beside) = keys.get_mut(&public_key).and_then(|key| key.records.get_mut(&record)) {
                beside.is_kept |= written.is_ok();
            }
            done = done.and(written);
        }
        done
    }

    fn not_kept(&self) -> Vec<(PublicKey, PathBuf, Rc<dyn Disk>, String)> {
        let mut found = Vec::new();
        for (public_key, key) in &*self.keys.borrow() {
            let Some(why) = &key.locked else { continue };
            for (record, beside) in key.records.iter().filter(|(_, beside)| !beside.is_kept) {
                found.push((*public_key, record.clone(), Rc::clone(&beside.disk), why.clone()));
            }
        }
        found
    }

    /// A device holds a key, until it releases it.
    pub fn hold(&self, public_key: PublicKey, device: &str, why: Held) {
        self.keys.borrow_mut().entry(public_key).or_default().held.insert(device.to_owned(), why);
        self.changed.notify_waiters();
    }

    /// A device holds a key no more.
    pub fn release(&self, public_key: PublicKey, device: &str) {
        if let Some(key) = self.keys.borrow_mut().get_mut(&public_key) {
            key.held.remove(device);
        }
        self.changed.notify_waiters();
    }

    /// Whether a key may sign.
    ///
    /// # Errors
    /// [`BackendError::Locked`], or [`BackendError::Failed`] while a log is still to be looked at.
    pub fn check(&self, public_key: PublicKey) -> Result<(), BackendError> {
        let keys = self.keys.borrow();
        let Some(key) = keys.get(&public_key) else { return Ok(()) };
        if let Some(why) = &key.locked {
            let what = format!("the key is locked, and nothing is signed with it on any device: {why}");
            return Err(BackendError::Locked(what));
        }
        let unwatched = key.held.iter().find(|(_, why)| matches!(why, Held::Unwatched(_)));
        match unwatched.or_else(|| key.held.iter().next()) {
            Some((device, Held::Unwatched(why))) => Err(BackendError::Locked(format!(
                "nothing is signed with the key on any device: device {device}: {why}"
            ))),
            Some((device, Held::Awaited(why))) => Err(BackendError::Failed(format!(
                "nothing is signed with the key on any device yet: device {device}: {why}"
            ))),
            None => Ok(()),
        }
    }

    /// Waits until a key is locked, held or released.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// A key that is on no device, and is locked with those that are.
pub struct Lockable {
    key: Rc<dyn Backend>,
    locks: Rc<KeyLocks>,
}

impl Lockable {
    /// A key behind these locks.
    pub fn new(key: Rc<dyn Backend>, locks: Rc<KeyLocks>) -> Self {
        Self { key, locks }
    }
}

impl Backend for Lockable {
    fn public_key(&self) -> PublicKey {
        self.key.public_key()
    }

    fn ready(&self) -> Result<(), BackendError> {
        self.locks.check(self.public_key())?;
        self.key.ready()
    }

    fn until_ready(&self) -> Local<'_, ()> {
        self.key.until_ready()
    }

    fn sign<'a>(&'a self, permit: &'a Permit<'_>) -> Local<'a, Result<[u8; 64], BackendError>> {
        Box::pin(async move {
            self.locks.check(self.public_key())?;
            let signature = self.key.sign(permit).await?;
            self.locks.check(self.public_key())?;
            Ok(signature)
        })
    }

    fn max_message(&self) -> usize {
        self.key.max_message()
    }

    fn distrust(&self) {
        self.key.distrust();
    }
}
