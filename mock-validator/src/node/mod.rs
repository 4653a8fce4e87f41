//! What asks for signatures: a node that goes from height to height.
//!
//! The engine has no socket and no clock. A *carrier* (an event loop, a simulator or [`crate::show()`] on real sockets)
//! moves its messages, in this order:
//!
//! 1. [`Node::poll_request`] gives the next request. Until it is answered it gives the same one again, byte for byte,
//!    which is what CometBFT's `RetrySignerClient` sends after a lost connection.
//! 2. [`Node::handle_answer`] takes the answer, checks it as a CometBFT node would and moves on.
//!
//! The requests of a height are those of the only validator of a chain: public key, proposal, prevote, precommit
//! (`internal/consensus/state.go`: the key is fetched again after every commit). Equal settings and times make equal
//! requests.
//!
//! [`Verifier`] is the check alone, for callers that make their own requests, and [`probes`] are requests that try to
//! make a signer sign twice.

mod misbehaviour;
pub mod probes;
mod requests;
mod verify;

use ed25519_dalek::VerifyingKey;
use monosign_protocol::message::{Message, RemoteSignerError, Timestamp};
use monosign_protocol::{ChainId, Dialect, Height, Hrs, Round, Step};

pub use misbehaviour::Misbehaviour;
pub use requests::{Blocks, Requests};
pub use verify::{Answer, Signed, Verifier};

/// What chain the node is on and how it asks.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The chain, as its genesis names it.
    pub chain_id: ChainId,
    /// The release that the node runs.
    pub dialect: Dialect,
    /// The height of the first request.
    pub first_height: Height,
    /// The length of the vote extensions, in bytes; `None` where the chain has them switched off. Ignored by dialects
    /// that have none.
    pub extension_bytes: Option<usize>,
    /// The key that the signer must have; `None` takes the one it shows first.
    pub expected_key: Option<VerifyingKey>,
    /// Where block hashes and extensions come from.
    pub seed: [u8; 32],
}

/// A validator that asks its signer for one signature after the other, at rising heights.
#[derive(Debug)]
pub struct Node {
    requests: Requests,
    verifier: Verifier,
    height: Height,
    next: Question,
    in_flight: Option<Message>,
    last_precommit: Option<Message>,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The signer showed its key.
    PublicKey(VerifyingKey),
    /// The signer signed.
    Signed(Signed),
    /// The signer refused. A node logs that and goes on without the vote.
    Refused {
        /// What was to be signed; `None` for the public key.
        hrs: Option<Hrs>,
        /// What the signer said.
        error: RemoteSignerError,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    PublicKey,
    Sign(Step),
}

impl Node {
    /// A node that will ask for its first height.
    pub fn new(settings: Settings) -> Self {
        let extensions = settings.extension_bytes.filter(|_| settings.dialect.has_extensions());
        Self {
            requests: Requests::new(
                settings.chain_id.clone(),
                settings.dialect,
                extensions,
                Blocks::new(settings.seed),
            ),
            verifier: Verifier::new(
                settings.chain_id,
                settings.dialect,
                extensions.is_some(),
                settings.expected_key,
            ),
            height: settings.first_height,
            next: Question::PublicKey,
            in_flight: None,
            last_precommit: None,
        }
    }

    /// The request to send now. `now` becomes its timestamp; a request that was not answered keeps the one it has.
    pub fn poll_request(&mut self, now: Timestamp) -> &Message {
        let (requests, next, height) = (&self.requests, self.next, self.height);
        self.in_flight.get_or_insert_with(|| match next {
            Question::PublicKey => requests.public_key(),
            Question::Sign(step) => {
                requests.sign(Hrs { height, round: Round(0), step }, requests.blocks().block(height, 0), now)
            }
        })
    }

    /// Takes the answer to the last request and moves on to the next question. `None` is a message without content.
    ///
    /// # Errors
    /// [`Misbehaviour`] if a node could not use the answer, or would stop because of it, or if nothing was asked. The
    /// node moves on all the same, as one that lost a vote.
    pub fn handle_answer(&mut self, answer: Option<Message>) -> Result<Outcome, Misbehaviour> {
        let request = self.in_flight.take().ok_or(Misbehaviour::Unasked)?;
        let checked = self.verifier.check(&request, answer);
        if self.next == Question::Sign(Step::Precommit) {
            self.last_precommit = Some(request);
        }
        match &checked {
            // A node without a key can't vote: it asks until it gets one.
            Err(_) | Ok(Answer::Refused { hrs: None, .. }) if self.verifier.key().is_none() => {}
            _ => self.advance(),
        }
        match checked? {
            Answer::PublicKey(key) => {
                self.verifier.pin(key);
                self.requests.vote_as(&key);
                Ok(Outcome::PublicKey(key))
            }
            Answer::Signed(signed) => Ok(Outcome::Signed(signed)),
            Answer::Refused { hrs, error } => Ok(Outcome::Refused { hrs, error }),
        }
    }

    /// The height of the next request.
    pub fn height(&self) -> Height {
        self.height
    }

    /// Whether the next request opens a new height: nothing of it was asked for yet.
    pub fn is_between_heights(&self) -> bool {
        self.next == Question::PublicKey && self.in_flight.is_none()
    }

    /// The check of this node's answers, with the key that the signer showed.
    pub fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// The last precommit that was asked for, if any: what a conflict can be made from.
    pub fn last_precommit(&self) -> Option<&Message> {
        self.last_precommit.as_ref()
    }

    fn advance(&mut self) {
        self.next = match self.next {
            Question::PublicKey => Question::Sign(Step::Proposal),
            Question::Sign(Step::Proposal) => Question::Sign(Step::Prevote),
            Question::Sign(Step::Prevote) => Question::Sign(Step::Precommit),
            Question::Sign(Step::Precommit) => {
                self.height.0 = self.height.0.saturating_add(1);
                Question::PublicKey
            }
        };
    }
}
