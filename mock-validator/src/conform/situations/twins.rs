//! Two nodes with one key, and a signer without its memory (A1 to A4).

use std::time::Duration;

use monosign_protocol::Step;

use super::a_height;
use crate::conform::bench::{FIRST, Reply, SECOND};
use crate::conform::case::{Case, Ended, Failed, Need, Verdict};
use crate::conform::race::both_ask;
use crate::conform::{Bench, source};
use crate::node::Answer;
use crate::node::probes::{conflict, nil};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::missed_blocks(
            "situation/A1-two-nodes-with-one-key",
            "Two nodes with one key ask for the same at different times, out of step with each other: one signature and one time.",
            source::ONLY_TIME,
            |bench| Box::pin(two_nodes(bench)),
        )
        .needs(&[Need::SecondValidator]),
        Case::slashing(
            "situation/A2-partitioned-twins",
            "Twins that see different blocks ask for both, prevote and precommit: one of each is signed.",
            source::CHECK_HRS,
            |bench| Box::pin(partitioned_twins(bench)),
        )
        .needs(&[Need::SecondValidator]),
        Case::slashing(
            "situation/A3-twin-on-an-old-state",
            "A twin that is behind is refused, height for height, while the other is served.",
            source::CHECK_HRS,
            |bench| Box::pin(twin_on_an_old_state(bench)),
        )
        .needs(&[Need::SecondValidator]),
        Case::slashing(
            "situation/A4-state-wiped",
            "A signer whose state was wiped refuses to start, or to sign: it does not begin anew.",
            source::LOAD_STATE,
            |bench| Box::pin(state_wiped(bench)),
        )
        .needs(&[Need::StateFile]),
    ]
}

async fn two_nodes(bench: &mut Bench) -> Verdict {
    for _ in 0..5 {
        let height = bench.fresh();
        for step in [Step::Prevote, Step::Precommit] {
            let request = bench.ask(height, 0, step);
            let first = bench.signs_on(FIRST, &request).await?;
            let later = bench.asked_anew(&request);
            bench.repeats_on(SECOND, &first, &later).await?;
        }
        // The second is at its proposal while the first has voted.
        let proposal = bench.ask(height, 0, Step::Proposal);
        bench.refuses_on(SECOND, &proposal).await?;
    }
    Ok(())
}

async fn partitioned_twins(bench: &mut Bench) -> Verdict {
    for n in 0..10 {
        let height = bench.fresh();
        for step in [Step::Prevote, Step::Precommit] {
            let one = bench.ask(height, 0, step);
            let other = if n % 2 == 0 { conflict(&one).unwrap_or_else(|| nil(&one)) } else { nil(&one) };
            if let [Some(signed), Some(_)] = both_ask(bench, &one, &other).await? {
                return Err(Failed::SignedTwice { hrs: signed.hrs }.into());
            }
        }
    }
    Ok(())
}

async fn twin_on_an_old_state(bench: &mut Bench) -> Verdict {
    bench.skip_heights(20);
    for behind in 5..10 {
        let height = bench.fresh();
        let request = bench.ask(height, 0, Step::Precommit);
        bench.signs_on(FIRST, &request).await?;
        let old = bench.ask(height - behind, 0, Step::Prevote);
        bench.refuses_on(SECOND, &old).await?;
    }
    Ok(())
}

async fn state_wiped(bench: &mut Bench) -> Verdict {
    a_height(bench).await?;
    let height = bench.fresh();
    let request = bench.ask(height, 0, Step::Prevote);
    bench.signs(&request).await?;
    bench.kill();
    let missing = || Ended::Skipped(Need::StateFile.missing());
    let state = bench.process.as_ref().and_then(|process| process.state()).ok_or_else(missing)?.to_owned();
    let kept = std::fs::read(&state)?;
    std::fs::remove_file(&state)?;
    bench.restart().await?;
    let started = bench.dials_in(FIRST, Duration::from_secs(3)).await;
    let mut signed = false;
    if started {
        // A twin on an old state is all that it would take then.
        let below = bench.ask(height - 1, 0, Step::Prevote);
        if let Reply::Answer(answer) = bench.reply(&below).await {
            signed = matches!(bench.check(&below, answer), Ok(Answer::Signed(_)));
        }
    }
    bench.kill();
    std::fs::write(&state, kept)?;
    bench.restart().await?;
    bench.ready().await?;
    if signed {
        return Err(Failed::because("began anew, below what it had signed").into());
    }
    Ok(())
}
