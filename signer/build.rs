//! Which sources and which compiler a build is of. Without git, it says so and builds all the same.

use std::env;
use std::process::Command;

fn main() {
    // Whatever goes into the program. What is committed later changes nothing in it, and builds nothing anew.
    for source in
        ["build.rs", "Cargo.toml", "src", "../Cargo.lock", "../protocol/src", "../mock-validator/src"]
    {
        println!("cargo:rerun-if-changed={source}");
    }
    println!("cargo:rerun-if-env-changed=MONOSIGN_COMMIT");
    let commit = env::var("MONOSIGN_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = commit.or_else(of_git).unwrap_or_else(|| "unknown (built without git)".into());
    println!("cargo:rustc-env=MONOSIGN_COMMIT={commit}");
    let compiler = env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let compiler = output(Command::new(compiler).arg("--version")).unwrap_or_else(|| "unknown".into());
    println!("cargo:rustc-env=MONOSIGN_RUSTC={}", compiler.trim_start_matches("rustc "));
}

fn of_git() -> Option<String> {
    // Not that of a repository around an unpacked archive.
    let is_ours = output(Command::new("git").args(["ls-files", "--error-unmatch", "build.rs"])).is_some();
    let commit = output(Command::new("git").args(["rev-parse", "--short=12", "HEAD"])).filter(|_| is_ours)?;
    let sources = ["status", "--porcelain", "--", ".", "../protocol", "../mock-validator", "../Cargo.lock"];
    let is_clean = output(Command::new("git").args(sources)).is_some_and(|changed| changed.is_empty());
    Some(if is_clean { commit } else { format!("{commit}, with changes") })
}

/// What a command prints, on one line, if it succeeds.
fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.lines().next().unwrap_or_default().trim().to_owned())
}
