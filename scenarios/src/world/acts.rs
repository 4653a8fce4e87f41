//! What befalls the hosts, and how it ends.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use monosign::threshold::rounds::MemberId;

use super::ceremony::{self, GROUP, Order, Work};
use super::device::Device;
use super::hosts::Power;
use super::signer_host::{Control, RECORD, SignerHost};
use super::timeline::Happening;
use super::validator_host::ValidatorHost;
use super::{Event, World};
use crate::disk::Loss;
use crate::oracle::moved_record;
use crate::run::Mode;
use crate::scenario::{Cheat, DeviceFault, Displacement, Do, PowerCut, SpanRange};

/// The end of something that lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ending {
    Start(String),
    Join { from: String, to: String },
    Release(String, String),
    Latency(String, String),
    Thaw(String),
    Connect(String),
    PeersBack(Vec<usize>),
    Gossip,
    Disk(String),
    Devices(Vec<String>),
    Record(String),
    Honest(String),
    Fair(String),
}

/// What is wrong now, and was a moment ago.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    wanted_down: BTreeSet<String>,
    crash: BTreeMap<String, Crash>,
    /// How many faults are there now that can delay an answer.
    faults: usize,
    /// Signers and nodes, by number, of which the signer alone holds a connection, and since when.
    half_open: BTreeMap<(usize, usize), Duration>,
    /// Signers whose disk has failed since they started: they may sign nothing until they are started anew.
    failed_disks: BTreeSet<String>,
    /// Signers whose device gave a wrong signature: they ask it nothing more until they are started anew.
    distrusted: BTreeSet<String>,
    /// Until when sessions on devices may be short.
    sessions_short_until: Duration,
    /// Whether a signer has cause to refuse for good.
    refuses: bool,
}

impl Trouble {
    pub(super) fn wanted_down(&mut self, host: &str, down: bool) {
        match down {
            true => self.wanted_down.insert(host.into()),
            false => self.wanted_down.remove(host),
        };
    }

    pub(super) fn is_wanted_down(&self, host: &str) -> bool {
        self.wanted_down.contains(host)
    }

    /// When sessions on devices are there again that were short; `None` if they never were.
    pub(super) fn sessions_are_back(&self) -> Option<Duration> {
        Some(self.sessions_short_until).filter(|at| !at.is_zero())
    }

    /// How a signer is to die at the crash point that it has come to.
    pub(super) fn take_crash(&mut self, host: &str) -> Crash {
        self.crash.remove(host).unwrap_or_default()
    }
}

/// A death at a crash point.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Crash {
    /// The process alone dies.
    pub(super) kill: bool,
    pub(super) down: Duration,
}

/// How long the world is disturbed after a fault has ended and everybody has noticed: a node's retries, and redials.
const AFTERMATH: Duration = Duration::from_secs(10);

/// Where sessions were given up, on a device that has few of them and frees them after 30 s.
const SESSIONS_FREE: Duration = Duration::from_secs(40);

/// How long a node waits for a signer to connect (`privval/signer_listener_endpoint.go`, `defaultTimeoutAcceptSeconds`).
const NODE_PATIENCE: Duration = Duration::from_secs(3);

