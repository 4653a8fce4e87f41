//! The signer's side: a peer has dialed us and coordinates.

use std::collections::BTreeSet;

use tokio::time::Instant;

use super::By;
use super::Cosigner;
use super::ask::Origin;
use super::effect::{ConnId, Effect, Note, ShareFailure, ShareJob, Ticket};
use crate::guard::{Recorded, Refusal};
use crate::threshold::asked::Subject;
use crate::threshold::budget::Budget;
use crate::threshold::commitments;
use crate::threshold::frost::{SigningCommitments, SigningNonces};
use crate::threshold::incarnation::Incarnation;
use crate::threshold::message::{Claim, Hello, Place, Reply, Request, Signer, VERSION, Welcome, Why};
use crate::threshold::nonces::NoncePool;
use crate::threshold::rounds::{Commitments, MemberId, NonceMaker, SignedShare};

/// How many forwarded wishes of one peer wait at once; a chain has two or three.
const MOST_WISHES: usize = 16;
/// How many new lives of one peer are heard of at once, and then in a second: each is a write to the disk.
const LIVES: (u64, u64) = (64, 1);

/// A connection that was accepted.
pub(super) struct Inbound {
    pub(super) member: MemberId,
    /// Its life, once its hello was good.
    pub(super) incarnation: Option<Incarnation>,
    pool: NoncePool,
}

impl Inbound {
    pub(super) fn new(member: MemberId) -> Self {
        Self { member, incarnation: None, pool: NoncePool::default() }
    }
}

impl Cosigner {
    pub(super) fn on_request(
        &mut self,
        now: Instant,
        conn: ConnId,
        request: Request,
        recorded: Recorded<'_>,
    ) {
        let Some(inbound) = self.inbound.get(&conn) else { return };
        match request {
            Request::Hello(hello) if inbound.incarnation.is_none() => {
                self.on_hello(now, conn, &hello, recorded)
            }
            _ if inbound.incarnation.is_none() => self.close(conn, "it did not begin with a hello"),
            Request::Hello(_) => self.close(conn, "it said hello twice"),
            Request::Share { request, nonce, subject, others } => {
                // Taken out first: whatever comes of this request, nobody else gets these.
                let nonces = self.inbound.get_mut(&conn).and_then(|inbound| inbound.pool.take(nonce, now));
                let ticket = Ticket::Peer { conn, request };
                match self.share_job(ticket, nonces, subject, &others, recorded) {
                    Ok(job) => self.effects.push_back(Effect::Share(Box::new(job))),
                    Err((why, subject)) => self.refuse_share(now, conn, request, why, &subject),
                }
            }
            Request::Forward { request, subject } => {
                let origin = Origin::Peer { conn, request };
                if matches!(subject, Subject::Drill(_)) {
                    // Who drills names the signers, and asks them itself.
                    let why = Why::Malformed("drills are not passed on".into());
                    self.reply(conn, Reply::Refused { request, why, proof: None });
                } else if self.wishes_of(conn) >= MOST_WISHES {
                    self.reply(conn, Reply::Refused { request, why: Why::NoQuorum, proof: None });
                } else if self.is_active() {
                    self.open_ask(now, origin, subject, None, recorded);
                } else {
                    self.reply(conn, Reply::Refused { request, why: Why::NotActive, proof: None });
                }
            }
            Request::Done { proof, signers } => {
                if let Some(asked) = self.learn(&proof, recorded) {
                    self.hear(&signers, Place::of_asked(&asked));
                } else {
                    let member = self.inbound.get(&conn).map(|inbound| inbound.member);
                    member.into_iter().for_each(|member| {
                        self.note(Note::Nonsense { member, what: "it passes on a signature that is none" });
                    });
                }
            }
            Request::Ping(number) => {
                self.reply(conn, Reply::Pong(number));
                self.refill(now, conn);
            }
        }
    }

    fn wishes_of(&self, conn: ConnId) -> usize {
        let is_its = |origin: &Origin| matches!(origin, Origin::Peer { conn: of, .. } if *of == conn);
        self.asks.values().flat_map(|ask| &ask.origins).filter(|origin| is_its(origin)).count()
    }

