//! What cases are tried on: the signer's connections, and requests at places that nobody asked for before.

use std::time::Duration;

use ed25519_dalek::{SigningKey, VerifyingKey};
use monosign_protocol::message::{BlockId, Message, Timestamp};
use monosign_protocol::{ChainId, Dialect, Height, Hrs, Round, Step};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::case::{Failed, Need};
use super::{Door, Limits, Options, Process, Stream};
use crate::link::{LinkError, NodeLink, Transport, read_limit};
use crate::node::probes::time_of;
use crate::node::{Blocks, Requests, Verifier};

/// A connection to the signer, as one of its validators holds it.
pub(super) type Link = NodeLink<Box<dyn Stream>>;

/// The first validator of the signer, which most cases are about, and the second.
pub(super) const FIRST: usize = 0;
pub(super) const SECOND: usize = 1;

/// What cases are tried on.
pub struct Bench {
    pub(super) chain_id: ChainId,
    pub(super) dialect: Dialect,
    pub(super) limits: Limits,
    pub(super) signatures: u32,
    pub(super) doors: Vec<Box<dyn Door>>,
    links: Vec<Option<Link>>,
    pub(super) process: Option<Box<dyn Process>>,
    identity: SigningKey,
    entropy: Box<dyn FnMut() -> [u8; 32]>,
    pub(super) expected_key: Option<VerifyingKey>,
    pub(super) verifier: Verifier,
    pub(super) requests: Requests,
    height: i64,
    time: Timestamp,
    /// How many dials came to nothing since the signer was last there, and why the last one did.
    failed_dials: (u32, Option<LinkError>),
    /// What is worth telling of the case that is tried.
    pub(super) notes: Vec<String>,
    /// What was measured in all cases.
    pub(super) measured: Vec<(&'static str, String)>,
}

/// How often it is looked whether a process still runs.
const SLICE: Duration = Duration::from_millis(200);

/// What came of a request.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one at a time, and it is taken apart at once")]
pub(super) enum Reply {
    /// A message; `None` is one without content.
    Answer(Option<Message>),
    /// The connection ended instead.
    Lost(LinkError),
    /// Nothing, for as long as a node waits.
    Silent,
}

impl Bench {
    pub(super) fn new(options: Options) -> Self {
        let Options { chain_id, dialect, doors, process, identity, entropy, .. } = options;
        let blocks = Blocks::new(options.seed);
        Self {
            verifier: Verifier::new(chain_id.clone(), dialect, false, options.expected_key),
            requests: Requests::new(chain_id.clone(), dialect, None, blocks),
            links: doors.iter().map(|_| None).collect(),
            chain_id,
            dialect,
            limits: options.limits,
            signatures: options.signatures,
            doors,
            process,
            identity,
            entropy,
            expected_key: options.expected_key,
            height: options.first_height.0,
            time: options.start,
            failed_dials: (0, None),
            notes: Vec::new(),
            measured: Vec::new(),
        }
    }

    /// Whether cases with this need can be tried.
    pub(super) fn has(&self, need: Need) -> bool {
        let Some(door) = self.doors.first() else { return false };
        match need {
            Need::SecretConnection => door.transport() == Transport::SecretConnection,
            Need::Noise => matches!(door.transport(), Transport::Noise { .. }),
            Need::UnixFile => door.is_unix_file(),
            Need::SecondValidator => self.doors.len() > 1,
            Need::Command => self.process.is_some(),
            Need::StateFile => self.process.as_ref().is_some_and(|process| process.state().is_some()),
        }
    }

    pub(super) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    // Requests.

    /// A height that nothing was asked at or above.
    pub(super) fn fresh(&mut self) -> i64 {
        self.height += 1;
        self.height - 1
    }

    /// Leaves heights out.
    pub(super) fn skip_heights(&mut self, heights: i64) {
        self.height += heights;
    }

    /// A time later than that of each request before.
    pub(super) fn now(&mut self) -> Timestamp {
        self.time.nanos += 1_000_000;
        if self.time.nanos >= 1_000_000_000 {
            self.time = Timestamp { seconds: self.time.seconds + 1, nanos: self.time.nanos - 1_000_000_000 };
        }
        self.time
    }

    /// One of the blocks that could be at a height.
    pub(super) fn block(&self, height: i64, variant: u64) -> BlockId {
        self.requests.blocks().block(Height(height), variant)
    }

    /// Asks for the block of that height, at this time of the node.
    pub(super) fn ask(&mut self, height: i64, round: i32, step: Step) -> Message {
        self.ask_for(height, round, step, self.block(height, 0))
    }

