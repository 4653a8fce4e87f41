//! Votes by round, and when there are two thirds of them.

use std::collections::BTreeMap;
use std::rc::Rc;

use monosign_protocol::message::{BlockId, Vote};
use monosign_protocol::{Round, Step};

use super::{Attested, Peer};

/// The votes of one round and one kind (`types/vote_set.go`).
///
/// A second vote of a validator for something else is not taken in: CometBFT does so only if a peer claims two thirds
/// for it.
#[derive(Debug, Clone)]
pub(crate) struct VoteSet {
    votes: Vec<Option<Rc<Attested<Vote>>>>,
    tally: Vec<(BlockId, usize)>,
    majority: Option<BlockId>,
    mask: u64,
}

/// What became of a vote.
#[derive(Debug)]
pub(crate) enum Added {
    /// It counts.
    New,
    /// The validator's vote for this was there, with whatever time.
    Duplicate,
    /// The validator voted for something else.
    Conflict(Rc<Attested<Vote>>),
}

impl VoteSet {
    pub(crate) fn new(validators: usize) -> Self {
        Self { votes: vec![None; validators], tally: Vec::new(), majority: None, mask: 0 }
    }

    /// The precommits of a saved commit.
    pub(crate) fn of_commit(commit: &[Option<Rc<Attested<Vote>>>]) -> Self {
        let mut set = Self::new(commit.len());
        for vote in commit.iter().flatten() {
            set.add(Rc::clone(vote));
        }
        set
    }

    /// Whether this adds nothing, so that its signature need not be checked.
    pub(crate) fn has(&self, vote: &Vote) -> bool {
        let known = self.slot(vote).and_then(|slot| self.votes[slot].as_ref());
        known.is_some_and(|known| known.content().block_id == vote.block_id)
    }

    /// Takes in a vote whose signature is good.
    pub(crate) fn add(&mut self, vote: Rc<Attested<Vote>>) -> Added {
        let content = vote.content();
        let Some(slot) = self.slot(content) else { return Added::Duplicate };
        if let Some(known) = &self.votes[slot] {
            let same = known.content().block_id == content.block_id;
            return if same { Added::Duplicate } else { Added::Conflict(Rc::clone(known)) };
        }
        self.count(&vote.content().block_id);
        self.votes[slot] = Some(vote);
        self.mask |= 1 << slot;
        Added::New
    }

    /// What two thirds voted for: a block or, if the id is empty, nil.
    pub(crate) fn majority(&self) -> Option<&BlockId> {
        self.majority.as_ref()
    }

    /// Whether two thirds voted, for whatever.
    pub(crate) fn has_two_thirds_any(&self) -> bool {
        self.len() >= quorum(self.votes.len())
    }

    /// Which validators voted, as bits.
    pub(crate) fn mask(&self) -> u64 {
        self.mask
    }

    /// The round that the votes are of, if there are any.
    pub(crate) fn round(&self) -> Option<Round> {
        self.votes.iter().flatten().next().map(|vote| vote.content().round)
    }

    /// The votes that are there, by validator.
    pub(crate) fn votes(&self) -> &[Option<Rc<Attested<Vote>>>] {
        &self.votes
    }

    fn len(&self) -> usize {
        self.tally.iter().map(|(_, count)| count).sum()
    }

    fn slot(&self, vote: &Vote) -> Option<usize> {
        usize::try_from(vote.validator_index).ok().filter(|slot| *slot < self.votes.len())
    }

    fn count(&mut self, id: &BlockId) {
        let at = self.tally.iter().position(|(counted, _)| counted == id).unwrap_or_else(|| {
            self.tally.push((id.clone(), 0));
            self.tally.len() - 1
        });
        self.tally[at].1 += 1;
        // The first to get there stays.
        if self.majority.is_none() && self.tally[at].1 >= quorum(self.votes.len()) {
            self.majority = Some(id.clone());
        }
    }
}

/// The votes of a height (`consensus/types/height_vote_set.go`): of every round up to the one after the current, and of
/// two later ones for each peer.
#[derive(Debug, Clone)]
pub(crate) struct HeightVotes {
    validators: usize,
    rounds: BTreeMap<Round, RoundVotes>,
    catchup: BTreeMap<Option<Peer>, Vec<Round>>,
}

#[derive(Debug, Clone)]
struct RoundVotes {
    prevotes: VoteSet,
    precommits: VoteSet,
}

