//! After crashes: nodes that replay their log, and nodes that lost it (C1 to C9).

use std::time::Duration;

use monosign_protocol::Step;
use tokio::time::sleep;

use super::{STEPS, a_height};
use crate::conform::bench::{FIRST, hrs};
use crate::conform::case::{Case, Failed, Need, Verdict};
use crate::conform::{Bench, source};
use crate::node::probes::{conflict, shifted};
use crate::node::{Answer, Blocks, Requests, Verifier};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::missed_blocks(
            "situation/C1-replay-of-a-height",
            "A node that was killed asks for its whole height again, oldest first, at new times: what is below is refused, the \
             last is repeated, and the next height is signed.",
            source::REPLAY,
            |bench| Box::pin(replay_of_a_height(bench)),
        ),
        Case::missed_blocks(
            "situation/C2-signed-but-not-logged",
            "A node that died before it had logged its vote asks for it again at a new time.",
            source::REPLAY,
            |bench| Box::pin(signed_but_not_logged(bench)),
        ),
        Case::missed_blocks(
            "situation/C3-honest-conflict",
            "A node that died after its proposal makes another block: that is refused, and the nil precommit of the round signed.",
            source::PROPOSE,
            |bench| Box::pin(honest_conflict(bench)),
        ),
        Case::missed_blocks(
            "situation/C4-stale-proposal",
            "A node that died after its proposal proposes the same block at a new time: there is no second signature of it.",
            source::PROPOSE,
            |bench| Box::pin(stale_proposal(bench)),
        ),
        Case::missed_blocks(
            "situation/C5-death-after-the-commit",
            "A node that died when its block was saved asks for nothing again, and the next height is signed.",
            source::REPLAY,
            |bench| Box::pin(death_after_the_commit(bench)),
        ),
        Case::missed_blocks(
            "situation/C6-after-block-sync",
            "A node that caught up by block sync goes on far above, in any step.",
            "blocksync/reactor.go:507, SwitchToConsensus (v0.38.26)",
            |bench| Box::pin(after_block_sync(bench)),
        ),
        Case::slashing(
            "situation/C7-lost-log",
            "A node that lost its log asks for many lower heights, and gets nothing until it is past the last signature.",
            "consensus/state.go:2614, repairWalFile (v0.38.26)",
            |bench| Box::pin(lost_log(bench)),
        ),
        Case::missed_blocks(
            "situation/C8-replay-with-another-extension",
            "A replayed precommit with another extension gets its old signature, and a signature of the new extension.",
            source::SIGN_VOTE,
            |bench| Box::pin(replay_with_another_extension(bench)),
        )
        .with_extensions(),
        Case::missed_blocks(
            "situation/C9-socket-file-made-anew",
            "A node that was killed has its unix socket removed and made anew: the signer dials the new one.",
            "libs/net; the node does not remove the file itself",
            |bench| Box::pin(socket_made_anew(bench)),
        )
        .needs(&[Need::UnixFile]),
    ]
}

async fn replay_of_a_height(bench: &mut Bench) -> Verdict {
    let height = bench.fresh();
    let mut asked = Vec::new();
    let mut last = None;
    for step in STEPS {
        let request = bench.ask(height, 0, step);
        last = Some(bench.signs(&request).await?);
        asked.push(request);
    }
    bench.hang_up();
    for (n, request) in asked.iter().enumerate() {
        let request = bench.asked_anew(request);
        match &last {
            Some(last) if n == 2 => bench.repeats(last, &request).await?,
            _ => bench.refuses(&request).await?,
        }
    }
    a_height(bench).await
}

async fn signed_but_not_logged(bench: &mut Bench) -> Verdict {
    for step in [Step::Prevote, Step::Precommit] {
        let height = bench.fresh();
        let request = bench.ask(height, 0, step);
        let first = bench.signs(&request).await?;
        bench.hang_up();
        let again = bench.asked_anew(&shifted(&request, 1));
        bench.repeats(&first, &again).await?;
    }
    Ok(())
}

async fn honest_conflict(bench: &mut Bench) -> Verdict {
    let height = bench.fresh();
    let request = bench.ask(height, 0, Step::Proposal);
    bench.signs(&request).await?;
    bench.hang_up();
    bench.ready().await?;
    let rebuilt = conflict(&bench.asked_anew(&request)).unwrap_or(request);
    bench.refuses(&rebuilt).await?;
    let request = bench.ask_nil(height, 0, Step::Precommit);
    bench.signs(&request).await?;
    let request = bench.ask(height, 1, Step::Prevote);
    bench.signs(&request).await?;
    Ok(())
}

async fn stale_proposal(bench: &mut Bench) -> Verdict {
    let height = bench.fresh();
    let request = bench.ask(height, 0, Step::Proposal);
    let first = bench.signs(&request).await?;
    bench.hang_up();
    let again = bench.asked_anew(&shifted(&request, 1));
    bench.repeats(&first, &again).await?;
    let request = bench.ask_nil(height, 0, Step::Prevote);
    bench.signs(&request).await?;
    Ok(())
}

async fn death_after_the_commit(bench: &mut Bench) -> Verdict {
    a_height(bench).await?;
    bench.hang_up();
    a_height(bench).await
}

async fn after_block_sync(bench: &mut Bench) -> Verdict {
    for step in [Step::Precommit, Step::Prevote, Step::Proposal] {
        bench.hang_up();
        bench.skip_heights(500);
        let height = bench.fresh();
        let request = bench.ask_nil(height, 0, step);
        let request = if step == Step::Proposal { bench.ask(height, 0, step) } else { request };
        bench.signs(&request).await?;
    }
    Ok(())
}

async fn lost_log(bench: &mut Bench) -> Verdict {
    bench.skip_heights(10);
    let height = bench.fresh();
    let request = bench.ask(height, 1, Step::Precommit);
    bench.signs(&request).await?;
    bench.hang_up();
    for below in height - 10..height {
        for step in [Step::Prevote, Step::Precommit] {
            let request = bench.ask(below, 0, step);
            bench.refuses(&request).await?;
        }
    }
    let request = bench.ask(height, 0, Step::Precommit);
    bench.refuses(&request).await?;
    a_height(bench).await
}

async fn replay_with_another_extension(bench: &mut Bench) -> Verdict {
    let height = bench.fresh();
    let blocks: Blocks = bench.requests.blocks().clone();
    let verifier = Verifier::new(bench.chain_id.clone(), bench.dialect, true, bench.key());
    let mut first = None;
    for bytes in [64, 100] {
        let requests = Requests::new(bench.chain_id.clone(), bench.dialect, Some(bytes), blocks.clone());
        let time = bench.now();
        let request = requests.sign(hrs(height, 0, Step::Precommit), bench.block(height, 0), time);
        let answer = bench.answer(&request).await?;
        let Answer::Signed(signed) = verifier.check(&request, answer)? else {
            return Err(Failed::because("refused a replayed precommit for its extension").into());
        };
        match &first {
            None => first = Some((signed.signature, signed.timestamp)),
            Some(first) if *first == (signed.signature, signed.timestamp) => {}
            Some(_) => return Err(Failed::NotRepeated { hrs: signed.hrs }.into()),
        }
        bench.hang_up();
    }
    Ok(())
}

async fn socket_made_anew(bench: &mut Bench) -> Verdict {
    a_height(bench).await?;
    bench.doors[FIRST].close();
    bench.hang_up();
    sleep(Duration::from_millis(500)).await;
    bench.doors[FIRST].open().await?;
    bench.survived().await?;
    a_height(bench).await
}
