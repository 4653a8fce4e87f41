use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::{deadline, poll};

/// A running signer; killed when dropped, its log shown if the test failed.
pub(crate) struct Signer {
    process: Child,
    log: PathBuf,
}

/// A command that has ended.
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    /// Runs it to its end. What it waits for is named if it never comes.
    pub(crate) fn of(command: &mut Command) -> Self {
        deadline::waiting_for(&format!("{command:?} to end"));
        let output = command.output().expect("the command runs");
        deadline::waiting_for("its end");
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("text"),
            stderr: String::from_utf8(output.stderr).expect("text"),
        }
    }

    pub(crate) fn must_succeed(self) -> Self {
        assert_eq!(self.code, Some(0), "{}{}", self.stdout, self.stderr);
        self
    }

    /// It ended with this exit code, and its error, which a start tells in its log, holds each of these texts. It is told once.
    #[track_caller]
    pub(crate) fn must_fail(self, code: i32, texts: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{}{}", self.stdout, self.stderr);
        let told = format!("{}{}", self.stdout, self.stderr);
        for text in texts {
            assert!(told.contains(text), "no `{text}` in: {told}");
        }
        let mut hints: Vec<_> = told.split("hint:").skip(1).filter_map(|rest| rest.lines().next()).collect();
        let count = hints.len();
        hints.sort_unstable();
        hints.dedup();
        assert_eq!(hints.len(), count, "told more than once: {told}");
        self
    }
}

impl Signer {
    /// Its log goes to a file, as with a service manager that keeps up.
    pub(crate) fn start(mut command: Command, log: PathBuf) -> Self {
        let file = File::options().create(true).append(true).open(&log).expect("a log");
        let errors = file.try_clone().expect("a log");
        let command = command.stdin(Stdio::null()).stdout(file).stderr(errors);
        Self::spawn(command, log)
    }

    /// Its log goes wherever `command` says; `log` is what is shown if the test fails.
    pub(crate) fn spawn(command: &mut Command, log: PathBuf) -> Self {
        Self { process: command.spawn().expect("the signer starts"), log }
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// SIGKILL, and gone.
    pub(crate) fn kill(&mut self) {
        self.process.kill().expect("killed");
        self.process.wait().expect("reaped");
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).expect("signalled");
    }

    /// The process that runs under a tracer, if this is one.
    pub(crate) async fn traced(&self) -> Pid {
        let children = format!("/proc/{0}/task/{0}/children", self.id());
        let child = || fs::read_to_string(&children).ok()?.split_whitespace().next()?.parse().ok();
        Pid::from_raw(poll("a traced process", child).await).expect("a process")
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        poll("the signer to end", || self.process.try_wait().expect("a child")).await
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.process.try_wait().expect("a child").is_none()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits for a line that holds `text`.
    pub(crate) async fn logs(&self, text: &str) -> String {
        let line = || self.log().lines().find(|line| line.contains(text)).map(str::to_owned);
        poll(&format!("`{text}` in the log"), line).await
    }

    /// Waits until `text` is in the log a second time: the first was at the start.
    pub(crate) async fn logs_again(&self, text: &str) {
        let again = || (self.log().matches(text).count() > 1).then_some(());
        poll(&format!("`{text}` in the log again"), again).await;
    }

    /// Resident memory, in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        resident_kib(&PathBuf::from(format!("/proc/{}/status", self.id())))
    }
}

pub(crate) fn resident_kib(status: &Path) -> u64 {
    let status = fs::read_to_string(status).expect("a running process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

impl Drop for Signer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<_> = log.lines().rev().take(60).collect();
            eprintln!("the signer's last log lines:");
            tail.iter().rev().for_each(|line| eprintln!("  {line}"));
        }
    }
}