impl HeightVotes {
    pub(crate) fn new(validators: usize) -> Self {
        let mut votes = Self { validators, rounds: BTreeMap::new(), catchup: BTreeMap::new() };
        votes.track(Round(0));
        votes
    }

    /// A round began: its votes and those of the next are taken from everybody.
    pub(crate) fn begin(&mut self, round: Round) {
        for round in 0..=round.0.saturating_add(1) {
            self.track(Round(round));
        }
    }

    pub(crate) fn prevotes(&self, round: Round) -> Option<&VoteSet> {
        self.rounds.get(&round).map(|votes| &votes.prevotes)
    }

    pub(crate) fn precommits(&self, round: Round) -> Option<&VoteSet> {
        self.rounds.get(&round).map(|votes| &votes.precommits)
    }

    /// Where a vote from `from` goes; `None` if it is of a round too far ahead.
    pub(crate) fn set_for(&mut self, from: Option<Peer>, round: Round, step: Step) -> Option<&mut VoteSet> {
        if !self.rounds.contains_key(&round) {
            let rounds = self.catchup.entry(from).or_default();
            if rounds.len() >= MAX_CATCHUP_ROUNDS || round.0 < 0 {
                return None;
            }
            rounds.push(round);
            self.track(round);
        }
        let votes = self.rounds.get_mut(&round)?;
        Some(if step == Step::Precommit { &mut votes.precommits } else { &mut votes.prevotes })
    }

    fn track(&mut self, round: Round) {
        let set = || VoteSet::new(self.validators);
        self.rounds.entry(round).or_insert_with(|| RoundVotes { prevotes: set(), precommits: set() });
    }
}

/// How many rounds ahead a peer may bring up: that of its last commit and that of the official one.
const MAX_CATCHUP_ROUNDS: usize = 2;

/// More than two thirds of validators with the same power.
fn quorum(validators: usize) -> usize {
    validators * 2 / 3 + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use monosign_protocol::message::PartSetHeader;

    fn vote(validator_index: i32, block: u8) -> Rc<Attested<Vote>> {
        let block_id = match block {
            0 => BlockId::default(),
            n => {
                BlockId { hash: vec![n; 32], part_set_header: PartSetHeader { total: 1, hash: vec![n; 32] } }
            }
        };
        Rc::new(Attested::judged(Vote { validator_index, block_id, ..Vote::default() }, true))
    }

    #[test]
    fn two_thirds_are_three_of_four() {
        let mut set = VoteSet::new(4);
        set.add(vote(0, 1));
        set.add(vote(1, 1));
        assert!(set.majority().is_none() && !set.has_two_thirds_any());
        set.add(vote(2, 0));
        assert!(set.majority().is_none() && set.has_two_thirds_any());
        set.add(vote(3, 1));
        assert_eq!(set.majority().unwrap().hash, [1; 32]);
        assert_eq!([1, 2, 3, 4, 5, 6, 7].map(quorum), [1, 2, 3, 3, 4, 5, 5]);
    }

    #[test]
    fn a_second_vote_for_something_else_is_a_conflict_and_does_not_count() {
        let mut set = VoteSet::new(4);
        assert!(matches!(set.add(vote(1, 1)), Added::New));
        assert!(matches!(set.add(vote(1, 1)), Added::Duplicate));
        assert!(matches!(set.add(vote(1, 0)), Added::Conflict(_)));
        assert!(matches!(set.add(vote(9, 0)), Added::Duplicate));
        assert_eq!(set.mask(), 2);
        assert_eq!(set.len(), 1);
    }

    #[test]
    fn a_peer_brings_up_two_rounds_ahead_and_no_more() {
        let mut votes = HeightVotes::new(4);
        votes.begin(Round(0));
        let peer = Some(Peer(1));
        assert!(votes.set_for(peer, Round(1), Step::Prevote).is_some(), "the next round is everybody's");
        assert!(votes.set_for(peer, Round(5), Step::Prevote).is_some());
        assert!(votes.set_for(peer, Round(7), Step::Precommit).is_some());
        assert!(votes.set_for(peer, Round(9), Step::Precommit).is_none());
        assert!(votes.set_for(Some(Peer(2)), Round(9), Step::Precommit).is_some());
        assert!(votes.set_for(peer, Round(9), Step::Prevote).is_some(), "now it is there");
    }
}
