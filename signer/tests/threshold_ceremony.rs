//! Ceremonies as operators hold them: a command on each host at the same time, with cosigners that run or are stopped.

mod rig;

use std::fs::{self, File};
use std::process::{Child, Stdio};

use rig::cosigners::{FLOOR, Group, Host, config, free_ports};
use rig::{CHAIN, Finished, Home, NodeSide, poll, within_deadline};
use tokio::task::spawn_blocking;

/// A command that goes on at the same time as others.
struct Running {
    process: Child,
    out: std::path::PathBuf,
}

impl Running {
    fn start(home: &Home, args: &[&str]) -> Self {
        let out = home.path("ceremony.out");
        let file = File::create(&out).expect("a file");
        let errors = file.try_clone().expect("a file");
        let process = home.command(args).stdin(Stdio::null()).stdout(file).stderr(errors).spawn();
        Self { process: process.expect("it starts"), out }
    }

    async fn says(&self, text: &str) {
        let said = || fs::read_to_string(&self.out).expect("text").contains(text).then_some(());
        poll(text, said).await;
    }

    async fn ended(mut self) -> Finished {
        let ended = spawn_blocking(move || self.process.wait().expect("it ends"));
        let status = within_deadline("the command to end", ended).await.expect("it ends");
        let stdout = fs::read_to_string(&self.out).expect("text");
        Finished { code: status.code(), stdout, stderr: String::new() }
    }
}

fn identity(home: &Home) -> String {
    home.monosign(&["threshold", "identity", "share.identity"]).must_succeed().stdout.trim().to_owned()
}

async fn fresh_host(number: usize, ports: &[u16]) -> Host {
    let home = Home::new();
    home.monosign(&["threshold", "recipient", "-o", "share.identity"]).must_succeed();
    let node = NodeSide::tcp().await;
    home.write("monosign.toml", config(number, ports, &node.addr()).as_bytes());
    Host { home, node, process: None }
}

/// The same command on each of these hosts, to its end.
async fn together(hosts: &[&Host], args: &[Vec<String>]) -> Vec<Finished> {
    let mut running = Vec::new();
    for (host, args) in hosts.iter().zip(args) {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        running.push(Running::start(&host.home, &args));
    }
    let mut finished = Vec::new();
    for running in running {
        finished.push(running.ended().await);
    }
    finished
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(String::from).collect()
}

#[tokio::test]
async fn a_key_that_was_never_anywhere_signs() {
    let (ports, meet) = (free_ports(3), free_ports(3));
    let mut hosts = Vec::new();
    for number in 1..=3 {
        hosts.push(fresh_host(number, &ports).await);
    }
    let members = hosts.iter().zip(&meet);
    let members: String =
        members.map(|(host, port)| format!(" --member {}@127.0.0.1:{port}", identity(&host.home))).collect();
    let command = |port: &u16| {
        words(&format!(
            "threshold dkg --chain {CHAIN} --threshold 2{members} --identity share.identity -o . --listen 127.0.0.1:{port}"
        ))
    };
    let commands: Vec<_> = meet.iter().map(command).collect();
    for finished in together(&hosts.iter().collect::<Vec<_>>(), &commands).await {
        let report = finished.must_succeed().stdout;
        assert!(report.contains("all 3 sets of 2 sign") && report.contains("with fewer than 2"), "{report}");
    }
    // Never over what is there.
    let again = hosts[0].home.monosign(&commands[0].iter().map(String::as_str).collect::<Vec<_>>());
    again.must_fail(3, &["exists and is never overwritten"]);
    for host in &mut hosts {
        host.home.monosign(&["state", "init", "-c", "monosign.toml"]).must_succeed();
        host.home.monosign(&["check", "-c", "monosign.toml", "--offline"]).must_succeed();
        host.start();
    }
    for host in &hosts {
        host.takes_part(1).await;
    }
    let drill = hosts[1].home.monosign(&["threshold", "drill", "-c", "monosign.toml"]).must_succeed();
    assert_eq!(drill.stdout.matches("ok      cosigners").count(), 3);
}

#[tokio::test]
async fn shares_are_refreshed_while_the_group_signs_until_it_is_told_to_stop() {
    let mut group = Group::running(2, 3).await;
    let mut node = group.hosts[0].converse().await;
    node.signs_prevote(FLOOR).await;
    let old = fs::read(group.hosts[0].home.path("cosigner-1.age")).expect("a share");
    let old_group = fs::read(group.hosts[0].home.path("group.json")).expect("a group");
    let refresh = ["threshold", "refresh", "-c", "monosign.toml", "--port-offset", "1500"];
    let running: Vec<Running> = group.hosts.iter().map(|host| Running::start(&host.home, &refresh)).collect();
    for running in &running {
        running.says("stop the cosigner of this host now").await;
    }
    node.signs_prevote(FLOOR + 1).await;
    group.hosts.iter_mut().for_each(Host::kill);
    for running in running {
        let report = running.ended().await.must_succeed().stdout;
        assert!(report.contains("(unchanged), epoch 2"), "{report}");
    }
    for host in &mut group.hosts {
        host.start();
    }
    for host in &group.hosts {
        host.takes_part(2).await;
    }
    let mut node = group.hosts[2].converse().await;
    node.signs_prevote(FLOOR + 2).await;
    // The backup of an old share, with and without its group file.
    group.hosts[0].kill();
    let home = &group.hosts[0].home;
    fs::write(home.path("cosigner-1.age"), old).expect("written");
    home.start_and_fail().await.must_fail(3, &["the share is of another epoch"]);
    fs::write(home.path("group.json"), old_group).expect("written");
    home.start_and_fail().await.must_fail(3, &["an earlier share signs no more"]);
}

