//! A PKCS#11 token behind a worker, and the production client of the worker, owner and failover above it.
//!
//! What is not run is the library and the process: the worker is a task that serves the other end of the pipes as the process does, and
//! is killed with the handle of the process. What the library has passed on by then may be done all the same, as on a module in the network.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::io;
use std::rc::{Rc, Weak};
use std::time::Duration;

use ed25519_dalek::{Signer as _, SigningKey};
use monosign::backend::device::{DeviceError, Driver, Reply, Request};
use monosign::backend::pkcs11::worker::{Answer, Service, body_len};
use monosign::backend::pkcs11::{Settings, Worker, WorkerProcess, Workers};
use monosign::pubkey::PublicKey;
use monosign::seams::Local;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::sleep;

use super::Eye;
use super::turns::{Takes, Turns};
use crate::reach::Reach;
use crate::scenario::{DeviceFault, Hsm, SpanRange};
use crate::streams::Stream;

/// A token.
pub(in crate::world) struct Token {
    name: String,
    key: SigningKey,
    has_key: Cell<bool>,
    fault: Cell<Option<DeviceFault>>,
    turns: Turns,
    /// How often sessions and handles have become void: with the power, or with the key.
    voided: Cell<u64>,
    trips: Cell<bool>,
    signatures: Cell<u64>,
    stream: RefCell<Stream>,
    slow_by: Duration,
    reach: Reach,
}

/// A module in the network, which is what needs the deadlines most.
const LATENCY: (u64, u64) = (2, 30);
/// What a pipe holds.
const PIPE: usize = 64 * 1024;

impl Token {
    pub(super) fn new(settings: &Hsm, key: &SigningKey, stream: Stream, reach: Reach) -> Rc<Self> {
        Rc::new(Self {
            name: settings.name.clone(),
            key: key.clone(),
            has_key: Cell::new(!settings.without_key),
            fault: Cell::default(),
            turns: Turns::default(),
            voided: Cell::default(),
            trips: Cell::default(),
            signatures: Cell::default(),
            stream: RefCell::new(stream),
            slow_by: settings.slow_by.0,
            reach,
        })
    }

    /// The token or its library fails in this way from now on, or no more.
    pub(super) fn set_fault(&self, fault: Option<DeviceFault>) {
        let ended = self.fault.replace(fault).filter(|ended| Some(*ended) != fault);
        self.trips.set(fault == Some(DeviceFault::PowerCycle));
        if ended == Some(DeviceFault::KeyDeleted) {
            self.has_key.set(true);
        }
        if fault == Some(DeviceFault::KeyDeleted) {
            self.has_key.set(false);
            self.void();
        }
        if ended == Some(DeviceFault::Absent) {
            self.void();
        }
    }

    /// The time has come to `now`.
    pub(super) fn advance(&self, now: Duration) {
        self.turns.advance(now, self.has(DeviceFault::Hang));
        if self.has(DeviceFault::Busy) {
            self.turns.keep_busy(self.slow_by);
        }
    }

    fn void(&self) {
        self.voided.set(self.voided.get() + 1);
    }

    pub(super) fn has(&self, fault: DeviceFault) -> bool {
        self.fault.get() == Some(fault)
    }

    /// Whatever library there is says it in this way.
    fn fails(&self) -> Result<(), DeviceError> {
        match self.fault.get() {
            Some(DeviceFault::Absent) => {
                self.reach.hit("key device absent");
                Err(lost("no slot has the token"))
            }
            Some(
                DeviceFault::Error
                | DeviceFault::Truncated
                | DeviceFault::LogFull
                | DeviceFault::SessionsTaken
                | DeviceFault::ForeignSignature
                | DeviceFault::CopySigns
                | DeviceFault::CopiedKeySigns
                | DeviceFault::SignaturesNotLogged,
            ) => Err(lost("CKR_DEVICE_ERROR")),
            _ => Ok(()),
        }
    }

    fn takes(&self) -> Takes {
        let usual = SpanRange::millis(LATENCY.0, LATENCY.1).draw(&mut self.stream.borrow_mut());
        match self.has(DeviceFault::Slow) {
            true => {
                self.reach.hit("key device slow");
                Takes::new(usual, self.slow_by)
            }
            false => Takes::new(usual, Duration::ZERO),
        }
    }
}

/// A session that is logged in.
struct LoggedIn {
    token: Weak<Token>,
    eye: Eye,
    voided: u64,
}

impl LoggedIn {
    fn open(token: &Weak<Token>, eye: &Eye, is_killed: bool) -> Result<Self, DeviceError> {
        let there = token.upgrade().filter(|_| !is_killed).ok_or_else(|| lost("the process is dead"))?;
        there.fails()?;
        Ok(Self { token: Weak::clone(token), eye: eye.clone(), voided: there.voided.get() })
    }

    fn sign(&self, token: &Token, message: &[u8]) -> Result<[u8; 64], DeviceError> {
        let trips = token.trips.take().then(|| token.stream.borrow_mut().below(2));
        if trips.is_some() {
            token.reach.hit("key device lost power while signing");
            token.void();
        }
        if trips == Some(0) {
            return Err(lost("CKR_DEVICE_REMOVED"));
        }
        let mut signature = key(token)?.sign(message).to_bytes();
        token.signatures.set(token.signatures.get() + 1);
        self.eye.saw_on(&token.name, message, signature);
        if trips.is_some() {
            return Err(lost("CKR_DEVICE_REMOVED"));
        }
        if token.has(DeviceFault::WrongSignature) {
            token.reach.hit("key device gave a wrong signature");
            signature[7] ^= 1;
        }
        Ok(signature)
    }
}

