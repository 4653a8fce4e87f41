//! `scenarios replay`.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use super::Verdict;
use crate::jobs::{Done, Runner};
use crate::library::Entry;
use crate::trace::Detail;
use crate::world;

/// Arguments of `scenarios replay`.
#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    /// The saved failure: a scenario with `[found]`.
    file: PathBuf,
    /// Print every event, down to the packets, each with its simulated time in microseconds (0 between two turns of hosts).
    #[arg(long)]
    events: bool,
}

pub(super) fn run(args: &ReplayArgs, runner: Runner<'_>, out: &mut dyn Write) -> anyhow::Result<Verdict> {
    let entry = Entry::load(&args.file)?;
    let no_found = || format!("`{}` is no saved failure: it has no `[found]`", args.file.display());
    let run = entry.found().with_context(no_found)?;
    let found = entry.scenario.found.as_ref().with_context(no_found)?;
    let outcome = match args.events {
        true => {
            let (outcome, trace) = world::run_traced(&run, Detail::Lines);
            for line in trace.lines {
                writeln!(out, "{line}")?;
            }
            outcome
        }
        false => Done::carry_out(&run, runner).outcome,
    };
    writeln!(out, "{run}")?;
    writeln!(out, "found at {}: {}", found.commit, found.violation)?;
    match outcome.trace == found.trace {
        true => writeln!(out, "the same run, event for event: trace {}", outcome.trace)?,
        false => writeln!(out, "another build: trace differs, {} instead of {}", outcome.trace, found.trace)?,
    }
    if outcome.violations.is_empty() {
        writeln!(out, "nothing is violated")?;
        return Ok(Verdict::Held);
    }
    for violation in &outcome.violations {
        writeln!(out, "VIOLATED {violation}")?;
    }
    Ok(Verdict::Violated)
}
