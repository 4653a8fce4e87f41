//! The file as it is written: `tmkms.toml`, and what monosign adds to it.

use secrecy::SecretString;
use serde::Deserialize;

use crate::ops::redact::FilePath;

/// A whole file. Unknown keys are errors, so that a typo never switches anything off.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(default)]
    pub(super) chain: Vec<Chain>,
    #[serde(default)]
    pub(super) validator: Vec<Validator>,
    #[serde(default)]
    pub(super) providers: Providers,
    pub(super) admin_socket: Option<FilePath>,
}

impl File {
    /// Whether it has a setting, or a value, that tmkms refuses.
    pub(super) fn is_for_monosign_alone(&self) -> bool {
        let providers = &self.providers;
        self.admin_socket.is_some()
            || !providers.pkcs11.is_empty()
            || !providers.threshold.is_empty()
            || providers.yubihsm.len() > 1
            || providers.yubihsm.iter().any(|device| device.audit.is_some() || device.audit_file.is_some())
            || self.chain.iter().any(|chain| {
                chain.max_height_jump.is_some()
                    || chain.sign_bytes
                    || chain.sign_raw_bytes
                    || chain.sign_non_rp_extensions
            })
            || self.validator.iter().any(|validator| {
                let version = validator.protocol_version.as_deref();
                !matches!(version, None | Some("v0.34" | "v0.38")) || validator.addr.starts_with("noise://")
            })
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Chain {
    pub(super) id: String,
    pub(super) key_format: Option<KeyFormat>,
    pub(super) state_file: Option<FilePath>,
    pub(super) max_height_jump: Option<u64>,
    #[serde(default)]
    pub(super) sign_bytes: bool,
    #[serde(default)]
    pub(super) sign_raw_bytes: bool,
    #[serde(default)]
    pub(super) sign_non_rp_extensions: bool,
    /// tmkms: without effect there, and here extensions are signed whenever a node asks.
    pub(super) sign_extensions: Option<bool>,
    /// tmkms: never worked there.
    pub(super) state_hook: Option<toml::Value>,
}

/// How the public key is shown. Display only.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum KeyFormat {
    /// bech32, with the chain's prefixes.
    Bech32 {
        /// For instance `cosmospub`; not used for consensus keys.
        account_key_prefix: String,
        /// For instance `cosmosvalconspub`.
        consensus_key_prefix: String,
    },
    /// The Cosmos SDK's JSON.
    CosmosJson,
    /// Hexadecimal.
    Hex,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Validator {
    pub(super) chain_id: String,
    pub(super) addr: String,
    pub(super) secret_key: Option<FilePath>,
    pub(super) protocol_version: Option<String>,
    #[serde(default = "yes")]
    pub(super) reconnect: bool,
    pub(super) timeout: Option<u16>,
    pub(super) max_height: Option<MaxHeight>,
}

/// tmkms writes heights as text.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum MaxHeight {
    Number(i64),
    Text(String),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Providers {
    #[serde(default)]
    pub(super) softsign: Vec<Softsign>,
    #[serde(default)]
    pub(super) yubihsm: Vec<Yubihsm>,
    #[serde(default)]
    pub(super) pkcs11: Vec<Pkcs11>,
    #[serde(default)]
    pub(super) threshold: Vec<Threshold>,
    pub(super) ledgertm: Option<toml::Value>,
    pub(super) fortanixdsm: Option<toml::Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Softsign {
    pub(super) chain_ids: Vec<String>,
    pub(super) path: FilePath,
    pub(super) key_type: Option<String>,
    pub(super) key_format: Option<String>,
    #[serde(default)]
    pub(super) allow_plaintext_key: bool,
    pub(super) credential: Option<String>,
    pub(super) identity_file: Option<FilePath>,
    pub(super) passphrase_file: Option<FilePath>,
}

/// A device; tmkms has one at the most.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Yubihsm {
    pub(super) adapter: YubihsmAdapter,
    pub(super) auth: YubihsmAuth,
    #[serde(default)]
    pub(super) keys: Vec<YubihsmKey>,
    pub(super) serial_number: Option<String>,
    pub(super) audit: Option<YubihsmAudit>,
    pub(super) audit_file: Option<FilePath>,
    /// tmkms: shares the device over HTTP.
    pub(super) connector_server: Option<toml::Value>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum YubihsmAdapter {
    Http { addr: String, timeout_ms: Option<u64> },
    Usb { timeout_ms: Option<u64> },
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum YubihsmAudit {
    Off,
    Detect,
    Permit,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct YubihsmAuth {
    pub(super) key: u16,
    #[serde(default, deserialize_with = "secret")]
    pub(super) password: Option<SecretString>,
    pub(super) password_file: Option<FilePath>,
    pub(super) password_env: Option<String>,
    pub(super) credential: Option<String>,
}

/// Without the password.
impl std::fmt::Debug for YubihsmAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("YubihsmAuth").field("key", &self.key).finish_non_exhaustive()
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct YubihsmKey {
    pub(super) chain_ids: Vec<String>,
    pub(super) key: u16,
    #[serde(rename = "type")]
    pub(super) key_type: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pkcs11 {
    pub(super) module: FilePath,
    pub(super) token_label: String,
    pub(super) pin_file: Option<FilePath>,
    pub(super) pin_env: Option<String>,
    pub(super) credential: Option<String>,
    pub(super) timeout_ms: Option<u64>,
    #[serde(default)]
    pub(super) keys: Vec<Pkcs11Key>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pkcs11Key {
    #[serde(default)]
    pub(super) chain_ids: Vec<String>,
    pub(super) label: Option<String>,
    pub(super) id: Option<String>,
    pub(super) public_key: Option<String>,
}

/// A share of a key, and where the other cosigners are.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Threshold {
    /// One chain: its group file names it.
    pub(super) chain_ids: Vec<String>,
    pub(super) group: FilePath,
    pub(super) share: FilePath,
    pub(super) credential: Option<String>,
    pub(super) identity_file: Option<FilePath>,
    pub(super) listen: String,
    #[serde(default)]
    pub(super) rejoin: Rejoin,
    pub(super) hedge_ms: Option<u64>,
    pub(super) hold_ms: Option<u64>,
    #[serde(default)]
    pub(super) peer: Vec<Peer>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Rejoin {
    #[default]
    Auto,
    Strict,
}

/// Another cosigner.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Peer {
    pub(super) id: u16,
    pub(super) addr: String,
}

fn secret<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<SecretString>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(SecretString::from))
}

fn yes() -> bool {
    true
}
