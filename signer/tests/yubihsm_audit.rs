//! The device as a witness: what else is signed with the key, and what a copied or restored disk has forgotten, stops the signer.

mod rig;

use std::fs;

use mock_yubihsm::faults::{Fault, Once};
use mock_yubihsm::latency::Latency;
use mock_yubihsm::{Connector, Device};
use monosign_protocol::Step;
use rig::{CHAIN, Conversation, Home, NodeSide, Signer, signing_key, validator_table};
use rustix::process::Signal;
use yubihsm::asymmetric::Algorithm;
use yubihsm::audit::AuditOption;
use yubihsm::command::Code;
use yubihsm::{Capability, Client, Credentials, Domain, HttpConfig, authentication};

const KEY: u16 = 1;
/// Somebody else who may sign.
const OTHER: u16 = 9;

/// A device that audits signatures and refuses them when its log is full, a node, and a signer's home.
struct Rig {
    device: Connector,
    node: NodeSide,
    home: Home,
}

impl Rig {
    async fn new(mode: &str) -> Self {
        let mut count = 0_u8;
        let entropy = move |bytes: &mut [u8]| {
            for byte in bytes {
                count = count.wrapping_mul(5).wrapping_add(113);
                *byte = count;
            }
        };
        let device = Device::new(b"password", Box::new(entropy));
        let device = Connector::serve(([127, 0, 0, 1], 0), device, Latency::None).expect("a free port");
        let (node, home) = (NodeSide::tcp().await, Home::new());
        let rig = Self { device, node, home };
        let admin = rig.client(1, b"password");
        let (may, seed) = (Capability::SIGN_EDDSA, signing_key(CHAIN).to_bytes().to_vec());
        admin
            .put_asymmetric_key(KEY, "val".into(), Domain::DOM1, may, Algorithm::Ed25519, seed)
            .expect("put");
        for id in [4, OTHER] {
            let key = authentication::Key::derive_from_password(b"role");
            let (may, none) = (may | Capability::GET_LOG_ENTRIES, Capability::empty());
            let kind = authentication::Algorithm::YubicoAes;
            admin.put_authentication_key(id, "r".into(), Domain::DOM1, may, none, kind, key).expect("put");
        }
        admin.set_command_audit_option(Code::SignEddsa, AuditOption::Fix).expect("set");
        admin.set_force_audit_option(AuditOption::On).expect("set");
        rig.home.write("password", b"role");
        let text = format!(
            "[[chain]]\nid = \"{CHAIN}\"\nstate_file = \"{CHAIN}.record\"\n[[providers.yubihsm]]\n\
             adapter = {{ type = \"http\", addr = \"tcp://{}\", timeout_ms = 500 }}\nserial_number = \"12345678\"\n\
             auth = {{ key = 4, password_file = \"password\" }}\naudit = \"{mode}\"\n\
             keys = [{{ chain_ids = [\"{CHAIN}\"], key = {KEY} }}]\n{}",
            rig.device.address(),
            validator_table(CHAIN, &rig.node.addr(), "")
        );
        rig.home.write("monosign.toml", text.as_bytes());
        rig.home.make_record(CHAIN);
        rig
    }

    fn init(&self) {
        self.home.monosign(&["yubihsm", "audit", "init"]).must_succeed();
    }

    fn client(&self, auth_key: u16, password: &[u8]) -> Client {
        let address = self.device.address();
        let config = HttpConfig { addr: address.ip().to_string(), port: address.port(), timeout_ms: 1000 };
        let credentials = Credentials::from_password(auth_key, password);
        Client::open(yubihsm::Connector::http(&config), credentials, true).expect("a session")
    }

    async fn start(&self) -> (Signer, Conversation) {
        let _ = fs::remove_file(self.home.path("log"));
        let signer = self.home.start();
        signer.logs("key 0x0001 is there").await;
        (signer, self.node.converse(CHAIN).await)
    }

