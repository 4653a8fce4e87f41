//! `mock-validator compare`.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{fs, io};

use anyhow::Context as _;
use monosign_reports::Report;

use super::unread::Unread;

/// Arguments of `mock-validator compare`.
#[derive(clap::Args)]
pub(crate) struct Compare {
    /// The JSON reports, a column for each in this order.
    #[arg(value_name = "JSON", required = true)]
    reports: Vec<PathBuf>,
    /// The page to write.
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// What the page is called.
    #[arg(long, default_value = "Conformance, side by side")]
    title: String,
}

/// Runs it and says how it ended.
pub(crate) fn run(args: Compare) -> ExitCode {
    match compare(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn compare(args: &Compare) -> anyhow::Result<()> {
    let reports = args.reports.iter().map(|path| read(path)).collect::<anyhow::Result<Vec<_>>>()?;
    let page = Report::side_by_side(&args.title, &reports);
    let written: io::Result<()> = fs::write(&args.output, page);
    written.with_context(|| format!("cannot write `{}`", args.output.display()))?;
    writeln!(Unread::new(io::stdout()), "{} reports side by side: {}", reports.len(), args.output.display())?;
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<Report> {
    let text = fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("`{}` is no report", path.display()))
}
