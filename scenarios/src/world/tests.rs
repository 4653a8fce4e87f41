use monosign_protocol::Dialect;

use super::{run, run_traced};
use crate::quorum::Quorum;
use crate::run::{Mode, Run};
use crate::trace::Detail;

fn plain(text: &str) -> Run {
    crate::deadline::for_this_test();
    Run {
        scenario: toml::from_str(&format!("about = \"\"\n{text}")).unwrap(),
        name: "test".into(),
        mode: Mode::Softsign,
        dialect: Dialect::V0_38,
        seed: 1,
    }
}

#[test]
fn a_plain_chain_goes_on() {
    let outcome = run(&plain("duration = \"30s\""));
    assert_eq!(outcome.violations, []);
    assert!(outcome.blocks >= 15, "{outcome:?}");
}

#[test]
fn the_same_seed_gives_the_same_events() {
    for mode in [Mode::Softsign, Mode::Threshold(Quorum::TWO_OF_THREE)] {
        let lines = |seed| {
            let run = Run { seed, mode, ..plain("duration = \"10s\"") };
            run_traced(&run, Detail::Lines).1.lines
        };
        let (once, again) = (lines(1), lines(1));
        let first = once.iter().zip(&again).position(|(a, b)| a != b);
        assert_eq!(first.map(|at| (&once[at], &again[at])), None, "{mode}");
        assert_eq!(once.len(), again.len());
        assert_ne!(once, lines(2));
    }
}

#[test]
fn cosigners_sign_together_in_the_place_of_a_signer() {
    for quorum in [Quorum::TWO_OF_THREE, Quorum::THREE_OF_FIVE] {
        let outcome = run(&Run { mode: Mode::Threshold(quorum), ..plain("duration = \"30s\"") });
        assert_eq!(outcome.violations, []);
        assert!(outcome.blocks >= 15, "{outcome:?}");
        // One that the nodes talk to asks so many others.
        let shares = outcome.reached.get("share given").copied().unwrap_or_default();
        assert!(shares >= outcome.blocks * u64::from(quorum.threshold - 1), "{quorum}: {outcome:?}");
    }
}
