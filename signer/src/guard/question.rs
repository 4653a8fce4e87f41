//! What a validator wants signed.

use monosign_protocol::message::{Proposal, Timestamp, Vote};
use monosign_protocol::{Hrs, sign_bytes};

use super::Refusal;

/// A vote or a proposal, checked to be one that CometBFT can sign at all.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    chain_id: &'a str,
    content: Content<'a>,
    hrs: Hrs,
    signs_extension: bool,
}

/// The message to sign.
#[derive(Debug, Clone, Copy)]
pub enum Content<'a> {
    /// A prevote or precommit.
    Vote(&'a Vote),
    /// A proposal.
    Proposal(&'a Proposal),
}

impl<'a> Question<'a> {
    /// Asks for a vote. `signs_extension` is false if the node asked to skip extensions (v1.0 and later), which then
    /// are ignored wherever they stand.
    ///
    /// # Errors
    /// [`Refusal::NotAVote`] and [`Refusal::MalformedBlockId`], on which CometBFT's own signer panics.
    pub fn vote(chain_id: &'a str, vote: &'a Vote, signs_extension: bool) -> Result<Self, Refusal> {
        let hrs = vote.hrs().ok_or(Refusal::NotAVote { vote_type: vote.vote_type })?;
        if !vote.block_id.is_well_formed() {
            return Err(Refusal::MalformedBlockId { asked: hrs });
        }
        Ok(Self { chain_id, content: Content::Vote(vote), hrs, signs_extension })
    }

    /// Asks for a proposal.
    ///
    /// # Errors
    /// [`Refusal::MalformedBlockId`], on which CometBFT's own signer panics.
    pub fn proposal(chain_id: &'a str, proposal: &'a Proposal) -> Result<Self, Refusal> {
        let hrs = proposal.hrs();
        if !proposal.block_id.is_well_formed() {
            return Err(Refusal::MalformedBlockId { asked: hrs });
        }
        Ok(Self { chain_id, content: Content::Proposal(proposal), hrs, signs_extension: false })
    }

    /// Where in consensus this stands.
    pub fn hrs(&self) -> Hrs {
        self.hrs
    }

    /// The message itself.
    pub fn content(&self) -> Content<'a> {
        self.content
    }

    /// The timestamp that was asked for.
    pub fn timestamp(&self) -> Timestamp {
        match self.content {
            Content::Vote(vote) => vote.timestamp,
            Content::Proposal(proposal) => proposal.timestamp,
        }
    }

    /// The first bytes of the block's hash in hex, or `nil`: enough to tell two blocks apart in a log.
    pub fn block(&self) -> String {
        let id = match self.content {
            Content::Vote(vote) => &vote.block_id,
            Content::Proposal(proposal) => &proposal.block_id,
        };
        if id.is_nil() {
            return "nil".into();
        }
        data_encoding::HEXUPPER.encode(&id.hash[..id.hash.len().min(5)])
    }

    /// What would be signed.
    pub fn sign_bytes(&self) -> Vec<u8> {
        self.sign_bytes_at(self.timestamp())
    }

    /// What would be signed with another timestamp. Equal to stored sign bytes at the stored timestamp means: the same
    /// message but for its timestamp.
    pub fn sign_bytes_at(&self, timestamp: Timestamp) -> Vec<u8> {
        match self.content {
            Content::Vote(vote) => sign_bytes::vote_at(self.chain_id, vote, timestamp),
            Content::Proposal(proposal) => sign_bytes::proposal_at(self.chain_id, proposal, timestamp),
        }
    }

    /// The vote whose extension is to be signed with it: a precommit for a block, unless the node skips extensions.
    pub fn extended_vote(&self) -> Option<&'a Vote> {
        match self.content {
            Content::Vote(vote) if self.signs_extension && vote.is_extendable() => Some(vote),
            _ => None,
        }
    }

    /// An extension on a prevote or on a precommit for nil (`privval/file.go`, `signVote`, v0.38).
    pub fn has_misplaced_extension(&self) -> bool {
        match self.content {
            Content::Vote(vote) => {
                self.signs_extension
                    && !vote.is_extendable()
                    && !(vote.extension.is_empty() && vote.non_rp_extension.is_empty())
            }
            Content::Proposal(_) => false,
        }
    }
}
