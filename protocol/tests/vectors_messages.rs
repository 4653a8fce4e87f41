//! Messages and sign bytes against what real CometBFT code of every release wrote and read.

mod common;
#[path = "common/domain.rs"]
mod domain;

use common::{dirs_with, hex, hex32, lines, name, text};
use ed25519_dalek::{Signer as _, SigningKey};
use monosign_protocol::frame::{self, Frame};
use monosign_protocol::message::{
    Message, PubKeyRequest, PubKeyResponse, PublicKey, PublicKeyKind, RawRequest, RawResponse,
    RemoteSignerError, SignProposalRequest, SignVoteRequest, SignedProposalResponse, SignedVoteResponse,
    Text,
};
use monosign_protocol::{Dialect, sign_bytes};
use serde_json::Value;

#[test]
fn vectors_sign_bytes_and_signatures_are_cometbfts() {
    let file = "sign_bytes.jsonl";
    for dir in dirs_with(file) {
        for v in lines(&dir, file) {
            let (name, chain_id) = (name(&dir, &v), text(&v, "chain_id"));
            let key = SigningKey::from_bytes(&hex32(&v, "key_seed"));
            let check = |kind: &str, bytes: Vec<u8>, bytes_field: &str, signature_field: &str| {
                assert_eq!(bytes, hex(&v, bytes_field), "{kind} sign bytes of {name}");
                let signature = key.sign(&bytes).to_bytes().to_vec();
                assert_eq!(signature, hex(&v, signature_field), "{kind} signature of {name}");
            };
            if v["kind"] == "proposal" {
                let proposal = domain::proposal(&v["proposal"]);
                check("proposal", sign_bytes::proposal(chain_id, &proposal), "sign_bytes", "signature");
                continue;
            }
            let vote = domain::vote(&v["vote"]);
            check("vote", sign_bytes::vote(chain_id, &vote), "sign_bytes", "signature");
            if v.get("ext_sign_bytes").is_some() && v.get("ext_signature").is_some() {
                let bytes = sign_bytes::vote_extension(chain_id, &vote);
                check("extension", bytes, "ext_sign_bytes", "ext_signature");
            }
            if v.get("nrp_sign_bytes").is_some() && v.get("nrp_signature").is_some() {
                check("non-rp extension", vote.non_rp_extension, "nrp_sign_bytes", "nrp_signature");
            }
        }
    }
}

#[test]
fn vectors_messages_encode_to_the_same_bytes_and_decode_back() {
    let file = "privval_messages.jsonl";
    for dir in dirs_with(file) {
        let dialect = domain::dialect(&dir);
        for v in lines(&dir, file) {
            let name = name(&dir, &v);
            let message =
                dialect.restrict(message(&v)).unwrap_or_else(|| panic!("{name} has no such message"));
            let wire = hex(&v, "delimited");
            let mut encoded = Vec::new();
            frame::encode(&message, &mut encoded);
            assert_eq!(encoded, wire, "encoding {name}");
            let Ok(Frame::Complete { start, end }) = frame::find(&wire, 1 << 20) else {
                panic!("no frame in {name}")
            };
            assert_eq!(Message::decode(&wire[start..end]), Ok(Some(message)), "decoding {name}");
        }
    }
}

#[test]
fn vectors_decoder_accepts_and_refuses_what_the_nodes_reader_does() {
    let file = "privval_decode.jsonl";
    for dir in dirs_with(file) {
        let dialect = domain::dialect(&dir);
        for v in lines(&dir, file) {
            let (name, raw) = (name(&dir, &v), hex(&v, "raw"));
            let max = v["max_size"].as_u64().expect("max_size") as usize;
            let read = read(&raw, max, dialect);
            if v["ok"] == Value::Bool(false) {
                assert!(read.is_err(), "{name} must be refused, and was read as {read:?}");
                continue;
            }
            let (message, consumed) = read.unwrap_or_else(|e| panic!("{name} must be read: {e}"));
            assert_eq!(consumed as u64, v["consumed"].as_u64().expect("consumed"), "bytes of {name}");
            let expected_name = v["message"].as_str().unwrap_or_default();
            assert_eq!(
                message.as_ref().map(Message::name).unwrap_or_default(),
                expected_name,
                "arm of {name}"
            );
            let mut encoded = Vec::new();
            match &message {
                Some(message) => frame::encode(message, &mut encoded),
                None => encoded.push(0),
            }
            assert_eq!(encoded, hex(&v, "reencoded"), "re-encoding {name}");
            check_content(message.as_ref(), &v, &name);
        }
    }
}

