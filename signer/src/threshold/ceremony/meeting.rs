//! How the hosts of a ceremony speak: in rounds, in each of which everybody tells everybody something.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::plan::{Key, Plan};
use super::{CeremonyError, Unequal};
use crate::seams::Local;

/// What a round is about. Hosts that are not in the same round have lost each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Round {
    /// What is to be done, and how far it has come.
    Hello,
    /// That all have heard the same in `Hello`.
    HelloEcho,
    /// Commitments to polynomials.
    Commit,
    /// That all have heard the same in `Commit`.
    CommitEcho,
    /// Parts of shares, each for one host.
    Deal,
    /// More of them.
    Sum,
    /// Commitments to nonces of trial signatures.
    ProveNonces,
    /// That all have heard the same in `ProveNonces`.
    ProveEcho,
    /// Shares of trial signatures.
    ProveShares,
    /// That the new share is on stable storage.
    Staged,
    /// That the old share is destroyed, and where its guard stood.
    Retired,
    /// That the new share is in its place.
    Active,
}

/// Everybody of a ceremony but this host. Who says something is known for certain, and nobody else hears it.
pub trait Meeting {
    /// This host.
    fn me(&self) -> Key;

    /// The others.
    fn others(&self) -> Vec<Key>;

    /// Tells each of the others what is for it, and returns what each of them says.
    fn exchange<'a>(
        &'a mut self,
        round: Round,
        said: BTreeMap<Key, Vec<u8>>,
    ) -> Local<'a, Result<BTreeMap<Key, Vec<u8>>, MeetingError>>;
}

/// Why hosts do not speak any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MeetingError {
    /// Somebody has gone.
    #[error(
        "{who} has gone: {why}\nhint: look why on its host, then give the command again on every host; what was done stays \
         done, and nothing was lost"
    )]
    Gone {
        /// Who.
        who: String,
        /// What became of it.
        why: String,
    },
    /// Somebody is not where we are.
    #[error(
        "{0} is at another step\nhint: stop the command on every host and give it again: all must run at the same time"
    )]
    OutOfStep(String),
    /// Somebody has not come.
    #[error("waited for {0} in vain\nhint: give the same command on every host; check addresses and ports")]
    Absent(String),
}

/// Tells each what `of` has for it.
pub(super) async fn each<T: Serialize + DeserializeOwned>(
    meeting: &mut dyn Meeting,
    plan: &Plan,
    round: Round,
    of: impl Fn(&Key) -> T,
) -> Result<BTreeMap<Key, T>, CeremonyError> {
    let said = meeting.others().into_iter().map(|key| {
        let bytes = postcard::to_stdvec(&of(&key)).unwrap_or_default();
        (key, bytes)
    });
    let said = said.collect();
    let heard = meeting.exchange(round, said).await?;
    let read = |(key, bytes): (Key, Vec<u8>)| match postcard::take_from_bytes(&bytes) {
        Ok((value, [])) => Ok((key, value)),
        _ => Err(CeremonyError::Nonsense { who: plan.name(&key) }),
    };
    heard.into_iter().map(read).collect()
}

/// Tells all the same. Returns what each has said, this host included.
pub(super) async fn all<T: Serialize + DeserializeOwned + Clone>(
    meeting: &mut dyn Meeting,
    plan: &Plan,
    round: Round,
    value: T,
) -> Result<BTreeMap<Key, T>, CeremonyError> {
    let mut heard = each(meeting, plan, round, |_| value.clone()).await?;
    heard.insert(meeting.me(), value);
    Ok(heard)
}

/// Begins: tells all which plan this is and where this host stands in it. Returns where each stands, once all mean the same plan
/// and have heard the same.
pub(super) async fn greet<T: Serialize + DeserializeOwned + Clone>(
    meeting: &mut dyn Meeting,
    plan: &Plan,
    standing: T,
) -> Result<BTreeMap<Key, T>, CeremonyError> {
    let digest = plan.digest();
    let heard = all(meeting, plan, Round::Hello, (digest, standing)).await?;
    if let Some((who, _)) = heard.iter().find(|(_, (theirs, _))| *theirs != digest) {
        return Err(CeremonyError::Unequal { who: plan.name(who), what: Unequal::Plan });
    }
    agree(meeting, plan, Round::HelloEcho, &heard).await?;
    Ok(heard.into_iter().map(|(key, (_, standing))| (key, standing)).collect())
}

/// Sees that all have heard the same, ourselves included: no point-to-point connection promises that.
pub(super) async fn agree(
    meeting: &mut dyn Meeting,
    plan: &Plan,
    round: Round,
    heard: &BTreeMap<Key, impl Serialize>,
) -> Result<[u8; 32], CeremonyError> {
    let digest: [u8; 32] = Sha256::digest(postcard::to_stdvec(heard).unwrap_or_default()).into();
    let theirs = all(meeting, plan, round, digest).await?;
    match theirs.iter().find(|(_, theirs)| **theirs != digest) {
        Some((who, _)) => Err(CeremonyError::Unequal { who: plan.name(who), what: Unequal::Heard }),
        None => Ok(digest),
    }
}
