//! Horcrux in the same places: its cosigners as processes on loopback, set up by its own commands, for `HORCRUX_BIN`.
//!
//! It binds its peers' port on all addresses. Its answers leave out what was signed, so they are looked at for errors alone. It answers
//! some requests with errors, such as `failed to decrypt nonce share`: those are counted, and only what it has signed is timed.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};
use mock_validator::link::Listener;
use monosign_protocol::Dialect;
use rustix::process::Signal;
use tokio::time::{Duration, Instant, sleep, timeout};

use crate::CONNECT;
use crate::client::Client;
use crate::processes::{Processes, run};
use crate::report::{Latencies, nanos, print_row};
use crate::setup::Setup;

/// Its cosigners, and a node for each of them.
pub(crate) struct Horcrux {
    // First, as they are dropped in this order: while they run they write below the set-up's directory.
    cosigners: Processes,
    setup: Setup,
    path: PathBuf,
    nodes: Vec<Listener>,
}

/// What it gives its election and its calls: its own default.
const TIMEOUTS: &str = "500ms";
/// How long it may take until it has elected a leader and made nonces.
const SETTLE: Duration = Duration::from_secs(20);
/// How many proposals in a row it has to sign before anything is counted: the first ones often fail.
const SETTLED: u32 = 10;

impl Horcrux {
    pub(crate) async fn start(
        path: &Path,
        dir: &Path,
        (threshold, members): (u16, u16),
    ) -> anyhow::Result<Self> {
        let setup = Setup::new(dir)?;
        let (homes, n) = (setup.path("horcrux"), members.to_string());
        let mut keys = Command::new(path);
        run(keys.args(["create-ecies-shards", "--shards", &n, "--out"]).arg(&homes))?;
        let mut split = Command::new(path);
        split.args(["create-ed25519-shards", "--chain-id", setup.chain_id.as_str(), "--shards", &n]);
        split
            .args(["--threshold", &threshold.to_string(), "--key-file"])
            .arg(setup.path("priv_validator_key.json"));
        run(split.arg("--out").arg(&homes))?;
        let mut nodes = Vec::new();
        for _ in 0..members {
            nodes.push(setup.listen().await?);
        }
        let held: Vec<TcpListener> =
            (0..members).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
        let mut peers = String::new();
        for (id, held) in (1..).zip(&held) {
            let port = held.local_addr()?.port();
            peers += &format!("  - shardID: {id}\n    p2pAddr: tcp://127.0.0.1:{port}\n");
        }
        drop(held);
        for (id, node) in (1..).zip(&nodes) {
            let config = format!(
                "signMode: threshold\nthresholdMode:\n  threshold: {threshold}\n  cosigners:\n{peers}  grpcTimeout: {TIMEOUTS}\n  \
                 raftTimeout: {TIMEOUTS}\nchainNodes:\n- privValAddr: {}\ndebugAddr: \"\"\ngrpcAddr: \"\"\nmaxReadSize: 1048576\n",
                node.address()
            );
            fs::write(homes.join(format!("cosigner_{id}/config.yaml")), config)?;
        }
        let mut horcrux = Self { setup, path: path.into(), nodes, cosigners: Processes::new(members.into()) };
        for cosigner in 0..usize::from(members) {
            horcrux.start_one(cosigner)?;
        }
        Ok(horcrux)
    }

    fn start_one(&mut self, cosigner: usize) -> anyhow::Result<()> {
        let home = self.setup.path(&format!("horcrux/cosigner_{}", cosigner + 1));
        let log = File::options().create(true).append(true).open(home.join("log"))?;
        let mut command = Command::new(&self.path);
        command.arg("--home").arg(&home).arg("start").stdin(Stdio::null());
        let child = command.stdout(log.try_clone()?).stderr(log).spawn().context("starting Horcrux")?;
        self.cosigners.started(cosigner, child);
        Ok(())
    }

