//! What goes on whether or not anything is asked: accepting and pinging.

use std::convert::Infallible;
use std::{sync::Arc, time::Duration};

use monosign_protocol::message::Message;
use tokio::sync::MutexGuard;
use tokio::time::{Instant, sleep, timeout};

use super::connection::{Connection, limited, name_silence};
use super::timed::Timed;
use super::{ACCEPT_LIMIT, Accept, Event, Loss, READ_WRITE_LIMIT, SignerEndpoint};
use crate::link::{LinkError, NodeLink, read_limit};

/// Go collects garbage every two minutes, if not earlier (`runtime/proc.go`, `forcegcperiod`).
const GARBAGE_PERIOD: Duration = Duration::from_secs(120);

/// CometBFT accepts again at once when its listener failed. The pause keeps that from taking all of the processor.
const LISTEN_PAUSE: Duration = Duration::from_millis(10);

impl<A: Accept> SignerEndpoint<A> {
    /// CometBFT's `serviceLoop`: accepts when there is a wish for it, first when the node starts.
    pub(super) async fn listen(&self) -> Infallible {
        self.accept_next().await;
        loop {
            self.door.wished().await;
            // v0.34 does not look, but gets no wish either while it has a connection.
            if self.connection.lock().await.is_none() {
                self.accept_next().await;
            }
        }
    }

    async fn accept_next(&self) {
        match self.next_connection().await {
            Some(connection) => self.door.offer(connection).await,
            None if self.quirks.keeps_wishes => self.door.wish(),
            None => {}
        }
    }

    async fn next_connection(&self) -> Option<Connection<A::Io>> {
        let io = match timeout(ACCEPT_LIMIT, self.listener.accept()).await {
            Ok(Ok(io)) => io,
            Ok(Err(error)) => {
                self.observe(Event::ListenFailed { error: &error });
                sleep(LISTEN_PAUSE).await;
                return None;
            }
            Err(_) => return None,
        };
        let connection = self.accepted.get() + 1;
        self.accepted.set(connection);
        self.observe(Event::Accepted { connection });
        match self.shake_hands(Timed::new(io, READ_WRITE_LIMIT)).await {
            Ok(link) => {
                self.observe(Event::HandshakeDone { connection, peer: link.peer() });
                Some(Connection::new(connection, link, self.quirks))
            }
            Err(error) => {
                self.observe(Event::HandshakeFailed { connection, error: &error });
                self.last_refused.replace(Some(Arc::new(error)));
                None
            }
        }
    }

    async fn shake_hands(&self, io: Timed<A::Io>) -> Result<NodeLink<Timed<A::Io>>, LinkError> {
        let mut entropy = || (self.entropy.borrow_mut())();
        let handshake = async {
            let link = NodeLink::accept(io, &self.transport, &self.identity, &mut entropy).await;
            link.map_err(|(error, io)| {
                if self.quirks.forgets_streams {
                    self.forgotten.borrow_mut().push(io);
                }
                name_silence(error)
            })
        };
        let link = if self.quirks.reads_whole { limited(handshake).await } else { handshake.await };
        Ok(link?.with_read_limit(read_limit(self.dialect)))
    }

    /// CometBFT's `pingLoop`.
    pub(super) async fn keep_alive(&self) -> Infallible {
        loop {
            self.ticker.tick().await;
            let turn = self.turn.lock().await;
            self.ping(&turn).await;
            // One more ping is due already. Go's mutex lets in the goroutine that runs before one that waits, and after
            // that the one that waits.
            if self.ticker.take() {
                self.ping(&turn).await;
            }
        }
    }

    async fn ping(&self, turn: &MutexGuard<'_, ()>) {
        let (request, attempt) = (&Message::PingRequest, 1);
        if let Err(failure) = self.exchange(turn, request, attempt, Instant::now()).await {
            self.observe(Event::Failed { request, attempt, failure: &failure });
            self.drop_connection(Loss::Ping).await;
            self.door.wish();
        }
    }

    pub(super) async fn drop_connection(&self, why: Loss<'_>) {
        if let Some(connection) = self.connection.lock().await.take() {
            self.observe(Event::Lost { connection: connection.number, why });
        }
    }

    pub(super) async fn collect_garbage(&self) -> Infallible {
        loop {
            sleep(GARBAGE_PERIOD).await;
            self.forgotten.borrow_mut().clear();
        }
    }
}
