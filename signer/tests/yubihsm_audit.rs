//! The device as a witness: what else is signed with the key, and what a copied or restored disk has forgotten, stops the signer.

mod rig;

use std::fs;

use mock_yubihsm::faults::{Fault, Lasting, Once};
use mock_yubihsm::latency::Latency;
use mock_yubihsm::{Connector, Device};
use monosign_protocol::Step;
use rig::{CHAIN, Conversation, Finished, Home, NodeSide, Signer, signing_key, validator_table};
use rustix::process::Signal;
use yubihsm::asymmetric::Algorithm;
use yubihsm::audit::AuditOption;
use yubihsm::command::Code;
use yubihsm::{Capability, Client, Credentials, Domain, HttpConfig, authentication};

const KEY: u16 = 1;
/// Somebody else who may sign.
const OTHER: u16 = 9;

/// Devices that audit signatures and refuse them when their logs are full, a node, and a signer's home.
struct Rig {
    device: Connector,
    /// One with the same key, which is asked second.
    spare: Option<Connector>,
    node: NodeSide,
    home: Home,
}

const SERIAL: u32 = 12_345_678;
const SPARE: u32 = 87_654_321;

/// A device with the key, two who may sign with it, and an audit of signatures.
fn device(serial: u32) -> Connector {
    let mut count = 0_u8;
    let entropy = move |bytes: &mut [u8]| {
        for byte in bytes {
            count = count.wrapping_mul(5).wrapping_add(113);
            *byte = count;
        }
    };
    let mut device = Device::new(b"password", Box::new(entropy));
    device.set_serial(serial);
    let device = Connector::serve(([127, 0, 0, 1], 0), device, Latency::None).expect("a free port");
    let admin = client(&device, 1, b"password");
    let (may, seed) = (Capability::SIGN_EDDSA, signing_key(CHAIN).to_bytes().to_vec());
    admin.put_asymmetric_key(KEY, "val".into(), Domain::DOM1, may, Algorithm::Ed25519, seed).expect("put");
    for id in [4, OTHER] {
        let key = authentication::Key::derive_from_password(b"role");
        let (may, none) = (may | Capability::GET_LOG_ENTRIES, Capability::empty());
        let kind = authentication::Algorithm::YubicoAes;
        admin.put_authentication_key(id, "r".into(), Domain::DOM1, may, none, kind, key).expect("put");
    }
    admin.set_command_audit_option(Code::SignEddsa, AuditOption::Fix).expect("set");
    admin.set_force_audit_option(AuditOption::On).expect("set");
    device
}

fn client(device: &Connector, auth_key: u16, password: &[u8]) -> Client {
    let address = device.address();
    let config = HttpConfig { addr: address.ip().to_string(), port: address.port(), timeout_ms: 1000 };
    let credentials = Credentials::from_password(auth_key, password);
    Client::open(yubihsm::Connector::http(&config), credentials, true).expect("a session")
}

fn provider(device: &Connector, serial: u32, mode: &str) -> String {
    format!(
        "[[providers.yubihsm]]\nadapter = {{ type = \"http\", addr = \"tcp://{}\", timeout_ms = 500 }}\n\
         serial_number = \"{serial}\"\nauth = {{ key = 4, password_file = \"password\" }}\naudit = \"{mode}\"\n\
         keys = [{{ chain_ids = [\"{CHAIN}\"], key = {KEY} }}]\n",
        device.address()
    )
}

impl Rig {
    async fn new(mode: &str) -> Self {
        Self::over(device(SERIAL), None, mode).await
    }

    /// With the key on two devices, which both are watched, from now on.
    async fn pair() -> Self {
        let rig = Self::over(device(SERIAL), Some(device(SPARE)), "detect").await;
        for serial in [SERIAL, SPARE] {
            let serial = serial.to_string();
            rig.home.monosign(&["yubihsm", "audit", "init", "--serial", &serial]).must_succeed();
        }
        rig
    }

