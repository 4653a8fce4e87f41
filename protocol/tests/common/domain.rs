//! Votes and proposals as the vectors write them.
#![allow(dead_code, unreachable_pub, reason = "each test crate uses its own part of this module")]

use monosign_protocol::message::{BlockId, PartSetHeader, Proposal, Timestamp, Vote};
use monosign_protocol::{Dialect, Height, Round};
use serde_json::Value;
use std::path::Path;

use super::common::decode_hex;

/// The dialect whose release made the vectors of a directory, by the directory's name.
pub fn dialect(dir: &Path) -> Dialect {
    match dir.file_name().and_then(|n| n.to_str()).unwrap_or_default() {
        "tm034" | "cmt034" => Dialect::V0_34,
        "cmt037" => Dialect::V0_37,
        "cmt038" => Dialect::V0_38,
        "cmt039" => Dialect::V0_39,
        "cmt040" => Dialect::V0_40,
        "cmt10" => Dialect::V1_0,
        "cmt20" => Dialect::V2_0,
        other => panic!("no dialect for the vectors in `{other}`"),
    }
}

/// The vote in `v`; absent fields are empty.
pub fn vote(v: &Value) -> Vote {
    Vote {
        vote_type: int32(&v["type"]),
        height: Height(int64(&v["height"])),
        round: Round(int32(&v["round"])),
        block_id: block_id(&v["block_id"]),
        timestamp: timestamp(&v["timestamp"]),
        validator_address: bytes(&v["validator_address"]),
        validator_index: int32(&v["validator_index"]),
        signature: bytes(&v["signature"]),
        extension: bytes(&v["extension"]),
        extension_signature: bytes(&v["extension_signature"]),
        non_rp_extension: bytes(&v["non_rp_extension"]),
        non_rp_extension_signature: bytes(&v["non_rp_extension_signature"]),
    }
}

/// The proposal in `v`; absent fields are empty.
pub fn proposal(v: &Value) -> Proposal {
    Proposal {
        proposal_type: int32(&v["type"]),
        height: Height(int64(&v["height"])),
        round: Round(int32(&v["round"])),
        pol_round: Round(int32(&v["pol_round"])),
        block_id: block_id(&v["block_id"]),
        timestamp: timestamp(&v["timestamp"]),
        signature: bytes(&v["signature"]),
    }
}

/// A timestamp `{seconds, nanos}`; absent means Go's zero time.
pub fn timestamp(v: &Value) -> Timestamp {
    if v.is_null() {
        return Timestamp::GO_ZERO;
    }
    Timestamp { seconds: int64(&v["seconds"]), nanos: int32(&v["nanos"]) }
}

/// Hexadecimal bytes; absent means empty.
pub fn bytes(v: &Value) -> Vec<u8> {
    v.as_str().map(decode_hex).unwrap_or_default()
}

fn block_id(v: &Value) -> BlockId {
    if v.is_null() {
        return BlockId::default();
    }
    BlockId {
        hash: bytes(&v["hash"]),
        part_set_header: PartSetHeader {
            total: v["total"].as_u64().unwrap_or(0) as u32,
            hash: bytes(&v["part_hash"]),
        },
    }
}

fn int64(v: &Value) -> i64 {
    match v {
        Value::String(s) => s.parse().unwrap_or_else(|_| panic!("`{s}` is no int64")),
        other => other.as_i64().unwrap_or(0),
    }
}

fn int32(v: &Value) -> i32 {
    v.as_i64().unwrap_or(0) as i32
}
