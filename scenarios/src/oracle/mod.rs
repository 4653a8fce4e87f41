//! The judge: stands outside the signers, and sees what their keys signed, what left them and what their disks would keep.
//!
//! It trusts nothing that a signer says of itself. What a key signs is seen at the key, what is released where it arrives, and what is
//! durable on the platter of the simulated disk.

mod group;
mod latency;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use memchr::memmem;
use monosign::record::decode_file;
use monosign_protocol::message::{Message, RemoteSignerError};
use monosign_protocol::sign_bytes::{self, Canonical};
use monosign_protocol::{ChainId, Height, Hrs, Step};

use crate::disk::HostDisk;
use crate::outcome::{Invariant, Latencies, Violation};
use crate::reach::Reach;
pub use group::Group;
use latency::Samples;

/// What was seen of a run, and what did not hold.
pub struct Oracle {
    chain_id: ChainId,
    reach: Reach,
    now: Duration,
    /// What was signed, by height, round and step: all that any signer's key signed.
    signed: BTreeMap<Hrs, Vec<Signed>>,
    /// The highest that each signer's key signed.
    highest: BTreeMap<String, Hrs>,
    /// Where each signer's record stood when it started: an entry that was written and not signed any more is a floor, too.
    floors: BTreeMap<String, Hrs>,
    /// Whether a disk or a device has failed, so that more than the guard refuses.
    has_failures: bool,
    /// How far each signer may jump above that; one that is not here may do so without limit.
    jump_limits: BTreeMap<String, u64>,
    /// What each signer has skipped.
    skipped: BTreeMap<String, Skips>,
    /// What nodes were answered.
    released: BTreeMap<Hrs, Released>,
    starts: u64,
    violations: Vec<Violation>,
    samples: BTreeMap<&'static str, Samples>,
    /// The same, and those during faults.
    all_samples: BTreeMap<&'static str, Samples>,
    clones: Clones,
    double_signs: u64,
    blocks: u64,
    /// The cosigners, if the key is shared.
    group: Option<Group>,
}

/// Whether two signers may hold the same key and state, which neither of them can know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clones {
    /// No: nothing is ever signed twice.
    Never,
    /// Yes: each signer by itself never signs twice, and all of them together do.
    Expected,
    /// Yes, and they share a device that tells: it signs twice, and nobody gets a second signature.
    Withheld,
}

/// The heights that a signer has skipped.
#[derive(Debug, Clone, Copy, Default)]
struct Skips {
    /// All of them.
    all: u64,
    /// Those that the clock does not explain.
    unexplained: u64,
    /// As of this time.
    at: Duration,
}

impl Skips {
    fn unexplained_at(self, now: Duration) -> u64 {
        let explained = now.saturating_sub(self.at).as_millis() / FASTEST_BLOCK.as_millis();
        self.unexplained.saturating_sub(u64::try_from(explained).unwrap_or(u64::MAX))
    }
}

/// No chain is taken to make its blocks faster.
const FASTEST_BLOCK: Duration = Duration::from_millis(200);

struct Signed {
    by: String,
    sign_bytes: Vec<u8>,
    signature: [u8; 64],
}

#[derive(Clone, Copy)]
struct Released {
    signature: [u8; 64],
    /// How often signers had been started by then.
    starts: u64,
}

/// Enough to tell what is wrong; a signer that is wrong once is often wrong a thousand times.
const MOST_VIOLATIONS: usize = 32;

/// A world settles first.
pub const SETTLED: Duration = Duration::from_secs(5);

/// Where a world's operator moves a record to.
pub fn moved_record(record: &Path) -> PathBuf {
    record.with_added_extension("moved")
}

/// Shows `look` what a host's record holds after the worst power cut; `None` if there is none. One that was moved away after it was
/// raised is still there, under its other name: no signer starts without it.
pub fn durable_record<T>(disk: &HostDisk, record: &Path, mut look: impl FnMut(Option<&[u8]>) -> T) -> T {
    for path in [record, &moved_record(record)] {
        if let Some(seen) = disk.durable_file(path, |record| look(Some(record))) {
            return seen;
        }
    }
    look(None)
}

