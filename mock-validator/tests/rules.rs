//! The engine's rules one by one: those that no recording shows, and those that decide what a signer must expect.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "also in helpers, which clippy does not take for tests"
)]

#[path = "../../protocol/tests/common/deadline.rs"]
mod deadline;
#[path = "common/rig.rs"]
mod rig;

use mock_validator::consensus::{Event, Halt, LockRule, RoundStep, later};
use mock_validator::node::Misbehaviour;
use monosign_protocol::message::{ErrorCode, Message, RemoteSignerError, SignedVoteResponse};
use monosign_protocol::{Dialect, Height, Round};
use rig::{NIL, PRECOMMIT, PREVOTE, Rig};
use std::time::Duration;

#[test]
fn a_timeout_of_precommits_casts_the_precommit_that_is_missing() {
    let mut rig = Rig::new(Dialect::V0_38, 3).in_round_0();
    rig.propose(0, -1, "a");
    assert_eq!(rig.asked(), ["prevote 1 0 a"]);
    for (validator, block) in [(0, "a"), (1, NIL), (2, NIL)] {
        rig.vote(PRECOMMIT, 0, block, validator);
    }
    assert!(rig.asked().is_empty(), "two thirds precommitted, but not the same");
    assert_eq!(rig.timer().step, RoundStep::PrecommitWait);
    rig.timeout();
    assert_eq!(rig.asked(), ["precommit 1 0 -"]);
    assert_eq!(rig.engine.round(), Round(1));
}

#[test]
fn a_round_is_skipped_at_two_thirds_and_not_at_one() {
    let mut rig = Rig::new(Dialect::V0_38, 3).in_round_0();
    rig.vote(PREVOTE, 2, NIL, 0);
    rig.vote(PREVOTE, 2, "a", 1);
    assert_eq!(rig.engine.round(), Round(0));
    rig.vote(PREVOTE, 2, "b", 2);
    assert_eq!((rig.engine.round(), rig.engine.step()), (Round(2), RoundStep::Propose));
    assert!(rig.asked().is_empty(), "nothing is asked for the rounds between");
    rig.vote(PRECOMMIT, 4, NIL, 0);
    rig.vote(PRECOMMIT, 4, "a", 1);
    assert_eq!(rig.engine.round(), Round(2));
    rig.vote(PRECOMMIT, 4, "b", 2);
    assert_eq!(rig.engine.round(), Round(4));
}

#[test]
fn a_proposal_is_complete_only_with_its_proof_of_lock() {
    for dialect in [Dialect::V0_38, Dialect::V1_0] {
        let mut rig = Rig::new(dialect, 3).in_round(1);
        rig.vote(PREVOTE, 0, "a", 0);
        rig.vote(PREVOTE, 0, "a", 1);
        rig.propose(1, 0, "a");
        assert!(rig.asked().is_empty(), "two of the prevotes that the proposal names are not enough");
        rig.vote(PREVOTE, 0, "a", 2);
        assert_eq!(rig.asked(), ["prevote 1 1 a"]);
    }
}

#[test]
fn a_block_that_comes_late_becomes_the_valid_one() {
    let mut rig = Rig::new(Dialect::V0_38, 3).in_round_0();
    rig.proposal(0, -1, "a");
    rig.timeout();
    assert_eq!(rig.asked(), ["prevote 1 0 -"]);
    for validator in 0..3 {
        rig.vote(PREVOTE, 0, "a", validator);
    }
    assert!(rig.engine.valid().is_none(), "two thirds prevoted what is not there");
    rig.block("a");
    assert_eq!(
        rig.engine.valid().map(|(round, block)| (round, rig.name(&block.id))),
        Some((Round(0), "a".into()))
    );
    assert!(rig.asked().is_empty());
}

#[test]
fn a_block_that_comes_late_is_prevoted_and_precommitted_at_once() {
    let mut rig = Rig::new(Dialect::V0_38, 3).in_round_0();
    rig.holds_own_messages = true;
    rig.proposal(0, -1, "a");
    for validator in 0..3 {
        rig.vote(PREVOTE, 0, "a", validator);
    }
    assert!(rig.asked().is_empty());
    rig.block("a");
    assert_eq!(rig.asked(), ["prevote 1 0 a", "precommit 1 0 a"], "before its own prevote comes back to it");
}

#[test]
fn a_late_polka_makes_a_precommit_for_a_block_after_a_prevote_for_nil() {
    let mut rig = Rig::new(Dialect::V0_38, 3).in_round_0();
    rig.timeout();
    rig.propose(0, -1, "a");
    for validator in 0..3 {
        rig.vote(PREVOTE, 0, "a", validator);
    }
    assert_eq!(rig.asked(), ["prevote 1 0 -", "precommit 1 0 a"]);
}

