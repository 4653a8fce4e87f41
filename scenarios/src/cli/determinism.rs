//! `scenarios determinism`.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::Command;

use anyhow::{Context as _, bail};
use clap::Args;

use super::Verdict;
use crate::explore::generate;
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
    /// Print the hash of each seed's events and nothing else: what the other process does.
    #[arg(long, hide = true)]
    hashes: bool,
}

/// Each seed is run by this process and, in another order, by another one; what happened must be the same, down to the packets.
pub(super) fn run(args: &DeterminismArgs, out: &mut dyn Write) -> anyhow::Result<Verdict> {
    let seeds: Vec<u64> = (args.from_seed..).take(args.seeds as usize).collect();
    if args.hashes {
        // Backwards: what a run does must not depend on the runs before it.
        for seed in seeds.iter().rev() {
            writeln!(out, "{seed} {}", world::run(&generate(*seed)).trace)?;
        }
        return Ok(Verdict::Held);
    }
    let other = Command::new(std::env::current_exe()?)
        .args(["determinism", "--hashes", "--seeds", &args.seeds.to_string()])
        .args(["--from-seed", &args.from_seed.to_string()])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .context("cannot start a second process")?;
    let ours: BTreeMap<u64, String> =
        seeds.iter().map(|seed| (*seed, world::run(&generate(*seed)).trace)).collect();
    let other = other.wait_with_output()?;
    if !other.status.success() {
        bail!("the second process failed: {}", other.status);
    }
    let text = String::from_utf8(other.stdout)?;
    let theirs: BTreeMap<u64, &str> = text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(seed, hash)| Some((seed.parse().ok()?, hash)))
        .collect();
    let differ: Vec<u64> = seeds
        .iter()
        .copied()
        .filter(|seed| ours.get(seed).map(String::as_str) != theirs.get(seed).copied())
        .collect();
    writeln!(out, "{} seeds in two processes, {} differ", seeds.len(), differ.len())?;
    for seed in &differ {
        writeln!(out, "DIFFERS seed {seed}: {}", first_difference(*seed))?;
    }
    match differ.is_empty() {
        true => Ok(Verdict::Held),
        false => Ok(Verdict::Violated),
    }
}

/// Where two runs of this process part, if they do.
fn first_difference(seed: u64) -> String {
    let lines = || world::run_traced(&generate(seed), Detail::Lines).1.lines;
    let (once, again) = (lines(), lines());
    match once.iter().zip(&again).position(|(a, b)| a != b) {
        Some(at) => format!("event {at}:\n  {}\n  {}", once[at], again[at]),
        None if once.len() != again.len() => format!("{} events, and {}", once.len(), again.len()),
        None => "the same twice in this process".into(),
    }
}
