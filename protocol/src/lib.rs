//! What a CometBFT validator and its remote signer say to each other.
//!
//! This crate is fully deterministic: it has no sockets, no clock and no entropy of its own. Bytes go in,
//! messages and bytes come out; randomness is an argument. The production signer, the mock validator and the
//! simulator all speak through it.
//!
//! Start at [`message::Message`] for what is said, [`sign_bytes`] for what is signed, [`frame`] for how
//! messages are delimited, and [`secret_connection`] and [`noise`] for how they are protected.
//!
//! ```
//! use monosign_protocol::{frame, message::Message};
//!
//! let mut wire = Vec::new();
//! frame::encode(&Message::PingRequest, &mut wire);
//! assert_eq!(wire, [0x02, 0x3a, 0x00]);
//! ```

pub mod chain_id;
pub mod dialect;
pub mod frame;
pub mod hrs;
pub mod message;
pub mod noise;
pub mod secret_connection;
pub mod sign_bytes;
mod wire;

pub use chain_id::ChainId;
pub use dialect::Dialect;
pub use hrs::{Height, Hrs, Round, Step};
