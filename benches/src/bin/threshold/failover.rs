//! What it costs the next signature that the coordinator is gone or hangs, or that so many are gone that there is none.

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use crate::group::Group;
use crate::promises::Promises;
use crate::report::{Latencies, Nanos, nanos, print_row};

/// As long as peers are suspected after they were slow.
const SUSPICION: Duration = Duration::from_millis(2500);

/// Kills and stops the coordinator, and times the next signature of another cosigner. An error ends the bench: none may reach a node.
pub(crate) async fn measure(
    path: &Path,
    dir: &Path,
    (threshold, members): (u16, u16),
    trials: u32,
    promises: &mut Promises,
) -> anyhow::Result<()> {
    let mut group = Group::start(path, dir, (threshold, members), None).await?;
    let mut client = group.client(1).await?;
    client.heights(5, &mut Latencies::default()).await?;
    let mut killed = nanos();
    for trial in 0..trials {
        group.cosigners.kill(0)?;
        client.next_proposal(&mut killed).await?;
        client.heights(2, &mut Latencies::default()).await?;
        group.start_one(0)?;
        group.joined(0, trial as usize + 2).await?;
        client.heights(5, &mut Latencies::default()).await?;
    }
    print_row(&format!("{threshold} of {members}, coordinator killed"), &killed);
    let millis = |times: &Nanos| times.value_at_quantile(0.5) as f64 / 1e6;
    promises.at_most(format!("{threshold} of {members}: p50 ms after SIGKILL"), millis(&killed), 20.0);
    let mut hangs: Nanos = nanos();
    for _ in 0..trials {
        group.cosigners.signal(0, Signal::STOP)?;
        client.next_proposal(&mut hangs).await?;
        client.heights(2, &mut Latencies::default()).await?;
        group.cosigners.signal(0, Signal::CONT)?;
        // Until it is the coordinator again.
        sleep(SUSPICION).await;
        client.heights(2, &mut Latencies::default()).await?;
    }
    print_row(&format!("{threshold} of {members}, coordinator hangs (hedge 50 ms)"), &hangs);
    promises.at_most(format!("{threshold} of {members}: p50 ms after SIGSTOP"), millis(&hangs), 60.0);
    println!("  no error reached the node in {} trials", 2 * trials);
    Ok(())
}

/// How often all but `t - 1` are killed.
const MAJORITIES: usize = 5;
/// How long a request is held before it is refused: the default of `hold_ms`.
const HOLD: Duration = Duration::from_millis(1500);

/// Kills so many that too few are left, sees that a request is held and then refused, and times from the start of one of them to the
/// next signature. The node does what nodes do: it asks again.
pub(crate) async fn majority(
    path: &Path,
    dir: &Path,
    (threshold, members): (u16, u16),
    promises: &mut Promises,
) -> anyhow::Result<()> {
    let mut group = Group::start(path, dir, (threshold, members), None).await?;
    let mut client = group.client(0).await?;
    client.heights(5, &mut Latencies::default()).await?;
    let (mut held, mut back) = (nanos(), nanos());
    let first = usize::from(threshold) - 1;
    for trial in 0..MAJORITIES {
        for cosigner in first..usize::from(members) {
            group.cosigners.kill(cosigner)?;
        }
        let (took, is_signed) = client.try_proposal().await?;
        ensure!(!is_signed, "{} of {threshold} cosigners have signed", threshold - 1);
        held.record(took.as_nanos() as u64)?;
        group.start_one(first)?;
        let begin = Instant::now();
        while !client.try_proposal().await?.1 {}
        back.record(begin.elapsed().as_nanos() as u64)?;
        for cosigner in first + 1..usize::from(members) {
            group.start_one(cosigner)?;
        }
        for cosigner in first..usize::from(members) {
            group.joined(cosigner, trial + 2).await?;
        }
        client.heights(5, &mut Latencies::default()).await?;
    }
    print_row(&format!("{threshold} of {members}, {first} left: refused after"), &held);
    print_row(&format!("{threshold} of {members}, {threshold} left again: signed after"), &back);
    let seconds = |times: &Nanos| times.max() as f64 / 1e9;
    let most = (HOLD + Duration::from_millis(100)).as_secs_f64();
    promises.at_most(
        format!("{threshold} of {members}: s until a refusal without a quorum"),
        seconds(&held),
        most,
    );
    promises.at_most(
        format!("{threshold} of {members}: s from its return to a signature"),
        seconds(&back),
        1.0,
    );
    Ok(())
}
