//! Log lines that never stop a signature.
//!
//! Lines go through a bounded queue to a thread that writes them. When the queue is full, because the pipe behind standard
//! output is full or slow, lines are dropped and counted; when standard output is gone, they are dropped for good.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// How many lines wait at the most: about half a megabyte.
const QUEUE: usize = 2048;
/// How many lines are written in one go at the most, so that a flood cannot put the writing off.
const BATCH: usize = 255;
/// How long lines may wait for others.
const PAUSE: Duration = Duration::from_millis(5);

/// Hands out writers, one for each line.
#[derive(Clone)]
pub struct LogSink {
    lines: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// Collects one line and sends it off when dropped.
pub struct LineWriter<'a> {
    sink: &'a LogSink,
    line: Vec<u8>,
}

impl LogSink {
    /// A sink that writes to `output` from a thread of its own.
    ///
    /// # Errors
    /// If the thread cannot be started.
    #[allow(
        clippy::disallowed_methods,
        reason = "logs are outside of what is simulated; a blocked pipe needs a thread"
    )]
    pub fn new(output: impl Write + Send + 'static) -> io::Result<Self> {
        let (lines, queue) = sync_channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&dropped);
        std::thread::Builder::new()
            .name("log".into())
            .stack_size(64 * 1024)
            .spawn(move || write_lines(output, &queue, &counter))?;
        Ok(Self { lines, dropped })
    }

    /// Waits until all lines so far are written, but no longer than `limit`.
    #[allow(clippy::disallowed_methods, reason = "logs are outside of what is simulated")]
    pub fn flush(&self, limit: Duration) {
        let (done, written) = sync_channel(1);
        let until = Instant::now() + limit;
        let mut flush = Message::Flush(done);
        // A queue that is full is what has to be waited for.
        while let Err(TrySendError::Full(again)) = self.lines.try_send(flush) {
            if Instant::now() > until {
                return;
            }
            flush = again;
            std::thread::sleep(PAUSE);
        }
        match written.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(()) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
    }
}

/// Writes what is there in one go, and then looks away for a moment: a signer in full swing need not wake this thread for
/// each line.
#[allow(clippy::disallowed_methods, reason = "logs are outside of what is simulated")]
fn write_lines(mut output: impl Write, queue: &Receiver<Message>, dropped: &AtomicU64) {
    let mut batch = Vec::new();
    while let Ok(first) = queue.recv() {
        for message in std::iter::once(first).chain(queue.try_iter().take(BATCH)) {
            match message {
                Message::Line(line) => batch.extend_from_slice(&line),
                Message::Flush(done) => {
                    write_batch(&mut output, &mut batch, dropped);
                    let _ = done.try_send(());
                }
            }
        }
        write_batch(&mut output, &mut batch, dropped);
        std::thread::sleep(PAUSE);
    }
}

/// A sink that is gone must not stop the signer, and there is nowhere to tell it: errors are passed over.
fn write_batch(output: &mut impl Write, batch: &mut Vec<u8>, dropped: &AtomicU64) {
    let _ = output.write_all(batch);
    batch.clear();
    let lost = dropped.swap(0, Ordering::Relaxed);
    if lost > 0 {
        let _ = writeln!(output, "{lost} log lines were dropped: the log is read too slowly");
    }
    let _ = output.flush();
}

impl<'a> MakeWriter<'a> for LogSink {
    type Writer = LineWriter<'a>;

    fn make_writer(&'a self) -> LineWriter<'a> {
        LineWriter { sink: self, line: Vec::with_capacity(256) }
    }
}

impl Write for LineWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LineWriter<'_> {
    fn drop(&mut self) {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            return;
        }
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.sink.lines.try_send(Message::Line(line))
        {
            self.sink.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    /// Blocks until it is told to go on.
    struct Stuck(Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Gone;

    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }

    #[test]
    fn a_log_that_nobody_reads_blocks_nothing_and_is_counted() {
        let (go, wait) = channel();
        let sink = LogSink::new(Stuck(wait)).expect("a thread");
        for _ in 0..2 * QUEUE {
            writeln!(sink.make_writer(), "line").expect("never fails");
        }
        assert!(sink.dropped.load(Ordering::Relaxed) >= (QUEUE - BATCH - 1) as u64);
        drop(go);
    }

    /// Takes its time for each batch, and keeps what it is given.
    struct Slow(std::sync::mpsc::Sender<Vec<u8>>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn at_the_end_a_full_queue_is_written_too() {
        let (written, read) = channel();
        let sink = LogSink::new(Slow(written)).expect("a thread");
        let mut sent = 0;
        while sink.dropped.load(Ordering::Relaxed) == 0 {
            writeln!(sink.make_writer(), "line").expect("never fails");
            sent += 1;
        }
        let dropped = sink.dropped.load(Ordering::Relaxed);
        sink.flush(Duration::from_secs(60));
        let bytes: Vec<u8> = read.try_iter().flatten().collect();
        let text = String::from_utf8(bytes).expect("text");
        assert_eq!(text.lines().filter(|line| *line == "line").count() as u64, sent - dropped);
        assert!(text.contains(" log lines were dropped"), "their number is told");
    }

    #[test]
    fn a_log_that_is_gone_stops_nothing() {
        let sink = LogSink::new(Gone).expect("a thread");
        for _ in 0..10 {
            writeln!(sink.make_writer(), "line").expect("never fails");
        }
        sink.flush(Duration::from_secs(10));
    }
}
