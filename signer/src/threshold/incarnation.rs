//! Which life of a cosigner: every start is a new one, and its peers refuse the ones before.
//!
//! A cosigner that was stopped may have left shares behind that a coordinator can still complete, and a copy of it may still
//! run. Nonces live in memory only, so a session of an earlier life is known by its commitments; a peer that has heard of a
//! later life takes no part in it. That is the *fence*. It outlives the peer's own restart: it lies in a file beside
//! the record.
//!
//! The file also says what a start must not forget because it was interrupted: whether this disk still has to hear the others, and
//! where it stood before it heard any. That is written down when it becomes known, and taken back when the others' word is durable here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::message::Place;
use super::rounds::MemberId;
use crate::ops::durable_file::{self, DurableFileError};
use crate::record::Record;
use crate::seams::{Disk, Entropy};

/// How many starts of a peer may be news at once. Who claims more is believed so many, and has to come again.
pub const MOST_STARTS: u64 = 1 << 20;
/// Up to here, a peer that claims more and more is followed by doubling.
const FAR: u64 = 1 << 48;

/// One life. Later ones are greater; two lives of equal count, as of a copied disk, differ by chance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Incarnation {
    /// Counts starts.
    pub count: u64,
    /// Random.
    pub id: u64,
}

/// What outlives a start: our own life, the latest known of each peer, and what the group has signed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lives {
    /// Ours.
    pub own: Incarnation,
    /// The peers'.
    pub peers: BTreeMap<MemberId, Incarnation>,
    /// A height that the group has signed, from which jumps are measured at the next start: the record may stand where one coordinator
    /// alone has carried it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed: Option<i64>,
    /// Whether the others have told this disk what it may have lost. False from when it is new, or something shows that it is old, until
    /// `n - t + 1` of them have answered in one start and what they said is durable here. A file that does not say so has not heard them.
    #[serde(default)]
    pub settled: bool,
    /// Where the record stood when the cosigner was started, until it takes part. What it has been told since says nothing of what it has
    /// given away itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joining: Option<Place>,
    /// Where the record stood when this was written: one that stands lower has been put in its place.
    #[serde(default)]
    pub record: Place,
}

/// Why the file of lives cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LivesError {
    /// It is damaged.
    #[error("`{}` is damaged\nhint: remove it: the cosigner then rejoins as one whose disk is new", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The disk failed.
    #[error(transparent)]
    Io(#[from] DurableFileError),
}

impl Incarnation {
    /// A life after this one.
    pub fn next(self, entropy: &dyn Entropy) -> Self {
        let mut id = [0; 8];
        entropy.fill(&mut id);
        Self { count: self.count.saturating_add(1), id: u64::from_le_bytes(id) }
    }

    /// What to believe of a peer that was known in this life and claims a later one. Whoever holds its identity key can claim anything, and what is
    /// believed stands for good: so no claim comes near the end of what can be counted, and after any claim the true peer, which counts
    /// on from it, is believed in no more steps than the claim took.
    #[must_use]
    pub fn towards(self, claimed: Self) -> Self {
        let most = self.count.saturating_mul(2).min(FAR).max(self.count.saturating_add(MOST_STARTS));
        if claimed.count <= most { claimed } else { Self { count: most, id: 0 } }
    }

    /// Whether no honest cosigner can have come to it.
    pub fn is_beyond_belief(self) -> bool {
        self.count > 2 * FAR
    }
}

impl Lives {
    /// Where the file lies: beside the record.
    pub fn path(record: &Path) -> PathBuf {
        record.with_added_extension("lives")
    }

    /// Reads the file; `None` if there is none, as on a disk that is new.
    ///
    /// # Errors
    /// [`LivesError`].
    pub async fn load(disk: &dyn Disk, path: &Path) -> Result<Option<Self>, LivesError> {
        let text = disk.read_small(path).await.map_err(DurableFileError::at("read", path))?;
        let Some(text) = text else { return Ok(None) };
        serde_json::from_str(&text).map(Some).map_err(|_| LivesError::Damaged { path: path.into() })
    }

    /// A new life on the disk of a record, on stable storage before anybody hears of it.
    ///
    /// # Errors
    /// [`LivesError`].
    pub async fn begin(disk: &dyn Disk, record: &Record, entropy: &dyn Entropy) -> Result<Self, LivesError> {
        let path = Self::path(record.path());
        let place = Place::of(record.watermark());
        let mut lives = Self::load(disk, &path).await?.unwrap_or_default();
        lives.settled &= place >= lives.record;
        lives.joining = Some(lives.joining.map_or(place, |before| before.min(place)));
        lives.record = place;
        lives.own = lives.own.next(entropy);
        lives.store(disk, &path).await?;
        Ok(lives)
    }

    /// Has the next start hear the others as on a new disk: a record is about to be made, or a share to be made again. The fences and
    /// the count of lives stay.
    ///
    /// # Errors
    /// [`LivesError`].
    pub async fn unsettle(disk: &dyn Disk, record: &Path) -> Result<(), LivesError> {
        let path = Self::path(record);
        match Self::load(disk, &path).await? {
            Some(lives) if lives.settled => Self { settled: false, ..lives }.store(disk, &path).await,
            _ => Ok(()),
        }
    }

    /// Has jumps measured from the record at the next start: an operator has raised it.
    ///
    /// # Errors
    /// [`LivesError`].
    pub async fn measure_from_record(disk: &dyn Disk, record: &Path) -> Result<(), LivesError> {
        let path = Self::path(record);
        match Self::load(disk, &path).await? {
            Some(lives) if lives.signed.is_some() => Self { signed: None, ..lives }.store(disk, &path).await,
            _ => Ok(()),
        }
    }

    /// Writes the file; when this returns, it is on stable storage.
    ///
    /// # Errors
    /// [`LivesError::Io`].
    pub async fn store(&self, disk: &dyn Disk, path: &Path) -> Result<(), LivesError> {
        let text = serde_json::to_string(self).unwrap_or_default();
        Ok(durable_file::replace(disk, path, text.as_bytes()).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(count: u64) -> Incarnation {
        Incarnation { count, id: 7 }
    }

    #[test]
    fn a_claimed_life_is_followed_in_steps_and_never_to_where_counting_ends() {
        assert_eq!(life(17).towards(life(18)), life(18));
        assert_eq!(life(17).towards(life(17 + MOST_STARTS)), life(17 + MOST_STARTS));
        assert_eq!(life(17).towards(life(u64::MAX)), Incarnation { count: 17 + MOST_STARTS, id: 0 });
        // As often as somebody can dial in ten years, at two a second.
        let mut known = life(1);
        for _ in 0..100_000 {
            known = known.towards(life(u64::MAX));
        }
        let in_ten_years = 10 * 365 * 86_400 * 2 * MOST_STARTS;
        assert!(known.count + in_ten_years < 1 << 50 && !known.is_beyond_belief());
        // Who was not there meanwhile follows in no more steps.
        let (mut other, mut steps) = (life(1), 0);
        while other < life(1 << 40) {
            other = other.towards(life(1 << 40));
            steps += 1;
        }
        assert!(steps <= 22, "{steps}");
    }
}
