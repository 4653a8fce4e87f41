//! What a node knows of the height that is being decided.

use std::mem;
use std::rc::Rc;

use monosign_protocol::message::{BlockId, PartSetHeader, Proposal, Timestamp};
use monosign_protocol::{Height, Round};

use super::votes::{HeightVotes, VoteSet};
use super::{Attested, Block, Decided, RoundStep};

/// CometBFT's `RoundState` (`consensus/types/round_state.go`).
#[derive(Debug)]
pub(crate) struct RoundState {
    pub(crate) height: Height,
    pub(crate) round: Round,
    pub(crate) step: RoundStep,
    /// When round 0 is to begin.
    pub(crate) start_time: Timestamp,
    pub(crate) proposal: Option<Rc<Attested<Proposal>>>,
    /// The block of the round: the one proposed, or the one that two thirds voted for.
    pub(crate) block: Option<Rc<Block>>,
    /// The block that is awaited, by its header, and whether it came.
    pub(crate) parts: Option<Parts>,
    pub(crate) locked: Option<Pinned>,
    pub(crate) valid: Option<Pinned>,
    pub(crate) votes: HeightVotes,
    pub(crate) commit_round: Option<Round>,
    pub(crate) last_commit: Option<VoteSet>,
    /// Whether the round's timer for precommits was set.
    pub(crate) waits_for_precommits: bool,
}

/// A block that the node waits for, or has.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    pub(crate) header: PartSetHeader,
    pub(crate) block: Option<Rc<Block>>,
}

/// A block, and the round that pinned it.
#[derive(Debug, Clone)]
pub(crate) struct Pinned {
    pub(crate) round: Round,
    pub(crate) block: Rc<Block>,
}

impl RoundState {
    /// The height after the last decided one. The commit is there again, from the block store (reconstructLastCommit).
    pub(crate) fn after(last: Option<&Decided>, initial_height: Height, validators: usize) -> Self {
        Self {
            height: last.map_or(initial_height, |last| Height(last.block.height.0 + 1)),
            round: Round(0),
            step: RoundStep::NewHeight,
            start_time: Timestamp::default(),
            proposal: None,
            block: None,
            parts: None,
            locked: None,
            valid: None,
            votes: HeightVotes::new(validators),
            commit_round: None,
            last_commit: last.map(|last| VoteSet::of_commit(&last.commit)),
            waits_for_precommits: false,
        }
    }

    /// On to the next height (updateToState).
    pub(crate) fn advance(&mut self, start_time: Timestamp, validators: usize) {
        let votes = mem::replace(&mut self.votes, HeightVotes::new(validators));
        let last_commit = self.commit_round.and_then(|round| votes.precommits(round).cloned());
        *self = Self {
            height: Height(self.height.0 + 1),
            start_time,
            last_commit,
            ..Self::after(None, self.height, validators)
        };
    }

    /// Forgets what was proposed in the round before.
    pub(crate) fn reset_proposal(&mut self) {
        self.proposal = None;
        self.block = None;
        self.parts = None;
    }

    /// The block of the round, if it has this id.
    pub(crate) fn block_with(&self, id: &BlockId) -> Option<&Rc<Block>> {
        self.block.as_ref().filter(|block| block.id.hash == id.hash)
    }

    /// The locked block, if it has this id.
    pub(crate) fn locked_with(&self, id: &BlockId) -> Option<&Pinned> {
        self.locked.as_ref().filter(|locked| locked.block.id.hash == id.hash)
    }

    /// Awaits the block with this header, unless it is awaited already or there.
    pub(crate) fn await_parts(&mut self, header: &PartSetHeader) {
        if self.parts.as_ref().is_none_or(|parts| parts.header != *header) {
            self.parts = Some(Parts { header: header.clone(), block: None });
        }
    }

    /// The proof of lock that the round's proposal names.
    pub(crate) fn proof_of_lock(&self) -> Option<Round> {
        let round = self.proposal.as_ref()?.content().pol_round;
        (round.0 >= 0).then_some(round)
    }

    /// Whether proposal and block are there, and the prevotes that the proposal names (isProposalComplete).
    pub(crate) fn is_proposal_complete(&self) -> bool {
        if self.proposal.is_none() || self.block.is_none() {
            return false;
        }
        match self.proof_of_lock() {
            None => true,
            Some(round) => self.votes.prevotes(round).is_some_and(|votes| votes.majority().is_some()),
        }
    }

    /// What two thirds prevoted in a round.
    pub(crate) fn polka(&self, round: Round) -> Option<BlockId> {
        self.votes.prevotes(round).and_then(|votes| votes.majority().cloned())
    }

    /// The median of the times in the last commit: the next block's time (`state/state.go`, MedianTime, for equal
    /// powers).
    pub(crate) fn median_time(&self) -> Option<Timestamp> {
        let commit = self.last_commit.as_ref()?;
        let votes = commit.votes().iter().flatten().map(|vote| vote.content());
        // A commit holds votes for its block and for nil.
        let votes = votes.filter(|vote| vote.block_id.is_nil() || Some(&vote.block_id) == commit.majority());
        let mut times: Vec<_> = votes.map(|vote| vote.timestamp).collect();
        times.sort_unstable();
        times.get(times.len().checked_sub(1)? / 2).copied()
    }
}
