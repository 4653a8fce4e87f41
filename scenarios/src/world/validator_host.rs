//! A host that runs a node: CometBFT's consensus, asking a signer over the simulated network, among peers of the event loop.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::future::pending;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use mock_validator::consensus::{
    App, Block, Decided, Engine, Entry, Event, GaveUp, Gossip, Input, Peer, Plan, Port, Scheme, Settings,
    Storage, Timeout, Timeouts, Validator,
};
use mock_validator::endpoint::{self, Accept, Event as Seen, Failure, RetryClient, SignerEndpoint};
use mock_validator::link::{LinkError, Transport};
use mock_validator::network::{Faults, Latency, Network, Options, Seat};
use mock_validator::node::Misbehaviour;
use mock_validator::node::probes::{self, Expectation, Probe};
use monosign_protocol::message::{BlockId, Message, SignedVoteResponse, Timestamp, Vote};
use monosign_protocol::{ChainId, Dialect, Height, Round};
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::{Instant, interval, sleep_until};
use turmoil::net::TcpListener;

use super::EPOCH;
use super::hosts::{Hosts, Power};
use super::keys::Keys;
use super::signer_host::PORT;
use super::wire::{Tap, Wire};
use crate::oracle::{Oracle, SETTLED};
use crate::outcome::Invariant;
use crate::reach::Reach;
use crate::run::Run;
use crate::scenario::{self, SpanRange};
use crate::streams::Streams;

/// What a host of a node keeps while its processes come and go.
pub(super) struct ValidatorHost {
    pub(super) name: Rc<str>,
    pub(super) tap: Tap,
    seat: Seat,
    dialect: Cell<Dialect>,
    skew_ms: Cell<i64>,
    storage: RefCell<Storage>,
    app: RefCell<App>,
    starts: Cell<u64>,
    equivocates: Cell<bool>,
    crash_awaiting: Cell<Option<Duration>>,
    crash_answered: Cell<Option<Duration>>,
    /// The node has come to the point where it was to die; it starts again after this.
    crash: Cell<Option<Duration>>,
    asking: Cell<bool>,
    signed: Heights,
    passed: Heights,
    behind: Heights,
    shared: Rc<ValidatorShared>,
}

/// Heights, each of which is counted if it is above the last.
#[derive(Default)]
struct Heights {
    last: Cell<Height>,
    count: Cell<u64>,
}

impl Heights {
    fn reached(&self, height: Height) {
        if height > self.last.get() {
            self.last.set(height);
            self.count.set(self.count.get() + 1);
        }
    }
}

/// What all nodes of a world share: the chain and its peers.
pub(super) struct ValidatorShared {
    network: RefCell<Network>,
    cut_off: RefCell<BTreeSet<Peer>>,
    peers: Vec<Peer>,
    seats: Vec<Seat>,
    app: App,
    settings: Settings,
    hosts: Rc<Hosts>,
    oracle: Rc<RefCell<Oracle>>,
    reach: Reach,
    streams: Streams,
    /// How many requests for signatures are on their way.
    in_flight: Cell<u64>,
    /// Until when the world is disturbed, since its start; `None` while it is.
    disturbed_until: Cell<Option<Duration>>,
}

impl ValidatorShared {
    pub(super) fn new(
        run: &Run,
        validators: &[scenario::Validator],
        keys: &Keys,
        hosts: &Rc<Hosts>,
        oracle: &Rc<RefCell<Oracle>>,
        reach: &Reach,
        chain_id: &ChainId,
    ) -> anyhow::Result<Rc<Self>> {
        let (chain, streams) = (&run.scenario.chain, Streams::new(run.seed));
        let mut options = Options::new(chain_id.clone(), run.dialect, run.seed);
        options.latency = latency(chain.latency);
        // Peers are honest by design: their signatures need not cost what ours do.
        options.scheme = Scheme::Digest;
        let ours = streams.of("place in the validator set").below(chain.validators as u64) as usize;
        let settings =
            settings(run, &options, ours, &keys.key, validators.iter().any(|v| v.dialect.is_some()));
        let mut network = Network::new(settings.clone(), &options);
        let seats: Vec<_> = validators.iter().map(|_| network.add_seat()).collect();
        let mut peers = Vec::new();
        for validator in (0..chain.validators).filter(|validator| *validator != ours) {
            peers.push(network.add_node(options.node(options.signer(validator))));
        }
        let mut app = App::new(streams.of("app").key());
        app.new_transactions = chain.rebuilds_blocks;
        app.extension_bytes = chain.extension_bytes.unwrap_or_default();
        let shared = Self {
            network: RefCell::new(network),
            cut_off: RefCell::default(),
            peers,
            seats,
            app,
            settings,
            hosts: Rc::clone(hosts),
            oracle: Rc::clone(oracle),
            reach: reach.clone(),
            streams,
            in_flight: Cell::new(0),
            disturbed_until: Cell::new(Some(SETTLED)),
        };
        shared.set_gossip(chain.latency, chain.loss_percent);
        Ok(Rc::new(shared))
    }

