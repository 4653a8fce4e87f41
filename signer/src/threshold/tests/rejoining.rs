//! The argument of the module on rejoining, one test for each of its sentences.

use std::path::Path;

use monosign_protocol::{Height, Round};

use super::rig::{LIVES, RECORD, Rig, chain, now, prevote};
use super::signing::{SHAPES, shape};
use crate::guard::Watermark;
use crate::record::Record;
use crate::threshold::cosigner::{AskError, ConnId, Effect, Event, Note, Rejoin};
use crate::threshold::incarnation::{Incarnation, Lives};
use crate::threshold::message::{Hello, Place, Reply, Request, VERSION};

/// 2 of 3 that have signed height 1; what they sign later, one of them has to forget.
fn group(seed: u64) -> Rig {
    let mut rig = Rig::running(shape(2, 3), seed);
    rig.sign(0, &prevote(1, 1, 1)).expect("signed");
    rig.run(300);
    rig
}

/// A start that is stopped again after some seconds.
fn lonely_start(rig: &mut Rig, node: usize) {
    rig.start(node);
    rig.run(300);
    assert!(!rig.nodes[node].is_active(), "{}", rig.nodes[node].state());
    rig.crash(node);
}

fn waits(rig: &mut Rig, node: usize) {
    rig.run(600);
    assert!(!rig.nodes[node].is_active(), "it takes part");
}

fn joins(rig: &mut Rig, node: usize) {
    rig.run_until("it takes part", |rig| rig.nodes[node].is_active());
}

#[test]
fn with_n_minus_t_plus_one_answers_one_of_any_session_of_an_earlier_life_has_answered() {
    for (t, n) in [SHAPES.as_slice(), &[(4, 5), (4, 6), (5, 9), (7, 9)]].concat() {
        let (others, answers) = (usize::from(n) - 1, shape(t, n).rejoin_quorum());
        assert!(usize::from(t) - 1 + answers > others, "{t} of {n}");
        assert!(usize::from(t) - 1 + answers - 1 <= others, "{t} of {n} ask for one too many");
    }
}

#[test]
fn a_peer_refuses_earlier_lives_durably_before_it_answers() {
    // That it is durable at the welcome, the rig sees at every welcome of every test. What it is good for:
    let mut rig = group(4);
    let before = rig.nodes[0].disk.snapshot();
    for _ in 0..2 {
        rig.crash(0);
        rig.start(0);
        joins(&mut rig, 0);
    }
    rig.crash(0);
    // A peer that has heard of the later life is started anew, and still refuses the one before.
    rig.crash(1);
    rig.start(1);
    let copy = rig.add_copy(0, before);
    rig.partition(&[0, 0, 1, 0]);
    rig.start(copy);
    rig.run(300);
    let told = |(node, note): &(usize, Note)| {
        *node == copy && matches!(note, Note::Waiting { because, .. } if because.contains("a later start"))
    };
    assert!(rig.notes.iter().any(told) && !rig.nodes[copy].is_active());
}

#[test]
fn a_new_disk_is_new_until_enough_have_answered_whatever_starts_come_between() {
    for lonely in [0, 1, 2, 5] {
        let mut rig = group(4);
        rig.crash(1);
        rig.sign(0, &prevote(102, 1, 1)).expect("signed by 1 and 3");
        rig.run(300);
        rig.crash(0);
        rig.crash(2);
        rig.nodes[0].disk = Rig::new(shape(2, 3), 4).nodes[0].disk.snapshot();
        for _ in 0..lonely {
            lonely_start(&mut rig, 0);
        }
        rig.start(1);
        for _ in 0..lonely {
            lonely_start(&mut rig, 0);
        }
        rig.start(0);
        waits(&mut rig, 0);
        for node in [0, 1] {
            assert!(matches!(rig.sign(node, &prevote(102, 2, 1)), Err(AskError::NoQuorum(_))), "{lonely}");
        }
        rig.start(2);
        joins(&mut rig, 0);
        assert_eq!(rig.nodes[0].watermark().height, 102);
        assert!(rig.sign(0, &prevote(102, 2, 1)).is_err() && !rig.double_signed());
        // From now on it is a disk like any other.
        rig.crash(0);
        rig.crash(2);
        rig.start(0);
        joins(&mut rig, 0);
    }
}

