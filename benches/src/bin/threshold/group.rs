//! A group of cosigners as processes on loopback.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use mock_validator::link::Listener;
use monosign_protocol::Dialect;
use tokio::time::{Instant, sleep, timeout};

use crate::CONNECT;
use crate::client::Client;
use crate::delay;
use crate::processes::{Processes, run};
use crate::setup::Setup;

/// Cosigners, and a node for each of the first two.
pub(crate) struct Group {
    // First, as they are dropped in this order: while they run they write below the set-up's directory.
    pub(crate) cosigners: Processes,
    setup: Setup,
    path: PathBuf,
    nodes: Vec<Listener>,
}

/// How many cosigners have a node.
const NODES: usize = 2;

impl Group {
    /// Splits a key and starts all cosigners; between them `delay` each way.
    pub(crate) async fn start(
        path: &Path,
        dir: &Path,
        (threshold, members): (u16, u16),
        delay: Option<Duration>,
    ) -> anyhow::Result<Self> {
        let setup = Setup::new(dir)?;
        let mut nodes = Vec::new();
        for _ in 0..NODES {
            nodes.push(setup.listen().await?);
        }
        let mut split = Command::new(path);
        split.args(["threshold", "split", "--chain", setup.chain_id.as_str(), "--new-validator"]);
        split.args(["--threshold", &threshold.to_string(), "--shares", &members.to_string()]);
        split.arg("--key").arg(setup.path("priv_validator_key.json")).arg("-o").arg(setup.path("shares"));
        for member in 1..=members {
            let mut recipient = Command::new(path);
            recipient.args(["threshold", "recipient", "-o"]).arg(setup.path(&format!("{member}.identity")));
            split.arg("--recipient").arg(run(&mut recipient)?.trim());
        }
        run(&mut split)?;
        let held: Vec<TcpListener> =
            (0..members).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
        let ports =
            held.iter().map(|held| Ok(held.local_addr()?.port())).collect::<anyhow::Result<Vec<_>>>()?;
        drop(held);
        let mut group = Self { setup, path: path.into(), nodes, cosigners: Processes::new(members.into()) };
        for member in 1..=members {
            let mut peers = String::new();
            for (peer, port) in (1..=members).zip(&ports).filter(|(peer, _)| *peer != member) {
                let port = match delay {
                    Some(delay) => delay::wire(SocketAddr::from(([127, 0, 0, 1], *port)), delay).await?,
                    None => *port,
                };
                peers += &format!(
                    "[[providers.threshold.peer]]\nid = {peer}\naddr = \"tcp://127.0.0.1:{port}\"\n"
                );
            }
            let config = group.config(member, ports[usize::from(member) - 1], &peers, delay);
            group.setup.write(&format!("{member}.toml"), &config)?;
            let mut init = Command::new(path);
            run(init.args(["state", "init", "-c"]).arg(group.setup.path(&format!("{member}.toml"))))?;
        }
        for cosigner in 0..usize::from(members) {
            group.start_one(cosigner)?;
        }
        for cosigner in 0..usize::from(members) {
            group.joined(cosigner, 1).await?;
        }
        Ok(group)
    }

    fn config(&self, member: u16, port: u16, peers: &str, delay: Option<Duration>) -> String {
        let (chain, path) = (&self.setup.chain_id, |name: &str| self.setup.path(name));
        let hedge = 50 + delay.map_or(0, |delay| 4 * delay.as_millis());
        let mut text = format!(
            "admin_socket = {:?}\n[[chain]]\nid = \"{chain}\"\nstate_file = {:?}\n\n[[providers.threshold]]\nchain_ids = [\"{chain}\"]\n\
             group = {:?}\nshare = {:?}\nidentity_file = {:?}\nlisten = \"tcp://127.0.0.1:{port}\"\nhedge_ms = {hedge}\n{peers}\n",
            path(&format!("{member}.sock")),
            path(&format!("{member}.record")),
            path("shares/group.json"),
            path(&format!("shares/cosigner-{member}.age")),
            path(&format!("{member}.identity")),
        );
        if let Some(node) = self.nodes.get(usize::from(member) - 1) {
            text += &format!(
                "[[validator]]\nchain_id = \"{chain}\"\naddr = \"{}\"\nsecret_key = {:?}\n",
                node.address(),
                path("secret_connection.key")
            );
        }
        text
    }

    pub(crate) fn start_one(&mut self, cosigner: usize) -> anyhow::Result<()> {
        let member = cosigner + 1;
        let log = File::options().create(true).append(true).open(self.log(cosigner))?;
        let mut command = Command::new(&self.path);
        command.args(["start", "-c"]).arg(self.setup.path(&format!("{member}.toml")));
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        self.cosigners.started(cosigner, child);
        Ok(())
    }

    fn log(&self, cosigner: usize) -> PathBuf {
        self.setup.path(&format!("{}.log", cosigner + 1))
    }

    /// Waits until a cosigner has joined for so many times.
    pub(crate) async fn joined(&self, cosigner: usize, times: usize) -> anyhow::Result<()> {
        let until = Instant::now() + CONNECT;
        loop {
            let log = fs::read_to_string(self.log(cosigner)).unwrap_or_default();
            if log.matches("takes part now").count() >= times {
                return Ok(());
            }
            if Instant::now() > until {
                bail!("cosigner {} does not join; its log:\n{log}", cosigner + 1);
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// The node of a cosigner, with the cosigner's connection.
    pub(crate) async fn client(&mut self, cosigner: usize) -> anyhow::Result<Client> {
        let connected = timeout(CONNECT, Client::accept(&self.setup, &self.nodes[cosigner], Dialect::V0_38));
        connected.await.with_context(|| format!("cosigner {} does not dial", cosigner + 1))?
    }

    /// The processor time of all cosigners so far, in steps of 10 ms for each.
    pub(crate) fn processor_time(&self) -> anyhow::Result<Duration> {
        let mut ticks = 0;
        for id in self.cosigners.ids() {
            let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
            // Fields 14 and 15, counted after the name, which may hold anything.
            let after = stat.rsplit_once(") ").context("no stat")?.1;
            let fields = after.split(' ').skip(11).take(2);
            ticks += fields.map(str::parse::<u64>).sum::<Result<u64, _>>()?;
        }
        Ok(Duration::from_millis(ticks * 10))
    }

    /// The most memory that any cosigner has, in MiB.
    pub(crate) fn resident_mib(&self) -> anyhow::Result<f64> {
        let mut most = 0f64;
        for id in self.cosigners.ids() {
            let status = fs::read_to_string(format!("/proc/{id}/status"))?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).context("no VmRSS")?;
            most = most.max(kib.trim().parse::<f64>()? / 1024.0);
        }
        Ok(most)
    }
}
