//! The group file: who signs together, under which public key, and how many it takes. Nothing in it is secret.
//!
//! ```json
//! {"monosign_group":1,"chain_id":"…","public_key":"…","threshold":2,"epoch":1,
//!  "profile":"…","members":[{"id":1,"identity":"…","verifying_share":"…"},…]}
//! ```
//!
//! with base64 values. Every cosigner has the same file. `epoch` counts how often the key was shared anew.

use std::collections::{BTreeMap, BTreeSet};

use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::Identity as _;
use data_encoding::BASE64;
use ed25519_dalek::VerifyingKey;
use monosign_protocol::ChainId;
use serde::{Deserialize, Serialize};

use super::frost::{self, PublicKeyPackage, VerifyingShare};
use super::rounds::MemberId;
use crate::ops::redact;
use crate::pubkey::PublicKey;

/// The most members that a group has: each signature takes work and messages for each signer.
pub const MAX_MEMBERS: u16 = 16;

/// Who signs together.
#[derive(Debug, Clone)]
pub struct Group {
    chain_id: ChainId,
    shape: Shape,
    epoch: u32,
    verifying_key: VerifyingKey,
    identities: BTreeMap<MemberId, [u8; 32]>,
    package: PublicKeyPackage,
}

/// How many of how many sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    threshold: u16,
    members: u16,
}

/// Why so many of so many is not allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShapeError {
    /// One cosigner alone would sign.
    #[error(
        "threshold {0}: a share would be the key\nhint: at least 2; a single signer needs no threshold signing"
    )]
    TooLow(u16),
    /// More than there are.
    #[error("threshold {threshold} of {members}: so many members there are not")]
    TooHigh {
        /// How many sign.
        threshold: u16,
        /// How many there are.
        members: u16,
    },
    /// Too many.
    #[error("{0} members: at most {MAX_MEMBERS}")]
    TooMany(u16),
    /// Two disjoint halves could each sign, and sign different blocks.
    #[error(
        "{threshold} of {members}: two sets of {threshold} that have no member in common could sign two blocks at one height, \
         without any fault\nhint: twice the threshold must be more than the members: {} of {members}, or {threshold} of {}",
        members / 2 + 1, threshold * 2 - 1
    )]
    NoOverlap {
        /// How many sign.
        threshold: u16,
        /// How many there are.
        members: u16,
    },
}

impl Shape {
    /// So many of so many.
    ///
    /// # Errors
    /// [`ShapeError`]: a double signature must take at least one faulty cosigner, which holds if and only if `2t > n`.
    pub fn new(threshold: u16, members: u16) -> Result<Self, ShapeError> {
        if members > MAX_MEMBERS {
            return Err(ShapeError::TooMany(members));
        }
        if threshold < 2 {
            return Err(ShapeError::TooLow(threshold));
        }
        if threshold > members {
            return Err(ShapeError::TooHigh { threshold, members });
        }
        if 2 * threshold <= members {
            return Err(ShapeError::NoOverlap { threshold, members });
        }
        Ok(Self { threshold, members })
    }

    /// A shape that is not allowed, to see what comes of it.
    #[cfg(test)]
    pub(super) fn forced(threshold: u16, members: u16) -> Self {
        Self { threshold, members }
    }

    /// How many sign.
    pub fn threshold(self) -> u16 {
        self.threshold
    }

    /// How many there are.
    pub fn members(self) -> u16 {
        self.members
    }

    /// How many may be down.
    pub fn crashes(self) -> u16 {
        self.members - self.threshold
    }

    /// How many may be cloned, rolled back or malicious before two signatures at one place become possible: two sets of `t`
    /// signers share `2t - n` members, and one of them must be sound.
    pub fn faults(self) -> u16 {
        2 * self.threshold - self.members - 1
    }

    /// How many peers must answer a cosigner that rejoins with a disk that may be old: with so many, every session that
    /// its old self was part of meets one that has answered.
    pub fn rejoin_quorum(self) -> usize {
        usize::from(self.members - self.threshold + 1)
    }

    /// What the group survives, for people.
    pub fn profile(self) -> String {
        let crashes = match self.crashes() {
            0 => "no cosigner may be down".into(),
            1 => "1 cosigner may be down".into(),
            n => format!("{n} cosigners may be down"),
        };
        let faults = match self.faults() {
            0 => "none may be cloned, rolled back or malicious: one that is can lead to a double signature"
                .into(),
            1 => "1 may be cloned, rolled back or malicious".into(),
            n => format!("{n} may be cloned, rolled back or malicious"),
        };
        format!("{} of {}: {crashes}; {faults}", self.threshold, self.members)
    }
}

