//! Hosts in memory, their disks in a directory, and connections between them.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use age::x25519;
use monosign_protocol::{ChainId, Height};
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::consensus_key::ConsensusKey;
use crate::guard::JumpLimit;
use crate::record::{Header, Opener, Record};
use crate::seams::{Claim, Disk, DiskFile, Holder, Local, Open, OsEntropy, StdDisk};
use crate::threshold::ceremony::journal::Journal;
use crate::threshold::ceremony::meeting::{Meeting, MeetingError, Round};
use crate::threshold::ceremony::plan::{Act, Key, Plan};
use crate::threshold::ceremony::{CeremonyError, Ended, Files, Own, Stage, Workshop, repair, succession};
use crate::threshold::deal::{deal, prove};
use crate::threshold::group::{Group, Shape};
use crate::threshold::incarnation::Lives;
use crate::threshold::message::Place;
use crate::threshold::rounds::MemberId;
use crate::threshold::share::Share;

pub(super) fn chain() -> ChainId {
    "test-1".parse().expect("a chain id")
}

pub(super) fn shape(t: u16, n: u16) -> Shape {
    Shape::new(t, n).expect("allowed")
}

/// At which input or output a host loses power: before it is done, or after.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fault {
    pub(super) step: u64,
    pub(super) is_done: bool,
}

/// What a host says in a round, changed on its way to somebody.
pub(super) type Forge = Rc<dyn Fn(Round, &Key, Vec<u8>) -> Vec<u8>>;

pub(super) struct Host {
    dir: TempDir,
    age: x25519::Identity,
    pub(super) files: Files,
    pub(super) accept_floor: Option<Height>,
    /// Good for one ceremony.
    pub(super) fault: Option<Fault>,
    pub(super) forge: Option<Forge>,
}

impl Host {
    pub(super) fn new() -> Self {
        crate::deadline::for_this_test();
        // In memory if there is such a place: what is synced to it does not matter here.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory");
        let record = dir.path().join("record");
        let files = Files {
            group: dir.path().join("group.json"),
            share: dir.path().join("share.age"),
            journal: Journal::path(&record),
            record: Some(record),
        };
        let age = x25519::Identity::generate();
        Self { dir, age, files, accept_floor: None, fault: None, forge: None }
    }

    fn own(&self) -> Own {
        at_once(Own::read(&StdDisk::default(), &self.files, self.age.clone())).expect("readable")
    }

    pub(super) fn key(&self) -> Key {
        self.own().identity.verifying_key().to_bytes()
    }

    pub(super) fn share(&self) -> Option<Share> {
        self.own().share
    }

    pub(super) async fn journal(&self) -> Journal {
        Journal::load(&StdDisk::default(), &self.files.journal).await.expect("a journal")
    }

    pub(super) async fn stage(&self) -> Option<Stage> {
        self.journal().await.ceremony.map(|taken| taken.stage)
    }

    /// The epoch of the share that would sign if the cosigner were started.
    pub(super) async fn usable_epoch(&self) -> Option<u32> {
        let share = self.share()?;
        let group = Group::parse(&std::fs::read(&self.files.group).ok()?).ok()?;
        share.key_package(&group).ok()?;
        let record = self.files.record.as_ref()?;
        Journal::admit(&StdDisk::default(), record, share.epoch()).await.ok()?;
        Some(share.epoch())
    }

    pub(super) async fn record(&self) -> (i64, i32, u8) {
        let path = self.files.record.as_ref().expect("a path");
        let place = Place::of(&Record::peek(&StdDisk::default(), path).await.expect("a record").1);
        (place.height, place.round, place.step)
    }

    /// A cosigner that runs holds this.
    pub(super) async fn start(&self) -> Record {
        let path = self.files.record.as_ref().expect("a path");
        let disk = StdDisk::default();
        let opener = Opener::new(&disk, path).of_cosigner(self.key());
        opener.open_of_chain(&chain()).await.expect("a record")
    }

    /// Its cosigner has heard the others.
    pub(super) async fn has_taken_part(&self) {
        let path = Lives::path(self.files.record.as_ref().expect("a path"));
        let lives = Lives { settled: true, ..Lives::default() };
        lives.store(&StdDisk::default(), &path).await.expect("stored");
    }

