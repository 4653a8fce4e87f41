//! The sixteen sessions of a device.

use std::time::Duration;

use super::channel::Channel;
use super::codes::DeviceError;

/// How many there can be at once.
pub const SESSIONS: usize = 16;
/// How long one lives without a command.
pub const IDLE: Duration = Duration::from_secs(30);

/// One host's session.
pub(crate) struct Session {
    /// The authentication key that opened it.
    pub(crate) key: u16,
    pub(crate) channel: Channel,
    last_used: Duration,
}

/// The table of sessions. It is lost when the power is.
#[derive(Default)]
pub(crate) struct Sessions([Option<Session>; SESSIONS]);

impl Sessions {
    /// Ends the sessions that were idle for too long.
    pub(crate) fn expire(&mut self, now: Duration) {
        for slot in &mut self.0 {
            if slot.as_ref().is_some_and(|session| now.saturating_sub(session.last_used) >= IDLE) {
                *slot = None;
            }
        }
    }

    /// The lowest number that no session has.
    pub(crate) fn free(&self) -> Result<u8, DeviceError> {
        // assume: numbers are given from 0, the lowest first.
        let free = self.0.iter().position(Option::is_none);
        free.map(|n| n as u8).ok_or(DeviceError::SessionsFull)
    }

    pub(crate) fn insert(&mut self, id: u8, key: u16, channel: Channel, now: Duration) {
        self.0[usize::from(id)] = Some(Session { key, channel, last_used: now });
    }

    /// A session, which this use keeps alive.
    pub(crate) fn touch(&mut self, id: u8, now: Duration) -> Result<&mut Session, DeviceError> {
        let session = self.0.get_mut(usize::from(id)).and_then(Option::as_mut);
        let session = session.ok_or(DeviceError::InvalidSession)?;
        session.last_used = now;
        Ok(session)
    }

    pub(crate) fn close(&mut self, id: u8) {
        if let Some(slot) = self.0.get_mut(usize::from(id)) {
            *slot = None;
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.0.iter().flatten().count()
    }
}
