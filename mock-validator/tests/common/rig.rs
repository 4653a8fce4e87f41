//! An engine, its signer and its disk in the hands of a test, which plays the other three validators.

use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ed25519_dalek::SigningKey;
use mock_validator::consensus::{
    App, Attested, Block, Decided, Engine, Entry, Event, GaveUp, Gossip, Input, Part, Peer, Plan, Port,
    Scheme, Settings, Storage, Timeout, Validator, later,
};
use mock_validator::network::{LocalSigner, Signer};
use monosign_protocol::message::{BlockId, Message, PartSetHeader, Proposal, Timestamp, Vote};
use monosign_protocol::{Dialect, Height, Round};

pub(crate) const NIL: &str = "-";
pub(crate) const PREVOTE: i32 = 1;
pub(crate) const PRECOMMIT: i32 = 2;

/// The engine of one of four validators. Own messages come back to it at once, unless the test holds them.
pub(crate) struct Rig {
    pub(crate) engine: Engine,
    world: World,
    settings: Settings,
    pub(crate) holds_own_messages: bool,
}

/// What the engine sees of the world.
pub(crate) struct World {
    signer: LocalSigner,
    pub(crate) app: App,
    storage: Storage,
    pub(crate) now: Timestamp,
    /// Changes each answer.
    pub(crate) answer: Option<fn(Message) -> Message>,
    timer: Option<Timeout>,
    own: Vec<Gossip>,
    asked: Vec<String>,
    pub(crate) requests: Vec<Message>,
    pub(crate) last_request: Option<Message>,
    pub(crate) published: Vec<String>,
    pub(crate) events: Vec<Event>,
}

impl std::ops::Deref for Rig {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

impl std::ops::DerefMut for Rig {
    fn deref_mut(&mut self) -> &mut World {
        &mut self.world
    }
}

impl Rig {
    /// A started node, in the pause before height 1.
    pub(crate) fn new(dialect: Dialect, validator: usize) -> Self {
        Self::with(dialect, validator, false)
    }

    /// The same with vote extensions on.
    pub(crate) fn extended(dialect: Dialect, validator: usize) -> Self {
        Self::with(dialect, validator, true)
    }

    fn with(dialect: Dialect, validator: usize, extensions: bool) -> Self {
        crate::deadline::for_this_test();
        let validators =
            (0..4).map(|n| Validator { key: key(n).verifying_key(), scheme: Scheme::Ed25519 }).collect();
        let settings = Settings::new("test".parse().unwrap(), dialect, GENESIS, validators);
        let settings = Settings { extensions, ..settings };
        let world = World {
            signer: LocalSigner::new(key(validator), dialect, Scheme::Ed25519),
            app: App::new([1; 32]),
            storage: Storage::default(),
            now: later(GENESIS, Duration::from_secs(100)),
            answer: None,
            timer: None,
            own: Vec::new(),
            asked: Vec::new(),
            requests: Vec::new(),
            last_request: None,
            published: Vec::new(),
            events: Vec::new(),
        };
        let engine = Engine::new(settings.clone(), None);
        let mut rig = Self { engine, world, settings, holds_own_messages: false };
        rig.start();
        rig.asked();
        rig
    }

    /// The pause is over.
    pub(crate) fn in_round_0(mut self) -> Self {
        self.timeout();
        self
    }

    pub(crate) fn in_round(mut self, round: i32) -> Self {
        for validator in 0..3 {
            self.vote(PRECOMMIT, round - 1, NIL, validator);
        }
        self.timeout();
        self.asked();
        assert_eq!(self.engine.round(), Round(round));
        self
    }

    /// Round 0 has two thirds of prevotes for `block`, which the node precommits.
    pub(crate) fn locked_in_round_0(self, block: &str) -> Self {
        let mut rig = self.in_round_0();
        rig.propose(0, -1, block);
        for validator in 0..4 {
            rig.vote(PREVOTE, 0, block, validator);
        }
        assert_eq!(rig.engine.locked().map(|(round, _)| round), Some(Round(0)));
        rig.asked();
        rig
    }

    /// The peers precommit nil in `round`, and its timeout passes.
    pub(crate) fn next_round(&mut self, round: i32) {
        for validator in 0..4 {
            self.vote(PRECOMMIT, round, NIL, validator);
        }
        while self.engine.round() == Round(round) {
            self.timeout();
        }
    }

    pub(crate) fn vote(&mut self, vote_type: i32, round: i32, block: &str, validator: usize) {
        self.vote_at(vote_type, self.engine.height().0, round, block, validator);
    }

    /// A vote of a peer. The rig says that its signature is good.
    pub(crate) fn vote_at(&mut self, vote_type: i32, height: i64, round: i32, block: &str, validator: usize) {
        let vote = Vote {
            vote_type,
            height: Height(height),
            round: Round(round),
            block_id: id(block),
            timestamp: self.now,
            validator_index: validator as i32,
            ..Vote::default()
        };
        let vote = Gossip::Vote(Rc::new(Attested::judged(vote, true)));
        self.handle(Input::Peer(Peer(validator), vote));
    }

    /// A proposal and its block.
    pub(crate) fn propose(&mut self, round: i32, pol_round: i32, block: &str) {
        self.proposal(round, pol_round, block);
        self.block(block);
    }

