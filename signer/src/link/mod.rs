//! A link to one validator: dial, handshake, serve, dial again.
//!
//! What always holds: one socket for a validator, closed whenever a session ends; requests are answered in the order they
//! came; public keys and pings are answered from memory, without the chain; whatever ends a session leads to a new one.
//!
//! A node accepts a connection when it needs one, so whoever dials a node that is served waits in its kernel's queue, connected and
//! without a word, perhaps for months. It waits there for as long as the connection stands: one that it gives up stays in the
//! queue, dead, and costs the node time when it needs the next one (3 s each before v0.37, whose listener is not asked again
//! after a handshake that failed). Keepalive tells whether the node's host is there still.

mod backoff;

use std::cell::Cell;
use std::io;
use std::mem::{Discriminant, discriminant};
use std::rc::Rc;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use monosign_protocol::dialect::Recognised;
use monosign_protocol::message::{Message, PubKeyResponse, Text};
use monosign_protocol::{Dialect, Height, noise, secret_connection};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::chain::{Arm, ChainHandle, PATIENCE, arm_of, refused};
use crate::config::Endpoint;
use crate::guard::Refusal;
use crate::ops::log_limit::{Policy, Repeats};
use crate::ops::turn::Turn;
use crate::seams::{Entropy, Seams, Stream};
use crate::session::{Event, Peer, PeerMisbehaved, Session};
use backoff::{Backoff, Outcome};

/// One `[[validator]]` of the configuration, resolved.
#[derive(Clone)]
pub struct LinkSettings {
    /// Where the validator listens.
    pub endpoint: Endpoint,
    /// How the connection is protected.
    pub protection: Protection,
    /// How long a silent peer is waited for. Nodes ping every 3.3 s. No handshake takes longer from its first byte on, nor than 5 s;
    /// that first byte is waited for without limit.
    pub timeout: Duration,
    /// Whether to dial again when a session ends.
    pub reconnect: bool,
    /// Above this height nothing is signed for this validator.
    pub max_height: Option<Height>,
    /// The dialect that the configuration names, if it names one.
    pub dialect: Option<Dialect>,
    /// The address as configured, for logs.
    pub label: Rc<str>,
}

/// How a connection is protected.
#[derive(Clone)]
pub enum Protection {
    /// Not at all: a unix socket.
    Plain,
    /// SecretConnection, with our identity and perhaps a pinned peer.
    Secret {
        /// Our identity; nodes do not check it.
        identity: Rc<SigningKey>,
        /// The peer id the node must have.
        pinned: Option<secret_connection::PeerId>,
    },
    /// Noise, both ends pinned.
    Noise {
        /// Our identity; its peer id stands in the node's `priv_validator_laddr`.
        identity: Rc<SigningKey>,
        /// The node's peer id.
        peer: noise::PeerId,
    },
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// Nobody listens there.
    #[error("connection refused")]
    Refused,
    /// The connection cannot be made.
    #[error("cannot connect: {0}")]
    Dial(io::Error),
    /// The connection was not made in time.
    #[error("cannot connect: no answer within {0:?}")]
    DialTimeout(Duration),
    /// The handshake began, and did not end in time.
    #[error("the handshake was not finished within {0:?}")]
    Handshake(Duration),
    /// The peer fell silent: nodes ping every 3.3 s.
    #[error("silent for {0:?}")]
    Silent(Duration),
    /// The chain gave no answer in time, as when its disk hangs.
    #[error("the chain gave no answer within {0:?}, and the validator waits no longer")]
    Unanswered(Duration),
    /// The peer closed the connection.
    #[error("closed by the validator")]
    Closed,
    /// The connection broke.
    #[error("connection lost: {0}")]
    Lost(io::Error),
    /// The peer broke the protocol.
    #[error("closed for misbehaviour: {0}")]
    Misbehaved(#[from] PeerMisbehaved),
}

/// The time to make a connection.
const DIAL_TIMEOUT: Duration = Duration::from_secs(3);
/// The time for a handshake from the peer's first byte on. Nodes give up as early (`privval/socket_listeners.go`,
/// `defaultTimeoutReadWriteSeconds`), and those before v0.39 do not close the socket of one that failed.
const LONGEST_HANDSHAKE: Duration = Duration::from_secs(5);
/// A session that lasted so long and served a request is a good one: the next is dialed at once.
const GOOD_SESSION: Duration = Duration::from_secs(1);
/// The longest silence between two reports that a validator has not begun its handshake yet.
const LONGEST_STANDBY_SILENCE: Duration = Duration::from_secs(3600);
/// How many bytes of answers are sent before the next request is looked at.
const SEND_AT: usize = 32 * 1024;
/// How much is read at once.
const READ_CHUNK: usize = 16 * 1024;

/// A validator's connection, for as long as the signer runs.
pub struct Link {
    settings: LinkSettings,
    chain: ChainHandle,
    seams: Seams,
    stop: watch::Receiver<bool>,
    recognised: Recognised,
    warned: bool,
    /// When the first request of this session came.
    served: Option<Instant>,
    /// Whether this session has waited for its validator for longer than a silent peer is waited for.
    stood_by: bool,
    /// Whether the validator has asked for something in this session.
    connected: Rc<Cell<bool>>,
}

impl Link {
    /// A link that serves a chain to one validator until `stop` becomes true.
    pub fn new(
        settings: LinkSettings,
        chain: ChainHandle,
        seams: Seams,
        stop: watch::Receiver<bool>,
    ) -> Self {
        Self {
            settings,
            chain,
            seams,
            stop,
            recognised: Recognised::default(),
            warned: false,
            served: None,
            stood_by: false,
            connected: Rc::default(),
        }
    }

