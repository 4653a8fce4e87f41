//! Secrets stay where they are: whatever is wrong with a file that holds one, no command tells it; and what others can read or change is refused,
//! with a way on that works to the letter.

mod rig;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use data_encoding::{BASE64, HEXLOWER, HEXUPPER};
use rig::{CHAIN, Finished, Home, poll, signing_key, validator_table};
use rustix::process::Signal;

/// A password as people make them.
const PASSWORD: &str = "Hq7-wZ2xK9vTr4Lp";

/// Sees any eight characters in a row of a secret, in the forms that it may take.
struct Watch(Vec<String>);

impl Watch {
    fn over(secrets: &[&[u8]]) -> Self {
        let mut parts = Vec::new();
        for secret in secrets {
            let text = std::str::from_utf8(secret).unwrap_or_default().to_owned();
            for form in [text, BASE64.encode(secret), HEXLOWER.encode(secret), HEXUPPER.encode(secret)] {
                let chars: Vec<_> = form.chars().collect();
                parts.extend(chars.windows(8).map(|part| part.iter().collect::<String>()));
            }
        }
        Self(parts)
    }

    #[track_caller]
    fn sees_nothing(&self, told: &str, of: &str) {
        if let Some(part) = self.0.iter().find(|part| told.contains(*part)) {
            panic!("`{part}` of the secret is told:\n{told}\nof {of}");
        }
    }
}

/// A chain whose key is in a file, and a device with its password in the configuration.
fn with_password(auth: &str) -> Home {
    let home = Home::with_one_chain("tcp://127.0.0.1:1");
    home.append_config(&device(auth));
    home
}

fn device(auth: &str) -> String {
    format!(
        "[[providers.yubihsm]]\nadapter = {{ type = \"http\", addr = \"tcp://127.0.0.1:1\" }}\n{auth}\nserial_number = \"42\"\naudit = \"off\"\nkeys = []\n"
    )
}

fn auth() -> String {
    format!("auth = {{ key = 4, password = \"{PASSWORD}\" }}")
}

/// The line of the password with one mistake in each.
fn broken() -> Vec<String> {
    let auth = auth();
    vec![
        auth.replace("key = 4", "key = 4, colour = 1"),
        auth.replace("key = 4", "key = \"4\""),
        auth.replace("key = 4,", "key = 4"),
        auth.replace("\" }", "\\q\" }"),
        auth.replace("\" }", " }"),
        auth.replace("\" }", "\", }}"),
        auth.replace("password =", "passwrod ="),
        auth.replace('"', ""),
        auth.replace(" }", ""),
        format!("auth = {{ key = 4, password = [\"{PASSWORD}\"] }}"),
        format!("auth = \"{PASSWORD}\""),
        format!("{auth}\n{auth}"),
        format!("password = \"{PASSWORD}\"\n{auth}"),
        format!("[chain]\n{auth}"),
    ]
}

#[test]
fn no_command_tells_the_password_of_a_configuration_with_a_mistake() {
    let watch = Watch::over(&[PASSWORD.as_bytes()]);
    let home = with_password(&auth());
    let good = fs::read_to_string(home.config()).expect("a configuration");
    for broken in broken() {
        home.write("monosign.toml", good.replace(&auth(), &broken).as_bytes());
        for command in [
            "check --offline",
            "start",
            "start --log-format json -v",
            "state show",
            "state raise --to-height 5",
            "pubkey",
            "check-upgrade --to v1.0",
            "check-upgrade --to v1.0 --json",
            "unlock --stdin",
            "yubihsm keys list",
            "pkcs11 slots",
            "threshold status",
        ] {
            let finished = home.monosign(&command.split(' ').collect::<Vec<_>>());
            let told = format!("{}{}", finished.stdout, finished.stderr);
            watch.sees_nothing(&told, &format!("{command}: {broken}"));
            assert_eq!(finished.code, Some(1), "{command}: {broken}: {told}");
            // It is of use all the same.
            assert!(told.contains("monosign.toml`: line "), "{told}");
        }
    }
    // Not even a text that is none.
    let mut bytes = good.into_bytes();
    bytes.push(0xff);
    home.write("monosign.toml", &bytes);
    watch.sees_nothing(&home.monosign(&["check"]).must_fail(1, &["UTF-8"]).stdout, "bytes");
}

