//! The key file: an age file that holds the key and its public key.
//!
//! The age format (<https://c2sp.org/age>) rather than one of our own, because an operator who has lost everything but
//! the file and its identity can open it with the `age` or `rage` program. It is written in ASCII armor, which survives
//! copying through terminals, tickets and secret stores; binary age files are read as well. Inside is one line of JSON:
//!
//! ```json
//! {"monosign_key":1,"type":"ed25519","seed":"…","public_key":"…"}
//! ```
//!
//! with base64 values, or `"type":"ed25519-expanded"` and `"expanded"` for a key without a seed. The public key must
//! belong to the secret, so that a damaged or pasted-together content does not become another key.
//!
//! Plain files of tmkms and CometBFT are read as they are; whether that is allowed is for [`super::unlock`] to say.

use std::io::{Read, Write};

use age::armor::{ArmoredReader, ArmoredWriter, Format};
use age::{DecryptError, Decryptor, Encryptor, Identity, Recipient, scrypt, x25519};
use data_encoding::BASE64;
use secrecy::SecretString;
use serde::Deserialize;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::consensus_key::ConsensusKey;
use crate::import::key::PlainFormat;
use crate::pubkey::PublicKey;

/// scrypt's cost when writing, as log2 of N: 256 MiB and about half a second.
pub(crate) const WORK_FACTOR: u8 = 18;
/// The highest cost accepted when reading: 1 GiB and about two seconds. Set always, since age would otherwise time
/// the machine at that moment, and refuse a good file on a busy one.
const MAX_WORK_FACTOR: u8 = 20;
/// More than any content of a key file has, in bytes.
const MAX_CONTENT: usize = 4096;

const ARMOR: &[u8] = b"-----BEGIN AGE ENCRYPTED FILE-----";
const BINARY: &[u8] = b"age-encryption.org/";

/// Who can open a key file.
pub enum Protection {
    /// Any of these age identities.
    Recipients(Vec<x25519::Recipient>),
    /// Whoever knows the passphrase.
    Passphrase(SecretString),
}

/// What a key file is, by its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFileForm {
    /// An age file for one or more identities.
    Identity,
    /// An age file under a passphrase.
    Passphrase,
    /// Not encrypted.
    Plain(PlainFormat),
}

/// Tells what a key file is.
///
/// # Errors
/// If it is nothing that this signer reads, or an age file with a damaged header.
pub fn recognise(content: &[u8]) -> Result<KeyFileForm, SealError> {
    let start = content.trim_ascii_start();
    if start.starts_with(ARMOR) || start.starts_with(BINARY) {
        let decryptor = Decryptor::new(ArmoredReader::new(content)).map_err(SealError::from_age)?;
        return Ok(if decryptor.is_scrypt() { KeyFileForm::Passphrase } else { KeyFileForm::Identity });
    }
    PlainFormat::recognise(content).map(KeyFileForm::Plain).ok_or(SealError::Unrecognised)
}

/// Encrypts a key. Returns the content of the key file, in ASCII armor.
///
/// # Errors
/// If there is no recipient.
pub fn seal(key: &ConsensusKey, protection: &Protection) -> Result<String, SealError> {
    seal_with_work_factor(key, protection, WORK_FACTOR)
}

pub(crate) fn seal_with_work_factor(
    key: &ConsensusKey,
    protection: &Protection,
    work_factor: u8,
) -> Result<String, SealError> {
    let content = to_json(key);
    match protection {
        Protection::Recipients(recipients) => {
            encrypt(recipients.iter().map(|recipient| recipient as &dyn Recipient), content.as_bytes())
        }
        Protection::Passphrase(passphrase) => {
            let mut recipient = scrypt::Recipient::new(passphrase.clone());
            recipient.set_work_factor(work_factor);
            encrypt(std::iter::once(&recipient as &dyn Recipient), content.as_bytes())
        }
    }
}

/// Decrypts a key file with identities.
///
/// # Errors
/// If none of the identities opens it, or if it is damaged.
pub fn open_with_identities(
    content: &[u8],
    identities: &[x25519::Identity],
) -> Result<ConsensusKey, SealError> {
    decrypt(content, identities.iter().map(|identity| identity as &dyn Identity))
}

