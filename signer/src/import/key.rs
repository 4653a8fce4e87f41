//! Consensus keys as CometBFT and tmkms keep them.
//!
//! CometBFT's `FilePV` recomputes address and public key from the private key on load and so hides a damaged or
//! mixed-up file (CometBFT v0.38 `privval/file.go`, `loadFilePV`). Here every field must agree, and the error says
//! which one does not.

use data_encoding::BASE64;
use serde::Deserialize;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::consensus_key::{ConsensusKey, ExpandedKeyError, seed_of_pair};
use crate::pubkey::{Address, PublicKey};

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
}

/// Reads a key in the encoding given, or in the one its content shows.
///
/// # Errors
/// As [`parse_cometbft_json`] and [`parse_tmkms_base64`], and if the content is neither or is not what was given.
pub fn parse_plain(content: &[u8], format: Option<PlainFormat>) -> Result<ParsedKey, ImportKeyError> {
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
/// # Errors
/// If it is not that file, if the key is of a type that this signer does not sign with, or if private key, public
/// key and address do not belong together.
pub fn parse_cometbft_json(content: &[u8]) -> Result<ParsedKey, ImportKeyError> {
    let file: KeyJson<'_> = serde_json::from_slice(content)
        .map_err(|error| ImportKeyError::BadJson { line: error.line(), column: error.column() })?;
    check_type(file.priv_key.r#type, "PrivKey")?;
    check_type(file.pub_key.r#type, "PubKey")?;

    let pair = decode_base64(file.priv_key.value.as_bytes())
        .ok_or(ImportKeyError::BadBase64 { field: "priv_key" })?;
    let pair: &[u8; 64] =
        pair.as_slice().try_into().map_err(|_| ImportKeyError::BadPrivateKeyLength { length: pair.len() })?;
    let (seed, claimed) = pair.split_first_chunk::<32>().ok_or(ImportKeyError::SeedAndPublicKeyDisagree)?;
    let key = ConsensusKey::from_seed(seed);
    let public_key = *key.public_key();

    if claimed != public_key.as_bytes() {
        return Err(ImportKeyError::SeedAndPublicKeyDisagree);
    }
    if BASE64.decode(file.pub_key.value.as_bytes()).ok().as_deref() != Some(public_key.as_bytes()) {
        return Err(ImportKeyError::PublicKeyDisagrees { belongs: public_key });
    }
    if file.address != public_key.address().to_string() {
        return Err(ImportKeyError::AddressDisagrees { belongs: public_key.address() });
    }
    Ok(ParsedKey { key, form: KeyForm::CometBftJson })
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
        return Ok(ParsedKey { key: ConsensusKey::from_seed(seed), form: KeyForm::Seed });
    }
    if let Ok(pair) = <&[u8; 64]>::try_from(bytes.as_slice()) {
        let seed = seed_of_pair(pair).ok_or(ImportKeyError::AmbiguousExpanded)?;
        return Ok(ParsedKey { key: ConsensusKey::from_seed(seed), form: KeyForm::SeedAndPublicKey });
    }
    if let Ok(export) = <&[u8; 96]>::try_from(bytes.as_slice()) {
        return parse_yubihsm_export(export);
    }
    Err(ImportKeyError::BadLength { length: bytes.len() })
}

/// Reads base64 of a 64-byte expanded secret (scalar, prefix) that must belong to `public_key`.
///
/// # Errors
/// If it is not base64 of 64 bytes, belongs to another public key, or is a seed and its public key.
pub fn parse_tmkms_base64_expanded(
    content: &[u8],
    public_key: &PublicKey,
) -> Result<ParsedKey, ImportKeyError> {
    let bytes = decode_base64(content.trim_ascii()).ok_or(ImportKeyError::BadBase64 { field: "file" })?;
    let expanded: &[u8; 64] =
        bytes.as_slice().try_into().map_err(|_| ImportKeyError::BadLength { length: bytes.len() })?;
    let key = ConsensusKey::from_expanded(expanded, public_key)?;
    Ok(ParsedKey { key, form: KeyForm::Expanded })
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
    Ok(ParsedKey { key, form: KeyForm::YubiHsmExport })
}

/// The file as CometBFT writes it. The values borrow from the caller's buffer, which is wiped: no copies of the
/// secret are left behind in a parser.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyJson<'a> {
    address: &'a str,
    #[serde(borrow)]
    pub_key: TypedJson<'a>,
    #[serde(borrow)]
    priv_key: TypedJson<'a>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TypedJson<'a> {
    r#type: &'a str,
    value: &'a str,
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
    /// JSON, but not CometBFT's key file. The parser's own text is withheld: it may quote the secret.
    #[error(
        "not a CometBFT key file: line {line}, column {column} is not as CometBFT writes it\n\
         hint: the file holds `address`, `pub_key` and `priv_key`; take it unchanged from the node"
    )]
    BadJson {
        /// Line of the error, from 1.
        line: usize,
        /// Column of the error, from 1.
        column: usize,
    },
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
