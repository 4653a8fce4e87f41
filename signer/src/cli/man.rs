//! `monosign man`.

use std::io::Write;

use clap::{Args, CommandFactory as _};

use super::{Cli, Failure};

/// Arguments of `monosign man`.
#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// The command, as in `state init`; without it, the program.
    command: Vec<String>,
}

pub(super) fn run(args: &ManArgs, mut out: &mut dyn Write) -> Result<(), Failure> {
    let mut page = Cli::command();
    page.build();
    for name in &args.command {
        let found = page.find_subcommand(name).cloned();
        page = found.ok_or_else(|| Failure::usage(format!("there is no command `{name}`")))?;
    }
    Ok(clap_mangen::Man::new(page).render(&mut out)?)
}
