//! Where a chain's key is, as the configuration says.

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;

use crate::backend::softsign::unlock::{KeySource, UnlockEnv};
use crate::backend::yubihsm::{Adapter, Settings};
use crate::ops::secret_source::{SecretError, SecretSource};

/// Where a chain's key is.
#[derive(Debug, Clone)]
pub enum KeyConfig {
    /// In a file, and signing in this process.
    Softsign(KeySource),
    /// On one YubiHSM, or the same key on several, the first of which is asked first.
    Yubihsm(Vec<YubihsmKey>),
}

impl KeyConfig {
    /// The key file, if it is one.
    pub fn softsign(&self) -> Option<&KeySource> {
        match self {
            Self::Softsign(source) => Some(source),
            Self::Yubihsm(_) => None,
        }
    }

    /// Whether both name the same key.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Softsign(one), Self::Softsign(another)) => one.path == another.path,
            (Self::Yubihsm(one), Self::Yubihsm(another)) => {
                let places = |keys: &[YubihsmKey]| -> Vec<_> {
                    keys.iter().map(|key| (key.provider.name(), key.provider.auth_key, key.key)).collect()
                };
                places(one) == places(another)
            }
            _ => false,
        }
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
