//! A key that this process has for itself, behind the record that guards it.

use std::rc::Rc;

use ed25519_dalek::VerifyingKey;
use monosign_protocol::ChainId;
use monosign_protocol::message::Timestamp;

use super::jumps::Jumps;
use super::{SignError, jump_allowance_path, verified};
use crate::backend::{Backend, BackendError};
use crate::guard::{Guard, JumpLimit, Question, Refusal, Skipped, Verdict};
use crate::ops::durable_file::DurableFileError;
use crate::record::{Permit, Record, RecordError};
use crate::seams::Disk;

/// A record and a key.
pub(super) struct Sole {
    record: Record,
    backend: Rc<dyn Backend>,
    disk: Rc<dyn Disk>,
    jumps: Jumps,
    /// The signature of the recorded message, once made.
    signature: Option<[u8; 64]>,
}

impl Sole {
    pub(super) fn new(record: Record, backend: Rc<dyn Backend>, disk: Rc<dyn Disk>) -> Self {
        let jumps = Jumps::new(record.path());
        Self { record, backend, disk, jumps, signature: None }
    }

    /// Whether it gives no permit any more, until the record is opened anew.
    pub(super) fn has_failed(&self) -> bool {
        self.record.has_failed()
    }

    pub(super) fn ready(&self) -> Result<(), BackendError> {
        self.backend.ready()
    }

    /// What is too long for the key's device is refused before the watermark rises.
    pub(super) fn check_length(&self, id: &ChainId, question: &Question<'_>) -> Result<(), BackendError> {
        let max = self.backend.max_message();
        let Some(vote) = question.extended_vote() else { return Ok(()) };
        let longest = vote.extension.len().max(vote.non_rp_extension.len());
        // Only near the limit the exact length matters.
        if longest.saturating_add(256) <= max {
            return Ok(());
        }
        let len = Permit::vote_extension(id, vote).bytes().len().max(vote.non_rp_extension.len());
        if len > max { Err(BackendError::TooLong { len, max }) } else { Ok(()) }
    }

    /// Judges, records and signs. The timestamp is that of the signature; the last says whether it was signed before.
    pub(super) async fn sign(
        &mut self,
        question: &Question<'_>,
        jump_limit: JumpLimit,
        key: &VerifyingKey,
    ) -> Result<(Timestamp, [u8; 64], bool), SignError> {
        let (timestamp, replayed) = match self.judge(question, jump_limit).await? {
            Verdict::Refuse(refusal) => return Err(refusal.into()),
            Verdict::Replay(timestamp) => (timestamp, true),
            Verdict::Sign(watermark) => {
                self.signature = None;
                self.record.raise_or_hand_down(&*self.disk, watermark).await?;
                (question.timestamp(), false)
            }
        };
        Ok((timestamp, self.recorded_signature(key).await?, replayed))
    }

    /// Judges, by what is left of the limit on jumps. A jump that is to be signed is taken from it first, and durably.
    async fn judge(
        &mut self,
        question: &Question<'_>,
        jump_limit: JumpLimit,
    ) -> Result<Verdict, DurableFileError> {
        let (JumpLimit::Heights(limit), false) = (jump_limit, self.record.recorded().unused) else {
            return self.judge_within(question, jump_limit).await;
        };
        let (last, asked) = (self.record.watermark().height, question.hrs().height);
        let counted = self.jumps.counted(&*self.disk, last, limit).await;
        let left = counted.leaves(jump_limit);
        let verdict = Guard { jump_limit: left }.judge(self.record.recorded(), question);
        let Verdict::Sign(_) = verdict else { return self.judge_within(question, left).await };
        match Skipped::between(last, asked) {
            Skipped(0) => self.jumps.give_back(&*self.disk, counted).await,
            jump => self.jumps.add(&*self.disk, counted, last, jump).await?,
        }
        Ok(verdict)
    }

    /// Judges by a limit, which an operator may have lifted for a jump; such a jump is not taken from what requests may skip.
    async fn judge_within(
        &self,
        question: &Question<'_>,
        jump_limit: JumpLimit,
    ) -> Result<Verdict, DurableFileError> {
        let verdict = Guard { jump_limit }.judge(self.record.recorded(), question);
        match verdict {
            Verdict::Refuse(Refusal::HeightJump { asked, .. }) if self.allows_jump(asked.height.0).await => {
                Ok(Guard { jump_limit: JumpLimit::Off }.judge(self.record.recorded(), question))
            }
            other => Ok(other),
        }
    }

    /// Whether an operator has allowed to jump to a height, by `monosign state allow-jump`. Looked up only when a jump is
    /// refused. It allows heights up to its own, so it is spent once the record is there.
    async fn allows_jump(&self, height: i64) -> bool {
        let path = jump_allowance_path(self.record.path());
        match self.disk.read_small(&path).await {
            Ok(Some(text)) => text.trim().parse().is_ok_and(|allowed: i64| height <= allowed),
            _ => false,
        }
    }

    /// The signature of what the record holds: made once, and again after a restart, when it is the same.
    async fn recorded_signature(&mut self, key: &VerifyingKey) -> Result<[u8; 64], SignError> {
        if let Some(signature) = self.signature {
            return Ok(signature);
        }
        let failed = || RecordError::Failed { path: self.record.path().into() };
        let permit = self.record.permit().ok_or_else(failed)?;
        let signature = self.signed(&permit, key).await?;
        self.signature = Some(signature);
        Ok(signature)
    }

    /// The backend's signature, verified. The only place where a signature of this process alone comes from.
    pub(super) async fn signed(
        &self,
        permit: &Permit<'_>,
        key: &VerifyingKey,
    ) -> Result<[u8; 64], SignError> {
        let signature = self.backend.sign(permit).await?;
        verified(key, permit.bytes(), signature).inspect_err(|_| self.backend.distrust())
    }
}
