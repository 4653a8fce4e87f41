//! A node in memory: signers dial it over duplex streams, and its observer writes down what happens and when.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use mock_validator::endpoint::{Accept, Event, Loss, RetryClient, Settings, SignerEndpoint};
use mock_validator::link::{NodeLink, Transport};
use monosign_protocol::Dialect;
use monosign_protocol::message::{Message, SignedVoteResponse, Vote};
use tokio::io::{DuplexStream, duplex};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

/// A listener with a backlog that never refuses.
#[derive(Clone, Default)]
pub struct Dials {
    backlog: Rc<RefCell<VecDeque<DuplexStream>>>,
    dialled: Rc<Notify>,
}

impl Dials {
    pub fn dial(&self) -> DuplexStream {
        let (signer, node) = duplex(64 * 1024);
        self.backlog.borrow_mut().push_back(node);
        self.dialled.notify_one();
        signer
    }

    /// A signer on a transport that has no handshake.
    pub fn plain(&self) -> NodeLink<DuplexStream> {
        NodeLink::accept_plain(self.dial())
    }

    pub async fn secret(&self) -> NodeLink<DuplexStream> {
        let key = SigningKey::from_bytes(&[2; 32]);
        NodeLink::accept_secret(self.dial(), &key, [4; 32]).await.unwrap()
    }
}

impl Accept for Dials {
    type Io = DuplexStream;

    async fn accept(&self) -> io::Result<DuplexStream> {
        loop {
            if let Some(stream) = self.backlog.borrow_mut().pop_front() {
                return Ok(stream);
            }
            self.dialled.notified().await;
        }
    }
}

/// What the observer saw, one line for each event, with the milliseconds since the start.
#[derive(Clone, Default)]
pub struct Log(Rc<RefCell<Vec<String>>>);

impl Log {
    pub fn lines(&self) -> Vec<String> {
        self.0.borrow().clone()
    }

    /// The lines that hold `text`.
    pub fn with(&self, text: &str) -> Vec<String> {
        self.0.borrow().iter().filter(|line| line.contains(text)).cloned().collect()
    }
}

/// A node and the place where it is dialled. Make it under a paused clock.
pub struct Rig {
    pub dials: Dials,
    pub client: RetryClient<Dials>,
    pub log: Log,
    pub start: Instant,
}

impl Rig {
    pub fn plain(dialect: Dialect) -> Self {
        Self::new(dialect, Transport::Plain)
    }

    pub fn new(dialect: Dialect, transport: Transport) -> Self {
        let (dials, log, start) = (Dials::default(), Log::default(), Instant::now());
        let lines = log.clone();
        let settings = Settings {
            dialect,
            transport,
            identity: SigningKey::from_bytes(&[1; 32]),
            entropy: Box::new(|| [3; 32]),
            observer: Box::new(move |event| {
                lines.0.borrow_mut().push(format!("{} {}", start.elapsed().as_millis(), show(event)));
            }),
        };
        let client = RetryClient::new(SignerEndpoint::new(dials.clone(), settings));
        Self { dials, client, log, start }
    }

    /// Runs the node's side and a signer's to the end of both, while the endpoint works. Panics after 20 minutes: nothing that
    /// is tested takes as long.
    pub async fn play<N, S>(&self, node: impl Future<Output = N>, signer: impl Future<Output = S>) -> (N, S) {
        tokio::select! {
            biased;
            both = async { tokio::join!(node, signer) } => both,
            never = self.client.run() => match never {},
            () = sleep(millis(1_200_000)) => panic!("no end:\n{}", self.log.lines().join("\n")),
        }
    }

    pub fn millis(&self) -> u128 {
        self.start.elapsed().as_millis()
    }
}

pub fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// An answer with a mark, so that it can be told from another one.
pub fn vote_answer(mark: u8) -> Message {
    let vote = Vote { signature: vec![mark; 64], ..Vote::default() };
    Message::SignedVoteResponse(SignedVoteResponse { vote, error: None })
}

fn show(event: Event<'_>) -> String {
    match event {
        Event::ListenFailed { .. } => "listen failed".to_owned(),
        Event::Accepted { connection } => format!("accepted {connection}"),
        Event::HandshakeFailed { connection, error } => format!("refused {connection}: {error}"),
        Event::HandshakeDone { connection, .. } => format!("ready {connection}"),
        Event::Connected { connection } => format!("connected {connection}"),
        Event::Lost { connection, why: Loss::Error(_) } => format!("lost {connection}"),
        Event::Lost { connection, why } => format!("lost {connection} by {why:?}"),
        Event::Sent { connection, request, attempt } => {
            format!("sent {} {attempt} on {connection}", request.name())
        }
        Event::Answered { connection, request, attempt, after, .. } => {
            let after = after.as_millis();
            format!("answered {} {attempt} on {connection} after {after}", request.name())
        }
        Event::Failed { request, attempt, failure } => {
            format!("failed {} {attempt}: {failure}", request.name())
        }
        Event::GaveUp { request, attempts, after } => {
            format!("gave up {} {attempts} after {}", request.name(), after.as_millis())
        }
        other => format!("{other:?}"),
    }
}
