//! Who there is: signers and nodes by name.

use super::super::place::Place;
use super::super::{Scenario, Validator};
use super::Findings;

/// A host, as the timeline meets it.
pub(super) struct Host {
    pub(super) name: String,
    pub(super) off: bool,
}

/// All hosts of a scenario.
pub(super) struct Hosts {
    pub(super) signers: Vec<Host>,
    pub(super) nodes: Vec<Host>,
}

impl Hosts {
    pub(super) fn of(scenario: &Scenario, found: &mut Findings) -> Self {
        let (signers, nodes) = (scenario.signer_hosts(), scenario.node_hosts());
        let hosts = Self {
            signers: signers.into_iter().map(|signer| Host { name: signer.name, off: signer.off }).collect(),
            nodes: nodes.into_iter().map(|node| Host { name: node.name, off: node.off }).collect(),
        };
        hosts.check_names(found);
        for (n, validator) in scenario.validators.iter().enumerate() {
            hosts.check_node(&Place::top("validator").index(n), validator, found);
        }
        hosts
    }

    pub(super) fn host(&self, name: &str) -> Option<&Host> {
        self.signers.iter().chain(&self.nodes).find(|host| host.name == name)
    }

    pub(super) fn is_signer(&self, name: &str) -> bool {
        self.signers.iter().any(|host| host.name == name)
    }

    pub(super) fn is_node(&self, name: &str) -> bool {
        self.nodes.iter().any(|host| host.name == name)
    }

    fn check_names(&self, found: &mut Findings) {
        let signers = self.signers.iter().enumerate().map(|(n, host)| (Place::top("signer").index(n), host));
        let nodes = self.nodes.iter().enumerate().map(|(n, host)| (Place::top("validator").index(n), host));
        let mut before: Vec<&str> = Vec::new();
        for (place, Host { name, .. }) in signers.chain(nodes) {
            let place = place.key("name");
            let good = !name.is_empty()
                && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
            found.add_if(
                !good,
                &place,
                format!("`{name}` is no host's name: lower case letters, digits and `-`"),
            );
            found.add_if(before.contains(&name.as_str()), &place, format!("there is another host `{name}`"));
            before.push(name);
        }
    }

    fn check_node(&self, place: &Place, node: &Validator, found: &mut Findings) {
        let place_of_signers = place.key("signers");
        for (n, signer) in node.signers.iter().enumerate() {
            if !self.is_signer(signer) {
                found.unknown(&place_of_signers.index(n), "signer", signer, &self.signer_names());
            }
        }
        found.no_twins(&place_of_signers, &node.signers);
        if let Some(dialect) = &node.dialect {
            found.dialect(&place.key("dialect"), dialect);
        }
    }

    pub(super) fn signer_names(&self) -> Vec<&str> {
        self.signers.iter().map(|host| host.name.as_str()).collect()
    }

    pub(super) fn node_names(&self) -> Vec<&str> {
        self.nodes.iter().map(|host| host.name.as_str()).collect()
    }

    pub(super) fn names(&self) -> Vec<&str> {
        [self.signer_names(), self.node_names()].concat()
    }
}
