//! Groups of cosigners as their operators set them up: a home for each, and a node that it signs for.

use std::net::TcpListener;

use data_encoding::{BASE64, HEXUPPER};
use ed25519_dalek::SigningKey;
use sha2::{Digest as _, Sha256};

use super::{CHAIN, Conversation, Home, IDENTITY, NodeSide, Signer, poll, signing_key, validator_table};

/// The first height that a group signs.
pub(crate) const FLOOR: i64 = 5;

/// A host of a cosigner, and the node that it signs for.
pub(crate) struct Host {
    pub(crate) home: Home,
    pub(crate) node: NodeSide,
    pub(crate) process: Option<Signer>,
}

pub(crate) struct Group {
    pub(crate) hosts: Vec<Host>,
}

impl Group {
    /// A key split by the commands of the documentation, onto hosts that do not run yet.
    pub(crate) async fn split(threshold: usize, members: usize) -> Self {
        let dealer = Home::new();
        let key = signing_key(CHAIN);
        let file = key_file(&key);
        dealer.write("priv_validator_key.json", file.as_bytes());
        let ports: Vec<u16> = free_ports(members);
        let mut hosts = Vec::new();
        let (t, n) = (threshold.to_string(), members.to_string());
        let mut args: Vec<String> = [
            "threshold",
            "split",
            "--key",
            "priv_validator_key.json",
            "--chain",
            CHAIN,
            "--threshold",
            &t,
            "--shares",
            &n,
            "--start-height",
            "5",
        ]
        .map(String::from)
        .to_vec();
        for number in 1..=members {
            let home = Home::new();
            let made = home.monosign(&["threshold", "recipient", "-o", "share.identity"]).must_succeed();
            args.extend(["--recipient".into(), made.stdout.trim().into()]);
            let node = NodeSide::tcp().await;
            home.write("monosign.toml", config(number, &ports, &node.addr()).as_bytes());
            hosts.push(Host { home, node, process: None });
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let report = dealer.monosign(&args).must_succeed().stdout;
        assert!(report.contains("(unchanged)") && report.contains("still signs alone"), "{report}");
        for (host, number) in hosts.iter().zip(1..) {
            for name in ["group.json".into(), format!("cosigner-{number}.age")] {
                let content = std::fs::read(dealer.path(format!("shares/{name}"))).expect("a file");
                host.home.write(&name, &content);
            }
            host.home.monosign(&["state", "init", "-c", "monosign.toml", "--height", "5"]).must_succeed();
            host.home.monosign(&["check", "-c", "monosign.toml", "--offline"]).must_succeed();
        }
        Self { hosts }
    }

    /// All hosts up, and taking part.
    pub(crate) async fn running(threshold: usize, members: usize) -> Self {
        let mut group = Self::split(threshold, members).await;
        for host in &mut group.hosts {
            host.start();
        }
        for host in &group.hosts {
            host.takes_part(1).await;
        }
        group
    }
}

impl Host {
    pub(crate) fn start(&mut self) {
        self.process = Some(self.home.start());
    }

    pub(crate) fn process(&mut self) -> &mut Signer {
        self.process.as_mut().expect("it runs")
    }

    pub(crate) fn kill(&mut self) {
        self.process().kill();
        self.process = None;
    }

    /// Waits until it has joined for so many times.
    pub(crate) async fn takes_part(&self, times: usize) {
        let process = self.process.as_ref().expect("it runs");
        let joined = || (process.log().matches("takes part now").count() >= times).then_some(());
        poll("a cosigner to take part", joined).await;
    }

    pub(crate) async fn converse(&self) -> Conversation {
        self.node.converse(CHAIN).await
    }
}

pub(crate) fn free_ports(count: usize) -> Vec<u16> {
    let held: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
    held.iter().map(|listener| listener.local_addr().expect("an address").port()).collect()
}

pub(crate) fn config(number: usize, ports: &[u16], node: &str) -> String {
    let mut text = format!(
        "[[chain]]\nid = \"{CHAIN}\"\nstate_file = \"{CHAIN}.record\"\n\n[[providers.threshold]]\n\
         chain_ids = [\"{CHAIN}\"]\ngroup = \"group.json\"\nshare = \"cosigner-{number}.age\"\n\
         identity_file = \"share.identity\"\nlisten = \"tcp://127.0.0.1:{}\"\n",
        ports[number - 1]
    );
    for (port, peer) in ports.iter().zip(1..).filter(|(_, peer)| *peer != number) {
        text += &format!("[[providers.threshold.peer]]\nid = {peer}\naddr = \"tcp://127.0.0.1:{port}\"\n");
    }
    assert_eq!(IDENTITY, "identity.key");
    text + "\n" + &validator_table(CHAIN, node, "")
}

/// A key in CometBFT's form.
pub(crate) fn key_file(key: &SigningKey) -> String {
    let pair = BASE64.encode(&key.to_keypair_bytes());
    let public = BASE64.encode(key.verifying_key().as_bytes());
    let address = HEXUPPER.encode(&Sha256::digest(key.verifying_key().as_bytes())[..20]);
    format!(
        r#"{{"address":"{address}","pub_key":{{"type":"tendermint/PubKeyEd25519","value":"{public}"}},"priv_key":{{"type":"tendermint/PrivKeyEd25519","value":"{pair}"}}}}"#
    )
}
