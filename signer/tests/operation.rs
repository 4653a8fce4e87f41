//! The signer in operation: nodes that come and go, several chains and validators, signals, restarts, and everything that
//! it must refuse to start with.

mod rig;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use mock_validator::node::{Answer, probes};
use monosign_protocol::{Step, noise, secret_connection};
use rig::{CHAIN, Conversation, Home, NodeSide, Signer, validator_table, within_deadline};
use rustix::process::Signal;
use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, sleep};

#[tokio::test]
async fn two_validators_race_for_one_chain_and_one_message_wins_each_place() {
    let (one, other) = (NodeSide::tcp().await, NodeSide::tcp().await);
    let home = Home::new();
    home.configure(&[(CHAIN, &one.addr()), (CHAIN, &other.addr())]);
    home.make_record(CHAIN);
    let _signer = home.start();
    let (mut a, mut b) = (one.converse(CHAIN).await, other.converse(CHAIN).await);
    let mut winners = [0, 0];
    for height in 1..=100 {
        let request = a.request(height, 0, Step::Prevote);
        let conflict = probes::conflict(&request).expect("a conflict");
        let (first, second) = tokio::join!(a.ask(&request), b.ask(&conflict));
        let first = a.judge(&request, first.expect("an answer"));
        let second = b.judge(&conflict, second.expect("an answer"));
        match (first, second) {
            (Answer::Signed(_), Answer::Refused { .. }) => winners[0] += 1,
            (Answer::Refused { .. }, Answer::Signed(_)) => winners[1] += 1,
            other => panic!("{other:?} at height {height}"),
        }
        // The same question from both is answered alike.
        let request = a.request(height, 0, Step::Precommit);
        let (first, second) = tokio::join!(a.signs(&request), b.signs(&request));
        assert_eq!(first, second);
    }
    println!("each won {winners:?} times");
}

#[tokio::test]
async fn one_chain_without_node_and_one_without_record_do_not_hold_up_the_others() {
    let node = NodeSide::tcp().await;
    let broken = NodeSide::tcp().await;
    let down = NodeSide::tcp().await;
    let home = Home::new();
    home.configure(&[(CHAIN, &node.addr()), ("down-1", &down.addr()), ("broken-1", &broken.addr())]);
    home.make_record(CHAIN);
    home.make_record("down-1");
    home.write("broken-1.record", &[7; 8192]);
    drop(down);
    let mut signer = home.start();
    let mut talk = node.converse(CHAIN).await;
    for height in 1..=50 {
        talk.signs_prevote(height).await;
    }
    signer.logs("broken-1 is not served").await;
    signer.logs("connection refused").await;
    assert!(signer.is_running());
    assert_eq!(home.watermark(CHAIN), (50, 0, 2));
    assert_eq!(fs::read(home.record("broken-1")).expect("a file"), [7; 8192], "it is left as it was");
}

#[tokio::test]
async fn a_standby_is_taken_over_when_the_node_accepts_it() {
    let node = NodeSide::tcp().await;
    let home = Home::with_one_chain(&node.addr());
    let _signer = home.start();
    // The kernel takes the connection, the node serves another signer for a while.
    let socket = node.accept_socket().await;
    sleep(Duration::from_secs(2)).await;
    let link = node.handshake(socket).await.expect("a handshake");
    Conversation::new(link, CHAIN).signs_prevote(1).await;
}

#[tokio::test]
async fn a_connection_that_ends_in_any_way_is_made_again_at_once() {
    let node = NodeSide::tcp().await;
    let home = Home::with_one_chain(&node.addr());
    let _signer = home.start();
    let mut talk = node.converse(CHAIN).await;
    talk.signs_prevote(1).await;
    for height in 2..12 {
        let mut socket = talk.link.into_inner();
        if height % 2 == 0 {
            // A clean end: the stock signer spins on it and never dials again.
            socket.shutdown().await.expect("an end");
        } else {
            reset(socket);
        }
        let ended = Instant::now();
        talk = node.converse(CHAIN).await;
        talk.signs_prevote(height).await;
        println!("signed {:?} after the end of the connection", ended.elapsed());
    }
}

