//! `scenarios sweep`.

use std::io::Write;

use clap::Args;
use monosign_protocol::Dialect;

use super::progress::Progress;
use super::{JobArgs, ReportArgs, Verdict, report, summary};
use crate::jobs::{self, Runner};
use crate::run::Mode;
use crate::sweep;
use crate::trace::Detail;
use crate::world;

/// Arguments of `scenarios sweep`.
#[derive(Debug, Args)]
pub(super) struct SweepArgs {
    /// In this signing mode only.
    #[arg(long)]
    mode: Option<Mode>,
    /// Against nodes of this release.
    #[arg(long, default_value = "v0.38", value_parser = super::dialect)]
    dialect: Dialect,
    /// Crash at every point of a ceremony of cosigners instead.
    #[arg(long, conflicts_with = "mode")]
    ceremony: bool,
    /// Stop at the first failure.
    #[arg(long)]
    stop_at_first: bool,
    #[command(flatten)]
    jobs: JobArgs,
    #[command(flatten)]
    reports: ReportArgs,
}

pub(super) fn run(args: &SweepArgs, out: &mut dyn Write) -> anyhow::Result<Verdict> {
    // Nothing is compared between runs, so nothing is hashed.
    let runner: Runner<'_> = &|run| world::run_traced(run, Detail::Off).0;
    let modes = args.mode.map_or(sweep::MODES.to_vec(), |mode| vec![mode]);
    let runs: Vec<_> = match args.ceremony {
        true => sweep::ceremony_runs(args.dialect),
        false => modes.into_iter().flat_map(|mode| sweep::runs(mode, args.dialect)).collect(),
    };
    let mut progress = Progress::new(Some(runs.len()));
    let done =
        jobs::carry_out(&runs, args.jobs.count(), args.stop_at_first, runner, |done| progress.ended(done));
    drop(progress);
    report::write(&args.reports.dir(), "sweep", &done)?;
    summary::counters(&done, out)?;
    let failed: Vec<_> = done.iter().filter(|done| !done.outcome.violations.is_empty()).collect();
    writeln!(out, "sweep: {} runs, {} failed", done.len(), failed.len())?;
    for done in failed.iter().take(20) {
        writeln!(out, "FAILED {}", done.run)?;
        for violation in &done.outcome.violations {
            writeln!(out, "  {violation}")?;
        }
    }
    Ok(Verdict::of(&done))
}
