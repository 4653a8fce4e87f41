//! The coordinator's side: what our chain, or a peer, wants signed by the group.
//!
//! Whoever has the lowest number of those that are up coordinates; the others forward to it, so that two requests for one place
//! meet in one cosigner. That is an order and no election: a peer that does not answer within the hedge is overtaken, and both
//! may go on, since guards stand by one message whoever asks.
//!
//! A set of signers that is slow gets a second set beside it (as in ROAST), of peers that do not owe a share of the same ask: who
//! has given one may give another, with other nonces. So as many as may be down may hang instead. The first session that is
//! complete wins.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::ask::{Ask, Forwarded, Leading, Origin, Pending, PendingKind, Session};
use super::effect::{Answered, AskError, ConnId, Effect, Note, ShareFailure, ShareJob, Ticket};
use super::{By, Cosigner, State};
use crate::guard::{Recorded, Verdict};
use crate::threshold::asked::{Asked, Subject};
use crate::threshold::commitments;
use crate::threshold::frost::{SignatureShare, SigningCommitments};
use crate::threshold::message::{Place, Proof, Reply, Request, Signer, Why};
use crate::threshold::nonces::Stock;
use crate::threshold::rounds::{self, Commitments, MemberId, RoundError, Shares, SignedShare};
use crate::threshold::verified::Verified;

/// How often a peer may put off one ask before it is left out of it.
const MOST_TIMES: u8 = 3;
/// How many requests of one peer are remembered that it has not answered: what it gives late still tells where it stands.
const MOST_PENDING: usize = 64;
/// How much of a peer's text is passed on.
const MOST_TEXT: usize = 200;

impl Cosigner {
    pub(super) fn on_ask(
        &mut self,
        now: Instant,
        ask: u64,
        subject: Subject,
        signers: Option<Vec<MemberId>>,
        recorded: Recorded<'_>,
    ) {
        self.open_ask(now, Origin::Chain { ask }, subject, signers, recorded);
    }

    /// Takes in a wish: answers it at once, joins it to one that is the same, or sets out to fulfil it.
    pub(super) fn open_ask(
        &mut self,
        now: Instant,
        origin: Origin,
        subject: Subject,
        signers: Option<Vec<MemberId>>,
        recorded: Recorded<'_>,
    ) {
        let meaning = match subject.read(self.chain_id(), self.settings.raw) {
            Ok(meaning) => meaning,
            Err(refusal) => return self.answer(origin, &subject, &Err(refusal.into())),
        };
        if let Some(wanted) = &meaning.guarded {
            if let Some(known) = self.known(wanted).filter(|_| subject.is_message()) {
                return self.answer(origin, &subject, &Ok(known));
            }
            // Before anybody is asked: peers must not be brought to stand by what we refuse.
            let by = self.by(origin);
            if let Verdict::Refuse(refusal) = self.judge(by, wanted, recorded) {
                if by == By::Own {
                    self.name_carrier_again(recorded);
                }
                return self.answer(origin, &subject, &Err(refusal.into()));
            }
            if by == By::Own {
                self.own_asks(wanted.hrs().height);
            }
        }
        let same =
            self.asks.iter().find(|(_, ask)| self.is_same(ask, &subject, meaning.guarded.as_ref(), &signers));
        if let Some(id) = same.map(|(id, _)| *id) {
            self.asks.entry(id).and_modify(|ask| ask.origins.push(origin));
            return;
        }
        let until = now + self.settings.hold;
        let origins = vec![origin];
        let ask = Ask { subject, meaning, origins, signers, until, forwarded: None, leading: None };
        let id = self.fresh_id();
        self.asks.insert(id, ask);
        self.route(now, id);
    }

    fn by(&self, origin: Origin) -> By {
        match origin {
            Origin::Chain { .. } => By::Own,
            Origin::Peer { conn, .. } => self.peer_of(conn),
        }
    }

    /// Our own chain is refused what is below the record: says who has had it raised there, if it was a peer.
    fn name_carrier_again(&mut self, recorded: Recorded<'_>) {
        let Some((member, place)) = self.carried else { return };
        let known = self.anchor.max(self.own_asked).map_or(0, |height| height.0);
        if place == Place::of(recorded.watermark) && place.height > known {
            self.note(Note::Carried { member, place, by: place.height - known });
        }
    }

