//! A host that runs the production signer.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use age::x25519;
use monosign::backend::softsign::unlock::UnlockEnv;
use monosign::backend::yubihsm::witness::AuditLog;
use monosign::backend::yubihsm::{AuditFileError, Witnessed};
use monosign::config::Config;
use monosign::guard::{JumpLimit, Watermark};
use monosign::record::{Header, Record, RecordError, decode_file};
use monosign::seams::{Entropy, Seams};
use monosign::start::{self, Devices, Opened, Signer, StartError};
use monosign::threshold::incarnation::Incarnation;
use monosign_protocol::{ChainId, Hrs};
use tokio::sync::{Notify, mpsc};
use tokio::task::spawn_local;

use super::ceremony::{self, GROUP, Order, SHARE, Work};
use super::device::{Device, Eye, LastSigned, SimHardware};
use super::hosts::{Hosts, Power};
use super::keys::Keys;
use super::net::{SimEntropy, SimNet};
use super::rogue;
use super::shares::{Shares, age_identity};
use super::wire::Tap;
use crate::disk::{HostDisk, Image};
use crate::oracle::Oracle;
use crate::outcome::Invariant;
use crate::reach::Reach;
use crate::run::Mode;
use crate::scenario::{
    self, Cheat, Cosigner, CosignerFiles, Seat, SignerFiles, SignerTables, audit_file, cosigner_toml,
    signer_toml,
};
use crate::streams::Streams;

/// Where its configuration would be.
const CONFIG: &str = "/etc/monosign/monosign.toml";

/// Where the record lies on a signer's disk.
pub(super) const RECORD: &str = "/var/lib/monosign/record";

/// What a host of a signer keeps while its processes come and go.
pub(super) struct SignerHost {
    pub(super) name: Rc<str>,
    pub(super) disk: Rc<HostDisk>,
    /// The devices that hold its key, in the order in which they are asked.
    pub(super) devices: Vec<String>,
    provider: toml::Table,
    last_signed: LastSigned,
    taps: RefCell<BTreeMap<String, Tap>>,
    /// How long it takes its links to notice a peer that is gone without a word.
    link_timeout: Cell<Duration>,
    /// The last picture of its disk.
    pub(super) picture: RefCell<Option<Image>>,
    settings: RefCell<SignerSettings>,
    pub(super) control: RefCell<Option<mpsc::UnboundedSender<Control>>>,
    /// What can be done to the connections to other cosigners.
    mesh: Tap,
    /// Which cosigner it is, in a world of groups.
    pub(super) seat: Cell<Option<Seat>>,
    /// Which of the hosts it is that come to a group later.
    pub(super) newcomer: Cell<Option<usize>>,
    /// Who is where, as its configuration has it since a ceremony has changed it.
    peers: RefCell<Option<BTreeMap<Seat, String>>>,
    /// The ceremony that its operator holds.
    order: RefCell<Option<Rc<Order>>>,
    ceremony_over: Notify,
    /// The crash points that its disk had passed when a ceremony was ordered, and when it had ended.
    ceremony_points: Cell<(u64, Option<u64>)>,
    /// How it cheats, if it does.
    cheat: Cell<Option<Cheat>>,
    starts: Cell<u64>,
    is_initialized: Cell<bool>,
    shared: Rc<SignerShared>,
}

/// What the configuration file of a signer is made from.
#[derive(Debug, Clone)]
pub(super) struct SignerSettings {
    pub(super) chain: toml::Table,
    pub(super) link: toml::Table,
    pub(super) validators: Vec<String>,
}

/// What all signers of a world share.
pub(super) struct SignerShared {
    pub(super) chain_id: ChainId,
    pub(super) keys: Keys,
    pub(super) hosts: Rc<Hosts>,
    pub(super) oracle: Rc<RefCell<Oracle>>,
    pub(super) reach: Reach,
    pub(super) streams: Streams,
    pub(super) mode: Mode,
    /// All devices of the world, by name.
    pub(super) devices: Rc<BTreeMap<String, Device>>,
    /// The group, in a world of groups.
    pub(super) mesh: Option<Mesh>,
}

