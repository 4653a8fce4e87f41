//! A trial: the signer as it is configured, with a key of its own, and a mock validator of the release, over loopback.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::time::Duration;

use data_encoding::{BASE64, HEXLOWER};
use ed25519_dalek::SigningKey;
use mock_validator::conform::{self, CannotRun, Door, Limits, Options, Outcome, SocketDoor};
use mock_validator::link::{Address, Listener};
use monosign_protocol::message::Timestamp;
use monosign_protocol::{ChainId, Dialect, Height, Round, noise};
use serde::Serialize;

use crate::backend::softsign::unlock::{KeySource, UnlockEnv};
use crate::config::{Addr, ChainConfig, Endpoint, KeyConfig, PinnedPeer, ValidatorConfig};
use crate::guard::Watermark;
use crate::import::key::PlainFormat;
use crate::ops::private_file::{PrivateFileError, create_private};
use crate::record::{Header, Record};
use crate::seams::{Entropy, OsEntropy, Seams};
use crate::start::Signer;

/// What came of trying a chain's settings.
#[derive(Debug, Serialize)]
pub(super) struct Trial {
    /// The operator's chain.
    pub(super) chain: String,
    /// The chain id that was signed for instead.
    pub(super) tried_as: String,
    /// How many required rules were kept.
    pub(super) kept: usize,
    /// What was broken.
    pub(super) broken: Vec<Broken>,
    /// Why nothing could be tried.
    pub(super) impossible: Option<String>,
}

/// A required rule that was not kept.
#[derive(Debug, Serialize)]
pub(super) struct Broken {
    pub(super) case: &'static str,
    pub(super) rule: &'static str,
    pub(super) reason: String,
}

/// What decides whether a signer signs for a release: the cases that take no time.
const CASES: &[&str] = &[
    "pubkey",
    "signing/all-steps",
    "signing/nil-votes",
    "signing/rounds",
    "signing/skipped-steps",
    "signing/proof-of-lock",
    "signing/timestamps",
    "extension",
    "repeat",
    "conflict",
    "regression",
    "refusal/conflict-is-answered",
    "refusal/vote-of-another-chain",
    "refusal/extension-on-a-prevote",
    "refusal/extension-on-a-nil-precommit",
    "refusal/vote-as-raw-bytes",
    "refusal/vote-as-extension",
    "link/ping",
    "race",
    "situation/C1-replay-of-a-height",
    "situation/C8-replay-with-another-extension",
    "situation/L8-shape-of-answers",
    "situation/L9-noise",
    "reconnect/after-a-reset",
];

/// How long the trial's signer has to dial in.
const WAIT: Duration = Duration::from_secs(10);

impl Trial {
    /// Tries a chain with up to two of its validators.
    pub(super) async fn of(chain: &ChainConfig, validators: &[ValidatorConfig], to: Dialect) -> Self {
        let place = match Place::new() {
            Ok(place) => place,
            Err(error) => return Self::impossible(chain, String::new(), error.to_string()),
        };
        let tried_as = format!("check-upgrade-{}", place.name);
        match try_chain(&place, chain, validators, to, &tried_as).await {
            Ok(summary) => Self::judged(chain, tried_as, &summary),
            Err(error) => Self::impossible(chain, tried_as, error),
        }
    }

    /// Whether all went well.
    pub(super) fn is_good(&self) -> bool {
        self.impossible.is_none() && self.broken.is_empty()
    }

    fn impossible(chain: &ChainConfig, tried_as: String, why: String) -> Self {
        let chain = chain.id.to_string();
        Self { chain, tried_as, kept: 0, broken: Vec::new(), impossible: Some(why) }
    }

    fn judged(chain: &ChainConfig, tried_as: String, summary: &conform::Summary) -> Self {
        let broken = summary.results.iter().filter(|finding| finding.breaks_conformance());
        let broken = broken.map(|finding| {
            let reason = match &finding.outcome {
                Outcome::Failed { reason } => reason.clone(),
                _ => String::new(),
            };
            Broken { case: finding.id, rule: finding.rule, reason }
        });
        let [kept, ..] = summary.count_required();
        Self { chain: chain.id.to_string(), tried_as, kept, broken: broken.collect(), impossible: None }
    }
}

