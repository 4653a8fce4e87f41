//! `mock-validator conform` and `compare` as they are typed.
#![allow(clippy::unwrap_used, reason = "also in helpers, which clippy does not take for tests")]

mod common;

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Output, Stdio};

use common::TestSigner;
use data_encoding::{BASE64, HEXLOWER};
use ed25519_dalek::SigningKey;
use mock_validator::link::NodeLink;
use monosign_protocol::noise;
use tokio::net::{TcpStream, UnixStream};

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
        "conflict/nil-after-block (slashing)\n    A vote for nil is refused after one for a block.\n    privval/file.go",
    );
    let listed = String::from_utf8(listed.stdout).expect("text");
    assert!(!listed.contains("extension/small"), "v0.34 has no extensions");
}

#[test]
fn exits_with_2_where_nothing_can_be_said_of_a_signer() {
    let conform = |args: &[&str]| {
        mock_validator(&[&["conform", "--listen", "tcp://127.0.0.1:0", "--wait", "0.1"], args].concat())
    };
    must_end(&conform(&[]), 2, "no signer connected within 0.1 s: nobody dialed");
    must_end(
        &conform(&["--only", "conflict/nothing"]),
        2,
        "there is no case `conflict/nothing`\nhint: --list",
    );
    must_end(&conform(&["--key", "/nonexistent"]), 2, "cannot read `/nonexistent`");
    must_end(&conform(&["--dialect", "v0.33"]), 2, "amino");
    must_end(&conform(&["--state", "x"]), 2, "--signer-cmd");
    must_end(&mock_validator(&["conform"]), 2, "--listen");
}

/// At once, and not when the time is over that a signer has to dial.
#[test]
fn says_how_a_signer_ended_that_dies_at_its_start() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("log");
    std::fs::write(&log, "of an earlier run\n").expect("written");
    let dies = |command: &str, more: &[&str]| {
        let args = ["conform", "--listen", "tcp://127.0.0.1:0", "--wait", "600", "--signer-cmd", command];
        mock_validator(&[&args, more].concat())
    };
    let ended = "the signer's command ended before it connected:";
    must_end(&dies("exit 7", &[]), 2, &format!("{ended} exit code 7; it wrote nothing"));
    let lines = "for n in $(seq 100); do echo line $n; done; echo no such key >&2; exit 1";
    for more in [&[][..], &["--signer-log", log.to_str().expect("a path")]] {
        let told = dies(lines, more);
        must_end(&told, 2, &format!("{ended} exit code 1; the end of what it wrote:\nline 90\n"));
        must_end(&told, 2, "line 100\nno such key\n");
    }
    must_end(&dies("exec /nonexistent/signer", &[]), 2, "/nonexistent/signer");
    must_end(&dies("kill -ABRT $$", &[]), 2, &format!("{ended} signal 6"));
}

#[test]
fn says_where_to_begin_above_the_state_of_a_signer() {
    let told = conform_on(TestSigner::that_has_signed(1_000_000), &[]);
    must_end(&told, 2, "hint: begin above that: --height 1000001");
    let above = ["--height", "1000001", "--only", "conflict/nil-after-block"];
    must_end(
        &conform_on(TestSigner::that_has_signed(1_000_000), &above),
        0,
        "pass  conflict/nil-after-block",
    );
}

#[test]
fn tells_a_crash_once_and_not_for_each_case_behind_it() {
    let told = conform_on(TestSigner::that_dies_at(60), &["--only", "signing", "conflict"]);
    must_end(&told, 1, "the signer CRASHED or left at ");
    let text = String::from_utf8(told.stdout).expect("text");
    assert_eq!(text.matches("\nFAIL").count(), 1, "{text}");
    let not_tried = text.lines().find_map(|line| line.strip_suffix(" cases not tried"));
    assert!(not_tried.is_some_and(|line| !line.ends_with(", 0")), "{text}");
}

