//! Opening a cosigner at start: its group file, its share, its record and its lives.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use monosign_protocol::{ChainId, Round};
use tokio::time::Instant;

use super::ceremony::journal::{Journal, JournalError};
use super::cosigner::{Cosigner, Settings};
use super::frost::KeyPackage;
use super::group::{Group, GroupError};
use super::incarnation::{Lives, LivesError};
use super::keeper::Keeper;
use super::rounds::{MemberId, NonceMaker};
use super::run::Mesh;
use super::share::{Share, ShareError};
use crate::backend::locks::KeyLocks;
use crate::backend::softsign::unlock::{self, KeyFileError, UnlockEnv};
use crate::chain::Rules;
use crate::config::{Endpoint, ThresholdConfig};
use crate::guard::Watermark;
use crate::ops::durable_file::DurableFileError;
use crate::ops::private_file::PrivateFileError;
use crate::record::{Opener, Record, RecordError};
use crate::seams::{Disk, Seams};
use crate::start::patiently;

/// Why a cosigner cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The identity that opens the share.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// A file.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// The group file.
    #[error("group file `{}`: {error}", path.display())]
    Group {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: GroupError,
    },
    /// The share file.
    #[error("share file `{}`: {error}", path.display())]
    Share {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: ShareError,
    },
    /// The group signs for another chain.
    #[error("group file `{}` is of chain `{found}`, not of `{expected}`", path.display())]
    OtherChain {
        /// The file.
        path: PathBuf,
        /// Its chain.
        found: ChainId,
        /// The chain that was wanted.
        expected: ChainId,
    },
    /// The configuration does not name each of the others.
    #[error(
        "this is cosigner {me}, and the configuration must have a [[providers.threshold.peer]] for each of {expected}\n\
         hint: one table with `id` and `addr` for each of the others, and none for this one"
    )]
    Peers {
        /// This cosigner.
        me: MemberId,
        /// The others.
        expected: String,
    },
    /// The record.
    #[error("{source}\nhint: {}", source.hint())]
    Record {
        /// What is wrong with it.
        #[from]
        source: RecordError,
    },
    /// The file of lives.
    #[error(transparent)]
    Lives(#[from] LivesError),
    /// The share is of an earlier sharing, or it is not known whether it is.
    #[error(transparent)]
    Epoch(#[from] JournalError),
    /// A ceremony has destroyed the old share.
    #[error("there is no share `{}`: a ceremony has destroyed the one of an earlier epoch\nhint: {hint}", path.display())]
    Destroyed {
        /// The share file.
        path: PathBuf,
        /// What to do.
        hint: &'static str,
    },
    /// The socket for the others.
    #[error(
        "cannot listen on `{endpoint}`: {error}\nhint: another process may listen there, or `listen` is no address of this host"
    )]
    Listen {
        /// Where.
        endpoint: Endpoint,
        /// Why not.
        error: io::Error,
    },
    /// What secures connections.
    #[error("connections to other cosigners cannot be secured: {0}")]
    Transport(io::Error),
}

impl OpenError {
    /// Whether starting was refused for safety.
    pub fn is_for_safety(&self) -> bool {
        match self {
            Self::Key(error) => error.is_for_safety(),
            Self::File(error) => error.is_for_safety(),
            Self::Record { source } => !matches!(source, RecordError::Io { .. }),
            Self::Group { error, .. } => matches!(error, GroupError::Shape(_) | GroupError::Shares),
            Self::Share { error, .. } => matches!(error, ShareError::OtherGroup { .. }),
            Self::OtherChain { .. } | Self::Destroyed { .. } => true,
            Self::Epoch(error) => !matches!(error, JournalError::Io { .. }),
            _ => false,
        }
    }
}

/// A share that belongs to its group.
pub struct Opened {
    /// The group.
    pub group: Rc<Group>,
    /// The share.
    pub share: Share,
    key: Rc<KeyPackage>,
}

/// Reads the group file of a chain.
///
/// # Errors
/// [`OpenError::File`], [`OpenError::Group`], [`OpenError::OtherChain`].
pub async fn read_group(disk: &dyn Disk, path: &Path, chain_id: &ChainId) -> Result<Group, OpenError> {
    let text = disk.read_wiping(path).await?;
    let group = Group::parse(&text).map_err(|error| OpenError::Group { path: path.into(), error })?;
    if group.chain_id() != chain_id {
        let (found, expected) = (group.chain_id().clone(), chain_id.clone());
        return Err(OpenError::OtherChain { path: path.into(), found, expected });
    }
    Ok(group)
}

