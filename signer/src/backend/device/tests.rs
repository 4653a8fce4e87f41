//! The owner of a device, over executors that do as they are told, in simulated time.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::pending;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, advance, sleep, timeout};

use super::*;
use crate::backend::locks::{KeyLocks, Lockable, lock_of, lock_path, unlock};
use crate::backend::{Backend, BackendError};
use crate::record::Permit;
use crate::seams::{Disk, StdDisk};

const KEY: PublicKey = PublicKey::from_bytes([7; 32]);
const LIMITS: Limits = Limits { deadline: Duration::from_secs(1), max_message: 100 };

/// What a device does with the next requests to sign.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Does {
    Signs,
    Fails(DeviceError),
    Hangs,
}

/// A device of one key, 1, whose signatures are its name.
struct Fake {
    name: u8,
    key: Cell<PublicKey>,
    does: RefCell<VecDeque<Does>>,
    /// What every request fails with, if anything.
    broken: RefCell<Option<DeviceError>>,
    takes: Duration,
    asked: RefCell<Vec<Request>>,
    /// Whether its log was looked at, or it has none.
    looked: Cell<bool>,
    /// When its log has to be looked at.
    due: Cell<Option<Instant>>,
    /// What was to be noted of alarms.
    alarms: RefCell<Vec<String>>,
}

impl Fake {
    fn new(name: u8) -> Rc<Self> {
        Self::slow(name, Duration::ZERO)
    }

    fn slow(name: u8, takes: Duration) -> Rc<Self> {
        let (key, does) = (Cell::new(KEY), RefCell::default());
        let (asked, looked) = (RefCell::default(), Cell::new(true));
        let (due, alarms) = (Cell::new(None), RefCell::default());
        Rc::new(Self { name, key, does, broken: RefCell::new(None), takes, asked, looked, due, alarms })
    }

    /// One with a witness, which looks at its log with the first answer.
    fn with_witness(name: u8) -> Rc<Self> {
        let fake = Self::new(name);
        fake.looked.set(false);
        fake
    }

    fn next(&self, does: impl IntoIterator<Item = Does>) {
        self.does.borrow_mut().extend(does);
    }

    fn signatures(&self) -> usize {
        self.asked.borrow().iter().filter(|request| matches!(request, Request::Sign { .. })).count()
    }
}

impl Executor for Fake {
    fn execute(&self, request: Request) -> Local<'_, Result<Reply, DeviceError>> {
        Box::pin(async move {
            self.asked.borrow_mut().push(request.clone());
            if let Some(error) = &*self.broken.borrow() {
                return Err(error.clone());
            }
            self.looked.set(true);
            match request {
                Request::PublicKey(1) => Ok(Reply::PublicKey(self.key.get())),
                Request::PublicKey(other) => Err(no_key(other)),
                Request::LogHasRoom => {
                    self.due.set(None);
                    Ok(Reply::LogHasRoom(false))
                }
                Request::Log | Request::MarkRead(_) => Ok(Reply::Done),
                Request::Sign { .. } => {
                    sleep(self.takes).await;
                    let does = self.does.borrow_mut().pop_front();
                    match does.unwrap_or(Does::Signs) {
                        Does::Signs => Ok(Reply::Signature(Box::new([self.name; 64]))),
                        Does::Fails(error) => Err(error),
                        Does::Hangs => pending().await,
                    }
                }
            }
        })
    }
}

struct Owned(Rc<Fake>);

impl Executor for Owned {
    fn execute(&self, request: Request) -> Local<'_, Result<Reply, DeviceError>> {
        self.0.execute(request)
    }

    fn has_looked(&self) -> bool {
        self.0.looked.get()
    }

    fn due(&self) -> Option<Instant> {
        self.0.due.get()
    }

    fn keep_alarm<'a>(&'a self, alarm: &'a str) -> Local<'a, Result<(), DeviceError>> {
        self.0.alarms.borrow_mut().push(alarm.to_owned());
        Box::pin(async { Ok(()) })
    }
}

