//! How one process asks a device: the production driver, over sessions in the place of the `yubihsm` crate's.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use mock_yubihsm::Host;
use mock_yubihsm::device::codes::{DeviceError as Code, command};
use mock_yubihsm::host::{HostError, Line};
use monosign::backend::device::{DeviceError, Driver as _, Executor, Reply, Request};
use monosign::backend::yubihsm::host::{self, Info, Session, device_said};
use monosign::backend::yubihsm::witness::{Alarm, AuditLog};
use monosign::backend::yubihsm::{Settings, YubihsmDriver};
use monosign::pubkey::PublicKey;
use monosign::seams::Local;
use secrecy::ExposeSecret as _;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::operator::read_log;
use super::{Yubihsm, secret_of};
use crate::streams::Stream;
use crate::world::device::Eye;

/// What one process asks a device by.
pub(in crate::world::device) struct Asked {
    hsm: Rc<Yubihsm>,
    eye: Eye,
    settings: Arc<Settings>,
    entropy: RefCell<Stream>,
    driver: RefCell<Option<SimDriver>>,
}

/// A driver, and what its line lets pass.
struct SimDriver {
    driver: YubihsmDriver<SimHost>,
    frames: Rc<Cell<Frames>>,
}

/// How much still goes to the device.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Frames {
    All,
    /// Nobody waits any more: what was on its way when they gave up, and nothing after it.
    One,
    None,
}

/// A request that was carried out.
struct Done {
    driver: SimDriver,
    result: Result<Reply, DeviceError>,
    /// How long the answer is on its way.
    answered_in: Duration,
}

impl Asked {
    pub(in crate::world::device) fn new(
        hsm: Rc<Yubihsm>,
        eye: Eye,
        settings: Settings,
        entropy: Stream,
    ) -> Self {
        let entropy = RefCell::new(entropy);
        Self { hsm, eye, settings: Arc::new(settings), entropy, driver: RefCell::new(None) }
    }

    fn begin(&self) -> SimDriver {
        let frames = Rc::new(Cell::new(Frames::All));
        let line = SimLine {
            hsm: Rc::downgrade(&self.hsm),
            eye: self.eye.clone(),
            entropy: self.entropy.borrow_mut().fork(),
            frames: Rc::clone(&frames),
            is_signature: false,
        };
        SimDriver { driver: YubihsmDriver::over(SimHost { line }, Arc::clone(&self.settings)), frames }
    }

    async fn perform(&self, request: Request) -> Result<Reply, DeviceError> {
        // Taken out while it works: what is abandoned takes its driver along, as a thread does that is left behind.
        let taken = self.driver.borrow_mut().take();
        let answer = self.post(taken.unwrap_or_else(|| self.begin()), request);
        let answered = async {
            let Ok(done) = answer.await else { pending().await };
            sleep(done.answered_in).await;
            done
        };
        // The proxy gives up after the timeout; what it has passed on is done all the same.
        let Ok(done) = timeout(self.settings.timeout, answered).await else {
            self.hsm.reach.hit("key device gave no answer");
            return Err(DeviceError::Lost { reason: HostError::NoAnswer.to_string(), session_spent: true });
        };
        *self.driver.borrow_mut() = Some(done.driver);
        done.result
    }

    fn post(&self, mut driver: SimDriver, request: Request) -> oneshot::Receiver<Done> {
        let (answer, answered) = oneshot::channel();
        let takes = self.hsm.takes(&request);
        let hsm = Rc::downgrade(&self.hsm);
        self.hsm.turns.take(takes, move || {
            let Some(hsm) = hsm.upgrade() else { return };
            let is_abandoned = answer.is_closed();
            driver.frames.set(if is_abandoned { Frames::One } else { Frames::All });
            let before = hsm.signatures();
            let result = driver.driver.perform(&request);
            if is_abandoned && hsm.signatures() > before {
                hsm.reach.hit("key device signed what nobody waited for");
            }
            let _ = answer.send(Done { driver, result, answered_in: takes.after });
        });
        answered
    }
}

impl Executor for Asked {
    fn execute(&self, request: Request) -> Local<'_, Result<Reply, DeviceError>> {
        Box::pin(self.perform(request))
    }
}

/// A process's way to a device.
#[derive(Clone)]
struct SimLine {
    hsm: Weak<Yubihsm>,
    eye: Eye,
    entropy: Stream,
    frames: Rc<Cell<Frames>>,
    /// Whether the next session message asks for a signature: what goes by is encrypted.
    is_signature: bool,
}

