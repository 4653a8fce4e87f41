//! The signer with its key on a PKCS#11 token, as an operator runs it, against SoftHSM 2.

mod rig;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use data_encoding::HEXLOWER;
use monosign_protocol::{Round, Step};
use rig::{CHAIN, Finished, Home, NodeSide, Signer, signing_key, validator_table};
use rustix::process::{Pid, Signal, kill_process};

/// As Debian installs it; `test.sh` does.
const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";

/// A home with a token of its own, and the test chain's key on it.
struct Token {
    home: Home,
    module: String,
}

impl Token {
    fn new(addr: &str) -> Self {
        Self::with(addr, |_| MODULE.into())
    }

    /// Behind a library that prints, reads standard input and counts.
    fn chatty(addr: &str) -> Self {
        Self::with(addr, |home| {
            let (module, trace) = (home.path("chatty.so"), home.path("trace"));
            let text = |path: &Path| format!("\"{}\"", path.display());
            let mut cc = Command::new("cc");
            cc.args(["-shared", "-fPIC", "-w", "-o"]).arg(&module).arg("tests/pkcs11_modules/chatty.c");
            cc.arg(format!("-DREAL={}", text(Path::new(MODULE))))
                .arg(format!("-DTRACE={}", text(&trace)))
                .arg("-ldl");
            Finished::of(&mut cc).must_succeed();
            module.display().to_string()
        })
    }

    fn with(addr: &str, module: impl FnOnce(&Home) -> String) -> Self {
        assert!(Path::new(MODULE).exists(), "{MODULE} is missing: apt-get install softhsm2");
        let home = Home::new();
        fs::create_dir(home.path("tokens")).expect("a directory");
        let tokens = home.path("tokens");
        let config = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            tokens.display()
        );
        home.write("softhsm2.conf", config.as_bytes());
        home.write("pin", b"987654\n");
        let module = module(&home);
        let token = Self { home, module: module.clone() };
        let mut init = Command::new("softhsm2-util");
        init.args(["--init-token", "--free", "--label", "val", "--so-pin", "12345678", "--pin", "987654"]);
        Finished::of(init.env("SOFTHSM2_CONF", token.conf())).must_succeed();
        token.home.chain_tables(CHAIN);
        let file = format!("{CHAIN}.key");
        token.pkcs11(&["keys", "import", &file, "--label", "consensus"]).must_succeed();
        let key = HEXLOWER.encode(signing_key(CHAIN).verifying_key().as_bytes());
        let text = format!(
            "[[chain]]\nid = \"{CHAIN}\"\nkey_format = {{ type = \"hex\" }}\nstate_file = \"{CHAIN}.record\"\n\n\
             [[providers.pkcs11]]\nmodule = \"{module}\"\ntoken_label = \"val\"\npin_file = \"pin\"\ntimeout_ms = 1000\n\
             keys = [{{ chain_ids = [\"{CHAIN}\"], label = \"consensus\", id = \"01\", public_key = \"{key}\" }}]\n\n{}",
            validator_table(CHAIN, addr, "")
        );
        token.home.write("monosign.toml", text.as_bytes());
        token
    }

    fn conf(&self) -> PathBuf {
        self.home.path("softhsm2.conf")
    }

    fn monosign(&self, args: &[&str]) -> Finished {
        Finished::of(self.home.command(args).env("SOFTHSM2_CONF", self.conf()))
    }

    fn pkcs11(&self, args: &[&str]) -> Finished {
        let token = ["--module", &self.module, "--token-label", "val", "--pin-file", "pin"];
        self.monosign(&[&["pkcs11"], args, &token].concat())
    }

    /// How often the library was asked for something, as it counted.
    fn asked_for(&self, what: &str) -> usize {
        let trace = fs::read_to_string(self.home.path("trace")).unwrap_or_default();
        trace.lines().filter(|line| *line == what).count()
    }

    fn make_record(&self) {
        self.monosign(&["state", "init"]).must_succeed();
    }

    fn start(&self) -> Signer {
        let mut command = self.home.command(&["start", "-c", "monosign.toml"]);
        command.env("SOFTHSM2_CONF", self.conf());
        Signer::start(command, self.home.path("log"))
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(test);
}

/// The one child of the signer.
async fn worker_of(signer: &Signer) -> Pid {
    let children = format!("/proc/{0}/task/{0}/children", signer.id());
    rig::poll("a worker", || {
        let children = fs::read_to_string(&children).ok()?;
        Pid::from_raw(children.split_whitespace().next()?.parse().ok()?)
    })
    .await
}