fn device(fake: &Rc<Fake>) -> Device {
    device_of(fake, &Rc::default())
}

/// One of several that share what is known about keys.
fn device_of(fake: &Rc<Fake>, locks: &Rc<KeyLocks>) -> Device {
    Device::new(&fake.name.to_string(), Rc::new(Owned(Rc::clone(fake))), LIMITS, Rc::clone(locks))
}

fn no_key(key: u16) -> DeviceError {
    DeviceError::NoKey { key, reason: format!("there is no key {key}") }
}

fn lost() -> DeviceError {
    DeviceError::Lost { reason: "lost".into(), session_spent: true }
}

fn run(test: impl AsyncFnOnce()) {
    crate::deadline::for_this_test();
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().unwrap();
    // Of simulated time: what waits for ever fails, and does not keep all others waiting.
    let day = Duration::from_secs(24 * 3600);
    LocalSet::new().block_on(&runtime, async { timeout(day, test()).await.expect("it ends") });
}

#[test]
fn a_lost_session_is_replaced_without_anybody_noticing() {
    run(async || {
        let fake = Fake::new(1);
        let key = device(&fake).key(1, KEY);
        key.until_ready().await;
        fake.next([Does::Fails(lost())]);
        assert_eq!(key.sign(b"x").await, Ok([1; 64]));
        assert_eq!(fake.signatures(), 2);
    });
}

#[test]
fn an_absent_device_is_not_asked_and_comes_back_by_itself_within_seconds() {
    run(async || {
        let fake = Fake::new(1);
        let key = device(&fake).key(1, KEY);
        key.until_ready().await;
        let absent = DeviceError::Lost { reason: "refused".into(), session_spent: false };
        *fake.broken.borrow_mut() = Some(absent);
        assert!(key.sign(b"x").await.is_err() && key.ready().is_err());
        sleep(Duration::from_secs(600)).await;
        let asked = fake.signatures();
        assert!(key.sign(b"x").await.unwrap_err().to_string().contains("refused"));
        assert_eq!(fake.signatures(), asked);
        *fake.broken.borrow_mut() = None;
        let back = Instant::now();
        key.until_ready().await;
        assert!(back.elapsed() <= Duration::from_secs(2), "{:?}", back.elapsed());
        assert_eq!(key.sign(b"x").await, Ok([1; 64]));
    });
}

#[test]
fn a_hanging_device_is_given_up_at_its_deadline() {
    run(async || {
        let fake = Fake::new(1);
        let key = device(&fake).key(1, KEY);
        key.until_ready().await;
        fake.next([Does::Hangs]);
        let asked = Instant::now();
        assert!(key.sign(b"x").await.unwrap_err().to_string().contains("no answer in time"));
        assert_eq!(asked.elapsed(), LIMITS.deadline);
    });
}

#[test]
fn a_wrong_password_is_tried_once_and_never_again() {
    run(async || {
        let fake = Fake::new(1);
        *fake.broken.borrow_mut() = Some(DeviceError::WrongPassword);
        let key = device(&fake).key(1, KEY);
        sleep(Duration::from_secs(3600)).await;
        assert_eq!(fake.asked.borrow().len(), 1);
        let error = key.sign(b"x").await.unwrap_err().to_string();
        assert!(error.contains("refuses the password") && error.contains("hint:"), "{error}");
        assert_eq!(fake.asked.borrow().len(), 1);
    });
}

#[test]
fn a_key_that_is_missing_or_another_is_not_signed_with_until_it_is_there() {
    run(async || {
        let fake = Fake::new(1);
        fake.key.set(PublicKey::from_bytes([8; 32]));
        let device = device(&fake);
        let (key, other) = (device.key(1, KEY), device.key(2, KEY));
        sleep(Duration::from_secs(10)).await;
        assert!(key.ready().unwrap_err().to_string().contains("0808"));
        assert!(other.ready().unwrap_err().to_string().contains("there is no key 2"));
        fake.key.set(KEY);
        key.until_ready().await;
        assert_eq!(key.sign(b"x").await, Ok([1; 64]));
        fake.key.set(PublicKey::from_bytes([8; 32]));
        fake.next([Does::Fails(no_key(1))]);
        assert!(key.sign(b"x").await.is_err() && key.ready().is_err(), "deleted");
    });
}

