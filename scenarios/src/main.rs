//! `scenarios`: runs, explores and replays scenarios.

use std::process::ExitCode;

fn main() -> ExitCode {
    monosign_scenarios::cli::main()
}