/// Explains a share that is not there, if a ceremony is why.
///
/// # Errors
/// [`OpenError::Destroyed`]; [`OpenError::Epoch`] if it cannot be known.
pub async fn explain(config: &ThresholdConfig, record: &Path, seams: &Seams) -> Result<(), OpenError> {
    let path = &config.share.path;
    if seams
        .disk
        .is_there(path)
        .await
        .map_err(DurableFileError::at("read", path))
        .map_err(JournalError::from)?
    {
        return Ok(());
    }
    let journal = Journal::load(&*seams.disk, &Journal::path(record)).await?;
    let hint = match journal.ceremony {
        Some(_) => "give the command of the ceremony again on every host, until it has ended",
        None if journal.epoch > 0 => {
            "this cosigner has left the group; its host has nothing to sign any more"
        }
        None => return Ok(()),
    };
    Err(OpenError::Destroyed { path: path.clone(), hint })
}

/// Opens the group and the share, and sees that they and the configured peers belong together.
///
/// # Errors
/// [`OpenError`].
pub async fn open(
    config: &ThresholdConfig,
    chain_id: &ChainId,
    env: &UnlockEnv,
    disk: &dyn Disk,
) -> Result<Opened, OpenError> {
    let group = Rc::new(read_group(disk, &config.group, chain_id).await?);
    let content = disk.read_private(&config.share.path).await?;
    let (_, identities) = unlock::identities(&config.share, env)?;
    let in_share = |error| OpenError::Share { path: config.share.path.clone(), error };
    let share = Share::open(&content, &identities).map_err(in_share)?;
    let key = share.key_package(&group).map_err(in_share)?;
    let me = share.id();
    let others = || group.members().filter(|member| *member != me);
    if !others().eq(config.peers.keys().copied()) {
        let expected = others().map(|member| member.to_string()).collect::<Vec<_>>().join(", ");
        return Err(OpenError::Peers { me, expected });
    }
    Ok(Opened { group, share, key })
}

/// Opens the record of a share, which stands at the share's floor at least.
///
/// # Errors
/// [`OpenError::Record`]; [`OpenError::Epoch`] if the share is of an earlier sharing than this host has come to.
pub async fn open_record(opened: &Opened, path: &Path, seams: &Seams) -> Result<Record, OpenError> {
    Journal::admit(&*seams.disk, path, opened.share.epoch()).await?;
    let public_key = opened.group.public_key();
    let opener =
        Opener::new(&*seams.disk, path).of_cosigner(opened.share.identity().verifying_key().to_bytes());
    let open = async || opener.open(opened.group.chain_id(), public_key.as_bytes()).await;
    let mut record = patiently(open).await?;
    let floor = Watermark::floor(opened.share.floor(), Round(0), None);
    if floor.place() > record.watermark().place() {
        record.raise(floor).await?;
    }
    Ok(record)
}

/// A cosigner in a new life, with its sockets: what [`run::start`](super::run::start) takes. It gives no share while its key is locked.
///
/// # Errors
/// [`OpenError`].
pub async fn prepare(
    opened: Opened,
    record: Record,
    config: &ThresholdConfig,
    rules: Rules,
    seams: &Seams,
    locks: Rc<KeyLocks>,
) -> Result<(Cosigner, Keeper, Mesh), OpenError> {
    let Opened { group, share, key } = opened;
    let me = share.id();
    let identities: Vec<(MemberId, [u8; 32])> = group
        .members()
        .filter(|member| *member != me)
        .filter_map(|member| Some((member, *group.identity(member)?)))
        .collect();
    let keys: Vec<[u8; 32]> = identities.iter().map(|(_, identity)| *identity).collect();
    let transport = seams.net.transport(share.identity(), &keys).map_err(OpenError::Transport)?;
    let listening = seams.net.listen(&config.listen).await;
    let listener = listening.map_err(|error| OpenError::Listen { endpoint: config.listen.clone(), error })?;
    let lives = Lives::begin(&*seams.disk, &record, &*seams.entropy).await?;
    let settings = Settings {
        me,
        group: Rc::clone(&group),
        raw: rules.raw,
        jump_limit: rules.jump_limit,
        hedge: config.hedge,
        hold: config.hold,
        rejoin: config.rejoin,
    };
    let nonces = NonceMaker::new(Rc::clone(&key), Rc::clone(&seams.entropy));
    let keeper = Keeper::new(record, key, Rc::clone(&seams.disk), locks);
    let cosigner =
        Cosigner::new(settings, nonces, Rc::clone(&seams.entropy), lives, keeper.recorded(), Instant::now());
    let endpoint = |(member, identity)| Some((member, config.peers.get(&member)?.clone(), identity));
    let peers = identities.into_iter().filter_map(endpoint).collect();
    Ok((cosigner, keeper, Mesh { net: Rc::clone(&seams.net), transport, listener, peers }))
}
