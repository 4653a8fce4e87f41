//! A malicious or strange member, and what it costs the others: nothing that lasts.

use std::path::Path;
use std::time::Duration;

use super::cheating::Cheat;
use super::rig::{MemoryDisk, Rig, chain, now, precommit, prevote};
use super::signing::shape;
use crate::guard::{JumpLimit, Watermark};
use crate::record::{Header, Record};
use crate::threshold::asked::Subject;
use crate::threshold::cosigner::{AskError, ConnId, Event, Note, PEERS_JUMP};
use crate::threshold::incarnation::{Incarnation, Lives};
use crate::threshold::message::{Claim, Hello, Place, Reply, Request, VERSION, Why};
use crate::threshold::rounds::MemberId;

/// Lets time pass.
fn idle(rig: &mut Rig, time: Duration) {
    let until = rig.time + time;
    for _ in 0..2_000_000 {
        if rig.time >= until {
            return;
        }
        rig.step();
    }
    panic!("time does not pass");
}

/// How long a node waits for each of some signatures that are asked for with a pause between them.
fn waits(rig: &mut Rig, heights: std::ops::Range<i64>, pause: Duration) -> Vec<Duration> {
    let mut waits = Vec::new();
    for height in heights {
        let begin = rig.time;
        rig.sign(0, &prevote(height, 1, 1)).expect("signed");
        waits.push(rig.time - begin);
        idle(rig, pause);
    }
    waits
}

#[test]
fn one_that_gives_no_shares_is_asked_last_until_it_gives_one_in_time() {
    for pause in [1, 3, 60] {
        let mut rig = Rig::running(shape(3, 4), 9);
        // It answers everything else.
        rig.tamper = Some(Box::new(|node, reply| {
            if let (1, Reply::Share { .. }) = (node, &*reply) {
                *reply = Reply::Pong(u64::MAX);
            }
        }));
        let pause = Duration::from_secs(pause);
        let waits = waits(&mut rig, 1..21, pause);
        let slow = waits.iter().filter(|wait| **wait >= Duration::from_millis(25)).count();
        assert!(slow <= 1, "with {pause:?} between signatures: {waits:?}");
        // To come again does not help it.
        rig.crash(1);
        rig.start(1);
        rig.run_until("it is back", |rig| rig.nodes[1].is_active());
        idle(&mut rig, Duration::from_secs(2));
        let begin = rig.time;
        rig.sign(0, &prevote(30, 1, 1)).expect("signed");
        assert!(rig.time - begin < Duration::from_millis(25));
        assert!(rig.suspects(0).contains(&MemberId(2)));
        // A drill, for which nobody waits, shows that it is better now.
        rig.tamper = None;
        idle(&mut rig, Duration::from_secs(1200));
        assert!(rig.suspects(0).is_empty());
    }
}

#[test]
fn a_share_that_comes_too_late_ends_no_suspicion() {
    let mut rig = Rig::running(shape(2, 3), 3);
    rig.sign(0, &prevote(1, 1, 1)).expect("signed");
    idle(&mut rig, Duration::from_secs(2));
    let ask = rig.ask(0, &prevote(2, 1, 1));
    let asked = shares_asked(&rig, 0)[0];
    rig.hung.insert(asked);
    rig.run_until("an answer", |rig| rig.answers.contains_key(&ask));
    let slow = rig.nodes[asked].member;
    assert_eq!(rig.suspects(0), [slow]);
    rig.hung.clear();
    // It hears of the request now, and its share comes, which nobody needs any more.
    idle(&mut rig, Duration::from_millis(500));
    assert!(rig.under_way(0).is_empty());
    assert_eq!(rig.suspects(0), [slow]);
    // A drill two seconds later is in time.
    idle(&mut rig, Duration::from_secs(5));
    assert!(rig.suspects(0).is_empty());
}

#[test]
fn a_hedge_asks_others_than_those_that_it_waits_for() {
    let mut rig = Rig::running(shape(3, 5), 3);
    rig.sign(0, &prevote(1, 1, 1)).expect("signed");
    idle(&mut rig, Duration::from_secs(2));
    let ask = rig.ask(0, &prevote(2, 1, 1));
    let first: Vec<usize> = shares_asked(&rig, 0);
    assert_eq!(first.len(), 2);
    rig.hung.extend(first.iter().copied());
    let begin = rig.time;
    rig.run_until("an answer", |rig| rig.answers.contains_key(&ask));
    assert!(rig.answers[&ask].is_ok(), "{:?}", rig.answers[&ask]);
    assert!(rig.time - begin < Duration::from_millis(50), "by the second set: {:?}", rig.time - begin);
    // Where there are no others, nobody is asked again who owes a share of the same message.
    let mut rig = Rig::running(shape(3, 4), 3);
    rig.sign(0, &prevote(1, 1, 1)).expect("signed");
    idle(&mut rig, Duration::from_secs(2));
    let ask = rig.ask(0, &prevote(2, 1, 1));
    let first: Vec<usize> = shares_asked(&rig, 0);
    rig.hung.extend(first.iter().copied());
    rig.run_until("an answer", |rig| rig.answers.contains_key(&ask));
    assert_eq!(shares_asked(&rig, 0), first);
}

