//! What was promised, beside what was measured.

use anyhow::bail;

#[derive(Default)]
pub(crate) struct Promises {
    lines: Vec<String>,
    broken: usize,
}

impl Promises {
    pub(crate) fn at_most(&mut self, what: String, is: f64, most: f64) {
        self.keep(what, is, is <= most, format!("at most {most}"));
    }

    pub(crate) fn at_least(&mut self, what: String, is: f64, least: f64) {
        self.keep(what, is, is >= least, format!("at least {least}"));
    }

    /// What had nothing to be compared with is neither kept nor broken.
    pub(crate) fn not_measured(&mut self, what: String) {
        self.lines.push(format!("-       {what}: not measured"));
    }

    fn keep(&mut self, what: String, is: f64, is_kept: bool, promised: String) {
        self.broken += usize::from(!is_kept);
        let verdict = if is_kept { "kept  " } else { "BROKEN" };
        self.lines.push(format!("{verdict}  {what}: {is:.2}, promised {promised}"));
    }

    /// Prints them. An error if one is broken, since whoever runs this wants to know.
    pub(crate) fn tell(self) -> anyhow::Result<()> {
        println!();
        self.lines.iter().for_each(|line| println!("{line}"));
        match self.broken {
            0 => Ok(()),
            n => bail!("{n} of {} promises are broken on this machine at this load", self.lines.len()),
        }
    }
}
