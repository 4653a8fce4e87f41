//! Output whose reader may go away: `mock-validator … | head`. The signer has the same for its commands.

use std::io::{self, ErrorKind, Write};

/// Passes on what is written until nobody reads it any more, and then drops it: what a command does, and its
/// exit code, do not hang on who reads what it says.
#[derive(Debug)]
pub(crate) struct Unread<W> {
    to: W,
    is_gone: bool,
}

impl<W: Write> Unread<W> {
    /// Writes to `to`.
    pub(crate) fn new(to: W) -> Self {
        Self { to, is_gone: false }
    }

    fn or_gone<T>(&mut self, result: io::Result<T>, then: T) -> io::Result<T> {
        match result {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.is_gone = true;
                Ok(then)
            }
            other => other,
        }
    }
}

impl<W: Write> Write for Unread<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_gone {
            return Ok(bytes.len());
        }
        let written = self.to.write(bytes);
        self.or_gone(written, bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.is_gone {
            return Ok(());
        }
        let flushed = self.to.flush();
        self.or_gone(flushed, ())
    }
}
