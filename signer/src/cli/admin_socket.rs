//! The sockets on which a running signer is asked by commands on its host, and the commands' end of them.
//!
//! What always holds:
//!
//! * nobody but the signer's own user and root is served, and a command says nothing to a process of another user: whoever can write in the
//!   directory can put a socket of their own there;
//! * the socket has its mode before it has a name, and its name is taken over only from a signer that is gone;
//! * so many are served at once, and each for so long: others wait.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, fchmod, flock};
use rustix::net::sockopt::socket_peercred;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, UCred, bind, listen, socket_with};
use rustix::process::{Uid, geteuid};
use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{sleep, timeout};

use super::Failure;

/// How long a request may take to come.
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// How long its answer may take: a busy machine tries a passphrase for many seconds.
const ANSWER_TIME: Duration = Duration::from_secs(60);
/// How long it takes until connections are accepted again after an error, as without descriptors.
const PAUSE: Duration = Duration::from_secs(1);
/// How many wait to be served.
const BACKLOG: i32 = 16;
/// How long another process is waited for that makes a socket in the same directory.
const PATIENCE: Duration = Duration::from_secs(1);

/// A listening socket; it ends and its file goes when this is dropped.
#[derive(Debug)]
pub(super) struct AdminSocket {
    task: JoinHandle<()>,
    path: PathBuf,
    /// Device and inode, by which our file is known.
    file: (u64, u64),
}

impl AdminSocket {
    /// Listens on a path, and serves so many at once.
    ///
    /// # Errors
    /// What is in the way there. The caller says what to do about it.
    pub(super) fn bind<F: Future<Output = io::Result<()>> + 'static>(
        path: &Path,
        at_once: usize,
        serve: impl Fn(tokio::net::UnixStream) -> F + 'static,
    ) -> Result<Self, CannotListen> {
        let at = |why: String| CannotListen { path: path.into(), why };
        let listener = listen_on(path).map_err(|e| at(e.to_string()))?;
        let listener = UnixListener::from_std(listener.into()).map_err(|e| at(e.to_string()))?;
        let file = identity(path).map_err(|e| at(e.to_string()))?;
        Ok(Self { task: spawn_local(accept(listener, at_once, serve)), path: path.into(), file })
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        self.task.abort();
        let _lock = lock_directory(&self.path);
        if identity(&self.path).is_ok_and(|file| file == self.file) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A socket that cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on `{}`: {why}", path.display())]
pub(super) struct CannotListen {
    path: PathBuf,
    why: String,
}

/// A new listening socket of mode 0600.
fn listen_on(path: &Path) -> io::Result<OwnedFd> {
    let address = SocketAddrUnix::new(path)?;
    let _lock = lock_directory(path);
    remove_stale(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // Linux gives the file the mode that the socket has when it is bound (`net/unix/af_unix.c`, `unix_bind_bsd`).
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Keeps others of our kind from making a socket in the directory at the same time: one that has its name and does not listen yet looks like
/// one that is left over.
fn lock_directory(path: &Path) -> Option<File> {
    let directory = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let directory = File::open(directory).ok()?;
    let began = began();
    // Anybody who can read the directory can hold this lock, so it must not keep the signer from its start.
    while flock(&directory, FlockOperation::NonBlockingLockExclusive).is_err() {
        if began.elapsed() > PATIENCE {
            return None;
        }
        wait_a_moment();
    }
    Some(directory)
}

#[allow(clippy::disallowed_methods, reason = "before anything is served, and nothing that is simulated")]
fn began() -> Instant {
    Instant::now()
}

#[allow(clippy::disallowed_methods, reason = "as above")]
fn wait_a_moment() {
    std::thread::sleep(Duration::from_millis(5));
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

/// Removes the socket of a signer that is gone, and nothing else.
fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {}
        Ok(_) => return Err(io::Error::other("something that is no socket is there")),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    }
    match UnixStream::connect(path) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(e) => Err(e),
        Ok(stream) => Err(io::Error::other(match peer(&stream) {
            Ok(owner) => format!("another process listens there ({})", described(owner)),
            Err(_) => "another process listens there".into(),
        })),
    }
}

async fn accept<F: Future<Output = io::Result<()>> + 'static>(
    listener: UnixListener,
    at_once: usize,
    serve: impl Fn(tokio::net::UnixStream) -> F,
) {
    let places = Arc::new(Semaphore::new(at_once));
    loop {
        let accepted = listener.accept().await;
        let stream = match accepted.and_then(|(stream, _)| for_us(&stream).map(|()| stream)) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!("admin socket: {error}");
                // Without a descriptor for it, a connection stays in the queue, and would be accepted in vain without end.
                if error.kind() != io::ErrorKind::PermissionDenied {
                    sleep(PAUSE).await;
                }
                continue;
            }
        };
        // Never closed, so it always comes.
        let place = Arc::clone(&places).acquire_owned().await;
        let request = serve(stream);
        spawn_local(async move {
            let _place = place;
            match timeout(ANSWER_TIME, request).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!("admin socket: {error}"),
                Err(_) => tracing::warn!("admin socket: no answer within {ANSWER_TIME:?}"),
            }
        });
    }
}

