//! A running cosigner: its clock and its one task.
//!
//! One task owns the [`Cosigner`] and its [`Keeper`]; connections and the chain queue into it. What our own chain asks goes before what
//! others say, and what is due before that: neither waits for a peer that says much. But a chain that asks and asks does not keep the others' answers away,
//! which it waits for. Others take turns ([`inbox`](super::inbox)), and after each of their messages the rest of this process has a turn.

use std::collections::{BTreeMap, VecDeque};
use std::future::{Future as _, pending, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, spawn_local, yield_now};
use tokio::time::{Instant, sleep_until};

use super::asked::Subject;
use super::cosigner::{Answered, AskError, ConnId, Cosigner, Effect, Event, Note, Status};
use super::inbox::{Said, Turns};
use super::keeper::Keeper;
use super::mesh::{Connections, Opened};
use super::message::{Reply, encode};
use super::rounds::MemberId;
use super::transport::Transport;
use crate::chain::{RawSigning, Rules, Stopped};
use crate::config::Endpoint;
use crate::seams::{Listen, Net};

/// How many things that our own chain asks are done in a row while others wait.
const OWN_IN_A_ROW: u8 = 8;

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
    let (opened, connected) = mpsc::channel(16);
    let (stopped, stop) = watch::channel(false);
    let Mesh { net, transport, listener, peers } = mesh;
    let connections = Rc::new(Connections::new(net, transport, opened, stop, &peers));
    let mut tasks = Vec::new();
    for (member, endpoint, identity) in peers {
        tasks.push(spawn_local(Rc::clone(&connections).dial(member, endpoint, identity)));
    }
    tasks.push(spawn_local(Rc::clone(&connections).listen(listener)));
    let runner = Runner::new(cosigner, keeper, raw, connections, stopped);
    let owner = spawn_local(runner.run(queue, connected));
    (GroupHandle { jobs }, RunningGroup { tasks }, owner)
}

/// What is to be done next.
enum Turn {
    /// Our chain asks; `None` if it is gone.
    Own(Option<Job>),
    /// The deadline has come.
    Due,
    Opened(Opened),
    /// A connection is closed, by us.
    Closed(ConnId),
    /// A peer says something; `None` if its connection has ended.
    Heard(ConnId, Option<Said>),
    /// Nothing, so there is time to prepare.
    Idle,
}

/// A connection, as long as it is wanted.
struct Conn {
    member: MemberId,
    frames: mpsc::Sender<Vec<u8>>,
    /// The connection ends soon after this is dropped.
    _wanted: oneshot::Sender<()>,
}

/// The owner of the cosigner.
struct Runner {
    cosigner: Cosigner,
    keeper: Keeper,
    raw: RawSigning,
    connections: Rc<Connections>,
    conns: BTreeMap<ConnId, Conn>,
    turns: Turns,
    closed: VecDeque<ConnId>,
    answers: BTreeMap<u64, oneshot::Sender<Result<Answered, AskError>>>,
    next: u64,
    stopped: watch::Sender<bool>,
    /// What a new start may put right.
    failed: Option<Stopped>,
    chain_id: String,
}

impl Runner {
    /// One that has no connection yet.
    fn new(
        cosigner: Cosigner,
        keeper: Keeper,
        raw: RawSigning,
        connections: Rc<Connections>,
        stopped: watch::Sender<bool>,
    ) -> Self {
        Self {
            chain_id: keeper.chain_id().to_string(),
            cosigner,
            keeper,
            raw,
            connections,
            conns: BTreeMap::new(),
            turns: Turns::default(),
            closed: VecDeque::new(),
            answers: BTreeMap::new(),
            next: 0,
            stopped,
            failed: None,
        }
    }

