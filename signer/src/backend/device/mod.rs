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

use tokio::time::Instant;

use super::yubihsm::witness::AuditLog;
use crate::pubkey::PublicKey;
use crate::seams::Local;

pub use failover::Failover;
pub use owner::{Device, DeviceKey, Lack, LackKind, Limits};
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
    /// The password is wrong. Devices lock after a few of these.
    #[error("it refuses the password")]
    WrongPassword,
    /// The token does not let us in with the PIN that we have, in its words. Tokens lock after a few wrong
    /// ones.
    #[error("{0}")]
    WrongPin(String),
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
    /// Its log tells of what must not be. It is asked nothing more, and its keys are locked everywhere.
    #[error("{0}")]
    Alarm(String),
    /// What is known of its log cannot be read or kept, or it does not show its log. Its keys are held everywhere while that lasts.
    #[error("{0}")]
    Unwatched(String),
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

/// Whom an error is about, and so what it stops.
///
/// | error | what it stops | until |
/// |---|---|---|
/// | [`TooLong`](DeviceError::TooLong), [`Refused`](DeviceError::Refused) | this request | |
/// | [`Lost`](DeviceError::Lost), [`Deadline`](DeviceError::Deadline), [`SessionsFull`](DeviceError::SessionsFull), [`LogFull`](DeviceError::LogFull) | this device | it is over |
/// | [`NoKey`](DeviceError::NoKey), and a key that is not the record's | this key on this device | it is there |
/// | [`WrongPassword`](DeviceError::WrongPassword), [`WrongPin`](DeviceError::WrongPin), and a signature that does not verify | this device | a restart |
/// | [`Unwatched`](DeviceError::Unwatched) | its keys, on every device | it is over; after a failed write, a restart |
/// | [`Alarm`](DeviceError::Alarm) | its keys, on every device | `monosign yubihsm unlock` |
///
/// Where another device has the key, it signs on in all rows but the last two. A key file has no such errors: it is sealed, or it signs; and
/// it is stopped with the devices that hold the same key. A token has no log, and so no witness: its errors are those of the first four rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// What was asked.
    Request,
    /// The device, while it lasts.
    Device,
    /// One key on the device, while it lasts.
    KeyOnDevice,
    /// The device, until a restart.
    DeviceForGood,
    /// The key, on every device, while it lasts.
    Key,
    /// The key, on every device, until an operator has gone on.
    KeyUntilUnlocked,
}

impl DeviceError {
    /// Whom it is about.
    pub fn about(&self) -> About {
        match self {
            Self::TooLong { .. } | Self::Refused(_) => About::Request,
            Self::Lost { .. } | Self::Deadline | Self::SessionsFull | Self::LogFull => About::Device,
            Self::NoKey { .. } => About::KeyOnDevice,
            Self::WrongPassword | Self::WrongPin(_) => About::DeviceForGood,
            Self::Unwatched(_) => About::Key,
            Self::Alarm(_) => About::KeyUntilUnlocked,
        }
    }

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

    /// Whether the device's log was looked at since the start, if it is looked at at all.
    fn has_looked(&self) -> bool {
        true
    }

    /// When its log must be looked at, also if nobody asks for anything until then.
    fn due(&self) -> Option<Instant> {
        None
    }

    /// Writes an alarm down where the next start looks before it asks the device.
    fn keep_alarm<'a>(&'a self, _alarm: &'a str) -> Local<'a, Result<(), DeviceError>> {
        Box::pin(async { Ok(()) })
    }
}

#[cfg(test)]
mod tests;
