//! Field by field, as CometBFT's protobuf files number them.

use super::types::{
    BlockId, PartSetHeader, Proposal, PublicKey, PublicKeyKind, RemoteSignerError, Text, Timestamp, Vote,
};
use super::{
    Message, PubKeyRequest, PubKeyResponse, RawRequest, RawResponse, SignProposalRequest, SignVoteRequest,
    SignedProposalResponse, SignedVoteResponse,
};
use crate::hrs::{Height, Round};
use crate::wire::{DecodeError, Fields, put_bytes, put_bytes_always, put_int, put_nested, put_uint};

pub(super) fn decode(body: &[u8]) -> Result<Option<Message>, DecodeError> {
    let mut message = None;
    let mut fields = Fields::new("Message", body);
    while let Some(field) = fields.next()? {
        // A second arm replaces the first, the same arm too.
        message = Some(match field.number {
            1 => Message::PubKeyRequest(pub_key_request(field.bytes()?)?),
            2 => Message::PubKeyResponse(pub_key_response(field.bytes()?)?),
            3 => Message::SignVoteRequest(sign_vote_request(field.bytes()?)?),
            4 => Message::SignedVoteResponse(signed_vote_response(field.bytes()?)?),
            5 => Message::SignProposalRequest(sign_proposal_request(field.bytes()?)?),
            6 => Message::SignedProposalResponse(signed_proposal_response(field.bytes()?)?),
            7 => empty("PingRequest", field.bytes()?, Message::PingRequest)?,
            8 => empty("PingResponse", field.bytes()?, Message::PingResponse)?,
            9 => Message::RawRequest(raw_request(field.bytes()?)?),
            10 => Message::RawResponse(raw_response(field.bytes()?)?),
            _ => continue,
        });
    }
    Ok(message)
}

pub(super) fn encode(message: &Message, out: &mut Vec<u8>) {
    match message {
        Message::PubKeyRequest(m) => put_nested(out, 1, |out| put_bytes(out, 1, &m.chain_id.0)),
        Message::PubKeyResponse(m) => put_nested(out, 2, |out| put_pub_key_response(out, m)),
        Message::SignVoteRequest(m) => put_nested(out, 3, |out| put_sign_vote_request(out, m)),
        Message::SignedVoteResponse(m) => put_nested(out, 4, |out| {
            put_nested(out, 1, |out| put_vote(out, &m.vote));
            put_error(out, m.error.as_ref());
        }),
        Message::SignProposalRequest(m) => put_nested(out, 5, |out| {
            if let Some(proposal) = &m.proposal {
                put_nested(out, 1, |out| put_proposal(out, proposal));
            }
            put_bytes(out, 2, &m.chain_id.0);
        }),
        Message::SignedProposalResponse(m) => put_nested(out, 6, |out| {
            put_nested(out, 1, |out| put_proposal(out, &m.proposal));
            put_error(out, m.error.as_ref());
        }),
        Message::PingRequest => put_nested(out, 7, |_| ()),
        Message::PingResponse => put_nested(out, 8, |_| ()),
        Message::RawRequest(m) => put_nested(out, 9, |out| {
            put_bytes(out, 1, &m.value_or_chain_id);
            put_bytes(out, 2, &m.raw_bytes);
            put_bytes(out, 3, &m.unique_id.0);
        }),
        Message::RawResponse(m) => put_nested(out, 10, |out| {
            put_bytes(out, 1, &m.signature);
            put_error(out, m.error.as_ref());
        }),
    }
}

fn empty(name: &'static str, body: &[u8], message: Message) -> Result<Message, DecodeError> {
    let mut fields = Fields::new(name, body);
    while fields.next()?.is_some() {}
    Ok(message)
}

fn pub_key_request(body: &[u8]) -> Result<PubKeyRequest, DecodeError> {
    let mut m = PubKeyRequest::default();
    let mut fields = Fields::new("PubKeyRequest", body);
    while let Some(field) = fields.next()? {
        if field.number == 1 {
            m.chain_id = Text(field.bytes()?.to_vec());
        }
    }
    Ok(m)
}

fn pub_key_response(body: &[u8]) -> Result<PubKeyResponse, DecodeError> {
    let mut m = PubKeyResponse::default();
    let mut fields = Fields::new("PubKeyResponse", body);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => merge_public_key(m.pub_key.get_or_insert_default(), field.bytes()?)?,
            2 => merge_error(m.error.get_or_insert_default(), field.bytes()?)?,
            3 => m.pub_key_bytes = field.bytes()?.to_vec(),
            4 => m.pub_key_type = Text(field.bytes()?.to_vec()),
            _ => {}
        }
    }
    Ok(m)
}