    fn is_same(
        &self,
        ask: &Ask,
        subject: &Subject,
        wanted: Option<&Asked>,
        signers: &Option<Vec<MemberId>>,
    ) -> bool {
        if ask.signers != *signers {
            return false;
        }
        match (ask.meaning.guarded.as_ref(), wanted) {
            (Some(one), Some(other)) if ask.subject.is_message() && subject.is_message() => {
                one.is_alike(self.chain_id(), other)
            }
            _ => ask.subject == *subject,
        }
    }

    /// Forwards to whoever coordinates, or coordinates.
    fn route(&mut self, now: Instant, id: u64) {
        let Some(ask) = self.asks.get(&id) else { return };
        let is_mine = ask.signers.is_some() || !ask.is_ours();
        let me = self.settings.me;
        let better = self
            .peers
            .iter()
            .find(|(member, peer)| {
                (**member < me || !self.is_active()) && peer.is_up() && peer.active && !peer.is_suspected()
            })
            .and_then(|(member, peer)| Some((*member, peer.conn?)));
        match better.filter(|_| !is_mine) {
            Some((to, conn)) => self.forward(now, id, to, conn),
            None => self.ready.push_back(id),
        }
    }

    fn forward(&mut self, now: Instant, id: u64, to: MemberId, conn: ConnId) {
        let request = self.fresh_id();
        let Some(until) = self.asks.get(&id).map(|ask| now + self.hedge(&ask.subject)) else { return };
        let Some(ask) = self.asks.get_mut(&id) else { return };
        ask.forwarded = Some(Forwarded { to, until });
        let (subject, place) = (ask.subject.clone(), ask.place());
        let kind = PendingKind::Forward { ask: id };
        self.expect(request, Pending { conn, member: to, kind, place });
        self.request(conn, Request::Forward { request, subject });
    }

    /// Coordinates: asks others, and stands by the message itself, durably, before it makes its own share. The others' disks and
    /// ours write at the same time. If this cosigner dies in between, others stand by a message that it does not know: that costs a
    /// vote at the most, since each stands by one message whoever asks.
    pub(super) fn lead(&mut self, now: Instant, id: u64, recorded: Recorded<'_>) {
        let Some(ask) = self.asks.get(&id).filter(|ask| ask.leading.is_none()) else { return };
        if !self.is_active() {
            return;
        }
        let mut rise = None;
        if let Some(wanted) = ask.meaning.guarded.clone() {
            // Signed meanwhile, perhaps.
            if let Some(known) = self.known(&wanted).filter(|_| self.asks[&id].subject.is_message()) {
                return self.finish(id, &Ok(known));
            }
            let by = if self.asks[&id].is_ours() {
                By::Own
            } else {
                self.asks[&id].origins.first().map_or(By::Own, |origin| self.by(*origin))
            };
            match self.judge(by, &wanted, recorded) {
                Verdict::Refuse(refusal) => return self.finish(id, &Err(refusal.into())),
                // The same message, but perhaps for its timestamp: the guard stands by it already.
                Verdict::Replay(_) => {}
                Verdict::Sign(watermark) => {
                    self.name_carrier(by, &watermark);
                    rise = Some(watermark);
                }
            }
        }
        let Some(hedge_at) = self.asks.get(&id).map(|ask| now + self.hedge(&ask.subject) / 2) else { return };
        if let Some(ask) = self.asks.get_mut(&id) {
            ask.leading = Some(Leading { refused: BTreeMap::new(), put_off: BTreeMap::new(), hedge_at });
        }
        let own = self.ask_signers(now, id);
        if let Some(watermark) = rise {
            self.raise(watermark);
        }
        self.effects.extend(own);
    }

    /// Asks one more set of signers, if there is one. The record stands by the message.
    fn open_session(&mut self, now: Instant, id: u64) {
        let own = self.ask_signers(now, id);
        self.effects.extend(own);
    }

