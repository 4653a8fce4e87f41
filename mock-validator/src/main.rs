//! `mock-validator`: asks a remote signer for signatures as a CometBFT validator does, and says what it does wrong.

mod cli;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A CometBFT validator as a remote signer meets it.
#[derive(Parser)]
#[command(name = "mock-validator", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Wait for a signer, ask it for the signatures of some heights, then for a double sign.
    ///
    /// Exit codes: 0 all was signed and the double sign refused; 1 the signer failed: it refused what is safe, gave an
    /// answer that no node could use, was lost, or signed twice; 2 nothing could be run: usage, address in use, no signer.
    Run(cli::run::Run),
    /// Wait for any remote signer and try on it, case by case, what every validator wants of one.
    ///
    /// Exit codes: 0 all cases that were tried have passed, advisory ones aside; 1 one has failed, or the signer did not stay to
    /// the end; 2 nothing could be run: usage, address in use, no signer.
    ///
    /// The signer must sign for --chain-id, dial --listen, and have signed nothing at or above --height. It signs a few
    /// thousand heights for that chain: never use the key of a real one.
    Conform(cli::conform::Conform),
    /// Put several JSON reports of `conform` side by side on one HTML page.
    Compare(cli::compare::Compare),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(args) => cli::run::run(args),
        Command::Conform(args) => cli::conform::run(args),
        Command::Compare(args) => cli::compare::run(args),
    }
}
