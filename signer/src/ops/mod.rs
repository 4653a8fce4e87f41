//! The process around the signer: files, logs, hardening.

pub mod access;
pub mod durable_file;
pub mod log_limit;
pub mod log_sink;
pub mod private_file;
pub mod process;
pub mod redact;
pub mod secret_source;
pub mod told;
pub mod turn;
pub mod unread;
