//! What comes before a cosigner takes part: hearing what the others know, and having them refuse its earlier lives.
//!
//! A disk may be older than what was released from it: a restored snapshot, a copy, a lost disk. To ask the peers for their guards is
//! not enough: a share that the earlier life gave for X can still be completed by a peer that had not seen X when it
//! answered. So each peer that answers also refuses, from then on, sessions with commitments of earlier lives. A session of
//! an earlier life takes `t - 1` others, and with `n - t + 1` answers one of those has answered: either it stood by X and
//! told so, or it refuses.
//!
//! That makes one rolled-back, cloned or lost disk at a time harmless even in 2-of-3, at the price that both others must be up
//! for such a start. `auto` asks for it only if something speaks for it: a disk that is new, or a peer that has seen, or was
//! told of, a share or a start of this cosigner that its disk does not know. What the peers have forgotten by a restart of
//! their own, or nobody who is up has heard of, `auto` misses; `strict` does not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::effect::{ConnId, Effect, Note};
use super::{Cosigner, State};
use crate::guard::Recorded;
use crate::threshold::group::Shape;
use crate::threshold::incarnation::{Incarnation, MOST_STARTS};
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
    /// Where the record stood at the start.
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
    pub(super) fn new(now: Instant, needs_quorum: bool, recorded: Recorded<'_>) -> Self {
        let why = "its disk is new, or `rejoin` is `strict`";
        Self {
            since: now,
            disk: Place::of(recorded.watermark),
            needs_quorum: needs_quorum.then(|| why.into()),
            answered: BTreeSet::new(),
            claims: BTreeMap::new(),
            far: BTreeMap::new(),
            next_look: now + REACH,
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.needs_quorum.is_none().then_some(self.next_look)
    }

    pub(super) fn describe(&self, shape: Shape) -> String {
        match &self.needs_quorum {
            Some(why) => {
                let (heard, needed) = (self.answered.len(), shape.rejoin_quorum());
                format!("joining: {heard} of {needed} cosigners have answered; {why}")
            }
            None => "joining: asks the other cosigners what they know".into(),
        }
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
        if self.saw_more(member, welcome.seen_of_you, recorded) {
            return;
        }
        if let Some(peer) = self.peers.get_mut(&member) {
            peer.incarnation = Some(welcome.incarnation);
            peer.active = welcome.active;
            peer.guard = Some(welcome.guard.place);
            peer.pinged = None;
        }
        self.adopt(member, welcome, recorded);
        if let State::Joining(joining) = &mut self.state {
            joining.answered.insert(member);
        }
        self.try_to_join(now);
        self.retry(now);
    }

    /// Takes over what the peer stands by, so that we never stand by something else there. What no signature proves is
    /// believed within the limit of jumps only, and only while we join.
    fn adopt(&mut self, member: MemberId, welcome: &Welcome, recorded: Recorded<'_>) {
        let proven = welcome.proof.as_ref().and_then(|proof| self.learn(proof, recorded));
        let proven = proven.map(|asked| Place::of_asked(&asked)).unwrap_or_default();
        let disk = Place::of(recorded.watermark);
        let State::Joining(joining) = &mut self.state else { return };
        // To be behind is no sign of an old disk: who was away is. To have signed what the disk does not know is one.
        if welcome.signed_by_you > joining.disk && joining.needs_quorum.is_none() {
            let because =
                format!("it has signed {}, and the record stood at {}", welcome.signed_by_you, joining.disk);
            joining.needs_quorum = Some(because.clone());
            let needed = self.settings.group.shape().rejoin_quorum();
            self.note(Note::Waiting { because, needed });
        }
        if welcome.guard.place <= disk.max(proven) {
            return;
        }
        let Ok(watermark) = welcome.guard.watermark(self.settings.group.chain_id()) else {
            return self.note(Note::Nonsense { member, what: "its guard contradicts itself" });
        };
        if self.limit(watermark.height).is_some() {
            return self.note(Note::Unbelievable { member, place: welcome.guard.place });
        }
        // One raise for an event: the higher of the two, in the place of the lower.
        let pending = self.effects.iter_mut().find_map(|effect| match effect {
            Effect::Raise(pending) => Some(pending),
            _ => None,
        });
        match pending {
            Some(pending) => *pending = watermark,
            None => self.raise(watermark),
        }
    }

    /// A peer has seen shares of ours that our record knows nothing of. True if we have stopped for it.
    pub(super) fn saw_more(&mut self, member: MemberId, seen: Place, recorded: Recorded<'_>) -> bool {
        let own = Place::of(recorded.watermark);
        if seen <= own {
            return false;
        }
        let needed = self.settings.group.shape().rejoin_quorum();
        let State::Joining(joining) = &mut self.state else {
            return self.accuse(
                member,
                format!(
                    "cosigners have seen a share of this one at {seen}, and the record stands at {own}: it is an old copy, or \
                     another one runs with this share"
                ),
            );
        };
        if joining.needs_quorum.is_none() {
            let because = format!("it has given a share at {seen}, and the record stands at {own}");
            joining.needs_quorum = Some(because.clone());
            self.note(Note::Waiting { because, needed });
        }
        false
    }

    /// A peer says that we must not go on. One that lies must not be able to stop everybody: as many as may be faulty are not
    /// believed.
    fn accuse(&mut self, member: MemberId, reason: String) -> bool {
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
                let because = "a cosigner claims to know far later starts of this one than its disk does";
                if joining.needs_quorum.is_none() {
                    joining.needs_quorum = Some(because.into());
                    let needed = self.settings.group.shape().rejoin_quorum();
                    self.note(Note::Waiting { because: because.into(), needed });
                }
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
        let because = "the other cosigners know a later start of this one than its disk does".to_owned();
        joining.answered.clear();
        let is_news = joining.needs_quorum.replace(because.clone()).is_none();
        self.lives.own = known.next(&*self.entropy);
        self.effects.push_back(Effect::Store(self.lives.clone()));
        if is_news {
            let needed = self.settings.group.shape().rejoin_quorum();
            self.note(Note::Waiting { because, needed });
        }
        // All peers are to hear of the new life, and nothing that they have said to the old one counts.
        let mut conns: Vec<ConnId> = std::mem::take(&mut self.inbound).into_keys().collect();
        for peer in self.peers.values_mut() {
            conns.extend(peer.conn);
            peer.disconnected();
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
        let is_enough = match joining.needs_quorum {
            Some(_) => answered >= shape.rejoin_quorum(),
            None => {
                let waited = now.duration_since(joining.since);
                let all_connected = self.peers.values().all(|peer| peer.conn.is_none() || peer.is_up());
                answered == self.peers.len() || waited >= ANSWER || (waited >= REACH && all_connected)
            }
        };
        if !is_enough {
            let waited = now.duration_since(joining.since);
            joining.next_look = joining.since + if waited < REACH { REACH } else { ANSWER };
            return;
        }
        self.state = State::Active;
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
