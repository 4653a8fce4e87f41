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