impl Oracle {
    /// An oracle that has seen nothing.
    pub fn new(chain_id: ChainId, clones: Clones, reach: Reach) -> Self {
        Self {
            chain_id,
            reach,
            now: Duration::ZERO,
            signed: BTreeMap::new(),
            highest: BTreeMap::new(),
            floors: BTreeMap::new(),
            has_failures: false,
            jump_limits: BTreeMap::new(),
            skipped: BTreeMap::new(),
            released: BTreeMap::new(),
            starts: 0,
            violations: Vec::new(),
            samples: BTreeMap::new(),
            all_samples: BTreeMap::new(),
            clones,
            double_signs: 0,
            blocks: 0,
            group: None,
        }
    }

    /// The simulated time since the start, from now on.
    pub fn set_now(&mut self, now: Duration) {
        self.now = now;
    }

    /// Something did not hold.
    pub fn violated(&mut self, invariant: Invariant, seen: impl Into<String>) {
        let seen = seen.into();
        tracing::info!(target: "sim::oracle", ?invariant, seen, "violated");
        if self.violations.len() < MOST_VIOLATIONS {
            self.violations.push(Violation { invariant, at_ms: self.now.as_millis() as u64, seen });
        }
    }

    /// The key of the signer `by` is asked for a signature; `record` is its record as it is on the platter.
    pub fn key_asked(&mut self, by: &str, bytes: &[u8], record: Option<&[u8]>) {
        if let Some(hrs) = place_of(bytes) {
            self.check_durable(by, hrs, bytes, record);
        }
    }

    /// The key of the signer `by` has signed.
    pub fn key_signed(&mut self, by: &str, bytes: &[u8], signature: [u8; 64]) {
        let Some(hrs) = place_of(bytes) else { return };
        tracing::trace!(target: "sim::oracle", by, %hrs, "signed");
        self.check_single(by, hrs, bytes);
        self.check_jump(by, hrs);
        self.saw_rounds(by, hrs);
        let highest = self.highest.entry(by.into()).or_insert(hrs);
        *highest = (*highest).max(hrs);
        let all = self.signed.entry(hrs).or_default();
        if !all.iter().any(|signed| signed.by == by && signed.sign_bytes == bytes) {
            all.push(Signed { by: by.into(), sign_bytes: bytes.into(), signature });
        }
    }

    fn saw_rounds(&self, by: &str, hrs: Hrs) {
        let last = self.highest.get(by);
        if last.is_some_and(|last| last.height == hrs.height && hrs.round.0 > last.round.0 + 1) {
            self.reach.hit("round skipped");
        }
    }

    fn check_durable(&mut self, by: &str, hrs: Hrs, bytes: &[u8], record: Option<&[u8]>) {
        // That what is there can be read is judged when the signer starts on it.
        let holds = record.is_some_and(|record| memmem::find(record, bytes).is_some());
        if !holds {
            let durable = record.and_then(|record| decode_file(record).ok());
            let durable = durable.map_or("no record".into(), |(_, newest)| newest.watermark.to_string());
            let seen = format!("{by} has {hrs} signed, and its disk would keep {durable}");
            self.violated(Invariant::DurableBeforeReleased, seen);
        }
    }

    fn check_jump(&mut self, by: &str, hrs: Hrs) {
        if self.jumps_too_far(by, hrs) {
            let highest = self.highest.get(by).copied().unwrap_or(hrs);
            let seen = format!("{by} signed {hrs} after {highest}, and may not jump as far");
            self.violated(Invariant::JumpsRefused, seen);
        }
        let skips = self.skips(by, hrs);
        if skips == 0 {
            return;
        }
        let so_far = self.skipped.get(by).copied().unwrap_or_default();
        let unexplained = so_far.unexplained_at(self.now).saturating_add(skips);
        let all = so_far.all.saturating_add(skips);
        self.skipped.insert(by.into(), Skips { all, unexplained, at: self.now });
        if self.jump_limits.get(by).is_some_and(|limit| unexplained > *limit) {
            let seen = format!(
                "{by} signed {hrs}: it has skipped {unexplained} heights that the clock does not explain"
            );
            self.violated(Invariant::JumpsRefused, seen);
        }
    }

