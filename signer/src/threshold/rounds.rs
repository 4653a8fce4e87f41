//! FROST (RFC 9591) over Ed25519, as far as this signer uses it.
//!
//! What always holds:
//!
//! * a share is made for a [`Permit`] alone, so no share exists for a message that is not recorded;
//! * nonces are used up by the call that makes a share of them, whatever becomes of it;
//! * a signature leaves [`aggregate`] as a [`Verified`] one alone.

use std::collections::BTreeMap;
use std::rc::Rc;

use curve25519_dalek::edwards::EdwardsPoint;
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::{Identity as _, IsIdentity as _, VartimeMultiscalarMul as _};
use frost_core::{
    BindingFactorList, CheaterDetection, Ciphersuite as _, Group as _, aggregate_custom,
    compute_binding_factor_list, derive_interpolating_value, round1, round2,
};
use frost_ed25519::rand_core::{self, CryptoRng, RngCore};
use serde::{Deserialize, Serialize};

use super::frost::{
    self, Curve, Identifier, KeyPackage, Point, SignatureShare, SigningCommitments, SigningNonces,
    SigningPackage, Suite,
};
use super::group::Group;
use super::verified::Verified;
use crate::record::Permit;
use crate::seams::Entropy;

/// A cosigner's number in its group, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MemberId(pub u16);

impl MemberId {
    /// The same number as a point of the polynomial; `None` for 0, which is the secret's own.
    pub(super) fn identifier(self) -> Option<Identifier> {
        Identifier::try_from(self.0).ok()
    }
}

impl std::fmt::Display for MemberId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What each signer of a session committed itself to.
pub type Commitments = BTreeMap<MemberId, SigningCommitments>;

/// A session's shares.
pub type Shares = BTreeMap<MemberId, SignatureShare>;

/// Makes nonces. RFC 9591 section 4.1 mixes the share into them, so that weak entropy alone does not give it away.
#[derive(Clone)]
pub struct NonceMaker {
    key: Rc<KeyPackage>,
    entropy: Rc<dyn Entropy>,
}

impl NonceMaker {
    /// Nonces for this share.
    pub fn new(key: Rc<KeyPackage>, entropy: Rc<dyn Entropy>) -> Self {
        Self { key, entropy }
    }

    /// A fresh pair, good for one share.
    pub fn fresh(&self) -> (SigningNonces, SigningCommitments) {
        commit(&self.key, &*self.entropy)
    }
}

/// Nonces that are good for one share, and what goes to the others of them.
pub(super) fn commit(key: &KeyPackage, entropy: &dyn Entropy) -> (SigningNonces, SigningCommitments) {
    round1::commit(key.signing_share(), &mut EntropyRng(entropy))
}

/// Why a session gives no share or no signature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RoundError {
    /// A number that is no member's.
    #[error("`{0}` is no member of the group")]
    NoMember(MemberId),
    /// FROST refused the input: too few signers, or nonces that do not belong to the session.
    #[error("the session cannot be: {0}")]
    Session(#[from] frost::Error),
    /// Shares that are none; who sent them is known.
    #[error("bad signature shares from {}", list(.0))]
    BadShares(Vec<MemberId>),
    /// The shares are good, and the signature is none. It must not happen.
    #[error("the signature does not verify")]
    BadSignature,
}

/// A share, and what it is a share of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedShare {
    /// The share.
    pub share: SignatureShare,
    /// The session's.
    pub group_commitment: GroupCommitment,
}

/// What all signers of a session have committed themselves to together (RFC 9591 section 4.5), encoded: the first half of their signature.
/// Every signer computes it, and it is most of a share's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupCommitment([u8; 32]);

/// A share of the signature on the permitted bytes: RFC 9591 section 5.2, step by step as in `frost_core::round2::sign`, which keeps the
/// group commitment to itself.
///
/// # Errors
/// [`RoundError::Session`] and [`RoundError::NoMember`]; the nonces are gone all the same.
#[allow(clippy::needless_pass_by_value, reason = "nonces are used up")]
pub fn sign_share(
    key: &KeyPackage,
    nonces: SigningNonces,
    commitments: &Commitments,
    permit: &Permit<'_>,
) -> Result<SignedShare, RoundError> {
    let package = package(commitments, permit.bytes())?;
    if package.signing_commitments().len() < usize::from(*key.min_signers()) {
        return Err(frost::Error::IncorrectNumberOfCommitments.into());
    }
    match package.signing_commitments().get(key.identifier()) {
        Some(own) if own == nonces.commitments() => {}
        Some(_) => return Err(frost::Error::IncorrectCommitment.into()),
        None => return Err(frost::Error::MissingCommitment.into()),
    }
    let factors = compute_binding_factor_list(&package, key.verifying_key(), &[])?;
    let factor = factors.get(key.identifier()).ok_or(frost::Error::UnknownIdentifier)?.clone();
    let point = group_commitment(&package, &factors)?;
    let weight = derive_interpolating_value(key.identifier(), &package)?;
    let challenge = Suite::challenge(&point, key.verifying_key(), package.message())?;
    let share = round2::compute_signature_share(&nonces, factor, weight, key, challenge);
    let bytes = Curve::serialize(&point).map_err(frost::Error::from)?;
    Ok(SignedShare { share, group_commitment: GroupCommitment(bytes) })
}

