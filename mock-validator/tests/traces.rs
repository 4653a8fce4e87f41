//! The engine against recordings of real nodes: given what went into a node's consensus, it asks its signer the same.
//!
//! The recordings are in `traces/`, whose README tells how to read them; another folder can be named in
//! `MONOSIGN_TRACES`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "also in helpers, which clippy does not take for tests"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

use ed25519_dalek::SigningKey;
use mock_validator::consensus::{
    Attested, Block, Decided, Engine, Entry, Event, GaveUp, Gossip, Input, LockRule, Part, Peer, Plan, Port,
    RoundStep, Scheme, Settings, Timeout, Validator,
};
use mock_validator::network::{LocalSigner, Signer};
use monosign_protocol::message::{BlockId, Message, PartSetHeader, Proposal, Timestamp, Vote};
use monosign_protocol::{Dialect, Height, Round};

#[test]
fn traces_of_real_nodes_are_followed() {
    let traces = traces();
    assert!(!traces.is_empty());
    let mut compared = 0;
    let mut differences = Vec::new();
    for trace in &traces {
        match compare(&trace.expected(), &trace.run(LockRule::of(trace.dialect))) {
            Ok(count) => compared += count,
            Err(difference) => differences.push(format!("{}: {difference}", trace.name)),
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(compared > 10 * traces.len(), "compared {compared} requests of {} recordings", traces.len());
}

#[test]
fn traces_with_locks_tell_the_lock_rules_apart() {
    let with_locks = own_traces().into_iter().filter(|trace| trace.name.contains("-lag"));
    for trace in with_locks {
        let other = match LockRule::of(trace.dialect) {
            LockRule::Unlocking => LockRule::Paper,
            LockRule::Paper => LockRule::Unlocking,
        };
        assert!(compare(&trace.expected(), &trace.run(other)).is_err(), "{}", trace.name);
    }
}

#[test]
fn traces_without_a_request_are_not_followed() {
    let trace = own_traces().into_iter().next().unwrap();
    let asked = trace.run(LockRule::of(trace.dialect));
    let mut expected = trace.expected();
    let at = expected.iter().position(|line| line.starts_with("prevote")).unwrap();
    expected.remove(at);
    assert!(compare(&expected, &asked).is_err());
}

/// A recording: what went into consensus, and what the signer was asked.
struct Trace {
    name: String,
    dialect: Dialect,
    validator: usize,
    inputs: Vec<String>,
    requests: Vec<String>,
}

/// Those that are named in `MONOSIGN_TRACES`, or the project's own.
fn traces() -> Vec<Trace> {
    std::env::var_os("MONOSIGN_TRACES").map_or_else(own_traces, |folder| traces_in(&PathBuf::from(folder)))
}

/// The project's own: of these it is known which have locks in them.
fn own_traces() -> Vec<Trace> {
    traces_in(&PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/traces"))
}

fn traces_in(folder: &Path) -> Vec<Trace> {
    let files = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    paths.sort();
    let name = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    paths.iter().map(|path| Trace::read(name(path), &fs::read_to_string(path).unwrap())).collect()
}

impl Trace {
    fn read(name: String, text: &str) -> Self {
        let release = name.splitn(3, '.').take(2).collect::<Vec<_>>().join(".");
        let (above, below) = text.split_once("\n=\n").unwrap();
        let mut inputs = above.lines().map(str::to_owned);
        let first = inputs.next().unwrap();
        Self {
            dialect: release.parse().unwrap(),
            validator: first.strip_prefix("I ").unwrap().parse().unwrap(),
            inputs: inputs.collect(),
            requests: below.lines().map(str::to_owned).collect(),
            name,
        }
    }

    /// What the signer was asked, one line for each request. The same bytes directly after the first try are a retry,
    /// which is made below the engine (`privval/retry_signer_client.go`).
    fn expected(&self) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for request in &self.requests {
            let line = expected_line(request);
            let is_retry = request.contains(" same-bytes") && lines.last() == Some(&line);
            if !is_retry {
                lines.push(line);
            }
        }
        lines
    }

    /// What the engine asks when it is given the same.
    fn run(&self, lock_rule: LockRule) -> Vec<String> {
        let mut world = World::new(self, lock_rule);
        for line in &self.inputs {
            world.input(line);
        }
        world.recorder.asked
    }
}

/// A new block's id comes from the application, so that a proposal is compared by id only if it has a proof of lock.
fn expected_line(line: &str) -> String {
    let fields: Vec<_> = line.split(' ').collect();
    match fields[..] {
        ["Q", "proposal", height, round, _, _, "-1"] => format!("proposal {height} {round} new"),
        ["Q", "proposal", height, round, id, _, pol] => format!("proposal {height} {round} {id} {pol}"),
        ["Q", kind, height, round, id, _] => format!("{kind} {height} {round} {id}"),
        ["S" | "K"] => line.to_owned(),
        _ => panic!("unknown request: {line}"),
    }
}

/// Compares the requests between starts, and gives their number. A real node that was killed may have left undone what
/// the engine finishes: more requests before a start are no difference.
fn compare(expected: &[String], asked: &[String]) -> Result<usize, String> {
    let starts = |lines: &[String]| lines.iter().filter(|line| *line == "S").count();
    if starts(expected) != starts(asked) {
        return Err(format!("{} starts, expected {}", starts(asked), starts(expected)));
    }
    let of = |lines| <[String]>::split(lines, |line: &String| line == "S").skip(1);
    let last = starts(expected);
    for (number, (expected, asked)) in of(expected).zip(of(asked)).enumerate() {
        let is_last = number + 1 == last;
        if let Some(at) = (0..expected.len()).find(|at| asked.get(*at) != Some(&expected[*at])) {
            let asked = asked.get(at).map_or("nothing", |line| line);
            return Err(format!("start {number}, request {at}: asked {asked}, expected {}", expected[at]));
        }
        if is_last && asked.len() > expected.len() {
            return Err(format!("start {number}: asked {} besides", asked[expected.len()]));
        }
    }
    Ok(expected.len())
}

/// An engine, given a recording line by line.
struct World {
    settings: Settings,
    engine: Option<Engine>,
    log: Vec<Entry>,
    recorder: Recorder,
}

impl World {
    fn new(trace: &Trace, lock_rule: LockRule) -> Self {
        let keys: Vec<_> = (0..VALIDATORS).map(|n| SigningKey::from_bytes(&[n as u8 + 1; 32])).collect();
        let validators =
            keys.iter().map(|key| Validator { key: key.verifying_key(), scheme: Scheme::Digest });
        let chain_id = "trace".parse().unwrap();
        let settings = Settings::new(chain_id, trace.dialect, NOW, validators.collect());
        let key = keys[trace.validator].clone();
        let signer = LocalSigner::new(key, trace.dialect, Scheme::Digest).unguarded();
        Self {
            settings: Settings { lock_rule, ..settings },
            engine: None,
            log: Vec::new(),
            recorder: Recorder { signer, asked: Vec::new() },
        }
    }

    fn input(&mut self, line: &str) {
        let fields: Vec<_> = line.split(' ').collect();
        let number = |at: usize| fields[at].parse::<i64>().unwrap();
        let round = |at: usize| Round(number(at) as i32);
        match fields[0] {
            "R" => return self.start(Height(number(1))),
            "E" => return self.log.push(Entry::EndHeight(Height(number(1)))),
            "T" => {
                let (height, step) = (Height(number(1)), step(number(3)));
                return self.handle(Input::Timeout(Timeout {
                    after: Duration::ZERO,
                    height,
                    round: round(2),
                    step,
                }));
            }
            _ => {}
        }
        let height = Height(number(1));
        let (from, message) = match fields[0] {
            "P" => {
                let proposal = Proposal {
                    height,
                    round: round(2),
                    pol_round: round(3),
                    block_id: id(fields[4]),
                    timestamp: NOW,
                    ..Proposal::default()
                };
                let is_valid = fields.get(5) != Some(&"stale");
                (0, Gossip::Proposal(Rc::new(Attested::judged(proposal, is_valid))))
            }
            "B" => {
                let block = Rc::new(Block { id: id(fields[3]), height, time: NOW });
                (0, Gossip::Part(Rc::new(Part { height, round: round(2), block })))
            }
            "V" => {
                let vote =
                    vote(number(1) as i32, Height(number(2)), round(3), id(fields[4]), number(5) as usize);
                (number(5) as usize, Gossip::Vote(vote))
            }
            _ => panic!("unknown input: {line}"),
        };
        self.handle(Input::Peer(Peer(from), message));
    }

    fn start(&mut self, height: Height) {
        self.recorder.asked.push("S".to_owned());
        let before = Height(height.0 - 1);
        let last = (before.0 > 0).then(|| {
            let block = Rc::new(Block { id: id("00"), height: before, time: NOW });
            let votes = (0..VALIDATORS).map(|n| Some(vote(2, before, Round(0), block.id.clone(), n)));
            Decided { round: Round(0), commit: votes.collect(), block }
        });
        let mut engine = Engine::new(self.settings.clone(), last.as_ref());
        finish(engine.start(&self.log, &mut self.recorder));
        self.engine = Some(engine);
    }

    fn handle(&mut self, input: Input) {
        self.log.push(match input.clone() {
            Input::Peer(from, message) => Entry::Message { from: Some(from), message },
            Input::Own(message) => Entry::Message { from: None, message },
            Input::Timeout(timeout) => Entry::Timeout(timeout),
        });
        finish(self.engine.as_mut().unwrap().handle(input, &mut self.recorder));
    }
}

/// Writes down what the engine asks. What it says is dropped: the recording holds what the real node said.
struct Recorder {
    signer: LocalSigner,
    asked: Vec<String>,
}

impl Port for Recorder {
    fn now(&self) -> Timestamp {
        NOW
    }

    async fn ask(&mut self, request: &Message) -> Result<Option<Message>, GaveUp> {
        self.asked.push(match request {
            Message::PubKeyRequest(_) => "K".to_owned(),
            Message::SignVoteRequest(request) => {
                let vote = request.vote.as_ref().unwrap();
                let kind = if vote.vote_type == 1 { "prevote" } else { "precommit" };
                format!("{kind} {} {} {}", vote.height, vote.round, shown(&vote.block_id))
            }
            Message::SignProposalRequest(request) => {
                let Proposal { height, round, pol_round, block_id, .. } = request.proposal.as_ref().unwrap();
                match pol_round.0 {
                    -1 => format!("proposal {height} {round} new"),
                    pol => format!("proposal {height} {round} {} {pol}", shown(block_id)),
                }
            }
            other => panic!("asked {other:?}"),
        });
        Ok(self.signer.answer(request))
    }

    fn build_block(&mut self, plan: &Plan) -> Rc<Block> {
        Rc::new(Block { id: id("ff"), height: plan.height, time: plan.time })
    }

    fn accepts(&mut self, _: &Block) -> bool {
        true
    }

    fn extend(&mut self, _: Height, _: Round, _: &BlockId) -> Vec<u8> {
        Vec::new()
    }

    fn schedule(&mut self, _: Timeout) {}
    fn enqueue(&mut self, _: Gossip) {}
    fn publish(&mut self, _: &Gossip) {}
    fn append(&mut self, _: Entry) {}
    async fn flush(&mut self) {}
    async fn save(&mut self, _: Decided) {}
    fn report(&mut self, _: Event) {}
}

fn finish<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        std::task::Poll::Ready(done) => done,
        std::task::Poll::Pending => panic!("nothing here waits"),
    }
}

