use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use secrecy::ExposeSecret;
use tempfile::TempDir;

use super::key_file::{Protection, seal, seal_with_work_factor};
use super::*;
use crate::import::key::to_tmkms_base64;
use crate::ops::private_file::create_private;
use crate::start::StartError;

const SEED: [u8; 32] = [5; 32];

/// A directory with a key file, and the identity that opens it.
struct Setup {
    directory: TempDir,
    identity: x25519::Identity,
    source: KeySource,
    env: UnlockEnv,
}

impl Setup {
    fn new(content: impl FnOnce(&x25519::Identity) -> String) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let identity = x25519::Identity::generate();
        let source = KeySource { path: directory.path().join("consensus.key"), ..KeySource::default() };
        create_private(&source.path, content(&identity).as_bytes()).unwrap();
        Self { directory, identity, source, env: UnlockEnv::default() }
    }

    fn for_identity() -> Self {
        Self::new(|identity| seal(&key(), &Protection::Recipients(vec![identity.to_public()])).unwrap())
    }

    fn with_passphrase() -> Self {
        let protection = Protection::Passphrase(SecretString::from("open sesame"));
        Self::new(|_| seal_with_work_factor(&key(), &protection, 4).unwrap())
    }

    fn plain() -> Self {
        Self::new(|_| to_tmkms_base64(&key()).to_string())
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        create_private(&path, content.as_bytes()).unwrap();
        path
    }

    fn write_identity(&self, name: &str) -> PathBuf {
        self.write(name, self.identity.to_string().expose_secret())
    }

    fn write_other_identity(&self, name: &str) -> PathBuf {
        self.write(name, x25519::Identity::generate().to_string().expose_secret())
    }

    fn credentials(&mut self) -> PathBuf {
        let directory = self.directory.path().join("credentials");
        fs::create_dir(&directory).unwrap();
        self.env.credentials_directory = Some(directory.clone());
        directory
    }

    fn load(&self) -> Result<Loaded, KeyFileError> {
        load(&self.source, &self.env)
    }

    fn opens(&self) {
        let loaded = self.load().unwrap();
        let Loaded::Open(opened) = loaded else { panic!("sealed") };
        assert_eq!(opened.expose_seed(), Some(&SEED));
    }
}

fn key() -> ConsensusKey {
    ConsensusKey::from_seed(&SEED)
}

#[test]
fn identity_beside_the_key_file_opens_it() {
    let setup = Setup::for_identity();
    setup.write_identity("consensus.key.identity");
    setup.opens();
}

#[test]
fn credential_comes_before_configured_file_before_the_default_place() {
    let mut setup = Setup::for_identity();
    let wrong = setup.write_other_identity("consensus.key.identity");
    assert_eq!(
        setup.load().unwrap_err(),
        KeyFileError::WrongIdentity { path: setup.source.path.clone(), identity: wrong }
    );

    let configured = setup.write_identity("configured");
    setup.source.identity_file = Some(configured.clone());
    setup.opens();

    fs::remove_file(&configured).unwrap();
    setup.write_other_identity("configured");
    setup.credentials();
    setup.write_identity("credentials/consensus");
    setup.opens();
}

#[test]
fn credential_that_does_not_open_the_file_is_not_passed_over() {
    let mut setup = Setup::for_identity();
    setup.write_identity("consensus.key.identity");
    setup.credentials();
    let wrong = setup.write_other_identity("credentials/consensus");
    assert_eq!(
        setup.load().unwrap_err(),
        KeyFileError::WrongIdentity { path: setup.source.path.clone(), identity: wrong }
    );
}

#[test]
fn credential_name_can_be_configured_and_leads_nowhere_else() {
    let mut setup = Setup::for_identity();
    setup.credentials();
    setup.write_identity("credentials/hub");
    setup.write_identity("outside");
    setup.source.credential = Some("hub".into());
    setup.opens();
    for name in ["../outside", "", ".", "..", "/etc/passwd"] {
        setup.source.credential = Some(name.into());
        assert_eq!(setup.load().unwrap_err(), KeyFileError::BadCredentialName);
    }
}

#[test]
fn credential_that_systemd_shares_by_acl_is_read() {
    let mut setup = Setup::for_identity();
    setup.credentials();
    let path = setup.write_identity("credentials/consensus");
    fs::set_permissions(&path, Permissions::from_mode(0o440)).unwrap();
    setup.opens();
}

#[test]
fn missing_identity_names_every_place() {
    let mut setup = Setup::for_identity();
    let text = setup.load().unwrap_err().to_string();
    for place in
        ["$CREDENTIALS_DIRECTORY is not set", "`identity_file`", "consensus.key.identity", "\nhint: "]
    {
        assert!(text.contains(place), "{place} in {text}");
    }
    let credentials = setup.credentials();
    let text = setup.load().unwrap_err().to_string();
    assert!(text.contains(&credentials.join("consensus").display().to_string()), "{text}");
}

#[test]
fn secrets_open_to_other_users_are_refused_wherever_they_are() {
    let mut setup = Setup::for_identity();
    let beside = setup.write_identity("consensus.key.identity");
    for path in [setup.source.path.clone(), beside.clone()] {
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let error = setup.load().unwrap_err();
        let exposed = |found: &PrivateFileError| matches!(found, PrivateFileError::Exposed { path: of, mode: 0o640, .. } if *of == path);
        assert!(matches!(&error, KeyFileError::File(found) if exposed(found)), "{error}");
        assert!(StartError::from(error).is_for_safety());
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    }
    let configured = setup.write_identity("configured");
    fs::set_permissions(&configured, Permissions::from_mode(0o604)).unwrap();
    setup.source.identity_file = Some(configured);
    assert!(matches!(setup.load(), Err(KeyFileError::File(PrivateFileError::Exposed { .. }))));
}

