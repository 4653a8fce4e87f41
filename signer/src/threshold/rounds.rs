//! FROST (RFC 9591) over Ed25519, as far as this signer uses it.
//!
//! What always holds:
//!
//! * a share is made for a [`Permit`] alone, so no share exists for a message that is not recorded;
//! * nonces are used up by the call that makes a share of them, whatever becomes of it;
//! * a signature leaves [`aggregate`] only if it verifies under the group's key (RFC 9591 section 5.3). By the strict rule it is verified
//!   where it is released, and by whoever hears of it.

use std::collections::BTreeMap;
use std::rc::Rc;

use ed25519_dalek::{Signature, VerifyingKey};
use frost_ed25519::keys::{KeyPackage, PublicKeyPackage};
use frost_ed25519::rand_core::{self, CryptoRng, RngCore};
use frost_ed25519::round1::{self, SigningCommitments, SigningNonces};
use frost_ed25519::round2::{self, SignatureShare};
use frost_ed25519::{CheaterDetection, Identifier, SigningPackage, aggregate_custom};
use serde::{Deserialize, Serialize};

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
    Session(frost_ed25519::Error),
    /// Shares that are none; who sent them is known.
    #[error("bad signature shares from {}", list(.0))]
    BadShares(Vec<MemberId>),
    /// The shares are good, and the signature is none. It must not happen.
    #[error("the signature does not verify")]
    BadSignature,
}

/// A share of the signature on the permitted bytes.
///
/// # Errors
/// [`RoundError::Session`] and [`RoundError::NoMember`]; the nonces are gone all the same.
#[allow(clippy::needless_pass_by_value, reason = "nonces are used up")]
pub fn sign_share(
    key: &KeyPackage,
    nonces: SigningNonces,
    commitments: &Commitments,
    permit: &Permit<'_>,
) -> Result<SignatureShare, RoundError> {
    let package = package(commitments, permit.bytes())?;
    round2::sign(&package, &nonces, key).map_err(RoundError::Session)
}

/// The signature that the shares add up to. Single shares are looked at only if the sum is none.
///
/// # Errors
/// [`RoundError::BadShares`] naming each member whose share is bad.
pub fn aggregate(
    group: &PublicKeyPackage,
    commitments: &Commitments,
    shares: &Shares,
    bytes: &[u8],
) -> Result<[u8; 64], RoundError> {
    let package = package(commitments, bytes)?;
    let named = shares.iter().map(|(member, share)| Ok((identifier(*member)?, *share)));
    let shares = named.collect::<Result<BTreeMap<_, _>, RoundError>>()?;
    let signature = aggregate_custom(&package, &shares, group, CheaterDetection::AllCheaters)
        .map_err(|error| blame(commitments, error))?;
    let bytes_of = signature.serialize().ok().and_then(|bytes| <[u8; 64]>::try_from(bytes).ok());
    bytes_of.ok_or(RoundError::BadSignature)
}

/// The strict rule, for a signature that is not released through a chain.
///
/// # Errors
/// [`RoundError::BadSignature`].
pub fn verify(key: &VerifyingKey, bytes: &[u8], signature: [u8; 64]) -> Result<(), RoundError> {
    let strict = key.verify_strict(bytes, &Signature::from_bytes(&signature));
    strict.map_err(|_| RoundError::BadSignature)
}

fn package(commitments: &Commitments, bytes: &[u8]) -> Result<SigningPackage, RoundError> {
    let named = commitments.iter().map(|(member, commitments)| Ok((identifier(*member)?, *commitments)));
    Ok(SigningPackage::new(named.collect::<Result<_, RoundError>>()?, bytes))
}

fn blame(commitments: &Commitments, error: frost_ed25519::Error) -> RoundError {
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
