//! What the owner of a device may rely on of an [`Executor`], tried on both forms of the seam: on production's thread, proxy and crate before a
//! connector, and on the simulated one. Under both is the same device.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::path::PathBuf;
use std::sync::Arc;
use std::task::Poll;

use ed25519_dalek::{Signature, VerifyingKey};
use mock_yubihsm::Connector;
use mock_yubihsm::faults::{Fault, Lasting, Once};
use monosign::backend::device::{DeviceError, Executor, OwnThread, Reply};
use monosign::backend::yubihsm::witness::{LogEntry, Watched};
use monosign::backend::yubihsm::{Adapter, Settings, YubihsmDriver};
use secrecy::SecretString;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::disk::HostDisk;
use crate::oracle::{Clones, Oracle};
use crate::scenario::{AUTH_KEY, SpanRange};
use crate::streams::Streams;
use crate::world::keys::PASSWORD;

/// One form: a device, and what fails on its way.
trait Form {
    /// A process that asks the device.
    fn executor(&self, password: &str) -> Rc<dyn Executor>;
    /// It fails in this way from now on, or no more.
    fn fails(&self, how: Fails, on: bool);
}

#[derive(Clone, Copy)]
enum Fails {
    /// The next signature's answer is lost.
    Answer,
    Hangs,
    IsGone,
}

struct Production(Connector);
struct Simulated {
    hsm: Rc<Yubihsm>,
    eye: Eye,
    streams: Streams,
}

/// Far more than anything takes that goes well.
const TIMEOUT: Duration = Duration::from_secs(1);

fn key() -> SigningKey {
    SigningKey::from_bytes(&crate::world::keys::CONSENSUS_SEED)
}

fn settings(adapter: Adapter, password: &str) -> Settings {
    let password = SecretString::from(password.to_owned());
    Settings { adapter, timeout: TIMEOUT, serial: None, auth_key: AUTH_KEY, password }
}

impl Production {
    fn new() -> Self {
        let mut stream = Streams::new(1).of("device");
        let mut device = Device::with_key(*FACTORY, Box::new(move |bytes| stream.fill(bytes)));
        operator::set_up(&mut device, &Hsm::named("hsm"), &key()).expect("set up");
        Self(Connector::serve(([127, 0, 0, 1], 0), device, Latency::None).expect("a port"))
    }
}

impl Form for Production {
    fn executor(&self, password: &str) -> Rc<dyn Executor> {
        let adapter = Adapter::Http { host: "127.0.0.1".into(), port: self.0.address().port() };
        let settings = Arc::new(settings(adapter, password));
        // As `start` does.
        let make = move || Box::new(YubihsmDriver::new(Arc::clone(&settings))) as _;
        Rc::new(OwnThread::new("yubihsm", make))
    }

    fn fails(&self, how: Fails, on: bool) {
        match how {
            Fails::Answer if on => self.0.set(Fault::Once(Once::LoseAnswer)),
            Fails::Answer => {}
            Fails::Hangs => self.0.set(Fault::Lasting(Lasting::Hang, on)),
            Fails::IsGone => self.0.set(Fault::Lasting(Lasting::Unplug, on)),
        }
    }
}

impl Simulated {
    fn new() -> Self {
        let (streams, reach) = (Streams::new(1), Reach::default());
        let hsm = Yubihsm::new(&Hsm::named("hsm"), true, &key(), streams.of("device"), reach.clone());
        let hsm = hsm.expect("set up");
        let disk = HostDisk::new("signer", SpanRange::millis(0, 0), streams.of("disk"), reach.clone());
        let oracle = Oracle::new("simulated-1".parse().expect("a chain"), Clones::Never, reach.clone());
        let oracle = Rc::new(RefCell::new(oracle));
        let record = PathBuf::from("/record");
        let eye = Eye { host: "signer".into(), disk, record, oracle, reach, last: Rc::default() };
        let turns = Rc::downgrade(&hsm);
        spawn_local(async move {
            let start = Instant::now();
            while let Some(hsm) = turns.upgrade() {
                hsm.advance(start.elapsed());
                drop(hsm);
                sleep(Duration::from_millis(1)).await;
            }
        });
        Self { hsm, eye, streams }
    }
}

impl Form for Simulated {
    fn executor(&self, password: &str) -> Rc<dyn Executor> {
        let entropy = self.streams.of("host");
        Rc::new(Asked::new(Rc::clone(&self.hsm), self.eye.clone(), settings(Adapter::Usb, password), entropy))
    }

