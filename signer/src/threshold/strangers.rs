//! Who is let in to shake hands: anybody may dial, and no one must keep a cosigner out by that.
//!
//! There are so many places for those that have said nothing yet, and so many for those that have. When places run short, the oldest of the source
//! that holds the most of them goes: first of sources that no cosigner has ever come from.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::AbortHandle;

use crate::seams::Stream;

/// How many may have said nothing yet. A cosigner speaks first, and at once.
const SILENT: usize = 128;
/// How many may have said something.
const SPEAKING: usize = 128;
/// How many sources of cosigners are remembered.
const SOURCES: usize = 256;

/// Where a connection comes from, as coarse as one stranger may have many of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Source(String);

impl Source {
    /// Of an address and port. An IPv6 host has 2^64 addresses to itself.
    pub(super) fn of(from: &str) -> Self {
        from.parse::<SocketAddr>().map_or_else(|_| Self(from.into()), |address| Self::of_ip(address.ip()))
    }

    pub(super) fn of_ip(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self(ip.to_string()),
            IpAddr::V6(ip) => {
                let [a, b, c, d, ..] = ip.segments();
                Self(format!("{a:x}:{b:x}:{c:x}:{d:x}::/64"))
            }
        }
    }
}

/// Those who shake hands.
#[derive(Default)]
pub(super) struct Strangers {
    places: BTreeMap<u64, Place>,
    next: u64,
    known: BTreeSet<Source>,
}

struct Place {
    source: Source,
    has_spoken: Rc<Cell<bool>>,
    handshake: AbortHandle,
}

impl Strangers {
    /// Cosigners come from here.
    pub(super) fn knows(&mut self, source: Source) {
        if self.known.len() < SOURCES {
            self.known.insert(source);
        }
    }

    /// Gives a place to a handshake that has begun, and ends others if there are too many.
    pub(super) fn add(&mut self, source: Source, has_spoken: Rc<Cell<bool>>, handshake: AbortHandle) {
        self.places.retain(|_, place| !place.handshake.is_finished());
        self.next += 1;
        self.places.insert(self.next, Place { source, has_spoken, handshake });
        for (spoken, most) in [(false, SILENT), (true, SPEAKING)] {
            while self.of(spoken).count() > most {
                let Some(worst) = self.worst(spoken) else { break };
                if let Some(place) = self.places.remove(&worst) {
                    place.handshake.abort();
                }
            }
        }
    }

    fn of(&self, spoken: bool) -> impl Iterator<Item = (&u64, &Place)> {
        self.places.iter().filter(move |(_, place)| place.has_spoken.get() == spoken)
    }

    fn worst(&self, spoken: bool) -> Option<u64> {
        let mut held: BTreeMap<&Source, usize> = BTreeMap::new();
        for (_, place) in self.of(spoken) {
            *held.entry(&place.source).or_default() += 1;
        }
        let rank = |place: &Place| (!self.known.contains(&place.source), held.get(&place.source).copied());
        let worst = self.of(spoken).max_by(|(one, a), (other, b)| rank(a).cmp(&rank(b)).then(other.cmp(one)));
        worst.map(|(number, _)| *number)
    }
}

/// A connection, and whether anything has come on it yet.
pub(super) struct Watched {
    stream: Box<dyn Stream>,
    has_spoken: Rc<Cell<bool>>,
}

impl Watched {
    pub(super) fn new(stream: Box<dyn Stream>, has_spoken: Rc<Cell<bool>>) -> Self {
        Self { stream, has_spoken }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.has_spoken.set(true);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::task::{JoinSet, yield_now};

    use super::*;

    /// What was aborted has ended after this.
    async fn settled() {
        for _ in 0..500 {
            yield_now().await;
        }
    }

    #[derive(Default)]
    struct Door {
        strangers: Strangers,
        handshakes: JoinSet<()>,
    }

    impl Door {
        fn comes(&mut self, from: &str, speaks: bool) -> AbortHandle {
            let handshake = self.handshakes.spawn(pending());
            let has_spoken = Rc::new(Cell::new(speaks));
            self.strangers.add(Source::of(from), has_spoken, handshake.clone());
            handshake
        }
    }

    #[tokio::test]
    async fn one_source_that_floods_takes_its_own_places_and_nobody_elses() {
        for (speaks, most) in [(false, SILENT), (true, SPEAKING)] {
            let mut door = Door::default();
            let peer = door.comes("10.0.0.7:555", speaks);
            let first = door.comes("192.0.2.1:1", speaks);
            for port in 2..2000 {
                door.comes(&format!("192.0.2.1:{port}"), speaks);
            }
            settled().await;
            assert!(!peer.is_finished() && first.is_finished());
            assert_eq!(door.strangers.places.len(), most);
        }
    }

    #[tokio::test]
    async fn who_says_nothing_takes_no_place_from_who_shakes_hands() {
        let mut door = Door::default();
        let peer = door.comes("192.0.2.1:1", true);
        for port in 2..2000 {
            door.comes(&format!("192.0.2.1:{port}"), false);
        }
        settled().await;
        assert!(!peer.is_finished(), "even from the same address");
    }

    #[tokio::test]
    async fn strangers_from_everywhere_take_no_place_from_where_cosigners_come_from() {
        let mut door = Door::default();
        door.strangers.knows(Source::of("10.0.0.7:1"));
        let peer = door.comes("10.0.0.7:555", true);
        for n in 0..2000 {
            door.comes(&format!("192.0.{}.{}:9", n / 250, n % 250), true);
        }
        settled().await;
        assert!(!peer.is_finished());
    }

    #[test]
    fn a_host_is_one_source_whatever_port_or_suffix_it_comes_from() {
        assert_eq!(Source::of("192.0.2.1:1"), Source::of("192.0.2.1:2"));
        assert_eq!(Source::of("[::ffff:192.0.2.1]:1"), Source::of("192.0.2.1:2"));
        assert_eq!(Source::of("[2001:db8:1:2::1]:1"), Source::of("[2001:db8:1:2:ffff::9]:7"));
        assert_ne!(Source::of("[2001:db8:1:2::1]:1"), Source::of("[2001:db8:1:3::1]:1"));
        assert_ne!(Source::of("192.0.2.1:1"), Source::of("192.0.2.2:1"));
    }
}
