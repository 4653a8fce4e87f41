//! What comes before a cosigner takes part: hearing what the others know, and having them refuse its earlier lives.
//!
//! A disk may be older than what was released from it: a restored snapshot, a copy, a lost disk. To ask the peers for their guards is
//! not enough: a share that the earlier life gave for X can still be completed by a peer that had not seen X when it
//! answered. So each peer that answers also refuses, from then on, sessions with commitments of earlier lives. A session of
//! an earlier life takes `t - 1` others, and with `n - t + 1` answers one of those has answered: either it stood by X and
//! told so, or it refuses.
//!
//! Each step of that is one that can be left out by mistake, and has a test of its name (`tests/rejoining.rs`):
//!
//! * the peer refuses earlier lives durably before it answers;
//! * what it stands by is durable here before it counts as an answer. So a guard that contradicts itself, or that is too far ahead to be
//!   believed, is no answer, and the peer is none of the `n - t + 1` until a signature or the operator speaks for it;
//! * the answers are those of one start: an earlier life than this one fenced what came before it, and no more;
//! * that they are needed is durable as soon as it is known, and for a new disk it is known before anything else is. It ends when they
//!   have been given, and by no restart: a start that was interrupted leaves the next one as much to hear.
//! * what was adopted while joining is no memory of this disk: signs of what it has lost are held against where it stood before.
//!
//! That makes one rolled-back, cloned or lost disk at a time harmless even in 2-of-3, at the price that both others must be up
//! for such a start. `auto` asks for it only if something speaks for it: a disk that is new, or a peer that has seen, or was
//! told of, a share or a start of this cosigner that its disk does not know. What the peers have forgotten by a restart of
//! their own, or nobody who is up has heard of, `auto` misses; `strict` does not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::effect::{ConnId, Effect, Note, Unbelieved};
use super::{By, Cosigner, Rejoin, Settings, State};
use crate::guard::{JumpLimit, Recorded, Watermark};
use crate::threshold::group::Shape;
use crate::threshold::incarnation::{Incarnation, Lives, MOST_STARTS};
use crate::threshold::message::{Hello, Place, Reply, Request, VERSION, Welcome};
use crate::threshold::nonces::POOL;
use crate::threshold::rounds::MemberId;

/// How long peers that are connected may take to answer.
const ANSWER: Duration = Duration::from_secs(3);
/// How long peers that cannot be reached are waited for.
const REACH: Duration = Duration::from_millis(600);
/// How many later lives of ours one peer may know of in one start. Each is a life that we take and all peers have to hear of, so one that
/// lies could keep us from taking part for ever.
const MOST_CLAIMS: u8 = 3;
/// How often peers are pinged.
const PING: Duration = Duration::from_secs(1);
/// How long a ping may be unanswered before the connection is given up.
const SILENCE: Duration = Duration::from_secs(5);

/// A cosigner that has just started.
pub(super) struct Joining {
    since: Instant,
    /// Where the record stood before anything was adopted.
    disk: Place,
    /// Why `n - t + 1` answers are needed, if they are.
    needs_quorum: Option<String>,
    /// Who has fenced our earlier lives.
    answered: BTreeSet<MemberId>,
    /// How often each has known a later life.
    claims: BTreeMap<MemberId, u8>,
    /// Lives that are too far ahead for one to be believed.
    far: BTreeMap<MemberId, Incarnation>,
    next_look: Instant,
}

impl Joining {
    pub(super) fn new(now: Instant, settings: &Settings, lives: &Lives, recorded: Recorded<'_>) -> Self {
        let why = match (lives.settled, settings.rejoin) {
            (false, _) => Some("its disk is new or was found to be old, and too few have answered since"),
            (true, Rejoin::Strict) => Some("`rejoin` is `strict`"),
            (true, Rejoin::Auto) => None,
        };
        Self {
            since: now,
            disk: lives.joining.unwrap_or_else(|| Place::of(recorded.watermark)),
            needs_quorum: why.map(str::to_owned),
            answered: BTreeSet::new(),
            claims: BTreeMap::new(),
            far: BTreeMap::new(),
            next_look: now + REACH,
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.needs_quorum.is_none().then_some(self.next_look)
    }

    /// What the operator is told at the start.
    pub(super) fn waiting(&self, shape: Shape) -> Option<Note> {
        let because = self.needs_quorum.clone()?;
        Some(Note::Waiting { because, needed: shape.rejoin_quorum() })
    }
}

impl Cosigner {
    pub(super) fn on_dialed(&mut self, now: Instant, conn: ConnId, member: MemberId) {
        let Some(peer) = self.peers.get_mut(&member) else { return };
        peer.connected(conn);
        peer.pinged = Some((0, now));
        let group = &self.settings.group;
        let hello = Hello {
            versions: (VERSION, VERSION),
            group: group.verifying_key().to_bytes(),
            epoch: group.epoch(),
            incarnation: self.lives.own,
            seen_of_you: self.seen.get(&member).copied().unwrap_or_default(),
        };
        self.request(conn, Request::Hello(hello));
    }

