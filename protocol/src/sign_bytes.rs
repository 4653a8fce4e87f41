//! Canonical sign bytes: what is signed for a vote, a proposal or an extension.
//!
//! The bytes are the same in every release from v0.34 to v2.0 (CometBFT `types/canonical.go`, `types/vote.go`,
//! `types/proposal.go`): a varint length and then a canonical protobuf message. Votes begin with tag 08, extensions
//! with 0a or 11, so no two kinds collide. Raw bytes, which v1 and Celestia let a node ask for, could collide with
//! all of them: [`looks_length_delimited`] keeps them apart.

use crate::hrs::{Height, Hrs, Round, Step};
use crate::message::codec::{put_part_set_header, put_timestamp};
use crate::message::types::{TYPE_PRECOMMIT, TYPE_PREVOTE, TYPE_PROPOSAL};
use crate::message::{BlockId, Proposal, Text, Timestamp, Vote};
use crate::wire::{Fields, put_bytes, put_delimited, put_int, put_nested, put_sfixed64};

/// The prefix that separates Celestia's raw bytes (CIP-40) from consensus messages.
pub const RAW_BYTES_PREFIX: &[u8] = b"COMET::RAW_BYTES::SIGN";

/// What a vote's signature covers.
///
/// `CanonicalVote`: type, height, round, block id unless nil, timestamp, chain id. The type is encoded as it stands;
/// whoever signs refuses other types than prevote and precommit first.
pub fn vote(chain_id: &str, vote: &Vote) -> Vec<u8> {
    vote_at(chain_id, vote, vote.timestamp)
}

/// [`vote`] with another timestamp in place of the vote's own.
pub fn vote_at(chain_id: &str, vote: &Vote, timestamp: Timestamp) -> Vec<u8> {
    let mut out = Vec::with_capacity(CAPACITY);
    put_delimited(&mut out, |out| {
        put_int(out, 1, i64::from(vote.vote_type));
        put_place(out, 2, vote.height, vote.round);
        put_canonical_block_id(out, 4, &vote.block_id);
        put_nested(out, 5, |out| put_timestamp(out, timestamp));
        put_bytes(out, 6, chain_id.as_bytes());
    });
    out
}

/// What a proposal's signature covers.
///
/// `CanonicalProposal`: type (always 32), height, round, proof-of-lock round, block id unless nil, timestamp, chain id.
pub fn proposal(chain_id: &str, proposal: &Proposal) -> Vec<u8> {
    proposal_at(chain_id, proposal, proposal.timestamp)
}

/// [`proposal`] with another timestamp in place of the proposal's own.
pub fn proposal_at(chain_id: &str, proposal: &Proposal, timestamp: Timestamp) -> Vec<u8> {
    let mut out = Vec::with_capacity(CAPACITY);
    put_delimited(&mut out, |out| {
        put_int(out, 1, i64::from(TYPE_PROPOSAL));
        put_place(out, 2, proposal.height, proposal.round);
        put_int(out, 4, i64::from(proposal.pol_round.0));
        put_canonical_block_id(out, 5, &proposal.block_id);
        put_nested(out, 6, |out| put_timestamp(out, timestamp));
        put_bytes(out, 7, chain_id.as_bytes());
    });
    out
}

/// What a vote extension's signature covers (v0.38 on): extension, height, round, chain id.
pub fn vote_extension(chain_id: &str, vote: &Vote) -> Vec<u8> {
    let mut out = Vec::with_capacity(vote.extension.len() + CAPACITY);
    put_delimited(&mut out, |out| {
        put_bytes(out, 1, &vote.extension);
        put_place(out, 2, vote.height, vote.round);
        put_bytes(out, 4, chain_id.as_bytes());
    });
    out
}

/// What Celestia's `SignRawBytes` signs (CIP-40): the prefix, then chain id, bytes and purpose, delimited.
///
/// celestia-core refuses an empty chain id, purpose or content (`types/priv_validator.go`), and so must the caller.
pub fn celestia_raw_bytes(chain_id: &str, raw_bytes: &[u8], unique_id: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(RAW_BYTES_PREFIX.len() + raw_bytes.len() + CAPACITY);
    out.extend_from_slice(RAW_BYTES_PREFIX);
    put_delimited(&mut out, |out| {
        put_bytes(out, 1, chain_id.as_bytes());
        put_bytes(out, 2, raw_bytes);
        put_bytes(out, 3, unique_id);
    });
    out
}

