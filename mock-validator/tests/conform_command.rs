//! `mock-validator conform` and `compare` as they are typed, where no signer is needed.

use std::process::{Command, Output};

fn mock_validator(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mock-validator")).args(args).output().expect("the command runs")
}

#[track_caller]
fn must_end(output: &Output, code: i32, text: &str) {
    let told = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat();
    assert_eq!(output.status.code(), Some(code), "{told}");
    assert!(told.contains(text), "no `{text}` in {told}");
}

#[test]
fn lists_the_cases_of_a_release_with_rule_and_source() {
    let listed = mock_validator(&["conform", "--list", "--dialect", "v0.34"]);
    must_end(
        &listed,
        0,
        "conflict/nil-after-block (required)\n    A vote for nil is refused after one for a block.\n    privval/file.go",
    );
    let listed = String::from_utf8(listed.stdout).expect("text");
    assert!(!listed.contains("extension/small"), "v0.34 has no extensions");
}

#[test]
fn exits_with_2_where_nothing_can_be_said_of_a_signer() {
    let conform = |args: &[&str]| {
        mock_validator(&[&["conform", "--listen", "tcp://127.0.0.1:0", "--wait", "0.1"], args].concat())
    };
    must_end(&conform(&[]), 2, "no signer connected within 0.1 s");
    must_end(
        &conform(&["--only", "conflict/nothing"]),
        2,
        "there is no case `conflict/nothing`\nhint: --list",
    );
    must_end(&conform(&["--key", "/nonexistent"]), 2, "cannot read `/nonexistent`");
    must_end(&conform(&["--dialect", "v0.33"]), 2, "amino");
    must_end(&conform(&["--state", "x"]), 2, "--signer-cmd");
    must_end(&mock_validator(&["conform"]), 2, "--listen");
    // A command that ends at once is no signer.
    must_end(&conform(&["--signer-cmd", "exit 1"]), 2, "no signer connected");
}

#[test]
fn compares_reports_and_names_what_is_none() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name).display().to_string();
    let report =
        monosign_reports::Report { title: "a signer".into(), commit: String::new(), suites: Vec::new() };
    report.write(dir.path(), "one").expect("written");
    let (one, page) = (path("one.json"), path("page.html"));
    must_end(&mock_validator(&["compare", &one, &one, "--output", &page]), 0, "2 reports side by side");
    assert!(std::fs::read_to_string(&page).expect("a page").contains("<th>a signer</th><th>a signer</th>"));
    must_end(&mock_validator(&["compare", &page, "--output", &page]), 2, "is no report");
}
