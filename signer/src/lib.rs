//! The remote signer: everything that stands between a validator's request and its signature.
//!
//! A request comes over a [`link`], is unsealed and decoded by a [`session`], judged by the [`guard`], recorded durably
//! in the [`record`], signed by a [`backend`] and verified before it is released; the [`chain`] is that one path. The world
//! comes in through the [`seams`] alone, so that the simulator runs this code and no other.
//!
//! With a key that is shared, [`threshold`] stands in the place of record and backend.
//!
//! Start at [`chain::Chain`].

pub mod backend;
pub mod chain;
pub mod cli;
pub mod config;
pub mod consensus_key;
#[cfg(test)]
#[path = "../../protocol/tests/common/deadline.rs"]
mod deadline;
pub mod guard;
pub mod import;
pub mod link;
pub mod ops;
pub mod pubkey;
pub mod record;
pub mod seams;
pub mod session;
pub mod start;
pub mod threshold;

#[cfg(test)]
mod secrets_in_debug;
