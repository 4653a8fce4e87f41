//! `monosign demo`.

use std::io::Write;

use clap::Args;

use super::Failure;

/// Arguments of `monosign demo`.
#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// How many blocks to sign.
    #[arg(long, default_value_t = 20)]
    blocks: u64,
}

pub(super) fn run(args: &DemoArgs, out: &mut dyn Write) -> Result<(), Failure> {
    writeln!(out, "{}", args.blocks)?;
    Ok(())
}
