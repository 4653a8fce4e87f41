//! A bound on log lines that can come again and again.
//!
//! What always holds: the first line of a kind is written at once; the lines that are left out are counted, and their number is told within
//! a second after their window of time. A kind is a place in the code with what it speaks of (chain, peer, reason), so that neither a peer nor
//! a broken part of this host can fill the disk, or bury what another one causes.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::field::{Field, Visit, display};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// The target of lines that each stand for a signature, which has cost a flush: more of them are written.
pub const SIGNED: &str = "monosign::signed";
/// The target of our own lines.
const LEFT_OUT: &str = "monosign::left_out";

/// How many lines of a kind are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// In each window of time.
    pub lines: u32,
    /// The first window.
    pub window: Duration,
    /// A window that was filled is followed by one twice as long, up to this.
    pub longest: Duration,
}

impl Policy {
    /// What a node or another cosigner can cause, or a device, or a disk.
    pub const REPEATED: Self =
        Self { lines: 20, window: Duration::from_secs(10), longest: Duration::from_secs(600) };
    /// A hundred a second: many times what the fastest chain asks for.
    pub const SIGNED: Self =
        Self { lines: 1000, window: Duration::from_secs(10), longest: Duration::from_secs(10) };
    /// Something is away, perhaps for days: told at once, and then ever more rarely.
    pub const OUTAGE: Self =
        Self { lines: 1, window: Duration::from_secs(5), longest: Duration::from_secs(600) };
}

/// How long nothing must come after a window, at least, for the next line to be the first again: what is tried every few seconds goes on.
const QUIET: Duration = Duration::from_secs(60);

/// Lines of one kind.
#[derive(Debug)]
pub struct Repeats {
    policy: Policy,
    began: Option<Instant>,
    window: Duration,
    said: u32,
    unsaid: u64,
    /// The first of those that were left out, and when their number is due.
    since: Option<(Instant, Instant)>,
}

impl Repeats {
    /// None yet.
    pub fn new(policy: Policy) -> Self {
        Self { policy, began: None, window: policy.window, said: 0, unsaid: 0, since: None }
    }

    /// Whether a line may be written now. If not, it is counted.
    pub fn admit(&mut self, now: Instant) -> bool {
        let ended = self.began.is_none_or(|began| now >= began + self.window);
        if ended {
            let goes_on = !self.is_quiet(now);
            let is_full = self.said >= self.policy.lines;
            self.window = if goes_on && is_full {
                (self.window * 2).min(self.policy.longest)
            } else {
                self.policy.window
            };
            (self.began, self.said) = (Some(now), 0);
        }
        if self.said < self.policy.lines {
            self.said += 1;
            return true;
        }
        self.unsaid += 1;
        let due = self.began.map_or(now, |began| began + self.window);
        self.since.get_or_insert((now, due));
        false
    }

    /// How many lines were left out and within which time, once that is due.
    pub fn left_out(&mut self, now: Instant) -> Option<(u64, Duration)> {
        let (since, _) = self.since.filter(|(_, due)| now >= *due)?;
        self.since = None;
        Some((std::mem::take(&mut self.unsaid), now - since))
    }

    /// Whether it has been quiet for so long that it begins anew.
    fn is_quiet(&self, now: Instant) -> bool {
        self.began.is_none_or(|began| now >= began + self.window + self.window.max(QUIET))
    }

    fn is_idle(&self, now: Instant) -> bool {
        self.since.is_none() && self.is_quiet(now)
    }
}

/// Limits each kind of line of the whole process.
#[derive(Debug, Clone, Default)]
pub struct LogLimit {
    kinds: Arc<Mutex<BTreeMap<u64, Kind>>>,
}

#[derive(Debug)]
struct Kind {
    repeats: Repeats,
    level: Level,
    /// What the first line said that was left out.
    about: About,
}

/// How many kinds are told apart. Chains, peers and reasons are few, so this is never reached.
const KINDS: usize = 4096;
/// How much of a line is shown for those like it, in bytes.
const SAMPLE: usize = 300;
/// How often it is looked for numbers that are due.
const LOOK: Duration = Duration::from_secs(1);

impl LogLimit {
    /// Tells, as long as it is polled, how many lines were left out.
    pub async fn report(self) {
        loop {
            sleep(LOOK).await;
            self.tell(Instant::now());
        }
    }

