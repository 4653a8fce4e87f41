//! Stands between the `yubihsm` crate and a connector's HTTP, in this process.
//!
//! The crate's own HTTP waits for 20 s whatever it is told, and garbles an answer that comes in pieces. Here are real deadlines, an
//! answer is read whole and handed on in one write, and what is no answer ends the connection. It sees ciphertext only, as the
//! connector does.
//!
//! A request is written only into a connection that was of use just now and has nothing to read: a connector closes those that are idle
//! (yubihsm-connector 3 after 5 s), and a request that goes into one of these is lost, and with it the session.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs as _};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A listener on loopback that passes requests on to a connector.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// What the connector failed at last. The crate only sees that its connection has ended.
#[derive(Clone)]
pub struct ConnectorFailure(Arc<Shared>);

struct Shared {
    host: String,
    port: u16,
    timeout: Duration,
    sessions: AtomicU64,
    failure: Mutex<Option<String>>,
    stopped: AtomicBool,
}

/// The longest request or answer, head and body. A frame of the device has 2 KiB, or 3 with the newest firmware.
const MAX_MESSAGE: usize = 16 * 1024;
/// How long a connection may have been idle. Less than half of what any connector allows.
const IDLE: Duration = Duration::from_secs(2);
/// What a device answers when it opens a session: Create Session, with the bit of an answer.
const SESSION_CREATED: u8 = 0x83;

impl Proxy {
    /// Begins to listen.
    ///
    /// # Errors
    /// If there is no port or no thread.
    pub fn start(host: &str, port: u16, timeout: Duration) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            host: host.to_owned(),
            port,
            timeout,
            sessions: AtomicU64::new(0),
            failure: Mutex::new(None),
            stopped: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        start_thread(move || accept(&listener, &accepting))?;
        Ok(Self { address, shared })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many sessions the device has opened through it.
    pub fn sessions(&self) -> u64 {
        self.shared.sessions.load(Ordering::Relaxed)
    }

    /// Where its connector's failures are told.
    pub fn failure(&self) -> ConnectorFailure {
        ConnectorFailure(Arc::clone(&self.shared))
    }
}

impl ConnectorFailure {
    /// The last one, which is told once.
    pub fn take(&self) -> Option<String> {
        self.0.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What a connector says instead of an answer of its device.
#[derive(Debug, thiserror::Error)]
#[error("says {0} {words}", words = self.told().0)]
struct Status(u16);

impl Status {
    /// The words of the status, and what it means.
    fn told(&self) -> (&'static str, &'static str) {
        let is_none = "it is no yubihsm-connector, or something stands between";
        match self.0 {
            400 => ("Bad Request", is_none),
            403 => (
                "Forbidden",
                "it was started with --enable-host-header-allowlist, and this host is not on the list",
            ),
            404 => ("Not Found", is_none),
            405 => ("Method Not Allowed", is_none),
            500 => (
                "Internal Server Error",
                "it does not reach its device. Plug it in, and end what else uses it",
            ),
            _ => ("and no answer", is_none),
        }
    }
}

impl Shared {
    fn fails(&self, error: &io::Error) {
        let Self { host, port, timeout, .. } = self;
        let status = error.get_ref().and_then(|inner| inner.downcast_ref::<Status>());
        let what = match error.kind() {
            _ if status.is_some() => {
                status.map(|status| format!("{status}: {}", status.told().1)).unwrap_or_default()
            }
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                format!("gave no answer within {timeout:?}")
            }
            io::ErrorKind::UnexpectedEof => "closed the connection and gave no answer".into(),
            io::ErrorKind::InvalidData | io::ErrorKind::Other => "gave an answer that is none".into(),
            _ => format!("cannot be reached: {error}"),
        };
        let failure = format!("the connector at {host}:{port} {what}");
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

#[allow(clippy::disallowed_methods, reason = "part of a blocking driver, on the production side of a seam")]
fn start_thread(body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name("yubihsm-http".into()).stack_size(128 * 1024).spawn(body).map(drop)
}

/// Each connection on a thread of its own, so that one that is forgotten stops no other. A connection ends with its client.
fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        if shared.stopped.load(Ordering::Relaxed) {
            return;
        }
        let Ok(client) = client else { continue };
        let shared = Arc::clone(shared);
        let _ = start_thread(move || {
            // Without an answer the connection ends, and the crate knows at once.
            let _ = serve(&client, &shared);
            let _ = client.shutdown(Shutdown::Both);
        });
    }
}

fn serve(mut client: &TcpStream, shared: &Shared) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut upstream = None;
    let mut buffer = Vec::with_capacity(MAX_MESSAGE);
    loop {
        let Some(request) = read_whole(client, &mut buffer, request_len)? else { return Ok(()) };
        let answered = ask(shared, upstream.take(), &request, &mut buffer);
        let (connector, answer) = answered.inspect_err(|error| shared.fails(error))?;
        if body_of_answer(&answer).first() == Some(&SESSION_CREATED) {
            shared.sessions.fetch_add(1, Ordering::Relaxed);
        }
        client.write_all(&answer)?;
        upstream = Some(connector);
    }
}

