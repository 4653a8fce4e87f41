//! `monosign check` against what a start does: each state of a signer's files, devices and peers in which it
//! would sign, or would not. The signer is run for real in each of them, and its node asks.

mod rig;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use data_encoding::{BASE64, HEXLOWER};
use mock_validator::node::Answer;
use mock_yubihsm::faults::{Fault, Lasting};
use mock_yubihsm::latency::Latency;
use mock_yubihsm::{Connector, Device};
use monosign::backend::softsign::key_file::{self, Protection};
use monosign::consensus_key::ConsensusKey;
use monosign_protocol::Step;
use rig::cosigners::{FLOOR, Group};
use rig::{CHAIN, Finished, Home, NodeSide, Signer, poll, signing_key, skip_without_strace, validator_table};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use yubihsm::asymmetric::Algorithm;
use yubihsm::audit::AuditOption;
use yubihsm::command::Code;
use yubihsm::{Capability, Client, Credentials, Domain, HttpConfig, authentication};

/// What a start does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    Signs,
    /// It answers its node, and signs nothing.
    Refuses,
    /// It ends with this code.
    Ends(i32),
}
use Start::{Ends, Refuses, Signs};

/// Runs `check` twice, as text and as JSON, and holds both against each other. Gives the JSON.
fn checked(
    command: impl Fn(&[&str]) -> Command,
    args: &[&str],
    code: i32,
    words: &str,
    state: &str,
) -> Value {
    let text = Finished::of(&mut command(&[&["check"], args].concat()));
    assert_eq!(text.code, Some(code), "{state}: {}{}", text.stdout, text.stderr);
    assert_eq!(text.stderr, "", "{state}");
    assert!(text.stdout.contains(words), "{state}: no `{words}` in {}", text.stdout);
    let json = Finished::of(&mut command(&[&["check", "--json"], args].concat()));
    assert_eq!((json.code, json.stderr.as_str()), (Some(code), ""), "{state}");
    let told: Value = serde_json::from_str(&json.stdout).expect("JSON");
    let verdict = told["verdict"].as_str().expect("a verdict");
    assert_eq!(told["exit_code"], code, "{state}: {told}");
    assert_eq!(verdict == "will not sign", code != 0, "{state}: {told}");
    let last = text.stdout.lines().last().expect("a last line");
    // A disk that is slow at one of the times is a warning.
    let says = if code == 0 { "will sign" } else { verdict };
    assert!(last.starts_with(says), "{state}: `{verdict}`, and the last line is `{last}`");
    assert_eq!(last.contains("offline"), args.contains(&"--offline"), "{state}: {last}");
    for finding in told["findings"].as_array().expect("findings") {
        let needs_next = finding["level"] != "ok";
        assert!(!finding["what"].as_str().unwrap_or_default().is_empty(), "{state}: {finding}");
        assert!(!finding["where"].as_str().unwrap_or_default().is_empty(), "{state}: {finding}");
        assert!(!needs_next || finding["next"].is_string(), "{state}: nothing to do: {finding}");
    }
    told
}

/// What the signer does when its node asks, and what `check` says before and meanwhile.
async fn agree(
    state: &str,
    node: &NodeSide,
    command: impl Fn(&[&str]) -> Command,
    log: &Path,
    start: Start,
    (code, words): (i32, &str),
) {
    checked(&command, &["--offline"], code, words, state);
    let _ = fs::remove_file(log);
    let mut signer = Signer::start(command(&["start"]), log.to_owned());
    if let Ends(code) = start {
        assert_eq!(signer.ended().await.code(), Some(code), "{state}: {}", signer.log());
        return;
    }
    let mut conversation = node.converse(CHAIN).await;
    let mut height = 1000;
    // A device may be looked for yet.
    let answer = loop {
        let request = conversation.request(height, 0, Step::Prevote);
        let answer = conversation.ask(&request).await.expect("an answer");
        let answer = conversation.judge(&request, answer);
        let is_looking = matches!(answer, Answer::Refused { .. }) && start == Signs && height < 1100;
        if !is_looking {
            break answer;
        }
        height += 1;
        tokio::task::yield_now().await;
    };
    match (start, answer) {
        (Signs, Answer::Signed(_)) | (Refuses, Answer::Refused { .. }) => {}
        (_, answer) => panic!("{state}: it should be {start:?}, and is {answer:?}\n{}", signer.log()),
    }
    // The running one is asked, too, and knows no less.
    let again = Finished::of(&mut command(&["check", "--json", "--offline"]));
    let told: Value = serde_json::from_str(&again.stdout).expect("JSON");
    // What was asked may have made it graver: an alarm locks the key.
    let agrees = if code == 0 { again.code == Some(0) } else { again.code >= Some(code) };
    assert!(agrees, "{state}, running: {told:#}");
    let is_asked = told["signer"]["process"] == signer.id();
    assert!(is_asked, "{state}: {told}");
    let signs = told["chains"][0]["signer"]["state"] == "ready";
    assert!(signs || start != Signs, "{state}: {told}");
}

