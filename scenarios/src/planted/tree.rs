//! A copy of the working tree, to plant mistakes in.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use super::Patch;

/// The copy.
pub(super) struct Tree {
    root: PathBuf,
}

/// A mistake that is in the copy now.
pub(super) struct Applied {
    before: Vec<(PathBuf, Vec<u8>)>,
}

impl Tree {
    /// Copies what git tracks or would track of `from`, as it is in the working tree. Files of the last copy that are the same are
    /// left alone, so that cargo builds only what has changed, and what is left of an interrupted trial is put right.
    pub(super) fn copy(from: &Path, to: &Path) -> anyhow::Result<Self> {
        let files = listed(from)?;
        for file in &files {
            copy_if_other(&from.join(file), &to.join(file))
                .with_context(|| format!("cannot copy `{}`", file.display()))?;
        }
        remove_others(to, to, &files).with_context(|| format!("cannot tidy up `{}`", to.display()))?;
        Ok(Self { root: to.into() })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Plants a mistake.
    pub(super) fn apply(&self, patch: &Patch) -> anyhow::Result<Applied> {
        try_patch(&self.root, patch)?;
        let read = |file: &PathBuf| {
            let path = self.root.join(file);
            fs::read(&path).map(|content| (path, content))
        };
        let before = patch.files.iter().map(read).collect::<Result<_, _>>()?;
        let applied = Applied { before };
        match run_patch(&self.root, patch, &[]) {
            Ok(()) => Ok(applied),
            Err(error) => applied.revert().and(Err(error)),
        }
    }
}

impl Applied {
    /// Takes the mistake out again. The files get a new time of change, for what was built of them is no longer theirs.
    pub(super) fn revert(self) -> anyhow::Result<()> {
        for (path, content) in self.before {
            fs::write(&path, content).with_context(|| format!("cannot put `{}` back", path.display()))?;
        }
        Ok(())
    }
}

/// Whether a mistake can be planted in the tree at `root`; nothing is changed.
pub(super) fn try_patch(root: &Path, patch: &Patch) -> anyhow::Result<()> {
    run_patch(root, patch, &["--dry-run"])
}

/// `patch` finds its place by what is left of the context, so that edits nearby do no harm.
fn run_patch(root: &Path, patch: &Patch, more: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("patch")
        .args([
            "--strip=1",
            "--fuzz=1",
            "--batch",
            "--forward",
            "--silent",
            "--no-backup-if-mismatch",
            "--reject-file=-",
        ])
        .args(more)
        .arg("--input")
        .arg(&patch.path)
        .current_dir(root)
        .output()
        .context("cannot run `patch`")?;
    if !output.status.success() {
        bail!("`{}` no longer applies: {}", patch.name, String::from_utf8_lossy(&output.stdout).trim());
    }
    Ok(())
}

fn listed(root: &Path) -> anyhow::Result<BTreeSet<PathBuf>> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .context("cannot run `git`")?;
    if !output.status.success() {
        bail!("cannot list `{}`: {}", root.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    let names = String::from_utf8(output.stdout).context("a file's name is no UTF-8")?;
    let files = names.split_terminator('\0').map(PathBuf::from);
    // git lists what was removed without telling it, too.
    Ok(files.filter(|file| root.join(file).is_file()).collect())
}

fn copy_if_other(from: &Path, to: &Path) -> std::io::Result<()> {
    let content = fs::read(from)?;
    if fs::read(to).is_ok_and(|there| there == content) {
        return Ok(());
    }
    if let Some(dir) = to.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::write(to, content)
}

fn remove_others(root: &Path, dir: &Path, keep: &BTreeSet<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            remove_others(root, &path, keep)?;
        } else if path.strip_prefix(root).is_ok_and(|file| !keep.contains(file)) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}
