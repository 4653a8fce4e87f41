//! The command line: one file for each command.
//!
//! Exit codes: 0 ok, 1 error, 2 wrong usage, 3 refused for safety.

mod admin_socket;
mod advice;
mod bounds;
mod check;
mod check_upgrade;
mod completions;
mod custody;
mod demo;
mod device_key;
mod init;
mod leave;
mod man;
mod pkcs11;
mod pubkey;
mod rpc;
pub mod softsign;
mod start;
mod state;
mod status_socket;
mod threshold;
mod tmkms;
mod unlock;
mod version;
mod worker;
mod yubihsm;

use std::fmt::Display;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use monosign_protocol::ChainId;
use tokio::runtime::LocalOptions;

use crate::backend::softsign::unlock::UnlockEnv;
use crate::config::{ChainConfig, Config, ConfigError, ThresholdConfig};
use crate::ops::private_file::PrivateFileError;
use crate::ops::unread::Unread;
use crate::ops::{process, redact};
use crate::record::RecordError;
use crate::seams::StdDisk;
use crate::start::StartError;
use crate::threshold::group::Group;
use crate::threshold::open::read_group;
use softsign::SoftsignError;

/// A remote signer for CometBFT validators that never signs twice.
#[derive(Debug, Parser)]
#[command(
    name = "monosign",
    version,
    after_help = "Exit codes: 0 ok, 1 error, 2 wrong usage, 3 refused for safety."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a directory with a configuration, an identity and room for keys and records.
    Init(init::InitArgs),
    /// Sign for the validators of a configuration, until SIGTERM.
    Start(start::StartArgs),
    /// Say whether the signer will sign, and if not, why and what to do.
    ///
    /// Exit codes: 0 it will, perhaps with warnings, 1 it will not, 3 it will not for safety. Nothing is written, and a running signer is asked.
    Check(check::CheckArgs),
    /// Try whether this signer, as it is configured, will sign for another release of CometBFT, and say what has to change.
    ///
    /// Exit codes: 0 ready, 1 the configuration has to change or the trial has failed. The consensus key is not opened: the
    /// trial has a key and a chain id of its own.
    CheckUpgrade(check_upgrade::CheckUpgradeArgs),
    /// Show a chain's public key, or the signer's peer ids.
    Pubkey(pubkey::PubkeyArgs),
    /// Make, import and show consensus key files.
    Softsign(softsign::SoftsignArgs),
    /// Set up YubiHSM 2 devices, and make, import, export and try keys on them.
    Yubihsm(yubihsm::YubihsmArgs),
    /// Show PKCS#11 tokens, and make, import and try keys on them.
    Pkcs11(pkcs11::Pkcs11Args),
    /// Make, show, import, export and raise the record of what was signed last.
    State(state::StateArgs),
    /// Share a key among several signers, and look after them.
    Threshold(threshold::ThresholdArgs),
    /// Give a running signer the passphrase of a sealed key.
    Unlock(unlock::UnlockArgs),
    /// Show what this program is for, with a validator that is not a real one.
    Demo(demo::DemoArgs),
    /// Print the version.
    Version,
    /// Print a shell's completions.
    Completions(completions::CompletionsArgs),
    /// What the signer starts for itself.
    #[command(hide = true)]
    Worker(worker::WorkerArgs),
    /// Print the manual page of this program or of one command.
    Man(man::ManArgs),
}

impl Command {
    /// Whether keys, passwords or passphrases come into this process. The two that serve see to themselves.
    fn handles_secrets(&self) -> bool {
        match self {
            Self::Start(_) | Self::Worker(_) => false,
            // A key of no worth.
            Self::Demo(_) | Self::Version | Self::Completions(_) | Self::Man(_) => false,
            _ => true,
        }
    }
}

/// Why a command failed, and with which exit code.
#[derive(Debug)]
pub struct Failure {
    /// `None` if the log has told it.
    message: Option<String>,
    code: u8,
}

impl Failure {
    fn new(error: impl Display) -> Self {
        Self { message: Some(error.to_string()), code: 1 }
    }

    fn usage(error: impl Display) -> Self {
        Self { message: Some(error.to_string()), code: 2 }
    }

    fn for_safety(error: impl Display) -> Self {
        Self { message: Some(error.to_string()), code: 3 }
    }

    /// What is told of it.
    fn text(&self) -> &str {
        self.message.as_deref().unwrap_or_default()
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        if error.is_for_safety() { Self::for_safety(error) } else { Self::new(error) }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        if error.is_for_safety() { Self::for_safety(error) } else { Self::new(error) }
    }
}

impl From<SoftsignError> for Failure {
    fn from(error: SoftsignError) -> Self {
        if error.is_for_safety() { Self::for_safety(error) } else { Self::new(error) }
    }
}

impl From<PrivateFileError> for Failure {
    fn from(error: PrivateFileError) -> Self {
        if error.is_for_safety() { Self::for_safety(error) } else { Self::new(error) }
    }
}

impl From<RecordError> for Failure {
    fn from(error: RecordError) -> Self {
        StartError::from(error).into()
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(error)
    }
}

/// Runs the command line of this process and says how it ended.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    if cli.command.handles_secrets() {
        // As well as may be. Whether it is of use, `start` says: other commands end before long.
        let _ = (process::harden(), process::lock_memory());
    }
    match output(&cli.command).map_err(Failure::from).and_then(|out| {
        let mut out = Unread::new(out);
        let done = run(cli, &mut out);
        out.flush()?;
        done
    }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(message) = failure.message {
                // As much as can be told; standard error may be gone.
                let _ = writeln!(std::io::stderr(), "error: {message}");
            }
            ExitCode::from(failure.code)
        }
    }
}

