//! `scenarios schema`.

use std::io::Write;

use super::Verdict;
use crate::scenario;

pub(super) fn run(out: &mut dyn Write) -> anyhow::Result<Verdict> {
    writeln!(out, "{:#}", scenario::schema())?;
    Ok(Verdict::Held)
}
