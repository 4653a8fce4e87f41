//! The network: chaos without forks, equal runs from equal seeds, and an oracle that sees double signs.
#![allow(clippy::unwrap_used, reason = "also in helpers, which clippy does not take for tests")]

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use mock_validator::consensus::{Peer, Scheme, Settings, Timeouts};
use mock_validator::network::{
    Behaviour, Faults, Latency, LocalSigner, Network, NodeOptions, Options, SharedSigner, Signer, Stream,
    Violation,
};
use monosign_protocol::message::Message;
use monosign_protocol::{Dialect, Height};

#[test]
fn chaos_makes_neither_forks_nor_double_signs_and_everybody_catches_up() {
    let mut heights = 0;
    for seed in 0..300 {
        let dialect = Dialect::ALL[seed as usize % Dialect::ALL.len()];
        let network = chaos(seed, dialect, &|options, validator| options.node(options.signer(validator)));
        assert!(network.violations().is_empty(), "seed {seed}: {:?}", network.violations());
        let counts = network.counts();
        assert_eq!((counts.halted, counts.conflicting_votes), (0, 0), "seed {seed}");
        heights += network.lowest_height().0;
    }
    assert!(heights > 300 * 20, "{heights} heights in all");
}

#[test]
fn equal_seeds_make_equal_runs() {
    let run = |seed| {
        let network =
            chaos(seed, Dialect::V0_38, &|options, validator| options.node(options.signer(validator)));
        (network.digest(), network.counts(), network.lowest_height())
    };
    for seed in 0..10 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
    assert_ne!(run(1).0, run(2).0);
}

#[test]
fn a_twin_behind_the_same_guard_signs_nothing_twice() {
    for seed in 0..40 {
        let network = twins(seed, true);
        assert!(network.violations().is_empty(), "seed {seed}: {:?}", network.violations());
        assert!(network.counts().refused > 0, "seed {seed}: both ask");
        assert!(network.lowest_height() > Height(10), "seed {seed}");
    }
}

#[test]
fn a_twin_without_a_guard_is_seen_to_sign_twice() {
    let seen = |seed| {
        let network = twins(seed, false);
        network
            .violations()
            .iter()
            .any(|violation| matches!(violation, Violation::Equivocation { validator: 3, .. }))
    };
    assert!((0..40).filter(|seed| seen(*seed)).count() > 20);
}

#[test]
fn an_equivocating_validator_is_seen_and_makes_no_fork() {
    let mut seen_by_nodes = 0;
    for seed in 0..20 {
        let options = quick(seed, Dialect::V0_38);
        let mut network = Network::new(options.settings(4), &options);
        for validator in 0..3 {
            network.add_node(options.node(options.signer(validator)));
        }
        let signer = options.signer(3).unguarded();
        network.add_node(NodeOptions { behaviour: Behaviour::Equivocating, ..options.node(signer) });
        network.advance_to(Duration::from_secs(120));
        let violations = network.violations();
        let is_of_3 =
            |violation: &Violation| matches!(violation, Violation::Equivocation { validator: 3, .. });
        assert!(!violations.is_empty() && violations.iter().all(is_of_3), "seed {seed}: {violations:?}");
        seen_by_nodes += network.counts().conflicting_votes;
    }
    assert!(seen_by_nodes > 0);
}

#[test]
fn half_a_network_decides_nothing_and_goes_on_when_it_heals() {
    let mut network = Network::of_validators(4, quick(1, Dialect::V0_38));
    network.advance_to(Duration::from_secs(20));
    network.partition(&[Peer(0), Peer(1)]);
    network.advance_to(Duration::from_secs(22));
    let before = network.lowest_height();
    network.advance_to(Duration::from_secs(60));
    assert!(network.lowest_height().0 <= before.0 + 1);
    network.heal();
    network.advance_to(Duration::from_secs(120));
    assert!(network.lowest_height().0 > before.0 + 20);
}

#[test]
fn a_node_that_is_not_heard_catches_up_when_it_is() {
    let mut network = Network::of_validators(4, quick(1, Dialect::V0_38));
    for peer in 0..3 {
        network.cut(Peer(3), Peer(peer));
    }
    network.advance_to(Duration::from_secs(60));
    let before = network.height(Peer(0));
    assert!(before > Height(15), "three of four go on: {before}");
    network.heal();
    network.advance_to(Duration::from_secs(70));
    assert!(network.height(Peer(3)) > before);
}

