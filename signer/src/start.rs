//! A running signer: chains and links put together, reloaded and stopped.

mod devices;
mod standing;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use data_encoding::BASE64;
use ed25519_dalek::SigningKey;
use monosign_protocol::ChainId;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle, spawn_local};
use tokio::time::{Instant, sleep, timeout_at};

use crate::backend::Backend;
use crate::backend::locks::Lockable;
use crate::backend::softsign::unlock::{self, KeyFileError, Loaded, UnlockEnv};
use crate::backend::softsign::vault::Vault;
use crate::chain::{Chain, ChainHandle, InvalidPublicKey, Stopped};
use crate::config::{ChainConfig, Config, KeyConfig, PinnedPeer, ThresholdConfig, ValidatorConfig};
use crate::link::{Link, LinkSettings, Protection};
use crate::ops::private_file::{self, PrivateFileError};
use crate::ops::secret_source::SecretError;
use crate::ops::told::told;
use crate::pubkey::PublicKey;
use crate::record::{Opener, Record, RecordError};
use crate::seams::Seams;
use crate::threshold;
use crate::threshold::open::OpenError;
use crate::threshold::run::{GroupHandle, RunningGroup};
pub use devices::{Devices, Hardware};
use standing::LinkStanding;
pub use standing::{ChainStands, ChainState, LinkStands, Standing, of_cosigner};

/// Why a chain or a link cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The consensus key.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The password of a device.
    #[error(transparent)]
    Password(#[from] SecretError),
    /// The configuration and the record name different keys.
    #[error(
        "the configuration names public key `{configured}`, and the record is that of `{recorded}`\nhint: find out which one the chain knows"
    )]
    OtherKey {
        /// That of the configuration.
        configured: PublicKey,
        /// That of the record.
        recorded: PublicKey,
    },
    /// The record.
    #[error("{source}\nhint: {}", source.hint())]
    Record {
        /// What is wrong with it.
        #[from]
        source: RecordError,
    },
    /// The public key is no point of the curve.
    #[error(transparent)]
    PublicKey(#[from] InvalidPublicKey),
    /// The cosigner.
    #[error(transparent)]
    Cosigner(#[from] OpenError),
    /// The connection's identity key.
    #[error(transparent)]
    Identity(#[from] PrivateFileError),
    /// There is no identity key for the connection.
    #[error("`{}` is missing: the identity of a tcp or noise connection\nhint: `monosign init NEWDIR` makes one in a new directory: `mv NEWDIR/secrets/secret_connection.key {}`", path.display(), path.display())]
    NoIdentity {
        /// The file.
        path: PathBuf,
    },
    /// The connection's identity key has another form.
    #[error("`{}` is no identity key: base64 of 32 bytes is expected\nhint: `monosign init` makes one, tmkms's kms-identity.key is one", path.display())]
    IdentityForm {
        /// The file.
        path: PathBuf,
    },
    /// What needs the whole key was asked of a cosigner.
    #[error(
        "the key of chain `{0}` is shared among cosigners, and this takes the whole key\nhint: `monosign threshold status` shows what the group has signed"
    )]
    Shared(ChainId),
    /// The chain of this validator could not be started.
    #[error("its chain `{0}` is not served")]
    NoChain(ChainId),
}

impl StartError {
    /// Whether starting was refused for safety, which the exit code tells.
    pub fn is_for_safety(&self) -> bool {
        match self {
            Self::Key(error) => error.is_for_safety(),
            Self::Password(error) => error.is_for_safety(),
            Self::OtherKey { .. } => true,
            Self::Cosigner(error) => error.is_for_safety(),
            Self::Record { source } => !matches!(source, RecordError::Io { .. }),
            Self::Identity(error) => error.is_for_safety(),
            _ => false,
        }
    }
}

/// How long a start waits for devices, before it goes on without.
const FIRST_LOOK: Duration = Duration::from_secs(2);

