//! Processes that die, disks that go back in time, networks that split.

use super::rig::{Random, Rig, precommit, prevote};
use super::signing::{SHAPES, shape};
use crate::guard::JumpLimit;
use crate::threshold::cosigner::{AskError, Event, Note};
use crate::threshold::deal::subsets;
use crate::threshold::rounds::MemberId;

#[test]
fn crashes_and_restarts_at_any_moment_never_give_two_blocks_one_place() {
    let mut signed = 0;
    let worlds = Random::worlds(8);
    for seed in 0..worlds {
        for (t, n) in SHAPES {
            let mut rig = Rig::running(shape(t, n), seed);
            let nodes = usize::from(n);
            for height in 1..8 {
                for node in 0..nodes {
                    let block = 1 + u8::from(rig.random.below(3) == 0);
                    rig.ask(node, &prevote(height, block, node as i64));
                }
                for _ in 0..rig.random.below(150) {
                    rig.step();
                    if rig.random.below(60) == 0 {
                        let node = rig.random.below(nodes);
                        if rig.nodes[node].runs() { rig.crash(node) } else { rig.start(node) }
                    }
                }
            }
            assert!(!rig.double_signed(), "{t} of {n}, seed {seed}");
            // With everybody up again the group goes on.
            for node in 0..nodes {
                if !rig.nodes[node].runs() {
                    rig.start(node);
                }
            }
            rig.run_until("all take part", |rig| rig.nodes.iter().all(|node| node.is_active()));
            rig.sign(0, &precommit(100, 1, 1)).expect("signed");
            signed += rig.signed.len();
        }
    }
    assert!(signed > 10 * worlds as usize, "{signed} signatures prove little");
}

#[test]
fn one_dead_cosigner_is_not_missed_and_the_validator_hears_no_error() {
    for (t, n) in SHAPES {
        for dead in 0..usize::from(n) {
            let mut rig = Rig::running(shape(t, n), 1);
            rig.sign(1, &prevote(1, 1, 1)).expect("signed");
            rig.crash(dead);
            let alive = (dead + 1) % usize::from(n);
            rig.sign(alive, &prevote(2, 1, 1)).expect("signed without it");
        }
    }
}

#[test]
fn a_majority_down_is_waited_for_and_then_named_and_its_return_is_enough() {
    let mut rig = Rig::running(shape(2, 3), 1);
    rig.sign(0, &prevote(1, 1, 1)).expect("signed");
    rig.crash(1);
    rig.crash(2);
    let before = rig.time;
    let refused = rig.sign(0, &prevote(2, 1, 1));
    assert!(matches!(&refused, Err(AskError::NoQuorum(text)) if text.contains("cosigner 2 not connected")));
    assert!((rig.time - before).as_millis() >= 1500);
    // What is asked while they are away is answered when they are back.
    let ask = rig.ask(0, &prevote(2, 1, 1));
    rig.start(1);
    let before = rig.time;
    rig.run_until("an answer", |rig| rig.answers.contains_key(&ask));
    assert!(rig.answers[&ask].is_ok(), "{:?}", rig.answers[&ask]);
    assert!((rig.time - before).as_millis() < 1000);
}

#[test]
fn one_disk_that_went_back_in_time_is_fenced_even_in_two_of_three() {
    for seed in 0..Random::worlds(30) {
        let mut rig = Rig::running(shape(2, 3), seed);
        rig.sign(0, &prevote(1, 1, 1)).expect("signed");
        rig.run(100);
        let old = rig.nodes[2].disk.snapshot();
        // The first block is asked for somewhere, and gets as far as it gets; then the third disk is an old one, and
        // the other block is asked for elsewhere.
        rig.ask(rig.random.below(3), &prevote(2, 1, 1));
        rig.run(rig.random.below(40));
        rig.crash(2);
        rig.nodes[2].disk = old;
        rig.start(2);
        for node in [2, 1, 0] {
            rig.ask(node, &prevote(2, 2, 1));
            rig.run(rig.random.below(20));
        }
        rig.run(1000);
        assert!(!rig.double_signed(), "seed {seed}");
    }
}

#[test]
fn a_copy_that_is_started_fences_the_first_which_stops() {
    let mut rig = Rig::running(shape(2, 3), 3);
    rig.sign(0, &prevote(1, 1, 1)).expect("signed");
    rig.run(200);
    let disk = rig.nodes[2].disk.snapshot();
    let copy = rig.add_copy(2, disk);
    rig.start(copy);
    rig.run_until("one of them stops", |rig| {
        rig.nodes[2].stopped.is_some() || rig.nodes[copy].stopped.is_some()
    });
    assert!(!rig.double_signed());
}

