//! A fingerprint of all that happened.

use monosign_protocol::message::Message;

use crate::consensus::{Decided, Peer};

/// FNV-1a over what was asked and decided: equal runs have equal ones.
#[derive(Debug, Clone)]
pub(super) struct Digest {
    state: u64,
    buffer: Vec<u8>,
}

impl Default for Digest {
    fn default() -> Self {
        Self { state: 0xcbf2_9ce4_8422_2325, buffer: Vec::new() }
    }
}

impl Digest {
    pub(super) fn value(&self) -> u64 {
        self.state
    }

    /// A signer was asked: the bytes hold the time too.
    pub(super) fn request(&mut self, peer: Peer, request: &Message) {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        request.encode(&mut buffer);
        self.add(peer, &buffer);
        self.buffer = buffer;
    }

    pub(super) fn decision(&mut self, peer: Peer, decided: &Decided) {
        self.add(peer, &decided.block.id.hash);
    }

    fn add(&mut self, peer: Peer, bytes: &[u8]) {
        for byte in (peer.0 as u64).to_le_bytes().iter().chain(bytes) {
            self.state = (self.state ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
}
