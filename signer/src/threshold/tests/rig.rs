//! Cosigners in memory: a network that reorders, disks that survive crashes, and an oracle that sees what the group signs.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use monosign_protocol::message::{BlockId, PartSetHeader, Proposal, Timestamp, Vote};
use monosign_protocol::{ChainId, Height, Round, sign_bytes};
use tokio::time::Instant;

use crate::chain::RawSigning;
use crate::consensus_key::ConsensusKey;
use crate::guard::{JumpLimit, Watermark};
use crate::record::{Header, Record};
use crate::seams::{Claim, Disk, DiskFile, Entropy, Holder, Local, Open};
use crate::threshold::asked::{Asked, Subject};
use crate::threshold::commitments;
use crate::threshold::cosigner::{
    Answered, AskError, ConnId, Cosigner, Effect, Event, Note, Rejoin, Settings, Status,
};
use crate::threshold::deal::deal;
use crate::threshold::group::{Group, Shape};
use crate::threshold::incarnation::{Incarnation, Lives};
use crate::threshold::keeper::Keeper;
use crate::threshold::message::{Place, Reply, Request};
use crate::threshold::rounds::{MemberId, NonceMaker};
use crate::threshold::share::Share;

pub(super) const CHAIN: &str = "test-1";
pub(super) const RECORD: &str = "/record";

pub(super) fn chain() -> ChainId {
    CHAIN.parse().expect("a chain id")
}

/// A message at a height: `block` tells messages of one place apart, `seconds` is the timestamp.
pub(super) fn prevote(height: i64, block: u8, seconds: i64) -> Subject {
    Subject::Message(sign_bytes::vote(CHAIN, &vote(1, height, block, seconds)))
}

pub(super) fn precommit(height: i64, block: u8, seconds: i64) -> Subject {
    Subject::Message(sign_bytes::vote(CHAIN, &vote(2, height, block, seconds)))
}

pub(super) fn proposal(height: i64, block: u8, seconds: i64) -> Subject {
    let Vote { height, block_id, timestamp, .. } = vote(1, height, block, seconds);
    let proposal = Proposal { height, block_id, timestamp, pol_round: Round(-1), ..Proposal::default() };
    Subject::Message(sign_bytes::proposal(CHAIN, &proposal))
}

pub(super) fn vote(vote_type: i32, height: i64, block: u8, seconds: i64) -> Vote {
    let hash = vec![block; 32];
    let part_set_header = PartSetHeader { total: 1, hash: hash.clone() };
    let block_id = if block == 0 { BlockId::default() } else { BlockId { hash, part_set_header } };
    let timestamp = Timestamp { seconds, nanos: 0 };
    Vote { vote_type, height: Height(height), block_id, timestamp, ..Vote::default() }
}

/// The result of a future that never waits.
pub(super) fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("nothing in this rig waits"),
    }
}

/// Numbers from a seed (SplitMix64).
#[derive(Clone)]
pub(super) struct Random(Rc<RefCell<u64>>);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(Rc::new(RefCell::new(seed)))
    }

    pub(super) fn next(&self) -> u64 {
        let mut state = self.0.borrow_mut();
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// How many worlds a test goes through: as many as the environment says, for long runs, or a few.
    pub(super) fn worlds(few: u64) -> u64 {
        std::env::var("MONOSIGN_WORLDS").map_or(few, |worlds| worlds.parse().expect("a number"))
    }

    pub(super) fn below(&self, end: usize) -> usize {
        usize::try_from(self.next() % end.max(1) as u64).expect("less than a usize")
    }
}

impl Entropy for Random {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }
}

/// A disk whose writes are durable at once.
#[derive(Clone, Default)]
pub(super) struct MemoryDisk(Rc<RefCell<BTreeMap<PathBuf, Vec<u8>>>>);

impl MemoryDisk {
    /// A copy of the disk as it is now.
    pub(super) fn snapshot(&self) -> Self {
        Self(Rc::new(RefCell::new(self.0.borrow().clone())))
    }

