//! `mock-validator conform` and `compare` as they are typed.
#![allow(clippy::unwrap_used, reason = "also in helpers, which clippy does not take for tests")]

mod common;

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Output, Stdio};

use common::TestSigner;
use data_encoding::HEXLOWER;
use mock_validator::link::NodeLink;
use tokio::net::UnixStream;

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

/// Some cases on a signer in this process that is right.
fn conform(options: &[&str]) -> Output {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("signer.sock");
    let mut suite = Command::new(env!("CARGO_BIN_EXE_mock-validator"))
        .args(["conform", "--listen", &format!("unix://{}", socket.display()), "--chain-id", common::CHAIN])
        .args(options)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command runs");
    let mut stdout = BufReader::new(suite.stdout.take().expect("a pipe"));
    let mut first = String::new();
    stdout.read_line(&mut first).expect("a line");
    assert!(first.starts_with("waiting for a"), "{first}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        // Until nobody listens any more.
        while let Ok(dialed) = UnixStream::connect(&socket).await {
            TestSigner::new().serve(NodeLink::accept_plain(dialed)).await;
        }
    });
    let mut told = Vec::new();
    std::io::Read::read_to_end(&mut stdout, &mut told).expect("the rest");
    let ended = suite.wait_with_output().expect("an end");
    Output { stdout: told, ..ended }
}

#[test]
fn exits_with_0_if_what_was_tried_is_kept_and_with_1_if_not() {
    let key = HEXLOWER.encode(TestSigner::new().public_key().as_bytes());
    let cases = ["--only", "pubkey/form", "signing/nil-votes", "conflict/nil-after-block"];
    must_end(&conform(&[&["--pubkey", &key][..], &cases].concat()), 0, "pass  conflict/nil-after-block");
    let another = "ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22c";
    must_end(&conform(&["--pubkey", another, "--only", "pubkey/form"]), 1, "FAIL  pubkey/form");
}
