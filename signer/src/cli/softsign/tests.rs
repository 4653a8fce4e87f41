use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use clap::Parser;
use data_encoding::BASE64;
use ed25519_dalek::SigningKey;
use tempfile::TempDir;

use super::*;
use crate::backend::softsign::unlock::KeyFileError;

const SEED: [u8; 32] = [3; 32];

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    softsign: SoftsignArgs,
}

/// A directory to run commands in; `@` at the start of an argument stands for it.
struct Setup {
    directory: TempDir,
    passphrases: Vec<&'static str>,
}

impl Setup {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), passphrases: Vec::new() }
    }

    /// With CometBFT's key file `key.json`.
    fn with_key_json() -> Self {
        let setup = Self::new();
        setup.write("key.json", &key_json());
        setup
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        private_file::create_private(&self.path(name), content.as_bytes()).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn parse(&self, line: &str) -> Result<SoftsignArgs, clap::Error> {
        let directory = format!("{}/", self.directory.path().display());
        let words = line.split_whitespace().map(|word| word.replace('@', &directory));
        Cli::try_parse_from(std::iter::once("softsign".to_owned()).chain(words)).map(|cli| cli.softsign)
    }

    fn run(&mut self, line: &str) -> Result<String, SoftsignError> {
        let args = self.parse(line).unwrap();
        let mut out = Vec::new();
        let mut passphrases = std::mem::take(&mut self.passphrases).into_iter();
        let mut ask =
            |_: &str| passphrases.next().map(SecretString::from).ok_or(io::Error::other("no terminal"));
        let mut random = |bytes: &mut [u8]| {
            bytes.fill(3);
            Ok(())
        };
        let mut surroundings = Surroundings::new(&mut out, &mut ask, &mut random, UnlockEnv::default());
        surroundings.work_factor = 4;
        run_in(&args, &mut surroundings)?;
        Ok(String::from_utf8(out).unwrap())
    }

    fn opens(&self, name: &str) -> ConsensusKey {
        let source = KeySource { path: self.path(name), allow_plaintext: true, ..KeySource::default() };
        let Loaded::Open(key) = load(&source, &UnlockEnv::default()).unwrap() else { panic!("sealed") };
        key
    }
}

fn key_json() -> String {
    let key = ConsensusKey::from_seed(&SEED);
    format!(
        r#"{{"address":"{}","pub_key":{},"priv_key":{{"type":"tendermint/PrivKeyEd25519","value":"{}"}}}}"#,
        key.public_key().address(),
        key.public_key().to_cometbft_json(),
        BASE64.encode(&SigningKey::from_bytes(&SEED).to_keypair_bytes()),
    )
}

fn shows_public_key(text: &str) {
    let key = ConsensusKey::from_seed(&SEED);
    let key = key.public_key();
    for form in [
        key.to_string(),
        key.to_cosmos_json(),
        key.to_cometbft_json(),
        key.address().to_string(),
        key.valcons("cosmosvalcons").unwrap(),
        key.valconspub("cosmosvalconspub").unwrap(),
    ] {
        assert!(text.contains(&form), "{form} in {text}");
    }
    let secrets =
        [BASE64.encode(&SEED), BASE64.encode(&SEED)[..40].into(), "03".repeat(16), "AGE-SECRET".into()];
    for secret in secrets {
        assert!(!text.contains(&secret), "{text}");
    }
}

#[test]
fn import_encrypts_to_a_new_identity_beside_the_key_file() {
    let mut setup = Setup::with_key_json();
    let text = setup.run("import @key.json --output @consensus.key").unwrap();
    shows_public_key(&text);
    assert_eq!(setup.names(), ["consensus.key", "consensus.key.identity", "key.json"]);
    for name in ["consensus.key", "consensus.key.identity"] {
        assert_eq!(fs::metadata(setup.path(name)).unwrap().mode() & 0o7777, 0o600);
    }
    assert!(setup.read("consensus.key").starts_with("-----BEGIN AGE ENCRYPTED FILE-----"));
    assert_eq!(setup.opens("consensus.key").expose_seed(), Some(&SEED));
    for advice in ["Never run two signers", "shred -u", "systemd-creds", "LoadCredentialEncrypted=consensus:"]
    {
        assert!(text.contains(advice), "{advice} in {text}");
    }
}