/// A set of signers that was asked for is asked once, however slow it is: nobody else may sign.
#[test]
fn a_drill_that_hangs_is_not_asked_for_again_and_again() {
    let mut rig = Rig::running(shape(2, 3), 3);
    rig.run(300);
    rig.hung.insert(1);
    let ask = rig.ask_of(0, &Subject::Drill([1; 16]), Some(vec![MemberId(1), MemberId(2)]));
    rig.run_until("an answer", |rig| rig.answers.contains_key(&ask));
    let refused = rig.answers[&ask].clone().expect_err("nobody has signed").to_string();
    assert!(refused.contains("cosigner 2 has not answered in time"), "{refused}");
    assert_eq!(shares_asked(&rig, 0), [1], "one request");
}

/// Whom a node has asked for shares, as far as they have not heard it.
fn shares_asked(rig: &Rig, from: usize) -> Vec<usize> {
    let of =
        |(_, to, request): (ConnId, usize, Request)| matches!(request, Request::Share { .. }).then_some(to);
    rig.under_way(from).into_iter().filter_map(of).collect()
}

#[test]
fn a_reply_counts_only_from_the_peer_that_was_asked() {
    let lies = |request| {
        let signed = Reply::Signed { request, message: None, signature: vec![7; 64] };
        let refused = Reply::Refused { request, why: Why::Guard("a lie".into()), proof: None };
        let again = Reply::Refused { request, why: Why::NotActive, proof: None };
        [signed, refused, again, Reply::Share { request, share: vec![7; 32] }]
    };
    for lie in 0..4 {
        // As a signer, and as a coordinator: what is asked of member 1 is answered by another.
        for node in [0, 1] {
            let mut rig = Rig::running(shape(3, 5), 3);
            rig.sign(node, &prevote(1, 1, 1)).expect("signed");
            rig.run(300);
            let ask = rig.ask(node, &prevote(2, 1, 1));
            let asked = rig.under_way(node);
            let (_, to, request) = asked
                .iter()
                .find_map(|(conn, to, request)| match request {
                    Request::Share { request, .. } | Request::Forward { request, .. } => {
                        Some((*conn, *to, *request))
                    }
                    _ => None,
                })
                .expect("somebody is asked");
            let liar = (0..5).find(|other| ![node, to].contains(other)).expect("another");
            let (conn, reply) = (rig.conn(node, liar), lies(request)[lie].clone());
            rig.event(node, Event::Reply { conn, reply });
            assert_eq!(rig.under_way(node), asked, "nobody else is asked for lie {lie}");
            let begin = rig.time;
            rig.run_until("an answer", |rig| rig.answers.contains_key(&ask));
            assert!(rig.answers[&ask].is_ok(), "{:?}", rig.answers[&ask]);
            assert_eq!(rig.time, begin, "nothing was waited for");
            assert!(!rig.notes.iter().any(|(_, note)| matches!(note, Note::BadShare(_) | Note::Slow(_))));
        }
    }
}

/// A member of a group whose own limit of jumps is what it is unless somebody says otherwise.
fn with_usual_limit() -> Rig {
    let mut rig = Rig::new(shape(3, 4), 8);
    rig.jump_limit = JumpLimit::Heights(100_000);
    for node in 0..4 {
        rig.start(node);
    }
    rig.run_until("all take part", |rig| rig.nodes.iter().all(|node| node.is_active()));
    rig.sign(1, &prevote(10, 1, 1)).expect("signed");
    rig.run(300);
    rig
}