/// What runs.
pub struct Signer {
    seams: Seams,
    chains: BTreeMap<ChainId, RunningChain>,
    devices: Devices,
    /// Until when chains wait for their devices at the start.
    first_look: Option<Instant>,
    links: Vec<RunningLink>,
    /// The chains that were served, and can sign nothing more.
    stopped: BTreeSet<ChainId>,
    /// Whether sealed keys can be unlocked: false where nobody could give their passphrases.
    unlockable: bool,
    standing: Rc<Standing>,
    ended: (mpsc::UnboundedSender<Ended>, mpsc::UnboundedReceiver<Ended>),
}

/// A task that ended by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Ended {
    /// A chain's owner, or its cosigner: it can sign nothing more.
    Chain(ChainId, Stopped),
    /// A link that does not reconnect, or one that a defect ended.
    Link,
}

struct RunningChain {
    handle: ChainHandle,
    key: RunningKey,
    config: ChainConfig,
}

impl RunningChain {
    /// Its key, if it is sealed.
    fn sealed(&self) -> Option<Rc<Vault>> {
        match &self.key {
            RunningKey::Vault(vault) => vault.ready().is_err().then(|| Rc::clone(vault)),
            RunningKey::Device | RunningKey::Cosigner(..) => None,
        }
    }
}

/// What signs for a chain.
enum RunningKey {
    /// A key in this process.
    Vault(Rc<Vault>),
    /// A key on a device.
    Device,
    /// A cosigner of a group; it runs as long as this is held.
    Cosigner(GroupHandle, #[allow(dead_code, reason = "held for its drop")] RunningGroup),
}

struct RunningLink {
    config: ValidatorConfig,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    /// Drops the link, and with it its connection.
    abort: AbortHandle,
    /// Shown as long as it is held.
    _standing: Rc<LinkStanding>,
}

/// How long a stop waits for requests that are being answered.
const DRAIN: Duration = Duration::from_secs(5);

impl Signer {
    /// A signer that serves nothing yet. It must live within a [`tokio::task::LocalSet`].
    pub fn new(seams: Seams) -> Self {
        let (chains, devices) = (BTreeMap::new(), Devices::new(Rc::clone(&seams.disk)));
        Self {
            seams,
            chains,
            devices,
            first_look: None,
            links: Vec::new(),
            stopped: BTreeSet::new(),
            unlockable: true,
            standing: Rc::default(),
            ended: mpsc::unbounded_channel(),
        }
    }

    /// Opens a chain's key and record and serves it.
    ///
    /// # Errors
    /// [`StartError`]; other chains are not touched.
    pub async fn start_chain(&mut self, config: &ChainConfig, env: &UnlockEnv) -> Result<(), StartError> {
        if let KeyConfig::Threshold(share) = &config.key {
            return self.start_cosigner(config, share, env).await;
        }
        let Opened { record, backend, vault } = open(config, env, &self.seams, &mut self.devices).await?;
        self.look_for(&*backend).await;
        self.serve_chain(config, record, vault, backend)
    }

    /// Waits for a key's device, as long as a start waits for devices. One that is there answers at once, and nobody needs to be
    /// refused meanwhile.
    pub async fn look_for(&mut self, backend: &dyn Backend) {
        let until = *self.first_look.get_or_insert_with(|| Instant::now() + FIRST_LOOK);
        let _ = timeout_at(until, backend.until_ready()).await;
    }

