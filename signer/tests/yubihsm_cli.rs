//! `monosign yubihsm` against the mock behind a connector's HTTP.

mod rig;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use data_encoding::HEXLOWER;
use mock_yubihsm::device::Firmware;
use mock_yubihsm::latency::Latency;
use mock_yubihsm::{Connector, Device};
use rig::{CHAIN, Conversation, Home, NodeSide, Signer, signing_key, validator_table};
use yubihsm::audit::AuditOption;
use yubihsm::command::Code;
use yubihsm::object::Type;
use yubihsm::{Capability, Client, Credentials, Domain, HttpConfig, authentication};

/// A device as it comes from the factory.
fn device(serial: u32) -> Connector {
    device_with(serial, Firmware::New)
}

fn device_with(serial: u32, firmware: Firmware) -> Connector {
    let mut count = serial as u8;
    let entropy = move |bytes: &mut [u8]| {
        for byte in bytes {
            count = count.wrapping_mul(5).wrapping_add(113);
            *byte = count;
        }
    };
    let mut device = Device::new(b"password", Box::new(entropy));
    device.set_serial(serial);
    device.set_firmware(firmware);
    Connector::serve(([127, 0, 0, 1], 0), device, Latency::None).expect("a free port")
}

fn yubihsm(home: &Home, device: &Connector, args: &[&str]) -> rig::Finished {
    let connector = format!("tcp://{}", device.address());
    home.monosign(&[&["yubihsm"], args, &["--connector", &connector]].concat())
}

const OPERATOR: [&str; 4] = ["--auth-key", "2", "--password-file", "secrets/operator.password"];
const VALIDATOR: [&str; 4] = ["--auth-key", "4", "--password-file", "secrets/validator.password"];

/// A device that was set up, with the passwords in `secrets`.
fn set_up(home: &Home, serial: u32) -> Connector {
    set_up_with(home, serial, Firmware::New)
}

fn set_up_with(home: &Home, serial: u32, firmware: Firmware) -> Connector {
    let device = device_with(serial, firmware);
    let args = ["setup", "--secrets", "secrets", "--erase", &serial.to_string()];
    yubihsm(home, &device, &args).must_succeed();
    device
}

#[test]
fn setup_asks_for_the_serial_number_and_erases_nothing_without_it() {
    let (home, device) = (Home::new(), device(42));
    let connector = format!("tcp://{}", device.address());
    let setup = ["yubihsm", "setup", "--secrets", "secrets", "--connector", &connector];
    let selftest = ["yubihsm", "selftest", "--connector", &connector];
    let made = yubihsm(&home, &device, &["keys", "generate", "1"]).must_succeed().stdout;
    let key = made.split_whitespace().nth(1).expect("a public key");
    for (args, input) in
        [(&setup[..], "yes\n"), (&setup, ""), (&setup, "43\n"), (&selftest, "yes\n"), (&selftest, "")]
    {
        let refused = home.monosign_with_input(args, input).must_fail(3, &["nothing was erased"]);
        assert!(
            refused.stdout.contains("1 of them signing keys. ALL OF THEM ARE ERASED"),
            "{}",
            refused.stdout
        );
        assert!(!home.path("secrets").exists());
        assert!(yubihsm(&home, &device, &["keys", "list"]).must_succeed().stdout.contains(key), "{args:?}");
    }
    // An object of newer firmware hides no key that would be lost.
    device.device().set_unknown_object(true);
    let refused = home.monosign_with_input(&setup, "").must_fail(3, &["nothing was erased"]);
    assert!(refused.stdout.contains("1 of them signing keys"), "{}", refused.stdout);
    device.device().set_unknown_object(false);
    home.monosign_with_input(&setup, "42\n").must_succeed();
    yubihsm(&home, &device, &["detect"]).must_fail(1, &["refuses the password"]);
    let listed = yubihsm(&home, &device, &[&["keys", "list"], &OPERATOR[..]].concat()).must_succeed().stdout;
    assert_eq!(listed, "no signing keys\n");
}

