//! A key that is shared among cosigners: the group's guards and records decide, this process's among them.

use monosign_protocol::sign_bytes;

use super::{Chain, Released, SignError, Signing, check_extensions};
use crate::backend::BackendError;
use crate::guard::{Question, Refusal};
use crate::pubkey::PublicKey;
use crate::threshold::asked::Subject;
use crate::threshold::cosigner::{Answered, AskError};

impl Chain {
    pub(super) fn ready(&self) -> Result<(), BackendError> {
        match &self.signing {
            Signing::Sole(sole) => sole.ready(),
            // Whether there is a quorum shows when it is asked.
            Signing::Group(_, locks) => locks.check(self.public_key()),
        }
    }

    /// The whole path for one question: vote and extension in one round trip, both verified before either is released.
    pub(super) async fn sign_in_group(&mut self, question: &Question<'_>) -> Result<Released, SignError> {
        self.ready()?;
        check_extensions(self.rules, question)?;
        if question.has_misplaced_extension() {
            return Err(Refusal::UnexpectedExtension { asked: question.hrs() }.into());
        }
        let Signing::Group(group, _) = &self.signing else { return Err(no_group()) };
        let message = question.sign_bytes();
        let Some(vote) = question.extended_vote() else {
            let answered = group.sign(Subject::Message(message)).await?;
            let timestamp = answered.timestamp.unwrap_or_else(|| question.timestamp());
            let signature = self.released(&question.sign_bytes_at(timestamp), &answered)?;
            let replayed = answered.replayed;
            return Ok(Released {
                signature,
                timestamp,
                extension_signature: None,
                non_rp_extension_signature: None,
                replayed,
            });
        };
        let extension = Subject::Extension { vote: message.clone(), extension: vote.extension.clone() };
        let group = group.clone();
        let (answered, extension, non_rp) = tokio::join!(
            group.sign(Subject::Message(message)),
            group.sign(extension),
            self.non_rp_extension_signature(vote),
        );
        let answered = answered?;
        let timestamp = answered.timestamp.unwrap_or_else(|| question.timestamp());
        let signature = self.released(&question.sign_bytes_at(timestamp), &answered)?;
        let bytes = sign_bytes::vote_extension(self.id.as_str(), vote);
        let extension_signature = Some(self.released(&bytes, &extension?)?);
        let non_rp_extension_signature = Some(non_rp?);
        let replayed = answered.replayed;
        Ok(Released { signature, timestamp, extension_signature, non_rp_extension_signature, replayed })
    }

    /// What the cosigner has verified, if that is what was asked for, and the key was not locked meanwhile.
    pub(super) fn released(&self, bytes: &[u8], answered: &Answered) -> Result<[u8; 64], SignError> {
        self.ready()?;
        let signature = answered.signature.of(&self.verifying_key, bytes);
        signature.ok_or_else(|| SignError::WrongSignature(self.public_key()))
    }

    fn public_key(&self) -> PublicKey {
        PublicKey::from_bytes(self.verifying_key.to_bytes())
    }
}

fn no_group() -> SignError {
    BackendError::Failed("this chain has no group".into()).into()
}

impl From<AskError> for SignError {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Refused(refusal) => Self::Refused(refusal),
            other => Self::Group(other),
        }
    }
}