/// A group of cosigners.
pub(super) struct Mesh {
    pub(super) shares: Shares,
    /// Who is where, as everybody's configuration has it.
    pub(super) hosts: BTreeMap<Seat, String>,
    /// What stands in everybody's `[[providers.threshold]]`.
    pub(super) settings: toml::Table,
    /// Whether shares lie on the hosts' own disks, since a ceremony will make others.
    pub(super) has_ceremonies: bool,
    /// The hosts that come later, in the order of their numbers.
    pub(super) newcomers: Vec<String>,
    /// Who is malicious, and which life the others take it to be in.
    pub(super) malicious: RefCell<BTreeMap<Seat, Incarnation>>,
}

/// What a process is told from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Control {
    /// SIGHUP.
    Reload,
    /// SIGTERM.
    Stop,
    /// Somebody starts a second process with the same files.
    Twin,
    /// A ceremony begins.
    Ceremony,
    /// The cosigner must stop for a ceremony.
    MakeWay,
}

impl SignerHost {
    pub(super) fn new(
        Cosigner { host: signer, seat, .. }: &Cosigner,
        newcomer: Option<usize>,
        validators: Vec<String>,
        disk: Rc<HostDisk>,
        shared: Rc<SignerShared>,
    ) -> Rc<Self> {
        let settings = SignerSettings { chain: signer.chain.clone(), link: signer.link.clone(), validators };
        let host = Self {
            name: signer.name.as_str().into(),
            disk,
            devices: match shared.mode.is_hardware() {
                true => signer.device_names(),
                false => vec![signer.name.clone()],
            },
            provider: signer.provider.clone(),
            last_signed: Rc::default(),
            taps: RefCell::default(),
            link_timeout: Cell::default(),
            picture: RefCell::new(None),
            settings: RefCell::new(settings),
            control: RefCell::new(None),
            mesh: Tap::default(),
            seat: Cell::new(*seat),
            newcomer: Cell::new(newcomer),
            peers: RefCell::default(),
            order: RefCell::default(),
            ceremony_over: Notify::new(),
            ceremony_points: Cell::default(),
            cheat: Cell::new(None),
            starts: Cell::new(0),
            is_initialized: Cell::new(!signer.fresh),
            shared,
        };
        host.change_settings(|_| ());
        Rc::new(host)
    }

    /// Changes what its configuration file says; a process that runs reads it at its next reload.
    pub(super) fn change_settings(&self, change: impl FnOnce(&mut SignerSettings)) {
        change(&mut self.settings.borrow_mut());
        let config = Config::parse(&self.config_text(), Path::new(CONFIG));
        let validators = config.map(|config| config.validators).unwrap_or_default();
        let longest = validators.iter().map(|validator| validator.timeout).max();
        self.link_timeout.set(longest.unwrap_or_default());
    }

    /// Whether it holds more connections than it serves nodes: one that is of no use any more must be closed.
    pub(super) fn leaks_connections(&self) -> bool {
        self.taps.borrow().values().any(|tap| tap.open() > 1)
    }

    /// Whether it holds a connection to a node.
    pub(super) fn is_connected_to(&self, node: &str) -> bool {
        self.taps.borrow().get(node).is_some_and(|tap| tap.open() > 0)
    }

    /// Whether one of its connections has broken, or still is to, since this was asked last.
    pub(super) fn take_broken(&self) -> bool {
        let mesh = self.mesh.take_broken();
        self.taps.borrow().values().fold(mesh, |broken, tap| tap.take_broken() | broken)
    }

    /// Its connections break no more.
    pub(super) fn spare_connections(&self) {
        self.mesh.spare();
        self.taps.borrow().values().for_each(Tap::spare);
    }

    /// How long it takes its links to notice a peer that is gone without a word.
    pub(super) fn link_timeout(&self) -> Duration {
        self.link_timeout.get()
    }

