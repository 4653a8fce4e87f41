//! The owner's end of a worker.

use std::any::Any;
use std::cell::RefCell;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::rc::Rc;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::process::Command;

use super::{Settings, wire};
use crate::backend::device::{DeviceError, Executor, Reply, Request};
use crate::seams::Local;

/// A child process that holds a token. It is started by the first request, and killed when an answer is not waited for, and when
/// this is dropped.
pub struct ChildProcess {
    workers: Rc<dyn Workers>,
    settings: Rc<Settings>,
    worker: RefCell<Option<Worker>>,
}

/// Starts workers: child processes in production, and what stands for them in a simulation.
pub trait Workers {
    /// Starts one.
    ///
    /// # Errors
    /// If there is no process.
    fn start(&self) -> io::Result<Worker>;
}

/// A worker and its pipes.
pub struct Worker {
    /// Its standard input.
    pub input: Box<dyn AsyncWrite + Unpin>,
    /// Its standard output.
    pub output: Box<dyn AsyncRead + Unpin>,
    /// Kills it when it is dropped.
    pub process: Box<dyn Any>,
}

/// Workers of this very binary, wherever its file is now.
struct OwnBinary {
    program: PathBuf,
}

impl ChildProcess {
    /// Workers of this very binary.
    pub fn new(settings: Rc<Settings>) -> Self {
        Self::over(Rc::new(OwnBinary { program: "/proc/self/exe".into() }), settings)
    }

    /// Workers that somebody else starts.
    pub fn over(workers: Rc<dyn Workers>, settings: Rc<Settings>) -> Self {
        Self { workers, settings, worker: RefCell::new(None) }
    }

    async fn start(&self) -> io::Result<Worker> {
        let mut worker = self.workers.start()?;
        worker.input.write_all(&wire::hello(&self.settings)).await?;
        Ok(worker)
    }

    async fn ask(&self, request: &Request) -> io::Result<Result<Reply, DeviceError>> {
        // Taken out while it works: if this future is dropped, so is the worker.
        let taken = self.worker.borrow_mut().take();
        let mut worker = match taken {
            Some(worker) => worker,
            None => self.start().await?,
        };
        worker.input.write_all(&wire::request(request)).await?;
        let mut head = [0; 4];
        worker.output.read_exact(&mut head).await?;
        let len = wire::body_len(head).ok_or(io::ErrorKind::InvalidData)?;
        let mut body = vec![0; len];
        worker.output.read_exact(&mut body).await?;
        let reply = wire::read_reply(&body).ok_or(io::ErrorKind::InvalidData)?;
        if !matches!(reply, Err(DeviceError::Lost { .. } | DeviceError::WrongPassword)) {
            *self.worker.borrow_mut() = Some(worker);
        }
        Ok(reply)
    }
}

impl Workers for OwnBinary {
    fn start(&self) -> io::Result<Worker> {
        let mut command = Command::new(&self.program);
        command.args(["worker", "pkcs11"]).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut process = command.spawn()?;
        let input = process.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let output = process.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Worker { input: Box::new(input), output: Box::new(output), process: Box::new(process) })
    }
}

impl Executor for ChildProcess {
    fn execute(&self, request: Request) -> Local<'_, Result<Reply, DeviceError>> {
        Box::pin(async move {
            self.ask(&request).await.unwrap_or_else(|error| {
                let reason = format!("its worker process failed: {error}");
                Err(DeviceError::Lost { reason, session_spent: false })
            })
        })
    }
}
