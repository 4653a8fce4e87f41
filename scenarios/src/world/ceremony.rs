//! Ceremonies: the hosts of cosigners make new shares of the key together, or a lost one again, or a new key, over the simulated network and
//! onto simulated disks. Each host has an operator, who stops the cosigner when told to, gives the command again as long as it fails, and
//! starts the cosigner when it has ended.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use age::x25519;
use anyhow::Context as _;
use monosign::config::Endpoint;
use monosign::guard::JumpLimit;
use monosign::record::RecordError;
use monosign::seams::Disk;
use monosign::threshold::ceremony::journal::{Journal, Stage};
use monosign::threshold::ceremony::links::{Links, Party};
use monosign::threshold::ceremony::plan::{Key, Plan};
use monosign::threshold::ceremony::{
    CeremonyError, Files, Own, Workshop, group_to_begin_with, identity_of, repair, succession,
};
use monosign::threshold::group::{Group, Shape};
use monosign::threshold::rounds::MemberId;
use monosign::threshold::share::Share;
use monosign_protocol::ChainId;
use tokio::time::sleep;

use super::shares::Shares;
use super::signer_host::{Control, MESH_PORT, RECORD, SignerHost};
use crate::disk::{HOME, HostDisk};
use crate::outcome::Invariant;
use crate::scenario::Seat;

/// Where the group file lies in a world in which it changes.
pub(super) const GROUP: &str = "/var/lib/monosign/group.json";
/// Where the share lies.
pub(super) const SHARE: &str = "/var/lib/monosign/share.age";

/// The hosts meet on the port of cosigners plus this, as by `--port-offset`.
const PORT_OFFSET: u16 = 1000;
/// How long a host waits for the others.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long it takes an operator to give the command again.
const AGAIN: Duration = Duration::from_secs(1);

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// New shares for the same members.
    Refresh,
    /// New shares for other members: how many of how many sign afterwards.
    Reshare(Shape),
    /// The share of this member again, for a host that has nothing.
    Repair(MemberId),
    /// A new key.
    Generate(Shape),
}

/// What the operators of all hosts have agreed on.
#[derive(Debug)]
pub(super) struct Order {
    /// What is to be done.
    pub(super) work: Work,
    /// The epoch of the new shares.
    pub(super) epoch: u32,
    /// How many sign together afterwards.
    pub(super) needed: usize,
    /// The hosts that are to have shares, in the order of their numbers.
    pub(super) members: Vec<String>,
    /// The hosts whose cosigners leave.
    pub(super) leaving: Vec<String>,
    /// Which cosigners there are.
    pub(super) before: BTreeMap<String, MemberId>,
    /// Whether it has ended on some host, which it does once all have their new shares.
    pub(super) has_ended: Cell<bool>,
    /// Where the command for a repair has ended well, and on no other host failed since.
    pub(super) repaired: RefCell<BTreeSet<String>>,
}

impl Order {
    /// What `members` are to do, of whom `before` are cosigners.
    pub(super) fn new(
        work: Work,
        (epoch, needed): (u32, usize),
        members: Vec<String>,
        before: BTreeMap<String, MemberId>,
    ) -> Self {
        let (has_ended, repaired) = (Cell::new(false), RefCell::default());
        Self { work, epoch, needed, members, leaving: Vec::new(), before, has_ended, repaired }
    }

    /// The hosts that take part.
    pub(super) fn hosts(&self) -> impl Iterator<Item = &String> {
        self.members.iter().chain(&self.leaving)
    }

    /// The seats afterwards.
    pub(super) fn seats(&self) -> BTreeMap<Seat, String> {
        let seat = |(member, host): (u16, &String)| (Seat { dealing: 0, member }, host.clone());
        (1..).zip(&self.members).map(seat).collect()
    }

    /// Where its files lie on each host.
    fn files(&self) -> Files {
        match self.work {
            Work::Generate(_) => Files {
                group: GENERATED_GROUP.into(),
                share: GENERATED_SHARE.into(),
                record: None,
                journal: "/var/lib/monosign/dkg.journal".into(),
            },
            _ => Files {
                group: GROUP.into(),
                share: SHARE.into(),
                record: Some(RECORD.into()),
                journal: Journal::path(RECORD.as_ref()),
            },
        }
    }

