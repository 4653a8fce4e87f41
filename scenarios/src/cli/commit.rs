//! Which commit this is.

use std::process::Command;

use crate::library;

/// The commit of the working tree that this was built in, marked where it has changes; `unknown` outside of a repository.
pub(super) fn described() -> String {
    git(&["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"])
}

/// The hash of the commit alone.
pub(super) fn hash() -> String {
    git(&["rev-parse", "HEAD"])
}

fn git(args: &[&str]) -> String {
    let output = Command::new("git").arg("-C").arg(library::home()).args(args).output();
    match output {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        _ => "unknown".into(),
    }
}