    /// What is in a file.
    pub(super) fn file(&self, path: &str) -> Vec<u8> {
        self.0.borrow().get(Path::new(path)).cloned().expect("a file")
    }

    /// Puts a file in its place, whatever was there.
    pub(super) fn put(&self, path: &str, content: &[u8]) {
        self.0.borrow_mut().insert(path.into(), content.to_vec());
    }
}

fn done<'a, T: 'a>(result: io::Result<T>) -> Local<'a, io::Result<T>> {
    Box::pin(std::future::ready(result))
}

impl Disk for MemoryDisk {
    fn open<'a>(&'a self, path: &'a Path, how: Open) -> Local<'a, io::Result<Box<dyn DiskFile>>> {
        let exists = self.0.borrow().contains_key(path);
        match (how, exists) {
            (Open::Existing, false) => return done(Err(io::ErrorKind::NotFound.into())),
            (Open::New, true) => return done(Err(io::ErrorKind::AlreadyExists.into())),
            (Open::New, false) => drop(self.0.borrow_mut().insert(path.into(), Vec::new())),
            (Open::Existing, true) => {}
        }
        let name = path.to_owned();
        done(Ok(Box::new(MemoryFile { disk: self.clone(), name }) as Box<dyn DiskFile>))
    }

    fn rename_new<'a>(&'a self, from: &'a Path, to: &'a Path) -> Local<'a, io::Result<()>> {
        self.rename(from, to)
    }

    fn remove<'a>(&'a self, path: &'a Path) -> Local<'a, io::Result<()>> {
        done(self.0.borrow_mut().remove(path).map(drop).ok_or(io::ErrorKind::NotFound.into()))
    }

    fn rename<'a>(&'a self, from: &'a Path, to: &'a Path) -> Local<'a, io::Result<()>> {
        let content = self.0.borrow_mut().remove(from);
        let renamed = content.map(|content| drop(self.0.borrow_mut().insert(to.into(), content)));
        done(renamed.ok_or(io::ErrorKind::NotFound.into()))
    }

    fn sync_dir<'a>(&'a self, _: &'a Path) -> Local<'a, io::Result<()>> {
        done(Ok(()))
    }

    fn claim<'a>(&'a self, _: &'a str) -> Local<'a, io::Result<Claim>> {
        done(Ok(Claim::Ours(Box::new(()))))
    }

    fn holder<'a>(&'a self, _: &'a str) -> Local<'a, io::Result<Option<Holder>>> {
        done(Ok(None))
    }

    fn read_small<'a>(&'a self, path: &'a Path) -> Local<'a, io::Result<Option<String>>> {
        done(Ok(self.0.borrow().get(path).map(|bytes| String::from_utf8_lossy(bytes).into_owned())))
    }
}

struct MemoryFile {
    disk: MemoryDisk,
    name: PathBuf,
}

impl DiskFile for MemoryFile {
    fn try_lock(&self) -> Local<'_, io::Result<bool>> {
        done(Ok(true))
    }

    fn is_at<'a>(&'a self, _: &'a Path) -> Local<'a, io::Result<bool>> {
        done(Ok(true))
    }

    fn read_all(&self, _: usize) -> Local<'_, io::Result<Vec<u8>>> {
        done(Ok(self.disk.0.borrow().get(&self.name).cloned().unwrap_or_default()))
    }

    fn write_at<'a>(&'a self, offset: u64, bytes: &'a [u8]) -> Local<'a, io::Result<()>> {
        let mut files = self.disk.0.borrow_mut();
        let content = files.get_mut(&self.name).expect("a file that was not renamed since");
        let end = usize::try_from(offset).expect("small") + bytes.len();
        content.resize(content.len().max(end), 0);
        content[end - bytes.len()..end].copy_from_slice(bytes);
        done(Ok(()))
    }

    fn sync_data(&self) -> Local<'_, io::Result<()>> {
        done(Ok(()))
    }
}

/// One process on one disk.
pub(super) struct Node {
    pub(super) member: MemberId,
    pub(super) disk: MemoryDisk,
    pub(super) life: Option<(Cosigner, Keeper)>,
    pub(super) stopped: Option<String>,
}

