//! The consensus of a CometBFT node, as its signer meets it.
//!
//! [`Engine`] follows the step rules of CometBFT, so that its signer is asked what a real node's would be: proposals
//! with and without proof of lock, prevotes and precommits for blocks and nil, round skips, nil precommits while it
//! catches up, and all of a height again after a restart. It has no socket, clock, thread or entropy of its own: a
//! [`Port`] is the world around it, and one engine serves an event loop ([`crate::network`]) as well as a task that
//! waits on a socket.
//!
//! How to drive it:
//!
//! 1. [`Engine::new`] with the last decided block, then [`Engine::start`] with the log.
//! 2. [`Engine::handle`] for each message of a peer, each of its own messages that the port queued, and each timeout
//!    that the port set, one after the other: the next only when the future of the one before is done.
//! 3. [`Engine::status`] and [`Engine::missing`] are for those who carry gossip.
//!
//! The rules are CometBFT's, from `consensus/state.go`, `consensus/replay.go`, `consensus/ticker.go`,
//! `consensus/types/height_vote_set.go` and `types/vote_set.go` of v0.34.27, v0.37.18, v0.38.25 and v0.40.0, and from
//! the same files under `internal/consensus` of v1.0.1. CometBFT is under the Apache License 2.0; this is written
//! anew after it. Comments name CometBFT's functions without repeating the files.
//!
//! What it leaves out: changes of the validator set, unequal powers, blocks of several parts, proposer-based
//! timestamps, `create_empty_blocks = false`, `skip_timeout_commit`, and the claims of two thirds with which peers make
//! each other track conflicting votes.

mod app;
mod authority;
mod gossip;
mod intake;
mod log;
mod port;
mod rules;
mod signing;
mod state;
mod steps;
mod timers;
mod types;
mod votes;

use std::rc::Rc;

use monosign_protocol::message::Timestamp;
use monosign_protocol::{ChainId, Dialect, Height, Round};

pub use app::App;
pub use authority::{Authority, Scheme, Validator, digest_signature};
pub use log::{Entry, Storage};
pub use port::{Event, GaveUp, Halt, Plan, Port};
pub use rules::LockRule;
pub use timers::{Timeout, Timeouts, later, until};
pub use types::{Attested, Block, Decided, Gossip, Part, Peer, RoundStep, Status};

use crate::node::{Blocks, Requests, Verifier};
use signing::Identity;
use state::RoundState;
use timers::Ticker;

/// The chain that a node is on, and how it runs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The chain, as its genesis names it.
    pub chain_id: ChainId,
    /// The release that the node runs.
    pub dialect: Dialect,
    /// What a lock binds to; [`LockRule::of`] gives the release's.
    pub lock_rule: LockRule,
    /// The chain's first height, at least 1.
    pub initial_height: Height,
    /// The time in genesis, which is that of the first block.
    pub genesis_time: Timestamp,
    /// The validators, at most 64. They propose in turn: in round 0 of the first height the first one.
    pub validators: Rc<[Validator]>,
    /// Whether the chain has vote extensions on. Ignored by dialects that have none.
    pub extensions: bool,
    /// How long the steps last.
    pub timeouts: Timeouts,
}

/// The consensus of one node: a state machine over messages and timeouts, with a [`Port`] for all that it does.
#[derive(Debug)]
pub struct Engine {
    settings: Settings,
    authority: Authority,
    requests: Requests,
    verifier: Verifier,
    identity: Option<Identity>,
    state: RoundState,
    ticker: Ticker,
    replaying: bool,
    halted: Option<Halt>,
}

/// What goes into consensus.
#[derive(Debug, Clone)]
pub enum Input {
    /// A peer said something.
    Peer(Peer, Gossip),
    /// The node's own message, from the queue that [`Port::enqueue`] fills.
    Own(Gossip),
    /// A timeout of [`Port::schedule`] fired.
    Timeout(Timeout),
}

impl Settings {
    /// A chain of a release, from height 1, with the release's lock rule and CometBFT's default timeouts.
    pub fn new(
        chain_id: ChainId,
        dialect: Dialect,
        genesis_time: Timestamp,
        validators: Rc<[Validator]>,
    ) -> Self {
        Self {
            chain_id,
            dialect,
            lock_rule: LockRule::of(dialect),
            initial_height: Height(1),
            genesis_time,
            validators,
            extensions: false,
            timeouts: Timeouts::default(),
        }
    }

    /// The place in the validator set of the proposer of a round.
    pub fn proposer(&self, height: Height, round: Round) -> usize {
        let turns = (height.0 - self.initial_height.0) + i64::from(round.0);
        usize::try_from(turns).unwrap_or(0).checked_rem(self.validators.len()).unwrap_or(0)
    }

