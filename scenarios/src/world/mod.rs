//! The world of a run: hosts, network, disks, clocks and devices, and the acts that befall them.
//!
//! turmoil gives hosts, time and network. What it cannot do is done here: connections in pieces, dials that hang, power cuts that
//! say no goodbye, clocks of their own for each host, and disks (see [`crate::disk`]). Peers of our validators live outside of it, in the
//! event loop of [`mock_validator::network`], and gossip with ours through seats.

mod acts;
mod ceremony;
mod device;
mod hosts;
mod keepalive;
mod keys;
mod mesh;
mod net;
mod overhear;
mod rogue;
mod shares;
mod signer_host;
mod timeline;
mod validator_host;
mod wire;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use monosign_protocol::ChainId;

use crate::disk::{HostDisk, Image};
use crate::oracle::{Clones, Group, Oracle};
use crate::outcome::{Invariant, Latencies, Outcome};
use crate::quorum::Quorum;
use crate::reach::Reach;
use crate::run::{Mode, Run};
use crate::scenario::{self, Cosigner, Do, Scenario};
use crate::streams::Streams;
use crate::trace::{self, Detail, Trace, panics};
use acts::{Ending, Trouble};
use ceremony::{Generated, Order, Quorums};
use hosts::{Hosts, Power};
use keys::Keys;
use shares::Shares;
use signer_host::{Mesh, RECORD, SignerHost, SignerShared};
use timeline::{Happening, Timeline};
use validator_host::{ValidatorHost, ValidatorShared};

/// Runs a scenario once.
pub fn run(run: &Run) -> Outcome {
    run_traced(run, Detail::Hash).0
}

/// Runs a scenario once and traces it as closely as asked.
pub fn run_traced(run: &Run, detail: Detail) -> (Outcome, Trace) {
    let ((outcome, panics), trace) =
        trace::traced(detail, || panics::watched(|| World::new(run).and_then(World::run)));
    let mut outcome = outcome.unwrap_or_else(|error| {
        let mut outcome = Outcome::default();
        outcome.violated(Invariant::Expected, 0, format!("the world could not be made: {error:#}"));
        outcome
    });
    // What is not traced is not heard.
    let untold =
        run.scenario.expect.told.iter().filter(|told| !trace.told.iter().any(|line| line.contains(*told)));
    for told in untold.filter(|_| detail != Detail::Off && says_what_is_reached(&run.scenario, run.mode)) {
        let seen = format!("\"{told}\" was to be told, and was not");
        outcome.violated(Invariant::Expected, outcome.simulated_ms, seen);
    }
    for panic in panics {
        outcome.violated(Invariant::NoPanic, outcome.simulated_ms, panic);
    }
    outcome.trace = trace.hash.clone();
    outcome.events = trace.events;
    (outcome, trace)
}

/// The world's clocks start here: 14 November 2023.
const EPOCH: Duration = Duration::from_secs(1_700_000_000);

/// A process that ended by itself is started again after this, as systemd does with `Restart=always`.
const SUPERVISOR: Duration = Duration::from_secs(1);

/// The epoch of the shares that a world begins with.
const FIRST_EPOCH: u32 = 1;

/// How many ticks lie between two looks at what has ended by itself.
const LOOK_EVERY: u64 = 10;

/// How many more heights have to be signed for after the faults, for signing to have resumed.
const HEIGHTS_TO_RESUME: u64 = 2;

/// What happens at a time.
enum Event {
    Act(Box<Happening>),
    End(Ending),
}

struct World<'a> {
    scenario: &'a Scenario,
    sim: turmoil::Sim<'static>,
    hosts: Rc<Hosts>,
    oracle: Rc<RefCell<Oracle>>,
    reach: Reach,
    signers: Vec<Rc<SignerHost>>,
    validators: Vec<Rc<ValidatorHost>>,
    chain: Rc<ValidatorShared>,
    timeline: Timeline<Event>,
    trouble: Trouble,
    ticks: u64,
    mode: Mode,
    devices: Rc<BTreeMap<String, device::Device>>,
    quorums: Quorums,
    /// The making of a new key, if there is one.
    generated: Option<Rc<Order>>,
}