/// What a node's disk holds of it.
pub(super) const LIVES: &str = "/record.lives";

struct Wire {
    from: usize,
    to: usize,
    requests: VecDeque<Request>,
    replies: VecDeque<Reply>,
}

pub(super) type Tamper = Box<dyn FnMut(usize, &mut Reply)>;

pub(super) struct Rig {
    pub(super) group: Rc<Group>,
    pub(super) shares: Vec<Rc<Share>>,
    pub(super) nodes: Vec<Node>,
    wires: BTreeMap<ConnId, Wire>,
    next: u64,
    pub(super) time: Instant,
    pub(super) random: Random,
    pub(super) rejoin: Rejoin,
    pub(super) jump_limit: JumpLimit,
    pub(super) answers: BTreeMap<u64, Result<Answered, AskError>>,
    asked: BTreeMap<u64, Subject>,
    /// What the group has signed, by place: more than one is the double signature.
    pub(super) signed: BTreeMap<Place, Vec<Asked>>,
    pub(super) notes: Vec<(usize, Note)>,
    /// Nodes that reach each other: those with equal numbers.
    pub(super) side: Vec<u8>,
    /// Pairs that do not, whatever their sides.
    blocked: BTreeSet<(usize, usize)>,
    /// Nodes that are stopped: what is sent to them waits.
    pub(super) hung: BTreeSet<usize>,
    /// Changes what a node replies.
    pub(super) tamper: Option<Tamper>,
    /// Who is at the other end of connections that were accepted, and the life that it says it is in.
    callers: BTreeMap<ConnId, (MemberId, Option<Incarnation>)>,
    /// In which life each node was welcomed by each member, since it was started.
    welcomed: BTreeMap<(usize, MemberId), Incarnation>,
    /// What shares were made with: the signers' commitments of their own, as bytes.
    used: BTreeSet<Vec<u8>>,
}

impl Rig {
    pub(super) fn new(shape: Shape, seed: u64) -> Self {
        crate::deadline::for_this_test();
        let random = Random::new(seed);
        let key = ConsensusKey::from_seed(&[7; 32]);
        let dealt = deal(&key, &chain(), shape, Height(0), &random).expect("a split key");
        let group = Rc::new(dealt.group);
        let mut rig = Self {
            group: Rc::clone(&group),
            shares: dealt.shares.into_iter().map(Rc::new).collect(),
            nodes: Vec::new(),
            wires: BTreeMap::new(),
            next: 0,
            time: Instant::now(),
            random,
            rejoin: Rejoin::Auto,
            jump_limit: JumpLimit::Heights(1000),
            answers: BTreeMap::new(),
            asked: BTreeMap::new(),
            signed: BTreeMap::new(),
            notes: Vec::new(),
            side: vec![0; usize::from(shape.members())],
            blocked: BTreeSet::new(),
            hung: BTreeSet::new(),
            tamper: None,
            callers: BTreeMap::new(),
            welcomed: BTreeMap::new(),
            used: BTreeSet::new(),
        };
        for member in group.members() {
            let disk = MemoryDisk::default();
            let header = Header { chain_id: chain(), public_key: group.verifying_key().to_bytes() };
            let floor = Watermark::default();
            drop(now(Record::create(&disk, Path::new(RECORD), header, floor)).expect("a record"));
            rig.nodes.push(Node { member, disk, life: None, stopped: None });
        }
        rig
    }

    /// All nodes, started and taking part.
    pub(super) fn running(shape: Shape, seed: u64) -> Self {
        let mut rig = Self::new(shape, seed);
        for node in 0..rig.nodes.len() {
            rig.start(node);
        }
        rig.run_until("all take part", |rig| rig.nodes.iter().all(Node::is_active));
        rig
    }

    /// Adds a process with a node's share, on a disk of its own. It does not run yet.
    pub(super) fn add_copy(&mut self, of: usize, disk: MemoryDisk) -> usize {
        let member = self.nodes[of].member;
        self.nodes.push(Node { member, disk, life: None, stopped: None });
        self.side.push(0);
        self.nodes.len() - 1
    }

