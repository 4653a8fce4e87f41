//! Who else can read or change a file.
//!
//! What only its owner may read, only its owner reads (`chmod 600`). What a signature depends on (the record, the configuration, keys, and the
//! directories that hold them) nobody else may change, but for root.
//!
//! **Groups.** A file of root's that a group may read (`root:GROUP 0440`) is private if this process runs in that group, and not as root: so Kubernetes
//! mounts secrets (`fsGroup`), and the process could not change their mode. By the same rule a group may write what root has given to it, and files of
//! this user's own below that (`fsGroup` again, which opens everything on a volume to its group). No other group is let in, not even a user's own of
//! the same name.
//!
//! **Sticky directories**, such as `/tmp` or a secret's volume, may be written by anybody: nobody but a file's owner can replace it there.
//!
//! Only the file and the directories that hold it (the one it is named in, and the one it lies in) are looked at, not what is above them.

use std::fmt::Write as _;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{StatVfsMountFlags, statfs, statvfs};
use rustix::process::{getegid, geteuid, getgroups};

const STICKY: u32 = 0o1000;
const GROUP_READS: u32 = 0o040;
const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;

/// A file or directory that others can change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Changeable {
    path: PathBuf,
    who: String,
    way_on: String,
}

/// Whom a process trusts with its files, besides root and its own user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Nobody.
    Nobody,
    /// This user: root looks after the signer that this user runs.
    User(u32),
}

/// Whether nobody can read a secret but who should; see the [module](self).
pub(super) fn is_private(metadata: &Metadata) -> bool {
    let open_to = metadata.mode() & 0o077;
    open_to == 0 || (open_to == GROUP_READS && is_roots_for_us(metadata))
}

/// What makes a secret private, for the user that runs this.
pub(super) fn way_to_privacy(path: &Path, metadata: &Metadata) -> String {
    let (file, group) = (shell(path), getegid().as_raw());
    if let Some(way_on) = without_modes(path) {
        return way_on;
    }
    let of_root = metadata.uid() == 0;
    match geteuid().as_raw() {
        0 if of_root && metadata.gid() != 0 => format!(
            "run `chmod 600 {file}`, and think about who read it; or run this as a user of group {}, as the signer does",
            metadata.gid()
        ),
        me if me == 0 || me == metadata.uid() => {
            format!("run `chmod 600 {file}`, and think about who read it")
        }
        _ if of_root => format!(
            "as root, run `chgrp {group} {file} && chmod 440 {file}` (in Kubernetes: `fsGroup: {group}` and `defaultMode: 0440`), and think about who \
             read it"
        ),
        me => {
            format!("as root, run `chown {me} {file} && chmod 600 {file}`, and think about who read it")
        }
    }
}

/// Whether others can change a file or directory that is there.
pub fn changeable(path: &Path, trust: Trust) -> Option<Changeable> {
    // What is not there, or cannot be looked at, is told where it is needed.
    let metadata = std::fs::metadata(path).ok()?;
    let (mode, owner, me) = (metadata.mode(), metadata.uid(), geteuid().as_raw());
    let file = shell(path);
    let found = |who: String, way_on: String| Some(Changeable { path: path.to_owned(), who, way_on });
    if owner != 0 && owner != me && trust != Trust::User(owner) {
        let way_on = format!("as root, run `chown {me} {file}`, or run the signer as user {owner}");
        return found(format!("its owner is user {owner}"), way_on);
    }
    let is_sticky = metadata.is_dir() && mode & STICKY != 0;
    let open_to = if mode & OTHERS_WRITE != 0 { "everybody" } else { "its group" };
    let group_is_let_in = mode & GROUP_WRITES == 0 || root_let_in(path, &metadata);
    if is_sticky || (mode & OTHERS_WRITE == 0 && group_is_let_in) {
        return None;
    }
    let who = format!("{open_to} can write it (mode {:04o})", mode & 0o7777);
    if let Some(way_on) = without_modes(path) {
        return found(who, way_on);
    }
    let as_root = if me == 0 || me == owner { "" } else { "as root, " };
    let mut way_on = format!("{as_root}run `chmod go-w {file}`");
    if metadata.is_dir() && !as_root.is_empty() {
        way_on.push_str(", or make a directory of mode 700 in it and move the files there");
    }
    found(who, way_on)
}

/// The directories that hold a file: the one it is named in, and, behind links, the one it lies in.
pub fn directories(file: &Path) -> Vec<PathBuf> {
    let parent = |path: &Path| match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Some(PathBuf::from(".")),
        parent => parent.map(Path::to_owned),
    };
    let mut directories: Vec<_> = parent(file).into_iter().collect();
    if let Some(true_one) = std::fs::canonicalize(file).ok().and_then(|path| parent(&path)) {
        let is_same = |dir: &PathBuf| std::fs::canonicalize(dir).is_ok_and(|dir| dir == true_one);
        if !directories.iter().any(is_same) {
            directories.push(true_one);
        }
    }
    directories
}

/// One text about all that was found; `None` if it is nothing.
pub fn told(found: &[Changeable]) -> Option<String> {
    let mut text = String::from("others can change what signatures depend on:");
    let mut ways_on: Vec<&str> = Vec::new();
    for Changeable { path, who, way_on } in found {
        let _ = write!(text, "\n  `{}`: {who}", path.display());
        if !ways_on.contains(&way_on.as_str()) {
            ways_on.push(way_on);
        }
    }
    (!found.is_empty()).then(|| format!("{text}\nhint: {}", ways_on.join("; ")))
}

