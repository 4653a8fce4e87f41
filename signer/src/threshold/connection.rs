//! Frames on a connection: read as they come, written as fast as they are taken.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::message::{Framed, MessageError, decode, length};
use super::tls;

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
    #[error("connection lost: {}", tls::explained(.0))]
    Lost(io::Error),
    /// The other end did not begin in time.
    #[error("nothing was said")]
    Silent,
    /// The other end said what is no message.
    #[error(transparent)]
    Message(#[from] MessageError),
}

/// How much of a buffer is kept for the next message.
const KEPT: usize = 64 << 10;

/// The next message, and how many bytes it had. A message that is longer than its kind may be is not read.
///
/// # Errors
/// [`Ended`].
pub async fn read<M: Framed>(
    from: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
) -> Result<(M, usize), Ended> {
    let mut head = [0; 4];
    fill(from, &mut head).await?;
    let len = length(head)?;
    // The version, and the kind.
    let mut start = [0; 2];
    let start = &mut start[..len.min(2)];
    fill(from, start).await?;
    if start.get(1).is_some_and(|kind| len > M::longest(*kind)) {
        return Err(MessageError::TooLong(len).into());
    }
    // Grows with what really comes, and not with what a head announces.
    buffer.clear();
    buffer.shrink_to(KEPT);
    buffer.extend_from_slice(start);
    let rest = (len - start.len()) as u64;
    (&mut *from).take(rest).read_to_end(buffer).await.map_err(Ended::Lost)?;
    if buffer.len() < len {
        return Err(Ended::Closed);
    }
    Ok((decode(buffer)?, len))
}

async fn fill(from: &mut (impl AsyncRead + Unpin), bytes: &mut [u8]) -> Result<(), Ended> {
    let read = from.read_exact(bytes).await;
    read.map(drop).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Ended::Closed,
        _ => Ended::Lost(error),
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::threshold::asked::Subject;
    use crate::threshold::message::{MAX_MESSAGE, MAX_SHORT, Reply, Request, encode};

    /// What is read of a frame, and how much of it was taken from the stream.
    async fn taken<M: Framed + std::fmt::Debug>(frame: &[u8]) -> (Result<(M, usize), Ended>, usize) {
        let (mut rest, mut buffer) = (frame, Vec::new());
        let read = read::<M>(&mut rest, &mut buffer).await;
        (read, frame.len() - rest.len())
    }

    #[tokio::test]
    async fn a_frame_that_is_longer_than_its_kind_may_be_is_refused_by_its_head() {
        let long = vec![7; MAX_SHORT];
        let request = Request::Forward { request: 1, subject: Subject::Raw(vec![7; 1 << 20]) };
        let frame = encode(&request);
        let (read, used) = taken::<Request>(&frame).await;
        assert_eq!((read.expect("a request"), used), ((request, frame.len() - 4), frame.len()));
        // The same bytes as another kind, and as one that there is not.
        for kind in [0, 3, 4, 9] {
            let mut frame = frame.clone();
            frame[5] = kind;
            let (read, used) = taken::<Request>(&frame).await;
            assert!(matches!(read, Err(Ended::Message(MessageError::TooLong(_)))), "{kind}: {read:?}");
            assert_eq!(used, 6, "no more than the kind was read");
        }
        for reply in [
            Reply::Signed { request: 1, message: Some(long.clone()), signature: vec![] },
            Reply::Share { request: 1, share: long },
        ] {
            let (read, used) = taken::<Reply>(&encode(&reply)).await;
            assert!(matches!(read, Err(Ended::Message(MessageError::TooLong(_)))), "{read:?}");
            assert_eq!(used, 6);
        }
        let mut frame = frame;
        frame[..4].copy_from_slice(&u32::try_from(MAX_MESSAGE + 1).expect("small").to_le_bytes());
        assert!(taken::<Request>(&frame).await.0.is_err());
    }

    #[tokio::test]
    async fn a_buffer_does_not_keep_the_size_of_the_longest_message() {
        let long = encode(&Request::Forward { request: 1, subject: Subject::Raw(vec![7; 1 << 20]) });
        let short = encode(&Request::Ping(1));
        let both = [long, short].concat();
        let (mut stream, mut buffer) = (&both[..], Vec::new());
        read::<Request>(&mut stream, &mut buffer).await.expect("a request");
        assert!(buffer.capacity() >= 1 << 20);
        read::<Request>(&mut stream, &mut buffer).await.expect("a ping");
        assert!(buffer.capacity() <= 2 * KEPT, "{}", buffer.capacity());
    }
}
