//! Opening the key file at start.
//!
//! A key file for an age identity is opened with the first of
//!
//! 1. `$CREDENTIALS_DIRECTORY/NAME`, a systemd credential (`LoadCredentialEncrypted=`), which a TPM can bind to the
//!    machine: the recommended place;
//! 2. the file named in the configuration, for instance a container's secret or `/dev/fd/N`;
//! 3. `KEY_FILE.identity` beside the key file, which is what `import` and `keygen` write if nothing else is asked
//!    for. It protects a key file that is copied alone, not a directory that is copied as a whole.
//!
//! A key file under a passphrase looks for the passphrase in the first two, and stays sealed without one: the signer
//! starts, and refuses to sign until an operator unlocks it.
//!
//! A place that is there and does not open the file is an error. Going on to the next would hide that, for example, a
//! rotated credential was never in use.

use std::fmt;
use std::path::{Path, PathBuf};

use age::x25519;
use secrecy::SecretString;
use thiserror::Error;
use zeroize::Zeroizing;

use super::key_file::{self, KeyFileForm, SealError};
use crate::consensus_key::ConsensusKey;
use crate::import::key::{ImportKeyError, PlainFormat, parse_plain};
use crate::ops::private_file::{self, PrivateFileError};

/// Where a key is, and what the configuration says about opening it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeySource {
    /// The key file.
    pub path: PathBuf,
    /// Whether a file that is not encrypted may be used.
    pub allow_plaintext: bool,
    /// The encoding of a plain file, if the configuration names one. Age files show what they are.
    pub key_format: Option<PlainFormat>,
    /// The name of the systemd credential; by default the key file's name without its extension.
    pub credential: Option<String>,
    /// A file with age identities.
    pub identity_file: Option<PathBuf>,
    /// A file with a passphrase; one line end at its end is not part of it.
    pub passphrase_file: Option<PathBuf>,
}

/// What the process was started with.
#[derive(Clone, Debug, Default)]
pub struct UnlockEnv {
    /// The value of `$CREDENTIALS_DIRECTORY`.
    pub credentials_directory: Option<PathBuf>,
}

/// A key file after start.
#[derive(Debug)]
pub enum Loaded {
    /// The key can sign.
    Open(ConsensusKey),
    /// The key waits for its passphrase.
    Sealed(SealedKey),
}

/// A key file under a passphrase that nobody has given yet.
#[derive(Clone)]
pub struct SealedKey {
    path: PathBuf,
    /// Ciphertext.
    content: Zeroizing<Vec<u8>>,
}

impl SealedKey {
    /// The key file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the key. Blocks for about half a second and takes 256 MiB meanwhile. After a wrong passphrase, it can
    /// be tried again.
    ///
    /// # Errors
    /// If the passphrase is wrong or the file was damaged.
    pub fn unlock(&self, passphrase: SecretString) -> Result<ConsensusKey, KeyFileError> {
        key_file::open_with_passphrase(&self.content, passphrase).map_err(|error| in_file(&self.path, error))
    }
}

impl fmt::Debug for SealedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedKey").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Reads the key file and opens it with what is there; see the [module](self).
///
/// # Errors
/// If a file can't be read or is open to other users, if the key file is plain and that is not allowed, if nothing is
/// found that opens it, or if what is found does not.
pub fn load(source: &KeySource, env: &UnlockEnv) -> Result<Loaded, KeyFileError> {
    let content = private_file::read_private(&source.path)?;
    let form = key_file::recognise(&content).map_err(|error| in_file(&source.path, error))?;
    match form {
        KeyFileForm::Plain(_) => load_plain(source, &content).map(Loaded::Open),
        KeyFileForm::Identity => open_with_identity(source, env, &content).map(Loaded::Open),
        KeyFileForm::Passphrase => open_or_leave_sealed(source, env, content),
    }
}

/// Whether a key file is plain, by its content and whatever is allowed. `None` if that cannot be seen.
pub fn is_plain(path: &Path) -> Option<bool> {
    let content = private_file::read_wiping(path).ok()?;
    Some(matches!(key_file::recognise(&content).ok()?, KeyFileForm::Plain(_)))
}

/// The place of the identity that belongs to a key file by default: its name with `.identity` appended.
pub fn default_identity_path(key_path: &Path) -> PathBuf {
    let mut path = key_path.as_os_str().to_owned();
    path.push(".identity");
    path.into()
}

/// The name of the systemd credential that belongs to a key file by default: its name without extension.
///
/// `None` if the path has no name, or one that is not Unicode.
pub fn default_credential_name(key_path: &Path) -> Option<&str> {
    key_path.file_stem()?.to_str()
}

