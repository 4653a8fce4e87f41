//! Splitting an existing key: the trusted dealer.
//!
//! The scalar of the key is shared over a random polynomial (RFC 9591 appendix C). It is the scalar that RFC 8032 hashes from the
//! seed, reduced; the base point has that order, so the public key stays what it was. From `t` shares the scalar
//! can be rebuilt, and never the seed: a `priv_validator_key.json` does not come back.

use std::collections::BTreeMap;

use ed25519_dalek::SigningKey;
use frost_core::keys::{IdentifierList, split};
use monosign_protocol::{ChainId, Height};
use zeroize::Zeroizing;

use super::asked::Subject;
use super::frost::{self, KeyPackage};
use super::group::{Group, GroupError, Shape};
use super::rounds::{self, Commitments, EntropyRng, MemberId, RoundError, Shares};
use super::share::{Share, ShareError, ShareOf};
use crate::chain::RawSigning;
use crate::consensus_key::ConsensusKey;
use crate::guard::Refusal;
use crate::pubkey::PublicKey;
use crate::seams::Entropy;

/// A key in shares, proven to sign.
#[derive(Debug)]
pub struct Dealt {
    /// Who signs together.
    pub group: Group,
    /// One share for each member, in order.
    pub shares: Vec<Share>,
    /// How many sets of `t` members were seen to sign.
    pub proven: usize,
}

/// Why a key was not split. Nothing was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DealError {
    /// FROST did not take the key.
    #[error("the key cannot be shared: {0}")]
    Split(frost::Error),
    /// The parts do not fit.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// A share does not fit.
    #[error(transparent)]
    Share(#[from] ShareError),
    /// The shares are of another key.
    #[error("the shares belong to `{0}` and not to the key that was given")]
    OtherKey(PublicKey),
    /// A set of members does not sign.
    #[error("cosigners {signers} do not sign together: {error}")]
    Unproven {
        /// Who was tried.
        signers: String,
        /// What went wrong.
        error: RoundError,
    },
    /// The message that proves it cannot be signed.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Splits a key, and proves that every set of `t` members signs with what they are given.
///
/// # Errors
/// [`DealError`].
pub fn deal(
    key: &ConsensusKey,
    chain_id: &ChainId,
    shape: Shape,
    floor: Height,
    entropy: &dyn Entropy,
) -> Result<Dealt, DealError> {
    let expanded = key.to_expanded_secret();
    let secret = frost::SigningKey::from_scalar(expanded.scalar).map_err(DealError::Split)?;
    let rng = &mut EntropyRng(entropy);
    let (secrets, package) = split(&secret, shape.members(), shape.threshold(), IdentifierList::Default, rng)
        .map_err(DealError::Split)?;
    let identity = |_| SigningKey::from_bytes(&Zeroizing::new(entropy.key()));
    let identities: Vec<SigningKey> = (0..shape.members()).map(identity).collect();
    let ids = || (1..=shape.members()).map(MemberId);
    let public: BTreeMap<_, _> =
        ids().zip(identities.iter().map(|identity| identity.verifying_key().to_bytes())).collect();
    let group = Group::new(chain_id.clone(), shape, 1, public, package)?;
    if group.public_key() != *key.public_key() {
        return Err(DealError::OtherKey(group.public_key()));
    }
    let of = ShareOf { chain_id: chain_id.clone(), public_key: group.public_key(), epoch: 1, floor };
    let mut shares = Vec::new();
    for (id, identity) in ids().zip(identities) {
        let secret = id.identifier().and_then(|identifier| secrets.get(&identifier)).cloned();
        // Checks the share against the dealer's commitment.
        let checked = KeyPackage::try_from(secret.ok_or(GroupError::Members)?).map_err(DealError::Split)?;
        shares.push(Share::new(&of, id, *checked.signing_share(), identity));
    }
    let proven = prove(&group, &shares, entropy)?;
    Ok(Dealt { group, shares, proven })
}

/// Has every set of `t` of these shares sign. Returns how many sets there are.
///
/// # Errors
/// [`DealError::Unproven`] with the first set that does not sign.
pub fn prove(group: &Group, shares: &[Share], entropy: &dyn Entropy) -> Result<usize, DealError> {
    let keys = shares.iter().map(|share| Ok((share.id(), share.key_package(group)?)));
    let keys = keys.collect::<Result<BTreeMap<_, _>, ShareError>>()?;
    let members: Vec<MemberId> = keys.keys().copied().collect();
    let mut number = [0; 16];
    entropy.fill(&mut number);
    let permit = Subject::Drill(number).unguarded(group.chain_id(), RawSigning::default())?;
    let sets = subsets(&members, usize::from(group.shape().threshold()));
    for set in &sets {
        let unproven = |error| {
            let signers = set.iter().map(MemberId::to_string).collect::<Vec<_>>().join(", ");
            DealError::Unproven { signers, error }
        };
        let mut nonces = BTreeMap::new();
        let mut commitments = Commitments::new();
        for id in set {
            let (secret, public) = rounds::commit(&keys[id], entropy);
            nonces.insert(*id, secret);
            commitments.insert(*id, public);
        }
        let mut signed = Shares::new();
        for (id, nonces) in nonces {
            let share = rounds::sign_share(&keys[&id], nonces, &commitments, &permit).map_err(unproven)?;
            signed.insert(id, share.share);
        }
        rounds::aggregate(group, &commitments, &signed, None, permit.bytes()).map_err(unproven)?;
    }
    Ok(sets.len())
}

/// All sets of so many.
pub fn subsets(members: &[MemberId], size: usize) -> Vec<Vec<MemberId>> {
    match (size, members) {
        (0, _) => vec![Vec::new()],
        (_, []) => Vec::new(),
        (_, [first, rest @ ..]) => {
            let with = subsets(rest, size - 1).into_iter().map(|set| [vec![*first], set].concat());
            with.chain(subsets(rest, size)).collect()
        }
    }
}