    /// Its disk is a new one, as far as its cosigner knows.
    pub(super) async fn has_new_disk(&self) {
        let path = self.files.record.as_ref().expect("a path");
        Lives::unsettle(&StdDisk::default(), path).await.expect("stored");
    }

    /// Whether its cosigner takes its disk for one that the others have told what it may have lost.
    pub(super) async fn is_settled(&self) -> bool {
        let path = Lives::path(self.files.record.as_ref().expect("a path"));
        Lives::load(&StdDisk::default(), &path).await.expect("readable").is_some_and(|lives| lives.settled)
    }

    pub(super) async fn raise(&self, place: Place) {
        self.start().await.raise(succession::watermark(place)).await.expect("raised");
    }

    async fn run(
        &self,
        plan: &Plan,
        own: &Own,
        meeting: &mut Wires,
        steps: Steps,
    ) -> Result<Ended, CeremonyError> {
        let disk = Faulty { disk: Rc::new(StdDisk::default()), steps };
        let shop = Workshop {
            files: &self.files,
            own,
            disk: &disk,
            entropy: &OsEntropy,
            jump_limit: JumpLimit::Heights(100_000),
            accept_floor: self.accept_floor,
            anew: false,
            tell: &|_| (),
        };
        match plan.act() {
            Act::Repair { .. } => repair::repair(&shop, plan, meeting).await,
            _ => succession::succeed(&shop, plan, meeting).await,
        }
    }
}

/// Those who take part.
pub(super) struct Cast {
    pub(super) hosts: Vec<Host>,
}

impl Cast {
    /// Hosts that have nothing.
    pub(super) fn empty(count: usize) -> Self {
        let mut hosts: Vec<Host> = (0..count).map(|_| Host::new()).collect();
        for host in &mut hosts {
            host.files.journal = host.dir.path().join("dkg.journal");
            host.files.record = None;
        }
        Self { hosts }
    }

    /// A group whose records stand at a height.
    pub(super) async fn dealt(t: u16, n: u16, height: i64) -> Self {
        let key = ConsensusKey::from_seed(&[7; 32]);
        let dealt = deal(&key, &chain(), shape(t, n), Height(0), &OsEntropy).expect("shares");
        let mut hosts = Vec::new();
        for share in &dealt.shares {
            let host = Host::new();
            let sealed = share.seal(&host.age.to_public()).expect("sealed");
            crate::ops::private_file::create_private(&host.files.share, sealed.as_bytes()).expect("written");
            std::fs::write(&host.files.group, dealt.group.to_json()).expect("written");
            let header = Header { chain_id: chain(), public_key: dealt.group.verifying_key().to_bytes() };
            let floor = succession::watermark(Place { height, ..Place::default() });
            let path = host.files.record.as_ref().expect("a path");
            let disk = StdDisk::default();
            let opener = Opener::new(&disk, path).of_cosigner(host.key());
            drop(opener.create(header, floor).await.expect("a record"));
            host.has_taken_part().await;
            hosts.push(host);
        }
        Self { hosts }
    }

    /// Hosts that have nothing but the group file.
    pub(super) fn add(&mut self, count: usize) {
        self.hosts.extend((0..count).map(|_| Host::new()));
    }

    pub(super) fn keys(&self) -> Vec<Key> {
        self.hosts.iter().map(Host::key).collect()
    }

    pub(super) fn group(&self, host: usize) -> Rc<Group> {
        let text = std::fs::read(&self.hosts[host].files.group).expect("a group file");
        Rc::new(Group::parse(&text).expect("a group"))
    }

    pub(super) fn share_bytes(&self, host: usize) -> Vec<u8> {
        std::fs::read(&self.hosts[host].files.share).expect("a share")
    }

    /// All of them, until all have ended or failed.
    pub(super) async fn hold(&mut self, plan: &Plan) -> Vec<Result<Ended, CeremonyError>> {
        let all: Vec<usize> = (0..self.hosts.len()).collect();
        self.hold_among(plan, &all).await
    }

    pub(super) async fn hold_well(&mut self, plan: &Plan) {
        for ended in self.hold(plan).await {
            ended.expect("an end");
        }
    }

    pub(super) async fn hold_among(
        &mut self,
        plan: &Plan,
        present: &[usize],
    ) -> Vec<Result<Ended, CeremonyError>> {
        let plans = vec![plan.clone(); self.hosts.len()];
        self.hold_with(&plans, present).await
    }

