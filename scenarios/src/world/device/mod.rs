//! What holds the keys of simulated signers, outliving their processes and watched by the oracle.
//!
//! In the modes `softsign` and `device` it is a key in memory, with a device's latency and faults [modelled]. In the modes `yubihsm` and
//! `pkcs11`, all of the production code for devices runs, above the seams where sockets, threads and processes would come in: a
//! [YubiHSM](hsm) at the wire level, and a [token] behind a worker.

mod hsm;
mod modelled;
mod token;
mod turns;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use monosign::backend::device::{DeviceError, Executor, Reply, Request};
use monosign::backend::yubihsm::witness::AuditLog;
use monosign::backend::yubihsm::{self, Adapter};
use monosign::backend::{Backend, BackendError, pkcs11};
use monosign::pubkey::PublicKey;
use monosign::record::Permit;
use monosign::seams::Local;
use monosign::start::Hardware;

use crate::disk::HostDisk;
use crate::oracle::{Oracle, durable_record};
use crate::reach::Reach;
use crate::run::Mode;
use crate::scenario::{DeviceFault, Hsm, SpanRange};
use crate::streams::Streams;

/// A device of the world.
#[derive(Clone)]
pub(super) enum Device {
    Modelled(Rc<modelled::Model>),
    Yubihsm(Rc<hsm::Yubihsm>),
    Token(Rc<token::Token>),
}

impl Device {
    /// The device of a mode, in order, with `key` on it; `is_watched` says that signers read its log.
    pub(super) fn new(
        mode: Mode,
        settings: &Hsm,
        is_watched: bool,
        key: &SigningKey,
        streams: Streams,
        reach: &Reach,
    ) -> anyhow::Result<Self> {
        let stream = streams.of(&format!("device/{}", settings.name));
        Ok(match mode {
            // A share of the key is always a software key.
            Mode::Softsign | Mode::Threshold(_) => {
                Self::Modelled(modelled::Model::new(SpanRange::always(Duration::ZERO), stream, reach.clone()))
            }
            // EdDSA on a YubiHSM 2, as published.
            Mode::Device => {
                Self::Modelled(modelled::Model::new(SpanRange::millis(115, 146), stream, reach.clone()))
            }
            Mode::Yubihsm => {
                Self::Yubihsm(hsm::Yubihsm::new(settings, is_watched, key, stream, reach.clone())?)
            }
            Mode::Pkcs11 => Self::Token(token::Token::new(settings, key, stream, reach.clone())),
        })
    }

    /// The device fails in this way from now on, or no more.
    pub(super) fn set_fault(&self, fault: Option<DeviceFault>) {
        match self {
            Self::Modelled(model) => model.set_fault(fault),
            Self::Yubihsm(hsm) => hsm.set_fault(fault),
            Self::Token(token) => token.set_fault(fault),
        }
    }

    /// Whether it does now.
    pub(super) fn gives_wrong_signatures(&self) -> bool {
        match self {
            Self::Modelled(_) => false,
            Self::Yubihsm(hsm) => hsm.has(DeviceFault::WrongSignature),
            Self::Token(token) => token.has(DeviceFault::WrongSignature),
        }
    }

    /// The time has come to `now`: what is due at the device is done.
    pub(super) fn advance(&self, now: Duration) {
        match self {
            Self::Modelled(_) => {}
            Self::Yubihsm(hsm) => hsm.advance(now),
            Self::Token(token) => token.advance(now),
        }
    }

    /// Whether a signer was refused a session since this was asked last, though nothing is wrong with the device.
    pub(super) fn take_lack_of_sessions(&self) -> bool {
        match self {
            Self::Yubihsm(hsm) => hsm.take_lack_of_sessions(),
            _ => false,
        }
    }

    /// Its log, if it has one that can be watched.
    pub(super) fn log(&self) -> Option<AuditLog> {
        match self {
            Self::Yubihsm(hsm) => hsm.log(),
            _ => None,
        }
    }

    /// The backend of a chain as the oracle wants it: what is modelled is put before it, and what it says of devices is noted.
    pub(super) fn watch(&self, key: Rc<dyn Backend>, eye: Eye, reach: &Reach) -> Rc<dyn Backend> {
        let reach = reach.clone();
        match self {
            Self::Modelled(device) => {
                Rc::new(modelled::ModelledKey { key, device: Rc::clone(device), eye, reach })
            }
            // The oracle sees what is signed at the device itself.
            Self::Yubihsm(_) | Self::Token(_) => Rc::new(HeardKey { key, reach }),
        }
    }
}

/// What a host's keys signed last, and on which device.
pub(super) type LastSigned = Rc<RefCell<Option<(String, Vec<u8>)>>>;

/// The oracle's eye on a host's keys.
#[derive(Clone)]
pub(super) struct Eye {
    pub(super) host: Rc<str>,
    pub(super) disk: Rc<HostDisk>,
    pub(super) record: PathBuf,
    pub(super) oracle: Rc<RefCell<Oracle>>,
    pub(super) reach: Reach,
    /// What the host's keys signed last, and on which device.
    pub(super) last: LastSigned,
}

