//! What cosigners promise, each by itself, and what the group does together.
//!
//! A cosigner gives shares for one message at each place and for none below what it gave one for; its record is durable before a share
//! leaves. The group signs one message at each place: its signatures may differ in their timestamps alone. Each is looked at where it
//! leaves a process, and verified here.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::rc::Rc;

use ed25519_dalek::{Signature, VerifyingKey};
use memchr::memmem;
use monosign::record::decode_file;
use monosign::threshold::asked::Subject;
use monosign::threshold::incarnation::{Incarnation, Lives};
use monosign_protocol::message::{Proposal, Vote};
use monosign_protocol::sign_bytes::{self, Canonical};
use monosign_protocol::{ChainId, Hrs, Step};

use super::{Clones, Oracle, Signed, durable_record};
use crate::disk::HostDisk;
use crate::outcome::Invariant;

/// What the oracle knows of a group.
pub struct Group {
    /// How many cosigners it takes.
    pub threshold: usize,
    /// The key that all groups of the world sign for.
    pub key: VerifyingKey,
    /// Where records lie.
    pub record: PathBuf,
    /// The cosigners' disks.
    pub disks: BTreeMap<String, Rc<HostDisk>>,
    /// What each cosigner gave shares for.
    shares: BTreeMap<(String, Hrs), Canonical>,
    /// The latest life of each peer that each cosigner has let in.
    lives: BTreeMap<(String, [u8; 32]), Incarnation>,
    /// Whose disk was set back or copied to, or who cheats: its record need not be behind a signature.
    compromised: BTreeSet<String>,
    /// What shares were made with, and which session asked for it.
    nonces: Nonces,
}

/// What signers have committed themselves to, as bytes: each is good for one share, in one set of signers, for one message.
#[derive(Default)]
struct Nonces {
    /// Which session each belongs to.
    sessions: BTreeMap<Vec<u8>, u64>,
    /// What each session is: how many sign, and what.
    begun: BTreeMap<u64, (usize, Subject)>,
    next: u64,
    /// What a share was made with.
    used: BTreeSet<Vec<u8>>,
    /// What a cheat has offered again: that is no mistake of whoever takes it.
    replayed: BTreeSet<Vec<u8>>,
    /// In the order in which they came: the oldest are forgotten, which nobody uses any more.
    order: VecDeque<Vec<u8>>,
}

/// How many commitments are remembered.
const REMEMBERED: usize = 1 << 16;

impl Nonces {
    /// A set of signers is asked for shares. False if one of them takes part in another session with the same commitments.
    fn session(&mut self, set: &BTreeSet<Vec<u8>>, subject: &Subject) -> bool {
        let known: BTreeSet<Option<u64>> = set
            .iter()
            .filter(|commitments| !self.replayed.contains(*commitments))
            .map(|commitments| self.sessions.get(commitments).copied())
            .collect();
        let is_of = |session: &u64| {
            self.begun.get(session).is_some_and(|(size, of)| *size == set.len() && of == subject)
        };
        match known.iter().collect::<Vec<_>>().as_slice() {
            [] => return true,
            [None] => {}
            [Some(session)] => return is_of(session),
            _ => return false,
        }
        self.next += 1;
        self.begun.insert(self.next, (set.len(), subject.clone()));
        for commitments in set {
            self.sessions.insert(commitments.clone(), self.next);
            self.remember(commitments.clone());
        }
        true
    }

    /// A share is made. False if there was one with the same commitments.
    fn share(&mut self, commitments: &[u8]) -> bool {
        if self.replayed.contains(commitments) {
            return true;
        }
        self.remember(commitments.to_vec());
        self.used.insert(commitments.to_vec())
    }

    fn remember(&mut self, commitments: Vec<u8>) {
        self.order.push_back(commitments);
        while self.order.len() > REMEMBERED {
            let Some(oldest) = self.order.pop_front() else { return };
            self.used.remove(&oldest);
            if let Some(session) = self.sessions.remove(&oldest) {
                self.begun.remove(&session);
            }
        }
    }
}

impl Group {
    /// A group of cosigners on these disks.
    pub fn new(
        threshold: usize,
        key: VerifyingKey,
        record: PathBuf,
        disks: BTreeMap<String, Rc<HostDisk>>,
    ) -> Self {
        let (shares, lives, compromised) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        let nonces = Nonces::default();
        Self { threshold, key, record, disks, shares, lives, compromised, nonces }
    }