/// Reads age identities: one `AGE-SECRET-KEY-1…` a line, besides empty lines and comments (`#`).
///
/// # Errors
/// With the number of the first line that is something else, from 1; or 0 if there is no identity at all.
pub fn parse_identities(content: &[u8]) -> Result<Vec<x25519::Identity>, usize> {
    let mut identities = Vec::new();
    for (index, line) in content.split(|byte| *byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let identity = std::str::from_utf8(line).ok().and_then(|line| line.parse().ok());
        identities.push(identity.ok_or(index + 1)?);
    }
    if identities.is_empty() { Err(0) } else { Ok(identities) }
}

fn load_plain(source: &KeySource, content: &[u8]) -> Result<ConsensusKey, KeyFileError> {
    if !source.allow_plaintext {
        return Err(KeyFileError::Plaintext { path: source.path.clone() });
    }
    parse_plain(content, source.key_format)
        .map(|parsed| parsed.key)
        .map_err(|error| KeyFileError::Import { path: source.path.clone(), error })
}

fn open_with_identity(
    source: &KeySource,
    env: &UnlockEnv,
    content: &[u8],
) -> Result<ConsensusKey, KeyFileError> {
    let (path, identities) = identities(source, env)?;
    key_file::open_with_identities(content, &identities).map_err(|error| match error {
        SealError::WrongIdentity => KeyFileError::WrongIdentity { path: source.path.clone(), identity: path },
        error => in_file(&source.path, error),
    })
}

/// The identities that a file is to be opened with, from the first place that has any; and the place.
///
/// # Errors
/// If there are none, or the first place has something else.
pub fn identities(
    source: &KeySource,
    env: &UnlockEnv,
) -> Result<(PathBuf, Vec<x25519::Identity>), KeyFileError> {
    if source.passphrase_file.is_some() {
        return Err(KeyFileError::WrongSetting {
            path: source.path.clone(),
            setting: "passphrase_file",
            needs: "identity_file",
        });
    }
    let default = default_identity_path(&source.path);
    let mut secret = credential(source, env)?;
    if secret.is_none() {
        secret = configured(source.identity_file.as_deref())?;
    }
    if secret.is_none() {
        secret = if_there(&default, private_file::read_private)?;
    }
    let Some(Secret { path, content: identities }) = secret else {
        let mut places = places(source, env, "identity_file");
        places.push(format!("`{}`: not there", default.display()));
        return Err(KeyFileError::NoIdentity { path: source.path.clone(), places });
    };
    let identities = parse_identities(&identities)
        .map_err(|line| KeyFileError::BadIdentity { path: path.clone(), line })?;
    Ok((path, identities))
}

fn open_or_leave_sealed(
    source: &KeySource,
    env: &UnlockEnv,
    content: Zeroizing<Vec<u8>>,
) -> Result<Loaded, KeyFileError> {
    if source.identity_file.is_some() {
        return Err(KeyFileError::WrongSetting {
            path: source.path.clone(),
            setting: "identity_file",
            needs: "passphrase_file",
        });
    }
    let mut secret = credential(source, env)?;
    if secret.is_none() {
        secret = configured(source.passphrase_file.as_deref())?;
    }
    let sealed = SealedKey { path: source.path.clone(), content };
    let Some(Secret { path, content: passphrase }) = secret else { return Ok(Loaded::Sealed(sealed)) };
    let passphrase =
        parse_passphrase(&passphrase).ok_or(KeyFileError::BadPassphrase { path: path.clone() })?;
    sealed.unlock(passphrase).map(Loaded::Open).map_err(|error| match error {
        KeyFileError::Seal { error: SealError::WrongPassphrase, path: key } => {
            KeyFileError::WrongPassphraseFile { path: key, passphrase: path }
        }
        error => error,
    })
}

/// What was found in one of the places.
struct Secret {
    path: PathBuf,
    content: Zeroizing<Vec<u8>>,
}

fn credential(source: &KeySource, env: &UnlockEnv) -> Result<Option<Secret>, KeyFileError> {
    let Some(path) = credential_path(source, env)? else { return Ok(None) };
    if_there(&path, private_file::read_credential)
}

fn credential_path(source: &KeySource, env: &UnlockEnv) -> Result<Option<PathBuf>, KeyFileError> {
    let name = source.credential.as_deref().or_else(|| default_credential_name(&source.path));
    let Some(name) = name else { return Ok(None) };
    // systemd's own rule, and nothing that leads out of the directory.
    if name.is_empty() || name.contains('/') || name == "." || name == ".." {
        return Err(KeyFileError::BadCredentialName);
    }
    Ok(env.credentials_directory.as_ref().map(|directory| directory.join(name)))
}

/// A file that the configuration names must be there.
fn configured(path: Option<&Path>) -> Result<Option<Secret>, KeyFileError> {
    let Some(path) = path else { return Ok(None) };
    let inherited = path.starts_with("/dev/fd") || path.starts_with("/proc/self/fd");
    let content =
        if inherited { private_file::read_inherited(path)? } else { private_file::read_private(path)? };
    Ok(Some(Secret { path: path.to_owned(), content }))
}

