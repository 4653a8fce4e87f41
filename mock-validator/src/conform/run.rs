//! Trying one case after the other.

use std::time::Duration;

use ed25519_dalek::VerifyingKey;
use tokio::time::Instant;

use super::bench::{FIRST, SECOND};
use super::case::{Case, Ended, Failed, Level, Need, Outcome};
use super::pubkey::key_in;
use super::{Bench, Options, cases};

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Each case that was asked for and is for the dialect, in the order of the run.
    pub results: Vec<Finding>,
    /// What was measured: names and values.
    pub measured: Vec<(&'static str, String)>,
    /// The signer's public key.
    pub public_key: VerifyingKey,
}

/// What came of one case.
#[derive(Debug, Clone)]
pub struct Finding {
    /// The case's name.
    pub id: &'static str,
    /// The rule.
    pub rule: &'static str,
    /// Where the rule comes from.
    pub source: &'static str,
    /// Whether it has to be kept.
    pub level: Level,
    /// How it ended.
    pub outcome: Outcome,
    /// What else is worth telling.
    pub notes: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

/// Why there is nothing to tell of a signer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CannotRun {
    /// An id that no case has.
    #[error("there is no case `{id}`\nhint: --list names them all")]
    NoCase {
        /// The id.
        id: String,
    },
    /// No door, so no signer.
    #[error("there is nowhere to listen")]
    NoDoor,
    /// The signer could not be started.
    #[error("the signer cannot be started: {0}")]
    Start(std::io::Error),
    /// No signer came.
    #[error("no signer connected within {} s\nhint: point its validator address here, and look at its log", limit.as_secs_f64())]
    NoSigner {
        /// How long was waited.
        limit: Duration,
    },
    /// No key, so nothing can be checked.
    #[error(
        "the signer showed no ed25519 key in any form: {reason}\nhint: is --chain-id the chain that it signs for?"
    )]
    NoKey {
        /// What it did instead.
        reason: String,
    },
}

/// Waits for the signer and tries the cases on it; `tell` is told each result when it is known.
///
/// # Errors
/// [`CannotRun`] if nothing can be said of the signer.
pub async fn run(options: Options, mut tell: impl FnMut(&Finding)) -> Result<Summary, CannotRun> {
    let chosen = choose(&options)?;
    let wait = options.limits.wait;
    let mut bench = Bench::new(options);
    let public_key = begin(&mut bench, wait).await?;
    let mut results: Vec<Finding> = Vec::new();
    let mut gone = Gone::default();
    for case in chosen {
        let result = match gone.since {
            Some(since) => not_tried(&case, since),
            None => try_case(&mut bench, &case).await,
        };
        gone.take_into_account(&result, &mut bench).await;
        tell(&result);
        results.push(result);
    }
    bench.kill();
    Ok(Summary { results, measured: bench.measured, public_key })
}

fn choose(options: &Options) -> Result<Vec<Case>, CannotRun> {
    let all = cases();
    let names = |case: &Case, only: &str| case.id == only || case.group() == only;
    if let Some(id) = options.only.iter().find(|only| !all.iter().any(|case| names(case, only))) {
        return Err(CannotRun::NoCase { id: id.clone() });
    }
    let wanted = |case: &Case| options.only.is_empty() || options.only.iter().any(|only| names(case, only));
    Ok(all.into_iter().filter(|case| case.is_for(options.dialect) && wanted(case)).collect())
}

