//! The node's side of the privval link as CometBFT has it, over any transport: what a signer meets when it dials.
//!
//! A [`SignerEndpoint`] holds one connection at a time, accepts the next one when it is needed, and pings a signer that
//! has nothing to do. A [`RetryClient`] asks over it with a node's patience. An [`Accept`] gives the streams: sockets
//! ([`Listener`](crate::link::Listener)), a simulated network, or memory. Time is tokio's, so a paused clock passes in
//! no time.
//!
//! ```
//! # use mock_validator::endpoint::{Event, RetryClient, Settings, SignerEndpoint};
//! # use mock_validator::link::{Listener, Transport};
//! # use monosign_protocol::{Dialect, message::Message};
//! # async fn node(listener: Listener, key: ed25519_dalek::SigningKey, entropy: fn() -> [u8; 32], request: Message) {
//! let settings = Settings {
//!     dialect: Dialect::V0_38,
//!     transport: Transport::from(listener.address()),
//!     identity: key,
//!     entropy: Box::new(entropy),
//!     observer: Box::new(|event: Event<'_>| println!("{event:?}")),
//! };
//! let client = RetryClient::new(SignerEndpoint::new(listener, settings));
//! tokio::select! {
//!     biased;
//!     answer = client.ask(&request) => println!("{answer:?}"),
//!     // Accepts and pings; a node does that for as long as it runs.
//!     never = client.run() => match never {},
//! }
//! # }
//! ```
//!
//! # The rules
//!
//! Of `privval/signer_listener_endpoint.go`, `signer_endpoint.go`, `socket_listeners.go` and `retry_signer_client.go`;
//! equal from v0.34 to v2.0-rc1 where nothing is said.
//!
//! * One exchange at a time: a ping waits for a request, a request for a ping.
//! * A request without a connection waits 3 s for one ([`ACCEPT_LIMIT`]). One signer at a time is accepted, and its
//!   handshake may take longer than the request waits: it is there for the next try. Further ones stay in the listener's
//!   backlog, where they may die before they are picked up. v0.34 accepts only within 3 s of a request; later nodes
//!   go on until somebody has come.
//! * Each read may take 5 s ([`READ_WRITE_LIMIT`]), so an answer that trickles in may take any time; with noise the whole
//!   message may. A write that takes 5 s fails.
//! * What fails with an operating system's error or runs out of time drops the connection. The end of the stream does
//!   not, nor does a message that is too long, does not decrypt or does not decode: the next try uses the same
//!   connection, in step or not. From v0.39 on a failed write to a SecretConnection is not noticed until the next one.
//! * A ping is sent after 3.333 s without an answer ([`PING_INTERVAL`]); when it fails, the connection is dropped whatever
//!   the reason. Any message is an answer to it.
//! * A request is sent again, byte for byte, 100 ms after a failure, 50 times in all. An error that the signer answers is
//!   final. A message of another kind, or without a usable key, is a failure. With nobody there that takes seven minutes. v0.40 gives up early when the node stops.
//! * A node that starts asks for the public key once: [`RetryClient::ask_once`]. When that fails, it exits.
//!
//! Where Go leaves two tasks to a race of microseconds, one end of it is taken here: a ping that failed drops the connection
//! before the next request begins, and a wish for a connection that came while one was being accepted is dropped with its
//! arrival. (A real node sometimes, 3 times of 20 in a trial with v0.38.25, lets a second signer do its handshake for another 3 s.)
//!
//! # Faults
//!
//! The protocol has no switches for them; they are made from outside.
//!
//! * *The node dies*: drop every future of its client, and the client. An observer is called at once when a request has been
//!   sent ([`Event::Sent`]) and before its answer is read: what it wakes can drop them there.
//! * *A connection is cut within a request, a peer that does not read*: the stream that [`Accept`] gives does it.

mod accept;
mod connection;
mod event;
mod exchange;
mod failure;
mod ping;
mod quirks;
mod retry;
mod serve;
mod timed;

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};

use ed25519_dalek::SigningKey;
use monosign_protocol::Dialect;
use tokio::sync::Mutex;

use crate::link::{LinkError, Transport};

pub use accept::Accept;
pub use event::{Event, Loss};
pub use failure::{Failure, NoAnswer, NoSigner};
pub use retry::RetryClient;

