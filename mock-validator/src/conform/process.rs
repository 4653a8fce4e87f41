//! The signer as a process that the suite starts and kills.

use std::{
    fs, io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

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

    /// The file of its state, if that is known.
    fn state(&self) -> Option<&Path>;
}

/// A shell command that runs a signer.
pub struct ShellCommand {
    command: String,
    state: Option<PathBuf>,
    log: Option<PathBuf>,
    variables: Vec<(String, String)>,
    child: Option<Child>,
}

impl ShellCommand {
    /// Runs `command` with `sh`. Its output goes to the end of `log`, or nowhere.
    pub fn new(command: String, state: Option<PathBuf>, log: Option<PathBuf>) -> Self {
        Self { command, state, log, variables: Vec::new(), child: None }
    }

    /// Sets a variable of the command's environment.
    pub fn with_variable(mut self, name: &str, value: String) -> Self {
        self.variables.push((name.into(), value));
        self
    }

    fn output(&self) -> io::Result<(Stdio, Stdio)> {
        let Some(log) = &self.log else { return Ok((Stdio::null(), Stdio::null())) };
        let file = fs::File::options().create(true).append(true).open(log)?;
        Ok((file.try_clone()?.into(), file.into()))
    }
}

impl Process for ShellCommand {
    fn start(&mut self) -> io::Result<()> {
        self.kill();
        let (out, err) = self.output()?;
        let mut shell = Command::new("sh");
        shell.args(["-c", &self.command]).stdin(Stdio::null()).stdout(out).stderr(err);
        shell.envs(self.variables.iter().cloned());
        // A group of its own, so that what the shell starts dies with it.
        self.child = Some(shell.process_group(0).spawn()?);
        Ok(())
    }

    fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let group = rustix::process::Pid::from_child(&child);
        // It fails when all of it has ended already.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let _ = child.wait();
    }

    fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
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
