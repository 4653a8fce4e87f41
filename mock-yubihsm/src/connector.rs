//! The HTTP of Yubico's `yubihsm-connector`, with a device behind it.
//!
//! `POST /connector/api` carries one frame each way, `GET /connector/status` says what is plugged in. `POST /mock/FAULT` is
//! ours: see [`Fault`]. Idle connections are closed after 5 s, as the real one does. Clock, sleep and threads are here and nowhere else in this crate.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::device::Device;
use crate::device::codes::command;
use crate::faults::{Fault, Faults, Lasting, Once};
use crate::latency::Latency;

/// A connector that serves until it is dropped, each connection on a thread of its own.
pub struct Connector {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    device: Mutex<Device>,
    faults: Mutex<Faults>,
    changed: Condvar,
    latency: Latency,
    started: Instant,
    stopped: Mutex<bool>,
    open: Mutex<Vec<Open>>,
}

/// A connection, and whether a request on it is being answered.
struct Open {
    stream: TcpStream,
    is_busy: Arc<AtomicBool>,
}

/// How far apart the two segments of a split answer are: more than the kernel would join them over.
const BETWEEN_SEGMENTS: Duration = Duration::from_millis(20);
/// The longest request, head and body.
const MAX_REQUEST: usize = 16 * 1024;

impl Connector {
    /// Listens and serves.
    ///
    /// # Errors
    /// If the address cannot be listened on.
    #[allow(clippy::disallowed_methods)] // The shell around the device: its clock and its threads.
    pub fn serve(address: impl Into<SocketAddr>, device: Device, latency: Latency) -> io::Result<Self> {
        let listener = TcpListener::bind(address.into())?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            device: Mutex::new(device),
            faults: Mutex::default(),
            changed: Condvar::new(),
            latency,
            started: Instant::now(),
            stopped: Mutex::new(false),
            open: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accept(&listener, &accepting));
        Ok(Self { address, shared })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The device, which does nothing else meanwhile.
    pub fn device(&self) -> MutexGuard<'_, Device> {
        lock(&self.shared.device)
    }

    /// Begins or ends a fault.
    pub fn set(&self, fault: Fault) {
        self.shared.set(fault);
    }
}

impl Drop for Connector {
    fn drop(&mut self) {
        *lock(&self.shared.stopped) = true;
        self.shared.set(Fault::Lasting(Lasting::Hang, false));
        for connection in lock(&self.shared.open).drain(..) {
            let _ = connection.stream.shutdown(Shutdown::Both);
        }
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn set(&self, fault: Fault) {
        let mut faults = lock(&self.faults);
        match fault {
            Fault::Once(once) => faults.once.push_back(once),
            Fault::Delay(delay) => faults.delay = delay,
            Fault::IdleClose(after) => faults.idle_close = after,
            Fault::CloseIdle => self.close_idle(),
            Fault::Lasting(Lasting::Split, on) => faults.split = on,
            Fault::Lasting(Lasting::Hang, on) => faults.hang = on,
            Fault::Lasting(Lasting::Unplug, on) => {
                faults.unplugged = on;
                if !on {
                    lock(&self.device).power_cycle();
                }
            }
            Fault::Lasting(Lasting::ListHosts, on) => faults.lists_hosts = on,
            Fault::Lasting(Lasting::SignWrongly, on) => lock(&self.device).set_signs_wrongly(on),
        }
        self.changed.notify_all();
    }

    fn close_idle(&self) {
        lock(&self.open).retain(|connection| {
            let is_busy = connection.is_busy.load(Ordering::SeqCst);
            if !is_busy {
                let _ = connection.stream.shutdown(Shutdown::Both);
            }
            is_busy
        });
    }

    /// Passes a frame to the device, or not. `None` ends the connection.
    #[allow(clippy::disallowed_methods)] // As above.
    fn exchange(&self, request: &[u8]) -> Option<Reply> {
        let (once, split, unplugged, delay) = {
            let faults = lock(&self.faults);
            let mut faults =
                self.changed.wait_while(faults, |faults| faults.hang).unwrap_or_else(PoisonError::into_inner);
            (faults.once.pop_front(), faults.split, faults.unplugged, faults.delay)
        };
        if unplugged {
            return Some(Reply::error("500 Internal Server Error"));
        }
        if once == Some(Once::LoseRequest) {
            return None;
        }
        let mut device = lock(&self.device);
        if once == Some(Once::PowerCycle) {
            device.power_cycle();
        }
        // The command itself is encrypted, and what a host does in sessions is to sign. A session message holds session number,
        // MAC, and at least the head of the command and the number of the key.
        let takes = self.latency.of(guess(request), request.len().saturating_sub(20));
        thread::sleep(takes + delay);
        let mut body = device.handle(self.started.elapsed(), request);
        drop(device);
        match once {
            Some(Once::LoseAnswer) => return None,
            Some(Once::Truncate) => body.truncate(body.len() - 1),
            _ => {}
        }
        Some(Reply { status: "200 OK", content: BYTES, body, split })
    }

    fn status(&self, address: SocketAddr) -> Reply {
        let status = if lock(&self.faults).unplugged { "NO_DEVICE" } else { "OK" };
        let (id, ip, port) = (std::process::id(), address.ip(), address.port());
        let body = format!("status={status}\nserial=*\nversion=3.0.5\npid={id}\naddress={ip}\nport={port}\n");
        Reply { status: "200 OK", content: TEXT, body: body.into_bytes(), split: false }
    }

    /// What a frame is answered, by the rules of yubihsm-connector 3 (`api.go`). `None` ends the connection.
    fn api(&self, request: &Request) -> Option<Reply> {
        // With the three bytes that the connector lets pass above what the device takes.
        let longest = lock(&self.device).firmware().max_frame() + 3;
        match request.body.len() {
            3.. if request.body.len() <= longest => self.exchange(&request.body),
            _ => Some(Reply::error("400 Bad Request")),
        }
    }

    /// Whether the connector refuses a host that is not on its list (`--enable-host-header-allowlist`).
    fn refuses(&self, request: &Request) -> bool {
        let host = match request.host.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => host,
            _ => &request.host,
        };
        lock(&self.faults).lists_hosts && !["localhost", "localhost.", "127.0.0.1", "[::1]"].contains(&host)
    }
}