/// Closes without the usual goodbye: the other end reads an error.
fn reset(socket: mock_validator::link::Socket) {
    let mock_validator::link::Socket::Tcp(stream) = socket else { panic!("not tcp") };
    stream.set_zero_linger().expect("an option");
}

#[tokio::test]
async fn a_node_that_was_down_is_served_soon_after_it_is_back() {
    let node = NodeSide::tcp().await;
    let addr = node.addr();
    let home = Home::with_one_chain(&addr);
    let signer = home.start();
    let mut talk = node.converse(CHAIN).await;
    talk.signs_prevote(1).await;
    drop(node);
    let mut times = Vec::new();
    for height in 2..=10 {
        drop(talk);
        // The outage itself, once as long as a node's restart.
        sleep(Duration::from_millis(if height == 2 { 2000 } else { 300 })).await;
        let node = NodeSide::listen(&addr).await;
        let back = Instant::now();
        talk = node.converse(CHAIN).await;
        talk.signs_prevote(height).await;
        times.push(back.elapsed());
    }
    times.sort();
    println!("signed after the node was back: {times:?}");
    // A busy machine makes some slow; it does not make most slow.
    assert!(times[times.len() / 2] < Duration::from_millis(200), "{times:?}");
    drop(signer);
}

#[tokio::test]
async fn without_reconnect_the_validator_is_dialed_once() {
    let node = NodeSide::tcp().await;
    let home = Home::with_one_chain(&node.addr());
    home.edit_config(
        &format!("secret_key = \"{}\"", rig::IDENTITY),
        "secret_key = \"identity.key\"\nreconnect = false",
    );
    let signer = home.start();
    let mut talk = node.converse(CHAIN).await;
    talk.signs_prevote(1).await;
    drop(talk);
    signer.logs("not reconnecting").await;
}

#[tokio::test]
async fn a_log_that_nobody_reads_and_one_that_is_gone_stop_nothing() {
    let node = NodeSide::tcp().await;
    let home = Home::with_one_chain(&node.addr());
    // More lines than the pipe holds, which nobody reads.
    let (unread, full) = std::io::pipe().expect("a pipe");
    let mut command = home.command(&["start", "-c", "monosign.toml", "--log-level", "debug"]);
    let mut signer =
        Signer::spawn(command.stdin(Stdio::null()).stdout(full).stderr(Stdio::null()), home.path("log"));
    drop(command);
    let mut talk = node.converse(CHAIN).await;
    for height in 1..=1500 {
        talk.signs_prevote(height).await;
    }
    // Now the reader is gone: writing is an error, and a signal unless it is ignored.
    drop(unread);
    for height in 1501..=1600 {
        talk.signs_prevote(height).await;
    }
    signer.signal(Signal::TERM);
    assert_eq!(signer.ended().await.code(), Some(0));
}

#[tokio::test]
async fn sigterm_and_sigint_answer_what_was_asked_and_end_with_0() {
    let node = NodeSide::tcp().await;
    let home = Home::with_one_chain(&node.addr());
    for (height, signal) in [(1, Signal::TERM), (2, Signal::INT)] {
        let mut signer = home.start();
        let mut talk = node.converse(CHAIN).await;
        talk.signs_prevote(height).await;
        signer.signal(signal);
        assert_eq!(signer.ended().await.code(), Some(0));
        talk.is_closed().await;
        assert!(signer.log().contains("stopped"));
    }
}