    /// Opens this cosigner's share and record, joins the others, and serves the chain that they sign for.
    async fn start_cosigner(
        &mut self,
        config: &ChainConfig,
        share: &ThresholdConfig,
        env: &UnlockEnv,
    ) -> Result<(), StartError> {
        threshold::open::explain(share, &config.record, &self.seams).await?;
        let opened = threshold::open::open(share, &config.id, env, &*self.seams.disk).await?;
        let record = threshold::open::open_record(&opened, &config.record, &self.seams).await?;
        let (chain_id, public_key) = (&config.id, opened.group.public_key());
        let (me, profile) = (opened.share.id(), opened.group.shape().profile());
        let watermark = record.watermark().to_string();
        // What the witness of a device finds is about the key, whoever holds it in whatever form.
        self.devices.admit(public_key, &config.record).await;
        let locks = self.devices.locks();
        let (cosigner, keeper, mesh) =
            threshold::open::prepare(opened, record, share, config.rules, &self.seams, Rc::clone(locks))
                .await?;
        let (group, running, owner) = threshold::run::start(cosigner, keeper, config.rules.raw, mesh);
        let (chain, handle, queue) =
            Chain::of_group(chain_id.clone(), public_key, config.rules, group.clone(), Rc::clone(locks))?;
        self.watch_chain(owner, chain_id);
        self.watch_chain(spawn_local(chain.run(queue)), chain_id);
        tracing::info!(%chain_id, %public_key, cosigner = me.0, last_signed = %watermark,
            "cosigning chain {chain_id} as cosigner {me} on {}, last signed h/r/s {watermark}", share.listen);
        tracing::info!(%chain_id, "{profile}");
        if let Err(locked) = self.devices.locks().check(public_key) {
            let (what, hint) = told(&locked.to_string());
            tracing::error!(%chain_id, hint, "nothing is signed, and no share is given: {what}");
        }
        self.standing.of_group(chain_id, &config.record, public_key, group.clone());
        let key = RunningKey::Cosigner(group, running);
        self.chains.insert(chain_id.clone(), RunningChain { handle, key, config: config.clone() });
        self.count();
        Ok(())
    }

    /// Serves a chain whose key and record are open already. `backend` is what signs, and `vault` is the key that
    /// [`sealed`](Self::sealed) tells of, if it can be sealed: the vault itself, or the key behind a backend that stands in
    /// front of it.
    ///
    /// # Errors
    /// [`StartError::PublicKey`]; other chains are not touched.
    pub fn serve_chain(
        &mut self,
        config: &ChainConfig,
        record: Record,
        vault: Option<Rc<Vault>>,
        backend: Rc<dyn Backend>,
    ) -> Result<(), StartError> {
        let (chain_id, public_key, ready) = (&config.id, backend.public_key(), backend.ready());
        let watermark = record.watermark().to_string();
        let disk = Rc::clone(&self.seams.disk);
        let (chain, handle, queue) = Chain::new(record, Rc::clone(&backend), config.rules, disk)?;
        self.standing.of_key(chain_id, &config.record, backend);
        self.watch_chain(spawn_local(chain.run(queue)), &config.id);
        tracing::info!(%chain_id, %public_key, last_signed = %watermark, "serving chain {chain_id}, last signed h/r/s {watermark}");
        if let Err(waits_for) = ready {
            let (what, hint) = told(&waits_for.to_string());
            tracing::warn!(%chain_id, hint, "nothing is signed yet: {what}");
        }
        let key = vault.map_or(RunningKey::Device, RunningKey::Vault);
        self.chains.insert(config.id.clone(), RunningChain { handle, key, config: config.clone() });
        self.count();
        Ok(())
    }

    /// One chain with one validator, which asks one thing at a time: nobody else waits while the disk writes. Other cosigners
    /// wait, but for a share, which waits for the disk in any case.
    fn count(&self) {
        let several = self.chains.len() > 1 || self.links.len() > 1;
        self.seams.disk.others_wait(several);
    }

    /// Dials a validator and serves it.
    ///
    /// # Errors
    /// [`StartError`]; other links are not touched.
    pub fn start_link(&mut self, config: &ValidatorConfig) -> Result<(), StartError> {
        let chain = self.chains.get(&config.chain_id);
        let chain = chain.ok_or_else(|| StartError::NoChain(config.chain_id.clone()))?.handle.clone();
        let settings = link_settings(config)?;
        let (stop, stopped) = watch::channel(false);
        let link = Link::new(settings, chain, self.seams.clone(), stopped);
        let standing = self.standing.of_link(&config.chain_id, &config.addr.to_string(), link.connected());
        let link = spawn_local(link.run());
        let abort = link.abort_handle();
        let task = self.watch_link(link);
        self.links.push(RunningLink { config: config.clone(), stop, task, abort, _standing: standing });
        self.count();
        Ok(())
    }

