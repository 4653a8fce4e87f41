//! Who may say what: the validators' keys and the check of signatures.

use std::rc::Rc;

use ed25519_dalek::{Signature, VerifyingKey};
use monosign_protocol::message::{Proposal, Vote};
use monosign_protocol::{ChainId, sign_bytes};
use sha2::{Digest, Sha512};

use super::Attested;

/// A validator of the chain. All have the same power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validator {
    /// Its public key.
    pub key: VerifyingKey,
    /// How it signs.
    pub scheme: Scheme,
}

/// How a validator signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// As real ones do.
    Ed25519,
    /// With [`digest_signature`], which anyone can make: for peers that are honest by design, where the time that
    /// curve arithmetic takes is better spent on more heights.
    Digest,
}

/// Judges signed messages of one chain.
#[derive(Debug, Clone)]
pub struct Authority {
    chain_id: ChainId,
    validators: Rc<[Validator]>,
    extensions: bool,
}

/// The signature of [`Scheme::Digest`]: SHA-512 over the public key and the sign bytes.
pub fn digest_signature(key: &VerifyingKey, sign_bytes: &[u8]) -> [u8; 64] {
    Sha512::new().chain_update(key.as_bytes()).chain_update(sign_bytes).finalize().into()
}

impl Validator {
    fn signed(&self, sign_bytes: &[u8], signature: &[u8]) -> bool {
        match self.scheme {
            Scheme::Digest => digest_signature(&self.key, sign_bytes) == signature,
            Scheme::Ed25519 => {
                let signature = Signature::from_slice(signature);
                signature.is_ok_and(|signature| self.key.verify_strict(sign_bytes, &signature).is_ok())
            }
        }
    }
}

impl Authority {
    /// Judges for `chain_id`; `extensions` says whether the chain has vote extensions on.
    pub fn new(chain_id: ChainId, validators: Rc<[Validator]>, extensions: bool) -> Self {
        Self { chain_id, validators, extensions }
    }

    /// The validators, in the order of the chain's set.
    pub fn validators(&self) -> &[Validator] {
        &self.validators
    }

    /// Whether a vote's signatures are those of the validator at its index (`types/vote_set.go`, addVote).
    pub fn vote_is_valid(&self, vote: &Attested<Vote>) -> bool {
        vote.is_valid(|vote| {
            let index = usize::try_from(vote.validator_index).ok();
            let Some(validator) = index.and_then(|index| self.validators.get(index)) else { return false };
            let bytes = sign_bytes::vote(self.chain_id.as_str(), vote);
            validator.signed(&bytes, &vote.signature) && self.extension_is_valid(validator, vote)
        })
    }

    /// Whether a proposal's signature is that of the validator at `proposer`.
    pub fn proposal_is_valid(&self, proposer: usize, proposal: &Attested<Proposal>) -> bool {
        proposal.is_valid(|proposal| {
            let bytes = sign_bytes::proposal(self.chain_id.as_str(), proposal);
            let validator = self.validators.get(proposer);
            validator.is_some_and(|validator| validator.signed(&bytes, &proposal.signature))
        })
    }

    fn extension_is_valid(&self, validator: &Validator, vote: &Vote) -> bool {
        if !self.extensions {
            return vote.extension.is_empty() && vote.extension_signature.is_empty();
        }
        if !vote.is_extendable() {
            return true;
        }
        let bytes = sign_bytes::vote_extension(self.chain_id.as_str(), vote);
        validator.signed(&bytes, &vote.extension_signature)
    }
}
