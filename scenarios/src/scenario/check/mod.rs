//! Whether a plan can happen: names that exist, acts that have something to act on, limits that limit.

mod expectations;
mod hosts;
mod signers;
mod timeline;

use std::fmt::Display;
use std::time::Duration;

use monosign_protocol::Dialect;

use super::Scenario;
use super::place::{Misread, Place};
use crate::run::Mode;
use hosts::Hosts;

/// The messages that budgets are for.
pub(super) const MESSAGES: [&str; 3] = ["proposal", "prevote", "precommit"];

/// Everything that is wrong with a scenario.
pub(super) fn check(scenario: &Scenario) -> Vec<Misread> {
    let mut found = Findings(Vec::new());
    whole(scenario, &mut found);
    chain(scenario, &mut found);
    let hosts = Hosts::of(scenario, &mut found);
    signers::check(scenario, &mut found);
    timeline::check(scenario, &hosts, &mut found);
    expectations::check(scenario, &mut found);
    found.0
}

/// What was found so far.
struct Findings(Vec<Misread>);

impl Findings {
    fn add(&mut self, place: &Place, what: impl Into<String>) {
        self.0.push(Misread { place: place.clone(), what: what.into() });
    }

    fn add_if(&mut self, wrong: bool, place: &Place, what: impl Into<String>) {
        if wrong {
            self.add(place, what);
        }
    }

    /// A name that is none of those there are. Loading adds the nearest one.
    fn unknown(&mut self, place: &Place, kind: &str, name: &str, allowed: &[impl Display]) {
        let allowed: Vec<_> = allowed.iter().map(|name| format!("`{name}`")).collect();
        let expected = match allowed.len() {
            0 => "there is none".to_owned(),
            1 => format!("expected {}", allowed[0]),
            _ => format!("expected one of {}", allowed.join(", ")),
        };
        self.add(place, format!("unknown {kind} `{name}`, {expected}"));
    }

    fn mode(&mut self, place: &Place, name: &str) {
        if name.parse::<Mode>().is_err() {
            self.unknown(place, "mode", name, &Mode::ALL);
        }
    }

    fn dialect(&mut self, place: &Place, name: &str) {
        if !Dialect::ALL.iter().any(|dialect| dialect.to_string() == name) {
            self.unknown(place, "dialect", name, &Dialect::ALL);
        }
    }

    fn no_twins(&mut self, place: &Place, names: &[String]) {
        for (n, name) in names.iter().enumerate() {
            self.add_if(names[..n].contains(name), &place.index(n), format!("`{name}` is named twice"));
        }
    }
}

fn whole(scenario: &Scenario, found: &mut Findings) {
    found.add_if(scenario.about.trim().is_empty(), &Place::top("about"), "say in a sentence what happens");
    for (n, mode) in scenario.modes.iter().enumerate() {
        found.mode(&Place::top("modes").index(n), mode);
    }
    for (n, dialect) in scenario.dialects.iter().enumerate() {
        found.dialect(&Place::top("dialects").index(n), dialect);
    }
    found.no_twins(&Place::top("modes"), &scenario.modes);
    found.no_twins(&Place::top("dialects"), &scenario.dialects);
    found.add_if(scenario.seeds == 0, &Place::top("seeds"), "nothing would run: at least 1");
    let tick = scenario.tick.0;
    found.add_if(scenario.duration.0 < tick, &Place::top("duration"), "it is shorter than a tick");
    let whole_millis = tick >= MILLISECOND && tick.subsec_nanos().is_multiple_of(MILLISECOND.subsec_nanos());
    found.add_if(
        !whole_millis,
        &Place::top("tick"),
        "the simulated clock ticks in whole milliseconds, at least 1ms",
    );
    if let Some(saved) = &scenario.found {
        let place = Place::top("found");
        found.mode(&place.key("mode"), &saved.mode);
        found.dialect(&place.key("dialect"), &saved.dialect);
        found.add_if(
            saved.seed.parse::<u64>().is_err(),
            &place.key("seed"),
            "a seed is a whole number, as text",
        );
    }
}

fn chain(scenario: &Scenario, found: &mut Findings) {
    let (chain, place) = (&scenario.chain, Place::top("chain"));
    found.add_if(
        chain.validators == 0,
        &place.key("validators"),
        "a chain has at least 1 validator, which is ours",
    );
    found.add_if(
        chain.block_time.0 < MILLISECOND,
        &place.key("block_time"),
        "blocks take time: at least 1ms",
    );
    found.add_if(chain.loss_percent >= 100, &place.key("loss_percent"), "nothing would arrive: at most 99");
    let highest = i64::MAX as u64 / 2;
    let height_ok = (1..=highest).contains(&chain.first_height);
    found.add_if(!height_ok, &place.key("first_height"), format!("heights go from 1, here up to {highest}"));
    let too_long = chain.extension_bytes.is_some_and(|bytes| bytes > LONGEST_EXTENSION);
    found.add_if(
        too_long,
        &place.key("extension_bytes"),
        format!("nodes take extensions of at most {LONGEST_EXTENSION} bytes"),
    );
}

const MILLISECOND: Duration = Duration::from_millis(1);
/// CometBFT v0.38.25, `types/vote.go`, `MaxVoteExtensionSize`.
const LONGEST_EXTENSION: usize = 1024 * 1024;