    /// Tells what was left out so far: nothing more is written.
    pub fn report_all(&self) {
        // No window is longer.
        self.tell(Instant::now() + Policy::REPEATED.longest);
    }

    fn tell(&self, now: Instant) {
        let mut due = Vec::new();
        {
            let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
            for kind in kinds.values_mut() {
                if let Some((count, within)) = kind.repeats.left_out(now) {
                    due.push((count, within, kind.level, std::mem::take(&mut kind.about)));
                }
            }
            kinds.retain(|_, kind| !kind.repeats.is_idle(now));
        }
        for (count, within, level, about) in due {
            let (chain_id, peer) = (about.chain_id.map(display), about.peer.map(display));
            let (secs, message) = (within.as_secs_f64().ceil(), about.message);
            match level {
                Level::ERROR => {
                    tracing::error!(target: LEFT_OUT, chain_id, peer, "{count} more like this in the last {secs} s: {message}");
                }
                Level::WARN => {
                    tracing::warn!(target: LEFT_OUT, chain_id, peer, "{count} more like this in the last {secs} s: {message}");
                }
                _ => {
                    tracing::info!(target: LEFT_OUT, chain_id, peer, "{count} more like this in the last {secs} s: {message}");
                }
            }
        }
    }

    fn admit(&self, event: &Event<'_>, now: Instant) -> bool {
        let metadata = event.metadata();
        // What was asked for by `--log-level debug` is written.
        if *metadata.level() > Level::INFO || metadata.target() == LEFT_OUT {
            return true;
        }
        let mut key = Key::default();
        metadata.callsite().hash(&mut key.0);
        event.record(&mut key);
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let key =
            Some(key.0.finish()).filter(|key| kinds.len() < KINDS || kinds.contains_key(key)).unwrap_or(0);
        let kind = kinds.entry(key).or_insert_with(|| {
            let policy = if metadata.target() == SIGNED { Policy::SIGNED } else { Policy::REPEATED };
            Kind { repeats: Repeats::new(policy), level: *metadata.level(), about: About::default() }
        });
        let is_first = kind.repeats.unsaid == 0;
        let admitted = kind.repeats.admit(now);
        if !admitted && is_first {
            kind.about = About::default();
            event.record(&mut kind.about);
        }
        admitted
    }
}

impl<S: Subscriber> Layer<S> for LogLimit {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        self.admit(event, Instant::now())
    }
}

/// What a line speaks of: lines of one place in the code that differ in one of these are of different kinds.
const SUBJECTS: [&str; 6] = ["chain_id", "peer", "cosigner", "device", "reason", "subject"];

#[derive(Default)]
struct Key(DefaultHasher);

impl Visit for Key {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if SUBJECTS.contains(&field.name()) {
            field.name().hash(&mut self.0);
            // A hasher cannot fail.
            let _ = write!(self, "{value:?}");
        }
    }
}

impl fmt::Write for Key {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

/// What a person wants to know of a line.
#[derive(Debug, Default)]
struct About {
    message: String,
    chain_id: Option<String>,
    peer: Option<String>,
}

impl Visit for About {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            // One line, whatever hint follows.
            "message" => {
                let text = format!("{value:?}");
                let line = text.lines().next().unwrap_or_default();
                self.message = line[..line.floor_char_boundary(SAMPLE)].to_owned();
            }
            "chain_id" => self.chain_id = Some(format!("{value:?}")),
            "peer" => self.peer = Some(format!("{value:?}")),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use tokio::time::advance;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A log in memory.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Written {
        fn take(&self) -> Vec<String> {
            let bytes = std::mem::take(&mut *self.0.lock().expect("no panic"));
            String::from_utf8(bytes).expect("text").lines().map(str::to_owned).collect()
        }
    }

    fn limited() -> (LogLimit, Written, impl Subscriber + Send + Sync) {
        let (limit, written) = (LogLimit::default(), Written::default());
        let writer = written.clone();
        let subscriber = tracing_subscriber::fmt().without_time().with_writer(move || writer.clone());
        let subscriber = subscriber.with_max_level(Level::DEBUG).finish().with(limit.clone());
        (limit, written, subscriber)
    }

