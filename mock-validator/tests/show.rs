//! The whole run on real sockets, with a signer that follows FilePV's rules and with one that does not.
#![allow(clippy::unwrap_used, reason = "also in helpers, which clippy does not take for tests")]

mod common;

use std::time::Duration;

use common::{NOW, TestSigner, settings};
use ed25519_dalek::SigningKey;
use mock_validator::endpoint::{Failure, NoAnswer};
use mock_validator::link::{Address, Listener, NodeLink};
use mock_validator::show::{Options, ShowError, Summary, show};
use monosign_protocol::{Dialect, Height};
use tokio::net::{TcpStream, UnixStream};

fn options(dialect: Dialect, extension_bytes: Option<usize>) -> Options {
    Options {
        node: settings(dialect, extension_bytes),
        blocks: 3,
        block_time: Duration::ZERO,
        wait: Duration::from_secs(10),
        start: NOW,
        identity: SigningKey::from_bytes(&[1; 32]),
        entropy: Box::new(|| [3; 32]),
    }
}

async fn listener(address: &str) -> Listener {
    Listener::bind(&address.parse().unwrap()).await.unwrap()
}

async fn dial(listener: &Listener) -> NodeLink<TcpStream> {
    let Address::Tcp(addr) = listener.address() else { panic!("{}", listener.address()) };
    let stream = TcpStream::connect(addr).await.unwrap();
    NodeLink::accept_secret(stream, &SigningKey::from_bytes(&[2; 32]), [4; 32]).await.unwrap()
}

async fn run(
    listener: &Listener,
    options: Options,
    signer: impl Future<Output = ()>,
) -> (Result<Summary, ShowError>, String) {
    let mut out = Vec::new();
    let shown = tokio::select! {
        biased;
        shown = show(listener, options, &mut out) => shown,
        never = async { signer.await; std::future::pending().await } => never,
    };
    (shown, String::from_utf8(out).unwrap())
}

#[tokio::test]
async fn shows_signatures_and_a_refused_double_sign_over_tcp() {
    let listener = listener("tcp://127.0.0.1:0").await;
    let mut signer = TestSigner::new();
    let key = signer.public_key();
    let (shown, out) = run(&listener, options(Dialect::V0_38, Some(8)), async {
        let link = dial(&listener).await;
        signer.serve(link).await;
    })
    .await;
    let summary = shown.unwrap();
    assert_eq!((summary.blocks, summary.signatures, summary.public_key), (3, 9, key));
    assert!(summary.refusal.description.is("conflicting data"));
    for line in [
        "waiting for a signer on tcp://127.0.0.1:",
        "connected: signer ",
        "public key: ed25519 ",
        "height 3: proposal, prevote, precommit with extension signed in ",
        "height 3: asked for a PreCommit of another block: refused: conflicting data (code 0)",
        "3 blocks, 9 signatures, 1 double sign refused",
    ] {
        assert!(out.contains(line), "no `{line}` in:\n{out}");
    }
}

#[tokio::test]
async fn shows_the_same_over_an_abstract_unix_socket() {
    let listener = listener("unix://@mock-validator-show-test").await;
    let mut signer = TestSigner::new();
    let (shown, out) = run(&listener, options(Dialect::V1_0, None), async {
        let stream = UnixStream::connect("\0mock-validator-show-test").await.unwrap();
        signer.serve(NodeLink::accept_plain(stream)).await;
    })
    .await;
    assert_eq!(shown.unwrap().signatures, 9, "{out}");
    assert!(out.contains("connected: a signer, not encrypted"));
}

#[tokio::test]
async fn asks_again_after_a_lost_connection() {
    let listener = listener("tcp://127.0.0.1:0").await;
    let mut signer = TestSigner::new();
    let (shown, out) = run(&listener, options(Dialect::V0_34, None), async {
        // Takes a request and hangs up without an answer, as a killed signer does.
        let mut link = dial(&listener).await;
        link.receive().await.unwrap();
        drop(link);
        let link = dial(&listener).await;
        signer.serve(link).await;
    })
    .await;
    assert_eq!(shown.unwrap().blocks, 3, "{out}");
}

#[tokio::test]
async fn tells_a_signer_that_signs_twice() {
    let listener = listener("tcp://127.0.0.1:0").await;
    let (shown, _) = run(&listener, options(Dialect::V0_38, None), async {
        let mut link = dial(&listener).await;
        while let Ok(Some(request)) = link.receive().await {
            link.send(&TestSigner::new().answer(request)).await.unwrap();
        }
    })
    .await;
    assert!(matches!(shown, Err(ShowError::SignedTwice { hrs }) if hrs.height == Height(3)));
}

#[tokio::test]
async fn says_when_nobody_connects() {
    let listener = listener("tcp://127.0.0.1:0").await;
    let options = Options { wait: Duration::from_millis(1), ..options(Dialect::V0_38, None) };
    let (shown, _) = run(&listener, options, async {}).await;
    let text = shown.unwrap_err().to_string();
    let expected =
        "no signer connected within 0.001 s; nobody dialed: point the signer's `[[validator]] addr` here";
    assert_eq!(text, expected);
}

/// One that finds another node behind the address than it expects, for instance, does that for as long as it runs.
#[tokio::test]
async fn waits_no_longer_for_a_signer_that_dials_and_hangs_up_and_says_so_once() {
    let listener = listener("tcp://127.0.0.1:0").await;
    let options = Options { wait: Duration::from_millis(300), ..options(Dialect::V0_38, None) };
    let (shown, _) = run(&listener, options, async {
        loop {
            drop(dial(&listener).await);
        }
    })
    .await;
    let error = shown.unwrap_err();
    assert!(matches!(&error, ShowError::NoSigner { seen, .. } if seen.dials > 0), "{error:?}");
    let text = error.to_string();
    assert!(text.starts_with("no signer answered within 0.3 s; "), "{text}");
    assert!(text.contains(", and no answer came: "), "{text}");
}

#[tokio::test]
async fn waits_no_longer_for_a_signer_that_has_answered_and_is_gone() {
    let listener = listener("tcp://127.0.0.1:0").await;
    let options = Options { wait: Duration::from_millis(300), ..options(Dialect::V0_38, None) };
    let (shown, out) = run(&listener, options, async {
        let mut link = dial(&listener).await;
        let request = link.receive().await.unwrap().unwrap();
        link.send(&TestSigner::new().answer(request)).await.unwrap();
    })
    .await;
    let text = shown.unwrap_err().to_string();
    assert!(out.contains("public key: "), "{out}");
    assert!(text.starts_with("the signer gave no answer to "), "{text}");
}

#[test]
fn errors_that_say_their_reason_have_no_source_that_would_say_it_again() {
    let errors: [ShowError; 2] = [
        ShowError::from(std::io::Error::other("full")),
        ShowError::from(NoAnswer::Exhausted { attempts: 50, last: Failure::Unexpected { answer: None } }),
    ];
    for error in errors {
        assert!(std::error::Error::source(&error).is_none(), "{error}");
    }
}

#[tokio::test]
async fn a_unix_socket_is_removed_with_its_listener_and_a_stale_one_is_refused() {
    let path = std::env::temp_dir().join(format!("mock-validator-{}.sock", std::process::id()));
    let address = Address::Unix(path.clone());
    let first = Listener::bind(&address).await.unwrap();
    assert!(path.exists());
    assert!(Listener::bind(&address).await.is_err());
    drop(first);
    assert!(!path.exists());
}
