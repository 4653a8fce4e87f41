//! What cosigners say to each other, as the oracle hears it: each message when it leaves a process, and when it comes to one. And what a
//! cosigner that cheats says in the place of what its process says.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use monosign::seams::Stream;
use monosign::threshold::asked::Subject;
use monosign::threshold::incarnation::Incarnation;
use monosign::threshold::message::{Reply, Request, Signer, Why, decode, encode, length};
use monosign::threshold::nonces::POOL;
use monosign_protocol::Hrs;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::signer_host::SignerHost;
use crate::outcome::Invariant;
use crate::scenario::Cheat;

/// Whose end of a connection it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The coordinator's, which says requests.
    Dialed,
    /// The signer's, which says replies.
    Accepted,
}

/// A connection that is listened to.
pub(super) struct Overheard {
    stream: Box<dyn Stream>,
    coming: Frames,
    leaving: Frames,
    /// What has left the process and is not in the kernel's hands yet.
    out: Vec<u8>,
    ear: Ear,
}

impl Overheard {
    pub(super) fn new(stream: Box<dyn Stream>, signer: Rc<SignerHost>, peer: [u8; 32], side: Side) -> Self {
        let ear = Ear {
            signer,
            peer,
            side,
            asked: BTreeMap::new(),
            offered: BTreeMap::new(),
            hello: None,
            last_nonce: None,
            last_commitment: None,
        };
        Self { stream, coming: Frames::default(), leaving: Frames::default(), out: Vec::new(), ear }
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.out))?;
            self.out.drain(..written);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Overheard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let Self { coming, ear, .. } = &mut *self;
        coming.bytes.extend_from_slice(&buf.filled()[before..]);
        while let Some(frame) = coming.next() {
            ear.hears(body(&frame));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Overheard {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_drain(cx))?;
        let Self { leaving, ear, out, .. } = &mut *self;
        leaving.bytes.extend_from_slice(bytes);
        while let Some(frame) = leaving.next() {
            out.extend(ear.says(frame));
        }
        // What the kernel does not take now, it takes when the writer flushes.
        let _ = self.poll_drain(cx)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The frames in a stream of bytes.
#[derive(Default)]
struct Frames {
    bytes: Vec<u8>,
}

impl Frames {
    /// The next one, whole.
    fn next(&mut self) -> Option<Vec<u8>> {
        let len = HEAD + length(*self.bytes.first_chunk()?).ok()?;
        let frame = self.bytes.get(..len)?.to_vec();
        self.bytes.drain(..len);
        Some(frame)
    }
}

/// How many commitments of one connection are remembered: more than a signer keeps nonces for.
const OFFERED: usize = 8 * POOL;

/// How long the length before a message is.
const HEAD: usize = 4;

/// What a frame holds.
fn body(frame: &[u8]) -> &[u8] {
    &frame[HEAD..]
}

/// What is known of the messages of one connection.
struct Ear {
    signer: Rc<SignerHost>,
    peer: [u8; 32],
    side: Side,
    /// Requests for shares that were not answered yet.
    asked: BTreeMap<u64, Asked>,
    /// What the signer has committed itself to on this connection, by the numbers of the nonces, until a share is made with them.
    offered: BTreeMap<u64, Vec<u8>>,
    /// The life that the peer says that it is in.
    hello: Option<Incarnation>,
    last_nonce: Option<u64>,
    last_commitment: Option<Vec<u8>>,
}

/// A request for a share, as it came in.
struct Asked {
    nonce: u64,
    subject: Subject,
    /// The highest place that the signer had given a share for.
    before: Option<Hrs>,
}

impl Ear {
    /// A message comes to the process.
    fn hears(&mut self, body: &[u8]) {
        match self.side {
            Side::Accepted => {
                if let Ok(request) = decode::<Request>(body) {
                    self.hears_request(request);
                }
            }
            Side::Dialed => match decode::<Reply>(body) {
                Ok(Reply::Fenced(_)) => self.signer.reach().hit("cosigner told that it is an earlier life"),
                Ok(Reply::Commitments(list)) => self.offers(list),
                _ => {}
            },
        }
    }

    fn hears_request(&mut self, request: Request) {
        match request {
            Request::Hello(hello) => self.hello = Some(hello.incarnation),
            Request::Share { request, nonce, subject, .. } => {
                let before = self.signer.oracle().borrow().highest(&self.signer.name);
                self.asked.insert(request, Asked { nonce, subject, before });
            }
            _ => {}
        }
    }

    /// A message leaves the process. Gives the frame that goes out.
    fn says(&mut self, frame: Vec<u8>) -> Vec<u8> {
        let said = match self.side {
            Side::Dialed => decode(body(&frame)).ok().and_then(|request| self.says_request(request)),
            Side::Accepted => decode(body(&frame)).ok().and_then(|reply| self.says_reply(reply)),
        };
        said.unwrap_or(frame)
    }

    /// A frame in the place of it, from a coordinator that cheats.
    fn says_request(&mut self, request: Request) -> Option<Vec<u8>> {
        match request {
            Request::Done { proof, .. } => {
                self.signer.group_signed(&proof.message, &proof.signature);
                None
            }
            Request::Forward { .. } => {
                self.signer.reach().hit("request forwarded to a coordinator");
                None
            }
            Request::Share { request, nonce, subject, others } => {
                self.session_asked(nonce, &subject, &others);
                let last = self.last_nonce.replace(nonce);
                // Every second time, so that the other requests are good ones.
                let again = last.filter(|_| self.signer.cheats(Cheat::NonceTwice))?;
                self.last_nonce = None;
                self.signer.reach().hit("nonce asked for twice");
                Some(encode(&Request::Share { request, nonce: again, subject, others }))
            }
            Request::Hello(_) | Request::Ping(_) => None,
        }
    }

    /// A frame in the place of it, from a signer that cheats.
    fn says_reply(&mut self, reply: Reply) -> Option<Vec<u8>> {
        let reach = self.signer.reach().clone();
        match reply {
            Reply::Welcome(_) => {
                if let Some(life) = self.hello {
                    self.signer.oracle().borrow_mut().welcomed(&self.signer.name, self.peer, life);
                }
                None
            }
            Reply::Fenced(_) => {
                reach.hit("earlier life turned away");
                None
            }
            Reply::Active => {
                reach.hit("cosigner takes part");
                None
            }
            Reply::Share { request, mut share } => {
                let asked = self.asked.remove(&request)?;
                self.share_leaves(&asked);
                if !self.signer.cheats(Cheat::BadShare) {
                    return None;
                }
                reach.hit("bad share sent");
                *share.first_mut()? ^= 1;
                Some(encode(&Reply::Share { request, share }))
            }
            Reply::Refused { request, why, .. } => {
                self.asked.remove(&request);
                match why {
                    Why::Guard(_) => reach.hit("share refused by a guard"),
                    Why::Nonce => reach.hit("nonces refused"),
                    Why::Fenced(_) => reach.hit("share refused to an earlier life"),
                    Why::Malformed(_) => reach.hit("share refused for what cannot be read"),
                    Why::NotActive | Why::NoQuorum => {}
                }
                None
            }
            Reply::Signed { message, signature, .. } => {
                if let Some(message) = message {
                    self.signer.group_signed(&message, &signature);
                }
                None
            }
            Reply::Commitments(list) => {
                self.offers(list.clone());
                let cheats = self.signer.cheats(Cheat::ReplayedCommitment);
                let mut replayed = list.clone();
                for (_, bytes) in &mut replayed {
                    let fresh = bytes.clone();
                    if let Some(last) = self.last_commitment.replace(fresh).filter(|_| cheats) {
                        self.signer.oracle().borrow_mut().offered_again(&last);
                        *bytes = last;
                    }
                }
                cheats.then(|| {
                    reach.hit("commitment offered twice");
                    encode(&Reply::Commitments(replayed))
                })
            }
            Reply::Pong(_) => None,
        }
    }

    /// Remembers what is offered: the signer keeps two pools at the most.
    fn offers(&mut self, list: Vec<(u64, Vec<u8>)>) {
        self.offered.extend(list);
        while self.offered.len() > OFFERED {
            self.offered.pop_first();
        }
    }

    /// A coordinator asks the signer for a share, in a set of which it names the others.
    fn session_asked(&mut self, nonce: u64, subject: &Subject, others: &[Signer]) {
        // What a cheat asks with is nobody's mistake.
        if self.signer.is_honest() {
            let own = self.offered.get(&nonce).cloned();
            let set = others.iter().map(|signer| signer.commitments.clone()).chain(own).collect();
            let name = &self.signer.name;
            self.signer.oracle().borrow_mut().session_asked(name, &set, subject);
        }
    }

    fn share_leaves(&mut self, asked: &Asked) {
        self.signer.reach().hit("share given");
        let name = &self.signer.name;
        let mut oracle = self.signer.oracle().borrow_mut();
        match self.offered.get(&asked.nonce) {
            Some(commitments) => oracle.share_made(name, commitments),
            None => oracle.violated(
                Invariant::NonceOnce,
                format!("{name} made a share with a nonce that it never offered"),
            ),
        }
        oracle.share_left(name, &asked.subject, asked.before);
    }
}
