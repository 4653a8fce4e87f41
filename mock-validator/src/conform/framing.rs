//! Messages are delimited by their lengths, wherever packets and sealed frames begin and end.

use std::time::Duration;

use monosign_protocol::{Step, frame, message::Message};
use tokio::time::{sleep, timeout};

use super::case::{Case, Failed, Verdict};
use super::{Bench, source};
use crate::node::Answer;

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::advisory(
            "framing/split-message",
            "A message may come in pieces, its length too. Nodes send short ones in one.",
            source::PROTOIO,
            |bench| Box::pin(split_message(bench)),
        ),
        Case::advisory(
            "framing/several-in-one",
            "Several messages in one packet are all answered, in their order.",
            source::PROTOIO,
            |bench| Box::pin(several_in_one(bench)),
        ),
        Case::robustness(
            "framing/empty-message",
            "A message of length 0 does no harm.",
            source::PROTOIO,
            |bench| Box::pin(empty_message(bench)),
        ),
        Case::robustness(
            "framing/over-the-bound",
            "A length beyond any message does no harm: it is not waited for, and no memory is kept for it.",
            source::PROTOIO,
            |bench| Box::pin(over_the_bound(bench)),
        ),
        Case::robustness(
            "framing/length-of-more-than-64-bits",
            "Neither does a length that is none.",
            source::PROTOIO,
            |bench| Box::pin(endless_length(bench)),
        ),
    ]
}

/// Between two pieces, so that they come apart.
const PAUSE: Duration = Duration::from_millis(20);

async fn split_message(bench: &mut Bench) -> Verdict {
    let height = bench.fresh();
    let request = bench.ask(height, 0, Step::Prevote);
    let framed = framed(&request);
    bench.ready().await?;
    let limit = bench.limits.answer;
    let link = bench.link()?;
    for piece in [&framed[..1], &framed[1..2], &framed[2..20], &framed[20..]] {
        link.send_plain_bytes(piece).await?;
        sleep(PAUSE).await;
    }
    let answer = timeout(limit, link.receive()).await.map_err(|_| Failed::Silent { limit })??;
    must_be_signed(bench, &request, answer)
}

async fn several_in_one(bench: &mut Bench) -> Verdict {
    let height = bench.fresh();
    let requests = [Step::Proposal, Step::Prevote, Step::Precommit].map(|step| bench.ask(height, 0, step));
    let together: Vec<u8> = requests.iter().flat_map(framed).collect();
    bench.ready().await?;
    let limit = bench.limits.answer;
    bench.link()?.send_plain_bytes(&together).await?;
    for request in requests {
        let received = timeout(limit, bench.link()?.receive()).await;
        let answer = received.map_err(|_| Failed::Silent { limit })??;
        must_be_signed(bench, &request, answer)?;
    }
    Ok(())
}

async fn empty_message(bench: &mut Bench) -> Verdict {
    does_no_harm(bench, &[0]).await
}

async fn over_the_bound(bench: &mut Bench) -> Verdict {
    // 2^40 bytes, and the beginning of them.
    let endless = [&[0x80, 0x80, 0x80, 0x80, 0x80, 0x20], &[0; 100][..]].concat();
    does_no_harm(bench, &endless).await
}

async fn endless_length(bench: &mut Bench) -> Verdict {
    does_no_harm(bench, &[0xff; 64]).await
}

/// Sends bytes that no message follows, leaves, and sees that the signer is back.
async fn does_no_harm(bench: &mut Bench, bytes: &[u8]) -> Verdict {
    bench.ready().await?;
    bench.link()?.send_plain_bytes(bytes).await?;
    // What it says to that is its own matter, as long as it is there for a next connection.
    let _ = timeout(PAUSE, bench.link()?.receive()).await;
    bench.hang_up();
    bench.survived().await?;
    let height = bench.fresh();
    let request = bench.ask(height, 0, Step::Prevote);
    bench.signs(&request).await?;
    Ok(())
}

fn framed(request: &Message) -> Vec<u8> {
    let mut framed = Vec::new();
    frame::encode(request, &mut framed);
    framed
}

fn must_be_signed(bench: &Bench, request: &Message, answer: Option<Message>) -> Verdict {
    match bench.check(request, answer)? {
        Answer::Signed(_) => Ok(()),
        Answer::Refused { error, .. } => Err(Failed::Refused(error).into()),
        Answer::PublicKey(_) => Err(Failed::because("a key instead of a signature").into()),
    }
}