    /// Asks for nil.
    pub(super) fn ask_nil(&mut self, height: i64, round: i32, step: Step) -> Message {
        self.ask_for(height, round, step, BlockId::default())
    }

    pub(super) fn ask_for(&mut self, height: i64, round: i32, step: Step, block: BlockId) -> Message {
        let time = self.now();
        self.requests.sign(hrs(height, round, step), block, time)
    }

    pub(super) fn propose(&mut self, height: i64, round: i32, lock: i32, block: BlockId) -> Message {
        let time = self.now();
        self.requests.proposal(Height(height), Round(round), Round(lock), block, time)
    }

    /// The same question as if it were asked now.
    pub(super) fn asked_anew(&mut self, request: &Message) -> Message {
        let mut request = request.clone();
        let now = self.now();
        if let Some(time) = time_of(&mut request) {
            *time = now;
        }
        request
    }

    // Connections.

    /// Makes sure that the signer is there and in step, and starts it again if it is gone for good.
    pub(super) async fn ready(&mut self) -> Result<(), Failed> {
        self.ready_on(FIRST).await
    }

    pub(super) async fn ready_on(&mut self, which: usize) -> Result<(), Failed> {
        if self.links[which].is_some()
            && !matches!(self.reply_on(which, &Message::PingRequest).await, Reply::Answer(Some(_)))
        {
            self.hang_up_on(which);
        }
        if self.links[which].is_some() {
            return Ok(());
        }
        let limit = self.limits.connect;
        if self.process.is_none() {
            return self.connect(which, limit).await;
        }
        if self.dials_in(which, limit).await {
            return Ok(());
        }
        let end = self.process.as_mut().and_then(|process| process.end());
        let how = end.map(|end| format!(" ({})", end.how)).unwrap_or_default();
        self.note(format!("the signer was gone{how} and was started again"));
        self.restart().await?;
        self.connect(which, limit).await
    }

    /// The signer is there after what might have killed it.
    pub(super) async fn survived(&mut self) -> Result<(), Failed> {
        let told = self.notes.len();
        self.ready().await?;
        // With a command the suite has started it again, for the cases that follow.
        if self.notes.len() > told {
            return Err(Failed::because("did not survive it: it had to be started again"));
        }
        // A session that served something is a good one, after which signers do not wait for long.
        self.is_still_there().await
    }

    /// Waits for the signer to dial in and to do its handshake. What is dead in the queue is passed over.
    pub(super) async fn connect(&mut self, which: usize, limit: Duration) -> Result<(), Failed> {
        self.hang_up_on(which);
        let deadline = Instant::now() + limit;
        loop {
            let Ok(stream) = timeout_at(deadline, self.doors[which].accept()).await else {
                return Err(Failed::NotConnected { limit });
            };
            let transport = self.doors[which].transport();
            let link = NodeLink::accept(stream?, &transport, &self.identity, &mut self.entropy);
            // A node gives each handshake its time for one read.
            match timeout(self.limits.answer, link).await {
                Ok(Ok(link)) => {
                    self.links[which] = Some(link.with_read_limit(read_limit(self.dialect)));
                    // Without a handshake, a dial that was given up long ago looks like any other.
                    if transport == Transport::Plain
                        && let Reply::Lost(why) = self.reply_on(which, &Message::PingRequest).await
                    {
                        self.dial_failed(why);
                    } else {
                        self.failed_dials = (0, None);
                        return Ok(());
                    }
                }
                Ok(Err((error, _))) => self.dial_failed(error),
                Err(_) => self.dial_failed(LinkError::Silent { limit: self.limits.answer }),
            }
            if Instant::now() >= deadline {
                return Err(Failed::NotConnected { limit });
            }
        }
    }

    fn dial_failed(&mut self, why: LinkError) {
        self.failed_dials = (self.failed_dials.0.saturating_add(1), Some(why));
    }

    /// What became of those who dialed in vain.
    pub(super) fn dials_in_vain(&self) -> String {
        match &self.failed_dials {
            (_, None) => "nobody dialed".into(),
            (1, Some(why)) => format!("one dialed, and was lost again: {why}"),
            (count, Some(why)) => format!("{count} dialed, and were lost again; the last of them: {why}"),
        }
    }

    /// A dial in its raw form, with no connection beside it.
    pub(super) async fn accept_raw(&mut self, limit: Duration) -> Result<Box<dyn Stream>, Failed> {
        self.hang_up_on(FIRST);
        let accepted = timeout(limit, self.doors[FIRST].accept()).await;
        Ok(accepted.map_err(|_| Failed::NotConnected { limit })??)
    }

