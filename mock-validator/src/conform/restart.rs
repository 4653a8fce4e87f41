//! A signer that is killed remembers all that it has signed. One whose memory was taken away does not sign.

use std::{fs, io, path::PathBuf, time::Duration};

use monosign_protocol::{Step, message::Message};
use tokio::time::{sleep, timeout};

use super::bench::{FIRST, Reply};
use super::case::{Case, Ended, Failed, Need, Verdict};
use super::{Bench, source};
use crate::node::Answer;
use crate::node::probes::{conflict, shifted};

pub(super) fn cases() -> Vec<Case> {
    let mut cases: Vec<_> = with_its_state().into_iter().map(|case| case.needs(&[Need::Command])).collect();
    cases.extend(without_its_state().into_iter().map(|case| case.needs(&[Need::StateFile])));
    cases
}

fn with_its_state() -> [Case; 5] {
    [
        Case::missed_blocks(
            "restart/repeat",
            "After SIGKILL and a restart the last signature can be had again, with its time.",
            source::SAVE_STATE,
            |bench| Box::pin(repeat(bench)),
        ),
        Case::slashing(
            "restart/conflict",
            "After SIGKILL and a restart another block at the last place is refused.",
            source::SAVE_STATE,
            |bench| Box::pin(conflict_after(bench)),
        ),
        Case::slashing(
            "restart/regression",
            "After SIGKILL and a restart nothing below the last signature is signed.",
            source::SAVE_STATE,
            |bench| Box::pin(regression(bench)),
        ),
        Case::slashing(
            "restart/kill-in-mid-request",
            "A signer that is killed while it signs has signed one message at the most.",
            source::SAVE_STATE,
            |bench| Box::pin(kill_in_mid_request(bench)),
        ),
        Case::slashing(
            "restart/synced",
            "What was signed is on the disk before the signature leaves: SIGKILL takes nothing that was written, a power cut takes \
             all that was not flushed.",
            source::SYNC_STATE,
            |bench| Box::pin(synced(bench)),
        ),
    ]
}

fn without_its_state() -> [Case; 4] {
    [
        Case::slashing(
            "state/removed",
            "Without the file of its state a signer does not sign what could be a conflict: it refuses to start.",
            source::LOAD_STATE,
            |bench| Box::pin(tampered(bench, |state| fs::remove_file(state))),
        ),
        Case::slashing(
            "state/truncated",
            "With half of the file of its state a signer refuses to start.",
            source::LOAD_STATE,
            |bench| {
                Box::pin(tampered(bench, |state| {
                    let file = fs::File::options().write(true).open(state)?;
                    file.set_len(file.metadata()?.len() / 2)
                }))
            },
        ),
        Case::slashing(
            "state/emptied",
            "With an empty file a signer refuses to start: an empty file is what a power cut may leave.",
            source::LOAD_STATE,
            |bench| Box::pin(tampered(bench, |state| fs::write(state, b""))),
        ),
        Case::advisory(
            "state/copied-back",
            "With an old copy of its state a signer does not sign what could be a conflict. No signer that has nothing but \
             that file can tell.",
            "iqlusion, post-mortem of 2019-08",
            |bench| Box::pin(copied_back(bench)),
        ),
    ]
}

async fn signed_then_killed(bench: &mut Bench) -> Result<(Message, crate::node::Signed), Failed> {
    let height = bench.fresh();
    let request = bench.ask(height, 2, Step::Precommit);
    let first = bench.signs(&request).await?;
    bench.restart().await?;
    Ok((request, first))
}

async fn repeat(bench: &mut Bench) -> Verdict {
    let (request, first) = signed_then_killed(bench).await?;
    bench.repeats(&first, &request).await?;
    bench.repeats(&first, &shifted(&request, 1)).await?;
    Ok(())
}

async fn conflict_after(bench: &mut Bench) -> Verdict {
    let (request, _) = signed_then_killed(bench).await?;
    bench.refuses(&conflict(&request).unwrap_or(request)).await?;
    Ok(())
}

async fn regression(bench: &mut Bench) -> Verdict {
    let (request, first) = signed_then_killed(bench).await?;
    let height = first.hrs.height.0;
    for (height, round, step) in
        [(height - 1, 9, Step::Precommit), (height, 1, Step::Precommit), (height, 2, Step::Prevote)]
    {
        let below = bench.ask(height, round, step);
        bench.refuses(&below).await?;
    }
    let _ = request;
    Ok(())
}

