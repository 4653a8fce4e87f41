//! Checks a signer's answers as CometBFT's node does, and the signatures as the rest of the network would.

use data_encoding::HEXLOWER;
use ed25519_dalek::{Signature, VerifyingKey};
use monosign_protocol::message::{
    Message, Proposal, PubKeyResponse, PublicKeyKind, RemoteSignerError, SignProposalRequest,
    SignVoteRequest, SignedProposalResponse, SignedVoteResponse, Timestamp, Vote,
};
use monosign_protocol::{ChainId, Dialect, Hrs, sign_bytes};

use super::Misbehaviour;

/// What a node of one dialect makes of answers, given the signer's public key.
#[derive(Debug, Clone)]
pub struct Verifier {
    chain_id: ChainId,
    dialect: Dialect,
    extensions: bool,
    key: Option<VerifyingKey>,
}

/// A usable answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The signer's key.
    PublicKey(VerifyingKey),
    /// A signature that the network would accept.
    Signed(Signed),
    /// A refusal, which a node takes as final for this request.
    Refused {
        /// What was to be signed; `None` for the public key.
        hrs: Option<Hrs>,
        /// What the signer said.
        error: RemoteSignerError,
    },
}

/// A signature that was checked, and the time it covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// What was signed.
    pub hrs: Hrs,
    /// The signature, 64 bytes.
    pub signature: Vec<u8>,
    /// The timestamp that the signature covers.
    pub timestamp: Timestamp,
    /// The signature of the extension, 64 bytes, if there is one.
    pub extension_signature: Option<Vec<u8>>,
}

impl Verifier {
    /// Checks for `chain_id`; `extensions` says whether the chain has vote extensions switched on, which is ignored by
    /// dialects that have none.
    ///
    /// Without a `key`, [`Verifier::pin`] must come before the first signature.
    pub fn new(chain_id: ChainId, dialect: Dialect, extensions: bool, key: Option<VerifyingKey>) -> Self {
        Self { chain_id, dialect, extensions: extensions && dialect.has_extensions(), key }
    }

    /// Signatures must be of this key from now on.
    pub fn pin(&mut self, key: VerifyingKey) {
        self.key = Some(key);
    }

    /// The key that signatures must be of, if it is known.
    pub fn key(&self) -> Option<&VerifyingKey> {
        self.key.as_ref()
    }

    /// Checks the answer to `request`. `None` is a message without content.
    ///
    /// # Errors
    /// [`Misbehaviour`] if a node could not use the answer.
    pub fn check(&self, request: &Message, answer: Option<Message>) -> Result<Answer, Misbehaviour> {
        let asked = request.name();
        let answer = answer.and_then(|answer| self.dialect.restrict(answer));
        let answer = answer.ok_or(Misbehaviour::EmptyAnswer { asked })?;
        match (request, answer) {
            (Message::PubKeyRequest(_), Message::PubKeyResponse(answer)) => self.public_key(answer),
            (Message::SignVoteRequest(request), Message::SignedVoteResponse(answer)) => {
                self.vote(request, answer)
            }
            (Message::SignProposalRequest(request), Message::SignedProposalResponse(answer)) => {
                self.proposal(request, answer)
            }
            (_, answer) => Err(Misbehaviour::WrongArm { asked, answered: answer.name() }),
        }
    }

    fn public_key(&self, answer: PubKeyResponse) -> Result<Answer, Misbehaviour> {
        if let Some(error) = answer.error {
            return Ok(Answer::Refused { hrs: None, error });
        }
        let shown = self.read_key(&answer)?;
        match &self.key {
            Some(expected) if *expected != shown => Err(Misbehaviour::WrongKey {
                shown: HEXLOWER.encode(shown.as_bytes()),
                expected: HEXLOWER.encode(expected.as_bytes()),
            }),
            _ => Ok(Answer::PublicKey(shown)),
        }
    }

    fn read_key(&self, answer: &PubKeyResponse) -> Result<VerifyingKey, Misbehaviour> {
        let (kind, is_ed25519, bytes) = if self.dialect.is_v1_or_later() {
            (answer.pub_key_type.to_string(), answer.pub_key_type.is("ed25519"), &answer.pub_key_bytes)
        } else {
            let sum = answer.pub_key.as_ref().and_then(|key| key.sum.as_ref());
            let (kind, bytes) = sum.ok_or(Misbehaviour::NoPublicKey)?;
            (format!("{kind:?}"), *kind == PublicKeyKind::Ed25519, bytes)
        };
        if bytes.is_empty() {
            return Err(Misbehaviour::NoPublicKey);
        }
        let key = bytes.as_slice().try_into().ok().filter(|_| is_ed25519);
        key.and_then(|bytes| VerifyingKey::from_bytes(bytes).ok())
            .ok_or(Misbehaviour::KeyNotEd25519 { kind, length: bytes.len() })
    }