impl<'a> World<'a> {
    fn new(run: &'a Run) -> anyhow::Result<Self> {
        let scenario = &run.scenario;
        let streams = Streams::new(run.seed);
        let reach = Reach::default();
        let chain_id: ChainId = CHAIN_ID.parse()?;
        let expect = &scenario.expect;
        let clones = match expect.double_sign_by_clone || expect.double_sign_by_group {
            true => Clones::Expected,
            false if expect.second_signature_withheld => Clones::Withheld,
            false => Clones::Never,
        };
        let cast = cast(scenario, run.mode, &streams);
        let oracle = Rc::new(RefCell::new(Oracle::new(chain_id.clone(), clones, reach.clone())));
        let hosts = Rc::new(Hosts::new(scenario.network.chops));
        let keys = Keys::provide()?;
        let mut sim = builder(scenario, run.seed);

        let validator_settings = scenario.node_hosts();
        let chain =
            ValidatorShared::new(run, &validator_settings, &keys, &hosts, &oracle, &reach, &chain_id)?;
        let devices = Rc::new(devices(run, &cast, &keys, streams, &reach)?);
        let shared = Rc::new(SignerShared {
            mode: run.mode,
            devices: Rc::clone(&devices),
            chain_id: chain_id.clone(),
            keys: keys.clone(),
            hosts: Rc::clone(&hosts),
            oracle: Rc::clone(&oracle),
            reach: reach.clone(),
            streams,
            mesh: run
                .mode
                .quorum()
                .map(|quorum| mesh(scenario, quorum, &cast, &keys, &chain_id))
                .transpose()?,
        });
        let public_key = keys.key.verifying_key().to_bytes();
        let newcomer = |cosigner: &Cosigner| {
            let newcomers = shared.mesh.as_ref().map(|mesh| mesh.newcomers.as_slice()).unwrap_or_default();
            newcomers.iter().position(|name| *name == cosigner.host.name)
        };
        let signers: Vec<_> = cast
            .iter()
            .map(|cosigner| {
                let signer = &cosigner.host;
                let names = signer.device_names();
                let logs: Vec<_> = names.iter().filter_map(|name| devices.get(name)?.log()).collect();
                let record = signer_host::fresh_disk(&chain_id, public_key, &logs, streams)?;
                let disk = HostDisk::new(
                    &signer.name,
                    scenario.disk.latency,
                    streams.of(&format!("disk/{}", signer.name)),
                    reach.clone(),
                );
                let mesh = shared.mesh.as_ref().filter(|mesh| mesh.has_ceremonies);
                let comes_later = mesh.is_some() && cosigner.seat.is_none();
                let mut image = if signer.fresh || comes_later { Image::default() } else { record.clone() };
                if let Some(mesh) = mesh {
                    for (path, content) in ceremony::files_of(&mesh.shares, cosigner.seat)? {
                        image.insert(path, content);
                    }
                }
                if image != Image::default() {
                    disk.restore(&image);
                }
                let served = validator_settings
                    .iter()
                    .filter(|validator| {
                        let all = validator.signers.is_empty() && cosigner.serves;
                        all || validator.signers.contains(&signer.name)
                    })
                    .map(|validator| validator.name.clone());
                let (served, newcomer) = (served.collect(), newcomer(cosigner));
                Ok(SignerHost::new(cosigner, newcomer, served, disk, Rc::clone(&shared)))
            })
            .collect::<anyhow::Result<_>>()?;
        let quorums = Quorums::default();
        if let Some(quorum) = run.mode.quorum() {
            let disks = signers.iter().map(|signer| (signer.name.to_string(), Rc::clone(&signer.disk)));
            let (threshold, key) = (usize::from(quorum.threshold), keys.key.verifying_key());
            oracle.borrow_mut().set_group(Group::new(threshold, key, PathBuf::from(RECORD), disks.collect()));
        }
        let validators: Vec<_> = validator_settings
            .iter()
            .enumerate()
            .map(|(n, validator)| ValidatorHost::new(n, validator, run.dialect, Rc::clone(&chain)))
            .collect::<anyhow::Result<_>>()?;

        for validator in &validators {
            let host = Rc::clone(validator);
            sim.host(&*validator.name, move || Rc::clone(&host).process());
        }
        for signer in &signers {
            let host = Rc::clone(signer);
            sim.host(&*signer.name, move || Rc::clone(&host).process());
        }
        let mut world = Self {
            scenario,
            sim,
            hosts,
            oracle,
            reach,
            signers,
            validators,
            chain,
            timeline: Timeline::new(),
            trouble: Trouble::default(),
            ticks: 0,
            mode: run.mode,
            devices,
            quorums,
            generated: None,
        };
        if let Some(quorum) = run.mode.quorum() {
            world.quorums.thresholds.insert(FIRST_EPOCH, quorum.threshold.into());
        }
        world.power_up(&validator_settings);
        world.look_at_devices();
        for (at, happening) in timeline::happenings(scenario, &streams) {
            world.timeline.enter(at, Event::Act(Box::new(happening)));
        }
        Ok(world)
    }