/// Why a group file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// It is no group file.
    #[error("it is no group file of monosign: {0}")]
    Form(String),
    /// It is of a later version.
    #[error("it is of version {0}, which is not known here\nhint: use a newer monosign")]
    NewerVersion(u32),
    /// So many of so many is not allowed.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// The members are not numbered from 1, or two are the same.
    #[error("its members are not numbered from 1, each once, with an identity of its own")]
    Members,
    /// A value is no point of the curve.
    #[error("its `{0}` is no valid point of the curve")]
    Point(&'static str),
    /// The shares do not add up to the public key.
    #[error(
        "its verifying shares do not belong to its public key\nhint: take the group file of the same split as the shares"
    )]
    Shares,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    monosign_group: u32,
    chain_id: String,
    public_key: String,
    threshold: u16,
    epoch: u32,
    /// For people; not read.
    profile: String,
    members: Vec<FileMember>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileMember {
    id: MemberId,
    identity: String,
    verifying_share: String,
}

impl Group {
    /// A group as it was dealt.
    ///
    /// # Errors
    /// [`GroupError`] if the parts do not belong together.
    pub fn new(
        chain_id: ChainId,
        shape: Shape,
        epoch: u32,
        identities: BTreeMap<MemberId, [u8; 32]>,
        package: PublicKeyPackage,
    ) -> Result<Self, GroupError> {
        let numbered = identities.keys().copied().eq((1..=shape.members).map(MemberId));
        let distinct = identities.values().collect::<BTreeSet<_>>().len() == identities.len();
        if !numbered || !distinct || package.verifying_shares().len() != identities.len() {
            return Err(GroupError::Members);
        }
        let key = package.verifying_key().serialize().map_err(|_| GroupError::Shares)?;
        let key = <[u8; 32]>::try_from(key).map_err(|_| GroupError::Shares)?;
        let verifying_key = VerifyingKey::from_bytes(&key).map_err(|_| GroupError::Shares)?;
        let group = Self { chain_id, shape, epoch, verifying_key, identities, package };
        if group.shares_belong_to_key() { Ok(group) } else { Err(GroupError::Shares) }
    }

    /// The same group, with another identity for one member.
    ///
    /// # Errors
    /// [`GroupError::Members`] if it is another member's, or there is no such member.
    pub fn with_identity(&self, member: MemberId, identity: [u8; 32]) -> Result<Self, GroupError> {
        let mut group = self.clone();
        group.identities.insert(member, identity);
        let Self { chain_id, shape, epoch, identities, package, .. } = group;
        Self::new(chain_id, shape, epoch, identities, package)
    }

    /// Reads a group file.
    ///
    /// # Errors
    /// [`GroupError`].
    pub fn parse(text: &[u8]) -> Result<Self, GroupError> {
        let file: File =
            serde_json::from_slice(text).map_err(|e| GroupError::Form(redact::json(text, &e)))?;
        if file.monosign_group != 1 {
            return Err(GroupError::NewerVersion(file.monosign_group));
        }
        let chain_id = file.chain_id.parse().map_err(|e| GroupError::Form(format!("{e}")))?;
        let members = u16::try_from(file.members.len()).unwrap_or(u16::MAX);
        let shape = Shape::new(file.threshold, members)?;
        let mut identities = BTreeMap::new();
        let mut shares = BTreeMap::new();
        for member in file.members {
            let identifier = member.id.identifier().ok_or(GroupError::Members)?;
            let identity = key_bytes("identity", &member.identity)?;
            VerifyingKey::from_bytes(&identity).map_err(|_| GroupError::Point("identity"))?;
            if identities.insert(member.id, identity).is_some() {
                return Err(GroupError::Members);
            }
            let share = VerifyingShare::deserialize(&key_bytes("verifying_share", &member.verifying_share)?)
                .map_err(|_| GroupError::Point("verifying_share"))?;
            shares.insert(identifier, share);
        }
        let key = frost::VerifyingKey::deserialize(&key_bytes("public_key", &file.public_key)?)
            .map_err(|_| GroupError::Point("public_key"))?;
        let package = PublicKeyPackage::new(shares, key, Some(file.threshold));
        Self::new(chain_id, shape, file.epoch, identities, package)
    }

