//! A YubiHSM at the wire level, and the production driver, witness, owner and failover above it.
//!
//! What is not run is the `yubihsm` crate, whose connectors are sockets and USB and no others: its place is taken by
//! [`mock_yubihsm::Host`], which keeps sessions as the crate does, with the crate's defects; and the threads, since a call inline takes
//! no time here, and the time that it would take is waited for around it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use ed25519_dalek::SigningKey;
use mock_yubihsm::device::authentication_key;
use mock_yubihsm::device::codes::{DeviceError as Code, capability, command};
use mock_yubihsm::host::{HostError, Line};
use mock_yubihsm::latency::Latency;
use mock_yubihsm::{Device, Host};
use monosign::backend::device::{DeviceError, Driver as _, Executor, Reply, Request};
use monosign::backend::yubihsm::host::{self, Info, Session};
use monosign::backend::yubihsm::witness::{AuditLog, LogEntry};
use monosign::backend::yubihsm::{Settings, YubihsmDriver};
use monosign::pubkey::PublicKey;
use monosign::seams::Local;
use secrecy::ExposeSecret as _;
use tokio::time::sleep;

use super::{Eye, now};
use crate::reach::Reach;
use crate::scenario::{AUTH_KEY, DeviceFault, Hsm, KEY, serial_number};
use crate::streams::Stream;
use crate::world::keys::PASSWORD;

/// A device and its connector.
pub(in crate::world) struct Yubihsm {
    name: String,
    state: RefCell<State>,
    reach: Reach,
}

struct State {
    device: Device,
    fault: Option<DeviceFault>,
    stream: Stream,
    /// When the device is done with what it was asked last: it does one thing at a time, whoever asks.
    busy_until: Duration,
    /// Whether the next signature meets a loss of power.
    trips: bool,
    /// What the connector holds back while it hangs, to be done when it goes on, whether or not anybody waits.
    held: Vec<(Eye, Vec<u8>)>,
}

/// A host of ours that is no signer: it sets devices up, and fills their logs.
struct Operator {
    host: Host,
}

/// The authentication key of somebody who is no signer.
const OPERATOR: u16 = 2;
/// What the device takes for all but signatures.
const OTHER: u8 = command::ECHO;
const ED25519: u8 = 0x2e;
const AES128_YUBICO_AUTHENTICATION: u8 = 0x26;
const FORCE_AUDIT: u8 = 1;
const COMMAND_AUDIT: u8 = 3;
const ON: u8 = 1;
const FIX: u8 = 2;

/// Keys out of passwords take milliseconds, and worlds are made by the thousand.
static FACTORY: LazyLock<[u8; 32]> = LazyLock::new(|| authentication_key(b"password"));
static SECRET: LazyLock<[u8; 32]> = LazyLock::new(|| authentication_key(PASSWORD.as_bytes()));

impl Yubihsm {
    /// A device that was set up as `monosign yubihsm setup` does, with `key` on it.
    pub(super) fn new(
        settings: &Hsm,
        key: &SigningKey,
        mut stream: Stream,
        reach: Reach,
    ) -> anyhow::Result<Rc<Self>> {
        let mut entropy = stream.fork();
        let mut device = Device::with_key(*FACTORY, Box::new(move |bytes| entropy.fill(bytes)));
        device.set_serial(serial_number(&settings.name));
        Operator { host: Host::new(1, *FACTORY) }.set_up(&mut device, settings, key)?;
        let busy_until = Duration::ZERO;
        let state = State { device, fault: None, stream, busy_until, trips: false, held: Vec::new() };
        Ok(Rc::new(Self { name: settings.name.clone(), state: RefCell::new(state), reach }))
    }

