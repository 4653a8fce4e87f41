//! One chain's trouble is its own: disks that fail, sockets that cannot be made, other users, logs that nobody reads.

mod rig;

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use monosign::backend::softsign::key_file::{self, Protection};
use monosign::consensus_key::ConsensusKey;
use monosign_protocol::Step;
use monosign_protocol::message::{Message, PubKeyRequest};
use rig::{CHAIN, Home, NodeSide, Signer, skip_without_strace, validator_table};
use rustix::process::Signal;
use tempfile::TempDir;

const OTHER: &str = "other-1";
const PASSPHRASE: &str = "correct horse";

/// Encrypts a chain's key with a passphrase.
fn seal(home: &Home, chain: &str) {
    let key = ConsensusKey::from_seed(rig::signing_key(chain).as_bytes());
    let protection = Protection::Passphrase(PASSPHRASE.to_owned().into());
    let sealed = key_file::seal(&key, &protection).expect("sealed");
    home.write(&format!("{chain}.key"), sealed.as_bytes());
}

/// A configuration with a line above its tables.
fn with_admin_socket(home: &Home, path: &str) {
    let text = fs::read_to_string(home.config()).expect("a configuration");
    let rest: Vec<_> = text.lines().filter(|line| !line.starts_with("admin_socket")).collect();
    home.write("monosign.toml", format!("admin_socket = \"{path}\"\n{}\n", rest.join("\n")).as_bytes());
}

/// The signer, whose disk fails at each write to one record but the first that a thread does.
fn start_with_failing_record(home: &Home, record: &Path) -> Signer {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o"]).arg(home.path("strace")).arg("-P").arg(record);
    command.args(["-e", "trace=pwrite64", "-e", "inject=pwrite64:error=EIO:when=2+"]);
    command.arg(env!("CARGO_BIN_EXE_monosign")).args(["start", "-c", "monosign.toml"]);
    command.current_dir(home.path("."));
    Signer::start(command, home.path("log"))
}

#[tokio::test]
async fn a_process_whose_last_chain_can_never_sign_again_answers_and_ends_with_1() {
    if skip_without_strace() {
        return;
    }
    let node = NodeSide::tcp().await;
    let home = Home::with_one_chain(&node.addr());
    let mut signer = start_with_failing_record(&home, &home.record(CHAIN));
    let mut talk = node.converse(CHAIN).await;
    let request = talk.request(1, 0, Step::Prevote);
    let refusal = talk.refuses(&request).await;
    assert!(refusal.description.to_string().contains("could not be written"), "{refusal}");
    talk.is_closed().await;
    assert_eq!(signer.ended().await.code(), Some(1), "so that a supervisor starts it anew");
    let log = signer.log();
    assert!(log.contains("has stopped: the record could not be written") && log.contains("hint: "), "{log}");
    // What a supervisor does.
    let _again = home.start();
    node.converse(CHAIN).await.signs(&request).await;
}

