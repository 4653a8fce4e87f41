use std::{io, time::Duration};

use monosign_protocol::message::Message;

use super::Failure;
use crate::link::{LinkError, Peer};

/// What happened at an endpoint. Connections are numbered in the order in which they were accepted, from 1.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The listener failed. A time without a dial is no failure.
    ListenFailed {
        /// What the system says.
        error: &'a io::Error,
    },
    /// A dial was picked up from the listener's backlog; its handshake begins.
    Accepted {
        /// The connection.
        connection: u64,
    },
    /// The handshake failed. v0.39 and v0.40 close the stream; other nodes forget it, and it stays open until their memory
    /// is tidied up, within two minutes.
    HandshakeFailed {
        /// The connection.
        connection: u64,
        /// Why.
        error: &'a LinkError,
    },
    /// The handshake is done. The connection waits until something is to be asked.
    HandshakeDone {
        /// The connection.
        connection: u64,
        /// Who the signer proved to be.
        peer: &'a Peer,
    },
    /// The connection is the one in use from now on.
    Connected {
        /// The connection.
        connection: u64,
    },
    /// The node closed the connection in use.
    Lost {
        /// The connection.
        connection: u64,
        /// Why.
        why: Loss<'a>,
    },
    /// A request, or a ping, was written as a whole and nothing of its answer was read yet.
    Sent {
        /// The connection.
        connection: u64,
        /// The request; its bytes are the same at each attempt.
        request: &'a Message,
        /// Which attempt this is, from 1. Pings have but one.
        attempt: u32,
    },
    /// A message was read in the place of the answer; nothing of it was checked.
    Answered {
        /// The connection.
        connection: u64,
        /// The request.
        request: &'a Message,
        /// The message; `None` is one without content.
        answer: Option<&'a Message>,
        /// Which attempt this was, from 1.
        attempt: u32,
        /// How long ago the first attempt began.
        after: Duration,
    },
    /// An attempt failed. The next one, if any, follows after a pause.
    Failed {
        /// The request.
        request: &'a Message,
        /// Which attempt this was, from 1.
        attempt: u32,
        /// Why.
        failure: &'a Failure,
    },
    /// The node goes on without an answer.
    GaveUp {
        /// The request.
        request: &'a Message,
        /// How many attempts were made.
        attempts: u32,
        /// How long ago the first attempt began.
        after: Duration,
    },
}

/// Why a node closed a connection.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Loss<'a> {
    /// A request or its answer failed in a way that the node takes for the end of the connection.
    Error(&'a LinkError),
    /// A ping failed in another way.
    Ping,
    /// The node stops.
    Stop,
}
