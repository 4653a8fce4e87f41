//! New shares, each host's computed by itself: a new key, a refresh, a resharing, a repair.
//!
//! No secret of a group is ever in one place. What goes to one host alone goes over its own connection; what goes to all
//! is compared by all before anybody relies on it.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::Identity as _;
use frost_core::keys::repairable::{
    Delta, Sigma, repair_share_part1, repair_share_part2, repair_share_part3,
};
use frost_core::keys::{IdentifierList, dkg, refresh, split};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::meeting::{Meeting, Round, agree, all, each};
use super::plan::{Key, Plan, Role};
use super::{CeremonyError, Unequal};
use crate::seams::Entropy;
use crate::threshold::frost::{
    self, Identifier, KeyPackage, PublicKeyPackage, SecretShare, SigningKey, SigningShare, Suite,
    VerifiableSecretSharingCommitment, VerifyingShare,
};
use crate::threshold::group::Group;
use crate::threshold::rounds::{EntropyRng, MemberId};

/// What came of it on this host.
pub(super) struct Made {
    /// This host's share, if it is to have one.
    pub(super) share: Option<SigningShare>,
    /// Everybody's verifying shares.
    pub(super) package: PublicKeyPackage,
    /// Names this run: it differs in any other.
    pub(super) run: [u8; 32],
}

/// A host of a ceremony.
pub(super) struct Host<'a> {
    pub(super) plan: &'a Plan,
    pub(super) me: Key,
    pub(super) role: Role,
    /// Its share of the key, if it has one.
    pub(super) key: Option<&'a KeyPackage>,
    pub(super) entropy: &'a dyn Entropy,
}

