//! Requests that try to make a signer sign twice, with what CometBFT's `FilePV` does with each.
//!
//! [`double_sign`] gives the list, in the order in which it has to be asked: most probes are about the signature that
//! an earlier one got. A [`Judge`] compares the answers with the expectations. The rules are those of CometBFT
//! `privval/file.go` (`CheckHRS`, `signVote`, `signProposal`, `checkVotesOnlyDifferByTimestamp`), equal from v0.34 to
//! v2.0.

use ed25519_dalek::VerifyingKey;
use monosign_protocol::message::{
    BlockId, Message, PartSetHeader, Proposal, RemoteSignerError, Text, Timestamp, Vote,
};
use monosign_protocol::{ChainId, Dialect, Height, Hrs, Round, Step};

use super::requests::TYPE_PREVOTE;
use super::{Answer, Blocks, Misbehaviour, Requests, Signed, Verifier};

/// One request and what must come of it.
#[derive(Debug, Clone)]
pub struct Probe {
    /// What is tried, unique in its list.
    pub name: &'static str,
    /// What to ask.
    pub request: Message,
    /// What must come of it.
    pub expectation: Expectation,
}

/// What a signer must do with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expectation {
    /// Sign it.
    Signed,
    /// Give the signature of the last [`Signed`](Self::Signed) probe again, with the timestamp it covers.
    Repeated,
    /// Answer with an error, and no signature.
    Refused,
}

/// The probes of double signing, from `first_height` on; the heights must be above what the signer has signed.
///
/// Ask them in order, on one connection or several. `extensions` says whether the chain has vote extensions on.
pub fn double_sign(
    chain_id: &ChainId,
    dialect: Dialect,
    extensions: bool,
    first_height: Height,
    time: Timestamp,
    seed: [u8; 32],
) -> Vec<Probe> {
    let extension_bytes = (extensions && dialect.has_extensions()).then_some(32);
    let mut list = List {
        requests: Requests::new(chain_id.clone(), dialect, extension_bytes, Blocks::new(seed)),
        height: first_height,
        time,
        probes: Vec::new(),
    };
    list.one_block_through_a_round();
    list.nil_and_back();
    list.skipped_steps_and_rounds();
    list.proof_of_lock();
    list.other_chains();
    if extension_bytes.is_some() {
        list.extensions();
    }
    list.still_signs();
    list.probes
}

/// The same request for another block: what an equivocating node would ask after `request`.
///
/// `None` if `request` is not for a signature.
pub fn conflict(request: &Message) -> Option<Message> {
    let mut request = request.clone();
    let block = block_of(&mut request)?;
    if block.is_nil() {
        *block =
            BlockId { hash: vec![0; 32], part_set_header: PartSetHeader { total: 1, hash: vec![0; 32] } };
    }
    for byte in &mut block.hash {
        *byte ^= 0xff;
    }
    Some(request)
}

/// What an equivocating node asks right after `request` was signed, while nobody else asks: each of the double signs there are
/// at its height, round and step and below, and the repetitions that are none.
///
/// Empty if `request` is not for a signature.
pub fn around(request: &Message) -> Vec<Probe> {
    use Expectation::{Refused, Repeated};
    let Some(other_block) = conflict(request) else { return Vec::new() };
    let probe = |name, request, expectation| Probe { name, request, expectation };
    let mut probes = vec![
        probe("identical", request.clone(), Repeated),
        probe("later time", shifted(request, 1), Repeated),
        probe("earlier time", shifted(request, -1), Repeated),
        probe("another block", other_block, Refused),
    ];
    if !is_nil(request) {
        probes.push(probe("nil after a block", nil(request), Refused));
        probes.push(probe("other part-set hash", other_parts(request), Refused));
        probes.push(probe("other number of parts", more_parts(request), Refused));
    }
    probes.push(probe("of another chain", of_another_chain(request), Refused));
    probes.extend(placed_elsewhere(request).map(|(name, request)| probe(name, request, Refused)));
    // Last, as a signer that took one of those for new would now refuse it.
    probes.push(probe("identical, after all that", request.clone(), Repeated));
    probes
}

