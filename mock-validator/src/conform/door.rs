//! Where signers dial in: a real socket that can be closed and opened again, or whatever a test has.

use std::{io, pin::Pin};

use tokio::io::{AsyncRead, AsyncWrite};

use crate::link::{Address, Listener, Socket, Transport};

/// A place where a signer dials in, one for each validator that it serves.
pub trait Door {
    /// The handshake that signers do here.
    fn transport(&self) -> Transport;

    /// Whether this is a unix socket with a file.
    fn is_unix_file(&self) -> bool {
        false
    }

    /// Waits for the next dial. Dials that come while nobody waits are kept for later.
    fn accept(&self) -> Waiting<'_, io::Result<Box<dyn Stream>>>;

    /// Refuses dials from now on; those that were not accepted are lost.
    fn close(&mut self);

    /// Takes dials again.
    fn open(&mut self) -> Waiting<'_, io::Result<()>>;
}

/// Something that is waited for.
pub type Waiting<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// A signer's stream. Dropping it closes it.
pub trait Stream: AsyncRead + AsyncWrite + Unpin {
    /// Dropping it now resets the connection, as the death of a node often does, where the transport knows such a thing.
    fn reset_on_drop(&self) {}
}

impl Stream for Socket {
    fn reset_on_drop(&self) {
        if let Self::Tcp(stream) = self {
            // At worst it is closed the other way.
            let _ = stream.set_zero_linger();
        }
    }
}

/// A [`Door`] on a real socket.
pub struct SocketDoor {
    address: Address,
    listener: Option<Listener>,
}

impl SocketDoor {
    /// Takes dials on `listener`.
    pub fn new(listener: Listener) -> Self {
        Self { address: listener.address().clone(), listener: Some(listener) }
    }
}

impl Door for SocketDoor {
    fn transport(&self) -> Transport {
        Transport::from(&self.address)
    }

    fn is_unix_file(&self) -> bool {
        matches!(self.address, Address::Unix(_))
    }

    fn accept(&self) -> Waiting<'_, io::Result<Box<dyn Stream>>> {
        Box::pin(async {
            let listener = self.listener.as_ref().ok_or(io::ErrorKind::NotConnected)?;
            let socket = listener.accept().await?;
            Ok(Box::new(socket) as Box<dyn Stream>)
        })
    }

    fn close(&mut self) {
        self.listener = None;
    }

    fn open(&mut self) -> Waiting<'_, io::Result<()>> {
        Box::pin(async {
            self.listener = Some(Listener::bind(&self.address).await?);
            Ok(())
        })
    }
}
