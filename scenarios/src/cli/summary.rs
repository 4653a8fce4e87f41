//! What a set of runs came to, for people.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use monosign_protocol::Dialect;

use crate::counters;
use crate::jobs::Done;
use crate::run::Mode;

/// What the runs of a scenario in a mode came to.
#[derive(Default)]
struct Row {
    dialects: BTreeSet<Dialect>,
    runs: usize,
    failed: usize,
    blocks: u64,
    simulated: Duration,
    cpu: Duration,
}

/// A line for each scenario and mode.
pub(super) fn table(done: &[Done], out: &mut dyn Write) -> std::io::Result<()> {
    let mut rows: BTreeMap<(&str, Mode), Row> = BTreeMap::new();
    for done in done {
        let row = rows.entry((&done.run.name, done.run.mode)).or_default();
        row.dialects.insert(done.run.dialect);
        row.runs += 1;
        row.failed += usize::from(!done.outcome.violations.is_empty());
        row.blocks += done.outcome.blocks;
        row.simulated += Duration::from_millis(done.outcome.simulated_ms);
        row.cpu += done.cpu;
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["scenario", "mode", "dialects", "runs", "blocks", "result", "simulated", "CPU"]);
    for ((name, mode), row) in &rows {
        let result = match row.failed {
            0 => "held".into(),
            failed => format!("{failed} FAILED"),
        };
        table.add_row([
            (*name).to_owned(),
            mode.to_string(),
            dialects(&row.dialects),
            row.runs.to_string(),
            row.blocks.to_string(),
            result,
            time(row.simulated),
            time(row.cpu),
        ]);
    }
    for column in [3, 4, 6, 7] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    // Without the spaces that fill the last column up.
    for line in table.lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    let failed: usize = rows.values().map(|row| row.failed).sum();
    let simulated = rows.values().map(|row| row.simulated).sum();
    let cpu = rows.values().map(|row| row.cpu).sum();
    writeln!(
        out,
        "{} runs, {failed} failed, {} simulated in {} of CPU",
        done.len(),
        time(simulated),
        time(cpu)
    )
}

/// What the runs came by, all together. Gives whether that is all that there is, no more and no less.
pub(super) fn counters(done: &[Done], out: &mut dyn Write) -> std::io::Result<bool> {
    let mut reached: BTreeMap<&str, u64> = BTreeMap::new();
    for (counter, count) in done.iter().flat_map(|done| &done.outcome.reached) {
        *reached.entry(counter).or_default() += count;
    }
    let list: Vec<_> =
        reached.iter().filter(|(_, n)| **n > 0).map(|(counter, n)| format!("{counter} {n}")).collect();
    if !list.is_empty() {
        writeln!(out, "reached: {}", list.join(", "))?;
    }
    let missed: Vec<_> =
        counters::ALL.into_iter().filter(|counter| reached.get(counter).is_none_or(|n| *n == 0)).collect();
    if !missed.is_empty() {
        writeln!(out, "never reached: {}", missed.join(", "))?;
    }
    let unlisted: Vec<_> = reached.keys().filter(|counter| !counters::ALL.contains(counter)).collect();
    if !unlisted.is_empty() {
        writeln!(out, "missing in src/counters.rs: {unlisted:?}")?;
    }
    Ok(missed.is_empty() && unlisted.is_empty())
}

fn dialects(dialects: &BTreeSet<Dialect>) -> String {
    match dialects.len() == Dialect::ALL.len() {
        true => "all".into(),
        false => dialects.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
    }
}

/// Seconds to a tenth below a minute, minutes and more in words.
fn time(duration: Duration) -> String {
    match duration.as_secs() {
        0..60 => format!("{:.1} s", duration.as_secs_f64()),
        seconds => humantime::format_duration(Duration::from_secs(seconds)).to_string(),
    }
}