#[tokio::test]
async fn the_key_goes_over_to_five_hosts_and_the_one_that_left_signs_no_more() {
    let mut group = Group::running(2, 3).await;
    let mut node = group.hosts[0].converse().await;
    node.signs_prevote(FLOOR).await;
    group.hosts.iter_mut().for_each(Host::kill);
    // Cosigner 3 leaves, 1 and 2 stay, three come.
    let ports = free_ports(5);
    for number in 3..=5 {
        let host = fresh_host(number, &ports).await;
        let file = fs::read(group.hosts[0].home.path("group.json")).expect("a group");
        host.home.write("group.json", &file);
        group.hosts.push(host);
    }
    let meet = free_ports(6);
    let mut places = format!(" --member 1@127.0.0.1:{} --member 2@127.0.0.1:{}", meet[0], meet[1]);
    for (host, port) in group.hosts[3..].iter().zip(&meet[3..]) {
        places += &format!(" --member {}@127.0.0.1:{port}", identity(&host.home));
    }
    places += &format!(" --leaving 3@127.0.0.1:{}", meet[2]);
    let command = |port: &u16| {
        words(&format!("threshold reshare -c monosign.toml --threshold 3{places} --listen 127.0.0.1:{port}"))
    };
    let commands: Vec<_> = meet.iter().map(command).collect();
    let finished = together(&group.hosts.iter().collect::<Vec<_>>(), &commands).await;
    for (finished, host) in finished.into_iter().zip(0..) {
        let report = finished.must_succeed().stdout;
        assert!(report.contains("epoch 2") && report.contains("has left") == (host == 2), "{report}");
    }
    let left = group.hosts.remove(2);
    left.home.start_and_fail().await.must_fail(3, &["has left the group"]);
    // Nor those that stay, before their operators have named the others.
    group.hosts[0].home.start_and_fail().await.must_fail(1, &["for each of 2, 3, 4, 5"]);
    for (host, number) in group.hosts.iter_mut().zip(1..) {
        fs::write(host.home.config(), config(number, &ports, &host.node.addr())).expect("written");
        host.start();
    }
    for (host, times) in group.hosts.iter().zip([2, 2, 1, 1, 1]) {
        host.takes_part(times).await;
    }
    for (host, height) in group.hosts.iter().zip(FLOOR + 1..) {
        host.converse().await.signs_prevote(height).await;
    }
    // What was signed before is not signed again, by anybody.
    let nil = node.requests.sign(
        monosign_protocol::Hrs {
            height: monosign_protocol::Height(FLOOR),
            round: monosign_protocol::Round(0),
            step: monosign_protocol::Step::Prevote,
        },
        Default::default(),
        rig::NOW,
    );
    let mut fresh = group.hosts[4].converse().await;
    fresh.refuses(&nil).await;
}