#[tokio::test]
async fn a_chain_that_can_never_sign_again_leaves_the_others_as_they_are() {
    if skip_without_strace() {
        return;
    }
    let (node, other) = (NodeSide::tcp().await, NodeSide::tcp().await);
    let home = Home::new();
    home.configure(&[(CHAIN, &node.addr()), (OTHER, &other.addr())]);
    home.make_record(CHAIN);
    home.make_record(OTHER);
    let mut signer = start_with_failing_record(&home, &home.record(CHAIN));
    let (mut talk, mut others) = (node.converse(CHAIN).await, other.converse(OTHER).await);
    talk.signs_prevote(1).await;
    others.signs_prevote(1).await;
    let request = talk.request(2, 0, Step::Prevote);
    talk.refuses(&request).await;
    // Its node sees a signer that is gone, so that another one gets its turn.
    talk.is_closed().await;
    for height in 2..=20 {
        others.signs_prevote(height).await;
    }
    assert!(signer.is_running());
    let id = signer.traced().await;
    rustix::process::kill_process(id, Signal::HUP).expect("signalled");
    signer.logs(&format!("chain `{CHAIN}` has stopped: it needs a restart")).await;
    others.signs_prevote(21).await;
    rustix::process::kill_process(id, Signal::TERM).expect("signalled");
    assert_eq!(signer.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_socket_that_cannot_be_made_leaves_its_chain_sealed_and_the_others_served() {
    let (node, sealed) = (NodeSide::tcp().await, NodeSide::tcp().await);
    let home = Home::new();
    home.configure(&[(CHAIN, &node.addr()), (OTHER, &sealed.addr())]);
    home.make_record(CHAIN);
    home.make_record(OTHER);
    seal(&home, OTHER);
    home.write("file", b"no socket");
    let theirs = UnixListener::bind(home.path("theirs.sock")).expect("a socket");
    let too_long = format!("{}.sock", "x".repeat(120));
    let cases = [
        ("missing/monosign.sock", "No such file or directory"),
        ("file/monosign.sock", "Not a directory"),
        ("file", "something that is no socket is there"),
        ("theirs.sock", "another process listens there (process "),
        (too_long.as_str(), "File name too long"),
    ];
    for (height, (socket, why)) in (1..).zip(cases) {
        with_admin_socket(&home, socket);
        let _ = fs::remove_file(home.path("log"));
        let mut signer = home.start();
        let mut talk = node.converse(CHAIN).await;
        talk.signs_prevote(height).await;
        let mut others = sealed.converse(OTHER).await;
        assert_eq!(others.shows_key().await, home.public_key(OTHER));
        let request = others.request(height, 0, Step::Prevote);
        assert!(others.refuses(&request).await.description.to_string().contains("sealed"));
        let line = signer.logs("stay sealed").await;
        assert!(line.contains("ERROR") && line.contains(OTHER) && line.contains(why), "{line}");
        let hint = signer.logs("hint: ").await;
        assert!(hint.contains("set `admin_socket`"), "{hint}");
        // The hint, to the letter.
        assert!(hint.contains(&format!("`kill -HUP {}`", signer.id())), "{hint}");
        with_admin_socket(&home, "monosign.sock");
        signer.signal(Signal::HUP);
        signer.logs("waiting for `monosign unlock`").await;
        let unlock = ["unlock", "-c", "monosign.toml", "--chain", OTHER, "--stdin"];
        home.monosign_with_input(&unlock, PASSPHRASE).must_succeed();
        others.signs(&request).await;
        talk.signs_prevote(height).await;
        signer.kill();
    }
    assert_eq!(fs::read(home.path("file")).expect("a file"), b"no socket", "nothing else is touched");
    drop(theirs);
    // A socket that a killed signer has left is in nobody's way.
    fs::remove_file(home.path("log")).expect("a log");
    let signer = home.start();
    signer.logs("waiting for `monosign unlock`").await;
    signer.signal(Signal::TERM);
    let mut signer = signer;
    assert_eq!(signer.ended().await.code(), Some(0));
    assert!(!home.path("monosign.sock").exists(), "its file goes with it");
}

/// Two configurations in one directory, with a chain and a validator each.
fn two_in_one_directory(home: &Home, nodes: [(&str, &NodeSide); 2]) {
    for (chain, node) in nodes {
        let tables = home.chain_tables(chain) + &validator_table(chain, &node.addr(), "");
        home.write(&format!("{chain}.toml"), tables.as_bytes());
        home.monosign(&["state", "init", "-c", &format!("{chain}.toml")]).must_succeed();
        seal(home, chain);
    }
}

#[tokio::test]
async fn two_signers_in_one_directory_are_told_of_admin_socket_and_no_passphrase_goes_astray() {
    let (node, other) = (NodeSide::tcp().await, NodeSide::tcp().await);
    let home = Home::new();
    two_in_one_directory(&home, [(CHAIN, &node), (OTHER, &other)]);
    let config = |chain: &str| format!("{chain}.toml");
    let (ours, theirs) = (config(CHAIN), config(OTHER));
    let first = Signer::start(home.command(&["start", "-c", &ours]), home.path("first.log"));
    first.logs("waiting for `monosign unlock`").await;
    // It has nothing that could be served without it.
    let finished = home.start_and_fail_with(&theirs).await;
    finished.must_fail(
        1,
        &[
            "another process listens there",
            &first.id().to_string(),
            "set `admin_socket`",
            &theirs,
            "start the signer anew",
            "nothing can be served",
        ],
    );
    // It does not come to where the passphrase would be sent.
    let unlock = ["unlock", "-c", &theirs, "--stdin"];
    let running = fs::canonicalize(home.path(&ours)).expect("a path").display().to_string();
    home.monosign_with_input(&unlock, PASSPHRASE)
        .must_fail(1, &["is that of", &running, "nothing was sent", "set `admin_socket`", &theirs]);
    // The hint, to the letter.
    let text = fs::read_to_string(home.path(&theirs)).expect("a configuration");
    home.write(&theirs, format!("admin_socket = \"second.sock\"\n{text}").as_bytes());
    let second = Signer::start(home.command(&["start", "-c", &theirs]), home.path("second.log"));
    second.logs("waiting for `monosign unlock`").await;
    for (config, chain, node) in [(&theirs, OTHER, &other), (&ours, CHAIN, &node)] {
        home.monosign_with_input(&["unlock", "-c", config, "--stdin"], PASSPHRASE).must_succeed();
        node.converse(chain).await.signs_prevote(1).await;
    }
}

#[tokio::test]
async fn a_directory_full_of_starts_has_one_signer_at_each_socket() {
    let nodes = [NodeSide::tcp().await, NodeSide::tcp().await];
    let home = Home::new();
    two_in_one_directory(&home, [(CHAIN, &nodes[0]), (OTHER, &nodes[1])]);
    for round in 0..10 {
        // A socket is left over, and two processes come at once.
        drop(UnixListener::bind(home.path("monosign.sock")));
        let start = |chain: &str| {
            let log = home.path(format!("{chain}-{round}.log"));
            Signer::start(home.command(&["start", "-c", &format!("{chain}.toml")]), log)
        };
        let mut both = [start(CHAIN), start(OTHER)];
        let ended =
            rig::poll("one of the two to end", || both.iter_mut().position(|signer| !signer.is_running()))
                .await;
        let stays = 1 - ended;
        both[stays].logs("waiting for `monosign unlock`").await;
        assert!(both[stays].is_running());
        let config = format!("{}.toml", [CHAIN, OTHER][stays]);
        home.monosign_with_input(&["unlock", "-c", &config, "--stdin"], PASSPHRASE).must_succeed();
        both[stays].kill();
    }
}

#[tokio::test]
async fn the_socket_has_its_mode_before_it_has_a_name_and_listens() {
    if skip_without_strace() {
        return;
    }
    let node = NodeSide::tcp().await;
    let home = Home::with_one_chain(&node.addr());
    seal(&home, CHAIN);
    let trace = home.path("strace");
    let mut command = Command::new("sh");
    let script = "umask 0; exec strace -f -qq -e trace=bind,listen,chmod,fchmod,fchmodat -o \"$0\" \"$1\" start -c monosign.toml";
    command.args(["-c", script]).arg(&trace).arg(env!("CARGO_BIN_EXE_monosign")).current_dir(home.path("."));
    let mut signer = Signer::start(command, home.path("log"));
    signer.logs("waiting for `monosign unlock`").await;
    let mode = fs::metadata(home.path("monosign.sock")).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "whatever the umask is");
    rustix::process::kill_process(signer.traced().await, Signal::TERM).expect("signalled");
    signer.ended().await;
    let trace = fs::read_to_string(trace).expect("a trace");
    // But for the socket that names chain and key on this host, which has no file.
    let calls = trace.lines().filter(|line| line.contains('(')).skip_while(|line| !line.contains("chmod("));
    assert!(
        trace.lines().take_while(|line| !line.contains("chmod(")).all(|line| !line.contains("monosign.sock"))
    );
    let calls: Vec<_> = calls.filter_map(|line| line.split_whitespace().nth(1)?.split('(').next()).collect();
    // One takes the passphrase, the other tells `check` how the signer stands.
    assert_eq!(calls, ["fchmod", "bind", "listen", "fchmod", "bind", "listen"], "{trace}");
}

/// The user `nobody`.
const NOBODY: u32 = 65534;

/// What is run as another user, in a directory that all users reach. `None` if this is not root's test run.
struct OtherUser {
    dir: TempDir,
    binary: PathBuf,
}

impl OtherUser {
    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("not root: other users are not tried");
            return None;
        }
        let dir = tempfile::tempdir().expect("a directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
        let binary = dir.path().join("monosign");
        fs::copy(env!("CARGO_BIN_EXE_monosign"), &binary).expect("a copy");
        Some(Self { dir, binary })
    }

    /// Gives a signer's files to nobody, in a directory of theirs.
    fn take(&self, home: &Home) -> PathBuf {
        let theirs = self.dir.path().join("home");
        fs::create_dir(&theirs).expect("a directory");
        for entry in fs::read_dir(home.path(".")).expect("a directory") {
            let entry = entry.expect("a file");
            let to = theirs.join(entry.file_name());
            fs::copy(entry.path(), &to).expect("a copy");
            chown(&to, Some(NOBODY), Some(NOBODY)).expect("given away");
        }
        fs::set_permissions(&theirs, fs::Permissions::from_mode(0o700)).expect("a mode");
        chown(&theirs, Some(NOBODY), Some(NOBODY)).expect("given away");
        theirs
    }

    fn command(&self, dir: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(args).current_dir(dir).uid(NOBODY).gid(NOBODY);
        command
    }
}

