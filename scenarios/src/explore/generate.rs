//! Scenarios made up at random: worlds and faults that a correct signer survives, whatever they are.

use monosign_protocol::Dialect;

use crate::quorum::Quorum;
use crate::run::{Mode, Run};
use crate::scenario::{
    Act, Chain, DeviceFault, Disk, DiskFault, Displacement, Do, Hsm, Network, Scenario, Signer, Span,
    SpanRange, Validator, When,
};
use crate::streams::{Stream, Streams};

/// A run made up from a seed, which is also the seed that it runs under.
///
/// Families of faults are switched on and off for each seed, since what all of them together hide, some of them alone show (swarm
/// testing: Groce and others, 2012). Every fault ends: what is down comes up, what is away comes back. And nothing happens that no
/// signer survives alone: no copied state, no disk set back, no lost record.
pub fn generate(seed: u64) -> Run {
    let mut stream = Streams::new(seed).of("explore/mode");
    let mode = match stream.below(100) {
        0..30 => *stream.pick(&Mode::USUAL_GROUPS),
        30..45 => *stream.pick(&Mode::HARDWARE),
        _ => *stream.pick(&Mode::SOLE),
    };
    generate_in(mode, seed)
}

/// The same in this mode, if one is given.
pub fn made_up(seed: u64, mode: Option<Mode>) -> Run {
    mode.map_or_else(|| generate(seed), |mode| generate_in(mode, seed))
}

fn generate_in(mode: Mode, seed: u64) -> Run {
    let streams = Streams::new(seed);
    let mut stream = streams.of("explore/world");
    let dialect = *stream.pick(&Dialect::ALL);
    let mut scenario = world(&mut stream);
    if mode.is_hardware() {
        attach(&mut scenario, mode, &mut streams.of("explore/devices"));
    }
    if let Some(quorum) = mode.quorum() {
        share(&mut scenario, mode, quorum, &mut streams.of("explore/group"));
    }
    for family in Family::ALL {
        let mut stream = streams.of(&format!("explore/{family:?}"));
        if family.is_possible(&scenario) && stream.percent(40) {
            let count = stream.between(1, 4);
            let acts =
                (0..count).map(|_| family.act(&scenario, mode, dialect, &mut stream)).collect::<Vec<_>>();
            scenario.acts.extend(acts);
        }
    }
    scenario.acts.sort_by_key(|act| act.when.at.from);
    Run { scenario, name: format!("explored-{seed}"), mode, dialect, seed }
}

fn world(stream: &mut Stream) -> Scenario {
    let nodes = 1 + usize::from(stream.percent(30));
    let names: Vec<_> = match nodes {
        1 => vec!["validator".to_owned()],
        _ => (1..=nodes).map(|n| format!("sentry-{n}")).collect(),
    };
    let node = |name: &String| Validator { clock_skew_ms: skew(stream), ..Validator::named(name) };
    let validators = names.iter().map(node).collect();
    Scenario {
        about: "Made up at random.".into(),
        incident: None,
        modes: Vec::new(),
        sole: false,
        dialects: Vec::new(),
        seeds: 1,
        duration: Span::millis(stream.between(20, 60) * 1000),
        // Rounds that many faults have made long end late.
        recovery: Span::millis(60_000),
        tick: Span::millis(1),
        chain: chain(nodes, stream),
        validators,
        group: toml::Table::new(),
        signers: vec![Signer { clock_skew_ms: skew(stream), ..Signer::named("signer") }],
        devices: Vec::new(),
        network: Network { latency: range(stream, 0, 30), chops: stream.percent(70) },
        disk: Disk { latency: range(stream, 0, 8), ..Disk::default() },
        acts: Vec::new(),
        expect: Default::default(),
        budgets: Vec::new(),
        found: None,
    }
}

/// The key is on one device or two, which take no longer messages than they do.
fn attach(scenario: &mut Scenario, mode: Mode, stream: &mut Stream) {
    scenario.modes = vec![mode.to_string()];
    if !scenario.makes_sense_for(mode) {
        scenario.chain.extension_bytes = Some(1024);
    }
    if stream.percent(30) {
        scenario.signers[0].devices = vec!["hsm-1".into(), "hsm-2".into()];
    }
    let force_audit = stream.percent(50);
    let slow_by = Span::millis(*stream.pick(&[200, 1500, 3000]));
    let device = |name: &String| Hsm { force_audit, slow_by, ..Hsm::named(name) };
    scenario.devices = scenario.signers[0].device_names().iter().map(device).collect();
}

