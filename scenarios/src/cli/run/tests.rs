//! The commands that run something, with a world in which it is known what happens.

use std::fs;
use std::path::Path;

use clap::Parser as _;

use crate::cli::{Cli, Verdict, run};
use crate::jobs::Runner;
use crate::outcome::{Invariant, Outcome, Violation};
use crate::run::{Mode, Run};
use crate::testing::SMALL;

/// Holds in mode softsign and not in mode device; the trace is the seed.
fn device_fails(run: &Run) -> Outcome {
    let violation = Violation { invariant: Invariant::OneSignature, at_ms: 7, seen: "two votes".into() };
    Outcome {
        violations: if run.mode == Mode::Device { vec![violation] } else { Vec::new() },
        reached: [("signer started", 2)].into(),
        blocks: 3,
        trace: format!("{:x}", run.seed),
        simulated_ms: 40_000,
        ..Outcome::default()
    }
}

struct Rig {
    dir: tempfile::TempDir,
}

impl Rig {
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("library")).unwrap();
        for (name, text) in files {
            fs::write(dir.path().join("library").join(name), text).unwrap();
        }
        Self { dir }
    }

    fn path(&self, path: &str) -> String {
        self.dir.path().join(path).display().to_string()
    }

    fn run(&self, runner: Runner<'_>, args: &[&str]) -> (anyhow::Result<Verdict>, String) {
        let dirs = ["--library", &self.path("library"), "--reports", &self.path("reports"), "--jobs", "2"];
        command(runner, &[&["run"], args, &dirs].concat())
    }
}

fn command(runner: Runner<'_>, args: &[&str]) -> (anyhow::Result<Verdict>, String) {
    let cli = Cli::try_parse_from([&["scenarios"], args].concat()).unwrap();
    let mut out = Vec::new();
    (run(cli, runner, &mut out), String::from_utf8(out).unwrap())
}

#[test]
fn all_there_is_runs_in_every_mode_and_release_as_often_as_it_says() {
    let rig = Rig::new(&[("a.toml", SMALL), ("b.toml", &format!("seeds = 2\n{SMALL}")), ("notes.md", "")]);
    let (verdict, out) = rig.run(&|_| Outcome::default(), &[]);
    assert_eq!(verdict.unwrap(), Verdict::Held);
    assert!(
        out.contains("50 runs, 0 failed"),
        "7 releases, 2 modes, 1 and 2 seeds, and 2 kinds of devices and 2 groups each: {out}"
    );
    assert!(out.contains("never reached: ") && !out.contains("FAILED"), "{out}");
}

#[test]
fn a_failure_tells_how_to_see_it_again_and_is_saved_and_replayed() {
    let rig = Rig::new(&[("a.toml", SMALL)]);
    let (verdict, out) = rig.run(&device_fails, &["a", "--dialect", "v1.0", "--seed", "77"]);
    assert_eq!(verdict.unwrap(), Verdict::Violated);
    assert!(out.contains("FAILED a, device, v1.0, seed 77"), "{out}");
    assert!(out.contains("OneSignature at 7 ms: two votes"), "{out}");
    assert!(
        out.contains("again: scenarios run a --mode device --dialect v1.0 --seed 77 --library "),
        "{out}"
    );
    assert!(out.contains("reached: signer started 12\n"), "{out}");
    let saved = rig.path("reports/failures/a-device-v1.0-77.toml");
    assert!(out.contains(&format!("scenarios replay {saved}")), "{out}");

    let (verdict, out) = command(&device_fails, &["replay", &saved]);
    assert_eq!(verdict.unwrap(), Verdict::Violated);
    assert!(out.contains("the same run, event for event: trace 4d"), "{out}");
    let mended = |run: &Run| Outcome { trace: format!("{}!", run.seed), ..Outcome::default() };
    let (verdict, out) = command(&mended, &["replay", &saved]);
    assert_eq!(verdict.unwrap(), Verdict::Held);
    assert!(out.contains("another build: trace differs") && out.contains("nothing is violated"), "{out}");
}

#[test]
fn what_once_failed_is_run_as_it_failed() {
    let rig = Rig::new(&[("a.toml", SMALL)]);
    rig.run(&device_fails, &["a", "--mode", "device", "--dialect", "v0.34", "--seed", "5"]).0.unwrap();
    let saved = rig.path("reports/failures/a-device-v0.34-5.toml");
    let only_there = |run: &Run| match (run.dialect.to_string().as_str(), run.seed) {
        ("v0.34", 5) => device_fails(run),
        _ => Outcome::default(),
    };
    let (verdict, out) = rig.run(&only_there, &[&saved]);
    assert_eq!(verdict.unwrap(), Verdict::Violated);
    assert!(out.contains("18 runs, 1 failed"), "{out}");
    assert!(out.contains(&format!("again: scenarios run {saved} ")), "{out}");
}

#[test]
fn seeds_are_the_same_each_time_and_differ_between_runs() {
    let rig = Rig::new(&[("a.toml", &format!("seeds = 9\n{SMALL}"))]);
    let seeds = || {
        let seen = std::sync::Mutex::new(std::collections::BTreeSet::new());
        let note = |run: &Run| {
            seen.lock().unwrap().insert(run.seed);
            Outcome::default()
        };
        rig.run(&note, &[]).0.unwrap();
        seen.into_inner().unwrap()
    };
    assert_eq!(seeds().len(), 9 * 14 + 4);
    assert_eq!(seeds(), seeds());
}

#[test]
fn reports_hold_every_run() {
    let rig = Rig::new(&[("a.toml", SMALL)]);
    rig.run(&device_fails, &[]).0.unwrap();
    let json = fs::read_to_string(rig.path("reports/scenarios.json")).unwrap();
    let report: monosign_reports::Report = serde_json::from_str(&json).unwrap();
    assert_eq!(report.suites[0].cases.len(), 18);
    let failed = report.suites[0].cases.iter().filter(|case| case.status == monosign_reports::Status::Failed);
    assert_eq!(failed.count(), 7);
    assert_eq!(report.suites[0].cases[0].properties["reached: signer started"], "2");
    assert!(Path::new(&rig.path("reports/scenarios.junit.xml")).is_file());
}

#[test]
fn what_cannot_be_run_is_said_before_anything_runs() {
    let rig = Rig::new(&[
        ("a.toml", &SMALL.replace("power-cut\"", "power-cat\"")),
        ("b.toml", "modes = [\"device\"]\nabout = \"b\"\nduration = \"1s\""),
    ]);
    let never = |_: &Run| -> Outcome { panic!("it ran") };
    let error = |args: &[&str]| rig.run(&never, args).0.unwrap_err().to_string();
    assert!(error(&[]).contains("a.toml:6:6: act 1: do: unknown act `power-cat`"));
    assert!(error(&["c"]).contains("there is no scenario `c`"));
    assert!(error(&["b", "--mode", "softsign"]).contains("no scenario makes sense"));
    assert!(Rig::new(&[]).run(&never, &[]).0.unwrap_err().to_string().contains("there are no scenarios"));
}