#[test]
fn a_locked_block_is_prevoted_without_a_proposal_up_to_v0_40_only() {
    for (dialect, prevote) in [(Dialect::V0_40, "prevote 1 1 a"), (Dialect::V1_0, "prevote 1 1 -")] {
        let mut rig = Rig::new(dialect, 3).locked_in_round_0("a");
        rig.next_round(0);
        rig.timeout();
        assert_eq!(rig.asked(), [prevote]);
    }
}

#[test]
fn prevotes_for_nil_unlock_up_to_v0_40_only() {
    let votes = |dialect| {
        let mut rig = Rig::new(dialect, 3).locked_in_round_0("a");
        rig.next_round(0);
        rig.timeout();
        for validator in 0..3 {
            rig.vote(PREVOTE, 1, NIL, validator);
        }
        rig.next_round(1);
        rig.propose(2, -1, "b");
        rig.asked()
    };
    assert_eq!(votes(Dialect::V0_38), ["prevote 1 1 a", "precommit 1 1 -", "prevote 1 2 b"]);
    assert_eq!(votes(Dialect::V1_0), ["prevote 1 1 -", "precommit 1 1 -", "prevote 1 2 -"]);
}

#[test]
fn a_later_polka_for_another_block_unlocks_up_to_v0_40_only() {
    for dialect in [Dialect::V0_38, Dialect::V1_0] {
        let mut rig = Rig::new(dialect, 3).locked_in_round_0("a");
        rig.next_round(0);
        for validator in 0..3 {
            rig.vote(PREVOTE, 1, "b", validator);
        }
        let unlocks = LockRule::of(dialect) == LockRule::Unlocking;
        assert_eq!(rig.engine.locked().is_none(), unlocks, "{dialect}");
    }
}

#[test]
fn a_proof_of_lock_after_the_lock_moves_the_prevote_in_every_release() {
    for dialect in [Dialect::V0_38, Dialect::V1_0] {
        let mut rig = Rig::new(dialect, 3).locked_in_round_0("a");
        rig.next_round(0);
        rig.next_round(1);
        for validator in 0..3 {
            rig.vote(PREVOTE, 1, "b", validator);
        }
        rig.asked();
        rig.propose(2, 1, "b");
        assert_eq!(rig.asked(), ["prevote 1 2 b"], "{dialect}");
    }
}

#[test]
fn the_valid_block_is_proposed_again_with_its_round() {
    for dialect in [Dialect::V0_38, Dialect::V1_0] {
        let mut rig = Rig::new(dialect, 1).locked_in_round_0("a");
        rig.next_round(0);
        assert_eq!(rig.asked()[0], "proposal 1 1 a 0");
        let mut times = rig.requests.iter().filter_map(|request| match request {
            Message::SignProposalRequest(request) => Some(request.proposal.as_ref().unwrap().timestamp),
            _ => None,
        });
        let time = times.next_back().unwrap();
        let is_block_time = time == rig.block_time();
        assert_eq!(is_block_time, dialect == Dialect::V1_0, "{dialect}");
    }
}

#[test]
fn catching_up_precommits_nil_without_a_prevote() {
    let mut rig = Rig::new(Dialect::V0_38, 3);
    for height in 1..=3 {
        for validator in 0..3 {
            rig.vote_at(PRECOMMIT, height, 0, "a", validator);
        }
        assert_eq!(rig.asked(), [format!("precommit {height} 0 -")]);
        rig.block("a");
        assert_eq!(rig.asked(), ["key"]);
        assert_eq!(rig.engine.height(), Height(height + 1));
    }
}

#[test]
fn a_timer_gives_way_to_later_steps_only() {
    let mut rig = Rig::new(Dialect::V0_38, 3).in_round_0();
    assert_eq!((rig.timer().round, rig.timer().step), (Round(0), RoundStep::Propose));
    for validator in 0..3 {
        rig.vote(PRECOMMIT, 1, NIL, validator);
    }
    assert_eq!((rig.timer().round, rig.timer().step), (Round(1), RoundStep::PrecommitWait));
    assert_eq!(rig.asked(), ["precommit 1 1 -"]);
}

#[test]
fn a_vote_is_later_than_its_block() {
    for (dialect, iota) in [(Dialect::V0_34, 1000), (Dialect::V0_37, 1), (Dialect::V1_0, 1)] {
        let mut rig = Rig::new(dialect, 3).in_round_0();
        rig.now = rig.block_time();
        rig.propose(0, -1, "a");
        let Some(Message::SignVoteRequest(request)) = &rig.last_request else { panic!("no vote") };
        let expected = later(rig.block_time(), Duration::from_millis(iota));
        assert_eq!(request.vote.as_ref().unwrap().timestamp, expected, "{dialect}");
    }
}

