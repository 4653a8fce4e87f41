//! `scenarios check`.

use std::io::Write;
use std::path::PathBuf;

use anyhow::bail;
use clap::Args;

use super::{LibraryArgs, Verdict};
use crate::scenario;

/// Arguments of `scenarios check`.
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// The files; without any, all there are.
    files: Vec<PathBuf>,
    #[command(flatten)]
    library: LibraryArgs,
}

pub(super) fn run(args: &CheckArgs, out: &mut dyn Write) -> anyhow::Result<Verdict> {
    let files = match args.files.is_empty() {
        true => args.library.files()?,
        false => args.files.clone(),
    };
    let mut wrong = 0;
    for path in &files {
        match scenario::load(path) {
            Ok(_) => writeln!(out, "ok {}", path.display())?,
            Err(error) => {
                wrong += 1;
                writeln!(out, "{error}")?;
            }
        }
    }
    match wrong {
        0 => Ok(Verdict::Held),
        wrong => bail!("wrong files: {wrong} of {}", files.len()),
    }
}
