//! A lost share made again, by `t` others, on a host that has nothing but the group file.
//!
//! The share is the one that was lost, so the epoch stays. What is new is the host's identity on connections, and with it the
//! group file of everybody. The cosigner comes back as one whose disk is new: it takes part once `n - t + 1` others have fenced the
//! earlier one off, so that a copy of it which is not as lost as was thought does no harm.

use std::rc::Rc;

use serde::{Deserialize, Serialize};

use super::meeting::{Meeting, Round, all, greet};
use super::plan::Plan;
use super::shares::{Host, Made};
use super::{CeremonyError, Ended, Workshop, proof, succession};
use crate::ops::durable_file;
use crate::record::Record;
use crate::threshold::incarnation::Lives;
use crate::threshold::message::Place;
use crate::threshold::share::{Share, ShareOf};

/// What counts of a host.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Standing {
    /// Where its guard stands.
    guard: Place,
    /// The first height that its share signs.
    floor: i64,
}

/// Makes the lost share again, and gives everybody the group file with the new identity. The helpers' cosigners may run.
///
/// # Errors
/// [`CeremonyError`]. It is safe to run it again.
pub async fn repair(
    shop: &Workshop<'_>,
    plan: &Plan,
    meeting: &mut dyn Meeting,
) -> Result<Ended, CeremonyError> {
    let me = meeting.me();
    let role = plan.must_have(&me)?;
    let group = Rc::clone(plan.before().ok_or(CeremonyError::NoShare)?);
    let key = match (role.old, &shop.own.share) {
        (Some(_), Some(share)) => Some(share.key_package(&group)?),
        (Some(_), None) => return Err(CeremonyError::NoShare),
        (None, _) => None,
    };
    let guard = match &shop.files.record {
        Some(path) if key.is_some() => Place::of(&Record::peek(shop.disk, path).await?.1),
        _ => Place::default(),
    };
    let floor = shop.own.share.as_ref().map_or(0, |share| share.floor().0);
    let heard = greet(meeting, plan, Standing { guard, floor }).await?;
    let floor = heard.values().map(|of| of.floor).max().unwrap_or(0);
    let guard = heard.values().map(|of| of.guard).max().unwrap_or_default();

    let host = Host { plan, me, role, key: key.as_deref(), entropy: shop.entropy };
    let Made { share, run, .. } = host.repair(meeting).await?;
    let made = match (&key, share, role.new) {
        (None, Some(share), Some(id)) => {
            let (chain_id, public_key) = (group.chain_id().clone(), group.public_key());
            let floor = monosign_protocol::Height(floor);
            let of = ShareOf { chain_id, public_key, epoch: group.epoch(), floor };
            Some(Share::new(&of, id, share, shop.own.identity.clone()))
        }
        _ => None,
    };
    let key = match &made {
        Some(made) => Some(made.key_package(&group)?),
        None => key,
    };
    let own = role.new.zip(key.as_ref());
    let proven = proof::prove(meeting, plan, &group, own, run, shop.entropy).await?;
    if let Some(made) = made {
        keep(shop, plan, &made, guard).await?;
    }
    all(meeting, plan, Round::Staged, ()).await?;
    durable_file::replace(shop.disk, &shop.files.group, group.to_json().as_bytes()).await?;
    all(meeting, plan, Round::Active, ()).await?;
    Ok(Ended { group, proven: Some(proven), floor: role.old.is_none().then_some(guard) })
}

/// Writes the share, and makes the record if there is none: at least as high as any helper's.
async fn keep(shop: &Workshop<'_>, plan: &Plan, share: &Share, guard: Place) -> Result<(), CeremonyError> {
    let group = plan.before().ok_or(CeremonyError::NoShare)?;
    if let Some(path) = &shop.files.record {
        // Before the share is there: whatever is left of the one that was lost, this is a new disk.
        Lives::unsettle(shop.disk, path).await?;
        succession::stand_at(shop.opener(path), group, guard, None).await?;
    }
    let content = share.seal(&shop.own.age.to_public())?;
    Ok(durable_file::replace(shop.disk, &shop.files.share, content.as_bytes()).await?)
}