#[test]
fn setup_makes_roles_that_can_do_no_more_than_they_need_and_shows_no_secret() {
    let home = Home::new();
    let device = device(42);
    let done = yubihsm(&home, &device, &["setup", "--secrets", "secrets", "--erase", "42"]).must_succeed();
    let files = ["admin.password", "operator.password", "auditor.password", "validator.password", "wrap.key"];
    for file in files.map(|file| format!("secrets/{file}")) {
        let secret = fs::read_to_string(home.path(&file)).expect("a password");
        assert!(secret.len() >= 32 && !done.stdout.contains(&secret) && !done.stderr.contains(&secret));
        let mode = fs::metadata(home.path(&file)).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let refused = ["insufficient permissions"];
    let generate = ["keys", "generate", "1"];
    yubihsm(&home, &device, &[&generate[..], &VALIDATOR].concat()).must_fail(1, &refused);
    yubihsm(&home, &device, &[&generate[..], &OPERATOR].concat()).must_succeed();
    yubihsm(&home, &device, &[&["test", "1"], &OPERATOR[..]].concat()).must_fail(1, &refused);
    let tested = yubihsm(&home, &device, &[&["test", "1"], &VALIDATOR[..]].concat()).must_succeed();
    assert!(tested.stdout.contains("10 signatures, all verified"), "{}", tested.stdout);
    assert_eq!(device.device().signatures(), 10);
    // Reset and boot; that options are audited; two attempts to make a key and eleven to sign, refused ones
    // too; and nothing that opens sessions.
    assert_eq!(device.device().unread_log_entries(), 2 + 1 + 2 + 11);
}

#[test]
fn setup_prints_a_table_that_a_signer_runs_on_as_it_is_with_the_device_as_a_witness() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (home, node) = (Home::new(), NodeSide::tcp().await);
        let device = device(42);
        let done =
            yubihsm(&home, &device, &["setup", "--secrets", "secrets", "--erase", "42"]).must_succeed();
        let from = done.stdout.find("[[providers.yubihsm]]").expect("a table");
        let table = done.stdout[from..].split("\n\n").next().expect("a table").replace("CHAIN-ID", CHAIN);
        let generate = done.stdout.lines().find_map(|line| line.trim().strip_prefix("monosign "));
        let generate: Vec<_> = generate.expect("a command").split(' ').collect();
        home.monosign(&generate).must_succeed();
        let text = format!(
            "[[chain]]\nid = \"{CHAIN}\"\nstate_file = \"{CHAIN}.record\"\n{table}\n{}",
            validator_table(CHAIN, &node.addr(), "")
        );
        home.write("monosign.toml", text.as_bytes());
        home.monosign(&["state", "init"]).must_succeed();
        home.monosign(&["yubihsm", "audit", "init"]).must_succeed();
        let signer = home.start();
        signer.logs("key 0x0001 is there").await;
        let key = home.monosign(&["pubkey", "--format", "hex"]).must_succeed().stdout;
        let key = HEXLOWER.decode(key.trim().as_bytes()).expect("hex");
        let key = ed25519_dalek::VerifyingKey::try_from(key.as_slice()).expect("a point");
        let (requests, verifier) = (rig::requests(CHAIN, None), rig::verifier(CHAIN, false, key));
        let mut conversation = Conversation { link: node.accept().await, requests, verifier };
        conversation.signs_prevote(1).await;
        conversation.signs_prevote(2).await;
        assert!(!signer.log().contains("WARN"), "{}", signer.log());
    });
}

