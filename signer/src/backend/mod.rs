//! What holds the consensus key.
//!
//! [`softsign`] keeps it in this process. [`yubihsm`] and [`pkcs11`] keep it on devices, and [`device`] is what all
//! devices share: one owner of each, deadlines, reconnection, failover. Which keys must not sign anywhere is known to [`locks`].

pub mod device;
pub mod locks;
pub mod pkcs11;
pub mod softsign;
pub mod yubihsm;

use crate::pubkey::PublicKey;
use crate::record::Permit;
use crate::seams::Local;

/// A key that signs what it has a permit for, and nothing else.
pub trait Backend {
    /// The public key that signatures verify under.
    fn public_key(&self) -> PublicKey;

    /// Whether a signature can be asked for now. It is asked before the watermark rises, so that a sealed key or an
    /// absent device burns no height, round and step.
    ///
    /// # Errors
    /// [`BackendError`] saying what is waited for.
    fn ready(&self) -> Result<(), BackendError>;

    /// Waits for a device that is being looked for. Returns at once if there is none to wait for.
    fn until_ready(&self) -> Local<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    /// An Ed25519 signature of the permitted bytes.
    ///
    /// # Errors
    /// [`BackendError`]; the outcome may be unknown, and the same bytes may be asked for again.
    fn sign<'a>(&'a self, permit: &'a Permit<'_>) -> Local<'a, Result<[u8; 64], BackendError>>;

    /// The longest message that is signed, in bytes.
    fn max_message(&self) -> usize {
        usize::MAX
    }

    /// The signature given last does not verify: what gave it is never asked again.
    fn distrust(&self) {}
}

/// Why a backend gives no signature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// The key file is encrypted with a passphrase that nobody has given yet.
    #[error("the key is sealed: run `monosign unlock`")]
    Sealed,
    /// The message is longer than the device takes.
    #[error("the message has {len} bytes, and the device that holds the key signs {max} at the most")]
    TooLong {
        /// Its length.
        len: usize,
        /// What the device takes.
        max: usize,
    },
    /// It is about the key and not about a device: nothing is signed with it anywhere.
    #[error("{0}")]
    Locked(String),
    /// The device that holds the key failed, or did not answer in time.
    #[error("{0}")]
    Failed(String),
}
