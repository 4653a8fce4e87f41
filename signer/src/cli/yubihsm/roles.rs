//! The four roles of a device that was set up: tmkms's numbers, and no more rights than each needs.

use yubihsm::{Capability, Domain};

/// Who may do what.
pub(super) struct Role {
    /// The number of its authentication key.
    pub(super) id: u16,
    pub(super) name: &'static str,
    pub(super) domains: Domain,
    pub(super) capabilities: Capability,
    /// What it may give to objects that it makes.
    pub(super) delegated: Capability,
}

/// The number of the key for backups.
pub(super) const WRAP_KEY: u16 = 1;
/// Where keys are made.
pub(super) const DOMAIN: Domain = Domain::DOM1;
/// What a signing key that may be backed up is made with.
pub(super) const EXPORTABLE: Capability = Capability::SIGN_EDDSA.union(Capability::EXPORTABLE_UNDER_WRAP);

/// All roles, the administrator first.
pub(super) fn roles() -> [Role; 4] {
    let all = Capability::all();
    let operator = Capability::GENERATE_ASYMMETRIC_KEY
        | Capability::PUT_ASYMMETRIC_KEY
        | Capability::EXPORT_WRAPPED
        | Capability::IMPORT_WRAPPED
        | Capability::GET_PSEUDO_RANDOM
        | Capability::GET_LOG_ENTRIES;
    let auditor = Capability::GET_LOG_ENTRIES | Capability::GET_OPTION;
    // Options it only reads, to say what is wrong with them.
    let validator = Capability::SIGN_EDDSA | auditor;
    let none = Capability::empty();
    let role =
        |id, name, domains, capabilities, delegated| Role { id, name, domains, capabilities, delegated };
    [
        role(1, "admin", Domain::all(), all, all),
        role(2, "operator", DOMAIN, operator, EXPORTABLE),
        role(3, "auditor", DOMAIN, auditor, none),
        role(4, "validator", DOMAIN, validator, none),
    ]
}