#[tokio::test]
async fn a_passphrase_is_given_to_ones_own_signer_alone_and_taken_from_its_own_user_and_root() {
    let Some(nobody) = OtherUser::new() else { return };
    let node = NodeSide::tcp().await;
    let home = Home::with_one_chain(&node.addr());
    seal(&home, CHAIN);
    let unlock = ["unlock", "-c", "monosign.toml", "--stdin"];

    // Somebody else's process at the path that our configuration names.
    let theirs = nobody.take(&home);
    let log = nobody.dir.path().join("log");
    let mut signer = Signer::start(nobody.command(&theirs, &["start", "-c", "monosign.toml"]), log);
    signer.logs("waiting for `monosign unlock`").await;
    let socket = theirs.join("monosign.sock");
    with_admin_socket(&home, &socket.display().to_string());
    let listens = format!("process {} of user {NOBODY} listens on", signer.id());
    home.monosign_with_input(&unlock, PASSPHRASE)
        .must_fail(3, &[&listens, "nothing was sent", "admin_socket"]);

    // Root unlocks a service's signer by the service's own configuration: the key file is its user's.
    let input = fs::File::open(home.write("passphrase", PASSPHRASE.as_bytes())).expect("a file");
    let mut root = home.command(&["unlock", "--stdin", "-c"]);
    rig::Finished::of(root.arg(theirs.join("monosign.toml")).stdin(input)).must_succeed();
    node.converse(CHAIN).await.signs_prevote(1).await;
    signer.kill();

    // The other way round: a socket that was opened to all, and another user who has read the configuration.
    let shared = nobody.dir.path().join("shared.sock");
    with_admin_socket(&home, &shared.display().to_string());
    let signer = home.start();
    signer.logs("waiting for `monosign unlock`").await;
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o666)).expect("a mode");
    fs::copy(home.config(), theirs.join("monosign.toml")).expect("a copy");
    chown(theirs.join("monosign.toml"), Some(NOBODY), Some(NOBODY)).expect("given away");
    let passphrase = theirs.join("passphrase");
    fs::write(&passphrase, PASSPHRASE).expect("a file");
    let mut command = nobody.command(&theirs, &unlock);
    rig::Finished::of(command.stdin(fs::File::open(&passphrase).expect("a file")))
        .must_fail(1, &["nothing was sent"]);
    let line = signer.logs("was turned away").await;
    assert!(line.contains(&format!("of user {NOBODY}")), "{line}");
    home.monosign_with_input(&unlock, PASSPHRASE).must_succeed();
    node.converse(CHAIN).await.signs_prevote(2).await;
}