fn vote(
    vote_type: i32,
    height: Height,
    round: Round,
    block_id: BlockId,
    validator: usize,
) -> Rc<Attested<Vote>> {
    let validator_index = validator as i32;
    let vote =
        Vote { vote_type, height, round, block_id, timestamp: NOW, validator_index, ..Vote::default() };
    Rc::new(Attested::judged(vote, true))
}

/// A block by the digits that a recording shows of its hash; `-` is nil.
fn id(shown: &str) -> BlockId {
    if shown == "-" {
        return BlockId::default();
    }
    let mut hash = data_encoding::HEXLOWER.decode(shown.as_bytes()).unwrap();
    hash.resize(32, 0);
    BlockId { part_set_header: PartSetHeader { total: 1, hash: hash.clone() }, hash }
}

fn shown(id: &BlockId) -> String {
    if id.is_nil() { "-".to_owned() } else { data_encoding::HEXLOWER.encode(&id.hash[..6]) }
}

fn step(number: i64) -> RoundStep {
    let steps = [
        RoundStep::NewHeight,
        RoundStep::NewRound,
        RoundStep::Propose,
        RoundStep::Prevote,
        RoundStep::PrevoteWait,
        RoundStep::Precommit,
        RoundStep::PrecommitWait,
        RoundStep::Commit,
    ];
    steps.into_iter().find(|step| *step as i64 == number).unwrap()
}

const VALIDATORS: usize = 4;
const NOW: Timestamp = Timestamp { seconds: 1_700_000_000, nanos: 0 };