    /// Tells the running process something; nothing happens if none runs.
    pub(super) fn tell(&self, control: Control) {
        if let Some(process) = &*self.control.borrow() {
            let _ = process.send(control);
        }
    }

    /// What can be done to the connections to a node.
    pub(super) fn tap(&self, node: &str) -> Tap {
        self.taps.borrow_mut().entry(node.into()).or_default().clone()
    }

    /// What can be done to the connections to other cosigners.
    pub(super) fn mesh_tap(&self) -> Tap {
        self.mesh.clone()
    }

    /// Its process stands still, or goes on: nothing is read, written or closed. What it would do by itself meanwhile shows when it
    /// goes on.
    pub(super) fn freeze(&self, frozen: bool) {
        self.mesh.freeze(frozen);
        self.taps.borrow().values().for_each(|tap| tap.freeze(frozen));
        if frozen {
            self.shared.reach.hit("signer frozen");
        }
    }

    /// From now on it cheats in this way, or no more.
    pub(super) fn set_cheat(&self, cheat: Option<Cheat>) {
        self.cheat.set(cheat);
        if let (Some(mesh), Some(seat)) = (&self.shared.mesh, self.seat.get()) {
            mesh.malicious.borrow_mut().remove(&seat);
        }
    }

    /// Its share is in the hands of a malicious program from now on.
    pub(super) fn turns_malicious(&self, life: Incarnation) {
        if let (Some(mesh), Some(seat)) = (&self.shared.mesh, self.seat.get()) {
            mesh.malicious.borrow_mut().insert(seat, life);
        }
    }

    /// The configuration of each malicious cosigner of its group, and the life that the others take it to be in.
    pub(super) fn malicious(&self) -> Vec<(Config, Incarnation)> {
        let (Some(mesh), Some(own)) = (&self.shared.mesh, self.seat.get()) else { return Vec::new() };
        let all = mesh.malicious.borrow();
        let of_group = all.iter().filter(|(seat, _)| seat.dealing == own.dealing);
        let parse = |seat: Seat| Config::parse(&self.cosigner_text(mesh, seat), Path::new(CONFIG)).ok();
        of_group.filter_map(|(seat, life)| Some((parse(*seat)?, *life))).collect()
    }

    pub(super) fn is_honest(&self) -> bool {
        self.cheat.get().is_none()
    }

    pub(super) fn cheats(&self, how: Cheat) -> bool {
        self.cheat.get() == Some(how)
    }

    pub(super) fn cheat(&self) -> Option<Cheat> {
        self.cheat.get()
    }

    pub(super) fn oracle(&self) -> &Rc<RefCell<Oracle>> {
        &self.shared.oracle
    }

    pub(super) fn reach(&self) -> &Reach {
        &self.shared.reach
    }

    /// A signature of the group leaves it.
    pub(super) fn group_signed(&self, bytes: &[u8], signature: &[u8]) {
        self.shared.oracle.borrow_mut().group_signed(&self.name, bytes, signature);
    }

    /// The text of `monosign.toml`.
    fn config_text(&self) -> String {
        match (&self.shared.mesh, self.seat.get()) {
            (Some(mesh), Some(seat)) => self.cosigner_text(mesh, seat),
            _ => self.sole_text(),
        }
    }

    fn cosigner_text(&self, mesh: &Mesh, seat: Seat) -> String {
        let (settings, keys) = (self.settings.borrow(), &self.shared.keys);
        let (group, share) = match mesh.has_ceremonies {
            true => (GROUP.into(), SHARE.into()),
            false => (mesh.shares.group(seat), mesh.shares.share(seat)),
        };
        let opens = mesh.shares.identity(self.newcomer.get());
        let files = CosignerFiles {
            record: RECORD.as_ref(),
            group: &group,
            share: &share,
            share_identity: &opens,
            identity: &keys.identity,
        };
        let is_peer = |other: &Seat| other.dealing == seat.dealing && other.member != seat.member;
        let changed = self.peers.borrow();
        let peers = changed.as_ref().unwrap_or(&mesh.hosts).iter().filter(|(other, _)| is_peer(other));
        let peers: Vec<_> =
            peers.map(|(other, host)| (other.member, format!("tcp://{host}:{MESH_PORT}"))).collect();
        let addrs: Vec<_> = settings.validators.iter().map(|name| format!("tcp://{name}:{PORT}")).collect();
        let listen = format!("tcp://{}:{MESH_PORT}", self.name);
        let tables = (&settings.chain, &settings.link, &mesh.settings);
        cosigner_toml(self.shared.chain_id.as_str(), files, &listen, &peers, &addrs, tables)
    }