async fn try_chain(
    place: &Place,
    chain: &ChainConfig,
    validators: &[ValidatorConfig],
    to: Dialect,
    tried_as: &str,
) -> Result<conform::Summary, String> {
    let id: ChainId = tried_as.parse().map_err(text)?;
    let key = SigningKey::from_bytes(&fresh());
    let node = SigningKey::from_bytes(&fresh());
    let signer_identity = SigningKey::from_bytes(&fresh());
    let tried = place.chain(chain, &id, &key).map_err(text)?;
    make_record(&tried, &key).await.map_err(text)?;

    let mut signer = Signer::new(Seams::production());
    signer.start_chain(&tried, &UnlockEnv::default()).await.map_err(text)?;
    let mut doors: Vec<Box<dyn Door>> = Vec::new();
    let identity = place.path("identity");
    create_private(&identity, BASE64.encode(signer_identity.as_bytes()).as_bytes()).map_err(text)?;
    let own = validators.iter().filter(|validator| validator.chain_id == chain.id);
    for (n, validator) in own.take(2).enumerate() {
        let listener = Listener::bind(&place.address(validator, n, &signer_identity)).await.map_err(text)?;
        let addr = dialed(&listener, &node);
        let identity = validator.identity.is_some().then(|| identity.clone());
        let settings =
            ValidatorConfig { chain_id: id.clone(), addr, identity, max_height: None, ..validator.clone() };
        signer.start_link(&settings).map_err(text)?;
        doors.push(Box::new(SocketDoor::new(listener)));
    }
    if doors.is_empty() {
        return Err("it has no [[validator]]".into());
    }
    let options = options(id, to, key, node, doors);
    let tried: Result<_, CannotRun> = tokio::select! {
        biased;
        summary = conform::run(options, |_| {}) => summary,
        () = signer.wait() => return Err("the signer ended by itself".into()),
    };
    signer.stop().await;
    tried.map_err(text)
}

fn options(
    chain_id: ChainId,
    dialect: Dialect,
    key: SigningKey,
    identity: SigningKey,
    doors: Vec<Box<dyn Door>>,
) -> Options {
    Options {
        chain_id,
        dialect,
        first_height: Height(1000),
        expected_key: Some(key.verifying_key()),
        doors,
        process: None,
        only: CASES.iter().map(|case| (*case).to_owned()).collect(),
        signatures: 50,
        limits: Limits { wait: WAIT, ..Limits::default() },
        start: Timestamp { seconds: 1_700_000_000, nanos: 0 },
        seed: fresh(),
        identity,
        entropy: Box::new(fresh),
    }
}

async fn make_record(chain: &ChainConfig, key: &SigningKey) -> Result<(), crate::record::RecordError> {
    let header = Header { chain_id: chain.id.clone(), public_key: key.verifying_key().to_bytes() };
    let floor = Watermark::floor(Height(0), Round(0), None);
    Record::create(&*Seams::production().disk, &chain.record, header, floor).await.map(drop)
}

/// What the signer dials to come in at `listener`, where the node is `node`.
fn dialed(listener: &Listener, node: &SigningKey) -> Addr {
    let (endpoint, peer) = match listener.address() {
        Address::Tcp(addr) => (tcp(addr), PinnedPeer::Anyone),
        Address::Noise { addr, .. } => {
            (tcp(addr), PinnedPeer::Noise(noise::PeerId::from(&node.verifying_key())))
        }
        Address::Unix(path) => (Endpoint::Unix(path.clone()), PinnedPeer::Anyone),
        Address::Abstract(name) => (Endpoint::UnixAbstract(name.clone()), PinnedPeer::Anyone),
    };
    Addr { endpoint, peer }
}

fn tcp(addr: &std::net::SocketAddr) -> Endpoint {
    Endpoint::Tcp { host: addr.ip().to_string(), port: addr.port() }
}

/// A directory for the trial's key and record, gone with it.
struct Place {
    dir: PathBuf,
    name: String,
}

impl Place {
    fn new() -> std::io::Result<Self> {
        let mut random = [0; 8];
        OsEntropy.fill(&mut random);
        let name = HEXLOWER.encode(&random);
        let dir = std::env::temp_dir().join(format!("monosign-check-upgrade-{name}"));
        fs::DirBuilder::new().mode(0o700).create(&dir)?;
        Ok(Self { dir, name })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The operator's settings for another chain, with another key and another record.
    fn chain(
        &self,
        chain: &ChainConfig,
        id: &ChainId,
        key: &SigningKey,
    ) -> Result<ChainConfig, PrivateFileError> {
        let path = self.path("consensus.key");
        create_private(&path, BASE64.encode(key.as_bytes()).as_bytes())?;
        let key = KeySource {
            path,
            allow_plaintext: true,
            key_format: Some(PlainFormat::Base64),
            credential: None,
            identity_file: None,
            passphrase_file: None,
        };
        let key = KeyConfig::Softsign(key);
        Ok(ChainConfig { id: id.clone(), record: self.path("record"), key, ..chain.clone() })
    }

    /// Where the mock validator listens in a validator's place: a socket of the same kind.
    fn address(&self, validator: &ValidatorConfig, n: usize, signer: &SigningKey) -> Address {
        let addr = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        match (&validator.addr.endpoint, &validator.addr.peer) {
            (Endpoint::Unix(_) | Endpoint::UnixAbstract(_), _) => {
                Address::Unix(self.path(&format!("{n}.sock")))
            }
            (_, PinnedPeer::Noise(_)) => {
                Address::Noise { signer: noise::PeerId::from(&signer.verifying_key()), addr }
            }
            _ => Address::Tcp(addr),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Nothing in it is of any worth; at worst it stays in the temporary directory.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn fresh() -> [u8; 32] {
    (&OsEntropy as &dyn Entropy).key()
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
