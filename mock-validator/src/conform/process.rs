//! The signer as a process that the suite starts and kills.

use std::collections::VecDeque;
use std::io::{Read, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;
use std::{fs, io};

use super::syncs;

/// A signer that the suite can start and kill.
pub trait Process {
    /// Starts it.
    ///
    /// # Errors
    /// If it cannot be started. That it ends at once is no error.
    fn start(&mut self) -> io::Result<()>;

    /// Ends it without a warning, as SIGKILL does; nothing if it does not run.
    fn kill(&mut self);

    /// Whether it runs: one that refuses to start ends by itself.
    fn is_running(&mut self) -> bool;

    /// How it ended, if it has ended by itself and that is known.
    fn end(&mut self) -> Option<End> {
        None
    }

    /// The file of its state, if that is known.
    fn state(&self) -> Option<&Path>;

    /// Starts it so that its flushes to the disk are counted; false if that is not possible, and it was not started.
    ///
    /// # Errors
    /// If it cannot be started.
    fn start_counted(&mut self) -> io::Result<bool> {
        Ok(false)
    }

    /// Ends what [`start_counted`](Self::start_counted) has started, and says how often it flushed something to the disk; `None`
    /// if what was started is not what dials.
    ///
    /// # Errors
    /// If what was counted cannot be read.
    fn end_counted(&mut self) -> io::Result<Option<u64>> {
        Ok(None)
    }
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// `exit code 7`, or `signal 6`.
    pub how: String,
    /// The last lines that it wrote.
    pub output: String,
}

/// A shell command that runs a signer.
pub struct ShellCommand {
    command: String,
    state: Option<PathBuf>,
    log: Option<PathBuf>,
    variables: Vec<(String, String)>,
    child: Option<Child>,
    said: Option<Said>,
    /// Where strace writes, if it runs.
    trace: Option<PathBuf>,
}

/// Where the end of a process's output is.
enum Said {
    /// In a file, from here on.
    File(PathBuf, u64),
    /// In memory, where a thread puts it, who drops its end of the channel when all of it is there.
    Memory(Arc<Mutex<VecDeque<u8>>>, mpsc::Receiver<()>),
}

/// So much of a process's output is kept, in bytes.
const KEPT: usize = 8 * 1024;

/// So many lines of it are told.
const LINES: usize = 12;

/// How long the last output of a process that has ended may take on its way.
const ON_ITS_WAY: Duration = Duration::from_millis(500);

impl ShellCommand {
    /// Runs `command` with `sh`. Its output goes to the end of `log`, or nowhere but for its end.
    pub fn new(command: String, state: Option<PathBuf>, log: Option<PathBuf>) -> Self {
        Self { command, state, log, variables: Vec::new(), child: None, said: None, trace: None }
    }

    /// Sets a variable of the command's environment.
    pub fn with_variable(mut self, name: &str, value: String) -> Self {
        self.variables.push((name.into(), value));
        self
    }

    fn output(&self) -> io::Result<(Stdio, Stdio, Said)> {
        if let Some(log) = &self.log {
            let file = fs::File::options().create(true).append(true).open(log)?;
            let said = Said::File(log.clone(), file.metadata()?.len());
            return Ok((file.try_clone()?.into(), file.into(), said));
        }
        let (reader, writer) = io::pipe()?;
        Ok((writer.try_clone()?.into(), writer.into(), Said::listen(reader)))
    }
}

/// Whether there is a strace.
fn has_strace() -> bool {
    let mut strace = Command::new("strace");
    let found = strace.arg("-V").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    found.is_ok_and(|status| status.success())
}

/// Makes an empty file that nobody else can read, in the system's directory of such files.
fn private_file() -> io::Result<PathBuf> {
    let dir = std::env::temp_dir();
    for n in 0..1000 {
        let path = dir.join(format!("mock-validator-{}-{n}.strace", std::process::id()));
        match fs::File::options().write(true).create_new(true).mode(0o600).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made.map(|_| path),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

impl ShellCommand {
    fn spawn(&mut self, mut program: Command) -> io::Result<()> {
        let (out, err, said) = self.output()?;
        program.args(["-c", &self.command]).stdin(Stdio::null()).stdout(out).stderr(err);
        program.envs(self.variables.iter().cloned());
        // A group of its own, so that what the shell starts dies with it.
        self.child = Some(program.process_group(0).spawn()?);
        self.said = Some(said);
        Ok(())
    }
}

impl Process for ShellCommand {
    fn start(&mut self) -> io::Result<()> {
        self.kill();
        self.spawn(Command::new("sh"))
    }

    fn start_counted(&mut self) -> io::Result<bool> {
        self.kill();
        if !has_strace() {
            return Ok(false);
        }
        let trace = private_file()?;
        let mut strace = Command::new("strace");
        // It takes a signal while it waits, so that it writes down what it has (-I2), shows what files are called (-y), and nothing
        // of what is written (-s0).
        strace.args(["-f", "-qq", "-I2", "-y", "-s0", "-e", "signal=none", "-e", syncs::CALLS, "-o"]);
        strace.arg(&trace).arg("sh");
        self.trace = Some(trace);
        self.spawn(strace)?;
        Ok(true)
    }

    fn end_counted(&mut self) -> io::Result<Option<u64>> {
        let Some(trace) = self.trace.clone() else { return Ok(None) };
        if let Some(child) = &mut self.child {
            // It fails when strace has ended already.
            let _ = rustix::process::kill_process(
                rustix::process::Pid::from_child(child),
                rustix::process::Signal::TERM,
            );
            child.wait()?;
        }
        let text = String::from_utf8_lossy(&fs::read(&trace)?).into_owned();
        self.kill();
        let seen = syncs::count(&text);
        Ok((seen.dials > 0).then_some(seen.flushes))
    }

    fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let group = rustix::process::Pid::from_child(&child);
        // It fails when all of it has ended already.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let _ = child.wait();
        if let Some(trace) = self.trace.take() {
            let _ = fs::remove_file(trace);
        }
    }

    fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    fn end(&mut self) -> Option<End> {
        let status = self.child.as_mut()?.try_wait().ok()??;
        let output = self.said.as_ref().map(Said::last_lines).unwrap_or_default();
        Some(End { how: in_words(status), output })
    }

    fn state(&self) -> Option<&Path> {
        self.state.as_deref()
    }
}

impl Drop for ShellCommand {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Said {
    /// Keeps the last of what comes.
    fn listen(mut from: impl Read + Send + 'static) -> Self {
        let kept = Arc::new(Mutex::new(VecDeque::new()));
        let (all_there, heard) = mpsc::channel();
        let to = kept.clone();
        #[allow(clippy::disallowed_methods, reason = "it reads the output of a real process, as it comes")]
        std::thread::spawn(move || {
            let _all_there = all_there;
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = from.read(&mut buffer) {
                let mut kept = to.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend(&buffer[..read]);
                let beyond = kept.len().saturating_sub(KEPT);
                kept.drain(..beyond);
            }
        });
        Self::Memory(kept, heard)
    }

    fn last_lines(&self) -> String {
        let bytes = match self {
            Self::File(path, start) => end_of(path, *start).unwrap_or_default(),
            Self::Memory(kept, all_there) => {
                // What the shell has left behind in the background may hold the pipe open for longer.
                let _ = all_there.recv_timeout(ON_ITS_WAY);
                kept.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
            }
        };
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<_> = text.trim_end().lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }
}

fn end_of(path: &Path, start: u64) -> io::Result<Vec<u8>> {
    let mut file = fs::File::open(path)?;
    let from = file.metadata()?.len().saturating_sub(KEPT as u64).max(start);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(KEPT as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn in_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}
