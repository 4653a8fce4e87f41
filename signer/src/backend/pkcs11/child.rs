//! The owner's end of a worker.

use std::cell::RefCell;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::task::spawn_local;
use tokio::time::{Instant, timeout};

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
    pub process: Box<dyn WorkerProcess>,
}

/// The process of a worker, which is killed when this is dropped.
pub trait WorkerProcess {
    /// How it has ended, once its pipes have.
    fn ended(&mut self) -> Local<'_, String>;
}

/// A process whose pipes have ended is about to end, or hangs in its library.
const ENDING: Duration = Duration::from_millis(50);

impl WorkerProcess for Child {
    fn ended(&mut self) -> Local<'_, String> {
        Box::pin(async {
            match timeout(ENDING, self.wait()).await {
                Ok(Ok(status)) => format!("its worker process has ended ({status})"),
                Ok(Err(error)) => format!("its worker process is lost: {error}"),
                Err(_) => "its worker process has closed its pipes, and is killed".into(),
            }
        })
    }
}

/// Workers of this very binary, wherever its file is now.
struct OwnBinary {
    program: PathBuf,
    /// Which token it is, for the log.
    token: String,
}

impl ChildProcess {
    /// Workers of this very binary.
    pub fn new(settings: Rc<Settings>) -> Self {
        let token = settings.token_label.clone();
        Self::over(Rc::new(OwnBinary { program: "/proc/self/exe".into(), token }), settings)
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

    async fn ask(&self, request: &Request) -> Result<Reply, DeviceError> {
        // Taken out while it works: if this future is dropped, so is the worker.
        let taken = self.worker.borrow_mut().take();
        let mut worker = match taken {
            Some(worker) => worker,
            None => self
                .start()
                .await
                .map_err(|error| lost(format!("its worker process cannot be started: {error}")))?,
        };
        let reply = match worker.exchange(request).await {
            Ok(reply) => reply,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(lost("its worker process answered something else".into()));
            }
            Err(_) => return Err(lost(worker.process.ended().await)),
        };
        if !matches!(reply, Err(DeviceError::Lost { .. } | DeviceError::WrongPin(_))) {
            *self.worker.borrow_mut() = Some(worker);
        }
        reply
    }
}

impl Worker {
    async fn exchange(&mut self, request: &Request) -> io::Result<Result<Reply, DeviceError>> {
        let worker = self;
        worker.input.write_all(&wire::request(request)).await?;
        let mut head = [0; 4];
        worker.output.read_exact(&mut head).await?;
        let len = wire::body_len(head).ok_or(io::ErrorKind::InvalidData)?;
        let mut body = vec![0; len];
        worker.output.read_exact(&mut body).await?;
        Ok(wire::read_reply(&body).ok_or(io::ErrorKind::InvalidData)?)
    }
}

fn lost(reason: String) -> DeviceError {
    DeviceError::Lost { reason, session_spent: false }
}

impl Workers for OwnBinary {
    fn start(&self) -> io::Result<Worker> {
        let mut command = Command::new(&self.program);
        command.args(["worker", "pkcs11"]).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn()?;
        if let Some(said) = process.stderr.take() {
            spawn_local(tell(said, self.token.clone()));
        }
        let input = process.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let output = process.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Worker { input: Box::new(input), output: Box::new(output), process: Box::new(process) })
    }
}

/// How much of what a library prints is told: so many lines of so many bytes in each minute. Some print without end.
const TOLD: usize = 10;
const LINE: usize = 256;
const MINUTE: Duration = Duration::from_secs(60);

/// Logs what a worker's library prints, and reads on where it logs no more: a full pipe would stop the worker.
async fn tell(mut said: impl AsyncRead + Unpin, token: String) {
    let mut chunk = [0; 4096];
    let (mut line, mut told, mut left_out, mut began) = (Vec::new(), 0, 0_u64, Instant::now());
    loop {
        let read = said.read(&mut chunk).await.unwrap_or(0);
        for byte in chunk[..read].iter().chain((read == 0).then_some(&b'\n')) {
            if *byte != b'\n' {
                if line.len() < LINE {
                    line.push(*byte);
                }
                continue;
            }
            if began.elapsed() >= MINUTE {
                if left_out > 0 {
                    tracing::warn!("pkcs11 token {token}: its library printed {left_out} more lines");
                }
                (told, left_out, began) = (0, 0, Instant::now());
            }
            match std::mem::take(&mut line) {
                empty if empty.is_empty() => {}
                text if told < TOLD => {
                    told += 1;
                    let text = String::from_utf8_lossy(&text);
                    tracing::warn!("pkcs11 token {token}: its library says: {}", text.escape_debug());
                }
                _ => left_out += 1,
            }
        }
        if read == 0 {
            return;
        }
    }
}

impl Executor for ChildProcess {
    fn execute(&self, request: Request) -> Local<'_, Result<Reply, DeviceError>> {
        Box::pin(async move { self.ask(&request).await })
    }
}
