//! The trace of a run: a hash over every event, down to the packets.
//!
//! Events come from `tracing`: the packets of turmoil, the operations of the simulated disks, the acts and judgements of the world,
//! and the signer's own log lines. Two runs that hash alike did the same things in the same order at the same simulated times.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::sync::Once;
use std::time::Duration;

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};
use tracing::field::{Field, Visit};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

/// How closely a run is traced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Detail {
    /// Not at all: for speed.
    Off,
    /// A hash of every event.
    #[default]
    Hash,
    /// The hash, and every event as a line, to find where two runs part.
    Lines,
}

/// What was traced.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trace {
    /// The hash of all events, in hexadecimal; empty if nothing was traced.
    pub hash: String,
    /// How many events there were.
    pub events: u64,
    /// The events, if they were kept.
    pub lines: Vec<String>,
    /// What operators were told: warnings and errors of the production code, each once.
    pub told: BTreeSet<String>,
}

/// Runs `body` and traces it. The events of one thread alone are seen, so that simulations can run side by side.
pub fn traced<T>(detail: Detail, body: impl FnOnce() -> T) -> (T, Trace) {
    // One subscriber for all threads: `tracing` remembers for the whole process who wants which event.
    static SUBSCRIBER: Once = Once::new();
    SUBSCRIBER.call_once(|| {
        // Another one that a test has set stays; nothing is traced then.
        let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(Recording));
    });
    let recorder = (detail != Detail::Off).then(|| Recorder::new(detail == Detail::Lines));
    CURRENT.with(|current| *current.borrow_mut() = recorder);
    let result = body();
    let recorder = CURRENT.with(|current| current.borrow_mut().take());
    (result, recorder.map(Recorder::finish).unwrap_or_default())
}

thread_local! {
    static CURRENT: RefCell<Option<Recorder>> = const { RefCell::new(None) };
}

struct Recorder {
    hash: Sha256,
    events: u64,
    lines: Option<Vec<String>>,
    told: BTreeSet<String>,
    line: String,
}

impl Recorder {
    fn new(keep: bool) -> Self {
        let (hash, lines, told) = (Sha256::new(), keep.then(Vec::new), BTreeSet::new());
        Self { hash, events: 0, lines, told, line: String::new() }
    }

    fn record(&mut self, event: &Event<'_>) {
        self.line.clear();
        // Only inside a host's runtime is the clock a simulated one. What acts do between turns, among it what is dropped and
        // started, has no time of its own: turmoil would tell that of the machine. The events before tell it.
        let in_turn = tokio::runtime::Handle::try_current().is_ok();
        let at = turmoil::sim_elapsed().filter(|_| in_turn).map_or(0, micros);
        let metadata = event.metadata();
        let _ = write!(self.line, "{at} {}", metadata.target());
        let said_from = self.line.len();
        event.record(&mut Fields { line: &mut self.line, is_told_again: false });
        self.hash.update((self.line.len() as u64).to_le_bytes());
        self.hash.update(&self.line);
        self.events += 1;
        if *metadata.level() <= Level::WARN && metadata.target().starts_with("monosign") {
            self.told.insert(self.line[said_from..].to_owned());
        }
        if let Some(lines) = &mut self.lines {
            lines.push(self.line.clone());
        }
    }

    fn finish(self) -> Trace {
        let hash = HEXLOWER.encode(&self.hash.finalize()[..16]);
        Trace { hash, events: self.events, lines: self.lines.unwrap_or_default(), told: self.told }
    }
}

fn micros(duration: Duration) -> u64 {
    duration.as_micros() as u64
}

struct Fields<'a> {
    line: &'a mut String,
    /// turmoil tells the content of a segment when it is sent, when it is delivered and when it is received: once is enough, and
    /// most of the work.
    is_told_again: bool,
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "protocol" && self.is_told_again {
            return;
        }
        let start = self.line.len();
        let _ = write!(self.line, " {}={value:?}", field.name());
        self.is_told_again |= matches!(&self.line[start..], " message=Delivered" | " message=Recv");
    }
}

struct Recording;

impl<S: Subscriber> Layer<S> for Recording {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        match belongs(metadata) {
            true => Interest::sometimes(),
            false => Interest::never(),
        }
    }

    fn enabled(&self, _: &Metadata<'_>, _: Context<'_, S>) -> bool {
        CURRENT.with(|current| current.borrow().is_some())
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        CURRENT.with(|current| {
            if let Some(recorder) = current.borrow_mut().as_mut() {
                recorder.record(event);
            }
        });
    }
}

fn belongs(metadata: &Metadata<'_>) -> bool {
    let (target, fields) = (metadata.target(), metadata.fields().len());
    // turmoil tells each tick, which says nothing but costs most: its only event without a field.
    let tick = target.starts_with("turmoil") && fields == 1;
    let ours = ["turmoil", "sim", "monosign", "mock_validator"].iter().any(|root| target.starts_with(root));
    metadata.is_event() && ours && !tick
}

/// Set when a thread panics, even if a runtime swallows it.
pub mod panics {
    use std::cell::RefCell;
    use std::sync::Once;

    thread_local! {
        static SEEN: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
        static WATCHED: RefCell<bool> = const { RefCell::new(false) };
    }

    /// Runs `body` and returns the panics of this thread meanwhile, none of which is printed.
    pub fn watched<T>(body: impl FnOnce() -> T) -> (T, Vec<String>) {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                if WATCHED.with(|watched| *watched.borrow()) {
                    SEEN.with(|seen| seen.borrow_mut().push(info.to_string()));
                } else {
                    before(info);
                }
            }));
        });
        struct Watch;
        impl Drop for Watch {
            fn drop(&mut self) {
                WATCHED.with(|watched| *watched.borrow_mut() = false);
                if std::thread::panicking() {
                    SEEN.with(|seen| seen.borrow().iter().for_each(|panic| eprintln!("{panic}")));
                }
            }
        }
        SEEN.with(|seen| seen.borrow_mut().clear());
        WATCHED.with(|watched| *watched.borrow_mut() = true);
        let watch = Watch;
        let result = body();
        drop(watch);
        (result, SEEN.with(|seen| seen.take()))
    }
}
