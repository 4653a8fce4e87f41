//! A YubiHSM 2 at the wire level, so that the unmodified `yubihsm` crate is what is tested.
//!
//! [`Device`] is the device: bytes in, bytes out, with sessions (SCP03), objects, capabilities, domains and the audit log. It
//! has no clock, no entropy and no socket of its own. [`Connector`] puts one behind the HTTP of Yubico's
//! `yubihsm-connector`, adds the [latency](latency) of hardware, and fails on [command](faults).
//!
//! It is written from Yubico's published protocol and was never held against a device. Each guess about the device is marked
//! `assume:` in the source and listed in the README. [`Host`] is its other end where there is neither HTTP nor time, as in a
//! simulation.
//!
//! ```
//! use std::time::Duration;
//!
//! let mut device = mock_yubihsm::Device::new(b"password", Box::new(|bytes| bytes.fill(7)));
//! // A list of objects without a session is refused: error frame 0x7f, code 1, invalid command.
//! assert_eq!(device.handle(Duration::ZERO, &[0x48, 0, 0]), [0x7f, 0, 1, 1]);
//! ```

pub mod connector;
pub mod device;
pub mod faults;
pub mod host;
pub mod latency;

pub use connector::Connector;
pub use device::Device;
pub use host::Host;
