//! What others do to a signer's files while it runs, and what is run beside it: nothing of it leads to a second signature.

mod rig;

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use monosign_protocol::Step;
use rig::{CHAIN, Finished, Home, NodeSide, validator_table};

/// A second configuration in the same directory: the same chain, key and record, another node.
fn second_config(home: &Home, addr: &str, record: &str) {
    let tables = home.chain_tables(CHAIN) + &validator_table(CHAIN, addr, "");
    home.write("second.toml", tables.replace(&format!("{CHAIN}.record"), record).as_bytes());
}

/// What is done to the record.
type Displace = fn(&Path);

const DISPLACED: [(&str, Displace); 4] = [
    ("moved", |record| fs::rename(record, record.with_extension("backup")).expect("moved")),
    ("removed", |record| fs::remove_file(record).expect("removed")),
    ("replaced by a copy", |record| {
        fs::copy(record, record.with_extension("copy")).expect("copied");
        fs::rename(record.with_extension("copy"), record).expect("renamed");
    }),
    ("replaced by a link to a copy", |record| {
        fs::copy(record, record.with_extension("copy")).expect("copied");
        fs::remove_file(record).expect("removed");
        symlink(record.with_extension("copy"), record).expect("a link");
    }),
];

#[tokio::test]
async fn a_record_that_is_displaced_under_a_signer_leads_to_no_second_one() {
    for (how, displace) in DISPLACED {
        let (node, other) = (NodeSide::tcp().await, NodeSide::tcp().await);
        let home = Home::with_one_chain(&node.addr());
        let mut signer = home.start();
        let mut talk = node.converse(CHAIN).await;
        talk.signs_prevote(100).await;
        displace(&home.record(CHAIN));

        second_config(&home, &other.addr(), &format!("{CHAIN}.record"));
        let named = format!("process {}", signer.id());
        let was_there = home.record(CHAIN).exists();
        home.monosign(&["state", "init", "-c", "second.toml"]).must_fail(3, &["locked", &named, "hint:"]);
        assert_eq!(home.record(CHAIN).exists(), was_there, "{how}");
        if was_there {
            home.start_and_fail_with("second.toml").await.must_fail(3, &["locked", &named, "hint:"]);
            home.monosign(&["state", "raise", "-c", "second.toml", "--to-height", "200"])
                .must_fail(3, &["locked", &named]);
        }
        assert!(signer.is_running());
        let request = talk.request(101, 0, Step::Precommit);
        let words = talk.refuses(&request).await.description.to_string();
        assert!(words.contains("moved, removed or replaced"), "{how}: {words}");
        // Nothing is left to serve, so that its supervisor acts.
        assert_eq!(signer.ended().await.code(), Some(1), "{how}");
        signer.logs("--to-height 101").await;
    }
}

#[tokio::test]
async fn an_older_record_that_takes_the_place_of_the_signers_is_not_started_from_as_it_is() {
    let node = NodeSide::tcp().await;
    let home = Home::with_one_chain(&node.addr());
    let mut signer = home.start();
    let mut talk = node.converse(CHAIN).await;
    talk.signs_prevote(100).await;
    fs::copy(home.record(CHAIN), home.path("backup")).expect("copied");
    let signed = talk.request(101, 0, Step::Precommit);
    let signature = talk.signs(&signed).await;
    fs::rename(home.path("backup"), home.record(CHAIN)).expect("renamed");
    let request = talk.request(102, 0, Step::Precommit);
    talk.refuses(&request).await;
    assert_eq!(signer.ended().await.code(), Some(1));

    let _signer = home.start();
    let mut talk = node.converse(CHAIN).await;
    let conflict = mock_validator::node::probes::conflict(&signed).expect("a conflict");
    talk.refuses(&conflict).await;
    assert_eq!(talk.signs(&signed).await, signature, "the same again");
    talk.signs(&request).await;
}

#[tokio::test]
async fn a_copied_directory_is_no_second_signer_on_the_same_host() {
    let (node, other) = (NodeSide::tcp().await, NodeSide::tcp().await);
    let home = Home::with_one_chain(&node.addr());
    let mut signer = home.start();
    node.converse(CHAIN).await.signs_prevote(100).await;
    fs::copy(home.record(CHAIN), home.path("elsewhere.record")).expect("copied");
    second_config(&home, &other.addr(), "elsewhere.record");
    let named = format!("process {}", signer.id());
    home.start_and_fail_with("second.toml").await.must_fail(3, &["locked", &named, "hint:"]);
    for command in [&["state", "raise", "--to-height", "200"][..], &["state", "export"]] {
        home.monosign(&[command, &["-c", "second.toml"]].concat()).must_fail(3, &["locked", &named]);
    }
    // Looking takes nothing, and tells that a start is refused.
    home.monosign(&["check", "-c", "second.toml", "--offline"]).must_fail(3, &[&named, "will not sign"]);
    home.monosign(&["state", "show", "-c", "second.toml"]).must_succeed();
    signer.kill();
    home.monosign(&["state", "raise", "-c", "second.toml", "--to-height", "200"]).must_succeed();
}