/// Decrypts a key file with a passphrase. Takes about half a second and 256 MiB, up to four times that for files
/// that other programs wrote.
///
/// # Errors
/// If the passphrase is wrong, or if the file is damaged.
pub fn open_with_passphrase(content: &[u8], passphrase: SecretString) -> Result<ConsensusKey, SealError> {
    let mut identity = scrypt::Identity::new(passphrase);
    identity.set_max_work_factor(MAX_WORK_FACTOR);
    decrypt(content, std::iter::once(&identity as &dyn Identity))
}

pub(crate) fn encrypt<'a>(
    recipients: impl Iterator<Item = &'a dyn Recipient>,
    content: &[u8],
) -> Result<String, SealError> {
    let encryptor = Encryptor::with_recipients(recipients).map_err(|_| SealError::NoRecipient)?;
    let mut file = Vec::new();
    let written = ArmoredWriter::wrap_output(&mut file, Format::AsciiArmor)
        .and_then(|armor| encryptor.wrap_output(armor))
        .and_then(|mut stream| stream.write_all(content).map(|()| stream))
        .and_then(|stream| stream.finish()?.finish());
    written.map_err(|_| SealError::NoRecipient)?;
    String::from_utf8(file).map_err(|_| SealError::Damaged)
}

fn decrypt<'a>(
    content: &[u8],
    identities: impl Iterator<Item = &'a dyn Identity>,
) -> Result<ConsensusKey, SealError> {
    from_json(&decrypt_content(content, identities)?)
}

/// What an age file holds, in a buffer that is wiped.
pub(crate) fn decrypt_content<'a>(
    content: &[u8],
    identities: impl Iterator<Item = &'a dyn Identity>,
) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let decryptor = Decryptor::new(ArmoredReader::new(content)).map_err(SealError::from_age)?;
    let stream = decryptor.decrypt(identities).map_err(SealError::from_age)?;
    // Of full capacity from the start: a growing buffer leaves copies behind that nobody wipes.
    let mut json = Zeroizing::new(Vec::with_capacity(MAX_CONTENT + 1));
    let limit = u64::try_from(MAX_CONTENT).unwrap_or(u64::MAX).saturating_add(1);
    stream.take(limit).read_to_end(&mut json).map_err(|_| SealError::Damaged)?;
    if json.len() > MAX_CONTENT {
        return Err(SealError::BadContent);
    }
    Ok(json)
}

/// The content; values borrow from a buffer that is wiped.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ContentJson<'a> {
    monosign_key: u32,
    r#type: &'a str,
    seed: Option<&'a str>,
    expanded: Option<&'a str>,
    public_key: &'a str,
}

