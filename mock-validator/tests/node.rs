//! The engine and its verifier: right answers are taken, each kind of wrong one is named.
#![allow(clippy::unwrap_used, reason = "also in helpers, which clippy does not take for tests")]

mod common;

use common::{NOW, TestSigner, chain, hrs, requests, settings};
use ed25519_dalek::{Signer, SigningKey};
use mock_validator::node::probes::{Expectation, Judge, ProbeFailed, conflict, double_sign};
use mock_validator::node::{Answer, Misbehaviour, Node, Outcome, Verifier};
use monosign_protocol::message::{
    BlockId, Message, PubKeyResponse, PublicKey, PublicKeyKind, SignedProposalResponse, SignedVoteResponse,
    Timestamp, Vote,
};
use monosign_protocol::{Dialect, Height, Step, sign_bytes};

#[test]
fn every_dialect_signs_rising_heights() {
    for dialect in Dialect::ALL {
        for extension_bytes in [None, Some(0), Some(100)] {
            let (mut node, mut signer) = (Node::new(settings(dialect, extension_bytes)), TestSigner::new());
            let mut signed = Vec::new();
            while node.height() < Height(4) {
                let request = node.poll_request(NOW).clone();
                match node.handle_answer(Some(signer.answer(request))).unwrap() {
                    Outcome::PublicKey(key) => assert_eq!(key, signer.public_key()),
                    Outcome::Signed(one) => signed.push(one),
                    Outcome::Refused { hrs, error } => panic!("{dialect}: {hrs:?} {error}"),
                }
            }
            let order: Vec<_> = signed.iter().map(|one| one.hrs).collect();
            let steps = [Step::Proposal, Step::Prevote, Step::Precommit];
            let expected: Vec<_> = (1..4).flat_map(|height| steps.map(|step| hrs(height, step))).collect();
            assert_eq!(order, expected);
            let extended = signed.iter().filter(|one| one.extension_signature.is_some()).count();
            let has_extensions = dialect.has_extensions() && extension_bytes.is_some();
            assert_eq!(extended, if has_extensions { 3 } else { 0 }, "{dialect} {extension_bytes:?}");
        }
    }
}

