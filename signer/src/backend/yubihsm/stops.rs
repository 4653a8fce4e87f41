//! What each thing that a log can tell stops, with two devices that hold one key; and what it does not stop.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::task::LocalSet;
use tokio::time::timeout;

use super::audit_file::AuditFile;
use super::witness::{Alarm, AuditLog, LogEntry, Watched};
use super::{Audit, CAPACITY, Witnessed};
use crate::backend::device::{Device, DeviceError, Executor, Failover, Limits, Reply, Request};
use crate::backend::locks::{KeyLocks, lock_of};
use crate::backend::{Backend as _, BackendError};
use crate::pubkey::PublicKey;
use crate::record::Permit;
use crate::seams::{Disk, Local, StdDisk};

const KEY: PublicKey = PublicKey::from_bytes([7; 32]);
const OURS: u16 = 4;
const ANOTHERS: u16 = 5;
const SIGN: u8 = 0x6a;
const LIMITS: Limits = Limits { deadline: Duration::from_secs(1), max_message: 100 };

/// A device that logs. Its signatures are its name.
struct Hsm {
    name: u8,
    log: RefCell<AuditLog>,
    last: Cell<(u16, [u8; 16])>,
    signatures: Cell<usize>,
    forces_audit: bool,
    /// What it says of its log instead of showing it.
    log_error: RefCell<Option<DeviceError>>,
    is_unlogged: Cell<bool>,
    /// How often somebody else signs with which key right before a signature of key 1 is asked for, if there is room.
    steals: Cell<(usize, u16)>,
}

impl Hsm {
    fn new(name: u8, forces_audit: bool) -> Rc<Self> {
        let hsm = Self {
            name,
            log: RefCell::default(),
            last: Cell::default(),
            signatures: Cell::default(),
            forces_audit,
            log_error: RefCell::default(),
            is_unlogged: Cell::default(),
            steals: Cell::default(),
        };
        hsm.logs(0, 0xffff, 0, 0);
        Rc::new(hsm)
    }

    fn logs(&self, command: u8, auth_key: u16, key: u16, len: usize) {
        let (last, digest) = self.last.get();
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&(last + 1).to_be_bytes());
        bytes[2] = command;
        bytes[3..5].copy_from_slice(&(len as u16 + 2).to_be_bytes());
        bytes[5..7].copy_from_slice(&auth_key.to_be_bytes());
        bytes[7..9].copy_from_slice(&key.to_be_bytes());
        bytes[11] = command | 0x80;
        let hash = Sha256::new().chain_update(bytes).chain_update(digest).finalize();
        let mut digest = [0; 16];
        digest.copy_from_slice(&hash[..16]);
        self.last.set((last + 1, digest));
        self.log.borrow_mut().entries.push(LogEntry { bytes, digest });
    }

    fn is_full(&self) -> bool {
        self.forces_audit && self.log.borrow().entries.len() >= CAPACITY
    }

    fn sign(&self, key: u16, len: usize) -> Result<Reply, DeviceError> {
        if let (times @ 1.., stolen_by) = self.steals.get()
            && key == 1
            && !self.is_full()
        {
            self.steals.set((times - 1, stolen_by));
            self.logs(SIGN, OURS, stolen_by, len);
        }
        if self.is_full() {
            return Err(DeviceError::LogFull);
        }
        if !self.is_unlogged.get() {
            self.logs(SIGN, OURS, key, len);
        }
        self.signatures.set(self.signatures.get() + 1);
        Ok(Reply::Signature(Box::new([self.name; 64])))
    }

    fn perform(&self, request: &Request) -> Result<Reply, DeviceError> {
        match request {
            Request::PublicKey(1) => Ok(Reply::PublicKey(KEY)),
            Request::PublicKey(other) => {
                Ok(Reply::PublicKey(PublicKey::from_bytes([*other as u8 + 100; 32])))
            }
            Request::Sign { key, message } => self.sign(*key, message.len()),
            Request::LogHasRoom => Ok(Reply::LogHasRoom(!self.is_full())),
            Request::Log => match &*self.log_error.borrow() {
                Some(error) => Err(error.clone()),
                None => Ok(Reply::Log(self.log.borrow().clone())),
            },
            Request::MarkRead(item) => {
                let entries = &mut self.log.borrow_mut().entries;
                if entries.iter().all(|entry| entry.item() != *item) {
                    return Err(DeviceError::Refused("it was read before".into()));
                }
                entries.retain(|entry| entry.item() > *item);
                Ok(Reply::Done)
            }
        }
    }
}

