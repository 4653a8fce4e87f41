//! The disk under the records.
//!
//! Production does blocking calls on a thread of the file's own, so that a disk that hangs stops one chain's signatures and
//! nothing else: pings, public keys and other chains are served on. Only where nobody else can be waiting, because the process
//! serves one chain to one validator, which asks one thing at a time, are they done at once: that saves two wake-ups of sleeping
//! threads, about a tenth of a signature's time.

use std::any::Any;
use std::cell::{Cell, OnceCell};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::future::ready;
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, mpsc};

use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

use super::{Local, host_claim};
use crate::ops::private_file::{self, PrivateFileError};

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// It must exist; for reading and writing.
    Existing,
    /// It must not exist; made with mode 0600.
    New,
}

/// Whose a name of this host is.
pub enum Claim {
    /// Ours, until this is dropped or the process ends.
    Ours(Box<dyn Any>),
    /// Another's.
    Others(Holder),
}

/// Who holds a name, as far as the kernel tells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Holder {
    /// The process.
    pub process: Option<u32>,
    /// The user that it runs as.
    pub user: Option<u32>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.process, self.user) {
            (Some(process), Some(user)) => write!(f, "process {process} of user {user}"),
            (Some(process), None) => write!(f, "process {process}"),
            _ => f.write_str("a process that cannot be seen from here"),
        }
    }
}

/// Bytes that are wiped on drop.
pub type Secret = Zeroizing<Vec<u8>>;

/// Files by path.
pub trait Disk {
    /// Opens a file.
    fn open<'a>(&'a self, path: &'a Path, how: Open) -> Local<'a, io::Result<Box<dyn DiskFile>>>;

    /// Gives a file a name that nothing has yet; an error of kind `AlreadyExists` if something has.
    fn rename_new<'a>(&'a self, from: &'a Path, to: &'a Path) -> Local<'a, io::Result<()>>;

    /// Takes a name away. Whoever has the file open keeps it.
    fn remove<'a>(&'a self, path: &'a Path) -> Local<'a, io::Result<()>>;

    /// Gives a file another name, replacing what had it.
    fn rename<'a>(&'a self, from: &'a Path, to: &'a Path) -> Local<'a, io::Result<()>>;

    /// Claims a name for this process, which one process of the host can have at a time, whatever becomes of its files. It ends with
    /// the process, however that ends.
    fn claim<'a>(&'a self, name: &'a str) -> Local<'a, io::Result<Claim>>;

    /// Who has claimed a name, if anybody has. Takes nothing.
    fn holder<'a>(&'a self, name: &'a str) -> Local<'a, io::Result<Option<Holder>>>;

    /// Makes the names in a directory durable.
    fn sync_dir<'a>(&'a self, dir: &'a Path) -> Local<'a, io::Result<()>>;

    /// The content of a small file, its first 4 KiB at the most, or `None` if there is none of that name.
    fn read_small<'a>(&'a self, path: &'a Path) -> Local<'a, io::Result<Option<String>>>;

    /// Whether there is a file of that name.
    fn is_there<'a>(&'a self, path: &'a Path) -> Local<'a, io::Result<bool>> {
        Box::pin(async move { Ok(self.read_small(path).await?.is_some()) })
    }

    /// The content of a file that holds a secret, wiped on drop; see [`private_file::read_private`].
    fn read_private<'a>(&'a self, path: &'a Path) -> Local<'a, Result<Secret, PrivateFileError>> {
        Box::pin(async move { private_file::read_private(path) })
    }

    /// The content of a file that need not be private; see [`private_file::read_wiping`].
    fn read_wiping<'a>(&'a self, path: &'a Path) -> Local<'a, Result<Secret, PrivateFileError>> {
        Box::pin(async move { private_file::read_wiping(path) })
    }

    /// Says whether anybody else could be waiting while a call blocks. A disk may use it or not.
    fn others_wait(&self, _others_wait: bool) {}
}

/// An open file.
pub trait DiskFile {
    /// Takes the exclusive lock that other processes respect; false if another holds it.
    fn try_lock(&self) -> Local<'_, io::Result<bool>>;