    /// Two signers at one device: each is a stranger to the other's witness. And without its key a device is of no use.
    fn look_at_devices(&mut self) {
        if !self.mode.is_hardware() {
            return;
        }
        let mut seen = BTreeSet::new();
        if self.signers.iter().flat_map(|signer| &signer.devices).any(|name| !seen.insert(name.clone())) {
            self.witnesses_have_cause();
        }
        if self.scenario.devices.iter().any(|device| device.without_key) {
            self.signers_may_refuse();
        }
    }

    fn power_up(&mut self, settings: &[scenario::Validator]) {
        let off: Vec<String> = self
            .scenario
            .signer_hosts()
            .into_iter()
            .filter(|signer| signer.off)
            .map(|signer| signer.name)
            .chain(settings.iter().filter(|validator| validator.off).map(|validator| validator.name.clone()))
            .collect();
        for name in self.host_names() {
            if off.contains(&name) {
                self.trouble.wanted_down(&name, true);
            }
            let power = if off.contains(&name) { Power::ProcessDown } else { Power::On };
            self.hosts.set_power(&name, power);
        }
    }

    fn host_names(&self) -> Vec<String> {
        let signers = self.signers.iter().map(|signer| signer.name.to_string());
        signers.chain(self.validators.iter().map(|validator| validator.name.to_string())).collect()
    }

    fn run(mut self) -> anyhow::Result<Outcome> {
        let duration = self.scenario.duration.0;
        while self.sim.elapsed() < duration && self.step()? {}
        let resumed = self.recover()?;
        Ok(self.judge(resumed))
    }

    /// One tick; false if the run is over, because what happened cannot go on.
    fn step(&mut self) -> anyhow::Result<bool> {
        let now = self.sim.elapsed();
        self.oracle.borrow_mut().set_now(now);
        while let Some(event) = self.timeline.next_due(now) {
            match event {
                Event::Act(happening) => self.act(*happening),
                Event::End(ending) => self.end(ending),
            }
        }
        self.advance_devices(now);
        self.chain.advance_to(now);
        if let Err(error) = self.sim.step() {
            self.oracle.borrow_mut().violated(Invariant::NoPanic, format!("a host failed: {error}"));
            return Ok(false);
        }
        self.look_after_hosts();
        Ok(true)
    }

    fn advance_devices(&mut self, now: Duration) {
        let mut lacks_sessions = false;
        for device in self.devices.values() {
            device.advance(now);
            lacks_sessions |= device.take_lack_of_sessions();
        }
        if lacks_sessions {
            self.sessions_run_out();
        }
    }

    /// Does between two ticks what processes cannot do to themselves: die at the point where they were told to, and be started
    /// again when they ended.
    fn look_after_hosts(&mut self) {
        self.ticks += 1;
        if self.ticks.is_multiple_of(LOOK_EVERY) {
            self.restart_what_ended();
        }
        for n in 0..self.signers.len() {
            let signer = Rc::clone(&self.signers[n]);
            if signer.disk.crash_hit().is_some() {
                let crash = self.trouble.take_crash(&signer.name);
                match crash.kill {
                    true => self.kill(&signer.name),
                    false => self.cut_power(&signer.name),
                }
                self.end_later(crash.down, Ending::Start(signer.name.to_string()));
            }
        }
        for n in 0..self.validators.len() {
            let validator = Rc::clone(&self.validators[n]);
            if let Some(down) = validator.take_crash() {
                self.kill(&validator.name);
                self.end_later(down, Ending::Start(validator.name.to_string()));
            }
        }
    }

