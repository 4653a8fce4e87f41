//! What goes into a cosigner, and what comes out.

use std::fmt;

use monosign_protocol::message::Timestamp;
use monosign_protocol::{ChainId, Height};

use crate::backend::BackendError;
use crate::chain::RawSigning;
use crate::guard::{JumpLimit, Refusal, Watermark};
use crate::threshold::asked::Subject;
use crate::threshold::frost::SigningNonces;
use crate::threshold::incarnation::Lives;
use crate::threshold::message::{Place, Reply, Request};
use crate::threshold::rounds::{Commitments, MemberId, RoundError, SignedShare};
use crate::threshold::verified::Verified;

/// Names a connection; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnId(pub u64);

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// We have a connection to a peer, who has proven its identity.
    Dialed {
        /// The connection.
        conn: ConnId,
        /// The peer.
        member: MemberId,
    },
    /// A peer has dialed us, and has proven its identity.
    Accepted {
        /// The connection.
        conn: ConnId,
        /// The peer.
        member: MemberId,
    },
    /// A connection has ended.
    Closed {
        /// The connection.
        conn: ConnId,
    },
    /// A message on a connection that was accepted.
    Request {
        /// The connection.
        conn: ConnId,
        /// What it says.
        request: Request,
    },
    /// A message on a connection that was dialed.
    Reply {
        /// The connection.
        conn: ConnId,
        /// What it says.
        reply: Reply,
    },
    /// Our chain wants a signature.
    Ask {
        /// Names the question in its answer.
        ask: u64,
        /// What is to be signed.
        subject: Subject,
        /// Who is to sign, if that is the question: for drills.
        signers: Option<Vec<MemberId>>,
    },
    /// A share was made, or not.
    Shared {
        /// What it is for.
        ticket: Ticket,
        /// The share, or why there is none.
        share: Result<SignedShare, ShareFailure>,
    },
    /// An operator allows requests up to this height.
    JumpAllowed(Height),
    /// New rules.
    Rules {
        /// What else is signed.
        raw: RawSigning,
        /// How far a request may jump.
        jump_limit: JumpLimit,
    },
    /// The [`deadline`](super::Cosigner::deadline) has come.
    Time,
}

/// What is to be done, in this order, each after the one before is done.
#[derive(Debug)]
pub enum Effect {
    /// Raise the record. If that fails, [`stop`](super::Cosigner::stop) and carry out none of the effects that follow.
    Raise(Watermark),
    /// Bring the lives to stable storage; failing is as for [`Effect::Raise`].
    Store(Lives),
    /// The same, if it can be done: nothing relies on it.
    Keep(Lives),
    /// Make a share, for what the record has leave for, and give it back as [`Event::Shared`].
    Share(Box<ShareJob>),
    /// Send on a connection that was dialed.
    Request {
        /// The connection.
        conn: ConnId,
        /// What to say.
        request: Request,
    },
    /// Send on a connection that was accepted.
    Reply {
        /// The connection.
        conn: ConnId,
        /// What to say.
        reply: Reply,
    },
    /// Close a connection. [`Event::Closed`] follows.
    Close {
        /// The connection.
        conn: ConnId,
        /// Why.
        why: &'static str,
    },
    /// Answer our chain.
    Answer {
        /// The question.
        ask: u64,
        /// The signature, or why there is none.
        result: Result<Answered, AskError>,
    },
    /// See whether an operator has allowed a jump, and if so say it as [`Event::JumpAllowed`].
    LookUpAllowance,
    /// Tell the operator.
    Note(Note),
    /// Close all connections: this cosigner takes part no more.
    Stop(String),
}

/// A share that is to be made.
#[derive(Debug)]
pub struct ShareJob {
    /// What it is for.
    pub ticket: Ticket,
    /// What is signed.
    pub subject: Subject,
    /// All signers of the session, this one included.
    pub commitments: Commitments,
    /// This signer's nonces, used up by this job.
    pub nonces: SigningNonces,
}

/// What a share is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ticket {
    /// A coordinator's request.
    Peer {
        /// Its connection.
        conn: ConnId,
        /// Its request.
        request: u64,
    },
    /// A session of our own.
    Own {
        /// The session.
        session: u64,
    },
}

