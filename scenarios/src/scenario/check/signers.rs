//! The settings of signers, judged by the signer's own parser.

use std::path::Path;

use monosign::config::{Config, ConfigError};
use toml::Table;

use super::super::cosigner_toml::{CosignerFiles, GROUP_KEYS, cosigner_toml};
use super::super::place::Place;
use super::super::signer_toml::{
    CHAIN_KEYS, LINK_KEYS, PROVIDER_KEYS, SignerFiles, SignerTables, signer_toml,
};
use super::super::{Do, Scenario};
use super::Findings;
use crate::run::Mode;

pub(super) fn check(scenario: &Scenario, found: &mut Findings) {
    for (n, signer) in scenario.signers.iter().enumerate() {
        let place = Place::top("signer").index(n);
        settings(&place, &signer.chain, &signer.link, found);
        let provider = |table: &Table| text(&Table::new(), &Table::new(), table);
        table(&place.key("provider"), &signer.provider, &PROVIDER_KEYS, provider, found);
        found.no_twins(&place.key("devices"), &signer.devices);
    }
    let named: Vec<_> = scenario.signer_hosts().iter().flat_map(|signer| signer.device_names()).collect();
    for (n, device) in scenario.devices.iter().enumerate() {
        let place = Place::top("device").index(n).key("name");
        if !named.contains(&device.name) {
            found.unknown(&place, "device", &device.name, &named);
        }
        let twin = scenario.devices[..n].iter().any(|other| other.name == device.name);
        found.add_if(twin, &place, format!("there is another device `{}`", device.name));
    }
    for (n, act) in scenario.acts.iter().enumerate() {
        if let Do::Reload { chain, link, .. } = &act.act {
            settings(&Place::top("act").index(n), chain, link, found);
        }
    }
    group(scenario, found);
}

/// The cosigners: as many as each of the modes takes, and what stands in their files.
fn group(scenario: &Scenario, found: &mut Findings) {
    let place = Place::top("group");
    table(&place, &scenario.group, &GROUP_KEYS, cosigner_text, found);
    for (n, name) in scenario.modes.iter().enumerate() {
        let Some(quorum) = name.parse::<Mode>().ok().and_then(Mode::quorum) else { continue };
        let (place, members) = (Place::top("modes").index(n), usize::from(quorum.members));
        let signers = scenario.signer_hosts();
        let what = format!("`{name}` has {members} cosigners: there must be 1 signer, or at least {members}");
        found.add_if(signers.len() > 1 && signers.len() < members, &place, what);
        let lonely = signers.iter().skip(members).find(|signer| !signer.off && signers.len() > 1);
        if let Some(signer) = lonely {
            let what = format!(
                "`{name}` has {members} cosigners: `{}` is none of them, so it must be `off`",
                signer.name
            );
            found.add(&place, what);
        }
    }
}

fn cosigner_text(group: &Table) -> String {
    let files = CosignerFiles {
        record: "record".as_ref(),
        group: "group.json".as_ref(),
        share: "share.age".as_ref(),
        share_identity: "share.identity".as_ref(),
        identity: "identity.key".as_ref(),
    };
    let peers = [(2, "tcp://cosigner-2:26700".into())];
    let (empty, addrs) = (Table::new(), ["tcp://validator:26658".into()]);
    cosigner_toml("sim-1", files, "tcp://cosigner-1:26700", &peers, &addrs, (&empty, &empty, group))
}

fn settings(place: &Place, chain: &Table, link: &Table, found: &mut Findings) {
    // One after the other, so that it is known which of them is wrong.
    let none = Table::new();
    table(&place.key("chain"), chain, &CHAIN_KEYS, |table| text(table, &none, &none), found);
    table(&place.key("link"), link, &LINK_KEYS, |table| text(&none, table, &none), found);
}

fn table(place: &Place, table: &Table, ours: &[&str], text: impl Fn(&Table) -> String, found: &mut Findings) {
    for key in ours.iter().filter(|key| table.contains_key(**key)) {
        found.add(&place.key(key), "the simulator sets this key itself");
    }
    let Err(error) = Config::parse(&text(table), Path::new("monosign.toml")) else { return };
    let what = match &error {
        // Where it stands in a text that nobody has written says nothing.
        ConfigError::Parse { what, .. } => {
            what.split_once(": ").map_or(what.as_str(), |(_, what)| what).into()
        }
        ConfigError::Invalid { what, .. } => what.clone(),
        other => other.to_string(),
    };
    // The parser names the key where it is the key that is wrong; a value it shows by a key alone in the table.
    let named = table.keys().find(|key| what.contains(&format!("`{key}`")) || what.starts_with(key.as_str()));
    let alone = table.keys().next().filter(|_| table.len() == 1);
    let place = named.or(alone).map_or_else(|| place.clone(), |key| place.key(key));
    found.add(&place, format!("the signer refuses it: {what}"));
}

/// A file in which all three stand: only devices have a provider's table that a scenario can add to.
fn text(chain: &Table, link: &Table, provider: &Table) -> String {
    let (record, consensus_key, identity, password) = ("record", "consensus.key", "identity.key", "password");
    let files = SignerFiles {
        record: record.as_ref(),
        consensus_key: consensus_key.as_ref(),
        identity: identity.as_ref(),
        password: password.as_ref(),
    };
    let devices = ["device".to_owned()];
    let tables = SignerTables { devices: &devices, chain, link, provider };
    signer_toml(Mode::Yubihsm, "sim-1", files, &["tcp://validator:26658".into()], tables)
}
