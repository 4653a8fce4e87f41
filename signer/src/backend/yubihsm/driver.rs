//! A YubiHSM as a driver: sessions are opened when they are needed, and never used after anything unclean.

use std::sync::Arc;

use super::Settings;
use super::by_crate::CrateHost;
use super::host::{Host, Session};
use crate::backend::device::{DeviceError, Driver, Reply, Request};

/// The longest message that is signed, in bytes. A frame of the device has 2048: three of head, one of session, eight of MAC, and
/// whole blocks of 16 for the command, of which three are head, two the key's number, and at least one is padding.
pub const MAX_MESSAGE: usize = (2048 - 3 - 1 - 8) / 16 * 16 - 3 - 2 - 1;

/// A YubiHSM 2, by a host: the `yubihsm` crate, unless it is a simulated one.
pub struct YubihsmDriver<H: Host = CrateHost> {
    settings: Arc<Settings>,
    host: H,
    session: Option<H::Session>,
}

impl<H: Host> YubihsmDriver<H> {
    /// A driver that opens its first session when it is first asked.
    pub fn over(host: H, settings: Arc<Settings>) -> Self {
        Self { settings, host, session: None }
    }

    /// An open session, and the host that it needs.
    pub(super) fn into_session(mut self) -> Result<(H::Session, H), DeviceError> {
        self.session()?;
        let session = self.session.take().ok_or_else(no_session)?;
        Ok((session, self.host))
    }

    fn session(&mut self) -> Result<&mut H::Session, DeviceError> {
        if self.session.is_none() {
            let mut session = self.host.open(&self.settings)?;
            self.check_serial(&mut session)?;
            self.session = Some(session);
        }
        self.session.as_mut().ok_or_else(no_session)
    }

    /// Which device is behind a connector is the connector's choice.
    fn check_serial(&self, session: &mut H::Session) -> Result<(), DeviceError> {
        let Some(expected) = &self.settings.serial else { return Ok(()) };
        let found = session.info()?.serial;
        if found == *expected {
            return Ok(());
        }
        let reason = format!("the device there has serial number `{found}`");
        Err(DeviceError::Lost { reason, session_spent: true })
    }
}

impl<H: Host> Driver for YubihsmDriver<H> {
    fn perform(&mut self, request: &Request) -> Result<Reply, DeviceError> {
        let len = match request {
            Request::Sign { message, .. } => message.len(),
            _ => 0,
        };
        if len > MAX_MESSAGE {
            return Err(DeviceError::TooLong { len, max: MAX_MESSAGE });
        }
        let done = ask(self.session()?, request);
        if matches!(done, Err(DeviceError::Lost { .. } | DeviceError::WrongPassword)) {
            self.session = None;
        }
        done
    }
}

fn ask(session: &mut impl Session, request: &Request) -> Result<Reply, DeviceError> {
    match request {
        Request::PublicKey(key) => session.public_key(*key).map(Reply::PublicKey),
        Request::Sign { key, message } => {
            session.sign(*key, message).map(|signature| Reply::Signature(Box::new(signature)))
        }
        Request::LogHasRoom => session.info().map(|info| Reply::LogHasRoom(info.log_has_room)),
        Request::Log => session.log().map(Reply::Log),
        Request::MarkRead(item) => session.mark_read(*item).map(|()| Reply::Done),
    }
}

fn no_session() -> DeviceError {
    DeviceError::Lost { reason: "it gave no session".into(), session_spent: false }
}