    /// A peer says who it is. Its earlier lives are refused from now on, durably, before it is told anything.
    fn on_hello(&mut self, now: Instant, conn: ConnId, hello: &Hello, recorded: Recorded<'_>) {
        let Some(member) = self.inbound.get(&conn).map(|inbound| inbound.member) else { return };
        let group = &self.settings.group;
        if hello.versions.0 > VERSION || hello.versions.1 < VERSION {
            return self.close(conn, "it speaks no version of messages that this cosigner speaks");
        }
        if hello.group != group.verifying_key().to_bytes() {
            return self.close(conn, "it is of another group: give both hosts the same group file");
        }
        if hello.epoch != group.epoch() {
            return self.close(
                conn,
                "it is of another epoch: the one with the older group file has to be started anew with the newer one",
            );
        }
        let known = self.lives.peers.get(&member).copied().unwrap_or_default();
        if hello.incarnation < known {
            self.reply(conn, Reply::Fenced(known));
            return self.close(conn, "it is an earlier life of a cosigner that was started anew");
        }
        if let Err(why) = self.follow(now, member, hello.incarnation) {
            return self.close(conn, why);
        }
        if self.saw_more(member, hello.seen_of_you, recorded) {
            return;
        }
        // One connection for each peer: the older one is a leftover.
        let leftovers: Vec<ConnId> = self
            .inbound
            .iter()
            .filter(|(id, inbound)| **id != conn && inbound.member == member)
            .map(|(id, _)| *id)
            .collect();
        for leftover in leftovers {
            self.inbound.remove(&leftover);
            self.close(leftover, "the peer has dialed anew");
        }
        if let Some(inbound) = self.inbound.get_mut(&conn) {
            inbound.incarnation = Some(hello.incarnation);
        }
        let welcome = Welcome {
            version: VERSION,
            incarnation: self.lives.own,
            active: self.is_active(),
            guard: Claim::of(recorded.watermark),
            seen_of_you: self.seen.get(&member).copied().unwrap_or_default(),
            signed_by_you: self.heard.get(&member).copied().unwrap_or_default(),
            proof: self.last_proof(),
        };
        self.reply(conn, Reply::Welcome(welcome));
        self.refill(now, conn);
    }

