//! What opens sessions with a device: the seam below the driver.

use super::Settings;
use super::witness::AuditLog;
use crate::backend::device::DeviceError;
use crate::pubkey::PublicKey;

/// Opens sessions: the `yubihsm` crate in production, and the simulator's own in a simulation.
pub trait Host {
    /// What it opens.
    type Session: Session;

    /// Opens one.
    ///
    /// # Errors
    /// [`DeviceError`], which says whether a session was left open on the device.
    fn open(&mut self, settings: &Settings) -> Result<Self::Session, DeviceError>;
}

/// One session. Calls block. After [`Lost`](DeviceError::Lost), it must not be used any more, and it is its user who sees to that.
pub trait Session {
    /// What the device says of itself.
    ///
    /// # Errors
    /// [`DeviceError`]
    fn info(&mut self) -> Result<Info, DeviceError>;

    /// The public key of a key.
    ///
    /// # Errors
    /// [`DeviceError`]
    fn public_key(&mut self, key: u16) -> Result<PublicKey, DeviceError>;

    /// An Ed25519 signature, which nobody has verified yet.
    ///
    /// # Errors
    /// [`DeviceError`]; unless it is a clean one, it may have been made.
    fn sign(&mut self, key: u16, message: &[u8]) -> Result<[u8; 64], DeviceError>;

    /// The unread part of the log, all of it.
    ///
    /// # Errors
    /// [`DeviceError`]; an alarm if it cannot all be read.
    fn log(&mut self) -> Result<AuditLog, DeviceError>;

    /// Marks entries of the log as read, up to the one of this number.
    ///
    /// # Errors
    /// [`DeviceError`]
    fn mark_read(&mut self, item: u16) -> Result<(), DeviceError>;
}

/// What a device says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// Its serial number, ten digits.
    pub serial: String,
    /// Whether its log has an entry that is free or read.
    pub log_has_room: bool,
}
