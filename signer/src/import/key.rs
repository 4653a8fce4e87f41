//! Consensus keys as CometBFT and tmkms keep them.
//!
//! CometBFT's `FilePV` recomputes address and public key from the private key on load and so hides a damaged or
//! mixed-up file (CometBFT v0.38 `privval/file.go`, `loadFilePV`). Here every field that is there must agree,
//! and the
//! error says which one does not. What others have added to the file is left alone, and named.

use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use serde::Deserialize;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::consensus_key::{ConsensusKey, ExpandedKeyError, seed_of_pair};
use crate::ops::redact;
use crate::pubkey::{Address, PublicKey};
use json::Json;

mod json;

/// The encodings of a plain key file, by tmkms's names in `key_format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlainFormat {
    /// CometBFT's `priv_validator_key.json`.
    Json,
    /// tmkms's base64 of a seed, or of what a YubiHSM exports.
    Base64,
}

impl PlainFormat {
    /// Recognises the encoding by its first character. `None` if the content is neither.
    pub fn recognise(content: &[u8]) -> Option<Self> {
        let text = content.trim_ascii();
        match text.first()? {
            b'{' => Some(Self::Json),
            _ if text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(byte)) => {
                Some(Self::Base64)
            }
            _ => None,
        }
    }

    /// The name of the encoding, as in `key_format`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Base64 => "base64",
        }
    }
}

/// A key that was read, and the form it was found in.
#[derive(Debug)]
pub struct ParsedKey {
    /// The key.
    pub key: ConsensusKey,
    /// What it was read from.
    pub form: KeyForm,
    /// The fields of the file that were not read, by their names: another key, for instance.
    pub unread: Vec<String>,
}

impl ParsedKey {
    fn new(key: ConsensusKey, form: KeyForm) -> Self {
        Self { key, form, unread: Vec::new() }
    }
}

/// The forms in which keys are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyForm {
    /// CometBFT's `priv_validator_key.json`.
    CometBftJson,
    /// 32 bytes in base64: a seed, as tmkms writes it.
    Seed,
    /// 64 bytes in base64 that are a seed and its public key: the value out of CometBFT's JSON. tmkms reads such a
    /// file as an expanded secret, that is as **another key**.
    SeedAndPublicKey,
    /// 64 bytes in base64 that are an expanded secret.
    Expanded,
    /// 96 bytes in base64: what tmkms takes from a YubiHSM.
    YubiHsmExport,
    /// 64 hex digits of a seed, or 128 of a seed and its public key.
    Hex,
}

/// Reads a key in the encoding given, or in the one its content shows.
///
/// # Errors
/// As [`parse_cometbft_json`] and [`parse_tmkms_base64`], and if the content is neither or is not what was given.
pub fn parse_plain(content: &[u8], format: Option<PlainFormat>) -> Result<ParsedKey, ImportKeyError> {
    if let Some(bytes) = hex_bytes(content).filter(|_| format != Some(PlainFormat::Json)) {
        return parse_bare_hex(&bytes);
    }
    let found = PlainFormat::recognise(content).ok_or(ImportKeyError::Unrecognised)?;
    match format {
        Some(given) if given != found => {
            Err(ImportKeyError::OtherFormat { given: given.name(), found: found.name() })
        }
        _ if found == PlainFormat::Json => parse_cometbft_json(content),
        _ => parse_tmkms_base64(content),
    }
}