type Make = fn(&Home);

fn mode(home: &Home, name: &str, mode: u32) {
    fs::set_permissions(home.path(name), fs::Permissions::from_mode(mode)).expect("a mode");
}

const RECORD: &str = "test-chain-1.record";
const KEY_FILE: &str = "test-chain-1.key";

/// Encrypts the chain's key with a passphrase.
fn seal(home: &Home) {
    let key = ConsensusKey::from_seed(signing_key(CHAIN).as_bytes());
    let sealed = key_file::seal(&key, &Protection::Passphrase("secret".to_owned().into())).expect("sealed");
    home.write(KEY_FILE, sealed.as_bytes());
    home.edit_config("allow_plaintext_key = true\n", "");
}

/// Files: what is wrong, what a start does, and what `check` says.
const FILES: &[(&str, Make, Start, (i32, &str))] = &[
    ("nothing is wrong", |_| {}, Signs, (0, "will sign, but")),
    (
        "no such setting",
        |home| home.edit_config("[[chain]]", "[[chain]]\nnonsense = 1"),
        Ends(1),
        (1, "unknown field"),
    ),
    ("no validator", |home| cut(home, "[[validator]]"), Ends(1), (1, "no [[validator]]")),
    (
        "anybody can change the configuration",
        |home| mode(home, "monosign.toml", 0o666),
        Ends(3),
        (3, "can write it"),
    ),
    ("anybody can change the record", |home| mode(home, RECORD, 0o666), Ends(3), (3, "can write it")),
    ("no key", |home| remove(home, KEY_FILE), Ends(1), (1, "softsign import")),
    ("others can read the key", |home| mode(home, KEY_FILE, 0o644), Ends(3), (3, "chmod 600")),
    (
        "a plain key without leave",
        |home| home.edit_config("allow_plaintext_key = true", ""),
        Ends(3),
        (3, "is not encrypted"),
    ),
    ("no key at all in the file", |home| drop(home.write(KEY_FILE, b"nonsense")), Ends(1), (1, "key file")),
    (
        "another key",
        |home| drop(home.write(KEY_FILE, BASE64.encode(&[9; 32]).as_bytes())),
        Ends(3),
        (3, "not of"),
    ),
    ("no record", |home| remove(home, RECORD), Ends(3), (3, "state init")),
    ("an empty record", |home| drop(home.write(RECORD, b"")), Ends(3), (3, "hint")),
    ("a damaged record", |home| drop(home.write(RECORD, &[7; 300_000])), Ends(3), (3, "hint")),
    ("a record of another chain", other_chain, Ends(3), (3, "is the record of chain")),
    ("a directory in the record's place", directory, Ends(1), (1, "directory")),
    ("a link to nowhere in the record's place", dangling, Ends(3), (3, "it is a link")),
    (
        "a locked key",
        |home| drop(home.write("test-chain-1.record.locked", b"somebody signed\n")),
        Refuses,
        (3, "somebody signed"),
    ),
    ("no identity", |home| remove(home, rig::IDENTITY), Ends(1), (1, "is missing")),
    ("others can read the identity", |home| mode(home, rig::IDENTITY, 0o644), Ends(3), (3, "chmod 600")),
    (
        "an identity that is none",
        |home| drop(home.write(rig::IDENTITY, b"nonsense")),
        Ends(1),
        (1, "is no identity key"),
    ),
    ("all that its validator may have is signed", beyond, Refuses, (1, "max_height is 500")),
    (
        "one height is left for its validator",
        |home| home.edit_config("identity.key\"\n", "identity.key\"\nmax_height = 1000\n"),
        Signs,
        (0, ""),
    ),
    (
        "one of two validators without identity",
        second_validator,
        Signs,
        (0, "other validators of the chain are served"),
    ),
    (
        "a jump is allowed",
        |home| drop(home.write("test-chain-1.record.allow-jump", b"5000\n")),
        Signs,
        (0, "may jump to height 5000"),
    ),
];

