//! Doors in memory, and the streams behind them: with a paused clock, no waiting takes time.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use mock_validator::conform::{Door, Stream, Waiting};
use mock_validator::link::Transport;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};
use tokio::sync::Notify;

/// Where a signer dials one of its validators.
#[derive(Clone)]
pub struct Place(Rc<Shared>);

struct Shared {
    is_open: Cell<bool>,
    queue: RefCell<VecDeque<Pipe>>,
    dialed: Notify,
}

impl Place {
    pub fn new() -> Self {
        Self(Rc::new(Shared { is_open: Cell::new(true), queue: RefCell::default(), dialed: Notify::new() }))
    }

    /// `None` if nobody listens.
    pub fn dial(&self) -> Option<Pipe> {
        if !self.0.is_open.get() {
            return None;
        }
        let (ours, theirs) = duplex(4 * 1024 * 1024);
        let [reset, was_reset] = [Rc::new(Cell::new(false)), Rc::new(Cell::new(false))];
        let pipe = |io, mine: &Rc<Cell<bool>>, other: &Rc<Cell<bool>>| Pipe {
            io,
            resets: mine.clone(),
            was_reset: other.clone(),
        };
        self.0.queue.borrow_mut().push_back(pipe(theirs, &was_reset, &reset));
        self.0.dialed.notify_one();
        Some(pipe(ours, &reset, &was_reset))
    }
}

impl Door for Place {
    fn transport(&self) -> Transport {
        Transport::SecretConnection
    }

    /// A socket's file is as good as made anew when it is opened again.
    fn is_unix_file(&self) -> bool {
        true
    }

    fn accept(&self) -> Waiting<'_, io::Result<Box<dyn Stream>>> {
        Box::pin(async {
            loop {
                if let Some(pipe) = self.0.queue.borrow_mut().pop_front() {
                    return Ok(Box::new(pipe) as Box<dyn Stream>);
                }
                self.0.dialed.notified().await;
            }
        })
    }

    fn close(&mut self) {
        self.0.is_open.set(false);
        self.0.queue.borrow_mut().clear();
    }

    fn open(&mut self) -> Waiting<'_, io::Result<()>> {
        self.0.is_open.set(true);
        Box::pin(async { Ok(()) })
    }
}

/// One end of a connection that can be reset.
pub struct Pipe {
    io: DuplexStream,
    resets: Rc<Cell<bool>>,
    was_reset: Rc<Cell<bool>>,
}

impl Stream for Pipe {
    fn reset_on_drop(&self) {
        self.resets.set(true);
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if matches!(read, Poll::Ready(Ok(()))) && buf.filled().len() == before && self.was_reset.get() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        read
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
