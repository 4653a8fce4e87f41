//! What messages and timeouts set off.

use std::rc::Rc;

use monosign_protocol::message::{BlockId, Proposal, Vote};
use monosign_protocol::{Round, Step};

use super::votes::Added;
use super::{Attested, Engine, Event, Gossip, Part, Peer, Port, RoundStep, Timeout};

impl Engine {
    /// Takes in a message (handleMsg). The node's own are told to its peers once they are part of its state.
    pub(super) async fn take_in(&mut self, from: Option<Peer>, message: Gossip, port: &mut impl Port) {
        let is_own = from.is_none() && !self.replaying;
        match &message {
            Gossip::Proposal(proposal) => {
                if self.take_proposal(from, proposal, port) && is_own {
                    port.publish(&message);
                }
            }
            Gossip::Part(part) => {
                if self.take_part(part) {
                    if is_own {
                        port.publish(&message);
                    }
                    self.complete_block(port).await;
                }
            }
            Gossip::Vote(vote) => {
                if self.add_vote(from, vote, port) {
                    if is_own {
                        port.publish(&message);
                    }
                    self.follow_vote(vote.content(), port).await;
                }
            }
        }
    }

    /// A timeout counts if nothing later has begun (handleTimeout).
    pub(super) async fn take_timeout(&mut self, timeout: Timeout, port: &mut impl Port) {
        let Timeout { height, round, step, .. } = timeout;
        if height != self.state.height || (round, step) < (self.state.round, self.state.step) {
            return;
        }
        match step {
            RoundStep::NewHeight => self.enter_new_round(height, Round(0), port).await,
            RoundStep::Propose => self.enter_prevote(height, round, port).await,
            RoundStep::PrevoteWait => self.enter_precommit(height, round, port).await,
            RoundStep::PrecommitWait => {
                self.enter_precommit(height, round, port).await;
                self.enter_new_round(height, Round(round.0.saturating_add(1)), port).await;
            }
            RoundStep::NewRound | RoundStep::Prevote | RoundStep::Precommit | RoundStep::Commit => {}
        }
    }

    /// Whether the proposal is now that of the round (defaultSetProposal).
    fn take_proposal(
        &mut self,
        from: Option<Peer>,
        proposal: &Rc<Attested<Proposal>>,
        port: &mut impl Port,
    ) -> bool {
        let content = proposal.content();
        let is_due = (content.height, content.round) == (self.state.height, self.state.round);
        if self.state.proposal.is_some() || !is_due {
            return false;
        }
        if content.pol_round.0 < -1 || content.pol_round >= content.round && content.pol_round.0 >= 0 {
            return false;
        }
        if !self.authority.proposal_is_valid(self.proposer(content.round), proposal) {
            port.report(match from {
                None => Event::OwnInvalid(content.hrs()),
                Some(_) => Event::InvalidProposal(Box::new(content.clone())),
            });
            return false;
        }
        self.state.proposal = Some(Rc::clone(proposal));
        // While a block is awaited that two thirds voted for, that one goes first.
        if self.state.parts.is_none() {
            self.state.await_parts(&content.block_id.part_set_header);
        }
        true
    }

    /// Whether this is the block that was awaited (addProposalBlockPart).
    fn take_part(&mut self, part: &Part) -> bool {
        if part.height != self.state.height {
            return false;
        }
        let Some(parts) = &mut self.state.parts else { return false };
        if parts.block.is_some() || parts.header != part.block.id.part_set_header {
            return false;
        }
        parts.block = Some(Rc::clone(&part.block));
        self.state.block = Some(Rc::clone(&part.block));
        true
    }

    /// The round's block is there (handleCompleteProposal).
    async fn complete_block(&mut self, port: &mut impl Port) {
        let (height, round) = (self.state.height, self.state.round);
        let polka = self.state.polka(round);
        if let Some(id) = polka.as_ref().filter(|id| !id.is_nil() && self.is_newer_than_valid(round)) {
            self.take_as_valid(id);
        }
        if self.state.step <= RoundStep::Propose && self.state.is_proposal_complete() {
            self.enter_prevote(height, round, port).await;
            if polka.is_some() {
                self.enter_precommit(height, round, port).await;
            }
        } else if self.state.step == RoundStep::Commit {
            self.try_finalize(port).await;
        }
    }