fn remove(home: &Home, name: &str) {
    fs::remove_file(home.path(name)).expect("removed");
}

fn cut(home: &Home, table: &str) {
    let text = fs::read_to_string(home.config()).expect("a configuration");
    let (rest, _) = text.split_once(table).expect("the table");
    home.write("monosign.toml", rest.as_bytes());
}

fn other_chain(home: &Home) {
    let text = fs::read_to_string(home.config()).expect("a configuration");
    home.write(
        "monosign.toml",
        text.replace(CHAIN, "other-1").replace("other-1.", "test-chain-1.").as_bytes(),
    );
}

fn directory(home: &Home) {
    remove(home, RECORD);
    fs::create_dir(home.path(RECORD)).expect("a directory");
    mode(home, RECORD, 0o700);
}

fn dangling(home: &Home) {
    remove(home, RECORD);
    symlink(home.path("nowhere"), home.path(RECORD)).expect("a link");
}

fn beyond(home: &Home) {
    home.edit_config("identity.key\"\n", "identity.key\"\nmax_height = 500\n");
    home.monosign(&["state", "raise", "--to-height", "501"]).must_succeed();
}

fn second_validator(home: &Home) {
    let table = validator_table(CHAIN, "tcp://127.0.0.1:1", "");
    home.append_config(&table.replace("identity.key", "no-such.key"));
}

#[tokio::test]
async fn a_check_and_a_start_agree_on_files() {
    for (state, make, start, told) in FILES {
        let node = NodeSide::tcp().await;
        let home = Home::with_one_chain(&node.addr());
        make(&home);
        agree(state, &node, |args| home.command(args), &home.path("log"), *start, *told).await;
    }
}

#[tokio::test]
async fn a_sealed_key_does_not_sign_until_it_is_unlocked() {
    let node = NodeSide::tcp().await;
    let home = Home::with_one_chain(&node.addr());
    seal(&home);
    let check = |code, words: &str, state: &str| {
        checked(|args| home.command(args), &["--offline"], code, words, state)
    };
    let unlock = ["unlock", "-c", "monosign.toml", "--stdin"];
    check(1, "`monosign start -c monosign.toml`, then `monosign unlock -c monosign.toml`", "sealed");
    let mut signer = home.start();
    let mut conversation = node.converse(CHAIN).await;
    let request = conversation.request(1, 0, Step::Prevote);
    conversation.refuses(&request).await;
    // A busy machine takes longer for what follows than a signer waits for a silent node.
    drop(conversation);
    let told = check(1, "hint: `monosign unlock -c monosign.toml`", "sealed and running");
    assert_eq!(told["chains"][0]["signer"]["state"], "sealed", "{told}");
    home.monosign_with_input(&unlock, "secret\n").must_succeed();
    let mut conversation = node.converse(CHAIN).await;
    conversation.signs(&request).await;
    let told = check(0, "the key is unlocked in the running signer", "unlocked");
    assert_eq!(told["chains"][0]["signer"]["state"], "ready", "{told}");
    signer.kill();
    drop((signer, conversation));
    check(1, "nothing is signed until it is unlocked", "sealed again");
    // No socket to be unlocked by.
    let text = fs::read_to_string(home.config()).expect("a configuration");
    home.write("monosign.toml", format!("admin_socket = \"missing/a.sock\"\n{text}").as_bytes());
    check(1, "no admin socket can be made", "sealed for good");
    home.start_and_fail().await.must_fail(1, &["stay sealed"]);
    home.write("monosign.toml", text.as_bytes());
    // The passphrase in a file.
    for (passphrase, start, told) in
        [("wrong", Ends(1), (1, "does not open key file")), ("secret", Signs, (0, "will sign"))]
    {
        home.write("passphrase", passphrase.as_bytes());
        let more = format!("path = \"{KEY_FILE}\"\npassphrase_file = \"passphrase\"");
        home.write("monosign.toml", text.replace(&format!("path = \"{KEY_FILE}\""), &more).as_bytes());
        agree(passphrase, &node, |args| home.command(args), &home.path("log"), start, told).await;
    }
}

