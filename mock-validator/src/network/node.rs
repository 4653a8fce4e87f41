//! A node inside the network: its engine, disk, signer and clock.

use std::collections::VecDeque;
use std::future::pending;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use monosign_protocol::message::{BlockId, Message, Timestamp};
use monosign_protocol::{Height, Round};

use super::oracle::Oracle;
use super::random::Stream;
use super::signer::{SharedSigner, refuse};
use super::{Counts, Faults, Latency, digest::Digest};
use crate::consensus::{
    App, Block, Decided, Engine, Entry, Event, GaveUp, Gossip, Input, Peer, Plan, Port, Settings, Storage,
    Timeout, later,
};

/// A node that the network runs itself.
pub struct NodeOptions {
    /// Its signer. Two nodes with the same one are twins.
    pub signer: SharedSigner,
    /// Its application.
    pub app: App,
    /// How far its clock is ahead.
    pub clock_ahead: Duration,
    /// How long its signer takes for an answer.
    pub signer_latency: Latency,
    /// How it behaves.
    pub behaviour: Behaviour,
}

/// How a node behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// By the rules.
    Honest,
    /// Whenever it votes for a block it also votes for nil, and tells each to half of its peers. Its signer must be an
    /// unguarded one.
    Equivocating,
}

pub(super) struct Node {
    pub(super) peer: Peer,
    pub(super) options: NodeOptions,
    pub(super) storage: Storage,
    pub(super) engine: Option<Engine>,
    pub(super) inbox: VecDeque<Input>,
    own: VecDeque<Gossip>,
    /// Counts the settings of the timer: what fires with an older number was replaced.
    timer: u64,
    pub(super) busy_until: Duration,
    pub(super) is_waking: bool,
    order: Stream,
    fate: Stream,
}

/// What a node did, and how long after it was given the input.
pub(super) enum Effect {
    Publish(Gossip),
    Timer(u64, Timeout),
}

/// What every node of a network shares.
pub(super) struct Surroundings<'a> {
    pub(super) now: Duration,
    pub(super) settings: &'a Settings,
    pub(super) faults: Faults,
    pub(super) oracle: &'a mut Oracle,
    pub(super) counts: &'a mut Counts,
    pub(super) digest: &'a mut Digest,
}

/// What became of an input.
pub(super) struct Done {
    pub(super) effects: Vec<(Duration, Effect)>,
    pub(super) survived: bool,
}

impl Node {
    pub(super) fn new(peer: Peer, options: NodeOptions, seed: u64) -> Self {
        Self {
            peer,
            options,
            storage: Storage::default(),
            engine: None,
            inbox: VecDeque::new(),
            own: VecDeque::new(),
            timer: 0,
            busy_until: Duration::ZERO,
            is_waking: false,
            order: Stream::new(seed, "order", [peer.0, 0]),
            fate: Stream::new(seed, "fate", [peer.0, 0]),
        }
    }

    /// What the node takes in next. CometBFT draws among its queues at random.
    pub(super) fn next_input(&mut self) -> Option<Input> {
        let own_first = self.inbox.is_empty() || self.order.next().is_multiple_of(2);
        if own_first && let Some(message) = self.own.pop_front() {
            return Some(Input::Own(message));
        }
        self.inbox.pop_front()
    }

    /// A timer fired: it counts unless it was replaced since.
    pub(super) fn fire(&mut self, number: u64, timeout: Timeout) {
        if number == self.timer && self.engine.is_some() {
            self.inbox.push_back(Input::Timeout(timeout));
        }
    }

    /// The node died: what was not on its disk is gone.
    pub(super) fn die(&mut self) {
        self.engine = None;
        self.storage.crash();
        self.inbox.clear();
        self.own.clear();
        self.timer += 1;
    }

    pub(super) fn start(&mut self, uses_log: bool, around: Surroundings<'_>) -> Done {
        let mut engine = Engine::new(around.settings.clone(), self.storage.last());
        let log = if uses_log { self.storage.log().to_vec() } else { Vec::new() };
        self.run(around, async move |port| {
            engine.start(&log, port).await;
            engine
        })
    }

    pub(super) fn handle(&mut self, input: Input, around: Surroundings<'_>) -> Done {
        let Some(mut engine) = self.engine.take() else {
            return Done { effects: Vec::new(), survived: true };
        };
        self.run(around, async move |port| {
            engine.handle(input, port).await;
            engine
        })
    }

