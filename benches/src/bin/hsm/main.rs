//! What our layers add to a signature on a device: the bare call of the vendor's crate and the same through owner, thread and proxy
//! (YubiHSM, against the mock without latency), or through owner and child process (PKCS#11, against SoftHSM 2), measured in
//! turns. Then twenty chains on one device of 120 ms: whether they are served in turn, and what is dropped when it is too much.

mod softhsm;
mod yubi;

use std::cell::RefCell;
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use clap::Parser;
use hdrhistogram::Histogram;
use monosign::backend::device::DeviceKey;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tokio::runtime::LocalOptions;
use tokio::task::spawn_local;
use tokio::time::Instant;

/// Measure what our layers add to a signature on a device.
#[derive(Parser)]
#[command(name = "hsm")]
struct Options {
    /// How many signatures of each kind.
    #[arg(long, value_name = "N", default_value_t = 3000)]
    samples: u64,
    /// How many signatures each of twenty chains asks for on the slow device.
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: u32,
}

/// Signatures of one kind that take turns with those of the others.
const TURN: u64 = 50;
const WARM_UP: u64 = 200;
const CHAINS: u32 = 20;
const SLOW: Duration = Duration::from_millis(120);
/// Set for the run that has a token.
const TOKEN: &str = "MONOSIGN_BENCH_TOKEN";
/// What `hsm` must keep to, in microseconds of p50.
const YUBIHSM_BUDGET: f64 = 60.0;
const PKCS11_BUDGET: f64 = 120.0;

fn main() -> anyhow::Result<()> {
    // The PKCS#11 backend starts the program that it is in.
    if std::env::args().skip(1).eq(["worker", "pkcs11"]) {
        return Ok(monosign::backend::pkcs11::worker::run(std::io::stdin(), std::io::stdout())?);
    }
    let options = Options::parse();
    if std::env::var_os(TOKEN).is_none() && softhsm::is_installed() {
        return again_with_a_token();
    }
    // As the signer runs.
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build_local(LocalOptions::default())?.block_on(run(&options))
}

/// SoftHSM finds its tokens by the environment, which a program cannot change for itself.
fn again_with_a_token() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let conf = softhsm::make_token(dir.path())?;
    let mut again = Command::new(std::env::current_exe()?);
    again.args(std::env::args_os().skip(1)).env(TOKEN, &conf).env("SOFTHSM2_CONF", &conf);
    anyhow::ensure!(again.status()?.success(), "the bench failed");
    Ok(())
}

async fn run(options: &Options) -> anyhow::Result<()> {
    let load = std::fs::read_to_string("/proc/loadavg")?;
    println!(
        "{} cores, load {}",
        std::thread::available_parallelism()?,
        load.split(' ').next().unwrap_or("?")
    );

    // Threads that wake each other across processors cost more or less as the scheduler happens to place them, the bare call's too.
    let everywhere = sched_getaffinity(None)?;
    sched_setaffinity(None, &one_of(&everywhere))?;
    yubihsm("yubihsm, on one processor", options.samples, YUBIHSM_BUDGET, false).await?;
    sched_setaffinity(None, &everywhere)?;
    yubihsm("yubihsm", options.samples, YUBIHSM_BUDGET, false).await?;
    yubihsm("yubihsm with audit = detect", options.samples, f64::INFINITY, true).await?;

    match std::env::var_os(TOKEN) {
        Some(_) => {
            let mut rig = softhsm::Rig::new()?;
            let (bare, ours) = (&mut rig.bare, &rig.key);
            compare("pkcs11", options.samples, PKCS11_BUDGET, |message| bare.sign(message), ours).await?;
        }
        None => println!("pkcs11: softhsm2 is not installed, not measured"),
    }
    let rig = yubi::Slow::new(SLOW).await?;
    tokio::time::timeout(Duration::from_secs(10), rig.keys[0].until_ready()).await?;
    twenty_chains(&rig, options.rounds).await?;
    too_many(&rig).await
}

async fn yubihsm(name: &str, samples: u64, budget: f64, watched: bool) -> anyhow::Result<()> {
    let mut rig = yubi::Rig::new(watched).await?;
    let (bare, ours) = (&mut rig.bare, &rig.key);
    compare(name, samples, budget, |message| bare.sign(message), ours).await
}

/// The first of some processors.
fn one_of(all: &CpuSet) -> CpuSet {
    let mut one = CpuSet::new();
    if let Some(first) = (0..CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu)) {
        one.set(first);
    }
    one
}

