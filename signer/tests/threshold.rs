//! Groups of cosigners as their operators start them: processes on this host, with TLS between them and records on disk.

mod rig;

use mock_validator::node::Answer;
use mock_validator::node::probes::{Judge, double_sign};
use monosign_protocol::{ChainId, Dialect, Height, Hrs, Round, Step};
use rig::cosigners::{FLOOR, Group};
use rig::{CHAIN, Home, poll, signing_key};
use rustix::process::Signal;
use tokio::time::Instant;

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
        group.hosts[other].process().logs_again(&format!("cosigner {} is there", victim + 1)).await;
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
    let words: Vec<Vec<_>> = status.lines().map(|line| line.split_whitespace().collect()).collect();
    assert!(status.starts_with("chain test-chain-1: cosigner 1 of 2 of 3: active\n"), "{status}");
    assert_eq!(words[3][..3], ["1", "2", "up"], "{status}");
    assert_eq!(words[3].last(), words[1].last(), "its guard is where the group has signed: {status}");
    assert_eq!(words[4][..4], ["2", "3", "not", "connected"], "{status}");
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

#[tokio::test]
async fn commands_that_take_a_whole_key_say_that_it_is_shared() {
    let group = Group::split(2, 3).await;
    let home = &group.hosts[0].home;
    let export = home.monosign(&["state", "export", "-c", "monosign.toml"]);
    export.must_fail(
        1,
        &["is shared among cosigners, and this takes the whole key", "monosign threshold status"],
    );
    let unlock = home.monosign(&["unlock", "-c", "monosign.toml", "--stdin"]);
    unlock.must_fail(1, &["this is a cosigner: there is nothing to unlock"]);
}

#[tokio::test]
async fn two_shares_do_not_listen_in_one_place() {
    let group = Group::split(2, 3).await;
    let home = &group.hosts[0].home;
    let text = std::fs::read_to_string(home.config()).expect("a configuration");
    let (chain, providers) = text.split_once("\n\n").expect("two tables");
    let share = providers.split("[[validator]]").next().expect("a share");
    let second = format!("{chain}\n\n{share}").replace(CHAIN, "other-1");
    home.append_config(&second);
    home.start_and_fail().await.must_fail(1, &["its listen is that of another [[providers.threshold]]"]);
}

/// What two cosigners of Horcrux v3.3 leave behind: rounds in quotes, steps from 1, and the extension's signature in one of the
/// two files of each.
#[tokio::test]
async fn the_states_of_a_horcrux_group_are_floors_and_the_highest_counts() {
    let dealer = Home::new();
    let key = rig::cosigners::key_file(&signing_key(CHAIN));
    dealer.write("priv_validator_key.json", key.as_bytes());
    let state = |height: u32, round: &str, step: u8, more: &str| {
        format!(
            "{{\"height\":\"{height}\",\"round\":{round},\"step\":{step},\"nonce_public\":\"\",\"signature\":null{more}}}"
        )
    };
    let extension = ",\"vote_ext_signature\":\"AQI=\"";
    dealer.write("1/state.json", state(40, "\"2\"", 3, extension).as_bytes());
    dealer.write("1/share.json", state(41, "\"0\"", 1, "").as_bytes());
    dealer.write("2/state.json", state(12, "\"0\"", 2, "").as_bytes());
    dealer.write("damaged.json", state(41, "\"-1\"", 1, "").as_bytes());
    let split = |states: &[&str], output: &str| {
        let mut args = vec!["threshold", "split", "--key", "priv_validator_key.json", "--chain", CHAIN];
        args.extend(["--threshold", "2", "--shares", "3", "-o", output]);
        states.iter().for_each(|state| args.extend(["--state", state]));
        let recipients: Vec<String> = (1..=3)
            .map(|n| {
                dealer.monosign(&["threshold", "recipient", "-o", &format!("{output}-{n}")]).must_succeed()
            })
            .map(|made| made.stdout.trim().to_owned())
            .collect();
        recipients.iter().for_each(|recipient| args.extend(["--recipient", recipient]));
        dealer.monosign(&args)
    };
    let report = split(&["1/state.json", "1/share.json", "2/state.json"], "all").must_succeed().stdout;
    assert!(report.contains("nothing below height 42 is signed"), "{report}");
    let report = split(&["2/state.json"], "one").must_succeed().stdout;
    assert!(report.contains("nothing below height 13 is signed"), "{report}");
    split(&["1/state.json", "damaged.json"], "none").must_fail(1, &["`damaged.json`", "`round` is not"]);
    assert!(!dealer.path("none").exists(), "nothing is written");
}

#[tokio::test]
async fn while_the_key_of_the_group_is_locked_no_cosigner_gives_a_share_or_a_signature() {
    let mut group = Group::split(2, 3).await;
    // What the witness of a device writes beside each record of a key.
    let lock = |host: &rig::cosigners::Host| host.home.record(CHAIN).with_added_extension("locked");
    for host in &group.hosts[..2] {
        std::fs::write(lock(host), "device 1: somebody else signed\n").expect("written");
        host.home
            .monosign(&["check", "--offline"])
            .must_fail(3, &["the key is locked: device 1: somebody else"]);
    }
    for host in &mut group.hosts {
        host.start();
    }
    for host in &group.hosts {
        host.takes_part(1).await;
    }
    let mut nodes = Vec::new();
    for host in &group.hosts {
        nodes.push(host.converse().await);
    }
    // Asked for itself, and by the one that knows of no lock.
    for node in &mut nodes {
        let request = node.request(FLOOR, 0, Step::Prevote);
        node.refuses(&request).await;
    }
    let request = nodes[0].request(FLOOR, 0, Step::Prevote);
    let refused = nodes[0].refuses(&request).await.description.to_string();
    assert!(refused.contains("the key is locked") && refused.contains("somebody else signed"), "{refused}");
    for host in &mut group.hosts[..2] {
        host.kill();
        let up_to = format!("{CHAIN}={}", FLOOR + 1);
        host.home.monosign(&["yubihsm", "unlock", "--signed-up-to", &up_to]).must_succeed();
        assert!(!lock(host).exists());
        host.start();
        host.takes_part(2).await;
    }
    let mut node = group.hosts[0].converse().await;
    node.signs_prevote(FLOOR + 2).await;
}
