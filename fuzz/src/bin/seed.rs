//! Fills `corpus/TARGET` from the golden vectors, and from nothing else: a fresh clone seeds itself.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

// Everything here is built with coverage counters, which libFuzzer's runtime has.
use libfuzzer_sys as _;

use data_encoding::HEXLOWER_PERMISSIVE as HEX;
use monosign::config::{TemplateChain, template};
use monosign_fuzz::hostile;
use monosign_protocol::frame;
use monosign_protocol::message::{
    BlockId, Message, PartSetHeader, Proposal, SignProposalRequest, SignVoteRequest, Text, Timestamp, Vote,
};
use monosign_protocol::{Height, Round};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// Longer seeds slow a fuzzer down and show it nothing that shorter ones do not.
const LONGEST: usize = 8 * 1024;

fn main() -> io::Result<()> {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR"));
    let vectors = Vectors(fuzz.join("../vectors"));
    let targets = [
        ("framing", framing(&vectors)?),
        ("session", session(&vectors)?),
        ("sign_bytes", sign_bytes(&vectors)?),
        ("record", record()),
        ("guard", guard(&vectors)?),
        ("foreign_files", foreign_files(&vectors)?),
    ];
    for (target, seeds) in targets {
        let dir = fuzz.join("corpus").join(target);
        fs::create_dir_all(&dir)?;
        let seeds: BTreeSet<_> = seeds.into_iter().filter(|seed| seed.len() <= LONGEST).collect();
        for seed in &seeds {
            fs::write(dir.join(HEX.encode(&Sha256::digest(seed)[..20])), seed)?;
        }
        println!("{target}: {} seeds", seeds.len());
    }
    Ok(())
}

/// Streams of frames, good and bad.
fn framing(vectors: &Vectors) -> io::Result<Vec<Vec<u8>>> {
    let mut seeds = vectors.bytes("privval_messages.jsonl", "delimited")?;
    seeds.extend(vectors.bytes("privval_decode.jsonl", "raw")?);
    Ok(seeds)
}

/// Forms as in the target: what is said in the clear, or under a handshake; and proofs of identity.
fn session(vectors: &Vectors) -> io::Result<Vec<Vec<u8>>> {
    let mut seeds = Vec::new();
    let messages: Vec<_> = framing(vectors)?.into_iter().filter(|seed| seed.len() < 600).collect();
    for (n, some) in messages.chunks(4).enumerate() {
        seeds.push([&[[0, 2, 5][n % 3], n as u8, 3], some.concat().as_slice()].concat());
    }
    for peer_sends in vectors.bytes("secret_connection_rejects.jsonl", "peer_sends")? {
        seeds.push([&[1, 9, 9], peer_sends.as_slice()].concat());
    }
    for wire in vectors.bytes("noise.jsonl", "wire_responder")? {
        seeds.push([&[4, 9, 9], wire.as_slice()].concat());
    }
    let proof = hostile::honest_proof();
    let length = |part: &[u8]| (part.len() as u16).to_le_bytes();
    seeds.push([&[3, 7, 7][..], &length(&proof), &proof].concat());
    let behind = [&[2, 0x3a, 0][..], &proof, &[2, 0x3a, 0]].concat();
    seeds.push([&[3, 7, 7][..], &length(&behind[3..]), &behind[3..]].concat());
    let (first, second) = proof.split_at(40);
    seeds.push([&[3, 7, 7][..], &length(first), first, &length(second), second].concat());
    seeds.push([&[6, 7, 7][..], &hostile::honest_payload()].concat());
    Ok(seeds)
}

/// Pairs of requests, and sign bytes as such.
fn sign_bytes(vectors: &Vectors) -> io::Result<Vec<Vec<u8>>> {
    let mut seeds = vectors.bytes("sign_bytes.jsonl", "sign_bytes")?;
    seeds.extend(vectors.bytes("sign_bytes.jsonl", "ext_sign_bytes")?);
    let requests: Vec<_> = vectors.lines("sign_bytes.jsonl")?.iter().filter_map(request).collect();
    seeds.extend(requests.chunks(2).map(<[_]>::concat));
    Ok(seeds)
}

/// How many entries a file has, and what happens to it; see the target.
fn record() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for entries in [0, 1, 30, 63, 64, 65, 130, 199] {
        for operation in 0..9 {
            seeds.push(vec![entries, operation, entries, 0x55, 0x10, 0x02, 0x33, 0x44]);
        }
    }
    seeds
}

/// FilePV's sequences, behind a jump limit and a floor.
fn guard(vectors: &Vectors) -> io::Result<Vec<Vec<u8>>> {
    let sequences = vectors.lines("filepv_sequences.jsonl")?;
    Ok(sequences.iter().map(|sequence| [vec![0, 0, 0, 0], requests(sequence)].concat()).collect())
}

fn requests(sequence: &Value) -> Vec<u8> {
    let steps = sequence["steps"].as_array().map_or(&[][..], Vec::as_slice);
    let with_chain = steps.iter().map(|step| {
        let mut step = step.clone();
        if step["chain_id"].is_null() {
            step["chain_id"] = sequence["chain_id"].clone();
        }
        step
    });
    with_chain.filter_map(|step| request(&step)).collect::<Vec<_>>().concat()
}

