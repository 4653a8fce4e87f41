//! The conformance suite: what every CometBFT validator wants of its remote signer, tried on any signer.
//!
//! A [`Case`] is one rule with its source. [`run`] waits for a signer behind a [`Door`], tries the cases one after the other
//! and gives a [`Summary`]. A signer needs to know the chain id, and to dial in; with a [`Process`] it is started, killed and
//! robbed of its state, too.
//!
//! Cases ask at heights that nothing was asked at before, so one that fails does not make others fail. A case about what is
//! *refused* is content with a connection that ends; that each refusal is answered is a rule of its own. So a signer fails the
//! cases that name what it does wrong, and no others.
//!
//! The suite is tested as well: `mock-validator/tests/conform.rs` breaks one rule after the other in a signer that is right
//! otherwise, and sees that the case of that rule fails.

mod bench;
pub mod by_hand;
mod case;
mod conflicts;
mod door;
mod extensions;
mod frames;
mod framing;
mod handshake;
mod link;
mod load;
mod process;
mod pubkey;
mod race;
mod reconnect;
mod refusals;
mod regressions;
mod repeats;
mod restart;
mod run;
mod signing;
mod situations;
mod source;
mod syncs;
mod verdicts;

use std::time::Duration;

use ed25519_dalek::{SigningKey, VerifyingKey};
use monosign_protocol::message::Timestamp;
use monosign_protocol::{ChainId, Dialect, Height};

pub use bench::Bench;
pub use case::{Case, Level, Outcome};
pub use door::{Door, SocketDoor, Stream, Waiting};
pub use process::{End, Process, ShellCommand};
pub use run::{CannotRun, Finding, Summary, run};

/// What to try on which signer.
pub struct Options {
    /// The chain, as the signer knows it.
    pub chain_id: ChainId,
    /// The release that the validators run.
    pub dialect: Dialect,
    /// The first height; it has to be above what the signer has signed on this chain.
    pub first_height: Height,
    /// The key that the signer must have; `None` takes the one it shows first.
    pub expected_key: Option<VerifyingKey>,
    /// Where the signer dials in: one door for each validator that it serves, of which two are used.
    pub doors: Vec<Box<dyn Door>>,
    /// How the signer is started, if the suite is to do that.
    pub process: Option<Box<dyn Process>>,
    /// Cases to try, by their ids or groups; all, if this is empty.
    pub only: Vec<String>,
    /// How many signatures to ask for under load.
    pub signatures: u32,
    /// How long things may take.
    pub limits: Limits,
    /// The time of the first request.
    pub start: Timestamp,
    /// What the block hashes are made from.
    pub seed: [u8; 32],
    /// The validators' identity on encrypted transports.
    pub identity: SigningKey,
    /// Gives 32 fresh random bytes at each call, for the handshakes.
    pub entropy: Box<dyn FnMut() -> [u8; 32]>,
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The signer's first dial.
    pub wait: Duration,
    /// An answer. Nodes wait 5 s (`privval/signer_endpoint.go`, `defaultTimeoutReadWriteSeconds`).
    pub answer: Duration,
    /// A signer that lost its connection, until it counts as gone.
    pub connect: Duration,
    /// A signer that lost its connection, until it is too late: a node that starts waits 3 s
    /// (`privval/socket_listeners.go`, `defaultTimeoutAcceptSeconds`).
    pub back: Duration,
    /// A signer whose validator fell silent, until it dials again. Nodes ping every 3.3 s, so there is no reason to wait long.
    pub silence: Duration,
    /// How long the signer stays dead before it is started again.
    pub pause: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            wait: Duration::from_secs(60),
            answer: Duration::from_secs(5),
            connect: Duration::from_secs(15),
            back: Duration::from_secs(3),
            silence: Duration::from_secs(20),
            pause: Duration::ZERO,
        }
    }
}

/// All cases, in the order in which they are tried: those that take real time come late, and last those that signers die of.
pub fn cases() -> Vec<Case> {
    [
        pubkey::cases(),
        signing::cases(),
        extensions::cases(),
        repeats::cases(),
        conflicts::cases(),
        regressions::cases(),
        refusals::cases(),
        framing::cases(),
        frames::cases(),
        handshake::cases(),
        link::cases(),
        situations::cases(),
        race::cases(),
        load::cases(),
        restart::cases(),
        reconnect::cases(),
        refusals::hostile_cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
