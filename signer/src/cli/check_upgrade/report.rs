//! What is said about an upgrade, for people and for programs.

use std::io::Write;
use std::path::Path;

use monosign_protocol::Height;
use serde_json::json;

use super::changes::Plan;
use super::releases::Upgrade;
use super::trial::Trial;
use crate::cli::Failure;

/// All that was found.
pub(super) struct Report<'a> {
    pub(super) path: &'a Path,
    pub(super) upgrade: Upgrade,
    pub(super) plan: &'a Plan,
    pub(super) max_heights: Vec<Height>,
    pub(super) trials: Vec<Trial>,
}

impl Report<'_> {
    /// Whether the signer signs for the release as it is configured.
    pub(super) fn is_ready(&self) -> bool {
        self.plan.needs_nothing() && self.trials.iter().all(Trial::is_good)
    }

    /// What the command ends with if it is not ready.
    pub(super) fn failure(&self) -> Failure {
        let to = self.upgrade.to;
        Failure::new(match self.trials.iter().all(Trial::is_good) {
            true => format!("not ready for {to}: the configuration has to change, as shown above"),
            false => format!("not ready for {to}: see above what the trial shows"),
        })
    }

    pub(super) fn write(&self, out: &mut dyn Write) -> Result<(), Failure> {
        let Upgrade { from, to } = self.upgrade;
        let from = from.map(|from| format!(" from {from}")).unwrap_or_default();
        writeln!(out, "{}: an upgrade of its validators{from} to {to}", self.path.display())?;
        self.write_trials(out)?;
        self.write_changes(out)?;
        list(out, "on the validator's side", &self.validator_side())?;
        list(out, "what the chain may turn on", &self.upgrade.chain_features())?;
        if self.is_ready() {
            writeln!(out, "\nready for {to}")?;
        }
        Ok(())
    }

    fn write_trials(&self, out: &mut dyn Write) -> Result<(), Failure> {
        for trial in &self.trials {
            let Trial { chain, tried_as, kept, .. } = trial;
            if let Some(why) = &trial.impossible {
                writeln!(out, "BAD     chain {chain}: cannot be tried: {why}")?;
                continue;
            }
            let mark = if trial.is_good() { "ok     " } else { "BAD    " };
            let broken = trial.broken.len();
            writeln!(
                out,
                "{mark} chain {chain}: {kept} rules kept, {broken} broken (with a key made for this, as chain {tried_as})"
            )?;
            for broken in &trial.broken {
                writeln!(out, "        {}: {}\n            {}", broken.case, broken.reason, broken.rule)?;
            }
        }
        Ok(())
    }

    fn write_changes(&self, out: &mut dyn Write) -> Result<(), Failure> {
        if self.plan.changes.is_empty() {
            return Ok(writeln!(out, "\nno change to the file")?);
        }
        writeln!(out, "\nchanges to the file")?;
        for change in &self.plan.changes {
            let needed = if change.needed { "NEEDED " } else { "advised" };
            writeln!(out, "{needed} {}: {}: {}", change.table, change.setting, change.why)?;
        }
        Ok(write!(out, "\n{}", self.plan.diff(self.path))?)
    }

    fn validator_side(&self) -> Vec<String> {
        let mut lines = self.upgrade.validator_side();
        for height in &self.max_heights {
            lines.push(format!(
                "max_height: nothing is signed above {height}; is that the height of the upgrade?"
            ));
        }
        lines
    }

    pub(super) fn write_json(&self, out: &mut dyn Write) -> Result<(), Failure> {
        let report = json!({
            "config": self.path.display().to_string(),
            "from": self.upgrade.from.map(|from| from.to_string()),
            "to": self.upgrade.to.to_string(),
            "ready": self.is_ready(),
            "trials": self.trials,
            "changes": self.plan.changes,
            "diff": self.plan.diff(self.path),
            "validator_side": self.validator_side(),
            "chain_features": self.upgrade.chain_features(),
        });
        Ok(writeln!(out, "{report:#}")?)
    }
}

fn list(out: &mut dyn Write, title: &str, lines: &[String]) -> Result<(), Failure> {
    if lines.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{title}")?;
    for line in lines {
        writeln!(out, "- {line}")?;
    }
    Ok(())
}