    fn has_extensions(&self) -> bool {
        self.extensions && self.dialect.has_extensions()
    }
}

impl Engine {
    /// A node that decided `last`, or nothing yet, and that does nothing before [`Engine::start`].
    pub fn new(settings: Settings, last: Option<&Decided>) -> Self {
        let extensions = settings.has_extensions();
        let chain_id = settings.chain_id.clone();
        // The application makes blocks and extensions, so those of the request maker are never used.
        let bytes = extensions.then_some(0);
        let requests = Requests::new(chain_id.clone(), settings.dialect, bytes, Blocks::new([0; 32]));
        Self {
            authority: Authority::new(chain_id.clone(), Rc::clone(&settings.validators), extensions),
            requests,
            verifier: Verifier::new(chain_id, settings.dialect, extensions, None),
            identity: None,
            state: RoundState::after(last, settings.initial_height, settings.validators.len()),
            ticker: Ticker::default(),
            replaying: false,
            halted: None,
            settings,
        }
    }

    /// Starts the node: it asks for the public key as often as a real one, runs the log's entries of its height again,
    /// which asks for their signatures again, and sets the timer for the first round.
    ///
    /// The key is asked for four times: when the listener begins (`node/setup.go`), for the node's information, by
    /// consensus (SetPrivValidator) and for the RPC server (`node/node.go`).
    ///
    /// A node that got blocks from its peers by block sync starts without a log, that is with an empty one.
    pub async fn start(&mut self, log: &[Entry], port: &mut impl Port) {
        for _ in 0..KEY_REQUESTS_AT_START {
            self.ask_key(port).await;
        }
        self.state.start_time = later(port.now(), self.settings.timeouts.commit);
        self.replay(log, port).await;
        self.schedule_new_height(port);
    }

    /// Takes in one message or timeout and does all that follows from it. Whoever drops the future before it is done
    /// must drop the engine too: the node died.
    pub async fn handle(&mut self, input: Input, port: &mut impl Port) {
        if self.halted.is_some() {
            return;
        }
        match input {
            Input::Peer(from, message) => {
                port.append(Entry::Message { from: Some(from), message: message.clone() });
                self.take_in(Some(from), message, port).await;
            }
            Input::Own(message) => {
                port.append(Entry::Message { from: None, message: message.clone() });
                port.flush().await;
                self.take_in(None, message, port).await;
            }
            Input::Timeout(timeout) => {
                port.append(Entry::Timeout(timeout));
                self.take_timeout(timeout, port).await;
            }
        }
    }

    /// The height that is being decided.
    pub fn height(&self) -> Height {
        self.state.height
    }

    /// The round.
    pub fn round(&self) -> Round {
        self.state.round
    }

    /// The step.
    pub fn step(&self) -> RoundStep {
        self.state.step
    }

    /// Why the node stopped for good, if it did.
    pub fn halted(&self) -> Option<Halt> {
        self.halted
    }

    /// The block that the node is locked on, and the round in which it precommitted it.
    pub fn locked(&self) -> Option<(Round, &Block)> {
        self.state.locked.as_ref().map(|locked| (locked.round, &*locked.block))
    }

    /// The latest block that two thirds prevoted, as far as the node has it, and the round of that.
    pub fn valid(&self) -> Option<(Round, &Block)> {
        self.state.valid.as_ref().map(|valid| (valid.round, &*valid.block))
    }

    /// The place in the validator set of the proposer of a round of this height.
    pub fn proposer(&self, round: Round) -> usize {
        self.settings.proposer(self.state.height, round)
    }

    async fn replay(&mut self, log: &[Entry], port: &mut impl Port) {
        let height = self.state.height;
        let is_first = height == self.settings.initial_height;
        let before = if is_first { Height(0) } else { Height(height.0 - 1) };
        self.replaying = true;
        for entry in log::replayed(log, before, height).unwrap_or_default() {
            if self.halted.is_some() {
                break;
            }
            match entry {
                Entry::EndHeight(_) => {}
                Entry::Message { from, message } => self.take_in(*from, message.clone(), port).await,
                Entry::Timeout(timeout) => self.take_timeout(*timeout, port).await,
            }
        }
        self.replaying = false;
    }

    /// Sets the node's timer, unless it is set for something later.
    fn schedule(
        &mut self,
        after: std::time::Duration,
        height: Height,
        round: Round,
        step: RoundStep,
        port: &mut impl Port,
    ) {
        if self.ticker.takes(height, round, step) {
            port.schedule(Timeout { after, height, round, step });
        }
    }

    fn schedule_new_height(&mut self, port: &mut impl Port) {
        let after = until(port.now(), self.state.start_time);
        self.schedule(after, self.state.height, Round(0), RoundStep::NewHeight, port);
    }
}

const KEY_REQUESTS_AT_START: usize = 4;
