//! Those who are no signer: who sets a device up, and who else has to do with it.

use std::sync::LazyLock;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use mock_yubihsm::device::codes::{DeviceError as Code, capability, command};
use mock_yubihsm::device::{IDLE, LOG_CAPACITY, SESSIONS, authentication_key};
use mock_yubihsm::host::{HostError, Line};
use mock_yubihsm::{Device, Host};
use monosign::backend::yubihsm::witness::{AuditLog, LogEntry};

use crate::scenario::{AUTH_KEY, Hsm, KEY};
use crate::world::keys::PASSWORD;

/// Somebody with an authentication key at a device.
pub(super) struct Operator<'a> {
    key: u16,
    secret: [u8; 32],
    wire: Direct<'a>,
}

/// Straight to a device, without a connector.
struct Direct<'a> {
    device: &'a mut Device,
    now: Duration,
}

/// Somebody's session.
pub(super) struct Occupant {
    host: Host,
    used: Duration,
}

/// The operator's authentication key.
const OPERATOR: u16 = 2;
/// Another number of our key.
const COPY: u16 = 0x0101;
/// The one that a factory reset leaves.
const FACTORY_KEY: u16 = 1;
const ASYMMETRIC_KEY: u8 = 3;
const ED25519: u8 = 0x2e;
const AES128_YUBICO_AUTHENTICATION: u8 = 0x26;
const FORCE_AUDIT: u8 = 1;
const COMMAND_AUDIT: u8 = 3;
const ON: u8 = 1;
const FIX: u8 = 2;

/// Of the factory's password, and of ours. To make them takes milliseconds, and worlds are made by the thousand.
pub(super) static FACTORY: LazyLock<[u8; 32]> = LazyLock::new(|| authentication_key(b"password"));
pub(super) static SECRET: LazyLock<[u8; 32]> = LazyLock::new(|| authentication_key(PASSWORD.as_bytes()));

/// Roles with their passwords, the key, and what is audited; then the factory's key goes.
pub(super) fn set_up(device: &mut Device, settings: &Hsm, key: &SigningKey) -> Result<(), HostError> {
    let wire = Direct { device, now: Duration::ZERO };
    let mut factory = Operator { key: FACTORY_KEY, secret: *FACTORY, wire };
    let signer = capability::SIGN_EDDSA | capability::GET_LOG_ENTRIES;
    let operator = signer | capability::PUT_ASYMMETRIC_KEY | capability::DELETE_ASYMMETRIC_KEY;
    for (id, may, delegated) in [(AUTH_KEY, signer, 0), (OPERATOR, operator, capability::SIGN_EDDSA)] {
        let mut data = object(id, may, AES128_YUBICO_AUTHENTICATION);
        data.extend(u64::to_be_bytes(delegated));
        data.extend(*SECRET);
        factory.command(command::PUT_AUTHENTICATION_KEY, &data)?;
    }
    if !settings.without_key {
        factory.put_key(key)?;
    }
    let audited = [COMMAND_AUDIT, 0, 4, command::SIGN_EDDSA, FIX, command::DELETE_OBJECT, ON];
    factory.command(command::SET_OPTION, &audited)?;
    if settings.force_audit {
        factory.command(command::SET_OPTION, &[FORCE_AUDIT, 0, 1, ON])?;
    }
    factory.delete(FACTORY_KEY, 2)
}

/// Opens all sessions that are left, and keeps them.
pub(super) fn occupy(device: &mut Device, occupants: &mut Vec<Occupant>, now: Duration) {
    let mut wire = Direct { device, now };
    for occupant in occupants.iter_mut().filter(|occupant| now - occupant.used >= IDLE / 2) {
        occupant.used = now;
        let _ = occupant.host.command(&mut wire, command::ECHO, &[]);
    }
    while wire.device.open_sessions() < SESSIONS {
        let mut host = Host::new(OPERATOR, *SECRET);
        if host.connect(&mut wire).is_err() {
            return;
        }
        occupants.push(Occupant { host, used: now });
    }
}

impl<'a> Operator<'a> {
    pub(super) fn new(device: &'a mut Device, now: Duration) -> Self {
        Self { key: OPERATOR, secret: *SECRET, wire: Direct { device, now } }
    }