fn to_json(key: &ConsensusKey) -> Zeroizing<String> {
    let (kind, field, secret) = match (key.expose_seed(), key.expose_expanded()) {
        (Some(seed), _) => ("ed25519", "seed", Zeroizing::new(BASE64.encode(seed))),
        (None, expanded) => {
            let expanded = expanded.map(<[u8; 64]>::as_slice).unwrap_or_default();
            ("ed25519-expanded", "expanded", Zeroizing::new(BASE64.encode(expanded)))
        }
    };
    let public_key = key.public_key().to_base64();
    let (secret, end) = (secret.as_str(), "\"}\n");
    let parts =
        [r#"{"monosign_key":1,"type":""#, kind, r#"",""#, field, r#"":""#, secret, r#"","public_key":""#];
    // Of full capacity from the start, as above.
    let mut json = Zeroizing::new(String::with_capacity(MAX_CONTENT));
    parts.into_iter().chain([public_key.as_str(), end]).for_each(|part| json.push_str(part));
    json
}

fn from_json(json: &[u8]) -> Result<ConsensusKey, SealError> {
    // The parser's own text may quote the secret.
    let content: ContentJson<'_> = serde_json::from_slice(json).map_err(|_| SealError::BadContent)?;
    if content.monosign_key != 1 {
        return Err(SealError::NewerVersion { version: content.monosign_key });
    }
    let mut public_key = [0; 32];
    decode_into(content.public_key, &mut public_key)?;
    let public_key = PublicKey::from_bytes(public_key);
    let key = match (content.r#type, content.seed, content.expanded) {
        ("ed25519", Some(seed), None) => {
            let mut bytes = Zeroizing::new([0; 32]);
            decode_into(seed, bytes.as_mut_slice())?;
            ConsensusKey::from_seed(&bytes)
        }
        ("ed25519-expanded", None, Some(expanded)) => {
            let mut bytes = Zeroizing::new([0; 64]);
            decode_into(expanded, bytes.as_mut_slice())?;
            ConsensusKey::from_expanded(&bytes, &public_key).map_err(|_| SealError::PublicKeyDisagrees)?
        }
        _ => return Err(SealError::BadContent),
    };
    if *key.public_key() != public_key {
        return Err(SealError::PublicKeyDisagrees);
    }
    Ok(key)
}

fn decode_into(text: &str, bytes: &mut [u8]) -> Result<(), SealError> {
    // The decoder wants room for a whole last group.
    let mut decoded = Zeroizing::new([0; 66]);
    let room = BASE64.decode_len(text.len()).ok().and_then(|length| decoded.get_mut(..length));
    let room = room.ok_or(SealError::BadContent)?;
    let length = BASE64.decode_mut(text.as_bytes(), room).map_err(|_| SealError::BadContent)?;
    if length != bytes.len() {
        return Err(SealError::BadContent);
    }
    bytes.copy_from_slice(&decoded[..length]);
    Ok(())
}

/// Why a key file was not written or not opened. No variant holds any part of a secret.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SealError {
    /// Neither an age file nor a plain key.
    #[error(
        "not a key file: neither age nor base64 nor JSON\n\
         hint: make one with `monosign softsign import` or `monosign softsign keygen`"
    )]
    Unrecognised,
    /// There is nobody to encrypt to.
    #[error("there is no recipient to encrypt to\nhint: give at least one with `--identity`")]
    NoRecipient,
    /// The passphrase does not open the file.
    #[error("wrong passphrase\nhint: try again; nothing was changed")]
    WrongPassphrase,
    /// None of the identities opens the file.
    #[error(
        "the identity is not one that the key file was encrypted to\nhint: find the identity written with this key file"
    )]
    WrongIdentity,
    /// The file was changed or cut after it was written.
    #[error(
        "the key file is damaged\nhint: restore it from a backup; a key file never changes after it was written"
    )]
    Damaged,
    /// An scrypt cost that would take more than 1 GiB.
    #[error(
        "the key file asks for scrypt work of 2^{required}, more than 2^{MAX_WORK_FACTOR}\n\
         hint: encrypt it again with `monosign softsign import`"
    )]
    ExcessiveWork {
        /// log2 of the cost asked for.
        required: u8,
    },
    /// An age file of a later version, or with other recipients than X25519 and scrypt.
    #[error("the key file is of an age version that is not known here\nhint: use a newer monosign")]
    UnknownAgeVersion,
    /// It was decrypted, and what it holds is not a key.
    #[error(
        "the file was decrypted, but holds no consensus key of monosign\nhint: check that it is the right file"
    )]
    BadContent,
    /// It was decrypted, and is of a later version.
    #[error("the key file is of version {version}, which is not known here\nhint: use a newer monosign")]
    NewerVersion {
        /// The version.
        version: u32,
    },
    /// It was decrypted, and the public key in it belongs to another secret.
    #[error(
        "the public key in the key file does not belong to its secret\nhint: restore the file from a backup"
    )]
    PublicKeyDisagrees,
}

impl SealError {
    fn from_age(error: DecryptError) -> Self {
        match error {
            // Only a passphrase gets this far and fails: an identity that does not fit finds no stanza.
            DecryptError::DecryptionFailed | DecryptError::KeyDecryptionFailed => Self::WrongPassphrase,
            DecryptError::ExcessiveWork { required, .. } => Self::ExcessiveWork { required },
            DecryptError::NoMatchingKeys => Self::WrongIdentity,
            DecryptError::UnknownFormat => Self::UnknownAgeVersion,
            _ => Self::Damaged,
        }
    }
}

#[cfg(test)]
mod tests;