    /// How many heights a signature skips. A cosigner alone signs nothing.
    fn skips(&self, by: &str, hrs: Hrs) -> u64 {
        let last = self.highest.get(by).filter(|_| self.group.is_none());
        let rise = last.map_or(0, |last| hrs.height.0.saturating_sub(last.height.0));
        u64::try_from(rise).unwrap_or(0).saturating_sub(1)
    }

    /// Whether a place is too far above what a signer signed last. The first signature is exempt.
    fn jumps_too_far(&self, by: &str, hrs: Hrs) -> bool {
        let (Some(highest), Some(limit)) = (self.highest.get(by), self.jump_limits.get(by)) else {
            return false;
        };
        u64::try_from(hrs.height.0.saturating_sub(highest.height.0)).is_ok_and(|jump| jump > *limit)
    }

    /// Whether a signer may refuse a place, because it has skipped as much before. Restarts may make it count more than the clock would.
    fn may_refuse_to_skip(&self, by: &str, hrs: Hrs) -> bool {
        let (skips, limit) = (self.skips(by, hrs), self.jump_limits.get(by));
        let all = self.skipped.get(by).map_or(0, |so_far| so_far.all);
        limit.is_some_and(|limit| skips > 0 && all.saturating_add(skips) >= *limit)
    }

    fn check_single(&mut self, by: &str, hrs: Hrs, bytes: &[u8]) {
        let others = self.signed.get(&hrs).map(Vec::as_slice).unwrap_or_default();
        let Some(other) = others.iter().find(|other| other.sign_bytes != bytes) else { return };
        if self.clones != Clones::Never && other.by != by {
            self.double_signs += 1;
            self.reach.hit(match self.clones {
                Clones::Withheld => "second signature made and withheld",
                _ => "double sign by a clone",
            });
            return;
        }
        let seen = format!("{} and {by} signed {hrs} with different bytes", other.by);
        self.violated(Invariant::OneSignature, seen);
    }

    /// A signer has started on a record at this place.
    pub fn started(&mut self, by: &str, at: &str, place: Option<Hrs>) {
        self.reach.hit("signer started");
        self.starts += 1;
        match place {
            Some(place) => self.floors.insert(by.into(), place),
            None => self.floors.remove(by),
        };
        let Some(highest) = self.highest.get(by).copied() else { return };
        if place.is_none_or(|place| place < highest) {
            let seen = format!("{by} started at {at}, and its key had signed {highest}");
            self.violated(Invariant::RecordsRise, seen);
        }
    }

    /// A signer has stopped in good order, with its record at this place: what it recorded, it must have signed.
    pub fn stopped(&mut self, by: &str, place: Option<Hrs>) {
        let is_new = place > self.floors.get(by).copied();
        // A cosigner records what it then waits for the others to sign with it.
        if is_new && place > self.highest(by) && !self.has_failures && self.group.is_none() {
            let place = place.map(|place| place.to_string()).unwrap_or_default();
            let seen = format!("{by} stopped in good order while it made the signature for {place}");
            self.violated(Invariant::RefusalsAnswered, seen);
        }
    }

    /// A disk or a device has failed.
    pub fn saw_failure(&mut self) {
        self.has_failures = true;
    }

    /// Whether a disk or a device has failed, so that signatures may have been refused.
    pub fn has_failures(&self) -> bool {
        self.has_failures
    }

    /// How far a signer may jump above what it signed last, from now on; `None` is as far as it is asked to.
    pub fn limit_jumps(&mut self, by: &str, limit: Option<u64>) {
        match limit {
            Some(limit) => self.jump_limits.insert(by.into(), limit),
            None => self.jump_limits.remove(by),
        };
    }

