//! What one process sees of a disk: the seams, with latency, crash points and faults around each effect.

use std::cell::RefMut;
use std::future::pending;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use monosign::ops::private_file::PrivateFileError;
use monosign::seams::{Claim, Disk, DiskFile, Holder, Local, Open, Secret, StdDisk};
use rustix::io::Errno;
use tokio::sync::Mutex;
use tokio::task::spawn_local;
use tokio::time::sleep;

use super::content::Content;
use super::faults;
use super::names::{File, Names};
use super::points::Op;
use super::{HOME, HostDisk, SLOW};
use crate::scenario::DiskFault;

/// How a file begins that age has sealed. Its length is drawn by age, from entropy that no seed gives, and what a run does must not
/// depend on it.
const SEALED: &[u8] = b"-----BEGIN AGE";
const SEALED_LEN: usize = 2048;

/// As the product's: see `read_small`.
const SMALL: usize = 4096;

/// A process on a host.
#[derive(Clone)]
pub(super) struct Process {
    disk: Rc<HostDisk>,
    incarnation: u64,
}

/// One operation, as it is traced.
#[derive(Clone, Copy)]
struct Asked<'a> {
    op: Op,
    path: &'a Path,
    offset: u64,
    len: usize,
}

impl<'a> Asked<'a> {
    fn of(op: Op, path: &'a Path) -> Self {
        Self { op, path, offset: 0, len: 0 }
    }
}

impl Process {
    pub(super) fn new(disk: Rc<HostDisk>) -> Self {
        let incarnation = disk.incarnation.get();
        Self { disk, incarnation }
    }

    /// Does an operation: half its latency, a crash point, the effect, a crash point, the other half. `effect` is told whether the
    /// fault of the moment allows it, and knows what the operation leaves behind if not.
    async fn operate<T>(
        &self,
        asked: Asked<'_>,
        effect: impl FnOnce(&mut Names, Result<(), Errno>) -> io::Result<T>,
    ) -> io::Result<T> {
        self.live().await;
        let latency = self.latency();
        self.pause(latency / 2).await;
        self.crash_point(asked.op.before()).await;
        let result = self.take_effect(asked, effect);
        self.crash_point(asked.op.after()).await;
        self.pause(latency - latency / 2).await;
        self.live().await;
        result
    }

    fn take_effect<T>(
        &self,
        asked: Asked<'_>,
        effect: impl FnOnce(&mut Names, Result<(), Errno>) -> io::Result<T>,
    ) -> io::Result<T> {
        let Asked { op, path, offset, len } = asked;
        let disk = &self.disk;
        let fault = disk.fault.get();
        let allowed = faults::allows(fault, op);
        let result = effect(&mut disk.names.borrow_mut(), allowed);
        if let (Err(errno), Err(_)) = (allowed, &result) {
            disk.reach.hit(faults::counter(op, errno));
            if fault == Some(DiskFault::SyncError) {
                disk.set_fault(None);
            }
        }
        disk.trace(op.name(), path, offset, len, result.is_ok());
        result
    }

    fn latency(&self) -> Duration {
        let drawn = self.disk.latency.draw(&mut self.disk.delays.borrow_mut());
        match self.disk.fault.get() {
            Some(DiskFault::Slow) => {
                self.disk.reach.hit("disk slow");
                SLOW.max(drawn)
            }
            _ => drawn,
        }
    }

    /// Takes time, and as long as the disk hangs.
    async fn pause(&self, time: Duration) {
        if !time.is_zero() {
            sleep(time).await;
        }
        while self.disk.fault.get() == Some(DiskFault::Hang) {
            self.disk.reach.hit("disk hung");
            self.disk.fault_changed.notified().await;
        }
    }

    async fn crash_point(&self, name: &'static str) {
        self.live().await;
        if self.disk.points.is_deadly(name) {
            self.disk.reach.hit(name);
            pending().await
        }
    }

    /// What a file of the host holds, which belongs to nobody but its processes.
    async fn read_whole(&self, path: &Path) -> Result<Secret, PrivateFileError> {
        let read = self.operate(Asked::of(Op::ReadSmall, path), |names, allowed| {
            let file = names.find(path)?;
            allowed?;
            Ok(Secret::new(file.borrow().cached().to_vec()))
        });
        read.await.map_err(|error| PrivateFileError::Read {
            path: path.into(),
            reason: error.to_string(),
            kind: error.kind(),
        })
    }