    /// Whether its validator is connected, and has asked for something since.
    pub fn connected(&self) -> Rc<Cell<bool>> {
        Rc::clone(&self.connected)
    }

    /// Serves session after session.
    pub async fn run(mut self) {
        let mut backoff = Backoff::default();
        let mut reports = Reports::default();
        let mut last_good = Instant::now();
        loop {
            self.served = None;
            self.stood_by = false;
            let ended = self.serve().await;
            self.connected.set(false);
            let Err(error) = ended else { return };
            let good = self.served.is_some_and(|since| since.elapsed() >= GOOD_SESSION);
            if good {
                reports = Reports::default();
            }
            if self.served.is_some() {
                last_good = Instant::now();
            }
            reports.report(&self.settings.label, &self.chain, &error);
            if !self.settings.reconnect {
                tracing::warn!(chain_id = %self.chain.id(), peer = &*self.settings.label, "not reconnecting: `reconnect` is false");
                return;
            }
            let outcome = match (&error, self.served) {
                (_, Some(_)) if good => Outcome::Served,
                (_, Some(_)) => Outcome::Brief,
                // A standby must be back in line at once.
                _ if self.stood_by => Outcome::Brief,
                (LinkError::Refused, _) => Outcome::Refused,
                _ => Outcome::Failed,
            };
            let wait = backoff.wait(outcome, last_good.elapsed(), self.random_byte());
            tokio::select! {
                biased;
                () = stopped(&mut self.stop) => return,
                () = sleep(wait) => {}
            }
        }
    }

    /// One session; `Ok` if the signer stops.
    async fn serve(&mut self) -> Result<(), LinkError> {
        let mut stop = self.stop.clone();
        let mut stream = tokio::select! {
            biased;
            () = stopped(&mut stop) => return Ok(()),
            stream = self.dial() => stream?,
        };
        let mut session = session_for(&self.settings.protection, &*self.seams.entropy);
        let mut chunk = vec![0; READ_CHUNK];
        let dialed = Instant::now();
        let mut waits = Waits::FirstByte(self.settings.timeout);
        let mut turn = Turn::default();
        loop {
            while let Some(event) = session.poll_event()? {
                self.handle(event, &mut session).await?;
                turn.count(0);
                // A peer that sends many requests at once gets its answers as it goes, or we would hold them all, and others
                // have their turn in between.
                if turn.is_over() || session.outbox().len() > SEND_AT {
                    self.send(&mut *stream, &mut session).await?;
                    turn.end_if_over().await;
                }
            }
            self.send(&mut *stream, &mut session).await?;
            turn.end_if_over().await;
            if session.is_established() {
                waits = Waits::Request(self.settings.timeout);
            }
            let read = tokio::select! {
                biased;
                () = stopped(&mut stop) => return Ok(()),
                read = timeout_at(waits.deadline(), stream.read(&mut chunk)) => read,
            };
            match read {
                Err(_) => match waits.too_long() {
                    Some(error) => return Err(error),
                    None => self.log_standby(dialed.elapsed()),
                },
                Ok(Ok(0)) => return Err(LinkError::Closed),
                Ok(Ok(n)) => {
                    waits.heard(self.settings.timeout);
                    turn.count(n);
                    session.handle_bytes(&chunk[..n])?;
                }
                Ok(Err(error)) => return Err(LinkError::Lost(error)),
            }
        }
    }

