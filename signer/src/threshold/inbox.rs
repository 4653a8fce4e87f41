//! What connections bring, each in a queue of its own, and taken from them in turns.
//!
//! A peer that says more than can be done with it waits for itself: its queue is short, in frames and in bytes, and while it is full
//! nothing more is read from its socket. Queues are emptied in turns, one message each, so whoever says little is heard at once,
//! however much others say. And what one connection has done in a second is bounded, so that a peer cannot keep this process busy with
//! what costs the peer nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, sleep};

use super::asked::Subject;
use super::budget::Budget;
use super::cosigner::ConnId;
use super::message::{Reply, Request};

/// How many messages of one connection wait.
const FRAMES: usize = 16;
/// How many bytes of them. One message may be longer: then it waits alone.
const BYTES: usize = 64 << 10;

/// What one connection may have done in a second, and at once. A signature takes about 30 of a coordinator's.
const PER_SECOND: u64 = 8192;

/// A message of a peer.
#[derive(Debug)]
pub(super) enum Said {
    /// On a connection that was accepted.
    Request(Request),
    /// On one that was dialed.
    Reply(Reply),
}

impl Said {
    /// What it takes to deal with it, more or less.
    fn cost(&self, len: usize) -> u64 {
        let own = match self {
            // Nobody's validator waits for one.
            Self::Request(
                Request::Share { subject: Subject::Drill(_), .. }
                | Request::Forward { subject: Subject::Drill(_), .. },
            ) => 128,
            Self::Request(Request::Forward { .. }) => 16,
            Self::Request(Request::Share { .. } | Request::Hello(_)) => 8,
            Self::Request(Request::Done { .. }) => 4,
            Self::Request(Request::Ping(_)) | Self::Reply(_) => 2,
        };
        own + (len / 2048) as u64
    }
}

/// A reader's end of a queue.
pub(super) struct Sayer {
    queue: mpsc::Sender<Waiting>,
    room: Arc<Semaphore>,
    budget: Budget,
}

/// The owner's end.
pub(super) struct Inbox(mpsc::Receiver<Waiting>);

struct Waiting {
    said: Said,
    /// Given back when the message is taken out.
    _room: OwnedSemaphorePermit,
}

/// A queue for one connection.
pub(super) fn inbox(now: Instant) -> (Sayer, Inbox) {
    let (queue, waiting) = mpsc::channel(FRAMES);
    let budget = Budget::new(PER_SECOND, PER_SECOND, now);
    (Sayer { queue, room: Arc::new(Semaphore::new(BYTES)), budget }, Inbox(waiting))
}

impl Sayer {
    /// Puts a message of so many bytes into the queue when its turn has come. False if nobody takes it out any more.
    pub(super) async fn say(&mut self, said: Said, len: usize) -> bool {
        while let Err(wait) = self.budget.spend(Instant::now(), said.cost(len)) {
            sleep(wait).await;
        }
        let bytes = u32::try_from(len.clamp(1, BYTES)).unwrap_or(u32::MAX);
        let Ok(room) = Arc::clone(&self.room).acquire_many_owned(bytes).await else { return false };
        self.queue.send(Waiting { said, _room: room }).await.is_ok()
    }
}

/// All queues.
#[derive(Default)]
pub(super) struct Turns {
    queues: BTreeMap<ConnId, Inbox>,
    /// Whose turn it was.
    last: Option<ConnId>,
}

impl Turns {
    pub(super) fn add(&mut self, conn: ConnId, inbox: Inbox) {
        self.queues.insert(conn, inbox);
    }

    /// Nothing more is taken from this one.
    pub(super) fn remove(&mut self, conn: ConnId) {
        self.queues.remove(&conn);
    }

    pub(super) fn clear(&mut self) {
        self.queues.clear();
    }