    /// Never returns in a dead process.
    async fn live(&self) {
        if self.is_dead() {
            pending().await
        }
    }

    fn is_dead(&self) -> bool {
        self.disk.incarnation.get() != self.incarnation || self.disk.points.hit().is_some()
    }
}

impl Disk for Process {
    fn open<'a>(&'a self, path: &'a Path, how: Open) -> Local<'a, io::Result<Box<dyn DiskFile>>> {
        Box::pin(async move {
            let op = match how {
                Open::Existing => Op::Open,
                Open::New => Op::Create,
            };
            let open = |names: &mut Names, allowed: Result<(), Errno>| match (how, names.find(path)) {
                (Open::New, Ok(_)) => Err(Errno::EXIST.into()),
                (Open::Existing, Err(missing)) => Err(missing.into()),
                (_, found) => {
                    allowed?;
                    Ok(found.unwrap_or_else(|_| names.create(path)))
                }
            };
            let content = self.operate(Asked::of(op, path), open).await?;
            let handle = Handle {
                process: self.clone(),
                path: path.into(),
                content,
                lock: Rc::new(()),
                turn: Mutex::new(()),
            };
            Ok(Box::new(SimFile(Rc::new(handle))) as Box<dyn DiskFile>)
        })
    }

    fn rename_new<'a>(&'a self, from: &'a Path, to: &'a Path) -> Local<'a, io::Result<()>> {
        Box::pin(self.operate(Asked::of(Op::RenameNew, to), move |names, allowed| {
            allowed?;
            Ok(names.rename_new(from, to)?)
        }))
    }

    fn remove<'a>(&'a self, path: &'a Path) -> Local<'a, io::Result<()>> {
        Box::pin(self.operate(Asked::of(Op::Remove, path), move |names, allowed| {
            allowed?;
            Ok(names.remove(path)?)
        }))
    }

    fn rename<'a>(&'a self, from: &'a Path, to: &'a Path) -> Local<'a, io::Result<()>> {
        Box::pin(self.operate(Asked::of(Op::Rename, to), move |names, allowed| {
            allowed?;
            Ok(names.rename(from, to)?)
        }))
    }

    // Names of the host and where a path leads are in the kernel's memory: they take no time, and no crash falls between.

    fn claim<'a>(&'a self, name: &'a str) -> Local<'a, io::Result<Claim>> {
        Box::pin(async move {
            self.live().await;
            Ok(match self.disk.claim(name, self.incarnation) {
                Some(held) => Claim::Ours(Box::new(held)),
                None => Claim::Others(Holder::default()),
            })
        })
    }

    fn holder<'a>(&'a self, name: &'a str) -> Local<'a, io::Result<Option<Holder>>> {
        Box::pin(async move {
            self.live().await;
            Ok(self.disk.is_claimed(name).then(Holder::default))
        })
    }

    fn sync_dir<'a>(&'a self, dir: &'a Path) -> Local<'a, io::Result<()>> {
        Box::pin(self.operate(Asked::of(Op::SyncDir, dir), move |names, allowed| {
            match allowed {
                Ok(()) => names.sync(dir),
                // A file system that turned read-only neither writes nor forgets.
                Err(Errno::ROFS) => {}
                Err(_) => names.fail_sync(dir),
            }
            Ok(allowed?)
        }))
    }

    fn read_small<'a>(&'a self, path: &'a Path) -> Local<'a, io::Result<Option<String>>> {
        Box::pin(self.operate(Asked::of(Op::ReadSmall, path), move |names, allowed| {
            let Ok(file) = names.find(path) else { return Ok(None) };
            allowed?;
            let file = file.borrow();
            let bytes = file.cached();
            let text = std::str::from_utf8(&bytes[..bytes.len().min(SMALL)]);
            let text = text.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            Ok(Some(text.into()))
        }))
    }

    fn is_there<'a>(&'a self, path: &'a Path) -> Local<'a, io::Result<bool>> {
        Box::pin(async move {
            match path.starts_with(HOME) {
                true => Ok(self.read_small(path).await?.is_some()),
                false => Ok(path.exists()),
            }
        })
    }

    fn read_private<'a>(&'a self, path: &'a Path) -> Local<'a, Result<Secret, PrivateFileError>> {
        Box::pin(async move {
            match path.starts_with(HOME) {
                true => self.read_whole(path).await,
                false => StdDisk::default().read_private(path).await,
            }
        })
    }

    fn read_wiping<'a>(&'a self, path: &'a Path) -> Local<'a, Result<Secret, PrivateFileError>> {
        Box::pin(async move {
            match path.starts_with(HOME) {
                true => self.read_whole(path).await,
                false => StdDisk::default().read_wiping(path).await,
            }
        })
    }
}

