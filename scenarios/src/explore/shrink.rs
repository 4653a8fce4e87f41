//! Cutting a failure down to what it needs: fewer acts, then a plainer world.

use std::time::Duration;

use crate::run::Run;
use crate::scenario::{Act, Chain, Do, Network, Scenario, Span, SpanRange, Validator};

/// How many runs a failure may take to shrink: enough for some eighty acts, and with the longest runs minutes rather than hours.
const MOST_RUNS: usize = 500;

/// The smallest plan found that still fails in the way that `fails` looks for. The seed stays: each purpose has its own stream, so that
/// the rest of the run stays what it was when an act is taken out.
///
/// The acts are reduced by delta debugging (`ddmin`: Zeller and Hildebrandt, 2002), then the world is made plainer step by step, and
/// both again until nothing more can go. `run` itself is taken to fail, and is what is returned if nothing smaller does.
pub fn shrink(run: Run, fails: &mut dyn FnMut(&Run) -> bool) -> Run {
    let mut shrinker = Shrinker { best: run, fails, runs_left: MOST_RUNS };
    loop {
        let before = shrinker.best.clone();
        shrinker.fewer_acts();
        shrinker.plainer();
        if shrinker.best == before || shrinker.runs_left == 0 {
            return shrinker.best;
        }
    }
}

struct Shrinker<'a> {
    best: Run,
    fails: &'a mut dyn FnMut(&Run) -> bool,
    runs_left: usize,
}

impl Shrinker<'_> {
    /// Keeps `scenario` if it still fails; true if so.
    fn try_out(&mut self, scenario: Scenario) -> bool {
        if self.runs_left == 0 || scenario == self.best.scenario {
            return false;
        }
        self.runs_left -= 1;
        let candidate = Run { scenario, ..self.best.clone() };
        let failed = (self.fails)(&candidate);
        if failed {
            self.best = candidate;
        }
        failed
    }

    fn try_change(&mut self, change: impl FnOnce(&mut Scenario)) -> bool {
        let mut scenario = self.best.scenario.clone();
        change(&mut scenario);
        self.try_out(scenario)
    }

    /// Takes out as many acts as it can, in large parts first.
    fn fewer_acts(&mut self) {
        let mut parts = 1;
        while !self.best.scenario.acts.is_empty() && self.runs_left > 0 {
            let count = self.best.scenario.acts.len();
            let size = count.div_ceil(parts);
            let starts = (0..count).step_by(size);
            let taken = starts.into_iter().find(|start| {
                let part = *start..(start + size).min(count);
                self.try_change(|scenario| drop(scenario.acts.drain(part)))
            });
            parts = match taken {
                Some(_) => parts.saturating_sub(1).max(1),
                None if size == 1 => return,
                None => (parts * 2).min(count),
            };
        }
    }

    fn plainer(&mut self) {
        self.plainer_world();
        self.fewer_hosts();
        self.fewer_validators();
        self.shorter();
        for n in 0..self.best.scenario.acts.len() {
            self.plainer_act(n);
        }
    }

    fn plainer_world(&mut self) {
        let zero = SpanRange::always(Duration::ZERO);
        self.try_change(|scenario| scenario.network = Network { latency: zero, chops: false });
        self.try_change(|scenario| scenario.network.chops = false);
        self.try_change(|scenario| scenario.network.latency = fixed(scenario.network.latency));
        self.try_change(|scenario| scenario.disk.latency = zero);
        self.try_change(|scenario| scenario.disk.latency = fixed(scenario.disk.latency));
        self.try_change(|scenario| {
            scenario.chain = Chain { validators: scenario.chain.validators, ..Chain::default() };
        });
        self.try_change(|scenario| scenario.group.clear());
        self.try_change(|scenario| scenario.validators.iter_mut().for_each(|node| node.signers.clear()));
        self.try_change(|scenario| scenario.chain.extension_bytes = None);
        self.try_change(|scenario| scenario.chain.first_height = 1);
        self.try_change(|scenario| scenario.chain.loss_percent = 0);
        self.try_change(|scenario| scenario.chain.latency = fixed(scenario.chain.latency));
        self.try_change(|scenario| {
            scenario.signers.iter_mut().for_each(|signer| signer.clock_skew_ms = 0);
            scenario.validators.iter_mut().for_each(|node| node.clock_skew_ms = 0);
        });
    }

    /// Takes out nodes, and what befalls them.
    fn fewer_hosts(&mut self) {
        let nodes: Vec<Validator> = self.best.scenario.validators.clone();
        for node in nodes {
            if self.best.scenario.validators.len() > 1 {
                self.try_change(|scenario| {
                    scenario.validators.retain(|other| other.name != node.name);
                    scenario.acts.retain(|act| !names(act, &node.name));
                });
            }
        }
    }

    fn fewer_validators(&mut self) {
        for validators in [1, 2, 4] {
            let scenario = &self.best.scenario;
            // Two nodes that are all there is of a chain fail by themselves.
            let enough = validators >= scenario.validators.len()
                && !scenario.acts.iter().any(|act| needs_more_than(&act.act, validators));
            if validators < scenario.chain.validators && enough {
                self.try_change(|scenario| scenario.chain.validators = validators);
            }
        }
    }

    /// Ends soon after the last act that happens once began; halves what is left of it.
    fn shorter(&mut self) {
        loop {
            let scenario = &self.best.scenario;
            let last = scenario.acts.iter().map(|act| act.when.at.to).max().unwrap_or_default();
            let half = Duration::from_secs((scenario.duration.0 / 2).as_secs().max(1)).max(last);
            let until = scenario.acts.iter().filter_map(|act| act.when.until).map(|until| until.0).max();
            let duration = Span(half.max(until.unwrap_or_default()));
            if duration >= scenario.duration || !self.try_change(|scenario| scenario.duration = duration) {
                return;
            }
        }
    }

    fn plainer_act(&mut self, n: usize) {
        self.try_change(|scenario| {
            let when = &mut scenario.acts[n].when;
            (when.every, when.until) = (None, None);
        });
        self.try_change(|scenario| scenario.acts[n].when.at = fixed(scenario.acts[n].when.at));
        self.try_change(|scenario| {
            if let Some(lasts) = lasts(&mut scenario.acts[n].act) {
                *lasts = fixed(*lasts);
            }
        });
        self.try_change(|scenario| {
            let at = &mut scenario.acts[n].when.at;
            *at = SpanRange::always(Duration::from_secs(at.from.as_secs().max(1)));
        });
    }
}