#[test]
fn the_answers_are_those_of_one_start() {
    let mut rig = group(5);
    rig.crash(0);
    rig.nodes[0].disk = Rig::new(shape(2, 3), 5).nodes[0].disk.snapshot();
    rig.partition(&[0, 0, 1]);
    lonely_start(&mut rig, 0);
    rig.partition(&[0, 1, 0]);
    rig.start(0);
    waits(&mut rig, 0);
    rig.partition(&[0, 0, 0]);
    joins(&mut rig, 0);
}

#[test]
fn that_the_others_are_needed_outlives_a_restart() {
    let mut rig = group(6);
    let old = rig.nodes[0].disk.snapshot();
    rig.partition(&[0, 0, 1]);
    rig.sign(0, &prevote(2, 1, 1)).expect("signed by 1 and 2");
    rig.run(300);
    rig.partition(&[0, 1, 0]);
    rig.sign(0, &prevote(3, 1, 1)).expect("signed by 1 and 3");
    rig.run(300);
    rig.crash(0);
    rig.nodes[0].disk = old;
    // The second knows of one signature that the disk does not, tells so, and forgets it.
    rig.partition(&[0, 0, 1]);
    lonely_start(&mut rig, 0);
    assert!(!rig.nodes[0].lives().settled);
    rig.crash(1);
    rig.start(1);
    rig.start(0);
    waits(&mut rig, 0);
    assert!(matches!(rig.sign(1, &prevote(3, 2, 1)), Err(AskError::NoQuorum(_))));
    assert!(!rig.double_signed());
}

#[test]
fn what_was_adopted_while_joining_is_no_memory_of_this_disk() {
    let mut rig = group(7);
    let old = rig.nodes[0].disk.snapshot();
    rig.partition(&[0, 0, 1]);
    rig.sign(0, &prevote(2, 1, 1)).expect("signed by 1 and 2");
    rig.run(300);
    rig.crash(0);
    rig.partition(&[1, 0, 0]);
    rig.sign(1, &prevote(3, 1, 1)).expect("signed by 2 and 3");
    rig.run(300);
    rig.nodes[0].disk = old;
    // The third tells it where the group stands, which is above what it has forgotten.
    rig.partition(&[0, 1, 0]);
    rig.start(0);
    rig.run_until("it stands at 3", |rig| rig.nodes[0].watermark().height == 3);
    assert!(!rig.nodes[0].is_active() && rig.nodes[0].lives().settled);
    rig.crash(0);
    rig.partition(&[0, 0, 1]);
    rig.start(0);
    waits(&mut rig, 0);
    let told =
        |note: &(usize, Note)| matches!(&note.1, Note::Waiting { because, .. } if because.contains("2/0/2"));
    assert!(rig.notes.iter().any(told), "{:?}", rig.notes);
}

#[test]
fn a_record_that_was_put_in_the_place_of_a_later_one_makes_the_disk_an_old_one() {
    let mut rig = group(8);
    let old = rig.nodes[0].disk.file(RECORD);
    rig.sign(0, &prevote(2, 1, 1)).expect("signed");
    rig.crash(0);
    rig.start(0);
    joins(&mut rig, 0);
    rig.crash(0);
    rig.crash(2);
    rig.nodes[0].disk.put(RECORD, &old);
    rig.start(0);
    waits(&mut rig, 0);
}

#[test]
fn a_record_that_is_made_anew_makes_the_disk_a_new_one_and_keeps_its_fences() {
    let rig = group(8);
    let disk = rig.nodes[0].disk.snapshot();
    let before = rig.nodes[0].lives();
    assert!(before.settled && !before.peers.is_empty());
    now(Lives::unsettle(&disk, Path::new(RECORD))).expect("stored");
    let after = now(Lives::load(&disk, Path::new(LIVES))).expect("readable").expect("a file");
    assert_eq!(after, Lives { settled: false, ..before });
}