/// An open file. Operations in flight keep the handle, and its lock, when this is dropped.
struct SimFile(Rc<Handle>);

struct Handle {
    process: Process,
    path: PathBuf,
    content: File,
    /// The lock is held as long as this is there.
    lock: Rc<()>,
    /// One operation after the other.
    turn: Mutex<()>,
}

impl SimFile {
    /// Starts an operation, which goes on if nobody waits for it any more.
    fn post<T: 'static>(
        &self,
        op: Op,
        offset: u64,
        len: usize,
        effect: impl FnOnce(&Handle, RefMut<'_, Content>, Result<(), Errno>) -> io::Result<T> + 'static,
    ) -> Local<'_, io::Result<T>> {
        let handle = Rc::clone(&self.0);
        if handle.process.is_dead() {
            // Asked for by a destructor, maybe when there is nothing left that could run it.
            return Box::pin(pending());
        }
        let task = spawn_local(async move {
            let _turn = handle.turn.lock().await;
            let asked = Asked { op, path: &handle.path, offset, len };
            let on_content = |_: &mut Names, allowed| effect(&handle, handle.content.borrow_mut(), allowed);
            handle.process.operate(asked, on_content).await
        });
        Box::pin(async move {
            match task.await {
                Ok(result) => result,
                // The process is gone, and with it whoever waits.
                Err(_) => pending().await,
            }
        })
    }
}

impl DiskFile for SimFile {
    fn is_at<'a>(&'a self, path: &'a Path) -> Local<'a, io::Result<bool>> {
        Box::pin(async move {
            let Handle { process, content, .. } = &*self.0;
            process.live().await;
            let found = process.disk.names.borrow().find(path);
            Ok(found.is_ok_and(|found| Rc::ptr_eq(&found, content)))
        })
    }

    fn try_lock(&self) -> Local<'_, io::Result<bool>> {
        self.post(Op::TryLock, 0, 0, |handle, mut content, _| {
            Ok(content.try_lock(handle.process.incarnation, &handle.lock))
        })
    }

    fn read_all(&self, max_len: usize) -> Local<'_, io::Result<Vec<u8>>> {
        self.post(Op::ReadAll, 0, max_len, move |_, content, allowed| {
            let len = content.cached().len();
            if len > max_len {
                let reason = format!("{len} bytes, and {max_len} at the most are expected");
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, reason));
            }
            allowed?;
            Ok(content.cached().to_vec())
        })
    }

    fn write_at<'a>(&'a self, offset: u64, bytes: &'a [u8]) -> Local<'a, io::Result<()>> {
        let mut bytes = bytes.to_vec();
        if bytes.starts_with(SEALED) {
            bytes.resize(bytes.len().max(SEALED_LEN), b'\n');
        }
        self.post(Op::WriteAt, offset, bytes.len(), move |_, mut content, allowed| {
            let at = usize::try_from(offset).map_err(|_| Errno::FBIG)?;
            let grows = at + bytes.len() > content.cached().len();
            match allowed {
                // What is written over has its room.
                Err(Errno::NOSPC) if !grows => {}
                other => other?,
            }
            content.write(at, &bytes);
            Ok(())
        })
    }

    fn sync_data(&self) -> Local<'_, io::Result<()>> {
        self.post(Op::SyncData, 0, 0, |_, mut content, allowed| {
            match allowed {
                Ok(()) => content.sync(),
                // A file system that turned read-only neither writes nor forgets.
                Err(Errno::ROFS) => {}
                Err(_) => content.fail_sync(),
            }
            Ok(allowed?)
        })
    }
}
