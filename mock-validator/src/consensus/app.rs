//! The application under a node: it makes blocks and extends votes.

use std::rc::Rc;

use monosign_protocol::message::{BlockId, PartSetHeader};
use monosign_protocol::{Height, Round};
use sha2::{Digest, Sha256};

use super::{Block, Plan};

/// Makes blocks from a seed. Real applications show both values of each switch.
#[derive(Debug, Clone)]
pub struct App {
    /// Equal seeds make equal blocks.
    pub seed: [u8; 32],
    /// The length of an extension, in bytes.
    pub extension_bytes: usize,
    /// Whether transactions flow: a block that is made again, after a restart, is then another one.
    pub new_transactions: bool,
    /// Whether a precommit that is made again, after a restart, gets another extension.
    pub new_extensions: bool,
    /// How often blocks and extensions were made.
    pub made: u64,
}

impl App {
    /// An application that makes the same again, with extensions of 32 bytes.
    pub fn new(seed: [u8; 32]) -> Self {
        Self { seed, extension_bytes: 32, new_transactions: false, new_extensions: false, made: 0 }
    }

    /// A block. Its time is part of what its hash is made of.
    pub fn build_block(&mut self, plan: &Plan) -> Rc<Block> {
        self.made += 1;
        let transactions = if self.new_transactions { self.made } else { 0 };
        let hash = |what: &str| {
            let mut hash = self.hash(what, plan.height, plan.round);
            hash.update((plan.proposer as u64).to_le_bytes());
            hash.update(plan.time.seconds.to_le_bytes());
            hash.update(plan.time.nanos.to_le_bytes());
            hash.update(transactions.to_le_bytes());
            hash.finalize().to_vec()
        };
        let part_set_header = PartSetHeader { total: 1, hash: hash("parts") };
        let id = BlockId { hash: hash("block"), part_set_header };
        Rc::new(Block { id, height: plan.height, time: plan.time })
    }

    /// What is attached to the precommit for `block`.
    pub fn extend(&mut self, height: Height, round: Round, block: &BlockId) -> Vec<u8> {
        self.made += 1;
        let times = if self.new_extensions { self.made } else { 0 };
        let mut extension = Vec::with_capacity(self.extension_bytes);
        for n in 0u64.. {
            if extension.len() >= self.extension_bytes {
                break;
            }
            let hash = self.hash("extension", height, round).chain_update(&block.hash);
            extension.extend(hash.chain_update(times.to_le_bytes()).chain_update(n.to_le_bytes()).finalize());
        }
        extension.truncate(self.extension_bytes);
        extension
    }

    fn hash(&self, what: &str, height: Height, round: Round) -> Sha256 {
        Sha256::new()
            .chain_update(self.seed)
            .chain_update(what)
            .chain_update(height.0.to_le_bytes())
            .chain_update(round.0.to_le_bytes())
    }
}