    fn sole_text(&self) -> String {
        let (settings, keys) = (self.settings.borrow(), &self.shared.keys);
        let files = SignerFiles {
            record: RECORD.as_ref(),
            consensus_key: &keys.consensus,
            identity: &keys.identity,
            password: &keys.password,
        };
        let addrs: Vec<_> = settings.validators.iter().map(|name| format!("tcp://{name}:{PORT}")).collect();
        let SignerSettings { chain, link, .. } = &*settings;
        let tables = SignerTables { devices: &self.devices, chain, link, provider: &self.provider };
        signer_toml(self.shared.mode, self.shared.chain_id.as_str(), files, &addrs, tables)
    }

    /// One process, from its start to its end.
    pub(super) async fn process(self: Rc<Self>) -> turmoil::Result {
        // Hosts begin with a process. That of one that is off ends at once.
        if self.shared.hosts.power(&self.name) != Power::On {
            return Ok(());
        }
        self.starts.set(self.starts.get() + 1);
        self.taps.borrow_mut().clear();
        self.mesh.reset();
        let (control, mut told) = mpsc::unbounded_channel();
        *self.control.borrow_mut() = Some(control);
        if let Some(how) = self.cheat().filter(|how| how.is_another_program()) {
            let config = Config::parse(&self.config_text(), Path::new(CONFIG))?;
            return rogue::run(&self, &config, &self.seams(), how).await;
        }
        self.hold_ceremony();
        while self.sign(&mut told).await? == Next::Ceremony {
            if !self.await_ceremony(&mut told).await {
                break;
            }
            // Another process, which draws other nonces.
            self.starts.set(self.starts.get() + 1);
        }
        Ok(())
    }

    /// The signer, until it ends or makes way for a ceremony.
    async fn sign(
        self: &Rc<Self>,
        told: &mut mpsc::UnboundedReceiver<Control>,
    ) -> Result<Next, Box<dyn std::error::Error>> {
        if self.has_no_share() {
            return Ok(Next::Ceremony);
        }
        let config = Config::parse(&self.config_text(), Path::new(CONFIG))?;
        let seams = self.seams();
        self.init(&seams).await;
        let mut signer = Signer::new(seams.clone());
        match self.start(&mut signer, &config, &seams).await {
            Ok(()) => self.serve(signer, told).await,
            Err(error) => {
                tracing::info!(target: "sim::signer", host = &*self.name, %error, "does not start");
                self.shared.reach.hit(match error.is_for_safety() {
                    true => "signer refused to start",
                    false => "signer could not start",
                });
                Ok(if self.order.borrow().is_some() { Next::Ceremony } else { Next::End })
            }
        }
    }

    /// A host that has left its group, or comes to it later.
    fn has_no_share(&self) -> bool {
        self.seat.get().is_none() && self.shared.mesh.as_ref().is_some_and(|mesh| mesh.has_ceremonies)
    }

    /// Its operator is to hold a ceremony with those of the other hosts.
    pub(super) fn order(&self, order: Rc<Order>) {
        *self.order.borrow_mut() = Some(order);
        self.ceremony_points.set((self.disk.points_passed(), None));
    }

    /// Whether its operator has a ceremony to end.
    pub(super) fn holds_ceremony(&self) -> bool {
        self.order.borrow().is_some()
    }

