//! A host loses power at every input and output in turn. At no moment can both quorums sign, and the same command takes it up.

use std::rc::Rc;

use super::rig::{Cast, Fault, shape, usable};
use crate::threshold::ceremony::plan::Plan;
use crate::threshold::group::Group;

/// Which host it is: one that stays, one that leaves, one that comes.
const STAYS: usize = 0;
const LEAVES: usize = 1;
const COMES: usize = 3;

/// 2 of 3, of which one leaves and another comes; the third old host is away all the time.
async fn succession() -> (Cast, Plan, Rc<Group>) {
    let mut cast = Cast::dealt(2, 3, 33).await;
    let before = cast.group(STAYS);
    cast.add(2);
    let keys = cast.keys();
    let plan =
        Plan::reshare(before.clone(), shape(2, 3), &[keys[STAYS], keys[COMES], keys[4]], &[keys[LEAVES]]);
    (cast, plan.expect("a plan"), before)
}

const PRESENT: [usize; 4] = [STAYS, LEAVES, COMES, 4];

async fn interrupted_at_every_step_by(victim: usize) {
    let mut step = 0;
    loop {
        for is_done in [false, true] {
            let (mut cast, plan, before) = succession().await;
            cast.hosts[victim].fault = Some(Fault { step, is_done });
            let first = cast.hold_among(&plan, &PRESENT).await;
            let (old, new) = (usable(&cast.hosts, 1).await, usable(&cast.hosts, 2).await);
            assert!(old.len() < 2 || new.is_empty(), "step {step} {is_done}: {old:?} and {new:?} could sign");
            let is_over = first.iter().all(Result::is_ok);
            if !is_over {
                take_up(&mut cast, &plan, step, is_done).await;
            }
            assert!(cast.hosts[LEAVES].share().is_none());
            let members = usable(&cast.hosts, 2).await;
            assert_eq!(members.len(), 3, "step {step} {is_done}");
            for host in [STAYS, COMES, 4] {
                assert!(cast.hosts[host].record().await.0 >= 33);
                assert_eq!(cast.group(host).public_key(), before.public_key());
            }
            if is_over && !is_done {
                println!("{step} steps");
                return;
            }
        }
        step += 1;
    }
}

/// The same command again on every host; those that know that it has ended are not needed.
async fn take_up(cast: &mut Cast, plan: &Plan, step: u64, is_done: bool) {
    let mut ended_somewhere = false;
    for host in PRESENT {
        let journal = cast.hosts[host].journal().await;
        ended_somewhere |= journal.epoch == 2 && journal.ceremony.is_none();
    }
    if ended_somewhere {
        // All have told all that their new shares are in their places; some did not write down that they heard it.
        assert_eq!(usable(&cast.hosts, 2).await.len(), 3, "step {step} {is_done}");
        return;
    }
    // What starts at once after a loss of power, as systemd does it, and has the new share already.
    let mut running = Vec::new();
    for host in PRESENT {
        if cast.hosts[host].usable_epoch().await == Some(2) {
            running.push(cast.hosts[host].start().await);
        }
    }
    for ended in cast.hold_among(plan, &PRESENT).await {
        if let Err(error) = ended {
            panic!("step {step} {is_done}: {error}");
        }
    }
    assert!(usable(&cast.hosts, 1).await.len() <= 1, "only who was away has an old share");
}

#[tokio::test]
async fn who_stays_may_lose_power_at_any_step() {
    interrupted_at_every_step_by(STAYS).await;
}

#[tokio::test]
async fn who_leaves_may_lose_power_at_any_step() {
    interrupted_at_every_step_by(LEAVES).await;
}

#[tokio::test]
async fn who_comes_may_lose_power_at_any_step() {
    interrupted_at_every_step_by(COMES).await;
}

#[tokio::test]
async fn the_making_of_a_key_may_be_interrupted_at_any_step() {
    let mut step = 0;
    loop {
        let mut cast = Cast::empty(3);
        let keys = cast.keys();
        let plan = Plan::generate(super::rig::chain(), shape(2, 3), &keys).expect("a plan");
        cast.hosts[1].fault = Some(Fault { step, is_done: step % 2 == 0 });
        let first = cast.hold(&plan).await;
        let is_over = first.iter().all(Result::is_ok);
        // Who knows that all have it has nothing to take up.
        let has_ended = |host: &super::rig::Host| host.share().is_some() && !host.files.journal.exists();
        if !is_over && !cast.hosts.iter().any(has_ended) {
            cast.hold_well(&plan).await;
        }
        cast.signs(shape(2, 3), 1);
        if is_over {
            return;
        }
        step += 1;
    }
}

#[tokio::test]
async fn a_repair_may_be_interrupted_at_any_step() {
    use crate::threshold::rounds::MemberId;
    for victim in [0, 1] {
        let mut step = 0;
        loop {
            let mut cast = Cast::dealt(2, 3, 12).await;
            cast.hosts[1] = super::rig::Host::new();
            let identity = cast.hosts[1].key();
            let group = cast.group(0).with_identity(MemberId(2), identity).expect("a group");
            let plan = Plan::repair(Rc::new(group), MemberId(2), identity, &[MemberId(1), MemberId(3)]);
            let plan = plan.expect("a plan");
            cast.hosts[victim].fault = Some(Fault { step, is_done: step % 2 == 0 });
            let is_over = cast.hold(&plan).await.iter().all(Result::is_ok);
            if !is_over {
                cast.hold_well(&plan).await;
            }
            cast.signs(shape(2, 3), 1);
            if is_over {
                break;
            }
            step += 1;
        }
    }
}