#[test]
fn a_restart_asks_again_with_new_times_and_gets_the_old_vote() {
    let mut rig = Rig::new(Dialect::V0_38, 3).in_round_0();
    rig.propose(0, -1, "a");
    for validator in 0..3 {
        rig.vote(PREVOTE, 0, "a", validator);
    }
    assert_eq!(rig.asked(), ["prevote 1 0 a", "precommit 1 0 a"]);
    let before = rig.requests.clone();
    rig.restart(Duration::from_secs(9));
    assert_eq!(rig.asked(), ["key", "key", "key", "key", "prevote 1 0 a", "precommit 1 0 a"]);
    let again = &rig.requests[before.len()..];
    let (before, again) = (before.last().unwrap(), again.last().unwrap());
    let time = |request: &Message| match request {
        Message::SignVoteRequest(request) => request.vote.as_ref().unwrap().timestamp,
        other => panic!("{other:?}"),
    };
    assert_eq!(time(again), later(time(before), Duration::from_secs(9)));
    rig.take_own();
    assert!(rig.events.iter().any(|event| matches!(event, Event::Refused(..))), "below the watermark");
    assert!(!rig.events.iter().any(|event| matches!(event, Event::Misbehaved(_) | Event::OwnInvalid(_))));
}

#[test]
fn a_height_that_ended_is_not_replayed() {
    let mut rig = Rig::new(Dialect::V0_38, 3).in_round_0();
    rig.propose(0, -1, "a");
    for step in [PREVOTE, PRECOMMIT] {
        for validator in 0..3 {
            rig.vote(step, 0, "a", validator);
        }
    }
    assert_eq!(rig.asked(), ["prevote 1 0 a", "precommit 1 0 a", "key"]);
    rig.restart(Duration::ZERO);
    assert_eq!(rig.asked(), ["key"; 4]);
    assert_eq!(rig.engine.height(), Height(2));
}

#[test]
fn a_proposal_signed_for_another_time_is_dropped_by_its_own_node() {
    for dialect in [Dialect::V0_34, Dialect::V0_38, Dialect::V1_0] {
        let mut rig = Rig::new(dialect, 0);
        rig.holds_own_messages = true;
        rig.timeout();
        assert_eq!(rig.asked(), ["proposal 1 0 new"]);
        rig.restart(Duration::from_secs(1));
        rig.take_own();
        let asked = rig.asked();
        assert_eq!(asked[4], "proposal 1 0 new");
        // v1.0 asks with the block's time, so that its signature fits.
        let is_dropped = rig.events.iter().any(|event| matches!(event, Event::OwnInvalid(_)));
        let is_named =
            |event: &Event| matches!(event, Event::Misbehaved(Misbehaviour::SignedOtherTime { .. }));
        assert_eq!(is_dropped, dialect != Dialect::V1_0, "{dialect}");
        assert_eq!(rig.events.iter().any(is_named), dialect != Dialect::V1_0, "{dialect}");
        assert_eq!(asked.get(5).is_none(), dialect != Dialect::V1_0, "{dialect}: {asked:?}");
    }
}

#[test]
fn a_refused_vote_is_missing_and_the_next_step_goes_on() {
    let mut rig = Rig::new(Dialect::V0_38, 3).in_round_0();
    rig.answer = Some(|mut answer| {
        if let Message::SignedVoteResponse(SignedVoteResponse { vote, error }) = &mut answer {
            *vote = Default::default();
            let code = ErrorCode::Unknown as i32;
            *error = Some(RemoteSignerError { code, description: "no".into() });
        }
        answer
    });
    rig.propose(0, -1, "a");
    rig.answer = None;
    for validator in 0..3 {
        rig.vote(PREVOTE, 0, "a", validator);
    }
    assert_eq!(rig.asked(), ["prevote 1 0 a", "precommit 1 0 a"]);
    assert_eq!(rig.published, ["precommit 1 0 a"]);
}

#[test]
fn a_missing_extension_signature_stops_the_node() {
    let mut rig = Rig::extended(Dialect::V0_38, 3).in_round_0();
    rig.answer = Some(without_extension_signature);
    rig.propose(0, -1, "a");
    for validator in 0..3 {
        rig.vote(PREVOTE, 0, "a", validator);
    }
    assert_eq!(rig.asked(), ["prevote 1 0 a", "precommit 1 0 a"]);
    assert!(matches!(rig.engine.halted(), Some(Halt::ExtensionSignatureMissing(_))));
    rig.vote(PREVOTE, 5, NIL, 0);
    rig.vote(PREVOTE, 5, NIL, 1);
    rig.vote(PREVOTE, 5, NIL, 2);
    assert_eq!(rig.engine.round(), Round(0), "it takes nothing in any more");
}