/// The bare call and ours, in turns.
async fn compare(
    name: &str,
    samples: u64,
    budget: f64,
    mut bare: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ours: &DeviceKey,
) -> anyhow::Result<()> {
    tokio::time::timeout(Duration::from_secs(10), ours.until_ready()).await?;
    let (mut bare_times, mut our_times) = (nanos(), nanos());
    for turn in 0..(WARM_UP + samples).div_ceil(TURN) {
        let counted = turn * TURN >= WARM_UP;
        for n in 0..TURN {
            let message = message(turn * TURN + n);
            let asked = Instant::now();
            bare(&message)?;
            record(&mut bare_times, asked, counted)?;
        }
        for n in 0..TURN {
            let message = message(turn * TURN + n);
            let asked = Instant::now();
            ours.sign(&message).await?;
            record(&mut our_times, asked, counted)?;
        }
    }
    println!("{name}");
    print_row("bare call of the crate", &bare_times);
    print_row("the same through our layers", &our_times);
    let p50 = |times: &Histogram<u64>| times.value_at_quantile(0.5) as f64 / 1e3;
    let added = p50(&our_times) - p50(&bare_times);
    match budget.is_finite() {
        true => println!("  added at p50: {added:.1} us (budget {budget:.0} us)"),
        false => println!("  added at p50: {added:.1} us"),
    }
    Ok(())
}

/// Each chain asks again as soon as it is answered, as when all of them have short blocks. A node waits equally long for each
/// answer, so who asked first is who needs it first.
async fn twenty_chains(rig: &yubi::Slow, rounds: u32) -> anyhow::Result<()> {
    let began = Instant::now();
    let served = Rc::new(RefCell::new(Vec::new()));
    let chains: Vec<_> = rig
        .keys
        .iter()
        .enumerate()
        .map(|(chain, key)| {
            let (key, served) = (Rc::clone(key), Rc::clone(&served));
            spawn_local(async move {
                let mut slowest = Duration::ZERO;
                for round in 0..rounds {
                    let asked = Instant::now();
                    key.sign(&message(round.into())).await?;
                    slowest = slowest.max(asked.elapsed());
                    served.borrow_mut().push(chain);
                }
                anyhow::Ok(slowest)
            })
        })
        .collect();
    let mut slowest = Vec::new();
    for chain in chains {
        slowest.push(chain.await??);
    }
    slowest.sort();
    let turns: Vec<_> = (0..rounds).flat_map(|_| 0..rig.keys.len()).collect();
    anyhow::ensure!(*served.borrow() == turns, "not served in the order of asking: {:?}", served.borrow());
    println!("{CHAINS} chains on one device of {} ms, {rounds} signatures each", SLOW.as_millis());
    println!(
        "  all in {:.2} s, each in its turn; the slowest answer of the luckiest chain {:.2} s, of the unluckiest {:.2} s; dropped {}",
        began.elapsed().as_secs_f64(),
        slowest[0].as_secs_f64(),
        slowest[slowest.len() - 1].as_secs_f64(),
        rig.device.dropped()
    );
    Ok(())
}

/// More at once than the device signs within the five seconds that a node waits: what comes too late is dropped, and counted.
async fn too_many(rig: &yubi::Slow) -> anyhow::Result<()> {
    let before = rig.device.dropped();
    let requests = rig.keys.iter().cycle().take(3 * rig.keys.len());
    let asked: Vec<_> = requests
        .map(|key| {
            let key = Rc::clone(key);
            spawn_local(async move { key.sign(&message(0)).await.is_ok() })
        })
        .collect();
    let mut signed = Vec::new();
    for request in asked {
        signed.push(request.await?);
    }
    let (dropped, first) =
        (rig.device.dropped() - before, signed.iter().take_while(|signed| **signed).count());
    anyhow::ensure!(
        signed[first..].iter().all(|signed| !signed),
        "a later request was signed before an earlier one"
    );
    anyhow::ensure!(
        first + dropped as usize == signed.len(),
        "{dropped} were counted as dropped, {first} signed"
    );
    println!(
        "  {} at once: the first {first} signed, the other {dropped} dropped and counted, since nobody waits longer than 5 s",
        signed.len()
    );
    Ok(())
}

/// As long as a vote's sign bytes.
fn message(n: u64) -> Vec<u8> {
    let mut message = vec![0x6e; 118];
    message[..8].copy_from_slice(&n.to_be_bytes());
    message
}

fn record(times: &mut Histogram<u64>, asked: Instant, counted: bool) -> anyhow::Result<()> {
    if counted {
        times.record(asked.elapsed().as_nanos() as u64)?;
    }
    Ok(())
}

#[allow(clippy::expect_used, reason = "3 digits are within the crate's bounds of 0 to 5")]
fn nanos() -> Histogram<u64> {
    Histogram::new(3).expect("3 significant digits are allowed")
}

fn print_row(name: &str, times: &Histogram<u64>) {
    let at = |quantile| times.value_at_quantile(quantile) as f64 / 1e3;
    println!(
        "  {name:<30} n {:>6}  p50 {:>8.1}  p90 {:>8.1}  p99 {:>8.1}  max {:>9.1} us",
        times.len(),
        at(0.5),
        at(0.9),
        at(0.99),
        times.max() as f64 / 1e3
    );
}
