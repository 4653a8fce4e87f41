use ed25519_dalek::SigningKey;
use sha2::{Digest, Sha512};

use super::*;
use crate::import::vectors::{self, text};

const SEED: [u8; 32] = [9; 32];

fn key_json() -> String {
    let key = ConsensusKey::from_seed(&SEED);
    format!(
        r#"{{"address":"{}","pub_key":{},"priv_key":{{"type":"tendermint/PrivKeyEd25519","value":"{}"}}}}"#,
        key.public_key().address(),
        key.public_key().to_cometbft_json(),
        BASE64.encode(&SigningKey::from_bytes(&SEED).to_keypair_bytes()),
    )
}

fn expanded() -> [u8; 64] {
    let mut expanded: [u8; 64] = Sha512::digest(SEED).into();
    expanded[0] &= 248;
    expanded[31] &= 127;
    expanded[31] |= 64;
    expanded
}

fn refusal(content: &str) -> ImportKeyError {
    parse_plain(content.as_bytes(), None).unwrap_err()
}

#[test]
fn vectors_ed25519_key_files_give_seed_and_public_key() {
    let mut seen = 0;
    for vector in vectors::files() {
        let Some(seed) = vector["key_seed"].as_str() else { continue };
        let parsed = parse_plain(text(&vector, "priv_validator_key.json").as_bytes(), None).unwrap();
        assert_eq!(data_encoding::HEXLOWER.encode(parsed.key.expose_seed().unwrap()), seed);
        assert_eq!(parsed.form, KeyForm::CometBftJson);
        if let Some(public_key) = vector["pub_key"].as_str() {
            assert_eq!(parsed.key.public_key().to_string(), public_key);
        }
        if let Some(address) = vector["address"].as_str() {
            assert_eq!(parsed.key.public_key().address().to_string(), address);
        }
        seen += 1;
    }
    assert!(seen > 0, "no ed25519 vector");
}

#[test]
fn vectors_key_files_of_other_types_are_refused_by_name() {
    for vector in vectors::files() {
        let Some(key_type) = vector["key_type"].as_str() else { continue };
        let error = refusal(text(&vector, "priv_validator_key.json"));
        let ImportKeyError::UnsupportedType { scheme } = error else { panic!("{key_type}: {error}") };
        assert_eq!(scheme, key_type.replace("bls12_381", "bls12381").replace("ml_dsa_65", "mldsa65"));
    }
}

#[test]
fn says_which_field_of_the_key_file_is_wrong() {
    let good = key_json();
    assert!(parse_plain(good.as_bytes(), Some(PlainFormat::Json)).is_ok());

    let key = *ConsensusKey::from_seed(&SEED).public_key();
    let other = *ConsensusKey::from_seed(&[1; 32]).public_key();
    let address = good.replace(&key.address().to_string(), &other.address().to_string());
    assert_eq!(refusal(&address), ImportKeyError::AddressDisagrees { belongs: key.address() });
    let public_key = good.replace(&key.to_base64(), &other.to_base64());
    assert_eq!(refusal(&public_key), ImportKeyError::PublicKeyDisagrees { belongs: key });

    let pair = SigningKey::from_bytes(&SEED).to_keypair_bytes();
    let mut damaged = pair;
    damaged[3] ^= 1;
    let seed = good.replace(&BASE64.encode(&pair), &BASE64.encode(&damaged));
    assert_eq!(refusal(&seed), ImportKeyError::SeedAndPublicKeyDisagree);
    let short = good.replace(&BASE64.encode(&pair), &BASE64.encode(&SEED));
    assert_eq!(refusal(&short), ImportKeyError::BadPrivateKeyLength { length: 32 });
}

