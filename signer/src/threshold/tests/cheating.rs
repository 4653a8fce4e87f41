//! Cosigners that cheat: what a group bears, and that it does not bear more.

use std::collections::BTreeMap;
use std::rc::Rc;

use curve25519_dalek::constants::EIGHT_TORSION;
use curve25519_dalek::edwards::CompressedEdwardsY;

use super::rig::{Rig, chain, prevote};
use super::signing::shape;
use crate::chain::RawSigning;
use crate::record::Permit;
use crate::seams::Entropy;
use crate::threshold::asked::{Asked, Subject};
use crate::threshold::commitments;
use crate::threshold::cosigner::{ConnId, Effect, Event, Note};
use crate::threshold::deal::subsets;
use crate::threshold::frost;
use crate::threshold::group::Shape;
use crate::threshold::incarnation::Incarnation;
use crate::threshold::message::{Hello, Place, Reply, Request, Signer, VERSION, Why};
use crate::threshold::rounds::{self, Commitments, MemberId, NonceMaker, Shares};

/// A member without a guard, who asks anybody for anything.
pub(super) struct Cheat {
    member: MemberId,
    conns: BTreeMap<usize, ConnId>,
    nonces: BTreeMap<usize, Vec<(u64, Vec<u8>)>>,
    life: Incarnation,
    lives: BTreeMap<usize, Incarnation>,
}

impl Cheat {
    /// Takes the place of a node, and dials all others.
    pub(super) fn in_place_of(rig: &mut Rig, node: usize) -> Self {
        Self::that_has_seen(rig, node, Place::default())
    }

    /// The same, and says that it has seen shares of all others at a place.
    fn that_has_seen(rig: &mut Rig, node: usize, seen_of_you: Place) -> Self {
        rig.crash(node);
        let mut cheat = Self {
            member: rig.nodes[node].member,
            conns: BTreeMap::new(),
            nonces: BTreeMap::new(),
            life: Incarnation { count: 1000, id: 0 },
            lives: BTreeMap::new(),
        };
        for other in (0..rig.nodes.len()).filter(|other| *other != node) {
            let conn = ConnId(1_000_000 + other as u64);
            cheat.conns.insert(other, conn);
            rig.event(other, Event::Accepted { conn, member: cheat.member });
            let hello = Hello {
                versions: (VERSION, VERSION),
                group: rig.group.verifying_key().to_bytes(),
                epoch: 1,
                incarnation: cheat.life,
                seen_of_you,
            };
            cheat.say(rig, other, Request::Hello(hello));
        }
        cheat
    }

    pub(super) fn say(&mut self, rig: &mut Rig, to: usize, request: Request) -> Vec<Reply> {
        let conn = self.conns[&to];
        let mut replies = Vec::new();
        for effect in rig.event(to, Event::Request { conn, request }) {
            let Effect::Reply { reply, .. } = effect else { continue };
            match &reply {
                Reply::Welcome(welcome) => drop(self.lives.insert(to, welcome.incarnation)),
                Reply::Commitments(list) => self.nonces.entry(to).or_default().extend(list.clone()),
                _ => {}
            }
            replies.push(reply);
        }
        replies
    }

    /// Tries to have a message signed by itself and these nodes. Puts the signature before the oracle if it succeeds.
    pub(super) fn try_to_sign(
        &mut self,
        rig: &mut Rig,
        with: &[usize],
        subject: &Subject,
    ) -> Result<(), Why> {
        let key = rig.shares[usize::from(self.member.0) - 1].key_package(&rig.group).expect("a share");
        let entropy: Rc<dyn Entropy> = Rc::new(rig.random.clone());
        let (own, public) = NonceMaker::new(Rc::clone(&key), entropy).fresh();
        let mut commitments = Commitments::from([(self.member, public)]);
        let mut signers = vec![self.signer(rig, None, commitments::write(&public).expect("bytes"))];
        let mut nonces = BTreeMap::new();
        for node in with {
            let (nonce, bytes) = self.nonces.get_mut(node).and_then(Vec::pop).expect("nonces");
            let parsed = commitments::read(&bytes).expect("commitments");
            commitments.insert(rig.nodes[*node].member, parsed);
            signers.push(self.signer(rig, Some(*node), bytes));
            nonces.insert(*node, nonce);
        }
        let bytes = subject.read(&chain(), RawSigning::default()).expect("a message").bytes;
        let mut shares = Shares::new();
        for (node, nonce) in nonces {
            let member = rig.nodes[node].member;
            let others = signers.iter().filter(|signer| signer.member != member).cloned().collect();
            let request = Request::Share { request: 1, nonce, subject: subject.clone(), others };
            for reply in self.say(rig, node, request) {
                match reply {
                    Reply::Share { share, .. } => {
                        let share = frost::SignatureShare::deserialize(&share);
                        shares.insert(member, share.expect("a share"));
                    }
                    Reply::Refused { why, .. } => return Err(why),
                    _ => {}
                }
            }
        }
        // A cheat needs no permit.
        let package = named(&commitments, &bytes);
        let share = frost_core::round2::sign(&package, &own, &key).expect("its own share");
        shares.insert(self.member, share);
        let group = &rig.group;
        rounds::aggregate(group, &commitments, &shares, None, &bytes).expect("good shares");
        rig.witness(&Asked::parse(&chain(), &bytes).expect("a message"));
        Ok(())
    }

