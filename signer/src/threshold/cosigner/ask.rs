//! What is being asked for, and how far it has come.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::effect::ConnId;
use crate::threshold::asked::{Meaning, Subject};
use crate::threshold::message::Place;
use crate::threshold::rounds::{Commitments, GroupCommitment, MemberId, Shares};

/// A signature that is wanted.
pub(super) struct Ask {
    pub(super) subject: Subject,
    pub(super) meaning: Meaning,
    /// Everyone who waits for it.
    pub(super) origins: Vec<Origin>,
    /// Who is to sign, if that was asked.
    pub(super) signers: Option<Vec<MemberId>>,
    /// When it is refused.
    pub(super) until: Instant,
    pub(super) forwarded: Option<Forwarded>,
    pub(super) leading: Option<Leading>,
}

/// Who wants a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    Chain { ask: u64 },
    Peer { conn: ConnId, request: u64 },
}

/// A peer coordinates it.
pub(super) struct Forwarded {
    pub(super) to: MemberId,
    /// When we coordinate too.
    pub(super) until: Instant,
}

/// We coordinate it.
pub(super) struct Leading {
    /// Who will not sign it, whatever happens.
    pub(super) refused: BTreeMap<MemberId, String>,
    /// Who has put it off, and how often.
    pub(super) put_off: BTreeMap<MemberId, u8>,
    /// When another set of signers is asked too.
    pub(super) hedge_at: Instant,
}

/// One set of signers at work on an ask.
pub(super) struct Session {
    pub(super) ask: u64,
    pub(super) commitments: Commitments,
    pub(super) shares: Shares,
    /// Known once our own share was made.
    pub(super) group_commitment: Option<GroupCommitment>,
    /// Peers that have not answered yet.
    pub(super) waiting: BTreeSet<MemberId>,
}

/// A request that a peer has not answered yet.
pub(super) struct Pending {
    pub(super) conn: ConnId,
    pub(super) member: MemberId,
    pub(super) kind: PendingKind,
    /// The place of the message, if it has one.
    pub(super) place: Option<Place>,
}

pub(super) enum PendingKind {
    Share { session: u64 },
    Forward { ask: u64 },
}

impl Ask {
    /// When something is due.
    pub(super) fn deadline(&self) -> Instant {
        let forwarded = self.forwarded.as_ref().filter(|_| self.leading.is_none()).map(|f| f.until);
        let leading = self.leading.as_ref().map(|leading| leading.hedge_at);
        forwarded.into_iter().chain(leading).fold(self.until, Instant::min)
    }

    pub(super) fn place(&self) -> Option<Place> {
        self.meaning.guarded.as_ref().map(Place::of_asked)
    }

    /// Whether it came from our own chain: what a peer has forwarded is not forwarded again.
    pub(super) fn is_ours(&self) -> bool {
        self.origins.iter().any(|origin| matches!(origin, Origin::Chain { .. }))
    }
}
