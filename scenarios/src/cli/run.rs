//! `scenarios run`.

use std::cmp::Reverse;
use std::io::Write;
use std::path::Path;

use anyhow::{anyhow, bail};
use clap::Args;
use monosign_protocol::Dialect;

use super::progress::Progress;
use super::{JobArgs, LibraryArgs, ReportArgs, Verdict, commit, report, save, summary};
use crate::jobs::{self, Done, Runner};
use crate::library::{self, Choice, Entry};
use crate::run::{Mode, Run};
use crate::scenario::Span;

/// Arguments of `scenarios run`.
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// Which scenarios: names, or files; without any, all there are.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// In this signing mode only.
    #[arg(long)]
    mode: Option<Mode>,
    /// Against nodes of this release only.
    #[arg(long, value_parser = super::dialect)]
    dialect: Option<Dialect>,
    /// Under this seed, instead of the scenario's own.
    #[arg(long)]
    seed: Option<u64>,
    /// Under other seeds at each commit.
    #[arg(long, conflicts_with = "seed")]
    fresh: bool,
    /// Leave out scenarios that last longer, in simulated time: `90s`, `1h`.
    #[arg(long, value_name = "DURATION")]
    at_most: Option<Span>,
    /// Stop at the first failure.
    #[arg(long)]
    stop_at_first: bool,
    #[command(flatten)]
    jobs: JobArgs,
    #[command(flatten)]
    library: LibraryArgs,
    #[command(flatten)]
    reports: ReportArgs,
}

pub(super) fn run(args: &RunArgs, runner: Runner<'_>, out: &mut dyn Write) -> anyhow::Result<Verdict> {
    let entries = chosen(args)?;
    let commit = commit::hash();
    let fresh = args.fresh.then_some(commit.as_str());
    let choice = Choice { mode: args.mode, dialect: args.dialect, seed: args.seed, fresh };
    let mut runs: Vec<Run> = entries.iter().flat_map(|entry| entry.runs(choice)).collect();
    runs.retain(|run| args.at_most.is_none_or(|most| run.scenario.duration <= most));
    if runs.is_empty() {
        bail!("no scenario makes sense for this mode, release and duration");
    }
    match args.stop_at_first {
        // Where the first failure ends it, what is long comes last.
        true => runs.sort_by_key(ticks),
        // What is long begins first, so that no processor waits for it in the end.
        false => runs.sort_by_key(|run| Reverse(ticks(run))),
    }
    let mut progress = Progress::new(Some(runs.len()));
    let done =
        jobs::carry_out(&runs, args.jobs.count(), args.stop_at_first, runner, |done| progress.ended(done));
    drop(progress);
    let dir = args.reports.dir();
    summary::table(&done, out)?;
    let reached_all = summary::counters(&done, out)?;
    let verdict = failures(&done, &dir, args, out)?;
    report::write(&dir, "scenarios", &done)?;
    if args.is_everything() && !args.stop_at_first && !reached_all {
        writeln!(
            out,
            "\nFAILED the whole library must reach every counter, or it does not test what it seems to"
        )?;
        return Ok(Verdict::Violated);
    }
    Ok(verdict)
}

/// How long a run takes, about.
fn ticks(run: &Run) -> u128 {
    run.scenario.duration.0.as_nanos() / run.scenario.tick.0.as_nanos().max(1)
}

impl RunArgs {
    /// Whether all that the project has is run, in every mode and against every release.
    fn is_everything(&self) -> bool {
        self.names.is_empty()
            && self.mode.is_none()
            && self.dialect.is_none()
            && self.seed.is_none()
            && self.at_most.is_none()
            && self.library.library.is_none()
    }
}

fn chosen(args: &RunArgs) -> anyhow::Result<Vec<Entry>> {
    let files = args.library.files()?;
    if args.names.is_empty() {
        if files.is_empty() {
            bail!("there are no scenarios in `{}`", args.library.dir().display());
        }
        return Ok(library::load(&files)?);
    }
    let named = |name: &String| match name.ends_with(".toml") {
        true => Ok(name.into()),
        false => {
            let found = files.iter().find(|path| crate::scenario::name_of(path) == *name);
            found.cloned().ok_or_else(|| anyhow!("there is no scenario `{name}`: see `scenarios list`"))
        }
    };
    let files: Vec<_> = args.names.iter().map(named).collect::<anyhow::Result<_>>()?;
    Ok(library::load(&files)?)
}

/// Tells of each run that failed, and how to see it again.
fn failures(done: &[Done], dir: &Path, args: &RunArgs, out: &mut dyn Write) -> anyhow::Result<Verdict> {
    let mut verdict = Verdict::Held;
    for done in done.iter().filter(|done| !done.outcome.violations.is_empty()) {
        verdict = Verdict::Violated;
        let path = save::failure(dir, done)?;
        let Run { name, mode, dialect, seed, .. } = &done.run;
        let library = args.library.library.as_ref().map(|dir| format!(" --library {}", dir.display()));
        let file = args
            .names
            .iter()
            .find(|given| given.ends_with(".toml") && crate::scenario::name_of(given.as_ref()) == *name);
        writeln!(out, "\nFAILED {}", done.run)?;
        for violation in &done.outcome.violations {
            writeln!(out, "  {violation}")?;
        }
        writeln!(
            out,
            "  again: scenarios run {} --mode {mode} --dialect {dialect} --seed {seed}{}",
            file.unwrap_or(name),
            library.unwrap_or_default()
        )?;
        writeln!(out, "  saved: scenarios replay {}", path.display())?;
    }
    Ok(verdict)
}

#[cfg(test)]
mod tests;