    /// The group file's text.
    pub fn to_json(&self) -> String {
        let members = self.identities.iter().map(|(id, identity)| FileMember {
            id: *id,
            identity: BASE64.encode(identity),
            verifying_share: BASE64.encode(&self.share_bytes(*id).unwrap_or_default()),
        });
        let file = File {
            monosign_group: 1,
            chain_id: self.chain_id.to_string(),
            public_key: BASE64.encode(self.verifying_key.as_bytes()),
            threshold: self.shape.threshold,
            epoch: self.epoch,
            profile: self.shape.profile(),
            members: members.collect(),
        };
        serde_json::to_string_pretty(&file).unwrap_or_default() + "\n"
    }

    /// The chain that it signs for.
    pub fn chain_id(&self) -> &ChainId {
        &self.chain_id
    }

    /// How many of how many sign.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// How often the key was shared anew.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The key that its signatures verify under.
    pub fn verifying_key(&self) -> &VerifyingKey {
        &self.verifying_key
    }

    /// The same key, as a chain shows it.
    pub fn public_key(&self) -> PublicKey {
        PublicKey::from_bytes(self.verifying_key.to_bytes())
    }

    /// The members, in order of their numbers, which is their rank.
    pub fn members(&self) -> impl Iterator<Item = MemberId> + '_ {
        self.identities.keys().copied()
    }

    /// The identity key of a member's connections.
    pub fn identity(&self, member: MemberId) -> Option<&[u8; 32]> {
        self.identities.get(&member)
    }

    /// The member with an identity key.
    pub fn member_of(&self, identity: &[u8; 32]) -> Option<MemberId> {
        self.identities.iter().find(|(_, of)| *of == identity).map(|(member, _)| *member)
    }

    /// What FROST needs to know of the group.
    pub fn package(&self) -> &PublicKeyPackage {
        &self.package
    }

    /// A member's verifying share.
    pub fn verifying_share(&self, member: MemberId) -> Option<&VerifyingShare> {
        self.package.verifying_shares().get(&member.identifier()?)
    }

    fn share_bytes(&self, member: MemberId) -> Option<Vec<u8>> {
        self.verifying_share(member)?.serialize().ok()
    }

    /// Whether each `t` neighbours' shares interpolate to the key: then all lie on one polynomial of degree `t - 1`.
    fn shares_belong_to_key(&self) -> bool {
        let points: Option<Vec<_>> = self.members().map(|id| Some((id, self.point(id)?))).collect();
        let key = self.verifying_key.to_edwards();
        let threshold = usize::from(self.shape.threshold);
        points.is_some_and(|points| points.windows(threshold).all(|some| at_zero(some) == Some(key)))
    }

    fn point(&self, member: MemberId) -> Option<EdwardsPoint> {
        CompressedEdwardsY::from_slice(&self.share_bytes(member)?).ok()?.decompress()
    }
}

/// The value at 0 of the polynomial through these points (Lagrange).
fn at_zero(points: &[(MemberId, EdwardsPoint)]) -> Option<EdwardsPoint> {
    let mut sum = EdwardsPoint::identity();
    for (i, point) in points {
        let (mut above, mut below) = (Scalar::ONE, Scalar::ONE);
        for (j, _) in points.iter().filter(|(j, _)| j != i) {
            above *= Scalar::from(j.0);
            below *= Scalar::from(j.0) - Scalar::from(i.0);
        }
        if below == Scalar::ZERO {
            return None;
        }
        sum += point * (above * below.invert());
    }
    Some(sum)
}

/// The value is not told: a share may have been put in its place.
fn key_bytes(field: &'static str, text: &str) -> Result<[u8; 32], GroupError> {
    let bytes = BASE64.decode(text.as_bytes()).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    bytes.ok_or(GroupError::Point(field))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_every_shape_in_which_two_quorums_need_not_meet() {
        for members in 2..=MAX_MEMBERS {
            for threshold in 2..=members {
                let shape = Shape::new(threshold, members);
                assert_eq!(shape.is_ok(), 2 * threshold > members, "{threshold} of {members}");
            }
        }
        assert_eq!(Shape::new(1, 1), Err(ShapeError::TooLow(1)));
        assert_eq!(Shape::new(4, 3), Err(ShapeError::TooHigh { threshold: 4, members: 3 }));
    }

    #[test]
    fn says_plainly_what_each_profile_survives() {
        let profile = |t, n| Shape::new(t, n).expect("allowed").profile();
        assert_eq!(
            profile(2, 3),
            "2 of 3: 1 cosigner may be down; none may be cloned, rolled back or malicious: one that is can lead to a double \
             signature"
        );
        assert_eq!(
            profile(3, 4),
            "3 of 4: 1 cosigner may be down; 1 may be cloned, rolled back or malicious"
        );
        assert_eq!(
            profile(5, 7),
            "5 of 7: 2 cosigners may be down; 2 may be cloned, rolled back or malicious"
        );
    }
}
