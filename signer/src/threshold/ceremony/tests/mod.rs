//! Ceremonies in memory: hosts with disks and connections that fail when they are told to.

mod cheating;
mod interrupted;
mod rig;

use monosign_protocol::Height;

use super::plan::{Plan, PlanError};
use super::{CeremonyError, Stage};
use crate::threshold::group::Shape;
use crate::threshold::message::Place;
use crate::threshold::rounds::MemberId;
use rig::{Cast, Fault, Host, shape};

#[tokio::test]
async fn a_new_key_is_made_that_no_host_has() {
    for (t, n) in [(2, 3), (3, 5)] {
        let mut cast = Cast::empty(usize::from(n));
        let keys = cast.keys();
        let plan = Plan::generate(rig::chain(), shape(t, n), &keys).expect("a plan");
        for ended in cast.hold(&plan).await {
            assert!(ended.expect("an end").proven.is_some());
        }
        cast.signs(shape(t, n), 1);
    }
}

#[tokio::test]
async fn refreshed_shares_sign_and_the_old_ones_are_refused_with_them_and_alone() {
    let mut cast = Cast::dealt(2, 3, 40).await;
    let before = cast.group(0);
    let old = cast.share_bytes(0);
    let plan = Plan::refresh(before.clone());
    cast.hold_well(&plan).await;
    assert_eq!(cast.group(0).public_key(), before.public_key());
    cast.signs(shape(2, 3), 2);
    // A backup of the old share is put back, with its group file.
    let host = &cast.hosts[0];
    std::fs::write(&host.files.share, old).expect("written");
    std::fs::write(&host.files.group, before.to_json()).expect("written");
    assert_eq!(host.usable_epoch().await, None);
}

#[tokio::test]
async fn the_key_goes_over_to_other_members_and_another_threshold() {
    // Members 1 and 3 stay, 2 leaves, three come; and then back to fewer.
    let mut cast = Cast::dealt(2, 3, 77).await;
    let before = cast.group(0);
    cast.add(3);
    let keys = cast.keys();
    let members = [keys[0], keys[3], keys[2], keys[4], keys[5]];
    let plan = Plan::reshare(before.clone(), shape(3, 5), &members, &[keys[1]]).expect("a plan");
    cast.hold_well(&plan).await;
    let after = cast.group(3);
    assert_eq!((after.public_key(), after.epoch()), (before.public_key(), 2));
    assert!(cast.hosts[1].share().is_none(), "who has left has no share");
    for member in [0, 2, 3, 4, 5] {
        assert!(cast.hosts[member].record().await.0 >= 77, "the guard goes on where the old ones stood");
    }
    let staying: Vec<Host> =
        cast.hosts.drain(..).enumerate().filter(|(i, _)| *i != 1).map(|(_, h)| h).collect();
    cast.hosts = staying;
    cast.signs(shape(3, 5), 2);
    for host in &cast.hosts {
        host.has_taken_part().await;
    }
    let keys = cast.keys();
    let plan = Plan::reshare(after, shape(2, 3), &keys[..3], &[]).expect("a plan");
    cast.hosts.truncate(3);
    cast.hold_well(&plan).await;
    cast.signs(shape(2, 3), 3);
}

#[tokio::test]
async fn the_floor_is_the_highest_guard_of_those_that_retire() {
    let mut cast = Cast::dealt(2, 3, 10).await;
    cast.hosts[1].raise(Place { height: 99, round: 1, step: 2 }).await;
    let plan = Plan::refresh(cast.group(0));
    let ended = cast.hold(&plan).await;
    for (ended, host) in ended.into_iter().zip(&cast.hosts) {
        assert_eq!(ended.expect("an end").floor, Some(Place { height: 99, round: 1, step: 2 }));
        assert_eq!(host.record().await, (99, 1, 2));
    }
}

