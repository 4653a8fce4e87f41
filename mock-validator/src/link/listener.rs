use std::{
    io,
    net::SocketAddr,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr as UnixAddr, UnixListener as StdUnixListener},
    },
};

use ed25519_dalek::SigningKey;
use tokio::net::{TcpListener, UnixListener};

use super::{Address, LinkError, NodeLink, Socket, Transport};

/// A listening socket, with the address it really has.
///
/// As in Go, the file of a unix socket is removed when the listener is dropped, and one that a killed process left
/// behind makes [`Listener::bind`] fail.
#[derive(Debug)]
pub struct Listener {
    socket: Listening,
    address: Address,
}

#[derive(Debug)]
enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Listens on `address`.
    ///
    /// # Errors
    /// As the system says: the address is in use, the directory is missing.
    pub async fn bind(address: &Address) -> io::Result<Self> {
        Ok(match address {
            Address::Tcp(addr) => {
                let (socket, addr) = bind_tcp(*addr).await?;
                Self { socket, address: Address::Tcp(addr) }
            }
            Address::Noise { signer, addr } => {
                let (socket, addr) = bind_tcp(*addr).await?;
                Self { socket, address: Address::Noise { signer: *signer, addr } }
            }
            Address::Unix(path) => {
                Self { socket: Listening::Unix(UnixListener::bind(path)?), address: address.clone() }
            }
            Address::Abstract(name) => {
                let listener = StdUnixListener::bind_addr(&UnixAddr::from_abstract_name(name)?)?;
                listener.set_nonblocking(true)?;
                Self { socket: Listening::Unix(UnixListener::from_std(listener)?), address: address.clone() }
            }
        })
    }

    /// The address that signers dial; its port is never 0.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Waits for a signer to dial.
    ///
    /// # Errors
    /// As the system says.
    pub async fn accept(&self) -> io::Result<Socket> {
        match &self.socket {
            Listening::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // As Go does: without it, answers to messages of several packets wait 40 ms (Nagle).
                stream.set_nodelay(true)?;
                Ok(Socket::Tcp(stream))
            }
            Listening::Unix(listener) => Ok(Socket::Unix(listener.accept().await?.0)),
        }
    }

    /// Does the handshake that the address calls for, on a socket that [`Listener::accept`] gave.
    ///
    /// `entropy` gives 32 fresh random bytes at each call.
    ///
    /// # Errors
    /// [`LinkError`] if that one connection failed; the next may succeed.
    pub async fn handshake(
        &self,
        socket: Socket,
        identity: &SigningKey,
        entropy: &mut dyn FnMut() -> [u8; 32],
    ) -> Result<NodeLink<Socket>, LinkError> {
        let transport = Transport::from(&self.address);
        NodeLink::accept(socket, &transport, identity, entropy).await.map_err(|(error, _)| error)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Address::Unix(path) = &self.address {
            // Nobody can act on a failure here, and the next `bind` reports it.
            let _ = std::fs::remove_file(path);
        }
    }
}

async fn bind_tcp(addr: SocketAddr) -> io::Result<(Listening, SocketAddr)> {
    let listener = TcpListener::bind(addr).await?;
    let addr = listener.local_addr()?;
    Ok((Listening::Tcp(listener), addr))
}