    /// Tells [`wait`](Self::wait) when a link ends.
    fn watch_link(&self, task: JoinHandle<()>) -> JoinHandle<()> {
        let ended = self.ended.0.clone();
        spawn_local(async move {
            if let Err(error) = task.await
                && !error.is_cancelled()
            {
                tracing::error!("an internal error ended a link: {error}");
            }
            let _ = ended.send(Ended::Link);
        })
    }

    /// Tells [`wait`](Self::wait) when a chain, or its cosigner, can sign nothing more.
    fn watch_chain(&self, task: JoinHandle<Result<(), Stopped>>, id: &ChainId) {
        let (ended, id) = (self.ended.0.clone(), id.clone());
        spawn_local(async move {
            let stopped = match task.await {
                // Nobody holds it any more.
                Ok(Ok(())) => return,
                Ok(Err(stopped)) => stopped,
                Err(error) => {
                    Stopped(format!("an internal error ended it: {error}\nhint: start the signer anew"))
                }
            };
            let _ = ended.send(Ended::Chain(id, stopped));
        });
    }

    /// Whether sealed keys can be unlocked from now on. While they cannot, their chains are none that can be served.
    pub fn set_unlockable(&mut self, unlockable: bool) {
        self.unlockable = unlockable;
    }

    /// Whether nothing can be served any more.
    pub fn is_over(&self) -> bool {
        let is_hopeless = |chain: &RunningChain| !self.unlockable && chain.sealed().is_some();
        self.chains.values().all(is_hopeless) || (self.links.is_empty() && self.cosigners().is_empty())
    }

    /// Returns when there is nothing left to serve: no chain can sign any more, or each link has ended and
    /// does not reconnect, and no other cosigner needs this one. A chain that stops takes its links with it, so that its validators see a signer that is gone, and
    /// not one that refuses: another one may stand by. What they had asked is answered first.
    pub async fn wait(&mut self) {
        while let Some(ended) = self.ended.1.recv().await {
            if let Ended::Chain(id, why) = ended
                && self.chains.remove(&id).is_some()
            {
                let (what, hint) = told(&why.0);
                tracing::error!(chain_id = %id, hint, "chain {id} has stopped: {what}");
                self.standing.stopped(&id, &why.0);
                let (orphans, others) = self.links.drain(..).partition(|link| link.config.chain_id == id);
                self.links = others;
                self.stopped.insert(id);
                end(orphans).await;
            }
            self.links.retain(|link| !link.task.is_finished());
            if self.is_over() {
                return;
            }
        }
    }

    /// Takes over what can change while signing: rules of chains, and validators. Says what was done and what needs a
    /// restart.
    pub async fn reload(&mut self, config: &Config) -> Vec<String> {
        let mut report = Vec::new();
        for chain in &config.chains {
            self.reload_chain(chain, &mut report);
        }
        for id in self.chains.keys().filter(|id| config.chain(id).is_none()) {
            report.push(format!("chain `{id}` is served on until a restart"));
        }
        self.reload_links(&config.validators, &mut report).await;
        report
    }

    fn reload_chain(&mut self, new: &ChainConfig, report: &mut Vec<String>) {
        let Some(running) = self.chains.get_mut(&new.id) else {
            let what = if self.stopped.contains(&new.id) { "has stopped" } else { "is new" };
            report.push(format!("chain `{}` {what}: it needs a restart", new.id));
            return;
        };
        if running.config.record != new.record || !running.config.key.is_same(&new.key) {
            report.push(format!("chain `{}`: another state_file, key or group needs a restart", new.id));
        }
        match running.handle.reload(new.rules) {
            Ok(()) => {
                let changed = running.config.rules.changes(new.rules);
                report.extend(changed.into_iter().map(|change| format!("chain `{}`: {change}", new.id)));
                running.config.rules = new.rules;
            }
            Err(error) => report.push(format!("chain `{}` keeps its rules: {error}", new.id)),
        }
    }