impl Eye {
    /// The key is asked: what it signs, and be it late, must be on the disk already.
    fn asks(&self, bytes: &[u8]) {
        let mut oracle = self.oracle.borrow_mut();
        let ask = |record: Option<&[u8]>| oracle.key_asked(&self.host, bytes, record);
        durable_record(&self.disk, &self.record, ask);
    }

    fn saw(&self, bytes: &[u8], signature: [u8; 64]) {
        self.oracle.borrow_mut().key_signed(&self.host, bytes, signature);
    }

    /// The same on a device, of which the host may have several.
    fn saw_on(&self, device: &str, bytes: &[u8], signature: [u8; 64]) {
        let last = self.last.borrow_mut().replace((device.to_owned(), bytes.to_owned()));
        match last {
            Some((other, same)) if other != device && same == bytes => {
                self.reach.hit("two devices signed the same")
            }
            Some((other, _)) if other != device => self.reach.hit("another device took over"),
            Some((_, same)) if same == bytes => self.reach.hit("device signed the same again"),
            _ => {}
        }
        self.saw(bytes, signature);
    }
}

/// Reaches the devices of the world, for one process.
pub(super) struct SimHardware {
    pub(super) devices: Rc<BTreeMap<String, Device>>,
    pub(super) eye: Eye,
    pub(super) streams: Streams,
    /// Tells processes apart.
    pub(super) start: u64,
}

impl Hardware for SimHardware {
    fn yubihsm(&self, settings: yubihsm::Settings) -> Rc<dyn Executor> {
        let name = match &settings.adapter {
            Adapter::Http { host, .. } => host.clone(),
            Adapter::Usb => String::new(),
        };
        let Some(Device::Yubihsm(hsm)) = self.devices.get(&name) else {
            panic!("there is no YubiHSM `{name}`")
        };
        let entropy = self.streams.of(&format!("hsm/{}/{}/{name}", self.eye.host, self.start));
        let asked = hsm::Asked::new(Rc::clone(hsm), self.eye.clone(), settings, entropy);
        Rc::new(Watched { asked, eye: self.eye.clone() })
    }

    fn pkcs11(&self, settings: pkcs11::Settings) -> Rc<dyn Executor> {
        let name = &settings.token_label;
        let Some(Device::Token(token)) = self.devices.get(name) else { panic!("there is no token `{name}`") };
        let workers = token::SimWorkers { token: Rc::clone(token), eye: self.eye.clone() };
        let asked = pkcs11::ChildProcess::over(Rc::new(workers), Rc::new(settings));
        Rc::new(Watched { asked, eye: self.eye.clone() })
    }
}

/// Lets the oracle see what a device is asked.
struct Watched<E> {
    asked: E,
    eye: Eye,
}

impl<E: Executor> Executor for Watched<E> {
    fn execute(&self, request: Request) -> Local<'_, Result<Reply, DeviceError>> {
        if let Request::Sign { message, .. } = &request {
            self.eye.asks(message);
        }
        self.asked.execute(request)
    }
}

/// A chain's backend over devices, and what it says of them.
struct HeardKey {
    key: Rc<dyn Backend>,
    reach: Reach,
}

impl HeardKey {
    fn heard<T>(&self, result: Result<T, BackendError>) -> Result<T, BackendError> {
        if let Err(error) = &result {
            let text = error.to_string();
            for (words, what) in HEARD.iter().filter(|(words, _)| text.contains(words)) {
                tracing::trace!(target: "sim::device", words, "heard");
                self.reach.hit(what);
            }
        }
        result
    }
}

/// What operators read, and what it is counted as.
const HEARD: [(&str, &str); 8] = [
    ("it is asked nothing more", "key device latched"),
    ("nothing is signed with it on any device", "key locked"),
    ("nothing is signed with the key on any device:", "key held"),
    ("that this signer did not ask for", "witness found a signature of another"),
    ("signed with our key", "witness found a signature of another"),
    ("what is between cannot be known", "witness found a gap"),
    ("no answer in time", "key device gave no answer"),
    ("there is no Ed25519 key", "key not on the device"),
];

/// What a device lacks, as operators read it.
const NO_KEY: [&str; 2] = ["there is no Ed25519 key", "it has no key"];

impl Backend for HeardKey {
    fn public_key(&self) -> PublicKey {
        self.key.public_key()
    }

    fn ready(&self) -> Result<(), BackendError> {
        // Before the record, and for nothing that the device is asked now.
        self.heard(self.key.ready()).inspect_err(|error| {
            let text = error.to_string();
            if NO_KEY.iter().any(|words| text.contains(words)) {
                self.reach.hit("missing key not asked for");
            }
        })
    }

    fn until_ready(&self) -> Local<'_, ()> {
        self.key.until_ready()
    }

    fn sign<'a>(&'a self, permit: &'a Permit<'_>) -> Local<'a, Result<[u8; 64], BackendError>> {
        Box::pin(async move { self.heard(self.key.sign(permit).await) })
    }

    fn max_message(&self) -> usize {
        self.key.max_message()
    }

    fn distrust(&self) {
        self.key.distrust();
    }
}
