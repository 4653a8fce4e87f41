//! Our ciphersuite beside `frost-ed25519`: of the same entropy, all that either says and keeps is the same, byte for byte. So parties of
//! both kinds can make and change a key together, and sign.

use std::collections::BTreeMap;

use frost_core::keys::dkg::{part1, part2, part3, round1 as first, round2 as second};
use frost_core::keys::refresh::{refresh_dkg_part1, refresh_dkg_part2, refresh_dkg_shares};
use frost_core::keys::repairable::{repair_share_part1, repair_share_part2, repair_share_part3};
use frost_core::keys::{IdentifierList, KeyPackage, PublicKeyPackage, generate_with_dealer};
use frost_core::round1::SigningCommitments;
use frost_core::{Ciphersuite, Identifier, SigningPackage, aggregate, round1, round2};
use frost_ed25519::Ed25519Sha512;
use monosign_protocol::Height;

use super::rig::{Random, chain};
use super::signing::{SHAPES, shape};
use crate::consensus_key::ConsensusKey;
use crate::record::Permit;
use crate::seams::Entropy as _;
use crate::threshold::deal::deal;
use crate::threshold::frost::Suite;
use crate::threshold::rounds::{self, Commitments, EntropyRng, Shares};

/// What was said and kept, in order.
type Bytes = Vec<Vec<u8>>;
type Keys<C> = BTreeMap<Identifier<C>, KeyPackage<C>>;
type Party<C, S, P> = BTreeMap<Identifier<C>, (S, BTreeMap<Identifier<C>, P>)>;

#[test]
fn keys_are_made_changed_and_used_as_by_frost_ed25519() {
    for seed in 0..Random::worlds(6) {
        let ours = life::<Suite>(seed);
        assert!(ours.len() > 20);
        assert_eq!(ours, life::<Ed25519Sha512>(seed), "seed {seed}");
    }
}

/// A key that its parties make, refresh, repair and sign with.
fn life<C: Ciphersuite>(seed: u64) -> Bytes {
    let random = Random::new(seed);
    let (t, n) = SHAPES[random.below(SHAPES.len())];
    let mut said = Bytes::new();
    let keys = made::<C>(&random, (t, n), None, &mut said);
    let keys = made::<C>(&random, (t, n), Some(keys), &mut said);
    repaired(&random, &keys.0, &keys.1, &mut said);
    signed(&random, &keys.0, &keys.1, &mut said);
    let rng = &mut EntropyRng(&random);
    let (shares, public) = generate_with_dealer::<C, _>(n, t, IdentifierList::Default, rng).expect("shares");
    said.extend(shares.values().map(|share| share.serialize().expect("bytes")));
    let keys = shares.into_iter().map(|(id, share)| (id, KeyPackage::try_from(share).expect("a good share")));
    signed(&random, &keys.collect(), &public, &mut said);
    said
}

/// Makes a key, or new shares of one.
fn made<C: Ciphersuite>(
    random: &Random,
    (t, n): (u16, u16),
    old: Option<(Keys<C>, PublicKeyPackage<C>)>,
    said: &mut Bytes,
) -> (Keys<C>, PublicKeyPackage<C>) {
    let ids: Vec<Identifier<C>> = (1..=n).map(|id| id.try_into().expect("not 0")).collect();
    let mut secrets = BTreeMap::new();
    let mut told: BTreeMap<_, first::Package<C>> = BTreeMap::new();
    for id in &ids {
        let rng = EntropyRng(random);
        let part = if old.is_some() { refresh_dkg_part1(*id, n, t, rng) } else { part1(*id, n, t, rng) };
        let (secret, package) = part.expect("the first part");
        said.push(package.serialize().expect("bytes"));
        told.insert(*id, heard(said, first::Package::deserialize));
        secrets.insert(*id, secret);
    }
    let others = |id: &Identifier<C>| {
        let mut others = told.clone();
        others.remove(id);
        others
    };
    let mut parties: Party<C, second::SecretPackage<C>, second::Package<C>> = BTreeMap::new();
    for (id, secret) in secrets {
        let others = others(&id);
        let part = if old.is_some() { refresh_dkg_part2(secret, &others) } else { part2(secret, &others) };
        let (secret, mut packages) = part.expect("the second part");
        for package in packages.values_mut() {
            said.push(package.serialize().expect("bytes"));
            *package = heard(said, second::Package::deserialize);
        }
        parties.insert(id, (secret, packages));
    }
    let mut keys = BTreeMap::new();
    let mut public = None;
    for (id, (secret, _)) in &parties {
        let dealt =
            parties.iter().filter_map(|(from, (_, packages))| Some((*from, packages.get(id)?.clone())));
        let dealt = dealt.collect();
        let made = match &old {
            Some((keys, public)) => {
                refresh_dkg_shares(secret, &others(id), &dealt, public.clone(), keys[id].clone())
            }
            None => part3(secret, &others(id), &dealt),
        };
        let (key, package) = made.expect("the third part");
        said.extend([key.serialize().expect("bytes"), package.serialize().expect("bytes")]);
        keys.insert(*id, key);
        public = Some(package);
    }
    (keys, public.expect("a key"))
}

