use monosign_protocol::message::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::READ_WRITE_LIMIT;
use super::quirks::Quirks;
use super::timed::Timed;
use crate::link::{LinkError, NodeLink};

/// A signer that did its handshake.
pub(super) struct Connection<Io> {
    pub(super) number: u64,
    pub(super) link: NodeLink<Timed<Io>>,
    quirks: Quirks,
    /// How a write failed whose failure was not noticed yet.
    unnoticed: Option<LinkError>,
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Connection<Io> {
    pub(super) fn new(number: u64, link: NodeLink<Timed<Io>>, quirks: Quirks) -> Self {
        Self { number, link, quirks, unnoticed: None }
    }

    pub(super) async fn send(&mut self, request: &Message) -> Result<(), LinkError> {
        if let Some(error) = self.unnoticed.take() {
            return Err(error);
        }
        let sent = limited(self.link.send(request)).await;
        if self.quirks.writes_blindly {
            self.unnoticed = sent.err();
            return Ok(());
        }
        sent
    }

    pub(super) async fn receive(&mut self) -> Result<Option<Message>, LinkError> {
        match self.quirks.reads_whole {
            true => limited(self.link.receive()).await,
            false => self.link.receive().await.map_err(name_silence),
        }
    }
}

impl LinkError {
    /// Whether a node drops the connection: on errors with Go's `Timeout` method, which every error of a socket has and
    /// the end of the stream and those of the layers above have not (`privval/signer_endpoint.go`).
    pub(super) fn drops_connection(&self) -> bool {
        matches!(self, Self::Io(_) | Self::Silent { .. })
    }
}

/// What `work` gives within the limit.
pub(super) async fn limited<T>(work: impl Future<Output = Result<T, LinkError>>) -> Result<T, LinkError> {
    match timeout(READ_WRITE_LIMIT, work).await {
        Ok(result) => result.map_err(name_silence),
        Err(_) => Err(LinkError::Silent { limit: READ_WRITE_LIMIT }),
    }
}

pub(super) fn name_silence(error: LinkError) -> LinkError {
    match error {
        LinkError::Io(error) if error.kind() == std::io::ErrorKind::TimedOut => {
            LinkError::Silent { limit: READ_WRITE_LIMIT }
        }
        other => other,
    }
}
