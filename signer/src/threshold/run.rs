//! A running cosigner: its sockets, its clock and its one task.
//!
//! One task owns the [`Cosigner`] and its [`Keeper`]; connections and the chain queue into it. Each connection has a task that reads
//! and one that writes, so that a peer that does not read holds nobody up.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::future::pending;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::split;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, spawn_local, yield_now};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::asked::Subject;
use super::connection::{BACKLOG, Ended, read, write};
use super::cosigner::{Answered, AskError, ConnId, Cosigner, Effect, Event, Note, Status};
use super::keeper::Keeper;
use super::message::{Reply, Request, encode};
use super::rounds::MemberId;
use super::transport::Transport;
use crate::chain::{RawSigning, Rules, Stopped};
use crate::config::Endpoint;
use crate::seams::{Listen, Net, Stream};

/// How long a connection and its handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(3);
/// How long it takes until a peer that could not be reached is dialed again.
const REDIAL: Duration = Duration::from_millis(150);
/// How many connections may be shaking hands at once: for another, the oldest is given up.
const HANDSHAKES: usize = 32;

/// Where the members of a group are, and how they know each other.
pub struct Mesh {
    /// The network.
    pub net: Rc<dyn Net>,
    /// What secures them.
    pub transport: Rc<dyn Transport>,
    /// Where we listen.
    pub listener: Box<dyn Listen>,
    /// The other members: who, where, and by which identity key.
    pub peers: Vec<(MemberId, Endpoint, [u8; 32])>,
}

/// A way to ask a cosigner; cheap to clone.
#[derive(Clone)]
pub struct GroupHandle {
    jobs: mpsc::Sender<Job>,
}

enum Job {
    Sign {
        subject: Subject,
        signers: Option<Vec<MemberId>>,
        answer: oneshot::Sender<Result<Answered, AskError>>,
    },
    Status(oneshot::Sender<Status>),
    Rules(Rules),
}

impl GroupHandle {
    /// Asks the group for a signature.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn sign(&self, subject: Subject) -> Result<Answered, AskError> {
        self.sign_with(subject, None).await
    }

    /// Asks these members, and no others, for a signature.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn sign_with(
        &self,
        subject: Subject,
        signers: Option<Vec<MemberId>>,
    ) -> Result<Answered, AskError> {
        let gone = || AskError::Stopped("an internal error ended it: restart the signer".into());
        let (answer, answered) = oneshot::channel();
        self.jobs.send(Job::Sign { subject, signers, answer }).await.map_err(|_| gone())?;
        answered.await.unwrap_or_else(|_| Err(gone()))
    }

    /// How the cosigner looks; `None` if it is gone.
    pub async fn status(&self) -> Option<Status> {
        let (answer, answered) = oneshot::channel();
        self.jobs.send(Job::Status(answer)).await.ok()?;
        answered.await.ok()
    }

    /// Gives the cosigner new rules, if it is not too busy to take them.
    pub fn set_rules(&self, rules: Rules) {
        if self.jobs.try_send(Job::Rules(rules)).is_err() {
            tracing::warn!("the cosigner keeps its rules: it is busy, or has stopped");
        }
    }
}

