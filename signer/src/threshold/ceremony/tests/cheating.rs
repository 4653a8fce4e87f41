//! Hosts that say what is not so: they are named, and nothing is changed.

use std::rc::Rc;

use super::rig::{Cast, Forge, shape};
use crate::threshold::ceremony::meeting::Round;
use crate::threshold::ceremony::plan::{Key, Plan};
use crate::threshold::ceremony::{CeremonyError, Stage, Unequal};

/// Changes what is said in one round to one host.
fn lie(round: Round, to: Key) -> Forge {
    Rc::new(move |of, whom, mut body: Vec<u8>| {
        if of == round && *whom == to {
            // The last byte but a few: within a scalar or a point, and not its top bits.
            let at = body.len() - 8;
            body[at] ^= 1;
        }
        body
    })
}

/// What the host that was lied to says, after nobody has gone further than before.
async fn lied_to(round: Round, plan: impl Fn(&Cast) -> Plan) -> CeremonyError {
    let mut cast = Cast::dealt(2, 3, 10).await;
    let plan = plan(&cast);
    cast.hosts[0].forge = Some(lie(round, cast.keys()[2]));
    let mut ended = cast.hold(&plan).await;
    for host in &cast.hosts {
        assert_eq!(host.usable_epoch().await, Some(1));
        // Those that were told the truth may have put their new shares by: nobody relies on them.
        assert!(host.stage().await <= Some(Stage::Staged));
    }
    ended.remove(2).expect_err("it was lied to")
}

fn refresh(cast: &Cast) -> Plan {
    Plan::refresh(cast.group(0))
}

fn reshare(cast: &Cast) -> Plan {
    Plan::reshare(cast.group(0), shape(2, 3), &cast.keys(), &[]).expect("a plan")
}

#[tokio::test]
async fn a_part_that_does_not_fit_its_commitment_names_its_dealer() {
    for plan in [refresh, reshare] {
        let error = lied_to(Round::Deal, plan).await;
        assert!(
            matches!(&error, CeremonyError::Unequal { who, what: Unequal::Dealt } if who == "cosigner 1"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn who_tells_two_hosts_two_things_is_found_out_before_anything_is_dealt() {
    for round in [Round::Hello, Round::Commit, Round::ProveNonces] {
        for plan in [refresh, reshare] {
            let error = lied_to(round, plan).await;
            assert!(matches!(error, CeremonyError::Unequal { .. }), "{round:?}: {error}");
        }
    }
}

#[tokio::test]
async fn a_trial_signature_with_a_bad_share_names_who_gave_it() {
    let error = lied_to(Round::ProveShares, refresh).await;
    assert!(error.to_string().contains("bad signature shares from 1"), "{error}");
}

#[tokio::test]
async fn a_dealer_that_shares_out_another_number_than_its_share_is_found_out() {
    // To all, so that all agree; only its verifying share speaks against it.
    let mut cast = Cast::dealt(2, 3, 10).await;
    let plan = reshare(&cast);
    let forge: Forge = Rc::new(|of, _, mut body: Vec<u8>| {
        if of == Round::Commit {
            // The two coefficients change places.
            let len = body.len();
            body[len - 64..].rotate_left(32);
        }
        body
    });
    cast.hosts[0].forge = Some(forge);
    let ended = cast.hold(&plan).await;
    for host in &cast.hosts {
        assert_eq!(host.usable_epoch().await, Some(1));
    }
    let error = ended.into_iter().nth(2).and_then(Result::err).expect("found out");
    // Its own copy is another one than everybody else's, which is what the echo says; either way nothing is done.
    assert!(matches!(error, CeremonyError::Unequal { .. }), "{error}");
}