#[test]
fn a_file_that_does_not_say_that_it_has_heard_the_others_has_not() {
    let mut rig = group(8);
    rig.crash(0);
    rig.crash(2);
    rig.nodes[0].disk.put(LIVES, br#"{"own":{"count":7,"id":1},"peers":{"2":{"count":1,"id":1}}}"#);
    rig.start(0);
    waits(&mut rig, 0);
    rig.start(2);
    joins(&mut rig, 0);
}

#[test]
fn who_was_accused_asks_the_others_at_its_next_start() {
    let mut rig = group(3);
    let copy = rig.add_copy(2, rig.nodes[2].disk.snapshot());
    rig.start(copy);
    rig.run_until("the first stops", |rig| rig.nodes[2].stopped.is_some());
    rig.crash(2);
    rig.crash(copy);
    rig.crash(0);
    rig.crash(1);
    rig.start(0);
    rig.start(2);
    waits(&mut rig, 2);
}

/// The rig's limit is 1000 heights. Node 0 has a disk from height 10, and all the others have come to 4500.
fn old_disk_beyond_the_limit(seed: u64) -> Rig {
    let mut rig = Rig::running(shape(2, 3), seed);
    rig.sign(0, &prevote(10, 1, 1)).expect("signed");
    rig.run(300);
    let old = rig.nodes[0].disk.snapshot();
    for height in [900, 1800, 2700, 3600, 4490] {
        rig.sign(0, &prevote(height, 1, 1)).expect("signed");
        rig.run(300);
    }
    // Node 2 misses one signature.
    rig.partition(&[0, 0, 1]);
    rig.sign(0, &prevote(4500, 1, 1)).expect("signed by 0 and 1");
    rig.crash(1);
    rig.crash(0);
    rig.partition(&[0, 0, 0]);
    rig.nodes[0].disk = old;
    rig.start(1);
    rig
}

#[test]
fn a_guard_too_far_ahead_is_no_answer_until_a_signature_speaks_for_it() {
    for rejoin in [Rejoin::Strict, Rejoin::Auto] {
        for seed in 1..=20 {
            let mut rig = old_disk_beyond_the_limit(seed);
            rig.rejoin = rejoin;
            rig.start(0);
            joins(&mut rig, 0);
            assert_eq!(rig.nodes[0].watermark().height, 4500, "{rejoin:?} {seed}");
            let other = rig.sign(2, &prevote(4500, 2, 1));
            assert!(other.is_err() && !rig.double_signed(), "{rejoin:?} {seed}: {other:?}");
            rig.sign(2, &prevote(4501, 2, 1)).expect("it goes on");
        }
    }
}

/// All have forgotten the last signature: nothing speaks for the guards.
fn nobody_remembers(rejoin: Rejoin) -> Rig {
    let mut rig = old_disk_beyond_the_limit(3);
    rig.rejoin = rejoin;
    rig.crash(2);
    rig.start(2);
    rig.start(0);
    waits(&mut rig, 0);
    rig
}

#[test]
fn a_guard_too_far_ahead_is_no_answer_until_the_operator_allows_the_jump() {
    for rejoin in [Rejoin::Strict, Rejoin::Auto] {
        let mut rig = nobody_remembers(rejoin);
        let says = |rig: &Rig, text: &str| rig.nodes[0].state().contains(text);
        let advice = "run `monosign state allow-jump --chain test-1 --to-height 4500` on this host";
        assert!(says(&rig, advice), "{}", rig.nodes[0].state());
        // Less than that is not enough; to the letter it is.
        rig.nodes[0].disk.put("/record.allow-jump", b"4499\n");
        waits(&mut rig, 0);
        assert_eq!(rig.nodes[0].watermark().height, 10);
        rig.nodes[0].disk.put("/record.allow-jump", b"4500\n");
        joins(&mut rig, 0);
        assert_eq!(rig.nodes[0].watermark().height, 4500);
        assert!(rig.sign(2, &prevote(4500, 2, 1)).is_err() && !rig.double_signed());
    }
}

#[test]
fn a_guard_too_far_ahead_is_no_answer_until_the_operator_raises_the_record() {
    let mut rig = nobody_remembers(Rejoin::Auto);
    rig.crash(0);
    let disk = rig.nodes[0].disk.clone();
    let key = rig.group.verifying_key().to_bytes();
    let mut record = now(Record::open(&disk, Path::new(RECORD), &chain(), &key)).expect("a record");
    now(record.raise(Watermark::floor(Height(4400), Round(0), None))).expect("raised");
    now(Lives::measure_from_record(&disk, Path::new(RECORD))).expect("stored");
    drop(record);
    rig.start(0);
    joins(&mut rig, 0);
    assert_eq!(rig.nodes[0].watermark().height, 4500);
    assert!(rig.sign(2, &prevote(4500, 2, 1)).is_err() && !rig.double_signed());
}

#[test]
fn a_guard_that_was_not_believed_is_not_forgotten_when_its_holder_goes() {
    let mut rig = old_disk_beyond_the_limit(3);
    rig.crash(2);
    rig.start(0);
    waits(&mut rig, 0);
    rig.crash(1);
    waits(&mut rig, 0);
    assert!(rig.nodes[0].state().contains("4500/0/2"), "{}", rig.nodes[0].state());
}

/// One member lies about its guard, in a group that bears that.
fn liar(rig: &mut Rig, guard: Place) {
    rig.tamper = Some(Box::new(move |node, reply| {
        if let (0, Reply::Welcome(welcome)) = (node, reply) {
            (welcome.guard.place, welcome.guard.message) = (guard, None);
        }
    }));
}

#[test]
fn one_that_lies_about_its_guard_keeps_nobody_out_where_one_may_be_malicious() {
    for disk_is_new in [true, false] {
        for rejoin in [Rejoin::Strict, Rejoin::Auto] {
            let mut rig = Rig::running(shape(3, 4), 8);
            rig.sign(1, &prevote(10, 1, 1)).expect("signed");
            rig.run(300);
            rig.crash(3);
            if disk_is_new {
                rig.nodes[3].disk = Rig::new(shape(3, 4), 8).nodes[3].disk.snapshot();
            }
            rig.rejoin = rejoin;
            liar(&mut rig, Place { height: 1 << 40, round: 0, step: 1 });
            rig.start(3);
            joins(&mut rig, 3);
            assert_eq!(rig.nodes[3].watermark().height, 10, "nor is its record carried away");
            rig.sign(3, &prevote(11, 1, 1)).expect("signed");
        }
    }
}

#[test]
fn a_guard_that_contradicts_itself_is_no_answer() {
    let mut rig = group(9);
    rig.crash(2);
    liar(&mut rig, Place { height: 1, round: 0, step: 7 });
    rig.rejoin = Rejoin::Strict;
    rig.start(2);
    waits(&mut rig, 2);
    rig.tamper = None;
    joins(&mut rig, 2);
}

#[test]
fn a_signature_that_is_none_is_no_part_of_an_answer() {
    let mut rig = group(9);
    rig.crash(2);
    rig.tamper = Some(Box::new(|node, reply| {
        if let (0, Reply::Welcome(welcome)) = (node, reply)
            && let Some(proof) = &mut welcome.proof
        {
            proof.signature[0] ^= 1;
        }
    }));
    rig.rejoin = Rejoin::Strict;
    rig.start(2);
    waits(&mut rig, 2);
    rig.tamper = None;
    joins(&mut rig, 2);
}

#[test]
fn an_earlier_life_of_equal_count_is_refused_at_the_door() {
    let mut rig = group(9);
    let (conn, member) = (ConnId(1_000_001), rig.nodes[0].member);
    let known = rig.nodes[1].lives().peers[&member];
    let incarnation = Incarnation { id: known.id - 1, ..known };
    rig.event(1, Event::Accepted { conn, member });
    let hello = Hello {
        versions: (VERSION, VERSION),
        group: rig.group.verifying_key().to_bytes(),
        epoch: 1,
        incarnation,
        seen_of_you: Place::default(),
    };
    let told = rig.event(1, Event::Request { conn, request: Request::Hello(hello) });
    let is_refusal =
        |effect: &Effect| matches!(effect, Effect::Reply { reply: Reply::Fenced(of), .. } if *of == known);
    assert!(told.iter().any(is_refusal), "{told:?}");
    let is_welcome = |effect: &Effect| matches!(effect, Effect::Reply { reply: Reply::Welcome(_), .. });
    assert!(!told.iter().any(is_welcome));
}