    /// How many crash points its disk has passed in a ceremony.
    pub(super) fn ceremony_points(&self) -> Option<u64> {
        let (first, last) = self.ceremony_points.get();
        Some(last? - first)
    }

    /// The operator gives the command, if a ceremony is to be held.
    fn hold_ceremony(self: &Rc<Self>) {
        if let Some(order) = self.order.borrow().clone() {
            spawn_local(ceremony::hold(Rc::clone(self), order));
        }
    }

    /// The operator has seen the end, and changes the configuration.
    pub(super) fn ceremony_has_ended(&self, order: &Order) {
        *self.order.borrow_mut() = None;
        let (first, _) = self.ceremony_points.get();
        self.ceremony_points.set((first, Some(self.disk.points_passed())));
        if let Work::Repair(_) = order.work {
            // All cosigners start anew, with the group file that names the new host.
            self.tell(Control::MakeWay);
        }
        if let Work::Reshare(_) = order.work {
            let seats = order.seats();
            let own = seats.iter().find(|(_, host)| **host == *self.name).map(|(seat, _)| *seat);
            self.seat.set(own);
            *self.peers.borrow_mut() = Some(seats);
            // A cosigner that runs already, on its new share, read who is where before that was written.
            self.tell(Control::MakeWay);
        }
        self.ceremony_over.notify_one();
    }

    /// Waits until there is a share to sign with; false if the process is to end.
    async fn await_ceremony(self: &Rc<Self>, told: &mut mpsc::UnboundedReceiver<Control>) -> bool {
        while self.order.borrow().is_some() || self.has_no_share() {
            tokio::select! {
                biased;
                control = told.recv() => match control {
                    Some(Control::Ceremony) => self.hold_ceremony(),
                    Some(Control::Stop) | None => return false,
                    Some(_) => {}
                },
                () = self.ceremony_over.notified() => {}
            }
        }
        true
    }

    /// What opens the share.
    pub(super) fn age_identity(&self) -> anyhow::Result<x25519::Identity> {
        age_identity(self.newcomer.get())
    }

    /// The host is a new one of the same name, which has the group file and an identity of its own.
    pub(super) fn is_replaced(&self, group: &[u8]) {
        let mut image = Image::default();
        image.insert(GROUP, group.to_vec());
        self.disk.restore(&image);
        self.newcomer.set(Some(self.replacement()));
    }

    /// Which newcomer's identity a host gets that takes the place of a lost one.
    fn replacement(&self) -> usize {
        self.shared.mesh.as_ref().map_or(0, |mesh| mesh.newcomers.len())
    }

    /// What opens the share of a host that takes part in a ceremony, as far as this one knows it.
    pub(super) fn ceremony_identity(&self, order: &Order, host: &str) -> anyhow::Result<x25519::Identity> {
        match order.work {
            Work::Generate(_) => age_identity(order.members.iter().position(|name| name == host)),
            _ if *host == *self.name => self.age_identity(),
            Work::Repair(_) => age_identity(Some(self.replacement())),
            _ => {
                let mesh = self.shared.mesh.as_ref();
                let newcomers = mesh.map(|mesh| mesh.newcomers.as_slice()).unwrap_or_default();
                age_identity(newcomers.iter().position(|name| name == host))
            }
        }
    }

    pub(super) fn chain_id(&self) -> &ChainId {
        &self.shared.chain_id
    }

    fn seams(self: &Rc<Self>) -> Seams {
        let start = self.starts.get();
        self.seams_of(&start.to_string(), start << 32, true)
    }

    /// Those of a process that holds a ceremony.
    pub(super) fn ceremony_seams(self: &Rc<Self>, attempt: u64) -> Seams {
        let start = self.starts.get();
        self.seams_of(&format!("{start}/ceremony {attempt}"), (start << 32) + ((attempt + 1) << 20), false)
    }

