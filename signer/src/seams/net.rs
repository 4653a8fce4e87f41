//! The network: the signer dials, the validator listens.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixStream, lookup_host};
use tokio::time::timeout;

use super::Local;
use crate::config::Endpoint;
use crate::threshold::tls::Tls;
use crate::threshold::transport::Transport;

/// A connection, whatever carries it.
pub trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

/// Dials validators and other cosigners, and listens to those.
pub trait Net {
    /// Connects to an endpoint. Time limits are the caller's.
    fn dial<'a>(&'a self, endpoint: &'a Endpoint) -> Local<'a, io::Result<Box<dyn Stream>>>;

    /// Listens on an endpoint: cosigners only; a validator is always dialed. A network may have no listeners.
    fn listen<'a>(&'a self, _endpoint: &'a Endpoint) -> Local<'a, io::Result<Box<dyn Listen>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    /// What secures connections between cosigners: our end, for the holders of these identity keys. TLS on every real network.
    ///
    /// # Errors
    /// If the cryptography cannot be set up.
    fn transport(&self, identity: &SigningKey, peers: &[[u8; 32]]) -> io::Result<Rc<dyn Transport>> {
        Ok(Rc::new(Tls::new(identity, peers.iter().copied()).map_err(io::Error::other)?))
    }
}

/// A socket that listens.
pub trait Listen {
    /// The next connection, and where it comes from.
    fn accept(&mut self) -> Local<'_, io::Result<(Box<dyn Stream>, String)>>;
}

/// Sockets of the operating system.
#[derive(Debug, Clone, Copy)]
pub struct TokioNet;

impl Net for TokioNet {
    fn dial<'a>(&'a self, endpoint: &'a Endpoint) -> Local<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            match endpoint {
                Endpoint::Tcp { host, port } => {
                    let stream = connect(host, *port).await?;
                    set_options(&stream)?;
                    Ok(Box::new(stream) as Box<dyn Stream>)
                }
                Endpoint::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?) as Box<dyn Stream>),
                // Tokio takes a leading zero byte for Linux's abstract names.
                Endpoint::UnixAbstract(name) => {
                    let stream = UnixStream::connect(format!("\0{name}")).await?;
                    Ok(Box::new(stream) as Box<dyn Stream>)
                }
            }
        })
    }

    fn listen<'a>(&'a self, endpoint: &'a Endpoint) -> Local<'a, io::Result<Box<dyn Listen>>> {
        Box::pin(async move {
            match endpoint {
                Endpoint::Tcp { host, port } => {
                    let listener = TcpListener::bind((host.as_str(), *port)).await?;
                    Ok(Box::new(TcpListen(listener)) as Box<dyn Listen>)
                }
                _ => Err(io::Error::new(io::ErrorKind::Unsupported, "cosigners listen on tcp only")),
            }
        })
    }
}

struct TcpListen(TcpListener);

impl Listen for TcpListen {
    fn accept(&mut self) -> Local<'_, io::Result<(Box<dyn Stream>, String)>> {
        Box::pin(async {
            let (stream, from) = self.0.accept().await?;
            set_options(&stream)?;
            Ok((Box::new(stream) as Box<dyn Stream>, from.to_string()))
        })
    }
}

/// Tries each address of a name, none for so long that the others get no turn.
async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("`{host}` has no address"));
    for address in lookup_host((host, port)).await? {
        match timeout(PER_ADDRESS, TcpStream::connect(address)).await {
            Ok(connected) => match connected.and_then(not_ourselves) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            },
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

/// Dialing a port of this host that nobody listens on can meet itself, when the system picks that very port as the source. Such a
/// connection would keep the node from listening there; it is reset, so that the port is free at once.
fn not_ourselves(stream: TcpStream) -> io::Result<TcpStream> {
    if stream.local_addr()? != stream.peer_addr()? {
        return Ok(stream);
    }
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
    Err(io::ErrorKind::ConnectionRefused.into())
}

const PER_ADDRESS: Duration = Duration::from_secs(1);

/// When a silent connection is asked whether its other end is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// After so much silence, for the first time.
    pub idle: Duration,
    /// And so long after each question without an answer.
    pub between: Duration,
    /// So many questions without an answer end it.
    pub probes: u32,
}

/// What production sockets have: a node whose machine is gone is noticed within a minute, also while waiting as a standby.
pub const KEEPALIVE: Keepalive =
    Keepalive { idle: Duration::from_secs(15), between: Duration::from_secs(5), probes: 4 };

/// No Nagle: an answer of several sealed frames must not wait for the node's delayed acknowledgement (40 ms).
fn set_options(stream: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;

    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE.idle)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE.between)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVE.probes)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpSocket;

    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn a_connection_to_itself_is_refused_and_leaves_the_port_free() {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
        let port = socket.local_addr().expect("bound");
        let stream = socket.connect(port).await.expect("connected to itself");
        let error = not_ourselves(stream).expect_err("nobody listens there");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        TcpSocket::new_v4().expect("a socket").bind(port).expect("the node's turn");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_connection_to_a_listener_stays() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let stream = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connected");
        not_ourselves(stream).expect("somebody else");
    }
}
