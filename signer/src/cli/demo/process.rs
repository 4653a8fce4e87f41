//! The processes of a demo: the signer, other commands, and a second signer on a copy.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::cli::Failure;
use crate::seams::{Entropy as _, OsEntropy};

/// Runs this program with other arguments; what it prints is shown only if it fails.
pub(super) fn monosign(args: &[&dyn AsRef<OsStr>]) -> Result<(), Failure> {
    let output = Command::new(std::env::current_exe()?).args(args.iter().map(|arg| arg.as_ref())).output()?;
    if !output.status.success() {
        return Err(Failure::new(String::from_utf8_lossy(&output.stderr)));
    }
    Ok(())
}

/// Starts a second signer on a copy of the directory. Gives the words of its refusal.
///
/// # Errors
/// If it runs, and if it ends without a refusal.
pub(super) fn start_copy(dir: &Path) -> Result<String, Failure> {
    let copy = Directory::beside(dir);
    copy_files(dir, copy.path())?;
    let config = copy.path().join("monosign.toml");
    // The paths in it are absolute.
    let [from, to] = [dir, copy.path()].map(|path| path.display().to_string());
    fs::write(&config, fs::read_to_string(&config)?.replace(&from, &to))?;
    // Whoever is refused ends; this one is not to run for good if it is not.
    let args: [&dyn AsRef<OsStr>; 5] = [&"10", &std::env::current_exe()?, &"start", &"-c", &config];
    let output = Command::new("timeout").args(args.iter().map(|arg| arg.as_ref())).output()?;
    let log = String::from_utf8_lossy(&output.stdout);
    match output.status.code() {
        Some(3) => Ok(refusal(&log)),
        _ => Err(Failure::new(format!("the second signer was not refused ({}): {log}", output.status))),
    }
}

/// What the log says of a refusal, without its fields.
fn refusal(log: &str) -> String {
    let said = log.lines().find_map(|line| line.split_once(" ERROR ")).map_or("", |(_, said)| said);
    let end = [" hint: ", " hint=", " chain_id="].iter().filter_map(|field| said.find(field)).min();
    said[..end.unwrap_or(said.len())].to_owned()
}

fn copy_files(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let (entry, to) = (entry?, to);
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_files(&entry.path(), &to.join(entry.file_name()))?;
        } else if kind.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    fs::set_permissions(to, fs::metadata(from)?.permissions())
}

/// The signer's process; killed if the demo fails. Its log goes to a file.
pub(super) struct Signer {
    dir: PathBuf,
    process: Child,
}

impl Signer {
    pub(super) fn start(dir: &Path) -> Result<Self, Failure> {
        Ok(Self { dir: dir.into(), process: spawn(dir)? })
    }

    /// The process.
    pub(super) fn pid(&self) -> Pid {
        Pid::from_child(&self.process)
    }

    /// Starts it again, after it was killed.
    pub(super) fn start_again(&mut self) -> Result<(), Failure> {
        self.process.wait()?;
        self.process = spawn(&self.dir)?;
        Ok(())
    }

    /// Stops it in good order.
    pub(super) fn stop(mut self) -> Result<(), Failure> {
        kill_process(self.pid(), Signal::TERM).map_err(Failure::new)?;
        let status = self.process.wait()?;
        if status.success() { Ok(()) } else { Err(Failure::new(format!("the signer ended with {status}"))) }
    }

    /// The last lines of its log.
    pub(super) fn end_of_log(&self) -> String {
        let log = fs::read_to_string(log(&self.dir)).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }
}

impl Drop for Signer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn log(dir: &Path) -> PathBuf {
    dir.join("signer.log")
}

fn spawn(dir: &Path) -> io::Result<Child> {
    let log = File::options().create(true).append(true).open(log(dir))?;
    let mut signer = Command::new(std::env::current_exe()?);
    signer.args(["start", "-c"]).arg(dir.join("monosign.toml")).stdin(Stdio::null());
    signer.stdout(log.try_clone()?).stderr(log).spawn()
}

/// The signer's directory, removed at the end if it is temporary.
pub(super) struct Directory {
    path: PathBuf,
    temporary: bool,
}

impl Directory {
    /// `keep`, which is made later, or a temporary one.
    pub(super) fn new(keep: Option<&Path>) -> Result<Self, Failure> {
        if let Some(path) = keep {
            return Ok(Self { path: path.into(), temporary: false });
        }
        let mut random = [0; 8];
        OsEntropy.fill(&mut random);
        let name = format!("monosign-demo-{}", data_encoding::HEXLOWER.encode(&random));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path)?;
        Ok(Self { path, temporary: true })
    }

    /// A temporary one beside `dir`, which is made later.
    fn beside(dir: &Path) -> Self {
        Self { path: dir.with_added_extension("copy"), temporary: true }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if self.temporary {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}