#[test]
fn plaintext_import_writes_what_tmkms_reads() {
    let mut setup = Setup::with_key_json();
    let text = setup.run("import @key.json --output @plain --plaintext").unwrap();
    shows_public_key(&text);
    assert!(text.contains("NOT encrypted") && text.contains("allow_plaintext_key = true"), "{text}");
    assert_eq!(setup.read("plain"), BASE64.encode(&SEED));
    assert_eq!(setup.names(), ["key.json", "plain"]);
}

#[test]
fn tmkms_command_lines_are_accepted() {
    let mut setup = Setup::with_key_json();
    setup.run("import -f json @key.json @imported").unwrap();
    assert_eq!(setup.opens("imported").expose_seed(), Some(&SEED));
    setup.run("keygen -t consensus @generated").unwrap();
    assert_eq!(setup.opens("generated").expose_seed(), Some(&SEED));
    assert_eq!(setup.run("keygen -t account @account").unwrap_err(), SoftsignError::AccountKey);
}

#[test]
fn key_files_of_tmkms_and_of_monosign_are_imported() {
    let mut setup = Setup::new();
    setup.write("tmkms", &BASE64.encode(&SEED));
    setup.run("import @tmkms --output @first").unwrap();
    setup.run("import @first --output @second --plaintext").unwrap();
    assert_eq!(setup.read("second"), setup.read("tmkms"));
}

#[test]
fn seed_with_public_key_in_a_tmkms_file_is_imported_with_a_warning() {
    let mut setup = Setup::new();
    setup.write("tmkms", &BASE64.encode(&SigningKey::from_bytes(&SEED).to_keypair_bytes()));
    let text = setup.run("import @tmkms --output @new").unwrap();
    assert!(text.contains("tmkms reads such a file as"), "{text}");
    shows_public_key(&text);
}

#[test]
fn expanded_secret_needs_the_flag_and_the_public_key() {
    use sha2::{Digest, Sha512};
    let mut setup = Setup::new();
    setup.write("expanded", &BASE64.encode(&Sha512::digest(SEED)));
    let public_key = *ConsensusKey::from_seed(&SEED).public_key();
    assert!(matches!(setup.run("import @expanded --output @a"), Err(SoftsignError::Import { .. })));
    assert!(setup.parse("import @expanded --format base64-expanded").is_err(), "without --public-key");
    setup
        .run(&format!("import @expanded --output @a --format base64-expanded --public-key {public_key}"))
        .unwrap();
    assert!(setup.opens("a").expose_expanded().is_some());
}

#[test]
fn import_refuses_another_key_than_expected_and_writes_nothing() {
    let mut setup = Setup::with_key_json();
    let other = *ConsensusKey::from_seed(&[1; 32]).public_key();
    let error = setup.run(&format!("import @key.json --output @a --public-key {other}")).unwrap_err();
    assert!(matches!(error, SoftsignError::OtherPublicKey { .. }));
    assert_eq!(setup.names(), ["key.json"]);
}

#[test]
fn nothing_is_ever_overwritten() {
    for present in ["consensus.key", "consensus.key.identity"] {
        for command in ["import @key.json --output", "keygen --output"] {
            let mut setup = Setup::with_key_json();
            setup.write(present, "precious");
            let error = setup.run(&format!("{command} @consensus.key")).unwrap_err();
            assert_eq!(error, PrivateFileError::Exists { path: setup.path(present) }.into());
            assert!(error.to_string().contains("\nhint: "));
            assert_eq!(setup.read(present), "precious");
            assert_eq!(setup.names().len(), 2);
        }
    }
}

#[test]
fn import_over_its_own_source_is_refused() {
    let mut setup = Setup::with_key_json();
    assert!(setup.run("import @key.json --output @key.json --plaintext").is_err());
    assert_eq!(setup.read("key.json"), key_json());
}

#[test]
fn passphrase_is_asked_twice_and_opens_the_file() {
    let mut setup = Setup::with_key_json();
    setup.passphrases = vec!["one two three", "one two three"];
    let text = setup.run("import @key.json --output @a --passphrase").unwrap();
    shows_public_key(&text);
    assert!(text.contains("starts sealed"), "{text}");
    assert_eq!(setup.names(), ["a", "key.json"]);

    setup.passphrases = vec!["one two three"];
    shows_public_key(&setup.run("show @a").unwrap());
    setup.passphrases = vec!["one two"];
    assert!(matches!(setup.run("show @a"), Err(SoftsignError::KeyFile(KeyFileError::Seal { .. }))));
}