    fn signer(&self, rig: &Rig, node: Option<usize>, commitments: Vec<u8>) -> Signer {
        match node {
            Some(node) => {
                let incarnation = self.lives.get(&node).copied().unwrap_or_default();
                Signer { member: rig.nodes[node].member, incarnation, commitments }
            }
            None => Signer { member: self.member, incarnation: self.life, commitments },
        }
    }
}

fn named(commitments: &Commitments, bytes: &[u8]) -> frost::SigningPackage {
    let named = commitments.iter().map(|(member, c)| (member.identifier().expect("a member"), *c));
    frost::SigningPackage::new(named.collect(), bytes)
}

/// One cheat, who has one block signed, and then asks every set of `t - 1` others for another.
fn equivocate(rig: &mut Rig, threshold: usize) {
    let mut cheat = Cheat::in_place_of(rig, 0);
    let others: Vec<MemberId> = rig.group.members().skip(1).collect();
    let sets = subsets(&others, threshold - 1);
    let nodes = |set: &[MemberId]| set.iter().map(|member| usize::from(member.0) - 1).collect::<Vec<_>>();
    cheat.try_to_sign(rig, &nodes(&sets[0]), &prevote(5, 1, 1)).expect("the first block");
    for set in &sets {
        let _ = cheat.try_to_sign(rig, &nodes(set), &prevote(5, 2, 1));
    }
}

#[test]
fn one_equivocating_member_is_borne_by_three_of_four_and_five_of_seven() {
    for (t, n) in [(3, 4), (5, 7), (4, 5)] {
        let mut rig = Rig::running(shape(t, n), 5);
        equivocate(&mut rig, usize::from(t));
        assert!(!rig.double_signed(), "{t} of {n}");
        assert_eq!(rig.signed.len(), 1, "the cheat got one block signed in {t} of {n}");
    }
}

#[test]
fn one_equivocating_member_breaks_two_of_three_and_three_of_five_as_the_profile_says() {
    for (t, n) in [(2, 3), (3, 5)] {
        assert_eq!(shape(t, n).faults(), 0);
        let mut rig = Rig::running(shape(t, n), 5);
        equivocate(&mut rig, usize::from(t));
        assert!(rig.double_signed(), "{t} of {n}");
    }
}

#[test]
fn two_of_four_would_double_sign_without_any_fault() {
    let mut rig = Rig::running(Shape::forced(2, 4), 5);
    rig.partition(&[0, 0, 1, 1]);
    rig.sign(0, &prevote(2, 1, 1)).expect("signed by 1 and 2");
    rig.sign(2, &prevote(2, 2, 1)).expect("signed by 3 and 4");
    assert!(rig.double_signed());
}

/// Another encoding of the same commitments: what is sent is an eighth of a point, and each point has eight.
fn twisted(commitments: &[u8]) -> Vec<u8> {
    let twist = |bytes: &[u8]| {
        let eighth = CompressedEdwardsY::from_slice(bytes).expect("32 bytes").decompress().expect("a point");
        (eighth + EIGHT_TORSION[3]).compress().to_bytes()
    };
    commitments.chunks(32).flat_map(twist).collect()
}

