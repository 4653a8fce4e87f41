//! The timeline: acts that have someone to act on, in time.

use std::time::Duration;

use monosign::threshold::group::Shape;

use super::super::place::Place;
use super::super::{Act, Do, Scenario, Span, SpanRange, When};
use super::Findings;
use super::hosts::Hosts;
use crate::run::Mode;

pub(super) fn check(scenario: &Scenario, hosts: &Hosts, found: &mut Findings) {
    for (n, act) in scenario.acts.iter().enumerate() {
        let place = Place::top("act").index(n);
        when(scenario.duration, &place, &act.when, found);
        Line { scenario, hosts, place, act }.check(found);
    }
}

fn when(duration: Span, place: &Place, when: &When, found: &mut Findings) {
    let When { at, every, until } = when;
    found.add_if(at.to > duration.0, &place.key("at"), format!("it comes after the `duration`, {duration}"));
    if let Some(every) = every {
        found.add_if(
            every.from == Duration::ZERO,
            &place.key("every"),
            "time must pass before it happens again",
        );
    }
    if let Some(until) = until {
        let place = place.key("until");
        found.add_if(every.is_none(), &place, "it happens once: `until` goes with `every`");
        found.add_if(until.0 < at.to, &place, "it ends before it begins");
        found.add_if(until > &duration, &place, format!("it comes after the `duration`, {duration}"));
    }
}

/// Whether the scenario is one of groups alone.
pub(super) fn groups_only(scenario: &Scenario) -> bool {
    let is_group = |name: &String| name.parse::<Mode>().is_ok_and(|mode| mode.quorum().is_some());
    !scenario.modes.is_empty() && scenario.modes.iter().all(is_group)
}

/// One line of the timeline, and what it stands in.
struct Line<'a> {
    scenario: &'a Scenario,
    hosts: &'a Hosts,
    place: Place,
    act: &'a Act,
}

