//! Failures as files: the scenario, with the run that failed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::commit;
use crate::jobs::Done;
use crate::scenario::{Found, Scenario};

/// The scenario of a failed run, with `[found]` filled.
pub(super) fn with_found(done: &Done) -> Scenario {
    let violation = done.outcome.violations.first().map(ToString::to_string).unwrap_or_default();
    let found = Found {
        mode: done.run.mode.to_string(),
        dialect: done.run.dialect.to_string(),
        seed: done.run.seed.to_string(),
        violation,
        trace: done.outcome.trace.clone(),
        commit: commit::described(),
    };
    Scenario { found: Some(found), ..done.run.scenario.clone() }
}

/// Writes a scenario's file into a directory, which is made if there is none.
pub(super) fn write(dir: &Path, name: &str, scenario: &Scenario) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make `{}`", dir.display()))?;
    let path = dir.join(format!("{name}.toml"));
    let text = toml::to_string(scenario)?;
    fs::write(&path, text).with_context(|| format!("cannot write `{}`", path.display()))?;
    Ok(path)
}

/// Saves a failed run among the reports, for `scenarios replay`.
pub(super) fn failure(reports: &Path, done: &Done) -> anyhow::Result<PathBuf> {
    let run = &done.run;
    // One scenario and seed can fail in several modes and releases.
    let name = format!("{}-{}-{}-{}", run.name, run.mode, run.dialect, run.seed);
    write(&reports.join("failures"), &name, &with_found(done))
}
