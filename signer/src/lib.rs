//! x
pub mod consensus_key;
pub mod ops;
pub mod pubkey;
