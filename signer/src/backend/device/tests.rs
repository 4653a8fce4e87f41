//! The owner of a device, over executors that do as they are told, in simulated time.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::pending;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, advance, sleep};

use super::*;
use crate::backend::{Backend, BackendError};
use crate::record::Permit;

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
}

impl Fake {
    fn new(name: u8) -> Rc<Self> {
        Self::slow(name, Duration::ZERO)
    }

    fn slow(name: u8, takes: Duration) -> Rc<Self> {
        let (key, does) = (Cell::new(KEY), RefCell::default());
        Rc::new(Self { name, key, does, broken: RefCell::new(None), takes, asked: RefCell::default() })
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
            match request {
                Request::PublicKey(1) => Ok(Reply::PublicKey(self.key.get())),
                Request::PublicKey(other) => Err(no_key(other)),
                Request::LogHasRoom => Ok(Reply::LogHasRoom(false)),
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
}

fn device(fake: &Rc<Fake>) -> Device {
    Device::new(&fake.name.to_string(), Rc::new(Owned(Rc::clone(fake))), LIMITS)
}

fn no_key(key: u16) -> DeviceError {
    DeviceError::NoKey { key, reason: format!("there is no key {key}") }
}

fn lost() -> DeviceError {
    DeviceError::Lost { reason: "lost".into(), session_spent: true }
}

fn run(test: impl AsyncFnOnce()) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().unwrap();
    LocalSet::new().block_on(&runtime, test());
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