/// Whether bytes could be the sign bytes of a vote, a proposal or an extension: a varint and that many bytes.
///
/// Every canonical message has this shape, so raw bytes that have it are never signed. The test errs on the safe side:
/// non-minimal and overlong prefixes count too, and of random bytes about one in 256 is refused needlessly.
pub fn looks_length_delimited(bytes: &[u8]) -> bool {
    let mut len = 0u64;
    for (i, byte) in bytes.iter().take(10).enumerate() {
        len |= u64::from(byte & 0x7f).checked_shl(7 * i as u32).unwrap_or(0);
        if byte & 0x80 == 0 {
            return len == (bytes.len() - i - 1) as u64;
        }
    }
    false
}

/// What stored sign bytes say: CometBFT's state files hold them, and nothing else about the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canonical {
    /// Where in consensus the message stands.
    pub hrs: Hrs,
    /// A proposal's proof-of-lock round; votes have none, and 0 here.
    pub pol_round: Round,
    /// The block, nil included.
    pub block_id: BlockId,
    /// When it was made.
    pub timestamp: Timestamp,
    /// The chain it was signed for.
    pub chain_id: Text,
}

impl Canonical {
    /// Reads the sign bytes of a vote or proposal; `None` if they are neither.
    pub fn parse(sign_bytes: &[u8]) -> Option<Self> {
        let body = delimited_body(sign_bytes)?;
        let mut step = None;
        let (mut height, mut round, mut pol_round) = (0, 0, 0);
        let mut block_id = BlockId::default();
        let mut timestamp = None;
        let mut chain_id = Text::default();
        let mut fields = Fields::new("CanonicalVote", body);
        while let Some(field) = fields.next().ok()? {
            // Votes lack the proposal's field 4, the proof-of-lock round: what follows is one lower.
            let lacks_pol_round = field.number >= 4 && step != Some(Step::Proposal);
            let number = field.number.saturating_add(i32::from(lacks_pol_round));
            match number {
                1 => step = Some(step_of(field.int32().ok()?)?),
                2 => height = field.sfixed64().ok()?,
                3 => round = field.sfixed64().ok()?,
                4 => pol_round = field.int64().ok()?,
                5 => block_id = canonical_block_id(field.bytes().ok()?)?,
                6 => timestamp = Some(canonical_timestamp(field.bytes().ok()?)?),
                7 => chain_id = Text(field.bytes().ok()?.to_vec()),
                _ => {}
            }
        }
        let hrs = Hrs { height: Height(height), round: Round(i32::try_from(round).ok()?), step: step? };
        let pol_round = Round(i32::try_from(pol_round).ok()?);
        Some(Self { hrs, pol_round, block_id, timestamp: timestamp?, chain_id })
    }
}

/// Room for any vote or proposal with a chain id of 50 bytes, so that the buffer does not grow.
const CAPACITY: usize = 256;

fn put_place(out: &mut Vec<u8>, first_field: u32, height: Height, round: Round) {
    put_sfixed64(out, first_field, height.0);
    put_sfixed64(out, first_field + 1, i64::from(round.0));
}

fn put_canonical_block_id(out: &mut Vec<u8>, field: u32, id: &BlockId) {
    if id.is_nil() {
        return;
    }
    put_nested(out, field, |out| {
        put_bytes(out, 1, &id.hash);
        put_nested(out, 2, |out| put_part_set_header(out, &id.part_set_header));
    });
}

fn delimited_body(bytes: &[u8]) -> Option<&[u8]> {
    match crate::frame::find(bytes, bytes.len()).ok()? {
        crate::frame::Frame::Complete { start, end } if end == bytes.len() => bytes.get(start..end),
        _ => None,
    }
}

fn step_of(signed_msg_type: i32) -> Option<Step> {
    match signed_msg_type {
        TYPE_PREVOTE => Some(Step::Prevote),
        TYPE_PRECOMMIT => Some(Step::Precommit),
        TYPE_PROPOSAL => Some(Step::Proposal),
        _ => None,
    }
}

