use std::sync::Arc;

use monosign_protocol::message::Message;

use crate::link::LinkError;

/// Why one attempt to ask gave no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// No signer connected in time.
    #[error(transparent)]
    NoSigner(#[from] NoSigner),
    /// The connection gave no answer. It is lost or kept, as [`SignerEndpoint`](super::SignerEndpoint) has it.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The signer's message is no answer to the request: of another kind, without content, or without a usable key.
    #[error("the signer's message is no answer to the request")]
    Unexpected {
        /// The message; `None` is one without content.
        answer: Option<Box<Message>>,
    },
}

/// No signer connected in time.
#[derive(Debug, Clone, thiserror::Error)]
#[error("no signer connected in time{}", because(last))]
pub struct NoSigner {
    /// How the handshake of the last one that tried failed, if one tried since there was a connection.
    pub last: Option<Arc<LinkError>>,
}

/// Why a node goes on without an answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoAnswer {
    /// No attempt gave an answer.
    #[error("no answer in {attempts} attempts: {last}")]
    Exhausted {
        /// How many attempts were made.
        attempts: u32,
        /// How the last one failed.
        last: Failure,
    },
    /// The node stops (v0.40 alone; other nodes go on to the last attempt).
    #[error("the node stops; the last attempt: {last}")]
    Stopped {
        /// How the last attempt failed.
        last: Failure,
    },
}

fn because(last: &Option<Arc<LinkError>>) -> String {
    last.as_ref().map(|error| format!(" (the last one that tried: {error})")).unwrap_or_default()
}
