//! Two validators with one signer, who ask at the same time: what slashed a validator in March 2025.

use monosign_protocol::message::Message;
use monosign_protocol::{Step, message::BlockId};

use super::bench::{FIRST, Reply, SECOND, hrs, reply_over};
use super::case::{Case, Failed, Need, Verdict};
use super::{Bench, source};
use crate::node::probes::{conflict, nil, shifted};
use crate::node::{Answer, Signed};

pub(super) fn cases() -> Vec<Case> {
    let cases = vec![
        Case::missed_blocks(
            "race/same-block",
            "Two validators that ask for the same at once get the same signature.",
            source::CHECK_HRS,
            |bench| Box::pin(same_block(bench)),
        ),
        Case::missed_blocks(
            "race/same-block-at-other-times",
            "Two validators that ask for the same at different times get one signature and one time.",
            source::ONLY_TIME,
            |bench| Box::pin(same_block_at_other_times(bench)),
        ),
        Case::slashing(
            "race/other-blocks",
            "Of two validators that ask for different blocks at once, one gets a signature.",
            "Horcrux, incident of 2025-03-06",
            |bench| Box::pin(other_blocks(bench)),
        ),
        Case::slashing(
            "race/block-and-nil",
            "Of two validators that ask for a block and for nil at once, one gets a signature.",
            source::CHECK_HRS,
            |bench| Box::pin(block_and_nil(bench)),
        ),
        Case::missed_blocks(
            "race/one-leaves",
            "When one validator's connection ends, the other is served on.",
            source::LISTENER,
            |bench| Box::pin(one_leaves(bench)),
        ),
    ];
    cases.into_iter().map(|case| case.needs(&[Need::SecondValidator])).collect()
}

const ROUNDS: u32 = 30;

/// Both questions at once, and what each got.
pub(super) async fn both_ask(
    bench: &mut Bench,
    one: &Message,
    other: &Message,
) -> Result<[Option<Signed>; 2], Failed> {
    for which in [FIRST, SECOND] {
        bench.ready_on(which).await?;
    }
    let limit = bench.limits.answer;
    let (replies, links) = {
        let [mut a, mut b] = bench.take_links()?;
        let replies = tokio::join!(reply_over(&mut a, one, limit), reply_over(&mut b, other, limit));
        (replies, [a, b])
    };
    let mut signed = [None, None];
    let asked = [one, other].into_iter().zip([replies.0, replies.1]);
    for ((which, link), (request, reply)) in [FIRST, SECOND].into_iter().zip(links).zip(asked) {
        if let Reply::Answer(answer) = reply {
            bench.put_link(which, link);
            if let Answer::Signed(answer) = bench.check(request, answer)? {
                signed[which] = Some(answer);
            }
        }
    }
    Ok(signed)
}

async fn same_block(bench: &mut Bench) -> Verdict {
    for n in 0..ROUNDS {
        let height = bench.fresh();
        let step = if n % 2 == 0 { Step::Prevote } else { Step::Precommit };
        let request = bench.ask(height, 0, step);
        must_agree(both_ask(bench, &request, &request).await?, height, step)?;
    }
    Ok(())
}

/// Both got the same. One may be refused only if the other was not: a signer that serves one at a time is as good.
fn must_agree(signed: [Option<Signed>; 2], height: i64, step: Step) -> Verdict {
    match signed {
        [Some(one), Some(other)]
            if (&one.signature, one.timestamp) == (&other.signature, other.timestamp) =>
        {
            Ok(())
        }
        [Some(one), Some(_)] => Err(Failed::NotRepeated { hrs: one.hrs }.into()),
        _ => {
            let hrs = hrs(height, 0, step);
            Err(Failed::because(format!("one of two got no signature for the same vote at `{hrs}`")).into())
        }
    }
}

async fn same_block_at_other_times(bench: &mut Bench) -> Verdict {
    for _ in 0..ROUNDS {
        let height = bench.fresh();
        let request = bench.ask(height, 0, Step::Precommit);
        let signed = both_ask(bench, &request, &shifted(&request, 1)).await?;
        must_agree(signed, height, Step::Precommit)?;
    }
    Ok(())
}

async fn other_blocks(bench: &mut Bench) -> Verdict {
    for n in 0..ROUNDS {
        let height = bench.fresh();
        let step = [Step::Proposal, Step::Prevote, Step::Precommit][n as usize % 3];
        let request = bench.ask(height, 0, step);
        let Some(other) = conflict(&request) else { continue };
        one_at_most(bench, &request, &other, height, step).await?;
    }
    Ok(())
}

async fn block_and_nil(bench: &mut Bench) -> Verdict {
    for n in 0..ROUNDS {
        let height = bench.fresh();
        let step = if n % 2 == 0 { Step::Prevote } else { Step::Precommit };
        let request = bench.ask_for(height, 0, step, bench.block(height, 2));
        one_at_most(bench, &request, &nil(&request), height, step).await?;
    }
    Ok(())
}

async fn one_at_most(bench: &mut Bench, one: &Message, other: &Message, height: i64, step: Step) -> Verdict {
    match both_ask(bench, one, other).await? {
        [Some(signed), Some(_)] => Err(Failed::SignedTwice { hrs: signed.hrs }.into()),
        [None, None] => {
            let hrs = hrs(height, 0, step);
            Err(Failed::because(format!("refused both at `{hrs}`, where nothing was signed")).into())
        }
        _ => Ok(()),
    }
}

async fn one_leaves(bench: &mut Bench) -> Verdict {
    for which in [FIRST, SECOND] {
        bench.ready_on(which).await?;
    }
    bench.hang_up_on(SECOND);
    for _ in 0..3 {
        let height = bench.fresh();
        let request = bench.ask(height, 0, Step::Prevote);
        bench.link_on(FIRST)?;
        bench.signs_on(FIRST, &request).await?;
    }
    bench.ready_on(SECOND).await?;
    let height = bench.fresh();
    let request = bench.ask_for(height, 0, Step::Precommit, BlockId::default());
    bench.signs_on(SECOND, &request).await?;
    Ok(())
}
