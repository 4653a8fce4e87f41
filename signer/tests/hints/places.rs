//! Places that are not as a signer needs them: a record that is in use, a file system that cannot be written,
//! files of another user.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;

use super::*;

/// Commands that want the record for themselves.
const TAKE: &[&[&str]] = &[
    &["start"],
    &["state", "raise", "--to-height", "2000"],
    &["state", "import", "state.json"],
    &["state", "init"],
];

#[tokio::test]
async fn a_record_in_use_is_left_alone_until_its_process_is_gone() {
    let node = rig::NodeSide::tcp().await;
    let desk = Desk { home: Home::with_one_chain(&node.addr()), config: "monosign.toml", cwd: "." };
    desk.home.write("state.json", tmkms_state(1000).as_bytes());
    let mut signer = desk.home.start();
    node.converse(CHAIN).await.signs_prevote(5).await;
    for words in TAKE {
        let failed = desk.monosign(words);
        let text = told(&failed);
        assert_eq!(failed.code, Some(3), "{words:?}: {text}");
        assert!(text.contains("hint: "), "{words:?}: {text}");
        // It names the process, or says what does.
        if *words != ["state", "init"] {
            let named = text.contains(&format!("process {}", signer.id()));
            assert!(named || text.contains("`fuser "), "{words:?}: {text}");
        }
        assert!(signer.is_running());
    }
    // What only looks, works meanwhile.
    for words in [&["state", "show"][..], &["check", "--offline"], &["pubkey"]] {
        desk.monosign(words).must_succeed();
    }
    // As it is said.
    signer.kill();
    desk.monosign(&["state", "raise", "--to-height", "900"]).must_succeed();
    desk.monosign(&["state", "import", "state.json"]).must_succeed();
    assert_eq!(desk.watermark(), (1000, 0, 3));
}

/// Runs commands where a directory is a file system of its own, which can be mounted anew. `None` if that
/// takes rights we have not.
fn on_a_file_system_of_its_own(script: &str, desk: &Desk) -> Option<Finished> {
    let bin = std::path::Path::new(env!("CARGO_BIN_EXE_monosign")).parent().expect("a directory");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").expect("a path"));
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script]).env("PATH", path);
    command.current_dir(desk.home.path(".")).stdin(Stdio::null());
    let root = rustix::process::geteuid().is_root();
    let probe = Command::new("unshare").args(["-m", "true"]).status();
    if !root || !probe.is_ok_and(|status| status.success()) {
        eprintln!("not root: no file system is mounted");
        return None;
    }
    Some(Finished::of(&mut command))
}

#[test]
fn on_a_read_only_file_system_nothing_is_signed_until_it_can_be_written() {
    let desk = Desk { home: Home::new(), config: "monosign.toml", cwd: "." };
    desk.home.configure(&[(CHAIN, "tcp://127.0.0.1:1")]);
    desk.home.edit_config(&format!("\"{CHAIN}.record\""), "\"state/chain.record\"");
    let script = "mkdir -m 700 state && mount -t tmpfs -o size=2m,mode=700 tmpfs state || exit 77
        monosign state init || exit 1
        mount -o remount,ro state || exit 77
        for words in 'check --offline' start 'state raise --to-height 7'; do
            monosign $words -c monosign.toml; echo \"code $?\"
        done
        monosign state show || exit 1
        mount -o remount,rw state
        monosign state raise --to-height 7 && monosign state show";
    let Some(finished) = on_a_file_system_of_its_own(script, &desk) else { return };
    if finished.code == Some(77) {
        eprintln!("no file system can be mounted here");
        return;
    }
    let text = told(&finished);
    assert_eq!(finished.code, Some(0), "{text}");
    assert_eq!(text.matches("make the file system writable").count(), 2, "{text}");
    assert!(!text.contains("code 0\ncode 0"), "{text}");
    assert!(!text.contains("state init`"), "no new record is spoken of: {text}");
    assert!(text.contains("\"height\": \"7\""), "{text}");
}

/// The user `nobody`.
const NOBODY: u32 = 65534;

#[test]
fn files_of_another_user_are_named_with_what_shows_whose_they_are() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not root: other users are not tried");
        return;
    }
    let desk = Desk { home: Home::new(), config: "monosign.toml", cwd: "." };
    desk.home.configure(&[(CHAIN, "tcp://127.0.0.1:1")]);
    desk.home.make_record(CHAIN);
    // A directory that all users reach.
    let shared = tempfile::tempdir().expect("a directory");
    fs::set_permissions(shared.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
    let binary = shared.path().join("monosign");
    fs::copy(env!("CARGO_BIN_EXE_monosign"), &binary).expect("a copy");
    let theirs = shared.path().join("home");
    fs::create_dir(&theirs).expect("a directory");
    for entry in fs::read_dir(desk.home.path(".")).expect("a directory") {
        let entry = entry.expect("a file");
        let to = theirs.join(entry.file_name());
        fs::copy(entry.path(), &to).expect("a copy");
        chown(&to, Some(NOBODY), Some(NOBODY)).expect("given away");
    }
    fs::set_permissions(&theirs, fs::Permissions::from_mode(0o700)).expect("a mode");
    chown(&theirs, Some(NOBODY), Some(NOBODY)).expect("given away");
    let run = |words: &[&str]| {
        let mut command = Command::new(&binary);
        command.args(words).args(["-c", "monosign.toml"]).current_dir(&theirs).uid(NOBODY).gid(NOBODY);
        Finished::of(command.stdin(Stdio::null()))
    };
    for name in [format!("{CHAIN}.record"), format!("{CHAIN}.key"), rig::IDENTITY.into()] {
        let path = theirs.join(&name);
        chown(&path, Some(0), Some(0)).expect("taken");
        for words in [&["check", "--offline"][..], &["start"]] {
            let failed = run(words);
            let text = told(&failed);
            assert!(matches!(failed.code, Some(1 | 3)), "{name}, {words:?}: {text}");
            assert!(text.contains(&name) && text.contains("hint: "), "{name}, {words:?}: {text}");
            assert!(text.contains("user"), "it is told of the user: {name}, {words:?}: {text}");
            assert!(!text.contains("state init"), "{name}, {words:?}: {text}");
        }
        // As it is said.
        chown(&path, Some(NOBODY), Some(NOBODY)).expect("given away");
        run(&["check", "--offline"]).must_succeed();
    }
}