/// The request moved to a place below its own, and a proposal with another proof of lock.
fn placed_elsewhere(request: &Message) -> impl Iterator<Item = (&'static str, Message)> {
    let changed = |name, change: fn(&mut Vote), propose: fn(&mut Proposal)| {
        let mut request = request.clone();
        match &mut request {
            Message::SignVoteRequest(request) => request.vote.as_mut().map(change),
            Message::SignProposalRequest(request) => request.proposal.as_mut().map(propose),
            _ => None,
        };
        (name, request)
    };
    let below = changed("a height below", |vote| vote.height.0 -= 1, |proposal| proposal.height.0 -= 1);
    let before = changed("a round before", |vote| vote.round.0 -= 1, |proposal| proposal.round.0 -= 1);
    let lock = changed("another proof of lock", |_| {}, |proposal| proposal.pol_round.0 += 1);
    let steps_back = changed("a step back", |vote| vote.vote_type = TYPE_PREVOTE, |_| {});
    let is_precommit = matches!(request, Message::SignVoteRequest(m) if m.vote.as_ref().is_some_and(|v| v.vote_type != TYPE_PREVOTE));
    let is_proposal = matches!(request, Message::SignProposalRequest(_));
    let (lock, steps_back) = (is_proposal.then_some(lock), is_precommit.then_some(steps_back));
    [Some(below), Some(before), lock, steps_back].into_iter().flatten()
}

/// Compares answers with what the probes expect.
#[derive(Debug)]
pub struct Judge {
    verifier: Verifier,
    last: Option<Signed>,
}

/// A probe that a signer failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeFailed {
    /// The answer is none that a node can use.
    #[error("{0}")]
    Misbehaved(#[from] Misbehaviour),
    /// The signer signed, or repeated a signature, where it had to refuse.
    #[error("signed `{hrs}`, which had to be refused")]
    NotRefused {
        /// What was signed.
        hrs: Hrs,
    },
    /// The signer refused what is safe.
    #[error("refused what is safe to sign: {0}")]
    Refused(RemoteSignerError),
    /// The signer gave another signature or another timestamp than the first time.
    #[error("did not repeat its answer for `{hrs}`: a second signature or timestamp exists")]
    NotRepeated {
        /// What was signed.
        hrs: Hrs,
    },
}

impl Judge {
    /// A judge of answers that must be signed by `key`.
    pub fn new(chain_id: ChainId, dialect: Dialect, extensions: bool, key: VerifyingKey) -> Self {
        Self { verifier: Verifier::new(chain_id, dialect, extensions, Some(key)), last: None }
    }

    /// Judges the answer to `probe`. Every answer has to be shown, in order.
    ///
    /// # Errors
    /// [`ProbeFailed`] if it is not what the probe expects.
    pub fn judge(&mut self, probe: &Probe, answer: Option<Message>) -> Result<(), ProbeFailed> {
        if probe.expectation == Expectation::Repeated {
            return self.judge_repeated(&probe.request, answer);
        }
        match (probe.expectation, self.verifier.check(&probe.request, answer)?) {
            (Expectation::Signed, Answer::Signed(signed)) => {
                self.last = Some(signed);
                Ok(())
            }
            (Expectation::Signed, Answer::Refused { error, .. }) => Err(ProbeFailed::Refused(error)),
            (_, Answer::Signed(signed)) => Err(ProbeFailed::NotRefused { hrs: signed.hrs }),
            _ => Ok(()),
        }
    }

    /// The node's own check would refuse the right answer to a proposal with another time: it covers the stored time.
    /// So the answer is compared with the first one, and checked as one to a request for the stored time.
    fn judge_repeated(&self, request: &Message, answer: Option<Message>) -> Result<(), ProbeFailed> {
        let Some(first) = &self.last else { return Err(Misbehaviour::Unasked.into()) };
        let not_repeated = ProbeFailed::NotRepeated { hrs: first.hrs };
        let mut request = request.clone();
        if let Some(time) = time_of(&mut request) {
            *time = first.timestamp;
        }
        let mut answer = answer;
        if let Some(Message::SignedProposalResponse(answer)) = &mut answer
            && answer.error.is_none()
            && answer.proposal.timestamp != first.timestamp
        {
            return Err(not_repeated);
        }
        match self.verifier.check(&request, answer)? {
            Answer::Signed(again)
                if again.signature == first.signature && again.timestamp == first.timestamp =>
            {
                Ok(())
            }
            Answer::Refused { error, .. } => Err(ProbeFailed::Refused(error)),
            _ => Err(not_repeated),
        }
    }
}

struct List {
    requests: Requests,
    height: Height,
    time: Timestamp,
    probes: Vec<Probe>,
}

