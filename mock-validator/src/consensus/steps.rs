//! The steps of a round, in the order in which a node takes them.
//!
//! Each `enter_…` checks that it is due, acts, and only then moves to its step: what is asked of the signer in between
//! is asked in the step before, as in CometBFT's functions of the same names.

use std::rc::Rc;

use monosign_protocol::message::BlockId;
use monosign_protocol::{Height, Round, Step};

use super::state::{Parts, Pinned};
use super::{Block, Decided, Engine, Entry, LockRule, Port, RoundStep, later};

impl Engine {
    pub(super) async fn enter_new_round(&mut self, height: Height, round: Round, port: &mut impl Port) {
        let state = &mut self.state;
        let is_due = round > state.round || round == state.round && state.step == RoundStep::NewHeight;
        if state.height != height || !is_due {
            return;
        }
        state.round = round;
        state.step = RoundStep::NewRound;
        // In round 0 a proposal may have come before its time.
        if round != Round(0) {
            state.reset_proposal();
        }
        state.votes.begin(round);
        state.waits_for_precommits = false;
        self.enter_propose(height, round, port).await;
    }

    async fn enter_propose(&mut self, height: Height, round: Round, port: &mut impl Port) {
        if !self.is_due(height, round, RoundStep::Propose) {
            return;
        }
        self.wait(RoundStep::Propose, port);
        if self.index() == Some(self.proposer(round)) {
            self.propose(port).await;
        }
        self.move_to(round, RoundStep::Propose);
        if self.state.is_proposal_complete() {
            self.enter_prevote(height, round, port).await;
        }
    }

    pub(super) async fn enter_prevote(&mut self, height: Height, round: Round, port: &mut impl Port) {
        if !self.is_due(height, round, RoundStep::Prevote) {
            return;
        }
        let choice = self.choose_prevote(port);
        self.vote(Step::Prevote, choice.as_deref(), port).await;
        self.move_to(round, RoundStep::Prevote);
    }

    pub(super) fn enter_prevote_wait(&mut self, height: Height, round: Round, port: &mut impl Port) {
        if self.is_due(height, round, RoundStep::PrevoteWait) {
            self.wait(RoundStep::PrevoteWait, port);
            self.move_to(round, RoundStep::PrevoteWait);
        }
    }

    pub(super) async fn enter_precommit(&mut self, height: Height, round: Round, port: &mut impl Port) {
        if !self.is_due(height, round, RoundStep::Precommit) {
            return;
        }
        let choice = self.choose_precommit(round);
        self.vote(Step::Precommit, choice.as_deref(), port).await;
        self.move_to(round, RoundStep::Precommit);
    }

    pub(super) fn enter_precommit_wait(&mut self, height: Height, round: Round, port: &mut impl Port) {
        let is_waiting = self.state.round == round && self.state.waits_for_precommits;
        if self.state.height == height && round >= self.state.round && !is_waiting {
            self.wait(RoundStep::PrecommitWait, port);
            self.state.waits_for_precommits = true;
        }
    }

    pub(super) async fn enter_commit(&mut self, height: Height, round: Round, port: &mut impl Port) {
        if self.state.height != height || self.state.step >= RoundStep::Commit {
            return;
        }
        let decided = self.state.votes.precommits(round).and_then(|votes| votes.majority().cloned());
        let Some(id) = decided else { return };
        let state = &mut self.state;
        if let Some(locked) = state.locked_with(&id) {
            let block = Rc::clone(&locked.block);
            state.parts =
                Some(Parts { header: block.id.part_set_header.clone(), block: Some(Rc::clone(&block)) });
            state.block = Some(block);
        }
        if state.block_with(&id).is_none()
            && state.parts.as_ref().is_none_or(|p| p.header != id.part_set_header)
        {
            state.block = None;
            state.await_parts(&id.part_set_header);
        }
        state.step = RoundStep::Commit;
        state.commit_round = Some(round);
        state.start_time = later(port.now(), self.settings.timeouts.commit);
        self.try_finalize(port).await;
    }

