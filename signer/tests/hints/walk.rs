//! Each situation of a record that cannot be used: what is advised is done as it is written, until the signer could start.

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;

/// The last height that was signed, in whatever form it is known.
const SIGNED: i64 = 1000;

/// What lies where the record has to be.
type Lie = fn(&Path);

/// All that can be mended by commands alone.
const MENDED: &[(&str, Lie)] = &[
    ("nothing", |_| {}),
    ("an empty file", |path| fs::write(path, "").expect("a file")),
    ("blanks", |path| fs::write(path, " \n").expect("a file")),
    ("rubbish", |path| fs::write(path, [7; 5000]).expect("a file")),
    ("zeros", |path| fs::write(path, vec![0; 300_000]).expect("a file")),
    ("half a record", |path| fs::write(path, &a_record()[..100]).expect("a file")),
    ("a record without its end", |path| fs::write(path, &a_record()[..200_000]).expect("a file")),
    ("a damaged record", |path| {
        let mut content = a_record();
        for copy in [4096, 4096 + 2048] {
            content[copy + 12] ^= 1;
        }
        fs::write(path, content).expect("a file");
    }),
    ("a link to nowhere", |path| symlink(path.with_extension("elsewhere"), path).expect("a link")),
    ("JSON of another kind", |path| fs::write(path, r#"{"height":"5"}"#).expect("a file")),
    ("an empty object", |path| fs::write(path, "{}").expect("a file")),
    ("half a state", |path| fs::write(path, &tmkms_state(SIGNED)[..40]).expect("a file")),
    ("a state of tmkms", |path| fs::write(path, tmkms_state(SIGNED)).expect("a file")),
    ("a state of tmkms v0.12", |path| {
        fs::write(path, tmkms_state(SIGNED).replace("parts", "part_set_header")).expect("a file");
    }),
    ("a state of tmkms v0.5", |path| {
        fs::write(path, r#"{"height":1000,"round":0,"step":2,"block_id":null}"#).expect("a file");
    }),
    ("a floor made for tmkms", |path| {
        let text = r#"{"height":"1000","round":"2147483647","step":127,"block_id":null}"#;
        fs::write(path, text).expect("a file");
    }),
    ("a state of CometBFT", |path| {
        fs::write(path, "{\n  \"height\": \"1000\",\n  \"round\": 0,\n  \"step\": 3\n}").expect("a file");
    }),
    ("a state of Horcrux made by hand", |path| {
        fs::write(path, r#"{"height": "1000", "round": "0", "step": 3}"#).expect("a file");
    }),
];

/// Where a person has to look or to edit: no command is of use, and none is offered that makes a record.
const LOOKED_AT: &[(&str, Lie)] = &[
    ("a directory", |path| fs::create_dir(path).expect("a directory")),
    ("a link to itself", |path| symlink(path, path).expect("a link")),
    ("a socket", |path| drop(std::os::unix::net::UnixListener::bind(path).expect("a socket"))),
    ("the record of another chain", |path| fs::write(path, record_of("other-1")).expect("a file")),
    ("a record of a newer version", |path| {
        let mut content = a_record();
        content[8] = 9;
        fs::write(path, content).expect("a file");
    }),
];

const COMMANDS: &[&str] = &[
    "check --offline",
    "start",
    "state show",
    "state export",
    "state import",
    "state init",
    "state raise --to-height 1001",
    "state allow-jump --to-height 1001",
];

/// The record of the chain's own key, as it is made for a floor above all that was signed.
fn a_record() -> Vec<u8> {
    record_of(CHAIN)
}

fn record_of(chain: &str) -> Vec<u8> {
    let home = Home::new();
    home.configure(&[(chain, "tcp://127.0.0.1:1")]);
    home.monosign(&["state", "init", "-c", "monosign.toml", "--height", "1001"]).must_succeed();
    fs::read(home.record(chain)).expect("a record")
}

/// Our own configuration, and one of tmkms that is used from another directory.
fn desks() -> [(Desk, PathBuf); 2] {
    let ours = Desk { home: Home::new(), config: "monosign.toml", cwd: "." };
    ours.home.configure(&[(CHAIN, "tcp://127.0.0.1:1")]);
    let record = ours.home.record(CHAIN);
    let tmkms = Desk::from_tmkms(Some("state.json"));
    let state = tmkms.home.path("etc/state.json");
    [(ours, record), (tmkms, state)]
}

/// What is in backticks, if it is a command, with what a person would put in for the words in capitals.
fn commands(desk: &Desk, text: &str) -> Vec<String> {
    let hint = text.split("hint: ").nth(1).unwrap_or_else(|| panic!("nothing is advised: {text}"));
    let hint = hint.lines().next().unwrap_or_default();
    let quoted = hint.split('`').skip(1).step_by(2);
    let known = desk.home.path("known.json");
    quoted
        .filter(|quoted| ["monosign ", "mv ", "rm ", "mkdir "].iter().any(|word| quoted.starts_with(word)))
        .map(|command| {
            let command = command.replace(" FILE", &format!(" {}", known.display()));
            if command.ends_with("--height H") { command.replace(" H", " 1001") } else { command }
        })
        .collect()
}

fn sh(desk: &Desk, command: &str) -> Finished {
    let bin = Path::new(env!("CARGO_BIN_EXE_monosign")).parent().expect("a directory");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").expect("a path"));
    let mut sh = Command::new("sh");
    sh.args(["-c", command]).env("PATH", path).current_dir(desk.home.path(desk.cwd)).stdin(Stdio::null());
    Finished::of(&mut sh)
}

/// Does what is advised, from a command that fails, until the signer could start.
fn walk(desk: &Desk, what: &str, first: &str) {
    let config = desk.config();
    // A check times the disk by a hundred writes: once is enough.
    let check = if first.starts_with("check") { first } else { "state show" };
    let check = format!("monosign {check} -c {}", config.display());
    let mut command = format!("monosign {first} -c {}", config.display());
    let mut seen = BTreeSet::new();
    loop {
        let failed = sh(desk, &command);
        if failed.code == Some(0) {
            if command == check {
                break;
            }
            command = check.clone();
            continue;
        }
        let text = told(&failed);
        assert!(seen.insert((command.clone(), text.clone())), "{what}, {first}: a circle: {command}\n{text}");
        assert!(seen.len() < 8, "{what}, {first}: no end: {seen:#?}");
        command = check.clone();
        for advised in commands(desk, &text) {
            // It has signed: who is asked whether it has, knows.
            let is_for_new_keys = advised.contains("state init") && !advised.contains("--height");
            // It would run on.
            if is_for_new_keys || advised.starts_with("monosign start") {
                continue;
            }
            if sh(desk, &advised).code != Some(0) {
                command = advised;
                break;
            }
        }
    }
    let (height, round, step) = desk.watermark();
    assert!((height, round, step) >= (SIGNED, 0, 3), "{what}, {first}: {height}/{round}/{step} is below");
}

#[test]
fn what_is_advised_leads_to_a_signer_that_starts_and_to_no_lower_floor() {
    for (what, lie) in MENDED {
        for first in COMMANDS {
            for (desk, record) in desks() {
                // It makes a record, as it is told to.
                if *what == "nothing" && *first == "state init" {
                    continue;
                }
                desk.home.write("known.json", tmkms_state(SIGNED).as_bytes());
                lie(&record);
                walk(&desk, what, first);
            }
        }
    }
}

#[test]
fn the_same_where_a_file_of_tmkms_lies_in_the_directory_of_the_command() {
    for (what, lie) in MENDED {
        for first in COMMANDS {
            if *what == "nothing" && *first == "state init" {
                continue;
            }
            let desk = Desk::from_tmkms(Some("state.json"));
            desk.home.write("known.json", tmkms_state(SIGNED).as_bytes());
            lie(&desk.home.path("run/state.json"));
            walk(&desk, what, first);
        }
    }
}

#[test]
fn where_somebody_has_to_look_no_command_is_offered_that_makes_a_record() {
    for (what, lie) in LOOKED_AT {
        for first in COMMANDS {
            for (desk, record) in desks() {
                lie(&record);
                let before = fs::symlink_metadata(&record).expect("something").len();
                let config = desk.config();
                let failed = sh(&desk, &format!("monosign {first} -c {}", config.display()));
                let text = told(&failed);
                assert!(matches!(failed.code, Some(1 | 3)), "{what}, {first}: {text}");
                for advised in commands(&desk, &text) {
                    let makes = ["state init", "state import", "state raise", "mv ", "rm "];
                    assert!(!makes.iter().any(|words| advised.contains(words)), "{what}, {first}: {text}");
                }
                assert_eq!(fs::symlink_metadata(&record).expect("it").len(), before, "{what}, {first}");
            }
        }
    }
}

#[test]
fn a_directory_that_is_missing_is_made_as_it_is_said() {
    let desk = Desk::from_tmkms(Some("state/of/chain.json"));
    desk.home.write("known.json", tmkms_state(SIGNED).as_bytes());
    for first in ["check --offline", "state import", "state init --height 1001"] {
        walk(&desk, "no directory", first);
        let state = desk.home.path("etc/state");
        fs::remove_dir_all(state).expect("removed");
    }
}

/// `threshold split` and `init` take over states, too.
#[test]
fn whose_state_it_is_can_be_said_wherever_it_is_asked() {
    let home = Home::new();
    home.configure(&[(CHAIN, "tcp://127.0.0.1:1")]);
    let by_hand = r#"{"height": "1000", "round": "0", "step": 3}"#;
    home.write("horcrux.json", by_hand.as_bytes());
    let recipients: Vec<String> = (1..=3)
        .map(|n| {
            let made = home.monosign(&["threshold", "recipient", "--output", &format!("{n}.identity")]);
            let made = made.must_succeed().stdout;
            let line = made.split_whitespace().find(|word| word.starts_with("age1")).expect("a recipient");
            line.to_owned()
        })
        .collect();
    let key = format!("{CHAIN}.key");
    let mut split =
        vec!["threshold", "split", "--key", &key, "--chain", CHAIN, "--threshold", "2", "--shares", "3"];
    for recipient in &recipients {
        split.extend(["--recipient", recipient]);
    }
    split.extend(["--state", "horcrux.json"]);
    let init = ["init", "new", "--chain", CHAIN, "--key", &key, "--plaintext", "--state", "horcrux.json"];
    let import = ["state", "import", "-c", "monosign.toml", "horcrux.json"];
    for words in [&split[..], &init, &import] {
        let failed = home.monosign(words).must_fail(1, &["`--dialect horcrux`"]);
        assert!(!told(&failed).contains("`tmkms`"), "what is refused is not offered");
        let again = [words, &["--dialect", "horcrux"]].concat();
        home.monosign(&again).must_succeed();
    }
}

#[test]
fn a_cosigner_without_a_record_is_told_of_the_groups_height() {
    let home = Home::new();
    home.configure(&[(CHAIN, "tcp://127.0.0.1:1")]);
    let recipient =
        home.monosign(&["threshold", "recipient", "--output", "1.identity"]).must_succeed().stdout;
    let recipient = recipient.split_whitespace().find(|word| word.starts_with("age1")).expect("a recipient");
    let key = format!("{CHAIN}.key");
    let mut split =
        vec!["threshold", "split", "--key", &key, "--chain", CHAIN, "--threshold", "2", "--shares", "3"];
    for _ in 0..3 {
        split.extend(["--recipient", recipient]);
    }
    split.extend(["--start-height", "1001"]);
    home.monosign(&split).must_succeed();
    let config = format!(
        "[[chain]]\nid = \"{CHAIN}\"\nstate_file = \"state.record\"\n[[providers.threshold]]\nchain_ids = [\"{CHAIN}\"]\n\
         group = \"shares/group.json\"\nshare = \"shares/cosigner-1.age\"\nidentity_file = \"1.identity\"\nlisten = \"tcp://127.0.0.1:0\"\n\
         [[providers.threshold.peer]]\nid = 2\naddr = \"tcp://127.0.0.1:1\"\n[[providers.threshold.peer]]\nid = 3\naddr = \"tcp://127.0.0.1:2\"\n"
    );
    home.write("monosign.toml", config.as_bytes());
    let desk = Desk { home, config: "monosign.toml", cwd: "." };
    for first in ["check --offline", "state show", "state raise --to-height 1001"] {
        for lie in [|_: &Path| {}, |path: &Path| fs::write(path, "").expect("a file")] {
            let record = desk.home.path("state.record");
            lie(&record);
            walk_group(&desk, first);
            fs::remove_file(record).expect("removed");
        }
    }
}

/// A group's record has no message, and its floor is a height.
fn walk_group(desk: &Desk, first: &str) {
    let config = desk.config();
    let failed = sh(desk, &format!("monosign {first} -c {}", config.display()));
    assert_eq!(failed.code, Some(3), "{first}: {}", told(&failed));
    for advised in
        commands(desk, &told(&failed)).iter().filter(|advised| !advised.contains("threshold status"))
    {
        let done = sh(desk, advised);
        assert_eq!(done.code, Some(0), "{advised}: {}", told(&done));
    }
    assert_eq!(desk.watermark(), (1001, 0, 0));
    sh(desk, &format!("monosign check --offline -c {}", config.display())).must_succeed();
}

#[test]
fn an_export_that_needs_a_higher_state_says_which() {
    let [(desk, record), _] = desks();
    fs::write(&record, "{\n  \"height\": \"1000\",\n  \"round\": 0,\n  \"step\": 2\n}").expect("a file");
    desk.monosign(&["state", "import"]).must_succeed();
    let failed = desk.monosign(&["state", "export", "--dialect", "tmkms"]);
    for advised in commands(&desk, &told(&failed)) {
        sh(&desk, &advised).must_succeed();
    }
    desk.monosign(&["state", "export", "--dialect", "tmkms"]).must_succeed();
    assert_eq!(desk.watermark(), (1000, 1, 0));
}

#[test]
fn an_import_that_is_given_again_changes_nothing() {
    let [(desk, record), _] = desks();
    fs::write(&record, tmkms_state(SIGNED)).expect("a file");
    for _ in 0..3 {
        desk.monosign(&["state", "import"]).must_succeed();
        assert_eq!(desk.watermark(), (SIGNED, 0, 3));
    }
    let again = desk.monosign(&["state", "import"]).must_succeed();
    assert!(
        again.stdout.contains("is a monosign record already, last signed h/r/s 1000/0/3"),
        "{}",
        again.stdout
    );
    // A record that lies elsewhere, as after a move: to where it belongs, or as high.
    let elsewhere = desk.home.path("old.record");
    fs::rename(&record, &elsewhere).expect("moved");
    let failed = desk.monosign(&["state", "import", &elsewhere.to_string_lossy()]);
    for advised in commands(&desk, &told(&failed)) {
        sh(&desk, &advised).must_succeed();
    }
    assert_eq!(desk.watermark(), (SIGNED, 0, 3));
    fs::rename(&record, &elsewhere).expect("moved");
    desk.monosign(&["state", "init"]).must_succeed();
    let failed = desk.monosign(&["state", "import", &elsewhere.to_string_lossy()]);
    for advised in commands(&desk, &told(&failed)) {
        sh(&desk, &advised).must_succeed();
    }
    assert_eq!(desk.watermark(), (SIGNED, 0, 3));
}

#[test]
fn a_record_of_another_key_is_not_taken_for_the_chains_own() {
    let [(desk, record), _] = desks();
    desk.monosign(&["state", "init"]).must_succeed();
    let before = fs::read(&record).expect("a record");
    let other = desk.home.path("other.key");
    desk.home.monosign(&["softsign", "keygen", "--plaintext", &other.to_string_lossy()]).must_succeed();
    fs::rename(&other, desk.home.path(format!("{CHAIN}.key"))).expect("another key");
    for words in [&["start"][..], &["check", "--offline"], &["state", "init"], &["state", "import"]] {
        let failed = desk.monosign(words).must_fail(3, &["is the record of public key", "state_file"]);
        assert_eq!(commands(&desk, &told(&failed)), Vec::<String>::new(), "{words:?}");
    }
    assert_eq!(fs::read(&record).expect("a record"), before);
}

#[test]
fn leave_to_jump_is_shown_until_it_is_used_up_or_taken_back() {
    let [(desk, _), _] = desks();
    desk.monosign(&["state", "init", "--height", "1000"]).must_succeed();
    desk.monosign(&["state", "allow-jump", "--to-height", "300000"]).must_succeed();
    let checked = desk.monosign(&["check", "--offline"]).must_succeed().stdout;
    assert!(checked.contains("requests may jump to height 300000"), "{checked}");
    let advised = checked.split('`').find(|words| words.starts_with("rm ")).expect("a way back");
    sh(&desk, advised).must_succeed();
    let checked = desk.monosign(&["check", "--offline"]).must_succeed().stdout;
    assert!(!checked.contains("may jump"), "{checked}");
}

#[test]
fn a_missing_identity_and_a_missing_key_are_made_as_it_is_said() {
    let [(desk, _), _] = desks();
    desk.monosign(&["state", "init"]).must_succeed();
    let identity = desk.home.path(rig::IDENTITY);
    fs::remove_file(&identity).expect("removed");
    let failed = sh(&desk, &format!("monosign check --offline -c {}", desk.config().display()));
    for advised in commands(&desk, &told(&failed)) {
        sh(&desk, &advised).must_succeed();
    }
    sh(&desk, &format!("monosign check --offline -c {}", desk.config().display())).must_succeed();

    let key = desk.home.path(format!("{CHAIN}.key"));
    fs::rename(&key, desk.home.path("KEYFILE")).expect("moved");
    let failed = desk.monosign(&["check", "--offline"]);
    for advised in commands(&desk, &told(&failed)) {
        sh(&desk, &advised).must_succeed();
    }
    desk.monosign(&["check", "--offline"]).must_succeed();
}