    /// A peer is in a later life, as it says.
    pub(super) fn follow(
        &mut self,
        now: Instant,
        member: MemberId,
        claimed: Incarnation,
    ) -> Result<(), &'static str> {
        let known = self.lives.peers.get(&member).copied().unwrap_or_default();
        if claimed <= known {
            return Ok(());
        }
        let (most, per_second) = LIVES;
        let starts = self.starts.entry(member).or_insert_with(|| Budget::new(per_second, most, now));
        if starts.spend(now, 1).is_err() {
            return Err("it has been started again and again, and is not let in for now");
        }
        let believed = known.towards(claimed);
        self.fence(now, member, believed);
        if believed == claimed {
            return Ok(());
        }
        self.note(Note::Nonsense { member, what: "it claims far more starts than are known of it" });
        Err("it claims far more starts than are known of it, and is followed step by step")
    }

    /// Checks all there is to check, the guard last, and has the record raised.
    fn share_job(
        &mut self,
        ticket: Ticket,
        nonces: Option<(SigningNonces, SigningCommitments)>,
        subject: Subject,
        others: &[Signer],
        recorded: Recorded<'_>,
    ) -> Result<ShareJob, (Why, Subject)> {
        let Some((nonces, own)) = nonces else { return Err((Why::Nonce, subject)) };
        if !self.is_active() {
            return Err((Why::NotActive, subject));
        }
        let commitments = match self.commitments(own, others) {
            Ok(commitments) => commitments,
            Err(why) => return Err((why, subject)),
        };
        let Ticket::Peer { conn, .. } = ticket else { return Err((Why::NotActive, subject)) };
        match self.stand_by(self.peer_of(conn), &subject, recorded) {
            Ok(()) => Ok(ShareJob { ticket, subject, commitments, nonces }),
            Err(refusal @ (Refusal::Malformed(_) | Refusal::MalformedBlockId { .. })) => {
                Err((Why::Malformed(refusal.to_string()), subject))
            }
            Err(refusal) => Err((Why::Guard(refusal.to_string()), subject)),
        }
    }

    fn stand_by(&mut self, by: By, subject: &Subject, recorded: Recorded<'_>) -> Result<(), Refusal> {
        let meaning = subject.read(self.chain_id(), self.settings.raw)?;
        meaning.guarded.map_or(Ok(()), |asked| self.admit(by, &asked, recorded))
    }

    /// Who asks on a connection.
    pub(super) fn peer_of(&self, conn: ConnId) -> By {
        By::Peer(self.inbound.get(&conn).map_or(MemberId(0), |inbound| inbound.member))
    }

    /// The signers of a session, none of them twice and none in an earlier life.
    fn commitments(&self, own: SigningCommitments, others: &[Signer]) -> Result<Commitments, Why> {
        let malformed = |what: &str| Why::Malformed(what.into());
        let mut members: BTreeSet<MemberId> = BTreeSet::from([self.settings.me]);
        let mut commitments = Commitments::from([(self.settings.me, own)]);
        if others.len() + 1 < usize::from(self.settings.group.shape().threshold()) {
            return Err(malformed("too few signers"));
        }
        for signer in others {
            if self.settings.group.identity(signer.member).is_none() || !members.insert(signer.member) {
                return Err(malformed("a signer is no member, or twice"));
            }
            let known = self.lives.peers.get(&signer.member);
            if known.is_some_and(|known| signer.incarnation < *known) {
                return Err(Why::Fenced(signer.member));
            }
            let read = commitments::read(&signer.commitments);
            commitments.insert(signer.member, read.ok_or_else(|| malformed("commitments that are none"))?);
        }
        Ok(commitments)
    }

    fn refuse_share(&mut self, now: Instant, conn: ConnId, request: u64, why: Why, subject: &Subject) {
        let proof = match &why {
            Why::Guard(_) => self.proof_against(subject),
            _ => None,
        };
        self.reply(conn, Reply::Refused { request, why, proof });
        self.refill(now, conn);
    }

    /// A share for a peer was made.
    pub(super) fn on_peer_shared(
        &mut self,
        conn: ConnId,
        request: u64,
        share: Result<SignedShare, ShareFailure>,
    ) {
        match share {
            Ok(signed) => self.reply(conn, Reply::Share { request, share: signed.share.serialize() }),
            Err(failure) => {
                let why = Why::Malformed(failure.to_string());
                self.reply(conn, Reply::Refused { request, why, proof: None });
            }
        }
        // Fresh nonces take a while to make: after the share is out.
        if !self.thirsty.contains(&conn) {
            self.thirsty.push_back(conn);
        }
    }

    /// Gives a coordinator all nonces that it may use.
    pub(super) fn refill(&mut self, now: Instant, conn: ConnId) {
        self.give_nonces(conn, |pool, maker| pool.refill(now, maker));
    }

    /// Makes nonces in the place of those that were used, off the way of any signature.
    pub(super) fn replace_used(&mut self, now: Instant, conn: ConnId) {
        self.give_nonces(conn, |pool, maker| pool.replace_used(now, maker));
    }

    fn give_nonces(
        &mut self,
        conn: ConnId,
        fresh: impl FnOnce(&mut NoncePool, &NonceMaker) -> Vec<(u64, Vec<u8>)>,
    ) {
        if !self.is_active() {
            return;
        }
        let inbound = self.inbound.get_mut(&conn).filter(|inbound| inbound.incarnation.is_some());
        let fresh = inbound.map(|inbound| fresh(&mut inbound.pool, &self.nonces)).unwrap_or_default();
        if !fresh.is_empty() {
            self.reply(conn, Reply::Commitments(fresh));
        }
    }
}
