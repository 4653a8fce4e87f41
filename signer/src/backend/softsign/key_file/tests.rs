use secrecy::ExposeSecret;
use sha2::{Digest, Sha512};

use super::*;

/// Fast enough for tests; the public path never goes this low.
const TEST_WORK_FACTOR: u8 = 4;
const SEED: [u8; 32] = [7; 32];

fn key() -> ConsensusKey {
    ConsensusKey::from_seed(&SEED)
}

fn passphrase(text: &str) -> SecretString {
    SecretString::from(text)
}

fn sealed_to(identity: &x25519::Identity) -> String {
    seal(&key(), &Protection::Recipients(vec![identity.to_public()])).unwrap()
}

fn sealed_with(text: &str) -> String {
    seal_with_work_factor(&key(), &Protection::Passphrase(passphrase(text)), TEST_WORK_FACTOR).unwrap()
}

/// Any content, encrypted as a key file.
fn sealed_content(content: &str, identity: &x25519::Identity) -> String {
    encrypt(std::iter::once(&identity.to_public() as &dyn Recipient), content.as_bytes()).unwrap()
}

fn binary(armored: &str) -> Vec<u8> {
    let body: String = armored.lines().filter(|line| !line.starts_with("-----")).collect();
    BASE64.decode(body.as_bytes()).unwrap()
}

#[test]
fn opens_with_any_of_its_identities_armored_or_binary() {
    let identities = [x25519::Identity::generate(), x25519::Identity::generate()];
    let recipients = identities.iter().map(x25519::Identity::to_public).collect();
    let file = seal(&key(), &Protection::Recipients(recipients)).unwrap();
    assert_eq!(recognise(file.as_bytes()), Ok(KeyFileForm::Identity));
    assert_eq!(recognise(&binary(&file)), Ok(KeyFileForm::Identity));
    for identity in identities {
        for content in [file.as_bytes(), &binary(&file)] {
            let opened = open_with_identities(content, std::slice::from_ref(&identity)).unwrap();
            assert_eq!(opened.expose_seed(), Some(&SEED));
        }
    }
}

#[test]
fn opens_with_its_passphrase_only() {
    let file = sealed_with("correct horse");
    assert_eq!(recognise(file.as_bytes()), Ok(KeyFileForm::Passphrase));
    let opened = open_with_passphrase(file.as_bytes(), passphrase("correct horse")).unwrap();
    assert_eq!(opened.public_key(), key().public_key());
    let error = open_with_passphrase(file.as_bytes(), passphrase("correct horsf")).unwrap_err();
    assert_eq!(error, SealError::WrongPassphrase);
}

#[test]
fn key_without_a_seed_survives_the_file() {
    let expanded: [u8; 64] = Sha512::digest(SEED).into();
    let expanded = ConsensusKey::from_expanded(&expanded, key().public_key()).unwrap();
    let identity = x25519::Identity::generate();
    let file = seal(&expanded, &Protection::Recipients(vec![identity.to_public()])).unwrap();
    let opened = open_with_identities(file.as_bytes(), &[identity]).unwrap();
    assert_eq!(opened.expose_expanded(), expanded.expose_expanded());
    assert_eq!(opened.public_key(), key().public_key());
}

#[test]
fn passphrase_files_are_written_with_work_factor_18() {
    let file = seal(&key(), &Protection::Passphrase(passphrase("x"))).unwrap();
    let header = String::from_utf8_lossy(&binary(&file)).into_owned();
    let mut lines = header.lines();
    assert_eq!(lines.next(), Some("age-encryption.org/v1"));
    let stanza = lines.next().unwrap();
    assert!(stanza.starts_with("-> scrypt ") && stanza.ends_with(" 18"), "{stanza}");
}

#[test]
fn work_beyond_a_gibibyte_is_refused_without_doing_it() {
    // The header of a real file with its work factor raised: the check comes before the work and before the MAC.
    let raised = binary(&sealed_with("x"));
    let at = raised.windows(3).position(|bytes| bytes == b" 4\n").unwrap();
    let raised = [&raised[..at], b" 21\n", &raised[at + 3..]].concat();
    let error = open_with_passphrase(&raised, passphrase("x")).unwrap_err();
    assert_eq!(error, SealError::ExcessiveWork { required: 21 });
}

