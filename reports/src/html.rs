//! The HTML form: a page that needs nothing but itself.

use std::collections::BTreeSet;
use std::time::Duration;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{Case, Report, Status, Suite};

/// One report on a page of its own.
pub(super) fn page(report: &Report) -> String {
    let body = html! {
        h1 { (report.title) }
        @if !report.commit.is_empty() { p.faint { "commit " code { (report.commit) } } }
        (totals(report))
        @for suite in &report.suites { (section(suite)) }
    };
    document(&report.title, &body)
}

/// Several reports of the same cases, a column for each.
pub(super) fn side_by_side(title: &str, reports: &[Report]) -> String {
    let body = html! {
        h1 { (title) }
        table {
            thead { tr {
                th { "case" }
                @for report in reports { th { (report.title) } }
            } }
            tbody {
                tr { td.faint { "passed, failed, advisory, skipped" } @for report in reports { td { (in_short(report)) } } }
                @for (suite, case) in names(reports) { (row(suite, case, reports)) }
            }
        }
        h2 { "What failed, and how" }
        @for report in reports { (failures(report)) }
    };
    document(title, &body)
}

fn document(title: &str, body: &Markup) -> String {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body { main { (body) } }
        }
    }
    .into_string()
}

fn totals(report: &Report) -> Markup {
    html! {
        p.totals {
            @for status in [Status::Passed, Status::Failed, Status::Error, Status::Advisory, Status::Skipped] {
                @let count = count(report, status);
                @if count > 0 { span class=(class(status)) { (count) " " (word(status)) } " " }
            }
        }
    }
}

fn section(suite: &Suite) -> Markup {
    html! {
        h2 { (suite.name) }
        @if !suite.about.is_empty() { p { (suite.about) } }
        (properties(&suite.properties))
        table {
            tbody { @for case in &suite.cases { (line(case)) } }
        }
    }
}

fn line(case: &Case) -> Markup {
    html! {
        tr {
            td class=(class(case.status)) {
                (word(case.status))
                @if let Some(level) = level(case) { br; span.faint { (level) } }
            }
            td {
                code { (case.name) }
                @if let Some(message) = &case.message { pre { (message) } }
                (properties(&case.properties))
            }
            td.time { (time(case.duration)) }
        }
    }
}

/// What is at stake where something failed, if that is known.
fn level(case: &Case) -> Option<&str> {
    case.properties.get("level").filter(|_| case.status == Status::Failed).map(String::as_str)
}

fn properties(properties: &std::collections::BTreeMap<String, String>) -> Markup {
    html! {
        @if !properties.is_empty() {
            ul.faint { @for (name, value) in properties { li { (name) ": " (value) } } }
        }
    }
}

/// Every case of every report, in the order in which they are met first.
fn names(reports: &[Report]) -> Vec<(&str, &str)> {
    let mut seen = BTreeSet::new();
    let all = reports.iter().flat_map(|report| &report.suites);
    let names =
        all.flat_map(|suite| suite.cases.iter().map(|case| (suite.name.as_str(), case.name.as_str())));
    names.filter(|name| seen.insert(*name)).collect()
}

fn row(suite: &str, name: &str, reports: &[Report]) -> Markup {
    let found: Vec<_> = reports.iter().map(|report| find(report, suite, name)).collect();
    let about = found.iter().flatten().find_map(|case| case.properties.get("rule"));
    html! {
        tr {
            td title=[about] { code { (name) } }
            @for case in found {
                @match case {
                    None => td.faint { "–" },
                    Some(case) => td class=(class(case.status)) title=[case.message.as_deref()] {
                        (word(case.status))
                        @if let Some(level) = level(case) { ": " (level) }
                    },
                }
            }
        }
    }
}

fn find<'a>(report: &'a Report, suite: &str, name: &str) -> Option<&'a Case> {
    let suite = report.suites.iter().find(|other| other.name == suite)?;
    suite.cases.iter().find(|case| case.name == name)
}

fn failures(report: &Report) -> Markup {
    let cases = report.suites.iter().flat_map(|suite| &suite.cases);
    let failed = |case: &&Case| matches!(case.status, Status::Failed | Status::Error | Status::Advisory);
    let failed: Vec<_> = cases.filter(failed).collect();
    html! {
        h3 { (report.title) }
        @if failed.is_empty() { p { "Nothing." } }
        ul { @for case in failed {
            li { code { (case.name) } @if let Some(level) = case.properties.get("level") { " (" (level) ")" } @if let Some(message) = &case.message { ": " (message) } }
        } }
    }
}

fn in_short(report: &Report) -> String {
    let failed = count(report, Status::Failed) + count(report, Status::Error);
    let [passed, advisory, skipped] =
        [Status::Passed, Status::Advisory, Status::Skipped].map(|status| count(report, status));
    format!("{passed}, {failed}, {advisory}, {skipped}")
}

fn count(report: &Report, status: Status) -> usize {
    report.suites.iter().flat_map(|suite| &suite.cases).filter(|case| case.status == status).count()
}

fn class(status: Status) -> &'static str {
    match status {
        Status::Passed => "passed",
        Status::Failed | Status::Error => "failed",
        Status::Advisory => "advisory",
        Status::Skipped => "skipped",
    }
}

fn word(status: Status) -> &'static str {
    match status {
        Status::Passed => "passed",
        Status::Failed => "failed",
        Status::Error => "error",
        Status::Advisory => "advisory",
        Status::Skipped => "skipped",
    }
}

fn time(duration: Duration) -> String {
    match duration.as_millis() {
        0 => String::new(),
        millis @ 1..1000 => format!("{millis} ms"),
        _ => format!("{:.1} s", duration.as_secs_f64()),
    }
}

const STYLE: &str = "
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif; }
main { max-width: 70rem; margin: 0 auto; padding: 1rem; }
table { border-collapse: collapse; width: 100%; }
td, th { border-bottom: 1px solid #8884; padding: .3rem .5rem; text-align: left; vertical-align: top; }
thead th { position: sticky; top: 0; background: Canvas; }
pre { margin: .3rem 0; white-space: pre-wrap; }
ul { margin: .2rem 0; padding-left: 1.2rem; }
.faint { opacity: .65; font-size: .9em; }
.passed { color: #1a7f37; } .failed { color: #cf222e; font-weight: 600; } .skipped { opacity: .6; }
.advisory { color: #9a6700; }
.totals span { margin-right: 1rem; } .time { white-space: nowrap; text-align: right; }
@media (prefers-color-scheme: dark) { .passed { color: #3fb950; } .failed { color: #ff7b72; } .advisory { color: #d29922; } }
";
