//! A crash at every single point of input and output of a fixed piece of work, each followed by a restart and by every conflict that an
//! equivocating node can ask for: complete, not sampled.

use monosign_protocol::Dialect;

use crate::quorum::Quorum;
use crate::run::{Mode, Run};
use crate::scenario::{
    Act, Chain, Disk, Do, Network, PowerCut, Scenario, Signer, Span, SpanRange, Validator, When,
};
use crate::world;

/// The modes of a sweep that names none. In that of a group it is the disk of the cosigner that the node talks to.
pub const MODES: [Mode; 3] = [Mode::Softsign, Mode::Device, Mode::Threshold(Quorum::TWO_OF_THREE)];

/// How a process dies at a crash point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// By a power cut that loses all that was not synced.
    Loses,
    /// By a power cut after which all of it happens to be there.
    Keeps,
    /// By a power cut that keeps this and loses that.
    Random,
    /// The process alone, and a power cut follows that loses all that was not synced by then.
    KilledThenLoses,
}

impl Death {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Loses, Self::Keeps, Self::Random, Self::KilledThenLoses];

    fn name(self) -> &'static str {
        match self {
            Self::Loses => "all lost",
            Self::Keeps => "all kept",
            Self::Random => "some kept",
            Self::KilledThenLoses => "killed, then all lost",
        }
    }

    fn power_cut(self) -> PowerCut {
        match self {
            Self::Loses | Self::KilledThenLoses => PowerCut::Loses,
            Self::Keeps => PowerCut::Keeps,
            Self::Random => PowerCut::Random,
        }
    }
}

/// The runs of a sweep over ceremonies, at each point of input and output: of a host that stays in a resharing, of one that leaves and of
/// one that comes; of one that has its lost share made again, and of one that helps; and of one that makes a new key with others.
pub fn ceremony_runs(dialect: Dialect) -> Vec<Run> {
    [
        ("ceremony", resharing as fn() -> Scenario, ["stays", "leaves", "comes"].as_slice()),
        ("repair", repair, &["lost", "helps"]),
        ("dkg", dkg, &["helps"]),
    ]
    .into_iter()
    .flat_map(|(what, ceremony, victims)| crashes(dialect, what, ceremony, victims))
    .collect()
}

fn crashes(dialect: Dialect, what: &str, ceremony: fn() -> Scenario, victims: &[&'static str]) -> Vec<Run> {
    let mode = Mode::Threshold(Quorum::TWO_OF_THREE);
    let calm = run(mode, dialect, format!("{what} without a crash"), ceremony());
    let points = world::run(&calm).ceremony_points;
    let of = |victim: &&'static str| {
        let (victim, name) = (*victim, what.to_owned());
        let points = points.get(victim).copied().unwrap_or(0);
        (0..points).map(move |point| {
            let mut scenario = ceremony();
            let (host, down) = (victim.to_owned(), SpanRange::millis(500, 500));
            let crash = Do::CrashPoint { host, after: point, kill: false, down };
            scenario.acts.push(at(CEREMONY, crash));
            run(mode, dialect, format!("{name}, the host that {victim} at point {point}"), scenario)
        })
    };
    std::iter::once(calm.clone()).chain(victims.iter().flat_map(of)).collect()
}

/// Two of three go over to two of three, one of whom comes and one of whom leaves.
fn resharing() -> Scenario {
    let mut signers: Vec<_> = ["serves", "stays", "leaves"].map(Signer::named).into();
    signers.push(Signer { off: true, ..Signer::named("comes") });
    let members = ["serves", "stays", "comes"].map(str::to_owned).into();
    let leaving = vec!["leaves".to_owned()];
    ceremony(signers, Do::Ceremony { threshold: Some(2), members, leaving })
}

/// One of three is lost, and the others make its share again.
fn repair() -> Scenario {
    ceremony(["serves", "helps", "lost"].map(Signer::named).into(), Do::Repair { host: "lost".into() })
}

/// Three make a new key.
fn dkg() -> Scenario {
    let hosts = ["serves", "helps", "third"];
    let members = hosts.map(str::to_owned).into();
    ceremony(hosts.map(Signer::named).into(), Do::Dkg { threshold: 2, members })
}

