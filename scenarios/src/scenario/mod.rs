//! What a scenario says: hosts and modes, the chain, the network, a timeline of acts, and what must hold.
//!
//! A scenario names faults, never heights and rounds: which of them are hit follows from the seed.

mod act;
mod check;
mod cosigner_toml;
mod group;
mod load;
mod place;
mod schema;
mod signer_toml;
mod span;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::run::Mode;

pub use act::{Act, Cheat, DeviceFault, DiskFault, Displacement, Do, When};
pub use cosigner_toml::{CosignerFiles, cosigner_toml};
pub use group::{Cosigner, Seat};
pub use load::{LoadError, Mistake, load, name_of, parse};
pub use schema::schema;
pub use signer_toml::{AUTH_KEY, KEY, SignerFiles, SignerTables, audit_file, serial_number, signer_toml};
pub use span::{InvalidSpan, Span, SpanRange};

/// One scenario, as its file holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub struct Scenario {
    /// What happens in it and what it shows, in a sentence.
    pub about: String,
    /// The incident that it replays, with its date and where it was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident: Option<String>,
    /// The signing modes it makes sense for; none means `softsign` and `device`, and if there is one signer, `threshold-2-of-3` and
    /// `threshold-3-of-5`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::modes")]
    pub modes: Vec<String>,
    /// Whether it says something of a key that one process has, and nothing of one that cosigners share.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sole: bool,
    /// The releases it makes sense for; none means every one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::dialects")]
    pub dialects: Vec<String>,
    /// How often each mode and dialect is run, each time with another seed.
    #[serde(default = "one")]
    pub seeds: u64,
    /// How long the acts and the life between them last.
    pub duration: Span,
    /// How long after the last fault has ended signing must have resumed and the chain gone on.
    #[serde(default = "recovery")]
    pub recovery: Span,
    /// The length of a tick of the simulated clock, the grain of all times. Only runs of days need another than 1 ms.
    #[serde(default = "tick")]
    pub tick: Span,
    /// The chain.
    #[serde(default)]
    pub chain: Chain,
    /// The hosts that hold the key; none means one, `signer`.
    #[serde(default, rename = "signer", skip_serializing_if = "Vec::is_empty")]
    pub signers: Vec<Signer>,
    /// The nodes that vote with the key; none means one, `validator`.
    #[serde(default, rename = "validator", skip_serializing_if = "Vec::is_empty")]
    pub validators: Vec<Validator>,
    /// The devices that are not as they are by default, in modes that have any.
    #[serde(default, rename = "device", skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Hsm>,
    /// What stands in the `[[providers.threshold]]` table of each cosigner, beside files, addresses and peers.
    #[serde(default, skip_serializing_if = "toml::Table::is_empty")]
    #[schemars(schema_with = "schema::table")]
    pub group: toml::Table,
    /// Between signers and nodes.
    #[serde(default)]
    pub network: Network,
    /// Under each signer.
    #[serde(default)]
    pub disk: Disk,
    /// The timeline.
    #[serde(default, rename = "act", skip_serializing_if = "Vec::is_empty")]
    pub acts: Vec<Act>,
    /// What must hold, beyond what always does.
    #[serde(default)]
    pub expect: Expect,
    /// How fast answers must be, in simulated time.
    #[serde(default, rename = "budget", skip_serializing_if = "Vec::is_empty")]
    pub budgets: Vec<Budget>,
    /// Where a saved failure comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<Found>,
}

impl Scenario {
    /// A scenario of this duration in which nothing happens.
    pub fn lasting(duration: Span) -> Self {
        Self {
            about: String::new(),
            incident: None,
            modes: Vec::new(),
            sole: false,
            dialects: Vec::new(),
            seeds: one(),
            duration,
            recovery: recovery(),
            tick: tick(),
            chain: Chain::default(),
            signers: Vec::new(),
            validators: Vec::new(),
            devices: Vec::new(),
            group: toml::Table::new(),
            network: Network::default(),
            disk: Disk::default(),
            acts: Vec::new(),
            expect: Expect::default(),
            budgets: Vec::new(),
            found: None,
        }
    }

    /// The hosts that hold the key.
    pub fn signer_hosts(&self) -> Vec<Signer> {
        match self.signers.is_empty() {
            true => vec![Signer::named("signer")],
            false => self.signers.clone(),
        }
    }

