//! What one signature takes, seen by the node: p50 to max of the signer's answers over SecretConnection on loopback,
//! with the record on disk, beside the floor measured in the same run.
//!
//! The floor is the sum of what no durable signer can leave out, each part on its own: the round trip of the same
//! bytes to an echo, one 4 KiB write in place with `fdatasync`, one Ed25519 signature, one strict verification. It is
//! measured in turns with the signer, and so is tmkms where it is installed, so that noise of the machine hits all. Ratios travel, absolute times do not.

mod client;
mod floor;
mod process;
mod report;
mod setup;

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use clap::Parser;
use monosign_protocol::Dialect;

use client::Client;
use floor::Floor;
use process::Signer;
use report::{Latencies, micros};
use setup::Setup;

/// Measure what a signature takes, and the floor below which it cannot go.
#[derive(Parser)]
#[command(name = "sign")]
struct Options {
    /// The signer to measure. Without it, the `monosign` beside this program.
    #[arg(long, value_name = "PATH")]
    signer: Option<PathBuf>,
    /// The tmkms to measure behind the same client. Without it, the one in PATH.
    #[arg(long, value_name = "PATH")]
    tmkms: Option<PathBuf>,
    /// How many heights to sign: as many prevotes and proposals, and half as many precommits of either kind.
    #[arg(long, value_name = "N", default_value_t = 4000)]
    samples: u64,
    /// Where keys and records are written, in a directory that is removed afterwards; on a disk, not on tmpfs.
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    dir: PathBuf,
}

/// Heights and rounds of the floor that take turns.
const TURN: u64 = 50;

/// Heights before anything is counted.
const WARM_UP: u64 = 200;

/// Both signers dial at once; tmkms waits a second after a failed try.
const CONNECT: Duration = Duration::from_secs(15);

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run(options))
}

async fn run(options: Options) -> anyhow::Result<()> {
    let setup = Setup::new(&options.dir)?;
    report::machine(&setup)?;

    let path = match options.signer {
        Some(path) => path,
        None => std::env::current_exe()?.with_file_name("monosign"),
    };
    let bind = setup.listen().await?;
    let mut signer = Signer::monosign(&path, &setup, &bind)?;
    let mut client = connect(&setup, &bind, &mut signer, Dialect::V0_38).await?;
    let mut floor = Floor::new(&setup, &mut client).await?;
    client.heights(WARM_UP, &mut Latencies::default()).await?;
    floor.rounds(WARM_UP).await?;
    floor.forget();

    let mut rival = Rival::start(&setup, options.tmkms).await?;
    let mut latencies = Latencies::default();
    let mut left = options.samples;
    while left > 0 {
        let turn = left.min(TURN);
        client.heights(turn, &mut latencies).await?;
        floor.rounds(turn).await?;
        if let Some(rival) = &mut rival {
            rival.client.heights(turn, &mut rival.latencies).await?;
        }
        left -= turn;
    }
    println!("{} ({})", signer.name(), path.display());
    latencies.print();
    floor.print();
    if let Some(ratio) = latencies.extension_ratio() {
        println!("precommit with a 4 KiB extension / without: {ratio:.2}");
    }
    println!("signer memory: {:.1} MiB (VmRSS)", signer.resident_mib()?);
    match &rival {
        Some(rival) => rival.print(&latencies),
        None => println!("tmkms: not installed, not measured"),
    }
    let (p50, floor) = (latencies.prevote.value_at_quantile(0.5), floor.total());
    println!(
        "sign p50 {:.0} us, floor {:.0} us, ratio {:.2}",
        micros(p50),
        micros(floor),
        p50 as f64 / floor as f64
    );
    Ok(())
}

/// tmkms 0.15, behind the same client and in turns with the others. It syncs nothing, and what it saves by that is part of the
/// comparison.
struct Rival {
    path: PathBuf,
    signer: Signer,
    client: Client,
    latencies: Latencies,
}

impl Rival {
    /// `None` if there is no tmkms.
    async fn start(setup: &Setup, path: Option<PathBuf>) -> anyhow::Result<Option<Self>> {
        let Some(path) = path.or_else(|| process::in_path("tmkms")) else { return Ok(None) };
        let bind = setup.listen().await?;
        let mut signer = Signer::tmkms(&path, setup, &bind)?;
        let mut client = connect(setup, &bind, &mut signer, Dialect::V0_34).await?;
        client.heights(WARM_UP, &mut Latencies::default()).await?;
        Ok(Some(Self { path, signer, client, latencies: Latencies::default() }))
    }

    fn print(&self, ours: &Latencies) {
        println!("{} ({}), not durable", self.signer.name(), self.path.display());
        self.latencies.print();
        let p50 = |latencies: &Latencies| latencies.prevote.value_at_quantile(0.5) as f64;
        println!("prevote p50 of monosign / of tmkms: {:.2}", p50(ours) / p50(&self.latencies));
    }
}

async fn connect(
    setup: &Setup,
    bind: &mock_validator::link::Listener,
    signer: &mut Signer,
    dialect: Dialect,
) -> anyhow::Result<Client> {
    let connected = tokio::time::timeout(CONNECT, Client::accept(setup, bind, dialect)).await;
    connected
        .with_context(|| format!("{} did not connect within {} s", signer.name(), CONNECT.as_secs()))
        .and_then(|client| client)
        .with_context(|| format!("the end of its log:\n{}", signer.log_tail()))
}