    async fn over(device: Connector, spare: Option<Connector>, mode: &str) -> Self {
        let (node, home) = (NodeSide::tcp().await, Home::new());
        home.write("password", b"role");
        let mut text = format!("[[chain]]\nid = \"{CHAIN}\"\nstate_file = \"{CHAIN}.record\"\n");
        text += &provider(&device, SERIAL, mode);
        text += &spare.as_ref().map(|spare| provider(spare, SPARE, mode)).unwrap_or_default();
        text += &validator_table(CHAIN, &node.addr(), "");
        home.write("monosign.toml", text.as_bytes());
        home.make_record(CHAIN);
        Self { device, spare, node, home }
    }

    fn spare(&self) -> &Connector {
        self.spare.as_ref().expect("a pair")
    }

    /// How many signatures both have made.
    fn signatures(&self) -> u64 {
        let spare = self.spare.as_ref().map_or(0, |spare| spare.device().signatures());
        self.device.device().signatures() + spare
    }

    /// As our own, what is as long as the last signature of the device.
    fn sign_as_a_copy(&self) {
        let log = client(&self.device, 1, b"password").get_log_entries().expect("a log");
        let last = log.entries.iter().rev().find(|entry| entry.cmd == Code::SignEddsa).expect("a signature");
        let message = vec![7; usize::from(last.length) - 2];
        client(&self.device, 4, b"role").sign_ed25519(KEY, message).expect("signed");
    }

    fn init(&self) {
        self.home.monosign(&["yubihsm", "audit", "init"]).must_succeed();
    }