impl Line<'_> {
    fn check(&self, found: &mut Findings) {
        match &self.act.act {
            Do::Kill { host, .. } | Do::PowerCut { host, .. } | Do::ClockJump { host, by_ms: 1.. | ..0 } => {
                self.any_host(host, found);
            }
            Do::ClockJump { host, by_ms: 0 } => {
                self.any_host(host, found);
                found.add(&self.place.key("by_ms"), "the clock would not jump");
            }
            Do::Start { host } => {
                if self.any_host(host, found) && !self.may_be_down(host) {
                    let what =
                        format!("`{host}` is never down before: it is not `off`, and no act takes it down");
                    found.add(&self.place.key("host"), what);
                }
            }
            Do::Stop { host, .. } | Do::CrashPoint { host, .. } | Do::SecondProcess { host } => {
                self.signer("host", host, found)
            }
            Do::DiskFault { host, .. } => self.signer("host", host, found),
            Do::DeviceFault { host, device, lasts, .. } => {
                self.signer("host", host, found);
                self.device(host, device.as_deref(), found);
                self.takes_time(lasts, found);
            }
            Do::Snapshot { host } | Do::LoseRecord { host } => self.signer("host", host, found),
            Do::DisplaceRecord { host, lasts, .. } => {
                self.signer("host", host, found);
                self.takes_time(lasts, found);
            }
            Do::RestoreDisk { host } => self.restore(host, found),
            Do::CrashAwaiting { host, .. } | Do::CrashAnswered { host, .. } => {
                self.node(host, found);
            }
            Do::Freeze { host, lasts } => {
                self.any_host(host, found);
                self.takes_time(lasts, found);
            }
            Do::Equivocate { host, lasts } => {
                self.node(host, found);
                self.takes_time(lasts, found);
            }
            Do::Cheat { host, lasts, .. } => {
                self.signer("host", host, found);
                self.takes_time(lasts, found);
                let what = "only cosigners cheat: `modes` must name modes of groups, and no other";
                found.add_if(!groups_only(self.scenario), &self.place.key("do"), what);
            }
            Do::Ceremony { threshold, members, leaving } => {
                self.ceremony(*threshold, members, leaving, found);
            }
            Do::Repair { host } => {
                self.signer("host", host, found);
                self.holds_ceremonies(found);
            }
            Do::Dkg { threshold, members } => self.ceremony(Some(*threshold), members, &[], found),
            Do::Isolate { host, lasts } => {
                self.node(host, found);
                self.peers_exist(found);
                self.takes_time(lasts, found);
            }
            Do::Partition { between, lasts, .. }
            | Do::Hold { between, lasts }
            | Do::Latency { between, lasts, .. } => {
                self.pair(between, found);
                self.takes_time(lasts, found);
            }
            Do::DropInRequest { between } | Do::DropInAnswer { between } => self.pair(between, found),
            Do::PeersAway { peers, lasts } => {
                self.peers_away(*peers, found);
                self.takes_time(lasts, found);
            }
            Do::RoughGossip { loss_percent, lasts, .. } => {
                self.peers_exist(found);
                let all = *loss_percent >= 100;
                found.add_if(all, &self.place.key("loss_percent"), "nothing would arrive: at most 99");
                self.takes_time(lasts, found);
            }
            Do::Clone { from, to } => self.clone_state(from, to, found),
            Do::Upgrade { host, to } => {
                self.node(host, found);
                found.dialect(&self.place.key("to"), to);
            }
            Do::Reload { host, chain, link, validators } => {
                self.signer("host", host, found);
                let same = chain.is_empty() && link.is_empty() && validators.is_none();
                found.add_if(same, &self.place, "nothing changes: set `chain`, `link` or `validators`");
                for (n, name) in validators.iter().flatten().enumerate() {
                    if !self.hosts.is_node(name) {
                        let place = self.place.key("validators").index(n);
                        found.unknown(&place, "node", name, &self.hosts.node_names());
                    }
                }
            }
        }
    }

    fn any_host(&self, name: &str, found: &mut Findings) -> bool {
        let known = self.hosts.host(name).is_some();
        if !known {
            found.unknown(&self.place.key("host"), "host", name, &self.hosts.names());
        }
        known
    }

    fn signer(&self, key: &str, name: &str, found: &mut Findings) {
        match self.hosts.is_node(name) {
            true => found.add(&self.place.key(key), format!("`{name}` is a node: this happens to signers")),
            false if !self.hosts.is_signer(name) => {
                found.unknown(&self.place.key(key), "signer", name, &self.hosts.signer_names());
            }
            false => {}
        }
    }

    fn device(&self, host: &str, name: Option<&str>, found: &mut Findings) {
        let signers = self.scenario.signer_hosts();
        let Some(signer) = signers.iter().find(|signer| signer.name == host) else { return };
        let there = signer.device_names();
        if let Some(name) = name.filter(|name| !there.iter().any(|other| other == name)) {
            found.unknown(&self.place.key("device"), "device", name, &there);
        }
    }

    fn node(&self, name: &str, found: &mut Findings) {
        let place = self.place.key("host");
        match self.hosts.is_signer(name) {
            true => found.add(&place, format!("`{name}` is a signer: this happens to nodes")),
            false if !self.hosts.is_node(name) => {
                found.unknown(&place, "node", name, &self.hosts.node_names())
            }
            false => {}
        }
    }

    /// A signer and a node that it serves: between others there is no connection.
    fn pair(&self, between: &[String; 2], found: &mut Findings) {
        let place = self.place.key("between");
        for (n, name) in between.iter().enumerate() {
            if self.hosts.host(name).is_none() {
                found.unknown(&place.index(n), "host", name, &self.hosts.names());
                return;
            }
        }
        let [a, b] = between;
        if self.hosts.is_signer(a) && self.hosts.is_signer(b) && groups_only(self.scenario) {
            return found.add_if(a == b, &place, "a connection is between two hosts");
        }
        let (signer, node) = match self.hosts.is_signer(a) {
            true => (a, b),
            false => (b, a),
        };
        if !self.hosts.is_signer(signer) || !self.hosts.is_node(node) {
            return found.add(&place, "a connection is between a signer and a node");
        }
        let nodes = self.scenario.node_hosts();
        let served = nodes
            .iter()
            .find(|other| other.name == *node)
            .is_some_and(|node| node.signers.is_empty() || node.signers.contains(signer));
        found.add_if(
            !served,
            &place,
            format!("`{signer}` does not serve `{node}`: it is not among its `signers`"),
        );
    }

    fn takes_time(&self, lasts: &SpanRange, found: &mut Findings) {
        found.add_if(lasts.to == Duration::ZERO, &self.place.key("for"), "it would be over at once");
    }

    fn peers(&self) -> usize {
        self.scenario.chain.validators.saturating_sub(1)
    }

    fn peers_exist(&self, found: &mut Findings) {
        found.add_if(
            self.peers() == 0,
            &self.place.key("do"),
            "the chain has no peers: it has 1 validator, ours",
        );
    }

    fn peers_away(&self, away: usize, found: &mut Findings) {
        let (place, peers) = (self.place.key("peers"), self.peers());
        found.add_if(away == 0, &place, "nobody would be away");
        found.add_if(
            away > peers,
            &place,
            format!("there are only {peers}: the chain's validators but ours"),
        );
    }

    fn restore(&self, host: &str, found: &mut Findings) {
        self.signer("host", host, found);
        let taken = self.before(|act| matches!(act, Do::Snapshot { host: of } if of == host));
        let what = format!("no `snapshot` of `{host}` comes before it");
        found.add_if(self.hosts.is_signer(host) && !taken, &self.place.key("host"), what);
    }

    fn holds_ceremonies(&self, found: &mut Findings) {
        let what = "only cosigners hold ceremonies: `modes` must name modes of groups, and no other";
        found.add_if(!groups_only(self.scenario), &self.place.key("do"), what);
    }

    fn ceremony(&self, threshold: Option<u16>, members: &[String], leaving: &[String], found: &mut Findings) {
        self.holds_ceremonies(found);
        let all: Vec<String> = members.iter().chain(leaving).cloned().collect();
        for (key, names) in [("members", members), ("leaving", leaving)] {
            for (n, name) in names.iter().enumerate().filter(|(_, name)| !self.hosts.is_signer(name)) {
                let place = self.place.key(key).index(n);
                found.unknown(&place, "signer", name, &self.hosts.signer_names());
            }
        }
        found.no_twins(&self.place.key("members"), &all);
        let place = self.place.key("threshold");
        match threshold {
            None => found.add_if(!all.is_empty(), &place, "other members take a `threshold`"),
            Some(t) => {
                let shape = Shape::new(t, u16::try_from(members.len()).unwrap_or(u16::MAX));
                let what = shape.err().map(|error| error.to_string());
                found.add_if(what.is_some(), &place, what.unwrap_or_default());
            }
        }
    }

    fn clone_state(&self, from: &str, to: &str, found: &mut Findings) {
        self.signer("from", from, found);
        self.signer("to", to, found);
        let place = self.place.key("to");
        if from == to {
            return found.add(&place, "a signer cannot be cloned to itself");
        }
        let running = self.hosts.is_signer(to) && !self.may_be_down(to);
        found.add_if(running, &place, format!("`{to}` runs already: set it `off`, or take it down before"));
    }

    /// Whether the host can be down when this act happens: off from the start, taken down, or ended by what was done to it.
    fn may_be_down(&self, name: &str) -> bool {
        self.hosts.host(name).is_some_and(|host| host.off)
            || self.before(|act| match act {
                Do::Kill { host, .. }
                | Do::PowerCut { host, .. }
                | Do::Stop { host, .. }
                | Do::CrashPoint { host, .. }
                | Do::CrashAwaiting { host, .. }
                | Do::CrashAnswered { host, .. }
                | Do::DiskFault { host, .. }
                | Do::DisplaceRecord { host, .. }
                | Do::RestoreDisk { host }
                | Do::LoseRecord { host } => host == name,
                _ => false,
            })
    }

    /// Whether such an act can have happened before this one does for the last time.
    fn before(&self, is_such: impl Fn(&Do) -> bool) -> bool {
        let When { at, every, until } = &self.act.when;
        let last = match every {
            Some(_) => until.unwrap_or(self.scenario.duration).0,
            None => at.to,
        };
        self.scenario.acts.iter().any(|other| other.when.at.from <= last && is_such(&other.act))
    }
}
