//! `scenarios bench`.

use std::io::Write;
use std::time::Duration;

use clap::Args;
use monosign_protocol::Dialect;
use rustix::time::{ClockId, clock_gettime};

use super::Verdict;
use crate::explore::generate;
use crate::jobs::{self, Done};
use crate::run::{Mode, Run};
use crate::scenario::{self, Span};
use crate::trace::Detail;
use crate::world;

/// Arguments of `scenarios bench`.
#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    /// How often each measurement is made; the best counts, as others use the machine.
    #[arg(long, value_name = "N", default_value_t = 3)]
    times: usize,
}

/// Faults between two nodes and their signer.
const FAULTS: &str = include_str!("bench/faults.toml");
/// An hour of a chain where nothing happens.
const HOUR: &str = include_str!("bench/hour.toml");

pub(super) fn run(args: &BenchArgs, out: &mut dyn Write) -> anyhow::Result<Verdict> {
    let mut faults = plan("faults", FAULTS)?;
    // A tick costs about a microsecond for each host, whether or not anything happens in it, and that is nearly all there is.
    for tick in [1, 2] {
        faults.scenario.tick = Span(Duration::from_millis(tick));
        for (what, detail) in [("every packet hashed", Detail::Hash), ("nothing hashed", Detail::Off)] {
            let (cpu, simulated) = best(args.times, &faults, detail);
            let rate = simulated.as_secs_f64() / cpu.as_secs_f64();
            writeln!(
                out,
                "two nodes and faults, ticks of {tick} ms, {what}: {rate:.0} simulated seconds per CPU second"
            )?;
        }
    }
    let (cpu, simulated) = best(1, &plan("hour", HOUR)?, Detail::Hash);
    writeln!(out, "{} s of a calm chain: {:.1} s of CPU", simulated.as_secs(), cpu.as_secs_f64())?;
    let seeds: Vec<u64> = (1..=24).collect();
    let explore = |workers: usize| {
        let begin = wall();
        jobs::each(&seeds, workers, |seed| Done::carry_out(&generate(*seed), &world::run), |_| ());
        (wall() - begin).as_secs_f64()
    };
    let (one, two) = (explore(1), explore(2));
    writeln!(
        out,
        "24 explored seeds: {one:.1} s by one job, {two:.1} s by two: {:.2} times as fast",
        one / two
    )?;
    Ok(Verdict::Held)
}

fn plan(name: &str, text: &str) -> anyhow::Result<Run> {
    let scenario = scenario::parse(text).map_err(|error| anyhow::anyhow!("{name}: {error:?}"))?;
    Ok(Run { scenario, name: name.into(), mode: Mode::Softsign, dialect: Dialect::V0_38, seed: 1 })
}

fn best(times: usize, run: &Run, detail: Detail) -> (Duration, Duration) {
    let measured = (0..times.max(1)).map(|_| {
        let begin = cpu();
        let outcome = world::run_traced(run, detail).0;
        (cpu() - begin, Duration::from_millis(outcome.simulated_ms))
    });
    measured.min().unwrap_or_default()
}

fn cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

fn wall() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default()
}
