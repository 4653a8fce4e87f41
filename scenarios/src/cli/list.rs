//! `scenarios list`.

use std::io::Write;

use clap::Args;

use super::{LibraryArgs, Verdict};
use crate::library;

/// Arguments of `scenarios list`.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    library: LibraryArgs,
}

pub(super) fn run(args: &ListArgs, out: &mut dyn Write) -> anyhow::Result<Verdict> {
    let entries = library::load(&args.library.files()?)?;
    for entry in &entries {
        writeln!(out, "{}", entry.name)?;
        writeln!(out, "    {}", entry.scenario.about.trim())?;
        if let Some(incident) = &entry.scenario.incident {
            writeln!(out, "    incident: {}", incident.trim())?;
        }
        for (what, names) in [("modes", &entry.scenario.modes), ("dialects", &entry.scenario.dialects)] {
            if !names.is_empty() {
                writeln!(out, "    only {what}: {}", names.join(", "))?;
            }
        }
    }
    let runs: usize = entries.iter().map(|entry| entry.runs(library::Choice::default()).len()).sum();
    writeln!(out, "{} scenarios, {runs} runs", entries.len())?;
    Ok(Verdict::Held)
}
