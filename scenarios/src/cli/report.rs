//! What a set of runs came to, for programs.

use std::collections::BTreeMap;
use std::path::Path;

use monosign_reports::{Case, Report, Status, Suite};

use super::commit;
use crate::jobs::Done;
use crate::run::Run;

/// Writes `WHAT.json` and `WHAT.junit.xml`: a suite for each scenario, a case for each run.
pub(super) fn write(dir: &Path, what: &str, done: &[Done]) -> anyhow::Result<()> {
    let mut suites: Vec<Suite> = Vec::new();
    for done in done {
        match suites.iter_mut().find(|suite| suite.name == done.run.name) {
            Some(suite) => suite.cases.push(case(done)),
            None => suites.push(suite(done)),
        }
    }
    let report = Report { title: format!("monosign {what}"), commit: commit::described(), suites };
    report.write(dir, what)?;
    Ok(())
}

fn suite(first: &Done) -> Suite {
    let Run { scenario, name, .. } = &first.run;
    let incident = scenario.incident.clone().map(|incident| ("incident".to_owned(), incident));
    let (about, properties) = (scenario.about.clone(), incident.into_iter().collect());
    Suite { name: name.clone(), about, properties, cases: vec![case(first)] }
}

fn case(done: &Done) -> Case {
    let (run, outcome) = (&done.run, &done.outcome);
    let mut properties: BTreeMap<String, String> = [
        ("mode", run.mode.to_string()),
        ("dialect", run.dialect.to_string()),
        ("seed", run.seed.to_string()),
        ("blocks", outcome.blocks.to_string()),
        ("simulated_ms", outcome.simulated_ms.to_string()),
        ("events", outcome.events.to_string()),
        ("trace", outcome.trace.clone()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    for (counter, count) in &outcome.reached {
        properties.insert(format!("reached: {counter}"), count.to_string());
    }
    for (message, latencies) in &outcome.latencies {
        properties.insert(format!("{message} p50_ms"), latencies.p50_ms.to_string());
        properties.insert(format!("{message} p99_ms"), latencies.p99_ms.to_string());
        properties.insert(format!("{message} max_ms"), latencies.max_ms.to_string());
    }
    let violations: Vec<_> = outcome.violations.iter().map(ToString::to_string).collect();
    let (status, message) = match violations.is_empty() {
        true => (Status::Passed, None),
        false => (Status::Failed, Some(violations.join("\n"))),
    };
    let name = format!("{} {} seed {}", run.mode, run.dialect, run.seed);
    Case { name, status, duration: done.cpu, message, properties }
}
