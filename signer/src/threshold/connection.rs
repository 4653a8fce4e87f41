//! Frames on a connection: read as they come, written as fast as they are taken.

use std::io;

use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::message::{MessageError, decode, length};

/// How many frames wait for a peer that does not read; with more, the connection is given up.
pub const BACKLOG: usize = 256;

/// How much is written at once, when there is so much: a record of TLS.
const RECORD: usize = 16 << 10;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Ended {
    /// The other end closed it.
    #[error("closed by the peer")]
    Closed,
    /// It broke.
    #[error("connection lost: {0}")]
    Lost(io::Error),
    /// The other end said what is no message.
    #[error(transparent)]
    Message(#[from] MessageError),
}

/// The next message.
///
/// # Errors
/// [`Ended`].
pub async fn read<M: DeserializeOwned>(
    from: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
) -> Result<M, Ended> {
    let mut head = [0; 4];
    from.read_exact(&mut head).await.map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Ended::Closed,
        _ => Ended::Lost(error),
    })?;
    let len = length(head)?;
    // Grows with what really comes, and not with what a head announces.
    buffer.clear();
    let read = (&mut *from).take(len as u64).read_to_end(buffer).await.map_err(Ended::Lost)?;
    if read < len {
        return Err(Ended::Closed);
    }
    Ok(decode(buffer)?)
}

/// Writes frames until there are no more senders, and closes. What waits at the same time goes out together.
///
/// # Errors
/// The connection's.
pub async fn write(
    to: &mut (impl AsyncWrite + Unpin),
    frames: &mut mpsc::Receiver<Vec<u8>>,
) -> io::Result<()> {
    while let Some(mut frame) = frames.recv().await {
        while frame.len() < RECORD
            && let Ok(next) = frames.try_recv()
        {
            frame.extend_from_slice(&next);
        }
        to.write_all(&frame).await?;
        to.flush().await?;
    }
    to.shutdown().await
}