/// Reads CometBFT's `priv_validator_key.json`.
///
/// `address` and `pub_key` may be missing, as for CometBFT itself: the private key has its public key in it.
///
/// # Errors
/// If it is not that file, if the key is of a type that this signer does not sign with, or if private key, public
/// key and address do not belong together.
pub fn parse_cometbft_json(content: &[u8]) -> Result<ParsedKey, ImportKeyError> {
    let file: Json<'_> =
        serde_json::from_slice(content).map_err(|error| ImportKeyError::bad_json(content, &error))?;
    if !matches!(file, Json::Object(_)) {
        return Err(ImportKeyError::BadField { field: "the file", what: "is no JSON object" });
    }
    if HORCRUX.iter().any(|name| file.field(name).is_some()) {
        return Err(ImportKeyError::HorcruxShard);
    }
    let priv_key = required(&file, "priv_key")?;
    let pub_key = file.field("pub_key");
    check_type(typed(priv_key, &PRIV_KEY)?.0, "PrivKey")?;
    if let Some(pub_key) = pub_key {
        check_type(typed(pub_key, &PUB_KEY)?.0, "PubKey")?;
    }

    let pair = decode_base64(typed(priv_key, &PRIV_KEY)?.1.as_bytes())
        .ok_or(ImportKeyError::BadBase64 { field: "priv_key" })?;
    let pair: &[u8; 64] =
        pair.as_slice().try_into().map_err(|_| ImportKeyError::BadPrivateKeyLength { length: pair.len() })?;
    let seed = seed_of_pair(pair).ok_or(ImportKeyError::SeedAndPublicKeyDisagree)?;
    let key = ConsensusKey::from_seed(seed);
    let public_key = *key.public_key();

    if let Some(pub_key) = pub_key {
        let claimed = BASE64.decode(typed(pub_key, &PUB_KEY)?.1.as_bytes()).ok();
        if claimed.as_deref() != Some(public_key.as_bytes()) {
            return Err(ImportKeyError::PublicKeyDisagrees { belongs: public_key });
        }
    }
    if let Some(address) = file.field("address") {
        let address = address.text();
        let address = address.ok_or(ImportKeyError::BadField { field: "`address`", what: "is no text" })?;
        // CometBFT writes upper case, and reads both (v0.38 `libs/bytes/bytes.go`, `HexBytes`).
        if !address.eq_ignore_ascii_case(&public_key.address().to_string()) {
            return Err(ImportKeyError::AddressDisagrees { belongs: public_key.address() });
        }
    }
    let unread = file.names().filter(|name| !["address", "pub_key", "priv_key"].contains(name));
    let unread = unread.map(|name| if redact::is_name(name) { name } else { "…" }.to_owned()).collect();
    Ok(ParsedKey { key, form: KeyForm::CometBftJson, unread })
}

/// What only Horcrux's files have: shards of a key since v3 and before, and the keys of its own connections.
const HORCRUX: [&str; 6] = ["privateShard", "secret_share", "rsaKey", "rsa_key", "eciesKey", "eciesPubs"];

/// What a typed value of Amino's JSON is called in errors: itself, its type and its value.
type Names = [&'static str; 3];
const PRIV_KEY: Names = ["`priv_key`", "`priv_key.type`", "`priv_key.value`"];
const PUB_KEY: Names = ["`pub_key`", "`pub_key.type`", "`pub_key.value`"];

fn required<'j, 'a>(file: &'j Json<'a>, name: &'static str) -> Result<&'j Json<'a>, ImportKeyError> {
    file.field(name).ok_or(ImportKeyError::NoPrivateKey)
}

/// Type and value.
fn typed<'j>(value: &'j Json<'_>, names: &Names) -> Result<(&'j str, &'j str), ImportKeyError> {
    if !matches!(value, Json::Object(_)) {
        return Err(ImportKeyError::BadField {
            field: names[0],
            what: "is no object with `type` and `value`",
        });
    }
    let text = |name, field| match value.field(name) {
        None => Err(ImportKeyError::BadField { field, what: "is missing" }),
        Some(value) => value.text().ok_or(ImportKeyError::BadField { field, what: "is no text" }),
    };
    Ok((text("type", names[1])?, text("value", names[2])?))
}

/// Bytes in hexadecimal, if it is as many as seeds and pairs have. The same digits in base64 would be 48
/// bytes, which no key has, or 96.
fn hex_bytes(content: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let text = content.trim_ascii();
    if !matches!(text.len(), 64 | 128) {
        return None;
    }
    HEXLOWER_PERMISSIVE.decode(text).ok().map(Zeroizing::new)
}