    /// All bytes of the file, at most `max_len`; longer files are an error of kind `FileTooLarge`.
    fn read_all(&self, max_len: usize) -> Local<'_, io::Result<Vec<u8>>>;

    /// Writes at an offset. Nothing is durable until [`sync_data`](Self::sync_data) returns.
    fn write_at<'a>(&'a self, offset: u64, bytes: &'a [u8]) -> Local<'a, io::Result<()>>;

    /// Brings all written data to stable storage.
    fn sync_data(&self) -> Local<'_, io::Result<()>>;

    /// Whether `path` leads to this file: not if it was renamed, removed or replaced, or a link on the way was changed.
    fn is_at<'a>(&'a self, path: &'a Path) -> Local<'a, io::Result<bool>>;

    /// Writes and syncs, then says whether `path` leads to this file still: one hand-over to the file's thread instead of three.
    fn write_durable_at<'a>(
        &'a self,
        path: &'a Path,
        offset: u64,
        bytes: &'a [u8],
    ) -> Local<'a, io::Result<bool>> {
        Box::pin(async move {
            self.write_durable(offset, bytes).await?;
            self.is_at(path).await
        })
    }

    /// Both at once: one hand-over to the file's thread instead of two.
    fn write_durable<'a>(&'a self, offset: u64, bytes: &'a [u8]) -> Local<'a, io::Result<()>> {
        Box::pin(async move {
            self.write_at(offset, bytes).await?;
            self.sync_data().await
        })
    }
}

const SMALL: u64 = 4096;

/// Files of the operating system.
#[derive(Debug, Clone, Default)]
pub struct StdDisk {
    others_wait: Rc<Cell<bool>>,
}

impl Disk for StdDisk {
    fn open<'a>(&'a self, path: &'a Path, how: Open) -> Local<'a, io::Result<Box<dyn DiskFile>>> {
        Box::pin(async move {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(how == Open::New)
                .mode(0o600)
                .open(path)?;
            let others_wait = Rc::clone(&self.others_wait);
            let thread = OnceCell::new();
            Ok(Box::new(StdFile { file: Arc::new(file), thread, others_wait }) as Box<dyn DiskFile>)
        })
    }

    fn rename_new<'a>(&'a self, from: &'a Path, to: &'a Path) -> Local<'a, io::Result<()>> {
        Box::pin(async move {
            use rustix::fs::{CWD, RenameFlags, renameat_with};
            use rustix::io::Errno;
            match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
                // File systems without this flag: two names for a moment, or after a crash, which does no harm.
                Err(Errno::INVAL | Errno::NOSYS) => {
                    std::fs::hard_link(from, to)?;
                    std::fs::remove_file(from)
                }
                other => Ok(other?),
            }
        })
    }

    fn remove<'a>(&'a self, path: &'a Path) -> Local<'a, io::Result<()>> {
        Box::pin(async move { std::fs::remove_file(path) })
    }

    fn rename<'a>(&'a self, from: &'a Path, to: &'a Path) -> Local<'a, io::Result<()>> {
        Box::pin(async move { std::fs::rename(from, to) })
    }

    fn claim<'a>(&'a self, name: &'a str) -> Local<'a, io::Result<Claim>> {
        Box::pin(async move { host_claim::claim(name) })
    }

    fn holder<'a>(&'a self, name: &'a str) -> Local<'a, io::Result<Option<Holder>>> {
        Box::pin(async move { host_claim::holder(name) })
    }

    fn sync_dir<'a>(&'a self, dir: &'a Path) -> Local<'a, io::Result<()>> {
        Box::pin(async move { File::open(dir)?.sync_all() })
    }

    fn read_small<'a>(&'a self, path: &'a Path) -> Local<'a, io::Result<Option<String>>> {
        let path = path.to_owned();
        let read = move || {
            let file = match File::open(path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                other => other?,
            };
            let mut text = String::new();
            file.take(SMALL).read_to_string(&mut text)?;
            Ok(Some(text))
        };
        Box::pin(async move { spawn_blocking(read).await.map_err(io::Error::other)? })
    }

    fn others_wait(&self, others_wait: bool) {
        self.others_wait.set(others_wait);
    }
}

