//! The command line: one file for each command.
//!
//! Exit codes: 0 all held, 1 an invariant was violated, 2 nothing could be run: wrong usage, or a wrong file.

mod bench;
mod check;
mod commit;
mod determinism;
mod explore;
mod list;
mod new;
mod planted;
mod progress;
mod replay;
mod report;
mod run;
mod save;
mod schema;
mod summary;
mod sweep;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Parser, Subcommand};
use monosign::ops::unread::Unread;
use monosign_protocol::Dialect;

use crate::jobs::{self, Runner};
use crate::library;
use crate::world;

/// Runs, explores and replays what may happen to a signer, in a simulated world.
#[derive(Debug, Parser)]
#[command(
    name = "scenarios",
    version,
    after_help = "Exit codes: 0 all held, 1 an invariant was violated, 2 nothing could be run."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run scenarios by name, or all there are.
    Run(run::RunArgs),
    /// List the scenarios.
    List(list::ListArgs),
    /// Make the file of a new scenario from a template.
    New(new::NewArgs),
    /// Check files, and say what is wrong where.
    Check(check::CheckArgs),
    /// Print the JSON schema of scenario files.
    Schema,
    /// Run a saved failure again, event for event.
    Replay(replay::ReplayArgs),
    /// Make up scenarios at random, run them, and save what fails in its smallest form.
    Explore(explore::ExploreArgs),
    /// Crash at every single point of input and output of a fixed piece of work.
    Sweep(sweep::SweepArgs),
    /// Run seeds in two processes, and compare what happened, down to the packets.
    Determinism(determinism::DeterminismArgs),
    /// Measure how fast worlds run.
    Bench(bench::BenchArgs),
    /// Plant mistakes in a copy of the tree, and see that each is caught.
    Planted(planted::PlantedArgs),
}

/// How a command that could do its work ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// All held.
    Held,
    /// Something did not hold, or a file is wrong that was to be checked.
    Violated,
}

impl Verdict {
    fn of(done: &[jobs::Done]) -> Self {
        match done.iter().all(|done| done.outcome.violations.is_empty()) {
            true => Self::Held,
            false => Self::Violated,
        }
    }
}

/// Runs the command line of this process and says how it ended.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli, &world::run, &mut Unread::new(std::io::stdout())) {
        Ok(Verdict::Held) => ExitCode::SUCCESS,
        Ok(Verdict::Violated) => ExitCode::from(1),
        Err(error) => {
            // As much as can be told; standard error may be gone.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(cli: Cli, runner: Runner<'_>, out: &mut dyn Write) -> anyhow::Result<Verdict> {
    match cli.command {
        Command::Run(args) => run::run(&args, runner, out),
        Command::List(args) => list::run(&args, out),
        Command::New(args) => new::run(&args, out),
        Command::Check(args) => check::run(&args, out),
        Command::Schema => schema::run(out),
        Command::Replay(args) => replay::run(&args, runner, out),
        Command::Sweep(args) => sweep::run(&args, out),
        Command::Determinism(args) => determinism::run(&args, out),
        Command::Bench(args) => bench::run(&args, out),
        Command::Explore(args) => explore::run(&args, runner, out),
        Command::Planted(args) => planted::run(&args, out),
    }
}

/// Where scenarios lie.
#[derive(Debug, Args)]
struct LibraryArgs {
    /// The directory of the scenarios, instead of the project's own.
    #[arg(long, value_name = "DIR")]
    library: Option<PathBuf>,
}

impl LibraryArgs {
    /// The directory that new scenarios go to.
    fn dir(&self) -> PathBuf {
        self.library.clone().unwrap_or_else(|| library::home().join("library"))
    }

    /// All files: of the named directory, or else of the project's library and its regressions.
    fn files(&self) -> anyhow::Result<Vec<PathBuf>> {
        if let Some(dir) = self.library.as_ref().filter(|dir| !dir.is_dir()) {
            bail!("`{}` is no directory", dir.display());
        }
        let mut files = library::files(&self.dir())?;
        if self.library.is_none() {
            files.extend(library::files(&regressions())?);
        }
        Ok(files)
    }
}

/// Where what once failed is kept.
fn regressions() -> PathBuf {
    library::home().join("regressions")
}

/// Where reports go.
#[derive(Debug, Args)]
struct ReportArgs {
    /// The directory for reports, instead of target/reports.
    #[arg(long, value_name = "DIR")]
    reports: Option<PathBuf>,
}

impl ReportArgs {
    fn dir(&self) -> PathBuf {
        self.reports.clone().unwrap_or_else(|| library::home().with_file_name("target").join("reports"))
    }
}

/// How many at once.
#[derive(Debug, Args)]
struct JobArgs {
    /// How many runs at once, instead of one for each processor.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
}

impl JobArgs {
    fn count(&self) -> usize {
        self.jobs.map_or_else(jobs::default_jobs, usize::from)
    }
}

fn dialect(text: &str) -> Result<Dialect, String> {
    let names = Dialect::ALL.map(|dialect| format!("`{dialect}`")).join(", ");
    text.parse().map_err(|_| format!("`{text}` is no release: use one of {names}"))
}
