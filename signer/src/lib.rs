//! x
pub mod backend;
pub mod cli;
pub mod consensus_key;
pub mod import;
pub mod ops;
pub mod pubkey;