/// Kills the signer at several moments after a request, and sees what it released and what it signs afterwards.
async fn kill_in_mid_request(bench: &mut Bench) -> Verdict {
    for micros in [0, 50, 100, 200, 400, 1000] {
        let height = bench.fresh();
        let request = bench.ask(height, 0, Step::Precommit);
        let other = conflict(&request).unwrap_or_else(|| request.clone());
        bench.ready().await?;
        bench.link()?.send(&request).await?;
        if micros > 0 {
            sleep(Duration::from_micros(micros)).await;
        }
        if let Some(process) = &mut bench.process {
            process.kill();
        }
        // What it had sent before its death may still arrive.
        let released =
            matches!(timeout(Duration::from_secs(1), bench.link()?.receive()).await, Ok(Ok(Some(_))));
        bench.restart().await?;
        bench.ready().await?;
        let second = bench.answer(&other).await?;
        let conflicts = matches!(bench.check(&other, second)?, Answer::Signed(_));
        if released && conflicts {
            return Err(Failed::SignedTwice { hrs: super::bench::hrs(height, 0, Step::Precommit) }.into());
        }
        let first = bench.answer(&request).await?;
        match (conflicts, bench.check(&request, first)?) {
            (true, Answer::Signed(signed)) => return Err(Failed::SignedTwice { hrs: signed.hrs }.into()),
            (false, Answer::Refused { error, .. }) => return Err(Failed::Refused(error).into()),
            _ => {}
        }
    }
    Ok(())
}

/// No disk that forgets is needed to see that nothing was flushed: it takes a flush for each signature at least.
async fn synced(bench: &mut Bench) -> Verdict {
    if !bench.restart_counted().await? {
        bench.restart().await?;
        bench.ready().await?;
        return Err(Ended::Skipped("needs strace, which counts flushes"));
    }
    let signed = signs_some(bench).await;
    let flushes = bench.process.as_mut().map_or(Ok(None), |process| process.end_counted());
    bench.restart().await?;
    bench.ready().await?;
    let (signatures, flushes) = match (signed, flushes?) {
        (None, _) => {
            return Err(Ended::Skipped("the signer does not start under strace, which counts flushes"));
        }
        (Some(_), None) => {
            return Err(Ended::Skipped(
                "needs a --signer-cmd that is the signer, and none that has another start it",
            ));
        }
        (Some(signatures), Some(flushes)) => (signatures, flushes),
    };
    bench.note(format!("{flushes} flushes for {signatures} signatures"));
    match flushes < signatures {
        true => Err(Failed::NotSynced { signatures, flushes }.into()),
        false => Ok(()),
    }
}

/// How many signatures it gave; `None` if it did not come, or gave none. Why some were not given is the matter of other cases.
async fn signs_some(bench: &mut Bench) -> Option<u64> {
    let limit = bench.limits.connect;
    if !bench.dials_in(FIRST, limit).await {
        return None;
    }
    let mut signatures = 0;
    for _ in 0..20 {
        let height = bench.fresh();
        let request = bench.ask(height, 0, Step::Precommit);
        if let Ok(answer) = bench.answer(&request).await
            && let Ok(Answer::Signed(_)) = bench.check(&request, answer)
        {
            signatures += 1;
        }
    }
    (signatures > 0).then_some(signatures)
}

/// How long a signer has to dial in that should not start.
const START: Duration = Duration::from_secs(3);

/// Takes the state away, and gives it back in the end.
async fn tampered(bench: &mut Bench, tamper: impl FnOnce(&std::path::Path) -> io::Result<()>) -> Verdict {
    let height = bench.fresh();
    let request = bench.ask(height, 0, Step::Precommit);
    bench.signs(&request).await?;
    bench.kill();
    let Saved { path, content } = Saved::of(bench)?;
    tamper(&path)?;
    let verdict = does_not_sign(bench, &conflict(&request).unwrap_or(request)).await;
    bench.kill();
    fs::write(&path, content)?;
    bench.restart().await?;
    bench.ready().await?;
    verdict
}

async fn copied_back(bench: &mut Bench) -> Verdict {
    let height = bench.fresh();
    let request = bench.ask(height, 0, Step::Prevote);
    bench.signs(&request).await?;
    bench.kill();
    let old = Saved::of(bench)?;
    bench.restart().await?;
    let request = bench.ask(height, 0, Step::Precommit);
    bench.signs(&request).await?;
    bench.kill();
    let new = Saved::of(bench)?;
    fs::write(&old.path, &old.content)?;
    let verdict = does_not_sign(bench, &conflict(&request).unwrap_or(request)).await;
    bench.kill();
    fs::write(&new.path, &new.content)?;
    bench.restart().await?;
    bench.ready().await?;
    verdict
}

/// The file of a signer's state, at one moment.
struct Saved {
    path: PathBuf,
    content: Vec<u8>,
}

impl Saved {
    fn of(bench: &Bench) -> Result<Self, Ended> {
        let state = bench.process.as_ref().and_then(|process| process.state());
        let path = state.ok_or(Ended::Skipped(Need::StateFile.missing()))?.to_owned();
        let content = fs::read(&path)?;
        Ok(Self { path, content })
    }
}

async fn does_not_sign(bench: &mut Bench, conflict: &Message) -> Verdict {
    bench.restart().await?;
    if !bench.dials_in(FIRST, START).await {
        bench.note("did not start");
        return Ok(());
    }
    match bench.reply(conflict).await {
        Reply::Answer(answer) => match bench.check(conflict, answer) {
            Ok(Answer::Signed(signed)) => Err(Failed::SignedTwice { hrs: signed.hrs }.into()),
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}