impl SimLine {
    fn saw(&self, error: HostError) {
        let Some(hsm) = self.hsm.upgrade() else { return };
        match error {
            HostError::Device(Code::SessionsFull) => {
                hsm.reach.hit("key device's sessions all in use");
                hsm.lacks_sessions.set(true);
            }
            HostError::Device(Code::LogFull) => hsm.reach.hit("key device's log full"),
            HostError::Device(Code::ObjectNotFound) => hsm.reach.hit("key not on the device"),
            _ => {}
        }
    }
}

impl Line for SimLine {
    fn exchange(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        match self.frames.get() {
            Frames::All => {}
            Frames::One => self.frames.set(Frames::None),
            Frames::None => return None,
        }
        let is_signature = self.is_signature && frame.first() == Some(&command::SESSION_MESSAGE);
        self.hsm.upgrade()?.exchange(&self.eye, frame, is_signature)
    }

    fn now(&self) -> Duration {
        self.hsm.upgrade().map(|hsm| hsm.turns.now()).unwrap_or_default()
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        self.entropy.fill(bytes);
    }
}

/// Opens sessions in the place of the `yubihsm` crate.
struct SimHost {
    line: SimLine,
}

/// A session in the place of the crate's client.
struct SimSession {
    host: Host,
    line: SimLine,
}

impl host::Host for SimHost {
    type Session = SimSession;

    fn open(&mut self, settings: &Settings) -> Result<SimSession, DeviceError> {
        let mut host = Host::new(settings.auth_key, secret_of(settings.password.expose_secret()));
        match host.connect(&mut self.line) {
            Ok(()) => Ok(SimSession { host, line: self.line.clone() }),
            Err(HostError::WrongKey) => Err(DeviceError::WrongPassword),
            Err(error @ HostError::Device(Code::SessionsFull)) => {
                self.line.saw(error);
                Err(DeviceError::SessionsFull)
            }
            Err(error) => {
                Err(DeviceError::Lost { reason: error.to_string(), session_spent: host.opened() > 0 })
            }
        }
    }
}

impl SimSession {
    fn command(&mut self, code: u8, data: &[u8], key: u16) -> Result<Vec<u8>, DeviceError> {
        self.line.is_signature = code == command::SIGN_EDDSA;
        let done = self.host.command(&mut self.line, code, data);
        self.line.is_signature = false;
        done.inspect_err(|error| self.line.saw(*error)).map_err(|error| match error {
            HostError::WrongKey => DeviceError::WrongPassword,
            HostError::Device(said) => device_said(said as u8, said, key),
            unclean => DeviceError::Lost { reason: unclean.to_string(), session_spent: true },
        })
    }
}

impl Session for SimSession {
    fn info(&mut self) -> Result<Info, DeviceError> {
        let data = self.command(command::DEVICE_INFO, &[], 0)?;
        match data.as_slice() {
            [_, _, _, a, b, c, d, capacity, used, ..] => Ok(Info {
                serial: format!("{:010}", u32::from_be_bytes([*a, *b, *c, *d])),
                log_has_room: used < capacity,
            }),
            _ => Err(short()),
        }
    }

    fn public_key(&mut self, key: u16) -> Result<PublicKey, DeviceError> {
        let data = self.command(command::GET_PUBLIC_KEY, &key.to_be_bytes(), key)?;
        let point = data.get(1..).and_then(|point| point.try_into().ok());
        point.map(PublicKey::from_bytes).ok_or_else(short)
    }

    fn sign(&mut self, key: u16, message: &[u8]) -> Result<[u8; 64], DeviceError> {
        let data = [key.to_be_bytes().as_slice(), message].concat();
        let signature = self.command(command::SIGN_EDDSA, &data, key)?;
        signature.try_into().map_err(|_| short())
    }

    fn log(&mut self) -> Result<AuditLog, DeviceError> {
        let data = self.command(command::GET_LOG_ENTRIES, &[], 0)?;
        read_log(&data).ok_or_else(|| {
            let claimed = data.get(4).copied().unwrap_or_default().into();
            let parsed = data.len().saturating_sub(5) / 32;
            DeviceError::Alarm(Alarm::Unreadable { claimed, parsed }.to_string())
        })
    }

    fn mark_read(&mut self, item: u16) -> Result<(), DeviceError> {
        self.command(command::SET_LOG_INDEX, &item.to_be_bytes(), 0).map(drop)
    }
}

/// What was asked may have been done.
fn short() -> DeviceError {
    DeviceError::Lost { reason: "its answer is too short".into(), session_spent: true }
}
