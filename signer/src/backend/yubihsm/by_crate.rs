//! Sessions by the `yubihsm` crate.

use std::sync::Arc;

use secrecy::ExposeSecret as _;
use yubihsm::client::ErrorKind;
use yubihsm::{Client, Connector, Credentials, HttpConfig, device};

use super::host::{Host, Info, Session, device_said};
use super::proxy::ConnectorFailure;
use super::witness::{Alarm, AuditLog, LogEntry};
use super::{Adapter, Proxy, Settings, YubihsmDriver};
use crate::backend::device::DeviceError;
use crate::pubkey::PublicKey;

/// The crate, and what stands between it and a connector.
#[derive(Default)]
pub struct CrateHost {
    /// Kept over sessions, so that its port stays.
    proxy: Option<Proxy>,
}

/// A session, for what is done on the command line.
pub struct Opened {
    /// The crate's client. After any unclean error it must be dropped.
    pub client: Client,
    _proxy: Option<Proxy>,
}

/// A session by the crate.
pub struct CrateSession {
    client: Client,
    /// `None` over USB.
    connector: Option<ConnectorFailure>,
}

impl YubihsmDriver {
    /// A driver that opens its first session when it is first asked.
    pub fn new(settings: Arc<Settings>) -> Self {
        Self::over(CrateHost::default(), settings)
    }

    /// Opens a session and gives it away.
    ///
    /// # Errors
    /// [`DeviceError`]
    pub fn open(settings: Arc<Settings>) -> Result<Opened, DeviceError> {
        let (session, host) = Self::new(settings).into_session()?;
        Ok(Opened { client: session.client, _proxy: host.proxy })
    }
}

impl CrateHost {
    fn connector(&mut self, settings: &Settings) -> Result<Connector, DeviceError> {
        match &settings.adapter {
            Adapter::Http { host, port } => {
                let proxy = match self.proxy.take() {
                    Some(proxy) => proxy,
                    None => Proxy::start(host, *port, settings.timeout)
                        .map_err(|error| lost(format_args!("cannot listen on loopback: {error}"), false))?,
                };
                let address = self.proxy.insert(proxy).address();
                let timeout_ms = settings.timeout.as_millis() as u64;
                let config = HttpConfig { addr: address.ip().to_string(), port: address.port(), timeout_ms };
                Ok(Connector::http(&config))
            }
            Adapter::Usb => usb(settings),
        }
    }

    /// How many sessions the device has opened, as far as is known.
    fn sessions(&self) -> u64 {
        self.proxy.as_ref().map_or(0, Proxy::sessions)
    }
}

impl Host for CrateHost {
    type Session = CrateSession;

    fn open(&mut self, settings: &Settings) -> Result<CrateSession, DeviceError> {
        let connector = self.connector(settings)?;
        let password = settings.password.expose_secret();
        let credentials = Credentials::from_password(settings.auth_key, password.as_bytes());
        let before = self.sessions();
        let failure = self.proxy.as_ref().map(Proxy::failure);
        match Client::open(connector, credentials, true) {
            Ok(client) => Ok(CrateSession { client, connector: failure }),
            Err(error) => Err(clearer(unopened(&error, self.sessions() > before), failure.as_ref())),
        }
    }
}

impl CrateSession {
    fn failed(&self, error: &yubihsm::client::Error, key: u16) -> DeviceError {
        clearer(failed(error, key), self.connector.as_ref())
    }
}

impl Session for CrateSession {
    fn info(&mut self) -> Result<Info, DeviceError> {
        let info = self.client.device_info().map_err(|error| self.failed(&error, 0))?;
        let log_has_room = info.log_store_used < info.log_store_capacity;
        Ok(Info { serial: info.serial_number.to_string(), log_has_room })
    }

    fn public_key(&mut self, key: u16) -> Result<PublicKey, DeviceError> {
        let found = self.client.get_public_key(key).map_err(|error| self.failed(&error, key))?;
        let found = found.ed25519().ok_or_else(|| DeviceError::Refused("it is no Ed25519 key".into()))?;
        Ok(PublicKey::from_bytes(*found.as_bytes()))
    }

    fn sign(&mut self, key: u16, message: &[u8]) -> Result<[u8; 64], DeviceError> {
        let signature = self.client.sign_ed25519(key, message).map_err(|error| self.failed(&error, key))?;
        Ok(signature.to_bytes())
    }

