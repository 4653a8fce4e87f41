//! Deliberate mistakes in the production code, and whether the simulator sees them.
//!
//! Each file of `scenarios/planted` plants one mistake. A simulator that lets one pass would let a true one pass as well, so
//! each is applied to a copy of the tree, the simulator is built with it, and must fail within so many runs. The tree without
//! any mistake must pass the same.

mod detect;
mod patch;
mod tree;

use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::library;
use detect::{Detector, Stage};
use patch::Patch;
use tree::Tree;

/// Which mistakes are tried, and how.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Six at most, which are others for the next number, so that commits in a row try all.
    pub turn: Option<usize>,
    /// These only, by name, with or without the number. None means all.
    pub only: Vec<String>,
    /// Whether the tree without any mistake is known to pass, as where all of it was just run.
    pub trust_tree: bool,
    /// How many runs at once; none means what the simulator takes by itself.
    pub jobs: Option<usize>,
}

/// How a trial of mistakes ended that could be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Every mistake was caught within its runs.
    AllCaught,
    /// One was not.
    Missed,
}

/// How many mistakes a turn has: each takes a build, and a commit's CI has other things to do.
const EACH_TURN: usize = 6;

/// Tries the mistakes that are planted in this repository, and tells of each as it is done.
///
/// # Errors
/// If the clean tree does not pass, and if a patch does not apply or does not compile; the other patches are tried all the same.
pub fn run(options: &Options, out: &mut dyn Write) -> anyhow::Result<Ended> {
    let root = repository()?;
    let patches = options.choose(patch::load(&root.join("scenarios/planted"))?)?;
    let work = root.join("target/planted");
    let tree = Tree::copy(&root, &work.join("tree"))?;
    let detector = Detector::new(&tree, &work, options.jobs);

    if !options.trust_tree {
        let started = stopwatch();
        pass_clean(&detector, &patches)?;
        row(out, "(no mistake)", "held", "", started.elapsed())?;
    }
    let mut findings = Vec::new();
    for patch in &patches {
        let started = stopwatch();
        let finding = try_one(&tree, &detector, patch);
        row(out, &patch.name, &finding.to_string(), &finding.runs(), started.elapsed())?;
        findings.push(finding);
    }
    conclude(&patches, &findings, out)
}

/// The root of the repository that this was built in.
fn repository() -> anyhow::Result<PathBuf> {
    Ok(library::home().parent().context("the crate lies in its repository")?.to_owned())
}

impl Options {
    fn choose(&self, all: Vec<Patch>) -> anyhow::Result<Vec<Patch>> {
        for name in &self.only {
            if !all.iter().any(|patch| patch.is_called(name)) {
                bail!("there is no planted mistake `{name}`: see scenarios/planted");
            }
        }
        let turns = all.len().div_ceil(EACH_TURN).max(1);
        let is_in_turn = |n: usize| self.turn.is_none_or(|turn| n % turns == turn % turns);
        let is_named =
            |patch: &Patch| self.only.is_empty() || self.only.iter().any(|name| patch.is_called(name));
        let chosen = all.into_iter().enumerate().filter(|(n, patch)| is_in_turn(*n) && is_named(patch));
        Ok(chosen.map(|(_, patch)| patch).collect())
    }
}

/// The tree as it is must pass all that the chosen mistakes have to fail, or a failure would say nothing.
fn pass_clean(detector: &Detector<'_>, patches: &[Patch]) -> anyhow::Result<()> {
    let tried: Vec<_> = patches.iter().flat_map(Patch::stages).collect();
    let stages = [Stage::Determinism, Stage::Sweep, Stage::Library, Stage::Explore, Stage::Vectors];
    let stages: Vec<_> = stages.into_iter().filter(|stage| tried.contains(stage)).collect();
    let seeds = patches.iter().map(|patch| patch.runs).max().unwrap_or(1);
    match detector.first_failure("clean", &stages, seeds)? {
        None => Ok(()),
        Some(seen) => bail!("the tree without any mistake does not pass: {seen}"),
    }
}

fn try_one(tree: &Tree, detector: &Detector<'_>, patch: &Patch) -> Finding {
    let applied = match tree.apply(patch) {
        Ok(applied) => applied,
        Err(error) => return Finding::Broken(format!("{error:#}")),
    };
    let seen = detector.first_failure(&patch.name, &patch.stages(), patch.runs);
    match (applied.revert(), seen) {
        (Err(error), _) | (_, Err(error)) => Finding::Broken(format!("{error:#}")),
        (Ok(()), Ok(None)) => Finding::Missed { runs: patch.runs },
        (Ok(()), Ok(Some(seen))) if seen.runs > patch.runs => {
            Finding::Late { by: seen.to_string(), runs: seen.runs, limit: patch.runs }
        }
        (Ok(()), Ok(Some(seen))) => Finding::Caught { by: seen.to_string(), runs: seen.runs },
    }
}

/// What became of one mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Finding {
    Caught { by: String, runs: u64 },
    Late { by: String, runs: u64, limit: u64 },
    Missed { runs: u64 },
    Broken(String),
}

impl Finding {
    fn runs(&self) -> String {
        match self {
            Self::Caught { runs, .. } | Self::Late { runs, .. } | Self::Missed { runs } => runs.to_string(),
            Self::Broken(_) => String::new(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Caught { by, .. } => f.write_str(by),
            Self::Late { by, limit, .. } => write!(f, "TOO LATE, in {limit} runs expected: {by}"),
            Self::Missed { .. } => f.write_str("NOT CAUGHT"),
            Self::Broken(why) => write!(f, "BROKEN: {why}"),
        }
    }
}

fn conclude(patches: &[Patch], findings: &[Finding], out: &mut dyn Write) -> anyhow::Result<Ended> {
    let is_caught = |finding: &Finding| matches!(finding, Finding::Caught { .. });
    let caught = findings.iter().filter(|finding| is_caught(finding)).count();
    writeln!(out, "{caught} of {} caught", findings.len())?;
    for (patch, finding) in patches.iter().zip(findings).filter(|(_, finding)| !is_caught(finding)) {
        writeln!(out, "\n{}: {}", patch.name, patch.what)?;
        writeln!(out, "  expected to be seen by {} within {} runs", patch.seen_by.join(", "), patch.runs)?;
        writeln!(out, "  {finding}")?;
    }
    match findings.iter().filter(|finding| matches!(finding, Finding::Broken(_))).count() {
        0 if caught == findings.len() => Ok(Ended::AllCaught),
        0 => Ok(Ended::Missed),
        broken => bail!("{broken} planted mistakes could not be tried: bring them up to date"),
    }
}

fn row(out: &mut dyn Write, name: &str, what: &str, runs: &str, took: Duration) -> std::io::Result<()> {
    writeln!(out, "{name:<44} {runs:>5} {:>6.1} s  {what}", took.as_secs_f64())?;
    out.flush()
}

#[allow(clippy::disallowed_methods, reason = "how long a build takes is no simulated time")]
fn stopwatch() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests;
