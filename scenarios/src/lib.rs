//! The deterministic simulator of monosign: the production signer in a world that crashes, tears writes, partitions,
//! reconnects, changes rounds and duplicates keys and state, from a seed, the same way each time.
//!
//! A [`scenario::Scenario`] is data: hosts, network, a timeline of acts, what must hold. A run of it under a seed gives an
//! [`outcome::Outcome`]: what was violated, what was reached, and a hash of every event, down to the packets.
//!
//! It replaces sockets, disk, clock, entropy and the latency of devices, never anything inside the signer. Only the signatures
//! that were made and released are judged, by an oracle outside of it.

#[cfg(not(tokio_unstable))]
compile_error!(
    "the simulator needs `--cfg tokio_unstable`: run cargo inside `scenarios/`, whose .cargo/config.toml sets it, and without \
     RUSTFLAGS in the environment, which would replace it (or add the flag there)"
);

pub mod cli;
pub mod counters;
pub mod disk;
pub mod explore;
pub mod jobs;
pub mod library;
pub mod oracle;
pub mod outcome;
pub mod planted;
pub mod quorum;
pub mod reach;
pub mod run;
pub mod scenario;
pub mod streams;
pub mod sweep;
pub mod trace;
pub mod world;

#[cfg(test)]
#[path = "../../protocol/tests/common/deadline.rs"]
mod deadline;
#[cfg(test)]
mod testing;