    /// What systemd does, and a look at what should not pile up, and at connections that broke.
    fn restart_what_ended(&mut self) {
        let signers = self.signers.iter().fold(false, |broken, signer| signer.take_broken() | broken);
        if self.validators.iter().fold(signers, |broken, validator| validator.tap.take_broken() | broken) {
            self.disturb();
        }
        self.look_for_half_open();
        self.look_at_quorums();
        for signer in self.signers.clone() {
            if signer.leaks_connections() {
                let seen = format!("{} holds two connections to one node", signer.name);
                self.oracle.borrow_mut().violated(Invariant::Bounded, seen);
            }
            if self.hosts.power(&signer.name) == Power::On && !self.sim.is_host_running(&*signer.name) {
                self.hosts.set_power(&signer.name, Power::ProcessDown);
                signer.disk.kill();
                if !self.trouble.is_wanted_down(&signer.name) {
                    self.end_later(SUPERVISOR, Ending::Start(signer.name.to_string()));
                }
            }
        }
        for validator in self.validators.clone() {
            if self.hosts.power(&validator.name) == Power::On && !self.sim.is_host_running(&*validator.name) {
                self.hosts.set_power(&validator.name, Power::ProcessDown);
                validator.died();
                if !self.trouble.is_wanted_down(&validator.name) {
                    self.end_later(SUPERVISOR, Ending::Start(validator.name.to_string()));
                }
            }
        }
    }

    /// In a world with ceremonies, shares of two epochs are never both enough to sign, and all have a new key or nobody has.
    fn look_at_quorums(&mut self) {
        let generated = self.generated.as_ref().map(|order| Generated::look(&self.signers, order));
        if let Some(Generated::Torn(seen)) = &generated {
            self.oracle.borrow_mut().violated(Invariant::OneQuorum, seen.clone());
        }
        if generated == Some(Generated::All) {
            self.generated = None;
        }
        if self.quorums.thresholds.len() < 2 {
            return;
        }
        for epochs in self.quorums.who_could_sign(&self.signers) {
            if epochs.len() > 1 {
                let seen = format!("shares of epochs {epochs:?} are enough to sign");
                self.oracle.borrow_mut().violated(Invariant::OneQuorum, seen);
            }
        }
    }

    /// Ends all faults, and waits until signing goes on.
    fn recover(&mut self) -> anyhow::Result<bool> {
        self.heal();
        let recovery = self.scenario.recovery.0;
        let deadline = self.sim.elapsed() + recovery;
        // Cosigners that are kept apart refuse, and devices without a free session: their nodes may need help, but not at once.
        let kept_apart = self.mode.quorum().map(|_| deadline - recovery / 2);
        let mut help_at = kept_apart.or(self.trouble.sessions_are_back());
        let counts =
            [ValidatorHost::heights_signed, ValidatorHost::heights_passed, ValidatorHost::heights_behind];
        let [signed, passed, behind] = counts.map(|count| self.counts(count));
        let released = self.oracle.borrow().releases();
        let mut signs_by = self.scenario.expect.signs_within.map(|within| self.sim.elapsed() + within.0);
        while self.sim.elapsed() < deadline {
            signs_by = signs_by.filter(|_| self.oracle.borrow().releases() == released);
            if let Some(by) = signs_by.take_if(|by| *by <= self.sim.elapsed()) {
                let seen = format!("no signature after the faults until {} ms", by.as_millis());
                self.oracle.borrow_mut().violated(Invariant::Resumes, seen);
            }
            if self.risen(&signed, ValidatorHost::heights_signed).all(|risen| risen)
                && self.ceremonies_have_ended()
            {
                return Ok(true);
            }
            if help_at.take_if(|at| *at <= self.sim.elapsed()).is_some() {
                self.restart_nodes();
            }
            if !self.step()? {
                return Ok(false);
            }
        }
        if !self.ceremonies_have_ended() {
            self.oracle.borrow_mut().violated(Invariant::Resumes, "a ceremony has not ended on every host");
        }
        let passed: Vec<_> = self.risen(&passed, ValidatorHost::heights_passed).collect();
        let behind = self.risen(&behind, ValidatorHost::heights_behind);
        let is_any_served = passed.is_empty() || passed.contains(&true);
        Ok(is_any_served && passed.iter().zip(behind).all(|(has_passed, is_behind)| *has_passed || is_behind))
    }

    fn ceremonies_have_ended(&self) -> bool {
        !self.signers.iter().any(|signer| signer.holds_ceremony())
    }

