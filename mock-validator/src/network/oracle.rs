//! What the network as a whole must never see.

use std::collections::{BTreeMap, BTreeSet};

use monosign_protocol::message::{BlockId, Proposal, Timestamp, Vote};
use monosign_protocol::{Height, Hrs};

use crate::consensus::{Attested, Authority, Decided, Settings};

/// A violation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Violation {
    /// A validator signed two different things at one height, round and step: what it is slashed for.
    Equivocation {
        /// The validator's place in the set.
        validator: usize,
        /// Where it happened.
        hrs: Hrs,
    },
    /// A validator signed the same twice with different times: no evidence on a chain, but no signer may do it.
    TwoTimes {
        /// The validator's place in the set.
        validator: usize,
        /// Where it happened.
        hrs: Hrs,
    },
    /// Two blocks were decided at one height.
    Fork(Height),
}

/// Stands for a block's id, in half of its space: chains run for a long time. Nil is all zeros.
type Digest = [u8; 32];

/// Watches what is signed and decided. Each violation is reported once.
#[derive(Debug)]
pub(super) struct Oracle {
    authority: Authority,
    signed: BTreeMap<(Hrs, usize), (Digest, Timestamp)>,
    decided: BTreeMap<Height, Digest>,
    violations: BTreeSet<Violation>,
}

impl Oracle {
    pub(super) fn new(authority: Authority) -> Self {
        Self { authority, signed: BTreeMap::new(), decided: BTreeMap::new(), violations: BTreeSet::new() }
    }

    pub(super) fn violations(&self) -> &BTreeSet<Violation> {
        &self.violations
    }

    /// Signatures that are wrong are nobody's.
    pub(super) fn saw_vote(&mut self, vote: &Attested<Vote>) {
        if !self.authority.vote_is_valid(vote) {
            return;
        }
        let vote = vote.content();
        if let (Some(hrs), Ok(validator)) = (vote.hrs(), usize::try_from(vote.validator_index)) {
            self.saw(validator, hrs, &vote.block_id, vote.timestamp);
        }
    }

    pub(super) fn saw_proposal(&mut self, settings: &Settings, proposal: &Attested<Proposal>) {
        let proposer = settings.proposer(proposal.content().height, proposal.content().round);
        if self.authority.proposal_is_valid(proposer, proposal) {
            let proposal = proposal.content();
            self.saw(proposer, proposal.hrs(), &proposal.block_id, proposal.timestamp);
        }
    }

    pub(super) fn saw_decision(&mut self, decided: &Decided) {
        let height = decided.block.height;
        let digest = digest(&decided.block.id);
        if *self.decided.entry(height).or_insert(digest) != digest {
            self.violations.insert(Violation::Fork(height));
        }
    }

    fn saw(&mut self, validator: usize, hrs: Hrs, id: &BlockId, time: Timestamp) {
        let digest = digest(id);
        let first = self.signed.entry((hrs, validator)).or_insert((digest, time));
        if first.0 != digest {
            self.violations.insert(Violation::Equivocation { validator, hrs });
        } else if first.1 != time {
            self.violations.insert(Violation::TwoTimes { validator, hrs });
        }
    }
}

fn digest(id: &BlockId) -> Digest {
    let mut digest = [0; 32];
    for (at, byte) in digest.iter_mut().zip(&id.hash) {
        *at = *byte;
    }
    digest
}
