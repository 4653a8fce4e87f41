//! `[[providers.pkcs11]]`: a token, its keys, and which chains they sign for.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER_PERMISSIVE;

use super::{ChainKey, DeviceKey, Invalid, KeyConfig, Pkcs11Key, Pkcs11Provider, Resolver, schema};
use crate::backend::pkcs11::{KeyName, TIMEOUT};
use crate::ops::secret_source::SecretSource;

impl Resolver<'_> {
    /// A token, and which chains have which of its keys.
    pub(super) fn pkcs11(
        &self,
        table: schema::Pkcs11,
    ) -> Result<(Arc<Pkcs11Provider>, Vec<ChainKey>), Invalid> {
        let name = format!("{TABLE} {}", table.token_label);
        let invalid = |what: String| Invalid::new(&name, what);
        let keys =
            table.keys.iter().map(|key| key_name(key).map_err(invalid)).collect::<Result<Vec<_>, _>>()?;
        let provider = Arc::new(Pkcs11Provider {
            module: self.path(table.module.clone()),
            pin: self.pin(&table, &name)?,
            timeout: timeout(table.timeout_ms).map_err(invalid)?,
            keys,
            token_label: table.token_label,
        });
        let mut chain_keys = Vec::new();
        for (number, key) in (0..).zip(table.keys) {
            let public_key = key.public_key.map(|key| key.parse()).transpose();
            let public_key = public_key.map_err(|error| Invalid::new(&name, error))?;
            let key_there = Pkcs11Key { provider: Arc::clone(&provider), number, public_key };
            for id in key.chain_ids {
                chain_keys.push((id, KeyConfig::OnDevices(vec![DeviceKey::Pkcs11(key_there.clone())])));
            }
        }
        Ok((provider, chain_keys))
    }

    fn pin(&self, table: &schema::Pkcs11, name: &str) -> Result<SecretSource, Invalid> {
        let sources = [
            table.pin_file.clone().map(|path| SecretSource::File(self.path(path))),
            table.pin_env.clone().map(SecretSource::Env),
            table.credential.clone().map(SecretSource::Credential),
        ];
        let mut sources = sources.into_iter().flatten();
        match (sources.next(), sources.next()) {
            (Some(source), None) => Ok(source),
            _ => Err(Invalid::new(name, "it needs one of `pin_file`, `credential` and `pin_env`")),
        }
    }
}

const TABLE: &str = "[[providers.pkcs11]]";

/// Two owners of one token would log each other out.
pub(super) fn check_tokens(providers: &[Arc<Pkcs11Provider>]) -> Result<(), Invalid> {
    let mut labels = BTreeSet::new();
    match providers.iter().find(|provider| !labels.insert(&provider.token_label)) {
        Some(twice) => {
            let table = format!("{TABLE} {}", twice.token_label);
            Err(Invalid::new(table, "the token is named twice: put all its keys into one table"))
        }
        None => Ok(()),
    }
}

fn key_name(key: &schema::Pkcs11Key) -> Result<KeyName, String> {
    if key.label.is_none() && key.id.is_none() {
        return Err("a key needs `label`, `id` or both".into());
    }
    let id = key.id.as_ref().map(|id| HEXLOWER_PERMISSIVE.decode(id.as_bytes())).transpose();
    let id = id.map_err(|_| format!("id `{}` is not hexadecimal", key.id.as_deref().unwrap_or_default()))?;
    Ok(KeyName { label: key.label.clone(), id })
}

fn timeout(timeout_ms: Option<u64>) -> Result<Duration, String> {
    match timeout_ms {
        None => Ok(TIMEOUT),
        Some(ms @ 100..=4000) => Ok(Duration::from_millis(ms)),
        Some(ms) => Err(format!("timeout_ms {ms} is not between 100 and 4000: a node waits for 5 s")),
    }
}
