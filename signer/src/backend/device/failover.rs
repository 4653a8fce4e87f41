//! One key on one or more devices, as the backend of a chain.

use std::cell::Cell;
use std::future::{Future as _, poll_fn};
use std::task::Poll;

use super::DeviceKey;
use crate::backend::{Backend, BackendError};
use crate::pubkey::PublicKey;
use crate::record::Permit;
use crate::seams::Local;

/// Asks one device, and the next if it fails or gives no answer in time. All hold the same key. What is about the key and not about a device
/// ([`About`](super::About)) stops it on all of them.
///
/// Two devices may both sign the same bytes, which is one signature: Ed25519 is deterministic.
pub struct Failover {
    public_key: PublicKey,
    keys: Vec<DeviceKey>,
    /// The key that signed last.
    last: Cell<usize>,
}

impl Failover {
    /// Over `keys`, of which the first is asked first.
    ///
    /// # Panics
    /// If there are none.
    pub fn new(public_key: PublicKey, keys: Vec<DeviceKey>) -> Self {
        assert!(!keys.is_empty(), "a chain's key is on a device");
        Self { public_key, keys, last: Cell::new(0) }
    }

    async fn ask(&self, message: &[u8]) -> Result<[u8; 64], BackendError> {
        let mut failures = Vec::new();
        for (n, key) in self.keys.iter().enumerate() {
            let signed = match key.ready() {
                Ok(()) => key.sign(message).await,
                Err(waits_for) => Err(waits_for),
            };
            match signed {
                Ok(signature) => {
                    self.last.set(n);
                    return Ok(signature);
                }
                Err(error @ BackendError::Locked(_)) => return Err(error),
                Err(error) => failures.push(error),
            }
        }
        Err(joined(failures))
    }
}

impl Backend for Failover {
    fn public_key(&self) -> PublicKey {
        self.public_key
    }

    fn ready(&self) -> Result<(), BackendError> {
        let mut failures = Vec::new();
        for key in &self.keys {
            match key.ready() {
                Ok(()) => return Ok(()),
                Err(error @ BackendError::Locked(_)) => return Err(error),
                Err(error) => failures.push(error),
            }
        }
        Err(joined(failures))
    }

    fn until_ready(&self) -> Local<'_, ()> {
        let mut keys: Vec<_> = self.keys.iter().map(|key| Box::pin(key.until_ready())).collect();
        Box::pin(poll_fn(move |context| {
            let any = keys.iter_mut().any(|key| key.as_mut().poll(context).is_ready());
            if any { Poll::Ready(()) } else { Poll::Pending }
        }))
    }

    fn sign<'a>(&'a self, permit: &'a Permit<'_>) -> Local<'a, Result<[u8; 64], BackendError>> {
        Box::pin(self.ask(permit.bytes()))
    }

    fn max_message(&self) -> usize {
        self.keys.iter().map(DeviceKey::max_message).min().unwrap_or(0)
    }

    fn distrust(&self) {
        self.keys[self.last.get()].distrust();
    }
}

fn joined(failures: Vec<BackendError>) -> BackendError {
    let texts: Vec<_> = failures.iter().map(ToString::to_string).collect();
    BackendError::Failed(texts.join("; "))
}
