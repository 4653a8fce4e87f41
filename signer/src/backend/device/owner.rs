//! The one owner of a device: what is asked of it, in which order, and what is done when it fails.
//!
//! What always holds:
//!
//! * one thing is asked at a time, in the order of asking, and nothing that nobody waits for any more: nodes wait equally long for each
//!   answer, so that who asked first needs it first;
//! * no answer is waited for longer than the deadline;
//! * a wrong password, a wrong signature or an alarm of the witness is the end: the device is latched, and asked nothing more by this process;
//! * an alarm locks the device's keys everywhere before anybody is told of it, and durably before the answer goes out;
//! * from the start until its log was looked at, a device with a witness holds its keys everywhere, unless it cannot be reached: then it is
//!   taken for dead after [`HEARING`];
//! * a key signs only after the device has shown that it is the key it should be.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::pending;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep_until, timeout};

use super::{DeviceError, Executor, Reply, Request};
use crate::backend::BackendError;
use crate::backend::locks::{Held, KeyLocks};
use crate::ops::told::told;
use crate::pubkey::PublicKey;

/// How much a device is waited for, and what it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest that one answer may take.
    pub deadline: Duration,
    /// The longest message, in bytes.
    pub max_message: usize,
}

/// How long somebody waits for a signature: a node gives up after 5 s (CometBFT v0.38 `privval/signer_listener_endpoint.go`,
/// `defaultTimeoutReadWriteSeconds`).
const PATIENCE: Duration = Duration::from_secs(5);
/// How many requests may wait. Each chain has one at a time.
const QUEUE: usize = 256;
/// How soon a failed device is tried again, doubling up to the other.
const FIRST_PROBE: Duration = Duration::from_millis(100);
const SLOWEST_PROBE: Duration = Duration::from_secs(2);
/// How long other devices wait at a start for the log of one that cannot be reached. One that answers is waited for without end: what it
/// has to tell may be that this disk is an old one.
const HEARING: Duration = Duration::from_secs(5);
/// A session that was given up stays open on the device for this long (YubiHSM 2: 30 s), and this many of its 16 are ours to
/// waste, so that an unsteady connection cannot lock everybody out.
const SESSION_LIFE: Duration = Duration::from_secs(30);
const SPENT_SESSIONS: usize = 10;
/// How often it is told that something had to be asked for twice.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// A device, cheap to clone.
#[derive(Clone)]
pub struct Device {
    shared: Rc<Shared>,
    jobs: mpsc::Sender<Job>,
}

/// What keeps a device from signing with a key, as it is known now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lack {
    /// What it is.
    pub what: String,
    /// What it is about.
    pub kind: LackKind,
}

/// What a [`Lack`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LackKind {
    /// The password or the PIN.
    Password,
    /// The device.
    Device,
    /// The key on it.
    Key,
    /// What its log told of, for which the key is locked everywhere.
    Alarm,
}

/// One key on a device.
pub struct DeviceKey {
    device: Device,
    number: u16,
    public_key: PublicKey,
}

struct Shared {
    name: String,
    limits: Limits,
    state: RefCell<State>,
    keys: RefCell<BTreeMap<u16, Key>>,
    locks: Rc<KeyLocks>,
    /// Why it holds its keys everywhere.
    held: RefCell<Option<Held>>,
    /// What it has locked its keys for, with what can be done about it.
    alarm: RefCell<Option<String>>,
    dropped: Cell<u64>,
    changed: Notify,
}

/// What can be asked of the device now.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// All that is allowed.
    Ready,
    /// Nothing, until this is over.
    Waiting(String),
    /// Nothing, ever.
    Latched(String, LackKind),
}

struct Key {
    /// What it is called in what people read: its number, or its label.
    name: String,
    expected: PublicKey,
    /// `None` once the device has shown that it has the key.
    missing: Option<String>,
}

enum Job {
    Ask {
        request: Request,
        asked: Instant,
        answer: oneshot::Sender<Result<Reply, BackendError>>,
    },
    /// There is a new key to look for.
    Look,
}