fn put_pub_key_response(out: &mut Vec<u8>, m: &PubKeyResponse) {
    if let Some(key) = &m.pub_key {
        put_nested(out, 1, |out| {
            if let Some((kind, bytes)) = &key.sum {
                put_bytes_always(out, *kind as u32, bytes);
            }
        });
    }
    put_error(out, m.error.as_ref());
    put_bytes(out, 3, &m.pub_key_bytes);
    put_bytes(out, 4, &m.pub_key_type.0);
}

fn sign_vote_request(body: &[u8]) -> Result<SignVoteRequest, DecodeError> {
    let mut m = SignVoteRequest::default();
    let mut fields = Fields::new("SignVoteRequest", body);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => merge_vote(m.vote.get_or_insert_default(), field.bytes()?)?,
            2 => m.chain_id = Text(field.bytes()?.to_vec()),
            3 => m.skip_extension_signing = field.varint()? != 0,
            _ => {}
        }
    }
    Ok(m)
}

fn put_sign_vote_request(out: &mut Vec<u8>, m: &SignVoteRequest) {
    if let Some(vote) = &m.vote {
        put_nested(out, 1, |out| put_vote(out, vote));
    }
    put_bytes(out, 2, &m.chain_id.0);
    put_uint(out, 3, u64::from(m.skip_extension_signing));
}

fn signed_vote_response(body: &[u8]) -> Result<SignedVoteResponse, DecodeError> {
    let mut m = SignedVoteResponse::default();
    let mut fields = Fields::new("SignedVoteResponse", body);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => merge_vote(&mut m.vote, field.bytes()?)?,
            2 => merge_error(m.error.get_or_insert_default(), field.bytes()?)?,
            _ => {}
        }
    }
    Ok(m)
}

fn sign_proposal_request(body: &[u8]) -> Result<SignProposalRequest, DecodeError> {
    let mut m = SignProposalRequest::default();
    let mut fields = Fields::new("SignProposalRequest", body);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => merge_proposal(m.proposal.get_or_insert_default(), field.bytes()?)?,
            2 => m.chain_id = Text(field.bytes()?.to_vec()),
            _ => {}
        }
    }
    Ok(m)
}

fn signed_proposal_response(body: &[u8]) -> Result<SignedProposalResponse, DecodeError> {
    let mut m = SignedProposalResponse::default();
    let mut fields = Fields::new("SignedProposalResponse", body);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => merge_proposal(&mut m.proposal, field.bytes()?)?,
            2 => merge_error(m.error.get_or_insert_default(), field.bytes()?)?,
            _ => {}
        }
    }
    Ok(m)
}

fn raw_request(body: &[u8]) -> Result<RawRequest, DecodeError> {
    let mut m = RawRequest::default();
    let mut fields = Fields::new("SignBytesRequest", body);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => m.value_or_chain_id = field.bytes()?.to_vec(),
            2 => m.raw_bytes = field.bytes()?.to_vec(),
            3 => m.unique_id = Text(field.bytes()?.to_vec()),
            _ => {}
        }
    }
    Ok(m)
}

fn raw_response(body: &[u8]) -> Result<RawResponse, DecodeError> {
    let mut m = RawResponse::default();
    let mut fields = Fields::new("SignBytesResponse", body);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => m.signature = field.bytes()?.to_vec(),
            2 => merge_error(m.error.get_or_insert_default(), field.bytes()?)?,
            _ => {}
        }
    }
    Ok(m)
}

// Embedded messages that are no oneof arms merge when they repeat, as gogoproto's `m.X.Unmarshal` does.

fn merge_error(m: &mut RemoteSignerError, body: &[u8]) -> Result<(), DecodeError> {
    let mut fields = Fields::new("RemoteSignerError", body);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => m.code = field.int32()?,
            2 => m.description = Text(field.bytes()?.to_vec()),
            _ => {}
        }
    }
    Ok(())
}

fn put_error(out: &mut Vec<u8>, error: Option<&RemoteSignerError>) {
    if let Some(error) = error {
        put_nested(out, 2, |out| {
            put_int(out, 1, i64::from(error.code));
            put_bytes(out, 2, &error.description.0);
        });
    }
}

fn merge_public_key(m: &mut PublicKey, body: &[u8]) -> Result<(), DecodeError> {
    let mut fields = Fields::new("PublicKey", body);
    while let Some(field) = fields.next()? {
        let kind = match field.number {
            1 => PublicKeyKind::Ed25519,
            2 => PublicKeyKind::Secp256k1,
            3 => PublicKeyKind::Bls12381,
            4 => PublicKeyKind::MlDsa65,
            5 => PublicKeyKind::Secp256k1Eth,
            _ => continue,
        };
        m.sum = Some((kind, field.bytes()?.to_vec()));
    }
    Ok(())
}

