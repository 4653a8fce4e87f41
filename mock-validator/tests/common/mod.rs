//! A signer to test the validator with: FilePV's rules in the fewest lines, in memory.
#![allow(dead_code, unreachable_pub, reason = "each test crate uses its own part of this module")]

#[path = "../../../protocol/tests/common/deadline.rs"]
mod deadline;
pub mod dials;

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use mock_validator::link::{LinkError, NodeLink};
use mock_validator::node::{Blocks, Requests, Settings};
use monosign_protocol::message::{
    Message, PubKeyResponse, RemoteSignerError, SignProposalRequest, SignVoteRequest, SignedProposalResponse,
    SignedVoteResponse, Text, Timestamp,
};
use monosign_protocol::{ChainId, Dialect, Height, Hrs, Step, noise, sign_bytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

pub const CHAIN: &str = "test-chain";
pub const NOW: Timestamp = Timestamp { seconds: 1_700_000_000, nanos: 5 };
pub const SEED: [u8; 32] = [7; 32];

pub fn chain() -> ChainId {
    deadline::for_this_test();
    CHAIN.parse().unwrap()
}

pub fn requests(dialect: Dialect, extension_bytes: Option<usize>) -> Requests {
    Requests::new(chain(), dialect, extension_bytes, Blocks::new(SEED))
}

pub fn settings(dialect: Dialect, extension_bytes: Option<usize>) -> Settings {
    Settings {
        chain_id: chain(),
        dialect,
        first_height: Height(1),
        extension_bytes,
        expected_key: None,
        seed: SEED,
    }
}

pub fn error(text: &str) -> RemoteSignerError {
    RemoteSignerError { code: 0, description: Text::from(text) }
}

/// CometBFT's FilePV without the file.
pub struct TestSigner {
    key: SigningKey,
    last: Option<Last>,
    /// So many answers it still gives.
    to_live: usize,
}

struct Last {
    hrs: Hrs,
    /// The sign bytes as if the timestamp were zero.
    timeless: Vec<u8>,
    timestamp: Timestamp,
    signature: Vec<u8>,
}

impl TestSigner {
    pub fn new() -> Self {
        Self { key: SigningKey::from_bytes(&[9; 32]), last: None, to_live: usize::MAX }
    }

    /// One that has signed a prevote at that height.
    pub fn that_has_signed(height: i64) -> Self {
        let requests = requests(Dialect::V0_38, None);
        let block = requests.blocks().block(Height(height), 0);
        let mut signer = Self::new();
        signer.answer(requests.sign(hrs(height, Step::Prevote), block, NOW));
        signer
    }

    /// One that hangs up for good after so many answers.
    pub fn that_dies_at(answers: usize) -> Self {
        Self { to_live: answers, ..Self::new() }
    }

    pub fn is_dead(&self) -> bool {
        self.to_live == 0
    }

    pub fn public_key(&self) -> VerifyingKey {
        self.key.verifying_key()
    }

    pub fn answer(&mut self, request: Message) -> Message {
        match request {
            Message::PubKeyRequest(_) => {
                Message::PubKeyResponse(PubKeyResponse::universal(self.public_key().to_bytes()))
            }
            Message::PingRequest => Message::PingResponse,
            Message::SignVoteRequest(request) => {
                Message::SignedVoteResponse(self.vote(request).unwrap_or_else(|text| SignedVoteResponse {
                    error: Some(error(text)),
                    ..SignedVoteResponse::default()
                }))
            }
            Message::SignProposalRequest(request) => {
                Message::SignedProposalResponse(self.proposal(request).unwrap_or_else(|text| {
                    SignedProposalResponse { error: Some(error(text)), ..SignedProposalResponse::default() }
                }))
            }
            other => panic!("no test asks for {}", other.name()),
        }
    }

    /// Answers everything on a link until the node hangs up.
    pub async fn serve<Io: AsyncRead + AsyncWrite + Unpin>(&mut self, mut link: NodeLink<Io>) {
        while self.to_live > 0 {
            self.to_live -= 1;
            match link.receive().await {
                Ok(Some(request)) => link.send(&self.answer(request)).await.unwrap(),
                Ok(None) => panic!("no test sends an empty message"),
                Err(LinkError::Closed | LinkError::Io(_)) => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn vote(&mut self, request: SignVoteRequest) -> Result<SignedVoteResponse, &'static str> {
        let mut vote = request.vote.unwrap();
        let hrs = vote.hrs().unwrap();
        self.check(&request.chain_id, hrs)?;
        if !vote.is_extendable() && !vote.extension.is_empty() && !request.skip_extension_signing {
            return Err("unexpected vote extension");
        }
        let mut timeless = vote.clone();
        timeless.timestamp = Timestamp::GO_ZERO;
        let timeless = sign_bytes::vote(CHAIN, &timeless);
        (vote.signature, vote.timestamp) =
            self.sign(hrs, timeless, sign_bytes::vote(CHAIN, &vote), vote.timestamp)?;
        if vote.is_extendable() && !request.skip_extension_signing {
            let extension = sign_bytes::vote_extension(CHAIN, &vote);
            vote.extension_signature = self.key.sign(&extension).to_vec();
            vote.non_rp_extension_signature = self.key.sign(&vote.non_rp_extension).to_vec();
        }
        Ok(SignedVoteResponse { vote, error: None })
    }

    fn proposal(&mut self, request: SignProposalRequest) -> Result<SignedProposalResponse, &'static str> {
        let mut proposal = request.proposal.unwrap();
        self.check(&request.chain_id, proposal.hrs())?;
        let mut timeless = proposal.clone();
        timeless.timestamp = Timestamp::GO_ZERO;
        let timeless = sign_bytes::proposal(CHAIN, &timeless);
        let bytes = sign_bytes::proposal(CHAIN, &proposal);
        (proposal.signature, proposal.timestamp) =
            self.sign(proposal.hrs(), timeless, bytes, proposal.timestamp)?;
        Ok(SignedProposalResponse { proposal, error: None })
    }

    fn check(&self, chain_id: &Text, hrs: Hrs) -> Result<(), &'static str> {
        if !chain_id.is(CHAIN) {
            return Err("wrong chain");
        }
        match &self.last {
            // In FilePV's words, which name the height.
            Some(last) if hrs.height < last.hrs.height => {
                let words = format!("height regression. Got {}, last height {}", hrs.height, last.hrs.height);
                Err(words.leak())
            }
            Some(last) if hrs < last.hrs => Err("regression"),
            None if hrs.height < Height(0) => Err("regression"),
            _ => Ok(()),
        }
    }

    fn sign(
        &mut self,
        hrs: Hrs,
        timeless: Vec<u8>,
        bytes: Vec<u8>,
        timestamp: Timestamp,
    ) -> Result<(Vec<u8>, Timestamp), &'static str> {
        if let Some(last) = self.last.as_ref().filter(|last| last.hrs == hrs) {
            if last.timeless != timeless {
                return Err("conflicting data");
            }
            return Ok((last.signature.clone(), last.timestamp));
        }
        let signature = self.key.sign(&bytes).to_vec();
        self.last = Some(Last { hrs, timeless, timestamp, signature: signature.clone() });
        Ok((signature, timestamp))
    }
}

pub fn hrs(height: i64, step: Step) -> Hrs {
    Hrs { height: Height(height), round: monosign_protocol::Round(0), step }
}

/// The signer's side of a noise handshake. `None` if the node hangs up.
pub async fn initiate(
    io: &mut (impl AsyncRead + AsyncWrite + Unpin),
    identity: &SigningKey,
    node: &SigningKey,
    entropy: noise::Entropy,
) -> Option<noise::Established> {
    let node = noise::PeerId::from(&node.verifying_key());
    let mut handshake = noise::Handshake::initiator(identity, node, entropy);
    let mut wire = Vec::new();
    loop {
        while let Some(bytes) = handshake.poll_transmit() {
            io.write_all(&bytes).await.ok()?;
        }
        if handshake.is_established() {
            return handshake.established();
        }
        if io.read_buf(&mut wire).await.ok()? == 0 {
            return None;
        }
        let used = handshake.handle(&wire).ok()?;
        wire.drain(..used);
    }
}
