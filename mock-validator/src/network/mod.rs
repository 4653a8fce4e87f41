//! A network of validators in an event loop.
//!
//! [`Network`] runs nodes, each with an [`Engine`](crate::consensus::Engine), a disk and a [`Signer`], over links with
//! latency, loss and partitions, in simulated time: [`Network::advance_to`] does all that is due. It reads no clock
//! and draws from its seed alone, a stream for each link and each node: equal calls make equal runs, which
//! [`Network::digest`] shows.
//!
//! Some validators may run elsewhere, with an engine of their own, say in a task of a simulator that asks a real
//! signer over a simulated socket. [`Network::add_seat`] makes a [`Seat`] for such a one.
//!
//! An oracle sees every signature and every decision, and reports what must never be: [`Violation`].
//!
//! Peers' signatures are checked once for each message, not once for each node ([`Attested`]).
//!
//! ```
//! use std::time::Duration;
//! use mock_validator::network::{Network, Options};
//! use monosign_protocol::Dialect;
//!
//! let mut network = Network::of_validators(4, Options::new("test-chain".parse()?, Dialect::V0_38, 7));
//! network.advance_to(Duration::from_secs(30));
//! assert!(network.lowest_height().0 > 10);
//! assert!(network.violations().is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod digest;
mod faults;
mod gossip;
mod node;
mod oracle;
mod random;
mod seat;
mod signer;

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::rc::Rc;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use monosign_protocol::message::Timestamp;
use monosign_protocol::{ChainId, Dialect, Height};
use sha2::{Digest as _, Sha256};

pub use faults::{Faults, Latency};
pub use node::{Behaviour, NodeOptions};
pub use oracle::Violation;
pub use random::Stream;
pub use seat::Seat;
pub use signer::{LocalSigner, SharedSigner, Signer};

#[cfg(doc)]
use crate::consensus::Attested;
use crate::consensus::{App, Authority, Gossip, Input, Peer, Scheme, Settings, Timeout, Validator};
use digest::Digest;
use faults::Links;
use node::{Done, Effect, Node, Surroundings};
use oracle::Oracle;

/// What a network of validators with keys from a seed is made of.
#[derive(Debug, Clone)]
pub struct Options {
    /// The chain.
    pub chain_id: ChainId,
    /// The release that all nodes run.
    pub dialect: Dialect,
    /// Where all chance comes from.
    pub seed: u64,
    /// How the validators sign.
    pub scheme: Scheme,
    /// How long messages take.
    pub latency: Latency,
    /// Whether vote extensions are on.
    pub extensions: bool,
}

/// How often things happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests to signers.
    pub asked: u64,
    /// Refusals by signers.
    pub refused: u64,
    /// Answers of signers that no signer may give.
    pub misbehaved: u64,
    /// Messages that a node dropped although they were its own.
    pub own_invalid: u64,
    /// Proposals of peers that were dropped.
    pub invalid_proposals: u64,
    /// Nodes that stopped for good.
    pub halted: u64,
    /// Conflicting votes that nodes saw; each may be seen often.
    pub conflicting_votes: u64,
    /// Deaths of nodes by chance.
    pub deaths: u64,
}

/// Nodes and the links between them.
pub struct Network {
    settings: Settings,
    seed: u64,
    faults: Faults,
    now: Duration,
    places: Vec<Place>,
    links: Links,
    queue: BinaryHeap<Reverse<Scheduled>>,
    scheduled: u64,
    ticks: u64,
    downtime: (Latency, Stream),
    oracle: Oracle,
    counts: Counts,
    digest: Digest,
}

enum Place {
    Inside(Box<Node>),
    Outside(Seat),
}

struct Scheduled {
    at: Duration,
    /// In the order in which they were scheduled, those due at once.
    number: u64,
    event: NetworkEvent,
}

enum NetworkEvent {
    Start(Peer),
    Deliver { from: Peer, to: Peer, message: Gossip },
    Timer { peer: Peer, number: u64, timeout: Timeout },
    Wake(Peer),
    Tick,
}

impl Options {
    /// A network with Ed25519 keys, links of 20 to 80 ms and extensions off.
    pub fn new(chain_id: ChainId, dialect: Dialect, seed: u64) -> Self {
        let ms = Duration::from_millis;
        let latency = Latency { min: ms(20), max: ms(80) };
        Self { chain_id, dialect, seed, scheme: Scheme::Ed25519, latency, extensions: false }
    }

    /// The key of a validator.
    pub fn key(&self, validator: usize) -> SigningKey {
        let hash = Sha256::new().chain_update("validator").chain_update(self.seed.to_le_bytes());
        SigningKey::from_bytes(&hash.chain_update((validator as u64).to_le_bytes()).finalize().into())
    }