/// A pair shows that it is one. 32 bytes can as well be a public key, which makes a key that nobody knows.
fn parse_bare_hex(bytes: &[u8]) -> Result<ParsedKey, ImportKeyError> {
    match <&[u8; 64]>::try_from(bytes) {
        Ok(pair) => key_of_pair(pair, KeyForm::Hex),
        Err(_) => Err(ImportKeyError::LooksLikeHex),
    }
}

fn key_of_pair(pair: &[u8; 64], form: KeyForm) -> Result<ParsedKey, ImportKeyError> {
    let seed = seed_of_pair(pair).ok_or(ImportKeyError::AmbiguousExpanded)?;
    Ok(ParsedKey::new(ConsensusKey::from_seed(seed), form))
}

/// Reads 64 hex digits as a seed, or 128 as a seed and its public key.
///
/// # Errors
/// If it is not that, or the second half is not the public key of the first.
pub fn parse_hex(content: &[u8]) -> Result<ParsedKey, ImportKeyError> {
    let bytes = hex_bytes(content).ok_or(ImportKeyError::BadHex)?;
    match <&[u8; 32]>::try_from(bytes.as_slice()) {
        Ok(seed) => Ok(ParsedKey::new(ConsensusKey::from_seed(seed), KeyForm::Hex)),
        Err(_) => parse_bare_hex(&bytes),
    }
}

/// Reads tmkms's base64: a seed (32 bytes) or a YubiHSM export (96 bytes).
///
/// 64 bytes are taken only if they are a seed and its public key. That tmkms reads 64 bytes as an expanded secret
/// is a trap: see [`parse_tmkms_base64_expanded`].
///
/// # Errors
/// If it is not base64, has another length, or the parts of it do not belong together.
pub fn parse_tmkms_base64(content: &[u8]) -> Result<ParsedKey, ImportKeyError> {
    let bytes = decode_base64(content.trim_ascii()).ok_or(ImportKeyError::BadBase64 { field: "file" })?;
    if let Ok(seed) = <&[u8; 32]>::try_from(bytes.as_slice()) {
        return Ok(ParsedKey::new(ConsensusKey::from_seed(seed), KeyForm::Seed));
    }
    if let Ok(pair) = <&[u8; 64]>::try_from(bytes.as_slice()) {
        return key_of_pair(pair, KeyForm::SeedAndPublicKey);
    }
    if let Ok(export) = <&[u8; 96]>::try_from(bytes.as_slice()) {
        return parse_yubihsm_export(export);
    }
    Err(ImportKeyError::BadLength { length: bytes.len() })
}

/// Reads base64 of a 64-byte expanded secret (scalar, prefix) that must belong to `public_key`, or 128 hex
/// digits of it.
///
/// # Errors
/// If it is not base64 of 64 bytes, belongs to another public key, or is a seed and its public key.
pub fn parse_tmkms_base64_expanded(
    content: &[u8],
    public_key: &PublicKey,
) -> Result<ParsedKey, ImportKeyError> {
    let bytes = hex_bytes(content).or_else(|| decode_base64(content.trim_ascii()));
    let bytes = bytes.ok_or(ImportKeyError::BadBase64 { field: "file" })?;
    let expanded: &[u8; 64] =
        bytes.as_slice().try_into().map_err(|_| ImportKeyError::BadLength { length: bytes.len() })?;
    let key = ConsensusKey::from_expanded(expanded, public_key)?;
    Ok(ParsedKey::new(key, KeyForm::Expanded))
}

