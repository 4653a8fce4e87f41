//! Keys on PKCS#11 tokens, by the `cryptoki` crate.
//!
//! A vendor's library cannot be interrupted or loaded anew, and has the memory of the process that loads it. So it runs in a child
//! process of our own binary, `monosign worker pkcs11`, one for each token: [`ChildProcess`] is the owner's end of its pipes,
//! [`worker`] the child's. A child that does not answer in time, or whose token failed, is killed, and the next request starts
//! another. What the library prints goes to the log, and what it reads is empty: the pipes are the worker's alone.
//!
//! `cryptoki` 0.12.1 asks for the length of each signature first (`Session::sign`), and has nothing that takes a buffer: so C_Sign is called
//! twice. A library that signs for the length already takes twice as long.

mod child;
mod token;
mod wire;
pub mod worker;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use super::device::Limits;
pub use child::{ChildProcess, Worker, WorkerProcess, Workers};
pub use token::{Found, Token, TokenError, slots};

/// A token, and how to be let in.
#[derive(Clone)]
pub struct Settings {
    /// The vendor's library.
    pub module: PathBuf,
    /// The label of the token. Numbers of slots change.
    pub token_label: String,
    /// The user's PIN.
    pub pin: SecretString,
    /// The keys. Their numbers in requests are their places here.
    pub keys: Vec<KeyName>,
    /// The longest that one exchange may take.
    pub timeout: Duration,
}

/// How a key is found: by what is given, which must match exactly one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyName {
    /// CKA_LABEL.
    pub label: Option<String>,
    /// CKA_ID.
    pub id: Option<Vec<u8>>,
}

/// The default of [`Settings::timeout`].
pub const TIMEOUT: Duration = Duration::from_millis(1500);
/// The longest message that is signed, in bytes: an extension of 1 MiB (CometBFT v0.40 `types/vote.go`, `MaxVoteExtensionSize`) and what
/// stands around it. PKCS#11 has no limit; this bounds what goes through the pipe.
pub const MAX_MESSAGE: usize = (1 << 20) + 1024;

impl Settings {
    /// What the owner of the token keeps to.
    pub fn limits(&self) -> Limits {
        Limits { deadline: self.timeout, max_message: MAX_MESSAGE }
    }

    /// The token in a few words.
    pub fn name(&self) -> String {
        format!("pkcs11 token {}", self.token_label)
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { module, token_label, keys, .. } = self;
        let mut debug = f.debug_struct("Settings");
        debug.field("module", module).field("token_label", token_label).field("keys", keys);
        debug.finish_non_exhaustive()
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.label, &self.id) {
            (Some(label), None) => write!(f, "label `{label}`"),
            (label, id) => {
                if let Some(label) = label {
                    write!(f, "label `{label}` and ")?;
                }
                write!(f, "id `{}`", data_encoding::HEXLOWER.encode(id.as_deref().unwrap_or_default()))
            }
        }
    }
}
