//! The one path of a signature: guard, record, backend, verify, release.
//!
//! One task owns a chain: its guard, its record and its key. Every validator connection of the chain queues into it, so
//! two validators that share a signer are served one after the other, and the second is answered by replay.
//!
//! What always holds:
//!
//! * votes and proposals are signed only as the durable record holds them;
//! * a signature is released only after it was verified under the chain's public key;
//! * after a failed write to the record the chain signs nothing more until the signer is started anew: its task answers what was asked,
//!   and ends with the reason;
//! * a request that nobody waits for any more is not begun.

mod answer;
mod group;
mod jumps;
mod log;
mod sole;

use std::cell::{Cell, OnceCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use ed25519_dalek::{Signature, VerifyingKey};
use monosign_protocol::ChainId;
use monosign_protocol::message::{Message, Timestamp, Vote};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::backend::locks::KeyLocks;
use crate::backend::{Backend, BackendError};
use crate::guard::{JumpLimit, Question, Refusal};
use crate::ops::durable_file::DurableFileError;
use crate::pubkey::PublicKey;
use crate::record::{Permit, Record, RecordError};
use crate::seams::Disk;
use crate::threshold::asked::Subject;
use crate::threshold::cosigner::AskError;
use crate::threshold::run::GroupHandle;
pub use answer::{Arm, arm_of, refused};
use sole::Sole;

/// What a chain signs beyond votes, proposals and their extensions. All off unless switched on: each can be turned into
/// a double-sign oracle by whoever reaches the connection, were it not for the checks in [`Permit`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RawSigning {
    /// v1.0's and v2.0's `SignBytes`.
    pub sign_bytes: bool,
    /// Celestia's `SignRawBytes` (CIP-40), in the same fields.
    pub celestia_raw_bytes: bool,
    /// v2.0-rc's extensions without replay protection, unless empty.
    pub non_rp_extensions: bool,
}

/// What the owner of a chain is told.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// How far a request may jump above the record.
    pub jump_limit: JumpLimit,
    /// What else is signed.
    pub raw: RawSigning,
}

impl Rules {
    /// What is different in `new`, by the names of the settings.
    pub fn changes(self, new: Self) -> Vec<String> {
        let limit = |rules: Self| match rules.jump_limit {
            JumpLimit::Off => "0, no limit".to_owned(),
            JumpLimit::Heights(heights) => heights.to_string(),
        };
        let raw = |rules: Self| {
            let RawSigning { sign_bytes, celestia_raw_bytes, non_rp_extensions } = rules.raw;
            [sign_bytes, celestia_raw_bytes, non_rp_extensions].map(|on| on.to_string())
        };
        let settings = ["max_height_jump", "sign_bytes", "sign_raw_bytes", "sign_non_rp_extensions"];
        let [before, now] = [self, new].map(|rules| std::iter::once(limit(rules)).chain(raw(rules)));
        let changed = settings.into_iter().zip(before.zip(now)).filter(|(_, (before, now))| before != now);
        changed.map(|(setting, (before, now))| format!("{setting} is {now} now, and was {before}")).collect()
    }
}

/// The owner of one chain's guard, record and key.
pub struct Chain {
    id: ChainId,
    rules: Rules,
    signing: Signing,
    verifying_key: VerifyingKey,
    /// The signature of no bytes at all: what v2.0-rc wants for an empty extension without replay protection.
    signature_of_nothing: Option<[u8; 64]>,
    dropped: Rc<Cell<u64>>,
    stopped: Rc<OnceCell<Stopped>>,
}

/// Why the task of a chain, or of its cosigner, has ended: it signs nothing more until the signer is started anew. Others go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Stopped(pub String);

/// How long a node waits for a signature before it takes the connection for dead (CometBFT v0.38
/// `privval/signer_listener_endpoint.go`, `defaultTimeoutReadWriteSeconds`).
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Who signs.
enum Signing {
    /// This process alone.
    Sole(Box<Sole>),
    /// A group of cosigners, this process being one: guard, record and share are with the cosigner.
    Group(GroupHandle, Rc<KeyLocks>),
}

/// A way to ask a chain; cheap to clone, one for each connection.
#[derive(Clone)]
pub struct ChainHandle {
    id: ChainId,
    public_key: PublicKey,
    jobs: mpsc::Sender<Job>,
    dropped: Rc<Cell<u64>>,
    stopped: Rc<OnceCell<Stopped>>,
}

enum Job {
    Sign { request: Box<Message>, peer: Rc<str>, arrived: Instant, answer: oneshot::Sender<Message> },
    Reload(Rules),
}