/// The signature that the shares add up to, verified: RFC 9591 section 5.3. Who has made a share of the session knows its commitment, so
/// there is nothing left but to add. If that gives no signature, or the commitment is not known, `frost-core` does all of it and looks at
/// single shares.
///
/// # Errors
/// [`RoundError::BadShares`] naming each member whose share is bad.
pub fn aggregate(
    group: &Group,
    commitments: &Commitments,
    shares: &Shares,
    known: Option<GroupCommitment>,
    bytes: &[u8],
) -> Result<Verified, RoundError> {
    let key = group.verifying_key();
    if let Some(verified) =
        known.and_then(|known| sum(known, shares)).and_then(|sum| Verified::new(key, bytes, sum))
    {
        return Ok(verified);
    }
    let package = package(commitments, bytes)?;
    let named = shares.iter().map(|(member, share)| Ok((identifier(*member)?, *share)));
    let shares = named.collect::<Result<BTreeMap<_, _>, RoundError>>()?;
    let signature = aggregate_custom(&package, &shares, group.package(), CheaterDetection::AllCheaters)
        .map_err(|error| blame(commitments, error))?;
    let bytes_of = signature.serialize().ok().and_then(|bytes| <[u8; 64]>::try_from(bytes).ok());
    let signature = bytes_of.ok_or(RoundError::BadSignature)?;
    Verified::new(key, bytes, signature).ok_or(RoundError::BadSignature)
}

fn sum(GroupCommitment(first): GroupCommitment, shares: &Shares) -> Option<[u8; 64]> {
    let second = shares.values().map(|share| scalar(&share.serialize())).sum::<Option<Scalar>>()?;
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(&first);
    signature[32..].copy_from_slice(second.as_bytes());
    Some(signature)
}

/// The sum of all commitments, each second one times its binding factor: RFC 9591 section 4.5, step by step as in
/// `frost_core::compute_group_commitment`, whose multiplication of several points takes twice as long as the curve's own. All of it is
/// public.
fn group_commitment(
    package: &SigningPackage,
    factors: &BindingFactorList<Suite>,
) -> Result<Point, RoundError> {
    let mut hiding = EdwardsPoint::identity();
    let (mut weights, mut binding) = (Vec::new(), Vec::new());
    for (identifier, commitments) in package.signing_commitments() {
        let (one, other) = (commitments.hiding().value().edwards(), commitments.binding().value().edwards());
        if one.is_identity() || other.is_identity() {
            return Err(frost::Error::IdentityCommitment.into());
        }
        let factor = factors.get(identifier).and_then(|factor| scalar(&factor.serialize()));
        hiding += one;
        weights.push(factor.ok_or(frost::Error::UnknownIdentifier)?);
        binding.push(other);
    }
    Ok(Point::encoded(hiding + EdwardsPoint::vartime_multiscalar_mul(weights, binding)))
}

fn scalar(bytes: &[u8]) -> Option<Scalar> {
    Scalar::from_canonical_bytes(bytes.try_into().ok()?).into()
}

fn package(commitments: &Commitments, bytes: &[u8]) -> Result<SigningPackage, RoundError> {
    let named = commitments.iter().map(|(member, commitments)| Ok((identifier(*member)?, *commitments)));
    Ok(SigningPackage::new(named.collect::<Result<_, RoundError>>()?, bytes))
}

fn blame(commitments: &Commitments, error: frost::Error) -> RoundError {
    let culprits = error.culprits();
    let of = |member: &MemberId| member.identifier().is_some_and(|id| culprits.contains(&id));
    let members: Vec<MemberId> = commitments.keys().copied().filter(of).collect();
    if members.is_empty() { RoundError::Session(error) } else { RoundError::BadShares(members) }
}

fn identifier(member: MemberId) -> Result<Identifier, RoundError> {
    member.identifier().ok_or(RoundError::NoMember(member))
}

fn list(members: &[MemberId]) -> String {
    members.iter().map(MemberId::to_string).collect::<Vec<_>>().join(", ")
}