    pub(super) fn link(&mut self) -> Result<&mut Link, Failed> {
        self.link_on(FIRST)
    }

    pub(super) fn link_on(&mut self, which: usize) -> Result<&mut Link, Failed> {
        let limit = self.limits.connect;
        self.links[which].as_mut().ok_or(Failed::NotConnected { limit })
    }

    /// Both connections, to be used at once.
    pub(super) fn take_links(&mut self) -> Result<[Link; 2], Failed> {
        let limit = self.limits.connect;
        match [self.links[FIRST].take(), self.links.get_mut(SECOND).and_then(Option::take)] {
            [Some(first), Some(second)] => Ok([first, second]),
            _ => Err(Failed::NotConnected { limit }),
        }
    }

    pub(super) fn put_link(&mut self, which: usize, link: Link) {
        self.links[which] = Some(link);
    }

    /// The node dies: its connection is reset where the transport knows that.
    pub(super) fn hang_up(&mut self) {
        self.hang_up_on(FIRST);
    }

    pub(super) fn hang_up_on(&mut self, which: usize) {
        if let Some(link) = self.links[which].take() {
            link.into_inner().reset_on_drop();
        }
    }

    /// The node stops in good order: the signer reads the end of the stream.
    pub(super) fn close_cleanly(&mut self) {
        self.links[FIRST] = None;
    }

    /// Hangs up all connections, and starts the signer after its death.
    pub(super) async fn restart(&mut self) -> Result<(), Failed> {
        self.kill_and_pause().await;
        match &mut self.process {
            Some(process) => Ok(process.start()?),
            None => Ok(()),
        }
    }

    /// The same, with its flushes to the disk counted; false if that is not possible, and it was not started.
    pub(super) async fn restart_counted(&mut self) -> Result<bool, Failed> {
        self.kill_and_pause().await;
        match &mut self.process {
            Some(process) => Ok(process.start_counted()?),
            None => Ok(false),
        }
    }

    async fn kill_and_pause(&mut self) {
        self.kill();
        if !self.limits.pause.is_zero() {
            sleep(self.limits.pause).await;
        }
    }

    pub(super) fn kill(&mut self) {
        (0..self.links.len()).for_each(|which| self.hang_up_on(which));
        if let Some(process) = &mut self.process {
            process.kill();
        }
    }

    /// Waits for a signer whose process may have ended; false if it has, or if nobody comes within `limit`.
    pub(super) async fn dials_in(&mut self, which: usize, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if self.connect(which, SLICE).await.is_ok() {
                return true;
            }
            if !self.process.as_mut().is_some_and(|process| process.is_running()) {
                return false;
            }
        }
        false
    }

    /// Sends a request, over a new connection if there is none, and waits as long as a node does.
    pub(super) async fn reply(&mut self, request: &Message) -> Reply {
        self.reply_on(FIRST, request).await
    }

    pub(super) async fn reply_on(&mut self, which: usize, request: &Message) -> Reply {
        let limit = self.limits.answer;
        let Some(link) = self.links[which].as_mut() else { return Reply::Lost(LinkError::Closed) };
        let reply = reply_over(link, request, limit).await;
        if !matches!(reply, Reply::Answer(_)) {
            self.hang_up_on(which);
        }
        reply
    }

    /// Whether this validator has no connection to the signer.
    pub(super) fn is_away(&self, which: usize) -> bool {
        self.links[which].is_none()
    }

    pub(super) fn key(&self) -> Option<VerifyingKey> {
        self.verifier.key().copied()
    }

    pub(super) fn take_key(&mut self, key: VerifyingKey) {
        self.verifier.pin(key);
        self.requests.vote_as(&key);
    }

    /// 32 fresh random bytes.
    pub(super) fn random(&mut self) -> [u8; 32] {
        (self.entropy)()
    }

    pub(super) fn identity(&self) -> &SigningKey {
        &self.identity
    }
}

/// Sends a request and waits `limit` for the answer.
pub(super) async fn reply_over(link: &mut Link, request: &Message, limit: Duration) -> Reply {
    match timeout(limit, link.ask(request)).await {
        Ok(Ok(answer)) => Reply::Answer(answer),
        // Whole, but no message that a node knows: nothing that it could take for an answer.
        Ok(Err(LinkError::Decode { .. })) => Reply::Answer(None),
        Ok(Err(error)) => Reply::Lost(error),
        Err(_) => Reply::Silent,
    }
}

/// Height, round and step.
pub(super) fn hrs(height: i64, round: i32, step: Step) -> Hrs {
    Hrs { height: Height(height), round: Round(round), step }
}