#[test]
fn two_sides_with_a_copy_of_one_share_sign_two_blocks_as_the_documentation_says() {
    // No fence reaches across a partition: 2-of-3 does not survive a clone that nobody can tell anybody about...
    let mut rig = Rig::running(shape(2, 3), 3);
    rig.sign(0, &prevote(1, 1, 1)).expect("signed");
    rig.run(200);
    let disk = rig.nodes[2].disk.snapshot();
    let copy = rig.add_copy(2, disk);
    rig.partition(&[0, 1, 0, 1]);
    rig.start(copy);
    rig.sign(0, &prevote(2, 1, 1)).expect("signed by 1 and 3");
    // ...unless the copy has to hear two peers before it takes part, and it hears one.
    let refused = rig.sign(1, &prevote(2, 2, 1));
    assert!(refused.is_ok() == rig.double_signed());
    assert!(rig.double_signed(), "an up-to-date copy passes for the cosigner: this is the limit of `auto`");
}

#[test]
fn strict_rejoin_keeps_a_copy_out_while_it_hears_one_peer_only() {
    let mut rig = Rig::running(shape(2, 3), 3);
    rig.rejoin = crate::threshold::cosigner::Rejoin::Strict;
    rig.sign(0, &prevote(1, 1, 1)).expect("signed");
    rig.run(200);
    let disk = rig.nodes[2].disk.snapshot();
    let copy = rig.add_copy(2, disk);
    rig.partition(&[0, 1, 0, 1]);
    rig.start(copy);
    rig.sign(0, &prevote(2, 1, 1)).expect("signed by 1 and 3");
    assert!(matches!(rig.sign(1, &prevote(2, 2, 1)), Err(AskError::NoQuorum(_))));
    assert!(!rig.double_signed());
}

#[test]
fn who_was_merely_away_comes_back_with_one_peer_and_an_old_disk_does_not() {
    let mut rig = Rig::running(shape(2, 3), 3);
    rig.sign(0, &prevote(1, 1, 1)).expect("signed");
    rig.run(200);
    let old = rig.nodes[1].disk.snapshot();
    // The second was away while the others signed, and then the third is gone.
    rig.crash(1);
    rig.sign(0, &prevote(2, 1, 1)).expect("signed by 1 and 3");
    rig.run(200);
    rig.crash(2);
    rig.start(1);
    rig.sign(0, &prevote(3, 1, 1)).expect("signed by 1 and 2");
    rig.run(200);
    // Now its disk is the one from before: it has signed height 3 since.
    rig.crash(1);
    rig.nodes[1].disk = old;
    rig.start(1);
    assert!(matches!(rig.sign(0, &prevote(4, 1, 1)), Err(AskError::NoQuorum(_))));
    rig.start(2);
    rig.run_until("all take part", |rig| rig.nodes.iter().all(|node| node.is_active()));
    rig.sign(1, &prevote(5, 1, 1)).expect("signed");
}

#[test]
fn strict_rejoin_keeps_an_old_disk_out_until_it_has_heard_what_it_forgot() {
    let mut rig = Rig::running(shape(2, 3), 3);
    rig.rejoin = crate::threshold::cosigner::Rejoin::Strict;
    rig.sign(0, &prevote(1, 1, 1)).expect("signed");
    rig.run(200);
    let old = rig.nodes[2].disk.snapshot();
    rig.partition(&[0, 1, 0]);
    rig.sign(0, &prevote(2, 1, 1)).expect("signed by 1 and 3");
    rig.crash(2);
    rig.nodes[2].disk = old;
    rig.partition(&[0, 1, 1]);
    rig.start(2);
    assert!(matches!(rig.sign(1, &prevote(2, 2, 1)), Err(AskError::NoQuorum(_))), "3 has heard 2 alone");
    rig.partition(&[0, 0, 0]);
    rig.run_until("it takes part", |rig| rig.nodes[2].is_active());
    assert_eq!(rig.nodes[2].watermark(), rig.nodes[0].watermark());
    assert!(rig.sign(1, &prevote(2, 2, 1)).is_err() && !rig.double_signed());
}

