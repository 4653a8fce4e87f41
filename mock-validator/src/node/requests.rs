//! Requests as a node of a dialect writes them, with blocks from a seed.

use ed25519_dalek::VerifyingKey;
use monosign_protocol::message::{
    BlockId, Message, PartSetHeader, Proposal, PubKeyRequest, SignProposalRequest, SignVoteRequest, Text,
    Timestamp, Vote,
};
use monosign_protocol::{ChainId, Dialect, Height, Hrs, Round, Step};
use sha2::{Digest, Sha256};

/// Makes the blocks and extensions of a chain: equal seeds make equal ones, at any height in any order.
#[derive(Debug, Clone)]
pub struct Blocks {
    seed: [u8; 32],
}

impl Blocks {
    /// The chain that `seed` stands for.
    pub fn new(seed: [u8; 32]) -> Self {
        Self { seed }
    }

    /// A block at `height`. Each `variant` is another one; 0 is the one that a [`Node`](super::Node) proposes.
    pub fn block(&self, height: Height, variant: u64) -> BlockId {
        BlockId {
            hash: self.hash("block", height, variant).to_vec(),
            part_set_header: PartSetHeader { total: 1, hash: self.hash("parts", height, variant).to_vec() },
        }
    }

    /// What an application might attach to its precommit at `height`.
    pub fn extension(&self, height: Height, bytes: usize) -> Vec<u8> {
        let blocks = (0u64..).flat_map(|n| self.hash("extension", height, n));
        blocks.take(bytes).collect()
    }

    fn hash(&self, what: &str, height: Height, variant: u64) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.seed);
        hash.update(what);
        hash.update(height.0.to_le_bytes());
        hash.update(variant.to_le_bytes());
        hash.finalize().into()
    }
}

/// Writes requests as a node of a dialect does.
#[derive(Debug, Clone)]
pub struct Requests {
    chain_id: ChainId,
    dialect: Dialect,
    extension_bytes: Option<usize>,
    blocks: Blocks,
    address: Vec<u8>,
}

impl Requests {
    /// Requests for `chain_id`. `extension_bytes` is the length of the extension of each precommit for a block, `None`
    /// where the chain has extensions switched off.
    pub fn new(chain_id: ChainId, dialect: Dialect, extension_bytes: Option<usize>, blocks: Blocks) -> Self {
        Self { chain_id, dialect, extension_bytes, blocks, address: vec![0; 20] }
    }

    /// Votes carry the address of `key` from now on: the first 20 bytes of its SHA-256.
    pub fn vote_as(&mut self, key: &VerifyingKey) {
        self.address = Sha256::digest(key.as_bytes())[..20].to_vec();
    }

    /// The chain's blocks.
    pub fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    /// The request for the public key.
    pub fn public_key(&self) -> Message {
        Message::PubKeyRequest(PubKeyRequest { chain_id: self.chain_text() })
    }

    /// The request for the signature at `hrs` over `block`, or over nil if it is empty.
    pub fn sign(&self, hrs: Hrs, block: BlockId, time: Timestamp) -> Message {
        match hrs.step {
            Step::Proposal => self.proposal(hrs.height, hrs.round, Round(-1), block, time),
            Step::Prevote | Step::Precommit => {
                let bytes = self.extension_bytes.filter(|_| hrs.step == Step::Precommit && !block.is_nil());
                let extension = bytes.map(|n| self.blocks.extension(hrs.height, n));
                self.vote(hrs, block, time, 0, extension.unwrap_or_default())
            }
        }
    }

    /// The request for the signature of a proposal; `pol_round` is the round of its proof of lock, or -1.
    pub fn proposal(
        &self,
        height: Height,
        round: Round,
        pol_round: Round,
        block_id: BlockId,
        timestamp: Timestamp,
    ) -> Message {
        let proposal = Proposal {
            proposal_type: TYPE_PROPOSAL,
            height,
            round,
            pol_round,
            block_id,
            timestamp,
            signature: Vec::new(),
        };
        Message::SignProposalRequest(SignProposalRequest {
            proposal: Some(proposal),
            chain_id: self.chain_text(),
        })
    }

    /// The request for the signature of the vote at `hrs`, of the validator at `index`, for `block_id` or for nil if that
    /// is empty. `extension` is what the application attaches; only precommits for a block have one.
    pub fn vote(
        &self,
        hrs: Hrs,
        block_id: BlockId,
        timestamp: Timestamp,
        index: usize,
        extension: Vec<u8>,
    ) -> Message {
        let is_precommit = hrs.step == Step::Precommit;
        let vote = Vote {
            vote_type: if is_precommit { TYPE_PRECOMMIT } else { TYPE_PREVOTE },
            height: hrs.height,
            round: hrs.round,
            block_id,
            timestamp,
            validator_address: self.address.clone(),
            validator_index: i32::try_from(index).unwrap_or(i32::MAX),
            extension,
            ..Vote::default()
        };
        let has_extension = is_precommit && self.extension_bytes.is_some();
        Message::SignVoteRequest(SignVoteRequest {
            vote: Some(vote),
            chain_id: self.chain_text(),
            // v1.0 `types/vote.go`, SignAndCheckVote: set for every vote but a precommit of a height with extensions.
            skip_extension_signing: self.dialect.is_v1_or_later() && !has_extension,
        })
    }

    fn chain_text(&self) -> Text {
        Text::from(self.chain_id.as_str())
    }
}

// `SignedMsgType` of CometBFT's `proto/tendermint/types/types.proto`.
pub(super) const TYPE_PREVOTE: i32 = 1;
const TYPE_PRECOMMIT: i32 = 2;
const TYPE_PROPOSAL: i32 = 32;
