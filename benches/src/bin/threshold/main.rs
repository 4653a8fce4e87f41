//! What a signature of a group of cosigners takes, seen by the node, beside the single signer of the same run: processes on loopback,
//! records on disk, TLS between them.
//!
//! Also: the same with a delay between the cosigners, which counts round trips; what a coordinator that is killed or hangs costs the next
//! signature; how a group without a quorum refuses, and comes back; and processor time and memory of all of them. Ratios travel, absolute
//! times do not: all parties share the processors of one machine here.

#[path = "../sign/client.rs"]
#[allow(dead_code, reason = "shared with the `sign` bench")]
mod client;
mod delay;
mod failover;
mod group;
mod horcrux;
#[path = "../sign/process.rs"]
#[allow(dead_code, reason = "shared with the `sign` bench")]
mod process;
mod processes;
mod promises;
#[path = "../sign/report.rs"]
#[allow(dead_code, reason = "shared with the `sign` bench")]
mod report;
#[path = "../sign/setup.rs"]
#[allow(dead_code, reason = "shared with the `sign` bench")]
mod setup;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use monosign_protocol::Dialect;
use tokio::time::timeout;

use client::Client;
use group::Group;
use process::Signer;
use promises::Promises;
use report::{Latencies, micros};
use setup::Setup;

/// Measure what a signature of a group of cosigners takes.
#[derive(Parser)]
#[command(name = "threshold")]
struct Options {
    /// The signer to measure. Without it, the `monosign` beside this program.
    #[arg(long, value_name = "PATH")]
    signer: Option<PathBuf>,
    /// How many heights to sign with each group and with the single signer.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    samples: u64,
    /// How often the coordinator is killed, and how often it hangs.
    #[arg(long, value_name = "N", default_value_t = 20)]
    trials: u32,
    /// Where keys and records are written, in a directory that is removed afterwards; on a disk, not on tmpfs.
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    dir: PathBuf,
}

/// Heights that take turns.
const TURN: u64 = 50;
/// Heights before anything is counted.
const WARM_UP: u64 = 50;
/// The delay that counts round trips, one way.
const DELAY: Duration = Duration::from_millis(10);
/// Heights with the delay.
const DELAYED: u64 = 30;
/// How long a signer may take to dial.
const CONNECT: Duration = Duration::from_secs(15);

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let tasks = tokio::task::LocalSet::new();
        tasks.run_until(run(options)).await
    })
}

async fn run(options: Options) -> anyhow::Result<()> {
    let path = match options.signer {
        Some(path) => path,
        None => std::env::current_exe()?.with_file_name("monosign"),
    };
    report::machine(&Setup::new(&options.dir)?)?;
    let horcrux = std::env::var_os("HORCRUX_BIN").map(PathBuf::from);
    if let Some(path) = &horcrux {
        ensure!(path.is_file(), "HORCRUX_BIN is `{}`, which is no file", path.display());
    }
    let mut promises = Promises::default();
    for shape in [(2, 3), (3, 5)] {
        let ours = measure(&path, &options.dir, shape, options.samples, &mut promises).await?;
        delayed(&path, &options.dir, shape, &mut promises).await?;
        failover::measure(&path, &options.dir, shape, options.trials, &mut promises).await?;
        failover::majority(&path, &options.dir, shape, &mut promises).await?;
        if let Some(horcrux) = &horcrux {
            let theirs =
                horcrux::measure(horcrux, &options.dir, shape, options.samples, options.trials).await;
            compare(shape, &ours, theirs, &mut promises);
        }
    }
    if horcrux.is_none() {
        println!("Horcrux: left out, since HORCRUX_BIN names no program");
    }
    promises.tell()
}

/// Puts Horcrux beside us, if it has signed. Where it has not, that is its own affair, and the rest of the bench goes on.
fn compare(
    (threshold, members): (u16, u16),
    ours: &Latencies,
    theirs: anyhow::Result<Latencies>,
    promises: &mut Promises,
) {
    if let Err(error) = &theirs {
        println!("Horcrux {threshold} of {members}: left out, since {error:#}");
    }
    for (name, quantile, least) in [("p50", 0.5, 3.0), ("p99", 0.99, 5.0)] {
        let at = |latencies: &Latencies| latencies.prevote.value_at_quantile(quantile) as f64;
        let what = format!("{threshold} of {members}: {name} of Horcrux over ours");
        match &theirs {
            Ok(theirs) => promises.at_least(what, at(theirs) / at(ours), least),
            Err(_) => promises.not_measured(what),
        }
    }
}

