//! The proof that new shares sign: every set of `t` members signs a message of no meaning, before anything relies on them.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::meeting::{Meeting, Round, agree, all};
use super::plan::{Key, Plan};
use super::{CeremonyError, Unequal};
use crate::chain::RawSigning;
use crate::record::Permit;
use crate::seams::Entropy;
use crate::threshold::asked::Subject;
use crate::threshold::deal::subsets;
use crate::threshold::frost::{self, KeyPackage, SignatureShare, SigningCommitments, SigningNonces};
use crate::threshold::group::Group;
use crate::threshold::rounds::{self, Commitments, MemberId};

/// One set of signers, and this host's nonces if it is one of them.
struct Set {
    signers: Vec<MemberId>,
    nonces: Option<SigningNonces>,
}

/// Has every set of `t` of those who are here sign. All sets go at once, so it takes two rounds however many there are. Returns
/// how many.
pub(super) async fn prove(
    meeting: &mut dyn Meeting,
    plan: &Plan,
    group: &Group,
    own: Option<(MemberId, &Rc<KeyPackage>)>,
    run: [u8; 32],
    entropy: &dyn Entropy,
) -> Result<usize, CeremonyError> {
    let present: BTreeMap<MemberId, Key> =
        plan.parties().filter_map(|(key, role)| Some((role.new?, *key))).collect();
    let members: Vec<MemberId> = present.keys().copied().collect();
    let mut number = [0; 16];
    number.copy_from_slice(&run[..16]);
    let permit = Subject::Drill(number).unguarded(group.chain_id(), RawSigning::default())?;

    let mut sets = Vec::new();
    let mut offered = Vec::new();
    for signers in subsets(&members, usize::from(group.shape().threshold())) {
        let mut nonces = None;
        if let Some((_, key)) = own.filter(|(me, _)| signers.contains(me)) {
            let (secret, public) = rounds::commit(key, entropy);
            offered.push(public.serialize()?);
            nonces = Some(secret);
        }
        sets.push(Set { signers, nonces });
    }
    let heard = all(meeting, plan, Round::ProveNonces, offered).await?;
    agree(meeting, plan, Round::ProveEcho, &heard).await?;
    let commitments = deal_out(plan, &sets, &present, heard, SigningCommitments::deserialize)?;

    let mut made = Vec::new();
    for (set, commitments) in sets.iter_mut().zip(&commitments) {
        made.extend(share(set, commitments, own.map(|(_, key)| key), &permit)?);
    }
    let heard = all(meeting, plan, Round::ProveShares, made).await?;
    let shares = deal_out(plan, &sets, &present, heard, SignatureShare::deserialize)?;
    for (commitments, shares) in commitments.iter().zip(&shares) {
        rounds::aggregate(group, commitments, shares, None, permit.bytes())?;
    }
    Ok(sets.len())
}

fn share(
    set: &mut Set,
    commitments: &Commitments,
    key: Option<&Rc<KeyPackage>>,
    permit: &Permit<'_>,
) -> Result<Option<Vec<u8>>, CeremonyError> {
    let (Some(nonces), Some(key)) = (set.nonces.take(), key) else { return Ok(None) };
    Ok(Some(rounds::sign_share(key, nonces, commitments, permit)?.share.serialize()))
}

/// What each has said of the sets that it is in, by set.
fn deal_out<T>(
    plan: &Plan,
    sets: &[Set],
    present: &BTreeMap<MemberId, Key>,
    heard: BTreeMap<Key, Vec<Vec<u8>>>,
    read: impl Fn(&[u8]) -> Result<T, frost::Error>,
) -> Result<Vec<BTreeMap<MemberId, T>>, CeremonyError> {
    let mut said: BTreeMap<Key, _> = heard.into_iter().map(|(key, list)| (key, list.into_iter())).collect();
    let mut next = |member: &MemberId| {
        let key = present.get(member)?;
        Some((*member, read(&said.get_mut(key)?.next()?).ok()?))
    };
    let mut dealt = Vec::new();
    for set in sets {
        let mut of_set = BTreeMap::new();
        for member in &set.signers {
            let (member, value) = next(member).ok_or_else(|| CeremonyError::Unequal {
                who: present.get(member).map(|key| plan.name(key)).unwrap_or_default(),
                what: Unequal::Dealt,
            })?;
            of_set.insert(member, value);
        }
        dealt.push(of_set);
    }
    Ok(dealt)
}