#[tokio::test]
async fn another_process_with_the_key_keeps_a_start_away() {
    let (node, other) = (NodeSide::tcp().await, NodeSide::tcp().await);
    let home = Home::with_one_chain(&node.addr());
    let signer = home.start();
    node.converse(CHAIN).await.signs_prevote(1).await;
    fs::copy(home.record(CHAIN), home.path("copy.record")).expect("copied");
    let process = format!("process {}", signer.id());
    for record in [RECORD, "copy.record"] {
        let tables = home.chain_tables(CHAIN) + &validator_table(CHAIN, &other.addr(), "");
        home.write("second.toml", tables.replace(RECORD, record).as_bytes());
        let args = ["-c", "second.toml", "--offline"];
        for socket in ["", "admin_socket = \"second.sock\"\n"] {
            let text = fs::read_to_string(home.path("second.toml")).expect("a configuration");
            home.write("second.toml", (socket.to_owned() + &text).as_bytes());
            let expects = if record == RECORD && !socket.is_empty() { 0 } else { 3 };
            checked(|args| home.command(args), &args, expects, &process, &format!("{record} {socket}"));
        }
        home.start_and_fail_with("second.toml").await.must_fail(3, &["locked"]);
    }
}

/// A node that answers while `check` runs.
async fn checked_online(home: &Home, node: impl Future<Output = ()>) -> Finished {
    let mut command = home.command(&["check"]);
    let check = tokio::task::spawn_blocking(move || Finished::of(&mut command));
    tokio::select! {
        finished = check => finished.expect("it ends"),
        () = node => unreachable!("nodes serve for ever"),
    }
}

#[tokio::test]
async fn who_is_at_the_other_end_decides_and_that_nobody_is_there_is_a_warning() {
    // A node.
    let node = NodeSide::tcp().await;
    let home = Home::with_one_chain(&node.addr());
    let serves = async || loop {
        let _ = node.handshake(node.accept_socket().await).await;
    };
    let found = checked_online(&home, serves()).await.must_succeed();
    assert!(found.stdout.contains("reached, peer id"), "{}", found.stdout);
    // Another one than is pinned.
    let pinned = "0123456789012345678901234567890123456789";
    home.edit_config("tcp://", &format!("tcp://{pinned}@"));
    checked_online(&home, serves()).await.must_fail(1, &["pins `0123", "will not sign"]);
    // Something else.
    let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let home = Home::with_one_chain(&format!("tcp://{}", port.local_addr().expect("an address")));
    let serves = async {
        // Not closed, or what was written might be lost.
        let mut kept = Vec::new();
        loop {
            let (mut stream, _) = port.accept().await.expect("accepted");
            let _ = stream.read(&mut [0; 64]).await;
            let answer =
                b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".repeat(20);
            let _ = stream.write_all(&answer).await;
            kept.push(stream);
        }
    };
    checked_online(&home, serves).await.must_fail(1, &["priv_validator_laddr", "will not sign"]);
    // Nobody: it signs when one comes.
    let [port] = rig::cosigners::free_ports(1)[..] else { unreachable!("one port") };
    let addr = format!("tcp://127.0.0.1:{port}");
    let home = Home::with_one_chain(&addr);
    checked(|args| home.command(args), &[], 0, "Connection refused", "nobody");
    let _signer = home.start();
    NodeSide::listen(&addr).await.converse(CHAIN).await.signs_prevote(1).await;
}

