//! What the engine needs of the world around it.

use std::rc::Rc;

use monosign_protocol::message::{BlockId, Message, Proposal, RemoteSignerError, Timestamp, Vote};
use monosign_protocol::{Height, Hrs, Round};

use super::{Block, Decided, Entry, Gossip, Timeout};
use crate::node::Misbehaviour;

/// The world around an [`Engine`](super::Engine): clock, signer, timer, peers, disk and application.
///
/// One thread, no `Send`. The three `async` functions are where a node may wait, or die: a carrier that kills it there
/// drops the engine while the future is pending, and what was appended and not flushed is lost. While the engine waits
/// nothing else may be given to it, as nothing passes CometBFT's consensus lock.
#[allow(async_fn_in_trait, reason = "for one thread only: its futures need not be Send")]
pub trait Port {
    /// The node's clock, in UTC.
    fn now(&self) -> Timestamp;

    /// Asks the signer and waits for the answer. `Ok(None)` is an answer without content.
    ///
    /// Retries are the carrier's affair: CometBFT's `RetrySignerClient` sends the same bytes up to 50 times, 100 ms
    /// apart, unless the answer is a `RemoteSignerError`.
    ///
    /// # Errors
    /// [`GaveUp`] if no try got an answer of the right kind.
    async fn ask(&mut self, request: &Message) -> Result<Option<Message>, GaveUp>;

    /// Sets the node's only timer, in place of the one before. When it fires, it comes back as
    /// [`Input::Timeout`](super::Input::Timeout).
    fn schedule(&mut self, timeout: Timeout);

    /// Queues the node's own message, which has to come back as [`Input::Own`](super::Input::Own), after those queued
    /// before. A node that dies loses the queue.
    fn enqueue(&mut self, message: Gossip);

    /// Tells all peers a message of its own that the node took in.
    fn publish(&mut self, message: &Gossip);

    /// Appends to the write-ahead log. The carrier also flushes it every 2 s, as CometBFT does.
    fn append(&mut self, entry: Entry);

    /// Makes all that was appended durable.
    async fn flush(&mut self);

    /// The application makes a block. Whether it makes the same one after a restart is its affair.
    fn build_block(&mut self, plan: &Plan) -> Rc<Block>;

    /// Whether the application takes a proposed block. One that two thirds prevoted is taken without asking.
    fn accepts(&mut self, block: &Block) -> bool;

    /// The application extends a precommit. Whether it gives the same extension after a restart is its affair.
    fn extend(&mut self, height: Height, round: Round, block: &BlockId) -> Vec<u8>;

    /// Saves a decided block, durably. The log's end of the height comes after.
    async fn save(&mut self, decided: Decided);

    /// Takes note of something that a node would write to its own log.
    fn report(&mut self, event: Event);
}

/// What a proposer asks its application to make a block of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// The block's height.
    pub height: Height,
    /// The round that it is made in.
    pub round: Round,
    /// The proposer's place in the validator set.
    pub proposer: usize,
    /// The block's time.
    pub time: Timestamp,
}

/// The signer gave no answer, however often it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GaveUp;

/// Something worth a line in the node's log.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// The signer refused; the vote or proposal is missing. `None` is the public key.
    Refused(Option<Hrs>, RemoteSignerError),
    /// There was no answer; the vote or proposal is missing. `None` is the public key.
    NoAnswer(Option<Hrs>),
    /// The signer's answer was wrong. The node goes on as a real one would: a vote whose signature is wrong is dropped
    /// when it is taken in.
    Misbehaved(Misbehaviour),
    /// A message of the node's own was dropped, since its signature does not cover it.
    OwnInvalid(Hrs),
    /// The node stopped for good (`CONSENSUS FAILURE!!!` in its log).
    Halted(Halt),
    /// A validator voted twice.
    ConflictingVotes(Box<Vote>, Box<Vote>),
    /// A proposer's proposal was dropped, since its signature is wrong.
    InvalidProposal(Box<Proposal>),
}

/// Why a node panics: what `SignAndCheckVote` (`types/vote.go`, v0.38 on) finds beyond recovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Halt {
    /// A prevote or a precommit for nil came back with an extension signature.
    ExtensionSignatureUnexpected(Hrs),
    /// A precommit for a block came back without, where the chain has extensions on.
    ExtensionSignatureMissing(Hrs),
}
