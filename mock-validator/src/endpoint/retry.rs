use std::{cell::Cell, convert::Infallible};

use monosign_protocol::Dialect;
use monosign_protocol::message::{Message, PubKeyResponse, PublicKeyKind};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::{ATTEMPTS, Accept, Event, Failure, Loss, NoAnswer, RETRY_PAUSE, SignerEndpoint};

/// Asks with a node's patience: CometBFT's `RetrySignerClient` around a `SignerClient`.
pub struct RetryClient<A: Accept> {
    endpoint: SignerEndpoint<A>,
    stopped: Cell<bool>,
    stop: Notify,
}

impl<A: Accept> RetryClient<A> {
    /// Asks over `endpoint`.
    pub fn new(endpoint: SignerEndpoint<A>) -> Self {
        Self { endpoint, stopped: Cell::new(false), stop: Notify::new() }
    }

    /// The endpoint.
    pub fn endpoint(&self) -> &SignerEndpoint<A> {
        &self.endpoint
    }

    /// Runs the endpoint: [`SignerEndpoint::run`].
    pub async fn run(&self) -> Infallible {
        self.endpoint.run().await
    }

    /// Asks until there is an answer, with the same bytes at each attempt: 50 of them, a pause of 100 ms after each.
    ///
    /// An answer is a message of the right kind, be it an error; a key has to be one that the node can read. Nothing else
    /// is checked, above all not that the answer fits the request: nodes take what they read
    /// (`privval/signer_client.go`).
    ///
    /// # Errors
    /// [`NoAnswer`] if no attempt succeeded. The node then goes on without a signature.
    pub async fn ask(&self, request: &Message) -> Result<Message, NoAnswer> {
        let begin = Instant::now();
        let mut attempt = 1;
        loop {
            let last = match self.attempt(request, attempt, begin).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let goes_on = self.pause().await;
            if goes_on && attempt < ATTEMPTS {
                attempt += 1;
                continue;
            }
            self.endpoint.observe(Event::GaveUp { request, attempts: attempt, after: begin.elapsed() });
            return Err(match goes_on {
                true => NoAnswer::Exhausted { attempts: attempt, last },
                false => NoAnswer::Stopped { last },
            });
        }
    }

    /// Asks once, as a node does for the public key when it starts (`node/setup.go`,
    /// `createAndStartPrivValidatorSocketClient`): the signer has 3 s to connect and 5 s to answer.
    ///
    /// # Errors
    /// [`Failure`]. A node exits then, and also when the answer is an error.
    pub async fn ask_once(&self, request: &Message) -> Result<Message, Failure> {
        self.attempt(request, 1, Instant::now()).await
    }

    /// The node stops. In v0.40 who asks gives up within a pause, and the connection is closed (`Close` of
    /// `privval/retry_signer_client.go`). Other nodes do nothing of the kind: they hang until they are killed or have made all attempts.
    pub async fn stop(&self) {
        if self.endpoint.dialect() == Dialect::V0_40 {
            self.stopped.set(true);
            self.stop.notify_waiters();
            self.endpoint.drop_connection(Loss::Stop).await;
        }
    }

    async fn attempt(&self, request: &Message, attempt: u32, begin: Instant) -> Result<Message, Failure> {
        let answer = self.endpoint.attempt(request, attempt, begin).await;
        let checked = answer.and_then(|answer| match answer {
            Some(answer) if is_answer(self.endpoint.dialect(), request, &answer) => Ok(answer),
            answer => Err(Failure::Unexpected { answer: answer.map(Box::new) }),
        });
        checked.inspect_err(|failure| self.endpoint.observe(Event::Failed { request, attempt, failure }))
    }

    /// Whether the node still runs after the pause.
    async fn pause(&self) -> bool {
        if !self.stopped.get() {
            tokio::select! {
                biased;
                () = self.stop.notified() => {}
                () = sleep(RETRY_PAUSE) => {}
            }
        }
        !self.stopped.get()
    }
}

/// Whether a node of `dialect` takes `answer` for one to `request`. Errors are answers.
fn is_answer(dialect: Dialect, request: &Message, answer: &Message) -> bool {
    match (request, answer) {
        (Message::PubKeyRequest(_), Message::PubKeyResponse(answer)) => {
            answer.error.is_some() || has_key(dialect, answer)
        }
        (Message::SignVoteRequest(_), Message::SignedVoteResponse(_))
        | (Message::SignProposalRequest(_), Message::SignedProposalResponse(_))
        | (Message::PingRequest, Message::PingResponse) => true,
        (Message::RawRequest(_), Message::RawResponse(_)) => dialect.is_v1_or_later(),
        _ => false,
    }
}

/// Whether there is a key, of a type that the dialect knows and of that type's length (`crypto/encoding/codec.go`).
fn has_key(dialect: Dialect, answer: &PubKeyResponse) -> bool {
    let seen = match dialect.restrict(Message::PubKeyResponse(answer.clone())) {
        Some(Message::PubKeyResponse(seen)) => seen,
        _ => return false,
    };
    if dialect.is_v1_or_later() {
        let lengths = [("ed25519", 32), ("secp256k1", 33), ("bls12_381", 96)];
        let length = seen.pub_key_bytes.len();
        return lengths.iter().any(|(kind, expected)| seen.pub_key_type.is(kind) && length == *expected);
    }
    let key = seen.pub_key.and_then(|key| key.sum);
    key.is_some_and(|(kind, bytes)| {
        let expected = match kind {
            PublicKeyKind::Ed25519 => 32,
            PublicKeyKind::Bls12381 => 96,
            PublicKeyKind::MlDsa65 => 1952,
            // Both forms of secp256k1, compressed.
            _ => 33,
        };
        bytes.len() == expected
    })
}
