//! The configuration: a `tmkms.toml` as it is, and monosign's own settings in the same file.
//!
//! [`Config::load`] reads, checks and resolves; what it returns holds no contradiction. Relative paths are relative to the
//! file, not to the working directory.

mod endpoint;
mod key;
mod pkcs11;
mod schema;
mod template;
mod threshold;
mod yubihsm;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use monosign_protocol::dialect::InvalidDialect;
use monosign_protocol::{ChainId, Dialect, Height};
use zeroize::Zeroizing;

use crate::backend::softsign::unlock::KeySource;
use crate::chain::{RawSigning, Rules};
use crate::guard::JumpLimit;
use crate::import::key::PlainFormat;
use crate::ops::private_file::{self, PrivateFileError};
use crate::ops::redact::{self, FilePath};
use crate::ops::secret_source::SecretSource;
use crate::pubkey::check_prefix;
pub use endpoint::{Addr, Endpoint, InvalidAddr, PinnedPeer};
pub use key::{DeviceKey, KeyConfig, Pkcs11Key, Pkcs11Provider, YubihsmKey, YubihsmProvider};
pub use schema::KeyFormat;
pub use template::{TemplateChain, template};
pub use threshold::ThresholdConfig;

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file it was read from.
    pub path: PathBuf,
    /// The chains that are signed for, in the order of the file.
    pub chains: Vec<ChainConfig>,
    /// The validators that are dialed, in the order of the file.
    pub validators: Vec<ValidatorConfig>,
    /// The YubiHSM devices, in the order of the file.
    pub yubihsm: Vec<Arc<YubihsmProvider>>,
    /// The PKCS#11 tokens, in the order of the file.
    pub pkcs11: Vec<Arc<Pkcs11Provider>>,
    /// Where `monosign unlock` finds the running signer.
    pub admin_socket: PathBuf,
    /// What is read and has no effect.
    pub warnings: Vec<String>,
}

/// A `[[chain]]`, with its key.
#[derive(Debug, Clone)]
pub struct ChainConfig {
    /// The chain.
    pub id: ChainId,
    /// How its public key is shown.
    pub key_format: KeyFormat,
    /// Its record.
    pub record: PathBuf,
    /// What is signed for it.
    pub rules: Rules,
    /// Its key.
    pub key: KeyConfig,
    /// Where this was read.
    pub origin: Origin,
}

/// Where a chain's settings come from, as far as it says where its state may lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The file.
    pub config: PathBuf,
    /// Whether it has this chain alone.
    pub only_chain: bool,
    /// Its `state_file`, or tmkms's name for it where there is none, if it is relative. tmkms takes it from the directory that it
    /// was started in, and we from that of the file.
    pub relative_state: Option<PathBuf>,
    /// Whether tmkms would read this file too, so that tmkms may have signed by it. Settings that only say how a key is opened do
    /// not count: whoever comes from tmkms adds them.
    pub is_tmkms: bool,
}

/// A `[[validator]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidatorConfig {
    /// The chain it validates.
    pub chain_id: ChainId,
    /// Where it listens.
    pub addr: Addr,
    /// Our identity on the connection; always there but for unix sockets.
    pub identity: Option<PathBuf>,
    /// The dialect that the file names; `None` for `auto`.
    pub dialect: Option<Dialect>,
    /// Whether to dial again when the connection ends.
    pub reconnect: bool,
    /// How long a silent validator is waited for.
    pub timeout: Duration,
    /// Above this height nothing is signed.
    pub max_height: Option<Height>,
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not TOML, or has a key or value that does not exist. The parser's own error is not kept: it holds the text.
    #[error("`{}`: {what}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and what, without anything of the file.
        what: String,
    },
    /// A password stands in it, and others can read it.
    #[error("{0}: a password stands in it")]
    Exposed(#[from] PrivateFileError),
    /// A value contradicts itself or another.
    #[error("`{}`: {table}: {what}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The table, for instance `[[chain]] cosmoshub-4`.
        table: String,
        /// What is wrong with it.
        what: String,
    },
}

impl ConfigError {
    /// Whether it was refused for safety, which the exit code tells.
    pub fn is_for_safety(&self) -> bool {
        matches!(self, Self::Exposed(error) if error.is_for_safety())
    }
}