#[test]
fn an_extension_signature_on_a_prevote_stops_the_node() {
    for (dialect, stops) in [(Dialect::V0_37, false), (Dialect::V0_38, true), (Dialect::V1_0, true)] {
        let mut rig = Rig::extended(dialect, 3).in_round_0();
        rig.answer = Some(with_extension_signature);
        rig.timeout();
        assert_eq!(rig.engine.halted().is_some(), stops, "{dialect}");
    }
}

#[test]
fn a_wrong_extension_signature_loses_the_vote() {
    let mut rig = Rig::extended(Dialect::V0_38, 3).in_round_0();
    rig.propose(0, -1, "a");
    rig.answer = Some(with_extension_signature);
    for validator in 0..3 {
        rig.vote(PREVOTE, 0, "a", validator);
    }
    assert!(rig.engine.halted().is_none());
    assert_eq!(rig.published, ["prevote 1 0 a"], "the precommit is dropped");
    let is_named =
        |event: &Event| matches!(event, Event::Misbehaved(Misbehaviour::ExtensionSignatureInvalid { .. }));
    assert!(rig.events.iter().any(is_named));
}

#[test]
fn extensions_are_asked_for_as_each_release_does() {
    for dialect in [Dialect::V0_34, Dialect::V0_38, Dialect::V1_0] {
        let mut rig = Rig::extended(dialect, 3).in_round_0();
        rig.propose(0, -1, "a");
        for validator in 0..3 {
            rig.vote(PREVOTE, 0, "a", validator);
        }
        let votes = rig.requests.iter().filter_map(|request| match request {
            Message::SignVoteRequest(request) => Some(request),
            _ => None,
        });
        let seen: Vec<_> = votes
            .map(|request| {
                (!request.vote.as_ref().unwrap().extension.is_empty(), request.skip_extension_signing)
            })
            .collect();
        let expected = match dialect {
            Dialect::V0_34 => [(false, false), (false, false)],
            Dialect::V0_38 => [(false, false), (true, false)],
            _ => [(false, true), (true, false)],
        };
        assert_eq!(seen, expected, "{dialect}");
    }
}

#[test]
fn a_replay_may_ask_with_another_extension() {
    let extension = |new_extensions| {
        let mut rig = Rig::extended(Dialect::V0_38, 3).in_round_0();
        rig.app.new_extensions = new_extensions;
        rig.propose(0, -1, "a");
        for validator in 0..3 {
            rig.vote(PREVOTE, 0, "a", validator);
        }
        rig.restart(Duration::from_secs(1));
        rig.take_own();
        assert!(!rig.events.iter().any(|event| matches!(event, Event::Misbehaved(_) | Event::Halted(_))));
        let extensions = rig.requests.iter().filter_map(|request| match request {
            Message::SignVoteRequest(request) => Some(request.vote.as_ref().unwrap().extension.clone()),
            _ => None,
        });
        let extensions: Vec<_> = extensions.filter(|extension| !extension.is_empty()).collect();
        assert_eq!(extensions.len(), 2);
        extensions[0] == extensions[1]
    };
    assert!(extension(false));
    assert!(!extension(true));
}

#[test]
fn a_new_key_is_taken_and_named() {
    let mut rig = Rig::new(Dialect::V0_38, 3);
    rig.swap_key(2);
    for validator in 0..3 {
        rig.vote_at(PRECOMMIT, 1, 0, "a", validator);
    }
    rig.block("a");
    assert_eq!(rig.asked(), ["precommit 1 0 -", "key"]);
    let is_named = |event: &Event| matches!(event, Event::Misbehaved(Misbehaviour::WrongKey { .. }));
    assert!(rig.events.iter().any(is_named));
    rig.timeout();
    rig.timeout();
    assert_eq!(
        rig.asked(),
        ["prevote 2 0 -"],
        "with the other key it is another validator, and votes as that"
    );
}

fn without_extension_signature(mut answer: Message) -> Message {
    if let Message::SignedVoteResponse(SignedVoteResponse { vote, .. }) = &mut answer {
        vote.extension_signature.clear();
    }
    answer
}

fn with_extension_signature(mut answer: Message) -> Message {
    if let Message::SignedVoteResponse(SignedVoteResponse { vote, .. }) = &mut answer {
        vote.extension_signature = vec![1; 64];
    }
    answer
}