fn merge_vote(m: &mut Vote, body: &[u8]) -> Result<(), DecodeError> {
    let mut fields = Fields::new("Vote", body);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => m.vote_type = field.int32()?,
            2 => m.height = Height(field.int64()?),
            3 => m.round = Round(field.int32()?),
            4 => merge_block_id(&mut m.block_id, field.bytes()?)?,
            5 => m.timestamp = timestamp(field.bytes()?)?,
            6 => m.validator_address = field.bytes()?.to_vec(),
            7 => m.validator_index = field.int32()?,
            8 => m.signature = field.bytes()?.to_vec(),
            9 => m.extension = field.bytes()?.to_vec(),
            10 => m.extension_signature = field.bytes()?.to_vec(),
            11 => m.non_rp_extension = field.bytes()?.to_vec(),
            12 => m.non_rp_extension_signature = field.bytes()?.to_vec(),
            _ => {}
        }
    }
    Ok(())
}

fn put_vote(out: &mut Vec<u8>, m: &Vote) {
    put_int(out, 1, i64::from(m.vote_type));
    put_int(out, 2, m.height.0);
    put_int(out, 3, i64::from(m.round.0));
    put_nested(out, 4, |out| put_block_id(out, &m.block_id));
    put_nested(out, 5, |out| put_timestamp(out, m.timestamp));
    put_bytes(out, 6, &m.validator_address);
    put_int(out, 7, i64::from(m.validator_index));
    put_bytes(out, 8, &m.signature);
    put_bytes(out, 9, &m.extension);
    put_bytes(out, 10, &m.extension_signature);
    put_bytes(out, 11, &m.non_rp_extension);
    put_bytes(out, 12, &m.non_rp_extension_signature);
}

fn merge_proposal(m: &mut Proposal, body: &[u8]) -> Result<(), DecodeError> {
    let mut fields = Fields::new("Proposal", body);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => m.proposal_type = field.int32()?,
            2 => m.height = Height(field.int64()?),
            3 => m.round = Round(field.int32()?),
            4 => m.pol_round = Round(field.int32()?),
            5 => merge_block_id(&mut m.block_id, field.bytes()?)?,
            6 => m.timestamp = timestamp(field.bytes()?)?,
            7 => m.signature = field.bytes()?.to_vec(),
            _ => {}
        }
    }
    Ok(())
}

fn put_proposal(out: &mut Vec<u8>, m: &Proposal) {
    put_int(out, 1, i64::from(m.proposal_type));
    put_int(out, 2, m.height.0);
    put_int(out, 3, i64::from(m.round.0));
    put_int(out, 4, i64::from(m.pol_round.0));
    put_nested(out, 5, |out| put_block_id(out, &m.block_id));
    put_nested(out, 6, |out| put_timestamp(out, m.timestamp));
    put_bytes(out, 7, &m.signature);
}

fn merge_block_id(m: &mut BlockId, body: &[u8]) -> Result<(), DecodeError> {
    let mut fields = Fields::new("BlockID", body);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => m.hash = field.bytes()?.to_vec(),
            2 => merge_part_set_header(&mut m.part_set_header, field.bytes()?)?,
            _ => {}
        }
    }
    Ok(())
}

fn put_block_id(out: &mut Vec<u8>, m: &BlockId) {
    put_bytes(out, 1, &m.hash);
    put_nested(out, 2, |out| put_part_set_header(out, &m.part_set_header));
}

fn merge_part_set_header(m: &mut PartSetHeader, body: &[u8]) -> Result<(), DecodeError> {
    let mut fields = Fields::new("PartSetHeader", body);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => m.total = field.varint()? as u32,
            2 => m.hash = field.bytes()?.to_vec(),
            _ => {}
        }
    }
    Ok(())
}

pub(crate) fn put_part_set_header(out: &mut Vec<u8>, m: &PartSetHeader) {
    put_uint(out, 1, u64::from(m.total));
    put_bytes(out, 2, &m.hash);
}

/// A timestamp replaces an earlier one: gogoproto's `StdTimeUnmarshal` builds a new `time.Time`.
fn timestamp(body: &[u8]) -> Result<Timestamp, DecodeError> {
    let (mut seconds, mut nanos) = (0, 0);
    let mut fields = Fields::new("Timestamp", body);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => seconds = field.int64()?,
            2 => nanos = field.int32()?,
            _ => {}
        }
    }
    let in_range = (Timestamp::GO_ZERO.seconds..Timestamp::END_SECONDS).contains(&seconds)
        && (0..1_000_000_000).contains(&nanos);
    if !in_range {
        return Err(DecodeError::TimestampOutOfRange { seconds, nanos });
    }
    Ok(Timestamp { seconds, nanos })
}

pub(crate) fn put_timestamp(out: &mut Vec<u8>, t: Timestamp) {
    put_int(out, 1, t.seconds);
    put_int(out, 2, i64::from(t.nanos));
}