#[test]
fn setup_leaves_four_roles_and_a_wrap_key_with_these_rights_and_nothing_else() {
    let home = Home::new();
    let device = set_up(&home, 42);
    let admin = fs::read_to_string(home.path("secrets/admin.password")).expect("a password");
    let client = client(&device, 1, admin.trim());
    let (all, none, one) = (Capability::all(), Capability::empty(), Domain::DOM1);
    let (sign, log) = (Capability::SIGN_EDDSA, Capability::GET_LOG_ENTRIES);
    let wrapped = Capability::EXPORT_WRAPPED | Capability::IMPORT_WRAPPED;
    let exportable = sign | Capability::EXPORTABLE_UNDER_WRAP;
    let make = Capability::GENERATE_ASYMMETRIC_KEY | Capability::PUT_ASYMMETRIC_KEY;
    let operator = make | wrapped | log | Capability::GET_PSEUDO_RANDOM;
    let role = Type::AuthenticationKey;
    let expected = [
        (1, role, Domain::all(), all, all),
        (2, role, one, operator, exportable),
        (3, role, one, log | Capability::GET_OPTION, none),
        (4, role, one, sign | log | Capability::GET_OPTION, none),
        (1, Type::WrapKey, one, wrapped, exportable),
    ];
    assert_eq!(client.list_objects(&[]).expect("objects").len(), expected.len());
    for (id, kind, domains, may, delegates) in expected {
        let info = client.get_object_info(id, kind).expect("an object");
        let delegated = info.delegated_capabilities;
        assert_eq!((info.domains, info.capabilities, delegated), (domains, may, delegates), "{kind:?} {id}");
    }
    assert_eq!(client.get_command_audit_option(Code::SignEddsa).expect("an option"), AuditOption::Fix);
}

fn client(device: &Connector, auth_key: u16, password: &str) -> Client {
    let address = device.address();
    let config = HttpConfig { addr: address.ip().to_string(), port: address.port(), timeout_ms: 1000 };
    let credentials = Credentials::from_password(auth_key, password.as_bytes());
    Client::open(yubihsm::Connector::http(&config), credentials, false).expect("a session")
}

/// An administrator of a device that was set up.
fn admin(home: &Home, device: &Connector) -> Client {
    let password = fs::read_to_string(home.path("secrets/admin.password")).expect("a password");
    client(device, 1, password.trim())
}

fn audited(client: &Client) -> Vec<u8> {
    let options = client.get_commands_audit_options().expect("options");
    let audited = options.into_iter().filter(|option| option.audit_option() != AuditOption::Off);
    audited.map(|option| option.command_type().to_u8()).collect()
}

const AUDITED: [u8; 8] = [0x08, 0x44, 0x45, 0x46, 0x4b, 0x4f, 0x58, 0x6a];
/// What firmware before 2.3.1 audits by default, and a signer asks itself.
const OWN: [Code; 6] = [
    Code::CreateSession,
    Code::AuthenticateSession,
    Code::GetObjectInfo,
    Code::GetPublicKey,
    Code::SetLogIndex,
    Code::CloseSession,
];

#[test]
fn setup_sets_what_is_audited_whatever_the_firmware_audits_by_default() {
    for firmware in [Firmware::Old, Firmware::New] {
        let home = Home::new();
        let device = set_up_with(&home, 42, firmware);
        assert_eq!(audited(&admin(&home, &device)), AUDITED, "{firmware:?}");
    }
}

/// A configuration of this device for `audit`.
fn watched(home: &Home, device: &Connector, auth_key: u16, password_file: &str) {
    let config = format!(
        "[[chain]]\nid = \"{CHAIN}\"\nstate_file = \"{CHAIN}.record\"\n[[providers.yubihsm]]\n\
         adapter = {{ type = \"http\", addr = \"tcp://{}\" }}\nserial_number = \"42\"\naudit = \"detect\"\n\
         auth = {{ key = {auth_key}, password_file = \"{password_file}\" }}\n\
         keys = [{{ chain_ids = [\"{CHAIN}\"], key = 1 }}]\n{}",
        device.address(),
        validator_table(CHAIN, "unix://@nobody", "")
    );
    home.write("monosign.toml", config.as_bytes());
}

