//! What a ceremony is to do, and who takes part: the same on every host.

use std::collections::BTreeMap;
use std::rc::Rc;

use monosign_protocol::ChainId;
use sha2::{Digest as _, Sha256};

use crate::threshold::group::{Group, Shape};
use crate::threshold::rounds::MemberId;

/// The public identity key by which a host is known on connections.
pub type Key = [u8; 32];

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// A new key that never exists anywhere.
    Generate,
    /// New shares of the same key for the same members.
    Refresh,
    /// New shares of the same key for other members, or another threshold.
    Reshare,
    /// The share of one member, from the others'.
    Repair {
        /// Whose.
        lost: MemberId,
    },
}

/// Which cosigner a host is, before and after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Role {
    /// Its number in the group that there is.
    pub old: Option<MemberId>,
    /// Its number in the group that is to be.
    pub new: Option<MemberId>,
}

/// A ceremony.
#[derive(Debug, Clone)]
pub struct Plan {
    act: Act,
    chain_id: ChainId,
    shape: Shape,
    epoch: u32,
    before: Option<Rc<Group>>,
    parties: BTreeMap<Key, Role>,
}

/// Why a ceremony cannot be as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// Somebody is named twice.
    #[error("the same identity is named twice\nhint: each host has an identity of its own")]
    Twice,
    /// A number that no member has.
    #[error("there is no cosigner {0} in the group")]
    NoMember(MemberId),
    /// This host has no part in it.
    #[error(
        "this host has identity `{0}`, which is none of those that were named\n\
         hint: `monosign threshold identity` prints it; give the same command on every host"
    )]
    NotOne(String),
    /// Too few of those who have the key.
    #[error("{have} of those who take part have shares of the key, and {need} are needed")]
    TooFew {
        /// How many have.
        have: usize,
        /// How many are needed.
        need: u16,
    },
}

impl Plan {
    /// A key for these members, in the order of their numbers.
    ///
    /// # Errors
    /// [`PlanError::Twice`].
    pub fn generate(chain_id: ChainId, shape: Shape, members: &[Key]) -> Result<Self, PlanError> {
        let parties = numbered(members)?;
        Ok(Self { act: Act::Generate, chain_id, shape, epoch: 1, before: None, parties })
    }

    /// New shares for all members of a group.
    pub fn refresh(group: Rc<Group>) -> Self {
        let role = |id: MemberId| Role { old: Some(id), new: Some(id) };
        let parties = group.members().filter_map(|id| Some((*group.identity(id)?, role(id)))).collect();
        Self::of(Act::Refresh, group.shape(), 1, group, parties)
    }

