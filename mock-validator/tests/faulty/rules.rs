//! FilePV's rules, with a place for each fault.

use std::cell::Cell;
use std::fs;
use std::path::PathBuf;
use std::rc::Rc;

use data_encoding::HEXLOWER;
use ed25519_dalek::{Signer as _, SigningKey};
use monosign_protocol::message::{
    BlockId, Message, Proposal, PubKeyResponse, PublicKey, RawResponse, RemoteSignerError,
    SignedProposalResponse, SignedVoteResponse, Text, Timestamp, Vote,
};
use monosign_protocol::{Height, Hrs, Round, Step, sign_bytes};

use super::Fault;

/// What stands in the way of an answer.
pub enum Trouble {
    /// It is refused.
    Refused(&'static str),
    /// The connection is closed.
    Closes,
    /// The process dies.
    Dies,
}

/// The message to sign.
#[derive(Clone)]
enum Content {
    Vote(Vote),
    Proposal(Proposal),
}

/// What was signed last.
#[derive(Clone)]
struct Last {
    hrs: Hrs,
    sign_bytes: Vec<u8>,
    timestamp: Timestamp,
    signature: Vec<u8>,
    content: Content,
}

/// A chain's key and what it has signed.
pub struct Rules {
    chain: &'static str,
    key: SigningKey,
    fault: Option<Fault>,
    file: PathBuf,
    last: Option<Last>,
    /// What was signed before that.
    earlier: Vec<Last>,
    refusals: u32,
    tries: u32,
    in_a_row: u32,
    extension_signature: Vec<u8>,
    unsaved: bool,
    /// How many connections there were, and through which the last message came.
    pub connection: u64,
    last_connection: u64,
    first_after_restart: bool,
    out_of_step: bool,
    repeated: bool,
    starts_anew: bool,
    flushes: Rc<Cell<u64>>,
}

impl Rules {
    /// Reads the state, which has to be there unless it is the first start.
    pub fn load(
        chain: &'static str,
        key: SigningKey,
        fault: Option<Fault>,
        file: PathBuf,
        flushes: Rc<Cell<u64>>,
        first: bool,
    ) -> Option<Self> {
        let mut rules = Self {
            chain,
            key,
            fault,
            file,
            last: None,
            earlier: Vec::new(),
            refusals: 0,
            tries: 0,
            in_a_row: 0,
            extension_signature: Vec::new(),
            unsaved: false,
            connection: 0,
            last_connection: 0,
            first_after_restart: !first,
            out_of_step: false,
            repeated: false,
            starts_anew: !first,
            flushes,
        };
        if first {
            rules.save();
            return Some(rules);
        }
        match fs::read_to_string(&rules.file) {
            Err(_) => rules.has(Fault::BeginsAnewWithoutState).then_some(rules),
            Ok(text) if text.is_empty() => rules.has(Fault::BeginsAnewWithEmptyState).then_some(rules),
            Ok(text) if !text.ends_with("end\n") => {
                rules.has(Fault::BeginsAnewWithHalfAState).then_some(rules)
            }
            Ok(text) => {
                rules.parse(&text)?;
                Some(rules)
            }
        }
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    fn save(&mut self) {
        let mut text = String::new();
        if let Some(last) = &self.last {
            let (hrs, time) = (last.hrs, last.timestamp);
            let step = hrs.step.number();
            let bytes = [&last.sign_bytes, &last.signature].map(|bytes| HEXLOWER.encode(bytes));
            text = format!(
                "{} {} {step} {} {} {} {} ",
                hrs.height, hrs.round, time.seconds, time.nanos, bytes[0], bytes[1]
            );
        }
        let saved = fs::write(&self.file, text + "end\n");
        self.flushes.set(self.flushes.get() + u64::from(!self.has(Fault::NeverFlushes)));
        self.unsaved = saved.is_err();
    }

    fn parse(&mut self, text: &str) -> Option<()> {
        let words: Vec<_> = text.split(' ').collect();
        let [height, round, step, seconds, nanos, bytes, signature, _] = words[..] else { return Some(()) };
        let hrs = Hrs {
            height: Height(height.parse().ok()?),
            round: Round(round.parse().ok()?),
            step: [Step::Proposal, Step::Prevote, Step::Precommit][step.parse::<usize>().ok()? - 1],
        };
        let timestamp = Timestamp { seconds: seconds.parse().ok()?, nanos: nanos.parse().ok()? };
        let sign_bytes = HEXLOWER.decode(bytes.as_bytes()).ok()?;
        let signature = HEXLOWER.decode(signature.as_bytes()).ok()?;
        let content = Content::Vote(Vote { block_id: BlockId::default(), ..Vote::default() });
        let mut last = Last { hrs, sign_bytes, timestamp, signature, content };
        if self.has(Fault::ForgetsMessageOnRestart) {
            last.sign_bytes.clear();
        }
        if self.has(Fault::ForgetsStepOnRestart) {
            last.hrs.height.0 -= 5;
        }
        self.last = Some(last);
        Some(())
    }

    /// What was signed last, to be judged by later.
    pub fn snapshot(&self) -> Box<dyn FnOnce(&mut Self)> {
        let last = self.last.clone();
        Box::new(|rules| rules.last = last)
    }

    /// The next request will be refused.
    pub fn got_out_of_step(&mut self) {
        self.out_of_step = true;
    }

    pub fn answer(&mut self, request: &Message) -> Result<Message, Trouble> {
        match request {
            Message::PingRequest if self.has(Fault::AnswersPingWithAKey) => Ok(self.public_key()),
            Message::PingRequest => {
                self.in_a_row = 0;
                Ok(Message::PingResponse)
            }
            Message::PubKeyRequest(asked) => match self.fault {
                Some(Fault::ShowsKeyToAnyChain) => Ok(self.public_key()),
                Some(Fault::ClosesOnOtherChain) if !asked.chain_id.is(self.chain) => Err(Trouble::Closes),
                _ if asked.chain_id.is(self.chain) => Ok(self.public_key()),
                _ => Ok(Message::PubKeyResponse(PubKeyResponse::refused(error("wrong chain")))),
            },
            Message::SignVoteRequest(asked) => {
                if asked.vote.is_none() && self.has(Fault::DiesOfMissingVote) {
                    return Err(Trouble::Dies);
                }
                let Some(vote) = asked.vote.clone() else { return Ok(refused_vote("no vote")) };
                let signs_extension = !asked.skip_extension_signing || self.has(Fault::SignsSkippedExtension);
                let content = Content::Vote(vote.clone());
                match self.decide(content, asked.chain_id.is(self.chain), signs_extension) {
                    Ok((signature, timestamp)) => {
                        let mut vote = Vote { signature, timestamp, ..vote };
                        self.extend(&mut vote, signs_extension);
                        Ok(Message::SignedVoteResponse(SignedVoteResponse { vote, error: None }))
                    }
                    Err(Trouble::Refused(why)) => Ok(refused_vote(why)),
                    Err(other) => Err(other),
                }
            }
            Message::SignProposalRequest(asked) => {
                if asked.proposal.is_none() && self.has(Fault::DiesOfMissingProposal) {
                    return Err(Trouble::Dies);
                }
                let Some(proposal) = asked.proposal.clone() else {
                    return Ok(refused_proposal("no proposal"));
                };
                let content = Content::Proposal(proposal.clone());
                match self.decide(content, asked.chain_id.is(self.chain), false) {
                    Ok((signature, timestamp)) => {
                        let proposal = Proposal { signature, timestamp, ..proposal };
                        Ok(Message::SignedProposalResponse(SignedProposalResponse { proposal, error: None }))
                    }
                    Err(Trouble::Refused(why)) => Ok(refused_proposal(why)),
                    Err(other) => Err(other),
                }
            }
            Message::RawRequest(asked) if self.has(Fault::SignsRawBytes) => {
                let signature = self.key.sign(&asked.value_or_chain_id).to_bytes().to_vec();
                Ok(Message::RawResponse(RawResponse { signature, error: None }))
            }
            Message::RawRequest(_) => {
                Ok(Message::RawResponse(RawResponse { signature: Vec::new(), error: Some(error("never")) }))
            }
            _ if self.has(Fault::DiesOfAnswer) => Err(Trouble::Dies),
            _ => Ok(Message::PingResponse),
        }
    }

    fn public_key(&self) -> Message {
        let key = match self.fault {
            Some(Fault::ShowsAnotherKeyAfterReconnect) if self.connection > 3 => {
                SigningKey::from_bytes(&[77; 32]).verifying_key()
            }
            _ => self.key.verifying_key(),
        };
        let mut answer = PubKeyResponse::universal(key.to_bytes());
        if self.has(Fault::ShowsKeyInOldFormOnly) {
            answer.pub_key_bytes.clear();
            answer.pub_key_type = Text::default();
        }
        if self.has(Fault::AnswersPingWithAKey) {
            answer.pub_key.get_or_insert(PublicKey::default());
        }
        Message::PubKeyResponse(answer)
    }

    /// Sign, repeat or refuse.
    fn decide(
        &mut self,
        content: Content,
        own_chain: bool,
        signs_extension: bool,
    ) -> Result<(Vec<u8>, Timestamp), Trouble> {
        let first = std::mem::take(&mut self.first_after_restart);
        if first && self.has(Fault::RefusesFirstAfterRestart) {
            return Err(Trouble::Refused("not yet"));
        }
        self.validate(&content)?;
        let hrs = hrs_of(&content);
        let is_at = self.last.as_ref().is_some_and(|last| last.hrs == hrs);
        let is_proposal = hrs.step == Step::Proposal;
        let takes_chain = match self.fault {
            Some(Fault::IgnoresChainAtItsPlace) => is_at,
            Some(Fault::SignsVoteOfOtherChain) => !is_at && !is_proposal,
            Some(Fault::SignsProposalOfOtherChain) => !is_at && is_proposal,
            _ => false,
        };
        if !own_chain && self.has(Fault::ClosesOnOtherChain) {
            return Err(Trouble::Closes);
        }
        if !own_chain && !takes_chain {
            return Err(Trouble::Refused("wrong chain"));
        }
        let verdict = self.judge(&content, hrs, signs_extension);
        match &verdict {
            Err(Trouble::Refused(_)) => {
                self.refusals += 1;
                self.in_a_row = 0;
            }
            Ok(_) => {
                self.in_a_row += 1;
                self.refusals = 0;
            }
            _ => {}
        }
        verdict
    }

    fn validate(&self, content: &Content) -> Result<(), Trouble> {
        let block = match content {
            Content::Vote(vote) => {
                if vote.hrs().is_none() {
                    return Err(self.dies_or("no vote", Fault::DiesOfVoteType));
                }
                &vote.block_id
            }
            Content::Proposal(proposal) => &proposal.block_id,
        };
        if !matches!(block.hash.len(), 0 | 32) {
            return Err(self.dies_or("bad hash", Fault::DiesOfBlockHash));
        }
        if !matches!(block.part_set_header.hash.len(), 0 | 32) {
            return Err(self.dies_or("bad hash of parts", Fault::DiesOfPartsHash));
        }
        Ok(())
    }

    fn dies_or(&self, why: &'static str, fault: Fault) -> Trouble {
        if self.has(fault) { Trouble::Dies } else { Trouble::Refused(why) }
    }

    fn judge(
        &mut self,
        content: &Content,
        hrs: Hrs,
        signs_extension: bool,
    ) -> Result<(Vec<u8>, Timestamp), Trouble> {
        if self.refuses_what_is_safe(content, hrs) {
            return Err(Trouble::Refused("for no reason"));
        }
        if let Some(last) = self.last.clone()
            && !self.is_new_for_this_connection()
        {
            if hrs < last.hrs {
                return self.below(content, hrs, &last);
            }
            self.check_extension(content, signs_extension)?;
            if hrs == last.hrs {
                return self.same_place(content, hrs, &last);
            }
        } else {
            self.check_extension(content, signs_extension)?;
        }
        if hrs.round.0 < 0 && !self.has(Fault::SignsNegativeRound) {
            return Err(Trouble::Refused("negative round"));
        }
        if hrs.height.0 < 1 {
            return Err(Trouble::Refused("no height"));
        }
        Ok(self.sign(content, hrs))
    }

    fn is_new_for_this_connection(&self) -> bool {
        self.has(Fault::StatePerConnection) && self.connection != self.last_connection
    }

    fn refuses_what_is_safe(&mut self, content: &Content, hrs: Hrs) -> bool {
        let Some(last) = self.last.clone() else { return false };
        let jump = hrs.height.0.saturating_sub(last.hrs.height.0);
        match self.fault {
            Some(Fault::RefusesPrevoteAfterProposal) => {
                self.in_a_row == 7
                    && last.hrs == Hrs { step: Step::Proposal, ..hrs }
                    && hrs.step == Step::Prevote
            }
            Some(Fault::RefusesLateRounds) => hrs.round.0 > 9 && hrs.round.0 - last.hrs.round.0 > 20,
            Some(Fault::RefusesSkippedSteps) => {
                jump == 0
                    && last.hrs.round < hrs.round
                    && hrs.step == Step::Proposal
                    && last.hrs.step == Step::Precommit
            }
            Some(Fault::RefusesSkippedHeights) => jump == 1001,
            Some(Fault::RefusesAfterBlockSync) => jump == 501,
            Some(Fault::RefusesNextHeightAfterReconnect) => {
                jump == 1
                    && hrs.step == Step::Proposal
                    && last.hrs.step == Step::Precommit
                    && self.connection != self.last_connection
            }
            Some(Fault::RefusesEarlierTime) => time_of(content).seconds == 1_000_000_000,
            Some(Fault::SulksAfterProposalConflict) => {
                self.refusals == 1 && last.hrs.step == Step::Proposal && jump == 0 && is_nil(content)
            }
            Some(Fault::SulksAfterManyRefusals) => self.refusals == 21,
            Some(Fault::RefusesAfterOutOfStep | Fault::SignsHalfARequest) => {
                std::mem::take(&mut self.out_of_step)
            }
            _ => false,
        }
    }

    fn check_extension(&self, content: &Content, signs_extension: bool) -> Result<(), Trouble> {
        let Content::Vote(vote) = content else { return Ok(()) };
        let is_misplaced = signs_extension && !vote.is_extendable() && !vote.extension.is_empty();
        let allowed = match vote.step() {
            Some(Step::Prevote) => self.has(Fault::SignsExtensionOfPrevote),
            _ => self.has(Fault::SignsExtensionOfNilPrecommit),
        };
        if is_misplaced && !allowed {
            return Err(Trouble::Refused("unexpected extension"));
        }
        // As a YubiHSM 2 does.
        if vote.extension.len() >= 2048 && self.has(Fault::SignsTwoKibibytesAtMost) {
            return Err(Trouble::Refused("too long"));
        }
        if !vote.non_rp_extension.is_empty() && !self.has(Fault::SignsVoteAsExtension) {
            return Err(Trouble::Refused("never"));
        }
        Ok(())
    }

    fn below(&mut self, content: &Content, hrs: Hrs, last: &Last) -> Result<(Vec<u8>, Timestamp), Trouble> {
        let heights = last.hrs.height.0.saturating_sub(hrs.height.0);
        let is_same_height = heights == 0;
        let is_same_round = is_same_height && hrs.round == last.hrs.round;
        let signs = match self.fault {
            Some(Fault::SignsHeightBelow) => heights == 1 && hrs.round < last.hrs.round,
            Some(Fault::SignsHeightBelowInLaterRound) => heights == 1 && hrs.round.0 - last.hrs.round.0 == 5,
            Some(Fault::SignsHeightFarBelow) => (50..=100).contains(&heights),
            Some(Fault::SignsRoundBelow) => {
                is_same_height
                    && hrs.round < last.hrs.round
                    && hrs.step == Step::Prevote
                    && last.hrs.step == Step::Prevote
            }
            Some(Fault::SignsRoundBelowAtLaterStep) => {
                is_same_height && hrs.round < last.hrs.round && hrs.step > last.hrs.step
            }
            Some(Fault::SignsProposalAfterVote) => {
                is_same_round && hrs.step == Step::Proposal && last.hrs.round.0 > 0
            }
            Some(Fault::SignsPrevoteAfterPrecommit) => {
                is_same_round && hrs.step == Step::Prevote && hrs.round.0 == 0 && self.in_a_row < 2
            }
            Some(Fault::SignsForTwinBehind) => {
                (5..10).contains(&heights) && self.connection != self.last_connection
            }
            Some(Fault::SignsHeightZero) => hrs.height.0 <= 0,
            _ => false,
        };
        if signs {
            return Ok(self.sign(content, hrs));
        }
        if self.has(Fault::RepeatsWhatItOnceSigned)
            && let Some(old) =
                self.earlier.iter().find(|old| self.bytes(content, old.timestamp) == old.sign_bytes)
            && time_of(content) == old.timestamp
        {
            return Ok((old.signature.clone(), old.timestamp));
        }
        if self.has(Fault::ClosesOnRegression) {
            return Err(Trouble::Closes);
        }
        Err(Trouble::Refused("regression"))
    }

    fn same_place(
        &mut self,
        content: &Content,
        hrs: Hrs,
        last: &Last,
    ) -> Result<(Vec<u8>, Timestamp), Trouble> {
        let forgotten = last.sign_bytes.is_empty()
            || (self.has(Fault::ForgetsMessageOnReconnect) && self.connection != self.last_connection)
            || (self.has(Fault::ForgetsMessageOnRefusal) && self.refusals > 0);
        if forgotten {
            return Err(Trouble::Refused("no sign bytes"));
        }
        let is_same = self.bytes(content, last.timestamp) == last.sign_bytes;
        if is_same {
            return self.repeat(content, hrs, last);
        }
        self.conflict(content, hrs, last)
    }

    fn repeat(&mut self, content: &Content, hrs: Hrs, last: &Last) -> Result<(Vec<u8>, Timestamp), Trouble> {
        let (asked, is_vote) = (time_of(content), hrs.step != Step::Proposal);
        self.tries += 1;
        self.repeated |= asked != last.timestamp;
        let is_nil = is_nil(content);
        let is_second = self.connection != self.last_connection;
        let anew = match self.fault {
            Some(Fault::LaterVoteSignedAnew) => is_vote && asked > last.timestamp && !is_nil,
            Some(Fault::EarlierVoteSignedAnew) => is_vote && asked < last.timestamp,
            Some(Fault::ProposalSignedAnew) => !is_vote && asked != last.timestamp,
            Some(Fault::NilVoteSignedAnew) => is_vote && is_nil && asked != last.timestamp,
            Some(Fault::SecondTimeForSecond) => asked != last.timestamp && is_second,
            _ => false,
        };
        if anew {
            return Ok(self.sign(content, hrs));
        }
        let refuses = match self.fault {
            Some(Fault::RefusesRepeats) => asked == last.timestamp && !is_second && self.refusals == 0,
            Some(Fault::ComparesVoter) => voter(content) != voter(&last.content),
            Some(Fault::CountsTries) => self.tries > 20,
            Some(Fault::RefusesAfterLostAnswer) => asked == last.timestamp && is_second,
            Some(Fault::RefusesOtherExtension) => extension(content) != extension(&last.content),
            Some(Fault::AnotherExtensionAfterReconnectRefused) => {
                is_second && extension(content) != extension(&last.content)
            }
            _ => false,
        };
        if refuses {
            return Err(Trouble::Refused("asked already"));
        }
        Ok((last.signature.clone(), last.timestamp))
    }

    fn conflict(
        &mut self,
        content: &Content,
        hrs: Hrs,
        last: &Last,
    ) -> Result<(Vec<u8>, Timestamp), Trouble> {
        let (asked, then) = (time_of(content), last.timestamp);
        let (block, old) = (block(content), block_of(last));
        let same_time = asked == then;
        let is_vote = hrs.step != Step::Proposal;
        let both_blocks = !block.is_nil() && !old.is_nil();
        let other_hash = both_blocks && block.hash != old.hash;
        let same_hash = both_blocks && block.hash == old.hash;
        let parts = (&block.part_set_header, &old.part_set_header);
        let signs = match self.fault {
            Some(Fault::SignsOtherPrevote) => hrs.step == Step::Prevote && other_hash && same_time,
            Some(Fault::SignsOtherPrecommit) => hrs.step == Step::Precommit && other_hash && same_time,
            Some(Fault::SignsOtherProposal) => !is_vote && other_hash && same_time,
            Some(Fault::SignsNilAfterBlock) => is_vote && block.is_nil() && !old.is_nil(),
            Some(Fault::SignsBlockAfterNil) => {
                is_vote && old.is_nil() && !block.is_nil() && self.refusals == 0
            }
            Some(Fault::IgnoresPartsHash) => same_hash && parts.0.hash != parts.1.hash,
            Some(Fault::IgnoresPartsTotal) => same_hash && parts.0.total != parts.1.total,
            Some(Fault::IgnoresLockRound) => !is_vote && same_hash && lock(content) != lock(&last.content),
            Some(Fault::LaterTimeExcuses) => other_hash && asked > then && self.tries == 0,
            Some(Fault::EarlierTimeExcuses) => other_hash && asked < then,
            Some(Fault::RepeatUnlocks) => self.repeated && self.refusals > 0 && !same_time && other_hash,
            Some(Fault::NoConflictInLaterRounds) => {
                hrs.round.0 > 0 && hrs.round.0 < 3 && other_hash && same_time
            }
            Some(Fault::GivesInTheThirdTime) => self.refusals == 3,
            Some(Fault::ForgetsBlockOnRestart) => self.starts_anew && self.refusals == 0 && other_hash,
            _ => false,
        };
        if signs {
            return Ok(self.sign(content, hrs));
        }
        if self.has(Fault::ClosesOnConflict) {
            return Err(Trouble::Closes);
        }
        Err(Trouble::Refused("conflicting data"))
    }

    fn sign(&mut self, content: &Content, hrs: Hrs) -> (Vec<u8>, Timestamp) {
        let mut timestamp = time_of(content);
        if self.has(Fault::EpochForZeroTime) && timestamp == Timestamp::GO_ZERO {
            timestamp = Timestamp { seconds: 0, nanos: 0 };
        }
        let sign_bytes = self.bytes(content, timestamp);
        let mut signature = self.key.sign(&sign_bytes).to_bytes().to_vec();
        if self.has(Fault::WrongAfterManySignatures) && self.in_a_row > 100 {
            signature[40] ^= 1;
        }
        let last =
            Last { hrs, sign_bytes, timestamp, signature: signature.clone(), content: content.clone() };
        if let Some(old) = self.last.replace(last) {
            self.earlier.push(old);
        }
        (self.tries, self.repeated, self.starts_anew) = (0, false, false);
        self.last_connection = self.connection;
        if !self.has(Fault::SavesAfterAnswering) {
            self.save();
        }
        (signature, timestamp)
    }

    /// What some faults do too late.
    pub fn save_late(&mut self) {
        if self.has(Fault::SavesAfterAnswering) {
            self.save();
        }
    }

    fn bytes(&self, content: &Content, timestamp: Timestamp) -> Vec<u8> {
        match content.clone() {
            Content::Vote(mut vote) => {
                self.spoil(&mut vote.block_id);
                if vote.block_id.is_nil() && self.has(Fault::NilAsZeroHash) {
                    vote.block_id.hash = vec![0; 32];
                }
                sign_bytes::vote_at(self.chain, &vote, timestamp)
            }
            Content::Proposal(mut proposal) => {
                self.spoil(&mut proposal.block_id);
                if self.has(Fault::LeavesOutLockRound) && proposal.pol_round.0 > 100 {
                    proposal.pol_round = Round(0);
                }
                sign_bytes::proposal_at(self.chain, &proposal, timestamp)
            }
        }
    }

    fn spoil(&self, block: &mut BlockId) {
        if self.has(Fault::PartsIn16Bits) {
            block.part_set_header.total &= 0xffff;
        }
        if self.has(Fault::PartialIdIsNil) && block.hash.is_empty() {
            *block = BlockId::default();
        }
    }

    fn extend(&mut self, vote: &mut Vote, signs_extension: bool) {
        let signs = signs_extension
            && match self.fault {
                Some(Fault::ExtensionSignatureOnPrevote) if vote.step() == Some(Step::Prevote) => true,
                Some(Fault::ExtensionSignatureOnNilPrecommit) if vote.step() == Some(Step::Precommit) => true,
                Some(Fault::NoExtensionSignature) => false,
                Some(Fault::NoSignatureOfEmptyExtension) => {
                    vote.is_extendable() && !vote.extension.is_empty()
                }
                _ => vote.is_extendable(),
            };
        if signs {
            let fresh = self.key.sign(&sign_bytes::vote_extension(self.chain, vote)).to_bytes().to_vec();
            let old = self.has(Fault::RepeatsOldExtensionSignature) && self.tries > 0;
            vote.extension_signature = if old { self.extension_signature.clone() } else { fresh };
            self.extension_signature = vote.extension_signature.clone();
            if !self.has(Fault::NoSecondExtensionSignature) {
                vote.non_rp_extension_signature = self.key.sign(&vote.non_rp_extension).to_bytes().to_vec();
            }
        }
        if !self.has(Fault::SendsExtensionBack) {
            vote.extension.clear();
            vote.non_rp_extension.clear();
        }
    }
}

fn hrs_of(content: &Content) -> Hrs {
    match content {
        Content::Vote(vote) => vote.hrs().expect("a validated vote"),
        Content::Proposal(proposal) => proposal.hrs(),
    }
}

fn time_of(content: &Content) -> Timestamp {
    match content {
        Content::Vote(vote) => vote.timestamp,
        Content::Proposal(proposal) => proposal.timestamp,
    }
}

fn block(content: &Content) -> BlockId {
    match content {
        Content::Vote(vote) => vote.block_id.clone(),
        Content::Proposal(proposal) => proposal.block_id.clone(),
    }
}

/// The block of the last message, also where only its sign bytes are left.
fn block_of(last: &Last) -> BlockId {
    sign_bytes::Canonical::parse(&last.sign_bytes).map(|canonical| canonical.block_id).unwrap_or_default()
}

fn is_nil(content: &Content) -> bool {
    block(content).is_nil()
}

fn lock(content: &Content) -> Option<Round> {
    match content {
        Content::Vote(_) => None,
        Content::Proposal(proposal) => Some(proposal.pol_round),
    }
}

fn voter(content: &Content) -> i32 {
    match content {
        Content::Vote(vote) => vote.validator_index,
        Content::Proposal(_) => 0,
    }
}

fn extension(content: &Content) -> Vec<u8> {
    match content {
        Content::Vote(vote) => vote.extension.clone(),
        Content::Proposal(_) => Vec::new(),
    }
}

fn error(text: &str) -> RemoteSignerError {
    RemoteSignerError { code: 0, description: Text::from(text) }
}

pub fn refused_vote(why: &str) -> Message {
    Message::SignedVoteResponse(SignedVoteResponse { vote: Vote::default(), error: Some(error(why)) })
}

fn refused_proposal(why: &str) -> Message {
    Message::SignedProposalResponse(SignedProposalResponse {
        proposal: Proposal::default(),
        error: Some(error(why)),
    })
}