    fn counts(&self, count: fn(&ValidatorHost) -> u64) -> Vec<u64> {
        self.validators.iter().map(|validator| count(validator)).collect()
    }

    /// For each node that is to be up, whether it has got enough since.
    fn risen(&self, before: &[u64], count: fn(&ValidatorHost) -> u64) -> impl Iterator<Item = bool> {
        let wanted = self.validators.iter().zip(before);
        let wanted = wanted.filter(|(validator, _)| !self.trouble.is_wanted_down(&validator.name));
        wanted.map(move |(validator, before)| count(validator) >= before + HEIGHTS_TO_RESUME)
    }

    /// How many crash points the disk of the first signer has passed.
    fn disk_points(&self) -> u64 {
        let first = self.scenario.signer_hosts().into_iter().next();
        let is_first =
            |signer: &&Rc<SignerHost>| first.as_ref().is_some_and(|first| *first.name == *signer.name);
        self.signers.iter().find(is_first).map_or(0, |signer| signer.disk.points_passed())
    }

    fn judge(self, resumed: bool) -> Outcome {
        let expect = &self.scenario.expect;
        let mut oracle = self.oracle.borrow_mut();
        // Copies and originals turn each other away, or not, in whatever order they meet.
        let is_open = expect.double_sign_by_group && expect.signer_stays_down;
        if resumed == expect.signer_stays_down && !is_open {
            let seen = match resumed {
                false => format!(
                    "no signature for {HEIGHTS_TO_RESUME} heights within {} after the faults",
                    self.scenario.recovery
                ),
                true => "signing goes on, and the signer was to stay down".into(),
            };
            oracle.violated(Invariant::Resumes, seen);
        }
        let is_said = says_what_is_reached(self.scenario, self.mode);
        // A device takes longer than it was written for.
        let is_slower = !is_said && self.mode.is_hardware();
        let blocks = if is_slower { expect.blocks / 2 } else { expect.blocks };
        if oracle.blocks() < blocks {
            let seen = format!("{} precommits were released, and {blocks} are expected", oracle.blocks());
            oracle.violated(Invariant::Expected, seen);
        }
        let expects_double_sign = expect.double_sign_by_clone || expect.double_sign_by_group;
        if (expects_double_sign || expect.second_signature_withheld) && oracle.double_signs() == 0 {
            oracle.violated(
                Invariant::Expected,
                "the key was to sign twice, and did not: say what keeps it from it",
            );
        }
        let reached = self.reach.counts();
        for name in expect.reached.iter().filter(|name| is_said && !reached.contains_key(name.as_str())) {
            oracle.violated(Invariant::Expected, format!("\"{name}\" was to be reached, and was not"));
        }
        for name in expect.never.iter().filter(|name| reached.contains_key(name.as_str())) {
            oracle.violated(Invariant::Expected, format!("\"{name}\" was never to be reached, and was"));
        }
        let latencies = oracle.latencies();
        let always = oracle.latencies_always();
        for seen in budget_overruns(self.scenario, self.mode, &latencies, &always) {
            oracle.violated(Invariant::InTime, seen);
        }
        // With a clone there are two validators of one key: what the chain sees of that is what the scenario shows.
        let seen_by_chain = if expects_double_sign { Vec::new() } else { self.chain.violations() };
        // A group may sign one message with two timestamps, which is no evidence on any chain.
        let is_held_against = |seen: &String| self.mode.quorum().is_none() || !seen.starts_with("TwoTimes");
        for seen in seen_by_chain.into_iter().filter(is_held_against) {
            oracle.violated(Invariant::OneSignature, format!("the chain saw {seen}"));
        }
        drop(oracle);
        let mut outcome = Outcome {
            reached,
            latencies,
            disk_points: self.disk_points(),
            ceremony_points: self
                .signers
                .iter()
                .filter_map(|signer| Some((signer.name.to_string(), signer.ceremony_points()?)))
                .collect(),
            simulated_ms: self.sim.elapsed().as_millis() as u64,
            ..Outcome::default()
        };
        let oracle = Rc::clone(&self.oracle);
        drop(self);
        outcome.blocks = oracle.borrow().blocks();
        outcome.violations = oracle.borrow_mut().take_violations();
        outcome
    }
}

/// What a scenario reaches is said of the modes that it was written for.
fn says_what_is_reached(scenario: &Scenario, mode: Mode) -> bool {
    Mode::SOLE.contains(&mode) || !scenario.modes.is_empty()
}

