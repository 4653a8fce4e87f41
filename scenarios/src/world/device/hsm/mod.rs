//! A YubiHSM at the wire level, and the production driver, witness, owner and failover above it.
//!
//! What is not run is the `yubihsm` crate, whose connectors are sockets and USB and no others: its place is taken by
//! [`mock_yubihsm::Host`], which keeps sessions as the crate does, with the crate's defects. Nor are the threads, the proxy and a
//! connector, of which the time that they take is left: a driver does all that it does for one request in its [turn](super::turns), and the
//! request is given up after the timeout that the proxy has.

mod asked;
mod operator;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use mock_yubihsm::Device;
use mock_yubihsm::device::codes::{DeviceError as Code, command};
use mock_yubihsm::device::{Firmware, authentication_key};
use mock_yubihsm::latency::Latency;
use monosign::backend::device::Request;
use monosign::backend::yubihsm::witness::AuditLog;

use super::Eye;
use super::turns::{Takes, Turns};
use crate::reach::Reach;
use crate::scenario::{DeviceFault, Hsm, KEY, serial_number};
use crate::streams::Stream;
use operator::{FACTORY, Occupant, Operator};

pub(super) use asked::Asked;

/// A device and its connector.
pub(in crate::world) struct Yubihsm {
    name: String,
    key: SigningKey,
    turns: Turns,
    state: RefCell<State>,
    /// A signer was refused a session since this was asked last.
    lacks_sessions: Cell<bool>,
    slow_by: Duration,
    /// Whether signers watch its log.
    is_watched: bool,
    reach: Reach,
}

struct State {
    device: Device,
    fault: Option<DeviceFault>,
    stream: Stream,
    /// Whether the next signature meets a loss of power, or the next request is lost.
    trips: bool,
    /// How long the message was that was signed last.
    last_len: usize,
    /// Who holds all sessions.
    occupants: Vec<Occupant>,
}

/// What the device takes for all but signatures.
const OTHER: u8 = command::ECHO;

impl Yubihsm {
    /// A device that was set up as `monosign yubihsm setup` does, with `key` on it.
    pub(super) fn new(
        settings: &Hsm,
        is_watched: bool,
        key: &SigningKey,
        mut stream: Stream,
        reach: Reach,
    ) -> anyhow::Result<Rc<Self>> {
        let mut entropy = stream.fork();
        let mut device = Device::with_key(*FACTORY, Box::new(move |bytes| entropy.fill(bytes)));
        device.set_serial(serial_number(&settings.name));
        if settings.audits_all {
            device.set_firmware(Firmware::Old);
        }
        operator::set_up(&mut device, settings, key)?;
        let state = State { device, fault: None, stream, trips: false, last_len: 0, occupants: Vec::new() };
        Ok(Rc::new(Self {
            name: settings.name.clone(),
            key: key.clone(),
            turns: Turns::default(),
            state: RefCell::new(state),
            lacks_sessions: Cell::default(),
            slow_by: settings.slow_by.0,
            is_watched,
            reach,
        }))
    }

    /// The device or what lies before it fails in this way from now on, or no more.
    pub(super) fn set_fault(&self, fault: Option<DeviceFault>) {
        let mut state = self.state.borrow_mut();
        let ended = std::mem::replace(&mut state.fault, fault).filter(|ended| Some(*ended) != fault);
        let State { device, trips, occupants, last_len, .. } = &mut *state;
        device.set_signs_unlogged(fault == Some(DeviceFault::SignaturesNotLogged));
        device.set_signs_wrongly(fault == Some(DeviceFault::WrongSignature));
        *trips = matches!(fault, Some(DeviceFault::PowerCycle | DeviceFault::CopySigns));
        occupants.clear();
        let mut operator = Operator::new(device, self.turns.now());
        // An operator is refused nothing that has not been done before.
        let _ = match ended {
            // A log that signers watch is theirs to read: they would find a gap.
            Some(DeviceFault::LogFull) if !self.is_watched => operator.empty_log(),
            Some(DeviceFault::KeyDeleted) => operator.put_key(&self.key),
            _ => Ok(()),
        };
        let _ = match fault {
            Some(DeviceFault::LogFull) => operator.fill_log(),
            Some(DeviceFault::KeyDeleted) => operator.delete_key(),
            Some(DeviceFault::ForeignSignature) => operator.sign(KEY),
            Some(DeviceFault::CopySigns) => operator.sign_as_the_signer(*last_len),
            Some(DeviceFault::CopiedKeySigns) => operator.sign_by_a_copy(&self.key),
            _ => Ok(()),
        };
        // That one was nobody's of ours.
        device.take_signed();
        // Plugging it in is a power cycle.
        if ended == Some(DeviceFault::Absent) {
            device.power_cycle();
        }
    }