#[test]
fn signs_for_a_node_and_refuses_a_double_sign() {
    run(async {
        let node = NodeSide::tcp().await;
        let token = Token::new(&node.addr());
        token.make_record();
        let check = token.monosign(&["check", "--offline"]).must_succeed().stdout;
        let public_key = HEXLOWER.encode(token.home.public_key(CHAIN).as_bytes());
        assert!(check.contains(&format!("key {public_key}")), "{check}");
        let signer = token.start();
        signer.logs("key label `consensus` and id `01` is there").await;
        let mut conversation = node.converse(CHAIN).await;
        assert_eq!(conversation.shows_key().await, token.home.public_key(CHAIN));
        for height in 1..10 {
            for step in [Step::Proposal, Step::Prevote, Step::Precommit] {
                let request = conversation.request(height, 0, step);
                conversation.signs(&request).await;
            }
        }
        let mut other = conversation.block(9);
        other.hash[0] ^= 1;
        let (height, round, step) = (monosign_protocol::Height(9), Round(0), Step::Precommit);
        let hrs = monosign_protocol::Hrs { height, round, step };
        let request = conversation.requests.sign(hrs, other, rig::NOW);
        let error = conversation.refuses(&request).await;
        assert!(error.description.to_string().contains("double sign"), "{error:?}");
    });
}

#[test]
fn a_worker_that_hangs_or_dies_is_replaced_and_ends_with_its_signer() {
    run(async {
        let node = NodeSide::tcp().await;
        let token = Token::new(&node.addr());
        token.make_record();
        let mut signer = token.start();
        let mut conversation =
            node.converse_once(CHAIN, &signer, "key label `consensus` and id `01` is there").await;
        let first = worker_of(&signer).await;
        // It has the PIN, so it keeps its memory out of swap as the signer does.
        let locked = |process: &str| {
            let status = fs::read_to_string(format!("/proc/{process}/status")).expect("a running process");
            status.lines().any(|line| line.starts_with("VmLck:") && !line.ends_with(" 0 kB"))
        };
        assert_eq!(locked(&first.as_raw_nonzero().to_string()), locked(&signer.id().to_string()));
        let command = fs::read(format!("/proc/{}/cmdline", first.as_raw_nonzero())).expect("its command");
        assert!(!String::from_utf8_lossy(&command).contains("987654"), "a PIN that all users can read");
        kill_process(first, Signal::KILL).expect("killed");
        conversation.signs_prevote(2).await;
        signer.logs("its worker process has ended (signal: 9 (SIGKILL)): it was asked once more, and has answered").await;
        let second = worker_of(&signer).await;
        assert_ne!(first, second);
        kill_process(second, Signal::STOP).expect("stopped");
        let request = conversation.request(3, 0, Step::Prevote);
        let error = conversation.refuses(&request).await.description.to_string();
        assert!(error.contains("no answer in time"), "{error}");
        signer.logs_again(": ready").await;
        conversation.signs(&request).await;
        let third = worker_of(&signer).await;
        signer.kill();
        let stat = PathBuf::from(format!("/proc/{}", third.as_raw_nonzero()));
        rig::poll("the worker to end", || is_gone(&stat).then_some(())).await;
    });
}

/// Gone, or a zombie that nobody reaps in a container without an init.
fn is_gone(process: &Path) -> bool {
    fs::read_to_string(process.join("stat")).map_or(true, |stat| stat.contains(") Z "))
}

#[test]
fn a_token_taken_away_and_put_back_signs_again() {
    run(async {
        let node = NodeSide::tcp().await;
        let token = Token::new(&node.addr());
        token.make_record();
        let signer = token.start();
        let mut conversation =
            node.converse_once(CHAIN, &signer, "key label `consensus` and id `01` is there").await;
        let (there, away) = (token.home.path("tokens"), token.home.path("away"));
        fs::rename(&there, &away).expect("taken away");
        let request = conversation.request(2, 0, Step::Prevote);
        conversation.refuses(&request).await;
        fs::rename(&away, &there).expect("put back");
        signer.logs_again(": ready").await;
        conversation.signs(&request).await;
    });
}

/// Deletes the objects with a label, in a process of its own: the library keeps to the token that its environment names at its first call.
fn delete(token: &Token, label: &str) {
    let mut command = Command::new(std::env::current_exe().expect("this test"));
    command.args(["--exact", "deletes_what_its_environment_names"]).env("SOFTHSM2_CONF", token.conf());
    Finished::of(command.env(DELETE, label)).must_succeed();
}