#[tokio::test]
async fn a_running_signer_does_not_log_the_password_of_a_file_that_it_reads_again() {
    let watch = Watch::over(&[PASSWORD.as_bytes()]);
    let home = with_password(&auth());
    let good = fs::read_to_string(home.config()).expect("a configuration");
    let mut signer = home.start();
    signer.logs("serving chain").await;
    for (n, broken) in broken().into_iter().enumerate() {
        home.write("monosign.toml", good.replace(&auth(), &broken).as_bytes());
        signer.signal(Signal::HUP);
        let refused = || (signer.log().matches("everything stays as it is").count() > n).then_some(());
        poll(&format!("a refusal of {broken}"), refused).await;
    }
    // What others can read or change is not gone by either.
    for mode in [0o644, 0o602] {
        fs::write(home.config(), &good).expect("a configuration");
        fs::set_permissions(home.config(), fs::Permissions::from_mode(mode)).expect("a mode");
        let before = signer.log().matches("everything stays as it is").count();
        signer.signal(Signal::HUP);
        let refused = || (signer.log().matches("everything stays as it is").count() > before).then_some(());
        poll("a refusal of an open file", refused).await;
    }
    assert!(signer.is_running());
    watch.sees_nothing(&signer.log(), "the log");
}

#[test]
fn the_diff_of_an_upgrade_shows_no_password_and_is_taken_by_patch() {
    let watch = Watch::over(&[PASSWORD.as_bytes()]);
    let pinned = "tcp://0123456789abcdef0123456789abcdef01234567@127.0.0.1:1";
    let home = Home::with_one_chain(pinned);
    let chain = fs::read_to_string(home.config()).expect("a configuration");
    let (chain, validator) = chain.split_at(chain.find("[[validator]]").expect("a validator"));
    // The device before, between and behind what changes; and a password that is switched off.
    let validator = validator.trim_end().replace("secret_key", &format!("# {}\nsecret_key", auth()));
    let text = format!("{}{validator}\nreconnect = false\n{chain}", device(&auth()));
    for to in ["v0.38", "v0.40", "v1.0"] {
        home.write("monosign.toml", text.as_bytes());
        let told =
            home.monosign(&["check-upgrade", "--to", to]).must_fail(1, &["+reconnect = true", "+addr"]);
        watch.sees_nothing(&told.stdout, to);
        let json =
            home.monosign(&["check-upgrade", "--to", to, "--json"]).must_fail(1, &["+reconnect = true"]);
        watch.sees_nothing(&json.stdout, to);
        let report: serde_json::Value = serde_json::from_str(&json.stdout).expect("a report");
        let diff = home.write("diff", report["diff"].as_str().expect("a diff").as_bytes());
        let patched = Command::new("patch")
            .args(["-p0", "--input"])
            .arg(diff)
            .current_dir(home.path(""))
            .output()
            .expect("patch");
        assert!(patched.status.success(), "{}", String::from_utf8_lossy(&patched.stdout));
        home.write("monosign.toml", &fs::read(home.config()).expect("patched"));
        home.monosign(&["check-upgrade", "--to", to]).must_succeed();
    }
}

