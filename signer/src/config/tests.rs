use super::*;

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

#[test]
fn resolves_paths_against_the_file_and_fills_in_defaults() {
    let config = parse(MINIMAL).expect("valid");
    let chain = &config.chains[0];
    assert_eq!(chain.record, Path::new("/etc/monosign/state/hub.record"));
    assert_eq!(chain.key.path, Path::new("/etc/monosign/secrets/hub.key"));
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
    assert!(!config.chains[0].key.allow_plaintext);
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
        (format!("{MINIMAL}\n[providers.yubihsm]\n"), "software keys only"),
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
    assert!(config.chains[0].key.allow_plaintext && config.warnings.is_empty());
}
