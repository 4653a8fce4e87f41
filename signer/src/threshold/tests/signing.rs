//! What a group does when nobody fails.

use monosign_protocol::message::Timestamp;

use super::rig::{Random, Rig, precommit, prevote, proposal, vote};
use crate::guard::Refusal;
use crate::threshold::asked::Subject;
use crate::threshold::cosigner::AskError;
use crate::threshold::deal::subsets;
use crate::threshold::group::Shape;
use crate::threshold::rounds::MemberId;

pub(super) const SHAPES: [(u16, u16); 4] = [(2, 3), (3, 5), (3, 4), (5, 7)];

pub(super) fn shape(t: u16, n: u16) -> Shape {
    Shape::new(t, n).expect("an allowed shape")
}

#[test]
fn every_shape_signs_whoever_is_asked() {
    for (t, n) in SHAPES {
        let mut rig = Rig::running(shape(t, n), 1);
        for height in 1..=6 {
            let node = usize::try_from(height).expect("small") % usize::from(n);
            rig.sign(node, &proposal(height, 1, 10)).expect("signed");
            rig.sign(node, &prevote(height, 1, 11)).expect("signed");
            rig.sign(node, &precommit(height, 1, 12)).expect("signed");
        }
        assert_eq!((rig.signed.len(), rig.double_signed()), (18, false));
    }
}

#[test]
fn several_validators_of_one_key_get_one_timestamp() {
    let mut rig = Rig::running(shape(2, 3), 2);
    let first = rig.sign(0, &prevote(5, 1, 100)).expect("signed");
    rig.run(200);
    for node in [1, 2, 0] {
        let again = rig.sign(node, &prevote(5, 1, 101)).expect("signed");
        assert_eq!(again.timestamp, Some(Timestamp { seconds: 100, nanos: 0 }));
        assert_eq!((&again.signature, again.replayed), (&first.signature, true));
    }
    // At the same moment, too: they meet in the coordinator.
    let asks: Vec<u64> = (0..3).map(|node| rig.ask(node, &precommit(5, 1, 200 + node as i64))).collect();
    rig.run_until("answers", |rig| asks.iter().all(|ask| rig.answers.contains_key(ask)));
    let of = |ask: &u64| rig.answers[ask].clone().expect("signed");
    assert!(asks.iter().all(|ask| of(ask).signature == of(&asks[0]).signature));
}

#[test]
fn two_blocks_at_one_place_are_never_both_signed() {
    for seed in 0..Random::worlds(5) {
        for (t, n) in SHAPES {
            let mut rig = Rig::running(shape(t, n), seed);
            for height in 1..4 {
                let asks: Vec<u64> = (0..usize::from(n))
                    .map(|node| rig.ask(node, &proposal(height, 1 + (node % 2) as u8, 7)))
                    .collect();
                rig.run_until("answers", |rig| asks.iter().all(|ask| rig.answers.contains_key(ask)));
                assert!(!rig.double_signed(), "{t} of {n}, seed {seed}");
            }
        }
    }
}

#[test]
fn extensions_are_signed_with_their_vote_in_the_same_round_trip() {
    let mut rig = Rig::running(shape(2, 3), 3);
    let Subject::Message(bytes) = precommit(9, 4, 1) else { unreachable!() };
    let extension = Subject::Extension { vote: bytes, extension: b"price".to_vec() };
    let vote_ask = rig.ask(0, &precommit(9, 4, 1));
    let ask = rig.ask(0, &extension);
    rig.run_until("both", |rig| rig.answers.contains_key(&vote_ask) && rig.answers.contains_key(&ask));
    let signature = rig.answers[&ask].clone().expect("signed").signature.signature();
    let vote = monosign_protocol::message::Vote { extension: b"price".to_vec(), ..vote(2, 9, 4, 1) };
    let bytes = monosign_protocol::sign_bytes::vote_extension(super::rig::CHAIN, &vote);
    let signature = ed25519_dalek::Signature::from_bytes(&signature);
    rig.group.verifying_key().verify_strict(&bytes, &signature).expect("a signature of the extension");
    // For another block the guard does not stand: no extension of it.
    let Subject::Message(other) = precommit(9, 5, 1) else { unreachable!() };
    let refused = rig.sign(0, &Subject::Extension { vote: other, extension: vec![1] });
    assert!(matches!(refused, Err(AskError::Refused(Refusal::ConflictingData { .. }))), "{refused:?}");
}

/// That no two shares are made with the same, the rig sees in every test.
#[test]
fn nonces_of_our_own_are_for_one_set_of_signers() {
    for (t, n) in SHAPES {
        let mut rig = Rig::running(shape(t, n), 5);
        rig.sign(0, &prevote(1, 1, 1)).expect("signed");
        // Whoever is asked first hangs: another set is asked for the same message.
        rig.hung.insert(1);
        for height in 2..8 {
            rig.sign(0, &prevote(height, 1, 1)).expect("signed by another set");
        }
    }
}

#[test]
fn nonces_of_our_own_do_not_outlive_a_connection_that_a_copy_of_us_would_lack() {
    let mut rig = Rig::running(shape(2, 3), 5);
    rig.sign(0, &prevote(1, 1, 1)).expect("signed");
    rig.run(500);
    assert_eq!(rig.has_to_prepare_when_cut_off(0), (false, true));
}

#[test]
fn every_set_of_t_signs_a_drill_and_the_guards_stay_where_they_are() {
    let mut rig = Rig::running(shape(3, 5), 4);
    rig.sign(0, &prevote(3, 1, 1)).expect("signed");
    rig.run(500);
    let before: Vec<_> = rig.nodes.iter().map(|node| node.watermark()).collect();
    let members: Vec<MemberId> = rig.group.members().collect();
    for (number, set) in (0u8..).zip(subsets(&members, 3)) {
        let ask = rig.ask_of(0, &Subject::Drill([number; 16]), Some(set.clone()));
        rig.run_until("a drill", |rig| rig.answers.contains_key(&ask));
        assert!(rig.answers[&ask].is_ok(), "{set:?}: {:?}", rig.answers[&ask]);
    }
    assert_eq!(before, rig.nodes.iter().map(|node| node.watermark()).collect::<Vec<_>>());
}

#[test]
fn what_is_below_the_record_or_of_another_chain_is_refused_in_the_guards_words() {
    let mut rig = Rig::running(shape(2, 3), 5);
    rig.sign(0, &prevote(8, 1, 1)).expect("signed");
    let below = rig.sign(0, &prevote(7, 1, 1));
    assert!(matches!(below, Err(AskError::Refused(Refusal::HeightRegression { .. }))), "{below:?}");
    let conflict = rig.sign(0, &prevote(8, 2, 1));
    assert!(matches!(conflict, Err(AskError::Refused(Refusal::ConflictingData { .. }))), "{conflict:?}");
    let bytes = monosign_protocol::sign_bytes::vote("test-2", &vote(1, 9, 1, 1));
    let foreign = rig.sign(0, &Subject::Message(bytes));
    assert!(matches!(foreign, Err(AskError::Refused(Refusal::WrongChain { .. }))), "{foreign:?}");
}