    fn vote(&self, request: &SignVoteRequest, answer: SignedVoteResponse) -> Result<Answer, Misbehaviour> {
        // Without a vote or with a type that is none, there is nothing that could rightly be signed.
        let asked = request.vote.clone().unwrap_or_default();
        let hrs = asked.hrs().unwrap_or(ORIGIN);
        let signed = answer.vote;
        if let Some(error) = answer.error {
            return refused(hrs, error, &[&signed.signature, &signed.extension_signature]);
        }
        // The node sends the vote it asked for, with the answer's signature and time (`types/vote.go`,
        // SignAndCheckVote).
        let sent = Vote { timestamp: signed.timestamp, ..asked.clone() };
        let bytes = |vote: &Vote| sign_bytes::vote(self.chain_id.as_str(), vote);
        if !self.verifies(hrs, &bytes(&sent), &signed.signature)? {
            return Err(self.blame(hrs, &signed.signature, &bytes(&asked), asked.timestamp, sent.timestamp));
        }
        let extension_signature = self.extension(hrs, &asked, &signed)?;
        Ok(Answer::Signed(Signed {
            hrs,
            signature: signed.signature,
            timestamp: sent.timestamp,
            extension_signature,
        }))
    }

    fn proposal(
        &self,
        request: &SignProposalRequest,
        answer: SignedProposalResponse,
    ) -> Result<Answer, Misbehaviour> {
        let asked = request.proposal.clone().unwrap_or_default();
        let (hrs, signed) = (asked.hrs(), answer.proposal);
        if let Some(error) = answer.error {
            return refused(hrs, error, &[&signed.signature]);
        }
        // The node takes nothing but the signature: `proposal.Signature = p.Signature` in `consensus/state.go`,
        // defaultDecideProposal, of every release.
        let bytes = |proposal: &Proposal| sign_bytes::proposal(self.chain_id.as_str(), proposal);
        if !self.verifies(hrs, &bytes(&asked), &signed.signature)? {
            let other = Proposal { timestamp: signed.timestamp, ..asked.clone() };
            return Err(self.blame(hrs, &signed.signature, &bytes(&other), other.timestamp, asked.timestamp));
        }
        Ok(Answer::Signed(Signed {
            hrs,
            signature: signed.signature,
            timestamp: asked.timestamp,
            extension_signature: None,
        }))
    }

    /// SignAndCheckVote of v0.38 to v2.0: where it returns an error that is not recoverable, the node panics.
    fn extension(&self, hrs: Hrs, asked: &Vote, signed: &Vote) -> Result<Option<Vec<u8>>, Misbehaviour> {
        let is_signed = !signed.extension_signature.is_empty();
        if !asked.is_extendable() {
            let unexpected = is_signed || !signed.non_rp_extension_signature.is_empty();
            return if unexpected {
                Err(Misbehaviour::ExtensionSignatureUnexpected { hrs })
            } else {
                Ok(None)
            };
        }
        // Where extensions are off the node drops the signature. v0.38 to v0.40 still get one: their request does
        // not say whether they are on.
        if !self.extensions {
            return Ok(None);
        }
        if !is_signed {
            return Err(Misbehaviour::ExtensionSignatureMissing { hrs });
        }
        let bytes = sign_bytes::vote_extension(self.chain_id.as_str(), asked);
        self.extension_verifies(hrs, &bytes, &signed.extension_signature)?;
        if self.dialect.has_non_rp_extensions() {
            if signed.non_rp_extension_signature.is_empty() {
                return Err(Misbehaviour::ExtensionSignatureMissing { hrs });
            }
            self.extension_verifies(hrs, &asked.non_rp_extension, &signed.non_rp_extension_signature)?;
        }
        Ok(Some(signed.extension_signature.clone()))
    }

    fn extension_verifies(&self, hrs: Hrs, bytes: &[u8], signature: &[u8]) -> Result<(), Misbehaviour> {
        match self.verifies(hrs, bytes, signature) {
            Ok(true) => Ok(()),
            _ => Err(Misbehaviour::ExtensionSignatureInvalid { hrs }),
        }
    }

    fn verifies(&self, hrs: Hrs, bytes: &[u8], signature: &[u8]) -> Result<bool, Misbehaviour> {
        let key = self.key.as_ref().ok_or(Misbehaviour::KeyUnknown { hrs })?;
        let signature = Signature::from_slice(signature)
            .map_err(|_| Misbehaviour::SignatureLength { hrs, length: signature.len() })?;
        Ok(key.verify_strict(bytes, &signature).is_ok())
    }

    /// Tells a signature over another time, which is no conflict, from one over something else.
    fn blame(
        &self,
        hrs: Hrs,
        signature: &[u8],
        bytes: &[u8],
        signed: Timestamp,
        sent: Timestamp,
    ) -> Misbehaviour {
        match self.verifies(hrs, bytes, signature) {
            Ok(true) => Misbehaviour::SignedOtherTime { hrs, signed, sent },
            _ => Misbehaviour::SignatureInvalid { hrs },
        }
    }
}

fn refused(hrs: Hrs, error: RemoteSignerError, signatures: &[&Vec<u8>]) -> Result<Answer, Misbehaviour> {
    if signatures.iter().any(|signature| !signature.is_empty()) {
        return Err(Misbehaviour::SignatureInRefusal { hrs });
    }
    Ok(Answer::Refused { hrs: Some(hrs), error })
}

/// Stands for the place of a request that has none.
const ORIGIN: Hrs = Hrs {
    height: monosign_protocol::Height(0),
    round: monosign_protocol::Round(0),
    step: monosign_protocol::Step::Prevote,
};
