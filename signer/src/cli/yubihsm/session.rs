//! A session with a device, for a command.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use secrecy::SecretString;
use yubihsm::Client;

use super::Failure;
use crate::backend::device::DeviceError;
use crate::backend::yubihsm::{Adapter, Audit, Opened, Settings, TIMEOUT, YubihsmDriver};
use crate::cli::{ConfigArgs, unlock_env};
use crate::config::{ChainConfig, YubihsmProvider};
use crate::ops::secret_source::SecretSource;
use crate::start::StartError;

/// Which device, and as whom.
#[derive(Debug, Args)]
pub(super) struct DeviceArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// A yubihsm-connector, instead of the devices of a configuration: tcp://HOST:PORT.
    #[arg(long, value_name = "ADDR", conflicts_with_all = ["config", "usb"])]
    connector: Option<String>,
    /// The device on USB, instead of those of a configuration.
    #[arg(long, conflicts_with = "config")]
    usb: bool,
    /// The serial number of the device, if there are several.
    #[arg(long, value_name = "NUMBER")]
    serial: Option<String>,
    /// The number of the authentication key, instead of the configuration's. Its password is asked for.
    #[arg(long, value_name = "ID", value_parser = object_id)]
    auth_key: Option<u16>,
    /// A file with the password of the authentication key.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

/// What a device says of itself.
pub(super) struct Info {
    pub(super) serial: String,
    pub(super) firmware: String,
    pub(super) log_used: u8,
    pub(super) log_capacity: u8,
}

/// An open session.
pub(super) struct Session {
    opened: Opened,
}

impl Session {
    pub(super) fn client(&self) -> &Client {
        &self.opened.client
    }

    pub(super) fn info(&self) -> Result<Info, Failure> {
        let info = self.client().device_info().map_err(|error| told(&error))?;
        let firmware = format!("{}.{}.{}", info.major_version, info.minor_version, info.build_version);
        Ok(Info {
            serial: info.serial_number.to_string(),
            firmware,
            log_used: info.log_store_used,
            log_capacity: info.log_store_capacity,
        })
    }
}

impl DeviceArgs {
    /// The devices that are meant.
    pub(super) fn providers(&self) -> Result<Vec<Arc<YubihsmProvider>>, Failure> {
        if let Some(adapter) = self.adapter()? {
            return Ok(vec![Arc::new(YubihsmProvider {
                adapter,
                timeout: TIMEOUT,
                serial: self.serial(),
                auth_key: 1,
                // The password of a device as it comes from the factory.
                password: SecretSource::Inline("password".into()),
                audit: Audit::Off,
                audit_file: PathBuf::new(),
                keys: BTreeSet::new(),
            })]);
        }
        let config = self.config.load()?;
        let serial = self.serial();
        let meant = config.yubihsm.iter().filter(|provider| serial.is_none() || provider.serial == serial);
        Ok(meant.cloned().collect())
    }

    fn adapter(&self) -> Result<Option<Adapter>, Failure> {
        match &self.connector {
            Some(addr) => {
                let addr = addr.strip_prefix("tcp://").unwrap_or(addr);
                let parsed = addr.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
                let (host, port) =
                    parsed.ok_or_else(|| Failure::usage(format!("`{addr}` is not tcp://HOST:PORT")))?;
                Ok(Some(Adapter::Http { host: host.into(), port }))
            }
            None if self.usb => Ok(Some(Adapter::Usb)),
            None => Ok(None),
        }
    }

    fn serial(&self) -> Option<String> {
        self.serial.as_ref().map(|serial| format!("{serial:0>10}"))
    }

    /// Whether the authentication key or its password is named on the command line.
    pub(super) fn names_a_key(&self) -> bool {
        self.auth_key.is_some() || self.password_file.is_some()
    }

    /// Whether a device is named on the command line.
    pub(super) fn names_one(&self) -> bool {
        self.connector.is_some() || self.usb || self.serial.is_some()
    }

    /// The chains of the configuration.
    pub(super) fn chains(&self) -> Result<Vec<ChainConfig>, Failure> {
        Ok(self.config.load()?.chains)
    }

    /// The one device that is meant.
    pub(super) fn provider(&self) -> Result<Arc<YubihsmProvider>, Failure> {
        let mut providers = self.providers()?;
        match (providers.pop(), providers.is_empty()) {
            (Some(provider), true) => Ok(provider),
            (None, _) => Err(Failure::usage(
                "no device is named\nhint: --connector tcp://HOST:PORT, or a [[providers.yubihsm]] in the configuration",
            )),
            (Some(_), false) => Err(Failure::usage("which device?\nhint: --serial NUMBER")),
        }
    }