fn ceremony(signers: Vec<Signer>, ceremony: Do) -> Scenario {
    Scenario {
        about: "A host loses power at one point of a ceremony.".into(),
        modes: vec![Mode::Threshold(Quorum::TWO_OF_THREE).to_string()],
        chain: Chain { block_time: Span::millis(1000), ..Chain::default() },
        signers,
        validators: vec![Validator { signers: vec!["serves".into()], ..Validator::named("validator") }],
        network: Network { latency: SpanRange::millis(0, 0), chops: false },
        disk: Disk { latency: SpanRange::millis(0, 0), power_cut: PowerCut::Loses },
        acts: vec![at(CEREMONY, ceremony)],
        ..Scenario::lasting(Span::millis(CEREMONY + 3000))
    }
}

fn at(millis: u64, act: Do) -> Act {
    Act { when: When { at: SpanRange::millis(millis, millis), every: None, until: None }, act }
}

/// When the ceremony begins, in milliseconds.
const CEREMONY: u64 = 1000;

/// The runs of the sweep: the work is done once without a crash to count the points.
pub fn runs(mode: Mode, dialect: Dialect) -> Vec<Run> {
    let calm = run(mode, dialect, "sweep without a crash".into(), scenario(Death::Loses, None));
    let points = world::run(&calm).disk_points;
    let deaths = Death::ALL.into_iter().flat_map(|death| (0..points).map(move |point| (death, point)));
    let crashes = deaths.map(|(death, point)| {
        run(mode, dialect, format!("sweep at point {point}, {}", death.name()), scenario(death, Some(point)))
    });
    std::iter::once(calm.clone()).chain(crashes).collect()
}

fn run(mode: Mode, dialect: Dialect, name: String, scenario: Scenario) -> Run {
    Run { scenario, name, mode, dialect, seed: 1 }
}

/// The only validator of a chain, which starts on an empty disk, and equivocates all the time.
fn scenario(death: Death, point: Option<u64>) -> Scenario {
    let host = || "signer".to_owned();
    let mut acts =
        vec![at(0, Do::Equivocate { host: "validator".into(), lasts: SpanRange::millis(60_000, 60_000) })];
    acts.extend(point.map(|after| {
        let kill = death == Death::KilledThenLoses;
        at(0, Do::CrashPoint { host: host(), after, kill, down: SpanRange::millis(20, 20) })
    }));
    if death == Death::KilledThenLoses {
        acts.push(at(WORK + 200, Do::PowerCut { host: host(), down: Some(SpanRange::millis(20, 20)) }));
    }
    Scenario {
        about: "A crash at one point of input and output, and every conflict after it.".into(),
        chain: Chain { validators: 1, block_time: Span::millis(100), ..Chain::default() },
        signers: vec![Signer { fresh: true, ..Signer::named("signer") }],
        network: Network { latency: SpanRange::millis(0, 0), chops: false },
        disk: Disk { latency: SpanRange::millis(0, 0), power_cut: death.power_cut() },
        acts,
        ..Scenario::lasting(Span::millis(WORK + 400))
    }
}

/// How long the work is, in milliseconds: some blocks. That the record's slots are used in turn is tested with the record.
const WORK: u64 = 600;

#[cfg(test)]
mod tests {
    use monosign_protocol::Dialect;

    use super::{Death, ceremony_runs, runs};
    use crate::run::Mode;

    #[test]
    fn every_point_is_there_for_every_death() {
        let runs = runs(Mode::Softsign, Dialect::V0_38);
        let points = (runs.len() - 1) / Death::ALL.len();
        assert!(points > 60, "{points}");
        assert_eq!(runs.len(), 1 + points * Death::ALL.len());
    }

    #[test]
    fn every_kind_of_host_dies_in_a_ceremony() {
        let runs = ceremony_runs(Dialect::V0_38);
        for victim in
            ["stays", "leaves", "comes", "lost", "repair, the host that helps", "dkg, the host that helps"]
        {
            let points = runs.iter().filter(|run| run.name.contains(victim)).count();
            assert!(points > 40, "{victim}: {points}");
        }
    }
}
