//! `monosign demo`: this very program as a signer, and a mock validator that asks it for signatures.
//!
//! Everything is done as an operator would do it: `init` makes the directory, `softsign keygen` the encrypted key, `state init`
//! the record, and `start` runs as a process of its own. Only the validator is not a real one.

use std::io::{BufRead as _, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use ed25519_dalek::SigningKey;
use mock_validator::link::{Address, Listener};
use mock_validator::node::Settings;
use mock_validator::show::{Options, show};
use monosign_protocol::message::Timestamp;
use monosign_protocol::{ChainId, Dialect, Height};

use super::{Failure, block_on};
use crate::seams::{Entropy, OsEntropy};

/// Arguments of `monosign demo`.
#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// How many blocks to sign.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    blocks: u64,
    /// The pause between two blocks, in milliseconds.
    #[arg(long, default_value_t = 250, value_name = "MS")]
    block_time: u64,
    /// Which CometBFT the validator is.
    #[arg(long, default_value = "v0.38")]
    dialect: Dialect,
    /// Keep the directory of the signer in DIR instead of a temporary one; it must not exist.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

const CHAIN: &str = "demo-1";
/// How long the signer may take to connect.
const WAIT: Duration = Duration::from_secs(20);

pub(super) fn run(args: &DemoArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let place = Place::new(args.keep.as_deref())?;
    block_on(async {
        let any_port: Address = "tcp://127.0.0.1:0".parse().map_err(Failure::new)?;
        let listener = Listener::bind(&any_port).await.map_err(Failure::new)?;
        let addr = listener.address().to_string();
        writeln!(out, "demo: a signer in {}, a {} validator on {addr}\n", place.dir.display(), args.dialect)?;
        set_up(&place.dir, &addr)?;
        let signer = Signer::start(&place.dir)?;
        show(&listener, options(args)?, out).await.map_err(Failure::new)?;
        drop(listener);
        signer.stop()?;
        Ok(())
    })?
}

fn set_up(dir: &Path, addr: &str) -> Result<(), Failure> {
    let config = dir.join("monosign.toml");
    monosign(&[&"init", &dir, &"--chain", &CHAIN, &"--addr", &addr])?;
    monosign(&[&"softsign", &"keygen", &"--output", &dir.join("secrets/consensus.key")])?;
    monosign(&[&"state", &"init", &"-c", &config, &"--chain", &CHAIN])
}

/// Runs this program with other arguments; what it prints is shown only if it fails.
fn monosign(args: &[&dyn AsRef<std::ffi::OsStr>]) -> Result<(), Failure> {
    let output = Command::new(std::env::current_exe()?).args(args.iter().map(|arg| arg.as_ref())).output()?;
    if !output.status.success() {
        return Err(Failure::new(String::from_utf8_lossy(&output.stderr)));
    }
    Ok(())
}

fn options(args: &DemoArgs) -> Result<Options, Failure> {
    let fresh = || (&OsEntropy as &dyn Entropy).key();
    let chain_id: ChainId = CHAIN.parse().map_err(Failure::new)?;
    let node = Settings {
        chain_id,
        dialect: args.dialect,
        first_height: Height(1),
        extension_bytes: args.dialect.has_extensions().then_some(64),
        expected_key: None,
        seed: fresh(),
    };
    Ok(Options {
        node,
        blocks: args.blocks,
        block_time: Duration::from_millis(args.block_time),
        wait: WAIT,
        start: now(),
        identity: SigningKey::from_bytes(&fresh()),
        entropy: Box::new(fresh),
    })
}

#[allow(
    clippy::disallowed_methods,
    reason = "the demo's validator tells the time; the signer does not read it"
)]
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(0),
        nanos: since.subsec_nanos().cast_signed(),
    }
}

/// The signer's process; killed if the demo fails.
struct Signer {
    process: Child,
    output: Option<std::thread::JoinHandle<()>>,
}

impl Signer {
    #[allow(
        clippy::disallowed_methods,
        reason = "prints the log of another process; nothing here is simulated"
    )]
    fn start(dir: &Path) -> Result<Self, Failure> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["start", "-c"])
            .arg(dir.join("monosign.toml"))
            .stdout(Stdio::piped())
            .spawn()?;
        let output = process.stdout.take().map(|log| {
            std::thread::spawn(move || {
                for line in BufReader::new(log).lines().map_while(Result::ok) {
                    println!("  signer | {line}");
                }
            })
        });
        Ok(Self { process, output })
    }

    fn stop(mut self) -> Result<(), Failure> {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).map_err(Failure::new)?;
        let status = self.process.wait()?;
        if let Some(output) = self.output.take() {
            let _ = output.join();
        }
        if status.success() { Ok(()) } else { Err(Failure::new(format!("the signer ended with {status}"))) }
    }
}

impl Drop for Signer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The signer's directory, removed at the end if it is temporary.
struct Place {
    dir: PathBuf,
    temporary: bool,
}

impl Place {
    fn new(keep: Option<&Path>) -> Result<Self, Failure> {
        if let Some(dir) = keep {
            return Ok(Self { dir: dir.into(), temporary: false });
        }
        let mut random = [0; 8];
        OsEntropy.fill(&mut random);
        let name = format!("monosign-demo-{}", data_encoding::HEXLOWER.encode(&random));
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir(&dir)?;
        Ok(Self { dir, temporary: true })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.temporary {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}
