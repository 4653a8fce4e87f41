//! The simulator of a tree: built, and run until it sees something.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use serde::Deserialize;

use super::tree::Tree;

/// A part of what sees mistakes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stage {
    /// One scenario of the library.
    Scenario(String),
    /// A crash at every point of input and output.
    Sweep,
    /// The library.
    Library,
    /// Scenarios made up at random.
    Explore,
    /// The same events in two processes.
    Determinism,
    /// Recorded data of real nodes, and the tests of guard, record, session and of what groups bear: what simulator and production code have in common, no
    /// simulation of both shows, nor what no node ever does.
    Vectors,
}

/// What was seen, and after how many runs of its part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) stage: Stage,
    pub(super) case: String,
    pub(super) runs: u64,
}

/// Builds and runs the simulator of a tree.
pub(super) struct Detector<'a> {
    tree: &'a Tree,
    work: PathBuf,
    jobs: Option<usize>,
}

const PROFILE: &str = "planted";

/// Which tests [`Stage::Vectors`] runs. Of groups those that need no worlds of their own, which take long without optimization.
const FILTERS: &[&str] = &[
    "vectors",
    "guard::",
    "record::",
    "chain::",
    "durable_file::",
    "session::",
    "link::",
    "backend::device",
    "backend::yubihsm::proxy",
    "backend::yubihsm::stops",
    "backend::yubihsm::witness",
    "ops::",
    "seams::",
    "a_life_of_equal_count_that_was_fenced",
    "fewer_than_t_guards",
    "threshold::incarnation",
    "threshold::inbox",
    "threshold::nonces",
    "threshold::rounds",
    "threshold::run",
    "threshold::strangers",
    "threshold::tests::rogue",
    "threshold::tls",
];

/// What two hosts do in another order shows only in the few worlds where both do it.
const DETERMINISM_SEEDS: &str = "200";

impl<'a> Detector<'a> {
    pub(super) fn new(tree: &'a Tree, work: &Path, jobs: Option<usize>) -> Self {
        Self { tree, work: work.into(), jobs }
    }

    /// The first thing that is seen of the tree as it is now, trying one stage after the other. What they say goes to the log of
    /// `name`.
    pub(super) fn first_failure(
        &self,
        name: &str,
        stages: &[Stage],
        seeds: u64,
    ) -> anyhow::Result<Option<Seen>> {
        let log = self.log(name);
        if log.exists() {
            fs::remove_file(&log)?;
        }
        if stages.iter().any(|stage| *stage != Stage::Vectors) {
            self.build(name)?;
        }
        for stage in stages {
            let seen = match stage {
                Stage::Vectors => self.vectors(name)?,
                simulation => self.simulate(name, simulation, seeds)?,
            };
            if seen.is_some() {
                return Ok(seen);
            }
        }
        Ok(None)
    }

    fn build(&self, name: &str) -> anyhow::Result<()> {
        let mut cargo = cargo(&self.tree.root().join("scenarios"));
        cargo
            .args(["build", "--profile", PROFILE, "--bin", "scenarios", "--target-dir"])
            .arg(self.work.join("build"));
        match self.logged(name, &mut cargo)? {
            Some(0) => Ok(()),
            _ => bail!("`{name}` does not compile: see {}", self.log(name).display()),
        }
    }

    fn simulate(&self, name: &str, stage: &Stage, seeds: u64) -> anyhow::Result<Option<Seen>> {
        let reports = self.work.join("reports");
        if reports.exists() {
            fs::remove_dir_all(&reports)?;
        }
        fs::create_dir_all(&reports)?;
        let mut simulator = Command::new(self.work.join("build").join(PROFILE).join("scenarios"));
        simulator
            .current_dir(self.tree.root().join("scenarios"))
            .args(self.arguments(stage, seeds, &reports));
        match self.logged(name, &mut simulator)? {
            Some(0) => Ok(None),
            Some(1) => failure_in(&reports, stage).map(Some),
            _ => bail!("{stage} could not be carried out: see {}", self.log(name).display()),
        }
    }

    fn arguments(&self, stage: &Stage, seeds: u64, reports: &Path) -> Vec<OsString> {
        let command: Vec<OsString> = match stage {
            Stage::Scenario(scenario) => vec!["run".into(), scenario.into()],
            Stage::Sweep => vec!["sweep".into()],
            // What a mistake does in a day, it does in an hour.
            Stage::Library => vec!["run".into(), "--at-most".into(), "1h".into()],
            // What it finds is no regression of the tree.
            Stage::Explore => {
                vec![
                    "explore".into(),
                    "--seeds".into(),
                    seeds.to_string().into(),
                    "--save".into(),
                    reports.into(),
                ]
            }
            Stage::Determinism => {
                return [
                    "determinism".into(),
                    "--seeds".into(),
                    DETERMINISM_SEEDS.into(),
                    "--reports".into(),
                    reports.into(),
                ]
                .into();
            }
            Stage::Vectors => Vec::new(),
        };
        let ends = ["--stop-at-first".into(), "--reports".into(), reports.into()];
        let jobs = self.jobs.map(|jobs| ["--jobs".into(), jobs.to_string().into()]);
        command.into_iter().chain(ends).chain(jobs.into_iter().flatten()).collect()
    }

