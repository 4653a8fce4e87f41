//! One cosigner, without sockets, disks and clocks: events and times go in, effects come out.
//!
//! What always holds:
//!
//! * the cosigner has no watermark of its own: each event is judged by what the record says at that moment;
//! * effects are carried out in order, and none is before the one before it is done; so a share that comes after an
//!   [`Effect::Raise`] leaves after the record is durable, and whoever carries them out makes shares for
//!   [`Permit`](crate::record::Permit)s of that record alone;
//! * an event asks for at most one raise, so that no judgement is made on a watermark that is about to rise;
//! * nonces are taken from their pool before anything else is done with a request;
//! * suspicion changes the order in which peers are tried, and excludes nobody. It lasts until the peer gives a share in time;
//! * what a peer asks for may raise the record by [`PEERS_JUMP`] heights, and what our own chain asks for by the limit of jumps: one that is malicious
//!   can take the record ahead of the chain, and nothing is signed below it.
//!
//! The parts: [`serve`] is the signer's side of connections that were accepted, [`lead`] the coordinator's side of those that
//! were dialed, [`rejoin`] what comes before a cosigner takes part, [`learn`] what signatures of the group do to it.

mod ask;
mod effect;
mod lead;
mod learn;
mod peer;
mod rejoin;
mod serve;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use monosign_protocol::{ChainId, Height};
use tokio::time::Instant;

use super::asked::{Asked, Subject};
use super::budget::Budget;
use super::group::{Group, Shape};
use super::incarnation::Lives;
use super::message::{Place, Reply, Request};
use super::nonces::Stock;
use super::rounds::{MemberId, NonceMaker};
use super::verified::Verified;
use crate::chain::RawSigning;
use crate::guard::{Guard, JumpLimit, Recorded, Refusal, Verdict, Watermark};
use crate::seams::Entropy;
use ask::{Ask, Pending, Session};
pub use effect::{
    Answered, AskError, ConnId, Effect, Event, Note, ShareFailure, ShareJob, Ticket, Unbelieved,
};
use peer::Peer;
use rejoin::Joining;
use serve::Inbound;

/// How much longer a peer may take for each KiB: for a mebibyte a quarter of a second.
const PER_KIBIBYTE: Duration = Duration::from_micros(250);

/// How far a peer may have the record raised above the highest height that the group is known to have signed, or our own chain has asked for.
pub const PEERS_JUMP: u64 = 1200;
/// And how much further for each second since that has risen: the group may have been unable to sign, while the chain went on.
const PEERS_PACE: u64 = 2;
/// A peer that has the record raised by more heights than this is named.
const NAMED: i64 = 10;
/// How often it is looked whether an operator allows what peers ask for.
const LOOK: Duration = Duration::from_secs(1);

/// What a cosigner is told about itself.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its number.
    pub me: MemberId,
    /// Its group.
    pub group: Rc<Group>,
    /// What else it signs.
    pub raw: RawSigning,
    /// How far a request may be above the highest height that the group is known to have signed.
    pub jump_limit: JumpLimit,
    /// How long a peer is waited for before another is asked too.
    pub hedge: Duration,
    /// How long a validator is kept waiting for a signature before it is refused. CometBFT gives a signer five seconds.
    pub hold: Duration,
    /// When a start needs the peers.
    pub rejoin: Rejoin,
}

/// When a cosigner that starts may take part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejoin {
    /// After `n - t + 1` peers have fenced its earlier lives if its disk is new, or if a peer knows, or has known at an earlier start, of
    /// a later share or start of it than the disk does; otherwise as soon as those that can be reached have been heard.
    Auto,
    /// Always after `n - t + 1` peers have fenced its earlier lives.
    Strict,
}