    /// The next process says why, and signs nothing.
    async fn is_stopped(&self, height: i64, because: &str) {
        let _ = fs::remove_file(self.home.path("log"));
        let signer = self.home.start();
        let line = signer.logs("ERROR device").await;
        assert!(line.contains(because), "`{because}` in `{line}`");
        let mut conversation = self.node.converse(CHAIN).await;
        let (signatures, watermark) = (self.device.device().signatures(), self.home.watermark(CHAIN));
        let request = conversation.request(height, 0, Step::Prevote);
        conversation.refuses(&request).await;
        assert_eq!(self.device.device().signatures(), signatures);
        assert_eq!(self.home.watermark(CHAIN), watermark);
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(test);
}

#[test]
fn our_own_signatures_are_accounted_for_and_the_log_is_kept_from_filling() {
    run(async {
        let rig = Rig::new("detect").await;
        rig.init();
        let (mut signer, mut conversation) = rig.start().await;
        for height in 1..50 {
            conversation.signs_prevote(height).await;
        }
        rig.device.set(Fault::Once(Once::LoseAnswer));
        conversation.signs_prevote(50).await;
        rig.device.device().power_cycle();
        conversation.signs_prevote(51).await;
        signer.kill();
        let (signer, mut conversation) = rig.start().await;
        for height in 52..120 {
            conversation.signs_prevote(height).await;
        }
        assert!(rig.device.device().unread_log_entries() <= 31);
        signer.signal(Signal::TERM);
    });
}

#[test]
fn somebody_else_with_our_key_is_named_and_stops_us_for_good() {
    run(async {
        let rig = Rig::new("detect").await;
        rig.init();
        let (signer, mut conversation) = rig.start().await;
        conversation.signs_prevote(1).await;
        rig.client(OTHER, b"role").sign_ed25519(KEY, vec![7; 90]).expect("signed");
        let request = conversation.request(2, 0, Step::Prevote);
        let error = conversation.refuses(&request).await.description.to_string();
        assert!(error.contains("authentication key 0x0009 signed with our key 0x0001"), "{error}");
        drop((signer, conversation));
        rig.is_stopped(3, "authentication key 0x0009 signed").await;
    });
}

#[test]
fn a_restored_disk_finds_what_it_has_forgotten_before_it_signs() {
    run(async {
        let rig = Rig::new("detect").await;
        rig.init();
        let files = [format!("{CHAIN}.record"), "yubihsm-0012345678.audit".into()];
        let backup: Vec<_> =
            files.iter().map(|file| fs::read(rig.home.path(file)).expect("a file")).collect();
        let (mut signer, mut conversation) = rig.start().await;
        for height in 1..6 {
            conversation.signs_prevote(height).await;
        }
        signer.kill();
        for (file, content) in files.iter().zip(backup) {
            rig.home.write(file, &content);
        }
        rig.is_stopped(1, "this disk is a copy or was restored").await;
    });
}

#[test]
fn nothing_is_signed_while_it_is_not_known_what_the_device_has_signed() {
    run(async {
        let rig = Rig::new("detect").await;
        rig.is_stopped(1, "is missing").await;
        rig.init();
        rig.home.monosign(&["yubihsm", "audit", "init"]).must_fail(3, &["never overwritten"]);
        let shown = rig.home.monosign(&["yubihsm", "audit", "show"]).must_succeed().stdout;
        assert_eq!(shown.lines().count(), 2, "{shown}");
        let refused = rig.home.monosign(&["yubihsm", "test", "1"]);
        refused.must_fail(3, &["would take these signatures for somebody else's"]);
        let (_signer, mut conversation) = rig.start().await;
        conversation.signs_prevote(1).await;
    });
}

#[test]
fn d5_a_command_that_the_crate_does_not_know_hides_nothing() {
    run(async {
        let rig = Rig::new("detect").await;
        rig.init();
        let (_signer, mut conversation) = rig.start().await;
        conversation.signs_prevote(1).await;
        rig.device.device().log_unknown_command(0x75, OTHER);
        let request = conversation.request(2, 0, Step::Prevote);
        let error = conversation.refuses(&request).await.description.to_string();
        assert!(error.contains("can be read"), "{error}");
    });
}

#[test]
fn in_permit_mode_nobody_signs_who_has_made_no_place() {
    run(async {
        let rig = Rig::new("permit").await;
        rig.init();
        let (_signer, mut conversation) = rig.start().await;
        for height in 1..100 {
            conversation.signs_prevote(height).await;
        }
        assert_eq!(rig.device.device().unread_log_entries(), mock_yubihsm::device::LOG_CAPACITY);
        let refused = rig.client(OTHER, b"role").sign_ed25519(KEY, vec![7; 90]).expect_err("no place");
        assert_eq!(refused.device_error(), Some(yubihsm::device::ErrorKind::LogFull));
        conversation.signs_prevote(100).await;
    });
}