    pub(super) fn start(&mut self, node: usize) {
        let Node { member, disk, .. } = &self.nodes[node];
        let (member, disk) = (*member, Rc::new(disk.clone()));
        let share = Rc::clone(&self.shares[usize::from(member.0) - 1]);
        let key = share.key_package(&self.group).expect("a share of this group");
        let public_key = self.group.verifying_key().to_bytes();
        let record = now(Record::open(&*disk, Path::new(RECORD), &chain(), &public_key)).expect("a record");
        let lives = now(Lives::begin(&*disk, &record, &self.random)).expect("lives");
        let settings = Settings {
            me: member,
            group: Rc::clone(&self.group),
            raw: RawSigning::default(),
            jump_limit: self.jump_limit,
            hedge: Duration::from_millis(50),
            hold: Duration::from_millis(1500),
            rejoin: self.rejoin,
        };
        let entropy: Rc<dyn Entropy> = Rc::new(self.random.clone());
        let nonces = NonceMaker::new(Rc::clone(&key), Rc::clone(&entropy));
        let keeper = Keeper::new(record, key, disk, Rc::default());
        let cosigner = Cosigner::new(settings, nonces, entropy, lives, keeper.recorded(), self.time);
        self.welcomed.retain(|(of, _), _| *of != node);
        self.nodes[node].life = Some((cosigner, keeper));
        self.nodes[node].stopped = None;
    }

    /// SIGKILL: memory is gone, the disk is not, connections break.
    pub(super) fn crash(&mut self, node: usize) {
        self.nodes[node].life = None;
        self.cut(|wire| wire.from == node || wire.to == node);
    }

    fn cut(&mut self, which: impl Fn(&Wire) -> bool) {
        let gone: Vec<ConnId> =
            self.wires.iter().filter(|(_, wire)| which(wire)).map(|(conn, _)| *conn).collect();
        for conn in gone {
            self.hang_up(conn);
        }
    }

    fn hang_up(&mut self, conn: ConnId) {
        let Some(wire) = self.wires.remove(&conn) else { return };
        for node in [wire.from, wire.to] {
            self.event(node, Event::Closed { conn });
        }
    }

    /// Breaks a connection that a node has dialed. Returns whether the node has to prepare anything before and after that.
    pub(super) fn has_to_prepare_when_cut_off(&mut self, node: usize) -> (bool, bool) {
        let dialed = self.wires.iter().find(|(_, wire)| wire.from == node).map(|(conn, _)| *conn);
        let conn = dialed.expect("a connection");
        let (cosigner, keeper) = self.nodes[node].life.as_mut().expect("a running node");
        let before = cosigner.has_to_prepare();
        cosigner.handle(self.time, Event::Closed { conn }, keeper.recorded());
        let after = cosigner.has_to_prepare();
        self.hang_up(conn);
        (before, after)
    }

    /// Splits the network: nodes of different sides do not reach each other.
    pub(super) fn partition(&mut self, side: &[u8]) {
        self.side = side.to_vec();
        let side = self.side.clone();
        self.cut(|wire| side[wire.from] != side[wire.to]);
    }

    /// Cuts the wires between some nodes and some others.
    pub(super) fn block(&mut self, some: &[usize], others: &[usize]) {
        for (a, b) in some.iter().flat_map(|a| others.iter().map(move |b| (*a, *b))) {
            self.blocked.extend([(a, b), (b, a)]);
        }
        let blocked = self.blocked.clone();
        self.cut(|wire| blocked.contains(&(wire.from, wire.to)));
    }

    /// What a node has said on connections that it dialed, and nobody has heard yet: on which, to whom, what.
    pub(super) fn under_way(&self, from: usize) -> Vec<(ConnId, usize, Request)> {
        let wires = self.wires.iter().filter(|(_, wire)| wire.from == from);
        wires
            .flat_map(|(conn, wire)| wire.requests.iter().map(|request| (*conn, wire.to, request.clone())))
            .filter(|(.., request)| !matches!(request, Request::Ping(_) | Request::Done { .. }))
            .collect()
    }