/// A group and the single signer, in turns, so that noise of the machine hits both.
async fn measure(
    path: &Path,
    dir: &Path,
    (threshold, members): (u16, u16),
    samples: u64,
    promises: &mut Promises,
) -> anyhow::Result<Latencies> {
    let setup = Setup::new(dir)?;
    let bind = setup.listen().await?;
    let mut signer = Signer::monosign(path, &setup, &bind)?;
    let mut sole = connect(&setup, &bind, &mut signer).await?;
    sole.heights(WARM_UP, &mut Latencies::default()).await?;
    let mut group = Group::start(path, dir, (threshold, members), None).await?;
    let mut client = group.client(0).await?;
    client.heights(WARM_UP, &mut Latencies::default()).await?;
    let (mut of_group, mut of_sole) = (Latencies::default(), Latencies::default());
    let mut busy = Duration::ZERO;
    let mut left = samples;
    while left > 0 {
        let turn = left.min(TURN);
        let before = group.processor_time()?;
        client.heights(turn, &mut of_group).await?;
        busy += group.processor_time()?.saturating_sub(before);
        sole.heights(turn, &mut of_sole).await?;
        left -= turn;
    }
    println!("single signer");
    of_sole.print();
    println!("{threshold} of {members}, asked of the coordinator");
    of_group.print();
    let p50 = |latencies: &Latencies| latencies.prevote.value_at_quantile(0.5);
    let (ours, single) = (p50(&of_group), p50(&of_sole));
    let ratio = ours as f64 / single as f64;
    println!(
        "{threshold} of {members}: prevote p50 {:.0} us, single signer {:.0} us, ratio {ratio:.2}",
        micros(ours),
        micros(single),
    );
    let most = if threshold == 2 { 6.0 } else { 10.0 };
    promises.at_most(format!("{threshold} of {members}: p50 over the single signer's"), ratio, most);
    // Three messages a height; a precommit has an extension that is a signature of its own, and one of nothing was made once.
    let signatures = samples * 4;
    let each = busy.as_secs_f64() * 1e3 / signatures as f64;
    println!(
        "{threshold} of {members}: {each:.3} ms of processor time per signature, all cosigners together"
    );
    if threshold == 2 {
        promises.at_most("2 of 3: ms of processor time per signature".into(), each, 0.6);
    }
    let memory = group.resident_mib()?;
    println!("{threshold} of {members}: at most {memory:.1} MiB of memory per cosigner (VmRSS)");
    promises.at_most(format!("{threshold} of {members}: MiB of memory per cosigner"), memory, 24.0);
    Ok(of_group)
}

/// With a delay on each way between cosigners, a signature shows how many round trips it takes.
async fn delayed(
    path: &Path,
    dir: &Path,
    (threshold, members): (u16, u16),
    promises: &mut Promises,
) -> anyhow::Result<()> {
    let mut group = Group::start(path, dir, (threshold, members), Some(DELAY)).await?;
    for (node, whom) in [(0, "the coordinator"), (1, "another")] {
        let mut client = group.client(node).await?;
        client.skip_to(1_000 * (node as i64 + 1));
        client.heights(5, &mut Latencies::default()).await?;
        let mut latencies = Latencies::default();
        client.heights(DELAYED, &mut latencies).await?;
        let p50 = Duration::from_nanos(latencies.prevote.value_at_quantile(0.5));
        let trips = p50.as_secs_f64() / (2 * DELAY).as_secs_f64();
        println!(
            "{threshold} of {members}, {DELAY:?} each way, asked of {whom}: prevote p50 {:.1} ms, {trips:.2} round trips",
            p50.as_secs_f64() * 1e3,
        );
        if node == 0 {
            promises.at_most(
                format!("{threshold} of {members}: round trips, {DELAY:?} each way"),
                trips,
                1.3,
            );
        }
    }
    Ok(())
}

async fn connect(
    setup: &Setup,
    bind: &mock_validator::link::Listener,
    signer: &mut Signer,
) -> anyhow::Result<Client> {
    let connected = timeout(CONNECT, Client::accept(setup, bind, Dialect::V0_38)).await;
    connected
        .with_context(|| format!("{} did not connect within {} s", signer.name(), CONNECT.as_secs()))
        .and_then(|client| client)
        .with_context(|| format!("the end of its log:\n{}", signer.log_tail()))
}
