//! What lies below the last signature is refused: by height, then round, then step.

use monosign_protocol::Step;

use super::case::{Case, Verdict};
use super::{Bench, source};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::slashing(
            "regression/height",
            "Nothing is signed at a lower height.",
            source::CHECK_HRS,
            |bench| Box::pin(below(bench, &[(-1, 0, Step::Precommit), (-1, 0, Step::Proposal)])),
        ),
        Case::slashing(
            "regression/height-in-a-later-round",
            "Not in a later round of it either.",
            source::CHECK_HRS,
            |bench| Box::pin(below(bench, &[(-1, 9, Step::Precommit)])),
        ),
        Case::slashing("regression/height-far-below", "Not far below either.", source::CHECK_HRS, |bench| {
            Box::pin(far_below(bench))
        }),
        Case::slashing(
            "regression/round",
            "Nothing is signed in an earlier round.",
            source::CHECK_HRS,
            |bench| Box::pin(below(bench, &[(0, 3, Step::Prevote), (0, 0, Step::Prevote)])),
        ),
        Case::slashing(
            "regression/round-at-a-later-step",
            "Not at a later step of it either.",
            source::CHECK_HRS,
            |bench| Box::pin(below(bench, &[(0, 3, Step::Precommit)])),
        ),
        Case::missed_blocks(
            "regression/step-to-the-proposal",
            "No proposal is signed after a vote of its round.",
            source::CHECK_HRS,
            |bench| Box::pin(below(bench, &[(0, 4, Step::Proposal)])),
        ),
        Case::slashing(
            "regression/step-to-the-prevote",
            "No prevote is signed after the precommit of its round.",
            source::CHECK_HRS,
            |bench| Box::pin(prevote_after_precommit(bench)),
        ),
        Case::slashing(
            "regression/what-was-signed-before",
            "What was signed before is not signed again once something above it is: it would be no repeat.",
            source::CHECK_HRS,
            |bench| Box::pin(what_was_signed_before(bench)),
        ),
        Case::robustness(
            "regression/height-zero-and-negative",
            "Height 0 and negative heights are refused.",
            source::VALIDATE,
            |bench| Box::pin(zero_and_negative(bench)),
        ),
        Case::advisory(
            "regression/negative-round",
            "A negative round is refused at any height: no node takes such a vote.",
            source::VALIDATE,
            |bench| Box::pin(negative_round(bench)),
        ),
    ]
}

/// Signs a prevote in round 4, and asks relative to its height.
async fn below(bench: &mut Bench, asked: &[(i64, i32, Step)]) -> Verdict {
    bench.skip_heights(1);
    let height = bench.fresh();
    let request = bench.ask(height, 4, Step::Prevote);
    bench.signs(&request).await?;
    for (heights, round, step) in asked {
        let request = bench.ask(height + heights, *round, *step);
        bench.refuses(&request).await?;
    }
    Ok(())
}

async fn far_below(bench: &mut Bench) -> Verdict {
    bench.skip_heights(100);
    let height = bench.fresh();
    let request = bench.ask(height, 0, Step::Proposal);
    bench.signs(&request).await?;
    for heights in [50, 100] {
        let request = bench.ask(height - heights, 0, Step::Precommit);
        bench.refuses(&request).await?;
    }
    Ok(())
}

async fn prevote_after_precommit(bench: &mut Bench) -> Verdict {
    let height = bench.fresh();
    let request = bench.ask(height, 0, Step::Precommit);
    bench.signs(&request).await?;
    let request = bench.ask(height, 0, Step::Prevote);
    bench.refuses(&request).await?;
    Ok(())
}

async fn what_was_signed_before(bench: &mut Bench) -> Verdict {
    let height = bench.fresh();
    let prevote = bench.ask(height, 0, Step::Prevote);
    bench.signs(&prevote).await?;
    let precommit = bench.ask(height, 0, Step::Precommit);
    bench.signs(&precommit).await?;
    bench.refuses(&prevote).await?;
    let next = bench.fresh();
    let proposal = bench.ask(next, 0, Step::Proposal);
    bench.signs(&proposal).await?;
    bench.refuses(&precommit).await?;
    Ok(())
}

async fn zero_and_negative(bench: &mut Bench) -> Verdict {
    let height = bench.fresh();
    let request = bench.ask(height, 0, Step::Prevote);
    bench.signs(&request).await?;
    for height in [0, -1, i64::MIN] {
        let request = bench.ask(height, 0, Step::Precommit);
        bench.refuses(&request).await?;
    }
    Ok(())
}

async fn negative_round(bench: &mut Bench) -> Verdict {
    let height = bench.fresh();
    for round in [-1, i32::MIN] {
        let request = bench.ask(height, round, Step::Precommit);
        bench.refuses(&request).await?;
    }
    Ok(())
}