#[tokio::test]
async fn one_chain_that_does_not_sign_is_told_beside_one_that_does() {
    let node = NodeSide::tcp().await;
    let home = Home::new();
    home.configure(&[(CHAIN, &node.addr()), ("other-1", "tcp://127.0.0.1:1")]);
    home.make_record(CHAIN);
    let told =
        checked(|args| home.command(args), &["--offline"], 3, "chain other-1: will not sign", "two chains");
    assert_eq!(told["chains"][0]["verdict"], "will sign, but", "{told}");
    assert_eq!(told["chains"][1]["verdict"], "will not sign", "{told}");
    let _signer = home.start();
    node.converse(CHAIN).await.signs_prevote(1).await;
    let told =
        checked(|args| home.command(args), &["--offline"], 3, "has given it up", "two chains, running");
    assert_eq!(told["chains"][1]["signer"]["state"], "not-served", "{told}");
}

#[test]
fn a_full_disk_is_a_warning_since_the_record_has_its_place() {
    if skip_without_strace() {
        return;
    }
    let home = Home::with_one_chain("tcp://127.0.0.1:1");
    let traced = |args: &[&str]| {
        let mut command = Command::new("strace");
        command.args(["-f", "-o"]).arg(home.path("trace"));
        command.args(["-e", "trace=pwrite64", "-e", "inject=pwrite64:error=ENOSPC"]);
        command.arg(env!("CARGO_BIN_EXE_monosign")).args(args).current_dir(home.path("."));
        command
    };
    checked(traced, &["--offline"], 0, "No space left on device", "a full disk");
}

#[tokio::test]
async fn a_signer_that_stands_still_is_one_that_cannot_be_asked() {
    let node = NodeSide::tcp().await;
    let home = Home::with_one_chain(&node.addr());
    let signer = home.start();
    node.converse(CHAIN).await.signs_prevote(1).await;
    signer.signal(rustix::process::Signal::STOP);
    checked(|args| home.command(args), &["--offline"], 0, "gave no answer within", "stopped");
    signer.signal(rustix::process::Signal::CONT);
    let told = checked(|args| home.command(args), &["--offline"], 0, "signs for it", "going on");
    assert_eq!(told["chains"][0]["signer"]["state"], "ready", "{told}");
}

const NUMBER: u16 = 1;

fn device(key: &ed25519_dalek::SigningKey) -> Connector {
    let mut count = 0_u8;
    let entropy = move |bytes: &mut [u8]| {
        for byte in bytes {
            count = count.wrapping_mul(5).wrapping_add(113);
            *byte = count;
        }
    };
    let mut device = Device::new(b"password", Box::new(entropy));
    device.set_serial(12_345_678);
    let device = Connector::serve(([127, 0, 0, 1], 0), device, Latency::None).expect("a free port");
    let admin = client(&device);
    let (may, seed) = (Capability::SIGN_EDDSA, key.to_bytes().to_vec());
    admin.put_asymmetric_key(NUMBER, "val".into(), Domain::DOM1, may, Algorithm::Ed25519, seed).expect("put");
    let seed = key.to_bytes().to_vec();
    let none = Capability::empty();
    admin.put_asymmetric_key(2, "mute".into(), Domain::DOM1, none, Algorithm::Ed25519, seed).expect("put");
    let seed = vec![9; 32];
    admin.put_asymmetric_key(3, "other".into(), Domain::DOM1, may, Algorithm::Ed25519, seed).expect("put");
    for (id, may) in [(4, may | Capability::GET_LOG_ENTRIES | Capability::GET_OPTION), (5, none)] {
        let key = authentication::Key::derive_from_password(b"role");
        let kind = authentication::Algorithm::YubicoAes;
        admin.put_authentication_key(id, "r".into(), Domain::DOM1, may, none, kind, key).expect("put");
    }
    device
}

fn client(device: &Connector) -> Client {
    let address = device.address();
    let config = HttpConfig { addr: address.ip().to_string(), port: address.port(), timeout_ms: 1000 };
    Client::open(yubihsm::Connector::http(&config), Credentials::default(), true).expect("a session")
}

fn provider(device: &Connector) -> String {
    format!(
        "[[providers.yubihsm]]\nadapter = {{ type = \"http\", addr = \"tcp://{}\", timeout_ms = 300 }}\n\
         auth = {{ key = 4, password_file = \"password\" }}\nkeys = [{{ chain_ids = [\"{CHAIN}\"], key = {NUMBER} }}]\n",
        device.address()
    )
}

