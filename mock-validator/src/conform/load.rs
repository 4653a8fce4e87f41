//! Many signatures in a row: none wrong, and none late.

use std::time::Duration;

use monosign_protocol::Step;
use tokio::time::Instant;

use super::Bench;
use super::case::{Case, Failed, Verdict};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::missed_blocks(
            "load/median-of-50",
            "The median of 50 signatures takes 10 ms at the most.",
            "Celestia, requirements of remote signers",
            |bench| Box::pin(median_of_50(bench)),
        ),
        Case::missed_blocks(
            "load/none-wrong",
            "Of many signatures in a row, none is wrong or missing.",
            "consensus/state.go: a chain of 1 s blocks asks for as many within an hour",
            |bench| Box::pin(none_wrong(bench)),
        ),
    ]
}

const LIMIT: Duration = Duration::from_millis(10);

async fn median_of_50(bench: &mut Bench) -> Verdict {
    let times = sign_in_a_row(bench, 50).await?;
    let median = times[times.len() / 2];
    bench.note(format!("median {:.2} ms", millis(median)));
    if median > LIMIT {
        return Err(Failed::because(format!("the median is {:.1} ms", millis(median))).into());
    }
    Ok(())
}

async fn none_wrong(bench: &mut Bench) -> Verdict {
    let count = bench.signatures;
    let begin = Instant::now();
    let times = sign_in_a_row(bench, count).await?;
    let took = begin.elapsed();
    let at = |percent: f64| millis(times[((times.len() - 1) as f64 * percent / 100.0) as usize]);
    let text = format!(
        "{count} signatures in {:.1} s; p50 {:.2} ms, p90 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, max {:.2} ms",
        took.as_secs_f64(),
        at(50.0),
        at(90.0),
        at(99.0),
        at(99.9),
        at(100.0)
    );
    bench.measured.push(("latency", text.clone()));
    bench.note(text);
    Ok(())
}

/// The times from request to answer, shortest first.
async fn sign_in_a_row(bench: &mut Bench, count: u32) -> Result<Vec<Duration>, Failed> {
    bench.ready().await?;
    let mut times = Vec::new();
    let steps = [Step::Proposal, Step::Prevote, Step::Precommit].into_iter().cycle();
    let mut height = bench.fresh();
    for step in steps.take(count.max(1) as usize) {
        if step == Step::Proposal {
            height = bench.fresh();
        }
        let request = bench.ask(height, 0, step);
        let begin = Instant::now();
        let answer = bench.answer(&request).await?;
        times.push(begin.elapsed());
        if !matches!(bench.check(&request, answer)?, crate::node::Answer::Signed(_)) {
            let after = times.len();
            return Err(Failed::because(format!("refused what is safe, after {after} signatures")));
        }
    }
    times.sort_unstable();
    Ok(times)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
