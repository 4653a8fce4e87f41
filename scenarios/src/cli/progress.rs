//! How far it is: a bar on a terminal, now and then a line elsewhere.

use std::io::{IsTerminal as _, Write as _};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::jobs::Done;

/// Progress through runs, on standard error.
pub(super) struct Progress {
    bar: ProgressBar,
    plain: bool,
    total: Option<usize>,
    done: usize,
    failed: usize,
}

impl Progress {
    /// Through so many runs, or through as many as there will be.
    pub(super) fn new(total: Option<usize>) -> Self {
        let plain = !std::io::stderr().is_terminal();
        let target = match plain {
            true => ProgressDrawTarget::hidden(),
            false => ProgressDrawTarget::stderr(),
        };
        let bar = ProgressBar::with_draw_target(total.map(|total| total as u64), target);
        let form = match total {
            Some(_) => "{bar:30} {pos}/{len} runs, {elapsed}, {eta} to go{msg}",
            None => "{spinner} {pos} runs, {elapsed}{msg}",
        };
        if let Ok(style) = ProgressStyle::with_template(form) {
            bar.set_style(style);
        }
        Self { bar, plain, total, done: 0, failed: 0 }
    }

    /// One more has ended.
    pub(super) fn ended(&mut self, done: &Done) {
        self.done += 1;
        self.bar.inc(1);
        if let Some(violation) = done.outcome.violations.first() {
            self.failed += 1;
            self.bar.set_message(format!(", {} failed", self.failed));
            self.say(&format!("FAILED {}: {violation}", done.run));
        }
        let step = self.total.map_or(1000, |total| total.div_ceil(10));
        if self.plain && self.done.is_multiple_of(step) {
            self.say(&format!("{} runs done, {} failed", self.done, self.failed));
        }
    }

    fn say(&self, line: &str) {
        match self.plain {
            // Progress that nobody reads is no reason to stop.
            true => drop(writeln!(std::io::stderr(), "{line}")),
            false => self.bar.println(line),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
