//! A key on a device, for commands that want to know which it is.

use std::sync::Arc;

use super::{Failure, unlock_env};
use crate::backend::device::{Driver, Reply, Request};
use crate::backend::pkcs11::Token;
use crate::backend::yubihsm::YubihsmDriver;
use crate::config::DeviceKey;
use crate::pubkey::PublicKey;
use crate::start::StartError;

/// Asks all devices that should have the key, which must agree.
pub(super) fn public_key(keys: &[DeviceKey]) -> Result<PublicKey, Failure> {
    let mut found: Option<PublicKey> = None;
    for key in keys {
        let device = key.device();
        let public_key = match driver(key)?.perform(&Request::PublicKey(key.number())) {
            Ok(Reply::PublicKey(public_key)) => public_key,
            Ok(_) => return Err(Failure::new(format!("device {device}: it answered something else"))),
            Err(error) => return Err(Failure::new(format!("device {device}: {error}"))),
        };
        let expected = key.public_key().or(found);
        if let Some(expected) = expected.filter(|expected| *expected != public_key) {
            return Err(Failure::new(format!(
                "device {device} holds {public_key}, and {expected} is expected\nhint: the devices of a chain hold the same key"
            )));
        }
        found = Some(public_key);
    }
    found.ok_or_else(|| Failure::new("the chain has no key"))
}

/// A vendor's library in this process: a command does no harm when it hangs.
fn driver(key: &DeviceKey) -> Result<Box<dyn Driver>, Failure> {
    let env = unlock_env();
    match key {
        DeviceKey::Yubihsm(key) => {
            let settings = key.provider.settings(&env).map_err(StartError::from)?;
            Ok(Box::new(YubihsmDriver::new(Arc::new(settings))))
        }
        DeviceKey::Pkcs11(key) => {
            let settings = key.provider.settings(&env).map_err(StartError::from)?;
            let token = Token::open(&settings.module, &settings.token_label, &settings.pin, settings.keys);
            Ok(Box::new(token.map_err(Failure::new)?))
        }
    }
}