    fn seams_of(self: &Rc<Self>, process: &str, dialed: u64, is_overheard: bool) -> Seams {
        let (name, streams) = (&self.name, self.shared.streams);
        let entropy = streams.of(&format!("entropy/{name}/{process}"));
        let entropy: Rc<dyn Entropy> = Rc::new(SimEntropy(RefCell::new(entropy)));
        let net = SimNet {
            host: Rc::clone(name),
            hosts: Rc::clone(&self.shared.hosts),
            signer: Rc::clone(self),
            streams,
            entropy: Rc::clone(&entropy),
            is_overheard,
            dialed: Cell::new(dialed),
        };
        Seams { net: Rc::new(net), disk: self.disk.mount(), entropy }
    }

    async fn start(
        self: &Rc<Self>,
        signer: &mut Signer,
        config: &Config,
        seams: &Seams,
    ) -> Result<(), StartError> {
        let env = UnlockEnv::default();
        self.limit_jumps(config);
        for chain in &config.chains {
            if chain.key.threshold().is_some() {
                self.saw_cosigner_start();
                signer.start_chain(chain, &env).await?;
                continue;
            }
            let hardware = SimHardware {
                devices: Rc::clone(&self.shared.devices),
                eye: self.eye(),
                streams: self.shared.streams,
                start: self.starts.get(),
            };
            let mut devices = Devices::of(Rc::clone(&seams.disk), Rc::new(hardware));
            let Opened { record, backend, vault } = start::open(chain, &env, seams, &mut devices).await?;
            self.saw_start(&record);
            let key = match self.own_devices().next() {
                Some(device) => device.watch(backend, self.eye(), &self.shared.reach),
                None => backend,
            };
            signer.look_for(&*key).await;
            signer.serve_chain(chain, record, vault, key)?;
        }
        for validator in &config.validators {
            signer.start_link(validator)?;
        }
        Ok(())
    }

    /// The devices that hold its key.
    pub(super) fn own_devices(&self) -> impl Iterator<Item = &Device> {
        self.devices.iter().filter_map(|name| self.shared.devices.get(name))
    }

    fn eye(&self) -> Eye {
        Eye {
            host: Rc::clone(&self.name),
            disk: Rc::clone(&self.disk),
            record: RECORD.into(),
            oracle: Rc::clone(&self.shared.oracle),
            reach: self.shared.reach.clone(),
            last: Rc::clone(&self.last_signed),
        }
    }

    /// What an operator does who starts the signer twice.
    async fn second_process(self: Rc<Self>) {
        let path = Path::new(RECORD);
        let disk = self.disk.mount();
        let key = self.shared.keys.key.verifying_key().to_bytes();
        let opened = Record::open(&*disk, path, &self.shared.chain_id, &key).await;
        self.shared.reach.hit(match opened {
            Ok(_) => "second process started",
            Err(_) => "second process refused",
        });
        if opened.is_ok() {
            let seen = format!("{}: two processes hold one record", self.name);
            self.shared.oracle.borrow_mut().violated(Invariant::OneSignature, seen);
        }
    }

    /// Makes the record of a signer that never had one, and says whether it may be started: `monosign state init`, repeated by
    /// an operator whom a crash interrupted.
    async fn init(&self, seams: &Seams) {
        if self.is_initialized.get() {
            return;
        }
        let header = Header {
            chain_id: self.shared.chain_id.clone(),
            public_key: self.shared.keys.key.verifying_key().to_bytes(),
        };
        let made = Record::create(&*seams.disk, Path::new(RECORD), header, Watermark::default()).await;
        let watched = self.init_audit(seams).await;
        self.is_initialized.set(watched && matches!(made, Ok(_) | Err(RecordError::Exists { .. })));
    }

    /// `monosign yubihsm audit init`, likewise.
    async fn init_audit(&self, seams: &Seams) -> bool {
        for (n, device) in self.own_devices().enumerate() {
            let Some(log) = device.log() else { continue };
            let made = Witnessed::init(&*seams.disk, &audit_file(RECORD.as_ref(), n), &log).await;
            if !matches!(made, Ok(()) | Err(AuditFileError::Exists(_))) {
                return false;
            }
        }
        true
    }