    fn log(&mut self) -> Result<AuditLog, DeviceError> {
        read_log(&self.client).map_err(|error| clearer(error, self.connector.as_ref()))
    }

    fn mark_read(&mut self, item: u16) -> Result<(), DeviceError> {
        self.client.set_log_index(item).map_err(|error| self.failed(&error, 0))
    }
}

/// The log, all of it: the crate ends a list silently at an element that it does not know, and what follows it would be hidden.
///
/// # Errors
/// [`DeviceError::Alarm`] if it cannot all be read.
pub fn read_log(client: &Client) -> Result<AuditLog, DeviceError> {
    let log = client.get_log_entries().map_err(|error| failed(&error, 0))?;
    let (claimed, parsed) = (usize::from(log.num_entries), log.entries.len());
    if claimed != parsed {
        return Err(DeviceError::Alarm(Alarm::Unreadable { claimed, parsed }.to_string()));
    }
    // The crate's types cannot be named: they are copied out here.
    let entries = log.entries.iter().map(|entry| {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&entry.item.to_be_bytes());
        bytes[2] = entry.cmd.to_u8();
        bytes[3..5].copy_from_slice(&entry.length.to_be_bytes());
        bytes[5..7].copy_from_slice(&entry.session_key.to_be_bytes());
        bytes[7..9].copy_from_slice(&entry.target_key.to_be_bytes());
        bytes[9..11].copy_from_slice(&entry.second_key.to_be_bytes());
        bytes[11] = result_byte(entry.result);
        bytes[12..].copy_from_slice(&entry.tick.to_be_bytes());
        LogEntry { bytes, digest: entry.digest.0 }
    });
    let unlogged = u32::from(log.unlogged_boot_events) + u32::from(log.unlogged_auth_events);
    Ok(AuditLog { unlogged, entries: entries.collect() })
}

/// The byte as the device wrote it. The crate reads a success as it is, and an error as 0x75 less the byte, as which it is given back
/// (`response/code.rs` of 0.42.1).
fn result_byte(result: yubihsm::response::Code) -> u8 {
    match result.is_success() {
        true => result.to_u8(),
        false => 0x75_u8.wrapping_sub(result.to_u8()),
    }
}

/// What an error of a command means. Clean is what came encrypted and said which error it is; after anything else the session
/// is in an unknown state.
fn failed(error: &yubihsm::client::Error, key: u16) -> DeviceError {
    let clean = error.device_error().filter(|_| *error.kind() == ErrorKind::DeviceError);
    match (error.kind(), clean) {
        // The crate panics when asked for the number of this one.
        (_, Some(device::ErrorKind::SshCaConstraintViolation)) => lost(error, true),
        (_, Some(clean)) => device_said(clean.to_u8(), clean, key),
        (ErrorKind::AuthenticationError, None) => DeviceError::WrongPassword,
        (_, None) => lost(error, true),
    }
}

/// What it means that no session was opened.
fn unopened(error: &yubihsm::client::Error, session_spent: bool) -> DeviceError {
    match (error.kind(), error.device_error()) {
        (ErrorKind::AuthenticationError, _) => DeviceError::WrongPassword,
        (_, Some(device::ErrorKind::SessionsFull)) => DeviceError::SessionsFull,
        _ => lost(error, session_spent),
    }
}

/// What the connector failed at says more than that the crate has lost its connection.
fn clearer(error: DeviceError, connector: Option<&ConnectorFailure>) -> DeviceError {
    match (error, connector.and_then(ConnectorFailure::take)) {
        (DeviceError::Lost { session_spent, .. }, Some(reason)) => {
            DeviceError::Lost { reason, session_spent }
        }
        (error, _) => error,
    }
}

fn lost(reason: impl std::fmt::Display, session_spent: bool) -> DeviceError {
    DeviceError::Lost { reason: reason.to_string(), session_spent }
}

#[cfg(feature = "usb")]
fn usb(settings: &Settings) -> Result<Connector, DeviceError> {
    let serial = settings.serial.as_deref().map(str::parse).transpose();
    let serial = serial.map_err(|error| lost(error, false))?;
    let timeout_ms = settings.timeout.as_millis() as u64;
    Ok(Connector::usb(&yubihsm::UsbConfig { serial, timeout_ms }))
}

#[cfg(not(feature = "usb"))]
fn usb(_: &Settings) -> Result<Connector, DeviceError> {
    Err(lost("this build has no USB\nhint: build with `--features usb`, or use a yubihsm-connector", false))
}