/// A path as a shell takes it.
pub fn shell(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,=".contains(c);
    match text.starts_with('-') {
        true => shell(&Path::new(".").join(path)),
        false if !text.is_empty() && text.chars().all(plain) => text,
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

/// A file of root's, and of a group that this process is in.
fn is_roots_for_us(metadata: &Metadata) -> bool {
    metadata.uid() == 0 && !geteuid().is_root() && is_in_group(metadata.gid())
}

/// Whether root has let a file's group in: it is root's, or lies in directories that the same group may write, up to one that is.
fn root_let_in(path: &Path, metadata: &Metadata) -> bool {
    let mut metadata = metadata.clone();
    let Ok(true_path) = std::fs::canonicalize(path) else { return false };
    let mut ancestors = true_path.ancestors().skip(1);
    let group = metadata.gid();
    loop {
        if metadata.gid() != group || metadata.mode() & GROUP_WRITES == 0 {
            return false;
        }
        if metadata.uid() != geteuid().as_raw() || geteuid().is_root() {
            return is_roots_for_us(&metadata);
        }
        let above = ancestors.next().map(std::fs::metadata);
        let Some(Ok(above)) = above else { return false };
        metadata = above;
    }
}

fn is_in_group(group: u32) -> bool {
    getegid().as_raw() == group
        || getgroups().is_ok_and(|groups| groups.iter().any(|gid| gid.as_raw() == group))
}

/// What to do where no mode can be changed.
fn without_modes(path: &Path) -> Option<String> {
    // FAT, exFAT, NTFS (two drivers), CIFS and SMB, and the shares of virtual machines: a mount has one mode for all.
    const WITHOUT_MODES: [u32; 8] =
        [0x4d44, 0x2011_bab0, 0x5346_544e, 0x7366_746e, 0xff53_4d42, 0xfe53_4d42, 0x0102_1997, 0x786f_4256];
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    // Magic numbers have 32 bits, whatever the width of the field.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "as above")]
    let kind = statfs(path).ok().map(|found| found.f_type as u32);
    if kind.is_some_and(|kind| WITHOUT_MODES.contains(&kind)) {
        return Some(format!(
            "its file system keeps no modes: mount it with `uid={user},umask=077`, or move it to another one"
        ));
    }
    let read_only = statvfs(path).is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY));
    read_only.then(|| {
        format!(
            "it is mounted read-only: where it comes from, give it owner root, group {group} and mode 0440 (in Kubernetes: \
             `fsGroup: {group}` and `defaultMode: 0440`)"
        )
    })
}

/// Whether a failure says that this user may not, or nobody may, where the file is.
pub fn is_denied(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn made(dir: &tempfile::TempDir, name: &str, mode: u32) -> PathBuf {
        let path = dir.path().join(name);
        if name.ends_with('/') {
            fs::create_dir(&path).expect("a directory");
        } else {
            fs::write(&path, "x").expect("a file");
        }
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("a mode");
        path
    }

    #[test]
    fn what_group_or_everybody_can_write_is_changeable_until_the_hint_is_followed() {
        let dir = tempfile::tempdir().expect("a directory");
        for (name, mode, open) in [
            ("a", 0o600, false),
            ("b", 0o644, false),
            ("c", 0o664, true),
            ("d'e f", 0o666, true),
            ("g/", 0o755, false),
            ("h/", 0o775, true),
            ("i/", 0o777, true),
            ("j/", 0o1777, false),
        ] {
            let path = made(&dir, name, mode);
            let found = changeable(&path, Trust::Nobody);
            assert_eq!(found.is_some(), open, "{name} {mode:o}");
            let Some(text) = told(found.as_slice()) else { continue };
            let command = text.rsplit_once("hint: run `").expect("a command").1.trim_end_matches('`');
            let ran = std::process::Command::new("sh").args(["-c", command]).status().expect("a shell");
            assert!(ran.success() && changeable(&path, Trust::Nobody).is_none(), "{text}");
        }
        assert_eq!(changeable(&dir.path().join("none"), Trust::Nobody), None);
    }

    #[test]
    fn the_directory_of_a_link_and_that_of_its_target_hold_a_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let there = made(&dir, "there/", 0o700);
        fs::write(there.join("file"), "x").expect("a file");
        let here = made(&dir, "here/", 0o700);
        symlink(there.join("file"), here.join("file")).expect("a link");
        let canonical = |path: &Path| fs::canonicalize(path).expect("it is there");
        let found: Vec<_> = directories(&here.join("file")).iter().map(|dir| canonical(dir)).collect();
        assert_eq!(found, [canonical(&here), canonical(&there)]);
        assert_eq!(directories(&there.join("file")).len(), 1);
        assert_eq!(directories(Path::new("no-such-file")), [Path::new(".")]);
    }

    #[test]
    fn paths_are_quoted_where_a_shell_needs_it() {
        for (path, quoted) in
            [("/a/b.key", "/a/b.key"), ("a b", "'a b'"), ("a'b", r"'a'\''b'"), ("-f", "./-f")]
        {
            assert_eq!(shell(Path::new(path)), quoted);
        }
    }
}