/// How far above the record a request may be, unless the file says otherwise: two days of one-second blocks, near enough.
const DEFAULT_MAX_HEIGHT_JUMP: u64 = 100_000;
/// Nodes ping every 3.3 s; tmkms waits as long.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// Below this, a healthy node would be dropped between two pings.
const SHORTEST_TIMEOUT: u16 = 4;

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`] with file, line or table, and field.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::Read { path: path.into(), source };
        let mut file = File::open(path).map_err(unreadable)?;
        let mut text = Zeroizing::new(String::new());
        file.read_to_string(&mut text).map_err(unreadable)?;
        let config = Self::parse(&text, path)?;
        if config.holds_a_secret() {
            private_file::must_be_private(path, &file)?;
        }
        Ok(config)
    }

    /// Checks the text of a file that lies at `path`.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let file: schema::File = toml::from_str(text)
            .map_err(|error| ConfigError::Parse { path: path.into(), what: redact::toml(text, &error) })?;
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut resolver = Resolver { dir, warnings: Vec::new() };
        let resolved = resolver.config(file, path);
        let mut config = resolved.map_err(|Invalid { table, what }| ConfigError::Invalid {
            path: path.into(),
            table,
            what,
        })?;
        config.warnings = resolver.warnings;
        Ok(config)
    }

    /// Whether a password stands in the file itself.
    fn holds_a_secret(&self) -> bool {
        self.yubihsm.iter().any(|device| matches!(device.password, SecretSource::Inline(_)))
    }

    /// The settings of a chain.
    pub fn chain(&self, id: &ChainId) -> Option<&ChainConfig> {
        self.chains.iter().find(|chain| chain.id == *id)
    }
}

/// The keys by chain.
type ChainKeys = BTreeMap<String, KeyConfig>;

/// A chain, and its key.
type ChainKey = (String, KeyConfig);

/// The devices, by kind.
type Devices = (Vec<Arc<YubihsmProvider>>, Vec<Arc<Pkcs11Provider>>);

struct Resolver<'a> {
    dir: &'a Path,
    warnings: Vec<String>,
}

/// What is wrong in which table.
struct Invalid {
    table: String,
    what: String,
}

impl Invalid {
    fn new(table: impl Into<String>, what: impl ToString) -> Self {
        Self { table: table.into(), what: what.to_string() }
    }
}

impl Resolver<'_> {
    fn config(&mut self, file: schema::File, path: &Path) -> Result<Config, Invalid> {
        refuse_other_providers(&file.providers)?;
        let origin = Origin {
            config: path.into(),
            only_chain: file.chain.len() == 1,
            relative_state: None,
            is_tmkms: !file.is_for_monosign_alone(),
        };
        let (mut keys, (yubihsm, pkcs11)) = self.keys(file.providers, &file.chain)?;
        let chains = file
            .chain
            .into_iter()
            .map(|chain| self.chain(chain, &mut keys, &origin))
            .collect::<Result<Vec<_>, _>>()?;
        check_unique(&chains)?;
        let validators = file
            .validator
            .into_iter()
            .map(|validator| self.validator(validator, &chains))
            .collect::<Result<Vec<_>, _>>()?;
        check_no_twins(&validators)?;
        let admin_socket = self.path(file.admin_socket.unwrap_or_else(|| FilePath("monosign.sock".into())));
        let warnings = Vec::new();
        Ok(Config { path: path.into(), chains, validators, yubihsm, pkcs11, admin_socket, warnings })
    }

    fn path(&self, FilePath(path): FilePath) -> PathBuf {
        self.dir.join(path)
    }

    /// The key of each chain: exactly one, on one device or on several, or a share of it.
    fn keys(
        &mut self,
        providers: schema::Providers,
        chains: &[schema::Chain],
    ) -> Result<(ChainKeys, Devices), Invalid> {
        let mut keys = BTreeMap::new();
        for provider in providers.softsign {
            let table = format!("[[providers.softsign]] {}", provider.path.0.display());
            let source = self.key_source(&provider).map_err(|what| Invalid::new(&table, what))?;
            for id in provider.chain_ids {
                add_key(&mut keys, id, KeyConfig::Softsign(source.clone()), &table, chains)?;
            }
        }
        let mut devices = Vec::new();
        for table in providers.yubihsm {
            let (device, keys_there) = self.yubihsm(table)?;
            let table = format!("[[providers.yubihsm]] {}", device.name());
            for (id, key) in keys_there {
                add_key(&mut keys, id, key, &table, chains)?;
            }
            devices.push(device);
        }
        yubihsm::check_devices(&devices)?;
        let mut tokens = Vec::new();
        for table in providers.pkcs11 {
            let (token, keys_there) = self.pkcs11(table)?;
            let table = format!("[[providers.pkcs11]] {}", token.token_label);
            for (id, key) in keys_there {
                add_key(&mut keys, id, key, &table, chains)?;
            }
            tokens.push(token);
        }
        pkcs11::check_tokens(&tokens)?;
        for provider in providers.threshold {
            let table = format!("[[providers.threshold]] {}", provider.share.0.display());
            let (id, share) = self.share(provider).map_err(|what| Invalid::new(&table, what))?;
            threshold::check_listen(&share, &keys).map_err(|what| Invalid::new(&table, what))?;
            add_key(&mut keys, id, KeyConfig::Threshold(Box::new(share)), &table, chains)?;
        }
        Ok((keys, (devices, tokens)))
    }

    fn key_source(&self, provider: &schema::Softsign) -> Result<KeySource, String> {
        if let Some(other) = provider.key_type.as_deref().filter(|key_type| *key_type != "consensus") {
            return Err(format!("key_type `{other}` is not supported: only `consensus` (Ed25519) keys sign"));
        }
        let key_format = match provider.key_format.as_deref() {
            None => None,
            Some("base64") => Some(PlainFormat::Base64),
            Some("json") => Some(PlainFormat::Json),
            Some(other) => return Err(format!("key_format `{other}` is neither `base64` nor `json`")),
        };
        Ok(KeySource {
            path: self.path(provider.path.clone()),
            allow_plaintext: provider.allow_plaintext_key,
            key_format,
            credential: provider.credential.clone(),
            identity_file: provider.identity_file.clone().map(|path| self.path(path)),
            passphrase_file: provider.passphrase_file.clone().map(|path| self.path(path)),
        })
    }

    fn chain(
        &mut self,
        chain: schema::Chain,
        keys: &mut ChainKeys,
        origin: &Origin,
    ) -> Result<ChainConfig, Invalid> {
        let table = format!("[[chain]] {}", chain.id);
        let id: ChainId = chain.id.parse().map_err(|e| Invalid::new(&table, e))?;
        if chain.state_hook.is_some() {
            self.warnings.push(format!("{table}: state_hook is not supported and is ignored"));
        }
        if chain.sign_extensions == Some(false) {
            self.warnings.push(format!(
                "{table}: sign_extensions = false is ignored: vote extensions are signed whenever the node asks for them"
            ));
        }
        if let Some(KeyFormat::Bech32 { consensus_key_prefix, .. }) = &chain.key_format
            && let Err(error) = check_prefix(consensus_key_prefix)
        {
            self.warnings.push(format!("{table}: key_format: {error}"));
        }
        if chain.sign_bytes && chain.sign_raw_bytes {
            let what = "sign_bytes (v1.0) and sign_raw_bytes (Celestia) share their wire fields: a chain has one or neither";
            return Err(Invalid::new(table, what));
        }
        let key = keys.remove(&chain.id).ok_or_else(|| {
            let what =
                "it has no key: name it in the chain_ids of a [[providers.softsign]], yubihsm, pkcs11 or threshold";
            Invalid::new(&table, what)
        })?;
        // A file that is called as ours are, and names its record, is ours.
        let is_tmkms = origin.is_tmkms
            && (chain.state_file.is_none() || origin.config.file_name() != Some("monosign.toml".as_ref()));
        let record =
            chain.state_file.unwrap_or_else(|| FilePath(format!("{id}_priv_validator_state.json").into()));
        let relative_state = record.0.is_relative().then(|| record.0.clone());
        let jump_limit = match chain.max_height_jump.unwrap_or(DEFAULT_MAX_HEIGHT_JUMP) {
            0 => JumpLimit::Off,
            heights => JumpLimit::Heights(heights),
        };
        let raw = RawSigning {
            sign_bytes: chain.sign_bytes,
            celestia_raw_bytes: chain.sign_raw_bytes,
            non_rp_extensions: chain.sign_non_rp_extensions,
        };
        Ok(ChainConfig {
            id,
            key_format: chain.key_format.unwrap_or(KeyFormat::CosmosJson),
            record: self.path(record),
            rules: Rules { jump_limit, raw },
            key,
            origin: Origin { relative_state, is_tmkms, ..origin.clone() },
        })
    }

    fn validator(
        &mut self,
        validator: schema::Validator,
        chains: &[ChainConfig],
    ) -> Result<ValidatorConfig, Invalid> {
        let table = format!("[[validator]] {}", validator.addr);
        let invalid = |what: String| Invalid { table: table.clone(), what };
        let chain_id: ChainId = validator.chain_id.parse().map_err(|e| Invalid::new(&table, e))?;
        if !chains.iter().any(|chain| chain.id == chain_id) {
            return Err(invalid(format!("chain_id `{chain_id}` has no [[chain]]")));
        }
        let mut addr: Addr = validator.addr.parse().map_err(|e| Invalid::new(&table, e))?;
        if let Endpoint::Unix(path) = &mut addr.endpoint {
            *path = self.dir.join(&*path);
        }
        let identity = validator.secret_key.map(|path| self.path(path));
        if identity.is_none() && !addr.endpoint.is_local() {
            return Err(invalid("secret_key is missing: tcp and noise connections need an identity\nhint: `monosign init DIR` makes one, DIR/secrets/secret_connection.key".into()));
        }
        let timeout = match validator.timeout {
            Some(seconds) if seconds < SHORTEST_TIMEOUT => {
                self.warnings.push(format!(
                    "{table}: timeout {seconds} is below the 3.3 s between a node's pings: {SHORTEST_TIMEOUT} is used"
                ));
                Duration::from_secs(SHORTEST_TIMEOUT.into())
            }
            Some(seconds) => Duration::from_secs(seconds.into()),
            None => DEFAULT_TIMEOUT,
        };
        Ok(ValidatorConfig {
            chain_id,
            addr,
            identity,
            dialect: dialect(validator.protocol_version.as_deref()).map_err(invalid)?,
            reconnect: validator.reconnect,
            timeout,
            max_height: max_height(validator.max_height).map_err(invalid)?,
        })
    }
}

fn add_key(
    keys: &mut ChainKeys,
    id: String,
    key: KeyConfig,
    table: &str,
    chains: &[schema::Chain],
) -> Result<(), Invalid> {
    if !chains.iter().any(|chain| chain.id == id) {
        return Err(Invalid::new(table, format!("chain_ids names `{id}`, which has no [[chain]]")));
    }
    let second = || Invalid::new(table, format!("chain `{id}` has a second key: exactly one signs"));
    match (keys.get_mut(&id), key) {
        (None, key) => drop(keys.insert(id, key)),
        // The same key on another device, to fail over to. That it is the same is seen when the device shows it.
        (Some(KeyConfig::OnDevices(there)), KeyConfig::OnDevices(more)) => {
            let same_device = more.iter().any(|key| there.iter().any(|other| key.device() == other.device()));
            if same_device {
                return Err(second());
            }
            there.extend(more);
        }
        _ => return Err(second()),
    }
    Ok(())
}

fn refuse_other_providers(providers: &schema::Providers) -> Result<(), Invalid> {
    let others = [("ledgertm", &providers.ledgertm), ("fortanixdsm", &providers.fortanixdsm)];
    match others.into_iter().find(|(_, table)| table.is_some()) {
        Some((name, _)) => Err(Invalid::new(
            format!("[providers.{name}]"),
            "this version does not sign with such devices: use [[providers.softsign]], yubihsm, pkcs11 or threshold",
        )),
        None => Ok(()),
    }
}

fn check_unique(chains: &[ChainConfig]) -> Result<(), Invalid> {
    let mut ids = BTreeSet::new();
    let mut records = BTreeSet::new();
    for chain in chains {
        let table = format!("[[chain]] {}", chain.id);
        if !ids.insert(&chain.id) {
            return Err(Invalid::new(table, "the chain is named twice"));
        }
        if !records.insert(&chain.record) {
            return Err(Invalid::new(table, "its state_file is that of another chain: each has its own"));
        }
    }
    Ok(())
}

/// Two connections to one node would keep one of them waiting for ever.
fn check_no_twins(validators: &[ValidatorConfig]) -> Result<(), Invalid> {
    for (n, validator) in validators.iter().enumerate() {
        if validators[..n].iter().any(|other| other.addr.endpoint == validator.addr.endpoint) {
            let table = format!("[[validator]] {}", validator.addr);
            return Err(Invalid::new(table, "the address is named twice"));
        }
    }
    Ok(())
}

fn dialect(setting: Option<&str>) -> Result<Option<Dialect>, String> {
    match setting {
        None | Some("auto") => Ok(None),
        Some(name) => name.parse().map(Some).map_err(|error| match error {
            InvalidDialect::Unknown(_) => format!("protocol_version: {error}; or `auto`"),
            InvalidDialect::Amino(_) => format!("protocol_version: {error}"),
        }),
    }
}

fn max_height(setting: Option<schema::MaxHeight>) -> Result<Option<Height>, String> {
    let height = match setting {
        None => return Ok(None),
        Some(schema::MaxHeight::Number(height)) => Some(height),
        Some(schema::MaxHeight::Text(text)) => text.parse().ok(),
    };
    let height = height.filter(|height| *height > 0).ok_or("max_height is no height above 0")?;
    Ok(Some(Height(height)))
}

#[cfg(test)]
mod tests;