    async fn reload_links(&mut self, validators: &[ValidatorConfig], report: &mut Vec<String>) {
        // All or nothing: a key that cannot be read must not take a link away that works.
        let broken = validators.iter().find_map(|v| link_settings(v).err().map(|e| (&v.addr, e)));
        if let Some((addr, error)) = broken {
            report.push(format!("all validators are served as before: {addr}: {error}"));
            return;
        }
        if validators.is_empty() {
            report.push("all validators are served as before: the file has none".into());
            return;
        }
        let (kept, ended): (Vec<_>, Vec<_>) = self
            .links
            .drain(..)
            .partition(|link| validators.contains(&link.config) && !link.task.is_finished());
        self.links = kept;
        for link in &ended {
            report.push(format!("validator {} is no longer served", link.config.addr));
        }
        end(ended).await;
        self.count();
        for validator in validators {
            if self.links.iter().any(|link| link.config == *validator) {
                continue;
            }
            match self.start_link(validator) {
                Ok(()) => report.push(format!("validator {} is served now", validator.addr)),
                Err(error) => report.push(format!("validator {}: {error}", validator.addr)),
            }
        }
    }

    /// The chains whose keys are sealed, with their vaults.
    pub fn sealed(&self) -> Vec<(ChainId, Rc<Vault>)> {
        let vault = |(id, chain): (&ChainId, &RunningChain)| Some((id.clone(), chain.sealed()?));
        self.chains.iter().filter_map(vault).collect()
    }

    /// The chains that this process cosigns, with their cosigners.
    pub fn cosigners(&self) -> Vec<(ChainId, GroupHandle)> {
        let cosigner = |(id, chain): (&ChainId, &RunningChain)| match &chain.key {
            RunningKey::Cosigner(group, _) => Some((id.clone(), group.clone())),
            RunningKey::Vault(_) | RunningKey::Device => None,
        };
        self.chains.iter().filter_map(cosigner).collect()
    }

    /// How it stands, for whoever asks while it runs.
    pub fn standing(&self) -> Rc<Standing> {
        Rc::clone(&self.standing)
    }

    /// Whether any chain is served.
    pub fn serves(&self) -> bool {
        !self.chains.is_empty()
    }

    /// Whether any validator is served.
    pub fn has_links(&self) -> bool {
        !self.links.is_empty()
    }

