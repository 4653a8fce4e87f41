//! Trying one case after the other.

use std::time::Duration;

use ed25519_dalek::VerifyingKey;
use monosign_protocol::{Height, Step};
use tokio::time::Instant;

use super::bench::{FIRST, Reply, SECOND};
use super::case::{Case, Ended, Failed, Level, Need, Outcome};
use super::pubkey::key_in;
use super::{Bench, End, Options, cases};
use crate::node::Answer;

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Each case that was asked for and is for the dialect, in the order of the run.
    pub results: Vec<Finding>,
    /// What was measured: names and values.
    pub measured: Vec<(&'static str, String)>,
    /// The signer's public key.
    pub public_key: VerifyingKey,
    /// The case after which the signer was gone for good, so that those behind it were not tried.
    pub gone_since: Option<&'static str>,
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
    /// What is at stake; of a case that failed, by how it did: the same vote with another time is no double sign.
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
    #[error(
        "no signer connected within {} s: {dials}\nhint: point its validator address here, and look at its log",
        limit.as_secs_f64()
    )]
    NoSigner {
        /// How long was waited.
        limit: Duration,
        /// What became of those who dialed in vain.
        dials: String,
    },
    /// The signer's process ended before it connected.
    #[error("the signer's command ended before it connected: {}; {}", .0.how, last_lines(.0))]
    Ended(End),
    /// The signer has signed at or above the first height.
    #[error(
        "the signer has signed at or above height {asked}: {said}\nhint: begin above that: --height {}",
        give.map_or("HEIGHT".into(), |give| give.to_string())
    )]
    StateAbove {
        /// The first height.
        asked: Height,
        /// How that shows.
        said: String,
        /// The lowest height that is above, if it is known.
        give: Option<i64>,
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
    is_above_its_state(&mut bench).await?;
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
    Ok(Summary { results, measured: bench.measured, public_key, gone_since: gone.since })
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
    comes_in(bench, FIRST, limit).await?;
    if bench.doors.len() > SECOND {
        comes_in(bench, SECOND, limit).await?;
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

/// Waits for a dial, but for no process that has ended.
async fn comes_in(bench: &mut Bench, which: usize, limit: Duration) -> Result<(), CannotRun> {
    let came = match bench.process {
        Some(_) => bench.dials_in(which, limit).await,
        None => bench.connect(which, limit).await.is_ok(),
    };
    if came {
        return Ok(());
    }
    let end = bench.process.as_mut().and_then(|process| process.end());
    let dials = bench.dials_in_vain();
    Err(end.map_or(CannotRun::NoSigner { limit, dials }, CannotRun::Ended))
}

fn last_lines(end: &End) -> String {
    match end.output.as_str() {
        "" => "it wrote nothing".into(),
        output => format!("the end of what it wrote:\n{output}"),
    }
}

/// One request tells whether the signer has signed above all that will be asked: a state that was left from an earlier run
/// would fail most cases, and none of them by the signer's fault.
async fn is_above_its_state(bench: &mut Bench) -> Result<(), CannotRun> {
    let asked = bench.fresh();
    let request = bench.ask(asked, 0, Step::Prevote);
    let above = |said: String, give: Option<i64>| CannotRun::StateAbove { asked: Height(asked), said, give };
    match bench.reply(&request).await {
        Reply::Answer(answer) => match bench.check(&request, answer) {
            Ok(Answer::Refused { error, .. }) if speaks_of_the_state(&error.description.to_string()) => {
                let give = height_in(&error.description.to_string(), asked);
                Err(above(format!("it refused a prevote there: {error}"), give))
            }
            _ => Ok(()),
        },
        // Some close the connection instead, and say nothing. Their state may.
        Reply::Lost(_) | Reply::Silent => {
            let state = bench.process.as_ref().and_then(|process| process.state());
            let text = state.and_then(|path| std::fs::read_to_string(path).ok());
            match text.as_deref().and_then(height_of_state).filter(|height| *height >= asked) {
                Some(height) => Err(above(format!("so its state says, `{height}`"), height.checked_add(1))),
                None => Ok(()),
            }
        }
    }
}

fn speaks_of_the_state(refusal: &str) -> bool {
    let refusal = refusal.to_lowercase();
    ["regress", "already signed", "last height", "last signed", "conflict", "double"]
        .iter()
        .any(|words| refusal.contains(words))
}

/// The height above the one that a refusal names, if that is not below what was asked.
fn height_in(refusal: &str, asked: i64) -> Option<i64> {
    let numbers =
        refusal.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse::<i64>().ok());
    numbers.filter(|number| *number >= asked).max()?.checked_add(1)
}

/// The height in a state as CometBFT and tmkms write it: `"height": "7"`, or without the second quotes.
fn height_of_state(text: &str) -> Option<i64> {
    let (_, behind) = text.split_once("\"height\"")?;
    let behind = behind.trim_start_matches([' ', ':', '"']);
    let digits = behind.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
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
    let mut level = case.level;
    let outcome = match verdict {
        Ok(()) => Outcome::Passed,
        Err(Ended::Skipped(reason)) => Outcome::Skipped { reason: reason.into() },
        Err(Ended::Failed(failed)) => {
            // What it left behind is none of the next case's.
            bench.hang_up();
            level = failed.level(case.level);
            Outcome::Failed { reason: failed.to_string() }
        }
    };
    let found = result(case, outcome, std::mem::take(&mut bench.notes), begin.elapsed());
    Finding { level, ..found }
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
    let reason = format!("{NOT_TRIED} the signer is gone since `{since}`");
    result(case, Outcome::Skipped { reason }, Vec::new(), Duration::ZERO)
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
    /// Whether all that was tried has passed but for advisory cases, and nothing was left out because the signer was gone.
    pub fn is_conformant(&self) -> bool {
        self.gone_since.is_none() && !self.results.iter().any(Finding::breaks_conformance)
    }

    /// The case after which the signer was gone, and how many behind it were not tried.
    pub fn not_tried(&self) -> Option<(&'static str, usize)> {
        let since = self.gone_since?;
        let at = self.results.iter().position(|finding| finding.id == since)?;
        Some((since, self.results.len() - at - 1))
    }

    /// How many cases passed, failed and were skipped, advisory ones aside.
    pub fn count_required(&self) -> [usize; 3] {
        let counts =
            Level::ALL.into_iter().filter(|level| level.is_required()).map(|level| self.count(level));
        counts.fold([0; 3], |[a, b, c], [passed, failed, skipped]| [a + passed, b + failed, c + skipped])
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

/// How the reason begins of a case that was skipped because the signer was gone.
const NOT_TRIED: &str = "not tried:";

impl Finding {
    /// Whether it was skipped because the signer was gone.
    pub fn is_not_tried(&self) -> bool {
        matches!(&self.outcome, Outcome::Skipped { reason } if reason.starts_with(NOT_TRIED))
    }

    /// Whether something is at stake because of it.
    pub fn breaks_conformance(&self) -> bool {
        self.level.is_required() && matches!(self.outcome, Outcome::Failed { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_height_to_begin_at_in_the_words_of_signers() {
        for (refusal, give) in [
            ("height regression. Got 1, last height 1000000", Some(1_000_001)),
            ("state file height regression: asked to sign 1/0/2, already signed at height 101", Some(102)),
            ("conflicting data", None),
            ("double sign at 1", Some(2)),
        ] {
            assert!(speaks_of_the_state(refusal), "{refusal}");
            assert_eq!(height_in(refusal, 1), give, "{refusal}");
        }
        assert!(!speaks_of_the_state("unknown chain `x`"));
    }

    #[test]
    fn reads_the_height_of_states_as_they_are_written() {
        for (state, height) in [
            (r#"{"height":"77","round":"0","step":6}"#, Some(77)),
            ("{\n  \"round\": 1,\n  \"height\": 5\n}", Some(5)),
            (r#"{"height": null}"#, None),
            ("not JSON", None),
        ] {
            assert_eq!(height_of_state(state), height, "{state}");
        }
    }
}