    /// Asks a set of signers, if there is one. Returns the share of our own that is to be made.
    fn ask_signers(&mut self, now: Instant, id: u64) -> Option<Effect> {
        let peers = self.choose(now, id)?;
        let ask = self.asks.get(&id)?;
        let (subject, place) = (ask.subject.clone(), ask.place());
        let with_us = ask.signers.as_ref().is_none_or(|signers| signers.contains(&self.settings.me));
        let own = with_us.then(|| self.stock.take(now).unwrap_or_else(|| self.nonces.fresh()));
        let mut commitments = Commitments::new();
        let mut signers = Vec::new();
        if let Some((_, public)) = &own {
            commitments.insert(self.settings.me, *public);
            let (member, incarnation) = (self.settings.me, self.lives.own);
            signers.push(Signer { member, incarnation, commitments: bytes_of(public) });
        }
        let mut asked = Vec::new();
        for member in peers {
            let peer = self.peers.get_mut(&member)?;
            let (conn, incarnation, commitment) = (peer.conn?, peer.incarnation?, peer.take()?);
            commitments.insert(member, commitment.commitments);
            signers.push(Signer { member, incarnation, commitments: commitment.bytes });
            asked.push((member, conn, commitment.nonce));
        }
        let session = self.fresh_id();
        let waiting = asked.iter().map(|(member, ..)| *member).collect();
        for (member, conn, nonce) in asked {
            let request = self.fresh_id();
            let others = signers.iter().filter(|signer| signer.member != member).cloned().collect();
            self.expect(request, Pending { conn, member, kind: PendingKind::Share { session }, place });
            self.request(conn, Request::Share { request, nonce, subject: subject.clone(), others });
        }
        let of_session = Session {
            ask: id,
            commitments: commitments.clone(),
            shares: Shares::new(),
            group_commitment: None,
            waiting,
        };
        self.sessions.insert(session, of_session);
        let (nonces, _) = own?;
        let job = ShareJob { ticket: Ticket::Own { session }, subject, commitments, nonces };
        Some(Effect::Share(Box::new(job)))
    }

    /// A peer has been asked for something. One that never answers must not be remembered without end.
    fn expect(&mut self, request: u64, pending: Pending) {
        let of_it = || self.pending.iter().filter(|(_, other)| other.member == pending.member);
        if of_it().count() >= MOST_PENDING {
            let is_over = |other: &Pending| match other.kind {
                PendingKind::Share { session } => !self.sessions.contains_key(&session),
                PendingKind::Forward { ask } => !self.asks.contains_key(&ask),
            };
            let oldest = of_it().find(|(_, other)| is_over(other)).map(|(id, _)| *id);
            oldest.map(|oldest| self.pending.remove(&oldest));
        }
        self.pending.insert(request, pending);
    }

    /// Peers that were slow or wrong are tried with a drill: who is asked last has no other chance to show that it is better, and nobody
    /// waits for a drill.
    pub(super) fn try_suspects(&mut self, now: Instant) {
        if !self.is_active() {
            return;
        }
        let Some(suspect) =
            self.peers.iter_mut().find_map(|(member, peer)| peer.takes_trial(now).then_some(*member))
        else {
            return;
        };
        let mut others: Vec<_> = self
            .peers
            .iter_mut()
            .filter(|(member, peer)| **member != suspect && !peer.is_suspected())
            .filter_map(|(member, peer)| peer.can_sign(now).then(|| peer.order(*member)))
            .collect();
        others.sort();
        let needed = usize::from(self.settings.group.shape().threshold()) - 2;
        if others.len() < needed {
            return;
        }
        let others = others.into_iter().take(needed).map(|(.., member)| member);
        let signers = [self.settings.me, suspect].into_iter().chain(others).collect();
        let mut number = [0; 16];
        self.entropy.fill(&mut number);
        let subject = Subject::Drill(number);
        let Ok(meaning) = subject.read(self.chain_id(), self.settings.raw) else { return };
        let until = now + self.settings.hold;
        let (signers, origins) = (Some(signers), Vec::new());
        let id = self.fresh_id();
        self.asks
            .insert(id, Ask { subject, meaning, origins, signers, until, forwarded: None, leading: None });
        self.ready.push_back(id);
    }

