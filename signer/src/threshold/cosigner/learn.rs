//! Signatures of the group, made elsewhere: each proves itself, so whoever brings it need not be believed.

use super::effect::{Answered, AskError, Effect};
use super::{Cosigner, PEERS_JUMP};
use crate::guard::{Guard, JumpLimit, Recorded, Refusal, Verdict, Watermark};
use crate::threshold::asked::{Asked, Subject};
use crate::threshold::message::{Place, Proof};
use crate::threshold::rounds::MemberId;
use crate::threshold::verified::Verified;

impl Cosigner {
    /// Takes over what the group has signed: the record rises to it, and who waits for this place or a lower one is answered.
    /// `None` if it is no signature of the group.
    pub(super) fn learn(&mut self, proof: &Proof, recorded: Recorded<'_>) -> Option<Asked> {
        let asked = Asked::parse(self.chain_id(), &proof.message).ok()?;
        let signature = <[u8; 64]>::try_from(proof.signature.as_slice()).ok()?;
        let verified = Verified::new(self.settings.group.verifying_key(), &proof.message, signature)?;
        self.take_over(&asked, &verified, recorded);
        Some(asked)
    }

    fn take_over(&mut self, asked: &Asked, verified: &Verified, recorded: Recorded<'_>) {
        let place = Place::of_asked(asked);
        let other = self.last.as_ref().filter(|(last, _)| Place::of_asked(last) == place);
        if other.is_some_and(|(last, _)| !last.is_alike(self.chain_id(), asked)) {
            return self.stop(format!(
                "the group has signed two different messages at {place}: more cosigners are faulty than the group \
                 can bear. Stop the validator and find the copy"
            ));
        }
        let watermark = Watermark::signed(asked.hrs(), asked.bytes().to_vec(), asked.timestamp());
        if watermark.place() > recorded.watermark.place() {
            self.raise(watermark.clone());
        }
        self.remember(asked, verified);
        self.settle(asked, verified, &watermark);
    }

    /// Keeps the highest signature, and measures jumps from it.
    pub(super) fn remember(&mut self, asked: &Asked, verified: &Verified) {
        let height = asked.hrs().height;
        if self.anchor.max(self.own_asked).is_none_or(|last| height > last) {
            self.risen = self.now;
        }
        if self.anchor.is_none_or(|anchor| anchor <= height) {
            self.anchor = Some(height);
            // Only here: before, it may be a height that nobody has signed.
            self.keep_anchor();
        }
        if self.last.as_ref().is_none_or(|(last, _)| Place::of_asked(last) < Place::of_asked(asked)) {
            self.last = Some((asked.clone(), verified.clone()));
        }
    }

    /// Writes down from where jumps are measured at the next start. Not each height: a quarter of the smaller limit is near enough.
    fn keep_anchor(&mut self) {
        let (JumpLimit::Heights(limit), Some(anchor)) = (self.settings.jump_limit, self.anchor) else {
            return;
        };
        let every = i64::try_from(limit.min(PEERS_JUMP) / 4).unwrap_or(i64::MAX).max(1);
        if self.lives.signed.is_none_or(|kept| anchor.0.saturating_sub(kept) >= every) {
            self.lives.signed = Some(anchor.0);
            self.effects.push_back(Effect::Keep(self.lives.clone()));
        }
    }

    /// Takes note of who is said to have signed.
    pub(super) fn hear(&mut self, signers: &[MemberId], place: Place) {
        let is_member = |member: &&MemberId| self.settings.group.identity(**member).is_some();
        for member in signers.iter().filter(is_member) {
            let heard = self.heard.entry(*member).or_default();
            *heard = place.max(*heard);
        }
    }

    /// Answers those who wait for this message, and refuses those who wait for another one here or for anything below.
    fn settle(&mut self, asked: &Asked, verified: &Verified, watermark: &Watermark) {
        let place = Place::of_asked(asked);
        let waiting: Vec<(u64, Asked)> = self
            .asks
            .iter()
            .filter(|(_, ask)| ask.subject.is_message() && ask.place().is_some_and(|of| of <= place))
            .filter_map(|(id, ask)| Some((*id, ask.meaning.guarded.clone()?)))
            .collect();
        for (id, wanted) in waiting {
            let result = if wanted.is_alike(self.chain_id(), asked) {
                Ok(answered(asked, verified, false))
            } else {
                Err(AskError::Refused(refusal(self, &wanted, watermark)))
            };
            self.finish(id, &result);
        }
    }

    /// What is known to have been signed that speaks against a message.
    pub(super) fn proof_against(&self, subject: &Subject) -> Option<Proof> {
        let (last, _) = self.last.as_ref()?;
        let wanted = subject.read(self.chain_id(), self.settings.raw).ok()?.guarded?;
        (Place::of_asked(last) >= Place::of_asked(&wanted)).then(|| self.last_proof()).flatten()
    }

    /// The highest signature of the group that is known, for others.
    pub(super) fn last_proof(&self) -> Option<Proof> {
        let (last, verified) = self.last.as_ref()?;
        Some(Proof { message: last.bytes().to_vec(), signature: verified.signature().to_vec() })
    }

    /// The signature that is known already of a message, but perhaps for its timestamp.
    pub(super) fn known(&self, wanted: &Asked) -> Option<Answered> {
        let (last, verified) = self.last.as_ref()?;
        wanted.is_alike(self.chain_id(), last).then(|| answered(last, verified, true))
    }
}

fn answered(asked: &Asked, verified: &Verified, replayed: bool) -> Answered {
    Answered { signature: verified.clone(), timestamp: Some(asked.timestamp()), replayed }
}

/// The guard's own words on a message that the group has signed past.
fn refusal(cosigner: &Cosigner, wanted: &Asked, watermark: &Watermark) -> Refusal {
    let conflict = Refusal::ConflictingData { asked: wanted.hrs() };
    let Ok(question) = wanted.question(cosigner.chain_id()) else { return conflict };
    let recorded = Recorded { watermark, unused: false };
    match (Guard { jump_limit: JumpLimit::Off }).judge(recorded, &question) {
        Verdict::Refuse(refusal) => refusal,
        _ => conflict,
    }
}
