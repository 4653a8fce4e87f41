//! A signer that lost its validator is back before the validator misses it.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::bench::FIRST;
use super::case::{Case, Failed, Verdict};
use super::frames::{Heard, hears};
use super::{Bench, source};

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::missed_blocks(
            "reconnect/after-a-reset",
            "The signer is back within 3 s of a connection that was reset: that is how long a node waits when it starts.",
            source::SETUP,
            |bench| Box::pin(after_a_reset(bench)),
        ),
        Case::missed_blocks(
            "reconnect/after-a-clean-close",
            "The signer is back within 3 s of the end of the stream.",
            source::SERVER,
            |bench| Box::pin(after_a_clean_close(bench)),
        ),
        Case::advisory(
            "reconnect/within-200-ms",
            "The signer is back within 200 ms of a connection that served for a while: a node's next try comes after 100 ms.",
            source::RETRY,
            |bench| Box::pin(within_200_ms(bench)),
        ),
        Case::missed_blocks(
            "reconnect/after-a-refused-port",
            "The signer tries on while nobody listens, and is back within 3 s of the node's start.",
            source::SETUP,
            |bench| Box::pin(after_a_refused_port(bench)),
        ),
        Case::missed_blocks(
            "reconnect/after-a-silent-validator",
            "The signer leaves a connection on which nothing comes, as when the node's host is gone without a word, and dials again.",
            source::LISTENER,
            |bench| Box::pin(after_a_silent_validator(bench)),
        ),
        Case::missed_blocks(
            "reconnect/one-socket-at-a-time",
            "A signer whose handshake is not answered closes that socket before it dials again: nodes accept each that is left \
             behind and lose 5 s with it.",
            source::DIALER,
            |bench| Box::pin(one_socket_at_a_time(bench)),
        ),
    ]
}

/// Waits for the signer and says how long that took.
async fn is_back(bench: &mut Bench, limit: Duration) -> Result<(), Failed> {
    let begin = Instant::now();
    bench.connect(FIRST, limit).await?;
    bench.is_still_there().await?;
    bench.note(format!("back after {} ms", begin.elapsed().as_millis()));
    Ok(())
}

async fn after_a_reset(bench: &mut Bench) -> Verdict {
    let limit = bench.limits.back;
    for _ in 0..3 {
        bench.ready().await?;
        bench.hang_up();
        is_back(bench, limit).await?;
    }
    Ok(())
}

async fn after_a_clean_close(bench: &mut Bench) -> Verdict {
    let limit = bench.limits.back;
    bench.ready().await?;
    bench.close_cleanly();
    is_back(bench, limit).await?;
    Ok(())
}

async fn within_200_ms(bench: &mut Bench) -> Verdict {
    bench.ready().await?;
    sleep(Duration::from_millis(1100)).await;
    bench.is_still_there().await?;
    bench.hang_up();
    is_back(bench, Duration::from_millis(200)).await?;
    Ok(())
}

async fn after_a_refused_port(bench: &mut Bench) -> Verdict {
    let limit = bench.limits.back;
    bench.ready().await?;
    bench.doors[FIRST].close();
    bench.hang_up();
    sleep(Duration::from_secs(2)).await;
    let opened = bench.doors[FIRST].open().await;
    // The port may have been taken for another connection meanwhile; without a door nothing else can be tried.
    if opened.is_err() {
        sleep(Duration::from_secs(1)).await;
        bench.doors[FIRST].open().await?;
    }
    is_back(bench, limit).await?;
    Ok(())
}

async fn after_a_silent_validator(bench: &mut Bench) -> Verdict {
    bench.ready().await?;
    bench.is_still_there().await?;
    let (begin, limit) = (Instant::now(), bench.limits.silence);
    // The connection stays open all the while, and the door, too.
    let dialed = timeout(limit, bench.doors[FIRST].accept()).await;
    let stream = dialed.map_err(|_| Failed::because(format!("kept silent company for {limit:?}")))??;
    bench.note(format!("dialed again after {:.1} s", begin.elapsed().as_secs_f64()));
    stream.reset_on_drop();
    drop(stream);
    bench.hang_up();
    bench.ready().await?;
    Ok(())
}

async fn one_socket_at_a_time(bench: &mut Bench) -> Verdict {
    let (connect, limit) = (bench.limits.connect, bench.limits.silence);
    let mut first = bench.accept_raw(connect).await?;
    match timeout(limit, bench.doors[FIRST].accept()).await {
        Err(_) => bench.note("waits on the one socket"),
        Ok(second) => {
            let second = second?;
            // Its first words are there still; behind them the end has to be.
            let closed = loop {
                match hears(&mut *first, Duration::from_millis(200)).await {
                    Heard::Bytes => {}
                    Heard::Closed => break true,
                    Heard::Nothing => break false,
                }
            };
            second.reset_on_drop();
            if !closed {
                return Err(Failed::because("dialed again and left the first socket open").into());
            }
        }
    }
    first.reset_on_drop();
    drop(first);
    bench.ready().await?;
    Ok(())
}