    /// The chain of so many validators with these keys.
    pub fn settings(&self, validators: usize) -> Settings {
        let keys = (0..validators).map(|validator| self.key(validator).verifying_key());
        let validators = keys.map(|key| Validator { key, scheme: self.scheme }).collect();
        let genesis = Timestamp { seconds: 1_700_000_000, nanos: 0 };
        let settings = Settings::new(self.chain_id.clone(), self.dialect, genesis, validators);
        Settings { extensions: self.extensions, ..settings }
    }

    /// A signer for a validator's key, with FilePV's rules.
    pub fn signer(&self, validator: usize) -> LocalSigner {
        LocalSigner::new(self.key(validator), self.dialect, self.scheme)
    }

    /// An honest node with a right clock.
    pub fn node(&self, signer: impl Signer + 'static) -> NodeOptions {
        NodeOptions {
            signer: Rc::new(RefCell::new(signer)),
            app: App::new(Sha256::digest(self.seed.to_le_bytes()).into()),
            clock_ahead: Duration::ZERO,
            signer_latency: Latency::constant(Duration::from_millis(1)),
            behaviour: Behaviour::Honest,
        }
    }
}

impl Network {
    /// An empty network for a chain. Nodes and seats take their places in the order in which they are added.
    pub fn new(settings: Settings, options: &Options) -> Self {
        let seed = options.seed;
        let validators = Rc::clone(&settings.validators);
        let extensions = settings.extensions && settings.dialect.has_extensions();
        let authority = Authority::new(settings.chain_id.clone(), validators, extensions);
        let ms = Duration::from_millis;
        let mut network = Self {
            settings,
            seed,
            faults: Faults::default(),
            now: Duration::ZERO,
            places: Vec::new(),
            links: Links::new(seed, options.latency),
            queue: BinaryHeap::new(),
            scheduled: 0,
            ticks: 0,
            downtime: (Latency { min: ms(200), max: ms(10_000) }, Stream::new(seed, "downtime", [0, 0])),
            oracle: Oracle::new(authority),
            counts: Counts::default(),
            digest: Digest::default(),
        };
        network.schedule(GOSSIP_EVERY, NetworkEvent::Tick);
        network
    }

    /// A network of so many honest validators.
    pub fn of_validators(validators: usize, options: Options) -> Self {
        let mut network = Self::new(options.settings(validators), &options);
        for validator in 0..validators {
            network.add_node(options.node(options.signer(validator)));
        }
        network
    }

    /// Adds a node, which starts at once.
    pub fn add_node(&mut self, options: NodeOptions) -> Peer {
        let peer = Peer(self.places.len());
        self.places.push(Place::Inside(Box::new(Node::new(peer, options, self.seed))));
        self.schedule(self.now, NetworkEvent::Start(peer));
        peer
    }

    /// Adds a place for a node that runs elsewhere.
    pub fn add_seat(&mut self) -> Seat {
        let seat = Seat::new(Peer(self.places.len()));
        self.places.push(Place::Outside(seat.clone()));
        seat
    }

    /// The seat at a place; `None` if a node of the network's own is there.
    pub fn seat(&self, peer: Peer) -> Option<Seat> {
        match self.places.get(peer.0)? {
            Place::Outside(seat) => Some(seat.clone()),
            Place::Inside(_) => None,
        }
    }

    /// The chain, which a node elsewhere needs for its [`Engine`](crate::consensus::Engine).
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Does all that is due until `time` since the network began. Costs next to nothing if nothing is.
    pub fn advance_to(&mut self, time: Duration) {
        self.collect_from_seats();
        while self.queue.peek().is_some_and(|next| next.0.at <= time) {
            let Some(Reverse(next)) = self.queue.pop() else { break };
            self.now = next.at;
            self.happen(next.event);
        }
        self.now = self.now.max(time);
    }

    /// The time since the network began.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// When the next thing is due.
    pub fn next_event(&self) -> Option<Duration> {
        self.queue.peek().map(|next| next.0.at)
    }

    /// How often things go wrong from now on.
    pub fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// How long messages take from now on, in one direction.
    pub fn set_latency(&mut self, from: Peer, to: Peer, latency: Latency) {
        self.links.set_latency(from, to, latency);
    }

    /// Nothing gets through in one direction, until [`Network::heal`].
    pub fn cut(&mut self, from: Peer, to: Peer) {
        self.links.cut(from, to);
    }

    /// Nothing gets through between those named and all others, until [`Network::heal`].
    pub fn partition(&mut self, side: &[Peer]) {
        for other in (0..self.places.len()).map(Peer).filter(|peer| !side.contains(peer)) {
            for peer in side {
                self.links.cut(*peer, other);
                self.links.cut(other, *peer);
            }
        }
    }

    /// Everything gets through again.
    pub fn heal(&mut self) {
        self.links.heal();
    }