    /// Gossip and peers go on until this time.
    pub(super) fn advance_to(&self, now: Duration) {
        self.network.borrow_mut().advance_to(now);
    }

    /// What the chain itself saw that must never be.
    pub(super) fn violations(&self) -> Vec<String> {
        self.network.borrow().violations().iter().map(|violation| format!("{violation:?}")).collect()
    }

    pub(super) fn disturbed_until(&self, until: Option<Duration>) {
        self.disturbed_until.set(until.map(|until| until.max(SETTLED)));
    }

    pub(super) fn set_gossip(&self, range: SpanRange, loss_percent: u8) {
        let mut network = self.network.borrow_mut();
        let all: Vec<_> = self.seats.iter().map(Seat::peer).chain(self.peers.iter().copied()).collect();
        for from in &all {
            for to in &all {
                network.set_latency(*from, *to, latency(range));
            }
        }
        network.set_faults(Faults { loss: u32::from(loss_percent) * 10_000, ..Faults::default() });
    }

    /// So many peers go away; who.
    pub(super) fn peers_away(&self, count: usize) -> Vec<usize> {
        let away: Vec<_> = {
            let cut_off = self.cut_off.borrow();
            self.peers.iter().filter(|peer| !cut_off.contains(peer)).take(count).copied().collect()
        };
        for peer in &away {
            self.cut_off(*peer, true);
        }
        away.into_iter().map(|peer| peer.0).collect()
    }

    pub(super) fn peers_back(&self, away: &[usize]) {
        for peer in away {
            self.cut_off(Peer(*peer), false);
        }
    }

    fn cut_off(&self, peer: Peer, cut: bool) {
        let mut cut_off = self.cut_off.borrow_mut();
        match cut {
            true => cut_off.insert(peer),
            false => cut_off.remove(&peer),
        };
        let mut network = self.network.borrow_mut();
        network.heal();
        for peer in &*cut_off {
            network.partition(&[*peer]);
        }
    }
}

fn latency(range: SpanRange) -> Latency {
    Latency { min: range.from, max: range.to }
}

fn settings(run: &Run, options: &Options, ours: usize, key: &SigningKey, mixed: bool) -> Settings {
    let chain = &run.scenario.chain;
    let validator = |place| match place == ours {
        true => Validator { key: key.verifying_key(), scheme: Scheme::Ed25519 },
        false => Validator { key: options.key(place).verifying_key(), scheme: Scheme::Digest },
    };
    let validators = (0..chain.validators).map(validator).collect();
    let genesis = Timestamp { seconds: EPOCH.as_secs() as i64, nanos: 0 };
    let mut settings = Settings::new(options.chain_id.clone(), run.dialect, genesis, validators);
    settings.initial_height = Height(chain.first_height as i64);
    // Releases without extensions cannot be among nodes that have them.
    settings.extensions = chain.extension_bytes.is_some() && !mixed;
    settings.timeouts = Timeouts { commit: chain.block_time.0, ..Timeouts::default() };
    settings
}

impl ValidatorHost {
    pub(super) fn new(
        place: usize,
        validator: &scenario::Validator,
        dialect: Dialect,
        shared: Rc<ValidatorShared>,
    ) -> anyhow::Result<Rc<Self>> {
        let dialect = validator.dialect.as_deref().map(str::parse).transpose()?.unwrap_or(dialect);
        Ok(Rc::new(Self {
            name: validator.name.as_str().into(),
            tap: Tap::default(),
            seat: shared.seats[place].clone(),
            dialect: Cell::new(dialect),
            skew_ms: Cell::new(validator.clock_skew_ms),
            storage: RefCell::default(),
            app: RefCell::new(shared.app.clone()),
            starts: Cell::new(0),
            equivocates: Cell::new(false),
            crash_awaiting: Cell::new(None),
            crash_answered: Cell::new(None),
            crash: Cell::new(None),
            asking: Cell::new(false),
            signed: Heights::default(),
            passed: Heights::default(),
            behind: Heights::default(),
            shared,
        }))
    }