/// One member of a group.
pub struct Cosigner {
    settings: Settings,
    nonces: NonceMaker,
    entropy: Rc<dyn Entropy>,
    lives: Lives,
    state: State,
    /// The highest height of a signature of the group; jumps are measured from it. `None` if nothing was ever signed.
    anchor: Option<Height>,
    allowed_jump: Option<Height>,
    /// The highest height that our own chain has asked for, and was not refused.
    own_asked: Option<Height>,
    /// When the anchor, or that, has risen last.
    risen: Instant,
    /// The peer that has had the record raised ahead of the group, and to where.
    carried: Option<(MemberId, Place)>,
    /// How many new lives of each peer may be heard of.
    starts: BTreeMap<MemberId, Budget>,
    /// The time of what is being dealt with.
    now: Instant,
    /// When it is looked again whether an operator allows what peers ask for.
    next_look: Instant,
    /// The highest signature of the group that is known.
    last: Option<(Asked, Verified)>,
    peers: BTreeMap<MemberId, Peer>,
    inbound: BTreeMap<ConnId, Inbound>,
    /// For each peer the highest place for which it has given us a share.
    seen: BTreeMap<MemberId, Place>,
    /// For each member the highest place for which it is said to be among the signers.
    heard: BTreeMap<MemberId, Place>,
    /// Who says that we must not go on.
    accusers: BTreeSet<MemberId>,
    asks: BTreeMap<u64, Ask>,
    sessions: BTreeMap<u64, Session>,
    pending: BTreeMap<u64, Pending>,
    next: u64,
    ready: VecDeque<u64>,
    /// Nonces for sessions of our own, made ahead.
    stock: Stock,
    /// Connections that have used up nonces.
    thirsty: VecDeque<ConnId>,
    effects: VecDeque<Effect>,
    rising: bool,
    next_ping: Instant,
}

/// Who asks for a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// Our own chain.
    Own,
    /// A peer, which may be malicious.
    Peer(MemberId),
}

enum State {
    /// Gives no shares yet.
    Joining(Joining),
    /// Takes part.
    Active,
    /// Must never take part again in this life.
    Stopped(String),
}

/// How a cosigner looks from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// `joining`, `active`, or why it has stopped.
    pub state: String,
    /// Which of the members it is.
    pub me: MemberId,
    /// How many there are, and how many must sign.
    pub shape: Shape,
    /// The peers, in the order in which they are asked to sign.
    pub peers: Vec<PeerStatus>,
    /// The highest place that the group is known to have signed.
    pub last_signed: Option<Place>,
}

/// How a peer looks from here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerStatus {
    /// Its number.
    pub member: MemberId,
    /// Whether it is connected and was welcomed.
    pub up: bool,
    /// Whether it gives shares.
    pub active: bool,
    /// Whether it has been slow or wrong, and has given no share in time since.
    pub suspected: bool,
    /// The time of a round trip.
    pub round_trip: Option<Duration>,
    /// Where its guard is known to stand, at least: what it said when it connected, or what it has signed with us since.
    pub guard: Option<Place>,
}

impl Cosigner {
    /// A cosigner in a new life. `lives` is on stable storage already: [`Lives::begin`].
    pub fn new(
        settings: Settings,
        nonces: NonceMaker,
        entropy: Rc<dyn Entropy>,
        lives: Lives,
        recorded: Recorded<'_>,
        now: Instant,
    ) -> Self {
        let peers = settings.group.members().filter(|member| *member != settings.me);
        let peers = peers.map(|member| (member, Peer::default())).collect();
        let recorded_height = (!recorded.unused).then_some(recorded.watermark.height);
        let joining = Joining::new(now, &settings, &lives, recorded);
        let effects = joining.waiting(settings.group.shape()).map(Effect::Note).into_iter().collect();
        Self {
            settings,
            nonces,
            entropy,
            anchor: lives.signed.map(Height).or(recorded_height),
            lives,
            state: State::Joining(joining),
            allowed_jump: None,
            own_asked: None,
            risen: now,
            carried: None,
            starts: BTreeMap::new(),
            now,
            next_look: now,
            last: None,
            peers,
            inbound: BTreeMap::new(),
            seen: BTreeMap::new(),
            heard: BTreeMap::new(),
            accusers: BTreeSet::new(),
            asks: BTreeMap::new(),
            sessions: BTreeMap::new(),
            pending: BTreeMap::new(),
            next: 0,
            ready: VecDeque::new(),
            stock: Stock::default(),
            thirsty: VecDeque::new(),
            effects,
            rising: false,
            next_ping: now,
        }
    }

    /// Takes in what happened. The effects must be carried out before the next event.
    pub fn handle(&mut self, now: Instant, event: Event, recorded: Recorded<'_>) {
        self.rising = false;
        self.now = now;
        if let State::Stopped(reason) = &self.state {
            if let Event::Ask { ask, .. } = event {
                let result = Err(AskError::Stopped(reason.clone()));
                self.effects.push_back(Effect::Answer { ask, result });
            }
            return;
        }
        match event {
            Event::Dialed { conn, member } => self.on_dialed(now, conn, member),
            Event::Accepted { conn, member } => drop(self.inbound.insert(conn, Inbound::new(member))),
            Event::Closed { conn } => self.on_closed(now, conn),
            Event::Request { conn, request } => self.on_request(now, conn, request, recorded),
            Event::Reply { conn, reply } => self.on_reply(now, conn, reply, recorded),
            Event::Ask { ask, subject, signers } => self.on_ask(now, ask, subject, signers, recorded),
            Event::Shared { ticket, share } => self.on_shared(now, ticket, share),
            Event::JumpAllowed(height) => self.allowed_jump = Some(height),
            Event::Rules { raw, jump_limit } => {
                (self.settings.raw, self.settings.jump_limit) = (raw, jump_limit);
            }
            Event::Time => self.on_time(now, recorded),
        }
        self.look_again(now, recorded);
    }