/// A key in each form in which it is found, right and with mistakes.
fn keys(seed: &[u8; 32]) -> Vec<Vec<u8>> {
    let public = ed25519_dalek::SigningKey::from_bytes(seed).verifying_key();
    let pair = BASE64.encode(&[seed.as_slice(), public.as_bytes()].concat());
    let (base64, hex) = (BASE64.encode(seed), HEXLOWER.encode(seed));
    let json = format!(
        "{{\"address\":\"00\",\"pub_key\":{{\"type\":\"tendermint/PubKeyEd25519\",\"value\":\"{base64}\"}},\"priv_key\":{{\"type\":\"tendermint/PrivKeyEd25519\",\"value\":\"{pair}\"}}}}"
    );
    let mut contents = vec![
        base64.clone(),
        format!("{base64} {base64}"),
        format!("\"{base64}\""),
        base64[1..].to_owned(),
        hex,
        pair.clone(),
        json.clone(),
        json.replace("\"address\":\"00\",", ""),
        json.replace("\"address\":\"00\"", &format!("\"address\":\"{base64}\"")),
        json.replace("tendermint/PrivKeyEd25519", &base64),
        json.replace("\"value\"", &format!("\"{base64}\"")),
        json.replace(&format!("\"{pair}\""), &format!("[\"{pair}\"]")),
        json[..json.len() - 9].to_owned(),
        format!("{{\"height\":\"{base64}\",\"round\":0,\"step\":\"{base64}\"}}"),
        format!("{{\"privateShard\":\"{pair}\",\"pubKey\":\"{base64}\",\"id\":1}}"),
        format!("{{\"monosign_group\":\"{base64}\"}}"),
        format!(
            "{{\"monosign_group\":1,\"chain_id\":\"{CHAIN}\",\"public_key\":\"{pair}\",\"threshold\":2,\"epoch\":1,\"profile\":\"\",\"members\":[\
             {{\"id\":1,\"identity\":\"{base64}\",\"verifying_share\":\"{base64}\"}},{{\"id\":2,\"identity\":\"{base64}\",\"verifying_share\":\"{base64}\"}},\
             {{\"id\":3,\"identity\":\"{base64}\",\"verifying_share\":\"{base64}\"}}]}}"
        ),
        format!("AGE-SECRET-KEY-1{base64}\n"),
        format!("-----BEGIN AGE ENCRYPTED FILE-----\n{base64}\n"),
    ]
    .into_iter()
    .map(String::into_bytes)
    .collect::<Vec<_>>();
    contents.push([base64.as_bytes(), &[0xff]].concat());
    contents.push([b"\xef\xbb\xbf", json.as_bytes()].concat());
    contents
}