impl List {
    fn one_block_through_a_round(&mut self) {
        use Expectation::{Refused, Repeated, Signed};
        let proposal = self.ask(1, Step::Proposal, 0);
        let prevote = self.ask(1, Step::Prevote, 0);
        let precommit = self.ask(1, Step::Precommit, 0);

        self.add("proposal", &proposal, Signed);
        self.add("proposal, identical", &proposal, Repeated);
        self.add("proposal, later time", &shifted(&proposal, 1), Repeated);
        self.add("proposal, earlier time", &shifted(&proposal, -1), Repeated);
        self.add("proposal of another block", &self.ask(1, Step::Proposal, 1), Refused);
        self.add("proposal, other part-set hash", &other_parts(&proposal), Refused);
        self.add("proposal, other number of parts", &more_parts(&proposal), Refused);
        self.add("proposal, other proof-of-lock round", &self.locked_proposal(1, 0), Refused);
        self.add("proposal in an earlier round", &self.ask(0, Step::Proposal, 0), Refused);

        self.add("prevote", &prevote, Signed);
        self.add("prevote, identical", &prevote, Repeated);
        self.add("prevote, later time", &shifted(&prevote, 1), Repeated);
        self.add("prevote, earlier time", &shifted(&prevote, -1), Repeated);
        self.add("prevote, other validator index", &as_another_voter(&prevote), Repeated);
        self.add("prevote for another block", &self.ask(1, Step::Prevote, 1), Refused);
        self.add("prevote, other part-set hash", &other_parts(&prevote), Refused);
        self.add("prevote, other number of parts", &more_parts(&prevote), Refused);
        self.add("nil prevote after one for a block", &nil(&prevote), Refused);
        self.add("proposal again, after the prevote", &proposal, Refused);

        self.add("precommit", &precommit, Signed);
        self.add("precommit, identical", &precommit, Repeated);
        self.add("precommit, later time", &shifted(&precommit, 1), Repeated);
        self.add("precommit, earlier time", &shifted(&precommit, -1), Repeated);
        self.add("precommit for another block", &self.ask(1, Step::Precommit, 1), Refused);
        self.add("precommit, other part-set hash", &other_parts(&precommit), Refused);
        self.add("nil precommit after one for a block", &nil(&precommit), Refused);
        self.add("prevote again, after the precommit", &prevote, Refused);
        self.add("precommit in an earlier round", &self.ask(0, Step::Precommit, 0), Refused);
        self.height.0 += 1;
    }

    fn nil_and_back(&mut self) {
        use Expectation::{Refused, Repeated, Signed};
        for (step, names) in [
            (Step::Prevote, ["nil prevote", "nil prevote, later time", "prevote for a block after nil"]),
            (
                Step::Precommit,
                ["nil precommit", "nil precommit, later time", "precommit for a block after nil"],
            ),
        ] {
            let for_block = self.ask(0, step, 0);
            let for_nil = self.requests.sign(self.hrs(0, step), BlockId::default(), self.time);
            self.add(names[0], &for_nil, Signed);
            self.add(names[1], &shifted(&for_nil, 1), Repeated);
            self.add(names[2], &for_block, Refused);
        }
        self.height.0 += 1;
    }

    fn skipped_steps_and_rounds(&mut self) {
        use Expectation::{Refused, Repeated, Signed};
        let precommit = self.ask(0, Step::Precommit, 0);
        self.add("precommit without a prevote", &precommit, Signed);
        self.add("prevote after that precommit", &self.ask(0, Step::Prevote, 0), Refused);
        self.add("prevote five rounds on", &self.ask(5, Step::Prevote, 1), Signed);
        self.add("precommit in the round before", &self.ask(4, Step::Precommit, 1), Refused);
        self.add("precommit of round 0 again", &precommit, Refused);
        self.add("prevote five rounds on, identical", &self.ask(5, Step::Prevote, 1), Repeated);
        self.height.0 += 1;
        let below = Hrs { height: Height(self.height.0 - 3), round: Round(9), step: Step::Precommit };
        let below = self.requests.sign(below, self.requests.blocks().block(below.height, 0), self.time);
        self.add("precommit at a height below, in a later round", &below, Refused);
        let negative = Hrs { height: Height(-1), round: Round(0), step: Step::Precommit };
        let block = self.requests.blocks().block(self.height, 0);
        self.add("precommit at a negative height", &self.requests.sign(negative, block, self.time), Refused);
    }

    fn proof_of_lock(&mut self) {
        use Expectation::{Refused, Signed};
        self.add("proposal with a proof of lock", &self.locked_proposal(2, 1), Signed);
        self.add("the same of an earlier lock", &self.locked_proposal(2, 0), Refused);
        self.add("the same without one", &self.ask(2, Step::Proposal, 0), Refused);
        self.height.0 += 1;
    }

