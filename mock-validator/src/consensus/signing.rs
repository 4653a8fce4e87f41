//! What is asked of the signer, and what is made of its answers.

use std::rc::Rc;

use ed25519_dalek::VerifyingKey;
use monosign_protocol::message::{BlockId, Message, Proposal, SignedVoteResponse, Timestamp, Vote};
use monosign_protocol::{Hrs, Round, Step};

use super::{Attested, Block, Engine, Event, Gossip, Halt, Part, Plan, Port, Scheme, later, rules};
use crate::node::{Answer, Verifier};

/// The key that the signer showed, and whose it is.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    key: VerifyingKey,
    index: Option<usize>,
}

impl Engine {
    /// Asks for the public key (updatePrivValidatorPubKey). Whatever goes wrong, the node goes on with the key it has.
    pub(super) async fn ask_key(&mut self, port: &mut impl Port) {
        if self.halted.is_some() {
            return;
        }
        let Ok(answer) = port.ask(&self.requests.public_key()).await else {
            return port.report(Event::NoAnswer(None));
        };
        let chain_id = self.settings.chain_id.clone();
        let any_key = Verifier::new(chain_id.clone(), self.settings.dialect, self.settings.extensions, None);
        let key = match any_key.check(&self.requests.public_key(), answer.clone()) {
            Ok(Answer::PublicKey(key)) => key,
            Ok(Answer::Refused { hrs, error }) => return port.report(Event::Refused(hrs, error)),
            Ok(Answer::Signed(_)) => return,
            Err(misbehaviour) => return port.report(Event::Misbehaved(misbehaviour)),
        };
        if self.identity.as_ref().is_some_and(|identity| identity.key == key) {
            return;
        }
        // Another key than before is worth a line, but a node takes it.
        if let Err(misbehaviour) = self.verifier.check(&self.requests.public_key(), answer) {
            port.report(Event::Misbehaved(misbehaviour));
        }
        self.verifier.pin(key);
        self.requests.vote_as(&key);
        let index = self.settings.validators.iter().position(|validator| validator.key == key);
        self.identity = Some(Identity { key, index });
    }

    /// The node's place in the validator set, if it is in it and its signer showed its key.
    pub(super) fn index(&self) -> Option<usize> {
        self.identity.as_ref()?.index
    }

    /// Proposes the valid block, or a new one (defaultDecideProposal).
    pub(super) async fn propose(&mut self, port: &mut impl Port) {
        let (height, round) = (self.state.height, self.state.round);
        let (pol_round, block) = match &self.state.valid {
            Some(valid) => (valid.round, Rc::clone(&valid.block)),
            None => match self.new_block(port) {
                Some(block) => (Round(-1), block),
                None => return,
            },
        };
        if self.halted.is_some() {
            return;
        }
        port.flush().await;
        // v1.0 on: the block's time, so that the same block makes the same bytes after a restart.
        let is_block_time = self.settings.dialect.is_v1_or_later();
        let time = if is_block_time { block.time } else { port.now() };
        let request = self.requests.proposal(height, round, pol_round, block.id.clone(), time);
        let Some(proposal) = self.ask_proposal(&request, port).await else { return };
        port.enqueue(Gossip::Proposal(Rc::new(proposal)));
        port.enqueue(Gossip::Part(Rc::new(Part { height, round, block })));
    }

    /// Votes in the step of the round, for a block or nil (signAddVote).
    pub(super) async fn vote(&mut self, step: Step, block: Option<&Block>, port: &mut impl Port) {
        let Some(index) = self.index().filter(|_| self.halted.is_none()) else { return };
        port.flush().await;
        let hrs = Hrs { height: self.state.height, round: self.state.round, step };
        let id = block.map(|block| block.id.clone()).unwrap_or_default();
        let time = self.vote_time(port.now());
        let is_extended = step == Step::Precommit && block.is_some() && self.settings.has_extensions();
        let extension = is_extended.then(|| port.extend(hrs.height, hrs.round, &id));
        let request = self.requests.vote(hrs, id, time, index, extension.unwrap_or_default());
        if let Some(vote) = self.ask_vote(&request, hrs, port).await {
            port.enqueue(Gossip::Vote(Rc::new(vote)));
        }
    }