/// The key is shared among cosigners. Each node has one that serves it, or two, or all of them.
fn share(scenario: &mut Scenario, mode: Mode, quorum: Quorum, stream: &mut Stream) {
    let cosigner = |n: u16| Signer { clock_skew_ms: skew(stream), ..Signer::named(&format!("cosigner-{n}")) };
    scenario.signers = (1..=quorum.members).map(cosigner).collect();
    scenario.modes = vec![mode.to_string()];
    for node in &mut scenario.validators {
        let mut names: Vec<_> = scenario.signers.iter().map(|signer| signer.name.clone()).collect();
        let serve = match stream.below(100) {
            0..40 => 1,
            40..70 => 2,
            _ => names.len(),
        };
        node.signers =
            (0..serve).map(|_| names.swap_remove(stream.below(names.len() as u64) as usize)).collect();
    }
    if stream.percent(30) {
        scenario.group.insert("rejoin".into(), "strict".into());
    }
}

fn chain(nodes: usize, stream: &mut Stream) -> Chain {
    Chain {
        // Two nodes that are all there is of a chain make a block each, and the one that is later is never signed for.
        validators: stream.between(nodes as u64, 7) as usize,
        block_time: Span::millis(*stream.pick(&[100, 300, 1000, 3000])),
        extension_bytes: *stream.pick(&[None, None, Some(0), Some(64), Some(4096)]),
        rebuilds_blocks: stream.percent(80),
        latency: range(stream, 1, 150),
        loss_percent: *stream.pick(&[0, 0, 0, 5, 15]),
        // Around the length changes of varints in sign bytes and records, too.
        first_height: *stream.pick(&[1, 2, 127, 255, 16_383, 1_000_000, u32::MAX.into()]),
    }
}

fn skew(stream: &mut Stream) -> i64 {
    match stream.percent(30) {
        true => stream.between(0, 20_000) as i64 - 10_000,
        false => 0,
    }
}

/// A range of milliseconds within two bounds.
fn range(stream: &mut Stream, low: u64, high: u64) -> SpanRange {
    let from = stream.between(low, high);
    SpanRange::millis(from, stream.between(from, high))
}

/// Faults that go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Processes,
    Power,
    CrashPoints,
    NodeCrashes,
    Network,
    Drops,
    Freezes,
    Peers,
    Gossip,
    Equivocation,
    Clocks,
    Disk,
    Device,
    Operations,
}

impl Family {
    const ALL: [Self; 14] = [
        Self::Processes,
        Self::Power,
        Self::CrashPoints,
        Self::NodeCrashes,
        Self::Network,
        Self::Drops,
        Self::Freezes,
        Self::Peers,
        Self::Gossip,
        Self::Equivocation,
        Self::Clocks,
        Self::Disk,
        Self::Device,
        Self::Operations,
    ];

    /// Whether there is what it does something to.
    fn is_possible(self, scenario: &Scenario) -> bool {
        match self {
            Self::Peers | Self::Gossip => scenario.chain.validators > 1,
            Self::Device => scenario.signers.len() == 1,
            _ => true,
        }
    }

    fn act(self, scenario: &Scenario, mode: Mode, dialect: Dialect, stream: &mut Stream) -> Act {
        let mut draw = Draw { scenario, mode, dialect, stream };
        let act = match self {
            Self::Processes => draw.process(),
            Self::Power => Do::PowerCut { host: draw.host(), down: Some(draw.lasting()) },
            Self::CrashPoints => Do::CrashPoint {
                host: draw.signer(),
                after: draw.stream.below(40),
                kill: draw.stream.percent(30),
                down: draw.lasting(),
            },
            Self::NodeCrashes => draw.node_crash(),
            Self::Network => draw.network(),
            Self::Drops => draw.drop_connection(),
            Self::Freezes => Do::Freeze { host: draw.freezing(), lasts: draw.lasting() },
            Self::Peers => draw.peers(),
            Self::Gossip => {
                let (latency, loss_percent) =
                    (range(draw.stream, 10, 1500), draw.stream.between(0, 40) as u8);
                Do::RoughGossip { latency, loss_percent, lasts: draw.lasting() }
            }
            Self::Equivocation => Do::Equivocate { host: draw.node(), lasts: draw.lasting() },
            Self::Clocks => draw.clock(),
            Self::Disk => draw.disk(),
            Self::Device => draw.device(),
            Self::Operations => draw.operation(),
        };
        Act { when: draw.when(&act), act }
    }
}