    /// Ends the height if its block is there.
    pub(super) async fn try_finalize(&mut self, port: &mut impl Port) {
        let Some(round) = self.state.commit_round else { return };
        let Some(precommits) = self.state.votes.precommits(round) else { return };
        let id = precommits.majority().filter(|id| !id.is_nil());
        let Some(block) = id.and_then(|id| self.state.block_with(id)) else { return };
        if self.halted.is_some() {
            return;
        }
        let height = self.state.height;
        let commit = precommits.votes().into();
        port.save(Decided { block: Rc::clone(block), round, commit }).await;
        port.append(Entry::EndHeight(height));
        port.flush().await;
        self.state.advance(self.state.start_time, self.settings.validators.len());
        // The signer may have another key by now (finalizeCommit).
        self.ask_key(port).await;
        self.schedule_new_height(port);
    }

    /// What to prevote (defaultDoPrevote); `None` is nil.
    fn choose_prevote(&self, port: &mut impl Port) -> Option<Rc<Block>> {
        match (self.settings.lock_rule, &self.state.locked) {
            (LockRule::Unlocking, Some(locked)) => Some(Rc::clone(&locked.block)),
            (LockRule::Unlocking, None) => self.state.block.clone().filter(|block| port.accepts(block)),
            (LockRule::Paper, _) => self.choose_prevote_by_paper(port),
        }
    }

    /// Lines 22 to 33 of the paper's algorithm.
    fn choose_prevote_by_paper(&self, port: &mut impl Port) -> Option<Rc<Block>> {
        let state = &self.state;
        state.proposal.as_ref()?;
        let block = state.block.as_ref()?;
        let is_locked_block = state.locked_with(&block.id).is_some();
        let may_prevote = match state.proof_of_lock() {
            None if state.locked.is_some() => is_locked_block,
            None => {
                let is_valid_block = state.valid.as_ref().is_some_and(|valid| valid.block.id == block.id);
                is_valid_block || port.accepts(block)
            }
            Some(proof) => {
                let is_proven = state.polka(proof).is_some_and(|id| id.hash == block.id.hash);
                // A lock of the same round on another block takes double signing by a third.
                let is_recent = state.locked.as_ref().is_none_or(|locked| locked.round <= proof);
                is_proven && proof < state.round && (is_locked_block || is_recent)
            }
        };
        may_prevote.then(|| Rc::clone(block))
    }

    /// What to precommit, and the lock that comes with it (enterPrecommit); `None` is nil.
    fn choose_precommit(&mut self, round: Round) -> Option<Rc<Block>> {
        let polka = self.state.polka(round)?;
        if polka.is_nil() {
            self.unlock();
            return None;
        }
        let state = &mut self.state;
        let known = state.locked_with(&polka).map(|locked| &locked.block).or(state.block_with(&polka));
        if let Some(block) = known.cloned() {
            state.locked = Some(Pinned { round, block: Rc::clone(&block) });
            return Some(block);
        }
        // Two thirds have a block that we lack: no vote for it, but the next parts are to be of it.
        if state.parts.as_ref().is_none_or(|parts| parts.header != polka.part_set_header) {
            state.block = None;
            state.await_parts(&polka.part_set_header);
        }
        self.unlock();
        None
    }

    /// Two thirds prevoted for something else than the locked block.
    pub(super) fn unlock(&mut self) {
        if self.settings.lock_rule == LockRule::Unlocking {
            self.state.locked = None;
        }
    }

    /// The block of the round has two thirds of its prevotes: the next proposal will be of it.
    pub(super) fn take_as_valid(&mut self, polka: &BlockId) -> bool {
        let round = self.state.round;
        let Some(block) = self.state.block_with(polka).cloned() else { return false };
        self.state.valid = Some(Pinned { round, block });
        true
    }

    fn is_due(&self, height: Height, round: Round, step: RoundStep) -> bool {
        let state = &self.state;
        state.height == height && (state.round, state.step) < (round, step)
    }

    fn move_to(&mut self, round: Round, step: RoundStep) {
        self.state.round = round;
        self.state.step = step;
    }

    fn wait(&mut self, step: RoundStep, port: &mut impl Port) {
        let (height, round) = (self.state.height, self.state.round);
        let after = self.settings.timeouts.of(step, round);
        self.schedule(after, height, round, step, port);
    }
}