#[test]
fn passphrases_that_are_empty_or_differ_write_nothing() {
    let mut setup = Setup::new();
    setup.passphrases = vec!["", ""];
    assert_eq!(setup.run("keygen @a --passphrase").unwrap_err(), SoftsignError::EmptyPassphrase);
    setup.passphrases = vec!["one", "two"];
    assert_eq!(setup.run("keygen @a --passphrase").unwrap_err(), SoftsignError::PassphrasesDiffer);
    assert!(matches!(setup.run("keygen @a --passphrase"), Err(SoftsignError::Ask { .. })));
    assert!(setup.names().is_empty());
}

#[test]
fn recipients_come_as_text_as_recipient_file_or_as_identity_file() {
    let mut setup = Setup::new();
    let identities =
        [x25519::Identity::generate(), x25519::Identity::generate(), x25519::Identity::generate()];
    setup.write("recipients", &format!("# backup\n{}\n", identities[1].to_public()));
    setup.write("identity", identities[2].to_string().expose_secret());
    let first = identities[0].to_public();
    let text = setup
        .run(&format!("keygen @a --identity {first} --identity @recipients --identity @identity"))
        .unwrap();
    shows_public_key(&text);
    assert_eq!(setup.names(), ["a", "identity", "recipients"], "no new identity");
    for identity in identities {
        let opened = key_file::open_with_identities(setup.read("a").as_bytes(), &[identity]).unwrap();
        assert_eq!(opened.expose_seed(), Some(&SEED));
    }
    shows_public_key(&setup.run("show @a --identity @identity").unwrap());
    assert!(matches!(setup.run("show @a"), Err(SoftsignError::KeyFile(KeyFileError::NoIdentity { .. }))));
}

#[test]
fn bad_recipients_write_nothing() {
    let mut setup = Setup::new();
    setup.write("text", "not a recipient");
    for value in ["age1xyz", "@text", "@missing"] {
        assert!(setup.run(&format!("keygen @a --identity {value}")).is_err(), "{value}");
    }
    assert_eq!(setup.names(), ["text"]);
}

#[test]
fn source_open_to_others_is_imported_with_a_warning() {
    let mut setup = Setup::with_key_json();
    fs::set_permissions(setup.path("key.json"), Permissions::from_mode(0o644)).unwrap();
    let text = setup.run("import @key.json --output @a").unwrap();
    assert!(text.starts_with("warning: ") && text.contains("other users"), "{text}");
}

#[test]
fn show_prints_public_forms_only_under_the_chains_prefix() {
    let mut setup = Setup::with_key_json();
    shows_public_key(&setup.run("show @key.json").unwrap());
    let text = setup.run("show @key.json --prefix osmo").unwrap();
    assert!(text.contains("osmovalcons1") && text.contains("osmovalconspub1"), "{text}");
    assert!(matches!(setup.run("show @key.json --prefix OSMO"), Err(SoftsignError::Prefix(_))));
}

#[test]
fn bad_prefix_is_refused_before_anything_is_written() {
    let mut setup = Setup::new();
    assert!(matches!(setup.run("keygen @a --prefix A.B"), Err(SoftsignError::Prefix(_))));
    assert!(setup.names().is_empty());
}

#[test]
fn contradicting_arguments_are_usage_errors() {
    let setup = Setup::new();
    for line in [
        "import @key.json --plaintext --passphrase",
        "import @key.json --plaintext --identity age1x",
        "import @key.json --passphrase --identity age1x",
        "import @key.json @a --output @b",
        "import @key.json --format raw",
        "import @key.json --public-key 00",
        "import",
        "show",
    ] {
        assert!(setup.parse(line).is_err(), "{line}");
    }
}

#[test]
fn default_output_is_consensus_key() {
    let setup = Setup::new();
    let SoftsignCommand::Keygen(args) = setup.parse("keygen").unwrap().command else { panic!() };
    assert_eq!(args.target.path(), Path::new("consensus.key"));
}
