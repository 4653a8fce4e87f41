//! The files of cosigners, which the signer reads from the real disk: they never change, so a run does not depend on them.

use std::cell::RefCell;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use age::x25519;
use anyhow::Context as _;
use monosign::backend::softsign::unlock::parse_identities;
use monosign::consensus_key::ConsensusKey;
use monosign::threshold::deal::deal;
use monosign::threshold::group::Shape;
use monosign_protocol::{ChainId, Height};

use super::keys::{CONSENSUS_SEED, Keys};
use super::net::SimEntropy;
use crate::quorum::Quorum;
use crate::scenario::Seat;
use crate::streams::Streams;

/// Where the files of the cosigners of a group lie: the same key in all groups.
#[derive(Debug, Clone)]
pub(super) struct Shares {
    dir: PathBuf,
}

/// Opens every share: worth nothing, as all of them are.
const SHARE_IDENTITY: &str = "AGE-SECRET-KEY-1QYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZ9K4CN";
/// What hosts have that are to become cosigners.
const NEWCOMERS: [&str; 3] = [
    "AGE-SECRET-KEY-1QGPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQ0N3JDM",
    "AGE-SECRET-KEY-1QVPSXQCRQVPSXQCRQVPSXQCRQVPSXQCRQVPSXQCRQVPSXQCRQVPS2PGGME",
    "AGE-SECRET-KEY-1QSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZQMDXKL7",
];

impl Shares {
    /// Splits the key for a group, unless that was done before.
    ///
    /// # Errors
    /// What the disk says.
    pub(super) fn provide(keys: &Keys, chain_id: &ChainId, quorum: Quorum) -> anyhow::Result<Self> {
        let dir = keys.dir().join(format!("cosigners-{quorum}"));
        if !dir.is_dir() {
            // Whole or not at all, also if several processes do it at once: the content is the same for all.
            let made = tempfile::Builder::new().prefix("shares-").tempdir_in(keys.dir())?;
            split(made.path(), chain_id, quorum)?;
            let made = made.keep();
            if fs::rename(&made, &dir).is_err() {
                fs::remove_dir_all(&made)?;
            }
        }
        Ok(Self { dir })
    }

    /// The group file of a dealing.
    pub(super) fn group(&self, seat: Seat) -> PathBuf {
        self.dir.join(group_name(seat.dealing))
    }

    /// The share file of a cosigner.
    pub(super) fn share(&self, seat: Seat) -> PathBuf {
        self.dir.join(share_name(seat))
    }

    /// What opens the share files, or that of the nth host that came later.
    pub(super) fn identity(&self, newcomer: Option<usize>) -> PathBuf {
        self.dir.join(identity_name(newcomer))
    }
}

/// What opens the share of a cosigner, or of the nth host that came later.
pub(super) fn age_identity(newcomer: Option<usize>) -> anyhow::Result<x25519::Identity> {
    let text = match newcomer {
        None => SHARE_IDENTITY,
        Some(n) => NEWCOMERS.get(n).copied().context("too many newcomers")?,
    };
    let identities = parse_identities(text.as_bytes());
    let identities = identities.map_err(|line| anyhow::anyhow!("no age identity in line {line}"))?;
    identities.into_iter().next().context("no age identity")
}

fn identity_name(newcomer: Option<usize>) -> String {
    newcomer.map_or("share.identity".into(), |n| format!("newcomer-{}.identity", n + 1))
}

fn group_name(dealing: u16) -> String {
    format!("group-{}.json", dealing + 1)
}

fn share_name(seat: Seat) -> String {
    format!("cosigner-{}-{}.age", seat.dealing + 1, seat.member)
}

fn split(dir: &Path, chain_id: &ChainId, quorum: Quorum) -> anyhow::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let recipient = age_identity(None)?.to_public();
    write(&dir.join(identity_name(None)), SHARE_IDENTITY)?;
    for (n, newcomer) in NEWCOMERS.iter().enumerate() {
        write(&dir.join(identity_name(Some(n))), newcomer)?;
    }
    let key = ConsensusKey::from_seed(&CONSENSUS_SEED);
    let shape = Shape::new(quorum.threshold, quorum.members_of_one())?;
    for dealing in 0..quorum.dealings() {
        let stream = Streams::new(0).of(&format!("dealing {dealing} of {quorum}"));
        let dealt = deal(&key, chain_id, shape, Height(0), &SimEntropy(RefCell::new(stream)))?;
        write(&dir.join(group_name(dealing)), &dealt.group.to_json())?;
        for share in &dealt.shares {
            let seat = Seat { dealing, member: share.id().0 };
            write(&dir.join(share_name(seat)), &share.seal(&recipient)?)?;
        }
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}