#[test]
fn no_command_tells_what_is_in_a_file_that_it_takes_for_another() {
    let seed = [0x5a, 0x31, 0x7e, 0x90].repeat(8).try_into().expect("32 bytes");
    let seed: [u8; 32] = ed25519_dalek::SigningKey::from_bytes(&seed).verifying_key().to_bytes();
    let public = HEXLOWER.encode(ed25519_dalek::SigningKey::from_bytes(&seed).verifying_key().as_bytes());
    let mut watch = Watch::over(&[&seed]);
    // Base64 hangs together with what stands before it.
    let pair = [seed, ed25519_dalek::SigningKey::from_bytes(&seed).verifying_key().to_bytes()].concat();
    watch.0.extend(Watch::over(&[&pair[..31]]).0);
    let home = Home::with_one_chain("tcp://127.0.0.1:1");
    let table = |more: &str| {
        format!(
            "[[chain]]\nid = \"{CHAIN}\"\nstate_file = \"{CHAIN}.record\"\n{}{more}",
            validator_table(CHAIN, "tcp://127.0.0.1:1", "")
        )
    };
    let softsign = |more: &str| {
        table(&format!(
            "[[providers.softsign]]\nchain_ids = [\"{CHAIN}\"]\nallow_plaintext_key = true\n{more}\n"
        ))
    };
    let on_device = "keys = [{ chain_ids = [\"test-chain-1\"], key = 1, label = \"a\" }]\n";
    let yubihsm = device("auth = { key = 4, password_file = \"wrong\" }").replace("keys = []\n", on_device);
    let configs = [
        ("key", softsign("path = \"wrong\"")),
        ("identity", softsign("path = \"sealed\"\nidentity_file = \"wrong\"")),
        ("passphrase", softsign("path = \"passphrased\"\npassphrase_file = \"wrong\"")),
        (
            "group",
            table(&format!(
                "[[providers.threshold]]\nchain_ids = [\"{CHAIN}\"]\ngroup = \"wrong\"\nshare = \"wrong\"\nidentity_file = \"wrong\"\nlisten = \"tcp://127.0.0.1:0\"\n"
            )),
        ),
        ("link", softsign(&format!("path = \"{CHAIN}.key\"")).replace("\"identity.key\"", "\"wrong\"")),
        ("device", table(&yubihsm.replace(", label = \"a\"", ""))),
    ];
    for (name, text) in &configs {
        home.write(&format!("{name}.toml"), text.as_bytes());
    }
    home.monosign(&["softsign", "import", &format!("{CHAIN}.key"), "--output", "sealed"]).must_succeed();
    for content in keys(&seed) {
        home.write("wrong", &content);
        let content = String::from_utf8_lossy(&content).into_owned();
        for command in [
            "softsign show wrong",
            "softsign import wrong --output /dev/null/x",
            "softsign import wrong --output new --format json --plaintext",
            "softsign import wrong --output new --format base64 --plaintext",
            "softsign import identity.key --output new --identity wrong",
            "softsign show sealed --identity wrong",
            "check --offline -c key.toml",
            "check --offline -c identity.toml",
            "check --offline -c group.toml",
            "check --offline -c link.toml",
            "state import -c link.toml wrong",
            "threshold identity wrong",
            "threshold split --key wrong --chain a --threshold 2 --shares 3 --new-validator --recipient age1x",
            "start -c group.toml",
        ] {
            let finished = home.monosign(&command.split(' ').collect::<Vec<_>>());
            let told = format!("{}{}", finished.stdout, finished.stderr).replace(&public, "");
            watch.sees_nothing(&told, &format!("{command}: {content}"));
            let _ = fs::remove_file(home.path("new"));
        }
    }
    // A password that is none, in a file, a variable and a credential, and in the place of their names.
    for content in [format!("{PASSWORD}\n{PASSWORD}\n"), String::new()] {
        home.write("wrong", content.as_bytes());
        let watch = Watch::over(&[PASSWORD.as_bytes()]);
        for config in ["device.toml", "identity.toml"] {
            let told = home.monosign(&["check", "--offline", "-c", config]);
            assert_ne!(told.code, Some(0));
            watch.sees_nothing(&format!("{}{}", told.stdout, told.stderr), config);
        }
        for field in ["password_env", "credential"] {
            let text = fs::read_to_string(home.path("device.toml")).expect("a file");
            let text = text.replace("password_file = \"wrong\"", &format!("{field} = \"{PASSWORD}\""));
            home.write("names.toml", text.as_bytes());
            let mut command = home.command(&["check", "--offline", "-c", "names.toml"]);
            let told = Finished::of(
                command.stdin(Stdio::null()).env(PASSWORD, "").env_remove("CREDENTIALS_DIRECTORY"),
            );
            assert_ne!(told.code, Some(0), "{}", told.stdout);
            watch.sees_nothing(&format!("{}{}", told.stdout, told.stderr), field);
        }
    }
}

#[test]
fn an_age_identity_on_the_command_line_is_not_repeated() {
    use age::secrecy::ExposeSecret as _;
    let identity = age::x25519::Identity::generate().to_string();
    let identity = identity.expose_secret();
    let watch = Watch::over(&[&identity.as_bytes()["AGE-SECRET-KEY-1".len()..]]);
    let home = Home::with_one_chain("tcp://127.0.0.1:1");
    let key = format!("{CHAIN}.key");
    let split = ["threshold", "split", "--key", &key, "--chain", CHAIN, "--threshold", "2", "--shares", "3"];
    for args in [
        &["softsign", "import", &key, "--output", "new", "--identity", identity][..],
        &[&split[..], &["--new-validator", "--recipient", identity]].concat(),
        &["softsign", "show", "x", identity],
    ] {
        let told = home.monosign(args);
        assert!(told.code == Some(1) || told.code == Some(2), "{}", told.stderr);
        assert!(told.stderr.contains("was given on the command line"), "{}", told.stderr);
        watch.sees_nothing(&told.stderr, "the command line");
    }
}

