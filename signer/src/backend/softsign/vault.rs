//! Softsign as a backend: open, or sealed until somebody gives the passphrase.

use std::cell::RefCell;

use super::Softsign;
use super::unlock::{KeyFileError, SealedKey};
use crate::backend::{Backend, BackendError};
use crate::consensus_key::ConsensusKey;
use crate::pubkey::PublicKey;
use crate::record::Permit;
use crate::seams::Local;

/// A software key that may still be sealed. Its public key is known either way: the record names it.
pub struct Vault {
    public_key: PublicKey,
    state: RefCell<State>,
}

enum State {
    Open(Softsign),
    Sealed(SealedKey),
}

/// Why a key does not open a vault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnsealError {
    /// The passphrase is wrong, or the file is damaged.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// The file holds another key than the record was made for.
    #[error("the key file holds `{found}`, and the record is that of `{expected}`")]
    OtherKey {
        /// The key in the file.
        found: PublicKey,
        /// The record's key.
        expected: PublicKey,
    },
}

impl Vault {
    /// A vault with its key.
    pub fn open(key: ConsensusKey) -> Self {
        let softsign = Softsign::new(key);
        Self { public_key: softsign.public_key(), state: RefCell::new(State::Open(softsign)) }
    }

    /// A vault whose key is sealed; `public_key` is what the record says it is.
    pub fn sealed(key: SealedKey, public_key: PublicKey) -> Self {
        Self { public_key, state: RefCell::new(State::Sealed(key)) }
    }

    /// The sealed key, if it is sealed. Opening it takes half a second, so the caller does it on another thread.
    pub fn sealed_key(&self) -> Option<SealedKey> {
        match &*self.state.borrow() {
            State::Open(_) => None,
            State::Sealed(key) => Some(key.clone()),
        }
    }

    /// Takes the opened key.
    ///
    /// # Errors
    /// [`UnsealError::OtherKey`]: the vault stays sealed.
    pub fn unseal(&self, key: ConsensusKey) -> Result<(), UnsealError> {
        let found = *key.public_key();
        if found != self.public_key {
            return Err(UnsealError::OtherKey { found, expected: self.public_key });
        }
        *self.state.borrow_mut() = State::Open(Softsign::new(key));
        Ok(())
    }
}

impl Backend for Vault {
    fn public_key(&self) -> PublicKey {
        self.public_key
    }

    fn ready(&self) -> Result<(), BackendError> {
        match &*self.state.borrow() {
            State::Open(_) => Ok(()),
            State::Sealed(_) => Err(BackendError::Sealed),
        }
    }

    /// Inline: a software signature takes some ten microseconds, less than handing it to another thread.
    fn sign<'a>(&'a self, permit: &'a Permit<'_>) -> Local<'a, Result<[u8; 64], BackendError>> {
        let signature = match &*self.state.borrow() {
            State::Open(softsign) => Ok(softsign.sign(permit.bytes())),
            State::Sealed(_) => Err(BackendError::Sealed),
        };
        Box::pin(std::future::ready(signature))
    }
}
