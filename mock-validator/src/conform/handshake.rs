//! The handshake of SecretConnection: what proves nothing gets nothing, and bytes come as they come.

use std::time::Duration;

use monosign_protocol::{frame, message::Message};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{sleep, timeout};

use super::by_hand::{self, Ephemeral, FRAME_SIZE};
use super::case::{Case, Failed, Need, Verdict};
use super::frames::{HandLink, Heard, accept_hello, hears};
use super::{Bench, Stream, source};

pub(super) fn cases() -> Vec<Case> {
    let cases = vec![
        Case::robustness(
            "handshake/low-order-point",
            "A peer whose ephemeral key is a point of low order is refused: the secret would be known to all.",
            source::SECRET_CONNECTION,
            |bench| Box::pin(low_order_point(bench)),
        ),
        Case::robustness(
            "handshake/wrong-signature",
            "A peer whose signature does not fit the connection's challenge is refused.",
            source::SECRET_CONNECTION,
            |bench| Box::pin(wrong_signature(bench)),
        ),
        Case::robustness(
            "handshake/identity-of-another-type",
            "A peer whose identity is no ed25519 key is refused.",
            source::SECRET_CONNECTION,
            |bench| Box::pin(identity_of_another_type(bench)),
        ),
        Case::robustness(
            "handshake/altered-proof",
            "A proof that was altered on its way is refused.",
            source::SECRET_CONNECTION,
            |bench| Box::pin(altered_proof(bench)),
        ),
        Case::robustness(
            "handshake/replayed",
            "What a validator sent on an earlier connection is worth nothing on another: the signer's key is fresh each time.",
            source::SECRET_CONNECTION,
            |bench| Box::pin(replayed(bench)),
        ),
        Case::missed_blocks(
            "handshake/split",
            "The handshake may come byte by byte.",
            source::SECRET_CONNECTION,
            |bench| Box::pin(split(bench)),
        ),
        Case::missed_blocks(
            "handshake/request-behind-it",
            "A request right behind the handshake is answered.",
            source::SECRET_CONNECTION,
            |bench| Box::pin(request_behind_it(bench)),
        ),
        Case::robustness(
            "handshake/over-the-bound",
            "A first message beyond any bound is neither waited for nor answered.",
            source::SECRET_CONNECTION,
            |bench| Box::pin(over_the_bound(bench)),
        ),
        Case::missed_blocks(
            "handshake/closed-by-the-node",
            "The signer comes back after a handshake that the node ended.",
            source::DIALER,
            |bench| Box::pin(closed_by_the_node(bench)),
        ),
        Case::advisory(
            "handshake/reflected",
            "A peer that sends the signer's own bytes back is refused, and its connection closed.",
            source::SECRET_CONNECTION,
            |bench| Box::pin(reflected(bench)),
        ),
        Case::advisory(
            "handshake/identity-of-low-order",
            "An identity key of low order, whose signature fits any challenge, proves nothing and is refused.",
            "RFC 8032, section 5.1.7; CometBFT takes it, by ZIP-215",
            |bench| Box::pin(identity_of_low_order(bench)),
        ),
    ];
    cases.into_iter().map(|case| case.needs(&[Need::SecretConnection])).collect()
}

/// How long nothing must come.
const LISTEN: Duration = Duration::from_millis(300);

/// The points that make the secret zero, least significant byte first: 0, 1, the two of order 8, p - 1, p and p + 1.
const LOW_ORDER: [[u8; 32]; 7] = [
    [0; 32],
    with(1, 0, 0),
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda,
        0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
    ],
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04,
        0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
    ],
    with(0xec, 0xff, 0x7f),
    with(0xed, 0xff, 0x7f),
    with(0xee, 0xff, 0x7f),
];

const fn with(first: u8, middle: u8, last: u8) -> [u8; 32] {
    let mut point = [middle; 32];
    (point[0], point[31]) = (first, last);
    point
}

async fn low_order_point(bench: &mut Bench) -> Verdict {
    for point in LOW_ORDER {
        let (mut stream, _) = accept_hello(bench).await?;
        stream.write_all(&by_hand::hello(&point)).await?;
        is_refused(bench, stream, "proved its identity to a peer of low order").await?;
    }
    Ok(())
}

/// Nothing comes on the stream, and the signer is there on the next connection.
async fn is_refused(bench: &mut Bench, mut stream: Box<dyn Stream>, broke: &str) -> Verdict {
    if let Heard::Bytes = hears(&mut *stream, LISTEN).await {
        return Err(Failed::because(broke).into());
    }
    stream.reset_on_drop();
    drop(stream);
    bench.survived().await?;
    Ok(())
}

/// Sends a proof and a ping behind it. Neither is to be answered, the signer's own proof aside.
async fn proof_is_refused(
    bench: &mut Bench,
    proof: impl FnOnce(&HandLink) -> Vec<u8>,
    alter: fn(&mut Vec<u8>),
) -> Verdict {
    let mut link = HandLink::exchange_keys(bench).await?;
    let proof = proof(&link);
    let mut sealed = link.keys.seal(&proof);
    alter(&mut sealed);
    sealed.extend(link.keys.seal(&framed(&Message::PingRequest)));
    link.write(&sealed).await?;
    // The signer may prove itself before it has heard us, or not at all.
    let _ = timeout(LISTEN, link.stream.read_exact(&mut [0; FRAME_SIZE])).await;
    is_refused(bench, link.stream, "answered a peer that proved nothing").await
}