#[test]
fn equal_seeds_and_times_make_equal_requests() {
    let run = |seed| {
        let mut node = Node::new(mock_validator::node::Settings {
            seed: [seed; 32],
            ..settings(Dialect::V0_38, Some(64))
        });
        let mut signer = TestSigner::new();
        let mut asked = Vec::new();
        for _ in 0..9 {
            let request = node.poll_request(NOW).clone();
            node.handle_answer(Some(signer.answer(request.clone()))).unwrap();
            asked.push(request);
        }
        asked
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn repeats_an_unanswered_request_byte_for_byte() {
    let mut node = Node::new(settings(Dialect::V0_38, None));
    let key = TestSigner::new().answer(node.poll_request(NOW).clone());
    node.handle_answer(Some(key)).unwrap();
    let first = node.poll_request(NOW).clone();
    let later = Timestamp { seconds: NOW.seconds + 9, ..NOW };
    assert_eq!(node.poll_request(later), &first);
}

#[test]
fn goes_on_without_a_refused_vote_but_not_without_a_key() {
    let mut node = Node::new(settings(Dialect::V0_38, None));
    let refused = Message::PubKeyResponse(PubKeyResponse::refused(common::error("no such chain")));
    node.poll_request(NOW);
    assert!(matches!(node.handle_answer(Some(refused)), Ok(Outcome::Refused { hrs: None, .. })));
    let request = node.poll_request(NOW).clone();
    assert!(matches!(request, Message::PubKeyRequest(_)));
    node.handle_answer(Some(TestSigner::new().answer(request))).unwrap();
    node.poll_request(NOW);
    let refused = Message::SignedProposalResponse(SignedProposalResponse {
        error: Some(common::error("regression")),
        ..Default::default()
    });
    let outcome = node.handle_answer(Some(refused));
    assert!(
        matches!(outcome, Ok(Outcome::Refused { hrs: Some(at), .. }) if at == hrs(1, Step::Proposal)),
        "{outcome:?}"
    );
    assert!(
        matches!(node.poll_request(NOW), Message::SignVoteRequest(m) if m.vote.as_ref().unwrap().vote_type == 1)
    );
    assert_eq!(Node::new(settings(Dialect::V0_38, None)).handle_answer(None), Err(Misbehaviour::Unasked));
}

/// Asks the test signer for `step` at height 1, lets `spoil` change the answer, and checks it.
fn check(
    dialect: Dialect,
    extension_bytes: Option<usize>,
    (step, for_block): (Step, bool),
    spoil: impl FnOnce(&mut Message),
) -> Result<Answer, Misbehaviour> {
    let (requests, mut signer) = (requests(dialect, extension_bytes), TestSigner::new());
    let block = if for_block { requests.blocks().block(Height(1), 0) } else { BlockId::default() };
    let request = requests.sign(hrs(1, step), block, NOW);
    let mut answer = signer.answer(request.clone());
    spoil(&mut answer);
    let extensions = extension_bytes.is_some();
    Verifier::new(chain(), dialect, extensions, Some(signer.public_key())).check(&request, Some(answer))
}

fn vote(answer: &mut Message) -> &mut Vote {
    match answer {
        Message::SignedVoteResponse(SignedVoteResponse { vote, .. }) => vote,
        other => panic!("{}", other.name()),
    }
}

const PREVOTE: (Step, bool) = (Step::Prevote, true);
const PRECOMMIT: (Step, bool) = (Step::Precommit, true);
const NIL_PRECOMMIT: (Step, bool) = (Step::Precommit, false);

#[test]
fn refuses_a_signature_of_another_key() {
    let at = hrs(1, Step::Prevote);
    let checked = check(Dialect::V0_38, None, PREVOTE, |answer| {
        let vote = vote(answer);
        let bytes = sign_bytes::vote(common::CHAIN, vote);
        vote.signature = SigningKey::from_bytes(&[8; 32]).sign(&bytes).to_vec();
    });
    assert_eq!(checked, Err(Misbehaviour::SignatureInvalid { hrs: at }));
}

#[test]
fn refuses_signatures_of_the_wrong_length_and_none() {
    let at = hrs(1, Step::Prevote);
    for length in [0, 63, 65] {
        let checked = check(Dialect::V0_38, None, PREVOTE, |answer| vote(answer).signature.resize(length, 0));
        assert_eq!(checked, Err(Misbehaviour::SignatureLength { hrs: at, length }));
    }
}

#[test]
fn takes_a_vote_at_the_returned_time_and_no_other() {
    let other = Timestamp { seconds: 5, nanos: 0 };
    let sign_at = |signed: Timestamp, returned: Timestamp| {
        check(Dialect::V0_38, None, PREVOTE, |answer| {
            let vote = vote(answer);
            vote.timestamp = signed;
            let bytes = sign_bytes::vote(common::CHAIN, vote);
            vote.signature = SigningKey::from_bytes(&[9; 32]).sign(&bytes).to_vec();
            vote.timestamp = returned;
        })
    };
    assert!(matches!(sign_at(other, other), Ok(Answer::Signed(signed)) if signed.timestamp == other));
    let at = hrs(1, Step::Prevote);
    let expected = Misbehaviour::SignedOtherTime { hrs: at, signed: NOW, sent: other };
    assert_eq!(sign_at(NOW, other), Err(expected));
    assert_eq!(
        sign_at(Timestamp { seconds: 6, nanos: 0 }, other),
        Err(Misbehaviour::SignatureInvalid { hrs: at })
    );
}

#[test]
fn takes_a_proposal_at_the_requested_time_only() {
    let other = Timestamp { seconds: 5, nanos: 0 };
    let checked = check(Dialect::V1_0, None, (Step::Proposal, true), |answer| {
        let Message::SignedProposalResponse(SignedProposalResponse { proposal, .. }) = answer else {
            panic!()
        };
        proposal.timestamp = other;
        let bytes = sign_bytes::proposal(common::CHAIN, proposal);
        proposal.signature = SigningKey::from_bytes(&[9; 32]).sign(&bytes).to_vec();
    });
    let at = hrs(1, Step::Proposal);
    assert_eq!(checked, Err(Misbehaviour::SignedOtherTime { hrs: at, signed: other, sent: NOW }));
    // A time that is only echoed wrongly does not matter: the node does not read it.
    let checked = check(Dialect::V1_0, None, (Step::Proposal, true), |answer| {
        let Message::SignedProposalResponse(SignedProposalResponse { proposal, .. }) = answer else {
            panic!()
        };
        proposal.timestamp = other;
    });
    assert!(checked.is_ok());
}

#[test]
fn requires_extension_signatures_where_extensions_are_on() {
    let at = hrs(1, Step::Precommit);
    let missing = Err(Misbehaviour::ExtensionSignatureMissing { hrs: at });
    for dialect in [Dialect::V0_38, Dialect::V0_40, Dialect::V1_0, Dialect::V2_0] {
        let checked = check(dialect, Some(9), PRECOMMIT, |answer| vote(answer).extension_signature.clear());
        assert_eq!(checked, missing, "{dialect}");
        let checked = check(dialect, None, PRECOMMIT, |answer| vote(answer).extension_signature.clear());
        assert!(checked.is_ok(), "{dialect} without extensions");
    }
    let no_non_rp = |answer: &mut Message| vote(answer).non_rp_extension_signature.clear();
    assert_eq!(check(Dialect::V2_0, Some(9), PRECOMMIT, no_non_rp), missing);
    assert!(check(Dialect::V1_0, Some(9), PRECOMMIT, no_non_rp).is_ok());
}

#[test]
fn refuses_extension_signatures_that_would_stop_a_node() {
    for asked in [PREVOTE, NIL_PRECOMMIT] {
        let checked = check(Dialect::V0_38, None, asked, |answer| {
            vote(answer).extension_signature = vec![1; 64];
        });
        let at = hrs(1, asked.0);
        assert_eq!(checked, Err(Misbehaviour::ExtensionSignatureUnexpected { hrs: at }));
        // Older nodes do not know the field.
        let checked = check(Dialect::V0_37, None, asked, |answer| {
            vote(answer).extension_signature = vec![1; 64];
        });
        assert!(checked.is_ok());
    }
}

#[test]
fn refuses_an_extension_signature_over_something_else() {
    let at = hrs(1, Step::Precommit);
    for length in [63, 64] {
        let checked = check(Dialect::V0_38, Some(9), PRECOMMIT, |answer| {
            vote(answer).extension_signature = vec![1; length];
        });
        assert_eq!(checked, Err(Misbehaviour::ExtensionSignatureInvalid { hrs: at }));
    }
}

#[test]
fn refuses_empty_answers_and_those_of_another_arm() {
    let checked = check(Dialect::V0_38, None, PREVOTE, |answer| *answer = Message::PingResponse);
    let wrong = Misbehaviour::WrongArm { asked: "SignVoteRequest", answered: "PingResponse" };
    assert_eq!(checked, Err(wrong));
    let verifier = Verifier::new(chain(), Dialect::V0_38, false, None);
    let request = requests(Dialect::V0_38, None).public_key();
    assert_eq!(verifier.check(&request, None), Err(Misbehaviour::EmptyAnswer { asked: "PubKeyRequest" }));
}

#[test]
fn refuses_a_refusal_with_a_signature() {
    let checked = check(Dialect::V0_38, None, PREVOTE, |answer| {
        let Message::SignedVoteResponse(answer) = answer else { panic!() };
        answer.error = Some(common::error("no"));
    });
    assert_eq!(checked, Err(Misbehaviour::SignatureInRefusal { hrs: hrs(1, Step::Prevote) }));
}

#[test]
fn reads_the_public_key_where_the_dialect_has_it() {
    let key = TestSigner::new().public_key();
    let old = PubKeyResponse {
        pub_key: Some(PublicKey { sum: Some((PublicKeyKind::Ed25519, key.to_bytes().to_vec())) }),
        ..PubKeyResponse::default()
    };
    let new = PubKeyResponse { pub_key: None, ..PubKeyResponse::universal(key.to_bytes()) };
    let check = |dialect, answer: &PubKeyResponse| {
        let request = requests(dialect, None).public_key();
        let verifier = Verifier::new(chain(), dialect, false, None);
        verifier.check(&request, Some(Message::PubKeyResponse(answer.clone())))
    };
    assert_eq!(check(Dialect::V0_38, &old), Ok(Answer::PublicKey(key)));
    assert_eq!(check(Dialect::V1_0, &new), Ok(Answer::PublicKey(key)));
    assert_eq!(check(Dialect::V1_0, &old), Err(Misbehaviour::NoPublicKey), "as cosmos/kms v0.1.0 answers");
    assert_eq!(check(Dialect::V0_38, &new), Err(Misbehaviour::NoPublicKey));
    let secp = PubKeyResponse {
        pub_key: Some(PublicKey { sum: Some((PublicKeyKind::Secp256k1, vec![2; 33])) }),
        ..PubKeyResponse::default()
    };
    let refused = Misbehaviour::KeyNotEd25519 { kind: "Secp256k1".into(), length: 33 };
    assert_eq!(check(Dialect::V0_38, &secp), Err(refused));
}

#[test]
fn notices_when_the_key_changes_between_heights() {
    let mut node = Node::new(settings(Dialect::V0_38, None));
    let mut signer = TestSigner::new();
    while node.height() < Height(2) {
        let answer = signer.answer(node.poll_request(NOW).clone());
        node.handle_answer(Some(answer)).unwrap();
    }
    node.poll_request(NOW);
    let other = SigningKey::from_bytes(&[8; 32]).verifying_key();
    let answer = Message::PubKeyResponse(PubKeyResponse::universal(other.to_bytes()));
    assert!(matches!(node.handle_answer(Some(answer)), Err(Misbehaviour::WrongKey { .. })));
}

#[test]
fn the_rules_of_file_pv_pass_every_probe_of_every_dialect() {
    for dialect in Dialect::ALL {
        for extensions in [false, true] {
            let mut signer = TestSigner::new();
            let mut judge = Judge::new(chain(), dialect, extensions, signer.public_key());
            let probes = double_sign(&chain(), dialect, extensions, Height(10), NOW, common::SEED);
            assert!(probes.len() >= 43);
            let names: std::collections::BTreeSet<_> = probes.iter().map(|probe| probe.name).collect();
            assert_eq!(names.len(), probes.len(), "names are unique");
            for probe in probes {
                let answer = signer.answer(probe.request.clone());
                judge.judge(&probe, Some(answer)).unwrap_or_else(|failed| {
                    panic!("{dialect}, extensions {extensions}, {}: {failed}", probe.name)
                });
            }
        }
    }
}

#[test]
fn a_signer_without_memory_fails_every_probe_that_is_not_plain_signing() {
    let mut judge = Judge::new(chain(), Dialect::V0_38, true, TestSigner::new().public_key());
    for probe in double_sign(&chain(), Dialect::V0_38, true, Height(10), NOW, common::SEED) {
        // What any signer refuses by looking at the request alone is not what this test is about.
        let answer = TestSigner::new().answer(probe.request.clone());
        let refused_anyway =
            matches!(&answer, Message::SignedVoteResponse(SignedVoteResponse { error: Some(_), .. }));
        let judged = judge.judge(&probe, Some(answer));
        let changes_time = probe.name.ends_with("time");
        match probe.expectation {
            Expectation::Signed => assert_eq!(judged, Ok(()), "{}", probe.name),
            Expectation::Refused if refused_anyway => {}
            Expectation::Refused => {
                assert!(matches!(judged, Err(ProbeFailed::NotRefused { .. })), "{}", probe.name);
            }
            Expectation::Repeated if changes_time => {
                assert!(matches!(judged, Err(ProbeFailed::NotRepeated { .. })), "{}", probe.name);
            }
            Expectation::Repeated => {}
        }
    }
}

#[test]
fn a_conflict_is_for_another_block_at_the_same_place() {
    let requests = requests(Dialect::V0_38, None);
    for block in [requests.blocks().block(Height(1), 0), BlockId::default()] {
        let request = requests.sign(hrs(1, Step::Precommit), block, NOW);
        let mut signer = TestSigner::new();
        let mut judge = Verifier::new(chain(), Dialect::V0_38, false, None);
        judge.pin(signer.public_key());
        assert!(matches!(judge.check(&request, Some(signer.answer(request.clone()))), Ok(Answer::Signed(_))));
        let conflict = conflict(&request).unwrap();
        let answer = signer.answer(conflict.clone());
        assert!(matches!(judge.check(&conflict, Some(answer)), Ok(Answer::Refused { .. })));
    }
    assert_eq!(conflict(&Message::PingRequest), None);
}