#[test]
fn wrong_identity_is_told_from_damage() {
    let identity = x25519::Identity::generate();
    let file = sealed_to(&identity);
    let other = x25519::Identity::generate();
    assert_eq!(open_with_identities(file.as_bytes(), &[other]).unwrap_err(), SealError::WrongIdentity);

    let good = binary(&file);
    let payload = good.len() - 20;
    for at in [payload, good.len() - 1] {
        let mut damaged = good.clone();
        damaged[at] ^= 1;
        let error = open_with_identities(&damaged, std::slice::from_ref(&identity)).unwrap_err();
        assert_eq!(error, SealError::Damaged, "byte {at} of {}", good.len());
    }
}

#[test]
fn no_damage_anywhere_goes_unnoticed() {
    let identity = x25519::Identity::generate();
    let good = binary(&sealed_to(&identity));
    for at in 0..good.len() {
        let mut damaged = good.clone();
        damaged[at] ^= 4;
        assert!(open_with_identities(&damaged, std::slice::from_ref(&identity)).is_err(), "byte {at}");
        assert!(open_with_identities(&good[..at], std::slice::from_ref(&identity)).is_err(), "cut at {at}");
    }
}

#[test]
fn refuses_content_that_is_no_key_or_belongs_to_another() {
    let identity = x25519::Identity::generate();
    let open = |content: &str| {
        let file = sealed_content(content, &identity);
        open_with_identities(file.as_bytes(), std::slice::from_ref(&identity)).unwrap_err()
    };
    let good = to_json(&key());
    let other = ConsensusKey::from_seed(&[8; 32]);
    let public_key = good.replace(&key().public_key().to_base64(), &other.public_key().to_base64());
    assert_eq!(open(&public_key), SealError::PublicKeyDisagrees);
    assert_eq!(open(&good.replace(":1,", ":2,")), SealError::NewerVersion { version: 2 });
    for bad in [
        String::new(),
        "AAAA".into(),
        good.replace("ed25519", "secp256k1"),
        good.replace("\"seed\"", "\"expanded\""),
        good.replace("BwcH", ""),
        good.replace("BwcH", "BwcHBwcHBwcHBwcHBwcH"),
        good.replace("BwcH", "!!!!"),
        format!("{}{}", *good, *good),
        "x".repeat(MAX_CONTENT + 1),
    ] {
        assert_eq!(open(&bad), SealError::BadContent, "{bad}");
    }
}

#[test]
fn no_error_shows_the_secret() {
    let identity = x25519::Identity::generate();
    let content = to_json(&key()).replace("\"ed25519\"", "7");
    let file = sealed_content(&content, &identity);
    let error = open_with_identities(file.as_bytes(), &[identity]).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("BwcH"));
}

#[test]
fn needs_a_recipient() {
    assert_eq!(seal(&key(), &Protection::Recipients(Vec::new())).unwrap_err(), SealError::NoRecipient);
}

#[test]
fn recognises_plain_files_and_refuses_garbage() {
    assert_eq!(recognise(b"{}"), Ok(KeyFileForm::Plain(PlainFormat::Json)));
    assert_eq!(recognise(b"AAAA\n"), Ok(KeyFileForm::Plain(PlainFormat::Base64)));
    for bad in [&b""[..], b"\0\0\0", b"-----BEGIN PRIVATE KEY-----"] {
        assert_eq!(recognise(bad), Err(SealError::Unrecognised));
    }
    let newer = include_bytes!("../../../../testdata/age/binary.age");
    let newer = [b"age-encryption.org/v9", &newer[21..]].concat();
    assert_eq!(recognise(&newer), Err(SealError::UnknownAgeVersion));
}

/// Files made by the `age` program: see `testdata/age/README.md`.
#[test]
fn opens_files_that_the_age_program_encrypted() {
    let identity = include_str!("../../../../testdata/age/identity.txt");
    let identities = super::super::unlock::parse_identities(identity.as_bytes()).unwrap();
    for file in [
        &include_bytes!("../../../../testdata/age/armored.age")[..],
        include_bytes!("../../../../testdata/age/binary.age"),
    ] {
        let opened = open_with_identities(file, &identities).unwrap();
        assert_eq!(opened.public_key(), key().public_key());
    }
    let file = include_bytes!("../../../../testdata/age/passphrase.age");
    let opened = open_with_passphrase(file, passphrase("correct horse battery")).unwrap();
    assert_eq!(opened.expose_seed(), Some(&SEED));
}

#[test]
fn identity_has_the_form_of_the_age_program() {
    let text = x25519::Identity::generate().to_string();
    assert!(text.expose_secret().starts_with("AGE-SECRET-KEY-1"));
}
