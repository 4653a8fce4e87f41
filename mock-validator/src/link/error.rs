use std::{io, time::Duration};

use monosign_protocol::{frame, noise, secret_connection};

/// Why a link to a signer gives no answer. Except after [`LinkError::Decode`] it is of no use any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The stream failed.
    #[error("connection failed: {0}")]
    Io(#[from] io::Error),
    /// The signer closed the stream.
    #[error("the signer closed the connection; its log says why")]
    Closed,
    /// The signer let the time pass that a node gives it.
    #[error("the signer was silent for {} s", limit.as_secs_f64())]
    Silent {
        /// The time limit.
        limit: Duration,
    },
    /// The signer broke the SecretConnection handshake.
    #[error("secret connection: {0}")]
    SecretHandshake(#[from] secret_connection::HandshakeError),
    /// The signer sent a frame that SecretConnection does not open.
    #[error("secret connection: {0}")]
    SecretOpen(#[from] secret_connection::OpenError),
    /// The signer broke the Noise handshake, or is not the one that is pinned.
    #[error("noise: {0}")]
    NoiseHandshake(#[from] noise::HandshakeError),
    /// The signer sent a message that Noise does not open.
    #[error("noise: {0}")]
    NoiseOpen(#[from] noise::OpenError),
    /// The link has sent as much as it can.
    #[error("nothing more can be sent: {reason}")]
    Seal {
        /// What the channel says.
        reason: String,
    },
    /// The signer's framing is broken, or its message longer than the node reads.
    #[error("the signer's framing: {0}")]
    Frame(#[from] frame::FrameError),
    /// The signer sent a whole frame that is no privval message. The stream is still in step.
    #[error("the signer's message does not decode: {reason}")]
    Decode {
        /// What the codec says.
        reason: String,
    },
}

impl LinkError {
    pub(super) fn decode(reason: impl std::fmt::Display) -> Self {
        Self::Decode { reason: reason.to_string() }
    }

    pub(super) fn seal(reason: impl std::fmt::Display) -> Self {
        Self::Seal { reason: reason.to_string() }
    }
}