#[test]
fn a_device_that_audits_what_the_signer_asks_itself_is_named_and_put_right_without_being_erased() {
    let home = Home::new();
    let device = set_up(&home, 42);
    watched(&home, &device, 4, "secrets/validator.password");
    yubihsm(&home, &device, &[&["keys", "generate", "1"], &OPERATOR[..]].concat()).must_succeed();
    let made = || home.monosign(&["yubihsm", "audit", "init"]).must_succeed().stdout;
    assert!(!made().contains("warning"));
    let again = || {
        fs::remove_file(home.path("yubihsm-0000000042.audit")).expect("an audit file");
        made()
    };
    let client = admin(&home, &device);
    for code in OWN {
        client.set_command_audit_option(code, AuditOption::On).expect("set");
    }
    let own = "it audits 0x03, 0x04, 0x40, 0x4e, 0x54, 0x67, which the signer itself asks";
    let warned = again();
    assert!(warned.contains(own) && warned.contains("audit options --auth-key 1"), "{warned}");
    // An authentication key that may not ask, as after tmkms's set-up: the log shows it.
    let (may, none) = (Capability::SIGN_EDDSA | Capability::GET_LOG_ENTRIES, Capability::empty());
    let (kind, key) =
        (authentication::Algorithm::YubicoAes, authentication::Key::derive_from_password(b"role"));
    client.put_authentication_key(9, "r".into(), Domain::DOM1, may, none, kind, key).expect("put");
    home.write("role", b"role");
    watched(&home, &device, 9, "role");
    let warned = again();
    assert!(warned.contains("it audits 0x03, 0x04, ") && warned.contains("0x54"), "{warned}");
    // As the hint says, to the letter.
    let options =
        ["yubihsm", "audit", "options", "--auth-key", "1", "--password-file", "secrets/admin.password"];
    let set = home.monosign(&options).must_succeed().stdout;
    assert!(
        set.contains("audits signatures, what makes and deletes objects, and resets, and nothing else"),
        "{set}"
    );
    assert_eq!(audited(&client), AUDITED);
    assert!(!again().contains("warning"));
    assert!(
        yubihsm(&home, &device, &[&["keys", "list"], &OPERATOR[..]].concat())
            .must_succeed()
            .stdout
            .contains("0x0001")
    );
    // What is fixed stays, and the way on is another one.
    client.set_command_audit_option(Code::GetPublicKey, AuditOption::Fix).expect("set");
    home.monosign(&options).must_fail(1, &["it audits 0x54", "what is fixed ends with a reset"]);
}

#[test]
fn the_witness_does_not_begin_on_a_device_that_audits_no_signatures() {
    let (home, device) = (Home::new(), device(42));
    yubihsm(&home, &device, &["keys", "generate", "1"]).must_succeed();
    home.write("password", b"password");
    watched(&home, &device, 1, "password");
    let refused = home.monosign(&["yubihsm", "audit", "init"]);
    refused.must_fail(1, &["it does not audit signatures (0x6a)", "audit options --auth-key 1"]);
    assert!(!home.path("yubihsm-0000000042.audit").exists());
    let options = ["yubihsm", "audit", "options", "--auth-key", "1", "--password-file", "password"];
    home.monosign(&options).must_succeed();
    home.monosign(&["yubihsm", "audit", "init"]).must_succeed();
}

#[test]
fn a_generated_key_signs_for_a_node_and_cannot_be_exported() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (home, node) = (Home::new(), NodeSide::tcp().await);
        let device = set_up(&home, 42);
        let made = yubihsm(&home, &device, &[&["keys", "generate", "0x0001"], &OPERATOR[..]].concat());
        let made = made.must_succeed().stdout;
        assert!(made.contains("Generated, not exportable") && made.contains("so is the key"), "{made}");
        let export = [&["keys", "export", "-i", "1", "backup"], &OPERATOR[..]].concat();
        yubihsm(&home, &device, &export).must_fail(1, &["insufficient permissions"]);
        let config = format!(
            "[[chain]]\nid = \"{CHAIN}\"\nstate_file = \"{CHAIN}.record\"\n[[providers.yubihsm]]\n\
             adapter = {{ type = \"http\", addr = \"tcp://{}\" }}\nserial_number = \"42\"\n\
             auth = {{ key = 4, password_file = \"secrets/validator.password\" }}\n\
             keys = [{{ chain_ids = [\"{CHAIN}\"], key = 1 }}]\n{}",
            device.address(),
            validator_table(CHAIN, &node.addr(), "")
        );
        home.write("monosign.toml", config.as_bytes());
        home.make_record(CHAIN);
        let listed = home.monosign(&["yubihsm", "keys", "list"]).must_succeed().stdout;
        let public_key = home.monosign(&["pubkey", "--format", "hex"]).must_succeed().stdout;
        assert!(listed.contains(public_key.trim()), "{listed} {public_key}");
        let start = home.command(&["start", "-c", "monosign.toml", "--log-level", "trace"]);
        let signer = Signer::start(start, home.path("log"));
        signer.logs("key 0x0001 is there").await;
        let key = HEXLOWER.decode(public_key.trim().as_bytes()).expect("hex");
        let key = ed25519_dalek::VerifyingKey::try_from(key.as_slice()).expect("a point");
        let (requests, verifier) = (rig::requests(CHAIN, None), rig::verifier(CHAIN, false, key));
        let mut conversation = Conversation { link: node.accept().await, requests, verifier };
        assert_eq!(conversation.shows_key().await, key);
        conversation.signs_prevote(1).await;
        let password = fs::read_to_string(home.path("secrets/validator.password")).expect("a password");
        assert!(!signer.log().contains(password.trim()), "whatever the level");
    });
}