    /// Whether the vote is new and counts for the height that is being decided. Late precommits of the last height are
    /// kept for the next block (the first half of addVote).
    fn add_vote(&mut self, from: Option<Peer>, vote: &Rc<Attested<Vote>>, port: &mut impl Port) -> bool {
        let content = vote.content();
        let Some(step) = content.step() else { return false };
        let state = &mut self.state;
        let is_late = content.height.0 + 1 == state.height.0 && step == Step::Precommit;
        let set = if is_late {
            state.last_commit.as_mut().filter(|_| state.step == RoundStep::NewHeight)
        } else if content.height == state.height {
            state.votes.set_for(from, content.round, step)
        } else {
            None
        };
        // The last commit is of one round.
        let fits = |round: Option<Round>| !is_late || round == Some(content.round);
        let Some(set) = set.filter(|set| fits(set.round())) else { return false };
        if set.has(content) {
            return false;
        }
        if !self.authority.vote_is_valid(vote) {
            if let (None, Some(hrs)) = (from, content.hrs()) {
                port.report(Event::OwnInvalid(hrs));
            }
            return false;
        }
        match set.add(Rc::clone(vote)) {
            Added::New => !is_late,
            Added::Duplicate => false,
            Added::Conflict(known) => {
                let pair = (Box::new(known.content().clone()), Box::new(content.clone()));
                port.report(Event::ConflictingVotes(pair.0, pair.1));
                false
            }
        }
    }

    /// What a new vote sets off (the second half of addVote).
    async fn follow_vote(&mut self, vote: &Vote, port: &mut impl Port) {
        match vote.step() {
            Some(Step::Prevote) => {
                if let Some(id) = self.state.polka(vote.round) {
                    self.follow_polka(&id, vote.round);
                }
                self.follow_prevote(vote.round, port).await;
            }
            Some(Step::Precommit) => self.follow_precommit(vote.round, port).await,
            _ => {}
        }
    }

    /// Two thirds prevoted for one thing: a lock may end, and the next proposal may be of another block.
    fn follow_polka(&mut self, id: &BlockId, round: Round) {
        let is_past = round <= self.state.round;
        let is_after_lock = self.state.locked.as_ref().is_some_and(|locked| locked.round < round);
        if is_past && is_after_lock && self.state.locked_with(id).is_none() {
            self.unlock();
        }
        if id.is_nil() || round != self.state.round || !self.is_newer_than_valid(round) {
            return;
        }
        if !self.take_as_valid(id) {
            // What was proposed is not what two thirds prevoted.
            self.state.block = None;
        }
        self.state.await_parts(&id.part_set_header);
    }

    async fn follow_prevote(&mut self, round: Round, port: &mut impl Port) {
        let state = &self.state;
        let height = state.height;
        let has_any = state.votes.prevotes(round).is_some_and(|votes| votes.has_two_thirds_any());
        if state.round < round && has_any {
            self.enter_new_round(height, round, port).await;
        } else if state.round == round && state.step >= RoundStep::Prevote {
            let polka = state.polka(round);
            if polka.is_some_and(|id| id.is_nil() || state.is_proposal_complete()) {
                self.enter_precommit(height, round, port).await;
            } else if has_any {
                self.enter_prevote_wait(height, round, port);
            }
        } else if state.proof_of_lock() == Some(round) && state.is_proposal_complete() {
            self.enter_prevote(height, state.round, port).await;
        }
    }

    async fn follow_precommit(&mut self, round: Round, port: &mut impl Port) {
        let height = self.state.height;
        let Some(precommits) = self.state.votes.precommits(round) else { return };
        let (decided, has_any) = (precommits.majority().cloned(), precommits.has_two_thirds_any());
        if let Some(id) = decided {
            // Both, even if the round is far ahead: this is where a node that catches up precommits nil.
            self.enter_new_round(height, round, port).await;
            self.enter_precommit(height, round, port).await;
            if id.is_nil() {
                self.enter_precommit_wait(height, round, port);
            } else {
                self.enter_commit(height, round, port).await;
            }
        } else if self.state.round <= round && has_any {
            self.enter_new_round(height, round, port).await;
            self.enter_precommit_wait(height, round, port);
        }
    }

    fn is_newer_than_valid(&self, round: Round) -> bool {
        self.state.valid.as_ref().is_none_or(|valid| valid.round < round)
    }
}
