//! What is shown of a value that holds a secret, by `{:?}`, is not the secret: for every type that can be shown.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use data_encoding::{BASE64, HEXLOWER, HEXUPPER};
use ed25519_dalek::SigningKey;
use monosign_protocol::{ChainId, Height, noise, secret_connection};

use crate::backend::softsign::Softsign;
use crate::backend::softsign::key_file::{Protection, seal_with_work_factor};
use crate::backend::softsign::unlock::{KeySource, Loaded, UnlockEnv, load};
use crate::backend::{pkcs11, yubihsm};
use crate::config::Config;
use crate::consensus_key::ConsensusKey;
use crate::import::key::{parse_plain, to_tmkms_base64};
use crate::ops::private_file::create_private;
use crate::ops::secret_source::SecretSource;
use crate::seams::OsEntropy;
use crate::threshold::asked::Subject;
use crate::threshold::cosigner::{Effect, ShareJob, Ticket};
use crate::threshold::deal::deal;
use crate::threshold::group::Shape;
use crate::threshold::rounds::NonceMaker;

const SEED: [u8; 32] = [
    0x5a, 0x31, 0x7e, 0x90, 0xc4, 0x18, 0xd9, 0x63, 0x2b, 0xf5, 0x0e, 0x87, 0xa6, 0x4c, 0xb2, 0x1d, 0x93,
    0x78, 0xe1, 0x46, 0x3f, 0xda, 0x05, 0x6c, 0xbe, 0x27, 0x81, 0xf4, 0x59, 0xc0, 0x3a, 0xe7,
];
const PASSWORD: &str = "Hq7-wZ2xK9vTr4Lp";

/// The types that are tried below, by themselves or in another.
const TRIED: [&str; 23] = [
    "Settings",
    "SecretSource",
    "YubihsmProvider",
    "Pkcs11Provider",
    "YubihsmAuth",
    "ConsensusKey",
    "ParsedKey",
    "Softsign",
    "Loaded",
    "SealedKey",
    "Share",
    "Dealt",
    "ShareJob",
    "Effect",
    "Handshake",
    "Established",
    "Entropy",
    "Sealer",
    "Opener",
    "Config",
    "ChainConfig",
    "KeyConfig",
    "DeviceKey",
];

/// The name of what holds a secret, in the declaration of a type.
const SECRETS: [&str; 19] = [
    "SecretString",
    "SecretSource",
    "Zeroizing",
    "SigningKey",
    "SigningNonces",
    "SigningShare",
    "KeyPackage",
    "SecretShare",
    "x25519::Identity",
    "StaticSecret",
    "ExpandedSecretKey",
    "ConsensusKey",
    "SealedKey",
    "ChaCha20Poly1305",
    "HandshakeState",
    "TransportState",
    "<Share>",
    "ShareJob",
    "Sealer,",
];

#[test]
fn no_secret_is_shown() {
    let dir = tempfile::tempdir().expect("a directory");
    let key = || ConsensusKey::from_seed(&SEED);
    let seed: &[u8] = &SEED;
    shows("a key", &key(), seed);
    shows("a key to sign with", &Softsign::new(key()), seed);
    let base64 = to_tmkms_base64(&key());
    shows("a key that was read", &parse_plain(base64.as_bytes(), None).expect("a key"), seed);

    // Open, and sealed.
    let path = dir.path().join("key");
    create_private(&path, base64.as_bytes()).expect("written");
    let mut source = KeySource { path, allow_plaintext: true, ..KeySource::default() };
    let open = load(&source, &UnlockEnv::default()).expect("a key");
    assert!(matches!(open, Loaded::Open(_)));
    shows("an opened key", &open, seed);
    source.path = dir.path().join("sealed");
    let protection = Protection::Passphrase(PASSWORD.into());
    let sealed = seal_with_work_factor(&key(), &protection, 2).expect("sealed");
    create_private(&source.path, sealed.as_bytes()).expect("written");
    let sealed = load(&source, &UnlockEnv::default()).expect("a key");
    assert!(matches!(sealed, Loaded::Sealed(_)));
    shows("a sealed key", &sealed, seed);

    // Passwords and PINs.
    let inline = SecretSource::Inline(PASSWORD.into());
    shows("a password", &inline, PASSWORD.as_bytes());
    let adapter = yubihsm::Adapter::Usb;
    let (timeout, password) = (yubihsm::TIMEOUT, PASSWORD.into());
    let settings = yubihsm::Settings { adapter, timeout, serial: None, auth_key: 4, password };
    shows("a device", &settings, PASSWORD.as_bytes());
    let settings = pkcs11::Settings {
        module: "/lib/x.so".into(),
        token_label: "val".into(),
        pin: PASSWORD.into(),
        keys: Vec::new(),
        timeout,
    };
    shows("a token", &settings, PASSWORD.as_bytes());
    let config = format!(
        "[[chain]]\nid = \"a\"\n[[providers.yubihsm]]\nadapter = {{ type = \"usb\" }}\nauth = {{ key = 4, password = \"{PASSWORD}\" }}\n\
         keys = [{{ chain_ids = [\"a\"], key = 1 }}]\n"
    );
    let config = Config::parse(&config, Path::new("x.toml")).expect("a configuration");
    shows("a configuration", &config, PASSWORD.as_bytes());

    // A group.
    let (chain, shape) = ("a".parse::<ChainId>().expect("an id"), Shape::new(2, 3).expect("allowed"));
    let dealt = deal(&key(), &chain, shape, Height(1), &OsEntropy).expect("dealt");
    for share in &dealt.shares {
        let package = share.key_package(&dealt.group).expect("a share of the group");
        let secret = package.signing_share().serialize();
        for (what, value) in [("a share", share as &dyn Debug), ("a key package", &package), ("all", &dealt)]
        {
            shows(what, value, &secret);
            shows(what, value, share.identity().as_bytes());
        }
        let (nonces, public) = NonceMaker::new(package, Rc::new(OsEntropy)).fresh();
        let secrets = [nonces.hiding().serialize(), nonces.binding().serialize()];
        let job = ShareJob {
            ticket: Ticket::Own { session: 1 },
            subject: Subject::Drill([0; 16]),
            commitments: [(share.id(), public)].into(),
            nonces,
        };
        let effect = Effect::Share(Box::new(job));
        secrets.iter().for_each(|secret| shows("nonces", &effect, secret));
    }

    // Connections.
    let identity = SigningKey::from_bytes(&SEED);
    let ephemeral = SEED.map(|byte| byte ^ 0x55);
    let handshake = secret_connection::Handshake::new(&identity, ephemeral);
    let entropy = noise::Entropy { static_key: SEED, ephemeral };
    for secret in [seed, &ephemeral] {
        shows("a handshake", &handshake, secret);
        shows("its entropy", &entropy, secret);
    }
    // Their keys come of the handshake and are nobody's to see.
    let (mut one, mut another) = (handshake, secret_connection::Handshake::new(&identity, SEED));
    while let (Some(ours), Some(theirs)) = (one.poll_transmit(), another.poll_transmit()) {
        let _ = (one.handle(&theirs).expect("theirs"), another.handle(&ours).expect("ours"));
    }
    let secret_connection = one.established().expect("established");
    let id = noise::PeerId::from(&identity.verifying_key());
    let mut one = noise::Handshake::initiator(&identity, id, entropy);
    let theirs = noise::Entropy { static_key: ephemeral, ephemeral: SEED };
    let mut another = noise::Handshake::responder(&identity, Some(id), theirs);
    shows("a handshake", &one, seed);
    while !(one.is_established() && another.is_established()) {
        if let Some(ours) = one.poll_transmit() {
            another.handle(&ours).expect("ours");
        }
        if let Some(theirs) = another.poll_transmit() {
            one.handle(&theirs).expect("theirs");
        }
    }
    let noise = one.established().expect("established");
    for shown in [format!("{secret_connection:?}"), format!("{noise:?}")] {
        for part in ["sealer: Sealer { .. }", "opener: Opener { .. }"] {
            assert!(shown.contains(part), "{shown}");
        }
    }
}