/// A line of a process's status, in KiB.
fn status_kib(process: u32, what: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("a running process");
    let line = status.lines().find_map(|line| line.strip_prefix(what)).expect("it is there");
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().expect("a number")
}

const NOT_LOCKED: &str = "keys may be written to swap";

#[tokio::test]
async fn a_signer_locks_its_memory_where_it_may_and_signs_where_it_may_not() {
    let node = rig::NodeSide::tcp().await;
    let home = Home::with_one_chain(&node.addr());
    let binary = env!("CARGO_BIN_EXE_monosign");
    // As it comes; and as tmkms's unit and many containers have it, which for root is no limit.
    let is_root = rustix::process::geteuid().is_root();
    let somebody = "exec setpriv --reuid=65534 --regid=65534 --clear-groups \"$0\" start -c monosign.toml";
    let none =
        format!("ulimit -l 0; {}", if is_root { somebody } else { "exec \"$0\" start -c monosign.toml" });
    let unlimited = format!("ulimit -l unlimited 2>&-; {somebody}");
    let mut worlds = vec![("exec \"$0\" start -c monosign.toml", None), (none.as_str(), Some(false))];
    if is_root {
        // Where root may raise a limit.
        worlds.push((&unlimited, None));
    }
    for (n, (script, locked)) in worlds.into_iter().enumerate() {
        if is_root && n == 1 {
            for entry in fs::read_dir(home.path("")).expect("a directory") {
                chown(entry.expect("an entry").path(), Some(65534), Some(65534)).expect("an owner");
            }
            chown(home.path(""), Some(65534), Some(65534)).expect("an owner");
        }
        let mut command = Command::new("sh");
        command.args(["-c", script, binary]).current_dir(home.path(""));
        let signer = rig::Signer::start(command, home.path(format!("log-{n}")));
        let mut talk = node.converse(CHAIN).await;
        talk.signs_prevote(i64::try_from(n).expect("few") + 1).await;
        let is_locked = status_kib(signer.id(), "VmLck") > 0;
        if !is_locked {
            signer.logs(NOT_LOCKED).await;
        }
        assert_eq!(signer.log().matches(NOT_LOCKED).count(), usize::from(!is_locked), "{}", signer.log());
        if let Some(locked) = locked {
            assert_eq!(is_locked, locked, "{script}");
        }
        println!("{script}: {} KiB resident, locked: {is_locked}", status_kib(signer.id(), "VmRSS"));
        drop((signer, talk));
    }
}

/// Follows the hint of an error to the letter.
#[track_caller]
fn follow_hint(home: &Home, told: &str) {
    let hint = told.split("hint: ").nth(1).unwrap_or_else(|| panic!("no hint in {told}"));
    let command = hint.split('`').nth(1).unwrap_or_else(|| panic!("no command in {hint}"));
    let done = Command::new("sh").args(["-c", command]).current_dir(home.path("")).status();
    assert!(done.expect("a shell").success(), "{command}");
}

fn set_mode(path: impl AsRef<Path>, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
}

#[tokio::test]
async fn a_configuration_with_a_password_that_others_can_read_is_refused_until_the_hint_is_followed() {
    let home = with_password(&auth());
    for mode in [0o644, 0o640, 0o604] {
        set_mode(home.config(), mode);
        home.start_and_fail().await.must_fail(3, &["is open to other users", "a password stands in it"]);
        home.monosign(&["state", "show"]).must_fail(3, &["is open to other users"]);
        let told = home.monosign(&["check", "--offline"]).must_fail(3, &["hint: run `chmod 600 "]);
        follow_hint(&home, &told.stdout);
        home.monosign(&["check", "--offline"]).must_succeed();
    }
    // Without one, others may read it.
    let home = Home::with_one_chain("tcp://127.0.0.1:1");
    set_mode(home.config(), 0o644);
    home.monosign(&["check", "--offline"]).must_succeed();
}

