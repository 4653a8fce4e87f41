//! `monosign threshold recipient`.

use std::io::Write;
use std::path::PathBuf;

use age::secrecy::ExposeSecret as _;
use age::x25519;
use clap::Args;
use zeroize::Zeroizing;

use crate::cli::Failure;
use crate::ops::private_file::create_private;

/// Arguments of `monosign threshold recipient`.
#[derive(Debug, Args)]
pub(super) struct RecipientArgs {
    /// The file for the identity. It opens the share, so it stays on the cosigner's host. Never overwritten.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

pub(super) fn run(args: &RecipientArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let identity = x25519::Identity::generate();
    let text = Zeroizing::new(format!("{}\n", identity.to_string().expose_secret()));
    create_private(&args.output, text.as_bytes())?;
    writeln!(out, "{}", identity.to_public())?;
    Ok(())
}