#[test]
fn a_peer_carries_guards_a_thousand_heights_and_no_further_and_is_named() {
    let mut rig = with_usual_limit();
    let mut cheat = Cheat::in_place_of(&mut rig, 0);
    let limit = i64::try_from(PEERS_JUMP).expect("small");
    for far in [100_000, 10 + limit + 500] {
        let refused = cheat.try_to_sign(&mut rig, &[1, 2], &prevote(far, 1, 1));
        assert!(matches!(&refused, Err(Why::Guard(why)) if why.contains("above")), "{refused:?}");
        assert_eq!(rig.nodes[1].watermark().height, 10);
    }
    let _ = cheat.try_to_sign(&mut rig, &[1, 2], &prevote(10 + limit, 1, 1));
    assert_eq!(rig.nodes[1].watermark().height, 10 + limit);
    let names = |(node, note): &(usize, Note)| match note {
        Note::Carried { member, by, .. } => *node == 1 && *member == MemberId(1) && *by == limit,
        _ => false,
    };
    assert!(rig.notes.iter().any(names), "{:?}", rig.notes);
    // Whoever is refused for it hears it again.
    rig.notes.clear();
    let refused = rig.sign(1, &prevote(11, 1, 1));
    assert!(matches!(refused, Err(AskError::Refused(_))), "{refused:?}");
    assert!(rig.notes.iter().any(names), "{:?}", rig.notes);
    // Asking again and again carries no guard on.
    for more in 1..8 {
        let _ = cheat.try_to_sign(&mut rig, &[1, 2], &prevote(10 + limit + 100 * more, 1, 1));
    }
    assert_eq!(rig.nodes[1].watermark().height, 10 + limit);
    // The chain gets there, and all is well.
    rig.sign(1, &prevote(11 + limit, 1, 1)).expect("signed by the other three");
}

#[test]
fn what_our_own_chain_asks_for_may_be_as_far_ahead_as_the_limit_says() {
    let mut rig = with_usual_limit();
    // The chain went on while the group could not sign, and each of its nodes asks.
    let asks: Vec<u64> = (0..4).map(|node| rig.ask(node, &prevote(60_000, 1, 1))).collect();
    rig.run_until("answers", |rig| asks.iter().all(|ask| rig.answers.contains_key(ask)));
    assert!(asks.iter().any(|ask| rig.answers[ask].is_ok()), "{:?}", rig.answers);
    rig.sign(0, &precommit(60_000, 1, 1)).expect("signed");
    let refused = rig.sign(1, &prevote(160_001, 1, 1));
    assert!(matches!(refused, Err(AskError::Refused(_))), "{refused:?}");
}

#[test]
fn one_that_was_away_for_long_serves_at_once_since_signatures_prove_how_far_the_chain_is() {
    let mut rig = with_usual_limit();
    rig.crash(3);
    for height in (1000..50_000).step_by(990) {
        rig.sign(0, &prevote(height, 1, 1)).expect("signed without it");
        rig.run(30);
    }
    rig.start(3);
    rig.run_until("it takes part", |rig| rig.nodes[3].is_active());
    rig.crash(2);
    rig.sign(0, &prevote(50_100, 1, 1)).expect("signed with it");
}

/// No validator asks it, so it has to believe what others ask for.
#[test]
fn one_without_a_validator_follows_after_an_outage_of_the_whole_group_in_the_time_that_its_chain_took() {
    let mut rig = with_usual_limit();
    let far = prevote(10 + 2500, 1, 1);
    let refused = rig.sign(1, &far).expect_err("too far for the others");
    assert!(refused.to_string().contains("height jump"), "{refused}");
    idle(&mut rig, Duration::from_secs(800));
    rig.sign(1, &prevote(10 + 2501, 1, 1)).expect("they believe it by now");
}

#[test]
fn one_that_joins_believes_a_guard_within_its_limit_and_names_who_had_it() {
    let mut rig = with_usual_limit();
    let claimed = Place { height: 90_000, round: 0, step: 0 };
    rig.crash(3);
    rig.tamper = Some(Box::new(move |node, reply| {
        if let (0, Reply::Welcome(welcome)) = (node, reply) {
            welcome.guard = Claim { place: claimed, message: None };
        }
    }));
    rig.start(3);
    rig.run_until("it takes part", |rig| rig.nodes[3].is_active());
    assert_eq!(rig.nodes[3].watermark(), claimed);
    let names = |(node, note): &(usize, Note)| match note {
        Note::Carried { member, place, .. } => *node == 3 && *member == MemberId(1) && *place == claimed,
        _ => false,
    };
    assert!(rig.notes.iter().any(names), "{:?}", rig.notes);
}

fn hello(rig: &Rig, incarnation: Incarnation) -> Request {
    let group = rig.group.verifying_key().to_bytes();
    let seen_of_you = Place::default();
    Request::Hello(Hello { versions: (VERSION, VERSION), group, epoch: 1, incarnation, seen_of_you })
}

/// Somebody has the identity key of a member whose host is down, and says hello in its name.
fn claims(rig: &mut Rig, of: usize, at: usize, count: u64) {
    let conn = ConnId(1_000_000 + rig.random.next() % 1_000_000_000);
    let member = rig.nodes[of].member;
    let request = hello(rig, Incarnation { count, id: u64::MAX });
    rig.event(at, Event::Accepted { conn, member });
    rig.event(at, Event::Request { conn, request });
    rig.event(at, Event::Closed { conn });
}