    async fn dial(&self) -> Result<Box<dyn Stream>, LinkError> {
        match timeout(DIAL_TIMEOUT, self.seams.net.dial(&self.settings.endpoint)).await {
            Err(_) => Err(LinkError::DialTimeout(DIAL_TIMEOUT)),
            Ok(Ok(stream)) => Ok(stream),
            // A unix socket that is not there yet is a node that is not there yet.
            Ok(Err(e)) if matches!(e.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => {
                Err(LinkError::Refused)
            }
            Ok(Err(e)) => Err(LinkError::Dial(e)),
        }
    }

    async fn send(&self, stream: &mut dyn Stream, session: &mut Session) -> Result<(), LinkError> {
        if session.outbox().is_empty() {
            return Ok(());
        }
        let limit = self.settings.timeout;
        match timeout(limit, stream.write_all(session.outbox())).await {
            Err(_) => Err(LinkError::Silent(limit)),
            Ok(Err(error)) => Err(LinkError::Lost(error)),
            Ok(Ok(())) => {
                session.sent();
                Ok(())
            }
        }
    }

    async fn handle(&mut self, event: Event, session: &mut Session) -> Result<(), LinkError> {
        match event {
            Event::Established(peer) => self.log_connected(&peer),
            Event::Request(request) => {
                self.served.get_or_insert_with(Instant::now);
                self.connected.set(true);
                self.recognise(&request);
                // The node has given up by then. Its next connection must not wait for what a disk or a device still has to do.
                let response = timeout(PATIENCE, self.respond(request)).await;
                let response = response.map_err(|_| LinkError::Unanswered(PATIENCE))?;
                session.respond(&response)?;
            }
            Event::Unreadable { arm, error } => {
                let refusal = Refusal::Malformed(error);
                self.log_refused(&refusal);
                match arm {
                    Some(arm) => session.respond(&refused(arm, refusal.to_string()))?,
                    None => session.respond_empty()?,
                }
            }
        }
        Ok(())
    }

    async fn respond(&mut self, request: Box<Message>) -> Message {
        match &*request {
            Message::PingRequest => Message::PingResponse,
            Message::PubKeyRequest(asked) => match self.check_chain(&asked.chain_id) {
                Ok(()) => {
                    Message::PubKeyResponse(PubKeyResponse::universal(*self.chain.public_key().as_bytes()))
                }
                Err(refusal) => self.refuse(Arm::PubKey, &refusal),
            },
            _ => match self.check_request(&request) {
                Ok(()) => self.chain.ask(request, self.settings.label.clone()).await,
                Err(refusal) => self.refuse(arm_of(&request), &refusal),
            },
        }
    }

    /// What is this validator's matter, before the chain is asked.
    fn check_request(&self, request: &Message) -> Result<(), Refusal> {
        let hrs = match request {
            Message::SignVoteRequest(request) => {
                self.check_chain(&request.chain_id)?;
                request.vote.as_ref().and_then(|vote| vote.hrs())
            }
            Message::SignProposalRequest(request) => {
                self.check_chain(&request.chain_id)?;
                request.proposal.as_ref().map(|proposal| proposal.hrs())
            }
            _ => None,
        };
        match (hrs, self.settings.max_height) {
            (Some(asked), Some(max_height)) if asked.height > max_height => {
                Err(Refusal::AboveMaxHeight { asked, max_height })
            }
            _ => Ok(()),
        }
    }

    fn check_chain(&self, asked: &Text) -> Result<(), Refusal> {
        let expected = self.chain.id().as_str();
        if asked.is(expected) {
            return Ok(());
        }
        Err(Refusal::WrongChain { asked: asked.to_string(), expected: expected.into() })
    }

    fn refuse(&mut self, arm: Arm, refusal: &Refusal) -> Message {
        self.log_refused(refusal);
        refused(arm, refusal.to_string())
    }

    /// Learns what the node speaks, and names a setting that says otherwise, once.
    fn recognise(&mut self, request: &Message) {
        if !self.recognised.observe(request) {
            return;
        }
        let (chain_id, peer, speaks) = (self.chain.id(), &*self.settings.label, self.recognised);
        match self.settings.dialect.filter(|setting| !speaks.allows(*setting)) {
            Some(setting) if !self.warned => {
                self.warned = true;
                tracing::warn!(
                    %chain_id, peer, %speaks,
                    "protocol_version is \"{setting}\", but the node speaks {speaks}: it is served all the same; \
                     set protocol_version = \"auto\""
                );
            }
            _ => tracing::info!(%chain_id, peer, %speaks, "the node speaks {speaks}"),
        }
    }

    fn log_connected(&mut self, peer_id: &Peer) {
        if matches!(peer_id, Peer::Noise(_)) {
            self.recognised.observe_noise();
        }
        let (chain_id, peer) = (self.chain.id(), &*self.settings.label);
        tracing::info!(%chain_id, peer, %peer_id, "connected to {peer} (peer id {peer_id})");
    }

    fn log_standby(&mut self, since: Duration) {
        self.stood_by = true;
        let (chain_id, peer, secs) = (self.chain.id(), &*self.settings.label, since.as_secs());
        tracing::warn!(
            %chain_id, peer, secs,
            "no handshake within {secs} s: standing by at {peer}, which seems to be served by another signer; if it is not, it is stuck"
        );
    }

    fn log_refused(&mut self, refusal: &Refusal) {
        let (chain_id, peer, reason) = (self.chain.id(), &*self.settings.label, refusal.reason());
        tracing::warn!(%chain_id, peer, result = "denied", reason, "refused: {refusal}");
    }

    fn random_byte(&self) -> u8 {
        let mut byte = [0];
        self.seams.entropy.fill(&mut byte);
        byte[0]
    }
}

/// What a peer is waited for, and how long.
enum Waits {
    /// The peer may be serving another signer for ever: nothing ends this wait, and ever more rarely it is told of.
    FirstByte(Duration),
    /// One deadline for the whole handshake: a peer that trickles it must not hold the link.
    Handshake { limit: Duration, until: Instant },
    /// Each time anew.
    Request(Duration),
}

impl Waits {
    fn heard(&mut self, limit: Duration) {
        if let Self::FirstByte(_) = self {
            let limit = limit.min(LONGEST_HANDSHAKE);
            *self = Self::Handshake { limit, until: Instant::now() + limit };
        }
    }

