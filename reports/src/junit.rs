//! The JUnit form.

use quick_junit::{NonSuccessKind, Property, TestCase, TestCaseStatus, TestSuite};

use super::{Case, Report, Status, Suite};

pub(super) fn report(report: &Report) -> quick_junit::Report {
    let mut junit = quick_junit::Report::new(report.title.as_str());
    junit.add_test_suites(report.suites.iter().map(|suite| of_suite(suite, &report.commit)));
    junit
}

fn of_suite(suite: &Suite, commit: &str) -> TestSuite {
    let mut junit = TestSuite::new(suite.name.as_str());
    if !commit.is_empty() {
        junit.add_property(Property::new("commit", commit));
    }
    if !suite.about.is_empty() {
        junit.add_property(Property::new("about", suite.about.as_str()));
    }
    for (name, value) in &suite.properties {
        junit.add_property(Property::new(name.as_str(), value.as_str()));
    }
    junit.add_test_cases(suite.cases.iter().map(|case| of_case(case, suite)));
    junit.set_time(suite.cases.iter().map(|case| case.duration).sum());
    junit
}

fn of_case(case: &Case, suite: &Suite) -> TestCase {
    let mut junit = TestCase::new(case.name.as_str(), status(case));
    junit.set_classname(suite.name.as_str()).set_time(case.duration);
    for (name, value) in &case.properties {
        junit.add_property(Property::new(name.as_str(), value.as_str()));
    }
    junit
}

fn status(case: &Case) -> TestCaseStatus {
    let mut status = match case.status {
        Status::Passed => return TestCaseStatus::success(),
        Status::Failed => TestCaseStatus::non_success(NonSuccessKind::Failure),
        Status::Error => TestCaseStatus::non_success(NonSuccessKind::Error),
        // Whoever counts failures must not count it, and JUnit knows nothing in between.
        Status::Advisory | Status::Skipped => TestCaseStatus::skipped(),
    };
    if let Some(message) = &case.message {
        // The first line is what lists show; all of them are in the body.
        let first = message.lines().next().unwrap_or_default();
        let word = if case.status == Status::Advisory { "advisory: " } else { "" };
        status.set_message(format!("{word}{first}"));
        status.set_description(message.as_str());
    }
    status
}