/// A connection to the connector, and when its last answer came.
struct Upstream {
    stream: TcpStream,
    used: Instant,
}

impl Upstream {
    /// Whether a request may be written into it. What can be read is its end, or an answer that nobody has asked for.
    fn is_of_use(&self) -> bool {
        let is_quiet = || {
            self.stream.set_nonblocking(true)?;
            let peeked = self.stream.peek(&mut [0]);
            self.stream.set_nonblocking(false)?;
            Ok::<_, io::Error>(matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock))
        };
        now().duration_since(self.used) <= IDLE && is_quiet().unwrap_or(false)
    }
}

#[allow(clippy::disallowed_methods, reason = "part of a blocking driver, on the production side of a seam")]
fn now() -> Instant {
    Instant::now()
}

fn ask(
    shared: &Shared,
    upstream: Option<Upstream>,
    request: &[u8],
    buffer: &mut Vec<u8>,
) -> io::Result<(Upstream, Vec<u8>)> {
    let stream = match upstream.filter(Upstream::is_of_use) {
        Some(upstream) => upstream.stream,
        None => connect(shared)?,
    };
    (&stream).write_all(request)?;
    let answer = read_whole(&stream, buffer, answer_len)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok((Upstream { stream, used: now() }, in_one_piece(answer)?))
}

fn connect(shared: &Shared) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in (shared.host.as_str(), shared.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, shared.timeout) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(shared.timeout))?;
                stream.set_write_timeout(Some(shared.timeout))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// One whole message, or `None` at the end of the connection. `len_of` tells the length once the head is there.
fn read_whole(
    mut stream: &TcpStream,
    buffer: &mut Vec<u8>,
    len_of: fn(&[u8]) -> io::Result<Option<usize>>,
) -> io::Result<Option<Vec<u8>>> {
    buffer.clear();
    let mut chunk = [0; 4096];
    loop {
        match stream.read(&mut chunk)? {
            0 if buffer.is_empty() => return Ok(None),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => buffer.extend_from_slice(&chunk[..n]),
        }
        match len_of(buffer)? {
            Some(len) if buffer.len() == len => return Ok(Some(buffer.clone())),
            // More than was announced: whatever it is, it is no answer to what was asked.
            Some(len) if buffer.len() > len => return Err(io::ErrorKind::InvalidData.into()),
            _ if buffer.len() > MAX_MESSAGE => return Err(io::ErrorKind::InvalidData.into()),
            _ => {}
        }
    }
}

fn request_len(bytes: &[u8]) -> io::Result<Option<usize>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Request::new(&mut headers);
    let parsed = head.parse(bytes).map_err(io::Error::other)?;
    total_len(parsed, head.headers)
}

fn answer_len(bytes: &[u8]) -> io::Result<Option<usize>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut headers);
    let parsed = head.parse(bytes).map_err(io::Error::other)?;
    if parsed.is_complete() && head.code != Some(200) {
        return Err(io::Error::other(Status(head.code.unwrap_or_default())));
    }
    match parsed {
        httparse::Status::Complete(start) if is_chunked(head.headers) => {
            chunks(&bytes[start..], |_| ()).map(|len| len.map(|len| start + len))
        }
        _ => total_len(parsed, head.headers),
    }
}

fn is_chunked(headers: &[httparse::Header<'_>]) -> bool {
    let is_it = |header: &httparse::Header<'_>| {
        header.name.eq_ignore_ascii_case("transfer-encoding") && header.value.eq_ignore_ascii_case(b"chunked")
    };
    headers.iter().any(is_it)
}