    /// The connection that a node has dialed to another.
    pub(super) fn conn(&self, from: usize, to: usize) -> ConnId {
        let found = self.wires.iter().find(|(_, wire)| (wire.from, wire.to) == (from, to));
        *found.expect("a connection").0
    }

    /// Whether all that a node has dialed, and that runs, has welcomed it.
    pub(super) fn is_connected(&self, node: usize) -> bool {
        let up = self.status(node).peers.iter().filter(|peer| peer.up).count();
        up + 1 == self.nodes.iter().filter(|node| node.runs()).count()
    }

    /// Whom a node asks last.
    pub(super) fn suspects(&self, node: usize) -> Vec<MemberId> {
        let peers = self.status(node).peers;
        peers.into_iter().filter(|peer| peer.suspected).map(|peer| peer.member).collect()
    }

    fn status(&self, node: usize) -> Status {
        self.nodes[node].life.as_ref().expect("it runs").0.status()
    }

    /// Asks a node for a signature, as its validator would.
    pub(super) fn ask(&mut self, node: usize, subject: &Subject) -> u64 {
        self.ask_of(node, subject, None)
    }

    pub(super) fn ask_of(&mut self, node: usize, subject: &Subject, signers: Option<Vec<MemberId>>) -> u64 {
        self.next += 1;
        let ask = self.next;
        self.asked.insert(ask, subject.clone());
        let subject = subject.clone();
        self.event(node, Event::Ask { ask, subject, signers });
        ask
    }

    /// Asks, and runs until there is an answer.
    pub(super) fn sign(&mut self, node: usize, subject: &Subject) -> Result<Answered, AskError> {
        let ask = self.ask(node, subject);
        self.run_until("an answer", |rig| rig.answers.contains_key(&ask));
        self.answers[&ask].clone()
    }

    /// What a cosigner is told from outside the network: for tests that play a peer.
    pub(super) fn event(&mut self, node: usize, event: Event) -> Vec<Effect> {
        let mut unhandled = Vec::new();
        let Some((mut cosigner, mut keeper)) = self.nodes[node].life.take() else { return unhandled };
        match &event {
            Event::Accepted { conn, member } => drop(self.callers.insert(*conn, (*member, None))),
            Event::Request { conn, request: Request::Hello(hello) } => {
                self.callers.entry(*conn).and_modify(|(_, life)| *life = Some(hello.incarnation));
            }
            Event::Reply { conn, reply: Reply::Welcome(welcome) } => {
                let member = self.wires.get(conn).map(|wire| self.nodes[wire.to].member);
                let welcomed = member.map(|member| ((node, member), welcome.incarnation));
                self.welcomed.extend(welcomed);
            }
            _ => {}
        }
        cosigner.handle(self.time, event, keeper.recorded());
        loop {
            while let Some(effect) = cosigner.poll_effect() {
                let left = self.carry_out(node, &mut cosigner, &mut keeper, effect);
                unhandled.extend(left);
            }
            if cosigner.advance(self.time, keeper.recorded()) {
                continue;
            }
            if cosigner.has_to_prepare() {
                cosigner.prepare(self.time);
            } else {
                break;
            }
        }
        self.nodes[node].life = Some((cosigner, keeper));
        unhandled
    }