struct Owner {
    shared: Rc<Shared>,
    executor: Rc<dyn Executor>,
    begun: Instant,
    next_probe: Instant,
    pause: Duration,
    /// When sessions were given up, the oldest first.
    spent: VecDeque<Instant>,
    /// The device has refused for want of room in its log.
    log_is_full: bool,
    /// When its log is looked at next, if that is due.
    next_look: Instant,
    /// When it is tried again to write down that its keys are locked, if that has failed.
    keep_again: Option<Instant>,
    /// When it was told last that something was asked for twice, and how often it was not told since.
    told: Option<Instant>,
    untold: u64,
}

impl Device {
    /// Takes a device over, and begins to look for it. It must live within a [`tokio::task::LocalSet`]. What it finds about its keys goes into
    /// `locks`, which all devices share that may have the same.
    pub fn new(name: &str, executor: Rc<dyn Executor>, limits: Limits, locks: Rc<KeyLocks>) -> Self {
        let held = (!executor.has_looked()).then(|| Held::Awaited("its log was not looked at yet".into()));
        let shared = Rc::new(Shared {
            name: name.to_owned(),
            limits,
            state: RefCell::new(State::Waiting("it was not reached yet".into())),
            keys: RefCell::default(),
            locks,
            held: RefCell::new(held),
            alarm: RefCell::default(),
            dropped: Cell::new(0),
            changed: Notify::new(),
        });
        let (jobs, queue) = mpsc::channel(QUEUE);
        let owner = Owner {
            shared: Rc::clone(&shared),
            executor,
            begun: Instant::now(),
            next_probe: Instant::now(),
            pause: FIRST_PROBE,
            spent: VecDeque::new(),
            log_is_full: false,
            next_look: Instant::now(),
            keep_again: None,
            told: None,
            untold: 0,
        };
        spawn_local(owner.run(queue));
        Self { shared, jobs }
    }

    /// A key on it, which must be this one.
    pub fn key(&self, number: u16, expected: PublicKey) -> DeviceKey {
        self.named_key(number, format!("{number:#06x}"), expected)
    }

    /// The same for a key that people know by another name than its number.
    pub fn named_key(&self, number: u16, name: String, expected: PublicKey) -> DeviceKey {
        let missing = Some("it was not looked for yet".into());
        self.shared.keys.borrow_mut().insert(number, Key { name, expected, missing });
        self.shared.tell_locks(expected);
        // If the queue is full, the device is at work, and looks when it is not.
        let _ = self.jobs.try_send(Job::Look);
        DeviceKey { device: self.clone(), number, public_key: expected }
    }

    /// How many requests were dropped because nobody waited for their answers any more.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.get()
    }

    async fn ask(&self, request: Request) -> Result<Reply, BackendError> {
        let (answer, answered) = oneshot::channel();
        let job = Job::Ask { request, asked: Instant::now(), answer };
        self.jobs.try_send(job).map_err(|_| self.shared.failed("too many requests wait for it"))?;
        answered.await.unwrap_or_else(|_| Err(self.shared.failed("its owner has stopped")))
    }
}

impl DeviceKey {
    /// Whether the device and the key are there.
    ///
    /// # Errors
    /// What is waited for, or why nothing will ever come.
    pub fn ready(&self) -> Result<(), BackendError> {
        let shared = &self.device.shared;
        shared.locks.check(self.public_key)?;
        shared.refusal()?;
        let keys = shared.keys.borrow();
        match keys.get(&self.number) {
            Some(Key { name, missing: Some(missing), .. }) => {
                Err(shared.failed(format_args!("key {name}: {missing}")))
            }
            _ => Ok(()),
        }
    }

    /// What is missing on this device, whatever is known of the key elsewhere.
    pub fn lack(&self) -> Option<Lack> {
        let shared = &self.device.shared;
        match &*shared.state.borrow() {
            State::Ready => {}
            State::Waiting(what) => return Some(Lack { what: alone(what), kind: LackKind::Device }),
            State::Latched(what, kind) => return Some(Lack { what: alone(what), kind: *kind }),
        }
        let keys = shared.keys.borrow();
        let missing = keys.get(&self.number).and_then(|key| key.missing.clone());
        missing.map(|what| Lack { what, kind: LackKind::Key })
    }