    fn client(&self, auth_key: u16, password: &[u8]) -> Client {
        client(&self.device, auth_key, password)
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
        let (signatures, watermark) = (self.signatures(), self.home.watermark(CHAIN));
        let request = conversation.request(height, 0, Step::Prevote);
        conversation.refuses(&request).await;
        assert_eq!(self.signatures(), signatures);
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
fn unlock_shows_what_happened_raises_the_record_and_lets_the_signer_go_on() {
    run(async {
        let rig = Rig::new("detect").await;
        rig.init();
        let nothing = rig.home.monosign(&["yubihsm", "unlock"]).must_succeed().stdout;
        assert!(nothing.contains("nothing is locked"), "{nothing}");
        let (signer, mut conversation) = rig.start().await;
        conversation.signs_prevote(5).await;
        rig.client(OTHER, b"role").sign_ed25519(KEY, vec![7; 90]).expect("signed");
        let request = conversation.request(6, 0, Step::Prevote);
        conversation.refuses(&request).await;
        let unlock = |input: &str| rig.home.monosign_with_input(&["yubihsm", "unlock"], input);
        // The latched signer lets go of the device, and not of the record.
        unlock("12345678\n40\n").must_fail(3, &["uses this chain and key on this host"]);
        drop((signer, conversation));
        let locked = rig.home.watermark(CHAIN);
        for (input, because) in [
            ("", "not its serial number"),
            ("12345679\n40\n", "not its serial number"),
            ("12345678\n", "`` is no height"),
            ("12345678\nforty\n", "`forty` is no height"),
            ("12345678\n-1\n", "`-1` is no height"),
            ("12345678\n200000\n", "--to-height 200000 --yes"),
        ] {
            let refused = unlock(input).must_fail(3, &[because, "nothing was unlocked"]);
            assert!(
                refused.stdout.contains("authentication key 0x0009 signed with our key 0x0001"),
                "{because}"
            );
            let marked: Vec<_> = refused.stdout.lines().filter(|line| line.starts_with('>')).collect();
            assert!(matches!(marked[..], [line] if line.contains("authentication key 0x0009")), "{marked:?}");
            assert_eq!(rig.home.watermark(CHAIN), locked);
        }
        rig.is_stopped(7, "authentication key 0x0009 signed").await;
        let done = unlock("12345678\n40\n").must_succeed().stdout;
        assert!(done.contains("YubiHSM 0012345678 is unlocked"), "{done}");
        assert_eq!(rig.home.watermark(CHAIN), (41, 0, 0));
        let (_signer, mut conversation) = rig.start().await;
        let below = conversation.request(40, 0, Step::Precommit);
        conversation.refuses(&below).await;
        conversation.signs_prevote(41).await;
    });
}

/// Unlocks without a terminal.
fn unlock_up_to(rig: &Rig, height: &str) -> Finished {
    let up_to = format!("{CHAIN}={height}");
    rig.home.monosign(&["yubihsm", "unlock", "--confirm", "12345678", "--signed-up-to", &up_to])
}

#[test]
fn unlock_never_lowers_a_record_and_leaves_a_running_signer_alone() {
    run(async {
        let rig = Rig::new("permit").await;
        unlock_up_to(&rig, "2").must_fail(3, &["is missing", "audit init"]);
        rig.init();
        let (signer, mut conversation) = rig.start().await;
        unlock_up_to(&rig, "2").must_fail(3, &["stop it first"]);
        conversation.signs_prevote(5).await;
        drop((signer, conversation));
        // As our own: a copy of this host.
        rig.client(4, b"role").sign_ed25519(KEY, vec![7; 90]).expect("signed");
        unlock_up_to(&rig, "x").must_fail(2, &["`x` is no height"]);
        let done = unlock_up_to(&rig, "2").must_succeed().stdout;
        assert!(
            done.contains("as authentication key 0x0004, ours") && done.contains("stays there"),
            "{done}"
        );
        assert_eq!(rig.home.watermark(CHAIN), (5, 0, 2));
        let (_signer, mut conversation) = rig.start().await;
        conversation.signs_prevote(6).await;
    });
}

#[test]
fn unlock_goes_on_after_a_log_that_others_have_emptied_or_that_cannot_be_read() {
    run(async {
        let rig = Rig::new("detect").await;
        rig.init();
        let newest = || {
            let log = rig.client(1, b"password").get_log_entries().expect("a log");
            log.entries.first().map_or(0, |entry| entry.item) + u16::from(log.num_entries) - 1
        };
        let mark_read = |item: u16| rig.client(1, b"password").set_log_index(item).expect("marked as read");
        // Somebody reads the log, and leaves nothing.
        mark_read(newest());
        rig.is_stopped(1, "the log is empty").await;
        unlock_up_to(&rig, "1").must_fail(1, &["a power cycle of the device makes an entry"]);
        rig.device.device().power_cycle();
        unlock_up_to(&rig, "1").must_succeed();
        // A command of newer firmware, which the crate cannot read, so that it hides what follows.
        rig.device.device().log_unknown_command(0x75, OTHER);
        rig.device.device().power_cycle();
        unlock_up_to(&rig, "2").must_fail(1, &["can be read", "`audit set`"]);
        mark_read(newest() - 1);
        unlock_up_to(&rig, "2").must_succeed();
        let (_signer, mut conversation) = rig.start().await;
        conversation.signs_prevote(3).await;
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

const FILES: [&str; 2] = ["yubihsm-0012345678.audit", "yubihsm-0087654321.audit"];

/// The record and what is known of both logs, as a backup of the directory has them.
fn backup(rig: &Rig) -> Vec<(String, Vec<u8>)> {
    let files = FILES.iter().map(ToString::to_string).chain([format!("{CHAIN}.record")]);
    files.map(|file| (file.clone(), fs::read(rig.home.path(&file)).expect("a file"))).collect()
}

#[test]
fn a_restored_disk_that_one_device_finds_signs_on_no_other_until_it_is_unlocked() {
    run(async {
        let rig = Rig::pair().await;
        let (mut signer, mut conversation) = rig.start().await;
        for height in 1..4 {
            conversation.signs_prevote(height).await;
        }
        let backup = backup(&rig);
        for height in 4..9 {
            conversation.signs_prevote(height).await;
        }
        assert_eq!(rig.spare().device().signatures(), 0, "the first device has signed it all");
        signer.kill();
        drop(conversation);
        for (file, content) in backup {
            rig.home.write(&file, &content);
        }
        rig.is_stopped(4, "this disk is a copy or was restored").await;
        let locked = "the key is locked";
        // Once: each look takes a session, of which a device has sixteen, and which end after 30 s.
        let shown = rig.home.monosign(&["check", "--offline"]);
        assert_eq!(shown.code, Some(3));
        assert!(shown.stdout.contains("UNSAFE") && shown.stdout.contains(locked), "{}", shown.stdout);
        // Not forgotten when the device that has found it is gone; nor by what is noted with its log alone, as where the file beside the
        // record could not be made, or has stayed behind.
        rig.device.set(Fault::Lasting(Lasting::Unplug, true));
        for is_gone in [false, true] {
            if is_gone {
                fs::remove_file(rig.home.path(format!("{CHAIN}.record.locked"))).expect("a lock");
            }
            let _ = fs::remove_file(rig.home.path("log"));
            let signer = rig.home.start();
            signer.logs("its keys are locked on every device").await;
            let mut conversation = rig.node.converse(CHAIN).await;
            let signatures = rig.signatures();
            for height in [4, 9] {
                let request = conversation.request(height, 0, Step::Prevote);
                let error = conversation.refuses(&request).await.description.to_string();
                assert!(error.contains(locked), "{error}");
            }
            assert_eq!(rig.signatures(), signatures);
            if is_gone {
                rig.home.monosign(&["check", "--offline"]).must_fail(3, &[]);
            }
        }
        unlock_up_to(&rig, "8").must_fail(1, &["`--serial NUMBER` goes by the log of another device"]);
        rig.device.set(Fault::Lasting(Lasting::Unplug, false));
        let done = unlock_up_to(&rig, "8").must_succeed().stdout;
        for words in [
            "YubiHSM 0012345678 is unlocked",
            "YubiHSM 0087654321 is unlocked",
            "the key of test-chain-1 is unlocked",
        ] {
            assert!(done.contains(words), "`{words}` in {done}");
        }
        assert_eq!(rig.home.watermark(CHAIN), (9, 0, 0));
        let nothing = rig.home.monosign(&["yubihsm", "unlock"]).must_succeed().stdout;
        assert_eq!(nothing.matches("nothing is locked").count(), 2, "{nothing}");
        rig.home.monosign(&["check", "--offline"]).must_succeed();
        // Each command has left a session behind, and a device has 16.
        for device in [&rig.device, rig.spare()] {
            device.device().power_cycle();
        }
        let (_signer, mut conversation) = rig.start().await;
        conversation.signs_prevote(9).await;
    });
}

#[test]
fn a_foreign_signature_on_one_device_ends_signing_on_both() {
    run(async {
        let rig = Rig::pair().await;
        let (signer, mut conversation) = rig.start().await;
        signer.logs("yubihsm 0087654321: ready").await;
        conversation.signs_prevote(1).await;
        rig.client(OTHER, b"role").sign_ed25519(KEY, vec![7; 90]).expect("signed");
        for height in 2..5 {
            let request = conversation.request(height, 0, Step::Prevote);
            let error = conversation.refuses(&request).await.description.to_string();
            assert!(error.contains("authentication key 0x0009 signed with our key 0x0001"), "{error}");
        }
        assert_eq!(rig.spare().device().signatures(), 0);
        // By the log of the other device alone, as when the first is broken; what the first has to tell is found again.
        drop((signer, conversation));
        let up_to = format!("{CHAIN}=4");
        let spare = SPARE.to_string();
        let unlock = ["yubihsm", "unlock", "--serial", &spare, "--confirm", &spare, "--signed-up-to", &up_to];
        rig.home.monosign(&unlock).must_succeed();
        rig.is_stopped(5, "authentication key 0x0009 signed").await;
        rig.device.set(Fault::Lasting(Lasting::Unplug, true));
        rig.home.monosign(&unlock).must_succeed();
        let _ = fs::remove_file(rig.home.path("log"));
        let signer = rig.home.start();
        signer.logs("others with its keys sign without it").await;
        let mut conversation = rig.node.converse(CHAIN).await;
        conversation.signs_prevote(5).await;
        assert_eq!(rig.spare().device().signatures(), 1);
    });
}

#[test]
fn an_audit_file_that_is_missing_on_one_device_stops_the_other() {
    run(async {
        let rig = Rig::pair().await;
        fs::remove_file(rig.home.path(FILES[0])).expect("removed");
        rig.is_stopped(1, "is missing").await;
        rig.home.monosign(&["check", "--offline"]).must_fail(3, &[]);
        // The device need not be there for that.
        rig.device.set(Fault::Lasting(Lasting::Unplug, true));
        rig.is_stopped(1, "is missing").await;
        rig.device.set(Fault::Lasting(Lasting::Unplug, false));
        let serial = SERIAL.to_string();
        rig.home.monosign(&["yubihsm", "audit", "init", "--serial", &serial]).must_succeed();
        let (_signer, mut conversation) = rig.start().await;
        conversation.signs_prevote(1).await;
    });
}

#[test]
fn a_foreign_signature_between_blocks_is_found_though_the_connector_closes_idle_connections() {
    run(async {
        for own_length in [true, false] {
            let rig = Rig::new("detect").await;
            rig.init();
            let (_signer, mut conversation) = rig.start().await;
            // Blocks that are further apart than the connector keeps its connections.
            for height in 1..4 {
                conversation.signs_prevote(height).await;
                rig.device.set(Fault::CloseIdle);
            }
            let sessions = rig.device.device().open_sessions();
            if own_length {
                rig.sign_as_a_copy();
            } else {
                rig.client(4, b"role").sign_ed25519(KEY, vec![7; 90]).expect("signed");
            }
            rig.device.set(Fault::CloseIdle);
            let signatures = rig.signatures();
            let request = conversation.request(4, 0, Step::Prevote);
            let error = conversation.refuses(&request).await.description.to_string();
            assert!(error.contains("a signature that this signer did not ask for"), "{error}");
            assert_eq!(rig.signatures(), signatures, "it was not even asked for");
            assert!(rig.device.device().open_sessions() <= sessions + 2, "no session was lost");
        }
    });
}

/// What a signer asks itself, and firmware before 2.3.1 audits by default.
const OWN: [Code; 6] = [
    Code::CreateSession,
    Code::AuthenticateSession,
    Code::CloseSession,
    Code::GetObjectInfo,
    Code::GetPublicKey,
    Code::SetLogIndex,
];

impl Rig {
    /// The device audits what firmware before 2.3.1 does by default.
    fn audits_all(&self) {
        let admin = self.client(1, b"password");
        for code in OWN {
            admin.set_command_audit_option(code, AuditOption::On).expect("set");
        }
    }

    /// Somebody else does what is logged.
    fn others_open_sessions(&self, count: usize) {
        (0..count).for_each(|_| drop(self.client(OTHER, b"role")));
        // Those that are open do not end with their client.
        self.device.device().power_cycle();
    }
}

#[test]
fn permit_signs_on_where_the_device_audits_what_the_signer_asks_itself() {
    run(async {
        let rig = Rig::new("permit").await;
        rig.audits_all();
        rig.init();
        let (_signer, mut conversation) = rig.start().await;
        for height in 1..120 {
            conversation.signs_prevote(height).await;
        }
        rig.device.device().power_cycle();
        // The next one opens a session, which takes a place.
        for height in 120..130 {
            conversation.signs_prevote(height).await;
        }
        assert!(rig.device.device().unread_log_entries() >= 60);
        let refused = rig.client(OTHER, b"role").sign_ed25519(KEY, vec![7; 90]);
        if refused.is_ok() {
            let request = conversation.request(130, 0, Step::Prevote);
            conversation.refuses(&request).await;
        }
    });
}

#[test]
fn any_number_of_starts_without_a_signature_is_accounted_for_whatever_the_device_audits() {
    run(async {
        let rig = Rig::new("detect").await;
        rig.audits_all();
        let admin = rig.client(1, b"password");
        admin.set_force_audit_option(AuditOption::Off).expect("a ring");
        rig.init();
        for _ in 0..30 {
            let (mut signer, conversation) = rig.start().await;
            drop(conversation);
            signer.kill();
            // What it leaves open would use up all sessions.
            rig.device.device().power_cycle();
        }
        let (_signer, mut conversation) = rig.start().await;
        conversation.signs_prevote(1).await;
    });
}

#[test]
fn a_log_that_others_have_filled_while_the_signer_was_stopped_is_read_at_the_start() {
    run(async {
        let rig = Rig::new("detect").await;
        rig.audits_all();
        rig.init();
        let (mut signer, mut conversation) = rig.start().await;
        conversation.signs_prevote(1).await;
        signer.kill();
        for _ in 0..5 {
            rig.others_open_sessions(8);
        }
        assert_eq!(rig.device.device().unread_log_entries(), 62);
        let (mut signer, mut conversation) = rig.start().await;
        conversation.signs_prevote(2).await;
        drop(conversation);
        signer.kill();
        for _ in 0..5 {
            rig.others_open_sessions(8);
        }
        let unlocked = rig.home.monosign(&["yubihsm", "unlock"]).must_succeed().stdout;
        assert!(
            unlocked.contains("nothing is locked") && unlocked.contains("its log was full"),
            "{unlocked}"
        );
        assert_eq!(rig.device.device().unread_log_entries(), 16, "what was left, and that it was read");
        let again = rig.home.monosign(&["yubihsm", "unlock"]).must_succeed().stdout;
        assert!(!again.contains("its log was full"), "{again}");
        let (_signer, mut conversation) = rig.start().await;
        conversation.signs_prevote(3).await;
    });
}

#[test]
fn a_copy_of_the_key_under_another_number_is_named_and_its_signatures_are_found() {
    run(async {
        let rig = Rig::new("detect").await;
        rig.init();
        let (signer, mut conversation) = rig.start().await;
        conversation.signs_prevote(1).await;
        let admin = rig.client(1, b"password");
        let seed = |chain| signing_key(chain).to_bytes().to_vec();
        let put = |id, seed| {
            let may = Capability::SIGN_EDDSA;
            admin
                .put_asymmetric_key(id, "x".into(), Domain::DOM1, may, Algorithm::Ed25519, seed)
                .expect("put");
        };
        put(8, seed("another-chain"));
        admin.sign_ed25519(8, vec![7; 90]).expect("signed");
        conversation.signs_prevote(2).await;
        put(9, seed(CHAIN));
        conversation.signs_prevote(3).await;
        let named = rig.home.monosign(&["check", "--offline"]);
        assert!(named.stdout.contains("key 0x0009 is key 0x0001 under another number"), "{}", named.stdout);
        admin.sign_ed25519(9, vec![7; 90]).expect("signed");
        let request = conversation.request(4, 0, Step::Prevote);
        let error = conversation.refuses(&request).await.description.to_string();
        assert!(error.contains("authentication key 0x0001 signed with our key 0x0009"), "{error}");
        drop((signer, conversation));
        let shown = unlock_up_to(&rig, "4").must_succeed().stdout;
        let marked: Vec<_> = shown.lines().filter(|line| line.starts_with('>')).collect();
        assert!(matches!(marked[..], [line] if line.contains("key 0x0009")), "{shown}");
        // Signed with and gone again before anybody looked.
        let (signer, mut conversation) = rig.start().await;
        conversation.signs_prevote(6).await;
        put(10, seed(CHAIN));
        admin.sign_ed25519(10, vec![7; 90]).expect("signed");
        admin.delete_object(10, yubihsm::object::Type::AsymmetricKey).expect("deleted");
        // The rig audits signatures only, so that nothing tells that it was put there: it is one of another's domain as well.
        conversation.signs_prevote(7).await;
        for code in [Code::PutAsymmetricKey, Code::DeleteObject] {
            admin.set_command_audit_option(code, AuditOption::On).expect("set");
        }
        put(10, seed(CHAIN));
        admin.sign_ed25519(10, vec![7; 90]).expect("signed");
        admin.delete_object(10, yubihsm::object::Type::AsymmetricKey).expect("deleted");
        let request = conversation.request(8, 0, Step::Prevote);
        conversation.refuses(&request).await;
        drop(signer);
    });
}

#[test]
fn check_changes_nothing_on_the_disk_and_nothing_in_the_log() {
    run(async {
        let rig = Rig::new("detect").await;
        rig.init();
        let file = || fs::read(rig.home.path("yubihsm-0012345678.audit")).expect("an audit file");
        let log = || rig.device.device().unread_log_entries();
        rig.client(1, b"password");
        let before = (file(), log());
        let checked = rig.home.monosign(&["check", "--offline"]).must_succeed().stdout;
        assert!(checked.contains(": key "), "{checked}");
        assert_eq!((file(), log()), before);
        // What is wrong is found as well.
        rig.client(OTHER, b"role").sign_ed25519(KEY, vec![7; 90]).expect("signed");
        let checked = rig.home.monosign(&["check", "--offline"]);
        assert!(checked.stdout.contains("signed with our key 0x0001"), "{}", checked.stdout);
        assert_eq!(file(), before.0);
    });
}

/// A second signer, with another key of the same device.
async fn beside(rig: &Rig, chain: &str, mode: &str) -> (Home, NodeSide) {
    let (home, node) = (Home::new(), NodeSide::tcp().await);
    let admin = rig.client(1, b"password");
    let (may, seed) = (Capability::SIGN_EDDSA, signing_key(chain).to_bytes().to_vec());
    admin.put_asymmetric_key(2, "val".into(), Domain::DOM1, may, Algorithm::Ed25519, seed).expect("put");
    home.write("password", b"role");
    let text = format!(
        "[[chain]]\nid = \"{chain}\"\nstate_file = \"{chain}.record\"\n[[providers.yubihsm]]\n\
         adapter = {{ type = \"http\", addr = \"tcp://{}\", timeout_ms = 500 }}\nserial_number = \"12345678\"\n\
         auth = {{ key = 4, password_file = \"password\" }}\naudit = \"{mode}\"\n\
         keys = [{{ chain_ids = [\"{chain}\"], key = 2 }}]\n{}",
        rig.device.address(),
        validator_table(chain, &node.addr(), "")
    );
    home.write("monosign.toml", text.as_bytes());
    home.make_record(chain);
    home.monosign(&["yubihsm", "audit", "init"]).must_succeed();
    (home, node)
}

/// Two signers with a key each on one device, which they both watch, sign beside each other.
fn two_on_one_device(mode: &str) {
    run(async {
        let rig = Rig::new(mode).await;
        rig.init();
        let (other_home, other_node) = beside(&rig, "second-1", mode).await;
        let (_signer, mut conversation) = rig.start().await;
        let other = other_home.start();
        other.logs("key 0x0002 is there").await;
        let mut others = other_node.converse("second-1").await;
        let ours = async {
            for height in 1..150 {
                conversation.signs_prevote(height).await;
            }
        };
        let theirs = async {
            for height in 1..150 {
                others.signs_prevote(height).await;
            }
        };
        tokio::join!(ours, theirs);
    });
}

#[test]
fn two_signers_that_watch_one_device_leave_each_other_what_they_have_not_seen() {
    two_on_one_device("detect");
}

#[test]
fn two_signers_in_permit_mode_on_one_device_make_places_beside_each_other() {
    two_on_one_device("permit");
}