#[tokio::test]
async fn a_host_that_starts_before_its_peers_are_edited_is_cut_off_until_another_restart() {
    let mut group = Group::running(2, 3).await;
    group.hosts.iter_mut().for_each(Host::kill);
    // Another host comes in the place of cosigner 3.
    let text = fs::read_to_string(group.hosts[2].home.config()).expect("a configuration");
    let listen =
        text.split("listen = \"").nth(1).and_then(|rest| rest.split('"').next()).expect("an address");
    let moved = format!("tcp://127.0.0.1:{}", free_ports(1)[0]);
    let mut comes = fresh_host(1, &free_ports(1)).await;
    let text = text.replace(listen, &moved).replace(&group.hosts[2].node.addr(), &comes.node.addr());
    fs::write(comes.home.config(), text).expect("written");
    comes.home.write("group.json", &fs::read(group.hosts[0].home.path("group.json")).expect("a group"));
    let meet = free_ports(4);
    let places = format!(
        "--member 1@127.0.0.1:{} --member 2@127.0.0.1:{} --member {}@127.0.0.1:{} --leaving 3@127.0.0.1:{}",
        meet[0],
        meet[1],
        identity(&comes.home),
        meet[3],
        meet[2]
    );
    let command = |port: &u16| {
        words(&format!("threshold reshare -c monosign.toml --threshold 2 {places} --listen 127.0.0.1:{port}"))
    };
    let commands: Vec<_> = meet.iter().map(command).collect();
    let all: Vec<&Host> = group.hosts.iter().chain([&comes]).collect();
    for finished in together(&all, &commands).await {
        finished.must_succeed();
    }
    let [one, two] = &mut group.hosts[..2] else { unreachable!() };
    for host in [&mut *one, &mut *two, &mut comes] {
        host.start();
    }
    one.takes_part(2).await;
    comes.takes_part(1).await;
    two.kill();
    // Cosigner 3 is up and reaches it, and it looks for it where it was.
    let mut node = one.converse().await;
    let hrs = monosign_protocol::Hrs {
        height: monosign_protocol::Height(FLOOR),
        round: monosign_protocol::Round(0),
        step: monosign_protocol::Step::Prevote,
    };
    let asked = node.requests.sign(hrs, Default::default(), rig::NOW);
    let refusal = node.refuses(&asked).await;
    assert!(refusal.description.to_string().contains("cosigner 3 not connected"), "{refusal}");
    comes.converse().await.signs_prevote(FLOOR + 1).await;
    // The right tables, and a restart.
    let text = fs::read_to_string(one.home.config()).expect("a configuration").replace(listen, &moved);
    one.kill();
    fs::write(one.home.config(), text).expect("written");
    one.start();
    one.takes_part(3).await;
    one.converse().await.signs_prevote(FLOOR + 2).await;
}

#[tokio::test]
async fn a_lost_share_is_made_again_while_the_others_sign() {
    let mut group = Group::running(2, 3).await;
    let mut node = group.hosts[0].converse().await;
    node.signs_prevote(FLOOR).await;
    group.hosts[1].kill();
    // A new host with the old one's configuration and the group file, and nothing else.
    let text = fs::read(group.hosts[1].home.config()).expect("a configuration");
    let home = Home::new();
    home.write("monosign.toml", &text);
    home.write("group.json", &fs::read(group.hosts[0].home.path("group.json")).expect("a group"));
    home.monosign(&["threshold", "recipient", "-o", "share.identity"]).must_succeed();
    group.hosts[1].home = home;
    let key = identity(&group.hosts[1].home);
    let command =
        words(&format!("threshold repair -c monosign.toml --cosigner 2 --identity {key} --port-offset 1500"));
    let hosts: Vec<&Host> = group.hosts.iter().collect();
    for finished in together(&hosts, &vec![command; 3]).await {
        finished.must_succeed();
    }
    node.signs_prevote(FLOOR + 1).await;
    for host in [2, 0] {
        group.hosts[host].kill();
        group.hosts[host].start();
    }
    group.hosts[1].start();
    group.hosts[1].takes_part(1).await;
    group.hosts[0].takes_part(2).await;
    group.hosts[2].takes_part(2).await;
    // With it and without the first.
    group.hosts[0].kill();
    let mut node = group.hosts[1].converse().await;
    node.signs_prevote(FLOOR + 2).await;
}

#[tokio::test]
async fn what_cannot_be_is_refused_before_anybody_is_met() {
    let group = Group::split(2, 3).await;
    let home = &group.hosts[0].home;
    let run = |text: &str| home.monosign(&words(text).iter().map(String::as_str).collect::<Vec<_>>());
    run("threshold reshare -c monosign.toml --threshold 2 --member 1@h:1 --member 2@h:2 --member 3@h:3 --member 9@h:4")
        .must_fail(3, &["2 of 4"]);
    run("threshold reshare -c monosign.toml --threshold 2 --member 1@h:1 --member 2@h:2 --member 9@h:4")
        .must_fail(2, &["there is no cosigner 9 in the group"]);
    run("threshold reshare -c monosign.toml --threshold 2 --member 2@h:1 --member 3@h:2")
        .must_fail(2, &["which is none of those that were named"]);
    run("threshold repair -c monosign.toml --cosigner 2 --identity 00").must_fail(2, &["is no identity"]);
    run(&format!("threshold repair -c monosign.toml --cosigner 2 --identity {} --helper 1", "00".repeat(32)))
        .must_fail(2, &["1 of those who take part have shares of the key, and 2 are needed"]);
    let alone = Home::new();
    alone.monosign(&["threshold", "recipient", "-o", "share.identity"]).must_succeed();
    let dkg = format!(
        "threshold dkg --chain {CHAIN} --threshold 2 --identity share.identity --member {0}@h:1 --member {0}@h:2 --member {1}@h:3",
        "00".repeat(32),
        "11".repeat(32)
    );
    alone
        .monosign(&words(&dkg).iter().map(String::as_str).collect::<Vec<_>>())
        .must_fail(2, &["the same identity is named twice"]);
    // Nobody else comes.
    let refresh = run("threshold refresh -c monosign.toml --port-offset 1500 --wait 1");
    refresh
        .must_fail(1, &["waited for cosigner 2, cosigner 3 in vain", "give the same command on every host"]);
}
