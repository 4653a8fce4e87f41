//! Another message at a height, round and step that is signed: refused, always.

use monosign_protocol::message::{Message, Timestamp};
use monosign_protocol::{Round, Step};

use super::case::{Case, Verdict};
use super::{Bench, source};
use crate::node::probes::{conflict, more_parts, nil, of_another_chain, other_parts, shifted};

const STEPS: [Step; 3] = [Step::Proposal, Step::Prevote, Step::Precommit];
const VOTES: [Step; 2] = [Step::Prevote, Step::Precommit];

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::slashing(
            "conflict/prevote-for-another-block",
            "A prevote for another block is refused.",
            source::SIGN_VOTE,
            |bench| Box::pin(another_block(bench, Step::Prevote)),
        ),
        Case::slashing(
            "conflict/precommit-for-another-block",
            "A precommit for another block is refused.",
            source::SIGN_VOTE,
            |bench| Box::pin(another_block(bench, Step::Precommit)),
        ),
        Case::missed_blocks(
            "conflict/proposal-of-another-block",
            "A proposal of another block is refused.",
            source::SIGN_PROPOSAL,
            |bench| Box::pin(another_block(bench, Step::Proposal)),
        ),
        Case::slashing(
            "conflict/nil-after-block",
            "A vote for nil is refused after one for a block.",
            source::SIGN_VOTE,
            |bench| Box::pin(nil_after_block(bench)),
        ),
        Case::slashing(
            "conflict/block-after-nil",
            "A vote for a block is refused after one for nil.",
            source::SIGN_VOTE,
            |bench| Box::pin(block_after_nil(bench)),
        ),
        Case::slashing(
            "conflict/part-set-hash",
            "The same block in other parts is another block: the part-set header's hash is compared.",
            source::CANONICAL,
            |bench| Box::pin(changed(bench, other_parts)),
        ),
        Case::slashing(
            "conflict/part-set-total",
            "The number of parts is compared.",
            source::CANONICAL,
            |bench| Box::pin(changed(bench, more_parts)),
        ),
        Case::missed_blocks(
            "conflict/proof-of-lock-round",
            "A proposal with another proof-of-lock round is refused.",
            source::SIGN_PROPOSAL,
            |bench| Box::pin(proof_of_lock_round(bench)),
        ),
        Case::slashing(
            "conflict/another-block-at-a-later-time",
            "Another block is refused whatever the time: a new time excuses nothing.",
            source::ONLY_TIME,
            |bench| Box::pin(at_another_time(bench, 1)),
        ),
        Case::slashing(
            "conflict/another-block-at-an-earlier-time",
            "Nor does an old one.",
            source::ONLY_TIME,
            |bench| Box::pin(at_another_time(bench, -1)),
        ),
        Case::slashing(
            "conflict/after-a-repeat",
            "Another block is refused after repeats, too: what is compared with stays the first message.",
            source::SIGN_VOTE,
            |bench| Box::pin(after_a_repeat(bench)),
        ),
        Case::slashing(
            "conflict/after-reconnect",
            "Another block is refused on the next connection.",
            source::SIGN_VOTE,
            |bench| Box::pin(after_reconnect(bench)),
        ),
        Case::slashing(
            "conflict/at-round-zero-and-later",
            "Each round has its own message, and only one: conflicts are refused in later rounds, too.",
            source::SIGN_VOTE,
            |bench| Box::pin(in_later_rounds(bench)),
        ),
        Case::slashing(
            "conflict/another-chain",
            "The same message for another chain is refused at its own place.",
            source::HANDLER,
            |bench| Box::pin(another_chain(bench)),
        ),
        Case::slashing(
            "conflict/asked-again-and-again",
            "A conflict stays refused, however often it is asked.",
            source::SIGN_VOTE,
            |bench| Box::pin(again_and_again(bench)),
        ),
    ]
}

async fn another_block(bench: &mut Bench, step: Step) -> Verdict {
    let height = bench.fresh();
    let request = bench.ask(height, 0, step);
    let first = bench.signs(&request).await?;
    let other = bench.ask_for(height, 0, step, bench.block(height, 1));
    bench.refuses(&with_time_of(other, first.timestamp)).await?;
    Ok(())
}