    /// The peers that are to sign with us.
    fn choose(&mut self, now: Instant, id: u64) -> Option<Vec<MemberId>> {
        let ask = self.asks.get(&id)?;
        if let Some(signers) = &ask.signers {
            let peers: Vec<_> =
                signers.iter().copied().filter(|member| *member != self.settings.me).collect();
            let can = |member: &MemberId| self.peers.get_mut(member).is_some_and(|peer| peer.can_sign(now));
            return peers.iter().all(can).then_some(peers);
        }
        let busy: BTreeSet<MemberId> = self
            .sessions
            .values()
            .filter(|session| session.ask == id)
            .flat_map(|session| session.waiting.iter().copied())
            .collect();
        let refused = ask.leading.as_ref().map(|leading| &leading.refused);
        let mut peers: Vec<_> = self
            .peers
            .iter_mut()
            .filter(|(member, _)| !busy.contains(member))
            .filter(|(member, _)| refused.is_none_or(|refused| !refused.contains_key(member)))
            .filter_map(|(member, peer)| peer.can_sign(now).then(|| peer.order(*member)))
            .collect();
        peers.sort();
        let needed = usize::from(self.settings.group.shape().threshold()) - 1;
        (peers.len() >= needed).then(|| peers.into_iter().take(needed).map(|(.., member)| member).collect())
    }

    /// A share of our own was made, or one for a peer.
    pub(super) fn on_shared(
        &mut self,
        now: Instant,
        ticket: Ticket,
        share: Result<SignedShare, ShareFailure>,
    ) {
        match ticket {
            Ticket::Peer { conn, request } => self.on_peer_shared(conn, request, share),
            Ticket::Own { session } => match share {
                Ok(SignedShare { share, group_commitment }) => {
                    if let Some(of_session) = self.sessions.get_mut(&session) {
                        of_session.group_commitment = Some(group_commitment);
                    }
                    self.add_share(now, session, self.settings.me, share);
                }
                // The record has risen past it: the guard has the last word.
                Err(failure) => {
                    self.note(Note::Session(failure.to_string()));
                    self.sessions.remove(&session);
                }
            },
        }
    }

    /// A peer's share came.
    pub(super) fn on_share(&mut self, now: Instant, pending: Pending, share: &[u8]) {
        let Pending { member, kind, place, .. } = pending;
        let PendingKind::Share { session } = kind else { return };
        if let Some(place) = place {
            let seen = self.seen.entry(member).or_default();
            *seen = place.max(*seen);
        }
        // What comes when it is needed no more was not in time.
        let ask = self.sessions.get(&session).and_then(|session| self.asks.get(&session.ask));
        if let Some((was_waited_for, peer)) =
            ask.map(|ask| !ask.origins.is_empty()).zip(self.peers.get_mut(&member))
        {
            peer.trust(was_waited_for);
        }
        match SignatureShare::deserialize(share) {
            Ok(share) => self.add_share(now, session, member, share),
            Err(_) => self.blame(now, session, &[member]),
        }
    }