    pub(crate) fn proposal(&mut self, round: i32, pol_round: i32, block: &str) {
        let proposal = Proposal {
            height: self.engine.height(),
            round: Round(round),
            pol_round: Round(pol_round),
            block_id: id(block),
            timestamp: self.now,
            ..Proposal::default()
        };
        let proposal = Gossip::Proposal(Rc::new(Attested::judged(proposal, true)));
        self.handle(Input::Peer(Peer(0), proposal));
    }

    pub(crate) fn block(&mut self, block: &str) {
        let (height, round) = (self.engine.height(), self.engine.round());
        let block = Rc::new(Block { id: id(block), height, time: self.block_time() });
        self.handle(Input::Peer(Peer(0), Gossip::Part(Rc::new(Part { height, round, block }))));
    }

    /// The time of every block.
    pub(crate) fn block_time(&self) -> Timestamp {
        GENESIS
    }

    /// The timer that is set.
    pub(crate) fn timer(&self) -> Timeout {
        self.timer.unwrap()
    }

    /// The timer fires.
    pub(crate) fn timeout(&mut self) {
        let timeout = self.timer.take().unwrap();
        self.handle(Input::Timeout(timeout));
    }

    /// What was asked since the last time.
    pub(crate) fn asked(&mut self) -> Vec<String> {
        std::mem::take(&mut self.world.asked)
    }

    /// The node's own messages come back to it.
    pub(crate) fn take_own(&mut self) {
        while !self.own.is_empty() {
            let message = self.own.remove(0);
            finish(self.engine.handle(Input::Own(message), &mut self.world));
        }
    }

    /// The node dies and starts a while later.
    pub(crate) fn restart(&mut self, after: Duration) {
        self.storage.crash();
        self.own.clear();
        self.timer = None;
        self.now = later(self.now, after);
        self.engine = Engine::new(self.settings.clone(), self.world.storage.last());
        self.start();
    }

    /// The signer has the key of another validator from now on.
    pub(crate) fn swap_key(&mut self, validator: usize) {
        self.signer = LocalSigner::new(key(validator), self.settings.dialect, Scheme::Ed25519);
    }

    /// The name that a test gave to a block.
    pub(crate) fn name(&self, id: &BlockId) -> String {
        name(id)
    }

    fn start(&mut self) {
        let log = self.storage.log().to_vec();
        finish(self.engine.start(&log, &mut self.world));
    }

    fn handle(&mut self, input: Input) {
        finish(self.engine.handle(input, &mut self.world));
        if !self.holds_own_messages {
            self.take_own();
        }
    }
}

impl Port for World {
    fn now(&self) -> Timestamp {
        self.now
    }

    async fn ask(&mut self, request: &Message) -> Result<Option<Message>, GaveUp> {
        self.asked.push(describe(request));
        self.requests.push(request.clone());
        self.last_request = Some(request.clone());
        let answer = self.signer.answer(request);
        Ok(match self.answer {
            Some(change) => answer.map(change),
            None => answer,
        })
    }

    fn schedule(&mut self, timeout: Timeout) {
        self.timer = Some(timeout);
    }

    fn enqueue(&mut self, message: Gossip) {
        self.own.push(message);
    }

    fn publish(&mut self, message: &Gossip) {
        if let Gossip::Vote(vote) = message {
            self.published.push(describe_vote(vote.content()));
        }
    }

    fn append(&mut self, entry: Entry) {
        self.storage.append(entry);
    }

    async fn flush(&mut self) {
        self.storage.flush();
    }

    fn build_block(&mut self, plan: &Plan) -> Rc<Block> {
        self.app.build_block(plan)
    }

    fn accepts(&mut self, _: &Block) -> bool {
        true
    }

    fn extend(&mut self, height: Height, round: Round, block: &BlockId) -> Vec<u8> {
        self.app.extend(height, round, block)
    }

    async fn save(&mut self, decided: Decided) {
        self.storage.save(decided);
    }

    fn report(&mut self, event: Event) {
        self.events.push(event);
    }
}

fn describe(request: &Message) -> String {
    match request {
        Message::PubKeyRequest(_) => "key".to_owned(),
        Message::SignVoteRequest(request) => describe_vote(request.vote.as_ref().unwrap()),
        Message::SignProposalRequest(request) => {
            let Proposal { height, round, pol_round, block_id, .. } = request.proposal.as_ref().unwrap();
            match pol_round.0 {
                -1 => format!("proposal {height} {round} new"),
                pol => format!("proposal {height} {round} {} {pol}", name(block_id)),
            }
        }
        other => panic!("asked {other:?}"),
    }
}

fn describe_vote(vote: &Vote) -> String {
    let kind = if vote.vote_type == PREVOTE { "prevote" } else { "precommit" };
    format!("{kind} {} {} {}", vote.height, vote.round, name(&vote.block_id))
}

fn finish<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => panic!("nothing here waits"),
    }
}

fn key(validator: usize) -> SigningKey {
    SigningKey::from_bytes(&[validator as u8 + 1; 32])
}

fn id(name: &str) -> BlockId {
    if name == NIL {
        return BlockId::default();
    }
    let mut hash = name.as_bytes().to_vec();
    hash.resize(32, 0);
    BlockId { part_set_header: PartSetHeader { total: 1, hash: hash.clone() }, hash }
}

fn name(id: &BlockId) -> String {
    if id.is_nil() {
        return NIL.to_owned();
    }
    String::from_utf8_lossy(&id.hash).trim_end_matches('\0').to_owned()
}

const GENESIS: Timestamp = Timestamp { seconds: 1_700_000_000, nanos: 0 };