fn key(token: &Token) -> Result<&SigningKey, DeviceError> {
    let none =
        || DeviceError::NoKey { key: 0, reason: "there is no Ed25519 key with label `consensus`".into() };
    token.has_key.get().then_some(&token.key).ok_or_else(none)
}

impl Driver for LoggedIn {
    fn perform(&mut self, request: &Request) -> Result<Reply, DeviceError> {
        let token = self.token.upgrade().ok_or_else(|| lost("there is no token"))?;
        token.fails()?;
        if self.voided != token.voided.get() {
            return Err(lost("CKR_OBJECT_HANDLE_INVALID"));
        }
        match request {
            Request::PublicKey(_) => {
                let point = key(&token)?.verifying_key().to_bytes();
                Ok(Reply::PublicKey(PublicKey::from_bytes(point)))
            }
            Request::Sign { message, .. } => {
                self.sign(&token, message).map(|signature| Reply::Signature(Box::new(signature)))
            }
            Request::LogHasRoom => Ok(Reply::LogHasRoom(true)),
            Request::Log | Request::MarkRead(_) => Err(DeviceError::Refused("it has no log".into())),
        }
    }
}

/// Starts workers of a token, for one process.
pub(super) struct SimWorkers {
    pub(super) token: Rc<Token>,
    pub(super) eye: Eye,
}

/// Kills a worker when it is dropped.
struct Killed(AbortHandle);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl WorkerProcess for Killed {
    fn ended(&mut self) -> Local<'_, String> {
        Box::pin(std::future::ready("its worker process has ended".into()))
    }
}

impl Workers for SimWorkers {
    fn start(&self) -> io::Result<Worker> {
        let (input, stdin) = tokio::io::duplex(PIPE);
        let (stdout, output) = tokio::io::duplex(PIPE);
        let process = Process::new(&self.token, &self.eye);
        self.token.reach.hit("worker started");
        let serving = spawn_local(async move {
            let _ = process.serve(stdin, stdout).await;
        });
        let process = Box::new(Killed(serving.abort_handle()));
        Ok(Worker { input: Box::new(input), output: Box::new(output), process })
    }
}

/// What a worker runs.
struct Process {
    token: Rc<Token>,
    service: Rc<RefCell<Service<LoggedIn, Open>>>,
    /// Whether a session is still opened.
    is_killed: Rc<Cell<bool>>,
}

type Open = Box<dyn FnMut(&Settings) -> Result<LoggedIn, DeviceError>>;

impl Process {
    fn new(token: &Rc<Token>, eye: &Eye) -> Self {
        let is_killed = Rc::new(Cell::new(false));
        let (weak, eye, killed) = (Rc::downgrade(token), eye.clone(), Rc::clone(&is_killed));
        let open: Open = Box::new(move |_| LoggedIn::open(&weak, &eye, killed.get()));
        Self { token: Rc::clone(token), service: Rc::new(RefCell::new(Service::new(open))), is_killed }
    }

    /// As [`monosign::backend::pkcs11::worker::run`] does, and it takes its time.
    async fn serve(self, mut stdin: DuplexStream, mut stdout: DuplexStream) -> io::Result<()> {
        loop {
            let mut head = [0; 4];
            stdin.read_exact(&mut head).await?;
            let mut body = vec![0; body_len(head).ok_or(io::ErrorKind::InvalidData)?];
            stdin.read_exact(&mut body).await?;
            let answer = self.answer(body).await?;
            // Of signatures alone, which are the longest: the process dies before it has written one.
            if self.token.has(DeviceFault::AnswerLost) && answer.frame.len() == SIGNATURE_FRAME {
                self.token.reach.hit("key device lost its answer");
                return Ok(());
            }
            stdout.write_all(&answer.frame).await?;
            if answer.ends {
                return Ok(());
            }
        }
    }

    async fn answer(&self, body: Vec<u8>) -> io::Result<Answer> {
        let (answer, answered) = oneshot::channel();
        let (service, is_killed) = (Rc::clone(&self.service), Rc::clone(&self.is_killed));
        let token = Rc::downgrade(&self.token);
        let takes = self.token.takes();
        self.token.turns.take(takes, move || {
            let Some(token) = token.upgrade() else { return };
            if !answer.is_closed() {
                let _ = answer.send(service.borrow_mut().handle(&body));
                return;
            }
            // It was killed. What it had passed on to its token is done, what was still in its library is not.
            is_killed.set(true);
            let before = token.signatures.get();
            let was_passed_on = token.stream.borrow_mut().percent(50);
            if was_passed_on && service.borrow_mut().handle(&body).is_ok() && token.signatures.get() > before
            {
                token.reach.hit("key device signed what nobody waited for");
            }
        });
        match answered.await {
            Ok(answer) => {
                sleep(takes.after).await;
                answer
            }
            Err(_) => pending().await,
        }
    }
}

/// The head, the kind and the signature.
const SIGNATURE_FRAME: usize = 4 + 1 + 64;

fn lost(reason: &str) -> DeviceError {
    DeviceError::Lost { reason: reason.into(), session_spent: false }
}