/// Makes the last member's share anew.
fn repaired<C: Ciphersuite>(random: &Random, keys: &Keys<C>, public: &PublicKeyPackage<C>, said: &mut Bytes) {
    let (lost, _) = keys.last_key_value().expect("members");
    let t = usize::from(public.min_signers().expect("known"));
    let helpers: Vec<_> = keys.keys().copied().take(t).collect();
    let mut deltas = BTreeMap::<_, Vec<_>>::new();
    for helper in &helpers {
        let rng = &mut EntropyRng(random);
        let parts = repair_share_part1(&helpers, &keys[helper], rng, *lost).expect("the first part");
        for (to, delta) in parts {
            said.push(delta.serialize());
            deltas.entry(to).or_default().push(delta);
        }
    }
    let sigmas: Vec<_> = deltas.values().map(|deltas| repair_share_part2(deltas)).collect();
    said.extend(sigmas.iter().map(|sigma| sigma.serialize()));
    let key = repair_share_part3(&sigmas, *lost, public).expect("the third part");
    assert_eq!(&key, &keys[lost]);
}

fn signed<C: Ciphersuite>(random: &Random, keys: &Keys<C>, public: &PublicKeyPackage<C>, said: &mut Bytes) {
    let t = usize::from(public.min_signers().expect("known"));
    let mut keys: Vec<_> = keys.values().collect();
    while keys.len() > t {
        keys.swap_remove(random.below(keys.len()));
    }
    let (mut nonces, mut commitments) = (Vec::new(), BTreeMap::new());
    for key in &keys {
        let (secret, public) = round1::commit(key.signing_share(), &mut EntropyRng(random));
        said.extend([secret.serialize().expect("bytes"), public.serialize().expect("bytes")]);
        commitments.insert(*key.identifier(), heard(said, SigningCommitments::deserialize));
        nonces.push(secret);
    }
    let package = SigningPackage::new(commitments, b"a message");
    let mut shares = BTreeMap::new();
    for (key, nonces) in keys.into_iter().zip(nonces) {
        let share = round2::sign(&package, &nonces, key).expect("a share");
        said.push(share.serialize());
        shares.insert(*key.identifier(), share);
    }
    let signature = aggregate(&package, &shares, public).expect("a signature");
    said.push(signature.serialize().expect("bytes"));
}

/// What was said last, as others read it.
fn heard<T, E: std::fmt::Debug>(said: &Bytes, read: impl Fn(&[u8]) -> Result<T, E>) -> T {
    read(said.last().expect("something")).expect("what was meant")
}

#[test]
fn rounds_make_the_shares_and_signatures_of_frost_ed25519() {
    use frost_ed25519::{Identifier, SigningPackage, aggregate, keys, round1, round2};

    for seed in 0..Random::worlds(24) {
        let random = Random::new(seed);
        let (t, n) = SHAPES[random.below(SHAPES.len())];
        let key = ConsensusKey::from_seed(&[7; 32]);
        let dealt = deal(&key, &chain(), shape(t, n), Height(0), &random).expect("a split key");
        let mut message = vec![0xff; 1 + random.below(200)];
        random.fill(&mut message[1..]);
        let Ok(permit) = Permit::raw(&message) else { continue };
        let mut signers: Vec<_> = dealt.shares.iter().collect();
        while signers.len() > usize::from(t) && random.below(4) > 0 {
            signers.swap_remove(random.below(signers.len()));
        }
        let (mut commitments, mut theirs) = (Commitments::new(), BTreeMap::new());
        let mut secrets = Vec::new();
        for share in signers {
            let key = share.key_package(&dealt.group).expect("a share of this group");
            let bytes = key.serialize().expect("bytes");
            let their_key = keys::KeyPackage::deserialize(&bytes).expect("a key package");
            let once = random.next();
            let (nonces, public) = rounds::commit(&key, &Random::new(once));
            let once = Random::new(once);
            let (their_nonces, their_public) =
                round1::commit(their_key.signing_share(), &mut EntropyRng(&once));
            assert_eq!(public.serialize().ok(), their_public.serialize().ok());
            commitments.insert(share.id(), public);
            theirs.insert(*their_key.identifier(), their_public);
            secrets.push((share.id(), key, nonces, their_key, their_nonces));
        }
        let package = SigningPackage::new(theirs, &message);
        let (mut shares, mut their_shares, mut known) = (Shares::new(), BTreeMap::new(), None);
        for (id, key, nonces, their_key, their_nonces) in secrets {
            let signed = rounds::sign_share(&key, nonces, &commitments, &permit).expect("a share");
            let their_share = round2::sign(&package, &their_nonces, &their_key).expect("a share");
            assert_eq!(signed.share.serialize(), their_share.serialize());
            shares.insert(id, signed.share);
            their_shares.insert(Identifier::try_from(id.0).expect("a member"), their_share);
            known = Some(signed.group_commitment);
        }
        let bytes = dealt.group.package().serialize().expect("bytes");
        let public = keys::PublicKeyPackage::deserialize(&bytes).expect("a group");
        let expected = aggregate(&package, &their_shares, &public).expect("a signature").serialize();
        for known in [known, None] {
            let made = rounds::aggregate(&dealt.group, &commitments, &shares, known, &message);
            assert_eq!(made.expect("a signature").signature().to_vec(), expected.clone().expect("bytes"));
        }
    }
}
