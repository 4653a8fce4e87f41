//! The scenarios there are: one file each.

use std::path::{Path, PathBuf};

use monosign_protocol::Dialect;

use crate::run::{Mode, Run};
use crate::scenario::{self, LoadError, Scenario};

/// A scenario of a file.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its name, that of the file without `.toml`.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// What stands in it.
    pub scenario: Scenario,
}

/// Why there is no set of scenarios.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// A directory cannot be read.
    #[error("cannot read `{}`: {why}", path.display())]
    Read {
        /// The directory.
        path: PathBuf,
        /// Why.
        why: std::io::Error,
    },
    /// Some files are no scenarios.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Load(Vec<LoadError>),
    /// Two files have one name.
    #[error("`{}` and `{}` have the same name", .0.display(), .1.display())]
    Twins(PathBuf, PathBuf),
}

/// Which of a scenario's runs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Choice<'a> {
    /// In this mode only.
    pub mode: Option<Mode>,
    /// Against this release only.
    pub dialect: Option<Dialect>,
    /// Under this seed only.
    pub seed: Option<u64>,
    /// The commit whose seeds are used; none for the seeds that are the same at every commit.
    pub fresh: Option<&'a str>,
}

/// The directory of this crate, where the scenarios lie.
pub fn home() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The scenario files of a directory, by name; none if there is no such directory.
///
/// # Errors
/// [`LibraryError::Read`].
pub fn files(dir: &Path) -> Result<Vec<PathBuf>, LibraryError> {
    let unread = |why| LibraryError::Read { path: dir.into(), why };
    if !dir.exists() {
        return Ok(Vec::new());
    }
    let entries = std::fs::read_dir(dir).map_err(unread)?.collect::<Result<Vec<_>, _>>().map_err(unread)?;
    let mut files: Vec<_> = entries.into_iter().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    Ok(files)
}

/// Loads the files, all of them or none.
///
/// # Errors
/// [`LibraryError::Load`] with every file's mistakes, [`LibraryError::Twins`].
pub fn load(files: &[PathBuf]) -> Result<Vec<Entry>, LibraryError> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut errors = Vec::new();
    for path in files {
        match Entry::load(path) {
            Ok(entry) => entries.push(entry),
            Err(error) => errors.push(error),
        }
    }
    if !errors.is_empty() {
        return Err(LibraryError::Load(errors));
    }
    for (n, entry) in entries.iter().enumerate() {
        if let Some(twin) = entries[..n].iter().find(|other| other.name == entry.name) {
            return Err(LibraryError::Twins(twin.path.clone(), entry.path.clone()));
        }
    }
    Ok(entries)
}

impl Entry {
    /// Loads one file.
    ///
    /// # Errors
    /// As [`scenario::load`].
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        Ok(Self { name: scenario::name_of(path), path: path.into(), scenario: scenario::load(path)? })
    }

    /// The modes it makes sense for.
    pub fn modes(&self) -> Vec<Mode> {
        if self.scenario.modes.is_empty() {
            let makes_sense = |mode: &Mode| self.scenario.makes_sense_for(*mode);
            return Mode::SOLE.into_iter().chain(Mode::EXTRA.into_iter().filter(makes_sense)).collect();
        }
        let named = |mode: &Mode| self.scenario.modes.contains(&mode.to_string());
        Mode::ALL.into_iter().filter(named).collect()
    }

    /// The releases it makes sense for.
    pub fn dialects(&self) -> Vec<Dialect> {
        let named = |dialect: &Dialect| self.scenario.dialects.contains(&dialect.to_string());
        let every = self.scenario.dialects.is_empty();
        Dialect::ALL.into_iter().filter(|dialect| every || named(dialect)).collect()
    }

    /// Whether a mode is one more that it is run in, beside those that it was written for.
    fn is_extra(&self, mode: Mode) -> bool {
        !Mode::SOLE.contains(&mode) && self.scenario.modes.is_empty()
    }

    /// The releases it is run against in a mode. In an extra one it is run once, each time against another release: what nodes ask is the
    /// same, and these worlds take longer.
    fn dialects_in(&self, mode: Mode) -> Vec<Dialect> {
        let all = self.dialects();
        if !self.is_extra(mode) {
            return all;
        }
        let drawn = Run::derive_seed(&self.name, mode, Dialect::V0_38, 0, "release") as usize;
        vec![all[drawn % all.len()]]
    }

    /// Its runs, of those that are chosen: each mode, each release, each seed.
    pub fn runs(&self, choice: Choice<'_>) -> Vec<Run> {
        let mut runs = Vec::new();
        for mode in self.modes().into_iter().filter(|mode| choice.mode.is_none_or(|chosen| chosen == *mode)) {
            let dialects = choice.dialect.map_or_else(|| self.dialects_in(mode), |_| self.dialects());
            for dialect in dialects {
                if choice.dialect.is_none_or(|chosen| chosen == dialect) {
                    runs.extend(
                        self.seeds(mode, dialect, choice)
                            .into_iter()
                            .map(|seed| self.run(mode, dialect, seed)),
                    );
                }
            }
        }
        runs
    }

    /// The run that its `[found]` stands for, if it is a saved failure.
    pub fn found(&self) -> Option<Run> {
        let found = self.scenario.found.as_ref()?;
        let (mode, dialect) = (found.mode.parse().ok()?, found.dialect.parse().ok()?);
        Some(self.run(mode, dialect, found.seed.parse().ok()?))
    }

    fn run(&self, mode: Mode, dialect: Dialect, seed: u64) -> Run {
        Run { scenario: self.scenario.clone(), name: self.name.clone(), mode, dialect, seed }
    }

    fn seeds(&self, mode: Mode, dialect: Dialect, choice: Choice<'_>) -> Vec<u64> {
        if let Some(seed) = choice.seed {
            return vec![seed];
        }
        let derived =
            |index| Run::derive_seed(&self.name, mode, dialect, index, choice.fresh.unwrap_or_default());
        let count = if self.is_extra(mode) { 1 } else { self.scenario.seeds };
        let mut seeds: Vec<_> = (0..count).map(derived).collect();
        // What once failed is run as it failed.
        if let Some(found) = self.found().filter(|found| (found.mode, found.dialect) == (mode, dialect)) {
            seeds[0] = found.seed;
        }
        seeds
    }
}