#[tokio::test]
async fn a_guard_far_above_all_others_is_not_believed_unless_it_is_accepted() {
    let mut cast = Cast::dealt(2, 3, 10).await;
    cast.hosts[1].raise(Place { height: 1 << 40, round: 0, step: 1 }).await;
    let plan = Plan::refresh(cast.group(0));
    for ended in cast.hold(&plan).await {
        let error = ended.expect_err("not believed");
        assert!(matches!(&error, CeremonyError::Unbelievable { who, .. } if who == "cosigner 2"), "{error}");
    }
    for host in &mut cast.hosts {
        assert_eq!(host.usable_epoch().await, None, "neither share signs before it is decided");
        host.accept_floor = Some(Height(1 << 40));
    }
    cast.hold_well(&plan).await;
    cast.signs(shape(2, 3), 2);
}

#[tokio::test]
async fn a_lost_share_is_made_again_and_the_host_is_known_by_its_new_identity() {
    for (t, n, helpers) in [(2, 3, vec![1, 3]), (3, 5, vec![1, 3, 4])] {
        let mut cast = Cast::dealt(t, n, 50).await;
        let group = cast.group(0);
        let lost = cast.hosts[1].share().expect("a share").key_package(&group).expect("its own");
        cast.hosts[1] = Host::new();
        let identity = cast.hosts[1].key();
        let group = std::rc::Rc::new(group.with_identity(MemberId(2), identity).expect("a group"));
        let ids: Vec<MemberId> = helpers.iter().copied().map(MemberId).collect();
        let plan = Plan::repair(group.clone(), MemberId(2), identity, &ids).expect("a plan");
        let mut present = vec![1];
        present.extend(helpers.iter().map(|id| usize::from(*id) - 1));
        for ended in cast.hold_among(&plan, &present).await {
            ended.expect("an end");
        }
        let again = cast.hosts[1].share().expect("a share");
        let again = again.key_package(&group).expect("of the group");
        assert!(again.signing_share() == lost.signing_share());
        assert_eq!(cast.hosts[1].record().await.0, 50);
        assert_eq!(cast.group(0).identity(MemberId(2)), Some(&identity));
    }
}

#[tokio::test]
async fn hosts_that_do_not_mean_the_same_change_nothing() {
    let mut cast = Cast::dealt(2, 3, 10).await;
    let (group, keys) = (cast.group(0), cast.keys());
    let refresh = Plan::refresh(group.clone());
    let reshare = Plan::reshare(group, shape(3, 3), &keys, &[]).expect("a plan");
    let plans = [refresh.clone(), reshare, refresh];
    for ended in cast.hold_each(&plans).await {
        assert!(matches!(ended, Err(CeremonyError::Unequal { .. } | CeremonyError::Meeting(_))), "{ended:?}");
    }
    for host in &cast.hosts {
        assert_eq!(host.usable_epoch().await, Some(1));
    }
}

#[tokio::test]
async fn new_shares_take_everybody_and_the_old_key_takes_a_quorum() {
    let mut cast = Cast::dealt(2, 3, 10).await;
    let group = cast.group(0);
    let plan = Plan::refresh(group.clone());
    for ended in cast.hold_among(&plan, &[0, 1]).await {
        assert!(matches!(ended, Err(CeremonyError::NotAll(who)) if who == "cosigner 3"));
    }
    let (one, others) = (cast.keys()[0], Cast::empty(2).keys());
    let few = Plan::reshare(group, Shape::new(2, 3).expect("allowed"), &[one, others[0], others[1]], &[]);
    assert_eq!(few.err(), Some(PlanError::TooFew { have: 1, need: 2 }));
}