    pub(super) async fn hold_each(&mut self, plans: &[Plan]) -> Vec<Result<Ended, CeremonyError>> {
        let all: Vec<usize> = (0..self.hosts.len()).collect();
        self.hold_with(plans, &all).await
    }

    async fn hold_with(&mut self, plans: &[Plan], present: &[usize]) -> Vec<Result<Ended, CeremonyError>> {
        let keys = self.keys();
        let owns: Vec<Own> = self.hosts.iter().map(Host::own).collect();
        let faults: Vec<Option<Fault>> = self.hosts.iter_mut().map(|host| host.fault.take()).collect();
        let mut wires = wires(&present.iter().map(|host| keys[*host]).collect::<Vec<_>>());
        let mut runs = Vec::new();
        for host in present {
            let steps = Steps::until(faults[*host]);
            let mut wires = wires.remove(&keys[*host]).expect("its wires");
            wires.steps = steps.clone();
            wires.forge = self.hosts[*host].forge.clone();
            let (own, plan, host) = (&owns[*host], &plans[*host], &self.hosts[*host]);
            runs.push(async move {
                let ended = host.run(plan, own, &mut wires, steps).await;
                drop(wires);
                ended
            });
        }
        join_all(runs).await
    }

    /// Every set of so many of the shares in their places signs, by the group file beside each.
    pub(super) fn signs(&self, shape: Shape, epoch: u32) {
        let group = self.group(0);
        assert_eq!((group.shape(), group.epoch()), (shape, epoch));
        assert!((0..self.hosts.len()).all(|host| self.group(host).to_json() == group.to_json()));
        let shares: Vec<Share> = self.hosts.iter().map(|host| host.share().expect("a share")).collect();
        prove(&group, &shares, &OsEntropy).expect("all sets sign");
    }
}

/// What never waits.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => panic!("it waits"),
    }
}

/// Polls all of them in turn until each has ended.
async fn join_all<T>(runs: Vec<impl Future<Output = T>>) -> Vec<T> {
    let mut runs: Vec<_> = runs.into_iter().map(Box::pin).collect();
    let mut done: Vec<Option<T>> = runs.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (run, done) in runs.iter_mut().zip(&mut done).filter(|(_, done)| done.is_none()) {
            if let std::task::Poll::Ready(value) = run.as_mut().poll(context) {
                *done = Some(value);
            }
        }
        if done.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}

/// Counts a host's inputs and outputs, and cuts its power at one of them.
#[derive(Clone)]
pub(super) struct Steps {
    taken: Rc<Cell<u64>>,
    fault: Option<Fault>,
}

impl Steps {
    fn until(fault: Option<Fault>) -> Self {
        Self { taken: Rc::new(Cell::new(0)), fault }
    }

    /// Whether this step is done, and whether anything comes after it.
    fn next(&self) -> (bool, bool) {
        let step = self.taken.replace(self.taken.get() + 1);
        match self.fault {
            Some(fault) if step > fault.step => (false, false),
            Some(fault) if step == fault.step => (fault.is_done, false),
            _ => (true, true),
        }
    }

    async fn take<T>(&self, doing: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        let (is_done, goes_on) = self.next();
        let result = if is_done { doing.await } else { Err(power_cut()) };
        if goes_on { result } else { Err(power_cut()) }
    }
}

fn power_cut() -> io::Error {
    io::Error::other("power cut")
}

/// This host's ends of the connections with the others.
pub(super) struct Wires {
    me: Key,
    outgoing: BTreeMap<Key, mpsc::UnboundedSender<(Round, Vec<u8>)>>,
    incoming: BTreeMap<Key, mpsc::UnboundedReceiver<(Round, Vec<u8>)>>,
    steps: Steps,
    forge: Option<Forge>,
}

fn wires(keys: &[Key]) -> BTreeMap<Key, Wires> {
    let bare = |me: &Key| Wires {
        me: *me,
        outgoing: BTreeMap::new(),
        incoming: BTreeMap::new(),
        steps: Steps::until(None),
        forge: None,
    };
    let mut all: BTreeMap<Key, Wires> = keys.iter().map(|key| (*key, bare(key))).collect();
    for from in keys {
        for to in keys.iter().filter(|to| *to != from) {
            let (send, receive) = mpsc::unbounded_channel();
            all.get_mut(from).expect("there").outgoing.insert(*to, send);
            all.get_mut(to).expect("there").incoming.insert(*from, receive);
        }
    }
    all
}

