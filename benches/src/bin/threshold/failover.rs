//! What it costs the next signature that the coordinator is gone or hangs.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::sleep;

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