    /// A signer's disk was set to another state by an act: what it signed before is not held against it.
    pub fn forget(&mut self, by: &str) {
        self.highest.remove(by);
        self.skipped.remove(by);
        self.forget_shares(by);
    }

    /// What a signer's key signed last.
    pub fn highest(&self, by: &str) -> Option<Hrs> {
        self.highest.get(by).copied()
    }

    /// A signer's disk was copied to another's.
    pub fn cloned(&mut self, from: &str, to: &str) {
        match self.highest.get(from).copied() {
            Some(highest) => self.highest.insert(to.into(), highest),
            None => self.highest.remove(to),
        };
        self.skipped.remove(to);
        self.is_compromised(to);
    }

    /// A node got an answer. `undisturbed` says that no fault touches the node or its signers.
    pub fn answered(
        &mut self,
        request: &Message,
        answer: Option<&Message>,
        took: Duration,
        undisturbed: bool,
    ) {
        let Some((hrs, kind)) = asked(request) else { return };
        match answer {
            Some(answer) => match outcome_of(answer) {
                Some(Ok((signature, bytes))) => {
                    let bytes = bytes(&self.chain_id, request);
                    self.group_signed("the group", &bytes, signature);
                    self.judge_signature(hrs, signature, bytes);
                    if self.now > SETTLED {
                        self.all_samples.entry(kind).or_default().add(took);
                    }
                    if undisturbed {
                        self.samples.entry(kind).or_default().add(took);
                    }
                }
                Some(Err(error)) => self.judge_refusal(hrs, request, error, undisturbed),
                None => self
                    .violated(Invariant::RefusalsAnswered, format!("{hrs} was answered by another message")),
            },
            None => {
                self.violated(Invariant::RefusalsAnswered, format!("{hrs} was answered by an empty message"))
            }
        }
    }

    fn judge_signature(&mut self, hrs: Hrs, signature: &[u8], bytes: Vec<u8>) {
        let all = self.signed.get(&hrs).map(Vec::as_slice).unwrap_or_default();
        let Some(signed) = all.iter().find(|signed| signed.signature == signature) else {
            return self.violated(
                Invariant::SignaturesVerify,
                format!("{hrs} was answered by what the key did not sign"),
            );
        };
        if signed.sign_bytes != bytes {
            return self.violated(
                Invariant::SignaturesVerify,
                format!("{hrs} was answered by the signature of other bytes"),
            );
        }
        let signature = signed.signature;
        let released = Released { signature, starts: self.starts };
        let Some(first) = self.released.get(&hrs).copied() else {
            self.released.insert(hrs, released);
            self.blocks += u64::from(hrs.step == Step::Precommit);
            return;
        };
        // Of a group's signatures it was seen that they are of one message.
        if first.signature != signature && self.clones != Clones::Expected && self.group.is_none() {
            return self.violated(Invariant::SameAnswer, format!("{hrs} got a second signature"));
        }
        self.reach.hit("answered again");
        if first.starts < self.starts {
            self.reach.hit("answered again after a restart");
        }
    }

    fn judge_refusal(&mut self, hrs: Hrs, request: &Message, error: &RemoteSignerError, undisturbed: bool) {
        self.reach.hit("refused");
        let above = self.highest.values().chain(self.floors.values()).all(|place| hrs > *place);
        let jumps =
            self.highest.keys().any(|by| self.jumps_too_far(by, hrs) || self.may_refuse_to_skip(by, hrs));
        if above && jumps {
            self.reach.hit("height jump refused");
        }
        // The network makes a signer refuse nothing, but it may keep cosigners apart.
        let is_sound = undisturbed || (!self.has_failures && self.group.is_none());
        // Cosigners that have seen two messages of their group at one place sign nothing more, and must not.
        let may_stop = self.group.is_some() && self.double_signs > 0;
        let above = above && self.is_above_records(hrs);
        if above && !jumps && !may_stop && is_sound && request_is_sound(request) {
            let seen = format!("{hrs} is above all that was signed, and was refused: {error}");
            self.violated(Invariant::NoNeedlessRefusal, seen);
        }
    }