/// Goes through chunks, and tells their length with all that stands around them, once the last one is there. The connector sends none;
/// what stands between may.
fn chunks(bytes: &[u8], mut chunk: impl FnMut(&[u8])) -> io::Result<Option<usize>> {
    let mut at = 0;
    loop {
        let parsed = httparse::parse_chunk_size(&bytes[at..]).map_err(|_| io::ErrorKind::InvalidData)?;
        let httparse::Status::Complete((begin, len)) = parsed else { return Ok(None) };
        let len = usize::try_from(len).ok().filter(|len| *len <= MAX_MESSAGE);
        let begin = at + begin;
        let end = begin + len.ok_or(io::ErrorKind::InvalidData)?;
        let Some(ending) = bytes.get(end..end + 2) else { return Ok(None) };
        // What follows the last one is a line that is empty: nobody needs trailers.
        if ending != b"\r\n" {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if begin == end {
            return Ok(Some(end + 2));
        }
        chunk(&bytes[begin..end]);
        at = end + 2;
    }
}

/// An answer as the crate can read it.
fn in_one_piece(answer: Vec<u8>) -> io::Result<Vec<u8>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut headers);
    let parsed = head.parse(&answer).map_err(io::Error::other)?;
    let httparse::Status::Complete(start) = parsed else { return Err(io::ErrorKind::InvalidData.into()) };
    if !is_chunked(head.headers) {
        return Ok(answer);
    }
    let mut body = Vec::new();
    chunks(&answer[start..], |chunk| body.extend_from_slice(chunk))?;
    let mut whole = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    whole.extend(body);
    Ok(whole)
}

fn total_len(parsed: httparse::Status<usize>, headers: &[httparse::Header<'_>]) -> io::Result<Option<usize>> {
    let httparse::Status::Complete(head) = parsed else { return Ok(None) };
    let header = headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let len = header.and_then(|header| std::str::from_utf8(header.value).ok());
    let len: usize = len.and_then(|len| len.trim().parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    if len > MAX_MESSAGE {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(Some(head + len))
}

fn body_of_answer(answer: &[u8]) -> &[u8] {
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n");
    head.map_or(&[], |head| &answer[head + 4..])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection as the proxy keeps it, and the connector's end of it.
    fn kept(idle: Duration) -> (Upstream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let used = now().checked_sub(idle).unwrap();
        (Upstream { stream, used }, listener.accept().unwrap().0)
    }

    #[test]
    fn an_answer_in_chunks_is_put_together_and_what_is_none_is_refused() {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let whole = format!("{head}3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n").into_bytes();
        for len in 1..whole.len() {
            assert_eq!(answer_len(&whole[..len]).unwrap(), None, "{len}");
        }
        assert_eq!(answer_len(&whole).unwrap(), Some(whole.len()));
        let one = in_one_piece(whole).unwrap();
        assert_eq!(one, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde");
        assert_eq!(in_one_piece(one.clone()).unwrap(), one);
        for bad in ["zz\r\n", "3\r\nabcxx", "fffffff\r\n", "0\r\nTrailer: x\r\n\r\n"] {
            assert!(answer_len(format!("{head}{bad}").as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_a_connector_says_instead_of_an_answer_is_told_with_what_to_do() {
        for (code, words) in [
            (500, "says 500 Internal Server Error: it does not reach its device. Plug it in"),
            (403, "says 403 Forbidden: it was started with --enable-host-header-allowlist"),
            (502, "says 502 and no answer: it is no yubihsm-connector"),
        ] {
            let answer = format!("HTTP/1.1 {code} X\r\nContent-Length: 0\r\n\r\n");
            let proxy = Proxy::start("localhost", 1, Duration::from_secs(1)).unwrap();
            proxy.shared.fails(&answer_len(answer.as_bytes()).unwrap_err());
            let told = proxy.failure().take().unwrap();
            assert!(told.starts_with(&format!("the connector at localhost:1 {words}")), "{told}");
        }
    }

    #[test]
    fn a_connection_is_of_use_while_it_was_used_just_now_and_has_nothing_to_read() {
        let (fresh, _connector) = kept(Duration::ZERO);
        assert!(fresh.is_of_use());
        // It blocks as before.
        fresh.stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        assert!((&fresh.stream).read(&mut [0]).is_err() && fresh.is_of_use());
        let (idle, _connector) = kept(IDLE + Duration::from_millis(1));
        assert!(!idle.is_of_use(), "a connector may be closing it");
        let (closed, connector) = kept(Duration::ZERO);
        drop(connector);
        assert!(!closed.is_of_use(), "closed");
        let (stray, mut connector) = kept(Duration::ZERO);
        connector.write_all(b"HTTP/1.1 408").unwrap();
        assert!(!stray.is_of_use(), "an answer that nobody asked for");
    }
}
