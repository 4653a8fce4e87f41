use super::*;
use crate::backend::yubihsm::{Adapter, Audit};

const FILE: &str = "/etc/monosign/monosign.toml";

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new(FILE))
}

fn error(text: &str) -> String {
    parse(text).expect_err("must be refused").to_string()
}

const MINIMAL: &str = r#"
[[chain]]
id = "cosmoshub-4"
key_format = { type = "bech32", account_key_prefix = "cosmospub", consensus_key_prefix = "cosmosvalconspub" }
state_file = "state/hub.record"
[[validator]]
chain_id = "cosmoshub-4"
addr = "tcp://127.0.0.1:26658"
secret_key = "secrets/kms-identity.key"
[[providers.softsign]]
chain_ids = ["cosmoshub-4"]
path = "secrets/hub.key"
"#;

/// What `tmkms init` of 0.15.0 writes, with both of its networks' worth of fields.
const TMKMS: &str = r#"
[[chain]]
id = "cosmoshub-3"
key_format = { type = "bech32", account_key_prefix = "cosmospub", consensus_key_prefix = "cosmosvalconspub" }
sign_extensions = true
state_file = "/srv/kms/state/cosmoshub-3-consensus.json"
state_hook = { cmd = ["a"], fail_closed = true }

[[validator]]
chain_id = "cosmoshub-3"
addr = "tcp://deadbeefdeadbeefdeadbeefdeadbeefdeadbeef@example1.example.com:26658"
secret_key = "/srv/kms/secrets/kms-identity.key"
protocol_version = "v0.34"
reconnect = true
timeout = 2
max_height = "500000"

[[providers.softsign]]
chain_ids = ["cosmoshub-3"]
key_type = "consensus"
key_format = "base64"
path = "/srv/kms/secrets/cosmoshub-3-consensus.key"
"#;

/// What tmkms 0.15.0 has for a device behind a connector.
const YUBIHSM: &str = r#"
[[providers.yubihsm]]
adapter = { type = "http", addr = "tcp://127.0.0.1:12345" }
auth = { key = 4, password_file = "pw" }
keys = [{ chain_ids = ["cosmoshub-4"], key = 1 }]
serial_number = "0123456789"
"#;

/// The minimal file with its key on devices instead.
fn on_yubihsm(tables: &str) -> String {
    format!("{}{tables}", &MINIMAL[..MINIMAL.find("[[prov").unwrap()])
}