    /// Whether the platter of a cosigner holds a message, but perhaps for its timestamp, or stands above it.
    fn stands_by(&self, host: &str, bytes: &[u8], message: &Canonical) -> bool {
        let holds = |record: &[u8]| {
            memmem::find(record, bytes).is_some()
                || decode_file(record).is_ok_and(|(_, newest)| {
                    let watermark = newest.watermark;
                    let at = (watermark.height, watermark.round, watermark.step);
                    let asked = (message.hrs.height, message.hrs.round, Some(message.hrs.step));
                    let signed = watermark.signed.and_then(|signed| Canonical::parse(&signed.sign_bytes));
                    at > asked || signed.is_some_and(|signed| is_alike(&signed, message))
                })
        };
        self.disks
            .get(host)
            .is_some_and(|disk| durable_record(disk, &self.record, |record| record.is_some_and(holds)))
    }

    /// Whether the platter of a cosigner has a peer in this life.
    fn has_fenced(&self, host: &str, life: Incarnation) -> bool {
        let has = |lives: &[u8]| {
            serde_json::from_slice::<Lives>(lives)
                .is_ok_and(|lives| lives.peers.values().any(|of| *of == life))
        };
        let path = Lives::path(&self.record);
        self.disks.get(host).and_then(|disk| disk.durable_file(&path, has)).unwrap_or(false)
    }

    /// The highest place that any record stands at.
    fn highest_record(&self) -> Option<Hrs> {
        let of = |disk: &Rc<HostDisk>| {
            let place = |record: &[u8]| {
                let watermark = decode_file(record).ok()?.1.watermark;
                let step = watermark.step?;
                Some(Hrs { height: watermark.height, round: watermark.round, step })
            };
            disk.cached_file(&self.record, place).flatten()
        };
        self.disks.values().filter_map(of).max()
    }
}

impl Oracle {
    /// From now on the key is taken for one that cosigners share.
    pub fn set_group(&mut self, group: Group) {
        self.group = Some(group);
    }

    /// A ceremony has changed how many cosigners it takes.
    pub fn set_threshold(&mut self, threshold: usize) {
        if let Some(group) = &mut self.group {
            group.threshold = threshold;
        }
    }

    /// A cosigner's disk was set back or copied to, or it cheats.
    pub fn is_compromised(&mut self, host: &str) {
        if let Some(group) = &mut self.group {
            group.compromised.insert(host.into());
        }
    }

    /// What a cosigner gave shares for before its disk was set back is not held against it.
    pub(super) fn forget_shares(&mut self, by: &str) {
        if let Some(group) = &mut self.group {
            group.shares.retain(|(host, _), _| host != by);
            group.lives.retain(|(host, _), _| host != by);
        }
        self.is_compromised(by);
    }

    /// A cosigner has let a peer in that says that it is in this life.
    pub fn welcomed(&mut self, by: &str, peer: [u8; 32], life: Incarnation) {
        let Some(group) = &mut self.group else { return };
        let known = group.lives.entry((by.into(), peer)).or_insert(life);
        let is_earlier = life < *known;
        *known = life.max(*known);
        if !group.has_fenced(by, life) {
            let seen =
                format!("{by} let a cosigner in, and its disk would not keep that those before are refused");
            self.violated(Invariant::Fenced, seen);
        } else if is_earlier {
            let seen = format!("{by} let an earlier life of a cosigner in, which it had refused for ever");
            self.violated(Invariant::Fenced, seen);
        }
    }

    /// A coordinator asks a set of signers, itself perhaps among them, for shares; `set` is what they have committed themselves to.
    pub fn session_asked(&mut self, by: &str, set: &BTreeSet<Vec<u8>>, subject: &Subject) {
        let Some(group) = &mut self.group else { return };
        if !group.nonces.session(set, subject) {
            let seen = format!("{by} asked for shares with nonces of another session");
            self.violated(Invariant::NonceOnce, seen);
        }
    }

