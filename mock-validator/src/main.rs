//! `mock-validator run`: waits for a remote signer, asks it for signatures, and shows what it does.

use std::{io, process::ExitCode, time::Duration};

use anyhow::Context;
use clap::{Parser, Subcommand};
use data_encoding::HEXLOWER_PERMISSIVE;
use ed25519_dalek::{SigningKey, VerifyingKey};
use mock_validator::link::{Address, Listener};
use mock_validator::node::Settings;
use mock_validator::show::{Options, ShowError, show};
use monosign_protocol::message::Timestamp;
use monosign_protocol::{ChainId, Dialect, Height};

/// A CometBFT validator as a remote signer meets it.
#[derive(Parser)]
#[command(name = "mock-validator", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Wait for a signer, ask it for the signatures of some heights, then for a double sign.
    ///
    /// Exit codes: 0 all was signed and the double sign refused; 1 the signer failed: it refused what is safe, gave an
    /// answer that no node could use, was lost, or signed twice; 2 nothing could be run: usage, address in use, no signer.
    Run(Run),
}

#[derive(clap::Args)]
struct Run {
    /// Where to wait: tcp://IP:PORT, unix:///PATH, unix://@NAME or noise://SIGNER_PEER_ID@IP:PORT.
    #[arg(long, value_name = "ADDRESS")]
    listen: Address,
    /// The chain, as the signer knows it.
    #[arg(long, value_name = "ID")]
    chain_id: ChainId,
    /// The release that the node speaks as: v0.34, v0.37, v0.38, v0.39, v0.40, v1.0 or v2.0-rc.
    #[arg(long, value_name = "VERSION", default_value = "v0.38")]
    dialect: Dialect,
    /// How many heights to run.
    #[arg(long, value_name = "N", default_value_t = 10)]
    blocks: u64,
    /// The first height; it has to be above what the signer has signed on this chain.
    #[arg(long, value_name = "HEIGHT", default_value_t = 1)]
    height: i64,
    /// Switch vote extensions of this length on.
    #[arg(long, value_name = "N")]
    extension_bytes: Option<usize>,
    /// The public key that the signer must have, as 64 hexadecimal digits.
    #[arg(long, value_name = "HEX", value_parser = public_key)]
    pubkey: Option<VerifyingKey>,
    /// The pause between two heights.
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = seconds)]
    block_time: Duration,
    /// How long to wait for the signer to connect.
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    wait: Duration,
    /// What the block hashes are made from.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

fn main() -> ExitCode {
    let Command::Run(run) = Cli::parse().command;
    match run.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(exit_code(&error))
        }
    }
}

impl Run {
    fn run(self) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let listener = Listener::bind(&self.listen)
                .await
                .with_context(|| format!("listening on `{}`; is another process there?", self.listen))?;
            show(&listener, self.options()?, &mut io::stdout().lock()).await?;
            Ok(())
        })
    }

    fn options(self) -> anyhow::Result<Options> {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.seed.to_le_bytes());
        Ok(Options {
            node: Settings {
                chain_id: self.chain_id,
                dialect: self.dialect,
                first_height: Height(self.height),
                extension_bytes: self.extension_bytes,
                expected_key: self.pubkey,
                seed,
            },
            blocks: self.blocks,
            block_time: self.block_time,
            wait: self.wait,
            start: wall_clock()?,
            identity: SigningKey::from_bytes(&random()),
            entropy: Box::new(random),
        })
    }
}

/// 1 if the signer is to blame, else 2.
fn exit_code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<ShowError>() {
        None | Some(ShowError::NoSigner { .. } | ShowError::Output(_)) => 2,
        Some(_) => 1,
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "this binary runs in real time: here the engine's time comes in"
)]
fn wall_clock() -> anyhow::Result<Timestamp> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    Ok(Timestamp { seconds: now.as_secs().try_into()?, nanos: now.subsec_nanos().try_into()? })
}

/// Ends the process if the system has no entropy: no handshake is possible then.
fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    if let Err(error) = getrandom::getrandom(&mut bytes) {
        eprintln!("error: no entropy from the operating system: {error}");
        std::process::exit(2);
    }
    bytes
}

fn public_key(text: &str) -> Result<VerifyingKey, String> {
    let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
    bytes
        .and_then(|bytes: [u8; 32]| VerifyingKey::from_bytes(&bytes).ok())
        .ok_or_else(|| "expected the 64 hexadecimal digits of an ed25519 public key".to_owned())
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().map_err(|error| error.to_string())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}