    fn fails(&self, how: Fails, on: bool) {
        let fault = match how {
            Fails::Answer => DeviceFault::AnswerLost,
            Fails::Hangs => DeviceFault::Hang,
            Fails::IsGone => DeviceFault::Absent,
        };
        self.hsm.set_fault(on.then_some(fault));
    }
}

/// Tries a part of the contract on each form.
fn on_each(part: impl AsyncFn(&dyn Form)) {
    crate::deadline::for_this_test();
    println!("production");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, part(&Production::new()));
    println!("simulated");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    LocalSet::new().block_on(&runtime.expect("a runtime"), async { part(&Simulated::new()).await });
}

fn sign(message: &[u8]) -> Request {
    Request::Sign { key: KEY, message: message.to_vec() }
}

async fn must_sign(executor: &dyn Executor, message: &[u8]) {
    let signed = executor.execute(sign(message)).await;
    let Ok(Reply::Signature(signature)) = signed else { panic!("{signed:?} to {}", message.len()) };
    let public_key: VerifyingKey = key().verifying_key();
    let right = public_key.verify_strict(message, &Signature::from_bytes(&signature));
    assert!(right.is_ok(), "the answer to another request");
}

async fn must_show_the_key(executor: &dyn Executor) {
    let expected = monosign::pubkey::PublicKey::from_bytes(key().verifying_key().to_bytes());
    assert_eq!(executor.execute(Request::PublicKey(KEY)).await, Ok(Reply::PublicKey(expected)));
}

async fn log(executor: &dyn Executor) -> AuditLog {
    match executor.execute(Request::Log).await {
        Ok(Reply::Log(log)) => log,
        other => panic!("{other:?} in the place of a log"),
    }
}

/// How many messages of this length were signed, as the log has it. No two messages of a test are alike in it.
async fn signed(executor: &dyn Executor, message: &[u8]) -> usize {
    let log = log(executor).await;
    log.entries
        .iter()
        .filter(|entry| entry.command() == command::SIGN_EDDSA && entry.target() == KEY)
        .filter(|entry| entry.bytes[3..5] == (message.len() as u16 + 2).to_be_bytes())
        .count()
}

async fn must_be_lost(executor: &dyn Executor, request: Request) {
    // A lost exchange is known as lost before the owner gives up; and some room for a busy machine.
    let limit = settings(Adapter::Usb, "").limits().deadline * 4;
    let lost = timeout(limit, executor.execute(request)).await.expect("it gives up by itself");
    assert!(matches!(lost, Err(DeviceError::Lost { .. })), "{lost:?}");
}

#[test]
fn each_request_has_its_own_answer() {
    on_each(async |form| {
        let executor = &*form.executor(PASSWORD);
        for _ in 0..3 {
            must_show_the_key(executor).await;
            must_sign(executor, b"one").await;
            must_sign(executor, &[b'x'; 1000]).await;
            assert_eq!(executor.execute(Request::LogHasRoom).await, Ok(Reply::LogHasRoom(true)));
            let missing = executor.execute(Request::PublicKey(0x99)).await;
            assert!(matches!(missing, Err(DeviceError::NoKey { key: 0x99, .. })), "{missing:?}");
            let refused = executor.execute(Request::Sign { key: 0x99, message: vec![1] }).await;
            assert!(refused.is_err_and(|error| error.is_clean()), "it was not signed, for certain");
        }
        assert_eq!(signed(executor, b"one").await, 3);
        let full = log(executor).await;
        let newest: Vec<u16> = full.entries.iter().rev().take(2).map(LogEntry::item).collect();
        assert_eq!(executor.execute(Request::MarkRead(newest[1])).await, Ok(Reply::Done));
        let left: Vec<u16> = log(executor).await.entries.iter().map(LogEntry::item).collect();
        assert_eq!(left, newest[..1]);
    });
}

#[test]
fn the_log_is_one_chain_that_tells_of_each_signature() {
    on_each(async |form| {
        let executor = &*form.executor(PASSWORD);
        let mut cursor = log(executor).await.newest().expect("it was set up");
        for message in [&b"one"[..], b"another"] {
            must_sign(executor, message).await;
            let asked =
                monosign::backend::yubihsm::witness::Asked { key: KEY, length: message.len() as u16 + 2 };
            let watched = Watched { auth_key: AUTH_KEY, keys: [KEY].into() };
            let mut asked = VecDeque::from([asked]);
            cursor.follow(&log(executor).await, &watched, &mut asked).expect("no alarm");
            assert!(asked.is_empty(), "it is not in the log");
        }
    });
}