#[test]
fn a_node_without_its_log_asks_nothing_that_a_guard_must_sign() {
    let mut network = Network::of_validators(4, quick(5, Dialect::V0_38));
    network.advance_to(Duration::from_secs(30));
    network.crash(Peer(2), Duration::from_millis(500));
    network.lose_log(Peer(2));
    network.advance_to(Duration::from_secs(60));
    assert!(network.violations().is_empty());
    assert!(network.lowest_height() > Height(40));
}

#[test]
fn restarts_with_new_transactions_ask_for_honest_conflicts() {
    let refused = |new_transactions| {
        let options = quick(3, Dialect::V0_38);
        let mut network = Network::new(options.settings(4), &options);
        for validator in 0..4 {
            let mut node = options.node(options.signer(validator));
            node.app.new_transactions = new_transactions;
            network.add_node(node);
        }
        network.set_faults(Faults { death_in_ask: 20_000, ..Faults::default() });
        network.advance_to(Duration::from_secs(600));
        assert!(network.violations().is_empty());
        network.counts().refused
    };
    assert!(refused(true) > refused(false));
}

#[test]
fn requests_show_what_real_nodes_ask() {
    let mut seen = Seen::default();
    for seed in 0..60 {
        let asked: Rc<RefCell<Vec<Message>>> = Rc::default();
        let tap = Rc::clone(&asked);
        laggards(seed, &move |options, validator| {
            let signer = options.signer(validator);
            match validator {
                3 => options.node(Tap { signer, asked: Rc::clone(&tap) }),
                _ => options.node(signer),
            }
        });
        seen.add(&asked.borrow());
    }
    assert!(seen.re_proposals > 0, "{seen:?}");
    assert!(seen.later_rounds > 0, "{seen:?}");
    assert!(seen.nil_precommits_without_prevote > 0, "{seen:?}");
    assert!(seen.steps_back > 0, "{seen:?}");
    assert!(seen.same_but_time > 0, "{seen:?}");
}

/// Four validators for some minutes of partitions, loss, crashes and bad answers, then some of peace.
fn chaos(seed: u64, dialect: Dialect, node: &dyn Fn(&Options, usize) -> NodeOptions) -> Network {
    let options = Options { extensions: seed.is_multiple_of(2), ..quick(seed, dialect) };
    let mut network = Network::new(options.settings(4), &options);
    for validator in 0..4 {
        network.add_node(node(&options, validator));
    }
    // Two precommits that are never signed stop four validators for good: no timer runs while less than two thirds
    // precommitted. Real networks then wait for operators, so these restart their nodes at the end.
    let errors = seed % 4 < 2;
    let mut chance = Stream::new(seed, "chaos", [0, 0]);
    let mut now = Duration::ZERO;
    for _ in 0..12 {
        network.set_faults(Faults {
            loss: chance.below(400_000) as u32,
            death_in_ask: chance.below(10_000) as u32,
            death_in_flush: chance.below(5_000) as u32,
            death_in_save: chance.below(10_000) as u32,
            lost_answer: 10_000,
            error_answer: if errors { 10_000 } else { 0 },
            slow_answer: 10_000,
        });
        let (one, other) = (Peer(chance.below(4) as usize), Peer(chance.below(4) as usize));
        match chance.below(6) {
            0 => network.partition(&[one]),
            1 => network.partition(&[one, other]),
            2 => network.cut(one, other),
            3 => network.crash(one, Duration::from_millis(chance.below(8_000))),
            4 => {
                let max = Duration::from_millis(chance.below(3_000));
                network.set_latency(one, other, Latency { min: Duration::ZERO, max });
            }
            _ => {}
        }
        now += Duration::from_millis(1_000 + chance.below(14_000));
        network.advance_to(now);
        if chance.below(2) == 0 {
            network.heal();
        }
    }
    network.set_faults(Faults::default());
    network.heal();
    for peer in (0..4).filter(|_| errors) {
        network.crash(Peer(peer), Duration::from_millis(500 * peer as u64));
    }
    let before = network.lowest_height();
    network.advance_to(now + Duration::from_secs(90));
    assert!(
        network.lowest_height().0 > before.0 + 10,
        "seed {seed}: from {before} to {}",
        network.lowest_height()
    );
    let heights: Vec<_> = (0..4).map(|peer| network.height(Peer(peer)).0).collect();
    let spread = heights.iter().max().unwrap() - heights.iter().min().unwrap();
    assert!(spread <= 2, "seed {seed}: {heights:?}");
    network
}

