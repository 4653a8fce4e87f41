//! Who holds a cosigner's record and share, and makes shares of signatures.
//!
//! The decisions are the [`Cosigner`](super::cosigner::Cosigner)'s; this carries out those that touch disk or key. A share is made for a
//! [`Permit`] of the record alone: a decision that went wrong gives no share.

use std::path::PathBuf;
use std::rc::Rc;

use monosign_protocol::{ChainId, Height};

use super::asked::{Asked, Subject};
use super::cosigner::{ShareFailure, ShareJob};
use super::frost::KeyPackage;
use super::incarnation::{Lives, LivesError};
use super::message::Place;
use super::rounds::{self, SignedShare};
use crate::backend::locks::KeyLocks;
use crate::chain::{RawSigning, jump_allowance_path};
use crate::guard::{Recorded, Watermark};
use crate::pubkey::PublicKey;
use crate::record::{Permit, Record, RecordError};
use crate::seams::Disk;

/// A cosigner's record and share.
pub struct Keeper {
    record: Record,
    key: Rc<KeyPackage>,
    disk: Rc<dyn Disk>,
    lives: PathBuf,
    locks: Rc<KeyLocks>,
}

impl Keeper {
    /// A keeper of an open record. While the group's key is locked, it makes no share.
    pub fn new(record: Record, key: Rc<KeyPackage>, disk: Rc<dyn Disk>, locks: Rc<KeyLocks>) -> Self {
        let lives = Lives::path(record.path());
        Self { record, key, disk, lives, locks }
    }

    /// The chain whose record it is.
    pub fn chain_id(&self) -> &ChainId {
        &self.record.header().chain_id
    }

    /// What the guard needs to know.
    pub fn recorded(&self) -> Recorded<'_> {
        self.record.recorded()
    }

    /// Raises the record; durable when this returns. A watermark that is not above it is there already.
    ///
    /// # Errors
    /// [`RecordError::Io`]: no share is made any more.
    pub async fn raise(&mut self, watermark: Watermark) -> Result<(), RecordError> {
        match self.record.raise_or_hand_down(&*self.disk, watermark).await {
            Err(RecordError::NotRising { .. }) => Ok(()),
            other => other,
        }
    }

    /// Brings the lives to stable storage, with where the record stands.
    ///
    /// # Errors
    /// [`LivesError`].
    pub async fn store(&self, lives: &Lives) -> Result<(), LivesError> {
        let lives = Lives { record: Place::of(self.record.watermark()), ..lives.clone() };
        lives.store(&*self.disk, &self.lives).await
    }

    /// A share of the signature that a job asks for, if the record gives leave.
    ///
    /// # Errors
    /// [`ShareFailure`]; the nonces are gone all the same.
    pub fn share(&self, job: ShareJob, rules: RawSigning) -> Result<SignedShare, ShareFailure> {
        let ShareJob { subject, commitments, nonces, .. } = job;
        self.locks.check(PublicKey::from_bytes(self.record.header().public_key))?;
        let permit = self.permit(&subject, rules)?;
        Ok(rounds::sign_share(&self.key, nonces, &commitments, &permit)?)
    }

    /// Up to which height an operator has allowed to jump, by `monosign state allow-jump`.
    pub async fn allowance(&self) -> Option<Height> {
        let path = jump_allowance_path(self.record.path());
        let text = self.disk.read_small(&path).await.ok().flatten()?;
        text.trim().parse().ok().map(Height)
    }

    fn permit(&self, subject: &Subject, rules: RawSigning) -> Result<Permit<'static>, ShareFailure> {
        let chain_id = &self.record.header().chain_id;
        match subject {
            Subject::Message(message) => self.permit_alike(chain_id, message),
            Subject::Extension { vote, .. } => {
                self.permit_alike(chain_id, vote)?;
                let meaning = subject.read(chain_id, rules)?;
                let vote = meaning.extended_vote().ok_or(ShareFailure::NoPermit)?;
                Ok(Permit::vote_extension(chain_id, vote))
            }
            other => Ok(other.unguarded(chain_id, rules)?),
        }
    }

    fn permit_alike(&self, chain_id: &ChainId, message: &[u8]) -> Result<Permit<'static>, ShareFailure> {
        let asked = Asked::parse(chain_id, message)?;
        let question = asked.question(chain_id)?;
        self.record.permit_alike(&question).ok_or(ShareFailure::NoPermit)
    }
}
