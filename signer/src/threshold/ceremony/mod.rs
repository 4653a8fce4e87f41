//! Ceremonies: the hosts of a group make a key, or make new shares of one, together.
//!
//! The same command runs on every host at the same time, and they speak over TLS connections between identity keys that each was
//! told, so nobody deals and no secret passes through anybody's hands. It goes in [rounds](meeting::Round).
//!
//! # What always holds
//!
//! * No key is ever in one place: what a host computes is its own share.
//! * New shares are proven before anything relies on them: every set of `t` signs, and each share is read back from the disk.
//! * There is no moment at which an old quorum and a new one could both sign. The order, each step durable before the next:
//!   1. all new shares are proven and on stable storage ([`Stage::Staged`]);
//!   2. `t` of the old shares are destroyed, and their hosts have written down that their epoch is over ([`Stage::Retired`]). `n - t` old
//!      shares are left, and `2t > n`: they are no quorum;
//!   3. each new member's record rises to the highest guard of those `t`. Whatever the old group has signed, or can still complete from
//!      shares that it gave, took `t` members, and two sets of `t` have a member in common;
//!   4. the new share takes its place ([`Stage::Active`]).
//! * A ceremony that was interrupted at any step is taken up by the same command. Before step 2 it is as if it had not been; after
//!   it, `t` old hosts that come back are enough.
//!
//! With up to `f = 2t - n - 1` old members that lie, `t` retirements are still enough: `n - t` that did not retire and `f` that only
//! said so are `t - 1`.
//!
//! # Where it is
//!
//! [`plan`] is what is to be done by whom, [`meeting`] how they speak, [`links`] the connections, `shares` and `proof` the
//! cryptography, [`succession`] the order above, [`repair`] the one ceremony without new shares, [`journal`] what a host remembers.

pub mod journal;
pub mod links;
pub mod meeting;
pub mod plan;
mod proof;
pub mod repair;
mod shares;
pub mod succession;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use age::secrecy::ExposeSecret as _;
use age::x25519;
use data_encoding::BASE64;
use ed25519_dalek::SigningKey;
use monosign_protocol::{ChainId, Height};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use self::journal::{Journal, JournalError};
use self::meeting::MeetingError;
use self::plan::PlanError;
use super::frost;
use super::group::{Group, GroupError};
use super::incarnation::LivesError;
use super::open::{self, OpenError};
use super::rounds::RoundError;
use super::share::{Share, ShareError};
use crate::backend::softsign::key_file::{self, SealError};
use crate::guard::{JumpLimit, Refusal};
use crate::ops::durable_file::DurableFileError;
use crate::ops::private_file::PrivateFileError;
use crate::record::{Opener, RecordError};
use crate::seams::{Disk, Entropy, Secret};
pub use journal::Stage;

#[cfg(test)]
mod tests;

/// What two hosts do not agree on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unequal {
    /// What is to be done.
    Plan,
    /// What somebody has told all.
    Heard,
    /// What it dealt out, and what it had committed itself to.
    Dealt,
}