#[test]
fn commitments_in_another_encoding_are_the_same_to_everybody() {
    let mut rig = Rig::running(shape(3, 4), 6);
    rig.tamper = Some(Box::new(|_, reply| {
        if let Reply::Commitments(list) = reply {
            list.iter_mut().step_by(2).for_each(|(_, bytes)| *bytes = twisted(bytes));
        }
    }));
    for height in 1..40 {
        rig.sign(0, &prevote(height, 1, 1)).expect("signed");
    }
    assert!(!rig.notes.iter().any(|(_, note)| matches!(note, Note::BadShare(_) | Note::Session(_))));
}

#[test]
fn nonces_that_are_offered_twice_give_one_share() {
    let mut rig = Rig::running(shape(2, 3), 6);
    let mut cheat = Cheat::in_place_of(&mut rig, 0);
    let (nonce, again) = cheat.nonces[&1].last().cloned().expect("nonces");
    let other_encoding = twisted(&again);
    assert_ne!(again, other_encoding);
    assert_eq!(commitments::read(&again), commitments::read(&other_encoding));
    cheat.try_to_sign(&mut rig, &[1], &prevote(5, 1, 1)).expect("signed");
    for bytes in [again, other_encoding] {
        for subject in [prevote(5, 1, 1), prevote(6, 1, 1)] {
            cheat.nonces.get_mut(&1).expect("nonces").push((nonce, bytes.clone()));
            assert_eq!(cheat.try_to_sign(&mut rig, &[1], &subject), Err(Why::Nonce));
        }
    }
}

#[test]
fn nonces_of_one_connection_are_of_no_use_on_another() {
    let mut rig = Rig::running(shape(2, 3), 6);
    let cheat = Cheat::in_place_of(&mut rig, 0);
    let stolen = cheat.nonces[&1].last().cloned().expect("nonces");
    rig.event(1, Event::Closed { conn: cheat.conns[&1] });
    let mut cheat = Cheat::in_place_of(&mut rig, 0);
    let own = cheat.nonces[&1].clone();
    assert!(!own.iter().any(|(_, bytes)| *bytes == stolen.1));
    // The same number, but other nonces: the shares do not add up.
    cheat.nonces.insert(1, vec![stolen]);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        cheat.try_to_sign(&mut rig, &[1], &prevote(5, 1, 1))
    }));
    assert!(result.is_err(), "no signature came of it");
    assert!(rig.signed.is_empty());
}

#[test]
fn a_bad_share_names_its_sender_and_the_group_signs_without_it() {
    for (t, n) in [(2, 3), (3, 5), (3, 4)] {
        let mut rig = Rig::running(shape(t, n), 7);
        rig.tamper = Some(Box::new(|node, reply| {
            if let (1, Reply::Share { share, .. }) = (node, reply) {
                share[3] ^= 1;
            }
        }));
        for height in 1..20 {
            rig.sign(0, &prevote(height, 1, 1)).expect("signed");
        }
        assert!(rig.noted(&Note::BadShare(MemberId(2))), "{t} of {n}");
        let blamed = |note: &&(usize, Note)| matches!(note.1, Note::BadShare(_));
        assert!(rig.notes.iter().filter(blamed).all(|(_, note)| *note == Note::BadShare(MemberId(2))));
        assert_eq!(rig.places().len(), 19);
    }
}

#[test]
fn a_cheat_gets_no_share_below_the_guard_nor_in_an_earlier_life_nor_with_too_few() {
    let mut rig = Rig::running(shape(3, 4), 8);
    rig.sign(1, &prevote(9, 1, 1)).expect("signed");
    rig.run(300);
    let mut cheat = Cheat::in_place_of(&mut rig, 0);
    let below = cheat.try_to_sign(&mut rig, &[1, 2], &prevote(8, 1, 1));
    assert!(matches!(below, Err(Why::Guard(_))), "{below:?}");
    assert!(matches!(cheat.try_to_sign(&mut rig, &[1], &prevote(10, 1, 1)), Err(Why::Malformed(_))));
    let life = std::mem::replace(&mut cheat.life, Incarnation { count: 1, id: 0 });
    assert_eq!(cheat.try_to_sign(&mut rig, &[1, 2], &prevote(10, 1, 1)), Err(Why::Fenced(MemberId(1))));
    cheat.life = life;
    cheat.try_to_sign(&mut rig, &[1, 2], &prevote(10, 1, 1)).expect("a good request is good");
}