    async fn plan(
        &self,
        disk: &dyn Disk,
        chain_id: &ChainId,
        age_of: &dyn Fn(&str) -> anyhow::Result<x25519::Identity>,
    ) -> anyhow::Result<(Plan, BTreeMap<String, Key>)> {
        let fresh =
            |host: &str| Ok::<_, anyhow::Error>(identity_of(&age_of(host)?).verifying_key().to_bytes());
        if let Work::Generate(shape) = self.work {
            let keys = self.members.iter().map(|host| fresh(host)).collect::<Result<Vec<_>, _>>()?;
            let plan = Plan::generate(chain_id.clone(), shape, &keys)?;
            return Ok((plan, self.members.iter().cloned().zip(keys).collect()));
        }
        let group = Rc::new(group_to_begin_with(disk, &self.files(), chain_id, false).await?);
        let mut keys = BTreeMap::new();
        for name in self.hosts() {
            let key = match self.before.get(name) {
                Some(member) if self.work != Work::Repair(*member) => {
                    *group.identity(*member).context("a member")?
                }
                _ => fresh(name)?,
            };
            keys.insert(name.clone(), key);
        }
        let of = |hosts: &[String]| -> anyhow::Result<Vec<Key>> {
            hosts.iter().map(|host| keys.get(host).copied().context("a host's identity")).collect()
        };
        let plan = match self.work {
            Work::Refresh | Work::Generate(_) => Plan::refresh(group),
            Work::Reshare(shape) => Plan::reshare(group, shape, &of(&self.members)?, &of(&self.leaving)?)?,
            Work::Repair(lost) => {
                let host = self.before.iter().find(|(_, member)| **member == lost);
                let key = host.and_then(|(host, _)| keys.get(host)).context("the lost one's identity")?;
                let helpers: Vec<_> =
                    self.before.values().copied().filter(|member| *member != lost).collect();
                Plan::repair(Rc::new(group.with_identity(lost, *key)?), lost, *key, &helpers)?
            }
        };
        Ok((plan, keys))
    }
}

/// Where a new key's group file and share lie.
const GENERATED_GROUP: &str = "/var/lib/monosign/dkg-group.json";
const GENERATED_SHARE: &str = "/var/lib/monosign/dkg-share.age";

/// The operator of one host, until the ceremony has ended there.
pub(super) async fn hold(host: Rc<SignerHost>, order: Rc<Order>) {
    for attempt in 0.. {
        if has_ended(&host, &order).await {
            break;
        }
        match once(&host, &order, attempt).await {
            Ok(()) => {
                host.reach().hit("ceremony ended");
                order.repaired.borrow_mut().insert(host.name.to_string());
            }
            Err(error) => {
                tracing::info!(target: "sim::signer", host = &*host.name, %error, "a ceremony has failed");
                host.reach().hit("ceremony interrupted");
                // The same command again, on every host.
                order.repaired.borrow_mut().clear();
                if let Some(CeremonyError::Record { source: RecordError::Locked { .. } }) =
                    error.downcast_ref()
                {
                    host.tell(Control::MakeWay);
                }
                sleep(AGAIN).await;
            }
        }
    }
    order.has_ended.set(true);
    if let Work::Refresh | Work::Reshare(_) = order.work {
        host.oracle().borrow_mut().set_threshold(order.needed);
    }
    host.ceremony_has_ended(&order);
}

/// What the operator sees in the files of the host, and hears of the others.
async fn has_ended(host: &Rc<SignerHost>, order: &Order) -> bool {
    if let Work::Repair(_) = order.work {
        return is_repaired(host, order).await;
    }
    let (disk, files) = (host.disk.mount(), order.files());
    let Ok(journal) = Journal::load(&*disk, &files.journal).await else { return false };
    let stage = journal.ceremony.map(|taken| taken.stage);
    match stage {
        // A new key leaves no journal.
        None if files.record.is_none() => disk.is_there(&files.share).await.unwrap_or(false),
        None => journal.epoch >= order.epoch,
        Some(Stage::Active) => order.has_ended.get(),
        Some(_) => {
            if order.has_ended.get() {
                let seen = format!("a ceremony has ended elsewhere, and {} is not through", host.name);
                host.oracle().borrow_mut().violated(Invariant::OneQuorum, seen);
            }
            false
        }
    }
}

