//! The `monosign` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    monosign::cli::main()
}
