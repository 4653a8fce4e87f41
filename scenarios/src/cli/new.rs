//! `scenarios new`.

use std::fs::{self, File};
use std::io::Write;

use anyhow::{Context as _, bail};
use clap::Args;

use super::{LibraryArgs, Verdict};

/// Arguments of `scenarios new`.
#[derive(Debug, Args)]
pub(super) struct NewArgs {
    /// The scenario's name: lower case letters, digits and `-`.
    name: String,
    #[command(flatten)]
    library: LibraryArgs,
}

const TEMPLATE: &str = include_str!("template.toml");

pub(super) fn run(args: &NewArgs, out: &mut dyn Write) -> anyhow::Result<Verdict> {
    let name = &args.name;
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || !name.chars().all(good) {
        bail!(
            "`{name}` is no scenario's name: lower case letters, digits and `-`, as in `power-cut-at-night`"
        );
    }
    let dir = args.library.dir();
    fs::create_dir_all(&dir).with_context(|| format!("cannot make `{}`", dir.display()))?;
    let path = dir.join(format!("{name}.toml"));
    // A file that is there stays as it is.
    let mut file = File::create_new(&path).with_context(|| format!("cannot make `{}`", path.display()))?;
    file.write_all(TEMPLATE.as_bytes())?;
    writeln!(out, "{}", path.display())?;
    Ok(Verdict::Held)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_template_is_a_scenario() {
        crate::scenario::parse(super::TEMPLATE).unwrap();
        assert!(super::TEMPLATE.starts_with("#:schema ../scenario.schema.json\n"));
    }
}