const WATCHED: &str = "serial_number = \"12345678\"\naudit = \"detect\"\nauth =";

/// Devices: what is done to them and to the configuration.
type MakeDevice = fn(&Home, &Connector);

const DEVICES: &[(&str, MakeDevice, Start, (i32, &str))] = &[
    ("nothing is wrong", |_, _| {}, Signs, (0, "will sign")),
    (
        "our authentication key may not sign",
        |home, _| home.edit_config("key = 4", "key = 5"),
        Refuses,
        (1, "authentication key 0x0005 may not sign"),
    ),
    (
        "the key may not sign",
        |home, _| home.edit_config("], key = 1", "], key = 2"),
        Refuses,
        (1, "key 0x0002 may not sign"),
    ),
    (
        "no such key",
        |home, _| home.edit_config("], key = 1", "], key = 77"),
        Refuses,
        (1, "it has no key 0x004d"),
    ),
    (
        "another key",
        |home, _| home.edit_config("], key = 1", "], key = 3"),
        Refuses,
        (1, "and the record is that of"),
    ),
    (
        "unplugged",
        |_, device| device.set(Fault::Lasting(Lasting::Unplug, true)),
        Refuses,
        (1, "yubihsm detect"),
    ),
    (
        "no connector",
        |home, device| home.edit_config(&device.address().to_string(), "127.0.0.1:1"),
        Refuses,
        (1, "yubihsm detect"),
    ),
    (
        "a wrong password",
        |home, _| drop(home.write("password", b"wrong")),
        Refuses,
        (1, "it refuses the password"),
    ),
    ("no password", |home, _| remove(home, "password"), Ends(1), (1, "cannot read")),
    ("others can read the password", |home, _| mode(home, "password", 0o644), Ends(3), (3, "chmod 600")),
    (
        "another serial number",
        |home, _| home.edit_config("auth =", "serial_number = \"77\"\nauth ="),
        Refuses,
        (1, "has serial number"),
    ),
    ("no audit file", |home, _| home.edit_config("auth =", WATCHED), Refuses, (3, "audit init")),
    ("another has signed", foreign, Refuses, (3, "signed with our key")),
    ("its signatures are not audited", blind, Refuses, (1, "does not audit signatures")),
    ("its log is full", full, Refuses, (1, "its audit log is full")),
    (
        "USB in a build without it",
        |home, device| {
            let adapter = format!("type = \"http\", addr = \"tcp://{}\", timeout_ms = 300", device.address());
            home.edit_config(&adapter, "type = \"usb\"");
        },
        Refuses,
        (1, if cfg!(feature = "usb") { "BAD" } else { "no USB" }),
    ),
    (
        "one of two is unplugged",
        |home, device| {
            let second = self::device(&signing_key(CHAIN));
            home.append_config(&provider(&second));
            device.set(Fault::Lasting(Lasting::Unplug, true));
            SECOND.with_borrow_mut(|kept| kept.push(second));
        },
        Signs,
        (0, "another device has the key"),
    ),
];

thread_local! {
    static SECOND: std::cell::RefCell<Vec<Connector>> = const { std::cell::RefCell::new(Vec::new()) };
}

fn watched(home: &Home, device: &Connector) {
    home.edit_config("auth =", WATCHED);
    client(device).set_command_audit_option(Code::SignEddsa, AuditOption::On).expect("set");
    home.monosign(&["yubihsm", "audit", "init"]).must_succeed();
}

fn foreign(home: &Home, device: &Connector) {
    watched(home, device);
    client(device).sign_ed25519(NUMBER, vec![7; 90]).expect("signed");
}

fn blind(home: &Home, device: &Connector) {
    watched(home, device);
    client(device).set_command_audit_option(Code::SignEddsa, AuditOption::Off).expect("set");
}

fn full(_: &Home, device: &Connector) {
    let admin = client(device);
    admin.set_command_audit_option(Code::SignEddsa, AuditOption::On).expect("set");
    admin.set_force_audit_option(AuditOption::On).expect("set");
    while admin.sign_ed25519(3, vec![7; 9]).is_ok() {}
}

