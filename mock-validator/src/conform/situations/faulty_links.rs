//! When the link fails: refusals, tries, lost answers and late ones (L1 to L9).

use std::time::Duration;

use monosign_protocol::message::Message;
use monosign_protocol::{Dialect, Step};
use tokio::time::sleep;

use super::{STEPS, a_height};
use crate::conform::bench::hrs;
use crate::conform::case::{Case, Failed, Need, Verdict};
use crate::conform::{Bench, source};
use crate::node::probes::conflict;
use crate::node::{Answer, Blocks, Requests, Verifier};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::missed_blocks(
            "situation/L1-refusal-then-next-step",
            "A refusal is not asked again; the next step is, on the same connection, and is signed.",
            source::RETRY,
            |bench| Box::pin(refusal_then_next_step(bench)),
        ),
        Case::missed_blocks(
            "situation/L2-fifty-tries",
            "The same bytes are asked up to 50 times in a row.",
            source::RETRY,
            |bench| Box::pin(fifty_tries(bench)),
        ),
        Case::missed_blocks(
            "situation/L3-answer-lost",
            "A connection that closes with the answer is followed by the same bytes on the next one, some 200 ms later.",
            source::RETRY,
            |bench| Box::pin(answer_lost(bench)),
        ),
        Case::missed_blocks(
            "situation/L4-asked-again-while-it-signs",
            "A request that took too long is asked again on a new connection while the old one may still be under way: \
             they must not race.",
            source::ENDPOINT,
            |bench| Box::pin(asked_again_while_it_signs(bench)),
        ),
        Case::missed_blocks(
            "situation/L5-signer-restarted-between-heights",
            "A signer that was restarted gets the held request on its new connection, and signs it.",
            source::LISTENER,
            |bench| Box::pin(signer_restarted(bench)),
        )
        .needs(&[Need::Command]),
        Case::missed_blocks(
            "situation/L6-out-of-step",
            "After an undecodable message nodes keep the connection until a ping fails, then ask on a new one.",
            source::ENDPOINT,
            |bench| Box::pin(out_of_step(bench)),
        ),
        Case::missed_blocks(
            "situation/L7-left-in-the-backlog",
            "Nodes accept when they need a connection: a signer may wait in the queue, and is served then.",
            source::LISTENER,
            |bench| Box::pin(left_in_the_backlog(bench)),
        ),
        Case::missed_blocks(
            "situation/L8-shape-of-answers",
            "A whole round with extensions on: an extension signature on the precommit for a block, and nowhere else.",
            source::SIGN_AND_CHECK,
            |bench| Box::pin(shape_of_answers(bench)),
        )
        .with_extensions(),
        Case::missed_blocks(
            "situation/L9-noise",
            "A height is signed over noise://, where both ends know each other.",
            "privval/noise (v0.40)",
            |bench| Box::pin(a_height(bench)),
        )
        .of(|dialect| dialect == Dialect::V0_40)
        .needs(&[Need::Noise]),
    ]
}

async fn refusal_then_next_step(bench: &mut Bench) -> Verdict {
    let height = bench.fresh();
    let request = bench.ask(height, 0, Step::Proposal);
    bench.signs(&request).await?;
    bench.answers_refusal(&conflict(&request).unwrap_or(request)).await?;
    // Without connecting anew.
    bench.link()?;
    let request = bench.ask(height, 0, Step::Prevote);
    bench.signs(&request).await?;
    Ok(())
}

async fn fifty_tries(bench: &mut Bench) -> Verdict {
    let height = bench.fresh();
    let request = bench.ask(height, 0, Step::Precommit);
    let first = bench.signs(&request).await?;
    for _ in 1..crate::endpoint::ATTEMPTS {
        bench.repeats(&first, &request).await?;
    }
    Ok(())
}

async fn answer_lost(bench: &mut Bench) -> Verdict {
    for step in STEPS {
        let height = bench.fresh();
        let request = bench.ask(height, 0, step);
        bench.ready().await?;
        bench.link()?.send(&request).await?;
        bench.hang_up();
        sleep(Duration::from_millis(200)).await;
        bench.signs(&request).await?;
    }
    Ok(())
}

async fn asked_again_while_it_signs(bench: &mut Bench) -> Verdict {
    for _ in 0..5 {
        let height = bench.fresh();
        let request = bench.ask(height, 0, Step::Precommit);
        bench.ready().await?;
        bench.link()?.send(&request).await?;
        bench.hang_up();
        bench.ready().await?;
        // One of the two, whichever it takes first, and never both.
        let other = conflict(&request).unwrap_or_else(|| request.clone());
        let answer = bench.answer(&other).await?;
        let other_signed = matches!(bench.check(&other, answer)?, Answer::Signed(_));
        let answer = bench.answer(&request).await?;
        match (other_signed, bench.check(&request, answer)?) {
            (true, Answer::Signed(signed)) => return Err(Failed::SignedTwice { hrs: signed.hrs }.into()),
            (false, Answer::Refused { error, .. }) => return Err(Failed::Refused(error).into()),
            _ => {}
        }
    }
    Ok(())
}

async fn signer_restarted(bench: &mut Bench) -> Verdict {
    a_height(bench).await?;
    bench.restart().await?;
    a_height(bench).await
}

async fn out_of_step(bench: &mut Bench) -> Verdict {
    bench.ready().await?;
    bench.link()?.send_plain_bytes(&[0x03, 0x1a, 0x05, 0x0a]).await?;
    // The ping finds out, and takes what comes for its answer, or the end.
    bench.reply(&Message::PingRequest).await;
    bench.hang_up();
    a_height(bench).await
}

async fn left_in_the_backlog(bench: &mut Bench) -> Verdict {
    bench.ready().await?;
    bench.hang_up();
    sleep(Duration::from_millis(1500)).await;
    bench.survived().await?;
    a_height(bench).await
}

async fn shape_of_answers(bench: &mut Bench) -> Verdict {
    let blocks: Blocks = bench.requests.blocks().clone();
    let requests = Requests::new(bench.chain_id.clone(), bench.dialect, Some(24), blocks);
    let verifier = Verifier::new(bench.chain_id.clone(), bench.dialect, true, bench.key());
    let height = bench.fresh();
    for (round, step, is_nil) in [
        (0, Step::Prevote, false),
        (0, Step::Precommit, true),
        (1, Step::Proposal, false),
        (1, Step::Prevote, true),
        (2, Step::Prevote, false),
        (2, Step::Precommit, false),
    ] {
        let block = if is_nil { Default::default() } else { bench.block(height, 0) };
        let time = bench.now();
        let request = requests.sign(hrs(height, round, step), block, time);
        let answer = bench.answer(&request).await?;
        if let Answer::Refused { error, .. } = verifier.check(&request, answer)? {
            return Err(Failed::Refused(error).into());
        }
    }
    Ok(())
}