    /// The device or what lies before it fails in this way from now on, or no more.
    pub(super) fn set_fault(&self, fault: Option<DeviceFault>) {
        let mut state = self.state.borrow_mut();
        let ended = std::mem::replace(&mut state.fault, fault);
        state.device.set_signs_wrongly(fault == Some(DeviceFault::WrongSignature));
        state.trips = fault == Some(DeviceFault::PowerCycle);
        if fault == Some(DeviceFault::LogFull) {
            let _ = Operator::new().fill_log(&mut state.device);
        }
        match ended.filter(|_| ended != fault) {
            // Plugging it in is a power cycle.
            Some(DeviceFault::Absent) => state.device.power_cycle(),
            Some(DeviceFault::LogFull) => {
                let _ = Operator::new().empty_log(&mut state.device);
            }
            Some(DeviceFault::Hang) => {
                let held = std::mem::take(&mut state.held);
                drop(state);
                for (eye, frame) in held {
                    self.reach.hit("abandoned request done later");
                    self.handle(&eye, &frame);
                }
            }
            _ => {}
        }
    }

    /// Its unread log.
    pub(super) fn log(&self) -> Option<AuditLog> {
        let mut state = self.state.borrow_mut();
        let data = Operator::new().command(&mut state.device, command::GET_LOG_ENTRIES, &[]).ok()?;
        read_log(&data)
    }

    /// The device does a frame, and the oracle sees what it signs.
    fn handle(&self, eye: &Eye, frame: &[u8]) -> Vec<u8> {
        let (answer, signed, wrongly) = {
            let mut state = self.state.borrow_mut();
            let answer = state.device.handle(now(), frame);
            (answer, state.device.take_signed(), state.fault == Some(DeviceFault::WrongSignature))
        };
        if let Some(mut signed) = signed.filter(|signed| signed.key == KEY) {
            if wrongly {
                self.reach.hit("key device gave a wrong signature");
                // What the key would have made of it.
                signed.signature[7] ^= 1;
            }
            eye.saw_on(&self.name, &signed.message, signed.signature);
        }
        answer
    }

    /// A frame goes to the device and its answer comes back, or not.
    fn exchange(&self, eye: &Eye, frame: &[u8], is_signature: bool) -> Option<Vec<u8>> {
        let fault = self.state.borrow().fault;
        match fault {
            Some(DeviceFault::Absent) => {
                self.reach.hit("key device absent");
                None
            }
            Some(DeviceFault::Hang) => {
                self.state.borrow_mut().held.push((eye.clone(), frame.to_vec()));
                None
            }
            Some(DeviceFault::Error) => Some(vec![command::ERROR, 0, 1, Code::StorageFailed as u8]),
            Some(DeviceFault::AnswerLost) if is_signature => {
                self.handle(eye, frame);
                self.reach.hit("key device lost its answer");
                None
            }
            Some(DeviceFault::PowerCycle) if is_signature => self.trip(eye, frame),
            Some(DeviceFault::Truncated) => {
                let mut answer = self.handle(eye, frame);
                answer.pop();
                Some(answer)
            }
            _ => Some(self.handle(eye, frame)),
        }
    }

    /// A signature meets a loss of power, once: before it, in it, or right after it.
    fn trip(&self, eye: &Eye, frame: &[u8]) -> Option<Vec<u8>> {
        let draw = {
            let mut state = self.state.borrow_mut();
            if !std::mem::take(&mut state.trips) {
                drop(state);
                return Some(self.handle(eye, frame));
            }
            state.stream.below(3)
        };
        self.reach.hit("key device lost power while signing");
        if draw == 2 {
            self.handle(eye, frame);
        }
        self.state.borrow_mut().device.power_cycle();
        // Before it: the connector passes it on to a device that has forgotten the session.
        (draw == 0).then(|| self.handle(eye, frame))
    }

    /// How long a request takes from its turn on, and when its turn is.
    fn reserve(&self, request: &Request) -> (Duration, Duration) {
        let model = Latency::Published;
        let mut state = self.state.borrow_mut();
        let mut takes = match request {
            Request::Sign { message, .. } => model.of(command::SIGN_EDDSA, message.len()),
            _ => model.of(OTHER, 0),
        };
        if state.fault == Some(DeviceFault::Slow) && matches!(request, Request::Sign { .. }) {
            self.reach.hit("key device slow");
            takes += SLOW;
        }
        let waits = state.busy_until.saturating_sub(now());
        state.busy_until = now() + waits + takes;
        (waits, takes)
    }
}

const SLOW: Duration = Duration::from_millis(1500);