/// A file, and once others wait, the thread that does its blocking calls in order. The thread ends when this is dropped.
struct StdFile {
    file: Arc<File>,
    thread: OnceCell<mpsc::Sender<Job>>,
    others_wait: Rc<Cell<bool>>,
}

type Job = Box<dyn FnOnce() + Send>;

impl StdFile {
    fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&File) -> io::Result<T> + Send + 'static,
    ) -> Local<'_, io::Result<T>> {
        if !self.others_wait.get() {
            return Box::pin(ready(job(&self.file)));
        }
        let (done, result) = oneshot::channel();
        let file = Arc::clone(&self.file);
        let sent = self.post(Box::new(move || drop(done.send(job(&file)))));
        Box::pin(async move {
            sent?;
            result.await.map_err(|_| io::Error::other("the file's thread is gone"))?
        })
    }

    fn post(&self, job: Job) -> io::Result<()> {
        let jobs = match self.thread.get() {
            Some(jobs) => jobs,
            None => {
                let jobs = start_thread()?;
                self.thread.get_or_init(|| jobs)
            }
        };
        jobs.send(job).map_err(|_| io::Error::other("the file's thread is gone"))
    }
}

#[allow(clippy::disallowed_methods, reason = "the production side of a seam: blocking calls need a thread")]
fn start_thread() -> io::Result<mpsc::Sender<Job>> {
    let (jobs, queue) = mpsc::channel::<Job>();
    std::thread::Builder::new().name("record".into()).stack_size(64 * 1024).spawn(move || {
        for job in queue {
            job();
        }
    })?;
    Ok(jobs)
}

impl DiskFile for StdFile {
    fn try_lock(&self) -> Local<'_, io::Result<bool>> {
        self.run(|file| match file.try_lock() {
            Ok(()) => Ok(true),
            Err(std::fs::TryLockError::WouldBlock) => Ok(false),
            Err(std::fs::TryLockError::Error(error)) => Err(error),
        })
    }

    fn read_all(&self, max_len: usize) -> Local<'_, io::Result<Vec<u8>>> {
        self.run(move |file| {
            let len = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
            if len > max_len {
                let reason = format!("{len} bytes, and {max_len} at the most are expected");
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, reason));
            }
            let mut bytes = vec![0; len];
            file.read_exact_at(&mut bytes, 0)?;
            Ok(bytes)
        })
    }

    fn write_at<'a>(&'a self, offset: u64, bytes: &'a [u8]) -> Local<'a, io::Result<()>> {
        let bytes = Secret::new(bytes.to_vec());
        self.run(move |file| file.write_all_at(&bytes, offset))
    }

    fn sync_data(&self) -> Local<'_, io::Result<()>> {
        self.run(File::sync_data)
    }

    fn write_durable<'a>(&'a self, offset: u64, bytes: &'a [u8]) -> Local<'a, io::Result<()>> {
        // A key file, maybe.
        let bytes = Secret::new(bytes.to_vec());
        self.run(move |file| {
            file.write_all_at(&bytes, offset)?;
            file.sync_data()
        })
    }

    fn is_at<'a>(&'a self, path: &'a Path) -> Local<'a, io::Result<bool>> {
        let path = path.to_owned();
        self.run(move |file| leads_to(&path, file))
    }

    fn write_durable_at<'a>(
        &'a self,
        path: &'a Path,
        offset: u64,
        bytes: &'a [u8],
    ) -> Local<'a, io::Result<bool>> {
        let (path, bytes) = (path.to_owned(), bytes.to_vec());
        self.run(move |file| {
            file.write_all_at(&bytes, offset)?;
            file.sync_data()?;
            leads_to(&path, file)
        })
    }
}

/// Whether a path leads to a file that is open, and no other of the same content.
fn leads_to(path: &Path, file: &File) -> io::Result<bool> {
    let open = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(named) => Ok(open.nlink() > 0 && (open.dev(), open.ino()) == (named.dev(), named.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
