//! The `monosign.toml` of a simulated signer.

use std::path::Path;

use toml::{Table, Value};

use crate::run::Mode;

/// Where the files of a simulated signer lie.
#[derive(Debug, Clone, Copy)]
pub struct SignerFiles<'a> {
    /// Its record, on its simulated disk.
    pub record: &'a Path,
    /// The consensus key.
    pub consensus_key: &'a Path,
    /// The identity of its connections.
    pub identity: &'a Path,
    /// The password, and the PIN, of devices.
    pub password: &'a Path,
}

/// What a scenario says of a signer.
#[derive(Debug, Clone, Copy)]
pub struct SignerTables<'a> {
    /// The devices that hold its key, in modes that have any.
    pub devices: &'a [String],
    /// What stands in its `[[chain]]` table.
    pub chain: &'a Table,
    /// What stands in its `[[validator]]` tables.
    pub link: &'a Table,
    /// What stands in its `[[providers.yubihsm]]` tables.
    pub provider: &'a Table,
}

/// What a scenario cannot set in the `[[chain]]` table, since the simulator does.
pub(super) const CHAIN_KEYS: [&str; 2] = ["id", "state_file"];
/// What a scenario cannot set in the `[[validator]]` tables, since the simulator does.
pub(super) const LINK_KEYS: [&str; 3] = ["chain_id", "addr", "secret_key"];
/// What a scenario cannot set in the `[[providers.yubihsm]]` tables, since the simulator does.
pub(super) const PROVIDER_KEYS: [&str; 5] = ["adapter", "auth", "keys", "serial_number", "audit_file"];

/// The number of the key on simulated devices.
pub const KEY: u16 = 1;
/// The number of the authentication key that signs.
pub const AUTH_KEY: u16 = 4;
/// How long one exchange with a device may take: what an operator would set, and two of them are less than the 5 s that a node waits.
const TIMEOUT_MS: i64 = 2000;

/// The text of the file of a signer that serves the nodes at `addrs`.
pub fn signer_toml(
    mode: Mode,
    chain_id: &str,
    files: SignerFiles<'_>,
    addrs: &[String],
    tables: SignerTables<'_>,
) -> String {
    let devices = tables.devices.iter();
    let (kind, provider): (_, Vec<Table>) = match mode {
        Mode::Softsign | Mode::Device | Mode::Threshold(_) => ("softsign", vec![softsign(chain_id, files)]),
        Mode::Yubihsm => {
            let table = |(n, name): (usize, &String)| yubihsm(chain_id, files, n, name, tables.provider);
            ("yubihsm", devices.enumerate().map(table).collect())
        }
        Mode::Pkcs11 => ("pkcs11", devices.map(|name| pkcs11(chain_id, files, name)).collect()),
    };
    let providers = Table::from_iter([(kind.to_owned(), Value::from(provider))]);
    let SignerFiles { record, identity, .. } = files;
    with_providers(chain_id, record, identity, addrs, (tables.chain, tables.link), providers)
}

/// The text of the file of a signer with these providers.
pub(super) fn with_providers(
    chain_id: &str,
    record: &Path,
    identity: &Path,
    addrs: &[String],
    (chain, link): (&Table, &Table),
    providers: Table,
) -> String {
    let mut chain = chain.clone();
    chain.insert("id".into(), chain_id.into());
    chain.insert("state_file".into(), path(record));
    let validators = addrs.iter().map(|addr| {
        let mut link = link.clone();
        link.insert("chain_id".into(), chain_id.into());
        link.insert("addr".into(), addr.as_str().into());
        link.insert("secret_key".into(), path(identity));
        link
    });
    let mut file = Table::new();
    file.insert("chain".into(), vec![chain].into());
    file.insert("validator".into(), validators.collect::<Vec<_>>().into());
    file.insert("providers".into(), providers.into());
    file.to_string()
}

/// The serial number of a device: what its name hashes to would do as well, but this can be read.
pub fn serial_number(name: &str) -> u32 {
    name.bytes().fold(0, |sum: u32, byte| sum.wrapping_mul(31).wrapping_add(byte.into()) % 1_000_000_007)
}

fn softsign(chain_id: &str, files: SignerFiles<'_>) -> Table {
    let mut table = Table::new();
    table.insert("chain_ids".into(), vec![chain_id].into());
    table.insert("path".into(), path(files.consensus_key));
    table.insert("allow_plaintext_key".into(), true.into());
    table
}

fn yubihsm(chain_id: &str, files: SignerFiles<'_>, n: usize, name: &str, provider: &Table) -> Table {
    let adapter = [
        ("type".to_owned(), Value::from("http")),
        ("addr".to_owned(), format!("tcp://{name}:12345").into()),
        ("timeout_ms".to_owned(), TIMEOUT_MS.into()),
    ];
    let auth =
        [("key".to_owned(), i64::from(AUTH_KEY).into()), ("password_file".to_owned(), path(files.password))];
    let key = [("chain_ids".to_owned(), vec![chain_id].into()), ("key".to_owned(), i64::from(KEY).into())];
    let mut table = provider.clone();
    // What stands in it beside these is the scenario's; by default the log is watched.
    table.entry("audit").or_insert_with(|| "detect".into());
    table.insert("adapter".into(), Table::from_iter(adapter).into());
    table.insert("auth".into(), Table::from_iter(auth).into());
    table.insert("keys".into(), vec![Table::from_iter(key)].into());
    table.insert("serial_number".into(), serial_number(name).to_string().into());
    table.insert("audit_file".into(), path(&audit_file(files.record, n)));
    table
}

/// Where what is known of the log of a signer's `n`th device lies.
pub fn audit_file(record: &Path, n: usize) -> std::path::PathBuf {
    record.with_file_name(format!("device-{n}.audit"))
}

fn pkcs11(chain_id: &str, files: SignerFiles<'_>, name: &str) -> Table {
    let key = [("chain_ids".to_owned(), vec![chain_id].into()), ("label".to_owned(), "consensus".into())];
    let mut table = Table::new();
    table.insert("module".into(), "/usr/lib/simulated-pkcs11.so".into());
    table.insert("token_label".into(), name.into());
    table.insert("pin_file".into(), path(files.password));
    table.insert("timeout_ms".into(), TIMEOUT_MS.into());
    table.insert("keys".into(), vec![Table::from_iter(key)].into());
    table
}

pub(super) fn path(path: &Path) -> Value {
    path.display().to_string().into()
}
