//! The connections of a cosigner: it dials each of the others, and each of the others dials it.
//!
//! What a peer or a stranger can have of this process is bounded, whatever it does:
//!
//! * [`Strangers`]: how many shake hands at once, and who goes if they are too many;
//! * a handshake, and the first message after it, have to come in [`HANDSHAKE`];
//! * a member has [`CALLS`] connections that it dialed, and one that we dialed. A new one ends the oldest;
//! * a member dials so often in a time, and no more often is listened to;
//! * what connections bring waits in a bounded [`inbox`], and a connection that is closed ends soon also if its peer does not read;
//! * log lines, as all that can come again and again ([`log_limit`](crate::ops::log_limit)).
//!
//! So descriptors, memory and lines do not grow with what others do.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::pending;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::split;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::{Instant, sleep, timeout};

use super::budget::Budget;
use super::connection::{BACKLOG, Ended, read, write};
use super::cosigner::ConnId;
use super::inbox::{Inbox, Said, Sayer, inbox};
use super::rounds::MemberId;
use super::strangers::{Source, Strangers, Watched};
use super::tls;
use super::transport::Transport;
use crate::config::Endpoint;
use crate::seams::{Listen, Net, Stream};

/// How long a connection and its handshake may take, and the first message after it.
const HANDSHAKE: Duration = Duration::from_secs(3);
/// How long it takes until a peer is dialed again, at first.
const REDIAL: Duration = Duration::from_millis(150);
/// The longest that it takes for a peer that cannot be reached.
const FAR: Duration = Duration::from_secs(1);
/// The longest that it takes for a peer that can be reached and does not let us stay. One that lets us is dialed at once.
const UNWILLING: Duration = Duration::from_secs(10);
/// After how long a connection was a good one.
const GOOD: Duration = Duration::from_secs(5);
/// How many connections of one member are carried that it dialed: the one that counts, and one that takes its place.
const CALLS: usize = 2;
/// How often a member may dial at once, and then in a second.
const DIALS: (u64, u64) = (64, 2);
/// How long a connection that is closed may take to send what was said last.
const LINGER: Duration = Duration::from_secs(1);

/// A new connection, for the owner of the cosigner.
pub(super) struct Opened {
    pub(super) conn: ConnId,
    pub(super) member: MemberId,
    pub(super) dialed: bool,
    /// What is to be said.
    pub(super) frames: mpsc::Sender<Vec<u8>>,
    /// What comes.
    pub(super) inbox: Inbox,
    /// As long as this is held, the connection is wanted.
    pub(super) wanted: oneshot::Sender<()>,
}

/// What all connections share.
pub(super) struct Connections {
    net: Rc<dyn Net>,
    transport: Rc<dyn Transport>,
    opened: mpsc::Sender<Opened>,
    next: Cell<u64>,
    stop: watch::Receiver<bool>,
    members: BTreeMap<[u8; 32], MemberId>,
    callers: RefCell<BTreeMap<MemberId, Caller>>,
    strangers: RefCell<Strangers>,
    /// Who is to be dialed at once.
    willing: BTreeMap<MemberId, Notify>,
}

/// A member that has dialed us.
struct Caller {
    dials: Budget,
    calls: VecDeque<AbortHandle>,
}

impl Connections {
    pub(super) fn new(
        net: Rc<dyn Net>,
        transport: Rc<dyn Transport>,
        opened: mpsc::Sender<Opened>,
        stop: watch::Receiver<bool>,
        peers: &[(MemberId, Endpoint, [u8; 32])],
    ) -> Self {
        let mut strangers = Strangers::default();
        for (_, endpoint, _) in peers {
            if let Endpoint::Tcp { host, .. } = endpoint
                && let Ok(ip) = host.parse()
            {
                strangers.knows(Source::of_ip(ip));
            }
        }
        Self {
            net,
            transport,
            opened,
            next: Cell::new(0),
            stop,
            members: peers.iter().map(|(member, _, identity)| (*identity, *member)).collect(),
            callers: RefCell::default(),
            strangers: RefCell::new(strangers),
            willing: peers.iter().map(|(member, ..)| (*member, Notify::new())).collect(),
        }
    }

    /// A peer has been let in: it may let us in, too.
    pub(super) fn is_willing(&self, member: MemberId) {
        if let Some(willing) = self.willing.get(&member) {
            willing.notify_one();
        }
    }

    /// Keeps a connection to a peer.
    pub(super) async fn dial(self: Rc<Self>, member: MemberId, endpoint: Endpoint, identity: [u8; 32]) {
        let mut told = String::new();
        let mut pause = REDIAL;
        loop {
            let secured = async {
                let stream = self.net.dial(&endpoint).await?;
                self.transport.dial(stream, &identity).await
            };
            let (failure, longest) = match timeout(HANDSHAKE, secured).await {
                Ok(Ok(stream)) => {
                    let since = Instant::now();
                    let ended = self.serve(stream, member, true).await;
                    if since.elapsed() >= GOOD {
                        told.clear();
                        pause = REDIAL;
                    }
                    (ended, UNWILLING)
                }
                Ok(Err(error)) => (tls::explained(&error), FAR),
                Err(_) => (format!("no answer within {HANDSHAKE:?}"), FAR),
            };
            if *self.stop.borrow() {
                return;
            }
            // Once, until it changes: a peer may be away for days.
            if told != failure {
                tracing::warn!(cosigner = member.0, "cosigner {member} at {endpoint}: {failure}");
                told = failure;
            }
            let willing = async {
                match self.willing.get(&member) {
                    Some(willing) => willing.notified().await,
                    None => pending().await,
                }
            };
            pause = match timeout(pause, willing).await {
                Ok(()) => REDIAL,
                Err(_) => (2 * pause).min(longest),
            };
        }
    }