/// Four validators on links that are slow and uneven, with a node that dies now and then.
fn laggards(seed: u64, node: &dyn Fn(&Options, usize) -> NodeOptions) -> Network {
    let options = quick(seed, Dialect::V0_38);
    let ms = Duration::from_millis;
    let timeouts =
        Timeouts { propose: ms(1_000), prevote: ms(300), precommit: ms(300), ..Timeouts::default() };
    let settings = Settings { timeouts, ..options.settings(4) };
    let mut network = Network::new(settings, &options);
    for validator in 0..4 {
        network.add_node(node(&options, validator));
    }
    let mut chance = Stream::new(seed, "laggards", [0, 0]);
    for (from, to) in (0..16).map(|n| (Peer(n / 4), Peer(n % 4))) {
        let max = ms(chance.below(1_200));
        network.set_latency(from, to, Latency { min: Duration::ZERO, max });
    }
    network.set_faults(Faults { loss: 100_000, death_in_ask: 2_000, ..Faults::default() });
    network.advance_to(Duration::from_secs(300));
    network
}

/// Four validators, and a fifth node with the key of the fourth. The twins see different halves of the network.
fn twins(seed: u64, guarded: bool) -> Network {
    let options = quick(seed, Dialect::V0_38);
    let mut network = Network::new(options.settings(4), &options);
    for validator in 0..3 {
        network.add_node(options.node(options.signer(validator)));
    }
    let signer = if guarded { options.signer(3) } else { options.signer(3).unguarded() };
    let shared: SharedSigner = Rc::new(RefCell::new(signer));
    for _ in 0..2 {
        let node = options.node(options.signer(3));
        network.add_node(NodeOptions { signer: Rc::clone(&shared), ..node });
    }
    let slow = Latency { min: Duration::ZERO, max: Duration::from_secs(3) };
    network.set_latency(Peer(0), Peer(4), slow);
    network.set_latency(Peer(1), Peer(4), slow);
    network.set_faults(Faults { loss: 200_000, ..Faults::default() });
    network.advance_to(Duration::from_secs(120));
    network
}

/// Without curve arithmetic.
fn quick(seed: u64, dialect: Dialect) -> Options {
    Options { scheme: Scheme::Digest, ..Options::new("chaos".parse().unwrap(), dialect, seed) }
}

/// A signer that keeps what it was asked.
struct Tap {
    signer: LocalSigner,
    asked: Rc<RefCell<Vec<Message>>>,
}

impl Signer for Tap {
    fn answer(&mut self, request: &Message) -> Option<Message> {
        self.asked.borrow_mut().push(request.clone());
        self.signer.answer(request)
    }
}

/// How often kinds of requests were seen.
#[derive(Debug, Default)]
struct Seen {
    re_proposals: u32,
    later_rounds: u32,
    nil_precommits_without_prevote: u32,
    steps_back: u32,
    same_but_time: u32,
}

impl Seen {
    fn add(&mut self, asked: &[Message]) {
        let mut last = None;
        for request in asked {
            let (hrs, is_nil, time, pol_round) = match request {
                Message::SignVoteRequest(request) => {
                    let vote = request.vote.as_ref().unwrap();
                    (vote.hrs().unwrap(), vote.block_id.is_nil(), vote.timestamp, -1)
                }
                Message::SignProposalRequest(request) => {
                    let proposal = request.proposal.as_ref().unwrap();
                    (proposal.hrs(), false, proposal.timestamp, proposal.pol_round.0)
                }
                _ => continue,
            };
            self.re_proposals += u32::from(pol_round >= 0);
            self.later_rounds += u32::from(hrs.round.0 > 0);
            if let Some((before, before_time)) = last.replace((hrs, time)) {
                let skips_prevote = (before.height, before.round) != (hrs.height, hrs.round);
                let is_precommit = hrs.step == monosign_protocol::Step::Precommit;
                self.nil_precommits_without_prevote += u32::from(is_nil && is_precommit && skips_prevote);
                self.steps_back += u32::from(hrs < before);
                self.same_but_time += u32::from(hrs == before && time != before_time);
            }
        }
    }
}