/// Not in any form that bytes are shown in.
#[track_caller]
fn shows(what: &str, value: &dyn Debug, secret: &[u8]) {
    let text = std::str::from_utf8(secret).unwrap_or_default().to_owned();
    let list = format!("{secret:?}");
    let numbers: Vec<_> = list.trim_matches(['[', ']']).split(", ").collect();
    let mut parts: BTreeSet<String> = numbers.windows(4).map(|four| four.join(", ")).collect();
    for form in [text, BASE64.encode(secret), HEXLOWER.encode(secret), HEXUPPER.encode(secret)] {
        let chars: Vec<_> = form.chars().collect();
        parts.extend(chars.windows(8).map(|part| part.iter().collect::<String>()));
    }
    for shown in [format!("{value:?}"), format!("{value:#?}").replace(",\n", ", ").replace("  ", "")] {
        if let Some(part) = parts.iter().find(|part| shown.contains(*part)) {
            panic!("{what} shows `{part}` of its secret: {shown}");
        }
    }
}

/// Of our own crates, so that a new one is not forgotten.
#[test]
fn every_type_with_a_secret_that_can_be_shown_is_tried() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    sources(&root.join("../protocol/src"), &mut files);
    let mut found = BTreeSet::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a source");
        found.extend(shown_with_a_secret(&text));
    }
    assert!(found.contains("ShareJob") && found.contains("SecretSource"), "{found:?}");
    let forgotten: Vec<_> = found.iter().filter(|name| !TRIED.contains(&name.as_str())).collect();
    assert!(forgotten.is_empty(), "show one in no_secret_is_shown, and name it in TRIED: {forgotten:?}");
}

fn sources(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        let is_a_test = path.file_stem().is_some_and(|name| name == "tests");
        if path.is_dir() && !is_a_test {
            sources(&path, files);
        } else if path.extension().is_some_and(|kind| kind == "rs") && !is_a_test {
            files.push(path);
        }
    }
}

/// The names of a file's types that hold a secret and have a `Debug`.
fn shown_with_a_secret(text: &str) -> Vec<String> {
    let lines: Vec<_> = text.lines().collect();
    let mut names = Vec::new();
    for (n, line) in lines.iter().enumerate() {
        let mut words = line.split_whitespace().skip_while(|word| word.starts_with("pub"));
        if line.starts_with(' ') || !matches!(words.next(), Some("struct" | "enum")) {
            continue;
        }
        let name = words.next().unwrap_or_default().split(['<', '(', '{', ';']).next().unwrap_or_default();
        let end = lines[n..].iter().position(|line| *line == "}" || line.ends_with(';')).unwrap_or_default();
        let body = lines[n..=n + end].join("\n").replace("PublicKeyPackage", "");
        let derives = lines[..n].iter().rev().take_while(|line| line.starts_with(['#', '/']));
        let is_shown = derives.clone().any(|line| line.contains("derive(") && line.contains("Debug"))
            || text.contains(&format!("Debug for {name} "));
        if is_shown && SECRETS.iter().any(|secret| body.contains(secret)) {
            names.push(name.to_owned());
        }
    }
    names
}