/// Waits for a request, but not for one that does not come.
pub(super) async fn heard<T>(request: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late =
        || io::Error::new(io::ErrorKind::TimedOut, format!("nothing was asked within {REQUEST_TIME:?}"));
    timeout(REQUEST_TIME, request).await.map_err(|_| late())?
}

/// That who has connected is root, or the user that the signer runs as.
fn for_us(stream: &tokio::net::UnixStream) -> io::Result<()> {
    let peer = peer(stream)?;
    if is_trusted(peer.uid, &[geteuid()]) {
        return Ok(());
    }
    let text = format!(
        "{} was turned away: it is neither root nor the user that the signer runs as",
        described(peer)
    );
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}

/// Whether a process of this user may be at the other end.
fn is_trusted(found: Uid, users: &[Uid]) -> bool {
    found.is_root() || users.contains(&found)
}

fn peer(stream: &impl AsFd) -> io::Result<UCred> {
    Ok(socket_peercred(stream)?)
}

fn described(UCred { pid, uid, .. }: UCred) -> String {
    format!("process {} of user {}", pid.as_raw_nonzero(), uid.as_raw())
}

/// Connects to a running signer. It must be one of this user, of root, or of the owner of `secret`, the file that it has read.
///
/// # Errors
/// Nobody listens there, or somebody else does.
pub(super) fn connect(path: &Path, secret: Option<&Path>, hint: &str) -> Result<UnixStream, Failure> {
    let at = path.display();
    let cannot = |e: io::Error| Failure::new(format!("cannot reach a signer at `{at}`: {e}\nhint: {hint}"));
    let stream = UnixStream::connect(path).map_err(cannot)?;
    if let Err(server) = is_ours(&stream, secret)? {
        return Err(Failure::for_safety(format!(
            "{server} listens on `{at}`, and it is none of ours: nothing was sent\n\
             hint: find out whose it is; `admin_socket` belongs in a directory that only the signer's user can write"
        )));
    }
    // A signer that is stopped must not hold the command for ever.
    stream.set_read_timeout(Some(ANSWER_TIME))?;
    stream.set_write_timeout(Some(REQUEST_TIME))?;
    Ok(stream)
}

/// Whether a process of this user, of root, or of the owner of `secret` is at the other end; if not, which one is.
fn is_ours(stream: &UnixStream, secret: Option<&Path>) -> io::Result<Result<(), String>> {
    let server = peer(stream)?;
    let owner = secret.and_then(|file| fs::metadata(file).ok()).map(|file| Uid::from_raw(file.uid()));
    let users: Vec<Uid> = [Some(geteuid()), owner].into_iter().flatten().collect();
    Ok(if is_trusted(server.uid, &users) { Ok(()) } else { Err(described(server)) })
}

/// Why a signer is not asked.
pub(super) enum NoSigner {
    /// None listens there.
    Gone,
    /// One may run, and cannot be asked.
    Other(String),
}

/// The same as [`connect`], for a look that must end: it waits for nothing longer than `patience`.
pub(super) fn reach(path: &Path, secret: Option<&Path>, patience: Duration) -> Result<UnixStream, NoSigner> {
    let at = path.display();
    let other = |why: String| NoSigner::Other(format!("`{at}`: {why}"));
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => NoSigner::Gone,
        // A queue that is full: whoever listens is busy, or hangs.
        io::ErrorKind::WouldBlock => other("the signer there accepts nobody".into()),
        _ => other(error.to_string()),
    };
    let connected = || -> io::Result<UnixStream> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        let stream = UnixStream::from(socket);
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(patience))?;
        Ok(stream)
    };
    let stream = connected().map_err(failed)?;
    match is_ours(&stream, secret) {
        Ok(Ok(())) => Ok(stream),
        Ok(Err(server)) => Err(other(format!("{server} listens there, and it is none of ours"))),
        Err(error) => Err(other(error.to_string())),
    }
}

/// What keeps a socket from being made at a path, as far as a look can tell.
pub(super) fn obstacle(path: &Path) -> Option<String> {
    if let Err(error) = SocketAddrUnix::new(path) {
        return Some(format!("`{}`: {}", path.display(), io::Error::from(error)));
    }
    let directory = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let may = rustix::fs::accessat(
        rustix::fs::CWD,
        directory,
        rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK,
        rustix::fs::AtFlags::EACCESS,
    );
    if let Err(error) = may {
        return Some(format!("`{}`: {}", directory.display(), io::Error::from(error)));
    }
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            Some(format!("`{}`: something that is no socket is there", path.display()))
        }
        _ => None,
    }
}