#[tokio::test]
async fn sighup_takes_over_rules_and_validators_and_keeps_what_is_served() {
    let node = NodeSide::tcp().await;
    let home = Home::with_one_chain(&node.addr());
    let signer = home.start();
    let mut talk = node.converse(CHAIN).await;
    talk.signs_prevote(1).await;
    let jump = talk.request(1000, 0, Step::Prevote);
    home.edit_config("key_format", "max_height_jump = 10\nkey_format");
    let added = NodeSide::tcp().await;
    home.append_config(&validator_table(CHAIN, &added.addr(), ""));
    signer.signal(Signal::HUP);
    let mut second = added.converse(CHAIN).await;
    second.signs_prevote(2).await;
    let refusal = talk.refuses(&jump).await;
    assert!(refusal.description.to_string().contains("height jump"), "{refusal}");
    // A configuration that cannot be read changes nothing.
    home.append_config("nonsense = \n");
    signer.signal(Signal::HUP);
    signer.logs("everything stays as it is").await;
    talk.signs_prevote(3).await;
    second.signs_prevote(4).await;
    // Once allowed, the jump is made, without a restart.
    home.configure(&[(CHAIN, &node.addr())]);
    home.monosign(&["state", "allow-jump", "-c", "monosign.toml", "--to-height", "1000"]).must_succeed();
    talk.signs(&jump).await;
}

#[tokio::test]
async fn nothing_is_signed_above_max_height_and_the_rest_is_served() {
    for max_height in ["max_height = \"3\"", "max_height = 3"] {
        let (ending, other) = (NodeSide::tcp().await, NodeSide::tcp().await);
        let home = Home::with_one_chain(&ending.addr());
        let tables = home.chain_tables(CHAIN)
            + &validator_table(CHAIN, &ending.addr(), max_height)
            + &validator_table(CHAIN, &other.addr(), "");
        home.write("monosign.toml", tables.as_bytes());
        let _signer = home.start();
        let mut talk = ending.converse(CHAIN).await;
        talk.signs_prevote(3).await;
        for (height, step) in [(4, Step::Proposal), (4, Step::Prevote), (1000, Step::Precommit)] {
            let above = talk.request(height, 0, step);
            let refusal = talk.refuses(&above).await.description.to_string();
            assert!(refusal.contains("is above max_height 3"), "{refusal}");
        }
        assert_eq!(home.watermark(CHAIN), (3, 0, 2), "what is refused raises nothing");
        // The connection stays, and the height itself is signed to its end.
        talk.answers_ping().await;
        let precommit = talk.request(3, 0, Step::Precommit);
        talk.signs(&precommit).await;
        // It is a setting of the validator, not of the chain.
        other.converse(CHAIN).await.signs_prevote(4).await;
    }
}

/// The record is carried no further by many requests, nor by restarts in between, than by one.
#[tokio::test]
async fn jumps_in_a_row_carry_the_record_no_further_than_the_limit() {
    let node = NodeSide::tcp().await;
    let home = Home::with_one_chain(&node.addr());
    let mut signer = home.start();
    let mut talk = node.converse(CHAIN).await;
    talk.signs_prevote(1_000_000).await;
    let mut refused = 0;
    for n in 1..=20 {
        let request = talk.request(1_000_000 + n * 30_000, 0, Step::Prevote);
        match talk.ask(&request).await.map(|answer| talk.judge(&request, answer)) {
            Ok(Answer::Signed(_)) => {}
            Ok(Answer::Refused { error, .. }) => {
                assert!(error.description.to_string().contains("height jump"), "{error}");
                refused += 1;
            }
            other => panic!("{other:?}"),
        }
        if n % 5 == 0 {
            signer.kill();
            signer = home.start();
            talk = node.converse(CHAIN).await;
        }
    }
    assert_eq!((refused, home.watermark(CHAIN)), (17, (1_090_000, 0, 2)));
    talk.signs_prevote(1_090_001).await;
}

#[tokio::test]
async fn a_new_record_takes_no_first_height_that_no_chain_has() {
    let node = NodeSide::tcp().await;
    let home = Home::with_one_chain(&node.addr());
    let _signer = home.start();
    let mut talk = node.converse(CHAIN).await;
    let far = talk.request(i64::MAX, 0, Step::Prevote);
    let refusal = talk.refuses(&far).await.description.to_string();
    assert!(refusal.contains("height jump"), "{refusal}");
    talk.signs_prevote(25_000_000).await;
}

