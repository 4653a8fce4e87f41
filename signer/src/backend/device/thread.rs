//! A driver on a thread of its own.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};

use tokio::sync::oneshot;

use super::{DeviceError, Driver, Executor, Reply, Request};
use crate::seams::Local;

/// Runs a driver on a thread, and abandons both if the answer is not waited for: the thread ends when its call returns, and a
/// new driver begins on a new one.
pub struct OwnThread {
    name: String,
    make: Arc<dyn Fn() -> Box<dyn Driver> + Send + Sync>,
    jobs: RefCell<Option<mpsc::SyncSender<Job>>>,
}

struct Job {
    request: Request,
    answer: oneshot::Sender<Result<Reply, DeviceError>>,
}

impl OwnThread {
    /// An executor whose drivers are made by `make`, on the thread that they will stay on.
    pub fn new(name: &str, make: impl Fn() -> Box<dyn Driver> + Send + Sync + 'static) -> Self {
        Self { name: name.to_owned(), make: Arc::new(make), jobs: RefCell::new(None) }
    }

    fn post(&self, job: Job) -> Result<(), DeviceError> {
        let mut jobs = self.jobs.borrow_mut();
        let sender = match jobs.take() {
            Some(sender) => sender,
            None => self.start().map_err(|error| lost(format!("cannot start a thread: {error}")))?,
        };
        // There is room: one thing is asked at a time.
        let sent = sender.try_send(job).map_err(|_| lost("the device's thread is gone".into()));
        if sent.is_ok() {
            *jobs = Some(sender);
        }
        sent
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "the production side of a seam: a vendor's library blocks and hangs"
    )]
    fn start(&self) -> std::io::Result<mpsc::SyncSender<Job>> {
        let (jobs, queue) = mpsc::sync_channel::<Job>(1);
        let make = Arc::clone(&self.make);
        std::thread::Builder::new().name(self.name.clone()).spawn(move || {
            let mut driver = make();
            for Job { request, answer } in queue {
                if answer.is_closed() {
                    continue;
                }
                // A panic in a vendor's library is one more way of being lost, and poisons no more than its driver.
                let done = catch_unwind(AssertUnwindSafe(|| driver.perform(&request)));
                let done = done.unwrap_or_else(|_| {
                    driver = make();
                    Err(lost("the device's library panicked".into()))
                });
                let _ = answer.send(done);
            }
        })?;
        Ok(jobs)
    }
}

impl Executor for OwnThread {
    fn execute(&self, request: Request) -> Local<'_, Result<Reply, DeviceError>> {
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            self.post(Job { request, answer })?;
            let mut waiting = Waiting { jobs: &self.jobs, answered: false };
            let result = answered.await;
            waiting.answered = result.is_ok();
            result.unwrap_or_else(|_| Err(lost("the device's thread is gone".into())))
        })
    }
}

/// Lets go of the thread unless it has answered.
struct Waiting<'a> {
    jobs: &'a RefCell<Option<mpsc::SyncSender<Job>>>,
    answered: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.answered {
            *self.jobs.borrow_mut() = None;
        }
    }
}

fn lost(reason: String) -> DeviceError {
    DeviceError::Lost { reason, session_spent: true }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU16, Ordering};
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// A vendor's library: the request says what it does.
    struct Library {
        /// Which driver this is, from 1.
        number: u16,
        go: Arc<Mutex<mpsc::Receiver<()>>>,
    }

    const HANGS: Request = Request::MarkRead(0);
    const PANICS: Request = Request::LogHasRoom;

    impl Driver for Library {
        fn perform(&mut self, request: &Request) -> Result<Reply, DeviceError> {
            match *request {
                HANGS => drop(self.go.lock().map(|go| go.recv())),
                PANICS => panic!("as vendors' libraries do"),
                _ => {}
            }
            let thread = std::thread::current();
            // What it was asked, who answers, and where.
            let Request::PublicKey(asked) = request else { return Ok(Reply::Done) };
            Err(DeviceError::NoKey { key: *asked, reason: format!("{} {:?}", self.number, thread.name()) })
        }
    }

    fn library() -> (OwnThread, mpsc::Sender<()>) {
        crate::deadline::for_this_test();
        let (let_go, go) = mpsc::channel();
        let (go, made) = (Arc::new(Mutex::new(go)), AtomicU16::new(0));
        let make = move || {
            let number = made.fetch_add(1, Ordering::Relaxed) + 1;
            Box::new(Library { number, go: Arc::clone(&go) }) as Box<dyn Driver>
        };
        (OwnThread::new("vendor", make), let_go)
    }

    async fn who(thread: &OwnThread, asked: u16) -> String {
        match thread.execute(Request::PublicKey(asked)).await {
            Err(DeviceError::NoKey { key, reason }) if key == asked => reason,
            other => panic!("{other:?} to {asked}"),
        }
    }

    #[tokio::test]
    async fn calls_are_made_on_a_thread_of_their_own_by_one_driver() {
        let (thread, _) = library();
        for asked in 0..10 {
            assert_eq!(who(&thread, asked).await, "1 Some(\"vendor\")");
        }
    }

    #[tokio::test]
    async fn a_call_that_hangs_holds_nobody_up_and_its_answer_goes_to_nobody_else() {
        let (thread, let_go) = library();
        timeout(Duration::from_millis(20), thread.execute(HANGS)).await.expect_err("it hangs");
        // The thread is left behind, in its call.
        assert_eq!(who(&thread, 1).await, "2 Some(\"vendor\")");
        let_go.send(()).expect("it waits still");
        for asked in 2..10 {
            assert_eq!(who(&thread, asked).await, "2 Some(\"vendor\")");
        }
    }

    #[tokio::test]
    async fn a_panic_is_a_loss_and_poisons_no_more_than_its_driver() {
        let (thread, _) = library();
        assert_eq!(who(&thread, 1).await, "1 Some(\"vendor\")");
        let lost = thread.execute(PANICS).await;
        assert!(matches!(&lost, Err(DeviceError::Lost { session_spent: true, .. })), "{lost:?}");
        assert_eq!(who(&thread, 2).await, "2 Some(\"vendor\")");
    }
}