/// Writes the plain form that tmkms reads: base64 of the seed, without a line end.
///
/// A key without a seed is written as the 96 bytes of a YubiHSM export, which carry the public key; the 64 bytes
/// that tmkms would take as well could not be told from CometBFT's when read again.
pub fn to_tmkms_base64(key: &ConsensusKey) -> Zeroizing<String> {
    if let Some(seed) = key.expose_seed() {
        return Zeroizing::new(BASE64.encode(seed));
    }
    let mut export = Zeroizing::new([0; 96]);
    if let Some(expanded) = key.expose_expanded() {
        export[..64].copy_from_slice(expanded);
        export[..32].reverse();
        export[64..].copy_from_slice(key.public_key().as_bytes());
    }
    Zeroizing::new(BASE64.encode(export.as_slice()))
}

/// The layout is tmkms v0.15's, `src/keyring/ed25519/signing_key.rs`: the scalar in the HSM's byte order, the
/// prefix, the public key. tmkms does not look at the public key.
fn parse_yubihsm_export(export: &[u8; 96]) -> Result<ParsedKey, ImportKeyError> {
    let mut expanded = Zeroizing::new([0; 64]);
    let mut public_key = [0; 32];
    expanded.copy_from_slice(&export[..64]);
    expanded[..32].reverse();
    public_key.copy_from_slice(&export[64..]);
    let key = ConsensusKey::from_expanded(&expanded, &PublicKey::from_bytes(public_key))?;
    Ok(ParsedKey::new(key, KeyForm::YubiHsmExport))
}

/// Key types are named `tendermint/PrivKeyEd25519`, `cometbft/PubKeyMlDsa65` and so on.
fn check_type(name: &str, role: &'static str) -> Result<(), ImportKeyError> {
    let scheme = name.split_once('/').and_then(|(_, kind)| kind.strip_prefix(role));
    let scheme = match scheme {
        Some("Ed25519") => return Ok(()),
        Some("Secp256k1") => "secp256k1",
        Some("Secp256k1eth") => "secp256k1eth",
        Some("Bls12_381") => "bls12381",
        Some("MlDsa65") => "mldsa65",
        Some("Sr25519") => "sr25519",
        _ => return Err(ImportKeyError::UnknownType { role }),
    };
    Err(ImportKeyError::UnsupportedType { scheme })
}

fn decode_base64(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(vec![0; BASE64.decode_len(text.len()).ok()?]);
    let length = BASE64.decode_mut(text, &mut bytes).ok()?;
    bytes.truncate(length);
    Some(bytes)
}