/// Where a command writes to. Some load a vendor's library into this process, which may print what it likes.
fn output(command: &Command) -> std::io::Result<Box<dyn Write>> {
    Ok(match command {
        Command::Pkcs11(_) | Command::Pubkey(_) | Command::State(_) => {
            Box::new(std::io::LineWriter::new(process::take_stdout()?))
        }
        _ => Box::new(std::io::stdout()),
    })
}

/// What clap says of the arguments, which it quotes, but not if a secret is among them.
fn usage(error: &clap::Error) -> ExitCode {
    if std::env::args().any(|arg| redact::holds_identity(&arg)) && error.use_stderr() {
        let _ = writeln!(
            std::io::stderr(),
            "error: an age identity was given on the command line, where others can read it\nhint: a recipient is `age1…`; an \
             identity belongs into a file"
        );
    } else {
        let _ = error.print();
        let words: Vec<_> = std::env::args().skip(1).collect();
        if let Some(way_on) = tmkms::way_on(error, &words) {
            let _ = writeln!(std::io::stderr(), "hint: {way_on}");
        }
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

fn run(cli: Cli, out: &mut dyn Write) -> Result<(), Failure> {
    match cli.command {
        Command::Init(args) => init::run(&args, out),
        Command::Start(args) => start::run(&args),
        Command::Check(args) => check::run(&args, out),
        Command::CheckUpgrade(args) => check_upgrade::run(&args, out),
        Command::Pubkey(args) => pubkey::run(&args, out),
        Command::Softsign(args) => Ok(softsign::run(&args, out)?),
        Command::Yubihsm(args) => yubihsm::run(&args, out),
        Command::Pkcs11(args) => pkcs11::run(&args, out),
        Command::Worker(args) => worker::run(&args),
        Command::State(args) => state::run(&args, out),
        Command::Threshold(args) => threshold::run(&args, out),
        Command::Unlock(args) => unlock::run(&args, out),
        Command::Demo(args) => demo::run(&args, out),
        Command::Version => Ok(writeln!(out, "{}", version::text())?),
        Command::Completions(args) => completions::run(&args, out),
        Command::Man(args) => man::run(&args, out),
    }
}

/// Which configuration.
#[derive(Debug, Args)]
struct ConfigArgs {
    /// The configuration: a monosign.toml or a tmkms.toml. Without it, the one that TMKMS_CONFIG_FILE names,
    /// or else the one of these
    /// names in this directory.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// What tmkms looks into if no configuration is given.
const VARIABLE: &str = "TMKMS_CONFIG_FILE";
/// The names that a configuration may have here.
const NAMES: [&str; 2] = ["monosign.toml", "tmkms.toml"];
/// Where `monosign init` is told to make one.
const USUAL: &str = "/etc/monosign/monosign.toml";

impl ConfigArgs {
    fn load(&self) -> Result<Config, Failure> {
        let path = match &self.config {
            Some(path) => path.clone(),
            None => Self::found()?,
        };
        Ok(Config::load(&path)?)
    }

    /// The one that is not named on the command line.
    fn found() -> Result<PathBuf, Failure> {
        if let Some(path) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
            return Ok(path.into());
        }
        NAMES.map(PathBuf::from).into_iter().find(|path| path.exists()).ok_or_else(|| {
            let here = std::env::current_dir().unwrap_or_default();
            let [ours, tmkms] = NAMES;
            let example = if std::path::Path::new(USUAL).exists() { USUAL } else { "FILE" };
            Failure::usage(format!(
                "no configuration: there is no {ours} and no {tmkms} in {}, and ${VARIABLE} is not set\nhint: name it with `-c {example}`",
                here.display()
            ))
        })
    }
}

/// Which chain of a configuration.
#[derive(Debug, Args)]
struct ChainArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The chain; can be left out if the configuration has one.
    #[arg(long, value_name = "ID")]
    chain: Option<ChainId>,
}

impl ChainArgs {
    fn load(&self) -> Result<ChainConfig, Failure> {
        let config = self.config.load()?;
        match (&self.chain, config.chains.as_slice()) {
            (Some(id), _) => config.chain(id).cloned().ok_or_else(|| {
                let path = config.path.display();
                Failure::new(format!("`{path}` has no [[chain]] with id `{id}`"))
            }),
            (None, [chain]) => Ok(chain.clone()),
            (None, chains) => {
                let ids: Vec<_> = chains.iter().map(|chain| chain.id.as_str()).collect();
                Err(Failure::usage(format!("which chain?\nhint: --chain with one of: {}", ids.join(", "))))
            }
        }
    }
}

fn unlock_env() -> UnlockEnv {
    UnlockEnv { credentials_directory: std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from) }
}

/// The group of a key that is shared.
fn group_of(share: &ThresholdConfig, chain_id: &ChainId) -> Result<Group, Failure> {
    let read = block_on(read_group(&StdDisk::default(), &share.group, chain_id))?;
    Ok(read.map_err(StartError::from)?)
}

/// Runs a future on the one thread of this process.
fn block_on<T>(future: impl Future<Output = T>) -> Result<T, Failure> {
    // No `LocalSet`: a socket that wakes a task of one wakes the whole set through an event of its own, which is one more write and one more
    // turn of the loop.
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build_local(LocalOptions::default())?;
    let result = runtime.block_on(future);
    // A name that is being looked up, or a passphrase that is being tried, must not hold up the end.
    runtime.shutdown_background();
    Ok(result)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Cli::command().debug_assert();
    }
}