    /// Nothing in here ever waits: time passes by being counted. So a future that is not ready is a node that died.
    fn run<'a>(
        &'a mut self,
        around: Surroundings<'a>,
        work: impl AsyncFnOnce(&mut NodePort<'a>) -> Engine,
    ) -> Done {
        let mut port = NodePort { node: self, around, elapsed: Duration::ZERO, effects: Vec::new() };
        let polled = pin!(work(&mut port)).poll(&mut Context::from_waker(Waker::noop()));
        let (engine, survived) = match polled {
            Poll::Ready(engine) => (Some(engine), true),
            Poll::Pending => (None, false),
        };
        let NodePort { node, around, elapsed, effects } = port;
        node.engine = engine;
        node.busy_until = around.now + elapsed;
        Done { effects, survived }
    }
}

/// The world of a node inside the network.
struct NodePort<'a> {
    node: &'a mut Node,
    around: Surroundings<'a>,
    elapsed: Duration,
    effects: Vec<(Duration, Effect)>,
}

impl NodePort<'_> {
    fn dies(&mut self, per_million: u32) -> bool {
        let dies = self.node.fate.happens(per_million);
        self.around.counts.deaths += u64::from(dies);
        dies
    }

    fn effect(&mut self, effect: Effect) {
        self.effects.push((self.elapsed, effect));
    }

    fn ask_signer(&mut self, request: &Message) -> Option<Message> {
        self.node.options.signer.borrow_mut().answer(request)
    }
}

impl Port for NodePort<'_> {
    fn now(&self) -> Timestamp {
        let passed = self.around.now + self.elapsed + self.node.options.clock_ahead;
        later(self.around.settings.genesis_time, passed)
    }

    async fn ask(&mut self, request: &Message) -> Result<Option<Message>, GaveUp> {
        self.around.counts.asked += 1;
        self.around.digest.request(self.node.peer, request);
        let faults = self.around.faults;
        if self.dies(faults.death_in_ask) {
            if self.node.fate.happens(500_000) {
                self.ask_signer(request);
            }
            return pending().await;
        }
        self.elapsed += self.node.options.signer_latency.draw(&mut self.node.fate);
        if self.node.fate.happens(faults.slow_answer) {
            self.elapsed += Latency { min: Duration::ZERO, max: Faults::SLOW }.draw(&mut self.node.fate);
        }
        while self.node.fate.happens(faults.lost_answer) {
            self.ask_signer(request);
            self.elapsed += RETRY_AFTER;
        }
        if self.node.fate.happens(faults.error_answer) {
            if self.node.fate.happens(500_000) {
                self.ask_signer(request);
            }
            return Ok(refuse(request, "out of order"));
        }
        Ok(self.ask_signer(request))
    }

    fn schedule(&mut self, timeout: Timeout) {
        self.node.timer += 1;
        self.effects.push((self.elapsed + timeout.after, Effect::Timer(self.node.timer, timeout)));
    }

    fn enqueue(&mut self, message: Gossip) {
        match &message {
            Gossip::Vote(vote) => self.around.oracle.saw_vote(vote),
            Gossip::Proposal(proposal) => self.around.oracle.saw_proposal(self.around.settings, proposal),
            Gossip::Part(_) => {}
        }
        self.node.own.push_back(message);
    }

    fn publish(&mut self, message: &Gossip) {
        self.effect(Effect::Publish(message.clone()));
    }

    fn append(&mut self, entry: Entry) {
        self.node.storage.append(entry);
    }

    async fn flush(&mut self) {
        if self.dies(self.around.faults.death_in_flush) {
            return pending().await;
        }
        self.node.storage.flush();
    }

    fn build_block(&mut self, plan: &Plan) -> Rc<Block> {
        self.node.options.app.build_block(plan)
    }

    fn accepts(&mut self, _: &Block) -> bool {
        true
    }

    fn extend(&mut self, height: Height, round: Round, block: &BlockId) -> Vec<u8> {
        self.node.options.app.extend(height, round, block)
    }

    async fn save(&mut self, decided: Decided) {
        let dies = self.dies(self.around.faults.death_in_save);
        if dies && self.node.fate.happens(500_000) {
            return pending().await;
        }
        self.around.oracle.saw_decision(&decided);
        self.around.digest.decision(self.node.peer, &decided);
        self.node.storage.save(decided);
        if dies {
            pending().await
        }
    }

    fn report(&mut self, event: Event) {
        let counts = &mut *self.around.counts;
        match event {
            Event::Refused(..) => counts.refused += 1,
            Event::Misbehaved(_) => counts.misbehaved += 1,
            Event::OwnInvalid(_) => counts.own_invalid += 1,
            Event::Halted(_) => counts.halted += 1,
            Event::ConflictingVotes(..) => counts.conflicting_votes += 1,
            Event::InvalidProposal(_) => counts.invalid_proposals += 1,
            Event::NoAnswer(_) => {}
        }
    }
}

/// What a node's client waits before it asks again on a new connection, as observed.
const RETRY_AFTER: Duration = Duration::from_millis(200);