impl Operator {
    fn new() -> Self {
        Self { host: Host::new(OPERATOR, *SECRET) }
    }

    fn command(&mut self, device: &mut Device, code: u8, data: &[u8]) -> Result<Vec<u8>, HostError> {
        self.host.command(&mut Direct(device), code, data)
    }

    /// Roles with their passwords, the key, and what is audited; then the factory's key goes.
    fn set_up(&mut self, device: &mut Device, settings: &Hsm, key: &SigningKey) -> anyhow::Result<()> {
        let reads = capability::GET_LOG_ENTRIES;
        let signer = capability::SIGN_EDDSA | reads;
        let operator = capability::DELETE_ASYMMETRIC_KEY | reads;
        for (id, may) in [(AUTH_KEY, signer), (OPERATOR, operator)] {
            let mut data = object(id, may, AES128_YUBICO_AUTHENTICATION);
            data.extend(0_u64.to_be_bytes());
            data.extend(*SECRET);
            self.command(device, command::PUT_AUTHENTICATION_KEY, &data)?;
        }
        if !settings.without_key {
            let mut data = object(KEY, capability::SIGN_EDDSA, ED25519);
            data.extend(key.to_bytes());
            self.command(device, command::PUT_ASYMMETRIC_KEY, &data)?;
        }
        let audited = [command::SIGN_EDDSA, FIX, command::DELETE_OBJECT, ON];
        self.command(device, command::SET_OPTION, &[&[COMMAND_AUDIT, 0, 4], audited.as_slice()].concat())?;
        if settings.force_audit {
            self.command(device, command::SET_OPTION, &[FORCE_AUDIT, 0, 1, ON])?;
        }
        self.command(device, command::DELETE_OBJECT, &[0, 1, 2])?;
        Ok(())
    }

    /// Does what is logged until nothing more is: deletes what is not there.
    fn fill_log(&mut self, device: &mut Device) -> Result<(), HostError> {
        for _ in 0..mock_yubihsm::device::LOG_CAPACITY {
            match self.command(device, command::DELETE_OBJECT, &[0xff, 0xfe, 3]) {
                Err(HostError::Device(Code::ObjectNotFound)) => {}
                Err(HostError::Device(Code::LogFull)) => return Ok(()),
                Err(other) => return Err(other),
                Ok(_) => {}
            }
        }
        Ok(())
    }

    /// Marks all but the newest entry of a log as read that is still full: whoever needs room has not made it.
    fn empty_log(&mut self, device: &mut Device) -> Result<(), HostError> {
        if device.unread_log_entries() < mock_yubihsm::device::LOG_CAPACITY {
            return Ok(());
        }
        let data = self.command(device, command::GET_LOG_ENTRIES, &[])?;
        let log = read_log(&data).unwrap_or_default();
        let Some(entry) = log.entries.iter().rev().nth(1) else { return Ok(()) };
        self.command(device, command::SET_LOG_INDEX, &entry.item().to_be_bytes()).map(drop)
    }
}

/// The fields that all objects have: number, label, the first domain, capabilities, algorithm.
fn object(id: u16, capabilities: u64, algorithm: u8) -> Vec<u8> {
    let mut data = id.to_be_bytes().to_vec();
    data.extend([0; 40]);
    data.extend(1_u16.to_be_bytes());
    data.extend(capabilities.to_be_bytes());
    data.push(algorithm);
    data
}

/// Straight to a device, without a connector.
struct Direct<'a>(&'a mut Device);

impl Line for Direct<'_> {
    fn exchange(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        Some(self.0.handle(now(), frame))
    }

    fn now(&self) -> Duration {
        now()
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.fill(7);
    }
}

/// What one process asks a device by: the production driver, called inline.
pub(super) struct Inline {
    hsm: Rc<Yubihsm>,
    eye: Eye,
    settings: Arc<Settings>,
    entropy: RefCell<Stream>,
    driver: RefCell<Option<YubihsmDriver<SimHost>>>,
}