/// Why a share was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShareFailure {
    /// The record does not stand by the message.
    #[error("the record does not stand by this message")]
    NoPermit,
    /// The message cannot be read.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The key is locked.
    #[error(transparent)]
    Locked(#[from] BackendError),
    /// FROST refused.
    #[error(transparent)]
    Round(#[from] RoundError),
}

/// A signature of the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The signature.
    pub signature: Verified,
    /// For a vote or proposal the timestamp that it has, which may be another than was asked for.
    pub timestamp: Option<Timestamp>,
    /// Whether the group had signed it before it was asked.
    pub replayed: bool,
}

/// Why a chain gets no signature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// Our own guard refuses.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// So many others refuse that there is no quorum.
    #[error("too many cosigners refuse: {0}")]
    Split(String),
    /// Too few can be reached.
    #[error("no quorum: {0}")]
    NoQuorum(String),
    /// This cosigner has stopped.
    #[error("this cosigner has stopped: {0}")]
    Stopped(String),
}

/// What an operator is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// The cosigner takes part.
    Active {
        /// How many peers have fenced its earlier lives.
        fenced_by: usize,
    },
    /// It cannot take part before more peers have answered.
    Waiting {
        /// Why.
        because: String,
        /// How many must answer.
        needed: usize,
    },
    /// A member has sent a share that is none.
    BadShare(MemberId),
    /// A member has let us wait.
    Slow(MemberId),
    /// A peer claims a guard that is too far ahead to be believed without a signature.
    Unbelievable(Unbelieved),
    /// A peer has had the record raised far ahead of the group. Nothing is signed below it.
    Carried {
        /// The peer.
        member: MemberId,
        /// To where.
        place: Place,
        /// By how many heights above what the group has signed, as far as is known.
        by: i64,
    },
    /// A peer was started anew.
    Fenced(MemberId),
    /// A peer said what makes no sense.
    Nonsense {
        /// The peer.
        member: MemberId,
        /// What.
        what: &'static str,
    },
    /// A peer says that this cosigner must not go on; too few say so to be believed.
    Accused {
        /// The peer.
        member: MemberId,
        /// What it says.
        reason: String,
    },
    /// A session of our own gave no signature.
    Session(String),
}

impl Note {
    /// Whose doing it is, if it is a peer's.
    pub fn about(&self) -> Option<MemberId> {
        match self {
            Self::BadShare(member) | Self::Slow(member) | Self::Fenced(member) => Some(*member),
            Self::Unbelievable(Unbelieved { member, .. })
            | Self::Carried { member, .. }
            | Self::Nonsense { member, .. }
            | Self::Accused { member, .. } => Some(*member),
            Self::Active { .. } | Self::Waiting { .. } | Self::Session(_) => None,
        }
    }
}

/// A guard that is too far ahead to be believed, and what an operator can do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unbelieved {
    /// Whose.
    pub member: MemberId,
    /// Where it stands, as it says.
    pub place: Place,
    /// From where jumps are measured.
    pub anchor: Height,
    /// The chain.
    pub chain_id: ChainId,
}

impl fmt::Display for Unbelieved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { member, place, anchor, chain_id } = self;
        let height = place.height;
        write!(
            f,
            "cosigner {member} says that it stands at {place}, too far above height {anchor} to be believed: its answer does not count. \
             If the chain has come to height {height}, run `monosign state allow-jump --chain {chain_id} --to-height {height}` on this \
             host; if not, that cosigner is wrong"
        )
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Active { fenced_by } => {
                write!(f, "takes part now, after {fenced_by} cosigners have answered")
            }
            Self::Waiting { because, needed } => {
                write!(f, "does not take part before {needed} other cosigners have answered: {because}")
            }
            Self::BadShare(member) => write!(f, "cosigner {member} has sent a bad signature share"),
            Self::Slow(member) => write!(f, "cosigner {member} lets others wait"),
            Self::Unbelievable(unbelieved) => unbelieved.fmt(f),
            Self::Carried { member, place, by } => {
                write!(
                    f,
                    "cosigner {member} has had this one's record raised to {place}, {by} heights above what the group is known to have \
                     signed: this one signs nothing below that"
                )
            }
            Self::Fenced(member) => write!(f, "cosigner {member} has been started anew"),
            Self::Nonsense { member, what } => write!(f, "cosigner {member}: {what}"),
            Self::Accused { member, reason } => write!(f, "cosigner {member} says: {reason}"),
            Self::Session(error) => write!(f, "a session failed: {error}"),
        }
    }
}
