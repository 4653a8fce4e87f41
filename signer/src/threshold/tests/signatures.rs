//! Signatures of random sets of random groups over random messages, by every rule that a verifier may have.

use std::collections::BTreeMap;

use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::IsIdentity as _;
use ed25519_dalek::{Signature, Verifier as _};
use monosign_protocol::Height;
use sha2::{Digest as _, Sha512};

use super::rig::{Random, chain};
use super::signing::{SHAPES, shape};
use crate::consensus_key::ConsensusKey;
use crate::record::Permit;
use crate::seams::Entropy as _;
use crate::threshold::deal::{Dealt, deal};
use crate::threshold::rounds::{self, Commitments, Shares};

/// A few, or as many as the environment says: `just signatures` makes 100 000.
fn wanted() -> usize {
    std::env::var("MONOSIGN_SIGNATURES").map_or(400, |count| count.parse().expect("a number"))
}

/// How many messages each group signs.
const EACH: usize = 50;

#[test]
fn signatures_of_random_sets_verify_by_every_rule() {
    let random = Random::new(0x5eed);
    let mut count = 0;
    while count < wanted() {
        let key = ConsensusKey::from_seed(&random_bytes(&random));
        let (t, n) = SHAPES[random.below(SHAPES.len())];
        let dealt = deal(&key, &chain(), shape(t, n), Height(0), &random).expect("a split key");
        assert_eq!(dealt.group.public_key(), *key.public_key());
        for _ in 0..EACH {
            // Not the length of what follows, so that it is allowed as raw bytes.
            let mut message = vec![0xff; 1 + random.below(200)];
            random.fill(&mut message[1..]);
            let Ok(permit) = Permit::raw(&message) else { continue };
            let signature = sign(&dealt, &permit, &random);
            let verifying = dealt.group.verifying_key();
            let parsed = Signature::from_bytes(&signature);
            verifying.verify_strict(&message, &parsed).expect("strict");
            verifying.verify(&message, &parsed).expect("RFC 8032 without a cofactor");
            assert!(zip215(verifying.as_bytes(), &message, &signature), "ZIP-215");
            let mut other = signature;
            other[random.below(64)] ^= 1 << random.below(8);
            assert!(verifying.verify_strict(&message, &Signature::from_bytes(&other)).is_err());
            assert!(!zip215(verifying.as_bytes(), &message, &other));
            count += 1;
        }
    }
    println!("{count} signatures");
}

/// A random set of `t` members signs.
fn sign(dealt: &Dealt, permit: &Permit<'_>, random: &Random) -> [u8; 64] {
    let mut shares: Vec<_> = dealt.shares.iter().collect();
    while shares.len() > usize::from(dealt.group.shape().threshold()) {
        shares.swap_remove(random.below(shares.len()));
    }
    let mut commitments = Commitments::new();
    let mut nonces = BTreeMap::new();
    for share in &shares {
        let key = share.key_package(&dealt.group).expect("a share of this group");
        let (secret, public) = rounds::commit(&key, random);
        commitments.insert(share.id(), public);
        nonces.insert(share.id(), (key, secret));
    }
    let (mut made, mut known) = (Shares::new(), None);
    for (id, (key, nonces)) in nonces {
        let signed = rounds::sign_share(&key, nonces, &commitments, permit).expect("a share");
        made.insert(id, signed.share);
        known = Some(signed.group_commitment);
    }
    let made = rounds::aggregate(&dealt.group, &commitments, &made, known, permit.bytes());
    made.expect("a signature").signature()
}

/// The rule of CometBFT (`crypto/ed25519`, v0.34.9 and later), which is ZIP-215: with the cofactor, and `s` below the order.
fn zip215(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    let (r, s) = signature.split_at(32);
    let point = |bytes: &[u8]| CompressedEdwardsY::from_slice(bytes).expect("32 bytes").decompress();
    let scalar = Scalar::from_canonical_bytes(s.try_into().expect("32 bytes"));
    let (Some(a), Some(r_point), Some(s)) = (point(key), point(r), Option::<Scalar>::from(scalar)) else {
        return false;
    };
    let hash = Sha512::new().chain_update(r).chain_update(key).chain_update(message).finalize();
    let k = Scalar::from_bytes_mod_order_wide(&hash.into());
    let difference = EdwardsPoint::vartime_double_scalar_mul_basepoint(&-k, &a, &s) - r_point;
    difference.mul_by_cofactor().is_identity()
}

fn random_bytes(random: &Random) -> [u8; 32] {
    let mut bytes = [0; 32];
    random.fill(&mut bytes);
    bytes
}