/// Why a ceremony was given up. Giving its command again is always safe.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CeremonyError {
    /// It cannot be.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Somebody cannot be reached, or has gone.
    #[error(transparent)]
    Meeting(#[from] MeetingError),
    /// Two hosts do not agree.
    #[error("{}", unequal(who, *what))]
    Unequal {
        /// Who.
        who: String,
        /// On what.
        what: Unequal,
    },
    /// What somebody says is not what belongs there.
    #[error("{who} says what makes no sense\nhint: run the same version of monosign on every host")]
    Nonsense {
        /// Who.
        who: String,
    },
    /// This host should have a share and has none.
    #[error(
        "this host has no share of the group's present epoch\nhint: look whether `share` and `group` in the configuration are right; \
         a lost share is made again by `monosign threshold repair`"
    )]
    NoShare,
    /// Somebody does not have what others rely on already.
    #[error(
        "{who} does not have the new share that others rely on already\n\
         hint: give the command again on the other hosts, with --without {key}; then `monosign threshold repair` it"
    )]
    Behind {
        /// Who.
        who: String,
        /// Its identity.
        key: String,
    },
    /// A guard that says nothing, and too few others.
    #[error(
        "{who} does not know what it has signed: its disk is new, and too few others have told it\nhint: start its cosigner and wait until \
         `monosign threshold status` says `active` there, or hold the ceremony with more of the old members; then give the command again"
    )]
    NewDisk {
        /// Who.
        who: String,
    },
    /// New shares take everybody.
    #[error(
        "new shares are not made without {0}\nhint: --without is for a ceremony that has begun; leave it away"
    )]
    NotAll(String),
    /// Another ceremony has begun and must be ended.
    #[error(
        "another ceremony is under way on this host, and its share is destroyed already\n\
         hint: give that one's command again, on every host, until it has ended"
    )]
    Another,
    /// Another ceremony may not have ended elsewhere.
    #[error(
        "the last ceremony has ended here, and it is not known whether it has on the other hosts\n\
         hint: give its command again on every host; or, if you know that it has, give this one with --anew"
    )]
    Unended,
    /// The share that was put by cannot be read back.
    #[error("the new share on this host's disk is not the one that was made: {0}")]
    Staged(ShareError),
    /// A guard far above all others.
    #[error(
        "{who} says that it has stood at height {height}, far above the others: the new group would sign nothing below\n\
         hint: if it is true, give the command again with --accept-floor {height}; if not, with --without that host"
    )]
    Unbelievable {
        /// Who.
        who: String,
        /// Where.
        height: Height,
    },
    /// Something lies where the share or the group file is to be.
    #[error("`{}` exists and is never overwritten\nhint: choose another place, or move it away", .0.display())]
    Exists(PathBuf),
    /// The shares are of another key, which cannot be.
    #[error("the new shares are of another key: nothing was changed")]
    OtherKey,
    /// FROST refused.
    #[error("the shares cannot be made: {0}")]
    Frost(#[from] frost::Error),
    /// A set of members does not sign.
    #[error("the new shares do not sign: {0}")]
    Unproven(#[from] RoundError),
    /// The message that proves them cannot be signed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The group file.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// A share file.
    #[error(transparent)]
    Share(#[from] ShareError),
    /// A sealed file.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// A file.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// A file that is changed on the way.
    #[error(transparent)]
    Disk(#[from] DurableFileError),
    /// The file of the generation.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The file of lives.
    #[error(transparent)]
    Lives(#[from] LivesError),
    /// The record.
    #[error("{source}\nhint: {}", record_hint(source))]
    Record {
        /// What is wrong with it.
        #[from]
        source: RecordError,
    },
}

/// A ceremony needs the record that its cosigner signs with. What a single signer would be told to make is not that.
fn record_hint(error: &RecordError) -> Cow<'static, str> {
    match error {
        RecordError::Missing { .. } | RecordError::Exists { .. } | RecordError::Damaged { .. } => {
            "`state_file` has to be the record that this cosigner signs with: put it back, and never an older copy; if it is lost, this host \
             has to leave the group and come to it anew"
                .into()
        }
        other => other.hint(),
    }
}

fn unequal(who: &str, what: Unequal) -> String {
    match what {
        Unequal::Plan => format!(
            "{who} is to do something else than this host\nhint: give the same command, with the same members in the same order, on \
             every host, each with the same group file; a host that does not know that the last ceremony has ended needs --anew"
        ),
        Unequal::Heard => format!(
            "{who} was told something else than this host by the same cosigner: one of them cheats, and nothing was changed\n\
             hint: find out which"
        ),
        Unequal::Dealt => {
            format!("{who} has dealt what it did not commit itself to, and nothing was changed")
        }
    }
}

impl CeremonyError {
    /// Whether it was refused for safety.
    pub fn is_for_safety(&self) -> bool {
        match self {
            Self::Unequal { what, .. } => *what != Unequal::Plan,
            Self::File(error) => error.is_for_safety(),
            Self::Record { source } => !matches!(source, RecordError::Io { .. }),
            Self::Another
            | Self::Unended
            | Self::Unbelievable { .. }
            | Self::NewDisk { .. }
            | Self::Exists(_) => true,
            Self::Journal(error) => !matches!(error, JournalError::Io { .. }),
            _ => false,
        }
    }
}

/// Where a cosigner's files are.
#[derive(Debug, Clone)]
pub struct Files {
    /// The group file.
    pub group: PathBuf,
    /// The share file.
    pub share: PathBuf,
    /// The record; `None` for a new key, whose record is made by `monosign state init`.
    pub record: Option<PathBuf>,
    /// What the host remembers of ceremonies.
    pub journal: PathBuf,
}

impl Files {
    pub(super) fn next_group(&self) -> PathBuf {
        self.group.with_added_extension("next")
    }

    pub(super) fn next_share(&self) -> PathBuf {
        self.share.with_added_extension("next")
    }

    /// The group file that a ceremony began with, until it has ended everywhere.
    pub fn group_before(&self) -> PathBuf {
        self.group.with_added_extension("before")
    }

    /// The identity of a cosigner that has left, until the ceremony has ended everywhere.
    fn left(&self) -> PathBuf {
        self.share.with_added_extension("left")
    }
}

/// What a host has of its own.
pub struct Own {
    /// Who it is on connections.
    pub identity: SigningKey,
    /// What opens its share.
    pub age: x25519::Identity,
    /// Its share, if there is one in its place.
    pub share: Option<Share>,
}

impl Own {
    /// Reads what there is: the share, or what an interrupted ceremony has put by, or the age identity alone.
    ///
    /// # Errors
    /// [`CeremonyError::File`], [`CeremonyError::Share`], [`CeremonyError::Seal`].
    pub async fn read(disk: &dyn Disk, files: &Files, age: x25519::Identity) -> Result<Self, CeremonyError> {
        let open = |content: Secret| Share::open(&content, std::slice::from_ref(&age));
        if let Some(content) = if_there(disk.read_private(&files.share).await)? {
            let share = open(content)?;
            return Ok(Self { identity: share.identity().clone(), age, share: Some(share) });
        }
        if let Some(content) = if_there(disk.read_private(&files.next_share()).await)? {
            return Ok(Self { identity: open(content)?.identity().clone(), age, share: None });
        }
        let identity = match if_there(disk.read_private(&files.left()).await)? {
            Some(content) => open_identity(&content, &age)?,
            None => identity_of(&age),
        };
        Ok(Self { identity, age, share: None })
    }
}

/// The group file that a ceremony begins with on this host, or that one began with which was interrupted.
///
/// # Errors
/// [`OpenError`].
pub async fn group_to_begin_with(
    disk: &dyn Disk,
    files: &Files,
    chain_id: &ChainId,
    anew: bool,
) -> Result<Group, OpenError> {
    let is_begun = !anew && Journal::load(disk, &files.journal).await?.ceremony.is_some();
    if is_begun {
        match open::read_group(disk, &files.group_before(), chain_id).await {
            Err(OpenError::File(error)) if error.is_not_found() => {}
            other => return other,
        }
    }
    open::read_group(disk, &files.group, chain_id).await
}

/// What a host works with.
pub struct Workshop<'a> {
    /// Its files.
    pub files: &'a Files,
    /// What is its own.
    pub own: &'a Own,
    /// The disk.
    pub disk: &'a dyn Disk,
    /// The entropy.
    pub entropy: &'a dyn Entropy,
    /// How far a guard may be above all others.
    pub jump_limit: JumpLimit,
    /// A guard that is believed all the same.
    pub accept_floor: Option<Height>,
    /// Whether a ceremony that is not known to have ended elsewhere is forgotten.
    pub anew: bool,
    /// Tells the operator how it goes.
    pub tell: &'a dyn Fn(&str),
}

impl Workshop<'_> {
    /// Opens this host's record.
    fn opener<'a>(&'a self, path: &'a Path) -> Opener<'a> {
        Opener::new(self.disk, path).of_cosigner(self.own.identity.verifying_key().to_bytes())
    }
}

/// The identity on connections that belongs to an age identity, for a host that has no share yet: so that it has one secret and no
/// more.
pub fn identity_of(age: &x25519::Identity) -> SigningKey {
    let mut hash = Sha256::new_with_prefix(b"monosign cosigner identity 1\0");
    hash.update(age.to_string().expose_secret());
    let seed = Zeroizing::new(<[u8; 32]>::from(hash.finalize()));
    SigningKey::from_bytes(&seed)
}

fn if_there(content: Result<Secret, PrivateFileError>) -> Result<Option<Secret>, PrivateFileError> {
    match content {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn seal_identity(identity: &SigningKey, age: &x25519::Identity) -> Result<String, SealError> {
    let text = Zeroizing::new(BASE64.encode(identity.as_bytes()));
    key_file::encrypt(std::iter::once(&age.to_public() as &dyn age::Recipient), text.as_bytes())
}

fn open_identity(content: &[u8], age: &x25519::Identity) -> Result<SigningKey, SealError> {
    let text = key_file::decrypt_content(content, std::iter::once(age as &dyn age::Identity))?;
    let bytes = Zeroizing::new(BASE64.decode(&text).map_err(|_| SealError::Damaged)?);
    let seed = <[u8; 32]>::try_from(bytes.as_slice()).map(Zeroizing::new).map_err(|_| SealError::Damaged)?;
    Ok(SigningKey::from_bytes(&seed))
}

/// What has come of a ceremony on this host.
#[derive(Debug, Clone)]
pub struct Ended {
    /// The group that signs from now on.
    pub group: Rc<Group>,
    /// How many sets were seen to sign; `None` if that was in an earlier run of the command.
    pub proven: Option<usize>,
    /// Nothing at this place or below is signed by the new shares.
    pub floor: Option<super::message::Place>,
}