    /// Lets others in, until the cosigner stops.
    pub(super) async fn listen(self: Rc<Self>, mut listener: Box<dyn Listen>) {
        let mut stop = self.stop.clone();
        loop {
            let accepted = tokio::select! {
                biased;
                _ = stop.wait_for(|stopped| *stopped) => return,
                accepted = listener.accept() => accepted,
            };
            let (stream, from) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    self.warn(format_args!("cannot accept a cosigner: {error}"));
                    sleep(REDIAL).await;
                    continue;
                }
            };
            let source = Source::of(&from);
            let has_spoken = Rc::new(Cell::new(false));
            let stream = Box::new(Watched::new(stream, Rc::clone(&has_spoken)));
            let handshake = spawn_local(Rc::clone(&self).welcome(stream, from));
            self.strangers.borrow_mut().add(source, has_spoken, handshake.abort_handle());
        }
    }

    /// Shakes hands with who dialed, and carries the connection on in a task of its own.
    async fn welcome(self: Rc<Self>, stream: Box<dyn Stream>, from: String) {
        let failure = match timeout(HANDSHAKE, self.transport.accept(stream)).await {
            Ok(Ok((stream, identity))) => match self.members.get(&identity).copied() {
                Some(member) => {
                    self.strangers.borrow_mut().knows(Source::of(&from));
                    return self.call(stream, member);
                }
                None => "nobody of the group".to_owned(),
            },
            Ok(Err(error)) => tls::explained(&error),
            Err(_) => format!("no handshake within {HANDSHAKE:?}"),
        };
        self.warn(format_args!("a connection from {from} was refused: {failure}"));
    }

    /// A member has dialed.
    fn call(self: &Rc<Self>, stream: Box<dyn Stream>, member: MemberId) {
        let now = Instant::now();
        let mut callers = self.callers.borrow_mut();
        let (most, per_second) = DIALS;
        let caller = callers
            .entry(member)
            .or_insert_with(|| Caller { dials: Budget::new(per_second, most, now), calls: VecDeque::new() });
        if caller.dials.spend(now, 1).is_err() {
            return self
                .warn(format_args!("cosigner {member} dials again and again: it is not let in for now"));
        }
        let of_call = Rc::clone(self);
        let call = spawn_local(async move { drop(of_call.serve(stream, member, false).await) });
        caller.calls.retain(|call| !call.is_finished());
        caller.calls.push_back(call.abort_handle());
        while caller.calls.len() > CALLS {
            caller.calls.pop_front().into_iter().for_each(|oldest| oldest.abort());
        }
    }

    /// Carries one connection until it ends. Returns why it ended.
    async fn serve(&self, stream: Box<dyn Stream>, member: MemberId, dialed: bool) -> String {
        self.next.set(self.next.get() + 1);
        let conn = ConnId(self.next.get());
        let (frames, mut waiting) = mpsc::channel(BACKLOG);
        let (mut sayer, inbox) = inbox(Instant::now());
        let (wanted, unwanted) = oneshot::channel();
        let (reader, mut writer) = split(stream);
        let opened = Opened { conn, member, dialed, frames, inbox, wanted };
        if self.opened.send(opened).await.is_err() {
            return "the cosigner has stopped".into();
        }
        let ended = tokio::select! {
            biased;
            written = write(&mut writer, &mut waiting) => match written {
                Ok(()) => Ended::Closed,
                Err(error) => Ended::Lost(error),
            },
            ended = hear(reader, dialed, &mut sayer) => ended,
            // What was said last still goes out, if the peer reads it.
            () = async { let _ = unwanted.await; sleep(LINGER).await } => Ended::Closed,
        };
        ended.to_string()
    }

    fn warn(&self, text: fmt::Arguments<'_>) {
        tracing::warn!("{text}");
    }
}

/// Reads until the connection ends.
async fn hear(mut reader: impl tokio::io::AsyncRead + Unpin, dialed: bool, sayer: &mut Sayer) -> Ended {
    let mut buffer = Vec::new();
    let mut is_first = true;
    loop {
        let next = async {
            Ok(match dialed {
                true => read(&mut reader, &mut buffer).await.map(|(reply, len)| (Said::Reply(reply), len))?,
                false => {
                    read(&mut reader, &mut buffer).await.map(|(asked, len)| (Said::Request(asked), len))?
                }
            })
        };
        // Whoever was dialed is pinged, and given up if it is silent.
        let next = match is_first && !dialed {
            true => timeout(HANDSHAKE, next).await.unwrap_or(Err(Ended::Silent)),
            false => next.await,
        };
        is_first = false;
        match next {
            Err(ended) => return ended,
            Ok((said, len)) => {
                if !sayer.say(said, len).await {
                    // Nobody listens any more. What was said last still goes out.
                    return pending().await;
                }
            }
        }
    }
}
