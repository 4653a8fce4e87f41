//! What a demo prints: headings, lines, and what held in green where that can be seen.

use std::io::{self, IsTerminal as _, Write};

use crate::cli::Failure;

/// Writes one stream, in order.
pub(super) struct Page<'a> {
    out: &'a mut dyn Write,
    colour: bool,
    headings: u32,
}

const BOLD: &str = "\x1b[1m";
const GREEN: &str = "\x1b[32m";
const RESET: &str = "\x1b[0m";

impl<'a> Page<'a> {
    /// In colour on a terminal, unless `NO_COLOR` is set (<https://no-color.org>).
    pub(super) fn new(out: &'a mut dyn Write) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { out, colour: !refused && io::stdout().is_terminal(), headings: 0 }
    }

    pub(super) fn heading(&mut self, text: &str) -> Result<(), Failure> {
        self.headings += 1;
        let number = self.headings;
        writeln!(self.out)?;
        self.write(BOLD, &format!("{number}. {text}"))
    }

    pub(super) fn text(&mut self, text: &str) -> Result<(), Failure> {
        Ok(writeln!(self.out, "{}{text}", if self.headings > 0 { "\n" } else { "" })?)
    }

    pub(super) fn line(&mut self, text: &str) -> Result<(), Failure> {
        Ok(writeln!(self.out, "   {text}")?)
    }

    /// What was to hold, and held.
    pub(super) fn good(&mut self, text: &str) -> Result<(), Failure> {
        self.write(GREEN, &format!("   {text}"))
    }

    fn write(&mut self, how: &str, text: &str) -> Result<(), Failure> {
        match self.colour {
            true => writeln!(self.out, "{how}{text}{RESET}")?,
            false => writeln!(self.out, "{text}")?,
        }
        Ok(self.out.flush()?)
    }
}