#[test]
fn whoever_has_heard_of_a_later_life_signs_nothing_with_the_one_before() {
    // A copy of cosigner 3 of five has joined through 2, 4 and 5; the first one still runs, and 1 knows nothing of it.
    let (one, two, first, four, five) = (0, 1, 2, 3, 4);
    let mut rig = Rig::running(shape(3, 5), 3);
    rig.sign(one, &prevote(1, 1, 1)).expect("signed");
    rig.run(500);
    let copy = rig.add_copy(first, rig.nodes[first].disk.snapshot());
    rig.block(&[first], &[two, four, five]);
    rig.block(&[one], &[copy]);
    rig.start(copy);
    rig.run_until("the copy takes part", |rig| rig.nodes[copy].is_active());
    // Now each side has three: with the copy, and with the first one.
    rig.block(&[two, copy, four], &[one, first, five]);
    rig.sign(two, &prevote(2, 2, 1)).expect("signed by 2, the copy of 3, and 4");
    let other = rig.sign(one, &prevote(2, 1, 1));
    assert!(other.is_err() && !rig.double_signed(), "5 has fenced the first: {other:?}");
}

#[test]
fn a_partition_with_two_coordinators_signs_on_one_side_only() {
    for (t, n) in SHAPES {
        let mut rig = Rig::running(shape(t, n), 9);
        let side: Vec<u8> = (0..n).map(|node| u8::from(node < t)).collect();
        rig.partition(&side);
        let (one, other) = (rig.ask(0, &prevote(2, 1, 1)), rig.ask(usize::from(n) - 1, &prevote(2, 2, 1)));
        rig.run_until("answers", |rig| [one, other].iter().all(|ask| rig.answers.contains_key(ask)));
        assert!(rig.answers[&one].is_ok() && rig.answers[&other].is_err(), "{t} of {n}");
        rig.partition(&vec![0; usize::from(n)]);
        rig.sign(usize::from(n) - 1, &prevote(3, 2, 1)).expect("signed after the partition");
        assert!(!rig.double_signed());
    }
}

#[test]
fn a_new_disk_takes_part_only_after_the_others_have_told_it_what_was_signed() {
    let mut rig = Rig::running(shape(2, 3), 4);
    rig.sign(0, &prevote(50, 1, 1)).expect("signed");
    rig.run(200);
    rig.crash(2);
    let fresh = Rig::new(shape(2, 3), 4);
    rig.nodes[2].disk = fresh.nodes[2].disk.snapshot();
    rig.crash(1);
    rig.start(2);
    rig.run(300);
    assert!(!rig.nodes[2].is_active(), "one of two needed peers is up");
    assert!(rig.noted(&Note::Active { fenced_by: 2 }), "at the first start");
    rig.start(1);
    rig.run_until("it takes part", |rig| rig.nodes[2].is_active());
    assert!(rig.nodes[2].watermark() >= rig.nodes[0].watermark());
}

#[test]
fn a_bad_coordinator_cannot_carry_the_guards_away_step_by_step() {
    let mut rig = Rig::running(shape(2, 3), 4);
    rig.sign(0, &prevote(10, 1, 1)).expect("signed");
    rig.run(200);
    // Alone it gets no signature, so each of its requests is measured from height 10.
    rig.crash(1);
    rig.crash(2);
    for (height, good) in [(1000, true), (1010, true), (1011, false), (2000, false)] {
        let result = rig.sign(0, &prevote(height, 1, 1));
        assert_eq!(matches!(result, Err(AskError::NoQuorum(_))), good, "{height}: {result:?}");
    }
    assert_eq!(rig.nodes[0].watermark().height, 1010);
    rig.event(0, Event::JumpAllowed(monosign_protocol::Height(2000)));
    assert!(matches!(rig.sign(0, &prevote(2000, 1, 1)), Err(AskError::NoQuorum(_))));
    let rules = Event::Rules { raw: Default::default(), jump_limit: JumpLimit::Off };
    rig.event(0, rules);
    assert!(matches!(rig.sign(0, &prevote(9000, 1, 1)), Err(AskError::NoQuorum(_))));
}

#[test]
fn as_many_as_may_be_down_may_hang_whichever_they_are() {
    for (t, n) in SHAPES {
        let members: Vec<MemberId> = (1..=n).map(MemberId).collect();
        for hung in subsets(&members, usize::from(n - t)) {
            let mut rig = Rig::running(shape(t, n), 5);
            rig.sign(0, &prevote(1, 1, 1)).expect("signed by all");
            rig.hung = hung.iter().map(|member| usize::from(member.0) - 1).collect();
            let asked = (0..usize::from(n)).rev().find(|node| !rig.hung.contains(node)).expect("one runs");
            for height in 2..5 {
                let signed = rig.sign(asked, &prevote(height, 1, 1));
                assert!(signed.is_ok(), "{t} of {n} without {hung:?}: {signed:?}");
            }
        }
    }
}