impl World<'_> {
    /// Something happens.
    pub(super) fn act(&mut self, happening: Happening) {
        let Happening { act, mut stream } = happening;
        tracing::info!(target: "sim::act", at = self.sim.elapsed().as_millis() as u64, ?act, "happens");
        self.disturb();
        let mut draw = |range: SpanRange| range.draw(&mut stream);
        match act {
            Do::Kill { host, down } => {
                self.kill(&host);
                self.down_for(host, down.map(&mut draw));
            }
            Do::PowerCut { host, down } => {
                self.cut_power(&host);
                self.down_for(host, down.map(&mut draw));
            }
            Do::Start { host } => self.start(&host),
            Do::Stop { host, down } => {
                if let Some(signer) = self.signer(&host) {
                    signer.tell(Control::Stop);
                }
                // Not an exit that a supervisor answers.
                self.trouble.wanted_down(&host, true);
                self.down_for(host, down.map(&mut draw));
            }
            Do::CrashPoint { host, after, kill, down } => {
                if let Some(signer) = self.signer(&host) {
                    signer.disk.crash_at(after);
                    self.trouble.crash.insert(host, Crash { kill, down: draw(down) });
                }
            }
            Do::SecondProcess { host } => {
                if let Some(signer) = self.signer(&host) {
                    signer.tell(Control::Twin);
                }
            }
            Do::CrashAwaiting { host, down } => self.with_validator(&host, |v| v.crash_awaiting(draw(down))),
            Do::CrashAnswered { host, down } => self.with_validator(&host, |v| v.crash_answered(draw(down))),
            Do::Partition { between: [a, b], one_way, lasts } => {
                let lasts = draw(lasts);
                self.cut(&a, &b, lasts);
                if !one_way {
                    self.cut(&b, &a, lasts);
                }
            }
            Do::Hold { between: [a, b], lasts } => {
                self.sim.hold(a.as_str(), b.as_str());
                self.end_later(draw(lasts), Ending::Release(a, b));
            }
            Do::Latency { between: [a, b], latency, lasts } => {
                self.sim.set_link_latency(a.as_str(), b.as_str(), latency.0);
                self.end_later(draw(lasts), Ending::Latency(a, b));
            }
            Do::DropInRequest { between: [a, b] } => self.break_in_request(&a, &b),
            Do::DropInAnswer { between: [a, b] } => self.break_in_answer(&a, &b),
            Do::Freeze { host, lasts } => {
                self.freeze(&host, true);
                self.end_later(draw(lasts), Ending::Thaw(host));
            }
            Do::Isolate { host, lasts } => {
                self.with_validator(&host, |v| v.isolate(true));
                self.end_later(draw(lasts), Ending::Connect(host));
            }
            Do::PeersAway { peers, lasts } => {
                let away = self.chain.peers_away(peers);
                self.end_later(draw(lasts), Ending::PeersBack(away));
            }
            Do::RoughGossip { latency, loss_percent, lasts } => {
                self.chain.set_gossip(latency, loss_percent);
                self.end_later(draw(lasts), Ending::Gossip);
            }
            Do::Equivocate { host, lasts } => {
                self.with_validator(&host, |v| v.equivocate(true));
                // It delays nobody's answers but its own, so the world is not disturbed by it.
                self.timeline.enter(self.sim.elapsed() + draw(lasts), Event::End(Ending::Honest(host)));
            }
            Do::Cheat { host, how, lasts } => {
                self.cheat(&host, Some(how));
                self.end_later(draw(lasts), Ending::Fair(host));
            }
            Do::Ceremony { threshold, members, leaving } => self.order_ceremony(threshold, members, leaving),
            Do::Repair { host } => self.order_repair(&host),
            Do::Dkg { threshold, members } => self.order_dkg(threshold, members),
            Do::ClockJump { host, by_ms } => self.with_validator(&host, |v| v.jump(by_ms)),
            Do::DiskFault { host, fault, lasts } => {
                if let Some(signer) = self.signer(&host) {
                    signer.disk.set_fault(Some(fault));
                    self.trouble.failed_disks.insert(host.clone());
                    self.oracle.borrow_mut().saw_failure();
                }
                if let Some(lasts) = lasts {
                    self.end_later(draw(lasts), Ending::Disk(host));
                }
            }
            Do::DisplaceRecord { host, how, lasts } => {
                if let Some(signer) = self.signer(&host) {
                    match how {
                        Displacement::Moved => {
                            signer.disk.move_file(RECORD, moved_record(Path::new(RECORD)));
                        }
                        Displacement::ReplacedByCopy => {
                            let copy = signer.disk.cached_file(RECORD, <[u8]>::to_vec);
                            copy.inspect(|copy| signer.disk.write_file(RECORD, copy));
                        }
                        Displacement::ReplacedByPicture => {
                            let picture = signer.picture.borrow();
                            let old = picture.as_ref().and_then(|picture| picture.file(RECORD));
                            old.inspect(|old| signer.disk.write_file(RECORD, old));
                        }
                    }
                    self.trouble.failed_disks.insert(host.clone());
                    self.oracle.borrow_mut().saw_failure();
                }
                self.end_later(draw(lasts), Ending::Record(host));
            }
            Do::DeviceFault { host, device, fault, lasts } => {
                let names = self.devices_of(&host, device);
                for name in &names {
                    self.set_device_fault(name, Some(fault));
                }
                self.oracle.borrow_mut().saw_failure();
                match fault {
                    DeviceFault::WrongSignature if self.mode.is_hardware() => {
                        self.trouble.distrusted.insert(host);
                    }
                    DeviceFault::ForeignSignature
                    | DeviceFault::CopySigns
                    | DeviceFault::CopiedKeySigns
                    | DeviceFault::SignaturesNotLogged => self.witnesses_have_cause(),
                    _ => {}
                }
                self.end_later(draw(lasts), Ending::Devices(names));
            }
            Do::Snapshot { host } => {
                if let Some(signer) = self.signer(&host) {
                    *signer.picture.borrow_mut() = Some(signer.disk.snapshot());
                }
            }
            Do::RestoreDisk { host } => self.restore(&host),
            Do::LoseRecord { host } => {
                self.kill(&host);
                if let Some(signer) = self.signer(&host) {
                    signer.disk.remove_file(RECORD);
                }
                self.start(&host);
            }
            Do::Clone { from, to } => self.clone_signer(&from, &to),
            Do::Upgrade { host, to } => {
                if let Ok(dialect) = to.parse() {
                    self.kill(&host);
                    self.with_validator(&host, |v| v.upgrade(dialect));
                    self.start(&host);
                }
            }
            Do::Reload { host, chain, link, validators } => {
                if let Some(signer) = self.signer(&host) {
                    signer.change_settings(|settings| {
                        settings.chain.extend(chain);
                        settings.link.extend(link);
                        settings.validators = validators.unwrap_or_else(|| settings.validators.clone());
                    });
                    signer.tell(Control::Reload);
                }
            }
        }
    }

    /// Something that lasted ends.
    pub(super) fn end(&mut self, ending: Ending) {
        tracing::info!(target: "sim::act", at = self.sim.elapsed().as_millis() as u64, ?ending, "ends");
        if let Ending::Honest(host) = &ending {
            return self.with_validator(host, |v| v.equivocate(false));
        }
        self.trouble.faults = self.trouble.faults.saturating_sub(1);
        self.disturb();
        match ending {
            Ending::Start(host) => self.start(&host),
            Ending::Join { from, to } => {
                self.hosts.set_cut(&from, &to, false);
                self.sim.repair_oneway(from.as_str(), to.as_str());
            }
            Ending::Release(a, b) => self.sim.release(a.as_str(), b.as_str()),
            Ending::Latency(a, b) => {
                let usual = self.scenario.network.latency;
                self.sim.set_link_latency(a.as_str(), b.as_str(), usual.from);
                self.sim.set_link_max_message_latency(a.as_str(), b.as_str(), usual.to);
            }
            Ending::Thaw(host) => self.freeze(&host, false),
            Ending::Connect(host) => self.with_validator(&host, |v| v.isolate(false)),
            Ending::PeersBack(away) => self.chain.peers_back(&away),
            Ending::Gossip => {
                self.chain.set_gossip(self.scenario.chain.latency, self.scenario.chain.loss_percent)
            }
            Ending::Disk(host) => {
                if let Some(signer) = self.signer(&host) {
                    signer.disk.set_fault(None);
                }
            }
            Ending::Record(host) => {
                if let Some(signer) = self.signer(&host)
                    && signer.disk.cached_file(RECORD, |_| ()).is_none()
                {
                    signer.disk.move_file(moved_record(Path::new(RECORD)), RECORD);
                }
            }
            Ending::Devices(names) => {
                names.iter().for_each(|name| self.set_device_fault(name, None));
                self.sessions_run_out();
            }
            Ending::Fair(host) => self.cheat(&host, None),
            Ending::Honest(_) => {}
        }
    }

    /// Ends everything that lasts, and starts what is down and was not meant to stay so. An operator starts a signer anew whose
    /// disk has failed.
    pub(super) fn heal(&mut self) {
        let endings: Vec<_> = self.timeline.drain().collect();
        for event in endings {
            if let Event::End(ending) = event {
                self.end(ending);
            }
        }
        for validator in &self.validators {
            validator.tap.spare();
        }
        for signer in self.signers.clone() {
            signer.spare_connections();
            signer.disk.set_fault(None);
            signer.own_devices().for_each(|device| device.set_fault(None));
            let trouble = &self.trouble;
            let needs_start =
                trouble.failed_disks.contains(&*signer.name) || trouble.distrusted.contains(&*signer.name);
            if needs_start && self.hosts.power(&signer.name) == Power::On {
                self.kill(&signer.name);
            }
        }
        if self.oracle.borrow().has_failures() {
            return self.restart_nodes();
        }
        self.start_all();
    }

    /// A chain whose votes were refused can stand still for good: CometBFT has no timer below two thirds of the votes, and its operators
    /// start the node anew, which asks again.
    pub(super) fn restart_nodes(&mut self) {
        for validator in self.validators.clone() {
            self.kill(&validator.name);
        }
        self.start_all();
    }

    fn start_all(&mut self) {
        for host in self.host_names() {
            if !self.trouble.is_wanted_down(&host) {
                self.start(&host);
            }
        }
        self.disturb();
    }

    pub(super) fn end_later(&mut self, after: Duration, ending: Ending) {
        self.trouble.faults += 1;
        self.disturb();
        self.timeline.enter(self.sim.elapsed() + after, Event::End(ending));
    }

    /// From now on, and for a while after the last fault, nothing is said about how fast answers are.
    pub(super) fn disturb(&mut self) {
        let trouble = &self.trouble;
        let calm = trouble.faults == 0
            && trouble.wanted_down.is_empty()
            && trouble.failed_disks.is_empty()
            && trouble.distrusted.is_empty()
            && !trouble.refuses;
        // A connection that died without a word is held for as long as the settings say, which may be longer.
        let noticed = self.signers.iter().map(|signer| signer.link_timeout()).max().unwrap_or_default();
        let aftermath = self.sim.elapsed() + AFTERMATH.max(noticed + NODE_PATIENCE);
        let until = calm.then(|| aftermath.max(trouble.sessions_short_until));
        self.chain.disturbed_until(until);
    }

    /// A signer finds no session on its device, or has given some up: it waits until the device frees them.
    pub(super) fn sessions_run_out(&mut self) {
        if self.mode == Mode::Yubihsm {
            self.oracle.borrow_mut().saw_failure();
            self.trouble.sessions_short_until = self.sim.elapsed() + SESSIONS_FREE;
            self.disturb();
        }
    }

    /// A device has signed what a signer does not know of: its witness must find it, and it must stop.
    pub(super) fn witnesses_have_cause(&mut self) {
        if self.mode == Mode::Yubihsm {
            self.signers_may_refuse();
        }
    }

    /// From now on signers have cause to refuse.
    pub(super) fn signers_may_refuse(&mut self) {
        self.oracle.borrow_mut().saw_failure();
        self.trouble.refuses = true;
        self.disturb();
    }

    fn freeze(&self, host: &str, frozen: bool) {
        self.with_validator(host, |v| v.tap.freeze(frozen));
        if let Some(signer) = self.signer(host) {
            signer.freeze(frozen);
        }
    }

    /// A cosigner cheats from now on, or no more.
    fn cheat(&mut self, host: &str, how: Option<Cheat>) {
        let Some(signer) = self.signer(host) else { return };
        let is_other_program = how.into_iter().chain(signer.cheat()).any(Cheat::is_another_program);
        if is_other_program {
            self.kill(host);
            self.oracle.borrow_mut().is_compromised(host);
        }
        signer.set_cheat(how);
        if is_other_program {
            self.start(host);
        }
    }

    /// A signer that stands by holds on to a connection whose end was lost until keepalive tells it.
    pub(super) fn look_for_half_open(&mut self) {
        let now = self.sim.elapsed();
        let mut lasts = false;
        for (n, signer) in self.signers.iter().enumerate() {
            for (m, validator) in self.validators.iter().enumerate() {
                if signer.is_connected_to(&validator.name) && validator.tap.open() == 0 {
                    let since = *self.trouble.half_open.entry((n, m)).or_insert(now);
                    lasts |= now - since >= signer.link_timeout();
                } else {
                    self.trouble.half_open.remove(&(n, m));
                }
            }
        }
        if lasts {
            self.disturb();
        }
    }

    fn down_for(&mut self, host: String, down: Option<Duration>) {
        match down {
            Some(down) => self.end_later(down, Ending::Start(host)),
            None => self.trouble.wanted_down(&host, true),
        }
    }

    /// A process is gone; its kernel closes its sockets.
    pub(super) fn kill(&mut self, host: &str) {
        if self.hosts.power(host) != Power::On {
            return;
        }
        self.hosts.set_power(host, Power::ProcessDown);
        if let Some(signer) = self.signer(host) {
            signer.disk.kill();
        }
        self.with_validator(host, |validator| validator.died());
        self.sim.crash(host);
    }

    /// A host loses power: what its sockets would have said on their way down is never heard.
    pub(super) fn cut_power(&mut self, host: &str) {
        if self.hosts.power(host) != Power::On {
            return;
        }
        self.hosts.set_power(host, Power::Off);
        let others: Vec<_> = self.host_names().into_iter().filter(|other| other != host).collect();
        for other in &others {
            self.sim.partition(host, other.as_str());
        }
        if let Some(signer) = self.signer(host) {
            signer.disk.power_cut(match self.scenario.disk.power_cut {
                PowerCut::Random => Loss::Random,
                PowerCut::Loses => Loss::All,
                PowerCut::Keeps => Loss::None,
            });
        }
        self.with_validator(host, |validator| validator.died());
        self.sim.crash(host);
        for other in &others {
            self.sim.repair(host, other.as_str());
            for (from, to) in [(host, other.as_str()), (other.as_str(), host)] {
                if self.hosts.is_cut(from, to) {
                    self.sim.partition_oneway(from, to);
                }
            }
        }
    }

    fn start(&mut self, host: &str) {
        self.trouble.wanted_down(host, false);
        if self.hosts.power(host) == Power::On {
            if self.sim.is_host_running(host) {
                return;
            }
            self.kill(host);
        }
        self.trouble.failed_disks.remove(host);
        if !self.gives_wrong_signatures(host) {
            self.trouble.distrusted.remove(host);
        }
        self.hosts.set_power(host, Power::On);
        self.sim.bounce(host);
    }

    fn cut(&mut self, from: &str, to: &str, lasts: Duration) {
        self.hosts.set_cut(from, to, true);
        self.sim.partition_oneway(from, to);
        self.end_later(lasts, Ending::Join { from: from.into(), to: to.into() });
    }

    fn restore(&mut self, host: &str) {
        let Some(signer) = self.signer(host) else { return };
        self.kill(host);
        if let Some(picture) = &*signer.picture.borrow() {
            signer.disk.restore(picture);
            self.oracle.borrow_mut().forget(host);
            self.reach.hit("old disk restored");
            self.witnesses_have_cause();
        }
        self.start(host);
    }

    fn clone_signer(&mut self, from: &str, to: &str) {
        let (Some(source), Some(target)) = (self.signer(from), self.signer(to)) else { return };
        self.kill(to);
        target.disk.restore(&source.disk.snapshot());
        target.seat.set(source.seat.get());
        target.newcomer.set(source.newcomer.get());
        self.hosts.copied(from, to);
        self.oracle.borrow_mut().cloned(from, to);
        self.reach.hit("key and state cloned");
        self.witnesses_have_cause();
        self.start(to);
    }

    /// The operators of the hosts begin a ceremony.
    fn order_ceremony(&mut self, threshold: Option<u16>, members: Vec<String>, leaving: Vec<String>) {
        let before = self.cosigners();
        let shape = threshold.and_then(|threshold| ceremony::shape(threshold, members.len()));
        let work = shape.map_or(Work::Refresh, Work::Reshare);
        let members = if members.is_empty() { before.keys().cloned().collect() } else { members };
        let Some((last, needed)) = self.quorums.thresholds.last_key_value().map(|(e, t)| (*e, *t)) else {
            return;
        };
        let epoch = last + 1;
        let needed = threshold.map_or(needed, usize::from);
        self.quorums.thresholds.insert(epoch, needed);
        self.order(Order { leaving, ..Order::new(work, (epoch, needed), members, before) });
    }

    fn cosigners(&self) -> BTreeMap<String, MemberId> {
        let member =
            |signer: &Rc<SignerHost>| Some((signer.name.to_string(), MemberId(signer.seat.get()?.member)));
        self.signers.iter().filter_map(member).collect()
    }

    /// A host is lost, and the operators of the others make its share again for a new one.
    fn order_repair(&mut self, host: &str) {
        let before = self.cosigners();
        let (Some(lost), Some(signer)) = (before.get(host).copied(), self.signer(host)) else { return };
        let Some((epoch, needed)) = self.quorums.thresholds.last_key_value().map(|(e, t)| (*e, *t)) else {
            return;
        };
        let group = signer.disk.cached_file(GROUP, <[u8]>::to_vec).unwrap_or_default();
        self.cut_power(host);
        signer.is_replaced(&group);
        self.oracle.borrow_mut().forget(host);
        let members = before.keys().cloned().collect();
        self.order(Order::new(Work::Repair(lost), (epoch, needed), members, before));
    }

    /// The operators of some hosts make a new key.
    fn order_dkg(&mut self, threshold: u16, members: Vec<String>) {
        let Some(shape) = ceremony::shape(threshold, members.len()) else { return };
        let order = Order::new(Work::Generate(shape), (1, threshold.into()), members, BTreeMap::new());
        self.generated = Some(self.order(order));
    }

    fn order(&mut self, order: Order) -> Rc<Order> {
        let order = Rc::new(order);
        for host in order.hosts() {
            let Some(signer) = self.signer(host) else { continue };
            signer.order(Rc::clone(&order));
            match self.hosts.power(host) {
                Power::On => signer.tell(Control::Ceremony),
                _ => self.start(host),
            }
        }
        order
    }

    fn break_in_request(&mut self, a: &str, b: &str) {
        if let (Some(coordinator), Some(_)) = (self.signer(a), self.signer(b)) {
            return coordinator.mesh_tap().cut_next_write();
        }
        for host in [a, b] {
            self.with_validator(host, |validator| validator.tap.cut_next_write());
        }
    }

    fn break_in_answer(&mut self, a: &str, b: &str) {
        if let (Some(_), Some(cosigner)) = (self.signer(a), self.signer(b)) {
            return cosigner.mesh_tap().cut_next_write();
        }
        for (signer, node) in [(a, b), (b, a)] {
            if let Some(signer) = self.signer(signer) {
                signer.tap(node).cut_next_write();
            }
        }
    }

    /// The device of a signer that is named, or all that it has.
    fn devices_of(&self, host: &str, named: Option<String>) -> Vec<String> {
        let all = || self.signer(host).map(|signer| signer.devices.clone()).unwrap_or_default();
        named.filter(|_| self.mode.is_hardware()).map_or_else(all, |name| vec![name])
    }

    fn set_device_fault(&self, name: &str, fault: Option<DeviceFault>) {
        if let Some(device) = self.devices.get(name) {
            device.set_fault(fault);
        }
    }

    /// Whether a device of this signer does, and it will trust it no more, again.
    fn gives_wrong_signatures(&self, host: &str) -> bool {
        self.signer(host).is_some_and(|signer| signer.own_devices().any(Device::gives_wrong_signatures))
    }

    fn signer(&self, name: &str) -> Option<Rc<SignerHost>> {
        self.signers.iter().find(|signer| &*signer.name == name).cloned()
    }

    fn with_validator(&self, name: &str, act: impl FnOnce(&ValidatorHost)) {
        if let Some(validator) = self.validators.iter().find(|validator| &*validator.name == name) {
            act(validator);
        }
    }
}
