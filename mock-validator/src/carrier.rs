//! Carries a node's messages over real sockets, with the time limits of a node.

use std::time::Duration;

use ed25519_dalek::SigningKey;
use monosign_protocol::message::Message;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::link::{LinkError, Listener, NodeLink, Peer, Socket};

/// One signer at a time on a listener; a lost one is waited for again.
pub(crate) struct Carrier<'a> {
    listener: &'a Listener,
    identity: SigningKey,
    entropy: Box<dyn FnMut() -> [u8; 32]>,
    wait: Duration,
    read_limit: usize,
    link: Option<NodeLink<Socket>>,
}

/// Why a request got no answer.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// Nobody dialled, or nobody got through the handshake.
    NoSigner { last: Option<LinkError> },
    /// The connection was lost at each attempt.
    Lost(LinkError),
}

/// A node gives its signer 5 s to read, write and shake hands (CometBFT `privval/signer_listener_endpoint.go`,
/// `defaultTimeoutReadWriteSeconds`).
const READ_WRITE_LIMIT: Duration = Duration::from_secs(5);

/// A node retries 50 times, 100 ms apart (`node/node.go`, `createAndStartPrivValidatorSocketClient`); three are enough
/// to tell that a request is never answered.
const ATTEMPTS: usize = 3;
const RETRY_PAUSE: Duration = Duration::from_millis(100);

impl<'a> Carrier<'a> {
    pub(crate) fn new(
        listener: &'a Listener,
        identity: SigningKey,
        entropy: Box<dyn FnMut() -> [u8; 32]>,
        wait: Duration,
        read_limit: usize,
    ) -> Self {
        Self { listener, identity, entropy, wait, read_limit, link: None }
    }

    /// Waits for a signer, unless one is connected, and says who it is.
    pub(crate) async fn connect(&mut self) -> Result<Peer, NoAnswer> {
        Ok(self.connected().await?.peer().clone())
    }

    /// Asks, after a lost connection again with the same bytes.
    pub(crate) async fn ask(&mut self, request: &Message) -> Result<Option<Message>, NoAnswer> {
        let mut attempt = 1;
        loop {
            let link = self.connected().await?;
            let error = match timeout(READ_WRITE_LIMIT, link.ask(request)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => error,
                Err(_) => LinkError::Silent { limit: READ_WRITE_LIMIT },
            };
            self.link = None;
            if attempt == ATTEMPTS {
                return Err(NoAnswer::Lost(error));
            }
            attempt += 1;
            sleep(RETRY_PAUSE).await;
        }
    }

    async fn connected(&mut self) -> Result<&mut NodeLink<Socket>, NoAnswer> {
        let link = match self.link.take() {
            Some(link) => link,
            None => self.accept().await?.with_read_limit(self.read_limit),
        };
        Ok(self.link.insert(link))
    }

    async fn accept(&mut self) -> Result<NodeLink<Socket>, NoAnswer> {
        let deadline = Instant::now() + self.wait;
        let mut last = None;
        loop {
            let socket = match timeout_at(deadline, self.listener.accept()).await {
                Ok(Ok(socket)) => socket,
                Ok(Err(error)) => return Err(NoAnswer::NoSigner { last: Some(error.into()) }),
                Err(_) => return Err(NoAnswer::NoSigner { last }),
            };
            let handshake = self.listener.handshake(socket, &self.identity, &mut self.entropy);
            match timeout(READ_WRITE_LIMIT, handshake).await {
                Ok(Ok(link)) => return Ok(link),
                Ok(Err(error)) => last = Some(error),
                Err(_) => last = Some(LinkError::Silent { limit: READ_WRITE_LIMIT }),
            }
        }
    }
}