/// A cosigner that runs as long as this is held.
pub struct RunningGroup {
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for RunningGroup {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Starts a cosigner. It must be called within a [`tokio::task::LocalSet`]. Returns the handle, the guard that keeps it running and
/// the task, which ends when the cosigner can never sign again.
pub fn start(
    cosigner: Cosigner,
    keeper: Keeper,
    raw: RawSigning,
    mesh: Mesh,
) -> (GroupHandle, RunningGroup, JoinHandle<Result<(), Stopped>>) {
    let (jobs, queue) = mpsc::channel(64);
    let (events, happened) = mpsc::channel(1024);
    let (stopped, stop) = watch::channel(false);
    let Mesh { net, transport, listener, peers } = mesh;
    let shared = Rc::new(Shared { net, transport, events, next: Cell::new(0), stop });
    let mut tasks = Vec::new();
    let members: BTreeMap<[u8; 32], MemberId> =
        peers.iter().map(|(member, _, identity)| (*identity, *member)).collect();
    for (member, endpoint, identity) in peers {
        tasks.push(spawn_local(Rc::clone(&shared).dial(member, endpoint, identity)));
    }
    tasks.push(spawn_local(Rc::clone(&shared).listen(listener, members)));
    let chain_id = keeper.chain_id().to_string();
    let runner = Runner {
        cosigner,
        keeper,
        raw,
        conns: BTreeMap::new(),
        answers: BTreeMap::new(),
        next: 0,
        stopped,
        failed: None,
        chain_id,
    };
    let owner = spawn_local(runner.run(queue, happened));
    (GroupHandle { jobs }, RunningGroup { tasks }, owner)
}

/// What connections tell the owner.
enum Happened {
    Opened { conn: ConnId, member: MemberId, dialed: bool, frames: mpsc::Sender<Vec<u8>> },
    Request { conn: ConnId, request: Request },
    Reply { conn: ConnId, reply: Reply },
    Closed { conn: ConnId },
}

/// What all connections share.
struct Shared {
    net: Rc<dyn Net>,
    transport: Rc<dyn Transport>,
    events: mpsc::Sender<Happened>,
    next: Cell<u64>,
    stop: watch::Receiver<bool>,
}

impl Shared {
    /// Keeps a connection to a peer.
    async fn dial(self: Rc<Self>, member: MemberId, endpoint: Endpoint, identity: [u8; 32]) {
        let mut told = String::new();
        loop {
            let secured = async {
                let stream = self.net.dial(&endpoint).await?;
                self.transport.dial(stream, &identity).await
            };
            let failure = match timeout(HANDSHAKE, secured).await {
                Ok(Ok(stream)) => {
                    told.clear();
                    self.serve(stream, member, true).await
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer within {HANDSHAKE:?}"),
            };
            if *self.stop.borrow() {
                return;
            }
            // Once, until it changes: a peer may be away for days.
            if told != failure {
                tracing::warn!(cosigner = member.0, "cosigner {member} at {endpoint}: {failure}");
                told = failure;
            }
            sleep(REDIAL).await;
        }
    }

    async fn listen(self: Rc<Self>, mut listener: Box<dyn Listen>, members: BTreeMap<[u8; 32], MemberId>) {
        let members = Rc::new(members);
        let mut handshakes: VecDeque<JoinHandle<()>> = VecDeque::new();
        loop {
            let (stream, from) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!("cannot accept a cosigner: {error}");
                    sleep(REDIAL).await;
                    continue;
                }
            };
            handshakes.retain(|handshake| !handshake.is_finished());
            // Strangers that say nothing must not keep the others out.
            if handshakes.len() >= HANDSHAKES
                && let Some(oldest) = handshakes.pop_front()
            {
                oldest.abort();
            }
            let (shared, members) = (Rc::clone(&self), Rc::clone(&members));
            handshakes.push_back(spawn_local(shared.welcome(stream, from, members)));
        }
    }

    /// Shakes hands with who dialed, and carries the connection on in a task of its own.
    async fn welcome(
        self: Rc<Self>,
        stream: Box<dyn Stream>,
        from: String,
        members: Rc<BTreeMap<[u8; 32], MemberId>>,
    ) {
        let failure = match timeout(HANDSHAKE, self.transport.accept(stream)).await {
            Ok(Ok((stream, identity))) => match members.get(&identity).copied() {
                Some(member) => {
                    spawn_local(async move { drop(self.serve(stream, member, false).await) });
                    return;
                }
                None => "nobody of the group".to_owned(),
            },
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no handshake within {HANDSHAKE:?}"),
        };
        tracing::warn!("a connection from {from} was refused: {failure}");
    }

    /// Carries one connection until it ends. Returns why it ended.
    async fn serve(&self, stream: Box<dyn Stream>, member: MemberId, dialed: bool) -> String {
        self.next.set(self.next.get() + 1);
        let conn = ConnId(self.next.get());
        let (frames, mut waiting) = mpsc::channel(BACKLOG);
        let (mut reader, mut writer) = split(stream);
        let opened = Happened::Opened { conn, member, dialed, frames };
        if self.events.send(opened).await.is_err() {
            return "the cosigner has stopped".into();
        }
        let reading = async {
            let mut buffer = Vec::new();
            loop {
                let happened = match dialed {
                    true => Happened::Reply { conn, reply: read(&mut reader, &mut buffer).await? },
                    false => Happened::Request { conn, request: read(&mut reader, &mut buffer).await? },
                };
                if self.events.send(happened).await.is_err() {
                    return Err(Ended::Closed);
                }
            }
        };
        let why: Ended = tokio::select! {
            biased;
            written = write(&mut writer, &mut waiting) => match written {
                Ok(()) => Ended::Closed,
                Err(error) => Ended::Lost(error),
            },
            result = reading => match result {
                Ok(never) => never,
                Err(ended) => ended,
            },
        };
        let _ = self.events.send(Happened::Closed { conn }).await;
        why.to_string()
    }
}

/// The owner of the cosigner.
struct Runner {
    cosigner: Cosigner,
    keeper: Keeper,
    raw: RawSigning,
    conns: BTreeMap<ConnId, mpsc::Sender<Vec<u8>>>,
    answers: BTreeMap<u64, oneshot::Sender<Result<Answered, AskError>>>,
    next: u64,
    stopped: watch::Sender<bool>,
    /// What a new start may put right.
    failed: Option<Stopped>,
    chain_id: String,
}

impl Runner {
    /// Ends when nobody holds the cosigner any more, and by a failure that a new start may put right. A cosigner that must not go on
    /// until its operator has looked stays, and refuses: another start would only fence the other one off.
    async fn run(
        mut self,
        mut jobs: mpsc::Receiver<Job>,
        mut happened: mpsc::Receiver<Happened>,
    ) -> Result<(), Stopped> {
        loop {
            let deadline = self.cosigner.deadline();
            let due = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => pending().await,
                }
            };
            let event = tokio::select! {
                biased;
                Some(happened) = happened.recv() => self.event(happened),
                job = jobs.recv() => match job {
                    Some(job) => self.job(job),
                    None => return Ok(()),
                },
                () = due => Some(Event::Time),
                // Only when nothing else is to be done.
                () = yield_now(), if self.cosigner.has_to_prepare() => {
                    self.cosigner.prepare(Instant::now());
                    self.carry_out_all().await;
                    None
                }
            };
            if let Some(event) = event {
                self.handle(event).await;
            }
            if let Some(failed) = self.failed.take() {
                return Err(failed);
            }
        }
    }

    fn event(&mut self, happened: Happened) -> Option<Event> {
        Some(match happened {
            Happened::Opened { conn, member, dialed, frames } => {
                if *self.stopped.borrow() {
                    return None;
                }
                self.conns.insert(conn, frames);
                if dialed { Event::Dialed { conn, member } } else { Event::Accepted { conn, member } }
            }
            Happened::Request { conn, request } => Event::Request { conn, request },
            Happened::Reply { conn, reply } => Event::Reply { conn, reply },
            Happened::Closed { conn } => {
                self.conns.remove(&conn);
                Event::Closed { conn }
            }
        })
    }

    fn job(&mut self, job: Job) -> Option<Event> {
        match job {
            Job::Sign { subject, signers, answer } => {
                self.next += 1;
                self.answers.insert(self.next, answer);
                Some(Event::Ask { ask: self.next, subject, signers })
            }
            Job::Status(answer) => {
                let _ = answer.send(self.cosigner.status(Instant::now()));
                None
            }
            Job::Rules(Rules { raw, jump_limit }) => {
                self.raw = raw;
                Some(Event::Rules { raw, jump_limit })
            }
        }
    }

    async fn handle(&mut self, event: Event) {
        self.cosigner.handle(Instant::now(), event, self.keeper.recorded());
        loop {
            self.carry_out_all().await;
            if !self.cosigner.advance(Instant::now(), self.keeper.recorded()) {
                return;
            }
        }
    }

    async fn carry_out_all(&mut self) {
        let mut has_sent = false;
        while let Some(effect) = self.cosigner.poll_effect() {
            if matches!(effect, Effect::Share(_) | Effect::Raise(_) | Effect::Store(_) | Effect::Keep(_))
                && has_sent
            {
                // What was sent goes out before our own disk writes and our own share is made: the peers do theirs meanwhile.
                yield_now().await;
                has_sent = false;
            }
            has_sent |= self.carry_out(effect).await;
        }
        if has_sent {
            yield_now().await;
        }
    }

    /// Carries out an effect. Whether something is on its way out.
    async fn carry_out(&mut self, effect: Effect) -> bool {
        match effect {
            Effect::Raise(watermark) => {
                if let Err(error) = self.keeper.raise(watermark).await {
                    self.fail(format!("the record could not be written: {error}"));
                }
            }
            Effect::Store(lives) => {
                if let Err(error) = self.keeper.store(&lives).await {
                    self.fail(error.to_string());
                }
            }
            Effect::Keep(lives) => {
                if let Err(error) = self.keeper.store(&lives).await {
                    tracing::warn!(
                        chain_id = %self.chain_id,
                        "it is not written down how far the group has signed; jumps may be refused after a restart: {error}"
                    );
                }
            }
            Effect::Share(job) => {
                let ticket = job.ticket;
                let share = self.keeper.share(*job, self.raw);
                let event = Event::Shared { ticket, share };
                self.cosigner.handle(Instant::now(), event, self.keeper.recorded());
            }
            Effect::Request { conn, request } => return self.send(conn, encode(&request)),
            Effect::Reply { conn, reply } => return self.send(conn, encode(&reply)),
            Effect::Close { conn, why } => {
                if self.conns.remove(&conn).is_some() {
                    tracing::warn!(chain_id = %self.chain_id, "a cosigner's connection is closed: {why}");
                }
            }
            Effect::Answer { ask, result } => {
                if let Some(answer) = self.answers.remove(&ask) {
                    let _ = answer.send(result);
                    return true;
                }
            }
            Effect::LookUpAllowance => {
                if let Some(height) = self.keeper.allowance().await {
                    let event = Event::JumpAllowed(height);
                    self.cosigner.handle(Instant::now(), event, self.keeper.recorded());
                }
            }
            Effect::Note(note) => self.tell(&note),
            Effect::Stop(reason) => {
                tracing::error!(chain_id = %self.chain_id, "the cosigner of chain {} has stopped: {reason}", self.chain_id);
                self.conns.clear();
                let _ = self.stopped.send(true);
            }
        }
        false
    }

    /// None of the effects that were to follow may be carried out: the cosigner stops, which answers everybody, and its task ends.
    fn fail(&mut self, reason: String) {
        while let Some(effect) = self.cosigner.poll_effect() {
            if let Effect::Answer { ask, .. } = effect
                && let Some(answer) = self.answers.remove(&ask)
            {
                let _ = answer.send(Err(AskError::Stopped(reason.clone())));
            }
        }
        self.failed = Some(Stopped(reason.clone()));
        self.cosigner.stop(reason);
    }

    fn send(&mut self, conn: ConnId, frame: Vec<u8>) -> bool {
        let Some(frames) = self.conns.get(&conn) else { return false };
        if frames.try_send(frame).is_err() {
            // A peer that does not read: its connection ends when the last sender is gone.
            self.conns.remove(&conn);
            return false;
        }
        true
    }

    fn tell(&self, note: &Note) {
        let chain_id = &self.chain_id;
        match note {
            Note::Active { .. } => tracing::info!(%chain_id, "the cosigner of chain {chain_id} {note}"),
            Note::Waiting { .. } => tracing::warn!(%chain_id, "the cosigner of chain {chain_id} {note}"),
            Note::BadShare(member) => tracing::error!(%chain_id, cosigner = member.0, "{note}"),
            Note::Slow(member) | Note::Fenced(member) => {
                tracing::warn!(%chain_id, cosigner = member.0, "{note}");
            }
            Note::Unbelievable { member, .. }
            | Note::Nonsense { member, .. }
            | Note::Accused { member, .. } => {
                tracing::error!(%chain_id, cosigner = member.0, "{note}");
            }
            Note::Session(_) => tracing::warn!(%chain_id, "{note}"),
        }
    }
}
