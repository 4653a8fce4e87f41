//! One request and its answer.

use std::time::Duration;

use monosign_protocol::message::Message;
use tokio::sync::MutexGuard;
use tokio::time::{Instant, timeout};

use super::connection::Connection;
use super::{ACCEPT_LIMIT, Accept, Event, Failure, Loss, NoSigner, SignerEndpoint};
use crate::link::{LinkError, Peer};

impl<A: Accept> SignerEndpoint<A> {
    /// Waits until a signer is connected, and says who it is.
    ///
    /// # Errors
    /// [`NoSigner`] after `limit`.
    pub async fn wait_for_connection(&self, limit: Duration) -> Result<Peer, NoSigner> {
        let turn = self.turn.lock().await;
        self.connect(&turn, limit).await?;
        let connection = self.connection.lock().await;
        connection.as_ref().map(|connection| connection.link.peer().clone()).ok_or_else(|| self.no_signer())
    }

    /// Asks once; `attempt` and `begin` are for the observer.
    pub(super) async fn attempt(
        &self,
        request: &Message,
        attempt: u32,
        begin: Instant,
    ) -> Result<Option<Message>, Failure> {
        let turn = self.turn.lock().await;
        self.exchange(&turn, request, attempt, begin).await
    }

    /// CometBFT's `SendRequest`, to whom the turn is.
    pub(super) async fn exchange(
        &self,
        turn: &MutexGuard<'_, ()>,
        request: &Message,
        attempt: u32,
        begin: Instant,
    ) -> Result<Option<Message>, Failure> {
        self.connect(turn, ACCEPT_LIMIT).await?;
        let mut slot = self.connection.lock().await;
        let mut connection = slot.take().ok_or_else(|| self.no_signer())?;
        let result = self.converse(&mut connection, request, attempt, begin).await;
        match &result {
            Err(error) if error.drops_connection() => {
                self.observe(Event::Lost { connection: connection.number, why: Loss::Error(error) });
            }
            _ => *slot = Some(connection),
        }
        let answer = result?;
        self.ticker.reset();
        Ok(answer)
    }

    async fn converse(
        &self,
        connection: &mut Connection<A::Io>,
        request: &Message,
        attempt: u32,
        begin: Instant,
    ) -> Result<Option<Message>, LinkError> {
        let number = connection.number;
        connection.send(request).await?;
        self.observe(Event::Sent { connection: number, request, attempt });
        let answer = connection.receive().await?;
        self.observe(Event::Answered {
            connection: number,
            request,
            answer: answer.as_ref(),
            attempt,
            after: begin.elapsed(),
        });
        Ok(answer)
    }

    /// CometBFT's `ensureConnection`.
    async fn connect(&self, _turn: &MutexGuard<'_, ()>, limit: Duration) -> Result<(), NoSigner> {
        if self.connection.lock().await.is_some() {
            return Ok(());
        }
        let connection = match self.door.take() {
            Some(connection) => connection,
            None => {
                self.door.wish();
                timeout(limit, self.door.wait()).await.map_err(|_| self.no_signer())?
            }
        };
        self.last_refused.take();
        self.observe(Event::Connected { connection: connection.number });
        self.connection.lock().await.replace(connection);
        Ok(())
    }

    fn no_signer(&self) -> NoSigner {
        NoSigner { last: self.last_refused.borrow().clone() }
    }
}
