//! The connection in use: pings, silence, slow peers, and ends in the middle of something.

use std::time::Duration;

use monosign_protocol::{Step, frame, message::Message};
use tokio::time::{sleep, timeout};

use super::case::{Case, Failed, Verdict};
use super::{Bench, source};
use crate::endpoint::PING_INTERVAL;
use crate::node::probes::conflict;

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::missed_blocks("link/ping", "A ping is answered.", source::LISTENER, |bench| {
            Box::pin(ping(bench))
        }),
        Case::missed_blocks(
            "link/slow-validator",
            "A request that trickles in is answered when it is whole.",
            source::ENDPOINT,
            |bench| Box::pin(slow_validator(bench)),
        ),
        Case::missed_blocks(
            "link/drop-in-mid-request",
            "A request of which half came is not signed, and the signer is back for the next.",
            source::RETRY,
            |bench| Box::pin(drop_in_mid_request(bench)),
        ),
        Case::missed_blocks(
            "link/drop-before-the-answer",
            "A request whose answer was lost is answered on the next connection, and its conflict is refused there.",
            source::RETRY,
            |bench| Box::pin(drop_before_the_answer(bench)),
        ),
        Case::missed_blocks(
            "link/idle-between-pings",
            "The connection of a node that only pings, every 3.333 s, stays up.",
            source::LISTENER,
            |bench| Box::pin(idle_between_pings(bench)),
        ),
    ]
}

async fn ping(bench: &mut Bench) -> Verdict {
    for _ in 0..3 {
        let answer = bench.answer(&Message::PingRequest).await?;
        if answer != Some(Message::PingResponse) {
            let answered = answer.map_or("an empty message", |message| message.name());
            return Err(Failed::because(format!("answered a ping with {answered}")).into());
        }
    }
    Ok(())
}

async fn slow_validator(bench: &mut Bench) -> Verdict {
    let height = bench.fresh();
    let request = bench.ask(height, 0, Step::Proposal);
    let mut framed = Vec::new();
    frame::encode(&request, &mut framed);
    bench.ready().await?;
    let limit = bench.limits.answer;
    for piece in framed.chunks(framed.len().div_ceil(5)) {
        bench.link()?.send_plain_bytes(piece).await?;
        sleep(Duration::from_millis(200)).await;
    }
    let answer = timeout(limit, bench.link()?.receive()).await.map_err(|_| Failed::Silent { limit })??;
    bench.check(&request, answer)?;
    Ok(())
}

async fn drop_in_mid_request(bench: &mut Bench) -> Verdict {
    let height = bench.fresh();
    let request = bench.ask(height, 0, Step::Precommit);
    let mut framed = Vec::new();
    frame::encode(&request, &mut framed);
    bench.ready().await?;
    bench.link()?.send_plain_bytes(&framed[..framed.len() / 2]).await?;
    bench.hang_up();
    // Had it signed the half, it would refuse this.
    let other = conflict(&request).unwrap_or(request);
    bench.signs(&other).await?;
    Ok(())
}

async fn drop_before_the_answer(bench: &mut Bench) -> Verdict {
    for _ in 0..5 {
        let height = bench.fresh();
        let request = bench.ask(height, 0, Step::Prevote);
        bench.ready().await?;
        bench.link()?.send(&request).await?;
        bench.hang_up();
        let first = bench.signs(&request).await?;
        bench.repeats(&first, &request).await?;
        bench.refuses(&conflict(&request).unwrap_or(request)).await?;
    }
    Ok(())
}

async fn idle_between_pings(bench: &mut Bench) -> Verdict {
    bench.ready().await?;
    bench.is_still_there().await?;
    sleep(PING_INTERVAL + Duration::from_millis(300)).await;
    bench.is_still_there().await?;
    Ok(())
}
