//! What validators say to each other, and what they decide.

use std::cell::OnceCell;
use std::rc::Rc;

use monosign_protocol::message::{BlockId, PartSetHeader, Proposal, Timestamp, Vote};
use monosign_protocol::{Height, Round};

/// A node of a network, by its place in the network's list. Two nodes may sign for the same validator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer(pub usize);

/// A block, as far as consensus looks into it. Blocks have one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The hashes that votes carry.
    pub id: BlockId,
    /// The height it was made for.
    pub height: Height,
    /// The header's time: the median of the times in the last commit.
    pub time: Timestamp,
}

/// A signed message, and the verdict on its signature once somebody checked it.
///
/// The content never changes, so one check serves every node that holds the same message: this is the one place where
/// the network does less work than real nodes, which check each copy.
#[derive(Debug)]
pub struct Attested<T> {
    content: T,
    verdict: OnceCell<bool>,
}

/// A message that validators gossip.
#[derive(Debug, Clone)]
pub enum Gossip {
    /// A proposal, without its block.
    Proposal(Rc<Attested<Proposal>>),
    /// The block of a proposal, or one that was decided.
    Part(Rc<Part>),
    /// A prevote or a precommit.
    Vote(Rc<Attested<Vote>>),
}

/// The only part of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The height that the sender means it for.
    pub height: Height,
    /// The sender's round; receivers do not mind.
    pub round: Round,
    /// What the part holds.
    pub block: Rc<Block>,
}

/// A block with the votes that decided it.
#[derive(Debug, Clone)]
pub struct Decided {
    /// The block.
    pub block: Rc<Block>,
    /// The round of its precommits.
    pub round: Round,
    /// The precommits of that round that were there, by validator.
    pub commit: Rc<[Option<Rc<Attested<Vote>>>]>,
}

/// The steps of a round, in CometBFT's order (`consensus/types/round_state.go`, the same numbers in every release).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum RoundStep {
    /// A height was decided; late precommits are gathered until the next begins.
    NewHeight = 1,
    /// A round begins.
    NewRound = 2,
    /// A proposal is awaited.
    Propose = 3,
    /// The prevote was cast.
    Prevote = 4,
    /// Two thirds prevoted, on different things.
    PrevoteWait = 5,
    /// The precommit was cast.
    Precommit = 6,
    /// Two thirds precommitted, on different things. A timer has this step; a node stays in `Precommit`.
    PrecommitWait = 7,
    /// A block has its precommits.
    Commit = 8,
}

/// Where a node stands and what it has: what its peers know of it, from the messages of CometBFT's reactors.
///
/// Sets of votes are bits by validator, so that a network has 64 validators at the most.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// The height that is being decided.
    pub height: Height,
    /// The round.
    pub round: Round,
    /// Whether the last height was just decided and its late precommits are welcome.
    pub is_new_height: bool,
    /// Whether the round's proposal is there.
    pub has_proposal: bool,
    /// The block that is known by its header and missing.
    pub wanted: Option<PartSetHeader>,
    /// The prevotes of the round.
    pub prevotes: u64,
    /// The precommits of the round.
    pub precommits: u64,
    /// The round that the proposal names as its proof of lock, and the prevotes of it.
    pub proof_of_lock: Option<(Round, u64)>,
    /// The precommits of the last height.
    pub last_commit: u64,
}

impl<T> Attested<T> {
    /// A message whose signature nobody checked yet.
    pub fn new(content: T) -> Self {
        Self { content, verdict: OnceCell::new() }
    }

    /// A message whose signature is known to be good or bad.
    pub fn judged(content: T, is_valid: bool) -> Self {
        Self { content, verdict: OnceCell::from(is_valid) }
    }

    /// The message.
    pub fn content(&self) -> &T {
        &self.content
    }

    /// Whether the signature is good: `check` is asked once in the life of the message.
    pub fn is_valid(&self, check: impl FnOnce(&T) -> bool) -> bool {
        *self.verdict.get_or_init(|| check(&self.content))
    }
}

impl Gossip {
    /// The height that this is about.
    pub fn height(&self) -> Height {
        match self {
            Self::Proposal(proposal) => proposal.content().height,
            Self::Part(part) => part.height,
            Self::Vote(vote) => vote.content().height,
        }
    }
}