async fn wrong_signature(bench: &mut Bench) -> Verdict {
    let identity = bench.identity().clone();
    let proof = |link: &HandLink| {
        let mut proof = link.keys.proof(&identity);
        if let Some(last) = proof.last_mut() {
            *last ^= 1;
        }
        proof
    };
    proof_is_refused(bench, proof, |_| {}).await
}

async fn identity_of_another_type(bench: &mut Bench) -> Verdict {
    // A signature that fits, under a key that claims to be of secp256k1.
    let identity = bench.identity().clone();
    let proof = |link: &HandLink| {
        let mut proof = link.keys.proof(&identity);
        proof[3] = 0x12;
        proof
    };
    proof_is_refused(bench, proof, |_| {}).await
}

async fn altered_proof(bench: &mut Bench) -> Verdict {
    let identity = bench.identity().clone();
    proof_is_refused(bench, |link| link.keys.proof(&identity), |sealed| sealed[7] ^= 1).await
}

async fn identity_of_low_order(bench: &mut Bench) -> Verdict {
    // The neutral element as key and as R, and S = 0: [S]B = R + [k]A holds for any k.
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let mut signature = [0; 64];
    signature[0] = 1;
    proof_is_refused(bench, |_| by_hand::proof(1, &neutral, &signature), |_| {}).await
}

async fn replayed(bench: &mut Bench) -> Verdict {
    let (mut stream, theirs) = accept_hello(bench).await?;
    let ephemeral = Ephemeral::new(bench.random());
    let mut keys = ephemeral.agree(&theirs);
    let mut said = ephemeral.hello();
    said.extend(keys.seal(&keys.proof(bench.identity())));
    said.extend(keys.seal(&framed(&Message::PingRequest)));
    stream.write_all(&said).await?;
    let mut proof = [0; FRAME_SIZE];
    let limit = bench.limits.answer;
    timeout(limit, stream.read_exact(&mut proof)).await.map_err(|_| Failed::Silent { limit })??;
    stream.reset_on_drop();
    drop(stream);
    bench.ready().await?;

    let (mut stream, _) = accept_hello(bench).await?;
    stream.write_all(&said).await?;
    // Its own proof may come, as in any handshake.
    let _ = timeout(LISTEN, stream.read_exact(&mut proof)).await;
    is_refused(bench, stream, "answered bytes of an earlier connection").await
}

async fn reflected(bench: &mut Bench) -> Verdict {
    let (mut stream, theirs) = accept_hello(bench).await?;
    stream.write_all(&by_hand::hello(&theirs)).await?;
    let mut proof = [0; FRAME_SIZE];
    if let Ok(Ok(_)) = timeout(LISTEN, stream.read_exact(&mut proof)).await {
        stream.write_all(&proof).await?;
    }
    let heard = hears(&mut *stream, LISTEN).await;
    stream.reset_on_drop();
    match heard {
        Heard::Closed => Ok(()),
        _ => Err(Failed::because("goes on talking with itself").into()),
    }
}

async fn split(bench: &mut Bench) -> Verdict {
    let (mut stream, theirs) = accept_hello(bench).await?;
    let ephemeral = Ephemeral::new(bench.random());
    for byte in ephemeral.hello().chunks(7) {
        stream.write_all(byte).await?;
        sleep(Duration::from_millis(5)).await;
    }
    let mut keys = ephemeral.agree(&theirs);
    let sealed = keys.seal(&keys.proof(bench.identity()));
    for piece in sealed.chunks(300) {
        stream.write_all(piece).await?;
        sleep(Duration::from_millis(5)).await;
    }
    let limit = bench.limits.answer;
    let mut proof = [0; FRAME_SIZE];
    timeout(limit, stream.read_exact(&mut proof)).await.map_err(|_| Failed::Silent { limit })??;
    stream.write_all(&keys.seal(&framed(&Message::PingRequest))).await?;
    answers(&mut *stream, limit).await
}

async fn request_behind_it(bench: &mut Bench) -> Verdict {
    let mut link = HandLink::exchange_keys(bench).await?;
    let proof = link.keys.proof(bench.identity());
    let mut sealed = link.keys.seal(&proof);
    sealed.extend(link.keys.seal(&framed(&Message::PingRequest)));
    link.write(&sealed).await?;
    let limit = bench.limits.answer;
    link.read_frame(limit).await?;
    answers(&mut *link.stream, limit).await
}

/// A frame comes.
async fn answers(stream: &mut dyn Stream, limit: Duration) -> Verdict {
    let read = timeout(limit, stream.read_exact(&mut [0; FRAME_SIZE])).await;
    stream.reset_on_drop();
    read.map_err(|_| Failed::Silent { limit })??;
    Ok(())
}

async fn over_the_bound(bench: &mut Bench) -> Verdict {
    let (mut stream, _) = accept_hello(bench).await?;
    // 2^35 bytes, and the beginning of them.
    stream.write_all(&[&[0x80, 0x80, 0x80, 0x80, 0x80, 0x01], &[0; 200][..]].concat()).await?;
    is_refused(bench, stream, "went on with the handshake").await
}

async fn closed_by_the_node(bench: &mut Bench) -> Verdict {
    drop(accept_hello(bench).await?);
    bench.survived().await?;
    let (stream, _) = accept_hello(bench).await?;
    stream.reset_on_drop();
    drop(stream);
    bench.survived().await?;
    Ok(())
}

fn framed(request: &Message) -> Vec<u8> {
    let mut framed = Vec::new();
    frame::encode(request, &mut framed);
    framed
}