    /// In a session of its own, which is closed again.
    fn command(&mut self, code: u8, data: &[u8]) -> Result<Vec<u8>, HostError> {
        let mut host = Host::new(self.key, self.secret);
        let done = host.command(&mut self.wire, code, data);
        // There is none if the key that was deleted is its own.
        let _ = host.command(&mut self.wire, command::CLOSE_SESSION, &[]);
        done
    }

    pub(super) fn put_key(&mut self, key: &SigningKey) -> Result<(), HostError> {
        self.put(KEY, key)
    }

    fn put(&mut self, id: u16, key: &SigningKey) -> Result<(), HostError> {
        let mut data = object(id, capability::SIGN_EDDSA, ED25519);
        data.extend(key.to_bytes());
        self.command(command::PUT_ASYMMETRIC_KEY, &data).map(drop)
    }

    pub(super) fn delete_key(&mut self) -> Result<(), HostError> {
        self.delete(KEY, ASYMMETRIC_KEY)
    }

    fn delete(&mut self, id: u16, kind: u8) -> Result<(), HostError> {
        let [high, low] = id.to_be_bytes();
        self.command(command::DELETE_OBJECT, &[high, low, kind]).map(drop)
    }

    /// Puts our key there once more, and has something signed by it.
    pub(super) fn sign_by_a_copy(&mut self, key: &SigningKey) -> Result<(), HostError> {
        self.put(COPY, key)?;
        self.sign(COPY)
    }

    /// Has something signed by a key.
    pub(super) fn sign(&mut self, key: u16) -> Result<(), HostError> {
        let data = [key.to_be_bytes().as_slice(), b"not a vote"].concat();
        self.command(command::SIGN_EDDSA, &data).map(drop)
    }

    /// Has something of this length signed by our key, as the signer.
    pub(super) fn sign_as_the_signer(&mut self, len: usize) -> Result<(), HostError> {
        self.key = AUTH_KEY;
        let data = [KEY.to_be_bytes().as_slice(), &vec![b'x'; len]].concat();
        self.command(command::SIGN_EDDSA, &data).map(drop)
    }

    /// Does what is logged until nothing more is: deletes what is not there.
    pub(super) fn fill_log(&mut self) -> Result<(), HostError> {
        for _ in 0..LOG_CAPACITY {
            match self.delete(0xfffe, ASYMMETRIC_KEY) {
                Err(HostError::Device(Code::ObjectNotFound)) | Ok(()) => {}
                Err(HostError::Device(Code::LogFull)) => return Ok(()),
                Err(other) => return Err(other),
            }
        }
        Ok(())
    }

    /// Marks all but the newest entry of a log as read that is still full: whoever needs room has not made it.
    pub(super) fn empty_log(&mut self) -> Result<(), HostError> {
        if self.wire.device.unread_log_entries() < LOG_CAPACITY {
            return Ok(());
        }
        let log = self.log()?.unwrap_or_default();
        let Some(entry) = log.entries.iter().rev().nth(1) else { return Ok(()) };
        self.command(command::SET_LOG_INDEX, &entry.item().to_be_bytes()).map(drop)
    }

    /// The unread log, if it can be read.
    pub(super) fn log(&mut self) -> Result<Option<AuditLog>, HostError> {
        self.command(command::GET_LOG_ENTRIES, &[]).map(|data| read_log(&data))
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

/// Two counters, the number of entries, and 16 bytes and a digest for each.
pub(super) fn read_log(data: &[u8]) -> Option<AuditLog> {
    let (head, entries) = data.split_at_checked(5)?;
    let unlogged = [&head[..2], &head[2..4]].map(|two| u32::from(two[0]) << 8 | u32::from(two[1]));
    let entries: Vec<_> = entries
        .chunks_exact(32)
        .filter_map(|entry| {
            Some(LogEntry { bytes: entry[..16].try_into().ok()?, digest: entry[16..].try_into().ok()? })
        })
        .collect();
    (entries.len() == usize::from(head[4])).then(|| AuditLog { unlogged: unlogged.iter().sum(), entries })
}

impl Line for Direct<'_> {
    fn exchange(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        Some(self.device.handle(self.now, frame))
    }

    fn now(&self) -> Duration {
        self.now
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.fill(7);
    }
}
