//! What has to change in the configuration, and the file as it would be then.

use std::path::Path;

use monosign_protocol::Dialect;
use serde::Serialize;
use toml_edit::{DocumentMut, Item, Table, value};

use super::diff;
use crate::config::{ChainConfig, Config, PinnedPeer, ValidatorConfig};

/// Changes to a configuration, and what comes of them.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) changes: Vec<Change>,
    before: String,
    document: DocumentMut,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Change {
    /// The table that it is in, for instance `[[validator]] tcp://10.0.0.5:26658`.
    pub(super) table: String,
    /// The setting.
    pub(super) setting: &'static str,
    /// Whether the signer does not sign for the release without it.
    pub(super) needed: bool,
    /// Why.
    pub(super) why: String,
}

impl Plan {
    /// What has to change in `text`, which `config` was read from, for validators of `to`.
    ///
    /// # Errors
    /// The text is no TOML; it was when it was read.
    pub(super) fn new(text: &str, config: &Config, to: Dialect) -> Result<Self, toml_edit::TomlError> {
        let mut plan = Self { changes: Vec::new(), before: text.into(), document: text.parse()? };
        for (n, chain) in config.chains.iter().enumerate() {
            plan.chain(n, chain, to);
        }
        for (n, validator) in config.validators.iter().enumerate() {
            plan.validator(n, validator, to);
        }
        Ok(plan)
    }

    /// Whether the signer signs for the release without any change.
    pub(super) fn needs_nothing(&self) -> bool {
        !self.changes.iter().any(|change| change.needed)
    }

    /// The file after the changes.
    pub(super) fn changed(&self) -> String {
        self.document.to_string()
    }

    /// The changes as a diff that `patch` takes; empty if there are none. See [`diff`].
    pub(super) fn diff(&self, path: &Path) -> String {
        diff::unified(&self.before, &self.changed(), path)
    }

    fn chain(&mut self, n: usize, chain: &ChainConfig, to: Dialect) {
        let raw = chain.rules.raw;
        let table = format!("[[chain]] {}", chain.id);
        let here = |plan: &Self, setting| plan.has("chain", n, setting);
        for (setting, is_useless, why) in [
            (
                "sign_bytes",
                raw.sign_bytes && !to.is_v1_or_later(),
                "`SignBytes` is v1.0's: nobody can ask for it rightly",
            ),
            (
                "sign_raw_bytes",
                raw.celestia_raw_bytes && to.is_v1_or_later(),
                "v1.0's `SignBytes` has the same fields on the wire, and another meaning",
            ),
            (
                "sign_non_rp_extensions",
                raw.non_rp_extensions && !to.has_non_rp_extensions(),
                "extensions without replay protection are v2.0-rc's",
            ),
            (
                "sign_extensions",
                here(self, "sign_extensions"),
                "tmkms's setting has no effect here: extensions are signed whenever a node asks",
            ),
            ("state_hook", here(self, "state_hook"), "tmkms's setting has no effect here"),
        ] {
            if is_useless {
                self.change(&table, setting, false, why.into());
                self.edit("chain", n, |table| drop(table.remove(setting)));
            }
        }
    }

    fn validator(&mut self, n: usize, validator: &ValidatorConfig, to: Dialect) {
        let table = format!("[[validator]] {}", validator.addr);
        if let Some(named) = validator.dialect.filter(|named| *named != to) {
            let why = format!("it names {named}; {to} is served all the same, with a warning in the log");
            self.change(&table, "protocol_version", false, why);
            self.edit("validator", n, |table| set(table, "protocol_version", "auto"));
        }
        let endpoint = validator.addr.endpoint.to_string();
        let why = match &validator.addr.peer {
            PinnedPeer::Noise(_) if to != Dialect::V0_40 => Some("noise:// is v0.40's alone"),
            PinnedPeer::Secret(_) => Some(
                "a node makes a new identity at each start, also for an upgrade: the pinned one will not come back. \
                 (Keep it if a proxy with a lasting identity stands between.)",
            ),
            _ => None,
        };
        if let Some(why) = why {
            self.change(&table, "addr", true, why.into());
            self.edit("validator", n, |table| set(table, "addr", &endpoint));
        }
        if !validator.reconnect {
            let why = "an upgrade restarts the node, and the signer would not dial it again";
            self.change(&table, "reconnect", true, why.into());
            self.edit("validator", n, |table| set(table, "reconnect", true));
        }
    }

    fn change(&mut self, table: &str, setting: &'static str, needed: bool, why: String) {
        self.changes.push(Change { table: table.into(), setting, needed, why });
    }

    fn has(&self, array: &str, n: usize, setting: &str) -> bool {
        let table =
            self.document.get(array).and_then(Item::as_array_of_tables).and_then(|array| array.get(n));
        table.is_some_and(|table| table.contains_key(setting))
    }

    fn edit(&mut self, array: &str, n: usize, edit: impl FnOnce(&mut Table)) {
        let array = self.document.get_mut(array).and_then(Item::as_array_of_tables_mut);
        if let Some(table) = array.and_then(|array| array.get_mut(n)) {
            edit(table);
        }
    }
}

/// Sets a value and keeps what stands around it.
fn set(table: &mut Table, setting: &str, new: impl Into<toml_edit::Value>) {
    let mut new = value(new);
    if let (Some(old), Some(new)) = (table.get(setting).and_then(Item::as_value), new.as_value_mut()) {
        *new.decor_mut() = old.decor().clone();
    }
    // In place, so that the comment above stays.
    match table.get_mut(setting) {
        Some(old) => *old = new,
        None => drop(table.insert(setting, new)),
    }
}
