//! `monosign worker`: the processes that the signer starts for itself.

use std::io;

use clap::{Args, Subcommand};
use rustix::process::{Signal, set_parent_process_death_signal};

use super::Failure;
use crate::backend::pkcs11::worker;
use crate::ops::process;

/// Arguments of `monosign worker`.
#[derive(Debug, Args)]
pub(super) struct WorkerArgs {
    #[command(subcommand)]
    command: WorkerCommand,
}

#[derive(Debug, Subcommand)]
enum WorkerCommand {
    /// Hold a PKCS#11 token.
    Pkcs11,
}

pub(super) fn run(args: &WorkerArgs) -> Result<(), Failure> {
    // A worker that hangs in a vendor's library does not see its input end.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(io::Error::from)?;
    process::harden().map_err(Failure::new)?;
    // The signer that started this has the same limits, and has said so if they do not allow it.
    let _ = process::lock_memory();
    match args.command {
        // Before the library is there, which may use them as its own.
        WorkerCommand::Pkcs11 => Ok(worker::run(process::take_stdin()?, process::take_stdout()?)?),
    }
}