    /// The node of a cosigner, once the group signs for it.
    pub(crate) async fn client(&self, cosigner: usize) -> anyhow::Result<Client> {
        let connected =
            timeout(CONNECT, Client::accept(&self.setup, &self.nodes[cosigner], Dialect::V0_38)).await;
        let mut client = connected.context("Horcrux does not dial")??.trusting();
        let until = Instant::now() + SETTLE;
        let mut in_a_row = 0;
        while in_a_row < SETTLED {
            if client.try_proposal().await?.1 {
                in_a_row += 1;
                continue;
            }
            if Instant::now() > until {
                bail!("it does not sign {SETTLED} proposals in a row within {SETTLE:?}");
            }
            in_a_row = 0;
            sleep(Duration::from_millis(100)).await;
        }
        Ok(client)
    }

    /// Who leads, as its own command says, once it has elected one.
    async fn leader(&self) -> anyhow::Result<usize> {
        let until = Instant::now() + SETTLE;
        loop {
            let mut command = Command::new(&self.path);
            // It fails until the cosigner listens.
            let said = run(command.arg("--home").arg(self.setup.path("horcrux/cosigner_1")).arg("leader"));
            let named = said.iter().flat_map(|said| said.lines()).find_map(|line| {
                line.strip_prefix("Current leader: ")?.trim().parse::<usize>().ok()?.checked_sub(1)
            });
            match named.filter(|leader| *leader < self.cosigners.len()) {
                Some(leader) => return Ok(leader),
                None if Instant::now() > until => bail!("Horcrux has no leader after {SETTLE:?}: {said:?}"),
                None => sleep(Duration::from_millis(200)).await,
            }
        }
    }
}

/// The same heights as the group of this run, and what the loss of its leader costs.
///
/// # Errors
/// What Horcrux did that leaves nothing to compare.
pub(crate) async fn measure(
    path: &Path,
    dir: &Path,
    shape: (u16, u16),
    samples: u64,
    trials: u32,
) -> anyhow::Result<Latencies> {
    let mut latencies = Latencies::default();
    let errors = {
        let horcrux = Horcrux::start(path, dir, shape).await?;
        let mut client = horcrux.client(horcrux.leader().await?).await?;
        client.heights(50, &mut Latencies::default()).await?;
        let before = client.errors();
        client.heights(samples, &mut latencies).await?;
        client.errors() - before
    };
    println!("Horcrux {} of {}, asked of its leader", shape.0, shape.1);
    println!("  {errors} of {} requests were answered with errors", 3 * samples);
    ensure!(!latencies.prevote.is_empty(), "it has signed no prevote");
    latencies.print();
    for hangs in [false, true] {
        failover(path, dir, shape, trials, hangs).await?;
    }
    Ok(latencies)
}

/// A group of its own for each trial: one that has lost its leader takes long to be as before.
async fn failover(
    path: &Path,
    dir: &Path,
    (threshold, members): (u16, u16),
    trials: u32,
    hangs: bool,
) -> anyhow::Result<()> {
    let (mut times, mut errors, mut silent, mut unsettled) = (nanos(), 0u32, 0u32, 0u32);
    for _ in 0..trials {
        let mut horcrux = Horcrux::start(path, dir, (threshold, members)).await?;
        let leader = horcrux.leader().await?;
        let Ok(mut client) = horcrux.client((leader + 1) % usize::from(members)).await else {
            unsettled += 1;
            continue;
        };
        match hangs {
            true => horcrux.cosigners.signal(leader, Signal::STOP)?,
            false => horcrux.cosigners.kill(leader)?,
        }
        let begin = Instant::now();
        loop {
            match timeout(Duration::from_secs(5), client.try_proposal()).await {
                Ok(Ok((_, true))) => {
                    times.record(begin.elapsed().as_nanos() as u64)?;
                    break;
                }
                Ok(Ok((_, false))) if begin.elapsed() < SETTLE => errors += 1,
                // A node gives a signer five seconds and then drops the connection.
                Ok(_) | Err(_) => {
                    silent += 1;
                    break;
                }
            }
        }
        if hangs {
            horcrux.cosigners.signal(leader, Signal::CONT)?;
        }
    }
    let what = if hangs { "hangs" } else { "killed" };
    print_row(&format!("Horcrux {threshold} of {members}, leader {what}"), &times);
    println!(
        "  {errors} errors reached the node, and in {silent} of {trials} trials there was no answer in 5 s or no signature at all; {unsettled} trials were left out, \
         since it did not sign before"
    );
    Ok(())
}
