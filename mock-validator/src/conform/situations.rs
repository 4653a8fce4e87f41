//! What real nodes were seen to ask: after crashes (C), when the link fails (L), and under attack or by an operator's mistake (A).
//!
//! Each was recorded with nodes of v0.34 to v1.0, or read in their source; the file is `consensus/state.go` where none is named.

use std::time::Duration;

use monosign_protocol::message::Message;
use monosign_protocol::{Dialect, Step};
use tokio::time::sleep;

use super::bench::{FIRST, SECOND, hrs};
use super::case::{Case, Ended, Failed, Need, Verdict};
use super::race::both_ask;
use super::{Bench, source};
use crate::node::probes::{conflict, nil, shifted};
use crate::node::{Answer, Blocks, Requests, Verifier};

const STEPS: [Step; 3] = [Step::Proposal, Step::Prevote, Step::Precommit];

pub(super) fn cases() -> Vec<Case> {
    let mut cases = after_crashes();
    cases.extend(of_the_link());
    cases.extend(of_two_validators());
    cases
}

fn after_crashes() -> Vec<Case> {
    vec![
        Case::required(
            "situation/C1-replay-of-a-height",
            "A node that was killed asks for its whole height again, oldest first, at new times: what is below is refused, the \
             last is repeated, and the next height is signed.",
            source::REPLAY,
            |bench| Box::pin(replay_of_a_height(bench)),
        ),
        Case::required(
            "situation/C2-signed-but-not-logged",
            "A node that died before it had logged its vote asks for it again at a new time.",
            source::REPLAY,
            |bench| Box::pin(signed_but_not_logged(bench)),
        ),
        Case::required(
            "situation/C3-honest-conflict",
            "A node that died after its proposal makes another block: that is refused, and the nil precommit of the round signed.",
            "consensus/state.go, defaultDecideProposal",
            |bench| Box::pin(honest_conflict(bench)),
        ),
        Case::required(
            "situation/C4-stale-proposal",
            "A node that died after its proposal proposes the same block at a new time: there is no second signature of it.",
            "consensus/state.go, defaultDecideProposal",
            |bench| Box::pin(stale_proposal(bench)),
        ),
        Case::required(
            "situation/C5-death-after-the-commit",
            "A node that died when its block was saved asks for nothing again, and the next height is signed.",
            source::REPLAY,
            |bench| Box::pin(death_after_the_commit(bench)),
        ),
        Case::required(
            "situation/C6-after-block-sync",
            "A node that caught up by block sync goes on far above, in any step.",
            "blocksync/reactor.go, SwitchToConsensus",
            |bench| Box::pin(after_block_sync(bench)),
        ),
        Case::required(
            "situation/C7-lost-log",
            "A node that lost its log asks for many lower heights, and gets nothing until it is past the last signature.",
            "consensus/wal.go, repairWalFile",
            |bench| Box::pin(lost_log(bench)),
        ),
        Case::required(
            "situation/C8-replay-with-another-extension",
            "A replayed precommit with another extension gets its old signature, and a signature of the new extension.",
            source::SIGN_VOTE,
            |bench| Box::pin(replay_with_another_extension(bench)),
        )
        .with_extensions(),
        Case::required(
            "situation/C9-socket-file-made-anew",
            "A node that was killed has its unix socket removed and made anew: the signer dials the new one.",
            "libs/net; the node does not remove the file itself",
            |bench| Box::pin(socket_made_anew(bench)),
        )
        .needs(&[Need::UnixFile]),
    ]
}