    /// Waits until the device and the key are there, which may be never.
    pub async fn until_ready(&self) {
        let shared = &self.device.shared;
        while self.ready().is_err() {
            tokio::select! {
                biased;
                () = shared.changed.notified() => {}
                () = shared.locks.changed() => {}
            }
        }
    }

    /// A signature that nobody has verified yet.
    ///
    /// # Errors
    /// [`BackendError`]; the outcome may be unknown.
    pub async fn sign(&self, message: &[u8]) -> Result<[u8; 64], BackendError> {
        let max = self.max_message();
        if message.len() > max {
            return Err(BackendError::TooLong { len: message.len(), max });
        }
        let locks = &self.device.shared.locks;
        locks.check(self.public_key)?;
        let request = Request::Sign { key: self.number, message: message.to_vec() };
        let reply = self.device.ask(request).await;
        // This device or another may have found meanwhile that nothing must be signed any more.
        locks.check(self.public_key)?;
        match reply? {
            Reply::Signature(signature) => Ok(*signature),
            _ => Err(self.device.shared.failed("it answered something else")),
        }
    }

    /// The longest message that the device takes, in bytes.
    pub fn max_message(&self) -> usize {
        self.device.shared.limits.max_message
    }

    /// The device gave a signature that does not verify: it is never asked again.
    pub fn distrust(&self) {
        self.device.shared.latch("it gave a signature that does not verify", LackKind::Device);
    }
}

impl Shared {
    fn failed(&self, what: impl std::fmt::Display) -> BackendError {
        BackendError::Failed(format!("device {}: {what}", self.name))
    }

    fn about_the_key(&self, what: impl std::fmt::Display) -> BackendError {
        BackendError::Locked(format!(
            "nothing is signed with the key on any device: device {}: {what}",
            self.name
        ))
    }

    fn refusal(&self) -> Result<(), BackendError> {
        match &*self.state.borrow() {
            State::Ready => Ok(()),
            State::Waiting(what) => Err(self.failed(what)),
            State::Latched(why, _) => {
                let hint = match why.contains("\nhint:") {
                    true => "",
                    false => "\nhint: find out why, then restart the signer",
                };
                Err(self.failed(format_args!("it is asked nothing more: {why}{hint}")))
            }
        }
    }

    fn latch(&self, why: &str, kind: LackKind) {
        let (alone, hint) = told(why);
        tracing::error!(device = %self.name, hint, "device {}: {alone}: it is asked nothing more until a restart", self.name);
        *self.state.borrow_mut() = State::Latched(why.to_owned(), kind);
        self.changed.notify_waiters();
    }

    /// What the device's log tells of is about its keys. Whoever calls this has the locks kept before anybody is answered.
    fn lock(&self, alarm: &str) {
        // What can be done about it comes last.
        let (alone, hint) = told(alarm);
        tracing::error!(
            device = %self.name, hint,
            "device {}: {alone}: it is asked nothing more, and its keys are locked on every device",
            self.name
        );
        *self.state.borrow_mut() = State::Latched(alarm.to_owned(), LackKind::Alarm);
        *self.alarm.borrow_mut() = Some(alarm.to_owned());
        self.tell_locks_of_all();
        self.changed.notify_waiters();
    }

    /// What is waited for is in the log already.
    fn wait_for(&self, what: &str) {
        let mut state = self.state.borrow_mut();
        if !matches!(*state, State::Latched(..)) {
            *state = State::Waiting(what.to_owned());
        }
    }

    /// Holds the device's keys on every device, and says so once.
    fn hold(&self, why: Held) {
        if self.held.borrow().as_ref() == Some(&why) {
            return;
        }
        if let Held::Unwatched(what) = &why {
            let (alone, hint) = told(what);
            tracing::error!(
                device = %self.name, hint,
                "device {}: {alone}: nothing is signed with its keys on any device",
                self.name
            );
        }
        *self.held.borrow_mut() = Some(why);
        self.tell_locks_of_all();
    }

    fn release(&self) {
        if self.held.borrow_mut().take().is_some() {
            let keys: Vec<_> = self.keys.borrow().values().map(|key| key.expected).collect();
            keys.into_iter().for_each(|key| self.locks.release(key, &self.name));
        }
    }