    /// For how many heights the node got a precommit for a block.
    pub(super) fn heights_signed(&self) -> u64 {
        self.signed.count.get()
    }

    /// For how many heights the node got a precommit, be it for nil. A node that lags behind the others, since its signer is slower
    /// than the chain, asks for nothing else.
    pub(super) fn heights_passed(&self) -> u64 {
        self.passed.count.get()
    }

    /// For how many heights the node was refused a precommit since another node of the same validator had got one for a later height. A
    /// node that has fallen behind on a fast chain may never come up to the other, and no signer can help it.
    pub(super) fn heights_behind(&self) -> u64 {
        self.behind.count.get()
    }

    /// The node dies after its next request is sent.
    pub(super) fn crash_awaiting(&self, down: Duration) {
        self.crash_awaiting.set(Some(down));
    }

    /// The node dies when its next answer comes.
    pub(super) fn crash_answered(&self, down: Duration) {
        self.crash_answered.set(Some(down));
    }

    /// How long the node is to be down, if it has come to where it was to die.
    pub(super) fn take_crash(&self) -> Option<Duration> {
        self.crash.take()
    }

    pub(super) fn isolate(&self, isolated: bool) {
        self.shared.cut_off(self.seat.peer(), isolated);
    }

    pub(super) fn equivocate(&self, equivocates: bool) {
        self.equivocates.set(equivocates);
    }

    pub(super) fn jump(&self, by_ms: i64) {
        self.skew_ms.set(self.skew_ms.get().saturating_add(by_ms));
    }

    pub(super) fn upgrade(&self, dialect: Dialect) {
        self.dialect.set(dialect);
        self.shared.reach.hit("node upgraded to another release");
    }

    /// What happens on its disk and in the network when its process dies.
    pub(super) fn died(&self) {
        self.storage.borrow_mut().crash();
        self.seat.leave();
        self.set_asking(false);
        self.crash.set(None);
        self.tap.reset();
    }

    /// One process, from its start to its end.
    pub(super) async fn process(self: Rc<Self>) -> turmoil::Result {
        // Hosts begin with a process. That of one that is off ends at once.
        if self.shared.hosts.power(&self.name) != Power::On {
            return Ok(());
        }
        self.starts.set(self.starts.get() + 1);
        self.tap.reset();
        let client = Rc::new(self.client().await?);
        let running = Rc::clone(&client);
        spawn_local(async move { running.run().await });

        let log = self.storage.borrow().log().to_vec();
        if log.len() > 2 {
            self.shared.reach.hit("node replays its log");
        }
        let settings = self.settings();
        let mut engine = Engine::new(settings, self.storage.borrow().last());
        let exit = Rc::new(Notify::new());
        let mut port = NodePort {
            host: Rc::clone(&self),
            client,
            first: true,
            exit: Rc::clone(&exit),
            timer: None,
            own: VecDeque::new(),
        };
        tokio::select! {
            biased;
            () = exit.notified() => {
                tracing::info!(target: "sim::node", host = &*self.name, "no signer came in time: the node exits");
                self.shared.reach.hit("node gave up waiting for its signer");
                return Ok(());
            }
            () = engine.start(&log, &mut port) => {}
        }
        self.seat.join(engine.status());
        self.live(engine, port).await
    }

    async fn live(&self, mut engine: Engine, mut port: NodePort) -> turmoil::Result {
        let mut gossip = interval(GOSSIP_EVERY);
        let mut flush = interval(FLUSH_EVERY);
        loop {
            self.tap.thawed().await;
            let timer = port.timer;
            let input = match port.own.pop_front() {
                Some(own) => Input::Own(own),
                None => tokio::select! {
                    biased;
                    () = fires(timer) => {
                        let Some((_, timeout)) = port.timer.take() else { continue };
                        Input::Timeout(timeout)
                    }
                    _ = flush.tick() => {
                        self.storage.borrow_mut().flush();
                        continue;
                    }
                    _ = gossip.tick() => {
                        self.send_missing(&engine);
                        continue;
                    }
                    (from, message) = self.seat.recv() => Input::Peer(from, message),
                },
            };
            engine.handle(input, &mut port).await;
            self.seat.update(engine.status());
            if let Some(halt) = engine.halted() {
                let seen = format!("{} has stopped for good: {halt:?}", self.name);
                self.shared.oracle.borrow_mut().violated(Invariant::SignaturesVerify, seen);
                return pending().await;
            }
        }
    }