    pub(super) fn on_closed(&mut self, now: Instant, conn: ConnId) {
        if self.inbound.remove(&conn).is_some() {
            return;
        }
        if let Some(peer) = self.peers.values_mut().find(|peer| peer.conn == Some(conn)) {
            peer.disconnected();
        }
        self.lost(now, conn);
    }

    /// A message on a connection that we dialed.
    pub(super) fn on_reply(&mut self, now: Instant, conn: ConnId, reply: Reply, recorded: Recorded<'_>) {
        let found = self.peers.iter().find(|(_, peer)| peer.conn == Some(conn));
        let Some((member, welcomed)) = found.map(|(member, peer)| (*member, peer.is_up())) else { return };
        match reply {
            Reply::Welcome(welcome) if !welcomed => self.on_welcome(now, conn, member, &welcome, recorded),
            Reply::Fenced(known) => self.on_fenced(conn, member, known),
            _ if !welcomed => self.close(conn, "it did not begin with a welcome"),
            Reply::Welcome(_) => self.close(conn, "it said welcome twice"),
            Reply::Commitments(list) => self.on_commitments(now, member, list),
            Reply::Active => {
                self.peers.entry(member).and_modify(|peer| peer.active = true);
                self.retry(now);
            }
            Reply::Share { request, share } => {
                if let Some(pending) = self.take_pending(conn, request) {
                    self.on_share(now, pending, &share);
                }
            }
            Reply::Refused { request, why, proof } => {
                if let Some(pending) = self.take_pending(conn, request) {
                    self.on_refused(now, pending, why, proof, recorded);
                }
            }
            Reply::Signed { request, message, signature } => {
                if let Some(pending) = self.take_pending(conn, request) {
                    self.on_signed(pending, message, signature, recorded);
                }
            }
            Reply::Pong(number) => self.on_pong(now, member, number),
        }
    }

    fn take_pending(&mut self, conn: ConnId, request: u64) -> Option<super::ask::Pending> {
        let is_its = self.pending.get(&request).is_some_and(|pending| pending.conn == conn);
        is_its.then(|| self.pending.remove(&request)).flatten()
    }

    /// A peer tells what it knows, and has fenced our earlier lives.
    fn on_welcome(
        &mut self,
        now: Instant,
        conn: ConnId,
        member: MemberId,
        welcome: &Welcome,
        recorded: Recorded<'_>,
    ) {
        if welcome.version != VERSION {
            return self.close(conn, "it chose a version of messages that was not offered");
        }
        let known = self.lives.peers.get(&member).copied().unwrap_or_default();
        if welcome.incarnation < known {
            return self.close(conn, "it is an earlier life of a cosigner that was started anew");
        }
        if let Err(why) = self.follow(now, member, welcome.incarnation) {
            return self.close(conn, why);
        }
        let Ok(guard) = welcome.guard.watermark(self.settings.group.chain_id()) else {
            self.note(Note::Nonsense { member, what: "its guard contradicts itself" });
            return self.close(conn, "it makes no sense");
        };
        // Before anything is adopted: what the disk did not know must not be forgotten by an interruption.
        if self.saw_more(member, welcome.seen_of_you, recorded) {
            return;
        }
        self.was_told_of_more(welcome.signed_by_you);
        if welcome.proof.as_ref().is_some_and(|proof| self.learn(proof, recorded).is_none()) {
            self.note(Note::Nonsense { member, what: "it passes on a signature that is none" });
            return self.close(conn, "it makes no sense");
        }
        if let Some(peer) = self.peers.get_mut(&member) {
            peer.incarnation = Some(welcome.incarnation);
            peer.active = welcome.active;
            peer.guard = Some(welcome.guard.place);
            peer.pinged = None;
        }
        self.answer_of(member, guard, recorded);
        self.try_to_join(now);
        self.retry(now);
    }

