//! Requests in, responses out, each in the arm of its request.

use monosign_protocol::message::{
    ErrorCode, Message, Proposal, PubKeyResponse, RawRequest, RawResponse, RemoteSignerError,
    SignProposalRequest, SignVoteRequest, SignedProposalResponse, SignedVoteResponse, Text, Vote,
};

use super::log::{Event, Subject};
use super::{Chain, Released, SignError};
use crate::guard::{Content, Question, Refusal};
use crate::threshold::asked;

/// The response arms that carry an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arm {
    /// `PubKeyResponse`.
    PubKey,
    /// `SignedVoteResponse`.
    Vote,
    /// `SignedProposalResponse`.
    Proposal,
    /// `SignBytesResponse`.
    Raw,
}

/// The arm in which a request is answered.
pub fn arm_of(request: &Message) -> Arm {
    match request {
        Message::SignVoteRequest(_) => Arm::Vote,
        Message::SignProposalRequest(_) => Arm::Proposal,
        Message::RawRequest(_) => Arm::Raw,
        _ => Arm::PubKey,
    }
}

/// A refusal in an arm. Its presence is what counts for the node, which does not ask again; code and text go to its log.
pub fn refused(arm: Arm, description: impl Into<String>) -> Message {
    let error =
        RemoteSignerError { code: ErrorCode::Unknown as i32, description: Text::from(description.into()) };
    match arm {
        Arm::PubKey => Message::PubKeyResponse(PubKeyResponse::refused(error)),
        Arm::Vote => {
            Message::SignedVoteResponse(SignedVoteResponse { vote: Vote::default(), error: Some(error) })
        }
        Arm::Proposal => Message::SignedProposalResponse(SignedProposalResponse {
            proposal: Proposal::default(),
            error: Some(error),
        }),
        Arm::Raw => Message::RawResponse(RawResponse { signature: Vec::new(), error: Some(error) }),
    }
}

impl Chain {
    /// Answers one request, and says what there is to log.
    pub(super) async fn answer(&mut self, request: &Message) -> (Message, Event) {
        let outcome = match request {
            Message::SignVoteRequest(request) => self.answer_vote(request).await,
            Message::SignProposalRequest(request) => self.answer_proposal(request).await,
            Message::RawRequest(request) => self.answer_raw(request).await,
            other => Err((SignError::Refused(Refusal::Malformed(other.name().into())), Subject::Other)),
        };
        outcome.unwrap_or_else(|(error, subject)| {
            (refused(arm_of(request), error.to_string()), Event::refused(subject, error))
        })
    }

    async fn answer_vote(&mut self, request: &SignVoteRequest) -> Outcome {
        let missing = (Refusal::Missing { what: "vote" }.into(), Subject::Other);
        let vote = request.vote.as_ref().ok_or(missing)?;
        let id = self.id.clone();
        let question = Question::vote(id.as_str(), vote, !request.skip_extension_signing)
            .map_err(|refusal| (refusal.into(), Subject::Other))?;
        let released = self.sign(&question).await.map_err(|e| (e, Subject::of(&question)))?;
        let event = Event::signed(Subject::of(&question), released.replayed);
        let vote = signed_vote(vote, released);
        Ok((Message::SignedVoteResponse(SignedVoteResponse { vote, error: None }), event))
    }

    async fn answer_proposal(&mut self, request: &SignProposalRequest) -> Outcome {
        let missing = (Refusal::Missing { what: "proposal" }.into(), Subject::Other);
        let proposal = request.proposal.as_ref().ok_or(missing)?;
        let id = self.id.clone();
        let question =
            Question::proposal(id.as_str(), proposal).map_err(|refusal| (refusal.into(), Subject::Other))?;
        let released = self.sign(&question).await.map_err(|e| (e, Subject::of(&question)))?;
        let event = Event::signed(Subject::of(&question), released.replayed);
        let proposal = Proposal {
            timestamp: released.timestamp,
            signature: released.signature.to_vec(),
            ..proposal.clone()
        };
        Ok((Message::SignedProposalResponse(SignedProposalResponse { proposal, error: None }), event))
    }

    async fn answer_raw(&mut self, request: &RawRequest) -> Outcome {
        let signature = self.sign_raw(request).await.map_err(|e| (e, Subject::Raw))?;
        let response = RawResponse { signature: signature.to_vec(), error: None };
        Ok((Message::RawResponse(response), Event::signed(Subject::Raw, false)))
    }

    async fn sign_raw(&mut self, request: &RawRequest) -> Result<[u8; 64], SignError> {
        let raw = self.rules.raw;
        let subject = if raw.celestia_raw_bytes {
            let asked = Text(request.value_or_chain_id.clone());
            if !asked.is(self.id.as_str()) {
                return Err(
                    Refusal::WrongChain { asked: asked.to_string(), expected: self.id.to_string() }.into()
                );
            }
            asked::Subject::Celestia {
                raw_bytes: request.raw_bytes.clone(),
                unique_id: request.unique_id.0.clone(),
            }
        } else if raw.sign_bytes && request.raw_bytes.is_empty() && request.unique_id.0.is_empty() {
            asked::Subject::Raw(request.value_or_chain_id.clone())
        } else {
            let celestia = !request.raw_bytes.is_empty();
            let setting = if celestia { "sign_raw_bytes" } else { "sign_bytes" };
            return Err(Refusal::SwitchedOff { what: "signing raw bytes", setting }.into());
        };
        self.ready()?;
        self.sign_apart(subject).await
    }
}

type Outcome = Result<(Message, Event), (SignError, Subject)>;

/// What the node reads, and what identifies the vote. The extension is not sent back: nodes up to v0.39, v1.0 and v2.0 read
/// 10 KiB at the most, and take signatures and timestamp only (`privval/signer_client.go`).
fn signed_vote(asked: &Vote, released: Released) -> Vote {
    Vote {
        vote_type: asked.vote_type,
        height: asked.height,
        round: asked.round,
        block_id: asked.block_id.clone(),
        timestamp: released.timestamp,
        validator_address: address(&asked.validator_address),
        validator_index: asked.validator_index,
        signature: released.signature.to_vec(),
        extension_signature: released.extension_signature.map(Vec::from).unwrap_or_default(),
        non_rp_extension_signature: released.non_rp_extension_signature.map(Vec::from).unwrap_or_default(),
        extension: Vec::new(),
        non_rp_extension: Vec::new(),
    }
}

/// An address has 20 bytes (CometBFT `crypto/crypto.go`, `AddressSize`); anything longer is not worth sending back.
fn address(asked: &[u8]) -> Vec<u8> {
    asked.get(..asked.len().min(20)).unwrap_or_default().to_vec()
}

impl Subject {
    fn of(question: &Question<'_>) -> Self {
        let extension_bytes = match question.content() {
            Content::Vote(vote) => vote.extension.len(),
            Content::Proposal(_) => 0,
        };
        Self::Consensus { hrs: question.hrs(), block: question.block(), extension_bytes }
    }
}