    /// A session as whoever is asked for on the command line, or else as the configuration says.
    pub(super) fn open(&self) -> Result<Session, Failure> {
        self.open_provider(&*self.provider()?)
    }

    pub(super) fn open_provider(&self, provider: &YubihsmProvider) -> Result<Session, Failure> {
        let auth_key = self.auth_key(provider);
        let password = self.password(provider, auth_key)?;
        open(provider, auth_key, password)
    }

    /// As whom.
    pub(super) fn auth_key(&self, provider: &YubihsmProvider) -> u16 {
        self.auth_key.unwrap_or(provider.auth_key)
    }

    fn password(&self, provider: &YubihsmProvider, auth_key: u16) -> Result<SecretString, Failure> {
        let source = match (&self.password_file, self.auth_key) {
            (Some(path), _) => SecretSource::File(path.clone()),
            (None, Some(_)) => {
                let prompt = format!("password of authentication key {auth_key:#06x}: ");
                return Ok(rpassword::prompt_password(prompt)?.into());
            }
            (None, None) => provider.password.clone(),
        };
        Ok(source.read(&unlock_env()).map_err(StartError::from)?)
    }
}

/// A session as an authentication key.
pub(super) fn open(
    provider: &YubihsmProvider,
    auth_key: u16,
    password: SecretString,
) -> Result<Session, Failure> {
    let settings = Settings {
        adapter: provider.adapter.clone(),
        timeout: provider.timeout,
        serial: provider.serial.clone(),
        auth_key,
        password,
    };
    let name = settings.name();
    let opened = YubihsmDriver::open(Arc::new(settings));
    let opened = opened.map_err(|error| {
        let hint = match error {
            DeviceError::WrongPassword => format!(
                "\nhint: authentication key {auth_key:#06x} has another password: `--auth-key` and `--password-file` name another key or file"
            ),
            _ => String::new(),
        };
        Failure::new(format!("device {name}: {error}{hint}"))
    })?;
    Ok(Session { opened })
}

/// Whether the device's serial number was given, or else is typed now.
pub(super) fn serial_is_typed(
    serial: &str,
    given: Option<&str>,
    out: &mut dyn Write,
) -> Result<bool, Failure> {
    let given: Vec<_> = given.map(str::to_owned).into_iter().collect();
    is_typed("its serial number", serial, &given, out)
}

/// Whether a serial number is among those that were given, or else is typed now. `what` it is stands in the question.
pub(super) fn is_typed(
    what: &str,
    serial: &str,
    given: &[String],
    out: &mut dyn Write,
) -> Result<bool, Failure> {
    let is_it = |text: &str| format!("{:0>10}", text.trim()) == serial;
    if !given.is_empty() {
        return Ok(given.iter().any(|given| is_it(given)));
    }
    write!(out, "Type {what} to go on: ")?;
    Ok(is_it(&read_line(out)?))
}

/// The answer to what was just written; empty at the end of the input.
pub(super) fn read_line(out: &mut dyn Write) -> Result<String, Failure> {
    out.flush()?;
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    Ok(line)
}

/// An error of the crate, with what to do where that is known.
pub(super) fn told(error: &yubihsm::client::Error) -> Failure {
    use yubihsm::device::ErrorKind;
    let hint = match error.device_error() {
        Some(ErrorKind::InsufficientPermissions) => {
            "\nhint: this authentication key may not do that; after `setup`, keys are made with --auth-key 2, the operator's"
        }
        Some(ErrorKind::ObjectExists) => "\nhint: choose another number, nothing is ever overwritten",
        Some(ErrorKind::ObjectNotFound) => "\nhint: `monosign yubihsm keys list` shows what is there",
        Some(ErrorKind::LogFull) => {
            "\nhint: the log must be read first: by the signer or `monosign yubihsm unlock`, if its configuration has `audit` for this \
                                     device, and else by yubihsm-shell (`audit get`, `audit set`)"
        }
        _ => "",
    };
    Failure::new(format!("{error}{hint}"))
}

/// The number of a key or another object: decimal, or hexadecimal with 0x.
pub(super) fn object_id(text: &str) -> Result<u16, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u16::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.ok().filter(|id| *id != 0 && *id != u16::MAX).ok_or_else(|| format!("`{text}` is not 1 to 65534"))
}
