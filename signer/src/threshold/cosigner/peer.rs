//! A peer, as the coordinator sees it on the connection that it dialed.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::PeerStatus;
use super::effect::ConnId;
use crate::threshold::commitments;
use crate::threshold::frost::SigningCommitments;
use crate::threshold::incarnation::Incarnation;
use crate::threshold::message::Place;
use crate::threshold::nonces::{LIFETIME, POOL};
use crate::threshold::rounds::MemberId;

/// How long a peer that was slow or wrong is tried last.
const SUSPICION: Duration = Duration::from_secs(2);
/// How much earlier than the signer the coordinator takes nonces for too old.
const MARGIN: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(super) struct Peer {
    pub(super) conn: Option<ConnId>,
    /// Its life, once it has welcomed us.
    pub(super) incarnation: Option<Incarnation>,
    pub(super) active: bool,
    pub(super) guard: Option<Place>,
    pool: VecDeque<Promised>,
    suspected_until: Option<Instant>,
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
        *self = Self { conn: Some(conn), round_trip: self.round_trip, guard: self.guard, ..Self::default() };
    }

    pub(super) fn disconnected(&mut self) {
        let suspected_until = self.suspected_until;
        *self = Self { round_trip: self.round_trip, guard: self.guard, suspected_until, ..Self::default() };
    }

    pub(super) fn is_up(&self) -> bool {
        self.conn.is_some() && self.incarnation.is_some()
    }

    pub(super) fn is_suspected(&self, now: Instant) -> bool {
        self.suspected_until.is_some_and(|until| until > now)
    }

    pub(super) fn suspect(&mut self, now: Instant) {
        self.suspected_until = Some(now + SUSPICION);
    }

    pub(super) fn trust(&mut self) {
        self.suspected_until = None;
    }

    /// More than a pool has been promised to nobody.
    pub(super) fn add(&mut self, now: Instant, nonce: u64, bytes: Vec<u8>) {
        if self.pool.len() < 2 * POOL {
            self.pool.push_back(Promised { nonce, commitments: None, bytes, received: now });
        }
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
    pub(super) fn order(&self, member: MemberId, now: Instant) -> (bool, Option<u128>, MemberId) {
        (self.is_suspected(now), self.round_trip.map(|time| time.as_millis()), member)
    }

    pub(super) fn status(&self, member: MemberId, seen: Option<Place>, now: Instant) -> PeerStatus {
        PeerStatus {
            member,
            up: self.is_up(),
            active: self.active,
            suspected: self.is_suspected(now),
            round_trip: self.round_trip,
            guard: self.guard.max(seen),
        }
    }
}