    fn refuse(chain_id: &str, peer: &str, height: u64) {
        tracing::warn!(chain_id, peer, height, reason = "double_sign", "refused h/r/s {height}/0/3");
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_a_few_lines_and_the_others_are_counted() {
        let (limit, written, subscriber) = limited();
        let _guard = tracing::subscriber::set_default(subscriber);
        (0..1000).for_each(|height| refuse("a-1", "node", height));
        let lines = written.take();
        assert_eq!(lines.len(), 20, "{lines:?}");
        assert!(lines[0].contains("refused h/r/s 0/0/3"), "the first is written at once: {lines:?}");
        // Another chain, another peer and another place in the code are not silenced by it.
        refuse("b-1", "node", 1);
        refuse("a-1", "sentry", 1);
        tracing::error!(chain_id = "a-1", peer = "node", "attempted double sign");
        assert_eq!(written.take().len(), 3);
        advance(9 * SECOND).await;
        limit.tell(Instant::now());
        assert_eq!(written.take(), [""; 0], "its window goes on");
        advance(SECOND).await;
        limit.tell(Instant::now());
        let lines = written.take();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains("980 more like this in the last 10 s: refused h/r/s 20/0/3"), "{lines:?}");
        assert!(
            lines[0].contains("a-1") && lines[0].contains("node") && lines[0].contains("WARN"),
            "{lines:?}"
        );
        advance(100 * SECOND).await;
        limit.tell(Instant::now());
        assert_eq!(written.take(), [""; 0], "told once");
    }

    #[tokio::test(start_paused = true)]
    async fn what_goes_on_for_days_becomes_rare_and_each_line_is_written_or_counted() {
        let (limit, written, subscriber) = limited();
        let _guard = tracing::subscriber::set_default(subscriber);
        let (mut refused, mut counted) = (0_u64, 0_u64);
        let mut lines = Vec::new();
        for second in 0..6 * 3600 {
            (0..5).for_each(|_| refuse("a-1", "node", second));
            advance(SECOND).await;
            limit.tell(Instant::now());
            lines.extend(written.take());
        }
        limit.report_all();
        lines.extend(written.take());
        for line in &lines {
            match line.split_once(" more like this") {
                Some((before, _)) => {
                    counted +=
                        before.rsplit(' ').next().and_then(|n| n.parse::<u64>().ok()).expect("a number");
                }
                None => refused += 1,
            }
        }
        assert_eq!(refused + counted, 5 * 6 * 3600);
        assert!(lines.len() < 1000, "{} lines in six hours", lines.len());
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_quiet_time_it_begins_anew() {
        let mut repeats = Repeats::new(Policy::REPEATED);
        for _ in 0..5 {
            assert_eq!((0..100).filter(|_| repeats.admit(Instant::now())).count(), 20);
            advance(repeats.window).await;
        }
        assert!(repeats.window > Policy::REPEATED.window);
        advance(repeats.window * 2).await;
        let written = (0..100).filter(|_| repeats.admit(Instant::now())).count();
        assert_eq!((written, repeats.window), (20, Policy::REPEATED.window));
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_told_at_once_and_then_ever_more_rarely() {
        let mut repeats = Repeats::new(Policy::OUTAGE);
        let mut told = Vec::new();
        for second in 0..200 {
            if repeats.admit(Instant::now()) {
                told.push(second);
            }
            advance(SECOND).await;
        }
        assert_eq!(told, [0, 5, 15, 35, 75, 155]);
    }

    #[tokio::test(start_paused = true)]
    async fn signatures_of_the_fastest_chain_are_all_written_and_debug_lines_too() {
        let (limit, written, subscriber) = limited();
        let _guard = tracing::subscriber::set_default(subscriber);
        for height in 0..600 {
            tracing::info!(target: SIGNED, chain_id = "a-1", peer = "node", "signed {height}");
            tracing::debug!("nothing of interest");
            advance(SECOND / 60).await;
        }
        limit.report_all();
        assert_eq!(written.take().len(), 1200);
    }

    #[tokio::test(start_paused = true)]
    async fn kinds_are_forgotten_when_they_are_quiet() {
        let (limit, _written, subscriber) = limited();
        let _guard = tracing::subscriber::set_default(subscriber);
        for peer in 0..2 * KINDS {
            refuse("a-1", &peer.to_string(), 1);
        }
        assert!(limit.kinds.lock().expect("no panic").len() <= KINDS + 1, "bounded");
        advance(Policy::REPEATED.window + QUIET).await;
        limit.tell(Instant::now());
        assert_eq!(limit.kinds.lock().expect("no panic").len(), 0);
    }
}
