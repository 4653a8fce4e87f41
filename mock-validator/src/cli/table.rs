//! Results on the terminal: a line for each case, as soon as it is known.

use std::io::{self, Write};

use data_encoding::HEXLOWER;
use mock_validator::conform::{Finding, Level, Outcome, Summary};

/// Prints a case, but not each of many that were not tried because the signer was gone: [`end`] says how many. Reasons and what else was seen follow on lines of their own.
pub(crate) fn line(out: &mut dyn Write, finding: &Finding) -> io::Result<()> {
    if finding.is_not_tried() {
        return Ok(());
    }
    let (word, reason) = match (&finding.outcome, finding.level) {
        (Outcome::Passed, _) => ("pass", None),
        (Outcome::Failed { reason }, Level::Advisory) => ("fail", Some(reason)),
        (Outcome::Failed { reason }, _) => ("FAIL", Some(reason)),
        (Outcome::Skipped { reason }, _) => ("skip", Some(reason)),
    };
    let millis = finding.took.as_millis();
    writeln!(out, "{word}  {:<50} {:<13} {millis:>6} ms", finding.id, finding.level.name())?;
    if let Outcome::Failed { .. } = finding.outcome {
        writeln!(out, "      rule: {} ({})", finding.rule, finding.source)?;
        writeln!(out, "      at stake: {}", finding.level.reason())?;
    }
    if let Some(reason) = reason {
        writeln!(out, "      {}", reason.replace('\n', "\n      "))?;
    }
    for note in &finding.notes {
        writeln!(out, "      seen: {note}")?;
    }
    out.flush()
}

/// Prints what it comes to.
pub(crate) fn end(out: &mut dyn Write, summary: &Summary) -> io::Result<()> {
    writeln!(out, "\npublic key: ed25519 {}", HEXLOWER.encode(summary.public_key.as_bytes()))?;
    for (name, value) in &summary.measured {
        writeln!(out, "{name}: {value}")?;
    }
    for level in Level::ALL {
        let [passed, failed, skipped] = summary.count(level);
        writeln!(out, "{}: {passed} passed, {failed} failed, {skipped} skipped", level.name())?;
    }
    if let Some((since, not_tried)) = summary.not_tried() {
        writeln!(out, "the signer CRASHED or left at {since}, {not_tried} cases not tried")?;
        writeln!(
            out,
            "hint: start it again and try the others with --only; with --signer-cmd the suite does it by itself"
        )?;
    }
    let [passed, failed, skipped] = summary.count_required();
    writeln!(out, "all but advisory: {passed} passed, {failed} failed, {skipped} skipped")?;
    let at_stake: Vec<_> =
        Level::ALL.into_iter().filter(|level| level.is_required() && summary.count(*level)[1] > 0).collect();
    match at_stake.first() {
        Some(worst) => writeln!(out, "NOT CONFORMANT in what was tried: at stake, {}", worst.name()),
        None if summary.not_tried().is_some() => {
            writeln!(out, "NOT CONFORMANT: the signer did not stay to the end")
        }
        None => writeln!(out, "conformant in what was tried"),
    }
}