/// What bodies are.
const BYTES: &str = "application/octet-stream";
const TEXT: &str = "text/plain; charset=utf-8";

impl Reply {
    /// As Go's `http.Error`: the words of the status, and a line feed.
    fn error(status: &'static str) -> Self {
        let words = status.split_once(' ').map_or("", |(_, words)| words);
        Self { status, content: TEXT, body: format!("{words}\n").into_bytes(), split: false }
    }
}

/// What the latency is taken of.
fn guess(request: &[u8]) -> u8 {
    match request {
        // A padded block for the shortest commands, three or more for a vote.
        [command::SESSION_MESSAGE, ..] if request.len() >= 3 + 1 + 48 + 8 => command::SIGN_EDDSA,
        [code, ..] => *code,
        [] => 0,
    }
}

struct Reply {
    status: &'static str,
    content: &'static str,
    body: Vec<u8>,
    split: bool,
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if *lock(&shared.stopped) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let is_busy = Arc::new(AtomicBool::new(false));
        if let Ok(handle) = stream.try_clone() {
            lock(&shared.open).push(Open { stream: handle, is_busy: Arc::clone(&is_busy) });
        }
        let shared = Arc::clone(shared);
        #[allow(clippy::disallowed_methods)] // As above.
        thread::spawn(move || {
            let _ = serve(&stream, &is_busy, &shared);
            let _ = stream.shutdown(Shutdown::Both);
            lock(&shared.open).retain(|open| !Arc::ptr_eq(&open.is_busy, &is_busy));
        });
    }
}

fn serve(mut stream: &TcpStream, is_busy: &AtomicBool, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    loop {
        stream.set_read_timeout(lock(&shared.faults).idle_close)?;
        let Some(request) = read(stream, &mut buffer)? else { return Ok(()) };
        is_busy.store(true, Ordering::SeqCst);
        let reply = match (request.method.as_str(), request.path.as_str()) {
            ("POST", path) if path.starts_with("/mock/") => control(shared, &path["/mock/".len()..]),
            _ if shared.refuses(&request) => Reply::error("403 Forbidden"),
            ("POST", "/connector/api") => match shared.api(&request) {
                Some(reply) => reply,
                None => return Ok(()),
            },
            ("GET", "/connector/status") => shared.status(stream.local_addr()?),
            (_, "/connector/api" | "/connector/status") => Reply::error("405 Method Not Allowed"),
            _ => Reply {
                status: "404 Not Found",
                content: TEXT,
                body: b"404 page not found\n".to_vec(),
                split: false,
            },
        };
        // Before the answer is out: whoever has it may close what is idle.
        is_busy.store(false, Ordering::SeqCst);
        write(&mut stream, &reply)?;
    }
}

fn control(shared: &Shared, name: &str) -> Reply {
    match name.parse() {
        Ok(fault) => {
            shared.set(fault);
            Reply { status: "200 OK", content: TEXT, body: Vec::new(), split: false }
        }
        Err(error) => {
            let body = format!("{error}\n").into_bytes();
            Reply { status: "400 Bad Request", content: TEXT, body, split: false }
        }
    }
}

struct Request {
    method: String,
    path: String,
    host: String,
    body: Vec<u8>,
}

/// The next request, or `None` at the end of the connection. `buffer` keeps what was read beyond it.
fn read(mut stream: &TcpStream, buffer: &mut Vec<u8>) -> io::Result<Option<Request>> {
    loop {
        if let Some((request, len)) = parse(buffer)? {
            buffer.drain(..len);
            return Ok(Some(request));
        }
        if buffer.len() > MAX_REQUEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk)? {
            0 => return Ok(None),
            n => buffer.extend_from_slice(&chunk[..n]),
        }
    }
}

/// The request at the front of what was read, and its length, once all of it is there.
fn parse(bytes: &[u8]) -> io::Result<Option<(Request, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Request::new(&mut headers);
    let parsed = head.parse(bytes).map_err(io::Error::other)?;
    let httparse::Status::Complete(start) = parsed else { return Ok(None) };
    let header = |name: &str| {
        let header = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(header.value).ok()
    };
    let len = header("content-length").and_then(|text| text.parse().ok());
    let host = header("host").unwrap_or_default().to_owned();
    let end = start + len.unwrap_or(0).min(MAX_REQUEST);
    let Some(body) = bytes.get(start..end) else { return Ok(None) };
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    let request = Request { method: text(head.method), path: text(head.path), host, body: body.to_vec() };
    Ok(Some((request, end)))
}

fn write(stream: &mut impl Write, reply: &Reply) -> io::Result<()> {
    let len = reply.body.len();
    let head = format!(
        "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {len}\r\n\r\n",
        reply.status, reply.content
    );
    if reply.split {
        stream.write_all(head.as_bytes())?;
        #[allow(clippy::disallowed_methods)] // As above.
        thread::sleep(BETWEEN_SEGMENTS);
        return stream.write_all(&reply.body);
    }
    let mut whole = head.into_bytes();
    whole.extend_from_slice(&reply.body);
    stream.write_all(&whole)
}

/// A thread that panicked leaves nothing half done that matters to a test.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
