//! Privval requests and responses: one superset codec for every release from v0.34 to v2.0-rc.
//!
//! The field numbers of all releases are compatible (CometBFT `proto/tendermint/privval/types.proto`,
//! `proto/cometbft/privval/v1` and `v2`), so one decoder reads what any node sends, and one *universal* public key
//! answer serves them all: it carries the key both as v0.x's message (field 1) and as v1's bytes and type (fields 3
//! and 4); each side skips the other's.
//!
//! There is one collision: fields 9 and 10 are v1's `SignBytes` and, on Celestia, CIP-40's `SignRawBytes`. The
//! request decodes into both readings ([`RawRequest`]); which one a chain speaks is a setting.

pub(crate) mod codec;
pub(crate) mod types;

pub use types::{
    BlockId, ErrorCode, PartSetHeader, Proposal, PublicKey, PublicKeyKind, RemoteSignerError, Text,
    Timestamp, Vote,
};

pub use crate::wire::DecodeError;

/// What node and signer say to each other, one at a time: each request is answered by one response.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message {
    /// Which key signs for this chain?
    PubKeyRequest(PubKeyRequest),
    /// The public key, or why not.
    PubKeyResponse(PubKeyResponse),
    /// Sign a prevote or precommit.
    SignVoteRequest(SignVoteRequest),
    /// The signed vote, or why not.
    SignedVoteResponse(SignedVoteResponse),
    /// Sign a proposal.
    SignProposalRequest(SignProposalRequest),
    /// The signed proposal, or why not.
    SignedProposalResponse(SignedProposalResponse),
    /// Are you there?
    PingRequest,
    /// Yes.
    PingResponse,
    /// Sign bytes that are neither vote nor proposal (v1's `SignBytes`, Celestia's `SignRawBytes`).
    RawRequest(RawRequest),
    /// The signature of such bytes, or why not.
    RawResponse(RawResponse),
}

/// Asks for the public key that signs for a chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PubKeyRequest {
    /// The chain, as the node names it.
    pub chain_id: Text,
}

/// The public key, in the form of v0.x, in that of v1 and later, or in both.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PubKeyResponse {
    /// Field 1, read by v0.34 to v0.40. Those always write it, even when it holds no key.
    pub pub_key: Option<PublicKey>,
    /// Field 2: present if the request is refused.
    pub error: Option<RemoteSignerError>,
    /// Field 3, read by v1.0 and v2.0.
    pub pub_key_bytes: Vec<u8>,
    /// Field 4, read by v1.0 and v2.0: `ed25519`, `secp256k1`, `bls12_381`.
    pub pub_key_type: Text,
}

/// Asks for the signature of a vote.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SignVoteRequest {
    /// The vote to sign; absent only in malformed requests.
    pub vote: Option<Vote>,
    /// The chain, as the node names it.
    pub chain_id: Text,
    /// v1.0 and later: sign the vote alone, leave its extension.
    pub skip_extension_signing: bool,
}

/// The signed vote, or why not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SignedVoteResponse {
    /// The vote with its signatures. Nodes take signatures and timestamp from it and nothing else.
    pub vote: Vote,
    /// Present if the request is refused.
    pub error: Option<RemoteSignerError>,
}

/// Asks for the signature of a proposal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SignProposalRequest {
    /// The proposal to sign; absent only in malformed requests.
    pub proposal: Option<Proposal>,
    /// The chain, as the node names it.
    pub chain_id: Text,
}

/// The signed proposal, or why not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SignedProposalResponse {
    /// The proposal with its signature. Nodes take the signature from it and nothing else.
    pub proposal: Proposal,
    /// Present if the request is refused.
    pub error: Option<RemoteSignerError>,
}

/// A request in field 9, whose meaning depends on the chain.
///
/// v1 and v2 read field 1 as the bytes to sign (`SignBytesRequest.value`). Celestia (CIP-40,
/// `SignRawBytesRequest`) reads it as the chain id, field 2 as the bytes and field 3 as their purpose.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RawRequest {
    /// v1: the bytes to sign. Celestia: the chain id.
    pub value_or_chain_id: Vec<u8>,
    /// Celestia: the bytes to sign.
    pub raw_bytes: Vec<u8>,
    /// Celestia: what the bytes are for; part of what is signed.
    pub unique_id: Text,
}

/// The answer in field 10; v1 and Celestia agree on it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RawResponse {
    /// The signature.
    pub signature: Vec<u8>,
    /// Present if the request is refused.
    pub error: Option<RemoteSignerError>,
}

impl Message {
    /// Decodes the body of one frame. `None` is a message without an arm, which stock signers answer in kind.
    ///
    /// # Errors
    /// [`DecodeError`] where CometBFT's own decoder refuses too. The frame is still whole: the stream stays in step.
    pub fn decode(body: &[u8]) -> Result<Option<Self>, DecodeError> {
        codec::decode(body)
    }

    /// Appends the message without its length prefix.
    pub fn encode(&self, out: &mut Vec<u8>) {
        codec::encode(self, out);
    }

    /// The message's name in CometBFT's protobuf files.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::PubKeyRequest(_) => "PubKeyRequest",
            Self::PubKeyResponse(_) => "PubKeyResponse",
            Self::SignVoteRequest(_) => "SignVoteRequest",
            Self::SignedVoteResponse(_) => "SignedVoteResponse",
            Self::SignProposalRequest(_) => "SignProposalRequest",
            Self::SignedProposalResponse(_) => "SignedProposalResponse",
            Self::PingRequest => "PingRequest",
            Self::PingResponse => "PingResponse",
            Self::RawRequest(_) => "SignBytesRequest",
            Self::RawResponse(_) => "SignBytesResponse",
        }
    }
}

impl PubKeyResponse {
    /// The answer that every release from v0.34 to v2.0 reads.
    pub fn universal(ed25519: [u8; 32]) -> Self {
        Self {
            pub_key: Some(PublicKey { sum: Some((PublicKeyKind::Ed25519, ed25519.to_vec())) }),
            error: None,
            pub_key_bytes: ed25519.to_vec(),
            pub_key_type: Text::from("ed25519"),
        }
    }

    /// A refusal that every release reads.
    pub fn refused(error: RemoteSignerError) -> Self {
        Self { pub_key: Some(PublicKey::default()), error: Some(error), ..Self::default() }
    }
}
