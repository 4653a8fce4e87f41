use monosign_protocol::Dialect;

use super::{run, run_traced};
use crate::run::{Mode, Run};
use crate::trace::Detail;

fn plain(text: &str) -> Run {
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
    let lines = |seed| {
        let run = Run { seed, ..plain("duration = \"10s\"") };
        run_traced(&run, Detail::Lines).1.lines
    };
    let (once, again) = (lines(1), lines(1));
    let first = once.iter().zip(&again).position(|(a, b)| a != b);
    assert_eq!(first.map(|at| (&once[at], &again[at])), None);
    assert_eq!(once.len(), again.len());
    assert_ne!(once, lines(2));
}
