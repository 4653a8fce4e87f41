//! A key on a device, for commands that want to know which it is.

use std::sync::Arc;

use super::{Failure, unlock_env};
use crate::backend::device::{Driver as _, Reply, Request};
use crate::backend::yubihsm::YubihsmDriver;
use crate::config::YubihsmKey;
use crate::pubkey::PublicKey;
use crate::start::StartError;

/// Asks all devices that should have the key, which must agree.
pub(super) fn public_key(keys: &[YubihsmKey]) -> Result<PublicKey, Failure> {
    let mut found: Option<PublicKey> = None;
    for YubihsmKey { provider, key } in keys {
        let settings = provider.settings(&unlock_env()).map_err(StartError::from)?;
        let reply = YubihsmDriver::new(Arc::new(settings)).perform(&Request::PublicKey(*key));
        let public_key = match reply {
            Ok(Reply::PublicKey(public_key)) => public_key,
            Ok(_) => {
                return Err(Failure::new(format!("device {}: it answered something else", provider.name())));
            }
            Err(error) => return Err(Failure::new(format!("device {}: {error}", provider.name()))),
        };
        match found {
            Some(other) if other != public_key => {
                return Err(Failure::new(format!(
                    "the devices hold different keys: {other}, and {public_key} on {}\nhint: the same key must be imported into both",
                    provider.name()
                )));
            }
            _ => found = Some(public_key),
        }
    }
    found.ok_or_else(|| Failure::new("the chain has no key"))
}