    /// The time has come to `now`.
    pub(super) fn advance(&self, now: Duration) {
        let fault = self.state.borrow().fault;
        if fault == Some(DeviceFault::SessionsTaken) {
            let State { device, occupants, .. } = &mut *self.state.borrow_mut();
            operator::occupy(device, occupants, now);
        }
        self.turns.advance(now, fault == Some(DeviceFault::Hang));
        if fault == Some(DeviceFault::Busy) {
            self.turns.keep_busy(self.slow_by);
        }
    }

    /// Whether it fails in this way.
    pub(super) fn has(&self, fault: DeviceFault) -> bool {
        self.state.borrow().fault == Some(fault)
    }

    /// Whether a signer was refused a session since this was asked last.
    pub(super) fn take_lack_of_sessions(&self) -> bool {
        self.lacks_sessions.take()
    }

    /// Its unread log.
    pub(super) fn log(&self) -> Option<AuditLog> {
        let mut state = self.state.borrow_mut();
        Operator::new(&mut state.device, self.turns.now()).log().ok().flatten()
    }

    /// The device does a frame, and the oracle sees what it signs.
    fn handle(&self, eye: &Eye, frame: &[u8]) -> Vec<u8> {
        let (answer, signed, wrongly) = {
            let mut state = self.state.borrow_mut();
            let answer = state.device.handle(self.turns.now(), frame);
            (answer, state.device.take_signed(), state.fault == Some(DeviceFault::WrongSignature))
        };
        if let Some(mut signed) = signed.filter(|signed| signed.key == KEY) {
            self.state.borrow_mut().last_len = signed.message.len();
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
            Some(DeviceFault::Error) => Some(vec![command::ERROR, 0, 1, Code::StorageFailed as u8]),
            Some(DeviceFault::AnswerLost) if is_signature => {
                self.handle(eye, frame);
                self.reach.hit("key device lost its answer");
                None
            }
            Some(DeviceFault::PowerCycle) if is_signature => self.trip(eye, frame),
            Some(DeviceFault::CopySigns) if std::mem::take(&mut self.state.borrow_mut().trips) => None,
            Some(DeviceFault::Truncated) => {
                let mut answer = self.handle(eye, frame);
                answer.pop();
                self.reach.hit("key device's answer truncated");
                Some(answer)
            }
            _ => Some(self.handle(eye, frame)),
        }
    }

    /// A signature meets a loss of power, once: before it, in it, or right after it.
    fn trip(&self, eye: &Eye, frame: &[u8]) -> Option<Vec<u8>> {
        let trips = std::mem::take(&mut self.state.borrow_mut().trips);
        if !trips {
            return Some(self.handle(eye, frame));
        }
        self.reach.hit("key device lost power while signing");
        let draw = self.state.borrow_mut().stream.below(3);
        if draw == 2 {
            self.handle(eye, frame);
        }
        self.state.borrow_mut().device.power_cycle();
        // Before it: the connector passes it on to a device that has forgotten the session.
        (draw == 0).then(|| self.handle(eye, frame))
    }

    /// How long a request takes when its turn has come.
    fn takes(&self, request: &Request) -> Takes {
        let Request::Sign { message, .. } = request else {
            return Takes::new(Latency::Published.of(OTHER, 0), Duration::ZERO);
        };
        let usual = Latency::Published.of(command::SIGN_EDDSA, message.len());
        match self.state.borrow().fault {
            Some(DeviceFault::Slow) => {
                self.reach.hit("key device slow");
                Takes::new(usual, self.slow_by)
            }
            _ => Takes::new(usual, Duration::ZERO),
        }
    }

    /// How many signatures it has made.
    fn signatures(&self) -> u64 {
        self.state.borrow().device.signatures()
    }
}

/// What a password stands for. It takes milliseconds to make, and worlds are made by the thousand.
fn secret_of(password: &str) -> [u8; 32] {
    match password {
        crate::world::keys::PASSWORD => *operator::SECRET,
        other => authentication_key(other.as_bytes()),
    }
}

#[cfg(test)]
mod contract;