    /// Ends when nobody holds the cosigner any more, and by a failure that a new start may put right. A cosigner that must not go on
    /// until its operator has looked stays, and refuses: another start would only fence the other one off.
    async fn run(
        mut self,
        mut jobs: mpsc::Receiver<Job>,
        mut opened: mpsc::Receiver<Opened>,
    ) -> Result<(), Stopped> {
        let mut in_a_row = 0;
        loop {
            let turn = self.turn(&mut jobs, &mut opened, in_a_row < OWN_IN_A_ROW).await;
            in_a_row = if matches!(turn, Turn::Own(_)) { in_a_row + 1 } else { 0 };
            let is_others = matches!(turn, Turn::Heard(..) | Turn::Opened(_));
            let event = match turn {
                Turn::Own(Some(job)) => self.job(job),
                Turn::Own(None) => return Ok(()),
                Turn::Due => Some(Event::Time),
                Turn::Opened(opened) => self.opened(opened),
                Turn::Closed(conn) | Turn::Heard(conn, None) => {
                    self.conns.remove(&conn);
                    Some(Event::Closed { conn })
                }
                Turn::Heard(conn, Some(Said::Request(request))) => Some(Event::Request { conn, request }),
                Turn::Heard(conn, Some(Said::Reply(reply))) => {
                    self.greet(conn, &reply);
                    Some(Event::Reply { conn, reply })
                }
                Turn::Idle => {
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
            if is_others {
                yield_now().await;
            }
        }
    }

    /// Waits for what is to be done next.
    async fn turn(
        &mut self,
        jobs: &mut mpsc::Receiver<Job>,
        opened: &mut mpsc::Receiver<Opened>,
        own_first: bool,
    ) -> Turn {
        let deadline = self.cosigner.deadline();
        let mut due = pin!(async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => pending().await,
            }
        });
        let mut idle = pin!(yield_now());
        poll_fn(|cx| {
            if own_first && let Poll::Ready(job) = jobs.poll_recv(cx) {
                return Poll::Ready(Turn::Own(job));
            }
            if due.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Turn::Due);
            }
            if let Poll::Ready(turn) = self.poll_others(opened, cx) {
                return Poll::Ready(turn);
            }
            if !own_first && let Poll::Ready(job) = jobs.poll_recv(cx) {
                return Poll::Ready(Turn::Own(job));
            }
            // Only when nothing else is to be done.
            if self.cosigner.has_to_prepare() && idle.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Turn::Idle);
            }
            Poll::Pending
        })
        .await
    }

    fn poll_others(&mut self, opened: &mut mpsc::Receiver<Opened>, cx: &mut Context<'_>) -> Poll<Turn> {
        if let Some(conn) = self.closed.pop_front() {
            return Poll::Ready(Turn::Closed(conn));
        }
        if let Poll::Ready(Some(opened)) = opened.poll_recv(cx) {
            return Poll::Ready(Turn::Opened(opened));
        }
        self.turns.poll_next(cx).map(|(conn, said)| Turn::Heard(conn, said))
    }

    fn opened(&mut self, opened: Opened) -> Option<Event> {
        if *self.stopped.borrow() {
            return None;
        }
        let Opened { conn, member, dialed, frames, inbox, wanted } = opened;
        self.conns.insert(conn, Conn { member, frames, _wanted: wanted });
        self.turns.add(conn, inbox);
        Some(if dialed { Event::Dialed { conn, member } } else { Event::Accepted { conn, member } })
    }

    fn job(&mut self, job: Job) -> Option<Event> {
        match job {
            Job::Sign { subject, signers, answer } => {
                self.next += 1;
                self.answers.insert(self.next, answer);
                Some(Event::Ask { ask: self.next, subject, signers })
            }
            Job::Status(answer) => {
                let _ = answer.send(self.cosigner.status());
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
            Effect::Reply { conn, reply } => {
                if let (Reply::Welcome(_), Some(conn)) = (&reply, self.conns.get(&conn)) {
                    self.connections.is_willing(conn.member);
                }
                return self.send(conn, encode(&reply));
            }
            Effect::Close { conn, why } => {
                if let Some(member) = self.close(conn) {
                    self.warn_of(
                        member,
                        format_args!("the connection with cosigner {member} is closed: {why}"),
                    );
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
                self.turns.clear();
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
        let Some(Conn { frames, .. }) = self.conns.get(&conn) else { return false };
        let is_sent = frames.try_send(frame).is_ok();
        if !is_sent {
            // A peer that does not read.
            self.close(conn);
        }
        is_sent
    }

    /// Listens to a connection no more, and has it end when what was said last is out.
    fn close(&mut self, conn: ConnId) -> Option<MemberId> {
        let Conn { member, .. } = self.conns.remove(&conn)?;
        self.turns.remove(conn);
        self.closed.push_back(conn);
        Some(member)
    }

    /// Who goes is told of where it is dialed again.
    fn greet(&self, conn: ConnId, reply: &Reply) {
        if let (Reply::Welcome(_), Some(Conn { member, .. })) = (reply, self.conns.get(&conn)) {
            tracing::info!(chain_id = %self.chain_id, cosigner = member.0, "cosigner {member} is there");
        }
    }

    fn tell(&self, note: &Note) {
        let chain_id = self.chain_id.clone();
        let Some(member) = note.about() else {
            return match note {
                Note::Active { .. } => tracing::info!(%chain_id, "the cosigner of chain {chain_id} {note}"),
                Note::Waiting { .. } => tracing::warn!(%chain_id, "the cosigner of chain {chain_id} {note}"),
                _ => tracing::warn!(%chain_id, "{note}"),
            };
        };
        match note {
            Note::Slow(_) | Note::Fenced(_) | Note::Carried { .. } => {
                tracing::warn!(%chain_id, cosigner = member.0, "{note}");
            }
            _ => tracing::error!(%chain_id, cosigner = member.0, "{note}"),
        }
    }

    fn warn_of(&self, member: MemberId, text: std::fmt::Arguments<'_>) {
        tracing::warn!(chain_id = %self.chain_id, cosigner = member.0, "{text}");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ed25519_dalek::SigningKey;

    use super::*;
    use crate::seams::TokioNet;
    use crate::threshold::inbox::{Sayer, inbox};
    use crate::threshold::message::Request;
    use crate::threshold::tests::started;

    const PEER: MemberId = MemberId(2);

    /// A runner, and what keeps its queues open.
    struct Rig {
        runner: Runner,
        jobs: mpsc::Receiver<Job>,
        opened: mpsc::Receiver<Opened>,
        ask: mpsc::Sender<Job>,
        open: mpsc::Sender<Opened>,
        sayers: Vec<Sayer>,
    }

    impl Rig {
        fn new() -> Self {
            let (mut cosigner, keeper) = started();
            // What is due at a start has been done.
            cosigner.handle(Instant::now(), Event::Time, keeper.recorded());
            while cosigner.poll_effect().is_some() {}
            assert!(cosigner.deadline() > Some(Instant::now()));
            let (open, opened) = mpsc::channel(16);
            let (stopped, stop) = watch::channel(false);
            let net = Rc::new(TokioNet);
            let transport = net.transport(&SigningKey::from_bytes(&[1; 32]), &[]).expect("a transport");
            let connections = Connections::new(net, transport, open.clone(), stop, &[]);
            let runner = Runner::new(cosigner, keeper, RawSigning::default(), Rc::new(connections), stopped);
            let (ask, jobs) = mpsc::channel(64);
            Self { runner, jobs, opened, ask, open, sayers: Vec::new() }
        }

        async fn wait(&mut self, what: What) {
            match what {
                What::Own => {
                    let (answer, _) = oneshot::channel();
                    assert!(self.ask.send(Job::Status(answer)).await.is_ok());
                }
                What::Due => tokio::time::advance(Duration::from_secs(3600)).await,
                What::Closed => self.runner.closed.push_back(ConnId(7)),
                What::Opened => {
                    let (_, inbox) = inbox(Instant::now());
                    let opened = Opened {
                        conn: ConnId(8),
                        member: PEER,
                        dialed: false,
                        frames: mpsc::channel(1).0,
                        inbox,
                        wanted: oneshot::channel().0,
                    };
                    assert!(self.open.send(opened).await.is_ok());
                }
                What::Heard => {
                    let (mut sayer, inbox) = inbox(Instant::now());
                    assert!(sayer.say(Said::Request(Request::Ping(1)), 10).await);
                    self.runner.turns.add(ConnId(9), inbox);
                    self.sayers.push(sayer);
                }
            }
        }

        async fn turn(&mut self, own_first: bool) -> What {
            match self.runner.turn(&mut self.jobs, &mut self.opened, own_first).await {
                Turn::Own(_) => What::Own,
                Turn::Due => What::Due,
                Turn::Closed(_) => What::Closed,
                Turn::Opened(_) => What::Opened,
                Turn::Heard(..) => What::Heard,
                Turn::Idle => panic!("there is something to do"),
            }
        }
    }

    /// What waits.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum What {
        Own,
        Due,
        Closed,
        Opened,
        Heard,
    }

    const OTHERS: [What; 4] = [What::Due, What::Closed, What::Opened, What::Heard];

    fn run(test: impl AsyncFnOnce()) {
        crate::deadline::for_this_test();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        tokio::task::LocalSet::new().block_on(&runtime.expect("a runtime"), test());
    }

    #[test]
    fn our_own_chain_goes_first_then_what_is_due_then_peers_whatever_waits() {
        run(async || {
            for (waits, own_first) in (1..32).flat_map(|waits| [(waits, true), (waits, false)]) {
                let order: Vec<What> = match own_first {
                    true => [What::Own].into_iter().chain(OTHERS).collect(),
                    false => OTHERS.into_iter().chain([What::Own]).collect(),
                };
                let which = |what: &What| waits & (1 << *what as u8) != 0;
                let mut rig = Rig::new();
                // Those that come last wait for longest.
                for what in order.iter().rev().copied().filter(which) {
                    rig.wait(what).await;
                }
                let first = order.iter().copied().find(which).expect("something waits");
                assert_eq!(rig.turn(own_first).await, first, "of {waits:05b}, own first: {own_first}");
            }
        });
    }

    #[test]
    fn however_much_our_own_chain_asks_what_is_due_and_peers_have_their_turns() {
        run(async || {
            let mut rig = Rig::new();
            for _ in 0..3 * OWN_IN_A_ROW {
                rig.wait(What::Own).await;
            }
            rig.wait(What::Heard).await;
            rig.wait(What::Opened).await;
            let mut in_a_row = 0;
            let mut seen = Vec::new();
            for _ in 0..3 * OWN_IN_A_ROW {
                let turn = rig.turn(in_a_row < OWN_IN_A_ROW).await;
                in_a_row = if turn == What::Own { in_a_row + 1 } else { 0 };
                seen.push(turn);
            }
            let own = usize::from(OWN_IN_A_ROW);
            assert_eq!((seen[own], seen[2 * own + 1]), (What::Opened, What::Heard), "{seen:?}");
            assert_eq!(seen.iter().filter(|turn| **turn == What::Own).count(), 3 * own - 2);
        });
    }
}