#[test]
fn a_check_and_a_start_agree_on_devices() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        for (state, make, start, told) in DEVICES {
            let (device, node) = (device(&signing_key(CHAIN)), NodeSide::tcp().await);
            let home = Home::new();
            home.write("password", b"role");
            let chain = format!("[[chain]]\nid = \"{CHAIN}\"\nstate_file = \"{RECORD}\"\n");
            let text = chain + &validator_table(CHAIN, &node.addr(), "") + &provider(&device);
            home.write("monosign.toml", text.as_bytes());
            home.make_record(CHAIN);
            make(&home, &device);
            agree(state, &node, |args| home.command(args), &home.path("log"), *start, *told).await;
        }
    });
}

/// As Debian installs it; `test.sh` does.
const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";

const TOKENS: &[(&str, Make, Start, (i32, &str))] = &[
    ("nothing is wrong", |_| {}, Signs, (0, "will sign")),
    ("a wrong PIN", |home| drop(home.write("pin", b"111111")), Refuses, (1, "the user's PIN")),
    (
        "no such token",
        |home| home.edit_config("label = \"val\"", "label = \"other\""),
        Refuses,
        (1, "no slot has a token"),
    ),
    ("no library", |home| home.edit_config(MODULE, "/nowhere/lib.so"), Refuses, (1, "cannot load")),
    (
        "no key of this name",
        |home| home.edit_config("label = \"consensus\"", "label = \"other\""),
        Refuses,
        (1, "pkcs11 keys list"),
    ),
    ("no PIN", |home| remove(home, "pin"), Ends(1), (1, "cannot read")),
];

#[tokio::test]
async fn a_check_and_a_start_agree_on_tokens() {
    assert!(Path::new(MODULE).exists(), "{MODULE} is missing: apt-get install softhsm2");
    for (state, make, start, told) in TOKENS {
        let (node, home) = (NodeSide::tcp().await, Home::new());
        fs::create_dir(home.path("tokens")).expect("a directory");
        let conf = format!("directories.tokendir = {}\nlog.level = ERROR\n", home.path("tokens").display());
        let conf = home.write("softhsm2.conf", conf.as_bytes());
        let command = |args: &[&str]| {
            let mut command = home.command(args);
            command.env("SOFTHSM2_CONF", &conf);
            command
        };
        home.write("pin", b"987654\n");
        let mut init = Command::new("softhsm2-util");
        init.args(["--init-token", "--free", "--label", "val", "--so-pin", "12345678", "--pin", "987654"]);
        Finished::of(init.env("SOFTHSM2_CONF", &conf)).must_succeed();
        home.chain_tables(CHAIN);
        let import = ["pkcs11", "keys", "import", KEY_FILE, "--label", "consensus", "--module", MODULE];
        let import = [&import[..], &["--token-label", "val", "--pin-file", "pin"]].concat();
        Finished::of(&mut command(&import)).must_succeed();
        let key = HEXLOWER.encode(signing_key(CHAIN).verifying_key().as_bytes());
        let text = format!(
            "[[chain]]\nid = \"{CHAIN}\"\nstate_file = \"{RECORD}\"\n[[providers.pkcs11]]\nmodule = \"{MODULE}\"\n\
             token_label = \"val\"\npin_file = \"pin\"\n\
             keys = [{{ chain_ids = [\"{CHAIN}\"], label = \"consensus\", public_key = \"{key}\" }}]\n{}",
            validator_table(CHAIN, &node.addr(), "")
        );
        home.write("monosign.toml", text.as_bytes());
        Finished::of(&mut command(&["state", "init"])).must_succeed();
        make(&home);
        agree(state, &node, command, &home.path("log"), *start, *told).await;
    }
}

