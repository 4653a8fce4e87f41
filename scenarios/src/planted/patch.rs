//! A planted mistake as its file holds it.

use std::fs;
use std::path::{Path, PathBuf};

use super::detect::Stage;

/// A mistake: a unified diff, and what is said of it in the lines before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Patch {
    /// The name of the file, without `.patch`: a number and a few words.
    pub(super) name: String,
    /// The file.
    pub(super) path: PathBuf,
    /// What is wrong, in a sentence.
    pub(super) what: String,
    /// Within how many runs of the part that catches it, it must be caught.
    pub(super) runs: u64,
    /// What should see it: `sweep`, `run`, `explore`, `determinism`, `vectors`, or a scenario of the library by its name.
    pub(super) seen_by: Vec<String>,
    /// The files that it changes, from the root of the repository.
    pub(super) files: Vec<PathBuf>,
}

/// Why a file plants no mistake.
#[derive(Debug, thiserror::Error)]
#[error("`{}`: {why}", path.display())]
pub(super) struct InvalidPatch {
    path: PathBuf,
    why: String,
}

/// The parts of the simulator that a header can name; any other word is a scenario.
const PARTS: [&str; 3] = ["sweep", "run", "explore"];
/// Parts that are tried only where they are named.
const OTHERS: [(&str, Stage); 2] = [("determinism", Stage::Determinism), ("vectors", Stage::Vectors)];

/// All planted mistakes of a directory, by number.
///
/// # Errors
/// [`InvalidPatch`] for a directory or file that cannot be read, and for a header that is not complete.
pub(super) fn load(dir: &Path) -> Result<Vec<Patch>, InvalidPatch> {
    let unread = |error: std::io::Error| InvalidPatch { path: dir.into(), why: error.to_string() };
    let entries = fs::read_dir(dir).map_err(unread)?.collect::<Result<Vec<_>, _>>().map_err(unread)?;
    let mut paths: Vec<_> = entries.into_iter().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "patch"));
    paths.sort_by_key(|path| (number(path), path.clone()));
    paths.iter().map(|path| Patch::load(path)).collect()
}

/// The number that a file's name begins with.
fn number(path: &Path) -> Option<u32> {
    path.file_stem()?.to_str()?.split('-').next()?.parse().ok()
}

impl Patch {
    fn load(path: &Path) -> Result<Self, InvalidPatch> {
        let text = fs::read_to_string(path).map_err(|error| error.to_string());
        let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        text.and_then(|text| Self::parse(name, path, &text))
            .map_err(|why| InvalidPatch { path: path.into(), why })
    }

    fn parse(name: String, path: &Path, text: &str) -> Result<Self, String> {
        let header: Vec<_> = text.lines().take_while(|line| !line.starts_with("diff ")).collect();
        let (mut what, mut runs, mut seen_by) = (None, None, None);
        for line in header {
            let (key, value) = line
                .strip_prefix("# ")
                .and_then(|line| line.split_once(": "))
                .ok_or_else(|| format!("`{line}` is no `# key: value`"))?;
            match key {
                "what" => what = Some(value.to_owned()),
                "runs" => runs = value.parse().ok().filter(|runs| *runs > 0),
                "seen-by" => seen_by = Some(value.split(',').map(|part| part.trim().to_owned()).collect()),
                _ => return Err(format!("the header has no `{key}`, only `what`, `runs` and `seen-by`")),
            }
        }
        let changed = text.lines().filter_map(|line| line.strip_prefix("+++ b/"));
        let files: Vec<_> = changed.map(PathBuf::from).collect();
        if files.is_empty() {
            return Err("it changes no file".into());
        }
        Ok(Self {
            name,
            path: path.into(),
            what: what.ok_or("its header has no `what`")?,
            runs: runs.ok_or("its header has no `runs`, a number above 0")?,
            seen_by: seen_by.ok_or("its header has no `seen-by`")?,
            files,
        })
    }

    /// Whether `name` means this one: its whole name, or that without the number.
    pub(super) fn is_called(&self, name: &str) -> bool {
        self.name == name || self.name.split_once('-').is_some_and(|(_, words)| words == name)
    }

    /// What is tried until it is caught: the scenarios that are named, and then the simulator's parts: those that are named before the
    /// others, and each time the cheapest first.
    pub(super) fn stages(&self) -> Vec<Stage> {
        let is_other = |word: &str| OTHERS.iter().any(|(name, _)| *name == word);
        let is_part = |word: &str| PARTS.contains(&word) || is_other(word);
        let scenarios = self.seen_by.iter().filter(|word| !is_part(word)).cloned().map(Stage::Scenario);
        let named = OTHERS.into_iter().filter(|(name, _)| self.seen_by.iter().any(|word| word == name));
        let others = named.map(|(_, stage)| stage);
        if self.seen_by.iter().all(|word| is_other(word)) {
            return others.collect();
        }
        let mut parts = [("sweep", Stage::Sweep), ("run", Stage::Library), ("explore", Stage::Explore)];
        parts.sort_by_key(|(name, _)| !self.seen_by.iter().any(|word| word == name));
        scenarios.chain(parts.map(|(_, stage)| stage)).chain(others).collect()
    }
}