    /// How many precommits were released.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// For how many places nodes got signatures.
    pub fn releases(&self) -> usize {
        self.released.len()
    }

    /// The highest height that a signature was released for.
    pub fn highest_release(&self) -> Option<Height> {
        self.released.last_key_value().map(|(hrs, _)| hrs.height)
    }

    /// How often two signers of the same key signed different bytes.
    pub fn double_signs(&self) -> u64 {
        self.double_signs
    }

    /// Whether anything did not hold yet.
    pub fn is_violated(&self) -> bool {
        !self.violations.is_empty()
    }

    /// The times of answers, by kind of message.
    pub fn latencies(&self) -> BTreeMap<&'static str, Latencies> {
        self.samples.iter().map(|(kind, samples)| (*kind, samples.summary())).collect()
    }

    /// The times of answers, those during faults among them, but not while the world began.
    pub fn latencies_always(&self) -> BTreeMap<&'static str, Latencies> {
        self.all_samples.iter().map(|(kind, samples)| (*kind, samples.summary())).collect()
    }

    /// Takes out what did not hold.
    pub fn take_violations(&mut self) -> Vec<Violation> {
        std::mem::take(&mut self.violations)
    }
}

/// What is signed for. Extensions and raw bytes have domains of their own and may be signed again and again.
fn place_of(bytes: &[u8]) -> Option<Hrs> {
    Canonical::parse(bytes).map(|canonical| canonical.hrs)
}

/// What a request is for, and the name of its kind; `None` for pings and keys.
fn asked(request: &Message) -> Option<(Hrs, &'static str)> {
    let hrs = match request {
        Message::SignVoteRequest(request) => request.vote.as_ref()?.hrs()?,
        Message::SignProposalRequest(request) => request.proposal.as_ref()?.hrs(),
        _ => return None,
    };
    let kind = match hrs.step {
        Step::Proposal => "proposal",
        Step::Prevote => "prevote",
        Step::Precommit => "precommit",
    };
    Some((hrs, kind))
}

type BytesOf<'a> = Box<dyn Fn(&ChainId, &Message) -> Vec<u8> + 'a>;

/// The signature of an answer with what it must cover: the request, at the answer's time.
fn outcome_of(answer: &Message) -> Option<Result<(&[u8], BytesOf<'_>), &RemoteSignerError>> {
    match answer {
        Message::SignedVoteResponse(answer) => Some(match &answer.error {
            Some(error) => Err(error),
            None => Ok((
                &answer.vote.signature,
                Box::new(|chain_id, request| match request {
                    Message::SignVoteRequest(request) => request
                        .vote
                        .as_ref()
                        .map(|vote| sign_bytes::vote_at(chain_id.as_str(), vote, answer.vote.timestamp))
                        .unwrap_or_default(),
                    _ => Vec::new(),
                }),
            )),
        }),
        Message::SignedProposalResponse(answer) => Some(match &answer.error {
            Some(error) => Err(error),
            None => Ok((
                &answer.proposal.signature,
                Box::new(|chain_id, request| match request {
                    Message::SignProposalRequest(request) => request
                        .proposal
                        .as_ref()
                        .map(|p| sign_bytes::proposal_at(chain_id.as_str(), p, answer.proposal.timestamp))
                        .unwrap_or_default(),
                    _ => Vec::new(),
                }),
            )),
        }),
        _ => None,
    }
}

/// Whether CometBFT's own signer would take the request, its height, round and step aside.
fn request_is_sound(request: &Message) -> bool {
    match request {
        Message::SignVoteRequest(request) => request.vote.as_ref().is_some_and(|vote| {
            let is_block_precommit = vote.vote_type == 2 && !vote.block_id.is_nil();
            vote.extension.is_empty() || is_block_precommit
        }),
        _ => true,
    }
}