    fn add_share(&mut self, now: Instant, id: u64, member: MemberId, share: SignatureShare) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.waiting.remove(&member);
        session.shares.insert(member, share);
        if session.shares.len() < session.commitments.len() {
            return;
        }
        let id_of_ask = session.ask;
        let Some(ask) = self.asks.get(&id_of_ask) else { return };
        let group = &self.settings.group;
        let Session { commitments, shares, group_commitment, .. } = session;
        let made = rounds::aggregate(group, commitments, shares, *group_commitment, &ask.meaning.bytes);
        let signers: Vec<MemberId> = commitments.keys().copied().collect();
        match made {
            Ok(signature) => self.complete(id_of_ask, signature, signers),
            Err(RoundError::BadShares(members)) => self.blame(now, id, &members),
            Err(error) => {
                self.note(Note::Session(error.to_string()));
                self.sessions.remove(&id);
            }
        }
    }

    /// Some members have sent shares that are none: they are named, tried last, and left out of this ask.
    fn blame(&mut self, now: Instant, session: u64, members: &[MemberId]) {
        for member in members {
            self.note(Note::BadShare(*member));
            if let Some(peer) = self.peers.get_mut(member) {
                peer.suspect(now);
            }
        }
        let Some(Session { ask, .. }) = self.sessions.remove(&session) else { return };
        for member in members {
            self.will_not_sign(ask, *member, "a bad share");
        }
        self.go_on(now, ask);
    }

    fn will_not_sign(&mut self, ask: u64, member: MemberId, why: &str) {
        if let Some(leading) = self.asks.get_mut(&ask).and_then(|ask| ask.leading.as_mut()) {
            leading.refused.insert(member, quoted(why));
        }
    }

    /// After a session has failed: another one, or the end if there are too few left that could ever sign.
    fn go_on(&mut self, now: Instant, id: u64) {
        let Some(ask) = self.asks.get(&id) else { return };
        let Some(leading) = &ask.leading else { return };
        let shape = self.settings.group.shape();
        let can_be = match &ask.signers {
            Some(signers) => signers.iter().all(|signer| !leading.refused.contains_key(signer)),
            None => usize::from(shape.members()) - leading.refused.len() >= usize::from(shape.threshold()),
        };
        if can_be {
            return self.open_session(now, id);
        }
        let refused = leading.refused.iter().map(|(member, why)| format!("cosigner {member}: {why}"));
        let error = AskError::Split(refused.collect::<Vec<_>>().join("; "));
        self.finish(id, &Err(error));
    }

    /// A peer gives no share, or does not coordinate.
    pub(super) fn on_refused(
        &mut self,
        now: Instant,
        pending: Pending,
        why: Why,
        proof: Option<Proof>,
        recorded: Recorded<'_>,
    ) {
        let member = pending.member;
        if let Some(proof) = proof {
            self.learn(&proof, recorded);
        }
        match why {
            Why::NotActive => {
                self.peers.entry(member).and_modify(|peer| peer.active = false);
            }
            // Others will do, but not for ever.
            Why::NoQuorum | Why::Nonce | Why::Fenced(_) => self.has_put_off(now, &pending, &why),
            Why::Guard(ref text) | Why::Malformed(ref text) => {
                if let PendingKind::Share { session } = pending.kind
                    && let Some(ask) = self.sessions.get(&session).map(|session| session.ask)
                {
                    self.will_not_sign(ask, member, text);
                }
            }
        }
        match pending.kind {
            PendingKind::Share { session } => {
                if let Some(Session { ask, .. }) = self.sessions.remove(&session) {
                    self.go_on(now, ask);
                }
            }
            PendingKind::Forward { ask } => self.take_back(ask),
        }
    }

    /// A peer gives no share now. It is asked again, with other nonces or other signers, a few times.
    fn has_put_off(&mut self, now: Instant, pending: &Pending, why: &Why) {
        let PendingKind::Share { session } = pending.kind else { return };
        if let Why::Fenced(member) = why
            && let Some(peer) = self.peers.get_mut(member)
        {
            peer.doubt(now);
        }
        let Some(ask) = self.sessions.get(&session).map(|session| session.ask) else { return };
        let Some(leading) = self.asks.get_mut(&ask).and_then(|ask| ask.leading.as_mut()) else { return };
        let times = leading.put_off.entry(pending.member).or_default();
        *times += 1;
        if *times >= MOST_TIMES {
            self.will_not_sign(
                ask,
                pending.member,
                "no nonces, or a signer that it knows to be an earlier life",
            );
        }
    }

    /// What was forwarded is for us to coordinate.
    fn take_back(&mut self, id: u64) {
        if let Some(ask) = self.asks.get_mut(&id) {
            ask.forwarded = None;
            self.ready.push_back(id);
        }
    }

    /// A peer that was forwarded to has a signature.
    pub(super) fn on_signed(
        &mut self,
        pending: Pending,
        message: Option<Vec<u8>>,
        signature: Vec<u8>,
        recorded: Recorded<'_>,
    ) {
        let Pending { member, kind: PendingKind::Forward { ask: id }, .. } = pending else { return };
        let Some(ask) = self.asks.get(&id) else { return };
        if ask.subject.is_message() {
            let proof = Proof { message: message.unwrap_or_default(), signature };
            // Whoever waits for it is answered by what is learnt.
            self.learn(&proof, recorded);
        } else if let Ok(signature) = <[u8; 64]>::try_from(signature.as_slice()) {
            let key = self.settings.group.verifying_key();
            if let Some(signature) = Verified::new(key, &ask.meaning.bytes, signature) {
                let answered = Answered { signature, timestamp: None, replayed: false };
                return self.finish(id, &Ok(answered));
            }
        }
        if self.asks.contains_key(&id) {
            self.note(Note::Nonsense { member, what: "its signature is not the one that was asked for" });
            self.take_back(id);
        }
    }

    /// The group has signed.
    fn complete(&mut self, id: u64, signature: Verified, signers: Vec<MemberId>) {
        let Some(ask) = self.asks.get(&id) else { return };
        let wanted = ask.meaning.guarded.clone().filter(|_| ask.subject.is_message());
        let timestamp = wanted.as_ref().map(Asked::timestamp);
        if let Some(wanted) = wanted {
            let proof = Proof { message: wanted.bytes().to_vec(), signature: signature.signature().to_vec() };
            self.remember(&wanted, &signature);
            self.hear(&signers, Place::of_asked(&wanted));
            let answered = Answered { signature, timestamp, replayed: false };
            self.finish(id, &Ok(answered));
            // After the answer: nobody waits for this.
            let conns: Vec<ConnId> =
                self.peers.values().filter(|peer| peer.is_up()).filter_map(|peer| peer.conn).collect();
            for conn in conns {
                self.request(conn, Request::Done { proof: proof.clone(), signers: signers.clone() });
            }
            return;
        }
        self.finish(id, &Ok(Answered { signature, timestamp: None, replayed: false }));
    }

    /// Answers everyone who waits, and forgets the ask and its sessions.
    pub(super) fn finish(&mut self, id: u64, result: &Result<Answered, AskError>) {
        let Some(ask) = self.asks.remove(&id) else { return };
        self.sessions.retain(|_, session| session.ask != id);
        // A share that comes late still tells where its peer stands.
        self.pending.retain(|_, of| !matches!(of.kind, PendingKind::Forward { ask } if ask == id));
        for origin in &ask.origins {
            self.answer(*origin, &ask.subject, result);
        }
    }

    fn answer(&mut self, origin: Origin, subject: &Subject, result: &Result<Answered, AskError>) {
        match origin {
            Origin::Chain { ask } => self.effects.push_back(Effect::Answer { ask, result: result.clone() }),
            Origin::Peer { conn, request } => {
                let reply = match result {
                    Ok(answered) => {
                        let signature = answered.signature.signature().to_vec();
                        let message = self.message_at(subject, answered);
                        Reply::Signed { request, message, signature }
                    }
                    Err(AskError::NoQuorum(_) | AskError::Stopped(_)) => {
                        Reply::Refused { request, why: Why::NoQuorum, proof: None }
                    }
                    Err(error) => {
                        let proof = self.proof_against(subject);
                        Reply::Refused { request, why: Why::Guard(quoted(&error.to_string())), proof }
                    }
                };
                self.reply(conn, reply);
            }
        }
    }

    /// The sign bytes that a signature is of: those that were asked for, at its own timestamp.
    fn message_at(&self, subject: &Subject, answered: &Answered) -> Option<Vec<u8>> {
        let timestamp = answered.timestamp?;
        let asked = subject.read(self.chain_id(), self.settings.raw).ok()?.guarded?;
        Some(asked.question(self.chain_id()).ok()?.sign_bytes_at(timestamp))
    }

    /// A connection that was dialed has ended: its nonces are gone, and what it was asked is asked elsewhere. Our own nonces go with it: a copy
    /// of this process has the same ones, and no connection of its own.
    pub(super) fn lost(&mut self, now: Instant, conn: ConnId) {
        self.stock = Stock::default();
        let gone: Vec<u64> =
            self.pending.iter().filter(|(_, pending)| pending.conn == conn).map(|(id, _)| *id).collect();
        for id in gone {
            match self.pending.remove(&id).map(|pending| pending.kind) {
                Some(PendingKind::Share { session }) => {
                    if let Some(Session { ask, .. }) = self.sessions.remove(&session) {
                        self.go_on(now, ask);
                    }
                }
                Some(PendingKind::Forward { ask }) => self.take_back(ask),
                None => {}
            }
        }
    }

    /// Somebody has become able to sign: what waits for signers may go on.
    pub(super) fn retry(&mut self, now: Instant) {
        let waiting: Vec<u64> = self
            .asks
            .iter()
            .filter(|(id, ask)| {
                ask.forwarded.is_none() && !self.sessions.values().any(|session| session.ask == **id)
            })
            .map(|(id, _)| *id)
            .collect();
        for id in waiting {
            match self.asks.get(&id).map(|ask| ask.leading.is_some()) {
                Some(true) => self.open_session(now, id),
                Some(false) => self.route(now, id),
                None => {}
            }
        }
    }

    /// What is overdue: refused, overtaken, or given to a second set of signers.
    pub(super) fn on_overdue(&mut self, now: Instant) {
        let ids: Vec<u64> = self.asks.keys().copied().collect();
        for id in ids {
            let Some(ask) = self.asks.get(&id) else { continue };
            if ask.until <= now {
                let error = AskError::NoQuorum(self.who_is_missing(now, id));
                self.finish(id, &Err(error));
                continue;
            }
            if ask.leading.is_none() {
                let overdue = ask.forwarded.as_ref().filter(|forwarded| forwarded.until <= now);
                if let Some(to) = overdue.map(|forwarded| forwarded.to) {
                    self.slow(now, to);
                    // Its answer still counts: whoever is first wins.
                    self.overtake(now, id);
                }
            } else if ask.leading.as_ref().is_some_and(|leading| leading.hedge_at <= now) {
                self.add_another_set(now, id);
            }
        }
    }

    fn overtake(&mut self, now: Instant, id: u64) {
        if self.is_active() {
            if let Some(forwarded) = self.asks.get_mut(&id).and_then(|ask| ask.forwarded.as_mut()) {
                forwarded.until = now + self.settings.hold;
            }
            self.ready.push_back(id);
        } else if let Some(ask) = self.asks.get_mut(&id) {
            // We cannot sign yet: the next in rank is to coordinate.
            ask.forwarded = None;
            self.route(now, id);
        }
    }

    /// A set of signers is slow: another one beside it.
    fn add_another_set(&mut self, now: Instant, id: u64) {
        let slow: BTreeSet<MemberId> = self
            .sessions
            .values()
            .filter(|session| session.ask == id)
            .flat_map(|session| session.waiting.iter().copied())
            .collect();
        for member in slow {
            self.slow(now, member);
        }
        let hedge_at = self.asks.get(&id).map(|ask| match ask.signers {
            None => now + self.hedge(&ask.subject) / 2,
            // No others may sign, and to ask the same again helps nobody.
            Some(_) => ask.until,
        });
        let is_open = self.asks.get(&id).is_some_and(|ask| ask.signers.is_none());
        let leading = self.asks.get_mut(&id).and_then(|ask| ask.leading.as_mut());
        if let (Some(leading), Some(hedge_at)) = (leading, hedge_at) {
            leading.hedge_at = hedge_at;
        }
        if is_open {
            self.open_session(now, id);
        }
    }

    fn slow(&mut self, now: Instant, member: MemberId) {
        let peer = self.peers.get_mut(&member).filter(|peer| !peer.is_suspected());
        if let Some(peer) = peer {
            peer.suspect(now);
            self.note(Note::Slow(member));
        }
    }

    fn who_is_missing(&mut self, now: Instant, id: u64) -> String {
        if let State::Joining(joining) = &self.state {
            return format!("this cosigner is {}", self.describe(joining));
        }
        let shape = self.settings.group.shape();
        let mut missing = Vec::new();
        for (member, peer) in &mut self.peers {
            let what = match (peer.is_up(), peer.active, peer.can_sign(now)) {
                (false, ..) => "not connected",
                (true, false, _) => "has not joined yet",
                (true, true, false) => "without nonces",
                (true, true, true) => continue,
            };
            missing.push(format!("cosigner {member} {what}"));
        }
        let asked = self.sessions.values().filter(|session| session.ask == id);
        let forwarded = self.asks.get(&id).and_then(|ask| Some(ask.forwarded.as_ref()?.to));
        let asked: BTreeSet<MemberId> =
            asked.flat_map(|session| session.waiting.iter().copied()).chain(forwarded).collect();
        missing.extend(asked.iter().map(|member| format!("cosigner {member} has not answered in time")));
        let missing = if missing.is_empty() { "no answer in time".into() } else { missing.join(", ") };
        format!("{} of {} must sign; {missing}", shape.threshold(), shape.members())
    }
}

/// A peer's text, as it may be passed on: not too long, and nothing in it that a terminal or a log obeys.
fn quoted(text: &str) -> String {
    let plain = |c: char| c == ' ' || c.is_ascii_graphic();
    let escaped = |c: char| if plain(c) { c.to_string() } else { c.escape_default().to_string() };
    let mut quoted = String::new();
    for (at, c) in text.chars().enumerate() {
        if at == MOST_TEXT {
            return quoted + "...";
        }
        quoted += &escaped(c);
    }
    quoted
}

fn bytes_of(commitments: &SigningCommitments) -> Vec<u8> {
    commitments::write(commitments).unwrap_or_default()
}