    /// Goes on with what an event left to do, one piece at a time. The effects must be carried out before the next piece.
    /// False if there was nothing.
    pub fn advance(&mut self, now: Instant, recorded: Recorded<'_>) -> bool {
        self.rising = false;
        self.now = now;
        if let Some(ask) = self.ready.pop_front() {
            self.lead(now, ask, recorded);
        } else {
            return false;
        }
        true
    }

    /// Whether there is something to [`prepare`](Self::prepare).
    pub fn has_to_prepare(&self) -> bool {
        let has_unread = self.peers.values().any(Peer::has_unread);
        self.is_active() && (!self.thirsty.is_empty() || self.stock.is_low() || has_unread)
    }

    /// Does one piece of what later signatures need, while nothing else is to be done: nonces of our own and for others, and
    /// what others have committed themselves to. The effects must be carried out before the next piece.
    pub fn prepare(&mut self, now: Instant) {
        self.rising = false;
        if !self.is_active() || self.stock.fill_up(now, &self.nonces) {
            return;
        }
        if let Some(conn) = self.thirsty.pop_front() {
            return self.replace_used(now, conn);
        }
        let unread = self.peers.iter_mut().find(|(_, peer)| peer.has_unread());
        if let Some((member, false)) = unread.map(|(member, peer)| (*member, peer.read_one())) {
            self.note(Note::Nonsense { member, what: "its commitments are none" });
        }
    }

