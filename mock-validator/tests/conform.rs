//! The truth of the conformance suite: a signer that is right passes all of it, and one with a fault fails the case that
//! names the rule.

mod faulty;

use std::collections::BTreeSet;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use faulty::{Fault, Faulty, expected::EXPECTED, street::Place};
use mock_validator::conform::{self, Level, Limits, Options, Outcome, Summary};
use monosign_protocol::{Dialect, Height, message::Timestamp};

const CHAIN: &str = "test-chain";

/// Runs the suite on a signer in memory.
fn try_on(fault: Option<Fault>, dialect: Dialect) -> Summary {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let dir = tempfile::tempdir().expect("a directory");
    let places = vec![Place::new(), Place::new()];
    let process = Faulty::new(CHAIN, fault, places.clone(), dir.path().join("state"));
    let mut fresh = 0u64;
    let options = Options {
        chain_id: CHAIN.parse().expect("a chain id"),
        dialect,
        first_height: Height(100),
        expected_key: Some(Faulty::key().verifying_key()),
        doors: places.into_iter().map(|place| Box::new(place) as _).collect(),
        process: Some(Box::new(process)),
        only: Vec::new(),
        signatures: 120,
        limits: Limits { wait: Duration::from_secs(5), ..Limits::default() },
        start: Timestamp { seconds: 1_700_000_000, nanos: 0 },
        seed: [7; 32],
        identity: SigningKey::from_bytes(&[4; 32]),
        entropy: Box::new(move || {
            fresh += 1;
            let mut bytes = [5; 32];
            bytes[8..16].copy_from_slice(&fresh.to_le_bytes());
            bytes
        }),
    };
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, conform::run(options, |_| {})).expect("a summary")
}

fn failed(summary: &Summary) -> Vec<&'static str> {
    let failed = |finding: &&conform::Finding| matches!(finding.outcome, Outcome::Failed { .. });
    summary.results.iter().filter(failed).map(|finding| finding.id).collect()
}

/// What no fault can show: a right signer cannot tell an old copy of its state, and there is no noise in memory.
const NOT_COUNTABLE: [&str; 2] = ["state/copied-back", "situation/L9-noise"];

#[test]
fn a_right_signer_passes_all_of_it_in_every_dialect() {
    for dialect in Dialect::ALL {
        let summary = try_on(None, dialect);
        assert!(summary.is_conformant(), "{dialect}: {:?}", failed(&summary));
        assert_eq!(failed(&summary), ["state/copied-back"], "{dialect}");
    }
}

#[test]
fn a_signer_with_one_fault_fails_the_cases_that_name_its_rule_and_no_others() {
    let wrong: Vec<_> = in_parallel(EXPECTED, |&(fault, dialect, names, contain)| {
        let mut expected: Vec<_> = contain.iter().chain([&names, &"state/copied-back"]).copied().collect();
        let mut failed = failed(&try_on(Some(fault), dialect));
        expected.sort_unstable();
        failed.sort_unstable();
        (failed != expected).then(|| format!("{fault:?}: {failed:?} instead of {expected:?}"))
    });
    let wrong: Vec<_> = wrong.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// By the worst of what it fails.
#[test]
fn says_what_is_at_stake_by_what_a_signer_does() {
    for (fault, at_stake) in [
        // Ten cases or so, and none of them is more than a line in a log: it is the same vote.
        (Fault::LaterVoteSignedAnew, Level::Advisory),
        (Fault::ProposalSignedAnew, Level::Advisory),
        (Fault::ClosesOnOtherChain, Level::Advisory),
        (Fault::RefusesRepeats, Level::MissedBlocks),
        (Fault::SignsOtherProposal, Level::MissedBlocks),
        (Fault::SignsOtherPrevote, Level::Slashing),
        (Fault::NeverFlushes, Level::Slashing),
        (Fault::DiesOfVoteType, Level::Robustness),
    ] {
        let summary = try_on(Some(fault), Dialect::V0_38);
        let failed = summary.results.iter().filter(|found| matches!(found.outcome, Outcome::Failed { .. }));
        assert_eq!(failed.map(|found| found.level).min(), Some(at_stake), "{fault:?}");
        assert_eq!(summary.is_conformant(), at_stake == Level::Advisory, "{fault:?}");
    }
}

#[test]
fn every_case_is_failed_by_a_signer_with_some_fault() {
    let failed_by_some =
        |id| EXPECTED.iter().any(|(_, _, names, contain)| *names == id || contain.contains(&id));
    for id in conform::cases().iter().map(|case| case.id) {
        assert_ne!(failed_by_some(id), NOT_COUNTABLE.contains(&id), "{id}");
    }
}

#[test]
fn every_fault_is_expected_to_fail_something() {
    for fault in Fault::ALL {
        assert!(EXPECTED.iter().any(|(expected, ..)| expected == fault), "{fault:?}");
    }
}

#[test]
fn ids_are_unique_and_in_their_groups() {
    let cases = conform::cases();
    let ids: BTreeSet<_> = cases.iter().map(|case| case.id).collect();
    assert_eq!(ids.len(), cases.len());
    assert!(ids.iter().all(|id| id.split('/').count() == 2), "{ids:?}");
}

/// As many at once as there are processors.
fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let share = items.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let shares: Vec<_> = items
            .chunks(share)
            .map(|items| scope.spawn(|| items.iter().map(&work).collect::<Vec<_>>()))
            .collect();
        shares.into_iter().flat_map(|share| share.join().expect("no panic")).collect()
    })
}
