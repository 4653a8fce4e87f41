//! Where a device's password or PIN comes from.

use std::fmt;
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use thiserror::Error;

use super::private_file::{self, PrivateFileError};
use super::redact;
use crate::backend::softsign::unlock::UnlockEnv;

/// One of four places. The secret itself is read when it is needed.
#[derive(Clone)]
pub enum SecretSource {
    /// The configuration itself, as tmkms allows.
    Inline(SecretString),
    /// A file that only its owner can read, or `/dev/fd/N`. Blanks and line ends at its end are not part of
    /// the secret, as for tmkms.
    File(PathBuf),
    /// An environment variable.
    Env(String),
    /// A systemd credential (`LoadCredentialEncrypted=`), by its name.
    Credential(String),
}

impl SecretSource {
    /// Reads the secret.
    ///
    /// # Errors
    /// [`SecretError`]
    pub fn read(&self, env: &UnlockEnv) -> Result<SecretString, SecretError> {
        match self {
            Self::Inline(secret) => Ok(secret.clone()),
            Self::File(path) if path.starts_with("/dev/fd") || path.starts_with("/proc/self/fd") => {
                line(path, &private_file::read_inherited(path)?)
            }
            Self::File(path) => line(path, &private_file::read_private(path)?),
            Self::Env(name) => {
                let value = std::env::var(name).ok().filter(|value| !value.is_empty());
                value.map(SecretString::from).ok_or_else(|| SecretError::NoVariable(name.clone()))
            }
            Self::Credential(name) => {
                let missing = || SecretError::NoCredential(name.clone());
                let path = env.credentials_directory.as_ref().ok_or_else(missing)?.join(name);
                line(&path, &private_file::read_credential(&path)?)
            }
        }
    }
}

/// Tells the place, and never the secret.
impl fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inline(_) => f.write_str("Inline(…)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Env(name) => f.debug_tuple("Env").field(name).finish(),
            Self::Credential(name) => f.debug_tuple("Credential").field(name).finish(),
        }
    }
}

fn line(path: &Path, content: &[u8]) -> Result<SecretString, SecretError> {
    let text = std::str::from_utf8(content).ok().map(str::trim_end);
    let text = text.filter(|text| !text.is_empty() && !text.contains('\n'));
    text.map(SecretString::from).ok_or_else(|| SecretError::NotALine(path.to_owned()))
}

/// Why a password or PIN could not be read. No variant holds any part of it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SecretError {
    /// The file.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// It is not one line of text.
    #[error("`{}` is not one line of text\nhint: it holds the password and nothing else", .0.display())]
    NotALine(PathBuf),
    /// There is no such variable, or it is empty.
    #[error("the environment variable{} is not set, or empty\nhint: export it, or name a file in its place", named(.0))]
    NoVariable(String),
    /// There are no credentials.
    #[error(
        "there is no systemd credential{}: $CREDENTIALS_DIRECTORY is not set\nhint: LoadCredentialEncrypted={}:FILE in the unit",
        named(.0), redact::name(.0).unwrap_or("NAME")
    )]
    NoCredential(String),
}

/// What the configuration names, unless it may be the secret itself.
fn named(name: &str) -> String {
    redact::name(name).map_or_else(|| " that the configuration names".into(), |name| format!(" `{name}`"))
}

impl SecretError {
    /// Whether it was refused for safety, which the exit code tells.
    pub fn is_for_safety(&self) -> bool {
        matches!(self, Self::File(error) if error.is_for_safety())
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;
    use crate::ops::private_file::create_private;

    #[test]
    fn a_file_is_read_without_its_line_end_and_only_if_others_cannot() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        create_private(&path, b"two words\n").unwrap();
        let source = SecretSource::File(path.clone());
        assert_eq!(source.read(&UnlockEnv::default()).unwrap().expose_secret(), "two words");
        for (content, secret) in [(" a \t\r\n\n", Some(" a")), ("a\nb", None), (" \n", None)] {
            std::fs::write(&path, content).unwrap();
            let read = source.read(&UnlockEnv::default()).ok();
            assert_eq!(read.as_ref().map(|read| read.expose_secret()), secret, "{content:?}");
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(source.read(&UnlockEnv::default()).unwrap_err().is_for_safety());
    }

    #[test]
    fn a_credential_is_looked_for_where_systemd_puts_it() {
        let dir = tempfile::tempdir().unwrap();
        create_private(&dir.path().join("hsm"), b"secret").unwrap();
        let source = SecretSource::Credential("hsm".into());
        let env = UnlockEnv { credentials_directory: Some(dir.path().to_owned()) };
        assert_eq!(source.read(&env).unwrap().expose_secret(), "secret");
        let error = source.read(&UnlockEnv::default()).unwrap_err().to_string();
        assert!(error.contains("`hsm`") && error.contains("hint:"), "{error}");
    }

    #[test]
    fn debug_shows_no_secret() {
        let shown = format!("{:?}", SecretSource::Inline("hunter2".into()));
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
