//! Programs that run beside the bench, and those that are run to their end.

use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

/// Cosigners by their number from 0, some of which may not run; killed when dropped.
pub(crate) struct Processes(Vec<Option<Child>>);

impl Processes {
    pub(crate) fn new(count: usize) -> Self {
        Self((0..count).map(|_| None).collect())
    }

    pub(crate) fn started(&mut self, cosigner: usize, child: Child) {
        self.0[cosigner] = Some(child);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().flatten().map(Child::id)
    }

    /// SIGKILL, and gone.
    pub(crate) fn kill(&mut self, cosigner: usize) -> anyhow::Result<()> {
        if let Some(mut child) = self.0[cosigner].take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    pub(crate) fn signal(&self, cosigner: usize, signal: Signal) -> anyhow::Result<()> {
        let child = self.0[cosigner].as_ref().context("it does not run")?;
        Ok(kill_process(Pid::from_child(child), signal)?)
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for child in self.0.iter_mut().flatten() {
            // It may be gone already, and there is nobody left to tell.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Runs a program to its end. Returns what it prints.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