    fn send_missing(&self, engine: &Engine) {
        let storage = self.storage.borrow();
        for (peer, status) in self.seat.peers() {
            for message in engine.missing(&status, storage.decided(status.height)) {
                self.seat.send(peer, message);
            }
        }
    }

    fn settings(&self) -> Settings {
        let dialect = self.dialect.get();
        let mut settings = self.shared.settings.clone();
        settings.lock_rule = mock_validator::consensus::LockRule::of(dialect);
        settings.dialect = dialect;
        settings
    }

    async fn client(self: &Rc<Self>) -> io::Result<RetryClient<Backlog>> {
        let (name, start, streams) = (&self.name, self.starts.get(), self.shared.streams);
        let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
        let tap = self.tap.clone();
        let backlog = Backlog { waiting: Rc::default(), arrived: Rc::new(Notify::new()), tap };
        let host = Rc::clone(self);
        let (waiting, arrived) = (Rc::clone(&backlog.waiting), Rc::clone(&backlog.arrived));
        // The kernel: it completes connections whether or not the process accepts them.
        spawn_local(async move {
            let mut accepted = start << 32;
            while let Ok((stream, _)) = listener.accept().await {
                accepted += 1;
                let name = format!("chop/{}/{accepted}", host.name);
                let chops = host.shared.hosts.chops.then(|| streams.of(&name));
                let wire = Wire::accepted(stream, chops, host.tap.clone(), (&host.shared.hosts, &host.name));
                let Ok(wire) = wire else { continue };
                waiting.borrow_mut().push_back(wire);
                arrived.notify_one();
            }
        });
        let host = Rc::clone(self);
        let mut entropy = streams.of(&format!("entropy/{name}/{start}"));
        Ok(RetryClient::new(SignerEndpoint::new(
            backlog,
            endpoint::Settings {
                dialect: self.dialect.get(),
                transport: Transport::SecretConnection,
                identity: SigningKey::from_bytes(&entropy.key()),
                entropy: Box::new(move || entropy.key()),
                observer: Box::new(move |seen| host.observe(seen)),
            },
        )))
    }

    fn observe(&self, seen: Seen<'_>) {
        let reach = &self.shared.reach;
        match seen {
            Seen::Connected { .. } => reach.hit("signer connected"),
            Seen::HandshakeFailed { error, .. } => {
                tracing::info!(target: "sim::node", host = &*self.name, %error, "a signer did not connect");
                reach.hit("handshake failed");
            }
            Seen::Sent { request, attempt, .. } => self.asking(request, attempt),
            Seen::Answered { request, answer, after, .. } => self.answered(request, answer, after),
            Seen::Failed { request, failure, .. } => self.failed(request, failure),
            Seen::GaveUp { .. } => reach.hit("node gave a request up"),
            Seen::Lost { .. } => reach.hit("node dropped the connection"),
            _ => {}
        }
    }

    fn answered(&self, request: &Message, answer: Option<&Message>, took: Duration) {
        if self.shared.in_flight.get() > 1 && answer.is_some_and(is_refusal) {
            self.shared.reach.hit("refused while another request was in flight");
        }
        self.set_asking(false);
        let undisturbed = self.is_undisturbed();
        self.shared.oracle.borrow_mut().answered(request, answer, took, undisturbed);
        if let Some((height, is_nil)) = signed_precommit(request, answer) {
            self.passed.reached(height);
            if !is_nil {
                self.signed.reached(height);
            }
        } else if let Some(height) = refused_precommit(request, answer)
            && self.shared.oracle.borrow().highest_release().is_some_and(|highest| highest > height)
        {
            self.behind.reached(height);
        }
    }

    fn set_asking(&self, asking: bool) {
        let (was, all) = (self.asking.replace(asking), &self.shared.in_flight);
        all.set(all.get() + u64::from(asking) - u64::from(was));
        if asking && all.get() > 1 {
            self.shared.reach.hit("two nodes asked at once");
        }
    }

