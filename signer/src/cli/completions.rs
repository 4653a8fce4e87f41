//! `monosign completions`.

use std::io::Write;

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::{Cli, Failure};

/// Arguments of `monosign completions`.
#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell.
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs, mut out: &mut dyn Write) -> Result<(), Failure> {
    clap_complete::generate(args.shell, &mut Cli::command(), "monosign", &mut out);
    Ok(())
}