#[test]
fn a_full_log_stops_signatures_until_there_is_room() {
    run(async || {
        let fake = Fake::new(1);
        let key = device(&fake).key(1, KEY);
        key.until_ready().await;
        fake.next([Does::Fails(DeviceError::LogFull)]);
        assert!(key.sign(b"x").await.is_err());
        sleep(Duration::from_secs(60)).await;
        assert!(key.ready().unwrap_err().to_string().contains("log is full"));
        assert_eq!(fake.signatures(), 1);
    });
}

#[test]
fn an_unsteady_device_does_not_cost_all_its_sessions() {
    run(async || {
        let fake = Fake::new(1);
        let key = device(&fake).key(1, KEY);
        key.until_ready().await;
        *fake.broken.borrow_mut() = Some(lost());
        let asked = fake.asked.borrow().len();
        let _ = key.sign(b"x").await;
        sleep(Duration::from_secs(29)).await;
        let openings = fake.asked.borrow().len() - asked;
        assert!((5..=10).contains(&openings), "{openings} sessions were opened within 30 s");
        *fake.broken.borrow_mut() = None;
        key.until_ready().await;
    });
}

#[test]
fn what_nobody_waits_for_is_dropped_and_counted() {
    run(async || {
        let fake = Fake::slow(1, Duration::from_millis(900));
        let device = device(&fake);
        let key = Rc::new(device.key(1, KEY));
        key.until_ready().await;
        let mut asked = Vec::new();
        for n in 0..10_u8 {
            let key = Rc::clone(&key);
            asked.push(spawn_local(async move { key.sign(&[n]).await.is_ok() }));
        }
        tokio::task::yield_now().await;
        // The last one is not waited for at all.
        asked.pop().unwrap().abort();
        let mut signed = Vec::new();
        for asked in asked {
            signed.push(asked.await.unwrap());
        }
        // Within five seconds six begin.
        assert_eq!(signed, [true, true, true, true, true, true, false, false, false]);
        advance(Duration::from_secs(1)).await;
        assert_eq!((fake.signatures(), device.dropped()), (6, 4));
    });
}

#[test]
fn twenty_chains_on_one_slow_device_are_served_in_turn() {
    run(async || {
        let fake = Fake::slow(1, Duration::from_millis(120));
        let device = device(&fake);
        let key = Rc::new(device.key(1, KEY));
        key.until_ready().await;
        let served = Rc::new(RefCell::new(Vec::new()));
        let chains: Vec<_> = (0..20_u8)
            .map(|chain| {
                let (key, served) = (Rc::clone(&key), Rc::clone(&served));
                spawn_local(async move {
                    for _ in 0..5 {
                        let asked = Instant::now();
                        key.sign(&[chain]).await.unwrap();
                        assert!(asked.elapsed() <= Duration::from_millis(20 * 120));
                        served.borrow_mut().push(chain);
                    }
                })
            })
            .collect();
        for chain in chains {
            chain.await.unwrap();
        }
        let turns: Vec<u8> = (0..5).flat_map(|_| 0..20).collect();
        assert_eq!((&*served.borrow(), device.dropped()), (&turns, 0));
    });
}