/// Key files, state files and configurations, each for the parsers that may be given it.
fn foreign_files(vectors: &Vectors) -> io::Result<Vec<Vec<u8>>> {
    let mut seeds = Vec::new();
    let with = |parser: u8, text: &str| [&[parser], text.as_bytes()].concat();
    for file in vectors.lines("files.jsonl")? {
        if let Some(key) = file["priv_validator_key.json"].as_str() {
            seeds.extend([4, 5].map(|parser| with(parser, key)));
            let pair = serde_json::from_str::<Value>(key).ok();
            seeds.extend(pair.and_then(|pair| Some(with(6, pair["priv_key"]["value"].as_str()?))));
        }
        if let Some(state) = file["priv_validator_state.json"].as_str() {
            seeds.extend([0, 1].map(|parser| with(parser, state)));
            let quoted = state.replace("\"round\": 0", "\"round\": \"0\"");
            seeds.extend([0, 3].map(|parser| with(parser, &quoted)));
        }
    }
    let intended = r#"{"height":"12","round":"0","step":2,"nonce_public":"","signbytes":"6DFF"}"#;
    seeds.extend([0, 3].map(|parser| with(parser, intended)));
    let tmkms =
        r#"{"height":"12","round":"0","step":2,"block_id":{"hash":"","parts":{"total":0,"hash":""}}}"#;
    seeds.extend([0, 2].map(|parser| with(parser, tmkms)));
    for addr in ["tcp://127.0.0.1:26658", "unix:///run/node.sock", "unix://@node"] {
        let chain = TemplateChain { chain_id: "test-1", addr, plaintext: true };
        let commented = template(Path::new("/m"), &chain);
        let lines = commented.lines().filter(|line| !line.starts_with('#'));
        seeds.push(with(7, &lines.collect::<Vec<_>>().join("\n")));
    }
    Ok(seeds)
}

/// The request that a vector describes.
fn request(vector: &Value) -> Option<Vec<u8>> {
    let chain_id = Text::from(vector["chain_id"].as_str()?);
    let message = if vector["vote"].is_object() {
        let (vote, skip) = (vote(&vector["vote"])?, vector["sign_extension"] == false);
        Message::SignVoteRequest(SignVoteRequest { vote: Some(vote), chain_id, skip_extension_signing: skip })
    } else {
        let proposal = proposal(&vector["proposal"])?;
        Message::SignProposalRequest(SignProposalRequest { proposal: Some(proposal), chain_id })
    };
    let mut wire = Vec::new();
    frame::encode(&message, &mut wire);
    Some(wire)
}

fn vote(json: &Value) -> Option<Vote> {
    Some(Vote {
        vote_type: int(&json["type"])? as i32,
        height: Height(int(&json["height"])?),
        round: Round(int(&json["round"])? as i32),
        block_id: block_id(&json["block_id"]),
        timestamp: timestamp(&json["timestamp"])?,
        extension: hex(&json["extension"]),
        non_rp_extension: hex(&json["non_rp_extension"]),
        ..Vote::default()
    })
}

fn proposal(json: &Value) -> Option<Proposal> {
    Some(Proposal {
        proposal_type: 32,
        height: Height(int(&json["height"])?),
        round: Round(int(&json["round"])? as i32),
        pol_round: Round(int(&json["pol_round"])? as i32),
        block_id: block_id(&json["block_id"]),
        timestamp: timestamp(&json["timestamp"])?,
        ..Proposal::default()
    })
}

fn block_id(json: &Value) -> BlockId {
    let total = int(&json["total"]).unwrap_or(0) as u32;
    BlockId {
        hash: hex(&json["hash"]),
        part_set_header: PartSetHeader { total, hash: hex(&json["part_hash"]) },
    }
}

fn timestamp(json: &Value) -> Option<Timestamp> {
    Some(Timestamp { seconds: int(&json["seconds"])?, nanos: int(&json["nanos"])? as i32 })
}

/// 64-bit integers are text in the vectors.
fn int(json: &Value) -> Option<i64> {
    json.as_i64().or_else(|| json.as_str()?.parse().ok())
}

fn hex(json: &Value) -> Vec<u8> {
    json.as_str().and_then(|text| HEX.decode(text.as_bytes()).ok()).unwrap_or_default()
}

/// The directory of the golden vectors.
struct Vectors(PathBuf);

impl Vectors {
    /// One field of every vector of a file, as bytes.
    fn bytes(&self, file: &str, field: &str) -> io::Result<Vec<Vec<u8>>> {
        let lines = self.lines(file)?;
        Ok(lines.iter().filter(|line| line[field].is_string()).map(|line| hex(&line[field])).collect())
    }

    /// The vectors of a file, of every release that has it.
    fn lines(&self, file: &str) -> io::Result<Vec<Value>> {
        let mut lines = Vec::new();
        for release in fs::read_dir(&self.0)? {
            let path = release?.path().join(file);
            if path.is_file() {
                for line in fs::read_to_string(path)?.lines() {
                    lines.push(serde_json::from_str(line)?);
                }
            }
        }
        Ok(lines)
    }
}