#[tokio::test]
async fn what_runs_leaves_no_core_dump_and_is_no_other_process_matter() {
    let node = NodeSide::tcp().await;
    let home = Home::with_one_chain(&node.addr());
    let (dir, command);
    let nobody = OtherUser::new();
    match &nobody {
        // Only of a process that is not root's it shows who owns its files in /proc.
        Some(nobody) => {
            dir = nobody.take(&home);
            command = nobody.command(&dir, &["start", "-c", "monosign.toml"]);
        }
        None => command = home.command(&["start", "-c", "monosign.toml"]),
    }
    let signer = Signer::start(command, home.path("log"));
    node.converse(CHAIN).await.signs_prevote(1).await;
    let proc = PathBuf::from(format!("/proc/{}", signer.id()));
    let limits = fs::read_to_string(proc.join("limits")).expect("its limits");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a limit");
    assert_eq!(core.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"], "{core}");
    // What is not dumpable belongs to root there (proc(5)), so that its own user cannot read its memory.
    let owner = fs::metadata(proc.join("environ")).expect("its environment").uid();
    assert_eq!(owner, 0, "it is dumpable");
}

#[tokio::test]
async fn a_full_queue_of_log_lines_stops_no_signature_and_is_told_of() {
    const CHAINS: usize = 4;
    const HEIGHTS: i64 = 900;
    let mut nodes = Vec::new();
    for n in 0..CHAINS {
        nodes.push((format!("chain-{n}"), NodeSide::tcp().await));
    }
    let home = Home::new();
    let addrs: Vec<_> = nodes.iter().map(|(chain, node)| (chain.clone(), node.addr())).collect();
    home.configure(&addrs.iter().map(|(chain, addr)| (chain.as_str(), addr.as_str())).collect::<Vec<_>>());
    nodes.iter().for_each(|(chain, _)| home.make_record(chain));
    let (mut unread, full) = std::io::pipe().expect("a pipe");
    let mut command = home.command(&["start", "-c", "monosign.toml"]);
    let mut signer =
        Signer::spawn(command.stdin(Stdio::null()).stdout(full).stderr(Stdio::null()), home.path("log"));
    drop(command);
    let mut talks = Vec::new();
    for (chain, node) in &nodes {
        talks.push(node.converse(chain).await);
    }
    // More lines than pipe, batch and queue hold, while nobody reads.
    for height in 1..=HEIGHTS {
        for talk in &mut talks {
            talk.signs_prevote(height).await;
        }
    }
    // Once it is read again, it says how many are missing, and new lines come.
    let reader = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        unread.read_to_string(&mut text).map(|_| text)
    });
    for talk in &mut talks {
        talk.signs_prevote(HEIGHTS + 1).await;
    }
    signer.signal(Signal::TERM);
    assert_eq!(signer.ended().await.code(), Some(0));
    let text = reader.await.expect("no panic").expect("text");
    let dropped: Vec<u64> = text
        .lines()
        .filter_map(|line| line.split_once(" log lines were dropped")?.0.trim().parse().ok())
        .collect();
    let signed = text.lines().filter(|line| line.contains(" signed PreVote")).count() as u64;
    let all = CHAINS as u64 * (HEIGHTS as u64 + 1);
    assert!(
        dropped.iter().sum::<u64>() > 500,
        "the queue was not full: {dropped:?}, {signed} of {all} lines"
    );
    assert!(signed + dropped.iter().sum::<u64>() >= all, "{signed} written, {dropped:?} dropped, of {all}");
}

