//! Ceremonies: the hosts of cosigners make new shares of the key together, over the simulated network and onto simulated disks. Each host has
//! an operator, who stops the cosigner when told to, gives the command again as long as it fails, and starts the cosigner when it has ended.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context as _;
use monosign::config::Endpoint;
use monosign::guard::JumpLimit;
use monosign::threshold::ceremony::journal::{Journal, Stage};
use monosign::threshold::ceremony::links::{Links, Party};
use monosign::threshold::ceremony::plan::{Key, Plan};
use monosign::threshold::ceremony::{Files, Own, Workshop, group_to_begin_with, identity_of, succession};
use monosign::threshold::group::{Group, Shape};
use monosign::threshold::rounds::MemberId;
use monosign::threshold::share::Share;
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

/// What the operators of all hosts have agreed on.
#[derive(Debug)]
pub(super) struct Order {
    /// The epoch of the new shares.
    pub(super) epoch: u32,
    /// How many sign together afterwards.
    pub(super) needed: usize,
    /// How many of how many sign afterwards; `None` for new shares of the same members.
    pub(super) shape: Option<Shape>,
    /// The hosts that are to have shares, in the order of their numbers.
    pub(super) members: Vec<String>,
    /// The hosts whose cosigners leave.
    pub(super) leaving: Vec<String>,
    /// Which cosigners there are.
    pub(super) before: BTreeMap<String, MemberId>,
    /// Whether it has ended on some host, which it does once all have their new shares.
    pub(super) has_ended: Cell<bool>,
}

impl Order {
    /// The hosts that take part.
    pub(super) fn hosts(&self) -> impl Iterator<Item = &String> {
        self.members.iter().chain(&self.leaving)
    }

    /// The seats afterwards.
    pub(super) fn seats(&self) -> BTreeMap<Seat, String> {
        let seat = |(member, host): (u16, &String)| (Seat { dealing: 0, member }, host.clone());
        (1..).zip(&self.members).map(seat).collect()
    }

    fn plan(&self, group: Rc<Group>, keys: &BTreeMap<&str, Key>) -> anyhow::Result<Plan> {
        let of = |hosts: &[String]| -> anyhow::Result<Vec<Key>> {
            hosts.iter().map(|host| keys.get(host.as_str()).copied().context("a host's identity")).collect()
        };
        match self.shape {
            None => Ok(Plan::refresh(group)),
            Some(shape) => Ok(Plan::reshare(group, shape, &of(&self.members)?, &of(&self.leaving)?)?),
        }
    }
}

/// The operator of one host, until the ceremony has ended there.
pub(super) async fn hold(host: Rc<SignerHost>, order: Rc<Order>) {
    for attempt in 0.. {
        if has_ended(&host, &order).await {
            break;
        }
        match once(&host, &order, attempt).await {
            Ok(()) => host.reach().hit("ceremony ended"),
            Err(error) => {
                tracing::info!(target: "sim::signer", host = &*host.name, %error, "a ceremony has failed");
                host.reach().hit("ceremony interrupted");
                sleep(AGAIN).await;
            }
        }
    }
    order.has_ended.set(true);
    host.oracle().borrow_mut().set_threshold(order.needed);
    host.ceremony_has_ended(&order);
}

/// What the operator sees in the files of the host, and hears of the others.
async fn has_ended(host: &Rc<SignerHost>, order: &Order) -> bool {
    let disk = host.disk.mount();
    let Ok(journal) = Journal::load(&*disk, &Journal::path(RECORD.as_ref())).await else { return false };
    let stage = journal.ceremony.map(|taken| taken.stage);
    match stage {
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

/// `monosign threshold refresh` or `reshare`.
async fn once(host: &Rc<SignerHost>, order: &Order, attempt: u64) -> anyhow::Result<()> {
    let seams = host.ceremony_seams(attempt);
    let files = Files {
        group: GROUP.into(),
        share: SHARE.into(),
        record: Some(RECORD.into()),
        journal: Journal::path(RECORD.as_ref()),
    };
    let own = Own::read(&*seams.disk, &files, host.age_identity()?).await?;
    let me = own.identity.verifying_key().to_bytes();
    let group = Rc::new(group_to_begin_with(&*seams.disk, &files, host.chain_id(), false).await?);
    let mut keys = BTreeMap::new();
    for name in order.hosts() {
        let key = match order.before.get(name) {
            Some(member) => *group.identity(*member).context("a member")?,
            None => identity_of(&host.age_identity_of(name)?).verifying_key().to_bytes(),
        };
        keys.insert(name.as_str(), key);
    }
    let plan = order.plan(group, &keys)?;
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
    let ended = succession::succeed(&shop, &plan, &mut links).await;
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
