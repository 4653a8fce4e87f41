use std::fs;

use clap::Parser as _;

use super::first_seed;
use crate::cli::{Cli, Verdict, run};
use crate::jobs::Runner;
use crate::library::Entry;
use crate::outcome::{Invariant, Outcome, Violation};
use crate::run::Run;
use crate::scenario::Do;

/// A signer that does not survive a power cut.
fn loses_power(run: &Run) -> Outcome {
    let cut = run.scenario.acts.iter().any(|act| matches!(act.act, Do::PowerCut { .. }));
    let violation = Violation { invariant: Invariant::OneSignature, at_ms: 7, seen: "two votes".into() };
    Outcome {
        violations: if cut { vec![violation] } else { Vec::new() },
        trace: "4d".into(),
        ..Outcome::default()
    }
}

fn explore(runner: Runner<'_>, args: &[&str]) -> (Verdict, String) {
    let cli = Cli::try_parse_from([&["scenarios", "explore"], args].concat()).unwrap();
    let mut out = Vec::new();
    (run(cli, runner, &mut out).unwrap(), String::from_utf8(out).unwrap())
}

#[test]
fn a_failure_is_saved_in_its_smallest_form() {
    let dir = tempfile::tempdir().unwrap();
    let save = dir.path().display().to_string();
    let (verdict, out) =
        explore(&loses_power, &["--seeds", "20", "--from-seed", "1", "--save", &save, "--jobs", "2"]);
    assert_eq!(verdict, Verdict::Violated);
    let files: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!files.is_empty());
    for path in files {
        let entry = Entry::load(&path).unwrap();
        assert!(entry.name.starts_with("one-signature-after-power-cut-"), "{}", entry.name);
        assert_eq!(entry.scenario.acts.len(), 1);
        assert!(entry.scenario.about.contains("to 1"), "{}", entry.scenario.about);
        assert_eq!(
            entry.runs(Default::default()),
            [entry.found().unwrap()],
            "it is run as it failed, and so alone"
        );
        assert!(out.contains(&format!("scenarios replay {}", path.display())), "{out}");
    }
}

#[test]
fn what_holds_saves_nothing_and_every_seed_runs_once() {
    let seen = std::sync::Mutex::new(Vec::new());
    let note = |run: &Run| {
        seen.lock().unwrap().push(run.seed);
        Outcome::default()
    };
    let dir = tempfile::tempdir().unwrap();
    let save = dir.path().join("regressions").display().to_string();
    let (verdict, out) = explore(&note, &["--seeds", "50", "--from-seed", "100", "--save", &save]);
    assert_eq!(verdict, Verdict::Held);
    let mut seen = seen.into_inner().unwrap();
    seen.sort();
    assert_eq!(seen, (100..150).collect::<Vec<_>>());
    assert!(out.contains("50 scenarios, seeds 100 to 149"), "{out}");
    assert!(!dir.path().join("regressions").exists());
}

#[test]
fn each_commit_is_explored_elsewhere() {
    assert_eq!(first_seed("39062d0a11"), 0x39062d0a);
    assert_eq!(first_seed("unknown"), 0);
}