#[tokio::test]
async fn what_others_can_change_is_refused_until_the_hint_is_followed() {
    let home = Home::new();
    let tables = home.chain_tables(CHAIN) + &validator_table(CHAIN, "tcp://127.0.0.1:1", "");
    let tables = tables
        .replace(&format!("\"{CHAIN}.record\""), "\"state/r c.record\"")
        .replace(&format!("\"{CHAIN}.key\""), "\"secrets/consensus.key\"")
        .replace("\"identity.key\"", "\"links/identity.key\"");
    home.write("monosign.toml", tables.as_bytes());
    for (from, to) in
        [(format!("{CHAIN}.key"), "secrets/consensus.key"), ("identity.key".into(), "links/identity.key")]
    {
        let content = fs::read(home.path(from)).expect("a file");
        home.write(to, &content);
    }
    home.write("state/x", b"");
    home.make_record(CHAIN);
    home.write("state/r c.record.allow-jump", b"5\n");
    home.monosign(&["check", "--offline"]).must_succeed();
    for (name, mode) in [
        ("", 0o777),
        ("", 0o770),
        ("monosign.toml", 0o666),
        ("monosign.toml", 0o620),
        ("state", 0o777),
        ("state", 0o770),
        ("state/r c.record", 0o602),
        ("state/r c.record", 0o660),
        ("state/r c.record.allow-jump", 0o664),
        ("secrets", 0o703),
        ("links", 0o730),
    ] {
        let path = home.path(name);
        let before = fs::metadata(&path).expect("it is there").mode();
        set_mode(&path, mode);
        home.start_and_fail().await.must_fail(3, &["can write it", "hint:"]);
        let told = home.monosign(&["check", "--offline"]).must_fail(3, &["UNSAFE", "can write it"]);
        assert_eq!(told.stdout.matches("UNSAFE").count(), 1, "{}", told.stdout);
        follow_hint(&home, &told.stdout);
        home.monosign(&["check", "--offline"]).must_succeed();
        set_mode(&path, before);
    }
    // Nobody replaces another's file in a sticky directory.
    set_mode(home.path("state"), 0o1777);
    home.monosign(&["check", "--offline"]).must_succeed();
}

#[test]
fn init_lets_nobody_else_in_under_any_umask() {
    for umask in ["000", "002", "022", "077"] {
        let home = Home::new();
        let script = format!("umask {umask}; exec \"$0\" \"$@\"");
        let run = |args: &[&str]| {
            let mut command = Command::new("sh");
            command.args(["-c", &script, env!("CARGO_BIN_EXE_monosign")]).args(args);
            Finished::of(command.current_dir(home.path("")).stdin(Stdio::null())).must_succeed()
        };
        let key = home.write("key", BASE64.encode(signing_key(CHAIN).as_bytes()).as_bytes());
        let key = key.display().to_string();
        run(&["init", "etc", "--chain", CHAIN, "--key", &key, "--new-validator"]);
        for (name, mode) in [
            ("", 0o700),
            ("state", 0o700),
            ("secrets", 0o700),
            ("monosign.toml", 0o600),
            ("secrets/secret_connection.key", 0o600),
            ("secrets/consensus.key", 0o600),
            ("state/test-chain-1.record", 0o600),
        ] {
            let found = fs::metadata(home.path("etc").join(name)).expect("it is made").mode();
            assert_eq!(found & 0o7777, mode, "{name} under umask {umask}");
        }
        let checked = home.monosign(&["check", "--offline", "-c", "etc/monosign.toml"]);
        assert!(!checked.stdout.contains("UNSAFE"), "{}", checked.stdout);
    }
    // A directory that was there keeps its mode, and what to do is said at once.
    let home = Home::new();
    fs::create_dir(home.path("etc")).expect("a directory");
    set_mode(home.path("etc"), 0o775);
    let told = home.monosign(&["init", "etc", "--chain", CHAIN]).must_succeed();
    assert!(told.stdout.contains("warning: the signer will refuse to start"), "{}", told.stdout);
    follow_hint(&home, &told.stdout);
    assert_eq!(fs::metadata(home.path("etc")).expect("it is there").mode() & 0o777, 0o755);
}