#[test]
fn the_other_device_signs_when_one_fails_or_hangs() {
    run(async || {
        let fakes = [Fake::new(1), Fake::new(2)];
        let keys: Vec<_> = fakes.iter().map(|fake| device(fake).key(1, KEY)).collect();
        for key in &keys {
            key.until_ready().await;
        }
        let both = Failover::new(KEY, keys);
        let permit = Permit::raw(b"x").unwrap();
        assert_eq!(both.sign(&permit).await, Ok([1; 64]));
        fakes[0].next([Does::Hangs]);
        assert_eq!(both.sign(&permit).await, Ok([2; 64]), "at its deadline");
        fakes[0].next([Does::Fails(DeviceError::Refused("no".into()))]);
        assert_eq!(both.sign(&permit).await, Ok([2; 64]), "with an error");
        both.distrust();
        assert_eq!(both.sign(&permit).await, Ok([1; 64]));
        both.distrust();
        let error = both.ready().unwrap_err();
        assert!(error.to_string().contains("does not verify"), "{error}");
        assert_eq!(both.sign(&permit).await, Err(error));
        assert_eq!(both.max_message(), 100);
        let keys = [device(&Fake::new(3)).key(1, KEY)];
        let long = keys[0].sign(&[0; 101]).await;
        assert_eq!(long, Err(BackendError::TooLong { len: 101, max: 100 }));
    });
}

/// The same key on devices that share what is known of it, the first being asked first.
async fn on_both(fakes: &[Rc<Fake>; 2], locks: &Rc<KeyLocks>) -> Failover {
    let keys: Vec<_> = fakes.iter().map(|fake| device_of(fake, locks).key(1, KEY)).collect();
    for key in &keys {
        key.until_ready().await;
    }
    Failover::new(KEY, keys)
}

/// Each error that a device can give. A new one does not compile before it has words below, and belongs here, too.
fn every_error() -> Vec<DeviceError> {
    vec![
        lost(),
        DeviceError::Lost { reason: "refused".into(), session_spent: false },
        DeviceError::Deadline,
        DeviceError::WrongPassword,
        DeviceError::WrongPin("the token refuses the PIN".into()),
        DeviceError::SessionsFull,
        no_key(1),
        DeviceError::LogFull,
        DeviceError::Alarm("somebody else signed\nhint: find out who".into()),
        DeviceError::Unwatched("the audit file is missing\nhint: make it".into()),
        DeviceError::Refused("no".into()),
        DeviceError::TooLong { len: 101, max: 100 },
    ]
}

/// The words that docs/hardware.md has for an error.
fn words_for(error: &DeviceError) -> &'static str {
    match error {
        DeviceError::TooLong { .. } => "the message is too long",
        DeviceError::Refused(_) => "refuses the request",
        DeviceError::Lost { .. } => "it cannot be reached",
        DeviceError::Deadline => "gives no answer",
        DeviceError::SessionsFull => "its sessions are all in use",
        DeviceError::LogFull => "its log is full",
        DeviceError::NoKey { .. } => "it has no such key",
        DeviceError::WrongPassword | DeviceError::WrongPin(_) => "it refuses the password or PIN",
        DeviceError::Unwatched(_) => "its audit file is missing",
        DeviceError::Alarm(_) => "an alarm of the witness",
    }
}

#[test]
fn operators_read_of_each_error_what_it_stops() {
    let text = include_str!("../../../../docs/hardware.md");
    for error in every_error() {
        let words = words_for(&error);
        let rows: Vec<_> =
            text.lines().filter(|line| line.starts_with('|') && line.contains(words)).collect();
        let [row] = rows[..] else { panic!("`{words}` stands in {} rows", rows.len()) };
        let (stops, until) = match error.about() {
            About::Request => ("this request", "the next one"),
            About::Device => ("this device", "it is over"),
            About::KeyOnDevice => ("this key on this device", "it is there"),
            About::DeviceForGood => ("this device", "a restart"),
            About::Key => ("its keys, on every device and for every chain", "it is over"),
            About::KeyUntilUnlocked => {
                ("its keys, on every device and for every chain", "`monosign yubihsm unlock`")
            }
        };
        assert!(row.ends_with(&format!("| {stops} | {until} |")), "{error}: {row}");
    }
}