    /// The next message; `None` in its place when a connection has ended.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<(ConnId, Option<Said>)> {
        let after = |conn: &ConnId| self.last.is_some_and(|last| *conn <= last);
        let mut order: Vec<ConnId> = self.queues.keys().copied().collect();
        order.sort_by_key(|conn| (after(conn), *conn));
        for conn in order {
            let Some(Inbox(queue)) = self.queues.get_mut(&conn) else { continue };
            let Poll::Ready(waiting) = queue.poll_recv(cx) else { continue };
            self.last = Some(conn);
            if waiting.is_none() {
                self.queues.remove(&conn);
            }
            return Poll::Ready((conn, waiting.map(|waiting| waiting.said)));
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn ping(number: u64) -> Said {
        Said::Request(Request::Ping(number))
    }

    fn big() -> Said {
        let subject = Subject::Raw(vec![9; 1 << 20]);
        Said::Request(Request::Share { request: 1, nonce: 1, subject, others: vec![] })
    }

    /// Whether it is in the queue at once.
    async fn fits(sayer: &mut Sayer, said: Said, len: usize) -> bool {
        timeout(Duration::ZERO, sayer.say(said, len)).await == Ok(true)
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_says_little_is_heard_at_once_however_much_others_say() {
        let mut turns = Turns::default();
        let ((mut loud, loud_inbox), (mut quiet, quiet_inbox)) =
            (inbox(Instant::now()), inbox(Instant::now()));
        turns.add(ConnId(1), loud_inbox);
        turns.add(ConnId(2), quiet_inbox);
        let mut waiting = 0;
        while fits(&mut loud, ping(waiting), 16).await {
            waiting += 1;
        }
        assert_eq!(waiting, FRAMES as u64, "and no more is read from it");
        assert!(quiet.say(ping(77), 16).await);
        let mut heard = Vec::new();
        for _ in 0..3 {
            heard.push(poll_fn(|cx| turns.poll_next(cx)).await.0);
        }
        assert_eq!(heard, [ConnId(1), ConnId(2), ConnId(1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn long_messages_wait_one_at_a_time() {
        let mut turns = Turns::default();
        let (mut sayer, queue) = inbox(Instant::now());
        turns.add(ConnId(1), queue);
        assert!(fits(&mut sayer, big(), 1 << 20).await);
        assert!(!fits(&mut sayer, big(), 1 << 20).await && !fits(&mut sayer, ping(1), 16).await);
        assert!(matches!(poll_fn(|cx| turns.poll_next(cx)).await, (ConnId(1), Some(_))));
        assert!(fits(&mut sayer, big(), 1 << 20).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_of_one_connection_is_bounded_and_drills_count_most() {
        async fn in_ten_seconds(say: impl Fn() -> Said, len: usize) -> u64 {
            let mut turns = Turns::default();
            let (mut sayer, queue) = inbox(Instant::now());
            turns.add(ConnId(1), queue);
            let (end, mut done) = (Instant::now() + Duration::from_secs(10), 0);
            while Instant::now() < end {
                assert!(sayer.say(say(), len).await);
                poll_fn(|cx| turns.poll_next(cx)).await;
                done += 1;
            }
            done
        }
        let drill = || Said::Request(Request::Forward { request: 1, subject: Subject::Drill([1; 16]) });
        // One budget at once and one each second.
        let pings = in_ten_seconds(|| ping(1), 16).await;
        assert!((40_000..=50_000).contains(&pings), "{pings}");
        let drills = in_ten_seconds(drill, 64).await;
        assert!((600..=720).contains(&drills), "{drills}");
        let frames = in_ten_seconds(big, 1 << 20).await;
        assert!((150..=180).contains(&frames), "{frames}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_connection_comes_after_what_it_said() {
        let mut turns = Turns::default();
        let (mut sayer, queue) = inbox(Instant::now());
        turns.add(ConnId(5), queue);
        assert!(sayer.say(ping(1), 16).await);
        drop(sayer);
        assert!(matches!(poll_fn(|cx| turns.poll_next(cx)).await, (ConnId(5), Some(_))));
        assert!(matches!(poll_fn(|cx| turns.poll_next(cx)).await, (ConnId(5), None)));
    }
}