    /// Takes over what a peer stands by, so that we never stand by something else there; then it has answered. What no signature
    /// proves is believed within the limit of jumps only, and only while we join.
    fn answer_of(&mut self, member: MemberId, guard: Watermark, recorded: Recorded<'_>) {
        if !matches!(self.state, State::Joining(_)) {
            return;
        }
        self.peers.entry(member).and_modify(|peer| peer.unbelieved = None);
        if let Some(unbelieved) = self.doubt(member, &guard, recorded) {
            self.note(Note::Unbelievable(unbelieved));
            self.effects.push_back(Effect::LookUpAllowance);
            self.peers.entry(member).and_modify(|peer| peer.unbelieved = Some(guard));
            return;
        }
        if Place::of(&guard) > Place::of(recorded.watermark) {
            // No signature proves it, so whose word it is must be known.
            self.name_carrier(By::Peer(member), &guard);
            self.raise_at_least(guard);
        }
        if let State::Joining(joining) = &mut self.state {
            joining.answered.insert(member);
        }
    }

    /// Whether a guard is further ahead than is believed without a signature.
    fn doubt(&self, member: MemberId, guard: &Watermark, recorded: Recorded<'_>) -> Option<Unbelieved> {
        let JumpLimit::Heights(limit) = self.settings.jump_limit else { return None };
        // On a record that has signed nothing, too: one peer that lies must not carry it to where no chain ever comes.
        let anchor = self.anchor.unwrap_or(recorded.watermark.height);
        let ahead = u64::try_from(guard.height.0.saturating_sub(anchor.0)).unwrap_or(0);
        let is_allowed = self.allowed_jump.is_some_and(|allowed| guard.height <= allowed);
        // Our own record has gone there already, if it has.
        let is_new = guard.height > recorded.watermark.height;
        let (place, chain_id) = (Place::of(guard), self.chain_id().clone());
        (is_new && ahead > limit && !is_allowed).then_some(Unbelieved { member, place, anchor, chain_id })
    }

    /// One raise for an event: the higher of the two, in the place of the lower.
    fn raise_at_least(&mut self, watermark: Watermark) {
        let pending = self.effects.iter_mut().find_map(|effect| match effect {
            Effect::Raise(pending) => Some(pending),
            _ => None,
        });
        match pending {
            Some(pending) if Place::of(pending) < Place::of(&watermark) => *pending = watermark,
            Some(_) => {}
            None => self.raise(watermark),
        }
    }

    /// Something has happened: perhaps it speaks for a guard that was not believed.
    pub(super) fn look_again(&mut self, now: Instant, recorded: Recorded<'_>) {
        if !matches!(self.state, State::Joining(_)) {
            return;
        }
        let doubted =
            self.peers.iter().filter_map(|(member, peer)| Some((*member, peer.unbelieved.clone()?)));
        let believed: Vec<(MemberId, Watermark)> =
            doubted.filter(|(member, guard)| self.doubt(*member, guard, recorded).is_none()).collect();
        if believed.is_empty() {
            return;
        }
        for (member, guard) in believed {
            self.answer_of(member, guard, recorded);
        }
        self.try_to_join(now);
    }

    /// A peer has seen shares of ours that our record knows nothing of. True if we have stopped for it.
    pub(super) fn saw_more(&mut self, member: MemberId, seen: Place, recorded: Recorded<'_>) -> bool {
        if let State::Joining(joining) = &self.state {
            let disk = joining.disk;
            if seen > disk {
                self.need_quorum(format!("it has given a share at {seen}, and the record stood at {disk}"));
            }
            return false;
        }
        let own = Place::of(recorded.watermark);
        seen > own
            && self.accuse(
                member,
                format!(
                    "cosigners have seen a share of this one at {seen}, and the record stands at {own}: it is an old copy, or \
                     another one runs with this share"
                ),
            )
    }

    /// A peer was told who signed. To be behind is no sign of an old disk: who was away is. To have signed what the disk does not know is
    /// one.
    fn was_told_of_more(&mut self, signed: Place) {
        let State::Joining(Joining { disk, .. }) = self.state else { return };
        if signed > disk {
            self.need_quorum(format!("it has signed {signed}, and the record stood at {disk}"));
        }
    }