    fn other_chains(&mut self) {
        use Expectation::{Refused, Signed};
        let prevote = self.ask(0, Step::Prevote, 0);
        self.add("prevote of another chain, above the last", &of_another_chain(&prevote), Refused);
        self.add("prevote after that", &prevote, Signed);
        self.add("the same of another chain", &of_another_chain(&prevote), Refused);
        self.height.0 += 1;
    }

    fn extensions(&mut self) {
        use Expectation::{Refused, Repeated, Signed};
        let precommit = self.ask(0, Step::Precommit, 0);
        let extension = self.requests.blocks().extension(self.height, 32);
        self.add(
            "prevote with an extension",
            &extended(&self.ask(0, Step::Prevote, 0), extension.clone()),
            Refused,
        );
        self.add("nil precommit with an extension", &extended(&nil(&precommit), extension), Refused);
        self.add("precommit with an extension", &precommit, Signed);
        // Extensions are outside the comparison and signed each time: there is no conflict of extensions.
        self.add("precommit with another extension", &extended(&precommit, vec![1; 48]), Repeated);
        self.add("precommit with an empty extension", &extended(&precommit, Vec::new()), Repeated);
        self.height.0 += 1;
    }

    fn still_signs(&mut self) {
        self.add("precommit after all refusals", &self.ask(0, Step::Precommit, 0), Expectation::Signed);
    }

    fn add(&mut self, name: &'static str, request: &Message, expectation: Expectation) {
        self.probes.push(Probe { name, request: request.clone(), expectation });
    }

    fn ask(&self, round: i32, step: Step, variant: u64) -> Message {
        let block = self.requests.blocks().block(self.height, variant);
        self.requests.sign(self.hrs(round, step), block, self.time)
    }

    fn locked_proposal(&self, round: i32, pol_round: i32) -> Message {
        let block = self.requests.blocks().block(self.height, 0);
        self.requests.proposal(self.height, Round(round), Round(pol_round), block, self.time)
    }

    fn hrs(&self, round: i32, step: Step) -> Hrs {
        Hrs { height: self.height, round: Round(round), step }
    }
}

pub(crate) fn shifted(request: &Message, seconds: i64) -> Message {
    let mut request = request.clone();
    if let Some(time) = time_of(&mut request) {
        time.seconds += seconds;
    }
    request
}

pub(crate) fn nil(request: &Message) -> Message {
    let mut request = extended(request, Vec::new());
    if let Some(block) = block_of(&mut request) {
        *block = BlockId::default();
    }
    request
}

fn is_nil(request: &Message) -> bool {
    block_of(&mut request.clone()).is_none_or(|block| block.is_nil())
}

pub(crate) fn other_parts(request: &Message) -> Message {
    let mut request = request.clone();
    if let Some(byte) = block_of(&mut request).and_then(|block| block.part_set_header.hash.first_mut()) {
        *byte ^= 1;
    }
    request
}

pub(crate) fn more_parts(request: &Message) -> Message {
    let mut request = request.clone();
    if let Some(block) = block_of(&mut request) {
        block.part_set_header.total += 1;
    }
    request
}

pub(crate) fn extended(request: &Message, extension: Vec<u8>) -> Message {
    let mut request = request.clone();
    if let Message::SignVoteRequest(request) = &mut request {
        // v1.0 would not look at the extension otherwise.
        request.skip_extension_signing &= extension.is_empty();
        if let Some(vote) = &mut request.vote {
            vote.extension = extension;
        }
    }
    request
}

pub(crate) fn as_another_voter(request: &Message) -> Message {
    let mut request = request.clone();
    if let Message::SignVoteRequest(request) = &mut request
        && let Some(vote) = &mut request.vote
    {
        vote.validator_index += 1;
    }
    request
}

pub(crate) fn of_another_chain(request: &Message) -> Message {
    let mut request = request.clone();
    let other = Text::from("some-other-chain");
    match &mut request {
        Message::SignVoteRequest(request) => request.chain_id = other,
        Message::SignProposalRequest(request) => request.chain_id = other,
        _ => {}
    }
    request
}

pub(crate) fn block_of(request: &mut Message) -> Option<&mut BlockId> {
    match request {
        Message::SignVoteRequest(request) => request.vote.as_mut().map(|vote| &mut vote.block_id),
        Message::SignProposalRequest(request) => request.proposal.as_mut().map(|p| &mut p.block_id),
        _ => None,
    }
}

pub(crate) fn time_of(request: &mut Message) -> Option<&mut Timestamp> {
    match request {
        Message::SignVoteRequest(request) => request.vote.as_mut().map(|vote| &mut vote.timestamp),
        Message::SignProposalRequest(request) => request.proposal.as_mut().map(|p| &mut p.timestamp),
        _ => None,
    }
}