#[test]
fn each_error_stops_what_the_table_says_and_nothing_else() {
    for error in every_error() {
        run(async || {
            let fakes = [Fake::new(1), Fake::new(2)];
            let both = on_both(&fakes, &Rc::default()).await;
            let permit = Permit::raw(b"x").unwrap();
            // Once more for what is asked again after a lost session.
            fakes[0].next([Does::Fails(error.clone()), Does::Fails(error.clone())]);
            let signed = both.sign(&permit).await;
            let about = error.about();
            if matches!(about, About::Key | About::KeyUntilUnlocked) {
                assert!(matches!(&signed, Err(BackendError::Locked(_))), "{error}: {signed:?}");
                assert_eq!(fakes[1].signatures(), 0, "{error}: the other device was asked");
            } else {
                assert_eq!(signed, Ok([2; 64]), "{error}: the other device has the key");
            }
            let asked = fakes[0].signatures();
            fakes[0].does.borrow_mut().clear();
            // The device is looked for, and nothing is wrong with it any more.
            sleep(Duration::from_secs(120)).await;
            let signed = both.sign(&permit).await;
            match about {
                About::KeyUntilUnlocked => {
                    assert!(matches!(&signed, Err(BackendError::Locked(_))), "{error}: {signed:?}");
                    assert!(matches!(both.ready(), Err(BackendError::Locked(_))), "{error}");
                    assert_eq!((fakes[0].signatures(), fakes[1].signatures()), (asked, 0), "{error}");
                }
                About::DeviceForGood => {
                    assert_eq!(signed, Ok([2; 64]), "{error}");
                    assert_eq!(fakes[0].signatures(), asked, "{error}: it is never asked again");
                }
                // Nothing makes room in the fake's log.
                About::Device if error == DeviceError::LogFull => assert_eq!(signed, Ok([2; 64])),
                About::Request | About::Device | About::KeyOnDevice | About::Key => {
                    assert_eq!(signed, Ok([1; 64]), "{error}: it is over");
                }
            }
        });
    }
}

#[test]
fn an_alarm_locks_the_key_for_every_chain_and_wherever_else_it_is() {
    run(async || {
        let (locks, other_key) = (Rc::<KeyLocks>::default(), PublicKey::from_bytes([9; 32]));
        let fakes = [Fake::new(1), Fake::new(2), Fake::new(3)];
        let first = device_of(&fakes[0], &locks).key(1, KEY);
        let elsewhere = device_of(&fakes[1], &locks).key(1, KEY);
        fakes[2].key.set(other_key);
        let another = device_of(&fakes[2], &locks).key(1, other_key);
        for key in [&first, &elsewhere, &another] {
            key.until_ready().await;
        }
        let file = Lockable::new(
            Rc::new(Failover::new(KEY, vec![device(&Fake::new(4)).key(1, KEY)])),
            Rc::clone(&locks),
        );
        file.until_ready().await;
        fakes[0].next([Does::Fails(DeviceError::Alarm("foreign".into()))]);
        assert!(matches!(first.sign(b"x").await, Err(BackendError::Locked(_))));
        assert!(matches!(elsewhere.ready(), Err(BackendError::Locked(_))));
        assert!(matches!(elsewhere.sign(b"x").await, Err(BackendError::Locked(_))));
        assert_eq!(fakes[1].signatures(), 0);
        assert!(matches!(file.ready(), Err(BackendError::Locked(_))));
        let permit = Permit::raw(b"x").unwrap();
        assert!(matches!(file.sign(&permit).await, Err(BackendError::Locked(_))));
        assert_eq!(another.sign(b"x").await, Ok([3; 64]), "another key has nothing to do with it");
    });
}

#[test]
fn what_another_device_is_signing_while_the_alarm_comes_is_withheld() {
    run(async || {
        let locks = Rc::<KeyLocks>::default();
        let fakes = [Fake::new(1), Fake::slow(2, Duration::from_millis(200))];
        let [first, second] = fakes.each_ref().map(|fake| device_of(fake, &locks).key(1, KEY));
        first.until_ready().await;
        second.until_ready().await;
        fakes[0].next([Does::Fails(DeviceError::Alarm("foreign".into()))]);
        let (slow, alarmed) = tokio::join!(second.sign(b"x"), first.sign(b"y"));
        assert!(matches!(alarmed, Err(BackendError::Locked(_))));
        assert!(matches!(slow, Err(BackendError::Locked(_))), "{slow:?}");
        assert_eq!(fakes[1].signatures(), 1, "it was made, and is not given");
    });
}