    /// Whether it makes sense in a mode that it does not name: a YubiHSM signs no long extensions, and its witness takes a disk that is set
    /// back or copied for what it is.
    pub fn makes_sense_for(&self, mode: Mode) -> bool {
        let takes = |act: &Act| !matches!(act.act, Do::RestoreDisk { .. } | Do::Clone { .. });
        let is_short = self.chain.extension_bytes.is_none_or(|bytes| bytes <= LONGEST_EXTENSION);
        match mode {
            Mode::Yubihsm => is_short && self.acts.iter().all(takes),
            Mode::Threshold(_) => self.makes_sense_for_groups(),
            _ => true,
        }
    }

    /// The nodes that vote with it.
    pub fn node_hosts(&self) -> Vec<Validator> {
        match self.validators.is_empty() {
            true => vec![Validator::named("validator")],
            false => self.validators.clone(),
        }
    }
}

/// In bytes: what a YubiHSM signs at once, less what lies around an extension in its sign bytes.
const LONGEST_EXTENSION: usize = monosign::backend::yubihsm::MAX_MESSAGE - 128;

fn one() -> u64 {
    1
}

fn recovery() -> Span {
    Span::millis(30_000)
}

fn tick() -> Span {
    Span::millis(1)
}

/// The chain that the validators are on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Chain {
    /// How many validators of equal power it has; ours is one of them.
    pub validators: usize,
    /// The pause between two blocks (`timeout_commit`).
    pub block_time: Span,
    /// The length of vote extensions in bytes; none where they are off, and for releases that have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extension_bytes: Option<usize>,
    /// Whether a node that crashed builds another block for the same height and round, as one with a full mempool does.
    pub rebuilds_blocks: bool,
    /// How long gossip between nodes takes.
    pub latency: SpanRange,
    /// How much of it is lost on the way, in percent; nodes send it again.
    pub loss_percent: u8,
    /// The height that the chain is at when the run starts.
    pub first_height: u64,
}

impl Default for Chain {
    fn default() -> Self {
        Self {
            validators: 4,
            block_time: Span::millis(1000),
            extension_bytes: None,
            rebuilds_blocks: true,
            latency: SpanRange::millis(5, 40),
            loss_percent: 0,
            first_height: 1,
        }
    }
}

/// A host that runs the production signer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Signer {
    /// Its name.
    pub name: String,
    /// Whether it is off until an act starts it: a standby, or the target of a clone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub off: bool,
    /// Whether its disk is empty, and its first process makes the record, as `monosign state init` does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fresh: bool,
    /// What stands in the `[[chain]]` table of its `monosign.toml`, beside `id`.
    #[serde(default, skip_serializing_if = "toml::Table::is_empty")]
    #[schemars(schema_with = "schema::table")]
    pub chain: toml::Table,
    /// What stands in each of its `[[validator]]` tables, beside `chain_id`, `addr` and `secret_key`.
    #[serde(default, skip_serializing_if = "toml::Table::is_empty")]
    #[schemars(schema_with = "schema::table")]
    pub link: toml::Table,
    /// The devices that hold its key, in the modes `yubihsm` and `pkcs11`: the first is asked first. None means one of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<String>,
    /// What stands in each of its `[[providers.yubihsm]]` tables, beside what the simulator sets. `audit` is `detect` by default.
    #[serde(default, skip_serializing_if = "toml::Table::is_empty")]
    #[schemars(schema_with = "schema::table")]
    pub provider: toml::Table,
    /// How wrong its wall clock is, in milliseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub clock_skew_ms: i64,
}

impl Signer {
    /// A signer as it is by default.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.into(),
            off: false,
            fresh: false,
            chain: toml::Table::new(),
            link: toml::Table::new(),
            devices: Vec::new(),
            provider: toml::Table::new(),
            clock_skew_ms: 0,
        }
    }

    /// Whether it watches the logs of its devices.
    pub fn watches_devices(&self) -> bool {
        self.provider.get("audit").and_then(toml::Value::as_str) != Some("off")
    }

    /// The devices that hold its key: those that are named, or one of its own.
    pub fn device_names(&self) -> Vec<String> {
        match self.devices.is_empty() {
            true => vec![format!("{}-hsm", self.name)],
            false => self.devices.clone(),
        }
    }
}

/// A device that holds keys. Signers that name the same one share it, as over a connector in the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hsm {
    /// Its name, as in the `devices` of signers.
    pub name: String,
    /// Whether the key was never put on it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub without_key: bool,
    /// Whether it refuses to sign when its log is full, as after `monosign yubihsm setup --force-audit`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force_audit: bool,
    /// Whether it audits what firmware before 2.3.1 does by default, also what signers themselves ask: nobody has set its options.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub audits_all: bool,
    /// How much longer than usual it takes for a signature while it is slow, and how long its queue is while it is busy.
    #[serde(default = "slow_by", skip_serializing_if = "is_usual")]
    pub slow_by: Span,
}

