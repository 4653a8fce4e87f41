//! The network: the signer dials, the validator listens.

use std::io;
use std::net::SocketAddr;
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
                    let addresses = lookup_host((host.as_str(), *port)).await?;
                    let stream = connect(host, addresses, TcpStream::connect).await?;
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
            let (stream, from) = accept(&self.0).await?;
            Ok((Box::new(stream) as Box<dyn Stream>, from.to_string()))
        })
    }
}

/// The next connection, with its options.
async fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, from) = listener.accept().await?;
    set_options(&stream)?;
    Ok((stream, from))
}

/// Tries each address of a name, none for so long that the others get no turn. The connection has its options.
async fn connect(
    host: &str,
    addresses: impl Iterator<Item = SocketAddr>,
    dial: impl AsyncFn(SocketAddr) -> io::Result<TcpStream>,
) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("`{host}` has no address"));
    for address in addresses {
        match timeout(PER_ADDRESS, dial(address)).await {
            Ok(connected) => match connected.and_then(not_ourselves) {
                Ok(stream) => return set_options(&stream).map(|()| stream),
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
    use rustix::net::sockopt;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpSocket;

    use super::*;

    const HOST: &str = "127.0.0.1";

    fn endpoint(address: SocketAddr) -> Endpoint {
        Endpoint::Tcp { host: address.ip().to_string(), port: address.port() }
    }

    /// An address at which nobody listens; the socket keeps others away.
    fn closed() -> (TcpSocket, SocketAddr) {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
        let address = socket.local_addr().expect("bound");
        (socket, address)
    }

    fn assert_options(stream: &TcpStream, whose: &str) {
        assert!(sockopt::tcp_nodelay(stream).expect("an option"), "{whose}: Nagle is on");
        assert!(sockopt::socket_keepalive(stream).expect("an option"), "{whose}: no keepalive");
        let found = Keepalive {
            idle: sockopt::tcp_keepidle(stream).expect("an option"),
            between: sockopt::tcp_keepintvl(stream).expect("an option"),
            probes: sockopt::tcp_keepcnt(stream).expect("an option"),
        };
        assert_eq!(found, KEEPALIVE, "{whose}");
        let noticed = found.idle + found.between * found.probes;
        assert!(
            noticed <= Duration::from_secs(60),
            "a host that is gone is noticed within a minute, not {noticed:?}"
        );
    }

    #[tokio::test(flavor = "current_thread")]
    async fn both_ends_have_no_delay_and_keepalive_as_promised() {
        let listener = TcpListener::bind((HOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (dialed, accepted) =
            tokio::join!(connect(HOST, [address].into_iter(), TcpStream::connect), accept(&listener));
        assert_options(&dialed.expect("connected"), "dialed");
        assert_options(&accepted.expect("accepted").0, "accepted");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn each_address_of_a_name_is_tried_in_its_turn() {
        let listener = TcpListener::bind((HOST, 0)).await.expect("a port");
        let open = listener.local_addr().expect("bound");
        let (_held, refused) = closed();
        let (_held, last) = closed();
        // Its queue is full: it gives no answer at all.
        let silent = TcpSocket::new_v4().expect("a socket");
        silent.bind(([127, 0, 0, 1], 0).into()).expect("a port");
        let silent = silent.listen(1).expect("listens");
        let mute = silent.local_addr().expect("bound");
        let mut waiting = Vec::new();
        while let Ok(Ok(stream)) = timeout(PER_ADDRESS / 2, TcpStream::connect(mute)).await {
            waiting.push(stream);
        }
        for addresses in
            [&[open][..], &[refused, open], &[refused, last, open], &[mute, open], &[open, refused]]
        {
            let stream =
                connect("node", addresses.iter().copied(), TcpStream::connect).await.expect("one is open");
            assert_eq!(stream.peer_addr().expect("connected"), open, "{addresses:?}");
            assert_options(&stream, "whichever it was");
        }
        let error =
            connect("node", [mute, refused].into_iter(), TcpStream::connect).await.expect_err("none is open");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "what the last one said");
        let error = connect("node", std::iter::empty(), TcpStream::connect).await.expect_err("there is none");
        assert!(error.to_string().contains("`node` has no address"), "{error}");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn bytes_go_both_ways_and_an_end_is_seen_on_every_kind_of_socket() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("node.sock");
        let name = format!("monosign-net-{}", std::process::id());
        let listener = TcpListener::bind((HOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let file = tokio::net::UnixListener::bind(&path).expect("a socket");
        let hidden = tokio::net::UnixListener::bind(format!("\0{name}")).expect("a socket");
        for endpoint in
            [endpoint(address), Endpoint::Unix(path.clone()), Endpoint::UnixAbstract(name.clone())]
        {
            let accepted = async {
                let stream: Box<dyn Stream> = match &endpoint {
                    Endpoint::Tcp { .. } => Box::new(listener.accept().await?.0),
                    Endpoint::Unix(_) => Box::new(file.accept().await?.0),
                    Endpoint::UnixAbstract(_) => Box::new(hidden.accept().await?.0),
                };
                io::Result::Ok(stream)
            };
            let (ours, theirs) = tokio::join!(TokioNet.dial(&endpoint), accepted);
            let (mut ours, mut theirs) = (ours.expect("connected"), theirs.expect("accepted"));
            let mut heard = [0; 3];
            ours.write_all(b"one").await.expect("sent");
            theirs.read_exact(&mut heard).await.expect("heard");
            assert_eq!(&heard, b"one", "{endpoint}");
            theirs.write_all(b"two").await.expect("sent");
            ours.read_exact(&mut heard).await.expect("heard");
            assert_eq!(&heard, b"two", "{endpoint}");
            drop(theirs);
            assert_eq!(ours.read(&mut heard).await.expect("an end"), 0, "{endpoint}");
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn where_nobody_listens_the_answer_is_a_refusal_and_never_ourselves() {
        let (held, address) = closed();
        let error = TokioNet.dial(&endpoint(address)).await.map(drop).expect_err("nobody listens");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        // As when the system picks that very port as the source.
        let meets_itself = async |address| {
            let socket = TcpSocket::new_v4()?;
            socket.bind(address)?;
            socket.connect(address).await
        };
        drop(held);
        let error = connect(HOST, [address].into_iter(), meets_itself).await.expect_err("nobody listens");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        TcpSocket::new_v4().expect("a socket").bind(address).expect("the node's turn");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_listener_takes_connections_and_is_the_only_one_at_its_address() {
        let (held, address) = closed();
        drop(held);
        let at = endpoint(address);
        let mut listener = TokioNet.listen(&at).await.expect("a free port");
        let (dialed, accepted) = tokio::join!(TokioNet.dial(&at), listener.accept());
        dialed.map(drop).expect("connected");
        let (_, from) = accepted.expect("accepted");
        assert!(from.starts_with("127.0.0.1:"), "{from}");
        let error = TokioNet.listen(&at).await.map(drop);
        assert_eq!(error.expect_err("it is taken").kind(), io::ErrorKind::AddrInUse);
        let error = TokioNet.listen(&Endpoint::Unix("x".into())).await.map(drop);
        assert_eq!(error.expect_err("cosigners have tcp").kind(), io::ErrorKind::Unsupported);
    }
}
