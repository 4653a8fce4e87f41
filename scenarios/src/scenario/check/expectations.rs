//! What must hold: whether it can, and whether it says anything.

use super::super::place::Place;
use super::super::{Budget, Do, Scenario};
use super::timeline::groups_only;
use super::{Findings, MESSAGES};
use crate::counters;
use crate::run::Mode;

pub(super) fn check(scenario: &Scenario, found: &mut Findings) {
    expect(scenario, found);
    for (n, limits) in scenario.budgets.iter().enumerate() {
        budget(scenario, &Place::top("budget").index(n), limits, found);
    }
}

fn expect(scenario: &Scenario, found: &mut Findings) {
    let (expect, place) = (&scenario.expect, Place::top("expect"));
    for (key, names) in [("reached", &expect.reached), ("never", &expect.never)] {
        for (n, name) in names.iter().enumerate() {
            if !counters::ALL.contains(&name.as_str()) {
                found.unknown(&place.key(key).index(n), "counter", name, &counters::ALL);
            }
        }
        found.no_twins(&place.key(key), names);
    }
    found.no_twins(&place.key("told"), &expect.told);
    for (n, name) in expect.never.iter().enumerate() {
        let both = expect.reached.contains(name);
        found.add_if(both, &place.key("never").index(n), format!("`{name}` must be reached as well"));
    }
    let time = scenario.duration.0 + scenario.recovery.0;
    let most = time.as_millis() / scenario.chain.block_time.0.as_millis().max(1);
    found.add_if(
        u128::from(expect.blocks) > most,
        &place.key("blocks"),
        format!("in `duration` and `recovery` there is time for {most} blocks at most"),
    );
    found.add_if(
        expect.signs_within.is_some_and(|within| within > scenario.recovery),
        &place.key("signs_within"),
        format!("it is above `recovery`, {}", scenario.recovery),
    );
    let clones = scenario.acts.iter().any(|act| matches!(act.act, Do::Clone { .. }));
    found.add_if(
        expect.double_sign_by_clone && !clones,
        &place.key("double_sign_by_clone"),
        "no act clones a signer",
    );
    found.add_if(
        expect.double_sign_by_group && !groups_only(scenario),
        &place.key("double_sign_by_group"),
        "only groups do: `modes` must name modes of groups, and no other",
    );
}

fn budget(scenario: &Scenario, place: &Place, budget: &Budget, found: &mut Findings) {
    if let Some(message) = budget.of.as_deref().filter(|message| !MESSAGES.contains(message)) {
        found.unknown(&place.key("of"), "message", message, &MESSAGES);
    }
    for (n, mode) in budget.modes.iter().enumerate() {
        let place = place.key("modes").index(n);
        found.mode(&place, mode);
        let known = mode.parse::<Mode>().is_ok();
        let elsewhere = known && !scenario.modes.is_empty() && !scenario.modes.contains(mode);
        found.add_if(elsewhere, &place, format!("the scenario does not run in mode `{mode}`"));
    }
    let limits = [("p50", budget.p50), ("p99", budget.p99), ("max", budget.max)];
    let limits: Vec<_> = limits.into_iter().filter_map(|(key, limit)| Some((key, limit?))).collect();
    found.add_if(limits.is_empty(), place, "it limits nothing: set `p50`, `p99` or `max`");
    for pair in limits.windows(2) {
        let [(lower, low), (key, high)] = pair else { continue };
        found.add_if(low > high, &place.key(key), format!("it is below `{lower}`, {low}"));
    }
}
