//! The `monosign.toml` of a simulated signer.

use std::path::Path;

use toml::Table;

/// Where the files of a simulated signer lie.
#[derive(Debug, Clone, Copy)]
pub struct SignerFiles<'a> {
    /// Its record, on its simulated disk.
    pub record: &'a Path,
    /// The consensus key.
    pub consensus_key: &'a Path,
    /// The identity of its connections.
    pub identity: &'a Path,
}

/// What a scenario cannot set in the `[[chain]]` table, since the simulator does.
pub(super) const CHAIN_KEYS: [&str; 2] = ["id", "state_file"];
/// What a scenario cannot set in the `[[validator]]` tables, since the simulator does.
pub(super) const LINK_KEYS: [&str; 3] = ["chain_id", "addr", "secret_key"];

/// The text of the file of a signer that serves the nodes at `addrs`, with a scenario's `chain` and `link` tables in it.
pub fn signer_toml(
    chain_id: &str,
    files: SignerFiles<'_>,
    addrs: &[String],
    chain: &Table,
    link: &Table,
) -> String {
    let mut softsign = Table::new();
    softsign.insert("chain_ids".into(), vec![chain_id].into());
    softsign.insert("path".into(), files.consensus_key.display().to_string().into());
    softsign.insert("allow_plaintext_key".into(), true.into());
    let mut providers = Table::new();
    providers.insert("softsign".into(), vec![softsign].into());
    let SignerFiles { record, identity, .. } = files;
    with_providers(chain_id, record, identity, addrs, (chain, link), providers)
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
    let path = |path: &Path| path.display().to_string();
    let mut chain = chain.clone();
    chain.insert("id".into(), chain_id.into());
    chain.insert("state_file".into(), path(record).into());
    let validators = addrs.iter().map(|addr| {
        let mut link = link.clone();
        link.insert("chain_id".into(), chain_id.into());
        link.insert("addr".into(), addr.as_str().into());
        link.insert("secret_key".into(), path(identity).into());
        link
    });
    let mut file = Table::new();
    file.insert("chain".into(), vec![chain].into());
    file.insert("validator".into(), validators.collect::<Vec<_>>().into());
    file.insert("providers".into(), providers.into());
    file.to_string()
}