#[tokio::test]
async fn a_second_signer_on_the_same_record_is_refused() {
    let node = NodeSide::tcp().await;
    let home = Home::with_one_chain(&node.addr());
    let mut signer = home.start();
    node.converse(CHAIN).await.signs_prevote(1).await;
    home.start_and_fail().await.must_fail(3, &["locked", "hint:"]);
    home.monosign(&["state", "raise", "-c", "monosign.toml", "--to-height", "5"])
        .must_fail(3, &["locked", "hint:"]);
    assert!(signer.is_running());
    // The lock goes with the process, however it ends.
    signer.kill();
    let _again = home.start();
    node.converse(CHAIN).await.signs_prevote(2).await;
}

#[test]
fn init_given_for_a_record_that_is_there_leaves_what_a_cosigner_knows_as_it_is() {
    let home = Home::new();
    home.configure(&[(CHAIN, "tcp://127.0.0.1:1")]);
    home.make_record(CHAIN);
    let lives = home.record(CHAIN).with_added_extension("lives");
    let settled = r#"{"own":{"count":3,"id":1},"peers":{},"settled":true}"#;
    fs::write(&lives, settled).expect("written");
    let init = ["state", "init", "--chain", CHAIN];
    home.monosign(&init).must_fail(3, &["exists and is never overwritten"]);
    assert_eq!(fs::read_to_string(&lives).expect("there"), settled);
    // One that is made anew has heard nothing.
    fs::remove_file(home.record(CHAIN)).expect("removed");
    home.monosign(&init).must_succeed();
    assert!(fs::read_to_string(&lives).expect("there").contains(r#""settled":false"#));
}

#[tokio::test]
async fn no_record_a_damaged_one_and_anothers_are_refused_with_a_hint() {
    let home = Home::new();
    home.configure(&[(CHAIN, "tcp://127.0.0.1:1"), ("other-1", "tcp://127.0.0.1:2")]);
    home.make_record(CHAIN);
    home.make_record("other-1");
    home.configure(&[(CHAIN, "tcp://127.0.0.1:1")]);
    let record = home.record(CHAIN);
    let good = fs::read(&record).expect("a record");

    fs::remove_file(&record).expect("removed");
    home.start_and_fail().await.must_fail(3, &["no record at", "hint:", "state init"]);
    assert!(!record.exists(), "none is made at start");

    let mut flipped = good.clone();
    for copy in [4096, 4096 + 2048] {
        flipped[copy + 12] ^= 1;
    }
    let damaged = [&b""[..], &good[..100], &good[..good.len() - 1], &[0; 300_000], &flipped];
    for content in damaged {
        home.write(&format!("{CHAIN}.record"), content);
        home.start_and_fail().await.must_fail(3, &["hint:"]);
        assert_eq!(fs::read(&record).expect("a file"), content, "it is left as it was");
    }

    fs::copy(home.record("other-1"), &record).expect("copied");
    home.start_and_fail().await.must_fail(3, &["is the record of chain `other-1`", "hint:"]);

    home.write(&format!("{CHAIN}.record"), &good);
    fs::copy(home.path("other-1.key"), home.path(format!("{CHAIN}.key"))).expect("copied");
    home.start_and_fail().await.must_fail(3, &["is the record of public key", "hint:"]);
}

#[tokio::test]
async fn a_tmkms_state_is_imported_before_the_start_and_never_signed_below() {
    let node = NodeSide::tcp().await;
    let home = Home::new();
    let key = home.chain_tables(CHAIN);
    let tmkms = key + &validator_table(CHAIN, &node.addr(), "protocol_version = \"v0.34\"\nreconnect = true");
    home.write("tmkms.toml", tmkms.as_bytes());
    // tmkms's precommit at 20/1: it counts steps from 0.
    let hash = "AB".repeat(32);
    let state = format!(
        r#"{{"height":"20","round":"1","step":2,"block_id":{{"hash":"{hash}","parts":{{"total":1,"hash":"{hash}"}}}}}}"#
    );
    let record = home.write(&format!("{CHAIN}.record"), state.as_bytes());

    home.start_and_fail_with("tmkms.toml").await.must_fail(3, &["hint:", "state import"]);
    home.monosign(&["state", "init", "-c", "tmkms.toml"]).must_fail(3, &["state import"]);
    assert_eq!(fs::read_to_string(&record).expect("a file"), state, "it is left as it was");

    home.monosign(&["state", "import", "-c", "tmkms.toml"]).must_succeed();
    assert_eq!(fs::read_to_string(record.with_added_extension("tmkms.bak")).expect("kept"), state);
    let _signer = Signer::start(home.command(&["start", "-c", "tmkms.toml"]), home.path("log"));
    let mut talk = node.converse(CHAIN).await;
    for (height, round, step) in
        [(19, 5, Step::Precommit), (20, 0, Step::Precommit), (20, 1, Step::Prevote), (20, 1, Step::Precommit)]
    {
        let request = talk.request(height, round, step);
        talk.refuses(&request).await;
    }
    let request = talk.request(20, 2, Step::Prevote);
    talk.signs(&request).await;
}

#[tokio::test]
async fn keys_that_are_plain_without_leave_or_open_to_others_are_refused() {
    let home = Home::with_one_chain("tcp://127.0.0.1:1");
    let key = home.path(format!("{CHAIN}.key"));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("a mode");
    home.start_and_fail().await.must_fail(3, &["hint:", "chmod"]);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("a mode");
    home.edit_config("allow_plaintext_key = true", "allow_plaintext_key = false");
    home.start_and_fail().await.must_fail(3, &["allow_plaintext_key", "hint:"]);
    home.edit_config("allow_plaintext_key = false", "allow_plaintext_key = true");
    fs::set_permissions(home.path(rig::IDENTITY), fs::Permissions::from_mode(0o640)).expect("a mode");
    home.start_and_fail().await.must_fail(3, &["identity.key", "hint:"]);
}

#[tokio::test]
async fn a_sealed_key_shows_itself_and_signs_after_unlock_only() {
    let node = NodeSide::tcp().await;
    let home = Home::with_one_chain(&node.addr());
    seal(&home, "correct horse");
    home.edit_config("allow_plaintext_key = true", "");
    let signer = home.start();
    let mut talk = node.converse(CHAIN).await;
    assert_eq!(talk.shows_key().await, home.public_key(CHAIN));
    let request = talk.request(1, 0, Step::Prevote);
    let refusal = talk.refuses(&request).await;
    assert!(refusal.description.to_string().contains("unlock"), "{refusal}");
    assert_eq!(home.watermark(CHAIN), (0, 0, 0), "a refusal raises nothing");
    signer.logs("waiting for `monosign unlock`").await;
    let socket = fs::metadata(home.path("monosign.sock")).expect("a socket").permissions().mode();
    assert_eq!(socket & 0o777, 0o600);
    let unlock = ["unlock", "-c", "monosign.toml", "--stdin"];
    home.monosign_with_input(&unlock, "wrong\n").must_fail(1, &["passphrase"]);
    talk.refuses(&request).await;
    home.monosign_with_input(&unlock, "correct horse\n").must_succeed();
    talk.signs(&request).await;
}

/// Encrypts the chain's key with a passphrase.
fn seal(home: &Home, passphrase: &str) {
    use monosign::backend::softsign::key_file::{self, Protection};
    use monosign::consensus_key::ConsensusKey;
    let key = ConsensusKey::from_seed(rig::signing_key(CHAIN).as_bytes());
    let protection = Protection::Passphrase(passphrase.to_owned().into());
    let sealed = key_file::seal(&key, &protection).expect("sealed");
    home.write(&format!("{CHAIN}.key"), sealed.as_bytes());
}

#[tokio::test]
async fn unix_sockets_with_and_without_a_file_are_served() {
    let home = Home::new();
    let path = format!("unix://{}", home.path("node.sock").display());
    let name = format!("unix://@monosign-test-{}", std::process::id());
    home.configure(&[(CHAIN, &path), (CHAIN, &name)]);
    home.make_record(CHAIN);
    let signer = home.start();
    // No file is no node yet.
    signer.logs("connection refused").await;
    let (by_path, by_name) = (NodeSide::listen(&path).await, NodeSide::listen(&name).await);
    let (mut a, mut b) = (by_path.converse(CHAIN).await, by_name.converse(CHAIN).await);
    assert_eq!(a.signs_prevote(1).await, b.signs_prevote(1).await);
    drop(a);
    by_path.converse(CHAIN).await.signs_prevote(2).await;
}

#[tokio::test]
async fn noise_serves_the_pinned_node_and_no_other() {
    let ours = noise::PeerId::from(&SigningKey::from_bytes(&[3; 32]).verifying_key());
    let nodes = SigningKey::from_bytes(&[4; 32]);
    let node = NodeSide::listen(&format!("noise://{ours}@127.0.0.1:0")).await;
    let pinned = noise::PeerId::from(&nodes.verifying_key());
    let addr = format!("noise://{pinned}@{}", node.socket_addr());
    let home = Home::with_one_chain(&addr);
    let _signer = home.start();
    let mut talk = node.converse(CHAIN).await;
    talk.signs_prevote(1).await;
    drop((talk, node));
    // Another one takes its port.
    let (signer_id, port) = (ours, addr.rsplit_once(':').expect("a port").1);
    let address = format!("noise://{signer_id}@127.0.0.1:{port}");
    let impostor = NodeSide::listen_as(&address, SigningKey::from_bytes(&[6; 32])).await;
    let link =
        within_deadline("a dial", async { impostor.handshake(impostor.accept_socket().await).await }).await;
    if let Ok(link) = link {
        Conversation::new(link, CHAIN).is_closed().await;
    }
    drop(impostor);
    let node = NodeSide::listen(&address).await;
    node.converse(CHAIN).await.signs_prevote(2).await;
}

#[tokio::test]
async fn a_pinned_tcp_peer_is_served_and_no_other() {
    let node = NodeSide::tcp().await;
    let id = secret_connection::PeerIdentity::new(SigningKey::from_bytes(&[4; 32]).verifying_key()).id();
    let port = node.socket_addr();
    let home = Home::with_one_chain(&format!("tcp://{id}@{port}"));
    let signer = home.start();
    let mut talk = node.converse(CHAIN).await;
    talk.signs_prevote(1).await;
    drop((talk, node));
    let impostor = NodeSide::listen_as(&format!("tcp://{port}"), SigningKey::from_bytes(&[6; 32])).await;
    if let Ok(link) = impostor.handshake(impostor.accept_socket().await).await {
        Conversation::new(link, CHAIN).is_closed().await;
    }
    signer.logs("pins").await;
    drop(impostor);
    NodeSide::listen(&format!("tcp://{port}")).await.converse(CHAIN).await.signs_prevote(2).await;
}

#[tokio::test]
async fn memory_stays_small_with_one_chain_and_with_a_hundred() {
    let one = NodeSide::tcp().await;
    let home = Home::with_one_chain(&one.addr());
    let signer = home.start();
    let mut talk = one.converse(CHAIN).await;
    for height in 1..=20 {
        talk.signs_prevote(height).await;
    }
    let resident = signer.resident_kib();
    println!("one chain: {resident} KiB");
    assert!(resident < 16 * 1024, "{resident} KiB with one chain");

    let home = Home::new();
    let mut nodes = Vec::new();
    for n in 0..100 {
        nodes.push((format!("chain-{n}"), NodeSide::tcp().await));
    }
    let addrs: Vec<_> = nodes.iter().map(|(chain, node)| (chain.as_str(), node.addr())).collect();
    let validators: Vec<_> = addrs.iter().map(|(chain, addr)| (*chain, addr.as_str())).collect();
    home.configure(&validators);
    for (chain, _) in &validators {
        home.make_record(chain);
    }
    let signer = home.start();
    let mut talks = Vec::new();
    for (chain, node) in &nodes {
        let mut talk = node.converse(chain).await;
        for height in 1..=3 {
            talk.signs_prevote(height).await;
        }
        talks.push(talk);
    }
    let resident = signer.resident_kib();
    println!("a hundred chains: {resident} KiB");
    assert!(resident < 64 * 1024, "{resident} KiB with a hundred chains");
    // Each is still served.
    for talk in &mut talks {
        talk.answers_ping().await;
    }
}
