//! Why a command failed, with advice.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::backend::softsign::key_file::SealError;
use crate::backend::softsign::unlock::KeyFileError;
use crate::import::key::ImportKeyError;
use crate::ops::private_file::PrivateFileError;
use crate::pubkey::{PrefixError, PublicKey};

/// Why a command did not do what it was asked to. The text ends with a line of advice.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SoftsignError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// A key file could not be loaded.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// A key file could not be encrypted.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The key to import was not taken.
    #[error("`{path}`: {error}", path = path.display())]
    Import {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: ImportKeyError,
    },
    /// The key is another one than expected.
    #[error(
        "`{path}` holds the key `{found}`, not `{expected}`\nhint: nothing was written; find the key that the chain knows",
        path = path.display()
    )]
    OtherPublicKey {
        /// The file.
        path: PathBuf,
        /// The public key given.
        expected: PublicKey,
        /// The public key of the file.
        found: PublicKey,
    },
    /// An expanded secret proves nothing by itself.
    #[error("`base64-expanded` needs the public key\nhint: add `--public-key HEX`, as the chain knows it")]
    NeedsPublicKey,
    /// tmkms's `-t account`.
    #[error(
        "account keys are not supported\nhint: this signer signs consensus messages only; leave out `--type account`"
    )]
    AccountKey,
    /// Neither an age recipient nor a file of recipients or identities.
    #[error(
        "`{value}` is no age recipient, and no file of recipients or identities\nhint: a recipient is `age1…`, an identity `AGE-SECRET-KEY-1…`"
    )]
    BadRecipient {
        /// What was given.
        value: String,
    },
    /// An age identity on the command line, where other users of the machine and the shell's history see it.
    #[error(
        "an age identity was given on the command line, where others can read it\nhint: give the file that holds it, and think about who read it"
    )]
    IdentityGiven,
    /// An empty passphrase protects nothing.
    #[error("the passphrase is empty\nhint: give one of several random words")]
    EmptyPassphrase,
    /// The passphrase was typed differently.
    #[error("the passphrases differ\nhint: nothing was written; try again")]
    PassphrasesDiffer,
    /// There is no terminal to ask on.
    #[error("cannot ask for a passphrase: {reason}\nhint: run this on a terminal")]
    Ask {
        /// What the operating system said.
        reason: String,
    },
    /// There is no randomness.
    #[error("cannot get random bytes: {reason}\nhint: do not make keys on this machine")]
    Entropy {
        /// What the operating system said.
        reason: String,
    },
    /// What was written is not what is on the disk.
    #[error("`{path}` was written, but does not read back\nhint: do not use it; check the disk, and keep the old key", path = path.display())]
    ReadBack {
        /// The key file.
        path: PathBuf,
    },
    /// The bech32 prefix is none.
    #[error(transparent)]
    Prefix(#[from] PrefixError),
    /// The report could not be printed. The files are written.
    #[error(
        "cannot print the report: {reason}\nhint: the key file was written; run `monosign softsign show` on it"
    )]
    Report {
        /// What the operating system said.
        reason: String,
    },
}

impl SoftsignError {
    /// Whether it was refused for safety, which the exit code tells.
    pub fn is_for_safety(&self) -> bool {
        match self {
            Self::File(error) => error.is_for_safety(),
            Self::KeyFile(error) => error.is_for_safety(),
            _ => false,
        }
    }

    pub(super) fn ask(error: &io::Error) -> Self {
        Self::Ask { reason: error.to_string() }
    }

    pub(super) fn entropy(error: &io::Error) -> Self {
        Self::Entropy { reason: error.to_string() }
    }
}