#[tokio::test]
async fn what_a_link_refuses_is_in_the_log_with_its_reason_and_the_peer() {
    let node = NodeSide::tcp().await;
    let home = Home::with_one_chain(&node.addr());
    home.edit_config("secret_key", "max_height = 10\nsecret_key");
    let command = home.command(&["start", "-c", "monosign.toml", "--log-format", "json"]);
    let signer = Signer::start(command, home.path("log"));
    let mut talk = node.converse(CHAIN).await;
    talk.signs_prevote(10).await;
    let above = talk.request(11, 0, Step::Prevote);
    let refusal = talk.refuses(&above).await;
    assert!(refusal.description.to_string().contains("max_height"), "{refusal}");
    let request = Message::PubKeyRequest(PubKeyRequest { chain_id: OTHER.into() });
    talk.ask(&request).await.expect("an answer");
    talk.link.send_plain_bytes(&[3, 0x1a, 0x7f, 0x0a]).await.expect("sent");
    talk.link.receive().await.expect("an answer");
    talk.answers_ping().await;
    for reason in ["above_max_height", "wrong_chain", "malformed"] {
        let line = signer.logs(&format!("\"{reason}\"")).await;
        let line: serde_json::Value = serde_json::from_str(&line).expect("a line of JSON");
        assert_eq!(line["level"], "WARN", "{line}");
        assert_eq!(line["chain_id"], CHAIN, "{line}");
        assert_eq!(line["peer"], node.addr().as_str(), "{line}");
        assert_eq!(line["result"], "denied", "{line}");
        assert!(line["message"].as_str().is_some_and(|message| message.starts_with("refused: ")), "{line}");
    }
}