/// What asks it.
struct Asks(Rc<Hsm>);

impl Executor for Asks {
    fn execute(&self, request: Request) -> Local<'_, Result<Reply, DeviceError>> {
        Box::pin(async move { self.0.perform(&request) })
    }
}

fn run(test: impl AsyncFnOnce()) {
    crate::deadline::for_this_test();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let day = Duration::from_secs(24 * 3600);
    let ends = async { timeout(day, test()).await.expect("it ends") };
    LocalSet::new().block_on(&runtime.expect("a runtime"), ends);
}

fn witnessed(hsm: &Rc<Hsm>, mode: Audit, key: u16, path: PathBuf) -> Witnessed {
    let watched = Watched { auth_key: OURS, keys: BTreeSet::from([key]) };
    let disk = Rc::new(StdDisk::default());
    Witnessed::new(Rc::new(Asks(Rc::clone(hsm))), mode, watched, disk, path)
}

/// Two devices with one key, for a chain with a record and another with the same key.
struct Pair {
    dir: tempfile::TempDir,
    disk: Rc<dyn Disk>,
    hsms: [Rc<Hsm>; 2],
}

impl Pair {
    async fn new() -> Self {
        let pair = Self {
            dir: tempfile::tempdir().expect("a directory"),
            disk: Rc::new(StdDisk::default()),
            hsms: [Hsm::new(1, false), Hsm::new(2, false)],
        };
        for hsm in &pair.hsms {
            let log = hsm.log.borrow().clone();
            Witnessed::init(&*pair.disk, &pair.audit_file(hsm), &log).await.expect("made");
        }
        pair
    }

    fn audit_file(&self, hsm: &Hsm) -> PathBuf {
        self.dir.path().join(format!("{}.audit", hsm.name))
    }

    fn records(&self) -> [PathBuf; 2] {
        ["one", "two"].map(|name| self.dir.path().join(name))
    }

    async fn locks(&self) -> Rc<KeyLocks> {
        let locks = Rc::<KeyLocks>::default();
        for record in self.records() {
            locks.admit(&self.disk, KEY, &record, false).await;
        }
        locks
    }

    /// A process; `first` is asked first.
    async fn start(&self, first: usize) -> (Rc<KeyLocks>, Failover) {
        let locks = self.locks().await;
        let on = |hsm: &Rc<Hsm>| {
            let executor = witnessed(hsm, Audit::Detect, 1, self.audit_file(hsm));
            Device::new(&hsm.name.to_string(), Rc::new(executor), LIMITS, Rc::clone(&locks)).key(1, KEY)
        };
        let keys = vec![on(&self.hsms[first]), on(&self.hsms[1 - first])];
        for key in &keys {
            // One that says why it will never be ready has said so by then.
            let _ = timeout(Duration::from_secs(20), key.until_ready()).await;
        }
        (locks, Failover::new(KEY, keys))
    }

    fn signatures(&self) -> usize {
        self.hsms.iter().map(|hsm| hsm.signatures.get()).sum()
    }
}

/// Each alarm, as it is after the one signature of [`Pair`]'s first device, which has entry 2. A new one does not compile before
/// [`happens`] has it, and belongs here, too.
fn every_alarm() -> Vec<Alarm> {
    vec![
        Alarm::Foreign { auth_key: ANOTHERS, key: 1, item: 3 },
        Alarm::NotAsked { auth_key: OURS, key: 1, item: 3 },
        Alarm::Gap { last: 2, found: 4 },
        Alarm::OtherHistory { item: 2 },
        Alarm::OtherHistory { item: 3 },
        Alarm::Empty,
        Alarm::Unreadable { claimed: 3, parsed: 2 },
        Alarm::NotLogged { key: 1 },
    ]
}