fn check_content(message: Option<&Message>, v: &Value, name: &str) {
    if let (Some(Message::SignVoteRequest(m)), false) = (message, v["vote"].is_null()) {
        assert_eq!(m.vote.as_ref(), Some(&domain::vote(&v["vote"])), "vote of {name}");
    }
    if let (Some(Message::SignProposalRequest(m)), false) = (message, v["proposal"].is_null()) {
        assert_eq!(m.proposal.as_ref(), Some(&domain::proposal(&v["proposal"])), "proposal of {name}");
    }
}

/// One delimited read, as the node of `dialect` would do it.
fn read(raw: &[u8], max: usize, dialect: Dialect) -> Result<(Option<Message>, usize), String> {
    match frame::find(raw, max).map_err(|e| e.to_string())? {
        Frame::Incomplete => Err("the stream ends".into()),
        Frame::Complete { start, end } => {
            let message = Message::decode(&raw[start..end]).map_err(|e| e.to_string())?;
            Ok((message.and_then(|m| dialect.restrict(m)), end))
        }
    }
}

fn message(v: &Value) -> Message {
    let fields = &v["fields"];
    let chain_id = || Text::from(fields["chain_id"].as_str().unwrap_or_default());
    let some = |key: &str| Some(&fields[key]).filter(|v| !v.is_null());
    let error = || some("error").map(error);
    match text(v, "message") {
        "PingRequest" => Message::PingRequest,
        "PingResponse" => Message::PingResponse,
        "PubKeyRequest" => Message::PubKeyRequest(PubKeyRequest { chain_id: chain_id() }),
        "PubKeyResponse" => Message::PubKeyResponse(pub_key_response(&fields["pub_key"], error())),
        "SignVoteRequest" => Message::SignVoteRequest(SignVoteRequest {
            vote: some("vote").map(domain::vote),
            chain_id: chain_id(),
            skip_extension_signing: fields["skip_extension_signing"].as_bool().unwrap_or(false),
        }),
        "SignedVoteResponse" => Message::SignedVoteResponse(SignedVoteResponse {
            vote: domain::vote(&fields["vote"]),
            error: error(),
        }),
        "SignProposalRequest" => Message::SignProposalRequest(SignProposalRequest {
            proposal: some("proposal").map(domain::proposal),
            chain_id: chain_id(),
        }),
        "SignedProposalResponse" => Message::SignedProposalResponse(SignedProposalResponse {
            proposal: domain::proposal(&fields["proposal"]),
            error: error(),
        }),
        "SignBytesRequest" => Message::RawRequest(RawRequest {
            value_or_chain_id: domain::bytes(&fields["value"]),
            ..RawRequest::default()
        }),
        "SignBytesResponse" => Message::RawResponse(RawResponse {
            signature: domain::bytes(&fields["signature"]),
            error: error(),
        }),
        other => panic!("no message `{other}`"),
    }
}

/// The answer in all forms at once; the dialect keeps its own.
fn pub_key_response(key: &Value, error: Option<RemoteSignerError>) -> PubKeyResponse {
    if key.is_null() {
        return PubKeyResponse { error, ..PubKeyResponse::default() };
    }
    let kind = match key["type"].as_str().expect("a key type").replace(['_', '-'], "").as_str() {
        "ed25519" => PublicKeyKind::Ed25519,
        "secp256k1" => PublicKeyKind::Secp256k1,
        "bls12381" => PublicKeyKind::Bls12381,
        "mldsa65" => PublicKeyKind::MlDsa65,
        "secp256k1eth" => PublicKeyKind::Secp256k1Eth,
        other => panic!("no key type `{other}`"),
    };
    let bytes = domain::bytes(&key["bytes"]);
    PubKeyResponse {
        pub_key: Some(PublicKey { sum: Some((kind, bytes.clone())) }),
        error,
        pub_key_bytes: bytes,
        pub_key_type: Text::from(key["type"].as_str().unwrap_or_default()),
    }
}

fn error(v: &Value) -> RemoteSignerError {
    RemoteSignerError {
        code: v["code"].as_i64().unwrap_or(0) as i32,
        description: Text::from(v["description"].as_str().unwrap_or_default()),
    }
}
