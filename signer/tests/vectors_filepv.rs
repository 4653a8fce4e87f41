//! CometBFT's own FilePV, sequence by sequence: every verdict, timestamp, signature and final state.
//!
//! The real guard, record (on disk) and key, in the order in which the chain uses them.

#[path = "../../protocol/tests/common/mod.rs"]
mod common;
#[path = "../../protocol/tests/common/domain.rs"]
mod domain;

use std::path::Path;

use common::{dirs_with, hex32, lines, name, text};
use data_encoding::BASE64;
use monosign::backend::Backend as _;
use monosign::backend::softsign::vault::Vault;
use monosign::consensus_key::ConsensusKey;
use monosign::guard::{Guard, JumpLimit, Question, Refusal, Verdict, Watermark};
use monosign::import::state::{ForeignState, StateDialect};
use monosign::record::{Header, Permit, Record};
use monosign::seams::{Disk, StdDisk};
use monosign_protocol::message::{Timestamp, Vote};
use monosign_protocol::{ChainId, Dialect, Height, Round};
use serde_json::Value;

const FILE: &str = "filepv_sequences.jsonl";

#[tokio::test(flavor = "current_thread")]
async fn vectors_filepv_verdicts_timestamps_signatures_and_states_are_equal() {
    for dir in dirs_with(FILE) {
        let scratch = tempfile::tempdir().expect("a directory");
        for (n, v) in lines(&dir, FILE).iter().enumerate() {
            let path = scratch.path().join(format!("{n}.record"));
            run(v, &path, domain::dialect(&dir), &name(&dir, v)).await;
        }
    }
}

async fn run(v: &Value, path: &Path, dialect: Dialect, name: &str) {
    let chain_id: ChainId = text(v, "chain_id").parse().expect("a chain id");
    let vault = Vault::open(ConsensusKey::from_seed(&hex32(v, "key_seed")));
    let public_key = *vault.public_key().as_bytes();
    let initial = ForeignState::parse(text(v, "initial_state").as_bytes(), Some(StateDialect::CometBft));
    let initial = initial.unwrap_or_else(|e| panic!("{name}: {e}"));
    assert!(initial.sign_bytes.is_none(), "{name}: initial states are floors");
    let floor = Watermark::floor(Height(initial.height), Round(initial.round), initial.step);
    let disk: &dyn Disk = &StdDisk::default();
    let header = Header { chain_id: chain_id.clone(), public_key };
    let mut record = Record::create(disk, path, header, floor).await.expect("a record");
    for (n, step) in v["steps"].as_array().expect("steps").iter().enumerate() {
        let name = format!("{name} step {n}");
        if step["op"] == "restart" {
            drop(record);
            record = Record::open(disk, path, &chain_id, &public_key).await.expect("the record");
            continue;
        }
        let asked_chain =
            step["chain_id"].as_str().map_or(chain_id.clone(), |id| id.parse().expect("a chain id"));
        let answer = ask(step, &asked_chain, dialect, &mut record, &vault).await;
        compare(step, answer, &name);
    }
    assert_eq!(state(&record, &vault).await, text(v, "final_state"), "final state of {name}");
}

struct Answer {
    timestamp: Timestamp,
    signature: [u8; 64],
    extension: Option<[u8; 64]>,
    non_rp_extension: Option<[u8; 64]>,
}

async fn ask(
    step: &Value,
    chain_id: &ChainId,
    dialect: Dialect,
    record: &mut Record,
    vault: &Vault,
) -> Result<Answer, Refusal> {
    let (vote, proposal);
    let question = if step["op"] == "vote" {
        vote = domain::vote(&step["vote"]);
        // v1.0 and later say whether to sign extensions; older releases always do, from v0.38 on.
        let signs_extension = step["sign_extension"].as_bool().unwrap_or(dialect.has_extensions());
        Question::vote(chain_id.as_str(), &vote, signs_extension)?
    } else {
        proposal = domain::proposal(&step["proposal"]);
        Question::proposal(chain_id.as_str(), &proposal)?
    };
    let timestamp = match (Guard { jump_limit: JumpLimit::Off }).judge(record.recorded(), &question) {
        Verdict::Refuse(refusal) => return Err(refusal),
        Verdict::Replay(timestamp) => timestamp,
        Verdict::Sign(watermark) => {
            record.raise(watermark).await.expect("a sound disk");
            question.timestamp()
        }
    };
    let signature = sign(vault, &record.permit().expect("a message")).await;
    let (mut extension, mut non_rp_extension) = (None, None);
    if let Some(vote) = question.extended_vote() {
        extension = Some(sign(vault, &Permit::vote_extension(chain_id, vote)).await);
        non_rp_extension = non_rp(vault, vote).await;
    }
    Ok(Answer { timestamp, signature, extension, non_rp_extension })
}

async fn non_rp(vault: &Vault, vote: &Vote) -> Option<[u8; 64]> {
    // Some vectors hold raw bytes that could be a vote: those CometBFT signs, and we never do.
    Some(sign(vault, &Permit::raw(&vote.non_rp_extension).ok()?).await)
}

async fn sign(vault: &Vault, permit: &Permit<'_>) -> [u8; 64] {
    vault.sign(permit).await.expect("an open vault")
}

fn compare(step: &Value, answer: Result<Answer, Refusal>, name: &str) {
    let accept = &step["accept"];
    let answer = match (answer, step["refuse"].as_str()) {
        (Err(refusal), Some(reason)) => return assert_eq!(refusal.reason(), reason, "{name}"),
        (Ok(answer), None) => answer,
        (Err(refusal), None) => panic!("{name} must be signed, and was refused: {refusal}"),
        (Ok(_), Some(reason)) => panic!("{name} must be refused for {reason}, and was signed"),
    };
    assert_eq!(answer.timestamp, domain::timestamp(&accept["timestamp"]), "timestamp of {name}");
    assert_eq!(BASE64.encode(&answer.signature), text(accept, "signature"), "signature of {name}");
    for (field, ours) in
        [("extension_signature", answer.extension), ("non_rp_extension_signature", answer.non_rp_extension)]
    {
        // Absent in the vectors of releases that have no such field.
        if let Some(theirs) = accept[field].as_str() {
            let ours = ours.map(|signature| BASE64.encode(&signature)).unwrap_or_default();
            assert_eq!(ours, theirs, "{field} of {name}");
        }
    }
}

/// The record as CometBFT writes its state file.
async fn state(record: &Record, vault: &Vault) -> String {
    let watermark = record.watermark();
    let signature = match record.permit() {
        Some(permit) => Some(sign(vault, &permit).await.to_vec()),
        None => None,
    };
    let state = ForeignState {
        dialect: StateDialect::CometBft,
        height: watermark.height.0,
        round: watermark.round.0,
        step: watermark.step,
        sign_bytes: watermark.signed.as_ref().map(|signed| signed.sign_bytes.clone()),
        signature,
        block: None,
        above: None,
    };
    state.write(StateDialect::CometBft).expect("a state")
}