    fn carry_out(
        &mut self,
        node: usize,
        cosigner: &mut Cosigner,
        keeper: &mut Keeper,
        effect: Effect,
    ) -> Option<Effect> {
        match effect {
            Effect::Raise(watermark) => now(keeper.raise(watermark)).expect("this disk is sound"),
            Effect::Store(lives) | Effect::Keep(lives) => {
                now(keeper.store(&lives)).expect("this disk is sound")
            }
            Effect::Share(job) => {
                let own = job.commitments[&self.nodes[node].member];
                let bytes = commitments::write(&own).expect("commitments");
                assert!(self.used.insert(bytes), "each nonce once: node {node} makes two shares with one");
                let ticket = job.ticket;
                let share = keeper.share(*job, RawSigning::default());
                cosigner.handle(self.time, Event::Shared { ticket, share }, keeper.recorded());
            }
            Effect::Request { conn, request } => match self.wires.get_mut(&conn) {
                Some(wire) => wire.requests.push_back(request),
                None => return Some(Effect::Request { conn, request }),
            },
            Effect::Reply { conn, mut reply } => {
                if let Reply::Welcome(_) = reply {
                    self.welcomes(node, conn);
                }
                match self.wires.get_mut(&conn) {
                    Some(wire) => {
                        if let Some(tamper) = &mut self.tamper {
                            tamper(node, &mut reply);
                        }
                        wire.replies.push_back(reply);
                    }
                    None => return Some(Effect::Reply { conn, reply }),
                }
            }
            Effect::Close { conn, .. } => {
                // What was said before is still heard.
                if let Some(wire) = self.wires.remove(&conn) {
                    let other = if wire.from == node { wire.to } else { wire.from };
                    if wire.to == node {
                        wire.replies
                            .into_iter()
                            .for_each(|reply| drop(self.event(other, Event::Reply { conn, reply })));
                    }
                    cosigner.handle(self.time, Event::Closed { conn }, keeper.recorded());
                    if other != node {
                        self.event(other, Event::Closed { conn });
                    }
                }
            }
            Effect::Answer { ask, result } => self.answered(ask, result),
            Effect::LookUpAllowance => {
                if let Some(height) = now(keeper.allowance()) {
                    cosigner.handle(self.time, Event::JumpAllowed(height), keeper.recorded());
                }
            }
            Effect::Note(note) => {
                if let Note::Active { .. } = note {
                    let lives = self.nodes[node].lives();
                    assert!(
                        lives.settled && lives.joining.is_none(),
                        "node {node} takes part, and its disk does not know"
                    );
                    for ((_, member), life) in self.welcomed.iter().filter(|((of, _), _)| *of == node) {
                        let fenced = lives.peers.get(member);
                        let is_far = life.count > 1 << 20;
                        assert!(
                            is_far || fenced >= Some(life),
                            "node {node} takes part with {member} in {life:?}"
                        );
                    }
                }
                self.notes.push((node, note));
            }
            Effect::Stop(reason) => self.nodes[node].stopped = Some(reason),
        }
        None
    }

    /// A node tells a caller what it knows: by now it has fenced the caller's earlier lives durably.
    fn welcomes(&self, node: usize, conn: ConnId) {
        let (member, life) = self.callers[&conn];
        let fenced = self.nodes[node].lives().peers.get(&member).copied();
        assert!(
            fenced >= life,
            "node {node} welcomes {member} in {life:?}, and its disk has it in {fenced:?}"
        );
    }

    fn answered(&mut self, ask: u64, result: Result<Answered, AskError>) {
        if let (Some(Subject::Message(message)), Ok(answered)) = (self.asked.get(&ask), &result) {
            let asked = Asked::parse(&chain(), message).expect("a message");
            let timestamp = answered.timestamp.expect("of a message");
            let bytes = asked.question(&chain()).expect("a question").sign_bytes_at(timestamp);
            let signature = ed25519_dalek::Signature::from_bytes(&answered.signature.signature());
            self.group.verifying_key().verify_strict(&bytes, &signature).expect("a signature");
            self.witness(&asked);
        }
        self.answers.insert(ask, result);
    }

    /// Takes note of what the group has signed.
    pub(super) fn witness(&mut self, asked: &Asked) {
        let messages = self.signed.entry(Place::of_asked(asked)).or_default();
        if !messages.iter().any(|message| message.is_alike(&chain(), asked)) {
            messages.push(asked.clone());
        }
    }

    /// Whether two different messages were signed for one place.
    pub(super) fn double_signed(&self) -> bool {
        self.signed.values().any(|messages| messages.len() > 1)
    }

