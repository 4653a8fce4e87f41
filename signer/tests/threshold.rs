//! Groups of cosigners as their operators start them: processes on this host, with TLS between them and records on disk.

mod rig;

use std::net::TcpListener;

use data_encoding::{BASE64, HEXUPPER};
use mock_validator::node::Answer;
use mock_validator::node::probes::{Judge, double_sign};
use monosign_protocol::{ChainId, Dialect, Height, Hrs, Round, Step};
use rig::{CHAIN, Conversation, Home, IDENTITY, NodeSide, Signer, poll, signing_key, validator_table};
use rustix::process::Signal;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

const FLOOR: i64 = 5;

/// A host of a cosigner, and the node that it signs for.
struct Host {
    home: Home,
    node: NodeSide,
    process: Option<Signer>,
}

struct Group {
    hosts: Vec<Host>,
}

impl Group {
    /// A key split by the commands of the documentation, onto hosts that do not run yet.
    async fn split(threshold: usize, members: usize) -> Self {
        let dealer = Home::new();
        let key = signing_key(CHAIN);
        let pair = BASE64.encode(&key.to_keypair_bytes());
        let public = BASE64.encode(key.verifying_key().as_bytes());
        let address = HEXUPPER.encode(&Sha256::digest(key.verifying_key().as_bytes())[..20]);
        let file = format!(
            r#"{{"address":"{address}","pub_key":{{"type":"tendermint/PubKeyEd25519","value":"{public}"}},"priv_key":{{"type":"tendermint/PrivKeyEd25519","value":"{pair}"}}}}"#
        );
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
    async fn running(threshold: usize, members: usize) -> Self {
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
    fn start(&mut self) {
        self.process = Some(self.home.start());
    }

    fn process(&mut self) -> &mut Signer {
        self.process.as_mut().expect("it runs")
    }

    fn kill(&mut self) {
        self.process().kill();
        self.process = None;
    }

    /// Waits until it has joined for so many times.
    async fn takes_part(&self, times: usize) {
        let process = self.process.as_ref().expect("it runs");
        let joined = || (process.log().matches("takes part now").count() >= times).then_some(());
        poll("a cosigner to take part", joined).await;
    }

    async fn converse(&self) -> Conversation {
        self.node.converse(CHAIN).await
    }
}

fn free_ports(count: usize) -> Vec<u16> {
    let held: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
    held.iter().map(|listener| listener.local_addr().expect("an address").port()).collect()
}

fn config(number: usize, ports: &[u16], node: &str) -> String {
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

#[tokio::test]
async fn two_of_three_and_three_of_five_sign_for_each_validator() {
    for (threshold, members) in [(2, 3), (3, 5)] {
        let group = Group::running(threshold, members).await;
        let mut height = FLOOR;
        for host in &group.hosts {
            let mut node = host.converse().await;
            assert_eq!(node.shows_key().await, signing_key(CHAIN).verifying_key());
            for _ in 0..5 {
                for step in [Step::Proposal, Step::Prevote, Step::Precommit] {
                    let request = node.request(height, 0, step);
                    node.signs(&request).await;
                }
                height += 1;
            }
        }
        // Everybody knows by now, or soon.
        for host in &group.hosts {
            poll("the record to rise", || (host.home.watermark(CHAIN).0 == height - 1).then_some(())).await;
        }
    }
}

#[tokio::test]
async fn validators_of_one_key_get_one_signature_and_conflicts_are_refused() {
    let group = Group::running(2, 3).await;
    let mut nodes = Vec::new();
    for host in &group.hosts {
        nodes.push(host.converse().await);
    }
    for height in FLOOR..FLOOR + 10 {
        let request = nodes[0].request(height, 0, Step::Precommit);
        let first = nodes[2].signs(&request).await;
        for node in &mut nodes {
            assert_eq!(node.signs(&request).await, first);
        }
        let nil = nodes[1].requests.sign(
            Hrs { height: Height(height), round: Round(0), step: Step::Precommit },
            Default::default(),
            rig::NOW,
        );
        for node in &mut nodes {
            let refused = node.refuses(&nil).await;
            assert!(refused.description.to_string().contains("conflicting data"), "{refused:?}");
        }
    }
}

#[tokio::test]
async fn the_probes_of_double_signing_pass_whichever_cosigner_is_asked_in_every_dialect() {
    let group = Group::running(2, 3).await;
    let mut nodes = Vec::new();
    for host in &group.hosts {
        nodes.push(host.converse().await);
    }
    let chain_id: ChainId = CHAIN.parse().expect("a chain id");
    let key = signing_key(CHAIN).verifying_key();
    let mut height = FLOOR;
    for dialect in Dialect::ALL {
        let extensions = dialect.has_extensions();
        let mut judge = Judge::new(chain_id.clone(), dialect, extensions, key);
        let probes = double_sign(&chain_id, dialect, extensions, Height(height), rig::NOW, [9; 32]);
        // Each probe goes to another cosigner than the one before.
        for (number, probe) in probes.iter().enumerate() {
            let answer = nodes[number % 3].ask(&probe.request).await.expect("an answer");
            let judged = judge.judge(probe, answer);
            assert!(judged.is_ok(), "{dialect}: {}: {judged:?}", probe.name);
        }
        height += 100;
    }
}

#[tokio::test]
async fn a_cosigner_that_is_killed_is_not_missed_and_comes_back() {
    let mut group = Group::running(2, 3).await;
    let mut nodes = Vec::new();
    for host in &group.hosts {
        nodes.push(host.converse().await);
    }
    let mut height = FLOOR;
    for victim in [0, 1, 2] {
        let other = (victim + 1) % 3;
        nodes[other].signs_prevote(height).await;
        height += 1;
        group.hosts[victim].kill();
        for _ in 0..5 {
            nodes[other].signs_prevote(height).await;
            height += 1;
        }
        group.hosts[victim].start();
        group.hosts[victim].takes_part(2).await;
        nodes[victim] = group.hosts[victim].converse().await;
        for _ in 0..3 {
            nodes[victim].signs_prevote(height).await;
            height += 1;
        }
    }
}

#[tokio::test]
async fn a_cosigner_that_hangs_is_overtaken_within_the_hedge() {
    let mut group = Group::running(2, 3).await;
    let mut node = group.hosts[1].converse().await;
    node.signs_prevote(FLOOR).await;
    group.hosts[0].process().signal(Signal::STOP);
    let start = Instant::now();
    node.signs_prevote(FLOOR + 1).await;
    let first = start.elapsed();
    let start = Instant::now();
    node.signs_prevote(FLOOR + 2).await;
    println!("hung coordinator: {first:?}, and then {:?}", start.elapsed());
    group.hosts[0].process().signal(Signal::CONT);
    for height in FLOOR + 3..FLOOR + 8 {
        node.signs_prevote(height).await;
    }
}

#[tokio::test]
async fn with_the_majority_down_the_validator_is_told_so_and_its_return_is_enough() {
    let mut group = Group::running(2, 3).await;
    let mut node = group.hosts[0].converse().await;
    node.signs_prevote(FLOOR).await;
    group.hosts[1].kill();
    group.hosts[2].kill();
    let request = node.request(FLOOR + 1, 0, Step::Prevote);
    let refused = node.refuses(&request).await;
    let text = refused.description.to_string();
    assert!(text.contains("no quorum: 2 of 3 must sign; cosigner 2 not connected"), "{text}");
    group.hosts[1].start();
    let start = Instant::now();
    // As a node does with a next round: it asks again.
    loop {
        assert!(start.elapsed() < rig::DEADLINE, "{}", group.hosts[1].process().log());
        let answer = node.ask(&request).await.expect("an answer");
        if let Answer::Signed(_) = node.judge(&request, answer) {
            break;
        }
    }
    println!("back after {:?}", start.elapsed());
    let status = group.hosts[0].home.monosign(&["threshold", "status", "-c", "monosign.toml"]);
    let status = status.must_succeed().stdout;
    assert!(status.contains("active") && status.contains("cosigner 3  not connected"), "{status}");
}

#[tokio::test]
async fn a_drill_proves_each_set_and_names_those_that_do_not_sign() {
    let mut group = Group::running(2, 3).await;
    let drill = group.hosts[1].home.monosign(&["threshold", "drill", "-c", "monosign.toml"]);
    assert_eq!(drill.must_succeed().stdout.matches("ok      cosigners").count(), 3);
    group.hosts[2].kill();
    let drill = group.hosts[1].home.monosign(&["threshold", "drill", "-c", "monosign.toml"]);
    assert_eq!(drill.stdout.matches("FAILED  cosigners").count(), 2);
    drill.must_fail(1, &["ok      cosigners 1,2", "2 of 3 sets do not sign"]);
}

#[tokio::test]
async fn shapes_files_and_configurations_that_do_not_fit_are_refused() {
    let dealer = Home::new();
    let split = |t: &str, n: &str| {
        let args = ["threshold", "split", "--key", "k", "--chain", CHAIN, "--new-validator"];
        let made = dealer.path(format!("{t}{n}"));
        let made = made.to_str().expect("a path").to_owned();
        let recipient = dealer.monosign(&["threshold", "recipient", "-o", &made]).must_succeed().stdout;
        let more = ["--threshold", t, "--shares", n, "--recipient", recipient.trim()];
        dealer.monosign(&[&args[..], &more].concat())
    };
    split("2", "4").must_fail(3, &["2 of 4: two sets of 2 that have no member in common", "3 of 4"]);
    split("1", "1").must_fail(3, &["a share would be the key"]);
    split("2", "3").must_fail(2, &["1 recipients for 3 shares"]);

    let group = Group::split(2, 3).await;
    let (one, two) = (&group.hosts[0].home, &group.hosts[1].home);
    // Another cosigner's configuration, another split's group file, a missing peer.
    let share = std::fs::read(two.path("cosigner-2.age")).expect("a share");
    one.write("cosigner-1.age", &share);
    one.start_and_fail().await.must_fail(1, &["the identity is not one that the key file was encrypted to"]);
    let other = Group::split(2, 3).await;
    let foreign = std::fs::read(other.hosts[0].home.path("group.json")).expect("a group");
    two.write("group.json", &foreign);
    two.start_and_fail().await.must_fail(3, &["the share is of another polynomial than the group file"]);
    let three = &group.hosts[2].home;
    let text = std::fs::read_to_string(three.config()).expect("a configuration");
    three.write("monosign.toml", text.replace("id = 2\n", "id = 7\n").as_bytes());
    three.start_and_fail().await.must_fail(1, &["this is cosigner 3", "for each of 1, 2"]);
}