/// A repair leaves no journal: its operators tell each other how it went.
async fn is_repaired(host: &Rc<SignerHost>, order: &Order) -> bool {
    let all = |order: &Order| order.hosts().all(|name| order.repaired.borrow().contains(name));
    while order.repaired.borrow().contains(&*host.name) {
        if order.has_ended.get() || all(order) {
            return true;
        }
        sleep(AGAIN / 4).await;
    }
    order.has_ended.get()
}

/// `monosign threshold refresh`, `reshare`, `repair` or `dkg`.
async fn once(host: &Rc<SignerHost>, order: &Order, attempt: u64) -> anyhow::Result<()> {
    let (seams, files) = (host.ceremony_seams(attempt), order.files());
    let own = Own::read(&*seams.disk, &files, host.ceremony_identity(order, &host.name)?).await?;
    let me = own.identity.verifying_key().to_bytes();
    let age_of = |name: &str| host.ceremony_identity(order, name);
    let (plan, keys) = order.plan(&*seams.disk, host.chain_id(), &age_of).await?;
    plan.must_have(&me)?;
    let endpoint = |host: &str| Endpoint::Tcp { host: host.into(), port: MESH_PORT + PORT_OFFSET };
    let parties: Vec<Party> = keys
        .iter()
        .filter(|(_, key)| **key != me)
        .map(|(name, key)| Party { key: *key, endpoint: endpoint(name), name: plan.name(key) })
        .collect();
    let others: Vec<Key> = parties.iter().map(|party| party.key).collect();
    let transport = seams.net.transport(&own.identity, &others)?;
    let listener = seams.net.listen(&endpoint(&host.name)).await?;
    let mut links = Links::meet(Rc::clone(&seams.net), transport, me, listener, parties, PATIENCE).await?;
    let tell = |line: &str| {
        tracing::info!(target: "sim::signer", host = &*host.name, line, "told by a ceremony");
        if line.ends_with("stop the cosigner of this host now") {
            host.tell(Control::MakeWay);
        }
    };
    let shop = Workshop {
        files: &files,
        own: &own,
        disk: &*seams.disk,
        entropy: &*seams.entropy,
        jump_limit: JumpLimit::Heights(100_000),
        accept_floor: None,
        anew: false,
        tell: &tell,
    };
    let ended = match order.work {
        Work::Repair(_) => repair::repair(&shop, &plan, &mut links).await,
        _ => succession::succeed(&shop, &plan, &mut links).await,
    };
    links.part().await;
    ended?;
    Ok(())
}

/// Who could sign, by the files on the hosts' disks: whatever is cut off when, one quorum at the most.
#[derive(Default)]
pub(super) struct Quorums {
    /// How many it takes in each epoch.
    pub(super) thresholds: BTreeMap<u32, usize>,
    /// The epochs of what was read before: that takes long, and seldom changes.
    epochs: RefCell<BTreeMap<Vec<u8>, Option<u32>>>,
}

impl Quorums {
    /// The epochs in which there is a quorum, if all hosts lost power now, or none did.
    pub(super) fn who_could_sign(&self, hosts: &[Rc<SignerHost>]) -> [Vec<u32>; 2] {
        [true, false].map(|is_durable| {
            let mut counts = BTreeMap::<u32, usize>::new();
            for host in hosts {
                if let Some(epoch) = self.usable(host, is_durable) {
                    *counts.entry(epoch).or_default() += 1;
                }
            }
            let is_quorum =
                |(epoch, count): &(u32, usize)| self.thresholds.get(epoch).is_some_and(|t| count >= t);
            counts.into_iter().filter(is_quorum).map(|(epoch, _)| epoch).collect()
        })
    }

