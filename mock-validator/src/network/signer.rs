//! The signers of the nodes inside.

use std::cell::RefCell;
use std::rc::Rc;

use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use monosign_protocol::message::{
    Message, Proposal, PubKeyResponse, RemoteSignerError, SignProposalRequest, SignVoteRequest,
    SignedProposalResponse, SignedVoteResponse, Text, Timestamp, Vote,
};
use monosign_protocol::{Dialect, Hrs, sign_bytes};

use crate::consensus::{Scheme, digest_signature};

/// Answers what a node asks.
pub trait Signer {
    /// The answer to a request; `None` is a message without content.
    fn answer(&mut self, request: &Message) -> Option<Message>;
}

/// A signer that two nodes may share.
pub type SharedSigner = Rc<RefCell<dyn Signer>>;

/// A key in memory with the rules of CometBFT's `FilePV` (`privval/file.go`), or without.
#[derive(Debug, Clone)]
pub struct LocalSigner {
    key: SigningKey,
    shown: VerifyingKey,
    dialect: Dialect,
    scheme: Scheme,
    guarded: bool,
    last: Option<Last>,
}

#[derive(Debug, Clone)]
struct Last {
    hrs: Hrs,
    /// The sign bytes with Go's zero time in place of their own: what must not change.
    timeless: Vec<u8>,
    timestamp: Timestamp,
    signature: Vec<u8>,
}

impl LocalSigner {
    /// A signer that follows the rules.
    pub fn new(key: SigningKey, dialect: Dialect, scheme: Scheme) -> Self {
        let shown = key.verifying_key();
        Self { key, shown, dialect, scheme, guarded: true, last: None }
    }

    /// The same, but it signs whatever it is asked.
    pub fn unguarded(self) -> Self {
        Self { guarded: false, ..self }
    }

    fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        match self.scheme {
            Scheme::Ed25519 => self.key.sign(bytes).to_bytes().to_vec(),
            Scheme::Digest => digest_signature(&self.shown, bytes).to_vec(),
        }
    }

    /// The signature for `hrs` and the time that it covers. `bytes` makes the sign bytes for a time.
    fn decide(
        &mut self,
        hrs: Hrs,
        timestamp: Timestamp,
        bytes: impl Fn(Timestamp) -> Vec<u8>,
    ) -> Result<(Vec<u8>, Timestamp), RemoteSignerError> {
        let timeless = if self.guarded { bytes(Timestamp::GO_ZERO) } else { Vec::new() };
        if let Some(last) = self.last.as_ref().filter(|_| self.guarded) {
            if hrs < last.hrs {
                return Err(refusal("height, round or step regression"));
            }
            if hrs == last.hrs {
                let same = last.timeless == timeless;
                return same
                    .then(|| (last.signature.clone(), last.timestamp))
                    .ok_or(refusal("conflicting data"));
            }
        }
        let signature = self.sign(&bytes(timestamp));
        self.last = Some(Last { hrs, timeless, timestamp, signature: signature.clone() });
        Ok((signature, timestamp))
    }

    fn vote(&mut self, request: &SignVoteRequest) -> Option<SignedVoteResponse> {
        let vote = request.vote.as_ref()?;
        let chain_id = std::str::from_utf8(&request.chain_id.0).ok()?;
        let signed =
            self.decide(vote.hrs()?, vote.timestamp, |time| sign_bytes::vote_at(chain_id, vote, time));
        Some(match signed {
            Err(error) => SignedVoteResponse { vote: Vote::default(), error: Some(error) },
            Ok((signature, timestamp)) => {
                let mut vote = Vote { signature, timestamp, ..vote.clone() };
                // Each time anew: the application may have made another one.
                if self.dialect.has_extensions() && vote.is_extendable() && !request.skip_extension_signing {
                    vote.extension_signature = self.sign(&sign_bytes::vote_extension(chain_id, &vote));
                    if self.dialect.has_non_rp_extensions() {
                        vote.non_rp_extension_signature = self.sign(&vote.non_rp_extension);
                    }
                }
                SignedVoteResponse { vote, error: None }
            }
        })
    }

    fn proposal(&mut self, request: &SignProposalRequest) -> Option<SignedProposalResponse> {
        let proposal = request.proposal.as_ref()?;
        let chain_id = std::str::from_utf8(&request.chain_id.0).ok()?;
        let bytes = |time| sign_bytes::proposal_at(chain_id, proposal, time);
        Some(match self.decide(proposal.hrs(), proposal.timestamp, bytes) {
            Err(error) => SignedProposalResponse { proposal: Proposal::default(), error: Some(error) },
            Ok((signature, timestamp)) => {
                let proposal = Proposal { signature, timestamp, ..proposal.clone() };
                SignedProposalResponse { proposal, error: None }
            }
        })
    }
}

impl Signer for LocalSigner {
    fn answer(&mut self, request: &Message) -> Option<Message> {
        match request {
            Message::PubKeyRequest(_) => {
                Some(Message::PubKeyResponse(PubKeyResponse::universal(self.shown.to_bytes())))
            }
            Message::SignVoteRequest(request) => self.vote(request).map(Message::SignedVoteResponse),
            Message::SignProposalRequest(request) => {
                self.proposal(request).map(Message::SignedProposalResponse)
            }
            _ => None,
        }
    }
}

/// An error as the stock signer sends it.
pub(super) fn refusal(description: &str) -> RemoteSignerError {
    RemoteSignerError { code: 0, description: Text::from(description) }
}

/// The answer to `request` that refuses it.
pub(super) fn refuse(request: &Message, description: &str) -> Option<Message> {
    let error = Some(refusal(description));
    match request {
        Message::PubKeyRequest(_) => {
            Some(Message::PubKeyResponse(PubKeyResponse { error, ..Default::default() }))
        }
        Message::SignVoteRequest(_) => {
            Some(Message::SignedVoteResponse(SignedVoteResponse { error, ..Default::default() }))
        }
        Message::SignProposalRequest(_) => {
            Some(Message::SignedProposalResponse(SignedProposalResponse { error, ..Default::default() }))
        }
        _ => None,
    }
}