fn canonical_block_id(body: &[u8]) -> Option<BlockId> {
    let mut id = BlockId::default();
    let mut fields = Fields::new("CanonicalBlockID", body);
    while let Some(field) = fields.next().ok()? {
        match field.number {
            1 => id.hash = field.bytes().ok()?.to_vec(),
            2 => {
                let mut fields = Fields::new("CanonicalPartSetHeader", field.bytes().ok()?);
                while let Some(field) = fields.next().ok()? {
                    match field.number {
                        1 => id.part_set_header.total = u32::try_from(field.varint().ok()?).ok()?,
                        2 => id.part_set_header.hash = field.bytes().ok()?.to_vec(),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(id)
}

fn canonical_timestamp(body: &[u8]) -> Option<Timestamp> {
    let mut timestamp = Timestamp { seconds: 0, nanos: 0 };
    let mut fields = Fields::new("Timestamp", body);
    while let Some(field) = fields.next().ok()? {
        match field.number {
            1 => timestamp.seconds = field.int64().ok()?,
            2 => timestamp.nanos = field.int32().ok()?,
            _ => {}
        }
    }
    Some(timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::PartSetHeader;

    fn a_vote(timestamp: Timestamp) -> Vote {
        Vote {
            vote_type: TYPE_PRECOMMIT,
            height: Height(7),
            round: Round(1),
            block_id: BlockId {
                hash: vec![1; 32],
                part_set_header: PartSetHeader { total: 1, hash: vec![2; 32] },
            },
            timestamp,
            ..Vote::default()
        }
    }

    #[test]
    fn reads_back_what_sign_bytes_say() {
        let timestamp = Timestamp { seconds: 1_700_000_000, nanos: 5 };
        let v = a_vote(timestamp);
        let read = Canonical::parse(&vote("test", &v)).expect("a vote");
        assert_eq!((Some(read.hrs), read.timestamp, read.block_id), (v.hrs(), timestamp, v.block_id.clone()));
        assert!(read.chain_id.is("test"));
        let p = Proposal { height: Height(3), pol_round: Round(-1), timestamp, ..Proposal::default() };
        let read = Canonical::parse(&proposal("test", &p)).expect("a proposal");
        assert_eq!((read.hrs, read.timestamp, read.block_id), (p.hrs(), timestamp, p.block_id));
        assert_eq!(read.pol_round, Round(-1));
        let epoch = Timestamp { seconds: 0, nanos: 0 };
        assert_eq!(Canonical::parse(&vote("test", &a_vote(epoch))).expect("a vote").timestamp, epoch);
        assert_eq!(Canonical::parse(&[0x43; 40]), None);
        assert_eq!(Canonical::parse(&vote_extension("test", &v)), None);
    }

    #[test]
    fn the_highest_field_number_is_read_as_unknown() {
        // Field 2^31 - 1, which a proposal's numbering would have moved past the end of i32.
        let field = [0xf8, 0xff, 0xff, 0xff, 0x3f, 0x00];
        let mut bytes = vote("test", &a_vote(Timestamp::GO_ZERO));
        let known = Canonical::parse(&bytes);
        bytes.extend_from_slice(&field);
        bytes[0] += field.len() as u8;
        assert_eq!(Canonical::parse(&bytes), known);
    }

    /// CIP-40's `SignRawBytesRequest`, written out by hand: chain id 1, bytes 2, purpose 3, behind the length of all three.
    #[test]
    fn celestias_raw_bytes_are_those_of_cip_40() {
        let short = [
            &b"COMET::RAW_BYTES::SIGN"[..],
            b"\x16",
            b"\x0a\x08celestia",
            b"\x12\x03\x01\x02\x03",
            b"\x1a\x05fibre",
        ];
        assert_eq!(celestia_raw_bytes("celestia", &[1, 2, 3], b"fibre"), short.concat());
        // Lengths of two bytes.
        let long = [
            &b"COMET::RAW_BYTES::SIGN"[..],
            b"\x96\x01",
            b"\x0a\x08celestia",
            b"\x12\x82\x01",
            &[7; 130],
            b"\x1a\x05fibre",
        ];
        assert_eq!(celestia_raw_bytes("celestia", &[7; 130], b"fibre"), long.concat());
    }

    #[test]
    fn every_canonical_message_looks_length_delimited() {
        let v = a_vote(Timestamp::GO_ZERO);
        assert!(looks_length_delimited(&vote("test", &v)));
        assert!(looks_length_delimited(&vote_extension("test", &v)));
        assert!(looks_length_delimited(&proposal("test", &Proposal::default())));
        assert!(!looks_length_delimited(&celestia_raw_bytes("test", b"raw", b"id")));
        assert!(!looks_length_delimited(b""));
        assert!(looks_length_delimited(&[0x80, 0x00]), "a non-minimal prefix counts too");
    }
}
