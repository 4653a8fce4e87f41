//! A PKCS#11 token behind a worker, and the production client of the worker, owner and failover above it.
//!
//! What is not run is the library and the process: the worker is a task that serves the other end of the pipes as the process does, and
//! is killed with the handle of the process.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use ed25519_dalek::{Signer as _, SigningKey};
use monosign::backend::device::{DeviceError, Driver, Reply, Request};
use monosign::backend::pkcs11::worker::{Service, body_len};
use monosign::backend::pkcs11::{Settings, Worker, Workers};
use monosign::pubkey::PublicKey;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::sleep;

use super::Eye;
use crate::reach::Reach;
use crate::scenario::{DeviceFault, Hsm, SpanRange};
use crate::streams::Stream;

/// A token.
pub(in crate::world) struct Token {
    name: String,
    key: Option<SigningKey>,
    fault: Cell<Option<DeviceFault>>,
    /// Wakes what hangs.
    changed: Notify,
    /// How often it has lost its power: sessions and handles of before are void.
    powered: Cell<u64>,
    trips: Cell<bool>,
    stream: RefCell<Stream>,
    reach: Reach,
}

/// A module in the network, which is what needs the deadlines most.
const LATENCY: (u64, u64) = (2, 30);
const SLOW: Duration = Duration::from_millis(1500);
/// What a pipe holds.
const PIPE: usize = 64 * 1024;

impl Token {
    pub(super) fn new(settings: &Hsm, key: &SigningKey, stream: Stream, reach: Reach) -> Rc<Self> {
        Rc::new(Self {
            name: settings.name.clone(),
            key: (!settings.without_key).then(|| key.clone()),
            fault: Cell::new(None),
            changed: Notify::new(),
            powered: Cell::new(0),
            trips: Cell::new(false),
            stream: RefCell::new(stream),
            reach,
        })
    }

    /// The token or its library fails in this way from now on, or no more.
    pub(super) fn set_fault(&self, fault: Option<DeviceFault>) {
        let ended = self.fault.replace(fault);
        self.trips.set(fault == Some(DeviceFault::PowerCycle));
        if ended == Some(DeviceFault::Absent) && fault != ended {
            self.lose_power();
        }
        self.changed.notify_waiters();
    }

    fn lose_power(&self) {
        self.powered.set(self.powered.get() + 1);
    }

    fn is(&self, fault: DeviceFault) -> bool {
        self.fault.get() == Some(fault)
    }

    /// Whatever library there is says it in this way.
    fn fails(&self) -> Result<(), DeviceError> {
        match self.fault.get() {
            Some(DeviceFault::Absent) => {
                self.reach.hit("key device absent");
                Err(lost("no slot has the token"))
            }
            Some(DeviceFault::Error | DeviceFault::Truncated | DeviceFault::LogFull) => {
                Err(lost("CKR_DEVICE_ERROR"))
            }
            _ => Ok(()),
        }
    }
}

/// A session that is logged in.
struct LoggedIn {
    token: Rc<Token>,
    eye: Eye,
    powered: u64,
}

impl LoggedIn {
    fn open(token: &Rc<Token>, eye: &Eye) -> Result<Self, DeviceError> {
        token.fails()?;
        Ok(Self { token: Rc::clone(token), eye: eye.clone(), powered: token.powered.get() })
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], DeviceError> {
        let token = &self.token;
        let trips = token.trips.take().then(|| token.stream.borrow_mut().below(2));
        if trips.is_some() {
            token.reach.hit("key device lost power while signing");
            token.lose_power();
        }
        if trips == Some(0) {
            return Err(lost("CKR_DEVICE_REMOVED"));
        }
        let mut signature = self.key()?.sign(message).to_bytes();
        self.eye.saw_on(&token.name, message, signature);
        if trips.is_some() {
            return Err(lost("CKR_DEVICE_REMOVED"));
        }
        if token.is(DeviceFault::WrongSignature) {
            token.reach.hit("key device gave a wrong signature");
            signature[7] ^= 1;
        }
        Ok(signature)
    }

    fn key(&self) -> Result<&SigningKey, DeviceError> {
        let none = || DeviceError::Refused("it has no key with label `consensus`".into());
        self.token.key.as_ref().ok_or_else(none)
    }
}

impl Driver for LoggedIn {
    fn perform(&mut self, request: &Request) -> Result<Reply, DeviceError> {
        self.token.fails()?;
        if self.powered != self.token.powered.get() {
            return Err(lost("CKR_OBJECT_HANDLE_INVALID"));
        }
        match request {
            Request::PublicKey(_) => {
                let point = self.key()?.verifying_key().to_bytes();
                Ok(Reply::PublicKey(PublicKey::from_bytes(point)))
            }
            Request::Sign { message, .. } => {
                self.sign(message).map(|signature| Reply::Signature(Box::new(signature)))
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

impl Workers for SimWorkers {
    fn start(&self) -> io::Result<Worker> {
        let (input, stdin) = tokio::io::duplex(PIPE);
        let (stdout, output) = tokio::io::duplex(PIPE);
        let (token, eye) = (Rc::clone(&self.token), self.eye.clone());
        token.reach.hit("worker started");
        let serving = spawn_local(async move {
            let _ = serve(&token, &eye, stdin, stdout).await;
        });
        let process = Box::new(Killed(serving.abort_handle()));
        Ok(Worker { input: Box::new(input), output: Box::new(output), process })
    }
}

/// As [`monosign::backend::pkcs11::worker::run`] does, and it takes its time.
async fn serve(
    token: &Rc<Token>,
    eye: &Eye,
    mut stdin: DuplexStream,
    mut stdout: DuplexStream,
) -> io::Result<()> {
    let mut service = Service::new(|_: &Settings| LoggedIn::open(token, eye));
    loop {
        let mut head = [0; 4];
        stdin.read_exact(&mut head).await?;
        let mut body = vec![0; body_len(head).ok_or(io::ErrorKind::InvalidData)?];
        stdin.read_exact(&mut body).await?;
        let latency = SpanRange::millis(LATENCY.0, LATENCY.1).draw(&mut token.stream.borrow_mut());
        sleep(latency / 2).await;
        while token.is(DeviceFault::Hang) {
            token.reach.hit("key device gave no answer");
            token.changed.notified().await;
        }
        if token.is(DeviceFault::Slow) {
            token.reach.hit("key device slow");
            sleep(SLOW).await;
        }
        let answer = service.handle(&body)?;
        sleep(latency - latency / 2).await;
        // Of signatures alone, which are the longest: the process dies before it has written one.
        if token.is(DeviceFault::AnswerLost) && answer.frame.len() == SIGNATURE_FRAME {
            token.reach.hit("key device lost its answer");
            return Ok(());
        }
        stdout.write_all(&answer.frame).await?;
        if answer.ends {
            return Ok(());
        }
    }
}

/// The head, the kind and the signature.
const SIGNATURE_FRAME: usize = 4 + 1 + 64;

fn lost(reason: &str) -> DeviceError {
    DeviceError::Lost { reason: reason.into(), session_spent: false }
}