/// The address to dial is shown, and the node behind it is who that names: the other end of the handshake pins it.
#[test]
fn can_be_dialed_over_noise_by_who_reads_what_it_shows() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("identity").display().to_string();
    let signer = SigningKey::from_bytes(&[3; 32]);
    let id = noise::PeerId::from(&signer.verifying_key());
    for command in [&["conform", "--dialect", "v0.40"][..], &["run", "--chain-id", "x", "--dialect", "v0.40"]]
    {
        let mut node = Command::new(env!("CARGO_BIN_EXE_mock-validator"))
            .args(command)
            .args(["--listen", &format!("noise://{id}@127.0.0.1:0"), "--identity", &path, "--wait", "10"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the command runs");
        let mut line = String::new();
        // Held open to the end: what is written to a closed pipe ends the program.
        let mut stdout = BufReader::new(node.stdout.take().expect("a pipe"));
        stdout.read_line(&mut line).expect("a line");
        let (_, address) = line.trim_end().rsplit_once("noise://").expect("an address");
        let (peer, addr) = address.split_once('@').expect("a peer id");
        let stored =
            BASE64.decode(std::fs::read_to_string(&path).expect("made").trim().as_bytes()).expect("base64");
        let expected = SigningKey::from_bytes(&stored.try_into().expect("32 bytes"));
        assert_eq!(peer, noise::PeerId::from(&expected.verifying_key()).to_string());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let entropy = noise::Entropy { static_key: [5; 32], ephemeral: [6; 32] };
        let met = runtime.block_on(async {
            let mut stream = TcpStream::connect(addr).await.expect("a connection");
            common::initiate(&mut stream, &signer, &expected, entropy).await
        });
        assert!(met.is_some(), "{line}");
        node.kill().expect("killed");
        node.wait().expect("gone");
    }
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
    conform_on(TestSigner::new(), options)
}

/// The same signer behind each connection, until it dies.
fn conform_on(mut signer: TestSigner, options: &[&str]) -> Output {
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
        while !signer.is_dead()
            && let Ok(dialed) = UnixStream::connect(&socket).await
        {
            signer.serve(NodeLink::accept_plain(dialed)).await;
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

/// No test, but a signer: this program again, which `conform/signer` starts.
#[test]
#[ignore = "other tests start it as a process"]
fn is_a_signer() {
    let Ok(address) = std::env::var("ADDR") else { return };
    let addr = address.strip_prefix("tcp://").expect("tcp");
    let flushes = std::env::var_os("FLUSH").is_some();
    let mut state = std::fs::File::options().create(true).append(true).open("state").expect("a file");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut signer = TestSigner::new();
        while let Ok(stream) = TcpStream::connect(addr).await {
            let identity = SigningKey::from_bytes(&[2; 32]);
            let Ok(mut link) = NodeLink::accept_secret(stream, &identity, [4; 32]).await else { continue };
            while let Ok(Some(request)) = link.receive().await {
                let answer = signer.answer(request);
                state.write_all(b"signed\n").expect("written");
                if flushes {
                    state.sync_data().expect("flushed");
                }
                if link.send(&answer).await.is_err() {
                    break;
                }
            }
        }
    });
}

/// `conform/signer` on the signer above.
fn by_template(template: &str, options: &[&str]) -> Output {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("fake.toml");
    std::fs::write(&path, template).expect("written");
    Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/conform/signer"))
        .arg("fake")
        .arg(std::env::current_exe().expect("this program"))
        .arg(path)
        .args(["v0.38", "--wait", "20"])
        .args(options)
        .env("MOCK_VALIDATOR_BIN", env!("CARGO_BIN_EXE_mock-validator"))
        .env("REPORTS", dir.path().join("reports"))
        .env("CHAIN", common::CHAIN)
        .output()
        .expect("the script runs")
}

#[test]
fn tries_any_signer_that_a_binary_and_a_template_name() {
    let template = r#"# A comment.
# conform: setup = grep -q 'addr = "unix:' @CONFIG@ && echo @CHAIN@ > prepared
# conform: start = grep -q '^addr = "tcp:' @CONFIG@ && grep -q test-chain prepared && exec @BINARY@ is_a_signer --exact --ignored --nocapture
addr = "@ADDR@"
"#;
    let told = by_template(template, &["--only", "conflict/nil-after-block", "repeat/identical"]);
    must_end(&told, 0, "pass  conflict/nil-after-block");
    must_end(&told, 0, "/fake-v0.38.html");

    let fails = "// conform: setup = echo no such token; exit 3\n";
    must_end(&by_template(fails, &[]), 2, "no such token");
    let dies = "// conform: start = echo no such key; exit 3\n";
    must_end(&by_template(dies, &[]), 2, "exit code 3; the end of what it wrote:\nno such key");
}

#[test]
fn tells_a_signer_that_never_flushes_what_it_has_signed() {
    if std::env::var_os("MONOSIGN_SKIP_STRACE").is_some() {
        eprintln!("MONOSIGN_SKIP_STRACE is set: no system calls are counted");
        return;
    }
    for (flush, code, text) in [
        ("FLUSH=yes", 0, " flushes for 20 signatures"),
        (
            "",
            1,
            "signed 20 messages and flushed to the disk 0 times: what a power cut takes away is signed again",
        ),
    ] {
        let start = format!("{flush} exec @BINARY@ is_a_signer --exact --ignored --nocapture");
        let told = by_template(&format!("# conform: start = {start}\n"), &["--only", "restart/synced"]);
        must_end(&told, code, text);
    }
}