    /// One thing happens: a connection is made, a message arrives, or time passes.
    pub(super) fn step(&mut self) {
        self.dial();
        let waiting: Vec<(ConnId, bool)> = self
            .wires
            .iter()
            .flat_map(|(conn, wire)| {
                let runs = |node: &usize| !self.hung.contains(node);
                let to = (!wire.requests.is_empty() && runs(&wire.to)).then_some((*conn, true));
                let from = (!wire.replies.is_empty() && runs(&wire.from)).then_some((*conn, false));
                to.into_iter().chain(from)
            })
            .collect();
        if waiting.is_empty() {
            return self.pass_time();
        }
        let (conn, to) = waiting[self.random.below(waiting.len())];
        let Some(wire) = self.wires.get_mut(&conn) else { return };
        let (from, target) = (wire.from, wire.to);
        if to {
            let request = wire.requests.pop_front().expect("a request");
            self.event(target, Event::Request { conn, request });
        } else {
            let reply = wire.replies.pop_front().expect("a reply");
            self.event(from, Event::Reply { conn, reply });
        }
    }

    /// Each node dials each other member, whoever answers for it.
    fn dial(&mut self) {
        for from in 0..self.nodes.len() {
            for to in 0..self.nodes.len() {
                let (a, b) = (&self.nodes[from], &self.nodes[to]);
                let reaches = self.side[from] == self.side[to] && !self.blocked.contains(&(from, to));
                let wanted = a.member != b.member && a.runs() && b.runs() && reaches;
                let member = b.member;
                let has =
                    self.wires.values().any(|wire| wire.from == from && self.nodes[wire.to].member == member);
                if wanted && !has {
                    let own = a.member;
                    self.next += 1;
                    let conn = ConnId(self.next);
                    let wire = Wire { from, to, requests: VecDeque::new(), replies: VecDeque::new() };
                    self.wires.insert(conn, wire);
                    self.event(to, Event::Accepted { conn, member: own });
                    self.event(from, Event::Dialed { conn, member });
                }
            }
        }
    }

    fn pass_time(&mut self) {
        let running: Vec<usize> = (0..self.nodes.len()).filter(|node| !self.hung.contains(node)).collect();
        let due = running.iter().filter_map(|node| self.nodes[*node].life.as_ref()?.0.deadline()).min();
        self.time = due.unwrap_or(self.time).max(self.time + Duration::from_millis(1));
        for node in running {
            self.event(node, Event::Time);
        }
    }

    #[track_caller]
    pub(super) fn run_until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        for _ in 0..20_000 {
            if is_so(self) {
                return;
            }
            self.step();
        }
        panic!("waited in vain for: {what}; {:?}", self.statuses());
    }

    pub(super) fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            self.step();
        }
    }

    fn statuses(&self) -> Vec<Status> {
        let lives = self.nodes.iter().filter_map(|node| node.life.as_ref());
        lives.map(|(cosigner, _)| cosigner.status()).collect()
    }

    pub(super) fn noted(&self, note: &Note) -> bool {
        self.notes.iter().any(|(_, noted)| noted == note)
    }

    pub(super) fn places(&self) -> BTreeSet<Place> {
        self.signed.keys().copied().collect()
    }
}

impl Node {
    pub(super) fn runs(&self) -> bool {
        self.life.is_some() && self.stopped.is_none()
    }

    /// What its disk holds of lives.
    pub(super) fn lives(&self) -> Lives {
        now(Lives::load(&self.disk, Path::new(LIVES))).expect("readable").expect("a file")
    }

    pub(super) fn state(&self) -> String {
        self.life.as_ref().map(|(cosigner, _)| cosigner.status().state).unwrap_or_default()
    }

    pub(super) fn is_active(&self) -> bool {
        self.life.as_ref().is_some_and(|(cosigner, _)| cosigner.status().state == "active")
    }

    pub(super) fn watermark(&self) -> Place {
        let (_, keeper) = self.life.as_ref().expect("it runs");
        Place::of(keeper.recorded().watermark)
    }
}