    fn vectors(&self, name: &str) -> anyhow::Result<Option<Seen>> {
        let test = |how: &[&str]| {
            let mut cargo = cargo(self.tree.root());
            cargo.args(["test", "-p", "monosign-protocol", "-p", "monosign", "--lib"]);
            for file in ["vectors_messages", "vectors_transport", "vectors_filepv"] {
                cargo.args(["--test", file]);
            }
            cargo.arg("--target-dir").arg(self.work.join("vectors")).args(how);
            cargo
        };
        if self.logged(name, &mut test(&["--no-run"]))? != Some(0) {
            bail!("the tests of `{name}` do not compile: see {}", self.log(name).display());
        }
        match self.logged(name, &mut test(&[&["--"], FILTERS].concat()))? {
            Some(0) => Ok(None),
            _ => {
                let log = fs::read_to_string(self.log(name))?;
                // One that hangs is ended by its deadline, which names it.
                let failed = log.lines().find_map(|line| {
                    let line = line.strip_prefix("test ")?;
                    line.strip_suffix(" ... FAILED").or_else(|| Some(line.split_once(" hangs: ")?.0))
                });
                let case = failed.context("the tests failed, and none says so")?.to_owned();
                Ok(Some(Seen { stage: Stage::Vectors, case, runs: 1 }))
            }
        }
    }

    fn log(&self, name: &str) -> PathBuf {
        self.work.join(format!("{name}.log"))
    }

    /// Runs to the end and gives the exit code, if it has one. What it says goes to the log.
    fn logged(&self, name: &str, command: &mut Command) -> anyhow::Result<Option<i32>> {
        let mut log = File::options().create(true).append(true).open(self.log(name))?;
        writeln!(log, "$ {command:?}")?;
        let status = command.stdout(log.try_clone()?).stderr(log).status();
        let status = status.with_context(|| format!("cannot run {:?}", command.get_program()))?;
        Ok(status.code())
    }
}

/// Cargo in a directory whose own settings count: flags from outside would replace those that the simulator needs.
fn cargo(dir: &Path) -> Command {
    let mut cargo = Command::new("cargo");
    cargo
        .current_dir(dir)
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_TARGET_DIR")
        // Each build differs from the last by a few lines.
        .env_remove("CARGO_INCREMENTAL");
    cargo
}

/// What a report says, as far as it is of use here.
#[derive(Deserialize)]
struct Report {
    suites: Vec<Suite>,
}

#[derive(Deserialize)]
struct Suite {
    name: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    status: String,
    message: Option<String>,
}

fn failure_in(reports: &Path, stage: &Stage) -> anyhow::Result<Seen> {
    let mut runs = 0;
    let mut failed = None;
    for entry in fs::read_dir(reports)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let report: Report = serde_json::from_slice(&fs::read(&path)?)
            .with_context(|| format!("`{}` is no report", path.display()))?;
        for suite in &report.suites {
            runs += suite.cases.iter().filter(|case| case.status != "skipped").count() as u64;
            let failure = suite.cases.iter().find(|case| case.status == "failed");
            failed = failed.or_else(|| failure.map(|case| described(suite, case)));
        }
    }
    let case =
        failed.with_context(|| format!("{stage} failed, and its reports say of nothing that it did"))?;
    Ok(Seen { stage: stage.clone(), case, runs })
}

/// The scenario, and the invariant that did not hold: the first word of the message.
fn described(suite: &Suite, case: &Case) -> String {
    let invariant = case.message.as_deref().and_then(|message| message.split_whitespace().next());
    format!("{} ({})", suite.name, invariant.unwrap_or("failed"))
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scenario(_) | Self::Library => "run",
            Self::Sweep => "sweep",
            Self::Explore => "explore",
            Self::Determinism => "determinism",
            Self::Vectors => "vectors",
        })
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.stage, self.case)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Seen, Stage, failure_in};

    fn report(dir: &std::path::Path, name: &str, text: &str) {
        fs::write(dir.join(name), text).unwrap();
    }

    #[test]
    fn a_report_tells_what_failed_and_after_how_many_runs() {
        let dir = tempfile::tempdir().unwrap();
        report(
            dir.path(),
            "scenarios.json",
            r#"{"title": "t", "commit": "c", "suites": [
                {"name": "calm", "cases": [{"name": "1", "status": "passed"}, {"name": "2", "status": "skipped"}]},
                {"name": "power-cut", "cases": [{"name": "1", "status": "passed"},
                    {"name": "2", "status": "failed", "message": "OneSignature at 12 ms: twice\nNoPanic at 13 ms: x"}]}]}"#,
        );
        report(dir.path(), "scenarios.junit.xml", "<testsuites/>");
        let seen = failure_in(dir.path(), &Stage::Library).unwrap();
        assert_eq!(seen, Seen { stage: Stage::Library, case: "power-cut (OneSignature)".into(), runs: 3 });
        assert_eq!(seen.to_string(), "run: power-cut (OneSignature)");
    }

    #[test]
    fn a_failure_that_no_report_tells_of_is_not_taken_for_a_catch() {
        let dir = tempfile::tempdir().unwrap();
        assert!(failure_in(dir.path(), &Stage::Sweep).is_err());
        report(
            dir.path(),
            "sweep.json",
            r#"{"suites": [{"name": "sweep", "cases": [{"status": "passed"}]}]}"#,
        );
        assert!(failure_in(dir.path(), &Stage::Sweep).is_err());
    }
}