    fn limit_jumps(&self, config: &Config) {
        for chain in &config.chains {
            let limit = match chain.rules.jump_limit {
                JumpLimit::Heights(limit) => Some(limit),
                JumpLimit::Off => None,
            };
            self.shared.oracle.borrow_mut().limit_jumps(&self.name, limit);
        }
    }

    fn saw_start(&self, record: &Record) {
        let watermark = record.watermark();
        let place = place_of(watermark);
        self.shared.oracle.borrow_mut().started(&self.name, &watermark.to_string(), place);
    }

    /// What a cosigner's record stands at when it starts, whether it opens it or not.
    fn saw_cosigner_start(&self) {
        let newest = |record: &[u8]| decode_file(record).ok().map(|(_, newest)| newest.watermark);
        let Some(watermark) = self.disk.cached_file(RECORD, newest).flatten() else { return };
        self.shared.oracle.borrow_mut().started(&self.name, &watermark.to_string(), place_of(&watermark));
    }

    async fn serve(
        self: &Rc<Self>,
        mut signer: Signer,
        told: &mut mpsc::UnboundedReceiver<Control>,
    ) -> Result<Next, Box<dyn std::error::Error>> {
        let next = loop {
            tokio::select! {
                biased;
                control = told.recv() => match control {
                    Some(Control::Reload) => {
                        let config = Config::parse(&self.config_text(), Path::new(CONFIG))?;
                        self.limit_jumps(&config);
                        let report = signer.reload(&config).await;
                        tracing::info!(target: "sim::signer", host = &*self.name, ?report, "reloaded");
                        self.shared.reach.hit("configuration reloaded");
                    }
                    Some(Control::Twin) => {
                        let twin = Rc::clone(self);
                        spawn_local(async move { twin.second_process().await });
                    }
                    Some(Control::Ceremony) => self.hold_ceremony(),
                    Some(Control::MakeWay) => break Next::Ceremony,
                    Some(Control::Stop) | None => break Next::End,
                },
                () = signer.wait() => {
                    tracing::info!(target: "sim::signer", host = &*self.name, "nothing is left to serve");
                    self.shared.reach.hit("signer ended by itself");
                    return Ok(Next::End);
                }
            }
        };
        signer.stop().await;
        self.shared.reach.hit("signer stopped in good order");
        let recorded = self.disk.durable_file(Path::new(RECORD), |record| decode_file(record).ok());
        let place = recorded.flatten().and_then(|(_, newest)| place_of(&newest.watermark));
        self.shared.oracle.borrow_mut().stopped(&self.name, place);
        Ok(next)
    }
}

/// What comes after a signer has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// The process ends.
    End,
    /// It starts again with what a ceremony makes.
    Ceremony,
}

fn place_of(watermark: &Watermark) -> Option<Hrs> {
    watermark.step.map(|step| Hrs { height: watermark.height, round: watermark.round, step })
}

/// Where cosigners listen.
pub(super) const MESH_PORT: u16 = 26700;

/// Where nodes listen.
pub(super) const PORT: u16 = 26658;

/// A record that has signed nothing, as `monosign state init` makes it, and what is known of the logs of devices, on a disk of their
/// own.
pub(super) fn fresh_disk(
    chain_id: &ChainId,
    public_key: [u8; 32],
    logs: &[AuditLog],
    streams: Streams,
) -> anyhow::Result<Image> {
    let disk = HostDisk::new(
        "template",
        scenario::SpanRange::millis(0, 0),
        streams.of("template"),
        Reach::default(),
    );
    let mounted = disk.mount();
    let header = Header { chain_id: chain_id.clone(), public_key };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let floor = Watermark::default();
    let path = PathBuf::from(RECORD);
    tokio::task::LocalSet::new().block_on(&runtime, async {
        drop(Record::create(&*mounted, &path, header, floor).await?);
        for (n, log) in logs.iter().enumerate() {
            Witnessed::init(&*mounted, &audit_file(&path, n), log).await?;
        }
        anyhow::Ok(())
    })?;
    Ok(disk.snapshot())
}