impl Meeting for Wires {
    fn me(&self) -> Key {
        self.me
    }

    fn others(&self) -> Vec<Key> {
        self.incoming.keys().copied().collect()
    }

    fn exchange<'a>(
        &'a mut self,
        round: Round,
        said: BTreeMap<Key, Vec<u8>>,
    ) -> Local<'a, Result<BTreeMap<Key, Vec<u8>>, MeetingError>> {
        Box::pin(async move {
            let gone = |why: &str| MeetingError::Gone { who: "somebody".into(), why: why.into() };
            let (is_done, goes_on) = self.steps.next();
            if is_done {
                for (key, body) in said {
                    let body = self.forge.as_ref().map_or(body.clone(), |forge| forge(round, &key, body));
                    // Who is gone is noticed by listening.
                    let _ = self.outgoing[&key].send((round, body));
                }
            }
            if !goes_on {
                return Err(gone("power cut"));
            }
            let mut heard = BTreeMap::new();
            for (key, incoming) in &mut self.incoming {
                let (of, body) = incoming.recv().await.ok_or_else(|| gone("closed"))?;
                assert_eq!(of, round, "in step");
                heard.insert(*key, body);
            }
            Ok(heard)
        })
    }
}

/// A disk whose host loses power at some operation.
struct Faulty {
    disk: Rc<StdDisk>,
    steps: Steps,
}

struct FaultyFile {
    file: Box<dyn DiskFile>,
    steps: Steps,
}

impl Disk for Faulty {
    fn open<'a>(&'a self, path: &'a Path, how: Open) -> Local<'a, io::Result<Box<dyn DiskFile>>> {
        Box::pin(async move {
            let file = self.steps.take(self.disk.open(path, how)).await?;
            Ok(Box::new(FaultyFile { file, steps: self.steps.clone() }) as Box<dyn DiskFile>)
        })
    }

    fn rename_new<'a>(&'a self, from: &'a Path, to: &'a Path) -> Local<'a, io::Result<()>> {
        Box::pin(self.steps.take(self.disk.rename_new(from, to)))
    }

    fn remove<'a>(&'a self, path: &'a Path) -> Local<'a, io::Result<()>> {
        Box::pin(self.steps.take(self.disk.remove(path)))
    }

    fn rename<'a>(&'a self, from: &'a Path, to: &'a Path) -> Local<'a, io::Result<()>> {
        Box::pin(self.steps.take(self.disk.rename(from, to)))
    }

    fn sync_dir<'a>(&'a self, dir: &'a Path) -> Local<'a, io::Result<()>> {
        Box::pin(self.steps.take(self.disk.sync_dir(dir)))
    }

    fn claim<'a>(&'a self, name: &'a str) -> Local<'a, io::Result<Claim>> {
        self.disk.claim(name)
    }

    fn holder<'a>(&'a self, name: &'a str) -> Local<'a, io::Result<Option<Holder>>> {
        self.disk.holder(name)
    }

    fn read_small<'a>(&'a self, path: &'a Path) -> Local<'a, io::Result<Option<String>>> {
        self.disk.read_small(path)
    }
}

impl DiskFile for FaultyFile {
    fn try_lock(&self) -> Local<'_, io::Result<bool>> {
        self.file.try_lock()
    }

    fn is_at<'a>(&'a self, path: &'a Path) -> Local<'a, io::Result<bool>> {
        self.file.is_at(path)
    }

    fn read_all(&self, max_len: usize) -> Local<'_, io::Result<Vec<u8>>> {
        self.file.read_all(max_len)
    }

    fn write_at<'a>(&'a self, offset: u64, bytes: &'a [u8]) -> Local<'a, io::Result<()>> {
        Box::pin(self.steps.take(self.file.write_at(offset, bytes)))
    }

    fn sync_data(&self) -> Local<'_, io::Result<()>> {
        Box::pin(self.steps.take(self.file.sync_data()))
    }
}

/// Which members a group has whose share would sign, by epoch.
pub(super) async fn usable(hosts: &[Host], epoch: u32) -> Vec<MemberId> {
    let mut members = Vec::new();
    for host in hosts {
        if host.usable_epoch().await == Some(epoch) {
            members.extend(host.share().map(|share| share.id()));
        }
    }
    members
}