/// Why a key was not taken. No variant holds any part of a secret.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ImportKeyError {
    /// Neither JSON nor base64.
    #[error(
        "not a key file: neither `priv_validator_key.json` nor base64\n\
         hint: give the consensus key of CometBFT (config/priv_validator_key.json) or of tmkms"
    )]
    Unrecognised,
    /// The content is not in the encoding that was asked for.
    #[error(
        "the key is in `{found}` form, not `{given}`\nhint: set the format to `{found}`, or leave it out"
    )]
    OtherFormat {
        /// The format that was given.
        given: &'static str,
        /// The format of the content.
        found: &'static str,
    },
    /// No JSON. Nothing that the parser quotes is told: it may be the secret.
    #[error(
        "no JSON: {reason}\nhint: take the file unchanged from where it was written: it may have been cut off"
    )]
    BadJson {
        /// Where, and what the parser expected there.
        reason: String,
    },
    /// JSON without a private key.
    #[error(
        "`priv_key` is missing\nhint: the file with the key is the node's config/priv_validator_key.json, and not the state \
         beside it, nor `show-validator`'s public key"
    )]
    NoPrivateKey,
    /// A field that is not as CometBFT writes it.
    #[error(
        "{field} {what}\nhint: take priv_validator_key.json unchanged from the node: `priv_key` has `type` and `value` there"
    )]
    BadField {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A shard of Horcrux.
    #[error(
        "it is a file of Horcrux: a shard, which is no key by itself and which only Horcrux can use\n\
         hint: give the priv_validator_key.json that the shards were made from (`monosign threshold split` makes shares of it for \
         cosigners of ours); if that is lost, go on with Horcrux"
    )]
    HorcruxShard,
    /// 64 hex digits, which may be a public key.
    #[error(
        "it looks like hex: 64 digits, which can be a private key or a public one\n\
         hint: if it is the private key, `monosign softsign import` takes it with `--format hex`"
    )]
    LooksLikeHex,
    /// Not as many hex digits as keys have.
    #[error(
        "it is no key in hex\nhint: 64 digits are expected, or 128 with the public key; leave out `--format` to have it recognised"
    )]
    BadHex,
    /// A value is not standard base64.
    #[error("`{field}` is not base64\nhint: take the key file unchanged from where it was written")]
    BadBase64 {
        /// The JSON field, or `file`.
        field: &'static str,
    },
    /// A key of a scheme other than Ed25519.
    #[error("a key of type `{scheme}` cannot be used\nhint: this signer signs with ed25519 keys only")]
    UnsupportedType {
        /// The scheme, by CometBFT's name.
        scheme: &'static str,
    },
    /// A `type` that no CometBFT release writes in this place.
    #[error("the `type` of the key is no {role} type of CometBFT\nhint: expected `tendermint/{role}Ed25519`")]
    UnknownType {
        /// `PrivKey` or `PubKey`.
        role: &'static str,
    },
    /// The private key of the JSON is not 64 bytes.
    #[error(
        "`priv_key` holds {length} bytes, not 64\nhint: the file is damaged; take it from the node again"
    )]
    BadPrivateKeyLength {
        /// Bytes found.
        length: usize,
    },
    /// The two halves of the private key do not belong together.
    #[error(
        "`priv_key` is damaged: its second half is not the public key of the first\n\
         hint: take the file from the node or from its backup again"
    )]
    SeedAndPublicKeyDisagree,
    /// `pub_key` is not the one of `priv_key`.
    #[error(
        "`pub_key` does not belong to `priv_key`, whose public key is `{belongs}`\n\
         hint: two keys were mixed up; find out which one the chain knows before going on"
    )]
    PublicKeyDisagrees {
        /// The public key of `priv_key`.
        belongs: PublicKey,
    },
    /// `address` is not the one of `priv_key`.
    #[error(
        "`address` does not belong to `priv_key`, whose address is `{belongs}`\n\
         hint: two keys were mixed up; find out which one the chain knows before going on"
    )]
    AddressDisagrees {
        /// The address of `priv_key`.
        belongs: Address,
    },
    /// No form of a key has this length.
    #[error(
        "{length} bytes are no ed25519 key\nhint: tmkms keeps 32 bytes (seed), 64 (expanded) or 96 (YubiHSM)"
    )]
    BadLength {
        /// Bytes found.
        length: usize,
    },
    /// 64 bytes that only make sense as an expanded secret, which nothing proves.
    #[error(
        "the 64 bytes are not a seed with its public key; they may be an expanded secret, or damaged\n\
         hint: if it is an expanded secret, import it with `--format base64-expanded --public-key HEX`"
    )]
    AmbiguousExpanded,
    /// The expanded secret was not taken.
    #[error("{0}\nhint: {hint}", hint = expanded_hint(.0))]
    Expanded(#[from] ExpandedKeyError),
}

impl ImportKeyError {
    fn bad_json(content: &[u8], error: &serde_json::Error) -> Self {
        let reason = if error.to_string().starts_with(json::TWICE) {
            format!("{} at line {} column {}", json::TWICE, error.line(), error.column())
        } else {
            redact::json(content, error)
        };
        Self::BadJson { reason }
    }
}

fn expanded_hint(error: &ExpandedKeyError) -> &'static str {
    match error {
        ExpandedKeyError::SeedAndPublicKey => {
            "import it with `--format base64`; as an expanded secret, one signature would give it away"
        }
        ExpandedKeyError::OtherPublicKey { .. } => {
            "check which public key the chain knows for this validator"
        }
    }
}

#[cfg(test)]
mod tests;
