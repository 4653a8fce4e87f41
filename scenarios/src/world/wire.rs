//! A connection as it comes over a real network: in pieces of any size, together with what follows, broken in the middle, and known to
//! be dead some time after its other end has gone.
//!
//! turmoil keeps the boundaries of writes, so that what a program writes at once arrives at once; nothing would ever show that a
//! reader relies on it.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::TcpStream;

use super::hosts::Hosts;
use super::keepalive::{Accepted, Keepalive};
use crate::streams::Stream;

/// What a host can do to its connections; shared by all of them, and outliving them.
#[derive(Debug, Clone, Default)]
pub(super) struct Tap(Rc<TapState>);

#[derive(Debug, Default)]
struct TapState {
    cut_next_write: Cell<bool>,
    has_broken: Cell<bool>,
    frozen: Cell<bool>,
    open: Cell<usize>,
    wake: tokio::sync::Notify,
}

impl Tap {
    /// The next thing that is written breaks its connection in the middle.
    pub(super) fn cut_next_write(&self) {
        self.0.cut_next_write.set(true);
    }

    /// Whether a break was asked for and has not come yet.
    pub(super) fn is_cut_due(&self) -> bool {
        self.0.cut_next_write.get()
    }

    /// What was asked for and has not come yet comes no more.
    pub(super) fn spare(&self) {
        self.0.cut_next_write.set(false);
    }

    /// Whether a connection has broken, or still is to, since this was asked last.
    pub(super) fn take_broken(&self) -> bool {
        self.0.has_broken.take() || self.is_cut_due()
    }

    /// Nothing is read nor written any more, and nothing closed; or all goes on.
    pub(super) fn freeze(&self, frozen: bool) {
        self.0.frozen.set(frozen);
        if !frozen {
            self.0.wake.notify_waiters();
        }
    }

    /// Whether the process stands still.
    pub(super) fn is_frozen(&self) -> bool {
        self.0.frozen.get()
    }

    /// Waits while the process stands still.
    pub(super) async fn thawed(&self) {
        while self.is_frozen() {
            self.0.wake.notified().await;
        }
    }

    /// A new process: what was asked of the old one is void.
    pub(super) fn reset(&self) {
        self.spare();
        self.freeze(false);
    }

    /// How many connections are open.
    pub(super) fn open(&self) -> usize {
        self.0.open.get()
    }
}

/// A TCP stream that chops and merges, and breaks when told to.
pub(super) struct Wire {
    stream: TcpStream,
    end: End,
    chops: Option<Stream>,
    tap: Tap,
    broken: bool,
    asleep: Option<Pin<Box<dyn Future<Output = ()>>>>,
    scratch: Vec<u8>,
}

/// Which end of a connection this is, as far as keepalive goes.
enum End {
    Dialed(Keepalive),
    Accepted(Accepted),
}

impl Wire {
    /// The end of a connection that `from` has just made to `to`, under `tap`; what comes and goes is chopped by `chops`, if given.
    pub(super) fn dialed(
        stream: TcpStream,
        chops: Option<Stream>,
        tap: Tap,
        hosts: &Rc<Hosts>,
        (from, to): (&Rc<str>, &str),
    ) -> io::Result<Self> {
        let pair = (stream.local_addr()?, stream.peer_addr()?);
        let end = End::Dialed(Keepalive::new(hosts, from, to, pair));
        Ok(Self::new(stream, end, chops, tap))
    }

    /// The end of a connection that `host` has just accepted.
    pub(super) fn accepted(
        stream: TcpStream,
        chops: Option<Stream>,
        tap: Tap,
        (hosts, host): (&Rc<Hosts>, &Rc<str>),
    ) -> io::Result<Self> {
        let pair = (stream.peer_addr()?, stream.local_addr()?);
        let end = End::Accepted(Accepted::new(hosts, host, pair));
        Ok(Self::new(stream, end, chops, tap))
    }

    fn new(stream: TcpStream, end: End, chops: Option<Stream>, tap: Tap) -> Self {
        tap.0.open.set(tap.0.open.get() + 1);
        Self { stream, end, chops, tap, broken: false, asleep: None, scratch: Vec::new() }
    }

    /// Whether keepalive has found the other end gone.
    fn poll_dead(&mut self, cx: &mut Context<'_>) -> Poll<io::ErrorKind> {
        match &mut self.end {
            End::Dialed(keepalive) => keepalive.poll_dead(cx),
            End::Accepted(_) => Poll::Pending,
        }
    }

    /// Whether the process runs; it is woken when it does again.
    fn poll_awake(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.tap.is_frozen() {
            let tap = self.tap.clone();
            let asleep = self.asleep.get_or_insert_with(|| Box::pin(async move { tap.thawed().await }));
            ready!(asleep.as_mut().poll(cx));
            self.asleep = None;
        }
        Poll::Ready(())
    }

    /// Reads what has arrived, as a kernel gives it: pieces that came one after the other are one by now.
    fn fill(&mut self, cx: &mut Context<'_>, bytes: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut count = 0;
        while count < bytes.len() {
            let mut rest = ReadBuf::new(&mut bytes[count..]);
            match Pin::new(&mut self.stream).poll_read(cx, &mut rest) {
                Poll::Ready(Ok(())) if !rest.filled().is_empty() => count += rest.filled().len(),
                Poll::Ready(Err(error)) if count == 0 => return Poll::Ready(Err(error)),
                Poll::Pending if count == 0 => return Poll::Pending,
                _ => break,
            }
            if self.chops.is_none() {
                break;
            }
        }
        Poll::Ready(Ok(count))
    }

    fn piece(&mut self, len: usize) -> usize {
        let Some(stream) = self.chops.as_mut().filter(|_| len > 1) else { return len };
        // Most arrive whole, and about a third is cut anywhere.
        match stream.percent(30) {
            true => stream.between(1, len as u64) as usize,
            false => len,
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.tap.0.open.set(self.tap.0.open.get() - 1);
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_awake(cx));
        if self.broken {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let len = self.piece(buf.remaining());
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.resize(len, 0);
        let read = self.fill(cx, &mut scratch);
        if let Poll::Ready(Ok(count)) = read {
            buf.put_slice(&scratch[..count]);
            if let End::Dialed(keepalive) = &mut self.end {
                keepalive.heard();
            }
        }
        self.scratch = scratch;
        if read.is_pending() {
            let dead = ready!(self.poll_dead(cx));
            self.broken = true;
            return Poll::Ready(Err(dead.into()));
        }
        read.map_ok(drop)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_awake(cx));
        if self.broken {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let len = match self.tap.is_cut_due() {
            true => bytes.len() / 2,
            false => self.piece(bytes.len()),
        };
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &bytes[..len]));
        if let End::Accepted(accepted) = &self.end {
            accepted.has_written();
        }
        if self.tap.is_cut_due() {
            self.tap.spare();
            self.tap.0.has_broken.set(true);
            self.broken = true;
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Poll::Ready(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
