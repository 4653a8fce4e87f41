//! Keepalive, which turmoil's TCP lacks: who only listens on a connection learns that its other end is gone.
//!
//! Times are those of the production sockets ([`KEEPALIVE`]). A kernel that does not know the connection, or not any more, ends it at once.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use monosign::seams::KEEPALIVE;
use tokio::time::{Instant, Sleep, sleep};

use super::hosts::{Hosts, Power};

/// What the kernels of both ends call a connection: the dialer's address and the listener's.
pub(super) type Pair = (SocketAddr, SocketAddr);

/// The dialer's side of a connection.
pub(super) struct Keepalive {
    hosts: Rc<Hosts>,
    from: Rc<str>,
    to: String,
    pair: Pair,
    heard: Instant,
    unanswered: u32,
    timer: Pin<Box<Sleep>>,
}

impl Keepalive {
    /// Of a connection that `from` has just made to `to`.
    pub(super) fn new(hosts: &Rc<Hosts>, from: &Rc<str>, to: &str, pair: Pair) -> Self {
        Self {
            hosts: Rc::clone(hosts),
            from: Rc::clone(from),
            to: to.into(),
            pair,
            heard: Instant::now(),
            unanswered: 0,
            timer: Box::pin(sleep(KEEPALIVE.idle)),
        }
    }

    /// Something came.
    pub(super) fn heard(&mut self) {
        self.heard = Instant::now();
        self.unanswered = 0;
    }

    /// Why the connection is dead, once it is.
    pub(super) fn poll_dead(&mut self, cx: &mut Context<'_>) -> Poll<io::ErrorKind> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let next = match self.heard + KEEPALIVE.idle {
                idle if Instant::now() < idle => idle,
                _ => match self.probe() {
                    Ok(next) => next,
                    Err(dead) => return Poll::Ready(dead),
                },
            };
            self.timer.as_mut().reset(next);
        }
    }

    /// Asks the other kernel, and says when to ask next.
    fn probe(&mut self) -> Result<Instant, io::ErrorKind> {
        let hosts = &self.hosts;
        let is_cut = hosts.is_cut(&self.from, &self.to) || hosts.is_cut(&self.to, &self.from);
        if is_cut || hosts.power(&self.to) == Power::Off {
            if self.unanswered == KEEPALIVE.probes {
                return Err(io::ErrorKind::TimedOut);
            }
            self.unanswered += 1;
            return Ok(Instant::now() + KEEPALIVE.between);
        }
        if !hosts.has_accepted(&self.pair) {
            return Err(io::ErrorKind::ConnectionReset);
        }
        self.heard();
        Ok(self.heard + KEEPALIVE.idle)
    }
}

/// The listener's side of a connection, which its kernel knows for as long as this lives.
pub(super) struct Accepted {
    hosts: Rc<Hosts>,
    host: Rc<str>,
    dialer: Option<String>,
    pair: Pair,
}

impl Accepted {
    /// Of a connection that `host` has just accepted.
    pub(super) fn new(hosts: &Rc<Hosts>, host: &Rc<str>, pair: Pair) -> Self {
        hosts.set_accepted(pair, true);
        let dialer = turmoil::reverse_lookup(pair.0.ip());
        Self { hosts: Rc::clone(hosts), host: Rc::clone(host), dialer, pair }
    }

    /// What is written into a cut is lost here, and with it all that follows. A kernel would send it again once the cut has healed, and
    /// the dialer would hear of something that its peer has given up by then: so the connection has no end any more.
    pub(super) fn has_written(&self) {
        if self.dialer.as_ref().is_some_and(|dialer| self.hosts.is_cut(&self.host, dialer)) {
            self.hosts.set_accepted(self.pair, false);
        }
    }
}

impl Drop for Accepted {
    fn drop(&mut self) {
        self.hosts.set_accepted(self.pair, false);
    }
}
