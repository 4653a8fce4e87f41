//! Where a chain's key is, as the configuration says.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;

use super::ThresholdConfig;
use crate::backend::pkcs11::{self, KeyName};
use crate::backend::softsign::unlock::{KeySource, UnlockEnv};
use crate::backend::yubihsm::witness::Watched;
use crate::backend::yubihsm::{Adapter, Audit, Settings};
use crate::ops::secret_source::{SecretError, SecretSource};
use crate::pubkey::PublicKey;

/// Where a chain's key is.
#[derive(Debug, Clone)]
pub enum KeyConfig {
    /// In a file, and signing in this process.
    Softsign(KeySource),
    /// On one device, or the same key on several.
    OnDevices(Vec<DeviceKey>),
    /// Shared among cosigners, of which this process is one.
    Threshold(Box<ThresholdConfig>),
}

/// A key on a device.
#[derive(Debug, Clone)]
pub enum DeviceKey {
    /// On a YubiHSM.
    Yubihsm(YubihsmKey),
    /// On a PKCS#11 token.
    Pkcs11(Pkcs11Key),
}

impl KeyConfig {
    /// The key file, if it is one.
    pub fn softsign(&self) -> Option<&KeySource> {
        match self {
            Self::Softsign(source) => Some(source),
            Self::OnDevices(_) | Self::Threshold(_) => None,
        }
    }

    /// The devices that it is on.
    pub fn on_devices(&self) -> &[DeviceKey] {
        match self {
            Self::OnDevices(keys) => keys,
            Self::Softsign(_) | Self::Threshold(_) => &[],
        }
    }

    /// The share and the other cosigners, if it is shared.
    pub fn threshold(&self) -> Option<&ThresholdConfig> {
        match self {
            Self::Threshold(share) => Some(share),
            Self::Softsign(_) | Self::OnDevices(_) => None,
        }
    }

    /// Whether both name the same key.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Softsign(one), Self::Softsign(another)) => one.path == another.path,
            (Self::OnDevices(one), Self::OnDevices(another)) => {
                let places = |keys: &[DeviceKey]| -> Vec<_> { keys.iter().map(DeviceKey::place).collect() };
                places(one) == places(another)
            }
            (Self::Threshold(one), Self::Threshold(another)) => one == another,
            _ => false,
        }
    }
}

impl DeviceKey {
    /// The device in a few words; no two have the same.
    pub fn device(&self) -> String {
        match self {
            Self::Yubihsm(key) => key.provider.name(),
            Self::Pkcs11(key) => key.provider.name(),
        }
    }

    /// The number of the key in requests to its device.
    pub fn number(&self) -> u16 {
        match self {
            Self::Yubihsm(key) => key.key,
            Self::Pkcs11(key) => key.number,
        }
    }

    /// What people know the key by.
    pub fn name(&self) -> String {
        match self {
            Self::Yubihsm(key) => format!("{:#06x}", key.key),
            Self::Pkcs11(key) => key.provider.keys[usize::from(key.number)].to_string(),
        }
    }

    /// The public key that the configuration names.
    pub fn public_key(&self) -> Option<PublicKey> {
        match self {
            Self::Yubihsm(_) => None,
            Self::Pkcs11(key) => key.public_key,
        }
    }

    /// Where it is kept what is known of its device's log, if that has a witness.
    pub fn audit_file(&self) -> Option<&Path> {
        match self {
            Self::Yubihsm(key) if key.provider.audit != Audit::Off => Some(&key.provider.audit_file),
            _ => None,
        }
    }

    fn place(&self) -> (String, String) {
        let key = match self {
            Self::Yubihsm(key) => format!("{} as {}", key.key, key.provider.auth_key),
            Self::Pkcs11(_) => self.name(),
        };
        (self.device(), key)
    }
}

/// A key on a YubiHSM.
#[derive(Debug, Clone)]
pub struct YubihsmKey {
    /// The device.
    pub provider: Arc<YubihsmProvider>,
    /// The number of the key.
    pub key: u16,
}

/// A `[[providers.yubihsm]]`.
#[derive(Debug, Clone)]
pub struct YubihsmProvider {
    /// How it is reached.
    pub adapter: Adapter,
    /// How long one exchange may take.
    pub timeout: Duration,
    /// Its serial number, ten digits.
    pub serial: Option<String>,
    /// The number of our authentication key.
    pub auth_key: u16,
    /// That key's password.
    pub password: SecretSource,
    /// What the device's log is used for.
    pub audit: Audit,
    /// The file of what is known of the log.
    pub audit_file: PathBuf,
    /// The numbers of all keys that sign for a chain.
    pub keys: BTreeSet<u16>,
}

impl YubihsmProvider {
    /// The device in a few words.
    pub fn name(&self) -> String {
        self.with_password(Default::default()).name()
    }

    /// What a driver needs, with the password read.
    ///
    /// # Errors
    /// [`SecretError`]
    pub fn settings(&self, env: &UnlockEnv) -> Result<Settings, SecretError> {
        Ok(self.with_password(self.password.read(env)?))
    }

    /// Whose signatures the witness watches.
    pub fn watched(&self) -> Watched {
        Watched { auth_key: self.auth_key, keys: self.keys.clone() }
    }

    fn with_password(&self, password: SecretString) -> Settings {
        Settings {
            adapter: self.adapter.clone(),
            timeout: self.timeout,
            serial: self.serial.clone(),
            auth_key: self.auth_key,
            password,
        }
    }
}

/// A key on a PKCS#11 token.
#[derive(Debug, Clone)]
pub struct Pkcs11Key {
    /// The token.
    pub provider: Arc<Pkcs11Provider>,
    /// Its place among the token's keys.
    pub number: u16,
    /// The public key that it must have.
    pub public_key: Option<PublicKey>,
}

/// A `[[providers.pkcs11]]`.
#[derive(Debug, Clone)]
pub struct Pkcs11Provider {
    /// The vendor's library.
    pub module: PathBuf,
    /// The label of the token.
    pub token_label: String,
    /// The user's PIN.
    pub pin: SecretSource,
    /// The keys.
    pub keys: Vec<KeyName>,
    /// How long one exchange may take.
    pub timeout: Duration,
}

impl Pkcs11Provider {
    /// The token in a few words.
    pub fn name(&self) -> String {
        self.with_pin(SecretString::default()).name()
    }

    /// What a driver needs, with the PIN read.
    ///
    /// # Errors
    /// [`SecretError`]
    pub fn settings(&self, env: &UnlockEnv) -> Result<pkcs11::Settings, SecretError> {
        Ok(self.with_pin(self.pin.read(env)?))
    }

    fn with_pin(&self, pin: SecretString) -> pkcs11::Settings {
        let Self { module, token_label, keys, timeout, .. } = self.clone();
        pkcs11::Settings { module, token_label, pin, keys, timeout }
    }
}
