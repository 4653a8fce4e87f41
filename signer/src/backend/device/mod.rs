//! Keys on devices, whatever their make.
//!
//! ```text
//! Failover ──▶ DeviceKey ──▶ Device: queue, deadline, state ──▶ Executor ──▶ Driver, which blocks
//! (a chain)    (number)      (one owner of the device)          (a thread)   (yubihsm)
//! ```
//!
//! A [`Driver`] is the vendor's protocol: it blocks and may hang. An [`Executor`] makes it a future that can be abandoned; its
//! production form is [`OwnThread`], and the simulator calls the driver inline and adds the time it takes. [`Device`] decides: when
//! to ask, when to give up, what to wait for. [`Failover`] is the backend of a chain, over one key on one or more devices.

mod failover;
mod owner;
mod thread;

use super::yubihsm::witness::AuditLog;
use crate::pubkey::PublicKey;
use crate::seams::Local;

pub use failover::Failover;
pub use owner::{Device, DeviceKey, Limits};
pub use thread::OwnThread;

/// What a device is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// The public key of a key, by its number.
    PublicKey(u16),
    /// An Ed25519 signature.
    Sign {
        /// The number of the key.
        key: u16,
        /// What is signed.
        message: Vec<u8>,
    },
    /// Whether its audit log has an entry that is free or read.
    LogHasRoom,
    /// Its audit log.
    Log,
    /// Marks the entries of its audit log as read, up to the one of this number.
    MarkRead(u16),
}

/// What a device answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// To [`Request::PublicKey`].
    PublicKey(PublicKey),
    /// To [`Request::Sign`]; nobody has verified it yet.
    Signature(Box<[u8; 64]>),
    /// To [`Request::LogHasRoom`].
    LogHasRoom(bool),
    /// To [`Request::Log`].
    Log(AuditLog),
    /// To [`Request::MarkRead`].
    Done,
}

/// Why a device gives no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// It cannot be reached, or what it said made no sense. Whatever session there was is given up; what was asked may
    /// have been done.
    #[error("{reason}")]
    Lost {
        /// What happened.
        reason: String,
        /// Whether a session was left open on the device, where it uses up one of few places for a while.
        session_spent: bool,
    },
    /// It gave no answer in time. What was asked may be done, or still be to be done.
    #[error("no answer in time")]
    Deadline,
    /// The password or PIN is wrong. Devices lock after a few of these.
    #[error("it refuses the password")]
    WrongPassword,
    /// It has no place for another session.
    #[error("all its sessions are in use, those that are idle end within 30 s")]
    SessionsFull,
    /// There is no such key, none that we may see, or no telling which it is.
    #[error("{reason}")]
    NoKey {
        /// Its number.
        key: u16,
        /// What was looked for, in the device's terms.
        reason: String,
    },
    /// It signs nothing until its audit log is read.
    #[error("its audit log is full: nothing is signed until somebody reads it")]
    LogFull,
    /// Something is wrong that no machine puts right: it is asked nothing more.
    #[error("{0}")]
    Alarm(String),
    /// It refuses what is asked, and is well otherwise.
    #[error("it refuses: {0}")]
    Refused(String),
    /// The message is longer than it takes.
    #[error("the message has {len} bytes, and it takes {max}")]
    TooLong {
        /// The message's length.
        len: usize,
        /// The most it takes.
        max: usize,
    },
}

impl DeviceError {
    /// Whether the device itself said that it does not do what was asked, so that it has not been done and will not be.
    pub fn is_clean(&self) -> bool {
        matches!(self, Self::NoKey { .. } | Self::LogFull | Self::Refused(_) | Self::TooLong { .. })
    }
}

/// A device's protocol. Calls block, and may take as long as they like.
pub trait Driver {
    /// Does one thing.
    ///
    /// # Errors
    /// [`DeviceError`]. After [`Lost`](DeviceError::Lost), the next call begins with a new session.
    fn perform(&mut self, request: &Request) -> Result<Reply, DeviceError>;
}

/// A driver as a future.
pub trait Executor {
    /// Does one thing. Dropping the future abandons it: it may be done all the same, or later. One at a time.
    fn execute(&self, request: Request) -> Local<'_, Result<Reply, DeviceError>>;
}

#[cfg(test)]
mod tests;