impl Hsm {
    /// A device as it is by default.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.into(),
            without_key: false,
            force_audit: false,
            audits_all: false,
            slow_by: slow_by(),
        }
    }
}

fn slow_by() -> Span {
    Span::millis(1500)
}

fn is_usual(span: &Span) -> bool {
    *span == slow_by()
}

impl Validator {
    /// A node as it is by default.
    pub fn named(name: &str) -> Self {
        Self { name: name.into(), signers: Vec::new(), dialect: None, off: false, clock_skew_ms: 0 }
    }
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// A node that votes with the key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Validator {
    /// Its name.
    pub name: String,
    /// The signers that dial it; none means all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signers: Vec<String>,
    /// The release it runs, if not that of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::dialect")]
    pub dialect: Option<String>,
    /// Whether it is off until an act starts it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub off: bool,
    /// How wrong its wall clock is, in milliseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub clock_skew_ms: i64,
}

/// What lies between signers and nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Network {
    /// How long a segment takes, one way.
    pub latency: SpanRange,
    /// Whether writes arrive in pieces of any size, and together.
    pub chops: bool,
}

impl Default for Network {
    fn default() -> Self {
        Self { latency: SpanRange::millis(0, 2), chops: true }
    }
}

/// What a signer's record lies on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Disk {
    /// How long an operation takes, half of it before and half after its effect.
    pub latency: SpanRange,
    /// What a power cut does to what was not synced.
    pub power_cut: PowerCut,
}

/// What a power cut does to what was not synced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PowerCut {
    /// Each sector and each name is kept or lost, whatever the order in which they were written.
    #[default]
    Random,
    /// All of it is lost.
    Loses,
    /// All of it happens to be there.
    Keeps,
}

impl Default for Disk {
    fn default() -> Self {
        Self { latency: SpanRange::millis(0, 1), power_cut: PowerCut::Random }
    }
}

/// What must hold, beyond what always does: no double sign, the same answer for ever, released means durable, records that only
/// rise, no panic, signing resumed after the faults, refusals that are answers, bounded queues.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Expect {
    /// The least number of blocks that our validator has signed for.
    pub blocks: u64,
    /// Counters that must not be zero at the end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reached: Vec<String>,
    /// Counters that must be zero at the end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub never: Vec<String>,
    /// What an operator must have been told: parts of warnings and errors in the log of some signer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub told: Vec<String>,
    /// So soon after all acts some node must get a signature. A node that has lagged behind asks for a block's only when it has caught up
    /// with its peers, so this says more of the signer than `recovery` does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signs_within: Option<Span>,
    /// Set where two signers hold the key and state, and no signer alone can know: the key does sign twice, and the scenario fails
    /// if it does not, so that the claim is an honest one. What each single signer promises is checked all the same.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub double_sign_by_clone: bool,
    /// Set where two signers hold the state and share a device, which signs for both before either can know: what the later one
    /// made must not leave it, and the scenario fails if the device did not sign twice.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub second_signature_withheld: bool,
    /// Set where more cosigners are copied, set back or malicious than the group bears: it does sign twice, and the scenario fails if it
    /// does not, so that the claim is an honest one. What each cosigner promises is checked all the same.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub double_sign_by_group: bool,
    /// Set where a signer must refuse to start, or to sign, and so signing does not resume. With `double_sign_by_group`, it may resume or
    /// not: copies and originals that meet turn each other away, or not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub signer_stays_down: bool,
}

/// How fast answers must be, in simulated time between the node's request and the answer's arrival, faults aside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// `proposal`, `prevote` or `precommit`; none means each of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::messages")]
    pub of: Option<String>,
    /// The modes it is for; none means every mode.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::modes")]
    pub modes: Vec<String>,
    /// Whether answers during faults count as well.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub always: bool,
    /// The median.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p50: Option<Span>,
    /// The 99th percentile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99: Option<Span>,
    /// The longest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<Span>,
}

/// The run that a saved failure stands for, to be replayed event for event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Found {
    /// The signing mode.
    pub mode: String,
    /// The release of the nodes.
    pub dialect: String,
    /// The seed of all streams.
    pub seed: String,
    /// What was violated.
    pub violation: String,
    /// The hash of the run's events.
    pub trace: String,
    /// The commit it was found at.
    pub commit: String,
}