    /// The epoch of the share that a cosigner would sign with that started on what is on the disk.
    fn usable(&self, host: &SignerHost, is_durable: bool) -> Option<u32> {
        let disk = &host.disk;
        let journal = Journal::path(RECORD.as_ref());
        let open = |share: &[u8]| Some(Share::open(share, &[host.age_identity().ok()?]).ok()?.epoch());
        let parse = |group: &[u8]| Group::parse(group).ok().map(|group| group.epoch());
        let lowest = |journal: &[u8]| serde_json::from_slice::<Journal>(journal).ok().map(|of| of.epoch);
        let share = look(disk, SHARE.as_ref(), is_durable, |share| self.epoch_in(share, open))??;
        let group = look(disk, GROUP.as_ref(), is_durable, |group| self.epoch_in(group, parse))??;
        let lowest = match look(disk, &journal, is_durable, |journal| self.epoch_in(journal, lowest)) {
            Some(journal) => journal?,
            None => 0,
        };
        (group == share && lowest <= share).then_some(share)
    }

    fn epoch_in(&self, content: &[u8], read: impl Fn(&[u8]) -> Option<u32>) -> Option<u32> {
        if let Some(known) = self.epochs.borrow().get(content) {
            return *known;
        }
        let epoch = read(content);
        self.epochs.borrow_mut().insert(content.to_vec(), epoch);
        epoch
    }
}

fn look<T>(disk: &HostDisk, path: &Path, is_durable: bool, see: impl FnOnce(&[u8]) -> T) -> Option<T> {
    match is_durable {
        true => disk.durable_file(path, see),
        false => disk.cached_file(path, see),
    }
}

/// What there is of a new key on the disks of its hosts.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Generated {
    /// Nobody has a share in its place.
    None,
    /// Some have, and all have theirs, of one key, on stable storage.
    Some,
    /// All have.
    All,
    /// Some have, and this is wrong.
    Torn(String),
}

impl Generated {
    /// Looks at the disks.
    pub(super) fn look(hosts: &[Rc<SignerHost>], order: &Order) -> Self {
        let is_member = |host: &&Rc<SignerHost>| order.members.iter().any(|name| **name == *host.name);
        let members: Vec<_> = hosts.iter().filter(is_member).collect();
        let has = |host: &&&Rc<SignerHost>| host.disk.cached_file(GENERATED_SHARE, |_| ()).is_some();
        let in_place = members.iter().filter(has).count();
        if in_place == 0 {
            return Self::None;
        }
        let groups: Vec<_> = members.iter().map(|host| new_group_of(host, order)).collect();
        match groups.windows(2).all(|pair| pair[0] == pair[1] && pair[0].is_some()) {
            true if in_place == members.len() => Self::All,
            true => Self::Some,
            false => Self::Torn(format!(
                "{in_place} hosts have shares of a new key in their places, and not all have one of the same key on stable storage"
            )),
        }
    }
}

/// The group file of a new key on a host's disk, if there is a share that belongs to it.
fn new_group_of(host: &SignerHost, order: &Order) -> Option<String> {
    let read = |path: &str| {
        let paths = [format!("{path}.next"), path.to_owned()];
        paths.iter().find_map(|path| host.disk.durable_file(path, <[u8]>::to_vec))
    };
    let group = Group::parse(&read(GENERATED_GROUP)?).ok()?;
    let age = host.ceremony_identity(order, &host.name).ok()?;
    let share = Share::open(&read(GENERATED_SHARE)?, &[age]).ok()?;
    share.key_package(&group).ok()?;
    Some(group.to_json())
}

/// What lies on the disk of a host before the first ceremony: the share of a cosigner, or the group file alone for one that is to come.
pub(super) fn files_of(shares: &Shares, seat: Option<Seat>) -> std::io::Result<Vec<(&'static str, Vec<u8>)>> {
    debug_assert!(GROUP.starts_with(HOME) && SHARE.starts_with(HOME));
    let first = Seat { dealing: 0, member: 1 };
    let mut files = vec![(GROUP, std::fs::read(shares.group(seat.unwrap_or(first)))?)];
    if let Some(seat) = seat {
        files.push((SHARE, std::fs::read(shares.share(seat))?));
    }
    Ok(files)
}

/// A shape, if it is a safe one.
pub(super) fn shape(threshold: u16, members: usize) -> Option<Shape> {
    Shape::new(threshold, u16::try_from(members).ok()?).ok()
}