    fn asking(&self, request: &Message, attempt: u32) {
        let reach = &self.shared.reach;
        if matches!(request, Message::PingRequest) {
            return reach.hit("ping");
        }
        self.set_asking(is_for_signature(request));
        if attempt > 1 {
            reach.hit("request asked again with the same bytes");
        }
        if is_for_signature(request)
            && let Some(down) = self.crash_awaiting.take()
        {
            reach.hit("node died between request and answer");
            self.tap.freeze(true);
            self.crash.set(Some(down));
        }
    }

    fn failed(&self, request: &Message, failure: &Failure) {
        self.set_asking(false);
        tracing::info!(target: "sim::node", host = &*self.name, %failure, "no answer");
        let reach = &self.shared.reach;
        match failure {
            Failure::NoSigner(_) => reach.hit("no signer connected"),
            Failure::Link(LinkError::Silent { .. }) => reach.hit("signer silent"),
            Failure::Link(LinkError::Closed | LinkError::Io(_)) => reach.hit("connection lost while asking"),
            other => {
                let seen = format!("{}: {other}", self.name);
                self.shared.oracle.borrow_mut().violated(Invariant::RefusalsAnswered, seen);
            }
        }
        if self.is_undisturbed() {
            let seen = format!("{}: undisturbed, and no answer to {request:?}: {failure}", self.name);
            self.shared.oracle.borrow_mut().violated(Invariant::RefusalsAnswered, seen);
        }
    }

    fn is_undisturbed(&self) -> bool {
        let now = turmoil::sim_elapsed().unwrap_or_default();
        self.shared.disturbed_until.get().is_some_and(|until| now > until)
    }

    fn now(&self) -> Timestamp {
        let since = EPOCH + turmoil::sim_elapsed().unwrap_or_default();
        let millis = since.as_millis() as i64 + self.skew_ms.get();
        let nanos = (millis.rem_euclid(1000) * 1_000_000) as i32 + (since.subsec_nanos() % 1_000_000) as i32;
        Timestamp { seconds: millis.div_euclid(1000), nanos }
    }
}

/// How often nodes look what their peers lack, and flush their logs (`consensus/wal.go`, `walDefaultFlushInterval`).
const GOSSIP_EVERY: Duration = Duration::from_millis(100);
const FLUSH_EVERY: Duration = Duration::from_secs(2);

async fn fires(timer: Option<(Instant, Timeout)>) {
    match timer {
        Some((at, _)) => sleep_until(at).await,
        None => pending().await,
    }
}

fn is_for_signature(request: &Message) -> bool {
    matches!(request, Message::SignVoteRequest(_) | Message::SignProposalRequest(_))
}

fn is_refusal(answer: &Message) -> bool {
    match answer {
        Message::SignedVoteResponse(answer) => answer.error.is_some(),
        Message::SignedProposalResponse(answer) => answer.error.is_some(),
        _ => false,
    }
}

/// The height of a precommit that was signed, and whether it is for nil.
fn signed_precommit(request: &Message, answer: Option<&Message>) -> Option<(Height, bool)> {
    let (vote, answer) = precommit(request, answer)?;
    answer.error.is_none().then(|| (vote.height, vote.block_id.is_nil()))
}

/// The height of a precommit that was refused.
fn refused_precommit(request: &Message, answer: Option<&Message>) -> Option<Height> {
    let (vote, answer) = precommit(request, answer)?;
    answer.error.is_some().then_some(vote.height)
}

fn precommit<'a>(
    request: &'a Message,
    answer: Option<&'a Message>,
) -> Option<(&'a Vote, &'a SignedVoteResponse)> {
    let (Message::SignVoteRequest(request), Some(Message::SignedVoteResponse(answer))) = (request, answer)
    else {
        return None;
    };
    let vote = request.vote.as_ref().filter(|vote| vote.vote_type == 2)?;
    Some((vote, answer))
}

/// The kernel's queue of connections.
struct Backlog {
    waiting: Rc<RefCell<VecDeque<Wire>>>,
    arrived: Rc<Notify>,
    /// Of the process: one that stands still accepts nothing.
    tap: Tap,
}

impl Accept for Backlog {
    type Io = Wire;

    async fn accept(&self) -> io::Result<Wire> {
        loop {
            self.tap.thawed().await;
            if let Some(wire) = self.waiting.borrow_mut().pop_front() {
                return Ok(wire);
            }
            self.arrived.notified().await;
        }
    }
}

