//! For tests of every crate, by its path: one that hangs fails, and says which it is and what it waited for.
//!
//! In real time and from a thread of its own, so that a clock that is simulated and a loop that never waits are no way around it.
#![allow(dead_code, reason = "each test crate uses its own part of this module")]

use std::cell::RefCell;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Far beyond what the slowest step takes on a busy machine: it ends tests that hang, and decides none.
const LIMIT: Duration = Duration::from_secs(300);

/// Ends with the test's thread.
struct Deadline {
    _held: Sender<()>,
    what: Arc<Mutex<String>>,
}

thread_local! {
    static DEADLINE: RefCell<Option<Deadline>> = const { RefCell::new(None) };
}

/// This test must come to its end, or here again, in time.
pub(crate) fn for_this_test() {
    // Tests that all run on one thread have no end of their own there.
    if std::thread::current().name().is_none_or(|name| name == "main") {
        return;
    }
    let deadline = Deadline::of(LIMIT, |told| {
        eprintln!("{told}");
        // No panic of another thread ends a test.
        std::process::exit(101);
    });
    DEADLINE.with_borrow_mut(|held| *held = Some(deadline));
}

/// What it waits for now.
pub(crate) fn waiting_for(what: &str) {
    DEADLINE.with_borrow(|held| {
        if let Some(Deadline { what: told, .. }) = held {
            what.clone_into(&mut told.lock().unwrap_or_else(PoisonError::into_inner));
        }
    });
}

impl Deadline {
    #[allow(clippy::disallowed_methods, reason = "no part of what is simulated")]
    fn of(limit: Duration, then: impl FnOnce(String) + Send + 'static) -> Self {
        let (held, gone) = channel::<()>();
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        let what = Arc::new(Mutex::new("its end".to_owned()));
        let waits = Arc::clone(&what);
        std::thread::spawn(move || {
            if gone.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                let what = waits.lock().unwrap_or_else(PoisonError::into_inner).clone();
                then(format!("test {test} hangs: waited {limit:?} in vain for {what}"));
            }
        });
        Self { _held: held, what }
    }
}

#[test]
fn what_hangs_is_named_and_what_ends_is_not() {
    let (tell, told) = channel();
    let named = tell.clone();
    let hangs = Deadline::of(Duration::from_millis(100), move |text| drop(named.send(text)));
    DEADLINE.with_borrow_mut(|held| *held = Some(hangs));
    waiting_for("a door to open");
    let text = told.recv_timeout(LIMIT).expect("told");
    assert!(text.contains("in vain for a door to open"), "{text}");
    drop(Deadline::of(LIMIT, move |text| drop(tell.send(text))));
    assert!(told.recv().is_err(), "the other one ends without a word");
}