#[test]
fn a_life_of_equal_count_that_was_fenced_gets_no_share_either() {
    let mut rig = Rig::running(shape(3, 4), 8);
    let mut cheat = Cheat::in_place_of(&mut rig, 0);
    let known = cheat.lives[&1];
    cheat.lives.insert(1, Incarnation { id: known.id - 1, ..known });
    let refused = cheat.try_to_sign(&mut rig, &[1, 2], &prevote(10, 1, 1));
    assert_eq!(refused, Err(Why::Fenced(MemberId(2))));
    cheat.lives.insert(1, known);
    cheat.try_to_sign(&mut rig, &[1, 2], &prevote(10, 1, 1)).expect("a good request is good");
}

#[test]
fn a_forged_signature_raises_no_guard() {
    let mut rig = Rig::running(shape(2, 3), 8);
    let mut cheat = Cheat::in_place_of(&mut rig, 0);
    let Subject::Message(message) = prevote(100, 1, 1) else { unreachable!() };
    let proof = crate::threshold::message::Proof { message, signature: vec![9; 64] };
    cheat.say(&mut rig, 1, Request::Done { proof, signers: vec![MemberId(1)] });
    assert_eq!(rig.nodes[1].watermark(), Place::default());
    assert!(rig.notes.iter().any(|(node, note)| *node == 1 && matches!(note, Note::Nonsense { .. })));
}

#[test]
fn one_that_lies_about_old_disks_stops_nobody_where_one_may_be_malicious() {
    let seen = Place { height: 1 << 40, round: 0, step: 1 };
    let mut rig = Rig::running(shape(3, 4), 8);
    Cheat::that_has_seen(&mut rig, 0, seen);
    assert!(rig.nodes.iter().skip(1).all(|node| node.runs()));
    assert!(rig.notes.iter().any(|(_, note)| matches!(note, Note::Accused { .. })));
    rig.sign(1, &prevote(5, 1, 1)).expect("signed by the other three");
    // A second one is believed: two liars are more than this group bears.
    Cheat::that_has_seen(&mut rig, 1, seen);
    assert!(rig.nodes.iter().skip(2).all(|node| !node.runs()));
    // Where none may be malicious, one is enough.
    let mut rig = Rig::running(shape(2, 3), 8);
    Cheat::that_has_seen(&mut rig, 0, seen);
    assert!(rig.nodes.iter().all(|node| !node.runs()));
}

/// The rig's limit is 1000 heights.
#[test]
fn restarts_carry_a_guard_no_further_beyond_what_the_group_has_signed() {
    let mut rig = Rig::running(shape(3, 4), 8);
    rig.sign(1, &prevote(10, 1, 1)).expect("signed");
    rig.run(300);
    let mut cheat = Cheat::in_place_of(&mut rig, 0);
    let _ = cheat.try_to_sign(&mut rig, &[1, 2], &prevote(1010, 1, 1));
    assert_eq!(rig.nodes[1].watermark().height, 1010, "up to the limit it is believed");
    for node in [1, 2] {
        rig.crash(node);
        rig.start(node);
        rig.run_until("it takes part", |rig| rig.nodes[node].is_active());
    }
    let mut cheat = Cheat::in_place_of(&mut rig, 0);
    let beyond = cheat.try_to_sign(&mut rig, &[1, 2], &prevote(1011, 1, 1));
    assert!(matches!(&beyond, Err(Why::Guard(why)) if why.contains("1011")), "{beyond:?}");
    assert_eq!(rig.nodes[1].watermark().height, 1010);
}

#[test]
fn one_that_claims_later_lives_for_ever_keeps_nobody_from_taking_part() {
    let mut rig = Rig::running(shape(3, 4), 8);
    rig.crash(1);
    let mut count = 1000;
    rig.tamper = Some(Box::new(move |node, reply| {
        if let (0, Reply::Welcome(_)) = (node, &*reply) {
            count += 1000;
            *reply = Reply::Fenced(Incarnation { count, id: 0 });
        }
    }));
    rig.start(1);
    rig.run_until("it takes part", |rig| rig.nodes[1].is_active());
    rig.sign(1, &prevote(5, 1, 1)).expect("signed without the liar");
}

#[test]
fn permits_for_shares_come_from_the_record_alone() {
    let mut rig = Rig::running(shape(2, 3), 8);
    rig.sign(0, &prevote(4, 1, 1)).expect("signed");
    let Subject::Message(other) = prevote(4, 2, 1) else { unreachable!() };
    assert!(Permit::raw(&other).is_err(), "nor as raw bytes");
    let drill = Subject::Raw(other).read(&chain(), RawSigning { sign_bytes: true, ..Default::default() });
    assert!(drill.is_err());
}