#[tokio::test]
async fn whoever_is_lost_after_shares_were_destroyed_can_be_left_behind() {
    let mut cast = Cast::dealt(2, 3, 10).await;
    let plan = Plan::refresh(cast.group(0));
    // The first host is stopped right after its old share is gone.
    let mut step = 0;
    loop {
        let mut cast = Cast::dealt(2, 3, 10).await;
        let plan = Plan::refresh(cast.group(0));
        cast.hosts[0].fault = Some(Fault { step, is_done: true });
        cast.hold(&plan).await;
        if cast.hosts[0].stage().await == Some(Stage::Retired) {
            break;
        }
        step += 1;
    }
    cast.hosts[0].fault = Some(Fault { step, is_done: true });
    cast.hold(&plan).await;
    // Host 3 is lost for good. The others alone come to an end.
    for ended in cast.hold_among(&plan, &[0, 1]).await {
        ended.expect("an end");
    }
    for host in &cast.hosts[..2] {
        assert_eq!(host.usable_epoch().await, Some(2));
    }
}

/// A reshare by two of the three old members.
async fn by_two_of_three() -> (Cast, Plan) {
    let mut cast = Cast::dealt(2, 3, 10).await;
    cast.add(1);
    let keys = cast.keys();
    let plan = Plan::reshare(cast.group(0), shape(2, 3), &[keys[0], keys[1], keys[3]], &[]).expect("a plan");
    (cast, plan)
}

#[tokio::test]
async fn a_guard_of_a_new_disk_takes_as_many_others_as_a_start_of_it_would() {
    let (mut cast, plan) = by_two_of_three().await;
    cast.hosts[1].has_new_disk().await;
    for ended in cast.hold_among(&plan, &[0, 1, 3]).await {
        let error = ended.expect_err("its guard says nothing, and the third is away");
        assert!(matches!(&error, CeremonyError::NewDisk { who } if who == "cosigner 2"), "{error}");
    }
    for host in &cast.hosts[..2] {
        assert_eq!(host.usable_epoch().await, Some(1), "nothing was changed");
    }
    // With both others it is as good as any.
    let mut cast = Cast::dealt(2, 3, 10).await;
    cast.hosts[1].has_new_disk().await;
    let plan = Plan::refresh(cast.group(0));
    cast.hold_well(&plan).await;
    cast.signs(shape(2, 3), 2);
    assert!(
        cast.hosts[0].is_settled().await && !cast.hosts[1].is_settled().await,
        "a ceremony makes no disk older"
    );
}

#[tokio::test]
async fn fewer_than_t_guards_are_no_floor() {
    // Both old members of the plan have destroyed their shares, and one of them does not come back.
    let (mut cast, mut plan) = by_two_of_three().await;
    let mut step = 0;
    while cast.hosts[1].stage().await != Some(Stage::Retired) {
        (cast, plan) = by_two_of_three().await;
        cast.hosts[1].fault = Some(Fault { step, is_done: true });
        cast.hold_among(&plan, &[0, 1, 3]).await;
        step += 1;
    }
    for ended in cast.hold_among(&plan, &[0, 3]).await {
        let error = ended.expect_err("one guard");
        assert!(matches!(error, CeremonyError::Plan(PlanError::TooFew { have: 1, need: 2 })), "{error}");
    }
    for host in [0, 3] {
        assert_eq!(cast.hosts[host].usable_epoch().await, None, "no share of either epoch signs");
    }
    for ended in cast.hold_among(&plan, &[0, 1, 3]).await {
        ended.expect("both are back");
    }
}

#[tokio::test]
async fn a_share_that_is_made_again_has_a_new_disk_whatever_is_left_of_the_old_one() {
    let mut cast = Cast::dealt(2, 3, 50).await;
    std::fs::remove_file(&cast.hosts[1].files.share).expect("removed");
    assert!(cast.hosts[1].is_settled().await);
    let identity = cast.hosts[1].key();
    let group = cast.group(0).with_identity(MemberId(2), identity).expect("a group");
    let plan = Plan::repair(std::rc::Rc::new(group), MemberId(2), identity, &[MemberId(1), MemberId(3)]);
    for ended in cast.hold(&plan.expect("a plan")).await {
        ended.expect("an end");
    }
    assert!(cast.hosts[0].is_settled().await && !cast.hosts[1].is_settled().await);
}
