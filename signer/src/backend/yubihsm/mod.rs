//! Keys on YubiHSM 2 devices, by the `yubihsm` crate.
//!
//! The crate is used as it is, and never trusted: [`YubihsmDriver`] drops its session after whatever is not a clean error of the
//! device, and [`proxy`] stands between it and a connector's HTTP. What is cured where, by the defects of `yubihsm` 0.42.1:
//!
//! | defect | cure |
//! |---|---|
//! | the timeout of HTTP is always 20 s | [`proxy`]: real deadlines; and the owner's deadline over all |
//! | a session that the device has forgotten is used for ever | a new client after any unclean error |
//! | an answer in two TCP segments is garbled | [`proxy`]: one write |
//! | after an answer that cannot be read, counters are out of step | a new client |
//! | a list ends silently at an element that the crate does not know | lists are counted |
//! | a long message panics and poisons the client | lengths are checked before; panics are caught |
//! | a USB claim is held by an abandoned call | its timeout is shorter than the deadline |
//! | sessions are never closed, since the crate's client has no way to | openings are counted, and retried while all are in use |

mod audit_file;
mod by_crate;
mod driver;
pub mod host;
mod proxy;
pub mod unlock;
pub mod witness;
mod witnessed;

use std::fmt;
use std::time::Duration;

use secrecy::SecretString;

use super::device::Limits;
pub use audit_file::AuditFileError;
pub use by_crate::{CrateHost, Opened, read_log};
pub use driver::{MAX_MESSAGE, YubihsmDriver};
pub use proxy::Proxy;
pub use witnessed::{Audit, CAPACITY, KEPT, Witnessed};

/// How a device is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Adapter {
    /// A `yubihsm-connector`.
    Http {
        /// Its host.
        host: String,
        /// Its port.
        port: u16,
    },
    /// USB, in this process; only if built with the feature `usb`.
    Usb,
}

/// A device, and how to be let in.
#[derive(Clone)]
pub struct Settings {
    /// How it is reached.
    pub adapter: Adapter,
    /// The longest that one exchange with it may take.
    pub timeout: Duration,
    /// Its serial number, if the configuration names one: ten digits.
    pub serial: Option<String>,
    /// The number of our authentication key.
    pub auth_key: u16,
    /// The password of that key.
    pub password: SecretString,
}

/// The default of [`Settings::timeout`]: ten times what a signature takes.
pub const TIMEOUT: Duration = Duration::from_millis(1500);

impl Settings {
    /// What the owner of the device keeps to. A lost exchange must be known as lost before the owner gives up, or the call
    /// still holds the device.
    pub fn limits(&self) -> Limits {
        Limits { deadline: self.timeout + Duration::from_millis(250), max_message: MAX_MESSAGE }
    }

    /// The device in a few words.
    pub fn name(&self) -> String {
        match (&self.serial, &self.adapter) {
            (Some(serial), _) => format!("yubihsm {serial}"),
            (None, Adapter::Http { host, port }) => format!("yubihsm at {host}:{port}"),
            (None, Adapter::Usb) => "yubihsm".into(),
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("name", &self.name())
            .field("auth_key", &self.auth_key)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod stops;
#[cfg(test)]
mod tests;