/// Times are equal where they are not what a case is about.
fn with_time_of(mut request: Message, time: Timestamp) -> Message {
    if let Some(asked) = crate::node::probes::time_of(&mut request) {
        *asked = time;
    }
    request
}

async fn nil_after_block(bench: &mut Bench) -> Verdict {
    let height = bench.fresh();
    for step in VOTES {
        let request = bench.ask(height, 0, step);
        bench.signs(&request).await?;
        bench.refuses(&nil(&request)).await?;
    }
    Ok(())
}

async fn block_after_nil(bench: &mut Bench) -> Verdict {
    let height = bench.fresh();
    for step in VOTES {
        let request = bench.ask_nil(height, 0, step);
        let first = bench.signs(&request).await?;
        let other = bench.ask(height, 0, step);
        bench.refuses(&with_time_of(other, first.timestamp)).await?;
    }
    Ok(())
}

async fn changed(bench: &mut Bench, change: fn(&Message) -> Message) -> Verdict {
    let height = bench.fresh();
    for step in STEPS {
        let request = bench.ask(height, 0, step);
        bench.signs(&request).await?;
        bench.refuses(&change(&request)).await?;
    }
    Ok(())
}

async fn proof_of_lock_round(bench: &mut Bench) -> Verdict {
    let height = bench.fresh();
    let block = bench.block(height, 0);
    let request = bench.propose(height, 5, 3, block);
    bench.signs(&request).await?;
    for lock in [-1, 0, 2, 4] {
        let mut other = request.clone();
        if let Message::SignProposalRequest(request) = &mut other
            && let Some(proposal) = &mut request.proposal
        {
            proposal.pol_round = Round(lock);
        }
        bench.refuses(&other).await?;
    }
    Ok(())
}

async fn at_another_time(bench: &mut Bench, seconds: i64) -> Verdict {
    let height = bench.fresh();
    for step in STEPS {
        let request = bench.ask(height, 0, step);
        bench.signs(&request).await?;
        let Some(other) = conflict(&request) else { continue };
        bench.refuses(&shifted(&other, seconds)).await?;
    }
    Ok(())
}

async fn after_a_repeat(bench: &mut Bench) -> Verdict {
    let height = bench.fresh();
    let request = bench.ask(height, 0, Step::Precommit);
    let first = bench.signs(&request).await?;
    let later = shifted(&request, 5);
    // How it is repeated is the matter of other cases.
    bench.reply(&later).await;
    bench.ready().await?;
    let Some(other) = conflict(&request) else { return Ok(()) };
    bench.refuses(&other).await?;
    bench.refuses(&shifted(&other, 5)).await?;
    bench.repeats(&first, &request).await?;
    Ok(())
}

async fn after_reconnect(bench: &mut Bench) -> Verdict {
    let height = bench.fresh();
    let request = bench.ask(height, 0, Step::Precommit);
    bench.signs(&request).await?;
    bench.hang_up();
    bench.ready().await?;
    bench.refuses(&conflict(&request).unwrap_or(request)).await?;
    Ok(())
}

async fn in_later_rounds(bench: &mut Bench) -> Verdict {
    let height = bench.fresh();
    for round in [0, 1, 9] {
        let request = bench.ask(height, round, Step::Prevote);
        bench.signs(&request).await?;
        bench.refuses(&conflict(&request).unwrap_or(request)).await?;
    }
    Ok(())
}

async fn another_chain(bench: &mut Bench) -> Verdict {
    let height = bench.fresh();
    for step in STEPS {
        let request = bench.ask(height, 0, step);
        bench.signs(&request).await?;
        bench.refuses(&of_another_chain(&request)).await?;
    }
    Ok(())
}

async fn again_and_again(bench: &mut Bench) -> Verdict {
    let height = bench.fresh();
    let request = bench.ask(height, 0, Step::Precommit);
    bench.signs(&request).await?;
    let Some(other) = conflict(&request) else { return Ok(()) };
    for _ in 0..5 {
        bench.refuses(&other).await?;
    }
    Ok(())
}