/// The entropy seam in the form that FROST takes.
pub(super) struct EntropyRng<'a>(pub(super) &'a dyn Entropy);

impl RngCore for EntropyRng<'_> {
    fn next_u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        self.0.fill(bytes);
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rand_core::Error> {
        self.0.fill(bytes);
        Ok(())
    }
}

impl CryptoRng for EntropyRng<'_> {}

#[cfg(test)]
mod tests {
    use monosign_protocol::Height;

    use super::*;
    use crate::consensus_key::ConsensusKey;
    use crate::seams::OsEntropy;
    use crate::threshold::deal::{Dealt, deal};
    use crate::threshold::group::Shape;

    const MESSAGE: &[u8] = b"\xffa message";

    fn dealt() -> (Dealt, Vec<Rc<KeyPackage>>) {
        let key = ConsensusKey::from_seed(&[7; 32]);
        let shape = Shape::new(3, 5).expect("allowed");
        let dealt = deal(&key, &"test-1".parse().expect("an id"), shape, Height(0), &OsEntropy);
        let dealt = dealt.expect("a split key");
        let keys = dealt.shares.iter().map(|share| share.key_package(&dealt.group).expect("its share"));
        let keys = keys.collect();
        (dealt, keys)
    }

    /// Nonces of some members, by their places in the list.
    fn committed(keys: &[Rc<KeyPackage>], who: &[u16]) -> (Vec<SigningNonces>, Commitments) {
        let made = who.iter().map(|of| commit(&keys[usize::from(*of)], &OsEntropy));
        let (nonces, commitments): (Vec<_>, Vec<_>) = made.unzip();
        (nonces, who.iter().map(|of| MemberId(of + 1)).zip(commitments).collect())
    }

    #[test]
    fn too_few_signers_and_nonces_of_another_session_give_no_share() {
        let (_, keys) = dealt();
        let permit = Permit::raw(MESSAGE).expect("raw bytes");
        let refused = |nonces: &SigningNonces, commitments: &Commitments| match sign_share(
            &keys[0],
            nonces.clone(),
            commitments,
            &permit,
        ) {
            Err(RoundError::Session(error)) => error,
            other => panic!("{other:?}"),
        };
        let (nonces, commitments) = committed(&keys, &[0, 1, 2]);
        let (_, others) = committed(&keys, &[0, 1, 2]);
        assert_eq!(refused(&nonces[0], &others), frost::Error::IncorrectCommitment);
        let (_, without) = committed(&keys, &[1, 2, 3]);
        assert_eq!(refused(&nonces[0], &without), frost::Error::MissingCommitment);
        let few = commitments.into_iter().take(2).collect();
        assert_eq!(refused(&nonces[0], &few), frost::Error::IncorrectNumberOfCommitments);
    }

    #[test]
    fn bad_shares_and_missing_ones_give_no_signature_and_the_bad_ones_are_named() {
        let (dealt, keys) = dealt();
        let permit = Permit::raw(MESSAGE).expect("raw bytes");
        let who = [0, 2, 4];
        let (nonces, commitments) = committed(&keys, &who);
        let made = who.iter().zip(nonces).map(|(of, nonces)| {
            let key = &keys[usize::from(*of)];
            let signed = sign_share(key, nonces, &commitments, &permit);
            (MemberId(of + 1), signed.expect("a share").share)
        });
        let good: Shares = made.collect();
        let mut bad = good.clone();
        bad.insert(MemberId(3), good[&MemberId(1)]);
        bad.insert(MemberId(5), good[&MemberId(1)]);
        let made = aggregate(&dealt.group, &commitments, &bad, None, MESSAGE);
        assert_eq!(made, Err(RoundError::BadShares(vec![MemberId(3), MemberId(5)])));
        let mut few = good.clone();
        few.remove(&MemberId(3));
        assert!(matches!(
            aggregate(&dealt.group, &commitments, &few, None, MESSAGE),
            Err(RoundError::Session(_))
        ));
        let other = aggregate(&dealt.group, &commitments, &good, None, b"\xffanother");
        assert!(matches!(other, Err(RoundError::BadShares(_))));
        // A wrong commitment that is taken for the session's costs time and nothing else.
        let wrong = Some(GroupCommitment([9; 32]));
        let right = aggregate(&dealt.group, &commitments, &good, None, MESSAGE).expect("a signature");
        assert_eq!(aggregate(&dealt.group, &commitments, &good, wrong, MESSAGE), Ok(right));
        let made = aggregate(&dealt.group, &commitments, &bad, wrong, MESSAGE);
        assert_eq!(made, Err(RoundError::BadShares(vec![MemberId(3), MemberId(5)])));
    }
}