    /// Something shows that this disk may be old. A restart does not forget it.
    fn need_quorum(&mut self, because: String) {
        self.unsettle();
        let State::Joining(joining) = &mut self.state else { return };
        if joining.needs_quorum.is_none() {
            joining.needs_quorum = Some(because);
            let note = joining.waiting(self.settings.group.shape());
            self.effects.extend(note.map(Effect::Note));
        }
    }

    /// Has the next start hear `n - t + 1` others, whatever speaks for it then.
    fn unsettle(&mut self) {
        if self.lives.settled {
            self.lives.settled = false;
            self.effects.push_back(Effect::Store(self.lives.clone()));
        }
    }

    /// How far the start has come, and what an operator can do about it.
    pub(super) fn describe(&self, joining: &Joining) -> String {
        let shape = self.settings.group.shape();
        let mut text = match &joining.needs_quorum {
            Some(why) => {
                let (heard, needed) = (joining.answered.len(), shape.rejoin_quorum());
                format!("joining: {heard} of {needed} cosigners have answered; {why}")
            }
            None => "joining: asks the other cosigners what they know".into(),
        };
        let anchor = self.anchor.unwrap_or_default();
        for (member, guard) in
            self.peers.iter().filter_map(|(id, peer)| Some((*id, peer.unbelieved.as_ref()?)))
        {
            let (place, chain_id) = (Place::of(guard), self.chain_id().clone());
            text += &format!("; {}", Unbelieved { member, place, anchor, chain_id });
        }
        text
    }

    /// A peer says that we must not go on. One that lies must not be able to stop everybody: as many as may be faulty are not
    /// believed.
    fn accuse(&mut self, member: MemberId, reason: String) -> bool {
        // Believed or not: the next start asks.
        self.unsettle();
        self.accusers.insert(member);
        let is_believed = self.accusers.len() > usize::from(self.settings.group.shape().faults());
        if is_believed {
            self.stop(reason);
        } else {
            self.note(Note::Accused { member, reason });
        }
        is_believed
    }

    /// From now on, nothing of a peer's earlier lives counts, also after a restart of ours.
    pub(super) fn fence(&mut self, now: Instant, member: MemberId, incarnation: Incarnation) {
        let is_first = self.lives.peers.insert(member, incarnation).is_none();
        self.effects.push_back(Effect::Store(self.lives.clone()));
        if !is_first {
            self.note(Note::Fenced(member));
        }
        let leftovers = self.inbound.iter().filter(|(_, inbound)| {
            inbound.member == member && inbound.incarnation.is_some_and(|of| of < incarnation)
        });
        for conn in leftovers.map(|(conn, _)| *conn).collect::<Vec<_>>() {
            self.inbound.remove(&conn);
            self.close(conn, "the peer has been started anew");
        }
        let old =
            self.peers.get_mut(&member).filter(|peer| peer.incarnation.is_some_and(|of| of < incarnation));
        if let Some(conn) = old.and_then(|peer| {
            let conn = peer.conn;
            peer.disconnected();
            conn
        }) {
            self.lost(now, conn);
            self.close(conn, "the peer has been started anew");
        }
    }

    /// A peer knows a later life of ours.
    fn on_fenced(&mut self, conn: ConnId, member: MemberId, known: Incarnation) {
        if known < self.lives.own {
            return;
        }
        let State::Joining(joining) = &mut self.state else {
            let reason = "another cosigner with this share has been started: this one is fenced off. There must be one; stop the \
                          other and restart this one";
            self.accuse(member, reason.into());
            return;
        };
        // More than a peer can have missed: somebody else has counted on in our name, or this one lies. Who may be faulty is not believed.
        let known = if known.count - self.lives.own.count > MOST_STARTS {
            joining.far.insert(member, known);
            let mut far: Vec<_> = joining.far.values().filter(|far| !far.is_beyond_belief()).collect();
            far.sort();
            let faults = usize::from(self.settings.group.shape().faults());
            let Some(believed) = far.iter().rev().nth(faults).map(|far| **far) else {
                self.need_quorum(
                    "a cosigner claims to know far later starts of this one than its disk does".into(),
                );
                self.note(Note::Nonsense {
                    member,
                    what: "it claims more starts of this cosigner than there can be, and no other says so",
                });
                self.close(conn, "it makes no sense");
                return self.try_to_join(self.now);
            };
            believed.max(self.lives.own)
        } else {
            known
        };
        let claims = joining.claims.entry(member).or_default();
        if *claims == MOST_CLAIMS {
            self.note(Note::Nonsense {
                member,
                what: "it claims one later start of this cosigner after the other",
            });
            return self.close(conn, "it makes no sense");
        }
        *claims += 1;
        joining.answered.clear();
        // One write for both: a life that was taken says no more that the disk did not know of those before it.
        self.lives.settled = false;
        self.lives.own = known.next(&*self.entropy);
        self.effects.push_back(Effect::Store(self.lives.clone()));
        self.need_quorum("the other cosigners know a later start of this one than its disk does".into());
        // All peers are to hear of the new life, and nothing that they have said to the old one counts.
        let mut conns: Vec<ConnId> = std::mem::take(&mut self.inbound).into_keys().collect();
        for peer in self.peers.values_mut() {
            conns.extend(peer.conn);
            peer.disconnected();
            peer.unbelieved = None;
        }
        for conn in conns {
            self.close(conn, "this cosigner takes a new life");
        }
    }

