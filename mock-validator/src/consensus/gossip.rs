//! What a node has that a peer lacks, as CometBFT's reactors work it out (`consensus/reactor.go`, gossipDataRoutine and
//! gossipVotesRoutine).

use std::rc::Rc;

use monosign_protocol::message::Vote;

use super::votes::VoteSet;
use super::{Attested, Decided, Engine, Gossip, Part, RoundStep, Status};

impl Engine {
    /// Where this node stands and what it has.
    pub fn status(&self) -> Status {
        let state = &self.state;
        let mask = |votes: Option<&VoteSet>| votes.map_or(0, VoteSet::mask);
        let missing = state.parts.as_ref().filter(|parts| parts.block.is_none());
        Status {
            height: state.height,
            round: state.round,
            is_new_height: state.step == RoundStep::NewHeight,
            has_proposal: state.proposal.is_some(),
            wanted: missing.map(|parts| parts.header.clone()),
            prevotes: mask(state.votes.prevotes(state.round)),
            precommits: mask(state.votes.precommits(state.round)),
            proof_of_lock: state.proof_of_lock().map(|round| (round, mask(state.votes.prevotes(round)))),
            last_commit: mask(state.last_commit.as_ref()),
        }
    }

    /// What a peer that stands there lacks and this node has. `decided` is this node's block at the peer's height, if
    /// that is past here.
    pub fn missing(&self, peer: &Status, decided: Option<&Decided>) -> Vec<Gossip> {
        let mut found = Vec::new();
        if peer.height == self.state.height {
            self.missing_at_same_height(peer, &mut found);
        } else if let Some(decided) = decided.filter(|decided| decided.block.height == peer.height) {
            let known = if peer.round == decided.round { peer.precommits } else { 0 };
            let is_last = peer.height.0 + 1 == self.state.height.0;
            match self.state.last_commit.as_ref().filter(|_| is_last) {
                Some(commit) => unknown(commit.votes(), known, &mut found),
                None => unknown(&decided.commit, known, &mut found),
            }
            let (height, round) = (peer.height, peer.round);
            found.push(Gossip::Part(Rc::new(Part { height, round, block: Rc::clone(&decided.block) })));
        }
        found
    }

    fn missing_at_same_height(&self, peer: &Status, found: &mut Vec<Gossip>) {
        let state = &self.state;
        if let (true, Some(commit)) = (peer.is_new_height, &state.last_commit) {
            unknown(commit.votes(), peer.last_commit, found);
        }
        if peer.round == state.round && !peer.has_proposal {
            found.extend(state.proposal.as_ref().map(|proposal| Gossip::Proposal(Rc::clone(proposal))));
        }
        if let Some(parts) = &state.parts {
            let lacks_proposed = peer.round == state.round && !peer.has_proposal && state.proposal.is_some();
            let is_wanted = peer.wanted.as_ref() == Some(&parts.header);
            if let Some(block) = parts.block.as_ref().filter(|_| is_wanted || lacks_proposed) {
                let (height, round, block) = (state.height, state.round, Rc::clone(block));
                found.push(Gossip::Part(Rc::new(Part { height, round, block })));
            }
        }
        if peer.round <= state.round {
            self.unknown_votes(state.votes.prevotes(peer.round), peer.prevotes, found);
            self.unknown_votes(state.votes.precommits(peer.round), peer.precommits, found);
        }
        if let Some((round, known)) = peer.proof_of_lock {
            self.unknown_votes(state.votes.prevotes(round), known, found);
        }
    }

    fn unknown_votes(&self, votes: Option<&VoteSet>, known: u64, found: &mut Vec<Gossip>) {
        if let Some(votes) = votes.filter(|votes| votes.mask() & !known != 0) {
            unknown(votes.votes(), known, found);
        }
    }
}

fn unknown(votes: &[Option<Rc<Attested<Vote>>>], known: u64, found: &mut Vec<Gossip>) {
    for (validator, vote) in votes.iter().enumerate() {
        if let Some(vote) = vote.as_ref().filter(|_| known & (1 << validator) == 0) {
            found.push(Gossip::Vote(Rc::clone(vote)));
        }
    }
}