/// The label for [`deletes_what_its_environment_names`].
const DELETE: &str = "MONOSIGN_TEST_DELETE";

fn logged_in() -> Session {
    let library = Pkcs11::new(MODULE).expect("SoftHSM 2");
    library.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).expect("initialized");
    let slot = library.get_slots_with_initialized_token().expect("slots")[0];
    let session = library.open_rw_session(slot).expect("a session");
    session.login(UserType::User, Some(&AuthPin::new("987654".into()))).expect("logged in");
    session
}

#[test]
fn deletes_what_its_environment_names() {
    let Ok(label) = std::env::var(DELETE) else { return };
    let session = logged_in();
    let found = session.find_objects(&[Attribute::Label(label.into())]).expect("objects");
    assert_eq!(found.len(), 2, "a private key and a public one");
    for object in found {
        session.destroy_object(object).expect("deleted");
    }
}

#[test]
fn a_key_deleted_under_a_running_signer_is_waited_for_and_nothing_is_recorded_for_it_any_more() {
    run(async {
        let node = NodeSide::tcp().await;
        let token = Token::new(&node.addr());
        token.make_record();
        let signer = token.start();
        let mut conversation =
            node.converse_once(CHAIN, &signer, "key label `consensus` and id `01` is there").await;
        delete(&token, "consensus");
        let first = conversation.request(2, 0, Step::Prevote);
        let error = conversation.refuses(&first).await.description.to_string();
        assert!(error.contains("there is no Ed25519 key with label `consensus` and id `01`"), "{error}");
        signer.logs("key label `consensus` and id `01`: there is no Ed25519 key").await;
        assert_eq!(token.home.watermark(CHAIN), (2, 0, 2));
        let words = "key label `consensus` and id `01`: there is no Ed25519 key with label `consensus`";
        conversation.records_nothing(&token.home, CHAIN, words).await;
        let file = format!("{CHAIN}.key");
        token.pkcs11(&["keys", "import", &file, "--label", "consensus"]).must_succeed();
        signer.logs_again("key label `consensus` and id `01` is there").await;
        conversation.signs(&first).await;
        conversation.signs_prevote(3).await;
    });
}

#[test]
fn a_wrong_pin_is_tried_once() {
    run(async {
        let node = NodeSide::tcp().await;
        let token = Token::chatty(&node.addr());
        token.make_record();
        let before = token.asked_for("C_Login");
        token.home.write("pin", b"not the pin");
        let mut command = token.home.command(&["start", "-c", "monosign.toml", "--log-level", "trace"]);
        command.env("SOFTHSM2_CONF", token.conf());
        let signer = Signer::start(command, token.home.path("log"));
        signer.logs("the token refuses the PIN: it is asked nothing more").await;
        let mut conversation = node.converse(CHAIN).await;
        for height in 1..4 {
            let request = conversation.request(height, 0, Step::Prevote);
            let error = conversation.refuses(&request).await.description.to_string();
            assert!(error.contains("refuses the PIN") && error.contains("hint: correct the PIN"), "{error}");
        }
        assert_eq!(token.asked_for("C_Login") - before, 1, "each attempt counts, whichever worker makes it");
        assert_eq!(signer.log().matches("ERROR device").count(), 1);
        assert!(!signer.log().contains("not the pin"));
        assert_eq!(token.home.watermark(CHAIN), (0, 0, 0));
    });
}

/// What is advised about a token, to the letter.
#[test]
fn what_is_advised_about_a_token_is_done_as_it_is_said() {
    let token = Token::new("tcp://127.0.0.1:1");
    token.make_record();
    let check = || token.monosign(&["check", "--offline"]);
    // A label that no token has.
    token.home.edit_config("token_label = \"val\"", "token_label = \"other\"");
    let text = check().stdout;
    assert!(text.contains("no slot has a token with label `other`"), "{text}");
    let advised =
        text.split('`').find(|quoted| quoted.starts_with("monosign pkcs11 slots")).expect("a command");
    let advised = advised.replace("LIBRARY", &token.module);
    let words: Vec<_> = advised.split_whitespace().skip(1).collect();
    let shown = token.monosign(&words).must_succeed().stdout;
    assert!(shown.contains("token `val`"), "{shown}");
    token.home.edit_config("token_label = \"other\"", "token_label = \"val\"");
    // A key that is not there, by its label.
    token.home.edit_config("label = \"consensus\"", "label = \"consensu\"");
    let text = check().stdout;
    assert!(text.contains("label `consensu` and id `01`"), "{text}");
    token.home.edit_config("label = \"consensu\"", "label = \"consensus\"");
    // A wrong PIN: it is told of as a PIN.
    token.home.write("pin", b"000000");
    let text = check().stdout;
    assert!(
        text.contains("the token refuses the PIN") && text.contains("hint: put the user's PIN"),
        "{text}"
    );
    assert!(!text.contains("password") && !text.contains("0x0000"), "{text}");
    token.home.write("pin", b"987654 \n");
    let text = check().must_succeed().stdout;
    assert!(text.contains("ok      chain test-chain-1: key "), "{text}");
}