    fn tell_locks_of_all(&self) {
        let keys: Vec<_> = self.keys.borrow().values().map(|key| key.expected).collect();
        keys.into_iter().for_each(|key| self.tell_locks(key));
    }

    fn tell_locks(&self, key: PublicKey) {
        if let Some(why) = &*self.held.borrow() {
            self.locks.hold(key, &self.name, why.clone());
        }
        if let Some(alarm) = &*self.alarm.borrow() {
            self.locks.lock(key, &format!("device {}: {alarm}", self.name));
        }
    }

    /// Notes a state and logs it, once.
    fn set(&self, state: State) {
        let mut current = self.state.borrow_mut();
        if matches!(*current, State::Latched(..)) || *current == state {
            return;
        }
        match &state {
            State::Ready => tracing::info!(device = %self.name, "device {}: ready", self.name),
            State::Waiting(what) => {
                let (alone, hint) = told(what);
                tracing::warn!(device = %self.name, hint, "device {}: {alone}: waiting for it", self.name);
            }
            State::Latched(..) => {}
        }
        *current = state;
        self.changed.notify_waiters();
    }

    fn set_missing(&self, number: u16, missing: Option<String>) {
        let mut keys = self.keys.borrow_mut();
        let Some(key) = keys.get_mut(&number).filter(|key| key.missing != missing) else { return };
        let name = &key.name;
        match &missing {
            None => tracing::info!(device = %self.name, "device {}: key {name} is there", self.name),
            Some(what) => {
                let (alone, hint) = told(what);
                tracing::warn!(device = %self.name, hint, "device {}: key {name}: {alone}", self.name);
            }
        }
        key.missing = missing;
        self.changed.notify_waiters();
    }

    fn missing_keys(&self) -> Vec<u16> {
        let keys = self.keys.borrow();
        keys.iter().filter(|(_, key)| key.missing.is_some()).map(|(number, _)| *number).collect()
    }
}

/// Without what can be done about it.
fn alone(what: &str) -> String {
    told(what).0
}

fn wrong_password() -> String {
    "it refuses the password\nhint: give the configuration the one of this authentication key, then restart the signer".into()
}

fn wrong_pin(why: &str) -> String {
    format!(
        "{why}\nhint: correct the PIN that the configuration names, or have the token's unblocked, then restart the signer: it tries a PIN \
         once"
    )
}