    /// Kills a node of the network's own, which starts again after `downtime`. If it is in the middle of something, it
    /// dies once that is done.
    pub fn crash(&mut self, peer: Peer, downtime: Duration) {
        if let Some(node) = self.node(peer) {
            node.die();
            let at = self.now + downtime;
            self.schedule(at, NetworkEvent::Start(peer));
        }
    }

    /// What a node's disk lost besides: its whole log, as after a reset.
    pub fn lose_log(&mut self, peer: Peer) {
        if let Some(node) = self.node(peer) {
            node.storage.lose_log();
        }
    }

    /// The height that a node decides on, or will when it is up again.
    pub fn height(&self, peer: Peer) -> Height {
        match self.places.get(peer.0) {
            Some(Place::Inside(node)) => node.height(self.settings.initial_height),
            Some(Place::Outside(seat)) => seat.status().unwrap_or_default().height,
            None => Height(0),
        }
    }

    /// The height of the node that is behind all others.
    pub fn lowest_height(&self) -> Height {
        (0..self.places.len()).map(|place| self.height(Peer(place))).min().unwrap_or_default()
    }

    /// What must never be, and was.
    pub fn violations(&self) -> &BTreeSet<Violation> {
        self.oracle.violations()
    }

    /// How often things happened.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// A fingerprint of every request and decision.
    pub fn digest(&self) -> u64 {
        self.digest.value()
    }

    fn node(&mut self, peer: Peer) -> Option<&mut Node> {
        match self.places.get_mut(peer.0)? {
            Place::Inside(node) => Some(node),
            Place::Outside(_) => None,
        }
    }

    fn schedule(&mut self, at: Duration, event: NetworkEvent) {
        self.scheduled += 1;
        self.queue.push(Reverse(Scheduled { at, number: self.scheduled, event }));
    }

    fn happen(&mut self, event: NetworkEvent) {
        match event {
            NetworkEvent::Start(peer) => self.start(peer),
            NetworkEvent::Deliver { from, to, message } => self.deliver(from, to, message),
            NetworkEvent::Timer { peer, number, timeout } => {
                if let Some(node) = self.node(peer) {
                    node.fire(number, timeout);
                }
                self.pump(peer);
            }
            NetworkEvent::Wake(peer) => {
                if let Some(node) = self.node(peer) {
                    node.is_waking = false;
                }
                self.pump(peer);
            }
            NetworkEvent::Tick => {
                self.gossip();
                let at = self.now + GOSSIP_EVERY;
                self.schedule(at, NetworkEvent::Tick);
            }
        }
    }

    fn deliver(&mut self, from: Peer, to: Peer, message: Gossip) {
        match &mut self.places[to.0] {
            Place::Outside(seat) => seat.deliver(from, message),
            Place::Inside(node) => {
                if node.engine.is_some() {
                    node.inbox.push_back(Input::Peer(from, message));
                    self.pump(to);
                }
            }
        }
    }

    /// A node starts, unless it is up. If its peers are further it first gets their blocks, as by block sync, and then
    /// does not look at its log (`consensus/reactor.go`, SwitchToConsensus).
    fn start(&mut self, peer: Peer) {
        let synced = self.sync_blocks(peer);
        self.with_node(peer, |node, around| {
            if node.engine.is_some() {
                return None;
            }
            Some(node.start(!synced, around))
        });
        self.pump(peer);
    }

    /// Gives a node what is in its inbox, until it is busy.
    fn pump(&mut self, peer: Peer) {
        loop {
            let now = self.now;
            let Some(node) = self.node(peer) else { return };
            if node.busy_until > now {
                let at = node.busy_until;
                if !std::mem::replace(&mut node.is_waking, true) {
                    self.schedule(at, NetworkEvent::Wake(peer));
                }
                return;
            }
            let Some(input) = node.next_input() else { return };
            self.with_node(peer, |node, around| Some(node.handle(input, around)));
        }
    }

    fn with_node(&mut self, peer: Peer, work: impl FnOnce(&mut Node, Surroundings<'_>) -> Option<Done>) {
        let Place::Inside(node) = &mut self.places[peer.0] else { return };
        let around = Surroundings {
            now: self.now,
            settings: &self.settings,
            faults: self.faults,
            oracle: &mut self.oracle,
            counts: &mut self.counts,
            digest: &mut self.digest,
        };
        let Some(Done { effects, survived }) = work(node, around) else { return };
        for (after, effect) in effects {
            let at = self.now + after;
            match effect {
                Effect::Publish(message) => self.broadcast(peer, message, at),
                Effect::Timer(number, timeout) => {
                    self.schedule(at, NetworkEvent::Timer { peer, number, timeout });
                }
            }
        }
        if !survived {
            let downtime = self.downtime.0.draw(&mut self.downtime.1);
            self.crash(peer, downtime);
        }
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Scheduled {}

/// How often nodes look what their peers lack: CometBFT's `peer_gossip_sleep_duration`.
const GOSSIP_EVERY: Duration = Duration::from_millis(100);