#[tokio::test]
async fn a_start_waits_a_moment_for_a_record_that_a_command_holds() {
    let node = NodeSide::tcp().await;
    let home = Home::with_one_chain(&node.addr());
    let held = File::open(home.record(CHAIN)).expect("a record");
    held.lock().expect("nobody else has it");
    let signer = home.start();
    signer.logs("is locked").await;
    drop(held);
    node.converse(CHAIN).await.signs_prevote(1).await;
}

#[test]
fn a_check_takes_no_lock_and_writes_nothing_that_stays() {
    if std::env::var_os("MONOSIGN_SKIP_STRACE").is_some() {
        return;
    }
    let home = Home::with_one_chain("tcp://127.0.0.1:1");
    let before = fs::read(home.record(CHAIN)).expect("a record");
    let trace = home.path("trace");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-e", "trace=flock,bind,openat,rename,renameat2,unlink,unlinkat", "-o"]).arg(&trace);
    strace.arg(env!("CARGO_BIN_EXE_monosign")).args(["check", "-c", "monosign.toml", "--offline"]);
    Finished::of(strace.current_dir(home.path(".")).stdin(Stdio::null())).must_succeed();
    let trace = fs::read_to_string(trace).expect("a trace");
    assert!(trace.contains(&format!("{CHAIN}.record")), "{trace}");
    for call in ["flock(", "bind(", "rename", "unlink", "O_CREAT"] {
        assert!(!trace.contains(call), "{call} in {trace}");
    }
    assert_eq!(fs::read(home.record(CHAIN)).expect("a record"), before);
}

/// How often two commands are run at once.
const ROUNDS: usize = 40;

#[test]
fn of_two_commands_at_once_none_reports_a_floor_that_is_not_in_the_record() {
    let home = Home::new();
    home.configure(&[(CHAIN, "tcp://127.0.0.1:1")]);
    let state = r#"{"height":"1000","round":0,"step":3}"#;
    home.write("priv_validator_state.json", state.as_bytes());
    let import: &[&str] = &["state", "import", "-c", "monosign.toml", "priv_validator_state.json"];
    let init: &[&str] = &["state", "init", "-c", "monosign.toml", "--height", "5"];
    let mut won = [0, 0];
    for round in 0..ROUNDS {
        let spawn = |args: &[&str]| {
            let mut command = home.command(args);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().expect("it starts")
        };
        let both: [Child; 2] = [spawn(import), spawn(init)];
        let [imported, made] = both.map(|mut child| child.wait().expect("its end").success());
        let height = home.watermark(CHAIN).0;
        assert!(imported || made, "one of them has its way in round {round}");
        // An import raises what `init` has made; `init` makes nothing where something is.
        if imported {
            assert_eq!(height, 1000, "round {round}: import said that it is done");
        } else {
            assert_eq!(height, 5, "round {round}: init said that it is done");
        }
        won[usize::from(made)] += 1;
        fs::remove_file(home.record(CHAIN)).expect("removed");
        let names = fs::read_dir(home.path(".")).expect("readable");
        let left: Vec<_> = names.filter_map(Result::ok).map(|entry| entry.file_name()).collect();
        assert!(left.iter().all(|name| !name.to_string_lossy().contains("monosign-")), "{left:?}");
    }
    println!("{won:?}");
}

#[test]
fn state_files_of_two_chains_whose_names_are_alike_do_each_other_no_harm() {
    let home = Home::new();
    home.configure(&[(CHAIN, "tcp://127.0.0.1:1"), ("other-1", "tcp://127.0.0.1:2")]);
    let mut before = "other-1.record".to_owned();
    for suffix in ["new", "next", "monosign-0", "bak"] {
        let name = format!("{CHAIN}.record.{suffix}");
        home.edit_config(&format!("\"{before}\""), &format!("\"{name}\""));
        home.monosign(&["state", "init", "-c", "monosign.toml", "--chain", "other-1", "--height", "77"])
            .must_succeed();
        home.make_record(CHAIN);
        assert_eq!(home.watermark("other-1").0, 77, "{name}");
        assert_eq!(home.watermark(CHAIN).0, 0, "{name}");
        fs::remove_file(home.record(CHAIN)).expect("removed");
        before = name;
    }
}

#[tokio::test]
async fn a_command_that_was_killed_in_the_middle_holds_nobody_up() {
    let node = NodeSide::tcp().await;
    let home = Home::new();
    home.configure(&[(CHAIN, &node.addr())]);
    // As a kill between write and rename leaves it.
    home.write(&format!(".{CHAIN}.record.monosign-0"), b"half a record");
    home.make_record(CHAIN);
    let signer = home.start();
    node.converse(CHAIN).await.signs_prevote(1).await;
    drop(signer);
    assert!(!home.path(format!(".{CHAIN}.record.monosign-0")).exists());
}