/// Brings one about.
fn happens(alarm: Alarm, hsm: &Hsm) {
    let entries = || hsm.log.borrow_mut();
    match alarm {
        Alarm::Foreign { auth_key, key, .. } => hsm.logs(SIGN, auth_key, key, 1),
        Alarm::NotAsked { auth_key, key, .. } => hsm.logs(SIGN, auth_key, key, 1),
        Alarm::Gap { found, .. } => {
            hsm.logs(0, 0, 0, 0);
            hsm.logs(0, 0, 0, 0);
            entries().entries.retain(|entry| entry.item() >= found);
        }
        // The one that was seen last is another, or the one after it does not follow.
        Alarm::OtherHistory { item: 2 } => entries().entries[1].digest[0] ^= 1,
        Alarm::OtherHistory { .. } => {
            hsm.logs(0, 0, 0, 0);
            entries().entries[2].bytes[15] ^= 1;
        }
        Alarm::Empty => entries().entries.clear(),
        Alarm::Unreadable { .. } => {
            // As the host says it, which counts.
            *hsm.log_error.borrow_mut() = Some(DeviceError::Alarm(alarm.to_string()));
        }
        Alarm::NotLogged { .. } => hsm.is_unlogged.set(true),
    }
}

#[test]
fn each_alarm_of_one_device_stops_the_key_on_both_and_for_every_chain_until_it_is_unlocked() {
    for (alarm, first) in every_alarm().into_iter().flat_map(|alarm| [(alarm, 0), (alarm, 1)]) {
        run(async || {
            let (pair, permit) = (Pair::new().await, Permit::raw(b"x").expect("a message"));
            let (locks, both) = pair.start(first).await;
            let (alarmed, other) = (&pair.hsms[first], &pair.hsms[1 - first]);
            assert_eq!(both.sign(&permit).await, Ok([alarmed.name; 64]), "{alarm}");
            happens(alarm, alarmed);
            let refused = both.sign(&permit).await;
            let why = format!("device {}: {alarm}", alarmed.name);
            assert!(
                matches!(&refused, Err(BackendError::Locked(text)) if text.contains(&why)),
                "{refused:?}"
            );
            for record in pair.records() {
                let kept = lock_of(&*pair.disk, &record).await.expect("readable");
                assert_eq!(kept.as_deref(), Some(&*why), "before the refusal goes out");
            }
            assert!(matches!(both.ready(), Err(BackendError::Locked(_))) && locks.check(KEY).is_err());
            assert_eq!(other.signatures.get(), 0, "{alarm}: the other device was asked");
            // The next process knows, though nothing is wrong with any device any more.
            drop(both);
            *alarmed.log_error.borrow_mut() = None;
            alarmed.is_unlogged.set(false);
            let made = pair.signatures();
            let (_, both) = pair.start(1 - first).await;
            let refused = both.sign(&permit).await;
            assert!(
                matches!(&refused, Err(BackendError::Locked(text)) if text.contains(&why)),
                "{refused:?}"
            );
            assert_eq!(pair.signatures(), made, "{alarm}: something was signed");
        });
    }
}

/// What can be wrong with what is known of a log, and the words that it is told in.
#[derive(Debug, Clone, Copy)]
enum Unknown {
    Missing,
    Damaged,
    InUse,
    NotReadable,
    NotShown,
}

impl Unknown {
    const ALL: [(Self, &str); 5] = [
        (Self::Missing, "is missing"),
        (Self::Damaged, "is damaged"),
        (Self::InUse, "another signer runs on this device"),
        (Self::NotReadable, "directory"),
        (Self::NotShown, "it does not show its log"),
    ];
}

#[test]
fn where_nothing_is_known_of_one_log_no_device_signs_until_that_is_over() {
    for ((unknown, words), first) in Unknown::ALL.into_iter().flat_map(|each| [(each, 0), (each, 1)]) {
        run(async || {
            let (pair, permit) = (Pair::new().await, Permit::raw(b"x").expect("a message"));
            let hsm = &pair.hsms[0];
            let path = pair.audit_file(hsm);
            let saved = std::fs::read(&path).expect("made");
            let mut held = None;
            match unknown {
                Unknown::Missing => std::fs::remove_file(&path).expect("removed"),
                Unknown::Damaged => std::fs::write(&path, [1; 8192]).expect("written"),
                Unknown::InUse => held = Some(AuditFile::open(&*pair.disk, &path).await.expect("opened")),
                Unknown::NotReadable => {
                    std::fs::remove_file(&path).expect("removed");
                    std::fs::create_dir(&path).expect("made");
                }
                Unknown::NotShown => {
                    *hsm.log_error.borrow_mut() = Some(DeviceError::Refused("no".into()));
                }
            }
            let (_, both) = pair.start(first).await;
            let refused = both.sign(&permit).await;
            let is_told = matches!(&refused, Err(BackendError::Locked(text)) if text.contains(words));
            assert!(is_told, "{unknown:?}: {refused:?}");
            assert_eq!(pair.signatures(), 0, "{unknown:?}");
            // It is no alarm: nothing is kept, and nobody has to unlock anything.
            for record in pair.records() {
                assert_eq!(lock_of(&*pair.disk, &record).await.expect("readable"), None);
            }
            drop(held);
            if matches!(unknown, Unknown::NotReadable) {
                std::fs::remove_dir(&path).expect("removed");
            }
            std::fs::write(&path, saved).expect("put back");
            *hsm.log_error.borrow_mut() = None;
            both.until_ready().await;
            assert!(both.sign(&permit).await.is_ok(), "{unknown:?}");
        });
    }
}