/// What consensus sees of the host.
struct NodePort {
    host: Rc<ValidatorHost>,
    client: Rc<RetryClient<Backlog>>,
    /// Nothing was asked yet: a node whose first request fails exits.
    first: bool,
    exit: Rc<Notify>,
    timer: Option<(Instant, Timeout)>,
    own: VecDeque<Gossip>,
}

impl NodePort {
    /// Asks for every double sign around a request that was just answered. The oracle judges what comes of it.
    async fn equivocate(&self, request: &Message) {
        for probe in probes::around(request) {
            self.host.shared.reach.hit("double sign asked for");
            let Ok(answer) = self.client.ask(&probe.request).await else { return };
            self.judge(&probe, &answer);
        }
    }
}

impl NodePort {
    fn judge(&self, probe: &Probe, answer: &Message) {
        let (host, shared) = (&self.host, &self.host.shared);
        let (is_alone, refused) = (shared.seats.len() == 1, is_refusal(answer));
        let (invariant, what) = match probe.expectation {
            Expectation::Refused if !refused => (Invariant::OneSignature, "signed what had to be refused"),
            Expectation::Repeated if refused && is_alone && host.is_undisturbed() => {
                (Invariant::NoNeedlessRefusal, "refused to repeat its answer")
            }
            _ => return,
        };
        let seen = format!("{}: the signer {what}: {}", host.name, probe.name);
        shared.oracle.borrow_mut().violated(invariant, seen);
    }
}

impl Port for NodePort {
    fn now(&self) -> Timestamp {
        self.host.now()
    }

    async fn ask(&mut self, request: &Message) -> Result<Option<Message>, GaveUp> {
        self.host.tap.thawed().await;
        if std::mem::take(&mut self.first) {
            let Ok(answer) = self.client.ask_once(request).await else {
                self.exit.notify_one();
                return pending().await;
            };
            return Ok(Some(answer));
        }
        let answer = self.client.ask(request).await.map_err(|_| GaveUp)?;
        if is_for_signature(request) {
            if let Some(down) = self.host.crash_answered.take() {
                self.host.shared.reach.hit("node died after the answer");
                self.host.crash.set(Some(down));
                pending::<()>().await;
            }
            if self.host.equivocates.get() && !is_refusal(&answer) {
                self.equivocate(request).await;
            }
        }
        Ok(Some(answer))
    }

    fn schedule(&mut self, timeout: Timeout) {
        self.timer = Some((Instant::now() + timeout.after, timeout));
    }

    fn enqueue(&mut self, message: Gossip) {
        self.own.push_back(message);
    }

    fn publish(&mut self, message: &Gossip) {
        self.host.seat.publish(message);
    }

    fn append(&mut self, entry: Entry) {
        self.host.storage.borrow_mut().append(entry);
    }

    async fn flush(&mut self) {
        self.host.storage.borrow_mut().flush();
    }

    fn build_block(&mut self, plan: &Plan) -> Rc<Block> {
        self.host.app.borrow_mut().build_block(plan)
    }

    fn accepts(&mut self, _: &Block) -> bool {
        true
    }

    fn extend(&mut self, height: Height, round: Round, block: &BlockId) -> Vec<u8> {
        self.host.app.borrow_mut().extend(height, round, block)
    }

    async fn save(&mut self, decided: Decided) {
        self.host.seat.decided(&decided);
        let mut storage = self.host.storage.borrow_mut();
        let height = decided.block.height;
        if decided.round > Round(0) {
            self.host.shared.reach.hit("block decided in a later round");
        }
        storage.save(decided);
        storage.prune(Height(height.0 - KEPT_BLOCKS));
    }

    fn report(&mut self, event: Event) {
        let shared = &self.host.shared;
        match event {
            // Known of proposals that are made again: the signature is the first one's, and so is the time.
            Event::Misbehaved(Misbehaviour::SignedOtherTime { .. }) => shared.reach.hit("stale proposal"),
            Event::Misbehaved(misbehaviour) => {
                let seen = format!("{}: {misbehaviour}", self.host.name);
                shared.oracle.borrow_mut().violated(Invariant::SignaturesVerify, seen);
            }
            Event::OwnInvalid(_) => shared.reach.hit("node dropped its own message"),
            Event::NoAnswer(_) => shared.reach.hit("node gave a request up"),
            Event::ConflictingVotes(..) => shared.reach.hit("conflicting votes seen"),
            _ => {}
        }
    }
}

/// How many blocks a node keeps for peers that are behind.
const KEPT_BLOCKS: i64 = 500;