    /// Answers what is being asked, closes all connections and ends.
    pub async fn stop(self) {
        end(self.links).await;
    }
}

async fn end(links: Vec<RunningLink>) {
    for link in &links {
        let _ = link.stop.send(true);
    }
    let deadline = Instant::now() + DRAIN;
    for link in links {
        if timeout_at(deadline, link.task).await.is_err() {
            tracing::warn!(peer = %link.config.addr, "a request was still unanswered after {DRAIN:?}");
            // It waits for its chain, and its node for it: another link of the same node could not get through.
            link.abort.abort();
        }
    }
}

/// A chain's record and its key, which belong together.
pub struct Opened {
    /// The record.
    pub record: Record,
    /// What signs.
    pub backend: Rc<dyn Backend>,
    /// The same, if it is a key file.
    pub vault: Option<Rc<Vault>>,
}

/// Opens a chain's record and its key. The key may be sealed, or on a device that is not there yet: then the record says which
/// key it is. If the key is locked, so says the backend.
///
/// # Errors
/// [`StartError`]: the record must be there, and be of this chain and key.
pub async fn open(
    config: &ChainConfig,
    env: &UnlockEnv,
    seams: &Seams,
    devices: &mut Devices,
) -> Result<Opened, StartError> {
    let opener = Opener::new(&*seams.disk, &config.record);
    let vault = match &config.key {
        KeyConfig::OnDevices(keys) => {
            let record = patiently(async || opener.open_of_chain(&config.id).await).await?;
            let public_key = PublicKey::from_bytes(record.header().public_key);
            devices.admit(public_key, &config.record).await;
            let backend = Rc::new(devices.failover(keys, public_key, env)?);
            return Ok(Opened { record, backend, vault: None });
        }
        KeyConfig::Threshold(_) => return Err(StartError::Shared(config.id.clone())),
        KeyConfig::Softsign(source) => unlock::load(source, env)?,
    };
    let (vault, record) = match vault {
        Loaded::Open(key) => {
            let public_key = *key.public_key();
            let record = patiently(async || opener.open(&config.id, public_key.as_bytes()).await).await?;
            (Vault::open(key), record)
        }
        Loaded::Sealed(sealed) => {
            let record = patiently(async || opener.open_of_chain(&config.id).await).await?;
            let public_key = PublicKey::from_bytes(record.header().public_key);
            (Vault::sealed(sealed, public_key), record)
        }
    };
    let vault = Rc::new(vault);
    // What a device's witness finds stops a copy of its key in a file, too.
    devices.admit(vault.public_key(), &config.record).await;
    let backend = Rc::new(Lockable::new(Rc::clone(&vault) as _, Rc::clone(devices.locks())));
    Ok(Opened { record, backend, vault: Some(vault) })
}

/// How long a start or a command waits for a record that another process holds: commands hold one for a moment, and so does a signer that is being
/// stopped.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often it is tried meanwhile.
const TRY: Duration = Duration::from_millis(100);

/// Opens a record, and waits a moment for one that is locked.
///
/// # Errors
/// As `open`.
pub async fn patiently(open: impl AsyncFn() -> Result<Record, RecordError>) -> Result<Record, RecordError> {
    let until = Instant::now() + PATIENCE;
    let mut told = false;
    loop {
        match open().await {
            Err(error @ RecordError::Locked { .. }) if Instant::now() < until => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!("{error}: trying for {PATIENCE:?}");
                }
                sleep(TRY).await;
            }
            other => return other,
        }
    }
}

/// What a link needs, with its identity read.
///
/// # Errors
/// [`StartError::NoIdentity`], [`StartError::Identity`] and [`StartError::IdentityForm`].
pub fn link_settings(config: &ValidatorConfig) -> Result<LinkSettings, StartError> {
    let identity = config.identity.as_deref().map(read_identity).transpose()?.map(Rc::new);
    let protection = match (&config.addr.peer, identity) {
        (PinnedPeer::Noise(peer), Some(identity)) => Protection::Noise { identity, peer: *peer },
        (PinnedPeer::Secret(pinned), Some(identity)) => {
            Protection::Secret { identity, pinned: Some(*pinned) }
        }
        (PinnedPeer::Anyone, Some(identity)) if !config.addr.endpoint.is_local() => {
            Protection::Secret { identity, pinned: None }
        }
        _ => Protection::Plain,
    };
    Ok(LinkSettings {
        endpoint: config.addr.endpoint.clone(),
        protection,
        timeout: config.timeout,
        reconnect: config.reconnect,
        max_height: config.max_height,
        dialect: config.dialect,
        label: config.addr.to_string().into(),
    })
}

/// Reads a connection's identity: base64 of a 32-byte Ed25519 seed, as tmkms writes it.
///
/// # Errors
/// [`StartError::NoIdentity`], [`StartError::Identity`] if the file cannot be read or others can, [`StartError::IdentityForm`].
pub fn read_identity(path: &Path) -> Result<SigningKey, StartError> {
    let text = private_file::read_private(path).map_err(|error| match error {
        PrivateFileError::Read { kind: io::ErrorKind::NotFound, path, .. } => StartError::NoIdentity { path },
        other => StartError::Identity(other),
    })?;
    let form = || StartError::IdentityForm { path: path.into() };
    let mut seed = BASE64.decode(text.trim_ascii()).map_err(|_| form())?;
    let key = <[u8; 32]>::try_from(seed.as_slice()).map(|seed| SigningKey::from_bytes(&seed));
    zeroize::Zeroize::zeroize(&mut seed);
    key.map_err(|_| form())
}