/// Always the same, of the same length: the middle, in whole milliseconds.
fn fixed(range: SpanRange) -> SpanRange {
    let middle = (range.from + range.to) / 2;
    SpanRange::always(Duration::from_millis(middle.as_millis() as u64))
}

fn lasts(act: &mut Do) -> Option<&mut SpanRange> {
    match act {
        Do::Kill { down, .. } | Do::PowerCut { down, .. } | Do::Stop { down, .. } => down.as_mut(),
        Do::DiskFault { lasts, .. } => lasts.as_mut(),
        Do::CrashPoint { down, .. } | Do::CrashAwaiting { down, .. } | Do::CrashAnswered { down, .. } => {
            Some(down)
        }
        Do::Partition { lasts, .. }
        | Do::Hold { lasts, .. }
        | Do::Latency { lasts, .. }
        | Do::Freeze { lasts, .. }
        | Do::Isolate { lasts, .. }
        | Do::PeersAway { lasts, .. }
        | Do::RoughGossip { lasts, .. }
        | Do::Equivocate { lasts, .. }
        | Do::Cheat { lasts, .. }
        | Do::DisplaceRecord { lasts, .. }
        | Do::DeviceFault { lasts, .. } => Some(lasts),
        Do::Start { .. }
        | Do::DropInRequest { .. }
        | Do::DropInAnswer { .. }
        | Do::Ceremony { .. }
        | Do::Repair { .. }
        | Do::Dkg { .. }
        | Do::ClockJump { .. }
        | Do::Snapshot { .. }
        | Do::SecondProcess { .. }
        | Do::RestoreDisk { .. }
        | Do::LoseRecord { .. }
        | Do::Clone { .. }
        | Do::Upgrade { .. }
        | Do::Reload { .. } => None,
    }
}

