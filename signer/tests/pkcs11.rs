//! The signer with its key on a PKCS#11 token, as an operator runs it, against SoftHSM 2.

mod rig;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::object::Attribute;
use cryptoki::session::UserType;
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
}

impl Token {
    fn new(addr: &str) -> Self {
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
        let token = Self { home };
        let mut init = Command::new("softhsm2-util");
        init.args(["--init-token", "--free", "--label", "val", "--so-pin", "12345678", "--pin", "987654"]);
        Finished::of(init.env("SOFTHSM2_CONF", token.conf())).must_succeed();
        token.home.chain_tables(CHAIN);
        let file = format!("{CHAIN}.key");
        token.pkcs11(&["keys", "import", &file, "--label", "consensus"]).must_succeed();
        let key = HEXLOWER.encode(signing_key(CHAIN).verifying_key().as_bytes());
        let text = format!(
            "[[chain]]\nid = \"{CHAIN}\"\nkey_format = {{ type = \"hex\" }}\nstate_file = \"{CHAIN}.record\"\n\n\
             [[providers.pkcs11]]\nmodule = \"{MODULE}\"\ntoken_label = \"val\"\npin_file = \"pin\"\ntimeout_ms = 1000\n\
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
        let token = ["--module", MODULE, "--token-label", "val", "--pin-file", "pin"];
        self.monosign(&[&["pkcs11"], args, &token].concat())
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
        signer.logs("key 0x0000 is there").await;
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
        let mut conversation = node.converse_once(CHAIN, &signer, "key 0x0000 is there").await;
        let first = worker_of(&signer).await;
        let command = fs::read(format!("/proc/{}/cmdline", first.as_raw_nonzero())).expect("its command");
        assert!(!String::from_utf8_lossy(&command).contains("987654"), "a PIN that all users can read");
        kill_process(first, Signal::KILL).expect("killed");
        conversation.signs_prevote(2).await;
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
        let mut conversation = node.converse_once(CHAIN, &signer, "key 0x0000 is there").await;
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

#[test]
fn deletes_what_its_environment_names() {
    let Ok(label) = std::env::var(DELETE) else { return };
    let library = Pkcs11::new(MODULE).expect("SoftHSM 2");
    library.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).expect("initialized");
    let slot = library.get_slots_with_initialized_token().expect("slots")[0];
    let session = library.open_rw_session(slot).expect("a session");
    session.login(UserType::User, Some(&AuthPin::new("987654".into()))).expect("logged in");
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
        let mut conversation = node.converse_once(CHAIN, &signer, "key 0x0000 is there").await;
        delete(&token, "consensus");
        let first = conversation.request(2, 0, Step::Prevote);
        let error = conversation.refuses(&first).await.description.to_string();
        assert!(error.contains("there is no Ed25519 key with label `consensus` and id `01`"), "{error}");
        signer.logs("key 0x0000: there is no Ed25519 key").await;
        assert_eq!(token.home.watermark(CHAIN), (2, 0, 2));
        let words = "key 0x0000: there is no Ed25519 key with label `consensus`";
        conversation.records_nothing(&token.home, CHAIN, words).await;
        let file = format!("{CHAIN}.key");
        token.pkcs11(&["keys", "import", &file, "--label", "consensus"]).must_succeed();
        signer.logs_again("key 0x0000 is there").await;
        conversation.signs(&first).await;
        conversation.signs_prevote(3).await;
    });
}

#[test]
fn a_wrong_pin_is_tried_once() {
    run(async {
        let node = NodeSide::tcp().await;
        let token = Token::new(&node.addr());
        token.make_record();
        token.home.write("pin", b"not the pin");
        let mut command = token.home.command(&["start", "-c", "monosign.toml", "--log-level", "trace"]);
        command.env("SOFTHSM2_CONF", token.conf());
        let signer = Signer::start(command, token.home.path("log"));
        signer.logs("it refuses the password: it is asked nothing more").await;
        let mut conversation = node.converse(CHAIN).await;
        for height in 1..4 {
            let request = conversation.request(height, 0, Step::Prevote);
            let error = conversation.refuses(&request).await.description.to_string();
            assert!(error.contains("refuses the password"), "{error}");
        }
        // Each attempt would be a worker's.
        let children = format!("/proc/{0}/task/{0}/children", signer.id());
        let workers = || fs::read_to_string(&children).is_ok_and(|children| children.trim().is_empty());
        rig::poll("the worker to end", || workers().then_some(())).await;
        assert_eq!(signer.log().matches("ERROR device").count(), 1);
        assert!(!signer.log().contains("not the pin"));
        assert_eq!(token.home.watermark(CHAIN), (0, 0, 0));
    });
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
        signer.logs("key 0x0000 is there").await;
        node.is_served_in_every_dialect(CHAIN).await;
    });
}