#[test]
fn configured_file_that_is_missing_is_an_error_even_with_an_identity_beside_the_key() {
    let mut setup = Setup::for_identity();
    setup.write_identity("consensus.key.identity");
    setup.source.identity_file = Some(setup.directory.path().join("none"));
    let KeyFileError::File(error) = setup.load().unwrap_err() else { panic!() };
    assert!(error.is_not_found());
}

#[test]
fn identity_files_may_hold_comments_and_several_identities() {
    let setup = Setup::for_identity();
    let other = x25519::Identity::generate().to_string();
    let own = setup.identity.to_string();
    let text = format!("# created: now\n\n{}\r\n  {}\n", other.expose_secret(), own.expose_secret());
    setup.write("consensus.key.identity", &text);
    setup.opens();
}

#[test]
fn other_text_in_an_identity_file_is_refused_by_its_line() {
    assert_eq!(parse_identities(b"# only a comment\n").err(), Some(0));
    assert_eq!(parse_identities(b"# a\nage1xyz\n").err(), Some(2));
    assert_eq!(parse_identities(b"\xff\n").err(), Some(1));
    let setup = Setup::for_identity();
    let path = setup.write("consensus.key.identity", "secret stuff");
    let error = setup.load().unwrap_err();
    assert_eq!(error, KeyFileError::BadIdentity { path, line: 1 });
    assert!(!error.to_string().contains("secret stuff"));
}

#[test]
fn passphrase_file_is_sealed_until_the_passphrase_comes() {
    let setup = Setup::with_passphrase();
    let Loaded::Sealed(sealed) = setup.load().unwrap() else { panic!("open") };
    assert_eq!(sealed.path(), setup.source.path);
    let error = sealed.unlock(SecretString::from("open sesam")).unwrap_err();
    assert_eq!(error, in_file(&setup.source.path, SealError::WrongPassphrase));
    let opened = sealed.unlock(SecretString::from("open sesame")).unwrap();
    assert_eq!(opened.public_key(), key().public_key());
}

#[test]
fn passphrase_comes_from_credential_or_configured_file() {
    let mut setup = Setup::with_passphrase();
    setup.source.passphrase_file = Some(setup.write("passphrase", "open sesame\n"));
    setup.opens();

    setup.source.passphrase_file = None;
    setup.credentials();
    setup.write("credentials/consensus", "open sesame");
    setup.opens();
}

#[test]
fn inherited_descriptor_gives_the_passphrase_whatever_its_permissions() {
    let mut setup = Setup::with_passphrase();
    let path = setup.write("passphrase", "open sesame\n");
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let file = fs::File::open(&path).unwrap();
    let descriptor = std::os::fd::AsRawFd::as_raw_fd(&file);
    setup.source.passphrase_file = Some(format!("/dev/fd/{descriptor}").into());
    setup.opens();
}

#[test]
fn wrong_or_unusable_passphrase_file_does_not_start_sealed() {
    let mut setup = Setup::with_passphrase();
    let wrong = setup.write("wrong", "open sesam");
    setup.source.passphrase_file = Some(wrong.clone());
    let path = setup.source.path.clone();
    assert_eq!(setup.load().unwrap_err(), KeyFileError::WrongPassphraseFile { path, passphrase: wrong });
    for (name, content) in [("empty", ""), ("line", "\n"), ("two", "open sesame\nopen sesame\n")] {
        let path = setup.write(name, content);
        setup.source.passphrase_file = Some(path.clone());
        assert_eq!(setup.load().unwrap_err(), KeyFileError::BadPassphrase { path });
    }
}

#[test]
fn setting_for_the_other_kind_of_key_file_is_refused() {
    let mut setup = Setup::for_identity();
    setup.write_identity("consensus.key.identity");
    setup.source.passphrase_file = Some("x".into());
    assert!(matches!(setup.load(), Err(KeyFileError::WrongSetting { setting: "passphrase_file", .. })));

    let mut setup = Setup::with_passphrase();
    setup.source.identity_file = Some("x".into());
    assert!(matches!(setup.load(), Err(KeyFileError::WrongSetting { setting: "identity_file", .. })));
}

#[test]
fn plain_file_needs_the_explicit_setting() {
    let mut setup = Setup::plain();
    assert_eq!(setup.load().unwrap_err(), KeyFileError::Plaintext { path: setup.source.path.clone() });
    setup.source.allow_plaintext = true;
    setup.opens();
    setup.source.key_format = Some(PlainFormat::Base64);
    setup.opens();
    setup.source.key_format = Some(PlainFormat::Json);
    assert!(matches!(
        setup.load(),
        Err(KeyFileError::Import { error: ImportKeyError::OtherFormat { .. }, .. })
    ));
}

#[test]
fn plain_file_open_to_other_users_is_refused_even_when_plain_is_allowed() {
    let mut setup = Setup::plain();
    setup.source.allow_plaintext = true;
    fs::set_permissions(&setup.source.path, Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(setup.load(), Err(KeyFileError::File(PrivateFileError::Exposed { .. }))));
}

#[test]
fn missing_key_file_is_named() {
    let setup = Setup::for_identity();
    fs::remove_file(&setup.source.path).unwrap();
    let text = setup.load().unwrap_err().to_string();
    assert!(text.contains(&setup.source.path.display().to_string()), "{text}");
}
