use std::{
    cell::{Cell, RefCell},
    io,
};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;

use super::connection::Connection;
use crate::link::{Listener, Socket};

/// Where signers dial in.
pub trait Accept {
    /// A signer's stream. Dropping it closes it.
    type Io: AsyncRead + AsyncWrite + Unpin;

    /// Waits for the next dial. Dials that come while nobody waits are kept for later, as a kernel's backlog does.
    ///
    /// The future may be dropped before it is done; no dial is lost then.
    ///
    /// # Errors
    /// If the listener failed. The endpoint will call again.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Io>>;
}

impl Accept for Listener {
    type Io = Socket;

    async fn accept(&self) -> io::Result<Socket> {
        Self::accept(self).await
    }
}

impl<T: Accept> Accept for &T {
    type Io = T::Io;

    async fn accept(&self) -> io::Result<T::Io> {
        T::accept(self).await
    }
}

/// Between the one who accepts and the one who needs a connection: one wish goes in, one connection at a time comes out.
pub(super) struct Door<Io> {
    wish: Notify,
    /// Whether wishes that nobody waits for are kept.
    keeps_wishes: bool,
    is_waiting: Cell<bool>,
    ready: RefCell<Option<Connection<Io>>>,
    arrived: Notify,
    taken: Notify,
}

impl<Io> Door<Io> {
    pub(super) fn new(keeps_wishes: bool) -> Self {
        Self {
            wish: Notify::new(),
            keeps_wishes,
            is_waiting: Cell::new(false),
            ready: RefCell::new(None),
            arrived: Notify::new(),
            taken: Notify::new(),
        }
    }

    /// Wishes for a connection, in vain if the one who accepts is busy and wishes are not kept.
    pub(super) fn wish(&self) {
        if self.is_waiting.replace(false) || self.keeps_wishes {
            self.wish.notify_one();
        }
    }

    pub(super) async fn wished(&self) {
        self.is_waiting.set(true);
        self.wish.notified().await;
        self.is_waiting.set(false);
    }

    /// Holds `connection` until somebody takes it.
    pub(super) async fn offer(&self, connection: Connection<Io>) {
        self.ready.replace(Some(connection));
        self.arrived.notify_one();
        self.taken.notified().await;
    }

    /// The connection that is held, if one is.
    pub(super) fn take(&self) -> Option<Connection<Io>> {
        let connection = self.ready.take()?;
        self.taken.notify_one();
        Some(connection)
    }

    /// Waits for a connection. Only one may wait.
    pub(super) async fn wait(&self) -> Connection<Io> {
        loop {
            if let Some(connection) = self.take() {
                return connection;
            }
            self.arrived.notified().await;
        }
    }
}