/// Waits for the signer and learns its key, in whatever form it shows it.
async fn begin(bench: &mut Bench, limit: Duration) -> Result<VerifyingKey, CannotRun> {
    if bench.doors.is_empty() {
        return Err(CannotRun::NoDoor);
    }
    bench.restart().await.map_err(|failed| match failed {
        Failed::Io(error) => CannotRun::Start(error),
        other => CannotRun::Start(std::io::Error::other(other.to_string())),
    })?;
    bench.connect(FIRST, limit).await.map_err(|_| CannotRun::NoSigner { limit })?;
    if bench.doors.len() > SECOND {
        bench.connect(SECOND, limit).await.map_err(|_| CannotRun::NoSigner { limit })?;
    }
    let request = bench.requests.public_key();
    let answer = bench.answer(&request).await;
    let answer = answer.map_err(|failed| CannotRun::NoKey { reason: failed.to_string() })?;
    let shown = key_in(answer.as_ref()).and_then(|key| key.try_into().ok());
    let shown = shown.and_then(|key| VerifyingKey::from_bytes(key).ok());
    let reason = || format!("its answer was {answer:?}");
    let key = bench.expected_key.or(shown).ok_or_else(|| CannotRun::NoKey { reason: reason() })?;
    bench.take_key(key);
    Ok(key)
}

async fn try_case(bench: &mut Bench, case: &Case) -> Finding {
    bench.notes.clear();
    let begin = Instant::now();
    let missing = case.needs.iter().find(|need| !bench.has(**need));
    let verdict = match missing {
        Some(need) => Err(Ended::Skipped(need.missing())),
        None => match is_ready(bench, case).await {
            Ok(()) => (case.run)(bench).await,
            Err(failed) => Err(failed.into()),
        },
    };
    let outcome = match verdict {
        Ok(()) => Outcome::Passed,
        Err(Ended::Skipped(reason)) => Outcome::Skipped { reason: reason.into() },
        Err(Ended::Failed(failed)) => {
            // What it left behind is none of the next case's.
            bench.hang_up();
            Outcome::Failed { reason: failed.to_string() }
        }
    };
    result(case, outcome, std::mem::take(&mut bench.notes), begin.elapsed())
}

/// The validators that a case needs have their connections. One that was not asked for a while may have lost its.
async fn is_ready(bench: &mut Bench, case: &Case) -> Result<(), Failed> {
    bench.ready().await?;
    if case.needs.contains(&Need::SecondValidator) {
        bench.ready_on(SECOND).await?;
    }
    Ok(())
}

fn result(case: &Case, outcome: Outcome, notes: Vec<String>, took: Duration) -> Finding {
    let &Case { id, rule, source, level, .. } = case;
    let mut seen = std::collections::BTreeSet::new();
    let notes = notes.into_iter().filter(|note| seen.insert(note.clone())).collect();
    Finding { id, rule, source, level, outcome, notes, took }
}

fn not_tried(case: &Case, since: &'static str) -> Finding {
    let reason = format!("not tried: the signer is gone since `{since}`");
    result(case, Outcome::Failed { reason }, Vec::new(), Duration::ZERO)
}

/// Whether the signer is gone for good, so that nobody waits for it in each of a hundred cases.
#[derive(Default)]
struct Gone {
    since: Option<&'static str>,
}

impl Gone {
    /// After a case that failed, the signer has to be there again.
    async fn take_into_account(&mut self, result: &Finding, bench: &mut Bench) {
        let failed = matches!(result.outcome, Outcome::Failed { .. });
        if self.since.is_none() && failed && bench.ready().await.is_err() {
            self.since = Some(result.id);
        }
    }
}

impl Summary {
    /// Whether each required case that was tried has passed.
    pub fn is_conformant(&self) -> bool {
        !self.results.iter().any(Finding::breaks_conformance)
    }

    /// How many cases passed, failed and were skipped, of those with this level.
    pub fn count(&self, level: Level) -> [usize; 3] {
        let mut count = [0; 3];
        for result in self.results.iter().filter(|result| result.level == level) {
            count[match result.outcome {
                Outcome::Passed => 0,
                Outcome::Failed { .. } => 1,
                Outcome::Skipped { .. } => 2,
            }] += 1;
        }
        count
    }
}

impl Finding {
    /// Whether a required rule is broken.
    pub fn breaks_conformance(&self) -> bool {
        self.level == Level::Required && matches!(self.outcome, Outcome::Failed { .. })
    }
}
