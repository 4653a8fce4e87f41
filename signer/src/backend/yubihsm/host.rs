//! What opens sessions with a device: the seam below the driver.

use std::fmt;

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

/// What it means that the device answered a command on `key` with the error of this number, which reads as `what` (yubihsm-shell
/// `lib/yubihsm.h`, `yh_rc`; on the wire without its sign). Only an error that is about the command itself says that it was not done. Any other, as
/// that of storage, may have come up after a signature was made.
pub fn device_said(code: u8, what: impl fmt::Display, key: u16) -> DeviceError {
    match code {
        0x01 | 0x02 | 0x08 | 0x0c => DeviceError::Refused(what.to_string()),
        0x09 => DeviceError::Refused(format!(
            "{what}\nhint: the authentication key needs the capability `sign-eddsa`, and so does the key"
        )),
        0x05 => DeviceError::SessionsFull,
        0x0a => DeviceError::LogFull,
        0x0b => DeviceError::NoKey {
            key,
            reason: format!("it has no key {key:#06x}, or it is not in a domain of our authentication key"),
        },
        _ => DeviceError::Lost { reason: format!("it failed: {what}"), session_spent: true },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_error_about_the_command_itself_says_that_nothing_was_signed() {
        let clean: Vec<u8> = (0..=255).filter(|code| device_said(*code, "", 1).is_clean()).collect();
        assert_eq!(clean, [0x01, 0x02, 0x08, 0x09, 0x0a, 0x0b, 0x0c]);
    }
}
