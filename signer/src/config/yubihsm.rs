//! `[[providers.yubihsm]]`: tmkms's table as it is, once for each device.

use std::sync::Arc;
use std::time::Duration;

use super::{ChainKey, DeviceKey, Invalid, KeyConfig, Resolver, YubihsmKey, YubihsmProvider, schema};
use crate::backend::yubihsm::{Adapter, Audit, TIMEOUT};
use crate::ops::redact::FilePath;
use crate::ops::secret_source::SecretSource;

impl Resolver<'_> {
    /// A device, and which chains have which of its keys.
    pub(super) fn yubihsm(
        &mut self,
        table: schema::Yubihsm,
    ) -> Result<(Arc<YubihsmProvider>, Vec<ChainKey>), Invalid> {
        let (adapter, timeout) = adapter(&table.adapter).map_err(|what| Invalid::new(TABLE, what))?;
        let serial = table.serial_number.map(|serial| serial_number(&serial)).transpose();
        let serial = serial.map_err(|what| Invalid::new(TABLE, what))?;
        let audit_file = table.audit_file.unwrap_or_else(|| audit_file(serial.as_deref()));
        let provider = YubihsmProvider {
            adapter,
            timeout,
            serial,
            auth_key: table.auth.key,
            password: self.password(&table.auth)?,
            audit: table.audit.as_ref().map_or(Audit::Off, audit),
            audit_file: self.path(audit_file),
            keys: table.keys.iter().map(|key| key.key).collect(),
        };
        if provider.audit != Audit::Off && provider.serial.is_none() {
            // Another device would look like one that was reset.
            return Err(Invalid::new(
                TABLE,
                "`audit` needs `serial_number`: `monosign yubihsm detect` shows it",
            ));
        }
        let name = format!("{TABLE} {}", provider.name());
        if table.connector_server.is_some() {
            self.warnings.push(format!(
                "{name}: connector_server is not supported and is ignored: run yubihsm-connector, and reach it by `adapter`"
            ));
        }
        // Not on by itself: a device that does not log signatures, as tmkms sets them up, would stop the signer.
        if table.audit.is_none() {
            self.warnings.push(format!(
                "{name}: its log is not watched, so a signature by a copy of this signer or on a restored disk is not found: `audit = \"detect\"` \
                 finds it (docs/hardware.md says what that takes), and `audit = \"off\"` ends this warning"
            ));
        }
        let provider = Arc::new(provider);
        let mut keys = Vec::new();
        for key in table.keys {
            if let Some(other) = key.key_type.as_deref().filter(|key_type| *key_type != "consensus") {
                let what = format!("type `{other}` is not supported: only `consensus` (Ed25519) keys sign");
                return Err(Invalid::new(name, what));
            }
            for id in key.chain_ids {
                let key = YubihsmKey { provider: Arc::clone(&provider), key: key.key };
                keys.push((id, KeyConfig::OnDevices(vec![DeviceKey::Yubihsm(key)])));
            }
        }
        Ok((provider, keys))
    }

    fn password(&self, auth: &schema::YubihsmAuth) -> Result<SecretSource, Invalid> {
        let sources = [
            auth.password.clone().map(SecretSource::Inline),
            auth.password_file.clone().map(|path| SecretSource::File(self.path(path))),
            auth.password_env.clone().map(SecretSource::Env),
            auth.credential.clone().map(SecretSource::Credential),
        ];
        let mut sources = sources.into_iter().flatten();
        match (sources.next(), sources.next()) {
            (Some(source), None) => Ok(source),
            _ => Err(Invalid::new(
                TABLE,
                "auth needs one of `password_file`, `credential`, `password_env` and `password`",
            )),
        }
    }
}

const TABLE: &str = "[[providers.yubihsm]]";

/// Two owners of one device would take each other's sessions, and over USB the device itself.
pub(super) fn check_devices(providers: &[Arc<YubihsmProvider>]) -> Result<(), Invalid> {
    for (n, provider) in providers.iter().enumerate() {
        let same = |other: &&Arc<YubihsmProvider>| match (&other.adapter, &provider.adapter) {
            (Adapter::Usb, Adapter::Usb) => {
                other.serial.is_none() || provider.serial.is_none() || other.serial == provider.serial
            }
            (one, another) => {
                one == another || (provider.serial.is_some() && provider.serial == other.serial)
            }
        };
        if providers[..n].iter().any(|other| same(&other)) {
            let table = format!("{TABLE} {}", provider.name());
            let what = "the device is named twice: put all its keys into one table, and serial_number into each of several over USB";
            return Err(Invalid::new(table, what));
        }
    }
    Ok(())
}

fn audit(audit: &schema::YubihsmAudit) -> Audit {
    match audit {
        schema::YubihsmAudit::Off => Audit::Off,
        schema::YubihsmAudit::Detect => Audit::Detect,
        schema::YubihsmAudit::Permit => Audit::Permit,
    }
}

fn audit_file(serial: Option<&str>) -> FilePath {
    FilePath(format!("yubihsm-{}.audit", serial.unwrap_or("device")).into())
}

fn adapter(adapter: &schema::YubihsmAdapter) -> Result<(Adapter, Duration), String> {
    let (adapter, timeout_ms) = match adapter {
        schema::YubihsmAdapter::Usb { timeout_ms } => (Adapter::Usb, timeout_ms),
        schema::YubihsmAdapter::Http { addr, timeout_ms } => {
            if addr.contains('@') {
                return Err(
                    "adapter: addr has a user or a password in it: tcp://HOST:PORT is expected".into()
                );
            }
            let bad = || format!("adapter: `{addr}` is no address: tcp://HOST:PORT is expected");
            let rest = addr.strip_prefix("tcp://").or_else(|| addr.strip_prefix("http://")).unwrap_or(addr);
            let (host, port) = rest.trim_end_matches('/').rsplit_once(':').ok_or_else(bad)?;
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let port = port.parse().map_err(|_| bad())?;
            if host.is_empty() || host.contains('/') {
                return Err(bad());
            }
            (Adapter::Http { host: host.into(), port }, timeout_ms)
        }
    };
    match timeout_ms {
        None => Ok((adapter, TIMEOUT)),
        Some(ms @ 250..=4000) => Ok((adapter, Duration::from_millis(*ms))),
        Some(ms) => Err(format!(
            "adapter: timeout_ms {ms} is not between 250 and 4000: a signature takes up to 150 ms, and a node waits for 5 s"
        )),
    }
}

fn serial_number(text: &str) -> Result<String, String> {
    match text.parse::<u32>() {
        Ok(number) => Ok(format!("{number:010}")),
        Err(_) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => Err(format!(
            "serial_number `{text}` is above {}, the highest there can be: a placeholder? `monosign yubihsm detect` shows the device's own",
            u32::MAX
        )),
        Err(_) => Err(format!(
            "serial_number `{text}` is not up to ten digits: `monosign yubihsm detect` shows the device's own"
        )),
    }
}
