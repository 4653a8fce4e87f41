//! The conformance suite on the binary: every required rule is kept, for every release and over every transport.
//!
//! How fast it is, is not looked at here, where many tests share a processor: `just conform` measures that.

mod rig;

use std::time::Duration;

use ed25519_dalek::SigningKey;
use mock_validator::conform::{self, Door, Limits, Options, ShellCommand, SocketDoor, Summary};
use mock_validator::link::{Address, Listener};
use monosign_protocol::message::Timestamp;
use monosign_protocol::{Dialect, Height, noise};
use rig::{CHAIN, Home, signing_key};

/// Twice, for two validators of one chain.
fn addresses(transport: &str, home: &Home) -> Vec<Address> {
    let signer = noise::PeerId::from(&SigningKey::from_bytes(&[3; 32]).verifying_key());
    let address = |n| match transport {
        "unix" => format!("unix://{}", home.path(format!("{n}.sock")).display()),
        "noise" => format!("noise://{signer}@127.0.0.1:0"),
        _ => "tcp://127.0.0.1:0".into(),
    };
    [1, 2].map(|n: u8| address(n).parse().expect("an address")).into()
}

/// What the signer's configuration says of a listener.
fn dialed(listener: &Listener, node: &SigningKey) -> String {
    match listener.address() {
        Address::Noise { addr, .. } => {
            format!("noise://{}@{addr}", noise::PeerId::from(&node.verifying_key()))
        }
        other => other.to_string(),
    }
}

async fn run(dialect: Dialect, transport: &str) -> Summary {
    let (home, node) = (Home::new(), SigningKey::from_bytes(&[4; 32]));
    // Of this run alone: on one host, one process at a time uses the records of a chain and key.
    let chain = format!("{CHAIN}-{dialect}-{transport}");
    let mut doors: Vec<Box<dyn Door>> = Vec::new();
    let mut dials = Vec::new();
    for address in addresses(transport, &home) {
        let listener = Listener::bind(&address).await.expect("a listener");
        dials.push(dialed(&listener, &node));
        doors.push(Box::new(SocketDoor::new(listener)));
    }
    let validators: Vec<_> = dials.iter().map(|dial| (chain.as_str(), dial.as_str())).collect();
    home.configure(&validators);
    // Far enough from the 3.6 s of a case that is silent for long, on a machine that is busy.
    home.edit_config("[[validator]]\n", "[[validator]]\ntimeout = 6\n");
    home.make_record(&chain);
    let (binary, config) = (env!("CARGO_BIN_EXE_monosign"), home.config());
    let command = format!("exec '{binary}' start -c '{}'", config.display());
    let process = ShellCommand::new(command, Some(home.record(&chain)), Some(home.path("log")));
    let mut fresh = 0u64;
    let options = Options {
        chain_id: chain.parse().expect("a chain id"),
        dialect,
        first_height: Height(1),
        expected_key: Some(signing_key(&chain).verifying_key()),
        doors,
        process: Some(Box::new(process)),
        only: all_but_speed(),
        signatures: 300,
        limits: Limits::default(),
        start: Timestamp { seconds: 1_700_000_000, nanos: 0 },
        seed: [7; 32],
        identity: node,
        entropy: Box::new(move || {
            fresh += 1;
            let mut bytes = [5; 32];
            bytes[8..16].copy_from_slice(&fresh.to_le_bytes());
            bytes
        }),
    };
    conform::run(options, |_| {}).await.expect("a summary")
}

fn all_but_speed() -> Vec<String> {
    let ids = conform::cases().into_iter().map(|case| case.id);
    ids.filter(|id| *id != "load/median-of-50").map(str::to_owned).collect()
}

async fn keeps_every_required_rule(dialect: Dialect, transport: &str) {
    let summary = run(dialect, transport).await;
    let broken: Vec<_> = summary.results.iter().filter(|finding| finding.breaks_conformance()).collect();
    assert!(broken.is_empty(), "{dialect} over {transport}: {broken:#?}");
    let [passed, ..] = summary.count_required();
    assert!(passed > 80, "only {passed} were tried");
}

/// All at once: most of the time is spent waiting for a signer that waits for its validator.
#[tokio::test]
async fn keeps_every_required_rule_of_every_release_over_every_transport() {
    let runs = Dialect::ALL.map(|dialect| (dialect, "tcp")).into_iter();
    let runs = runs.chain([(Dialect::V0_38, "unix"), (Dialect::V1_0, "unix"), (Dialect::V0_40, "noise")]);
    let local = tokio::task::LocalSet::new();
    let tasks: Vec<_> =
        runs.map(|(dialect, over)| local.spawn_local(keeps_every_required_rule(dialect, over))).collect();
    let all = local.run_until(async {
        for task in tasks {
            task.await.expect("every rule kept");
        }
    });
    tokio::time::timeout(Duration::from_secs(300), all).await.expect("an end");
}