#[test]
fn what_was_never_waited_for_is_not_asked() {
    on_each(async |form| {
        let executor = &*form.executor(PASSWORD);
        must_show_the_key(executor).await;
        drop(executor.execute(sign(b"nobody waits")));
        must_sign(executor, b"somebody does").await;
        assert_eq!(signed(executor, b"nobody waits").await, 0);
    });
}

#[test]
fn an_abandoned_request_is_done_once_at_the_most_and_answers_no_other() {
    on_each(async |form| {
        for has_session in [false, true] {
            let executor = &*form.executor(PASSWORD);
            if has_session {
                must_show_the_key(executor).await;
            }
            let abandoned = vec![b'a'; 100 + usize::from(has_session)];
            let mut asked = executor.execute(sign(&abandoned));
            // It is asked, and then nobody waits.
            let polled = poll_fn(|cx| Poll::Ready(asked.as_mut().poll(cx))).await;
            assert!(polled.is_pending());
            drop(asked);
            must_show_the_key(executor).await;
            let mine = vec![b'b'; 200 + usize::from(has_session)];
            must_sign(executor, &mine).await;
            assert!(signed(executor, &abandoned).await <= 1);
            assert_eq!(signed(executor, &mine).await, 1);
        }
    });
}

#[test]
fn a_device_that_hangs_is_given_up_in_time_and_found_again() {
    on_each(async |form| {
        let executor = &*form.executor(PASSWORD);
        must_sign(executor, b"before").await;
        form.fails(Fails::Hangs, true);
        must_be_lost(executor, sign(b"meanwhile")).await;
        must_be_lost(executor, Request::PublicKey(KEY)).await;
        form.fails(Fails::Hangs, false);
        must_sign(executor, b"afterwards").await;
        assert!(signed(executor, b"meanwhile").await <= 1);
        assert_eq!((signed(executor, b"before").await, signed(executor, b"afterwards").await), (1, 1));
    });
}

#[test]
fn a_lost_answer_is_no_refusal_and_what_was_asked_is_not_asked_again() {
    on_each(async |form| {
        let executor = &*form.executor(PASSWORD);
        must_show_the_key(executor).await;
        form.fails(Fails::Answer, true);
        must_be_lost(executor, sign(b"its answer is lost")).await;
        form.fails(Fails::Answer, false);
        assert_eq!(signed(executor, b"its answer is lost").await, 1);
        must_sign(executor, b"and another").await;
    });
}

#[test]
fn a_device_that_is_gone_is_lost_until_it_is_back() {
    on_each(async |form| {
        let executor = &*form.executor(PASSWORD);
        must_sign(executor, b"one").await;
        form.fails(Fails::IsGone, true);
        must_be_lost(executor, sign(b"the second")).await;
        must_be_lost(executor, Request::Log).await;
        form.fails(Fails::IsGone, false);
        // It has lost its power, and with it all sessions.
        must_sign(executor, b"and the third").await;
        assert_eq!(signed(executor, b"the second").await, 0);
    });
}

#[test]
fn a_wrong_password_is_told_as_such_and_lets_nobody_in() {
    on_each(async |form| {
        let executor = &*form.executor("another");
        for request in [Request::PublicKey(KEY), sign(b"no")] {
            assert_eq!(executor.execute(request).await, Err(DeviceError::WrongPassword));
        }
        assert_eq!(signed(&*form.executor(PASSWORD), b"no").await, 0);
    });
}

#[test]
fn two_processes_have_a_session_each() {
    on_each(async |form| {
        let (one, other) = (&*form.executor(PASSWORD), &*form.executor(PASSWORD));
        let both = async {
            tokio::join!(must_sign(one, b"one"), must_sign(other, b"the other"));
            // One is gone in the middle of a request, and the other goes on.
            let mut asked = one.execute(sign(b"this one is abandoned"));
            let _ = poll_fn(|cx| Poll::Ready(asked.as_mut().poll(cx))).await;
        };
        both.await;
        must_sign(other, b"still there").await;
        for message in [&b"one"[..], b"the other", b"still there"] {
            assert_eq!(signed(other, message).await, 1);
        }
    });
}
