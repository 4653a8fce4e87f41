//! `scenarios explore`.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use tokio::time::Instant;

use super::progress::Progress;
use super::{JobArgs, ReportArgs, Verdict, commit, report, save, summary};
use crate::explore::{made_up, shrink};
use crate::jobs::{self, Done, Runner};
use crate::run::{Mode, Run};
use crate::scenario::Scenario;

/// Arguments of `scenarios explore`.
#[derive(Debug, Args)]
pub(super) struct ExploreArgs {
    /// How many scenarios to make up.
    #[arg(long, value_name = "N", default_value_t = 100, conflicts_with = "minutes")]
    seeds: u64,
    /// How long to go on instead.
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u64).range(1..))]
    minutes: Option<u64>,
    /// The first seed, instead of one that follows from the commit: each commit is explored elsewhere.
    #[arg(long, value_name = "S")]
    from_seed: Option<u64>,
    /// In this signing mode only.
    #[arg(long)]
    mode: Option<Mode>,
    /// Where failures are saved, instead of the project's regressions.
    #[arg(long, value_name = "DIR")]
    save: Option<std::path::PathBuf>,
    /// Stop at the first failure, and leave it as large as it is.
    #[arg(long)]
    stop_at_first: bool,
    #[command(flatten)]
    jobs: JobArgs,
    #[command(flatten)]
    reports: ReportArgs,
}

/// A bug shows in many seeds: after so many failures there is enough to think about.
const ENOUGH_FAILURES: usize = 8;

pub(super) fn run(args: &ExploreArgs, runner: Runner<'_>, out: &mut dyn Write) -> anyhow::Result<Verdict> {
    let first = args.from_seed.unwrap_or_else(|| first_seed(&commit::hash()));
    writeln!(out, "exploring from seed {first} on")?;
    let dir = args.save.clone().unwrap_or_else(super::regressions);
    let (done, failed) = explore(args, first, runner);
    let (count, last) = (done.len(), done.last().map_or(first, |done| done.run.seed));
    let simulated: Duration = done.iter().map(|done| Duration::from_millis(done.outcome.simulated_ms)).sum();
    writeln!(out, "{count} scenarios, seeds {first} to {last}, {} s simulated", simulated.as_secs())?;
    summary::counters(&done, out)?;
    report::write(&args.reports.dir(), "explore", &done)?;
    for (run, smallest) in &failed {
        tell(run, smallest, &dir, out)?;
    }
    match failed.is_empty() {
        true => Ok(Verdict::Held),
        false => Ok(Verdict::Violated),
    }
}

/// Runs batch after batch, until there are enough of scenarios, time or failures. Each failure comes with its smallest form.
fn explore(args: &ExploreArgs, first: u64, runner: Runner<'_>) -> (Vec<Done>, Vec<(Run, Done)>) {
    let end = args.minutes.map(|minutes| Instant::now() + Duration::from_secs(minutes * 60));
    let total = args.minutes.is_none().then_some(args.seeds as usize);
    let mut progress = Progress::new(total);
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    let mut next = first;
    loop {
        let left = match end {
            Some(end) => {
                if Instant::now() < end {
                    u64::MAX
                } else {
                    0
                }
            }
            None => args.seeds - (next - first),
        };
        let enough = if args.stop_at_first { 1 } else { ENOUGH_FAILURES };
        if left == 0 || failed.len() >= enough {
            return (done, failed);
        }
        let batch: Vec<u64> = (next..).take(left.min(args.jobs.count() as u64 * 8) as usize).collect();
        next += batch.len() as u64;
        let work = |seed: &u64| {
            let run = made_up(*seed, args.mode);
            let done = Done::carry_out(&run, runner);
            let smallest = match args.stop_at_first {
                true => done.outcome.violations.first().map(|_| done.clone()),
                false => smallest(&done, runner),
            };
            (done, smallest)
        };
        for (first, smallest) in jobs::each(&batch, args.jobs.count(), work, |(done, _)| progress.ended(done))
        {
            failed.extend(smallest.map(|smallest| (first.run.clone(), smallest)));
            done.push(first);
        }
    }
}

/// The smallest form of a failure: one that violates the same invariant first.
fn smallest(done: &Done, runner: Runner<'_>) -> Option<Done> {
    let invariant = done.outcome.violations.first()?.invariant;
    let mut smallest = done.clone();
    shrink(done.run.clone(), &mut |run| {
        let tried = Done::carry_out(run, runner);
        let fails =
            tried.outcome.violations.first().is_some_and(|violation| violation.invariant == invariant);
        if fails {
            smallest = tried;
        }
        fails
    });
    Some(smallest)
}

fn tell(run: &Run, smallest: &Done, dir: &Path, out: &mut dyn Write) -> anyhow::Result<()> {
    let name = name(smallest);
    let found = save::with_found(smallest);
    let (before, after) = (run.scenario.acts.len(), found.acts.len());
    let about = format!("Found by exploring, and shrunk from {before} acts to {after}.");
    let (mode, dialect) = (smallest.run.mode.to_string(), smallest.run.dialect.to_string());
    let scenario = Scenario { about, modes: vec![mode], dialects: vec![dialect], ..found };
    let path = save::write(dir, &name, &scenario)?;
    writeln!(out, "\nFAILED {run}, shrunk from {before} acts to {after}")?;
    for violation in &smallest.outcome.violations {
        writeln!(out, "  {violation}")?;
    }
    writeln!(out, "  saved: scenarios replay {}", path.display())?;
    Ok(())
}

/// What is violated, after what, and the seed: `one-signature-after-power-cut-7`.
fn name(smallest: &Done) -> String {
    let violation = smallest.outcome.violations.first();
    let invariant = violation.and_then(|violation| serde_json::to_value(violation.invariant).ok());
    let invariant = invariant.as_ref().and_then(|value| value.as_str()).unwrap_or("nothing");
    let mut acts: Vec<_> = smallest.run.scenario.acts.iter().map(|act| act.act.name()).collect();
    acts.sort();
    acts.dedup();
    // More than two make no name.
    let after = match acts.as_slice() {
        [] => String::new(),
        [one] => format!("-after-{one}"),
        [one, two] => format!("-after-{one}-and-{two}"),
        many => format!("-after-{}-kinds-of-acts", many.len()),
    };
    format!("{invariant}{after}-{}", smallest.run.seed)
}

/// The commit's hash as a number, small enough to be read out and to count on from.
fn first_seed(commit: &str) -> u64 {
    u64::from_str_radix(commit.get(..8).unwrap_or_default(), 16).unwrap_or(0)
}

#[cfg(test)]
mod tests;
