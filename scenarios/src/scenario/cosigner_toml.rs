//! The `monosign.toml` of a simulated cosigner.

use std::path::Path;

use toml::Table;

use super::signer_toml::{path, with_providers};

/// Where the files of a simulated cosigner lie.
#[derive(Debug, Clone, Copy)]
pub struct CosignerFiles<'a> {
    /// Its record, on its simulated disk.
    pub record: &'a Path,
    /// The group file.
    pub group: &'a Path,
    /// Its share.
    pub share: &'a Path,
    /// What opens the share.
    pub share_identity: &'a Path,
    /// The identity of its connections to nodes.
    pub identity: &'a Path,
}

/// What a scenario cannot set in the `[[providers.threshold]]` table, since the simulator does.
pub(super) const GROUP_KEYS: [&str; 7] =
    ["chain_ids", "group", "share", "credential", "identity_file", "listen", "peer"];

/// The text of the file of a cosigner that serves the nodes at `addrs`, listens for its peers and dials them, with a scenario's
/// `chain`, `link` and `group` tables in it.
pub fn cosigner_toml(
    chain_id: &str,
    files: CosignerFiles<'_>,
    listen: &str,
    peers: &[(u16, String)],
    addrs: &[String],
    (chain, link, group): (&Table, &Table, &Table),
) -> String {
    let mut threshold = group.clone();
    threshold.insert("chain_ids".into(), vec![chain_id].into());
    threshold.insert("group".into(), path(files.group));
    threshold.insert("share".into(), path(files.share));
    threshold.insert("identity_file".into(), path(files.share_identity));
    threshold.insert("listen".into(), listen.into());
    let peers = peers.iter().map(|(id, addr)| {
        Table::from_iter([
            ("id".to_owned(), i64::from(*id).into()),
            ("addr".to_owned(), addr.as_str().into()),
        ])
    });
    threshold.insert("peer".into(), peers.collect::<Vec<_>>().into());
    let mut providers = Table::new();
    providers.insert("threshold".into(), vec![threshold].into());
    with_providers(chain_id, files.record, files.identity, addrs, (chain, link), providers)
}