    /// A share is made with what its signer has committed itself to.
    pub fn share_made(&mut self, by: &str, commitments: &[u8]) {
        let Some(group) = &mut self.group else { return };
        if !group.nonces.share(commitments) {
            self.violated(Invariant::NonceOnce, format!("{by} made two shares with one nonce"));
        }
    }

    /// A signer that cheats has offered this before.
    pub fn offered_again(&mut self, commitments: &[u8]) {
        if let Some(group) = &mut self.group {
            group.nonces.replayed.insert(commitments.to_vec());
        }
    }

    /// A share leaves a cosigner; `before` is the highest place that it had given a share for when it was asked.
    pub fn share_left(&mut self, by: &str, subject: &Subject, before: Option<Hrs>) {
        let (bytes, is_message) = match subject {
            Subject::Message(bytes) => (bytes, true),
            Subject::Extension { vote, .. } => (vote, false),
            Subject::Raw(bytes) if Canonical::parse(bytes).is_some() => {
                let seen = format!("{by} gave a share for a consensus message as raw bytes");
                return self.violated(Invariant::OneSignature, seen);
            }
            _ => return,
        };
        let Some(message) = Canonical::parse(bytes).filter(|of| canonical_form(of) == *bytes) else {
            let seen = format!("{by} gave a share for what nobody can read");
            return self.violated(Invariant::OneSignature, seen);
        };
        let hrs = message.hrs;
        if !message.chain_id.is(self.chain_id.as_str()) {
            let seen = format!("{by} gave a share for {hrs} of chain {}", message.chain_id);
            return self.violated(Invariant::OneSignature, seen);
        }
        tracing::trace!(target: "sim::oracle", by, %hrs, is_message, "share");
        let Some(group) = &mut self.group else { return };
        if !group.stands_by(by, bytes, &message) {
            let seen = format!("{by} gave a share for {hrs}, and its disk would not keep that");
            self.violated(Invariant::DurableBeforeReleased, seen);
            return;
        }
        let first = group.shares.entry((by.into(), hrs)).or_insert_with(|| message.clone());
        if !is_alike(first, &message) {
            let seen = format!("{by} gave shares for two messages at {hrs}");
            return self.violated(Invariant::OneSignature, seen);
        }
        // The extension of a vote may be asked for again as long as the record stands by the vote.
        if before.is_some_and(|before| hrs < before) {
            let seen = format!("{by} gave a share for {hrs} after one for a higher place");
            return self.violated(Invariant::OneSignature, seen);
        }
        self.check_jump_of_group(by, hrs);
        self.saw_rounds(by, hrs);
        let highest = self.highest.entry(by.into()).or_insert(hrs);
        *highest = (*highest).max(hrs);
    }

    /// Jumps are measured from the highest that the group has signed: no cosigner may know of more.
    fn check_jump_of_group(&mut self, by: &str, hrs: Hrs) {
        let (Some((highest, _)), Some(limit)) = (self.signed.last_key_value(), self.jump_limits.get(by))
        else {
            return;
        };
        let highest = *highest;
        if u64::try_from(hrs.height.0.saturating_sub(highest.height.0)).is_ok_and(|jump| jump > *limit) {
            let seen = format!("{by} gave a share for {hrs} after {highest}, and may not jump as far");
            self.violated(Invariant::JumpsRefused, seen);
        }
    }

    /// A signature leaves a cosigner, or comes to a node.
    pub fn group_signed(&mut self, by: &str, bytes: &[u8], signature: &[u8]) {
        let Some(group) = &self.group else { return };
        let Ok(signature) = <[u8; 64]>::try_from(signature) else { return };
        let Some(message) = Canonical::parse(bytes) else { return };
        let hrs = message.hrs;
        let all = self.signed.get(&hrs).map(Vec::as_slice).unwrap_or_default();
        if all.iter().any(|signed| signed.signature == signature && signed.sign_bytes == bytes) {
            return;
        }
        // Whoever hears one that is none does not believe it; what a node is answered is judged elsewhere.
        if group.key.verify_strict(bytes, &Signature::from_bytes(&signature)).is_err() {
            return;
        }
        tracing::trace!(target: "sim::oracle", by, %hrs, "the group has signed");
        let behind = group.disks.keys().filter(|host| group.stands_by(host, bytes, &message)).count();
        let needed = group.threshold.saturating_sub(group.compromised.len());
        let alike =
            |signed: &Signed| Canonical::parse(&signed.sign_bytes).is_some_and(|of| is_alike(&of, &message));
        let is_second = !all.is_empty() && !all.iter().any(alike);
        let is_other_time = all.iter().any(|signed| alike(signed) && signed.sign_bytes != bytes);
        let signed = Signed { by: by.into(), sign_bytes: bytes.into(), signature };
        self.signed.entry(hrs).or_default().push(signed);
        if is_other_time {
            self.reach.hit("one message signed with two timestamps");
        }
        if is_second && self.clones == Clones::Expected {
            self.double_signs += 1;
            self.reach.hit("double sign by a group");
        } else if is_second {
            self.violated(Invariant::OneSignature, format!("the group signed two messages at {hrs}"));
        }
        if behind < needed {
            let seen = format!("the group signed {hrs}, and {behind} disks would keep that");
            self.violated(Invariant::DurableBeforeReleased, seen);
        }
    }