#[test]
fn nothing_is_signed_before_each_device_of_the_key_has_shown_its_log() {
    run(async || {
        let fakes = [Fake::with_witness(1), Fake::new(2)];
        *fakes[0].broken.borrow_mut() = Some(DeviceError::SessionsFull);
        let locks = Rc::default();
        let keys: Vec<_> = fakes.iter().map(|fake| device_of(fake, &locks).key(1, KEY)).collect();
        let (both, permit) = (Failover::new(KEY, keys), Permit::raw(b"x").unwrap());
        // One that answers is waited for, however long it takes.
        sleep(Duration::from_secs(60)).await;
        let error = both.sign(&permit).await.unwrap_err().to_string();
        assert!(error.contains("its log was not looked at yet"), "{error}");
        assert_eq!(fakes[1].signatures(), 0);
        *fakes[0].broken.borrow_mut() = Some(DeviceError::Alarm("it is an old disk".into()));
        sleep(Duration::from_secs(60)).await;
        assert!(matches!(both.sign(&permit).await, Err(BackendError::Locked(_))));
        assert_eq!(fakes[1].signatures(), 0);
    });
}

#[test]
fn a_device_that_cannot_be_reached_at_the_start_is_taken_for_dead_and_its_alarm_still_counts() {
    for error in [lost(), DeviceError::Lost { reason: "refused".into(), session_spent: false }] {
        run(async || {
            let fakes = [Fake::with_witness(1), Fake::with_witness(2)];
            *fakes[0].broken.borrow_mut() = Some(error.clone());
            let locks = Rc::default();
            let keys: Vec<_> = fakes.iter().map(|fake| device_of(fake, &locks).key(1, KEY)).collect();
            let (both, permit) = (Failover::new(KEY, keys), Permit::raw(b"x").unwrap());
            sleep(Duration::from_millis(4900)).await;
            assert!(both.sign(&permit).await.is_err());
            let began = Instant::now();
            timeout(Duration::from_secs(5), both.until_ready()).await.expect("the other signs then");
            assert!(began.elapsed() >= Duration::from_millis(100));
            assert_eq!(both.sign(&permit).await, Ok([2; 64]));
            *fakes[0].broken.borrow_mut() = Some(DeviceError::Alarm("signed elsewhere".into()));
            sleep(Duration::from_secs(60)).await;
            assert!(matches!(both.sign(&permit).await, Err(BackendError::Locked(_))));
        });
    }
}

#[test]
fn a_witness_that_is_not_let_in_at_the_start_holds_the_key() {
    run(async || {
        let fakes = [Fake::with_witness(1), Fake::new(2)];
        *fakes[0].broken.borrow_mut() = Some(DeviceError::WrongPassword);
        let locks = Rc::default();
        let keys: Vec<_> = fakes.iter().map(|fake| device_of(fake, &locks).key(1, KEY)).collect();
        let (both, permit) = (Failover::new(KEY, keys), Permit::raw(b"x").unwrap());
        sleep(Duration::from_secs(3600)).await;
        let signed = both.sign(&permit).await;
        assert!(matches!(&signed, Err(BackendError::Locked(why)) if why.contains("password")), "{signed:?}");
        assert_eq!((fakes[0].asked.borrow().len(), fakes[1].signatures()), (1, 0));
    });
}

#[test]
fn a_log_that_must_be_looked_at_is_though_nobody_asks_for_anything() {
    run(async || {
        let fake = Fake::new(1);
        let key = device(&fake).key(1, KEY);
        key.until_ready().await;
        let looks = || fake.asked.borrow().iter().filter(|asked| **asked == Request::LogHasRoom).count();
        fake.due.set(Some(Instant::now() + Duration::from_secs(120)));
        // The owner sees what is due when it has done something.
        key.sign(b"x").await.unwrap();
        sleep(Duration::from_secs(119)).await;
        assert_eq!(looks(), 0);
        sleep(Duration::from_secs(2)).await;
        assert_eq!(looks(), 1);
        // One that cannot be reached is looked for, and its log when it is back.
        fake.due.set(Some(Instant::now()));
        *fake.broken.borrow_mut() = Some(lost());
        key.sign(b"x").await.unwrap_err();
        sleep(Duration::from_secs(600)).await;
        let asked = fake.asked.borrow().len();
        assert!(asked < 1000, "{asked}");
        *fake.broken.borrow_mut() = None;
        sleep(Duration::from_secs(5)).await;
        assert_eq!(fake.due.get(), None);
    });
}

