//! `mock-validator run`.

use std::io::Write as _;
use std::{io, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context as _;
use ed25519_dalek::VerifyingKey;
use mock_validator::link::{Address, Listener, Transport};
use mock_validator::node::Settings;
use mock_validator::show::{Options, ShowError, show};
use monosign_protocol::{ChainId, Dialect, Height};

use super::identity::identity;
use super::unread::Unread;
use super::values::{public_key, random, seconds, wall_clock};

/// Arguments of `mock-validator run`.
#[derive(clap::Args)]
pub(crate) struct Run {
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
    /// How long to wait for the signer's first answer, and for each after that.
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    wait: Duration,
    /// The file of the node's identity on encrypted transports, made if there is none: base64 of 32 bytes, or CometBFT's
    /// node_key.json. Without it the node has a new one each time, which a signer that dials noise:// cannot know before.
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// What the block hashes are made from.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

/// Runs it and says how it ended.
pub(crate) fn run(run: Run) -> ExitCode {
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
            let options = self.options()?;
            let mut out = Unread::new(io::stdout().lock());
            if matches!(Transport::from(listener.address()), Transport::Noise { .. }) {
                writeln!(out, "the signer has to dial {}", listener.address().as_dialed(&options.identity))?;
            }
            show(&listener, options, &mut out).await?;
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
            identity: identity(self.identity.as_deref())?,
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