impl Owner {
    async fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        loop {
            let (probe, look) = (self.wants_probe(), self.look_is_due());
            tokio::select! {
                biased;
                job = queue.recv() => match job {
                    Some(Job::Ask { request, asked, answer }) => self.serve(request, asked, answer).await,
                    Some(Job::Look) => {
                        self.keep_locks().await;
                        self.probe_soon();
                    }
                    None => return,
                },
                () = at(self.keep_again) => self.keep_locks().await,
                () = at(look) => self.look_at_log().await,
                () = sleep_until(self.next_probe), if probe => self.probe().await,
            }
        }
    }

    async fn serve(
        &mut self,
        request: Request,
        asked: Instant,
        answer: oneshot::Sender<Result<Reply, BackendError>>,
    ) {
        if answer.is_closed() || asked.elapsed() > PATIENCE {
            self.shared.dropped.set(self.shared.dropped.get() + 1);
            let _ = answer.send(Err(self.shared.failed("nobody waits for this answer any more")));
            return;
        }
        if let Err(refusal) = self.shared.refusal() {
            let _ = answer.send(Err(refusal));
            return;
        }
        let key = match &request {
            Request::Sign { key, .. } => Some(*key),
            _ => None,
        };
        let mut result = self.execute(request.clone()).await;
        if let Err(DeviceError::Lost { reason, .. }) = &result
            && self.may_open()
        {
            // As after a power cycle: the device may be well, and only our session is gone. The same bytes once more.
            let reason = reason.clone();
            result = self.execute(request).await;
            if result.is_ok() {
                self.tell_of(&reason);
            }
        }
        let result = match result {
            Ok(reply) => Ok(reply),
            Err(error) => {
                self.note(&error, key).await;
                Err(match error {
                    DeviceError::TooLong { len, max } => BackendError::TooLong { len, max },
                    // By the time that this is read, it may be over already; the next device must not be asked all the same.
                    DeviceError::Unwatched(_) | DeviceError::Alarm(_) => self.shared.about_the_key(&error),
                    _ => self.shared.failed(&error),
                })
            }
        };
        let _ = answer.send(result);
    }

    /// What went well at the second attempt is told too, and not more often than anybody reads it.
    fn tell_of(&mut self, lost: &str) {
        if self.told.is_some_and(|at| at.elapsed() < TOLD_EVERY) {
            self.untold += 1;
            return;
        }
        let name = &self.shared.name;
        let more = match std::mem::take(&mut self.untold) {
            0 => String::new(),
            untold => format!(" ({untold} times more since this was told last)"),
        };
        let (lost, _) = told(lost);
        tracing::warn!(device = %name, "device {name}: {lost}: it was asked once more, and has answered{more}");
        self.told = Some(Instant::now());
    }

    /// Asks, and keeps count of what it may cost.
    async fn execute(&mut self, request: Request) -> Result<Reply, DeviceError> {
        let result = timeout(self.shared.limits.deadline, self.executor.execute(request)).await;
        let result = result.unwrap_or(Err(DeviceError::Deadline));
        if matches!(result, Err(DeviceError::Deadline | DeviceError::Lost { session_spent: true, .. })) {
            self.spent.push_back(Instant::now());
        }
        self.hear(result.as_ref().err());
        result
    }

    /// What the witness has said by this, if there is one.
    fn hear(&self, error: Option<&DeviceError>) {
        let is_awaited = self.is_awaited();
        match error {
            Some(DeviceError::Unwatched(why)) => self.shared.hold(Held::Unwatched(why.clone())),
            Some(DeviceError::WrongPassword) if is_awaited => {
                let why = "it refuses the password, and its log cannot be looked at\nhint: give it the right one, and restart the signer";
                self.shared.hold(Held::Unwatched(why.into()));
            }
            _ if self.executor.has_looked() => self.shared.release(),
            Some(DeviceError::Lost { .. } | DeviceError::Deadline) if is_awaited => self.may_be_dead(),
            _ => {}
        }
    }

    /// Whether its log was not looked at yet, and it was not taken for dead.
    fn is_awaited(&self) -> bool {
        matches!(*self.shared.held.borrow(), Some(Held::Awaited(_)))
    }

    /// A device that cannot be reached must not keep others from signing for ever.
    fn may_be_dead(&self) {
        let name = &self.shared.name;
        if self.begun.elapsed() < HEARING {
            return;
        }
        tracing::warn!(
            device = %name,
            "device {name}: it could not be reached for {HEARING:?}: others with its keys sign without it, and what its log tells is known when it \
             is back"
        );
        self.shared.release();
    }

    /// What an error means for what comes.
    async fn note(&mut self, error: &DeviceError, key: Option<u16>) {
        match (error, key) {
            (DeviceError::WrongPassword, _) => self.shared.latch(&wrong_password(), LackKind::Password),
            (DeviceError::WrongPin(why), _) => self.shared.latch(&wrong_pin(why), LackKind::Password),
            (DeviceError::Alarm(alarm), _) => {
                self.shared.lock(alarm);
                self.keep_locks().await;
            }
            (DeviceError::Unwatched(why), _) => self.shared.wait_for(why),
            (DeviceError::NoKey { key, reason }, Some(_)) => {
                self.shared.set_missing(*key, Some(reason.clone()));
            }
            (DeviceError::TooLong { .. } | DeviceError::Refused(_), _) => {}
            _ => {
                self.log_is_full |= *error == DeviceError::LogFull;
                self.shared.set(State::Waiting(error.to_string()));
            }
        }
        self.probe_soon();
    }

    /// Has it written down which keys are locked: where the next start looks before it asks the device, and beside each record. A key
    /// that came later is locked, too. What fails is tried again.
    async fn keep_locks(&mut self) {
        let Some(alarm) = self.shared.alarm.borrow().clone() else { return };
        let is_noted = self.executor.keep_alarm(&alone(&alarm)).await.is_ok();
        let kept = self.shared.locks.keep().await;
        let name = &self.shared.name;
        match kept {
            Ok(()) if self.keep_again.take().is_some() => {
                tracing::info!(device = %name, "device {name}: that its keys are locked is written down now");
            }
            Ok(()) => {}
            Err(error) => {
                if self.keep_again.replace(Instant::now() + SLOWEST_PROBE).is_none() {
                    let until = match is_noted {
                        true => "that its keys are locked is noted beside its log's cursor alone",
                        false => "its keys are locked only until a restart",
                    };
                    tracing::error!(device = %name, "device {name}: {error}: {until}; it is tried again");
                }
            }
        }
    }

    /// When the log of a device that is there has to be looked at.
    fn look_is_due(&self) -> Option<Instant> {
        let is_ready = *self.shared.state.borrow() == State::Ready;
        self.executor.due().filter(|_| is_ready).map(|due| due.max(self.next_look))
    }

    async fn look_at_log(&mut self) {
        self.next_look = Instant::now() + SLOWEST_PROBE;
        if let Err(error) = self.execute(Request::LogHasRoom).await {
            self.note(&error, None).await;
        }
    }

    fn probe_soon(&mut self) {
        self.pause = FIRST_PROBE;
        self.next_probe = Instant::now();
    }

    /// Whether the device or a key of it is waited for.
    fn wants_probe(&self) -> bool {
        match *self.shared.state.borrow() {
            State::Latched(..) => false,
            State::Waiting(_) => true,
            State::Ready => !self.shared.missing_keys().is_empty(),
        }
    }

    /// Looks whether the device is there, and its keys.
    async fn probe(&mut self) {
        if !self.may_open() {
            if self.is_awaited() {
                self.may_be_dead();
            }
            let what = "many sessions were given up, and it frees them after 30 s";
            self.shared.set(State::Waiting(what.into()));
            self.next_probe = self.spent.front().map_or_else(Instant::now, |oldest| *oldest + SESSION_LIFE);
            return;
        }
        match self.look().await {
            Ok(()) => self.shared.set(State::Ready),
            Err(DeviceError::WrongPassword) => self.shared.latch(&wrong_password(), LackKind::Password),
            Err(DeviceError::WrongPin(why)) => self.shared.latch(&wrong_pin(&why), LackKind::Password),
            Err(DeviceError::Alarm(alarm)) => {
                self.shared.lock(&alarm);
                self.keep_locks().await;
            }
            Err(DeviceError::Unwatched(why)) => self.shared.wait_for(&why),
            Err(error) => self.shared.set(State::Waiting(error.to_string())),
        }
        self.next_probe = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(SLOWEST_PROBE);
    }

    async fn look(&mut self) -> Result<(), DeviceError> {
        let keys: Vec<_> = self.shared.keys.borrow().keys().copied().collect();
        for number in keys {
            let missing = match self.execute(Request::PublicKey(number)).await {
                Ok(Reply::PublicKey(found)) => self.unlike(number, found),
                Ok(_) => Some("it answered something else".into()),
                Err(error @ (DeviceError::NoKey { .. } | DeviceError::Refused(_))) => Some(error.to_string()),
                Err(error) => return Err(error),
            };
            self.shared.set_missing(number, missing);
        }
        // Only then: without force audit the log is a ring, which is always full and stops nothing.
        if self.log_is_full && self.execute(Request::LogHasRoom).await? == Reply::LogHasRoom(false) {
            return Err(DeviceError::LogFull);
        }
        self.log_is_full = false;
        Ok(())
    }

    fn unlike(&self, number: u16, found: PublicKey) -> Option<String> {
        let expected = self.shared.keys.borrow().get(&number)?.expected;
        (found != expected).then(|| format!("it is `{found}`, and the record is that of `{expected}`"))
    }

    /// Whether there are sessions left to spend.
    fn may_open(&mut self) -> bool {
        while self.spent.front().is_some_and(|at| at.elapsed() >= SESSION_LIFE) {
            self.spent.pop_front();
        }
        self.spent.len() < SPENT_SESSIONS
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}
