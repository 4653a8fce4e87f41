//! A peer, as the coordinator sees it on the connection that it dialed.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::PeerStatus;
use super::effect::ConnId;
use crate::guard::Watermark;
use crate::threshold::commitments;
use crate::threshold::frost::SigningCommitments;
use crate::threshold::incarnation::Incarnation;
use crate::threshold::message::Place;
use crate::threshold::nonces::{LIFETIME, POOL, RENEWED};
use crate::threshold::rounds::MemberId;

/// After how long a peer that was slow or wrong is tried with a drill, for which nobody waits. Each time that it was, twice as long.
const TRIAL: Duration = Duration::from_secs(2);
/// After so many times it does not grow any more: a quarter of an hour.
const MOST_OFFENCES: u32 = 10;
/// How much earlier than the signer the coordinator takes nonces for too old. The signer has offered others long before.
const MARGIN: Duration = Duration::from_secs(10);
const _: () = assert!(RENEWED.as_secs() + 5 <= LIFETIME.as_secs() - MARGIN.as_secs());

#[derive(Default)]
pub(super) struct Peer {
    pub(super) conn: Option<ConnId>,
    /// Its life, once it has welcomed us.
    pub(super) incarnation: Option<Incarnation>,
    pub(super) active: bool,
    pub(super) guard: Option<Place>,
    /// What it stands by, if that is too far ahead to be believed. Until it is, the peer has not answered, also if it has gone since.
    pub(super) unbelieved: Option<Watermark>,
    pool: VecDeque<Promised>,
    /// When it is tried next, if it is asked last because it was slow or wrong.
    trial: Option<Instant>,
    /// How often it was, less what it has made good.
    offences: u32,
    pub(super) round_trip: Option<Duration>,
    pub(super) pinged: Option<(u64, Instant)>,
}

/// What a peer has committed itself to, good for one share.
pub(super) struct Commitment {
    pub(super) nonce: u64,
    pub(super) commitments: SigningCommitments,
    pub(super) bytes: Vec<u8>,
}

/// The same, perhaps not read yet: that takes a while, and is done when there is time.
struct Promised {
    nonce: u64,
    commitments: Option<SigningCommitments>,
    bytes: Vec<u8>,
    received: Instant,
}

impl Peer {
    pub(super) fn connected(&mut self, conn: ConnId) {
        self.disconnected();
        self.conn = Some(conn);
    }

    pub(super) fn disconnected(&mut self) {
        let unbelieved = self.unbelieved.take();
        let Self { round_trip, guard, trial, offences, .. } = *self;
        // Who comes again is not better for that.
        *self = Self { round_trip, guard, unbelieved, trial, offences, ..Self::default() };
    }

    pub(super) fn is_up(&self) -> bool {
        self.conn.is_some() && self.incarnation.is_some()
    }

    pub(super) fn is_suspected(&self) -> bool {
        self.trial.is_some()
    }

    /// It was slow or wrong. From now on it is asked last, until it gives a share in time.
    pub(super) fn suspect(&mut self, now: Instant) {
        self.offences = (self.offences + 1).min(MOST_OFFENCES);
        self.trial = Some(now + TRIAL * (1 << (self.offences - 1)));
    }

    /// Somebody says that it is not to be asked.
    pub(super) fn doubt(&mut self, now: Instant) {
        self.trial = self.trial.or(Some(now + TRIAL));
    }

    /// It has given a share in time: for a drill, or for what somebody waits for, which counts for more.
    pub(super) fn trust(&mut self, was_waited_for: bool) {
        self.trial = None;
        if was_waited_for {
            self.offences /= 2;
        }
    }

    /// Whether it is to be tried now. If so, it is not before long tried again.
    pub(super) fn takes_trial(&mut self, now: Instant) -> bool {
        let is_due = self.trial.is_some_and(|trial| trial <= now) && self.can_sign(now);
        if is_due {
            self.suspect(now);
        }
        is_due
    }

    /// More than two pools, one that grows old and one in its place, have been promised to nobody.
    pub(super) fn add(&mut self, now: Instant, nonce: u64, bytes: Vec<u8>) {
        if self.pool.len() >= 2 * POOL {
            self.pool.pop_front();
        }
        self.pool.push_back(Promised { nonce, commitments: None, bytes, received: now });
    }

    pub(super) fn has_unread(&self) -> bool {
        self.pool.iter().any(|promised| promised.commitments.is_none())
    }

    /// Reads one of its commitments. False, and it is dropped, if it is none.
    pub(super) fn read_one(&mut self) -> bool {
        let Some(at) = self.pool.iter().position(|promised| promised.commitments.is_none()) else {
            return true;
        };
        let read = self.pool.get(at).and_then(|promised| commitments::read(&promised.bytes));
        match (read, self.pool.get_mut(at)) {
            (Some(commitments), Some(promised)) => promised.commitments = Some(commitments),
            _ => drop(self.pool.remove(at)),
        }
        read.is_some()
    }

    /// Whether it could sign now.
    pub(super) fn can_sign(&mut self, now: Instant) -> bool {
        let fresh = |c: &Promised| now.duration_since(c.received) + MARGIN < LIFETIME;
        while self.pool.front().is_some_and(|oldest| !fresh(oldest)) {
            self.pool.pop_front();
        }
        self.is_up() && self.active && !self.pool.is_empty()
    }

    pub(super) fn take(&mut self) -> Option<Commitment> {
        while let Some(Promised { nonce, commitments, bytes, .. }) = self.pool.pop_front() {
            if let Some(commitments) = commitments.or_else(|| commitments::read(&bytes)) {
                return Some(Commitment { nonce, commitments, bytes });
            }
        }
        None
    }

    /// In which order peers are asked to sign: those that are trusted first, then by distance, then by rank.
    pub(super) fn order(&self, member: MemberId) -> (bool, Option<u128>, MemberId) {
        (self.is_suspected(), self.round_trip.map(|time| time.as_millis()), member)
    }

    pub(super) fn status(&self, member: MemberId, seen: Option<Place>) -> PeerStatus {
        PeerStatus {
            member,
            up: self.is_up(),
            active: self.active,
            suspected: self.is_suspected(),
            round_trip: self.round_trip,
            guard: self.guard.max(seen),
        }
    }
}