/// As Kubernetes mounts a secret: `root:GROUP 0440`, and the process in that group. Only root can make such files.
#[test]
fn what_root_lets_a_group_read_or_write_is_taken_by_a_process_of_that_group_alone() {
    const SOMEBODY: u32 = 65534;
    if !rustix::process::geteuid().is_root() {
        println!("not run: this takes root");
        return;
    }
    let home = Home::with_one_chain("tcp://127.0.0.1:1");
    set_mode(home.path(""), 0o755);
    let (key, identity, record) =
        (home.path(format!("{CHAIN}.key")), home.path("identity.key"), home.record(CHAIN));
    for secret in [&key, &identity] {
        chown(secret, Some(0), Some(SOMEBODY)).expect("an owner");
        set_mode(secret, 0o440);
    }
    chown(&record, Some(SOMEBODY), Some(SOMEBODY)).expect("an owner");
    set_mode(home.config(), 0o644);
    let run_as = |user: u32, args: &[&str]| {
        let mut command = home.command(args);
        Finished::of(command.uid(user).gid(user).stdin(Stdio::null()))
    };
    let check = |user| run_as(user, &["check", "--offline"]);
    check(SOMEBODY).must_succeed();
    // As root it would be open to that group, and for another group it does not open.
    let as_root = home.monosign(&["check", "--offline"]);
    assert_eq!(as_root.code, Some(3), "{}", as_root.stdout);
    for told in ["open to other users", "the signer has to run as that user, not as root"] {
        assert!(as_root.stdout.contains(told), "{}", as_root.stdout);
    }
    assert!(!as_root.stdout.contains("others can change"), "{}", as_root.stdout);
    let denied = check(SOMEBODY - 1).stdout;
    assert!(
        denied.contains("key`: Permission denied") && denied.contains("its owner is user 65534"),
        "{denied}"
    );

    // What everybody reads is refused, and root follows the hint.
    set_mode(&key, 0o444);
    let told =
        check(SOMEBODY).must_fail(3, &["open to other users (mode 0444)", "as root, run `chgrp 65534 "]);
    follow_hint(&home, &told.stdout);
    check(SOMEBODY).must_succeed();

    // A volume of a group's: all on it is open to the group.
    let volume = home.path("volume");
    fs::create_dir(&volume).expect("a directory");
    fs::copy(&record, volume.join("record")).expect("a copy");
    chown(volume.join("record"), Some(SOMEBODY), Some(SOMEBODY)).expect("an owner");
    set_mode(volume.join("record"), 0o660);
    chown(&volume, Some(0), Some(SOMEBODY)).expect("an owner");
    home.edit_config(&format!("\"{CHAIN}.record\""), "\"volume/record\"");
    set_mode(home.config(), 0o644);
    set_mode(&volume, 0o2775);
    check(SOMEBODY).must_succeed();
    // If root did not let that group in, or everybody.
    set_mode(&volume, 0o755);
    check(SOMEBODY).must_fail(3, &["volume/record`: its group can write it", "run `chmod go-w "]);
    set_mode(&volume, 0o777);
    check(SOMEBODY).must_fail(3, &["volume`: everybody can write it", "as root, run `chmod go-w "]);
    // Another user's.
    set_mode(&volume, 0o755);
    set_mode(volume.join("record"), 0o644);
    chown(&volume, Some(SOMEBODY - 1), Some(SOMEBODY - 1)).expect("an owner");
    let told =
        check(SOMEBODY).must_fail(3, &["volume`: its owner is user 65533", "as root, run `chown 65534 "]);
    follow_hint(&home, &told.stdout);
    check(SOMEBODY).must_succeed();
}