#[test]
fn an_address_in_lower_case_and_fields_that_nodes_fill_in_themselves_are_no_fault() {
    let (good, key) = (key_json(), *ConsensusKey::from_seed(&SEED).public_key());
    let address = key.address().to_string();
    let pub_key = format!(r#""pub_key":{},"#, key.to_cometbft_json());
    for content in [
        good.replace(&address, &address.to_lowercase()),
        good.replace(&format!(r#""address":"{address}","#), ""),
        good.replace(&pub_key, ""),
        good.replace('/', "\\/"),
    ] {
        let parsed = parse_plain(content.as_bytes(), None).expect(&content);
        assert_eq!((parsed.key.public_key(), parsed.unread.len()), (&key, 0), "{content}");
    }
}

#[test]
fn fields_of_others_are_named_and_left_alone() {
    let content = key_json()
        .replace("}}", r#"},"bls_priv_key":"a2s=","bls_pub_key":[1],"x y":null,"acc_address":"bbn1"}"#);
    let parsed = parse_plain(content.as_bytes(), None).unwrap();
    assert_eq!(parsed.unread, ["bls_priv_key", "bls_pub_key", "…", "acc_address"]);
}

#[test]
fn says_which_field_is_missing_or_of_another_kind() {
    let (good, key) = (key_json(), ConsensusKey::from_seed(&SEED));
    let pair = BASE64.encode(&SigningKey::from_bytes(&SEED).to_keypair_bytes());
    for (content, told) in [
        (good.replace("\"priv_key\"", "\"private_key\""), "`priv_key` is missing"),
        (good.replace("\"value\":", "\"values\":"), "`priv_key.value` is missing"),
        (good.replace("\"type\":\"tendermint/PubKeyEd25519\",", ""), "`pub_key.type` is missing"),
        (good.replace(&format!("\"{pair}\""), "7"), "`priv_key.value` is no text"),
        (good.replace(&format!("\"{}\"", key.public_key().address()), "7"), "`address` is no text"),
        (good.replace("\"address\"", "\"priv_key\""), "a field stands there twice at line 1 column"),
        (format!("[{good}]").replace('[', "{\"a\":").replace(']', "}"), "`priv_key` is missing"),
        (good[..good.len() - 1].to_owned(), "EOF while parsing an object at line 1"),
    ] {
        let error = refusal(&content).to_string();
        assert!(error.contains(told) && error.contains("\nhint: "), "{content}: {error}");
    }
}

#[test]
fn shards_of_horcrux_are_named_with_what_to_do() {
    for shard in [
        r#"{"pubKey": "Qeoz", "privateShard": "3zWY", "id": 1}"#,
        r#"{"pub_key":"Qeoz","secret_share":"3zWY","rsa_key":{},"id":1,"rsa_pubs":[]}"#,
        r#"{"eciesKey":"3zWY","eciesPubs":[],"id":1}"#,
    ] {
        assert_eq!(refusal(shard), ImportKeyError::HorcruxShard);
    }
    let told = ImportKeyError::HorcruxShard.to_string();
    assert!(told.contains("priv_validator_key.json") && told.contains("go on with Horcrux"), "{told}");
}

#[test]
fn hex_is_read_where_it_proves_itself_and_otherwise_named() {
    use data_encoding::{HEXLOWER, HEXUPPER};
    let pair = SigningKey::from_bytes(&SEED).to_keypair_bytes();
    for text in [HEXLOWER.encode(&pair), HEXUPPER.encode(&pair) + "\n"] {
        for parsed in [parse_plain(text.as_bytes(), None), parse_hex(text.as_bytes())] {
            let parsed = parsed.unwrap();
            assert_eq!((parsed.key.expose_seed(), parsed.form), (Some(&SEED), KeyForm::Hex));
        }
    }
    let seed = HEXLOWER.encode(&SEED);
    assert_eq!(refusal(&seed), ImportKeyError::LooksLikeHex);
    assert_eq!(parse_hex(seed.as_bytes()).unwrap().key.expose_seed(), Some(&SEED));
    assert_eq!(refusal(&HEXLOWER.encode(&[7; 64])), ImportKeyError::AmbiguousExpanded);
    assert_eq!(parse_hex(b"abc").unwrap_err(), ImportKeyError::BadHex);
}

#[test]
fn refuses_garbage_without_quoting_it() {
    let good = key_json();
    let secret = BASE64.encode(&SigningKey::from_bytes(&SEED).to_keypair_bytes());
    let bad = [
        String::new(),
        "{}".into(),
        "not a key".into(),
        format!("{good}x"),
        good.replace("{\"type\":\"tendermint/PrivKeyEd25519\",\"value\":", "").replace("\"}}", "\"}"),
        good.replace("tendermint/PrivKeyEd25519", &secret),
        good[..good.len() - 9].into(),
        good.replace("\"priv_key\"", "\"pub_key\""),
    ];
    for content in bad {
        let error = refusal(&content).to_string();
        assert!(!error.contains(&secret[..16]), "{error}");
        assert!(error.contains("\nhint: "), "{error}");
    }
}

#[test]
fn reads_a_seed_with_or_without_a_line_end() {
    for text in [BASE64.encode(&SEED), format!("{}\n", BASE64.encode(&SEED))] {
        let parsed = parse_tmkms_base64(text.as_bytes()).unwrap();
        assert_eq!((parsed.key.expose_seed(), parsed.form), (Some(&SEED), KeyForm::Seed));
    }
}

#[test]
fn reads_seed_and_public_key_as_the_seed_and_never_as_expanded() {
    let text = BASE64.encode(&SigningKey::from_bytes(&SEED).to_keypair_bytes());
    let parsed = parse_tmkms_base64(text.as_bytes()).unwrap();
    assert_eq!((parsed.key.expose_seed(), parsed.form), (Some(&SEED), KeyForm::SeedAndPublicKey));

    let public_key = *ConsensusKey::from_seed(&SEED).public_key();
    let error = parse_tmkms_base64_expanded(text.as_bytes(), &public_key).unwrap_err();
    assert_eq!(error, ImportKeyError::Expanded(ExpandedKeyError::SeedAndPublicKey));
}

#[test]
fn takes_an_expanded_secret_only_when_told_so_with_its_public_key() {
    let text = BASE64.encode(&expanded());
    assert_eq!(refusal(&text), ImportKeyError::AmbiguousExpanded);

    let public_key = *ConsensusKey::from_seed(&SEED).public_key();
    let parsed = parse_tmkms_base64_expanded(text.as_bytes(), &public_key).unwrap();
    assert_eq!((parsed.key.expose_expanded(), parsed.form), (Some(&expanded()), KeyForm::Expanded));

    let other = *ConsensusKey::from_seed(&[1; 32]).public_key();
    let error = parse_tmkms_base64_expanded(text.as_bytes(), &other).unwrap_err();
    assert_eq!(error, ImportKeyError::Expanded(ExpandedKeyError::OtherPublicKey { belongs: public_key }));
}

#[test]
fn a_key_without_a_seed_is_written_as_yubihsm_export_and_read_back() {
    let public_key = *ConsensusKey::from_seed(&SEED).public_key();
    let key = ConsensusKey::from_expanded(&expanded(), &public_key).unwrap();
    let text = to_tmkms_base64(&key);
    let mut bytes = BASE64.decode(text.as_bytes()).unwrap();
    assert_eq!(bytes[31], expanded()[0], "the scalar is reversed");

    let parsed = parse_tmkms_base64(text.as_bytes()).unwrap();
    assert_eq!((parsed.key.expose_expanded(), parsed.form), (Some(&expanded()), KeyForm::YubiHsmExport));

    bytes[95] ^= 1;
    assert!(matches!(refusal(&BASE64.encode(&bytes)), ImportKeyError::Expanded(_)), "tmkms would take it");
}

#[test]
fn a_seed_is_written_as_tmkms_writes_it() {
    assert_eq!(*to_tmkms_base64(&ConsensusKey::from_seed(&SEED)), BASE64.encode(&SEED));
}

#[test]
fn refuses_other_lengths_and_a_format_that_is_not_the_given_one() {
    for length in [0, 1, 31, 33, 63, 65, 95, 97] {
        let error = parse_tmkms_base64(BASE64.encode(&vec![1; length]).as_bytes()).unwrap_err();
        assert_eq!(error, ImportKeyError::BadLength { length });
    }
    let error = parse_plain(key_json().as_bytes(), Some(PlainFormat::Base64)).unwrap_err();
    assert_eq!(error, ImportKeyError::OtherFormat { given: "base64", found: "json" });
}
