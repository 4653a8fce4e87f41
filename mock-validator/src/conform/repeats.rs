//! The same question again: the same signature again, with the time that it covers.

use monosign_protocol::{Step, message::Message};

use super::case::{Case, Verdict};
use super::{Bench, source};
use crate::node::probes::{as_another_voter, conflict, shifted};

const STEPS: [Step; 3] = [Step::Proposal, Step::Prevote, Step::Precommit];
const VOTES: [Step; 2] = [Step::Prevote, Step::Precommit];

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::missed_blocks(
            "repeat/identical",
            "The same bytes asked again get the same signature: nodes ask up to 50 times.",
            source::RETRY,
            |bench| Box::pin(identical(bench)),
        ),
        Case::missed_blocks(
            "repeat/vote-at-a-later-time",
            "A vote that differs in its time alone gets the first signature and the first time.",
            source::ONLY_TIME,
            |bench| Box::pin(votes_shifted(bench, 1)),
        ),
        Case::missed_blocks(
            "repeat/vote-at-an-earlier-time",
            "So does one with an earlier time.",
            source::ONLY_TIME,
            |bench| Box::pin(votes_shifted(bench, -1)),
        ),
        Case::missed_blocks(
            "repeat/proposal-at-another-time",
            "A proposal that differs in its time alone gets the first signature and the first time.",
            source::ONLY_TIME_PROPOSAL,
            |bench| Box::pin(proposal_shifted(bench)),
        ),
        Case::missed_blocks(
            "repeat/nil-vote-at-another-time",
            "A vote for nil that differs in its time alone gets the first signature and the first time.",
            source::ONLY_TIME,
            |bench| Box::pin(nil_shifted(bench)),
        ),
        Case::missed_blocks(
            "repeat/other-voter-index",
            "Who votes is not signed: another validator index or address is no conflict.",
            source::CANONICAL,
            |bench| Box::pin(other_voter_index(bench)),
        ),
        Case::missed_blocks(
            "repeat/after-reconnect",
            "The answer is the same on the next connection.",
            source::RETRY,
            |bench| Box::pin(after_reconnect(bench)),
        ),
        Case::missed_blocks(
            "repeat/after-a-refusal",
            "A refusal changes nothing: what was signed can be repeated after it.",
            source::SIGN_VOTE,
            |bench| Box::pin(after_a_refusal(bench)),
        ),
    ]
}

async fn identical(bench: &mut Bench) -> Verdict {
    let height = bench.fresh();
    for step in STEPS {
        let request = bench.ask(height, 0, step);
        let first = bench.signs(&request).await?;
        bench.repeats(&first, &request).await?;
    }
    Ok(())
}

async fn votes_shifted(bench: &mut Bench, seconds: i64) -> Verdict {
    let height = bench.fresh();
    for step in VOTES {
        let request = bench.ask(height, 0, step);
        let first = bench.signs(&request).await?;
        bench.repeats(&first, &shifted(&request, seconds)).await?;
        bench.repeats(&first, &shifted(&request, 60 * seconds)).await?;
    }
    Ok(())
}

async fn proposal_shifted(bench: &mut Bench) -> Verdict {
    let height = bench.fresh();
    let request = bench.ask(height, 0, Step::Proposal);
    let first = bench.signs(&request).await?;
    bench.repeats(&first, &shifted(&request, 1)).await?;
    bench.repeats(&first, &shifted(&request, -1)).await?;
    Ok(())
}

async fn nil_shifted(bench: &mut Bench) -> Verdict {
    let height = bench.fresh();
    for step in VOTES {
        let request = bench.ask_nil(height, 0, step);
        let first = bench.signs(&request).await?;
        bench.repeats(&first, &shifted(&request, 1)).await?;
    }
    Ok(())
}

async fn other_voter_index(bench: &mut Bench) -> Verdict {
    let height = bench.fresh();
    let request = bench.ask(height, 0, Step::Prevote);
    let first = bench.signs(&request).await?;
    let mut other = as_another_voter(&request);
    if let Message::SignVoteRequest(request) = &mut other
        && let Some(vote) = &mut request.vote
    {
        vote.validator_address = vec![7; 20];
    }
    bench.repeats(&first, &other).await?;
    Ok(())
}

async fn after_reconnect(bench: &mut Bench) -> Verdict {
    let height = bench.fresh();
    for step in STEPS {
        let request = bench.ask(height, 0, step);
        let first = bench.signs(&request).await?;
        bench.hang_up();
        bench.repeats(&first, &request).await?;
    }
    Ok(())
}

async fn after_a_refusal(bench: &mut Bench) -> Verdict {
    let height = bench.fresh();
    let request = bench.ask(height, 3, Step::Prevote);
    let first = bench.signs(&request).await?;
    for refused in [conflict(&request), Some(bench.ask(height, 2, Step::Precommit))].into_iter().flatten() {
        // Whether it is refused is the matter of other cases.
        bench.reply(&refused).await;
        bench.ready().await?;
        bench.repeats(&first, &request).await?;
    }
    Ok(())
}