#[test]
fn a_wrong_signature_stops_its_device_and_not_the_key() {
    run(async || {
        let (pair, permit) = (Pair::new().await, Permit::raw(b"x").expect("a message"));
        let (locks, both) = pair.start(0).await;
        assert_eq!(both.sign(&permit).await, Ok([1; 64]));
        both.distrust();
        for _ in 0..3 {
            assert_eq!(both.sign(&permit).await, Ok([2; 64]));
        }
        assert_eq!((pair.hsms[0].signatures.get(), locks.check(KEY)), (1, Ok(())));
        for record in pair.records() {
            assert_eq!(lock_of(&*pair.disk, &record).await.expect("readable"), None);
        }
    });
}

/// A device with a log that is full, and signers that keep it so.
async fn in_permit_mode(keys: &[u16]) -> (Rc<Hsm>, Vec<Witnessed>, tempfile::TempDir) {
    let (hsm, dir) = (Hsm::new(1, true), tempfile::tempdir().expect("a directory"));
    while !hsm.is_full() {
        hsm.logs(0x58, 1, 9, 0);
    }
    let mut signers = Vec::new();
    for key in keys {
        let path = dir.path().join(key.to_string());
        let log = hsm.log.borrow().clone();
        Witnessed::init(&StdDisk::default(), &path, &log).await.expect("made");
        signers.push(witnessed(&hsm, Audit::Permit, *key, path));
    }
    (hsm, signers, dir)
}

fn sign(key: u16) -> Request {
    Request::Sign { key, message: vec![key as u8; 90] }
}

#[test]
fn two_signers_that_make_places_on_one_device_both_sign() {
    run(async || {
        let (hsm, signers, _dir) = in_permit_mode(&[1, 2]).await;
        for turn in 0..5 * CAPACITY {
            // Now and then the other one takes the place that was made.
            hsm.steals.set((usize::from(turn % 7 == 0), 3));
            for (signer, key) in signers.iter().zip([1, 2]) {
                let signed = signer.execute(sign(key)).await;
                assert!(matches!(signed, Ok(Reply::Signature(_))), "{turn}: {signed:?} to {key}");
            }
            assert!(hsm.is_full(), "no place is left over");
        }
    });
}

#[test]
fn a_place_that_others_take_is_made_again_and_who_took_it_with_our_key_is_found() {
    run(async || {
        let (hsm, signers, _dir) = in_permit_mode(&[1]).await;
        hsm.steals.set((16, 2));
        assert!(matches!(signers[0].execute(sign(1)).await, Ok(Reply::Signature(_))));
        hsm.steals.set((1000, 2));
        let signed = signers[0].execute(sign(1)).await;
        assert!(
            matches!(&signed, Err(DeviceError::Refused(why)) if why.contains("each place")),
            "{signed:?}"
        );
        assert_eq!(hsm.signatures.get(), 1);
        hsm.steals.set((0, 0));
        assert!(matches!(signers[0].execute(sign(1)).await, Ok(Reply::Signature(_))));
        hsm.steals.set((1, 1));
        let found = signers[0].execute(sign(1)).await;
        assert!(
            matches!(&found, Err(DeviceError::Alarm(why)) if why.contains("did not ask for")),
            "{found:?}"
        );
        assert_eq!(hsm.signatures.get(), 2);
    });
}