/// The devices of a world: those that signers name, and one for each that names none.
fn devices(
    run: &Run,
    cast: &[Cosigner],
    keys: &Keys,
    streams: Streams,
    reach: &Reach,
) -> anyhow::Result<BTreeMap<String, device::Device>> {
    let mut devices = BTreeMap::new();
    for Cosigner { host: signer, .. } in cast {
        // In the modes without hardware, a device is its host's.
        let names = if run.mode.is_hardware() { signer.device_names() } else { vec![signer.name.clone()] };
        for name in names {
            let named = run.scenario.devices.iter().find(|device| device.name == name).cloned();
            let settings = named.unwrap_or_else(|| scenario::Hsm::named(&name));
            let watches = signer.watches_devices();
            let device = device::Device::new(run.mode, &settings, watches, &keys.key, streams, reach)?;
            devices.entry(name).or_insert(device);
        }
    }
    Ok(devices)
}

/// The hosts of signers.
fn cast(scenario: &Scenario, mode: Mode, streams: &Streams) -> Vec<Cosigner> {
    match mode.quorum() {
        Some(quorum) => scenario.cosigners(quorum, streams),
        None => {
            let sole = |host| Cosigner { host, serves: true, seat: None };
            scenario.signer_hosts().into_iter().map(sole).collect()
        }
    }
}

fn mesh(
    scenario: &Scenario,
    quorum: Quorum,
    cast: &[Cosigner],
    keys: &Keys,
    chain_id: &ChainId,
) -> anyhow::Result<Mesh> {
    let hosts: BTreeMap<_, _> =
        cast.iter().filter_map(|cosigner| Some((cosigner.seat?, cosigner.host.name.clone()))).collect();
    let shares = Shares::provide(keys, chain_id, quorum)?;
    let is_ceremony = |act: &Do| matches!(act, Do::Ceremony { .. } | Do::Repair { .. } | Do::Dkg { .. });
    let has_ceremonies = scenario.acts.iter().any(|act| is_ceremony(&act.act));
    let newcomers = cast.iter().filter(|cosigner| has_ceremonies && cosigner.seat.is_none());
    let newcomers = newcomers.map(|cosigner| cosigner.host.name.clone()).collect();
    let (settings, malicious) = (scenario.group.clone(), RefCell::default());
    Ok(Mesh { shares, hosts, settings, has_ceremonies, newcomers, malicious })
}

/// The chain of every world.
const CHAIN_ID: &str = "simulated-1";

fn builder(scenario: &Scenario, seed: u64) -> turmoil::Sim<'static> {
    turmoil::Builder::new()
        .rng_seed(seed)
        .epoch(SystemTime::UNIX_EPOCH + EPOCH)
        .simulation_duration(Duration::from_secs(u64::from(u32::MAX)))
        .tick_duration(scenario.tick.0)
        .min_message_latency(scenario.network.latency.from)
        .max_message_latency(scenario.network.latency.to)
        .tcp_capacity(1 << 16)
        .enable_random_order()
        .build()
}

fn budget_overruns(
    scenario: &Scenario,
    mode: Mode,
    latencies: &BTreeMap<&'static str, Latencies>,
    always: &BTreeMap<&'static str, Latencies>,
) -> Vec<String> {
    let mut overruns = Vec::new();
    for budget in &scenario.budgets {
        let for_mode = budget.modes.is_empty() || budget.modes.iter().any(|name| name.parse() == Ok(mode));
        let latencies = if budget.always { always } else { latencies };
        let kinds = latencies.iter().filter(|(kind, _)| budget.of.as_deref().is_none_or(|of| of == **kind));
        for (kind, seen) in kinds.filter(|_| for_mode) {
            let limits = [
                ("p50", budget.p50, seen.p50_ms),
                ("p99", budget.p99, seen.p99_ms),
                ("max", budget.max, seen.max_ms),
            ];
            for (name, limit, millis) in limits {
                if let Some(limit) = limit.filter(|limit| Duration::from_millis(millis) > limit.0) {
                    overruns.push(format!(
                        "{kind}: {name} is {millis} ms of {} answers, and {limit} is the budget",
                        seen.count
                    ));
                }
            }
        }
    }
    overruns
}

#[cfg(test)]
mod tests;