use accept::Door;
use connection::Connection;
use ping::Ticker;
use quirks::Quirks;
use timed::Timed;

/// How long a request waits for a connection, and a node that starts for its first
/// (`privval/socket_listeners.go`, `defaultTimeoutAcceptSeconds`).
pub const ACCEPT_LIMIT: Duration = Duration::from_secs(3);

/// How long one read or write may take (`privval/signer_endpoint.go`, `defaultTimeoutReadWriteSeconds`).
pub const READ_WRITE_LIMIT: Duration = Duration::from_secs(5);

/// How long a signer goes unasked: two thirds of the read limit in whole milliseconds
/// (`privval/signer_listener_endpoint.go`, `OnStart`).
pub const PING_INTERVAL: Duration = Duration::from_millis(3333);

/// How often a request is sent before the node goes on without an answer (`node/setup.go`,
/// `createAndStartPrivValidatorSocketClient`).
pub const ATTEMPTS: u32 = 50;

/// The pause after each failed attempt (there).
pub const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// How a node holds its end.
pub struct Settings {
    /// The release that the node runs.
    pub dialect: Dialect,
    /// The handshake that signers have to do.
    pub transport: Transport,
    /// The node's identity on encrypted transports.
    pub identity: SigningKey,
    /// Gives 32 fresh random bytes at each call, for the handshakes.
    pub entropy: Box<dyn FnMut() -> [u8; 32]>,
    /// The oracle of a test, or nobody. It must not call the endpoint.
    pub observer: Observer,
}

/// Who is told what happens, when it happens.
pub type Observer = Box<dyn FnMut(Event<'_>)>;

/// A node's end of the privval link: CometBFT's `SignerListenerEndpoint`.
///
/// It works as long as [`SignerEndpoint::run`] is polled. Dropping that future, or one that asks, in the middle is what the
/// death of a node looks like: the connection in use is closed.
pub struct SignerEndpoint<A: Accept> {
    listener: A,
    dialect: Dialect,
    transport: Transport,
    quirks: Quirks,
    identity: SigningKey,
    entropy: RefCell<Box<dyn FnMut() -> [u8; 32]>>,
    observer: RefCell<Observer>,
    /// Held for one exchange. It is fair: requests and pings come in the order in which they queued.
    turn: Mutex<()>,
    /// Locked for one exchange, like CometBFT's `connMtx`; taken out meanwhile, so that an exchange that is dropped
    /// leaves no connection out of step.
    connection: Mutex<Option<Connection<A::Io>>>,
    door: Door<A::Io>,
    ticker: Ticker,
    /// How many dials were picked up.
    accepted: Cell<u64>,
    /// How the last handshake failed since there was a connection.
    last_refused: RefCell<Option<Arc<LinkError>>>,
    /// The streams of failed handshakes that the node has not closed.
    forgotten: RefCell<Vec<Timed<A::Io>>>,
}

impl<A: Accept> SignerEndpoint<A> {
    /// An endpoint that has no connection. Its first ping is due [`PING_INTERVAL`] from now.
    pub fn new(listener: A, settings: Settings) -> Self {
        let Settings { dialect, transport, identity, entropy, observer } = settings;
        let quirks = Quirks::of(dialect, &transport);
        Self {
            listener,
            dialect,
            transport,
            quirks,
            identity,
            entropy: RefCell::new(entropy),
            observer: RefCell::new(observer),
            turn: Mutex::new(()),
            connection: Mutex::new(None),
            door: Door::new(quirks.keeps_wishes),
            ticker: Ticker::new(quirks.keeps_missed_ticks),
            accepted: Cell::new(0),
            last_refused: RefCell::new(None),
            forgotten: RefCell::new(Vec::new()),
        }
    }

    /// Accepts signers and pings them, for as long as the node runs. Nothing is accepted otherwise.
    pub async fn run(&self) -> Infallible {
        tokio::select! {
            biased;
            never = self.listen() => never,
            never = self.keep_alive() => never,
            never = self.collect_garbage() => never,
        }
    }

    /// The release that the node runs.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    fn observe(&self, event: Event<'_>) {
        (self.observer.borrow_mut())(event);
    }
}
