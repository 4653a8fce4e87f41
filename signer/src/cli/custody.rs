//! Files that signatures depend on, and whether others can change them.
//!
//! Whoever can replace a record makes the signer sign twice; whoever can change the configuration chooses what is signed for whom; and whoever can
//! change the directory of a file can replace the file.

use std::path::Path;

use crate::chain::jump_allowance_path;
use crate::config::{ChainConfig, Config, DeviceKey, KeyConfig, ValidatorConfig};
use crate::ops::access::{Changeable, Trust, changeable, directories};
use crate::ops::secret_source::SecretSource;

/// The configuration and its directory.
pub(super) fn of_config(config: &Config, trust: Trust) -> Vec<Changeable> {
    let mut found = Vec::new();
    with_directory(&config.path, trust, &mut found);
    found
}

/// What a chain's signatures come from: its record, its key, and what opens that.
pub(super) fn of_chain(chain: &ChainConfig, trust: Trust) -> Vec<Changeable> {
    let mut found = Vec::new();
    with_directory(&chain.record, trust, &mut found);
    push(changeable(&jump_allowance_path(&chain.record), trust), &mut found);
    match &chain.key {
        KeyConfig::Softsign(source) => {
            // The files themselves are read only if nobody else has any permission.
            [Some(&source.path), source.identity_file.as_ref(), source.passphrase_file.as_ref()]
                .into_iter()
                .flatten()
                .for_each(|file| of_directories(file, trust, &mut found));
        }
        KeyConfig::Threshold(share) => {
            with_directory(&share.group, trust, &mut found);
            [Some(&share.share.path), share.share.identity_file.as_ref()]
                .into_iter()
                .flatten()
                .for_each(|file| of_directories(file, trust, &mut found));
        }
        KeyConfig::OnDevices(keys) => keys.iter().for_each(|key| of_device(key, trust, &mut found)),
    }
    found
}

/// A connection's identity.
pub(super) fn of_validator(validator: &ValidatorConfig, trust: Trust) -> Vec<Changeable> {
    let mut found = Vec::new();
    if let Some(identity) = &validator.identity {
        of_directories(identity, trust, &mut found);
    }
    found
}

/// All of it, each once.
pub(super) fn of_all(config: &Config, trust: Trust) -> Vec<Changeable> {
    let mut found = of_config(config, trust);
    found.extend(config.chains.iter().flat_map(|chain| of_chain(chain, trust)));
    found.extend(config.validators.iter().flat_map(|validator| of_validator(validator, trust)));
    found.sort();
    found.dedup();
    found
}

fn of_device(key: &DeviceKey, trust: Trust, found: &mut Vec<Changeable>) {
    let secret = match key {
        DeviceKey::Yubihsm(key) => {
            if key.provider.audit != crate::backend::yubihsm::Audit::Off {
                with_directory(&key.provider.audit_file, trust, found);
            }
            &key.provider.password
        }
        DeviceKey::Pkcs11(key) => {
            // It runs with the PIN.
            with_directory(&key.provider.module, trust, found);
            &key.provider.pin
        }
    };
    if let SecretSource::File(path) = secret {
        of_directories(path, trust, found);
    }
}

fn with_directory(file: &Path, trust: Trust, found: &mut Vec<Changeable>) {
    push(changeable(file, trust), found);
    of_directories(file, trust, found);
}

fn of_directories(file: &Path, trust: Trust, found: &mut Vec<Changeable>) {
    // What a process was started with has no directory of its own.
    if file.starts_with("/dev") || file.starts_with("/proc") {
        return;
    }
    directories(file).iter().for_each(|dir| push(changeable(dir, trust), found));
}

fn push(one: Option<Changeable>, found: &mut Vec<Changeable>) {
    found.extend(one.filter(|one| !found.contains(one)));
}