    /// What is to be done next.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`Event::Time`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        let asks = self.asks.values().map(Ask::deadline);
        let joining = match &self.state {
            State::Joining(joining) => joining.deadline(),
            State::Active => None,
            State::Stopped(_) => return None,
        };
        asks.chain(joining).chain([self.next_ping]).min()
    }

    /// Stops for good: the record failed, or going on would not be safe.
    pub fn stop(&mut self, reason: impl Into<String>) {
        let reason = reason.into();
        let asks: Vec<u64> = self.asks.keys().copied().collect();
        for ask in asks {
            self.finish(ask, &Err(AskError::Stopped(reason.clone())));
        }
        self.ready.clear();
        self.effects.push_back(Effect::Stop(reason.clone()));
        self.state = State::Stopped(reason);
    }

    /// How it looks.
    pub fn status(&self) -> Status {
        let state = match &self.state {
            State::Joining(joining) => self.describe(joining),
            State::Active => "active".into(),
            State::Stopped(reason) => format!("stopped: {reason}"),
        };
        let mut peers: Vec<_> = self.peers.iter().collect();
        peers.sort_by_key(|(member, peer)| (!peer.is_up() || !peer.active, peer.order(**member)));
        let seen = |member| self.seen.get(member).copied();
        let peers = peers.into_iter().map(|(member, peer)| peer.status(*member, seen(member))).collect();
        let last_signed = self.last.as_ref().map(|(asked, _)| Place::of_asked(asked));
        Status { state, me: self.settings.me, shape: self.settings.group.shape(), peers, last_signed }
    }

    fn chain_id(&self) -> &ChainId {
        self.settings.group.chain_id()
    }

    /// How long a peer is waited for: longer messages take longer to send and to hash, and a second set of signers for them
    /// would only slow the first one down.
    fn hedge(&self, subject: &Subject) -> Duration {
        let kibibytes = u32::try_from(subject.size() / 1024).unwrap_or(u32::MAX);
        self.settings.hedge + PER_KIBIBYTE * kibibytes
    }

    fn is_active(&self) -> bool {
        matches!(self.state, State::Active)
    }

    fn fresh_id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn note(&mut self, note: Note) {
        self.effects.push_back(Effect::Note(note));
    }

    fn request(&mut self, conn: ConnId, request: Request) {
        self.effects.push_back(Effect::Request { conn, request });
    }

    fn reply(&mut self, conn: ConnId, reply: Reply) {
        self.effects.push_back(Effect::Reply { conn, reply });
    }

    fn close(&mut self, conn: ConnId, why: &'static str) {
        self.effects.push_back(Effect::Close { conn, why });
    }

    /// Judges a message, and has the record raised to it if nothing was signed there or above.
    fn admit(&mut self, by: By, asked: &Asked, recorded: Recorded<'_>) -> Result<(), Refusal> {
        match self.judge(by, asked, recorded) {
            Verdict::Refuse(refusal) => Err(refusal),
            // The same message, but perhaps for its timestamp: the guard stands by it already.
            Verdict::Replay(_) => Ok(()),
            Verdict::Sign(watermark) => {
                self.name_carrier(by, &watermark);
                self.raise(watermark);
                Ok(())
            }
        }
    }

    /// The guard's verdict. Jumps are measured from what the group is known to have signed, and not from the guard: one coordinator
    /// alone can raise guards, step by step, and signatures take `t` of them.
    fn judge(&mut self, by: By, asked: &Asked, recorded: Recorded<'_>) -> Verdict {
        let chain_id = self.settings.group.chain_id().clone();
        let question = match asked.question(&chain_id) {
            Ok(question) => question,
            Err(refusal) => return Verdict::Refuse(refusal),
        };
        let verdict = Guard { jump_limit: JumpLimit::Off }.judge(recorded, &question);
        let Verdict::Sign(watermark) = &verdict else { return verdict };
        let (asked, height) = (asked.hrs(), watermark.height);
        let beyond = match (self.limit(height), self.anchor) {
            (Some(limit), Some(last)) => Some((limit, last)),
            _ => None,
        };
        let of_peers = || matches!(by, By::Peer(_)).then(|| self.limit_of_peers(height)).flatten();
        let Some((limit, last)) = beyond.or_else(of_peers) else { return verdict };
        // A peer must not have us look again and again.
        if by == By::Own || self.now >= self.next_look {
            self.next_look = self.now + LOOK;
            self.effects.push_back(Effect::LookUpAllowance);
        }
        Verdict::Refuse(Refusal::HeightJump { asked, last, limit })
    }

    /// The limit that a height is beyond which a peer asks for, and from where it is measured. Before anything was ever signed or asked for,
    /// any height is the first.
    fn limit_of_peers(&self, height: Height) -> Option<(u64, Height)> {
        let last = self.anchor.max(self.own_asked)?;
        let waited = self.now.saturating_duration_since(self.risen).as_secs();
        let limit = PEERS_JUMP.saturating_add(PEERS_PACE.saturating_mul(waited));
        let jump = u64::try_from(height.0.saturating_sub(last.0)).unwrap_or(0);
        let is_allowed = self.allowed_jump.is_some_and(|allowed| height <= allowed);
        (jump > limit && !is_allowed).then_some((limit, last))
    }

    /// Our own chain asks for a height, and is not refused.
    fn own_asks(&mut self, height: Height) {
        if self.own_asked.max(self.anchor).is_none_or(|last| height > last) {
            self.risen = self.now;
        }
        self.own_asked = self.own_asked.max(Some(height));
    }

    /// Takes note of a peer that has the record raised ahead of what the group has signed and our own chain has asked for.
    fn name_carrier(&mut self, by: By, watermark: &Watermark) {
        let By::Peer(member) = by else { return };
        let known = self.anchor.max(self.own_asked).map_or(0, |height| height.0);
        let place = Place::of(watermark);
        // Not for each step, if they are many.
        let named = self.carried.map_or(known, |(_, named)| named.height.max(known));
        let is_news = place.height.saturating_sub(named) > NAMED;
        if is_news || self.carried.is_some_and(|(of, named)| of == member && named.height > known) {
            self.carried = Some((member, place));
        }
        if is_news {
            self.note(Note::Carried { member, place, by: place.height - known });
        }
    }

    /// The limit that a height is beyond.
    fn limit(&self, height: Height) -> Option<u64> {
        let JumpLimit::Heights(limit) = self.settings.jump_limit else { return None };
        let jump = height.0.saturating_sub(self.anchor?.0);
        let is_allowed = self.allowed_jump.is_some_and(|allowed| height <= allowed);
        (u64::try_from(jump).is_ok_and(|jump| jump > limit) && !is_allowed).then_some(limit)
    }

    fn raise(&mut self, watermark: Watermark) {
        assert!(!self.rising, "an event asks for one raise at the most");
        self.rising = true;
        self.effects.push_back(Effect::Raise(watermark));
    }
}

impl Subject {
    fn is_message(&self) -> bool {
        matches!(self, Self::Message(_))
    }
}