#[test]
fn reads_the_yubihsm_table_of_tmkms() {
    let usb = r#"{ type = "usb", timeout_ms = 1000 }"#;
    let text = on_yubihsm(&YUBIHSM.replace(r#"{ type = "http", addr = "tcp://127.0.0.1:12345" }"#, usb));
    for (text, adapter) in
        [(on_yubihsm(YUBIHSM), Adapter::Http { host: "127.0.0.1".into(), port: 12345 }), (text, Adapter::Usb)]
    {
        let config = parse(&text).expect("valid");
        let KeyConfig::OnDevices(keys) = &config.chains[0].key else { panic!("a key on a device") };
        let [DeviceKey::Yubihsm(YubihsmKey { provider, key: 1 })] = keys.as_slice() else {
            panic!("one key")
        };
        assert_eq!((&provider.adapter, provider.auth_key), (&adapter, 4));
        assert_eq!(provider.name(), "yubihsm 0123456789");
        assert!(config.chains[0].key.softsign().is_none());
        let [warning] = config.warnings.as_slice() else { panic!("one warning: {:?}", config.warnings) };
        assert!(warning.contains("yubihsm 0123456789: its log is not watched"), "{warning}");
    }
}

#[test]
fn that_a_device_is_no_witness_is_told_unless_it_was_said() {
    for (said, mode) in [("off", Audit::Off), ("detect", Audit::Detect), ("permit", Audit::Permit)] {
        let config = parse(&on_yubihsm(&format!("{YUBIHSM}audit = \"{said}\"\n"))).expect("valid");
        assert_eq!((config.yubihsm[0].audit, &config.warnings[..]), (mode, &[][..]));
    }
}

#[test]
fn reads_the_yubihsm_table_of_the_example_that_tmkms_comes_with() {
    let table = r#"
[[providers.yubihsm]]
adapter = { type = "usb" }
auth = { key = 1, password_file = "/path/to/password" } # or pass raw password as `password`
keys = [
    { chain_ids = ["cosmoshub-4"], key = 1, type = "consensus" }
    # { chain_ids = ["irishub"], key = 2, type = "account" }
]
#serial_number = "0123456789" # identify serial number of a specific YubiHSM to connect to
connector_server = { laddr = "tcp://127.0.0.1:12345", cli = { auth_key = 2 } }
"#;
    let config = parse(&on_yubihsm(table)).expect("valid");
    let provider = &config.yubihsm[0];
    assert_eq!((&provider.adapter, &provider.serial, provider.auth_key), (&Adapter::Usb, &None, 1));
    assert_eq!(provider.keys, [1].into());
    let [ignored, unwatched] = config.warnings.as_slice() else { panic!("two: {:?}", config.warnings) };
    assert!(ignored.contains("connector_server is not supported and is ignored"), "{ignored}");
    assert!(unwatched.contains("its log is not watched"), "{unwatched}");
}

#[test]
fn one_key_may_be_on_two_devices_and_each_device_in_one_table() {
    let other = YUBIHSM.replace("12345\"", "12346\"").replace("0123456789", "0000000042");
    let config = parse(&on_yubihsm(&format!("{YUBIHSM}{other}"))).expect("valid");
    let KeyConfig::OnDevices(keys) = &config.chains[0].key else { panic!("a key on devices") };
    assert_eq!(keys.len(), 2);
    let twice = YUBIHSM.replace("keys = [{ chain_ids = [\"cosmoshub-4\"], key = 1 }]", "keys = []");
    assert!(error(&on_yubihsm(&format!("{YUBIHSM}{twice}"))).contains("named twice"));
}

const PKCS11: &str = r#"
[[providers.pkcs11]]
module = "/usr/lib/softhsm/libsofthsm2.so"
token_label = "val"
pin_file = "pin"
keys = [{ chain_ids = ["cosmoshub-4"], label = "consensus", id = "01" }]
"#;

#[test]
fn reads_a_token_and_its_keys_by_label_and_id() {
    let config = parse(&on_yubihsm(PKCS11)).expect("valid");
    let KeyConfig::OnDevices(keys) = &config.chains[0].key else { panic!("a key on a device") };
    assert_eq!((keys[0].device().as_str(), keys[0].number()), ("pkcs11 token val", 0));
    assert_eq!(config.pkcs11[0].keys[0].to_string(), "label `consensus` and id `01`");
    for (from, to, expected) in [
        ("pin_file = \"pin\"", "", "needs one of"),
        ("label = \"consensus\", id = \"01\"", "", "`label`, `id` or both"),
        ("\"01\"", "\"xy\"", "not hexadecimal"),
        ("\"01\"", "\"01\", public_key = \"00\"", "64 hex digits"),
        ("pin_file", "timeout_ms = 1\npin_file", "between 100 and 4000"),
    ] {
        let message = error(&on_yubihsm(&PKCS11.replace(from, to)));
        assert!(message.contains(expected), "`{expected}` expected in `{message}`");
    }
    let twice = format!("{PKCS11}{}", PKCS11.replace("cosmoshub-4", "x"));
    assert!(error(&on_yubihsm(&twice)).contains("`x`, which has no [[chain]]"));
}

#[test]
fn a_password_in_the_file_is_taken_and_never_shown() {
    let text = on_yubihsm(&YUBIHSM.replace("password_file = \"pw\"", "password = \"hunter2\""));
    assert!(!format!("{:?}", parse(&text).expect("valid")).contains("hunter2"));
}

/// Whatever is wrong with the line of a password or with any other, no eight characters of the password are told.
#[test]
fn no_mistake_in_the_file_has_its_password_told() {
    const SECRET: &str = "Hq7-wZ2xK9vTr4Lp";
    let secret_is_told = |text: &str| (0..=SECRET.len() - 8).any(|n| text.contains(&SECRET[n..n + 8]));
    let auth = "auth = { key = 4, password_file = \"pw\" }";
    let (mut tried, mut refused) = (0, 0);
    for form in [
        format!("auth = {{ key = 4, password = \"{SECRET}\" }}"),
        format!("auth = {{ password = '{SECRET}', key = 4 }}"),
        format!("auth.key = 4\nauth.password = \"{SECRET}\""),
        format!("auth = {{ key = 4, password = \"\"\"\n{SECRET}\n\"\"\" }}"),
        format!("auth = {{ key = 4, password = {SECRET} }}"),
        format!("auth = {{ key = 4, {SECRET} = \"password\" }}"),
        format!("auth = {{ key = \"{SECRET}\", password = 4 }}"),
        format!("auth = {{ key = 4, password = [\"{SECRET}\"] }}"),
        format!("auth = {{ key = 4, password = {{ {SECRET} = 1 }} }}"),
        format!("auth = {{ key = 4, password_env = \"{SECRET}\" }}"),
        format!("auth = {{ key = 4, credential = \"{SECRET}\" }}"),
        format!("auth = \"{SECRET}\""),
        format!("password = \"{SECRET}\"\nauth = {{ key = 4 }}"),
    ] {
        let good = on_yubihsm(&YUBIHSM.replace(auth, &form));
        let mut broken = vec![good.clone()];
        let begin = good
            .find("serial")
            .expect("the table's end")
            .min(good.find("[[providers.yubihsm").expect("its start"));
        for (at, _) in good.char_indices().filter(|(at, _)| *at >= begin) {
            broken.push(good[..at].to_owned());
            broken.push(format!("{}{}", &good[..at], &good[at + 1..]));
            for wrong in ["\"", "'", "\\", "=", "{", "]", ",", "\n", ".", "\"x\" ", "\u{0}"] {
                broken.push(format!("{}{wrong}{}", &good[..at], &good[at..]));
            }
        }
        // Lines twice, away, and under another table.
        let lines: Vec<_> = good.lines().collect();
        for n in 0..lines.len() {
            let mut twice = lines.clone();
            twice.insert(n, lines[n]);
            broken.push(twice.join("\n"));
            twice.drain(n..n + 2);
            broken.push(twice.join("\n"));
            twice.insert((n * 7) % (lines.len() - 1), lines[n]);
            broken.push(twice.join("\n"));
        }
        for text in broken {
            tried += 1;
            if let Err(error) = parse(&text) {
                refused += 1;
                let told = format!("{error} {error:?}");
                assert!(!secret_is_told(&told), "{told}\nis said of\n{text}");
            }
        }
    }
    assert!(refused > 10_000, "{refused} of {tried}");
}

#[test]
fn mistakes_are_told_by_place_setting_and_what_is_expected() {
    let with = |auth: &str| on_yubihsm(&YUBIHSM.replace("password_file = \"pw\"", auth));
    for (text, expected) in [
        (
            with("pasword = \"hunter2\""),
            "line 13, column 19, in `providers.yubihsm.auth`: unknown field, expected one of `key`, `password`",
        ),
        (
            with("password = 12345678"),
            "line 13, column 30, in `providers.yubihsm.auth.password`: invalid type: integer, expected a string",
        ),
        (
            MINIMAL.replace("id = \"cosmoshub-4\"\nkey", "idd = \"a\"\nkey"),
            "line 3, column 1, in `chain`: unknown field `idd`, expected one of `id`",
        ),
        (MINIMAL.replace("secrets/hub.key", &"07".repeat(32)), "looks like a key itself"),
        (
            on_yubihsm(&YUBIHSM.replace("tcp://127", "http://user:hunter2@127")),
            "has a user or a password in it",
        ),
    ] {
        let message = error(&text);
        assert!(
            message.contains(expected) && !message.contains("hunter2"),
            "`{expected}` expected in `{message}`"
        );
    }
}

#[test]
fn resolves_paths_against_the_file_and_fills_in_defaults() {
    let config = parse(MINIMAL).expect("valid");
    let chain = &config.chains[0];
    assert_eq!(chain.record, Path::new("/etc/monosign/state/hub.record"));
    assert_eq!(chain.key.softsign().unwrap().path, Path::new("/etc/monosign/secrets/hub.key"));
    assert_eq!(chain.rules.jump_limit, JumpLimit::Heights(100_000));
    assert_eq!(chain.rules.raw, RawSigning::default());
    let validator = &config.validators[0];
    assert!(validator.reconnect && validator.dialect.is_none());
    assert_eq!(validator.timeout, Duration::from_secs(10));
}

#[test]
fn reads_a_tmkms_toml_as_it_is() {
    let config = parse(TMKMS).expect("valid");
    assert_eq!(config.validators[0].max_height, Some(Height(500_000)));
    assert_eq!(config.validators[0].dialect, Some(Dialect::V0_34));
    assert!(!config.chains[0].key.softsign().unwrap().allow_plaintext);
    assert_eq!(config.warnings.len(), 2, "state_hook and timeout: {:?}", config.warnings);
}

#[test]
fn unknown_keys_are_errors_with_their_line() {
    let text = MINIMAL.replace("state_file", "state_fiel");
    let message = error(&text);
    assert!(message.contains("line 5") && message.contains("state_fiel"), "{message}");
}

#[test]
fn contradictions_are_named_with_their_table() {
    let second_chain = format!(
        "{MINIMAL}\n[[chain]]\nid = \"b\"\nkey_format = {{ type = \"hex\" }}\nstate_file = \"state/hub.record\"\n\
         [[providers.softsign]]\nchain_ids = [\"b\"]\npath = \"b.key\"\n"
    );
    for (text, expected) in [
        (second_chain, "[[chain]] b: its state_file is that of another chain"),
        (MINIMAL.replace("chain_ids = [\"cosmoshub-4\"]", "chain_ids = []"), "it has no key"),
        (
            MINIMAL.replace("chain_ids = [\"cosmoshub-4\"]", "chain_ids = [\"x\"]"),
            "`x`, which has no [[chain]]",
        ),
        (format!("{MINIMAL}{}", &MINIMAL[MINIMAL.find("[[prov").unwrap()..]), "has a second key"),
        (MINIMAL.replace("secret_key = \"secrets/kms-identity.key\"", ""), "secret_key is missing"),
        (MINIMAL.replace("26658\"", "26658\"\nprotocol_version = \"v0.33\""), "amino"),
        (MINIMAL.replace("tcp://127", "http://127"), "no known scheme"),
        (MINIMAL.replace("26658\"", "26658\"\nmax_height = \"-1\""), "max_height"),
        (
            MINIMAL.replace("state_file", "sign_bytes = true\nsign_raw_bytes = true\nstate_file"),
            "share their wire",
        ),
        (format!("{MINIMAL}\n[providers.ledgertm]\n"), "does not sign with such devices"),
        (format!("{MINIMAL}{YUBIHSM}"), "has a second key"),
        (
            on_yubihsm(
                &YUBIHSM.replace("key = 1 }", "key = 1 }, { chain_ids = [\"cosmoshub-4\"], key = 2 }"),
            ),
            "has a second key",
        ),
        (on_yubihsm(&YUBIHSM.replace("tcp://127.0.0.1:12345", "tcp://127.0.0.1")), "is no address"),
        (on_yubihsm(&YUBIHSM.replace("password_file = \"pw\"", "")), "auth needs one of"),
        (on_yubihsm(&YUBIHSM.replace("12345\"", "12345\", timeout_ms = 20000")), "between 250 and 4000"),
        (
            on_yubihsm(&YUBIHSM.replace("key = 1 }", "key = 1, type = \"account\" }")),
            "`account` is not supported",
        ),
        (MINIMAL.replace("cosmoshub-4", "../x"), "slash or quote"),
    ] {
        let message = error(&text);
        assert!(message.contains(expected), "`{expected}` expected in `{message}`");
    }
}

#[test]
fn the_template_is_a_valid_configuration() {
    let chain = TemplateChain { chain_id: "test-1", addr: "tcp://127.0.0.1:26658", plaintext: true };
    let config = parse(&template(Path::new("/srv/signer"), &chain)).expect("valid");
    assert_eq!(config.chains[0].record, Path::new("/srv/signer/state/test-1.record"));
    assert!(config.chains[0].key.softsign().unwrap().allow_plaintext && config.warnings.is_empty());
}
