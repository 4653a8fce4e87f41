//! A signer that runs: what its log says, and how it is told of changes.

use std::time::Duration;

use monosign_protocol::Step;
use rig::{CHAIN, NodeSide};
use rustix::process::Signal;

use super::*;

/// Each line of a log is an event of its own: with a time and a level, or a JSON object; advice is a field of
/// it.
#[tokio::test]
async fn advice_is_a_field_of_its_event_and_no_second_line() {
    let home = Home::new();
    home.configure(&[(CHAIN, "tcp://127.0.0.1:1")]);
    let start = |format: &str| home.monosign(&["start", "-c", "monosign.toml", "--log-format", format]);
    let text = start("text").must_fail(3, &["no record at", " hint: "]).stdout;
    for line in text.lines() {
        let is_event = line.contains("INFO") || line.contains("WARN") || line.contains("ERROR");
        assert!(is_event && line.starts_with("20"), "{line}");
    }
    let json = start("json");
    assert_eq!(json.code, Some(3));
    let events: Vec<serde_json::Value> =
        json.stdout.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let event = events.iter().find(|event| event["message"].as_str().expect("text").contains("no record at"));
    let event = event.unwrap_or_else(|| panic!("{}", json.stdout));
    assert!(event["hint"].as_str().is_some_and(|hint| hint.contains("`monosign state init -c")), "{event}");
    assert!(
        events.iter().all(|event| !event["message"].as_str().expect("text").contains('\n')),
        "{events:?}"
    );
}

#[tokio::test]
async fn sighup_says_each_rule_that_changed_and_that_nothing_has() {
    let node = NodeSide::tcp().await;
    let home = Home::with_one_chain(&node.addr());
    let signer = home.start();
    node.converse(CHAIN).await.signs_prevote(1).await;
    signer.signal(Signal::HUP);
    signer.logs("SIGHUP: nothing has changed").await;
    home.edit_config("key_format", "max_height_jump = 7\nsign_bytes = true\nkey_format");
    signer.signal(Signal::HUP);
    signer.logs("max_height_jump is 7 now, and was 100000").await;
    signer.logs("sign_bytes is true now, and was false").await;
    // A mistake is one line, too.
    home.append_config("[[chain]]\nid = 7\n");
    signer.signal(Signal::HUP);
    let line = signer.logs("everything stays as it is").await;
    assert!(line.contains("in `chain.id`: invalid type: integer, expected a string"), "{line}");
    assert!(signer.log().lines().all(|line| line.starts_with("20")), "{}", signer.log());
}

#[tokio::test]
async fn leave_to_jump_is_told_and_ends_by_itself() {
    let node = NodeSide::tcp().await;
    let home = Home::with_one_chain(&node.addr());
    home.monosign(&["state", "raise", "-c", "monosign.toml", "--to-height", "1000"]).must_succeed();
    let allow = ["state", "allow-jump", "-c", "monosign.toml", "--to-height", "150000", "--yes"];
    let path = home.path(format!("{CHAIN}.record.allow-jump"));
    home.monosign(&allow).must_succeed();
    let shown = home.monosign(&["state", "show", "-c", "monosign.toml"]).must_succeed();
    assert!(shown.stderr.contains("requests may jump to height 150000"), "{}", shown.stderr);
    serde_json::from_str::<serde_json::Value>(&shown.stdout).expect("a state, and nothing else");
    let mut signer = home.start();
    let line = signer.logs("requests may jump to height 150000").await;
    assert!(line.contains("`rm "), "{line}");
    signer.kill();

    // A day later it is over.
    let leave = fs::File::options().write(true).open(&path).expect("leave");
    let given = leave.metadata().and_then(|leave| leave.modified()).expect("a time");
    leave.set_modified(given - Duration::from_secs(24 * 3600)).expect("a time");
    let shown = home.monosign(&["state", "show", "-c", "monosign.toml"]).must_succeed();
    assert_eq!(shown.stderr, "");
    let mut signer = home.start();
    signer.logs("leave of chain test-chain-1 to jump to height 150000 has ended: a day is over").await;
    assert!(!path.exists());
    let mut talk = node.converse(CHAIN).await;
    let jump = talk.request(150_000, 0, Step::Prevote);
    assert!(talk.refuses(&jump).await.description.to_string().contains("height jump"));

    // Once the record is there, so is the end of it.
    home.monosign(&allow).must_succeed();
    talk.signs(&jump).await;
    signer.kill();
    let signer = home.start();
    signer.logs("to jump to height 150000 has ended: the record is there").await;
    assert!(!path.exists());
}

/// A network that is started over keeps its chain id, and its heights begin at 1.
#[tokio::test]
async fn a_chain_that_begins_anew_is_signed_for_as_the_readme_says() {
    let node = NodeSide::tcp().await;
    let home = Home::with_one_chain(&node.addr());
    home.monosign(&["state", "raise", "-c", "monosign.toml", "--to-height", "4000000", "--yes"])
        .must_succeed();
    let mut signer = home.start();
    let mut talk = node.converse(CHAIN).await;
    let first = talk.request(1, 0, Step::Prevote);
    assert!(talk.refuses(&first).await.description.to_string().contains("height regression"));
    let line = signer.logs("height regression").await;
    assert!(line.contains("hint: ") && line.contains("\"A chain that begins anew\" in the README"), "{line}");
    let readme = include_str!("../../../README.md");
    let section = readme.split("### A chain that begins anew").nth(1).expect("the section");
    signer.kill();

    // What stands there, to the letter.
    let commands =
        section.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next()).expect("commands");
    let commands = commands
        .replace("/etc/monosign/monosign.toml", "monosign.toml")
        .replace("/etc/monosign/state/CHAIN-ID.record", &format!("{CHAIN}.record"));
    let desk = Desk { home, chain: CHAIN.into() };
    for command in commands.lines().filter(|line| !line.starts_with('#') && !line.contains("systemctl")) {
        sh(&desk, command).must_succeed();
    }
    let _signer = desk.home.start();
    node.converse(CHAIN).await.signs(&first).await;
}