fn if_there(
    path: &Path,
    read: fn(&Path) -> Result<Zeroizing<Vec<u8>>, PrivateFileError>,
) -> Result<Option<Secret>, KeyFileError> {
    match read(path) {
        Ok(content) => Ok(Some(Secret { path: path.to_owned(), content })),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Where a secret was looked for without success, in order.
fn places(source: &KeySource, env: &UnlockEnv, setting: &str) -> Vec<String> {
    let credential = match credential_path(source, env) {
        Ok(Some(path)) => format!("systemd credential `{}`: not there", path.display()),
        _ => "systemd credential: $CREDENTIALS_DIRECTORY is not set".to_owned(),
    };
    vec![credential, format!("`{setting}` in the configuration: not set")]
}

/// A passphrase is one line; an editor's line end is not part of it.
fn parse_passphrase(content: &[u8]) -> Option<SecretString> {
    let text = std::str::from_utf8(content).ok()?;
    let line = text.strip_suffix('\n').unwrap_or(text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    (!line.is_empty() && !line.contains('\n')).then(|| SecretString::from(line))
}

fn in_file(path: &Path, error: SealError) -> KeyFileError {
    KeyFileError::Seal { path: path.to_owned(), error }
}

/// Why a key was not loaded. No variant holds any part of a secret.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// A file could not be read.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// The key file could not be opened.
    #[error("key file `{path}`: {error}", path = path.display())]
    Seal {
        /// The key file.
        path: PathBuf,
        /// What is wrong with it.
        error: SealError,
    },
    /// A plain key could not be read.
    #[error("key file `{path}`: {error}", path = path.display())]
    Import {
        /// The key file.
        path: PathBuf,
        /// What is wrong with it.
        error: ImportKeyError,
    },
    /// A plain key file, and the configuration does not allow it.
    #[error(
        "key file `{path}` is not encrypted\n\
         hint: run `monosign softsign import {path} --output {path}.age` and use that, or set \
         `allow_plaintext_key = true`",
        path = path.display()
    )]
    Plaintext {
        /// The key file.
        path: PathBuf,
    },
    /// No identity in any of the places.
    #[error(
        "there is no identity to open key file `{path}`; looked in: {places}\n\
         hint: put the identity written with the key file into one of these places",
        path = path.display(), places = places.join("; ")
    )]
    NoIdentity {
        /// The key file.
        path: PathBuf,
        /// Where it was looked for, and why it was not found there.
        places: Vec<String>,
    },
    /// A file of identities that holds something else.
    #[error(
        "`{path}` is no file of age identities{at}\nhint: it holds lines of `AGE-SECRET-KEY-1…`, as `age-keygen` writes them",
        path = path.display(), at = at_line(*line)
    )]
    BadIdentity {
        /// The file.
        path: PathBuf,
        /// The line, from 1; 0 if it has no identity at all.
        line: usize,
    },
    /// The identity that was found does not open the key file.
    #[error(
        "the identity in `{identity}` does not open key file `{path}`\nhint: find the identity written with this key file",
        identity = identity.display(), path = path.display()
    )]
    WrongIdentity {
        /// The key file.
        path: PathBuf,
        /// The file of the identity.
        identity: PathBuf,
    },
    /// A passphrase file that is empty, of several lines, or not Unicode.
    #[error("`{path}` is no passphrase file\nhint: it holds the passphrase on one line", path = path.display())]
    BadPassphrase {
        /// The file.
        path: PathBuf,
    },
    /// The passphrase that was found does not open the key file.
    #[error(
        "the passphrase in `{passphrase}` does not open key file `{path}`\nhint: correct it, or take it away to start sealed",
        passphrase = passphrase.display(), path = path.display()
    )]
    WrongPassphraseFile {
        /// The key file.
        path: PathBuf,
        /// The file of the passphrase.
        passphrase: PathBuf,
    },
    /// The configuration names the wrong kind of secret for this key file.
    #[error("`{setting}` is set, but key file `{path}` needs `{needs}`\nhint: use `{needs}` instead", path = path.display())]
    WrongSetting {
        /// The key file.
        path: PathBuf,
        /// The setting that is there.
        setting: &'static str,
        /// The setting that would fit.
        needs: &'static str,
    },
    /// A credential's name is a file name. What was given is not told: it may be the secret itself.
    #[error(
        "`credential` holds no name of a systemd credential\nhint: use the name given in `LoadCredentialEncrypted=NAME:…`"
    )]
    BadCredentialName,
}

impl KeyFileError {
    /// Whether it was refused for safety: a plain key without leave, or a secret that others can read.
    pub fn is_for_safety(&self) -> bool {
        match self {
            Self::File(error) => error.is_for_safety(),
            Self::Plaintext { .. } => true,
            _ => false,
        }
    }
}

fn at_line(line: usize) -> String {
    if line == 0 { String::new() } else { format!(" (line {line})") }
}

#[cfg(test)]
mod tests;