#[tokio::test]
async fn a_group_signs_where_enough_of_it_is_there() {
    let mut group = Group::split(2, 3).await;
    let check = |home: &Home, code: i32, words: &str, state: &str| {
        checked(|args| home.command(args), &[], code, words, state);
    };
    let status = |home: &Home, code: i32, words: &str| {
        let shown = home.monosign(&["threshold", "status"]);
        assert_eq!(shown.code, Some(code), "{}{}", shown.stdout, shown.stderr);
        assert!(shown.stdout.lines().last().is_some_and(|last| last.starts_with(words)), "{}", shown.stdout);
    };
    // Nobody is there, and then one other: a new disk needs both.
    check(&group.hosts[0].home, 1, "no quorum: 2 of 3 must sign, and 1 are there", "alone");
    group.hosts[1].start();
    group.hosts[1].process().logs("cosigning chain").await;
    check(
        &group.hosts[0].home,
        1,
        "it takes part once 2 others have answered, and 1 are there",
        "a new disk",
    );
    group.hosts[0].start();
    let mut node = group.hosts[0].converse().await;
    let request = node.request(FLOOR, 0, Step::Prevote);
    node.refuses(&request).await;
    // A busy machine takes longer for what follows than a signer waits for a silent node.
    drop(node);
    check(&group.hosts[0].home, 1, "the running signer does not sign: joining", "joining");
    status(&group.hosts[0].home, 1, "CANNOT SIGN: joining");
    // All of them.
    group.hosts[2].start();
    for host in &group.hosts {
        host.takes_part(1).await;
    }
    let mut node = group.hosts[0].converse().await;
    node.signs(&request).await;
    check(&group.hosts[0].home, 0, "the running signer", "all");
    status(&group.hosts[0].home, 0, "can sign: 2 of 3 must sign, and 3 are there");
    // One is enough for a disk that is not new.
    drop(node);
    group.hosts[0].kill();
    group.hosts[2].kill();
    check(&group.hosts[0].home, 0, "cosigner 3", "one other");
    group.hosts[0].start();
    let mut node = group.hosts[0].converse().await;
    group.hosts[0].takes_part(2).await;
    node.signs_prevote(FLOOR + 1).await;
    // The last one goes.
    group.hosts[1].kill();
    let request = node.request(FLOOR + 2, 0, Step::Prevote);
    node.refuses(&request).await;
    let home = &group.hosts[0].home;
    poll("it to be missed", || (home.monosign(&["threshold", "status"]).code == Some(1)).then_some(())).await;
    check(home, 1, "2 of 3 must sign, and 1 are there", "no quorum");
    status(home, 1, "CANNOT SIGN: 2 of 3 must sign, and 1 are there");
}

#[tokio::test]
async fn what_keeps_a_cosigner_from_its_start_is_told() {
    type Break = fn(&Home, &Home);
    let states: &[(&str, Break, i32, &str)] = &[
        ("no share", |home, _| remove(home, "cosigner-1.age"), 1, "cosigner-1.age"),
        ("no group", |home, _| remove(home, "group.json"), 1, "group.json"),
        (
            "another's share",
            |home, other| {
                let share = fs::read(other.path("cosigner-2.age")).expect("a share");
                home.write("cosigner-1.age", &share);
            },
            1,
            "the identity is not one",
        ),
        ("no record", |home, _| remove(home, RECORD), 3, "state init"),
        ("damaged lives", |home, _| drop(home.write("test-chain-1.record.lives", b"{")), 1, "is damaged"),
        (
            "a foreign address",
            |home, _| {
                let text = fs::read_to_string(home.config()).expect("a configuration");
                let listen =
                    text.lines().find(|line| line.starts_with("listen")).expect("an address").to_owned();
                home.edit_config(&listen, "listen = \"tcp://192.0.2.1:7\"");
            },
            1,
            "no address of this host",
        ),
    ];
    for (state, make, code, words) in states {
        let group = Group::split(2, 3).await;
        let home = &group.hosts[0].home;
        make(home, &group.hosts[1].home);
        checked(|args| home.command(args), &["--offline"], *code, words, state);
        let failed = home.start_and_fail().await;
        assert_eq!(failed.code, Some(*code), "{state}: {}", failed.stdout);
    }
    let group = Group::split(2, 3).await;
    let home = &group.hosts[0].home;
    let text = fs::read_to_string(home.config()).expect("a configuration");
    let listen = text.lines().find_map(|line| line.strip_prefix("listen = \"tcp://")).expect("an address");
    let _taken = std::net::TcpListener::bind(listen.trim_end_matches('"')).expect("the address");
    checked(|args| home.command(args), &["--offline"], 1, "another process listens there", "a taken address");
    home.start_and_fail().await.must_fail(1, &["cannot listen"]);
}