impl Inline {
    pub(super) fn new(hsm: Rc<Yubihsm>, eye: Eye, settings: Settings, entropy: Stream) -> Self {
        let entropy = RefCell::new(entropy);
        Self { hsm, eye, settings: Arc::new(settings), entropy, driver: RefCell::new(None) }
    }

    fn begin(&self) -> YubihsmDriver<SimHost> {
        let line = SimLine {
            hsm: Rc::clone(&self.hsm),
            eye: self.eye.clone(),
            entropy: self.entropy.borrow_mut().fork(),
            is_signature: false,
        };
        YubihsmDriver::over(SimHost { line }, Arc::clone(&self.settings))
    }

    async fn perform(&self, request: Request) -> Result<Reply, DeviceError> {
        // Taken out while it works: what is abandoned takes its driver along, as a thread does that is left behind.
        let taken = self.driver.borrow_mut().take();
        let mut driver = taken.unwrap_or_else(|| self.begin());
        let (waits, takes) = self.hsm.reserve(&request);
        sleep(waits + takes / 2).await;
        let done = driver.perform(&request);
        match self.hsm.state.borrow().fault {
            // The proxy gives up at the timeout.
            Some(DeviceFault::Hang) => {
                self.hsm.reach.hit("key device gave no answer");
                sleep(self.settings.timeout).await;
            }
            _ => sleep(takes - takes / 2).await,
        }
        *self.driver.borrow_mut() = Some(driver);
        done
    }
}

impl Executor for Inline {
    fn execute(&self, request: Request) -> Local<'_, Result<Reply, DeviceError>> {
        Box::pin(self.perform(request))
    }
}

/// A process's way to a device.
#[derive(Clone)]
struct SimLine {
    hsm: Rc<Yubihsm>,
    eye: Eye,
    entropy: Stream,
    /// Whether the next session message asks for a signature: what goes by is encrypted.
    is_signature: bool,
}

impl Line for SimLine {
    fn exchange(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        let is_signature = self.is_signature && frame.first() == Some(&command::SESSION_MESSAGE);
        self.hsm.exchange(&self.eye, frame, is_signature)
    }

    fn now(&self) -> Duration {
        now()
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
        let password = settings.password.expose_secret();
        let secret = if password == PASSWORD { *SECRET } else { authentication_key(password.as_bytes()) };
        let mut host = Host::new(settings.auth_key, secret);
        match host.connect(&mut self.line) {
            Ok(()) => Ok(SimSession { host, line: self.line.clone() }),
            Err(HostError::WrongKey) => Err(DeviceError::WrongPassword),
            Err(HostError::Device(Code::SessionsFull)) => {
                self.line.hsm.reach.hit("key device's sessions all in use");
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
        done.map_err(|error| match error {
            HostError::WrongKey => DeviceError::WrongPassword,
            HostError::Device(Code::ObjectNotFound) => DeviceError::NoKey(key),
            HostError::Device(Code::LogFull) => DeviceError::LogFull,
            HostError::Device(Code::SessionsFull) => DeviceError::SessionsFull,
            HostError::Device(other) => DeviceError::Refused(other.to_string()),
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
        read_log(&self.command(command::GET_LOG_ENTRIES, &[], 0)?).ok_or_else(short)
    }

    fn mark_read(&mut self, item: u16) -> Result<(), DeviceError> {
        self.command(command::SET_LOG_INDEX, &item.to_be_bytes(), 0).map(drop)
    }
}

fn short() -> DeviceError {
    DeviceError::Refused("its answer is too short".into())
}

/// Two counters, the number of entries, and 16 bytes and a digest for each.
fn read_log(data: &[u8]) -> Option<AuditLog> {
    let (head, entries) = data.split_at_checked(5)?;
    let unlogged = [&head[..2], &head[2..4]].map(|two| u32::from(two[0]) << 8 | u32::from(two[1]));
    let entries: Vec<_> = entries
        .chunks_exact(32)
        .filter_map(|entry| {
            Some(LogEntry { bytes: entry[..16].try_into().ok()?, digest: entry[16..].try_into().ok()? })
        })
        .collect();
    (entries.len() == usize::from(head[4]))
        .then(|| AuditLog { unlogged: unlogged.iter().sum(), entries })
}