#[test]
fn what_a_library_prints_and_reads_is_not_taken_for_its_worker_and_does_not_flood_the_log() {
    run(async {
        let node = NodeSide::tcp().await;
        let token = Token::chatty(&node.addr());
        token.make_record();
        let signer = token.start();
        let mut conversation =
            node.converse_once(CHAIN, &signer, "key label `consensus` and id `01` is there").await;
        for height in 2..30 {
            conversation.signs_prevote(height).await;
        }
        assert_eq!(token.asked_for("READ"), 0, "what is meant for the worker");
        assert!(
            signer.log().contains("its library says: Welcome to the library of a vendor"),
            "{}",
            signer.log()
        );
        assert!(signer.log().contains("its library says: debug: loaded"));
        let lines = signer.log().matches("its library says").count();
        assert!(lines <= 20, "{lines} lines of a library that printed thousands");
        let length = token.asked_for("C_Sign length");
        assert_eq!(
            (token.asked_for("C_SignInit"), token.asked_for("C_Sign")),
            (length, length),
            "cryptoki 0.12.1"
        );
    });
}

#[test]
fn what_a_library_prints_is_not_between_what_a_command_prints() {
    let token = Token::chatty("unix://@nobody");
    let key = HEXLOWER.encode(signing_key(CHAIN).verifying_key().as_bytes());
    let shown = token.monosign(&["pubkey", "--format", "hex"]).must_succeed();
    assert_eq!(shown.stdout.trim(), key);
    assert!(shown.stderr.contains("Welcome to the library of a vendor"), "{}", shown.stderr);
    let listed = token.pkcs11(&["keys", "list"]).must_succeed().stdout;
    assert_eq!(listed, format!("id 01  {key}  label `consensus`\n"));
}

/// Makes an object in a process of its own, as [`delete`] deletes some.
fn make(token: &Token, what: &str) {
    let mut command = Command::new(std::env::current_exe().expect("this test"));
    command.args(["--exact", "makes_what_its_environment_names"]).env("SOFTHSM2_CONF", token.conf());
    Finished::of(command.env(MAKE, what)).must_succeed();
}

/// Which attribute the key for [`makes_what_its_environment_names`] has.
const MAKE: &str = "MONOSIGN_TEST_MAKE";

#[test]
fn makes_what_its_environment_names() {
    let Ok(what) = std::env::var(MAKE) else { return };
    let session = logged_in();
    let odd = match what.as_str() {
        "always-authenticate" => Attribute::AlwaysAuthenticate(true),
        _ => Attribute::Sign(false),
    };
    let key = signing_key(CHAIN);
    let common = |class| {
        let (label, id) = (Attribute::Label("consensus".into()), Attribute::Id(vec![1]));
        let (kind, params) =
            (Attribute::KeyType(KeyType::EC_EDWARDS), Attribute::EcParams(vec![6, 3, 0x2b, 0x65, 0x70]));
        vec![Attribute::Class(class), kind, Attribute::Token(true), params, label, id]
    };
    let mut private = common(ObjectClass::PRIVATE_KEY);
    private.extend([Attribute::Private(true), Attribute::Value(key.to_bytes().to_vec()), odd]);
    session.create_object(&private).expect("made");
    let mut public = common(ObjectClass::PUBLIC_KEY);
    let point = [&[0x04, 0x20], key.verifying_key().as_bytes().as_slice()].concat();
    public.extend([Attribute::Private(false), Attribute::EcPoint(point)]);
    session.create_object(&public).expect("made");
}