fn of_the_link() -> Vec<Case> {
    vec![
        Case::required(
            "situation/L1-refusal-then-next-step",
            "A refusal is not asked again; the next step is, on the same connection, and is signed.",
            source::RETRY,
            |bench| Box::pin(refusal_then_next_step(bench)),
        ),
        Case::required(
            "situation/L2-fifty-tries",
            "The same bytes are asked up to 50 times in a row.",
            source::RETRY,
            |bench| Box::pin(fifty_tries(bench)),
        ),
        Case::required(
            "situation/L3-answer-lost",
            "A connection that closes with the answer is followed by the same bytes on the next one, some 200 ms later.",
            source::RETRY,
            |bench| Box::pin(answer_lost(bench)),
        ),
        Case::required(
            "situation/L4-asked-again-while-it-signs",
            "A request that took too long is asked again on a new connection while the old one may still be under way: \
             they must not race.",
            source::ENDPOINT,
            |bench| Box::pin(asked_again_while_it_signs(bench)),
        ),
        Case::required(
            "situation/L5-signer-restarted-between-heights",
            "A signer that was restarted gets the held request on its new connection, and signs it.",
            source::LISTENER,
            |bench| Box::pin(signer_restarted(bench)),
        )
        .needs(&[Need::Command]),
        Case::required(
            "situation/L6-out-of-step",
            "After an undecodable message nodes keep the connection until a ping fails, then ask on a new one.",
            source::ENDPOINT,
            |bench| Box::pin(out_of_step(bench)),
        ),
        Case::required(
            "situation/L7-left-in-the-backlog",
            "Nodes accept when they need a connection: a signer may wait in the queue, and is served then.",
            source::LISTENER,
            |bench| Box::pin(left_in_the_backlog(bench)),
        ),
        Case::required(
            "situation/L8-shape-of-answers",
            "A whole round with extensions on: an extension signature on the precommit for a block, and nowhere else.",
            source::SIGN_AND_CHECK,
            |bench| Box::pin(shape_of_answers(bench)),
        )
        .with_extensions(),
        Case::required(
            "situation/L9-noise",
            "A height is signed over noise://, where both ends know each other.",
            "privval/noise (v0.40)",
            |bench| Box::pin(a_height(bench)),
        )
        .of(|dialect| dialect == Dialect::V0_40)
        .needs(&[Need::Noise]),
    ]
}

fn of_two_validators() -> Vec<Case> {
    vec![
        Case::required(
            "situation/A1-two-nodes-with-one-key",
            "Two nodes with one key ask for the same at different times, out of step with each other: one signature and one time.",
            source::ONLY_TIME,
            |bench| Box::pin(two_nodes(bench)),
        )
        .needs(&[Need::SecondValidator]),
        Case::required(
            "situation/A2-partitioned-twins",
            "Twins that see different blocks ask for both, prevote and precommit: one of each is signed.",
            source::CHECK_HRS,
            |bench| Box::pin(partitioned_twins(bench)),
        )
        .needs(&[Need::SecondValidator]),
        Case::required(
            "situation/A3-twin-on-an-old-state",
            "A twin that is behind is refused, height for height, while the other is served.",
            source::CHECK_HRS,
            |bench| Box::pin(twin_on_an_old_state(bench)),
        )
        .needs(&[Need::SecondValidator]),
        Case::required(
            "situation/A4-state-wiped",
            "A signer whose state was wiped refuses to start, or to sign: it does not begin anew.",
            source::LOAD_STATE,
            |bench| Box::pin(state_wiped(bench)),
        )
        .needs(&[Need::StateFile]),
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

async fn a_height(bench: &mut Bench) -> Verdict {
    let height = bench.fresh();
    for step in STEPS {
        let request = bench.ask(height, 0, step);
        bench.signs(&request).await?;
    }
    Ok(())
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
    bench.restart()?;
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
    bench.restart()?;
    let started = bench.dials_in(FIRST, Duration::from_secs(3)).await;
    let mut signed = false;
    if started {
        // A twin on an old state is all that it would take then.
        let below = bench.ask(height - 1, 0, Step::Prevote);
        if let super::bench::Reply::Answer(answer) = bench.reply(&below).await {
            signed = matches!(bench.check(&below, answer), Ok(Answer::Signed(_)));
        }
    }
    bench.kill();
    std::fs::write(&state, kept)?;
    bench.restart()?;
    bench.ready().await?;
    if signed {
        return Err(Failed::because("began anew, below what it had signed").into());
    }
    Ok(())
}