    /// Takes part, if enough has been heard.
    fn try_to_join(&mut self, now: Instant) {
        let shape = self.settings.group.shape();
        let State::Joining(joining) = &mut self.state else { return };
        let answered = joining.answered.len();
        let is_doubted = self.peers.values().any(|peer| peer.unbelieved.is_some());
        let waited = now.duration_since(joining.since);
        let is_enough = if joining.needs_quorum.is_some() || is_doubted {
            answered >= shape.rejoin_quorum()
        } else {
            let all_connected = self.peers.values().all(|peer| peer.conn.is_none() || peer.is_up());
            answered == self.peers.len() || waited >= ANSWER || (waited >= REACH && all_connected)
        };
        if !is_enough {
            let look = [REACH, ANSWER].into_iter().find(|look| waited < *look).unwrap_or(waited + PING);
            joining.next_look = joining.since + look;
            return;
        }
        self.state = State::Active;
        // After what was adopted, and before anybody is told: it is true now, also if this is the last that we do.
        self.lives.settled = true;
        self.lives.joining = None;
        self.effects.push_back(Effect::Store(self.lives.clone()));
        self.note(Note::Active { fenced_by: answered });
        let conns: Vec<ConnId> = self
            .inbound
            .iter()
            .filter(|(_, inbound)| inbound.incarnation.is_some())
            .map(|(conn, _)| *conn)
            .collect();
        for conn in conns {
            self.refill(now, conn);
            self.reply(conn, Reply::Active);
        }
        self.retry(now);
    }

    fn on_commitments(&mut self, now: Instant, member: MemberId, list: Vec<(u64, Vec<u8>)>) {
        let Some(peer) = self.peers.get_mut(&member) else { return };
        let before = peer.can_sign(now);
        list.into_iter().take(2 * POOL).for_each(|(nonce, bytes)| peer.add(now, nonce, bytes));
        if !before {
            self.retry(now);
        }
    }

    pub(super) fn on_time(&mut self, now: Instant, _recorded: Recorded<'_>) {
        self.try_to_join(now);
        self.on_overdue(now);
        if self.next_ping <= now {
            self.next_ping = now + PING;
            self.try_suspects(now);
            if self.peers.values().any(|peer| peer.unbelieved.is_some()) {
                self.effects.push_back(Effect::LookUpAllowance);
            }
            self.ping(now);
        }
    }

    fn ping(&mut self, now: Instant) {
        let number = self.fresh_id();
        let mut effects = Vec::new();
        for peer in self.peers.values_mut() {
            let Some(conn) = peer.conn else { continue };
            match peer.pinged {
                Some((_, since)) if now.duration_since(since) >= SILENCE => {
                    effects.push(Effect::Close { conn, why: "it has been silent for too long" });
                }
                Some(_) => {}
                None => {
                    peer.pinged = Some((number, now));
                    effects.push(Effect::Request { conn, request: Request::Ping(number) });
                }
            }
        }
        self.effects.extend(effects);
    }

    fn on_pong(&mut self, now: Instant, member: MemberId, number: u64) {
        let Some(peer) = self.peers.get_mut(&member) else { return };
        if let Some((_, since)) = peer.pinged.take_if(|(pinged, _)| *pinged == number) {
            let last = now.duration_since(since);
            peer.round_trip = Some(peer.round_trip.map_or(last, |smooth| (smooth * 7 + last) / 8));
        }
    }
}