#[test]
fn a_lock_that_cannot_be_written_is_tried_again_and_noted_with_the_log_meanwhile() {
    run(async || {
        let (dir, locks) = (tempfile::tempdir().unwrap(), Rc::<KeyLocks>::default());
        let (disk, record) =
            (Rc::new(StdDisk::default()) as Rc<dyn Disk>, dir.path().join("away").join("record"));
        locks.admit(&disk, KEY, &record, false).await;
        let fake = Fake::new(1);
        let key = device_of(&fake, &locks).key(1, KEY);
        key.until_ready().await;
        fake.next([Does::Fails(DeviceError::Alarm("foreign\nhint: find out who".into()))]);
        assert!(matches!(key.sign(b"x").await, Err(BackendError::Locked(_))));
        assert_eq!(*fake.alarms.borrow(), ["foreign"]);
        sleep(Duration::from_secs(60)).await;
        assert!(!lock_path(&record).exists());
        std::fs::create_dir(dir.path().join("away")).unwrap();
        sleep(Duration::from_secs(5)).await;
        assert!(lock_path(&record).exists());
        let tried = fake.alarms.borrow().len();
        sleep(Duration::from_secs(60)).await;
        assert_eq!(fake.alarms.borrow().len(), tried, "once is enough");
    });
}

#[test]
fn a_lock_is_kept_beside_each_record_of_the_key_until_it_is_unlocked() {
    run(async || {
        let dir = tempfile::tempdir().unwrap();
        let disk: Rc<dyn Disk> = Rc::new(StdDisk::default());
        let other_key = PublicKey::from_bytes([9; 32]);
        let [one, two, other] = ["one", "two", "other"].map(|name| dir.path().join(name));
        let admitted = async || {
            let locks = Rc::<KeyLocks>::default();
            for (key, record) in [(KEY, &one), (KEY, &two), (other_key, &other)] {
                locks.admit(&disk, key, record, false).await;
            }
            locks
        };
        let (fake, locks) = (Fake::new(1), admitted().await);
        let key = device_of(&fake, &locks).key(1, KEY);
        key.until_ready().await;
        fake.next([Does::Fails(DeviceError::Alarm("foreign\nhint: find out who".into()))]);
        key.sign(b"x").await.unwrap_err();
        // When the answer is there, so are these.
        for record in [&one, &two] {
            let why = lock_of(&*disk, record).await.unwrap().expect("a lock");
            assert_eq!(why, "device 1: foreign\nhint: find out who");
        }
        assert!(!lock_path(&other).exists());
        // The next process, and though the device has nothing to say any more.
        let locks = admitted().await;
        let key = device_of(&Fake::new(2), &locks).key(1, KEY);
        let refused = key.sign(b"x").await;
        assert!(matches!(&refused, Err(BackendError::Locked(why)) if why.contains("foreign")), "{refused:?}");
        assert_eq!(locks.check(other_key), Ok(()));
        // One of them is enough, and is made good for.
        unlock(&*disk, &one).await.unwrap();
        let locks = admitted().await;
        assert!(locks.check(KEY).is_err());
        locks.keep().await.unwrap();
        assert!(lock_path(&one).exists());
        for record in [&one, &two] {
            unlock(&*disk, record).await.unwrap();
        }
        assert_eq!(admitted().await.check(KEY), Ok(()));
        // What cannot be read is no leave to sign.
        std::fs::create_dir(lock_path(&one)).unwrap();
        assert!(matches!(admitted().await.check(KEY), Err(BackendError::Locked(_))));
    });
}
