//! The link over in-memory streams: every transport, both directions, and what breaks it.
#![allow(clippy::unwrap_used, reason = "also in helpers, which clippy does not take for tests")]

mod common;

use common::{TestSigner, hrs, initiate, requests};
use ed25519_dalek::SigningKey;
use mock_validator::link::{LinkError, NodeLink, Peer, read_limit};
use monosign_protocol::message::{Message, SignedVoteResponse, Vote};
use monosign_protocol::{Dialect, Height, Step, noise, secret_connection};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

fn node_key() -> SigningKey {
    SigningKey::from_bytes(&[1; 32])
}

fn signer_key() -> SigningKey {
    SigningKey::from_bytes(&[2; 32])
}

async fn secret_pair(buffer: usize) -> (NodeLink<DuplexStream>, NodeLink<DuplexStream>) {
    let (node, signer) = duplex(buffer);
    let (node_key, signer_key) = (node_key(), signer_key());
    let (node, signer) = tokio::join!(
        NodeLink::accept_secret(node, &node_key, [3; 32]),
        // SecretConnection is symmetric, so the node's side serves as the signer's too.
        NodeLink::accept_secret(signer, &signer_key, [4; 32]),
    );
    (node.unwrap(), signer.unwrap())
}

fn a_precommit(extension_bytes: usize) -> Message {
    let requests = requests(Dialect::V0_38, Some(extension_bytes));
    requests.sign(hrs(1, Step::Precommit), requests.blocks().block(Height(1), 0), common::NOW)
}

#[tokio::test]
async fn asks_over_a_plain_stream() {
    let (node, signer) = duplex(64);
    let mut node = NodeLink::accept_plain(node);
    assert_eq!(node.peer(), &Peer::Unknown);
    let mut test_signer = TestSigner::new();
    let asking = async move {
        assert_eq!(node.ask(&Message::PingRequest).await.unwrap(), Some(Message::PingResponse));
        assert!(matches!(node.ask(&a_precommit(0)).await.unwrap(), Some(Message::SignedVoteResponse(_))));
    };
    tokio::join!(asking, test_signer.serve(NodeLink::accept_plain(signer)));
}

#[tokio::test]
async fn asks_over_a_secret_connection_whose_frames_come_in_pieces() {
    let (mut node, signer) = secret_pair(1050).await;
    let identity = secret_connection::PeerIdentity::new(signer_key().verifying_key());
    assert_eq!(node.peer(), &Peer::Secret(identity));
    let mut test_signer = TestSigner::new();
    let asking = async move {
        for _ in 0..3 {
            let answer = node.ask(&a_precommit(4096)).await.unwrap();
            assert!(matches!(answer, Some(Message::SignedVoteResponse(m)) if m.error.is_none()));
        }
    };
    tokio::join!(asking, test_signer.serve(signer));
}

#[tokio::test]
async fn asks_over_noise_and_lets_nobody_else_in() {
    let (node, mut signer) = duplex(4096);
    let (node_key, signer_key) = (node_key(), signer_key());
    let pinned = noise::PeerId::from(&signer_key.verifying_key());
    let entropy = |n| noise::Entropy { static_key: [n; 32], ephemeral: [n + 1; 32] };
    let (node, connection) = tokio::join!(
        NodeLink::accept_noise(node, &node_key, pinned, entropy(3)),
        initiate(&mut signer, &signer_key, &node_key, entropy(5)),
    );
    let (mut node, mut connection) = (node.unwrap(), connection.unwrap());
    assert_eq!(node.peer(), &Peer::Noise(pinned));
    let answering = async {
        let (mut wire, mut plain) = (Vec::new(), Vec::new());
        while plain.is_empty() {
            signer.read_buf(&mut wire).await.unwrap();
            let used = connection.opener.open(&wire, &mut plain).unwrap();
            wire.drain(..used);
        }
        assert_eq!(plain, [0x02, 0x3a, 0x00], "a ping request with its length");
        let mut sealed = Vec::new();
        connection.sealer.seal(&[0x02, 0x42, 0x00], &mut sealed).unwrap();
        signer.write_all(&sealed).await.unwrap();
    };
    let (answer, ()) = tokio::join!(node.ask(&Message::PingRequest), answering);
    assert_eq!(answer.unwrap(), Some(Message::PingResponse));

    let (node, mut other) = duplex(4096);
    let other_key = SigningKey::from_bytes(&[8; 32]);
    let (node, _) = tokio::join!(
        NodeLink::accept_noise(node, &node_key, pinned, entropy(7)),
        initiate(&mut other, &other_key, &node_key, entropy(9)),
    );
    assert!(matches!(node, Err(LinkError::NoiseHandshake(_))));
}

#[tokio::test]
async fn reads_several_messages_of_one_frame_one_after_the_other() {
    let (mut node, mut signer) = secret_pair(4096).await;
    signer.send_plain_bytes(&[0x02, 0x42, 0x00, 0x00, 0x02, 0x42, 0x00]).await.unwrap();
    assert_eq!(node.receive().await.unwrap(), Some(Message::PingResponse));
    assert_eq!(node.receive().await.unwrap(), None, "a message without content");
    assert_eq!(node.receive().await.unwrap(), Some(Message::PingResponse));
}

#[tokio::test]
async fn stays_in_step_after_a_message_that_does_not_decode() {
    let (mut node, mut signer) = secret_pair(4096).await;
    signer.send_plain_bytes(&[0x02, 0xff, 0xff, 0x02, 0x42, 0x00]).await.unwrap();
    assert!(matches!(node.receive().await, Err(LinkError::Decode { .. })));
    assert_eq!(node.receive().await.unwrap(), Some(Message::PingResponse));
}

#[tokio::test]
async fn refuses_bytes_below_the_encryption() {
    let (mut node, mut signer) = secret_pair(4096).await;
    signer.send_raw(&[0; secret_connection::FRAME_SIZE]).await.unwrap();
    assert!(matches!(node.receive().await, Err(LinkError::SecretOpen(_))));
}

#[tokio::test]
async fn tells_a_signer_that_hangs_up() {
    let (mut node, signer) = secret_pair(4096).await;
    drop(signer);
    assert!(matches!(node.receive().await, Err(LinkError::Closed)));
}

#[tokio::test]
async fn reads_no_longer_answers_than_a_node_of_the_dialect() {
    let answer = |extension_bytes| {
        let vote = Vote { extension: vec![1; extension_bytes], ..Vote::default() };
        Message::SignedVoteResponse(SignedVoteResponse { vote, error: None })
    };
    for (dialect, fits, too_long) in
        [(Dialect::V0_38, 10_000, 10_300), (Dialect::V0_40, 1024 * 1024, 1024 * 1024 + 8000)]
    {
        let (node, signer) = duplex(4 * 1024 * 1024);
        let mut node = NodeLink::accept_plain(node).with_read_limit(read_limit(dialect));
        let mut signer = NodeLink::accept_plain(signer);
        signer.send(&answer(fits)).await.unwrap();
        assert_eq!(node.receive().await.unwrap(), Some(answer(fits)));
        signer.send(&answer(too_long)).await.unwrap();
        assert!(matches!(node.receive().await, Err(LinkError::Frame(_))), "{dialect}");
    }
}