/// Why a signature is not released.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// We protected the validator.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The record could not be raised.
    #[error("the record could not be written, nothing is signed: {0}")]
    Record(#[from] RecordError),
    /// A jump could not be counted.
    #[error("a height jump could not be written down, nothing is signed: {0}")]
    Jumps(#[from] DurableFileError),
    /// The key gave no signature.
    #[error("the key gave no signature: {0}")]
    Backend(#[from] BackendError),
    /// The group of cosigners gave no signature.
    #[error("the cosigners gave no signature: {0}")]
    Group(AskError),
    /// The key gave a signature that is none.
    #[error("the key gave a signature that does not verify under `{0}`: it is withheld")]
    WrongSignature(PublicKey),
}

/// A backend whose public key is no Ed25519 key.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not an Ed25519 public key")]
pub struct InvalidPublicKey(PublicKey);

/// Why a chain does not take new rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// Its queue is full, as when its disk hangs.
    #[error("busy, try again")]
    Busy,
    /// It has stopped.
    #[error("it has stopped: start the signer anew")]
    Stopped,
}

/// Signed, and what a log wants to know of it.
struct Released {
    signature: [u8; 64],
    timestamp: Timestamp,
    extension_signature: Option<[u8; 64]>,
    non_rp_extension_signature: Option<[u8; 64]>,
    replayed: bool,
}

impl Chain {
    /// A chain on an open record, and the handle to it. [`run`](Self::run) must be spawned.
    ///
    /// # Errors
    /// [`InvalidPublicKey`] if the backend's public key is no point of the curve.
    pub fn new(
        record: Record,
        backend: Rc<dyn Backend>,
        rules: Rules,
        disk: Rc<dyn Disk>,
    ) -> Result<(Self, ChainHandle, ChainQueue), InvalidPublicKey> {
        let (id, public_key) = (record.header().chain_id.clone(), backend.public_key());
        Self::signed_by(id, public_key, rules, Signing::Sole(Box::new(Sole::new(record, backend, disk))))
    }

    /// A chain that a group of cosigners signs for, and the handle to it; nothing is released while the group's key is locked.
    /// [`run`](Self::run) must be spawned.
    ///
    /// # Errors
    /// [`InvalidPublicKey`] if the group's public key is no point of the curve.
    pub fn of_group(
        id: ChainId,
        public_key: PublicKey,
        rules: Rules,
        group: GroupHandle,
        locks: Rc<KeyLocks>,
    ) -> Result<(Self, ChainHandle, ChainQueue), InvalidPublicKey> {
        Self::signed_by(id, public_key, rules, Signing::Group(group, locks))
    }

    fn signed_by(
        id: ChainId,
        public_key: PublicKey,
        rules: Rules,
        signing: Signing,
    ) -> Result<(Self, ChainHandle, ChainQueue), InvalidPublicKey> {
        let verifying_key =
            VerifyingKey::from_bytes(public_key.as_bytes()).map_err(|_| InvalidPublicKey(public_key))?;
        let (jobs, queue) = mpsc::channel(64);
        let (dropped, stopped) = (Rc::<Cell<u64>>::default(), Rc::<OnceCell<Stopped>>::default());
        let (jobs_dropped, why) = (Rc::clone(&dropped), Rc::clone(&stopped));
        let handle = ChainHandle { id: id.clone(), public_key, jobs, dropped: jobs_dropped, stopped: why };
        let chain = Self { id, rules, signing, verifying_key, signature_of_nothing: None, dropped, stopped };
        Ok((chain, handle, ChainQueue(queue)))
    }

    /// Answers requests in the order they come, until every handle is gone.
    ///
    /// # Errors
    /// [`Stopped`] if it can sign nothing more. What was asked last is answered, and what waits is refused.
    pub async fn run(mut self, mut queue: ChainQueue) -> Result<(), Stopped> {
        while let Some(job) = queue.0.recv().await {
            match job {
                Job::Sign { request, peer, arrived, answer }
                    if answer.is_closed() || arrived.elapsed() > PATIENCE =>
                {
                    self.log_dropped(&peer, arrived.elapsed());
                    let late = "the signer was busy for too long: nobody waits for this answer any more";
                    let _ = answer.send(refused(arm_of(&request), late));
                }
                Job::Sign { request, peer, arrived, answer } => {
                    let (message, event) = self.answer(&request).await;
                    let end = self.has_failed().then(|| event.failure()).flatten().map(Stopped);
                    if let Some(end) = &end {
                        let _ = self.stopped.set(end.clone());
                    }
                    // A connection that is gone asks again when it is back, and is answered by replay.
                    let _ = answer.send(message);
                    // The answer goes out before its log line is made.
                    tokio::task::yield_now().await;
                    event.log(&self.id, &peer, arrived.elapsed());
                    if let Some(end) = end {
                        return Err(end);
                    }
                }
                Job::Reload(rules) => {
                    self.rules = rules;
                    if let Signing::Group(group, _) = &self.signing {
                        group.set_rules(rules);
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether nothing can be signed any more, whoever asks. A group's cosigner has a task of its own, which ends by itself.
    fn has_failed(&self) -> bool {
        match &self.signing {
            Signing::Sole(sole) => sole.has_failed(),
            Signing::Group(..) => false,
        }
    }

    fn log_dropped(&self, peer: &str, waited: Duration) {
        self.dropped.set(self.dropped.get() + 1);
        let waited_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
        tracing::warn!(
            chain_id = %self.id, peer, waited_ms,
            "dropped a request after {waited_ms} ms: nobody waits for its answer any more"
        );
    }

    /// The whole path for one question.
    async fn sign(&mut self, question: &Question<'_>) -> Result<Released, SignError> {
        let (timestamp, signature, replayed) = match &mut self.signing {
            Signing::Group(..) => return self.sign_in_group(question).await,
            Signing::Sole(sole) => {
                sole.ready()?;
                check_extensions(self.rules, question)?;
                sole.check_length(&self.id, question)?;
                sole.sign(question, self.rules.jump_limit, &self.verifying_key).await?
            }
        };
        let (mut extension_signature, mut non_rp_extension_signature) = (None, None);
        if let Some(vote) = question.extended_vote() {
            if let Signing::Sole(sole) = &self.signing {
                let permit = Permit::vote_extension(&self.id, vote);
                extension_signature = Some(sole.signed(&permit, &self.verifying_key).await?);
            }
            non_rp_extension_signature = Some(self.non_rp_extension_signature(vote).await?);
        }
        Ok(Released { signature, timestamp, extension_signature, non_rp_extension_signature, replayed })
    }

    /// v2.0-rc wants a second extension signature. Older releases skip the field, and no bytes at all are no message of
    /// any kind, so the signature of an empty one is given to all: there is no dialect to get wrong.
    async fn non_rp_extension_signature(&mut self, vote: &Vote) -> Result<[u8; 64], SignError> {
        if vote.non_rp_extension.is_empty() {
            if let Some(signature) = self.signature_of_nothing {
                return Ok(signature);
            }
            let signature = self.sign_apart(Subject::Raw(Vec::new())).await?;
            self.signature_of_nothing = Some(signature);
            return Ok(signature);
        }
        self.sign_apart(Subject::Raw(vote.non_rp_extension.clone())).await
    }

    /// A signature of what has no place in consensus, verified.
    async fn sign_apart(&self, subject: Subject) -> Result<[u8; 64], SignError> {
        let permit = subject.unguarded(&self.id, self.rules.raw)?;
        match &self.signing {
            Signing::Sole(sole) => sole.signed(&permit, &self.verifying_key).await,
            Signing::Group(group, _) => self.released(permit.bytes(), &group.sign(subject).await?),
        }
    }
}

/// A signature, if it is one.
fn verified(key: &VerifyingKey, bytes: &[u8], signature: [u8; 64]) -> Result<[u8; 64], SignError> {
    let public_key = || PublicKey::from_bytes(key.to_bytes());
    key.verify_strict(bytes, &Signature::from_bytes(&signature))
        .map_err(|_| SignError::WrongSignature(public_key()))?;
    Ok(signature)
}

/// What is refused for its extension is refused before the watermark rises.
fn check_extensions(rules: Rules, question: &Question<'_>) -> Result<(), Refusal> {
    let Some(vote) = question.extended_vote().filter(|vote| !vote.non_rp_extension.is_empty()) else {
        return Ok(());
    };
    if !rules.raw.non_rp_extensions {
        let what = "signing extensions without replay protection";
        return Err(Refusal::SwitchedOff { what, setting: "sign_non_rp_extensions" });
    }
    Permit::raw(&vote.non_rp_extension).map(drop)
}

/// The jobs of one chain, for [`Chain::run`].
pub struct ChainQueue(mpsc::Receiver<Job>);

impl ChainHandle {
    /// The chain.
    pub fn id(&self) -> &ChainId {
        &self.id
    }

    /// The public key that signs for it, from memory.
    pub fn public_key(&self) -> PublicKey {
        self.public_key
    }

    /// How many requests were not begun, because nobody waited for their answers any more.
    pub fn dropped(&self) -> u64 {
        self.dropped.get()
    }

    /// Asks for a signature and waits for the answer, which is always a response in the arm of the request.
    pub async fn ask(&self, request: Box<Message>, peer: Rc<str>) -> Message {
        let (answer, answered) = oneshot::channel();
        let fallback = answer::arm_of(&request);
        let gone = || {
            let why = self.stopped.get().and_then(|stopped| stopped.0.lines().next());
            let why = why.unwrap_or("an internal error ended it: restart the signer");
            refused(fallback, format!("this chain has stopped: {why}"))
        };
        let job = Job::Sign { request, peer, arrived: Instant::now(), answer };
        if self.jobs.send(job).await.is_err() {
            return gone();
        }
        answered.await.unwrap_or_else(|_| gone())
    }

    /// Gives the chain new rules; requests that are queued already are answered by the old ones. Never waits.
    ///
    /// # Errors
    /// [`ReloadError`]; the rules stay as they are.
    pub fn reload(&self, rules: Rules) -> Result<(), ReloadError> {
        self.jobs.try_send(Job::Reload(rules)).map_err(|error| match error {
            TrySendError::Full(_) => ReloadError::Busy,
            TrySendError::Closed(_) => ReloadError::Stopped,
        })
    }
}

/// Where the allowance for a height jump lies: beside the record.
pub fn jump_allowance_path(record: &std::path::Path) -> PathBuf {
    record.with_added_extension("allow-jump")
}

#[cfg(test)]
mod tests;
