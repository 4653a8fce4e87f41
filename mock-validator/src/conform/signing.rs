//! What has to be signed: each step at rising heights and rounds, for blocks and for nil, at any time.

use monosign_protocol::message::{BlockId, Timestamp};
use monosign_protocol::{Step, message::Message};

use super::bench::hrs;
use super::case::{Case, Failed, Verdict};
use super::{Bench, source};
use crate::node::probes::time_of;

const STEPS: [Step; 3] = [Step::Proposal, Step::Prevote, Step::Precommit];

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::missed_blocks(
            "signing/all-steps",
            "Proposal, prevote and precommit are signed one after the other, at rising heights.",
            source::CHECK_HRS,
            |bench| Box::pin(all_steps(bench)),
        ),
        Case::missed_blocks(
            "signing/nil-votes",
            "Votes for nil are signed as such: without a block id in the sign bytes.",
            source::CANONICAL,
            |bench| Box::pin(nil_votes(bench)),
        ),
        Case::missed_blocks(
            "signing/rounds",
            "Later rounds of a height are signed, skipped ones left out.",
            source::CHECK_HRS,
            |bench| Box::pin(rounds(bench)),
        ),
        Case::missed_blocks(
            "signing/skipped-steps",
            "A precommit is signed without a prevote before it, as nodes that lag ask.",
            "consensus/state.go:2115, addVote (v0.38.26)",
            |bench| Box::pin(skipped_steps(bench)),
        ),
        Case::missed_blocks(
            "signing/skipped-heights",
            "Heights may be left out.",
            source::CHECK_HRS,
            |bench| Box::pin(skipped_heights(bench)),
        ),
        Case::missed_blocks(
            "signing/proof-of-lock",
            "The proof-of-lock round of a proposal is part of what is signed, from -1 on.",
            source::CANONICAL,
            |bench| Box::pin(proof_of_lock(bench)),
        ),
        Case::missed_blocks(
            "signing/many-parts",
            "The number of a block's parts is part of what is signed, up to 2^32 - 1.",
            source::CANONICAL,
            |bench| Box::pin(many_parts(bench)),
        ),
        Case::missed_blocks(
            "signing/partial-block-id",
            "A block id is nil only if all of it is empty.",
            source::CANONICAL,
            |bench| Box::pin(partial_block_id(bench)),
        ),
        Case::missed_blocks(
            "signing/timestamps",
            "Any time is signed as asked: Go's zero, the epoch, before it, single nanoseconds, the year 9999.",
            source::CANONICAL,
            |bench| Box::pin(timestamps(bench)),
        ),
        Case::missed_blocks(
            "signing/earlier-time",
            "A later step may have an earlier time: clocks go back.",
            source::CHECK_HRS,
            |bench| Box::pin(earlier_time(bench)),
        ),
    ]
}

async fn all_steps(bench: &mut Bench) -> Verdict {
    for _ in 0..3 {
        let height = bench.fresh();
        for step in STEPS {
            let request = bench.ask(height, 0, step);
            bench.signs(&request).await?;
        }
    }
    Ok(())
}

async fn nil_votes(bench: &mut Bench) -> Verdict {
    let height = bench.fresh();
    for step in [Step::Prevote, Step::Precommit] {
        let request = bench.ask_nil(height, 0, step);
        bench.signs(&request).await?;
    }
    Ok(())
}

async fn rounds(bench: &mut Bench) -> Verdict {
    let height = bench.fresh();
    for round in [0, 1, 2, 7, 100] {
        let request = bench.ask(height, round, Step::Prevote);
        bench.signs(&request).await?;
    }
    Ok(())
}

async fn skipped_steps(bench: &mut Bench) -> Verdict {
    let height = bench.fresh();
    for (round, step) in [(0, Step::Precommit), (1, Step::Proposal), (1, Step::Precommit)] {
        let request = bench.ask(height, round, step);
        bench.signs(&request).await?;
    }
    Ok(())
}

async fn skipped_heights(bench: &mut Bench) -> Verdict {
    for gap in [1, 10, 1000] {
        bench.skip_heights(gap);
        let height = bench.fresh();
        let request = bench.ask(height, 0, Step::Precommit);
        bench.signs(&request).await?;
    }
    Ok(())
}

async fn proof_of_lock(bench: &mut Bench) -> Verdict {
    let height = bench.fresh();
    for (round, lock) in [(0, -1), (1, 0), (5, 3), (300, 299)] {
        let block = bench.block(height, 0);
        let request = bench.propose(height, round, lock, block);
        bench.signs(&request).await?;
    }
    Ok(())
}

async fn many_parts(bench: &mut Bench) -> Verdict {
    for total in [2, 1601, u32::MAX] {
        let height = bench.fresh();
        let mut block = bench.block(height, 0);
        block.part_set_header.total = total;
        let request = bench.ask_for(height, 0, Step::Precommit, block);
        bench.signs(&request).await?;
    }
    Ok(())
}

async fn partial_block_id(bench: &mut Bench) -> Verdict {
    let height = bench.fresh();
    let mut block = BlockId::default();
    block.part_set_header.total = 1;
    let request = bench.ask_for(height, 0, Step::Prevote, block);
    bench.signs(&request).await?;
    Ok(())
}

async fn timestamps(bench: &mut Bench) -> Verdict {
    let times = [
        Timestamp::GO_ZERO,
        Timestamp { seconds: 0, nanos: 0 },
        Timestamp { seconds: -1, nanos: 999_999_999 },
        Timestamp { seconds: 1_700_000_000, nanos: 1 },
        Timestamp { seconds: Timestamp::END_SECONDS - 1, nanos: 999_999_999 },
    ];
    let height = bench.fresh();
    for (round, time) in (0..).zip(times) {
        for step in STEPS {
            let request = at(bench.ask(height, round, step), time);
            let signed = bench.signs(&request).await?;
            if signed.timestamp != time {
                let Timestamp { seconds, nanos } = signed.timestamp;
                let hrs = hrs(height, round, step);
                let reason = format!("signed `{hrs}` for another time than asked: {seconds} s + {nanos} ns");
                return Err(Failed::because(reason).into());
            }
        }
    }
    Ok(())
}

async fn earlier_time(bench: &mut Bench) -> Verdict {
    let height = bench.fresh();
    let earlier = Timestamp { seconds: 1_000_000_000, nanos: 0 };
    let request = bench.ask(height, 0, Step::Prevote);
    bench.signs(&request).await?;
    let request = at(bench.ask(height, 0, Step::Precommit), earlier);
    bench.signs(&request).await?;
    Ok(())
}

fn at(mut request: Message, time: Timestamp) -> Message {
    if let Some(asked) = time_of(&mut request) {
        *asked = time;
    }
    request
}