#[test]
fn a_key_that_cannot_sign_for_us_is_refused_before_anything_is_recorded() {
    run(async {
        for (what, words) in [
            ("always-authenticate", "the key wants the PIN for each signature (CKA_ALWAYS_AUTHENTICATE)"),
            ("no-sign", "the key may not sign (CKA_SIGN is false)"),
        ] {
            let node = NodeSide::tcp().await;
            let token = Token::new(&node.addr());
            token.make_record();
            delete(&token, "consensus");
            make(&token, what);
            let checked = token.monosign(&["check", "--offline"]);
            assert!(checked.stdout.contains(words), "{}", checked.stdout);
            let signer = token.start();
            signer.logs(words).await;
            let mut conversation = node.converse(CHAIN).await;
            conversation.records_nothing(&token.home, CHAIN, words).await;
            assert_eq!(token.home.watermark(CHAIN), (0, 0, 0));
        }
    });
}

/// Prints what the private keys of the token may do, which a test reads that runs it.
const SHOW: &str = "MONOSIGN_TEST_SHOW";

#[test]
fn shows_what_keys_may_do() {
    let Ok(_) = std::env::var(SHOW) else { return };
    let session = logged_in();
    let asked = [
        AttributeType::Sign,
        AttributeType::Decrypt,
        AttributeType::Unwrap,
        AttributeType::SignRecover,
        AttributeType::Derive,
    ];
    for key in session.find_objects(&[Attribute::Class(ObjectClass::PRIVATE_KEY)]).expect("keys") {
        println!("may: {:?}", session.get_attributes(key, &asked).expect("attributes"));
    }
}

#[test]
fn keys_that_we_make_can_sign_and_nothing_else() {
    let token = Token::new("unix://@nobody");
    token.pkcs11(&["keys", "generate", "--label", "two", "--id", "02"]).must_succeed();
    let mut command = Command::new(std::env::current_exe().expect("this test"));
    command.args(["--exact", "shows_what_keys_may_do", "--nocapture"]).env("SOFTHSM2_CONF", token.conf());
    let shown = Finished::of(command.env(SHOW, "yes")).must_succeed().stdout;
    let only = "[Sign(true), Decrypt(false), Unwrap(false), SignRecover(false), Derive(false)]";
    assert_eq!(shown.matches(only).count(), 2, "an imported and a generated one: {shown}");
}

#[test]
fn keys_are_made_listed_and_tried_and_names_stay_unique() {
    let token = Token::new("unix://@nobody");
    let slots = token.monosign(&["pkcs11", "slots"]).must_succeed().stdout;
    assert!(slots.contains("token `val`, SoftHSM v2"), "{slots}");
    token.pkcs11(&["keys", "generate", "--label", "consensus"]).must_fail(1, &["already", "hint:"]);
    token.pkcs11(&["keys", "generate", "--label", "two", "--id", "02"]).must_succeed();
    let listed = token.pkcs11(&["keys", "list"]).must_succeed().stdout;
    let imported = HEXLOWER.encode(signing_key(CHAIN).verifying_key().as_bytes());
    assert!(listed.contains(&format!("id 01  {imported}  label `consensus`")), "{listed}");
    assert!(listed.contains("label `two`") && !listed.contains("no public key"), "{listed}");
    for (label, id) in [("consensus", "01"), ("two", "02")] {
        let tested = token.pkcs11(&["test", "--label", label, "--id", id]).must_succeed().stdout;
        assert!(tested.contains("10 signatures, all verified"), "{tested}");
    }
    token.pkcs11(&["test", "--label", "three"]).must_fail(1, &["there is no Ed25519 key with label `three`"]);
}

#[test]
fn a_key_that_the_configuration_does_not_name_is_refused() {
    let token = Token::new("unix://@nobody");
    let key = HEXLOWER.encode(signing_key(CHAIN).verifying_key().as_bytes());
    let other = HEXLOWER.encode(signing_key("other").verifying_key().as_bytes());
    token.home.edit_config(&key, &other);
    token.monosign(&["state", "init"]).must_fail(1, &[&key, &other]);
    token.home.edit_config(&other, &key);
    token.make_record();
    token.home.edit_config(&key, &other);
    token.monosign(&["check", "--offline"]).must_fail(3, &["the configuration names public key"]);
}

#[test]
fn signs_for_validators_of_every_release() {
    run(async {
        let node = NodeSide::tcp().await;
        let token = Token::new(&node.addr());
        token.make_record();
        let signer = token.start();
        signer.logs("key label `consensus` and id `01` is there").await;
        node.is_served_in_every_dialect(CHAIN).await;
    });
}