    fn new_block(&self, port: &mut impl Port) -> Option<Rc<Block>> {
        let (height, round) = (self.state.height, self.state.round);
        let is_first = height == self.settings.initial_height;
        let time = if is_first { Some(self.settings.genesis_time) } else { self.state.median_time() };
        let plan = Plan { height, round, proposer: self.proposer(round), time: time? };
        Some(port.build_block(&plan))
    }

    /// Now, but after the block that is locked, or else proposed (voteTime).
    fn vote_time(&self, now: Timestamp) -> Timestamp {
        let locked = self.state.locked.as_ref().map(|locked| &locked.block);
        let block = locked.or(self.state.block.as_ref());
        let after = block.map(|block| later(block.time, rules::time_iota(self.settings.dialect)));
        after.map_or(now, |after| now.max(after))
    }

    /// A node takes the signature from the answer and keeps the time that it asked with: if the signer signed another
    /// time, the node will drop its own proposal.
    async fn ask_proposal(&mut self, request: &Message, port: &mut impl Port) -> Option<Attested<Proposal>> {
        let Message::SignProposalRequest(asked) = request else { return None };
        let asked = asked.proposal.clone()?;
        let (answer, is_good) = self.ask_signature(request, asked.hrs(), port).await?;
        let Some(Message::SignedProposalResponse(answer)) = answer else { return None };
        let proposal = Proposal { signature: answer.proposal.signature, ..asked };
        Some(attested(proposal, is_good))
    }

    /// A node takes signatures and time from the answer (SignAndCheckVote).
    async fn ask_vote(
        &mut self,
        request: &Message,
        hrs: Hrs,
        port: &mut impl Port,
    ) -> Option<Attested<Vote>> {
        let Message::SignVoteRequest(asked) = request else { return None };
        let asked = asked.vote.clone()?;
        let (answer, is_good) = self.ask_signature(request, hrs, port).await?;
        let Some(Message::SignedVoteResponse(SignedVoteResponse { vote: signed, .. })) = answer else {
            return None;
        };
        if let Some(halt) = self.halts(hrs, &asked.block_id, &signed) {
            self.halted = Some(halt);
            port.report(Event::Halted(halt));
            return None;
        }
        let keeps_extension = self.settings.has_extensions();
        let extension_signature = if keeps_extension { signed.extension_signature } else { Vec::new() };
        let vote =
            Vote { signature: signed.signature, timestamp: signed.timestamp, extension_signature, ..asked };
        Some(attested(vote, is_good))
    }

    /// Asks, reports what is wrong with the answer, and gives it if a node would make something of it: with `true` if
    /// its signatures were checked and are good.
    async fn ask_signature(
        &mut self,
        request: &Message,
        hrs: Hrs,
        port: &mut impl Port,
    ) -> Option<(Option<Message>, bool)> {
        let Ok(answer) = port.ask(request).await else {
            port.report(Event::NoAnswer(Some(hrs)));
            return None;
        };
        let answer = answer.and_then(|answer| self.settings.dialect.restrict(answer));
        let mut is_good = false;
        if self.index().is_some_and(|index| self.settings.validators[index].scheme == Scheme::Ed25519) {
            match self.verifier.check(request, answer.clone()) {
                Ok(checked) => is_good = matches!(checked, Answer::Signed(_)),
                Err(misbehaviour) => port.report(Event::Misbehaved(misbehaviour)),
            }
        }
        let error = match &answer {
            Some(Message::SignedVoteResponse(answer)) => &answer.error,
            Some(Message::SignedProposalResponse(answer)) => &answer.error,
            _ => &None,
        };
        if let Some(error) = error {
            port.report(Event::Refused(Some(hrs), error.clone()));
            return None;
        }
        Some((answer, is_good))
    }

    /// Where `SignAndCheckVote` finds no way on. Releases without extensions read none.
    fn halts(&self, hrs: Hrs, id: &BlockId, signed: &Vote) -> Option<Halt> {
        let is_signed = !signed.extension_signature.is_empty();
        let is_extendable = hrs.step == Step::Precommit && !id.is_nil();
        if is_signed && !is_extendable {
            return Some(Halt::ExtensionSignatureUnexpected(hrs));
        }
        let is_missing = self.settings.has_extensions() && is_extendable && !is_signed;
        is_missing.then_some(Halt::ExtensionSignatureMissing(hrs))
    }
}

fn attested<T>(content: T, is_good: bool) -> Attested<T> {
    if is_good { Attested::judged(content, true) } else { Attested::new(content) }
}
