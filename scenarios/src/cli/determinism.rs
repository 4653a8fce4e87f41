//! `scenarios determinism`.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::Command;

use anyhow::{Context as _, bail};
use clap::Args;
use monosign_reports::{Case, Report, Status, Suite};

use super::{ReportArgs, Verdict, commit};
use crate::explore::made_up;
use crate::jobs::Done;
use crate::run::{Mode, Run};
use crate::trace::Detail;
use crate::world;

/// Arguments of `scenarios determinism`.
#[derive(Debug, Args)]
pub(super) struct DeterminismArgs {
    /// How many seeds.
    #[arg(long, value_name = "N", default_value_t = 50)]
    seeds: u64,
    /// The first seed.
    #[arg(long, value_name = "S", default_value_t = 1)]
    from_seed: u64,
    /// In this signing mode only.
    #[arg(long)]
    mode: Option<Mode>,
    /// Print the hash of each seed's events and nothing else: what the other process does.
    #[arg(long, hide = true)]
    hashes: bool,
    #[command(flatten)]
    reports: ReportArgs,
}

/// Each seed is run by this process and, in another order, by another one; what happened must be the same, down to the packets.
pub(super) fn run(args: &DeterminismArgs, out: &mut dyn Write) -> anyhow::Result<Verdict> {
    let seeds: Vec<u64> = (args.from_seed..).take(args.seeds as usize).collect();
    if args.hashes {
        // Backwards: what a run does must not depend on the runs before it.
        for seed in seeds.iter().rev() {
            writeln!(out, "{seed} {}", world::run(&made_up(*seed, args.mode)).trace)?;
        }
        return Ok(Verdict::Held);
    }
    let other = Command::new(std::env::current_exe()?)
        .args(["determinism", "--hashes", "--seeds", &args.seeds.to_string()])
        .args(["--from-seed", &args.from_seed.to_string()])
        .args(args.mode.iter().flat_map(|mode| ["--mode".to_owned(), mode.to_string()]))
        .stdout(std::process::Stdio::piped())
        .spawn()
        .context("cannot start a second process")?;
    let carried_out = |seed: &u64| Done::carry_out(&made_up(*seed, args.mode), &world::run);
    let ours: Vec<Done> = seeds.iter().map(carried_out).collect();
    let other = other.wait_with_output()?;
    if !other.status.success() {
        bail!("the second process failed: {}", other.status);
    }
    let printed = String::from_utf8(other.stdout)?;
    let theirs = hashes_in(&printed);
    let cases: Vec<Case> = ours.iter().map(|done| case(done, theirs.get(&done.run.seed))).collect();
    let differ = cases.iter().filter(|case| case.status == Status::Failed);
    writeln!(out, "{} seeds in two processes, {} differ", seeds.len(), differ.clone().count())?;
    for case in differ.clone() {
        writeln!(out, "DIFFERS {}: {}", case.name, case.message.as_deref().unwrap_or_default())?;
    }
    let verdict = match differ.count() {
        0 => Verdict::Held,
        _ => Verdict::Violated,
    };
    let about = "Each seed in two processes, in another order: the same events, down to the packets.".into();
    let suite = Suite { name: "determinism".into(), about, properties: BTreeMap::new(), cases };
    let report =
        Report { title: "monosign determinism".into(), commit: commit::described(), suites: vec![suite] };
    report.write(&args.reports.dir(), "determinism")?;
    Ok(verdict)
}

/// What the other process printed.
fn hashes_in(text: &str) -> BTreeMap<u64, &str> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(seed, hash)| Some((seed.parse().ok()?, hash)))
        .collect()
}

fn case(ours: &Done, theirs: Option<&&str>) -> Case {
    let (seed, trace) = (ours.run.seed, &ours.outcome.trace);
    let is_same = theirs.is_some_and(|theirs| theirs == trace);
    Case {
        name: format!("seed {seed}"),
        status: if is_same { Status::Passed } else { Status::Failed },
        duration: ours.cpu,
        message: (!is_same).then(|| first_difference(&ours.run)),
        properties: [("trace".to_owned(), trace.clone())].into(),
    }
}

/// Where two runs of this process part, if they do.
fn first_difference(run: &Run) -> String {
    let lines = || world::run_traced(run, Detail::Lines).1.lines;
    let (once, again) = (lines(), lines());
    match once.iter().zip(&again).position(|(a, b)| a != b) {
        Some(at) => format!("event {at}:\n  {}\n  {}", once[at], again[at]),
        None if once.len() != again.len() => format!("{} events, and {}", once.len(), again.len()),
        None => "the same twice in this process".into(),
    }
}