/// A host with nothing but its share and a record, as `repair` makes it.
fn new_disk(rig: &mut Rig, node: usize) {
    let disk = MemoryDisk::default();
    let header = Header { chain_id: chain(), public_key: rig.group.verifying_key().to_bytes() };
    drop(now(Record::create(&disk, Path::new("/record"), header, Watermark::default())).expect("a record"));
    rig.nodes[node].disk = disk;
}

#[test]
fn claimed_lives_lock_no_member_out_neither_where_it_was_nor_on_a_new_disk() {
    // Once, often, and at some of the others only.
    for (times, victims) in [(1, 0..3), (50, 0..3), (50, 0..1), (50, 1..3)] {
        for is_new in [false, true] {
            let mut rig = Rig::running(shape(3, 4), 4);
            rig.crash(3);
            for _ in 0..times {
                for victim in victims.clone() {
                    claims(&mut rig, 3, victim, u64::MAX);
                }
                rig.time += Duration::from_millis(100);
            }
            if is_new {
                new_disk(&mut rig, 3);
            }
            rig.start(3);
            let what = format!("{times} claims at {victims:?}, new disk: {is_new}");
            rig.run_until(&what, |rig| rig.nodes[3].is_active());
            // All of the others are let in by it, and let it in; but one that is alone with what it was told is not believed.
            for node in (0..4).filter(|_| times == 1 || victims.len() > 1) {
                rig.run_until(&what, |rig| rig.is_connected(node));
            }
            rig.crash(0);
            rig.sign(1, &prevote(5, 1, 1)).expect("signed with it");
        }
    }
}

#[test]
fn one_that_lies_about_far_lives_of_another_does_not_lock_it_out() {
    for is_new in [false, true] {
        let mut rig = Rig::running(shape(3, 4), 4);
        rig.tamper = Some(Box::new(|node, reply| {
            if let (0, Reply::Welcome(_)) = (node, &*reply) {
                *reply = Reply::Fenced(Incarnation { count: u64::MAX - 1, id: 0 });
            }
        }));
        rig.crash(3);
        if is_new {
            new_disk(&mut rig, 3);
        }
        rig.start(3);
        rig.run_until("it takes part", |rig| rig.nodes[3].is_active());
        let lives = now(Lives::load(&rig.nodes[3].disk, &Lives::path(Path::new("/record"))));
        let own = lives.expect("lives").expect("a file").own;
        assert!(own.count < 1000, "{own:?}");
    }
}

#[test]
fn new_lives_of_one_member_are_heard_of_so_often_and_no_more() {
    let mut rig = Rig::running(shape(3, 4), 4);
    rig.crash(3);
    let known = |rig: &Rig| {
        let lives = now(Lives::load(&rig.nodes[0].disk, &Lives::path(Path::new("/record"))));
        lives.expect("lives").expect("a file").peers[&MemberId(4)].count
    };
    let before = known(&rig);
    for count in 1..=1000 {
        claims(&mut rig, 3, 0, before + count);
    }
    assert!(known(&rig) <= before + 64, "each is a write to the disk: {}", known(&rig) - before);
}

#[test]
fn what_peers_say_is_cut_and_escaped_before_it_is_passed_on() {
    let mut rig = Rig::running(shape(3, 4), 4);
    rig.tamper = Some(Box::new(|node, reply| {
        if let (1 | 2, Reply::Share { request, .. }) = (node, &*reply) {
            let why = Why::Guard("\u{1b}[2J\n\u{202e}".repeat(2000));
            *reply = Reply::Refused { request: *request, why, proof: None };
        }
    }));
    let refused = rig.sign(0, &prevote(5, 1, 1)).expect_err("two of four refuse").to_string();
    assert!(refused.len() < 3000, "{} bytes", refused.len());
    assert!(refused.chars().all(|c| c == ' ' || c.is_ascii_graphic()), "{refused}");
}

#[test]
fn drills_are_not_passed_on() {
    let mut rig = Rig::running(shape(3, 4), 4);
    let mut cheat = Cheat::in_place_of(&mut rig, 3);
    let request = Request::Forward { request: 1, subject: Subject::Drill([1; 16]) };
    let replies = cheat.say(&mut rig, 0, request);
    assert!(matches!(&replies[..], [Reply::Refused { why: Why::Malformed(_), .. }]), "{replies:?}");
    assert!(rig.under_way(0).is_empty(), "and nobody is asked for shares");
}