/// Whether an act has a host of this name in it.
fn names(act: &Act, host: &str) -> bool {
    let table = toml::Table::try_from(act).unwrap_or_default();
    table.into_iter().any(|(key, value)| match value {
        toml::Value::String(name) => key != "do" && name == host,
        toml::Value::Array(names) => names.iter().any(|name| name.as_str() == Some(host)),
        _ => false,
    })
}

/// Whether an act is impossible on a chain of so few validators.
fn needs_more_than(act: &Do, validators: usize) -> bool {
    match act {
        Do::PeersAway { peers, .. } => *peers > validators - 1,
        Do::Isolate { .. } | Do::RoughGossip { .. } => validators == 1,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::generate::generate;
    use super::super::generate::tests::is_survivable;
    use super::{MOST_RUNS, shrink};
    use crate::run::Run;
    use crate::scenario::{Do, SpanRange, parse};

    /// A run with many acts of many kinds.
    fn large() -> Run {
        let seed = (0..200).max_by_key(|seed| generate(*seed).scenario.acts.len()).unwrap();
        generate(seed)
    }

    fn count(run: &Run, is_such: fn(&Do) -> bool) -> usize {
        run.scenario.acts.iter().filter(|act| is_such(&act.act)).count()
    }

    #[test]
    fn only_the_acts_that_matter_stay() {
        let run = large();
        let is_cut = |act: &Do| matches!(act, Do::PowerCut { .. });
        let is_point = |act: &Do| matches!(act, Do::CrashPoint { .. });
        let run = (0..3000)
            .map(generate)
            .find(|run| count(run, is_cut) > 1 && count(run, is_point) > 0)
            .unwrap_or(run);
        assert!(run.scenario.acts.len() > 4, "{run:?}");
        let small = shrink(run, &mut |run| count(run, is_cut) > 0 && count(run, is_point) > 0);
        assert_eq!(small.scenario.acts.len(), 2, "{:?}", small.scenario.acts);
    }

    #[test]
    fn the_world_gets_as_plain_as_the_failure_allows() {
        let run = (0..3000)
            .map(generate)
            .find(|run| run.scenario.validators.len() == 2 && run.scenario.chain.validators > 4);
        let small = shrink(run.unwrap(), &mut |run| run.scenario.chain.validators >= 3);
        let scenario = small.scenario;
        assert_eq!((scenario.validators.len(), scenario.chain.validators), (1, 4));
        assert!(scenario.acts.is_empty() && !scenario.network.chops);
        assert_eq!(scenario.network.latency, SpanRange::always(Duration::ZERO));
        assert_eq!(scenario.duration.0, Duration::from_secs(1));
    }

    #[test]
    fn times_get_fixed_and_repetition_goes() {
        let run = (0..3000)
            .map(generate)
            .find(|run| run.scenario.acts.iter().any(|act| act.when.every.is_some()))
            .unwrap();
        let small = shrink(run, &mut |run| !run.scenario.acts.is_empty());
        let [act] = small.scenario.acts.as_slice() else { panic!("{:?}", small.scenario.acts) };
        assert_eq!(act.when.at.from, act.when.at.to);
        assert_eq!(act.when.every, None);
    }

    #[test]
    fn every_plan_that_is_tried_can_happen_and_be_survived() {
        for seed in 0..40 {
            let mut tried = 0;
            shrink(generate(seed), &mut |run| {
                tried += 1;
                let text = toml::to_string(&run.scenario).unwrap();
                assert_eq!(parse(&text).err(), None, "seed {seed}:\n{text}");
                assert!(is_survivable(&run.scenario));
                // Some fail and some do not.
                text.len() % 3 > 0
            });
            assert!(tried <= MOST_RUNS);
        }
    }

    #[test]
    fn what_fails_no_more_when_smaller_stays_as_it_is() {
        let run = large();
        let mut tried = 0;
        let same = shrink(run.clone(), &mut |_| {
            tried += 1;
            false
        });
        assert_eq!(same, run);
        assert!((1..=MOST_RUNS).contains(&tried), "{tried}");
    }
}