/// What acts are drawn from.
struct Draw<'a> {
    scenario: &'a Scenario,
    mode: Mode,
    dialect: Dialect,
    stream: &'a mut Stream,
}

impl Draw<'_> {
    fn when(&mut self, act: &Do) -> When {
        let duration = self.scenario.duration.0.as_millis() as u64;
        let from = self.stream.between(500, duration * 2 / 3);
        let at = SpanRange::millis(from, self.stream.between(from, duration - 1000));
        // An upgrade and a lasting change happen once.
        let once = matches!(act, Do::Upgrade { .. } | Do::Reload { .. } | Do::Snapshot { .. });
        let again = !once && self.stream.percent(30);
        let every = again.then(|| range(self.stream, 3000, 15_000));
        When { at, every, until: None }
    }

    fn signer(&mut self) -> String {
        match self.scenario.signers.as_slice() {
            [only] => only.name.clone(),
            cosigners => self.stream.pick(cosigners).name.clone(),
        }
    }

    fn is_group(&self) -> bool {
        self.scenario.signers.len() > 1
    }

    fn node(&mut self) -> String {
        self.stream.pick(&self.scenario.validators).name.clone()
    }

    fn host(&mut self) -> String {
        match self.stream.percent(60) {
            true => self.signer(),
            false => self.node(),
        }
    }

    /// The others of a group go on without a cosigner that is frozen.
    fn freezing(&mut self) -> String {
        match self.is_group() {
            true => self.host(),
            false => self.node(),
        }
    }

    /// A signer and a node that it serves.
    fn link(&mut self) -> [String; 2] {
        let node = self.stream.pick(&self.scenario.validators);
        let signer = match node.signers.as_slice() {
            [] => self.signer(),
            some => self.stream.pick(some).clone(),
        };
        match self.stream.percent(50) {
            true => [signer, node.name.clone()],
            false => [node.name.clone(), signer],
        }
    }

    /// Two ends of a connection.
    fn pair(&mut self) -> [String; 2] {
        if !self.is_group() || self.stream.percent(40) {
            return self.link();
        }
        let cosigners = &self.scenario.signers;
        let (one, further) = (self.stream.below(cosigners.len() as u64), cosigners.len() as u64 - 1);
        let other = (one + self.stream.between(1, further)) % cosigners.len() as u64;
        [one, other].map(|n| cosigners[n as usize].name.clone())
    }

    /// From a moment to about the longest that a node's timeouts are.
    fn lasting(&mut self) -> SpanRange {
        let longest = *self.stream.pick(&[200, 2000, 12_000]);
        range(self.stream, 1, longest)
    }

    fn process(&mut self) -> Do {
        let down = Some(self.lasting());
        match self.stream.percent(70) {
            true => Do::Kill { host: self.host(), down },
            false => Do::Stop { host: self.signer(), down },
        }
    }

    fn node_crash(&mut self) -> Do {
        let (host, down) = (self.node(), self.lasting());
        match self.stream.percent(50) {
            true => Do::CrashAwaiting { host, down },
            false => Do::CrashAnswered { host, down },
        }
    }

    fn network(&mut self) -> Do {
        let (between, lasts) = (self.pair(), self.lasting());
        match self.stream.below(4) {
            0 => Do::Partition { between, one_way: false, lasts },
            1 => Do::Partition { between, one_way: true, lasts },
            2 => Do::Hold { between, lasts },
            _ => Do::Latency { between, latency: Span::millis(self.stream.between(5, 1500)), lasts },
        }
    }

    fn drop_connection(&mut self) -> Do {
        let between = self.pair();
        match self.stream.percent(50) {
            true => Do::DropInRequest { between },
            false => Do::DropInAnswer { between },
        }
    }

    fn peers(&mut self) -> Do {
        let peers = self.scenario.chain.validators as u64 - 1;
        match self.stream.percent(50) {
            true => Do::Isolate { host: self.node(), lasts: self.lasting() },
            false => Do::PeersAway { peers: self.stream.between(1, peers) as usize, lasts: self.lasting() },
        }
    }

    fn clock(&mut self) -> Do {
        let by_ms = self.stream.between(1, 5000) as i64;
        let by_ms = if self.stream.percent(50) { by_ms } else { -by_ms };
        Do::ClockJump { host: self.host(), by_ms }
    }

    fn disk(&mut self) -> Do {
        let faults = [
            DiskFault::Eio,
            DiskFault::WriteError,
            DiskFault::SyncError,
            DiskFault::NoSpace,
            DiskFault::ReadOnly,
            DiskFault::Hang,
            DiskFault::Slow,
        ];
        if self.stream.percent(15) {
            let how = *self.stream.pick(&[Displacement::Moved, Displacement::ReplacedByCopy]);
            return Do::DisplaceRecord { host: self.signer(), how, lasts: self.lasting() };
        }
        Do::DiskFault { host: self.signer(), fault: *self.stream.pick(&faults), lasts: Some(self.lasting()) }
    }

    fn device(&mut self) -> Do {
        let mut faults = vec![
            DeviceFault::Error,
            DeviceFault::AnswerLost,
            DeviceFault::Hang,
            DeviceFault::Slow,
            DeviceFault::WrongSignature,
            DeviceFault::Absent,
        ];
        let hardware = [DeviceFault::PowerCycle, DeviceFault::KeyDeleted, DeviceFault::Busy];
        let yubihsm = [DeviceFault::Truncated, DeviceFault::SessionsTaken];
        faults.extend(hardware.into_iter().filter(|_| self.mode.is_hardware()));
        faults.extend(yubihsm.into_iter().filter(|_| self.mode == Mode::Yubihsm));
        // Without force audit the witness has cause to stop.
        let forces =
            self.mode == Mode::Yubihsm && self.scenario.devices.iter().all(|device| device.force_audit);
        faults.extend(forces.then_some(DeviceFault::LogFull));
        let fault = *self.stream.pick(&faults);
        let lasts = self.lasting();
        let devices = &self.scenario.signers[0].devices;
        let one = !devices.is_empty() && self.stream.percent(70);
        let device = one.then(|| self.stream.pick(devices).clone());
        Do::DeviceFault { host: self.signer(), device, fault, lasts }
    }

    /// What an operator does on a working day.
    fn operation(&mut self) -> Do {
        match self.stream.below(3) {
            0 => Do::Snapshot { host: self.signer() },
            1 => {
                let timeout = self.stream.between(4, 20) as i64;
                let link = toml::Table::from_iter([("timeout".to_owned(), timeout.into())]);
                Do::Reload { host: self.signer(), chain: toml::Table::new(), link, validators: None }
            }
            _ => {
                let newer: Vec<_> = Dialect::ALL.into_iter().filter(|other| *other >= self.dialect).collect();
                Do::Upgrade { host: self.node(), to: self.stream.pick(&newer).to_string() }
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::generate;
    use crate::scenario::{Act, DeviceFault, Do, Scenario, parse};

    /// Whether a correct signer survives a plan: all that it lets happen ends by itself.
    pub(in crate::explore) fn is_survivable(scenario: &Scenario) -> bool {
        let lasts_for_ever = |act: &Act| match &act.act {
            Do::Kill { down, .. } | Do::PowerCut { down, .. } | Do::Stop { down, .. } => down.is_none(),
            Do::DiskFault { lasts, .. } => lasts.is_none(),
            Do::RestoreDisk { .. } | Do::LoseRecord { .. } | Do::Clone { .. } => true,
            _ => false,
        };
        scenario.duration.0 > Duration::ZERO && !scenario.acts.iter().any(lasts_for_ever)
    }

    const SEEDS: std::ops::Range<u64> = 0..500;

    #[test]
    fn every_plan_is_a_scenario_that_loads_back_and_that_can_be_survived() {
        for seed in SEEDS {
            let scenario = generate(seed).scenario;
            let text = toml::to_string(&scenario).unwrap();
            assert_eq!(parse(&text).as_ref(), Ok(&scenario), "seed {seed}:\n{text}");
            assert!(is_survivable(&scenario), "seed {seed}:\n{text}");
        }
    }

    #[test]
    fn a_seed_makes_the_same_plan_and_others_make_others() {
        assert_eq!(generate(7), generate(7));
        let plans: BTreeSet<_> =
            SEEDS.map(|seed| toml::to_string(&generate(seed).scenario).unwrap()).collect();
        assert_eq!(plans.len() as u64, SEEDS.end);
    }

    #[test]
    fn everything_that_may_happen_happens_in_some_plan_and_is_missing_in_another() {
        let plans: Vec<BTreeSet<String>> = SEEDS
            .map(|seed| generate(seed).scenario.acts.iter().map(|act| act.act.name()).collect())
            .collect();
        let all: BTreeSet<_> = plans.iter().flatten().map(String::as_str).collect();
        let expected = [
            "clock-jump",
            "crash-answered",
            "crash-awaiting",
            "crash-point",
            "device-fault",
            "disk-fault",
            "displace-record",
            "drop-in-answer",
            "drop-in-request",
            "equivocate",
            "freeze",
            "hold",
            "isolate",
            "kill",
            "latency",
            "partition",
            "peers-away",
            "power-cut",
            "reload",
            "rough-gossip",
            "snapshot",
            "stop",
            "upgrade",
        ];
        assert_eq!(all.into_iter().collect::<Vec<_>>(), expected);
        assert!(expected.iter().all(|act| plans.iter().any(|plan| !plan.contains(*act))));
        assert!(
            plans.iter().any(BTreeSet::is_empty),
            "a plan without any fault is the measure of the others"
        );
    }

    #[test]
    fn worlds_differ_within_their_bounds() {
        let scenarios: Vec<_> = SEEDS.map(|seed| generate(seed).scenario).collect();
        for scenario in &scenarios {
            assert!((20..=60).contains(&scenario.duration.0.as_secs()));
            assert!((1..=7).contains(&scenario.chain.validators));
            assert!(scenario.network.latency.to <= Duration::from_millis(30));
        }
        let sizes: BTreeSet<_> = scenarios.iter().map(|scenario| scenario.chain.validators).collect();
        assert_eq!(sizes.len(), 7);
        assert!(scenarios.iter().any(|scenario| scenario.validators.len() == 2));
        let signers: BTreeSet<_> = scenarios.iter().map(|scenario| scenario.signers.len()).collect();
        assert_eq!(signers, [1, 3, 5].into());
        assert!(scenarios.iter().any(|scenario| scenario.chain.extension_bytes.is_some()));
    }

    #[test]
    fn one_world_in_seven_or_so_has_devices_of_its_own_and_what_befalls_them_suits_them() {
        let worlds: Vec<_> = SEEDS.map(generate).filter(|run| run.mode.is_hardware()).collect();
        assert!((50..100).contains(&worlds.len()), "{}", worlds.len());
        for run in &worlds {
            assert!(run.scenario.makes_sense_for(run.mode), "{run}");
            let fills_log =
                |act: &Act| matches!(&act.act, Do::DeviceFault { fault: DeviceFault::LogFull, .. });
            let forces = run.scenario.devices.iter().all(|device| device.force_audit);
            assert!(forces || !run.scenario.acts.iter().any(fills_log), "{run}: its witness would stop");
        }
        let on_two = worlds.iter().filter(|run| run.scenario.devices.len() == 2).count();
        assert!((5..worlds.len() / 2).contains(&on_two), "{on_two}");
    }

    #[test]
    fn a_host_that_stays_without_power_is_not_survivable() {
        let mut scenario = generate(1).scenario;
        scenario.acts.clear();
        assert!(is_survivable(&scenario));
        let act = crate::testing::run().scenario.acts[0].clone();
        let Do::PowerCut { host, .. } = &act.act else { panic!("{act:?}") };
        scenario.acts.push(Act { act: Do::PowerCut { host: host.clone(), down: None }, ..act.clone() });
        assert!(!is_survivable(&scenario));
    }
}
