//! Leave to sign.

use std::borrow::Cow;

use monosign_protocol::message::Vote;
use monosign_protocol::{ChainId, sign_bytes};

use crate::guard::Refusal;

/// Bytes that may be signed. A backend signs nothing else, and there are four ways to get one:
///
/// * the message that the durable record holds ([`Record::permit`](super::Record::permit), and for cosigners
///   [`Record::permit_alike`](super::Record::permit_alike)): the only way for votes and proposals, so that what is not
///   recorded cannot be signed;
/// * the extension of a vote, in its own domain;
/// * an extension without replay protection and the raw bytes of v1's `SignBytes`, unless they could be a consensus
///   message;
/// * Celestia's raw bytes, behind their prefix.
#[derive(Debug)]
pub struct Permit<'a>(Cow<'a, [u8]>);

impl<'a> Permit<'a> {
    pub(super) fn recorded(sign_bytes: &'a [u8]) -> Self {
        Self(Cow::Borrowed(sign_bytes))
    }

    /// The recorded message with another timestamp. Cosigners sign it, since the validators of one key do not agree on
    /// timestamps, and two signatures that differ in nothing else are no double signature (CometBFT
    /// `types/evidence.go`, `DuplicateVoteEvidence`: the block ids must differ).
    pub(super) fn alike(sign_bytes: Vec<u8>) -> Self {
        Self(Cow::Owned(sign_bytes))
    }

    /// A vote's extension (`types/vote.go`, `VoteExtensionSignBytes`, v0.38). Its domain differs from votes and
    /// proposals by the first tag, and CometBFT signs a new one each time it is asked.
    pub fn vote_extension(chain_id: &ChainId, vote: &Vote) -> Permit<'static> {
        Permit(Cow::Owned(sign_bytes::vote_extension(chain_id.as_str(), vote)))
    }

    /// Bytes as they are: v2.0-rc's extensions without replay protection and v1's `SignBytes`.
    ///
    /// # Errors
    /// [`Refusal::WrongDomain`] for anything that has the shape of a consensus message.
    pub fn raw(bytes: &'a [u8]) -> Result<Self, Refusal> {
        if sign_bytes::looks_length_delimited(bytes) {
            return Err(Refusal::WrongDomain);
        }
        Ok(Self(Cow::Borrowed(bytes)))
    }

    /// Celestia's `SignRawBytes` (CIP-40).
    ///
    /// # Errors
    /// [`Refusal::EmptyRawBytes`], as celestia-core refuses it.
    pub fn celestia(
        chain_id: &ChainId,
        raw_bytes: &[u8],
        unique_id: &[u8],
    ) -> Result<Permit<'static>, Refusal> {
        if raw_bytes.is_empty() || unique_id.is_empty() {
            return Err(Refusal::EmptyRawBytes);
        }
        Ok(Permit(Cow::Owned(sign_bytes::celestia_raw_bytes(chain_id.as_str(), raw_bytes, unique_id))))
    }

    /// The same leave, for longer than its bytes are lent.
    pub fn into_owned(self) -> Permit<'static> {
        Permit(Cow::Owned(self.0.into_owned()))
    }

    /// The bytes to sign.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use monosign_protocol::message::Proposal;

    #[test]
    fn no_consensus_message_is_signed_as_raw_bytes() {
        let vote = Vote { vote_type: 2, extension: vec![7; 40], ..Vote::default() };
        for bytes in [
            sign_bytes::vote("test", &vote),
            sign_bytes::vote_extension("test", &vote),
            sign_bytes::proposal("test", &Proposal::default()),
        ] {
            assert_eq!(Permit::raw(&bytes).err(), Some(Refusal::WrongDomain));
        }
        assert!(Permit::raw(b"").is_ok() && Permit::raw(b"COMET::RAW").is_ok());
    }
}