#[test]
fn a_backup_opens_on_a_spare_that_was_set_up_alike_and_on_no_other() {
    let home = Home::new();
    let (device, spare) = (set_up(&home, 42), set_up(&home, 43));
    let generate = ["keys", "generate", "1", "--exportable", "--backup", "backup"];
    let made = yubihsm(&home, &device, &[&generate[..], &OPERATOR].concat()).must_succeed().stdout;
    yubihsm(&home, &device, &[&generate[..], &OPERATOR].concat()).must_fail(3, &["never overwritten"]);
    let import = [&["keys", "import", "backup"], &OPERATOR[..]].concat();
    let there = yubihsm(&home, &spare, &import).must_succeed().stdout;
    let public_key = |text: &str| text.split_whitespace().nth(1).map(str::to_owned);
    assert_eq!(public_key(&there), public_key(&made));
    yubihsm(&home, &spare, &[&["test", "1"], &VALIDATOR[..]].concat()).must_succeed();
    fs::remove_file(home.path("secrets/wrap.key")).expect("another wrap key");
    let other = set_up(&home, 44);
    yubihsm(&home, &other, &import).must_fail(1, &["wrap key that it was made with"]);
}

#[test]
fn a_key_file_is_imported_and_shows_the_same_public_key() {
    let home = Home::new();
    let device = set_up(&home, 42);
    home.chain_tables(CHAIN);
    let file = format!("{CHAIN}.key");
    let without = [&["keys", "import", &file], &OPERATOR[..]].concat();
    yubihsm(&home, &device, &without).must_fail(2, &["--id 1"]);
    let import = [&without[..], &["--id", "7", "--label", "hub"]].concat();
    let done = yubihsm(&home, &device, &import).must_succeed().stdout;
    let public_key = HEXLOWER.encode(signing_key(CHAIN).verifying_key().as_bytes());
    assert!(done.contains(&format!("0x0007  {public_key}  Imported, not exportable, label `hub`")), "{done}");
    yubihsm(&home, &device, &import).must_fail(1, &["nothing is ever overwritten"]);
}

#[test]
fn the_selftest_finds_in_the_mock_what_the_mock_assumes() {
    let report = |firmware| {
        let (home, device) = (Home::new(), device_with(42, firmware));
        let report = yubihsm(&home, &device, &["selftest", "--erase", "42"]).must_succeed().stdout;
        assert!(report.contains("\n0 differ from what is assumed"), "{report}");
        report
    };
    let (report, _) = (report(Firmware::New), report(Firmware::Old));
    // The mock's README says which line tries which guess.
    let readme = include_str!("../../mock-yubihsm/README.md");
    let guesses = readme.lines().skip_while(|line| !line.starts_with("| guess")).skip(2);
    let tried_by = guesses.filter_map(|line| line.rsplit('|').nth(1)).filter(|cell| !cell.contains("--long"));
    let lines: Vec<_> = tried_by.filter_map(|cell| cell.split('`').nth(1)).collect();
    assert!(lines.len() >= 8, "{lines:?}");
    for line in lines {
        let (begin, end) = line.split_once('…').unwrap_or((line, ""));
        let is_there = |told: &str| told.contains(begin) && told.contains(end.trim());
        assert!(report.lines().any(is_there), "`{line}` is not in {report}");
    }
}