    fn deadline(&self) -> Instant {
        match self {
            Self::FirstByte(limit) | Self::Request(limit) => Instant::now() + *limit,
            Self::Handshake { until, .. } => *until,
        }
    }

    /// What ends the session now, if anything.
    fn too_long(&mut self) -> Option<LinkError> {
        match self {
            Self::FirstByte(limit) => {
                *limit = (*limit * 2).min(LONGEST_STANDBY_SILENCE);
                None
            }
            Self::Handshake { limit, .. } => Some(LinkError::Handshake(*limit)),
            Self::Request(limit) => Some(LinkError::Silent(*limit)),
        }
    }
}

/// A fresh session, its first bytes in the outbox.
pub fn session_for(protection: &Protection, entropy: &dyn Entropy) -> Session {
    match protection {
        Protection::Plain => Session::plain(),
        Protection::Secret { identity, pinned } => {
            Session::secret(secret_connection::Handshake::new(identity, entropy.key()), *pinned)
        }
        Protection::Noise { identity, peer } => {
            let fresh = noise::Entropy { static_key: entropy.key(), ephemeral: entropy.key() };
            Session::noise(noise::Handshake::initiator(identity, *peer, fresh))
        }
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A sender that is gone means the same as a stop.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Keeps a node that is down for days from filling the log: a failure is told at once, and then ever more rarely.
#[derive(Default)]
struct Reports {
    in_a_row: u64,
    /// For each kind of failure. A node that is restarted closes, and then refuses: both are told.
    told: Vec<(Discriminant<LinkError>, Repeats)>,
}

impl Reports {
    fn report(&mut self, peer: &str, chain: &ChainHandle, error: &LinkError) {
        self.in_a_row += 1;
        if !self.is_due(discriminant(error)) {
            return;
        }
        let (chain_id, attempt) = (chain.id(), self.in_a_row);
        match error {
            LinkError::Refused => tracing::warn!(
                %chain_id, peer, attempt,
                "connection refused by {peer}: is the node running, with priv_validator_laddr set to this address?"
            ),
            LinkError::Closed => {
                tracing::info!(%chain_id, peer, attempt, "disconnected from {peer}: {error}")
            }
            _ => tracing::warn!(%chain_id, peer, attempt, "disconnected from {peer}: {error}"),
        }
    }

    fn is_due(&mut self, kind: Discriminant<LinkError>) -> bool {
        if !self.told.iter().any(|(told, _)| *told == kind) {
            self.told.push((kind, Repeats::new(Policy::OUTAGE)));
        }
        let told = self.told.iter_mut().find(|(told, _)| *told == kind);
        told.is_none_or(|(_, repeats)| repeats.admit(Instant::now()))
    }
}

#[cfg(test)]
mod tests;
