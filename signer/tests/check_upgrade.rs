//! `monosign check-upgrade` for every pair of releases, and for configurations that would not survive an upgrade.

mod rig;

use monosign_protocol::{Dialect, noise};
use rig::{CHAIN, Finished, Home};
use serde_json::Value;

fn check(home: &Home, to: &str, more: &[&str]) -> Finished {
    home.monosign(&[&["check-upgrade", "-c", "monosign.toml", "--to", to], more].concat())
}

fn report(home: &Home, to: &str, more: &[&str]) -> (Option<i32>, Value) {
    let finished = check(home, to, &[more, &["--json"]].concat());
    let report = serde_json::from_str(&finished.stdout);
    (finished.code, report.unwrap_or_else(|error| panic!("{error}: {}{}", finished.stdout, finished.stderr)))
}

/// Neither key nor record are there, nor the validator: the check needs none of them.
fn configured(validator: &str) -> Home {
    let home = Home::new();
    home.configure(&[(CHAIN, "tcp://127.0.0.1:1")]);
    home.edit_config("addr = \"tcp://127.0.0.1:1\"\n", validator);
    std::fs::remove_file(home.path(format!("{CHAIN}.key"))).expect("there was a key");
    home
}

fn texts(report: &Value, list: &str) -> String {
    report[list].as_array().expect(list).iter().map(Value::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_pair_of_releases_is_tried_and_its_differences_are_told() {
    let pairs: Vec<_> = Dialect::ALL.into_iter().flat_map(|from| Dialect::ALL.map(|to| (from, to))).collect();
    // A trial is mostly waiting, so several run at once.
    std::thread::scope(|scope| {
        for pairs in pairs.chunks(pairs.len().div_ceil(4)) {
            scope.spawn(|| pairs.iter().for_each(|(from, to)| check_pair(*from, *to)));
        }
    });
}

fn check_pair(from: Dialect, to: Dialect) {
    let home = configured(&format!("addr = \"tcp://127.0.0.1:1\"\nprotocol_version = \"{from}\"\n"));
    let (code, report) = report(&home, &to.to_string(), &[]);
    assert_eq!((code, report["ready"].as_bool()), (Some(0), Some(true)), "{from} {to}: {report:#}");
    assert_eq!(report["from"], from.to_string());
    let trial = &report["trials"][0];
    assert!(trial["kept"].as_u64() > Some(40) && trial["broken"] == Value::Array(Vec::new()), "{trial:#}");
    assert_ne!(trial["tried_as"], CHAIN, "never the real chain");
    // A stale version is named, and the file without it is shown.
    let (changes, diff) = (report["changes"].as_array().expect("changes"), report["diff"].to_string());
    assert_eq!(changes.len(), usize::from(from != to), "{from} {to}");
    assert_eq!(diff.contains("+protocol_version = \\\"auto\\\""), from != to, "{diff}");
    let turned_on = texts(&report, "chain_features").contains("\"vote extensions");
    assert_eq!(turned_on, to.has_extensions() && !from.has_extensions(), "{from} {to}");
    let key_form =
        texts(&report, "validator_side").contains("\"the node reads the public key in another form");
    assert_eq!(key_form, to.is_v1_or_later() && !from.is_v1_or_later(), "{from} {to}");
}

#[test]
fn noise_is_ready_for_its_own_release_alone() {
    let peer = noise::PeerId::from(&ed25519_dalek::SigningKey::from_bytes(&[8; 32]).verifying_key());
    let home = configured(&format!("addr = \"noise://{peer}@127.0.0.1:1\"\n"));
    check(&home, "v0.40", &[]).must_succeed();
    check(&home, "v1.0", &[]).must_fail(1, &["noise:// is v0.40's alone", "NEEDED", "not ready for v1.0"]);
}

#[test]
fn what_an_upgrade_would_break_is_needed_and_the_shown_file_is_ready() {
    let pinned = "tcp://0123456789abcdef0123456789abcdef01234567@127.0.0.1:1";
    let home = configured(&format!("addr = \"{pinned}\" # the node\nreconnect = false\n"));
    let (code, told) = report(&home, "v0.39", &["--from", "v0.38"]);
    assert_eq!((code, told["ready"].as_bool()), (Some(1), Some(false)));
    let needed: Vec<_> = told["changes"].as_array().expect("changes").iter().map(|c| &c["setting"]).collect();
    assert_eq!(needed, ["addr", "reconnect"]);
    // Applied as the diff has it, the comment included.
    for line in ["+addr = \\\"tcp://127.0.0.1:1\\\" # the node", "+reconnect = true"] {
        assert!(told["diff"].to_string().contains(line), "{}", told["diff"]);
    }
    home.edit_config(pinned, "tcp://127.0.0.1:1");
    home.edit_config("reconnect = false", "reconnect = true");
    check(&home, "v0.39", &[]).must_succeed();
}

#[test]
fn settings_of_tmkms_and_of_other_releases_are_advised_away() {
    let home = configured("addr = \"unix:///run/x.sock\"\n");
    home.edit_config("[[chain]]\n", "[[chain]]\nsign_extensions = true\nsign_bytes = true\n");
    let (code, report) = report(&home, "v0.38", &[]);
    assert_eq!(code, Some(0));
    let settings: Vec<_> =
        report["changes"].as_array().expect("changes").iter().map(|c| &c["setting"]).collect();
    assert_eq!(settings, ["sign_bytes", "sign_extensions"]);
}

#[test]
fn wrong_usage_and_unknown_chains_are_told() {
    let home = configured("addr = \"tcp://127.0.0.1:1\"\n");
    check(&home, "v0.33", &[]).must_fail(2, &["amino"]);
    check(&home, "v1.0", &["--chain", "other-1"]).must_fail(1, &["no [[chain]] with id `other-1`"]);
}
