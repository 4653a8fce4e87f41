//! Many runs at once: a simulation is single-threaded, so each has a thread of its own.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::outcome::{Invariant, Outcome, Violation};
use crate::run::Run;

/// What carries out a run.
pub type Runner<'a> = &'a (dyn Fn(&Run) -> Outcome + Sync);

/// A run and what it gave.
#[derive(Debug, Clone)]
pub struct Done {
    /// The run.
    pub run: Run,
    /// What it gave.
    pub outcome: Outcome,
    /// How long a processor worked on it.
    pub cpu: Duration,
}

impl Done {
    /// Carries out a run. A panic of the simulator is a violation as well: a seed that shows one must not be lost.
    pub fn carry_out(run: &Run, runner: Runner<'_>) -> Self {
        let before = thread_time();
        let outcome = catch_unwind(AssertUnwindSafe(|| runner(run))).unwrap_or_else(|panic| {
            let words = panic.downcast_ref::<String>().map(String::as_str);
            let words = words.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without words");
            let seen = format!("the simulator panicked: {words}");
            Outcome {
                violations: vec![Violation { invariant: Invariant::NoPanic, at_ms: 0, seen }],
                ..Outcome::default()
            }
        });
        Self { run: run.clone(), outcome, cpu: thread_time() - before }
    }
}

/// Does `work` on every item, at most `jobs` at a time. `done` is told of each as it ends; the results are in the items' order.
pub fn each<T: Sync, R: Send>(
    items: &[T],
    jobs: usize,
    work: impl Fn(&T) -> R + Sync,
    mut done: impl FnMut(&R),
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let (ended, ends) = mpsc::channel();
    let mut results: Vec<Option<R>> = items.iter().map(|_| None).collect();
    thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, items.len().max(1)) {
            let (ended, next, work) = (ended.clone(), &next, &work);
            scope.spawn(move || {
                while let Some((n, item)) = take(items, next) {
                    // Nobody listens any more when the caller has panicked.
                    let _ = ended.send((n, work(item)));
                }
            });
        }
        drop(ended);
        for (n, result) in ends {
            done(&result);
            results[n] = Some(result);
        }
    });
    results.into_iter().flatten().collect()
}

/// Carries out all `runs`, or those until the first that fails if `stop_at_first`, at most `jobs` at a time.
pub fn carry_out(
    runs: &[Run],
    jobs: usize,
    stop_at_first: bool,
    runner: Runner<'_>,
    mut told: impl FnMut(&Done),
) -> Vec<Done> {
    let failed = AtomicBool::new(false);
    let work = |run: &Run| {
        if stop_at_first && failed.load(Ordering::Relaxed) {
            return None;
        }
        let done = Done::carry_out(run, runner);
        failed.fetch_or(!done.outcome.violations.is_empty(), Ordering::Relaxed);
        Some(done)
    };
    let done = each(runs, jobs, work, |done| done.iter().for_each(&mut told));
    done.into_iter().flatten().collect()
}

fn take<'a, T>(items: &'a [T], next: &AtomicUsize) -> Option<(usize, &'a T)> {
    let n = next.fetch_add(1, Ordering::Relaxed);
    items.get(n).map(|item| (n, item))
}

/// As many as there are processors for us.
pub fn default_jobs() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// How long this thread has been working.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::{Done, each};
    use crate::outcome::{Invariant, Outcome};
    use crate::testing::run;

    #[test]
    fn results_keep_the_order_of_the_items() {
        let items: Vec<u64> = (0..100).collect();
        let mut told = 0;
        let doubled = each(&items, 4, |n| n * 2, |_| told += 1);
        assert_eq!(doubled, items.iter().map(|n| n * 2).collect::<Vec<_>>());
        assert_eq!(told, 100);
    }

    #[test]
    fn as_many_are_at_work_as_there_are_jobs() {
        // Would never return if they came one after the other.
        let meeting = Barrier::new(3);
        assert_eq!(each(&[(); 3], 3, |()| meeting.wait().is_leader(), |_| ()).len(), 3);
        assert_eq!(each(&[(); 0], 3, |()| (), |_| ()).len(), 0);
    }

    #[test]
    fn a_panic_of_the_simulator_is_a_violation_with_its_words() {
        let done = Done::carry_out(&run(), &|_| -> Outcome { panic!("no such host") });
        assert_eq!(done.outcome.violations[0].invariant, Invariant::NoPanic);
        assert!(done.outcome.violations[0].seen.contains("no such host"));
    }
}