    /// Whether a place is above all that the cosigners' records stand at.
    pub(super) fn is_above_records(&self, hrs: Hrs) -> bool {
        let highest = self.group.as_ref().and_then(Group::highest_record);
        highest.is_none_or(|highest| hrs > highest)
    }
}

/// Whether two messages differ in their timestamps at the most.
fn is_alike(one: &Canonical, other: &Canonical) -> bool {
    (one.hrs, one.pol_round, &one.block_id, &one.chain_id)
        == (other.hrs, other.pol_round, &other.block_id, &other.chain_id)
}

/// The bytes that a message must have.
fn canonical_form(message: &Canonical) -> Vec<u8> {
    let Canonical { hrs: Hrs { height, round, step }, pol_round, block_id, timestamp, chain_id } =
        message.clone();
    let Ok(chain_id) = chain_id.to_string().parse::<ChainId>() else { return Vec::new() };
    let vote_type = match step {
        Step::Proposal => {
            let proposal = Proposal { height, round, pol_round, block_id, timestamp, ..Proposal::default() };
            return sign_bytes::proposal(chain_id.as_str(), &proposal);
        }
        Step::Prevote => 1,
        Step::Precommit => 2,
    };
    let vote = Vote { vote_type, height, round, block_id, timestamp, ..Vote::default() };
    sign_bytes::vote(chain_id.as_str(), &vote)
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use monosign_protocol::Height;
    use monosign_protocol::message::{BlockId, PartSetHeader, Timestamp};

    use super::*;
    use monosign::threshold::rounds::MemberId;

    use crate::reach::Reach;
    use crate::scenario::SpanRange;
    use crate::streams::Streams;

    const CHAIN: &str = "test-1";

    /// Two cosigners with empty disks.
    fn oracle() -> Oracle {
        let disk = |name: &str| {
            let latency = SpanRange::millis(0, 0);
            let disk = HostDisk::new(name, latency, Streams::new(1).of(name), Reach::default());
            (name.to_owned(), disk)
        };
        let key = SigningKey::from_bytes(&[7; 32]).verifying_key();
        let mut oracle = Oracle::new(CHAIN.parse().unwrap(), Clones::Never, Reach::default());
        oracle.set_group(Group::new(2, key, "/record".into(), [disk("one"), disk("two")].into()));
        oracle
    }

    fn prevote(block: u8) -> Vec<u8> {
        let part_set_header = PartSetHeader { total: 1, hash: vec![block; 32] };
        let vote = Vote {
            vote_type: 1,
            height: Height(5),
            block_id: BlockId { hash: vec![block; 32], part_set_header },
            timestamp: Timestamp { seconds: 9, nanos: 0 },
            ..Vote::default()
        };
        sign_bytes::vote(CHAIN, &vote)
    }

    fn seen(oracle: &mut Oracle) -> Vec<Invariant> {
        oracle.take_violations().into_iter().map(|violation| violation.invariant).collect()
    }

    #[test]
    fn a_share_that_no_disk_would_keep_is_held_against_its_cosigner() {
        let mut oracle = oracle();
        oracle.share_left("one", &Subject::Message(prevote(1)), None);
        assert_eq!(seen(&mut oracle), [Invariant::DurableBeforeReleased]);
    }

    #[test]
    fn a_share_for_bytes_that_can_be_read_in_two_ways_is_held_against_its_cosigner() {
        let mut oracle = oracle();
        let mut bytes = prevote(1);
        bytes[0] += 2;
        bytes.extend([0x48, 0x01]);
        oracle.share_left("one", &Subject::Message(bytes), None);
        oracle.share_left("one", &Subject::Raw(prevote(1)), None);
        assert_eq!(seen(&mut oracle), [Invariant::OneSignature; 2]);
    }

    #[test]
    fn signatures_are_counted_only_if_they_verify_and_none_may_be_for_another_block() {
        let mut oracle = oracle();
        let key = SigningKey::from_bytes(&[7; 32]);
        let sign = |block| ed25519_dalek::Signer::sign(&key, &prevote(block)).to_bytes();
        ["one", "two"].iter().for_each(|host| oracle.is_compromised(host));
        oracle.group_signed("one", &prevote(1), &sign(1));
        oracle.group_signed("one", &prevote(2), &sign(1));
        assert_eq!(seen(&mut oracle), []);
        oracle.group_signed("two", &prevote(2), &sign(2));
        assert_eq!(seen(&mut oracle), [Invariant::OneSignature]);
    }

    #[test]
    fn a_signature_takes_as_many_disks_as_sign() {
        let mut oracle = oracle();
        let signature = ed25519_dalek::Signer::sign(&SigningKey::from_bytes(&[7; 32]), &prevote(1));
        oracle.group_signed("one", &prevote(1), &signature.to_bytes());
        assert_eq!(seen(&mut oracle), [Invariant::DurableBeforeReleased]);
    }

    #[test]
    fn an_earlier_life_that_is_let_in_again_is_held_against_whoever_lets_it_in() {
        let mut oracle = oracle();
        let life = |count| Incarnation { count, id: 0 };
        let fence = |oracle: &mut Oracle, host: &str, count| {
            let peers = [(MemberId(1), life(count))].into();
            let lives = serde_json::to_vec(&Lives { peers, ..Lives::default() }).unwrap();
            let group = oracle.group.as_ref().unwrap();
            group.disks[host].write_file(Lives::path(&group.record), &lives);
        };
        for count in [3, 4, 4] {
            fence(&mut oracle, "one", count);
            oracle.welcomed("one", [1; 32], life(count));
        }
        fence(&mut oracle, "two", 3);
        oracle.welcomed("two", [1; 32], life(3));
        assert_eq!(seen(&mut oracle), []);
        fence(&mut oracle, "one", 3);
        oracle.welcomed("one", [1; 32], life(3));
        assert_eq!(seen(&mut oracle), [Invariant::Fenced]);
        oracle.welcomed("two", [1; 32], life(5));
        assert_eq!(seen(&mut oracle), [Invariant::Fenced], "its disk does not have it");
    }

    #[test]
    fn commitments_belong_to_one_set_and_one_message_whoever_made_them() {
        let set = |of: &[u8]| of.iter().map(|byte| vec![*byte; 64]).collect::<BTreeSet<_>>();
        let (one, other) = (Subject::Message(prevote(1)), Subject::Message(prevote(2)));
        let mut oracle = oracle();
        // Each of the others is asked, with all of the set.
        oracle.session_asked("one", &set(&[1, 2, 3]), &one);
        oracle.session_asked("one", &set(&[1, 2, 3]), &one);
        oracle.session_asked("one", &set(&[4, 5]), &other);
        assert_eq!(seen(&mut oracle), []);
        for (again, subject) in
            [([1, 2, 3].as_slice(), &other), (&[1, 6], &one), (&[1, 2], &one), (&[4, 1], &other)]
        {
            oracle.session_asked("one", &set(again), subject);
            assert_eq!(seen(&mut oracle), [Invariant::NonceOnce], "{again:?}");
        }
        oracle.share_made("one", &[1; 64]);
        assert_eq!(seen(&mut oracle), []);
        oracle.share_made("two", &[1; 64]);
        assert_eq!(seen(&mut oracle), [Invariant::NonceOnce]);
        // What a cheat offers again is the cheat's.
        oracle.offered_again(&[2; 64]);
        oracle.session_asked("one", &set(&[7, 2]), &one);
        assert_eq!(seen(&mut oracle), []);
    }
}