/// Bytes that are wiped here; what is sent is wiped by nobody but TLS.
#[derive(Clone, Serialize, Deserialize)]
struct Bytes(#[serde(with = "crate::threshold::bytes")] Vec<u8>);

impl Host<'_> {
    /// A key that never exists: each member shares out a random number, and the key is their sum (Pedersen's scheme with proofs of
    /// knowledge, as FROST's paper has it).
    pub(super) async fn generate(&self, meeting: &mut dyn Meeting) -> Result<Made, CeremonyError> {
        let (id, shape) = (self.identifier(self.role.new)?, self.plan.shape());
        let rng = EntropyRng(self.entropy);
        let (secret, package) = dkg::part1(id, shape.members(), shape.threshold(), rng)?;
        let (heard, run) = self.commit(meeting, package.serialize()?).await?;
        let packages = self.read(&heard, dkg::round1::Package::deserialize)?;
        let (secret, parts) = dkg::part2(secret, &packages).map_err(|e| self.blamed(e))?;
        let dealt = self.deal(meeting, &parts).await?;
        let (key, package) = dkg::part3(&secret, &packages, &dealt).map_err(|e| self.blamed(e))?;
        Ok(Made { share: Some(*key.signing_share()), package, run })
    }

    /// Each member shares out a zero, and adds what it gets to what it has.
    pub(super) async fn refresh(&self, meeting: &mut dyn Meeting) -> Result<Made, CeremonyError> {
        let (id, shape) = (self.identifier(self.role.new)?, self.plan.shape());
        let (Some(key), Some(group)) = (self.key, self.plan.before()) else { return Err(self.no_share()) };
        let rng = EntropyRng(self.entropy);
        let (secret, package) = refresh::refresh_dkg_part1(id, shape.members(), shape.threshold(), rng)?;
        let (heard, run) = self.commit(meeting, package.serialize()?).await?;
        let packages = self.read(&heard, dkg::round1::Package::deserialize)?;
        let (secret, parts) = refresh::refresh_dkg_part2(secret, &packages).map_err(|e| self.blamed(e))?;
        let dealt = self.deal(meeting, &parts).await?;
        self.check_zeros(&packages, &dealt)?;
        let (package, key) = (group.package().clone(), key.clone());
        let (key, package) = refresh::refresh_dkg_shares(&secret, &packages, &dealt, package, key)
            .map_err(|e| self.blamed(e))?;
        Ok(Made { share: Some(*key.signing_share()), package, run })
    }

    /// That each part is of the polynomial that its dealer committed itself to, and whose value at 0 is 0: FROST checks it too, and
    /// does not say whose is wrong.
    fn check_zeros(
        &self,
        packages: &BTreeMap<Identifier, dkg::round1::Package<Suite>>,
        dealt: &BTreeMap<Identifier, dkg::round2::Package<Suite>>,
    ) -> Result<(), CeremonyError> {
        let Some(new) = self.role.new else { return Err(self.no_share()) };
        for (key, role) in self.plan.parties().filter(|(key, _)| **key != self.me) {
            let id = self.identifier(role.new)?;
            let (Some(package), Some(part)) = (packages.get(&id), dealt.get(&id)) else {
                return Err(self.nonsense(key));
            };
            let points = points(package.commitment()).ok_or_else(|| self.nonsense(key))?;
            let sum = |sum: EdwardsPoint, point: &EdwardsPoint| (sum + point) * Scalar::from(new.0);
            let expected = points.iter().rev().fold(EdwardsPoint::identity(), sum).compress().to_bytes();
            if VerifyingShare::from(*part.signing_share()).serialize()? != expected {
                return Err(self.cheat(key));
            }
        }
        Ok(())
    }

    /// Each of `t` members shares out its share, times its Lagrange coefficient: these sum up to the key, so what each new
    /// member gets sums up to a share of it. That a dealer shares out what it has is checked against its verifying
    /// share. (V. Desmedt and S. Jajodia, 1997; T. Wong, C. Wang and J. Wing, 2002.)
    pub(super) async fn reshare(&self, meeting: &mut dyn Meeting) -> Result<Made, CeremonyError> {
        let dealers = self.plan.dealers();
        let ids: Vec<MemberId> = dealers.keys().copied().collect();
        let parts = match self.role.old.filter(|old| ids.contains(old)) {
            Some(old) => Some(self.share_out(old, &ids)?),
            None => None,
        };
        let commitment = parts.as_ref().and_then(|parts| parts.values().next()).map(SecretShare::commitment);
        let said = match commitment {
            Some(commitment) => commitment.serialize_whole()?,
            None => Vec::new(),
        };
        let (heard, run) = self.commit(meeting, said).await?;
        let mut commitments = BTreeMap::new();
        for (id, key) in &dealers {
            let bytes = heard.get(key).map(|bytes| bytes.0.as_slice()).unwrap_or_default();
            let commitment = VerifiableSecretSharingCommitment::deserialize_whole(bytes)
                .map_err(|_| self.nonsense(key))?;
            self.check_dealer((*id, key), &ids, &commitment)?;
            commitments.insert(*key, commitment);
        }
        let dealt = each(meeting, self.plan, Round::Deal, |key| {
            let new = self.plan.role(key).and_then(|role| role.new).and_then(MemberId::identifier);
            let part = new.and_then(|id| parts.as_ref()?.get(&id));
            Bytes(part.map(|part| part.signing_share().serialize()).unwrap_or_default())
        });
        let mut dealt = dealt.await?;
        if let (Some(parts), Some(id)) = (&parts, self.role.new.and_then(MemberId::identifier)) {
            let own = parts.get(&id).map(|part| part.signing_share().serialize());
            dealt.insert(self.me, Bytes(own.unwrap_or_default()));
        }
        let package = self.package_of(&commitments)?;
        let share = match self.role.new {
            Some(new) => Some(self.sum_up(new, &commitments, &dealt)?),
            None => None,
        };
        Ok(Made { share, package, run })
    }

    /// The helpers' shares determine the lost one; each hides what it adds from the others, and from who has lost it
    /// (D. Stinson and R. Wei, eprint 2017/1155).
    pub(super) async fn repair(&self, meeting: &mut dyn Meeting) -> Result<Made, CeremonyError> {
        let group = self.plan.before().ok_or_else(|| self.no_share())?;
        let lost =
            self.identifier(self.plan.parties().find(|(_, r)| r.old.is_none()).and_then(|(_, r)| r.new))?;
        let helpers: BTreeMap<Key, Identifier> =
            self.plan.parties().filter_map(|(key, role)| Some((*key, role.old?.identifier()?))).collect();
        let (_, run) = self.commit(meeting, self.entropy.key().to_vec()).await?;
        let ids: Vec<Identifier> = helpers.values().copied().collect();
        let deltas = match self.key {
            Some(key) => {
                let rng = &mut EntropyRng(self.entropy);
                repair_share_part1::<Suite, _>(&ids, key, rng, lost)?
            }
            None => BTreeMap::new(),
        };
        let delta = |key: &Key| helpers.get(key).and_then(|id| deltas.get(id)).map(Delta::serialize);
        let mut dealt =
            each(meeting, self.plan, Round::Deal, |key| Bytes(delta(key).unwrap_or_default())).await?;
        dealt.insert(self.me, Bytes(delta(&self.me).unwrap_or_default()));
        let sigma = match self.key {
            Some(_) => {
                let deltas = self.of_helpers(&helpers, &dealt, Delta::deserialize)?;
                Some(repair_share_part2(&deltas).serialize())
            }
            None => None,
        };
        let summed = each(meeting, self.plan, Round::Sum, |key| {
            let is_lost = !helpers.contains_key(key);
            Bytes(sigma.clone().filter(|_| is_lost).unwrap_or_default())
        });
        let summed = summed.await?;
        let share = match self.key {
            Some(key) => *key.signing_share(),
            None => {
                let sigmas = self.of_helpers(&helpers, &summed, Sigma::deserialize)?;
                *repair_share_part3(&sigmas, lost, group.package())?.signing_share()
            }
        };
        Ok(Made { share: Some(share), package: group.package().clone(), run })
    }

    /// Tells all what this host commits itself to, and sees that all have heard the same. Returns what each has said, and what
    /// names the run from then on.
    async fn commit(
        &self,
        meeting: &mut dyn Meeting,
        said: Vec<u8>,
    ) -> Result<(BTreeMap<Key, Bytes>, [u8; 32]), CeremonyError> {
        let heard = all(meeting, self.plan, Round::Commit, Bytes(said)).await?;
        let run = agree(meeting, self.plan, Round::CommitEcho, &heard).await?;
        Ok((heard, run))
    }

    fn of_helpers<T>(
        &self,
        helpers: &BTreeMap<Key, Identifier>,
        said: &BTreeMap<Key, Bytes>,
        read: impl Fn(&[u8]) -> Result<T, frost::Error>,
    ) -> Result<Vec<T>, CeremonyError> {
        let of = |key: &Key| {
            let bytes = said.get(key).map(|bytes| bytes.0.as_slice()).unwrap_or_default();
            read(bytes).map_err(|_| self.nonsense(key))
        };
        helpers.keys().map(of).collect()
    }

    /// This member's share times its Lagrange coefficient, shared out among the members that are to be.
    fn share_out(
        &self,
        old: MemberId,
        dealers: &[MemberId],
    ) -> Result<BTreeMap<Identifier, SecretShare>, CeremonyError> {
        let key = self.key.ok_or_else(|| self.no_share())?;
        let bytes = Zeroizing::new(key.signing_share().serialize());
        let bytes = <[u8; 32]>::try_from(bytes.as_slice()).map(Zeroizing::new);
        let bytes = bytes.map_err(|_| self.no_share())?;
        let share = Option::<Scalar>::from(Scalar::from_canonical_bytes(*bytes));
        let share = Zeroizing::new(share.ok_or_else(|| self.no_share())?);
        let secret = SigningKey::from_scalar(lagrange(old, dealers) * *share)?;
        let shape = self.plan.shape();
        let rng = &mut EntropyRng(self.entropy);
        Ok(split(&secret, shape.members(), shape.threshold(), IdentifierList::Default, rng)?.0)
    }

    /// That a dealer shares out its share and nothing else, over a polynomial of the right degree.
    fn check_dealer(
        &self,
        (id, key): (MemberId, &Key),
        dealers: &[MemberId],
        commitment: &VerifiableSecretSharingCommitment,
    ) -> Result<(), CeremonyError> {
        let points = points(commitment).ok_or_else(|| self.nonsense(key))?;
        let known = self.plan.before().and_then(|group: &Rc<Group>| {
            let bytes = group.verifying_share(id)?.serialize().ok()?;
            CompressedEdwardsY::from_slice(&bytes).ok()?.decompress()
        });
        let expected = known.map(|share| share * lagrange(id, dealers));
        let is_right = points.len() == usize::from(self.plan.shape().threshold())
            && expected.is_some_and(|expected| points.first() == Some(&expected));
        if is_right { Ok(()) } else { Err(self.cheat(key)) }
    }

    /// What the commitments of all dealers add up to.
    fn package_of(
        &self,
        commitments: &BTreeMap<Key, VerifiableSecretSharingCommitment>,
    ) -> Result<PublicKeyPackage, CeremonyError> {
        let mut sums = vec![EdwardsPoint::identity(); usize::from(self.plan.shape().threshold())];
        for (key, commitment) in commitments {
            let points = points(commitment).ok_or_else(|| self.nonsense(key))?;
            sums.iter_mut().zip(points).for_each(|(sum, point)| *sum += point);
        }
        let sums: Vec<[u8; 32]> = sums.iter().map(|sum| sum.compress().to_bytes()).collect();
        let sum = VerifiableSecretSharingCommitment::deserialize(sums)?;
        let ids = (1..=self.plan.shape().members()).filter_map(|id| MemberId(id).identifier());
        Ok(PublicKeyPackage::from_commitment(&ids.collect::<BTreeSet<_>>(), &sum)?)
    }

    /// This member's share: the sum of what it was dealt, each part checked against its dealer's commitment.
    fn sum_up(
        &self,
        new: MemberId,
        commitments: &BTreeMap<Key, VerifiableSecretSharingCommitment>,
        dealt: &BTreeMap<Key, Bytes>,
    ) -> Result<SigningShare, CeremonyError> {
        let mut sum = Zeroizing::new(Scalar::ZERO);
        for (key, commitment) in commitments {
            let bytes = dealt.get(key).map(|bytes| bytes.0.as_slice()).unwrap_or_default();
            let part = SigningShare::deserialize(bytes).map_err(|_| self.nonsense(key))?;
            let part = SecretShare::new(self.identifier(Some(new))?, part, commitment.clone());
            part.verify().map_err(|_| self.cheat(key))?;
            let bytes = <[u8; 32]>::try_from(bytes).map(Zeroizing::new).map_err(|_| self.nonsense(key))?;
            let part = Option::<Scalar>::from(Scalar::from_canonical_bytes(*bytes));
            *sum += part.ok_or_else(|| self.nonsense(key))?;
        }
        Ok(SigningShare::deserialize(&*Zeroizing::new(sum.to_bytes()))?)
    }

    /// Gives each member its part, and returns what this one gets.
    async fn deal(
        &self,
        meeting: &mut dyn Meeting,
        parts: &BTreeMap<Identifier, dkg::round2::Package<Suite>>,
    ) -> Result<BTreeMap<Identifier, dkg::round2::Package<Suite>>, CeremonyError> {
        let part = |key: &Key| parts.get(&self.plan.role(key)?.new?.identifier()?)?.serialize().ok();
        let heard = each(meeting, self.plan, Round::Deal, |key| Bytes(part(key).unwrap_or_default())).await?;
        self.read(&heard, dkg::round2::Package::deserialize)
    }

    /// The others' packages, by what they are called in FROST.
    fn read<T>(
        &self,
        heard: &BTreeMap<Key, Bytes>,
        read: impl Fn(&[u8]) -> Result<T, frost::Error>,
    ) -> Result<BTreeMap<Identifier, T>, CeremonyError> {
        let others = heard.iter().filter(|(key, _)| **key != self.me);
        let read = |(key, bytes): (&Key, &Bytes)| {
            let id = self.identifier(self.plan.role(key).and_then(|role| role.new))?;
            Ok((id, read(&bytes.0).map_err(|_| self.nonsense(key))?))
        };
        others.map(read).collect()
    }

    fn identifier(&self, id: Option<MemberId>) -> Result<Identifier, CeremonyError> {
        id.and_then(MemberId::identifier).ok_or_else(|| self.no_share())
    }

    fn no_share(&self) -> CeremonyError {
        CeremonyError::NoShare
    }

    fn nonsense(&self, key: &Key) -> CeremonyError {
        CeremonyError::Nonsense { who: self.plan.name(key) }
    }

    fn cheat(&self, key: &Key) -> CeremonyError {
        CeremonyError::Unequal { who: self.plan.name(key), what: Unequal::Dealt }
    }

    /// FROST names who has sent what is wrong.
    fn blamed(&self, error: frost::Error) -> CeremonyError {
        let culprits = error.culprits();
        let is_culprit =
            |role: &Role| role.new.and_then(MemberId::identifier).is_some_and(|id| culprits.contains(&id));
        match self.plan.parties().find(|(_, role)| is_culprit(role)) {
            Some((key, _)) => self.cheat(key),
            None => error.into(),
        }
    }
}

/// The Lagrange coefficient of one of these members at 0.
fn lagrange(of: MemberId, members: &[MemberId]) -> Scalar {
    let (mut above, mut below) = (Scalar::ONE, Scalar::ONE);
    for other in members.iter().filter(|other| **other != of) {
        above *= Scalar::from(other.0);
        below *= Scalar::from(other.0) - Scalar::from(of.0);
    }
    above * below.invert()
}

fn points(commitment: &VerifiableSecretSharingCommitment) -> Option<Vec<EdwardsPoint>> {
    let bytes = commitment.serialize().ok()?;
    bytes.iter().map(|bytes| CompressedEdwardsY::from_slice(bytes).ok()?.decompress()).collect()
}