    /// New shares for these members, in the order of their numbers. At least `t` of those who have shares must be among
    /// them or leaving.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn reshare(
        group: Rc<Group>,
        shape: Shape,
        members: &[Key],
        leaving: &[Key],
    ) -> Result<Self, PlanError> {
        let mut parties = numbered(members)?;
        for key in leaving {
            if parties.insert(*key, Role::default()).is_some() {
                return Err(PlanError::Twice);
            }
        }
        for (key, role) in &mut parties {
            role.old = group.member_of(key);
        }
        let have = parties.values().filter(|role| role.old.is_some()).count();
        let need = group.shape().threshold();
        if have < usize::from(need) {
            return Err(PlanError::TooFew { have, need });
        }
        Ok(Self::of(Act::Reshare, shape, 1, group, parties))
    }

    /// The share of a member whose host has this identity from now on, from those of `helpers`.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn repair(
        group: Rc<Group>,
        lost: MemberId,
        identity: Key,
        helpers: &[MemberId],
    ) -> Result<Self, PlanError> {
        let mut parties = BTreeMap::new();
        group.identity(lost).ok_or(PlanError::NoMember(lost))?;
        parties.insert(identity, Role { old: None, new: Some(lost) });
        for helper in helpers {
            let key = *group.identity(*helper).ok_or(PlanError::NoMember(*helper))?;
            let role = Role { old: Some(*helper), new: Some(*helper) };
            if *helper == lost || parties.insert(key, role).is_some() {
                return Err(PlanError::Twice);
            }
        }
        let need = group.shape().threshold();
        if helpers.len() < usize::from(need) {
            return Err(PlanError::TooFew { have: helpers.len(), need });
        }
        Ok(Self::of(Act::Repair { lost }, group.shape(), 0, group, parties))
    }

    fn of(act: Act, shape: Shape, later: u32, group: Rc<Group>, parties: BTreeMap<Key, Role>) -> Self {
        let (chain_id, epoch) = (group.chain_id().clone(), group.epoch().saturating_add(later));
        Self { act, chain_id, shape, epoch, before: Some(group), parties }
    }

    /// What is done.
    pub fn act(&self) -> Act {
        self.act
    }

    /// The chain.
    pub fn chain_id(&self) -> &ChainId {
        &self.chain_id
    }

    /// How many of how many sign afterwards.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The epoch of the new shares.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The group that there is.
    pub fn before(&self) -> Option<&Rc<Group>> {
        self.before.as_ref()
    }

    /// Who takes part.
    pub fn parties(&self) -> impl Iterator<Item = (&Key, &Role)> {
        self.parties.iter()
    }

    /// What a host is.
    pub fn role(&self, key: &Key) -> Option<Role> {
        self.parties.get(key).copied()
    }

    /// The identities of the members that are to be.
    pub(super) fn identities(&self) -> BTreeMap<MemberId, Key> {
        let mut identities = BTreeMap::new();
        if let (Act::Repair { .. }, Some(group)) = (self.act, &self.before) {
            identities.extend(group.members().filter_map(|id| Some((id, *group.identity(id)?))));
        }
        identities.extend(self.parties.iter().filter_map(|(key, role)| Some((role.new?, *key))));
        identities
    }

    /// Those whose shares the new ones are made of: as many as it takes, lowest numbers first.
    pub(super) fn dealers(&self) -> BTreeMap<MemberId, Key> {
        let Some(group) = &self.before else { return BTreeMap::new() };
        let with: BTreeMap<_, _> =
            self.parties.iter().filter_map(|(key, role)| Some((role.old?, *key))).collect();
        with.into_iter().take(usize::from(group.shape().threshold())).collect()
    }

    /// A host, for people.
    pub fn name(&self, key: &Key) -> String {
        match self.parties.get(key).copied().unwrap_or_default() {
            Role { old: Some(old), new: Some(new) } if old == new => format!("cosigner {old}"),
            Role { old: Some(old), new: Some(new) } => format!("cosigner {old} (from now on {new})"),
            Role { old: Some(old), new: None } => format!("cosigner {old} (leaving)"),
            Role { old: None, new: Some(new) } => format!("new cosigner {new}"),
            Role { old: None, new: None } => "a stranger".into(),
        }
    }

    /// Two hosts mean the same if and only if this is equal.
    pub(super) fn digest(&self) -> [u8; 32] {
        let act = match self.act {
            Act::Generate => [0, 0],
            Act::Refresh => [1, 0],
            Act::Reshare => [2, 0],
            Act::Repair { lost } => [3, lost.0],
        };
        let mut hash = Sha256::new_with_prefix(b"monosign ceremony 1\0");
        let mut number = |number: u16| hash.update(number.to_le_bytes());
        act.into_iter().for_each(&mut number);
        [self.shape.threshold(), self.shape.members()].into_iter().for_each(&mut number);
        for role in self.parties.values() {
            [role.old, role.new].into_iter().for_each(|id| number(id.map_or(0, |id| id.0)));
        }
        hash.update(self.epoch.to_le_bytes());
        self.parties.keys().for_each(|key| hash.update(key));
        hash.update(Sha256::digest(self.chain_id.as_str()));
        if let Some(group) = &self.before {
            hash.update(Sha256::digest(group.to_json()));
        }
        hash.finalize().into()
    }

    /// What a host is that takes part.
    ///
    /// # Errors
    /// [`PlanError::NotOne`] if it does not.
    pub fn must_have(&self, key: &Key) -> Result<Role, PlanError> {
        self.role(key).ok_or_else(|| PlanError::NotOne(data_encoding::HEXLOWER.encode(key)))
    }
}

fn numbered(members: &[Key]) -> Result<BTreeMap<Key, Role>, PlanError> {
    let mut parties = BTreeMap::new();
    for (key, id) in members.iter().zip(1..) {
        if parties.insert(*key, Role { old: None, new: Some(MemberId(id)) }).is_some() {
            return Err(PlanError::Twice);
        }
    }
    Ok(parties)
}
