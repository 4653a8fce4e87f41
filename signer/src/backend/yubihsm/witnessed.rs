//! A device whose log is looked at with each signature.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::audit_file::{AuditFile, AuditFileError, MAX_ASKED, Noted};
use super::witness::{Alarm, Asked, AuditLog, Watched};
use crate::backend::device::{DeviceError, Executor, Reply, Request};
use crate::seams::{Disk, Local};

/// What the log is used for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Audit {
    /// Nothing.
    #[default]
    Off,
    /// A signature that we did not ask for stops us.
    Detect,
    /// The same, and the log is kept full, so that each signature takes a place that was made for it: a second signer that did not
    /// make one is refused by the device. Needs force audit. In the moment between making the place and taking it another can
    /// take it; then both stop.
    Permit,
}

/// An executor that stands in front of a YubiHSM's, and tells no signature before the log has been found in order.
///
/// The log is looked at right before each signature is asked for, and after it: what is there before excuses itself by what was lost earlier, and
/// never by what is asked for now.
pub struct Witnessed {
    inner: Rc<dyn Executor>,
    mode: Audit,
    watched: Watched,
    disk: Rc<dyn Disk>,
    path: PathBuf,
    state: RefCell<Option<State>>,
    /// When each of the signatures was asked for that are not in the log yet, the oldest first. After a start it is not known, and may have been
    /// then.
    asked_at: RefCell<VecDeque<Instant>>,
    /// The log was found in order once.
    has_looked: Cell<bool>,
    /// A note could not be written.
    failed: RefCell<Option<String>>,
}

struct State {
    file: AuditFile,
    noted: Noted,
    /// Something was lost since the log was looked at.
    is_unsettled: bool,
    /// How many boots and sessions the device could not log, as told last.
    unlogged: u32,
}

/// What fits into the log.
const CAPACITY: usize = 62;
/// In detect mode, all but the newest entry are marked as read when there are so many.
const READ_AT: usize = 31;
/// When a signature whose answer was lost will not be made any more. An abandoned call ends within a few of its timeouts, of at most
/// 4 s each; what it has left on its way is refused by the device once the session has been idle for 30 s.
const SETTLED_AFTER: Duration = Duration::from_secs(120);

impl Witnessed {
    /// Watches what `inner` signs; what is known of the log is in the file at `path`.
    pub fn new(
        inner: Rc<dyn Executor>,
        mode: Audit,
        watched: Watched,
        disk: Rc<dyn Disk>,
        path: PathBuf,
    ) -> Self {
        Self {
            inner,
            mode,
            watched,
            disk,
            path,
            state: RefCell::new(None),
            asked_at: RefCell::default(),
            has_looked: Cell::new(false),
            failed: RefCell::default(),
        }
    }

    /// Makes the file of a device: from here on, all is accounted for.
    ///
    /// # Errors
    /// [`AuditFileError`]; [`Alarm::Empty`] as its text if the log holds nothing to begin at.
    pub async fn init(disk: &dyn Disk, path: &Path, log: &AuditLog) -> Result<(), AuditFileError> {
        let cursor = log.newest().map_err(|alarm| AuditFileError::Io {
            path: path.into(),
            source: std::io::Error::other(alarm.to_string()),
        })?;
        AuditFile::create(disk, path, cursor).await
    }

    async fn perform(&self, request: Request) -> Result<Reply, DeviceError> {
        if let Some(failed) = &*self.failed.borrow() {
            return Err(DeviceError::Unwatched(failed.clone()));
        }
        // Taken out while it works: one thing is asked at a time, and what was abandoned is read from the file again.
        let taken = self.state.borrow_mut().take();
        let mut state = match taken {
            Some(state) => state,
            None => self.open().await?,
        };
        let reply = self.serve(&mut state, request).await;
        state.is_unsettled |= matches!(reply, Err(DeviceError::Lost { .. } | DeviceError::SessionsFull));
        if !matches!(reply, Err(DeviceError::Alarm(_))) {
            *self.state.borrow_mut() = Some(state);
        }
        reply
    }

    async fn serve(&self, state: &mut State, request: Request) -> Result<Reply, DeviceError> {
        match request {
            Request::Sign { key, message } => self.sign(state, key, message).await,
            other => {
                // While the device was away, anybody may have signed: it is not back before that is known.
                if state.is_unsettled {
                    self.look(state).await?;
                }
                self.inner.execute(other).await
            }
        }
    }

    /// The file, and a look at the log, before anything is asked.
    async fn open(&self) -> Result<State, DeviceError> {
        let opened = AuditFile::open(&*self.disk, &self.path).await;
        // Whatever it is: where nothing is known of the log, no other device must go on from there.
        let (file, noted) = opened.map_err(|error| DeviceError::Unwatched(error.to_string()))?;
        self.asked_at.borrow_mut().resize_with(noted.asked.len(), Instant::now);
        let mut state = State { file, noted, is_unsettled: false, unlogged: 0 };
        self.look(&mut state).await?;
        Ok(state)
    }

    async fn sign(&self, state: &mut State, key: u16, message: Vec<u8>) -> Result<Reply, DeviceError> {
        let log = self.look(state).await?;
        self.settle(state);
        if self.mode == Audit::Permit {
            self.make_place(&log).await?;
        }
        let mut signed = self.ask(state, key, &message).await;
        if self.mode == Audit::Detect && signed == Err(DeviceError::LogFull) {
            // Others have filled it. Who marks as read what we have not seen leaves a gap, so it is for us to make room.
            let log = self.look(state).await?;
            self.mark_read(state, &log).await?;
            signed = self.ask(state, key, &message).await;
        }
        if self.mode == Audit::Permit && signed == Err(DeviceError::LogFull) {
            return Err(alarm(Alarm::PlaceTaken));
        }
        let signed = signed?;
        let open = state.noted.asked.len();
        let log = self.look(state).await?;
        if state.noted.asked.len() >= open {
            return Err(alarm(Alarm::NotLogged { key }));
        }
        if self.mode == Audit::Detect && log.entries.len() >= READ_AT {
            self.mark_read(state, &log).await?;
        }
        Ok(signed)
    }

    /// Asks for a signature, which is noted first.
    async fn ask(&self, state: &mut State, key: u16, message: &[u8]) -> Result<Reply, DeviceError> {
        if state.noted.asked.len() == MAX_ASKED {
            let reason = format!("{MAX_ASKED} answers were lost, and what became of them is not settled yet");
            return Err(DeviceError::Lost { reason, session_spent: false });
        }
        state.noted.asked.push_back(Asked { key, length: (message.len() + 2) as u16 });
        self.asked_at.borrow_mut().push_back(Instant::now());
        self.note(state).await?;
        let reply = self.inner.execute(Request::Sign { key, message: message.to_vec() }).await;
        if reply.as_ref().is_err_and(DeviceError::is_clean) {
            // It was not signed: a foreign signature must not pass for it, after a crash neither.
            state.noted.asked.pop_back();
            self.asked_at.borrow_mut().pop_back();
            self.note(state).await?;
        }
        reply
    }

    /// Forgets what was asked for long ago and is not in the log that was just looked at: it will not be there any more, and a foreign
    /// signature must not pass for it.
    fn settle(&self, state: &mut State) {
        let mut asked_at = self.asked_at.borrow_mut();
        while asked_at.front().is_some_and(|at| at.elapsed() >= SETTLED_AFTER) {
            asked_at.pop_front();
            state.noted.asked.pop_front();
        }
    }

    /// Reads the log and accounts for what is new in it.
    async fn look(&self, state: &mut State) -> Result<AuditLog, DeviceError> {
        let log = match self.inner.execute(Request::Log).await {
            Ok(Reply::Log(log)) => log,
            Ok(_) => return Err(DeviceError::Unwatched("it answered something else than its log".into())),
            Err(DeviceError::Refused(what)) => return Err(DeviceError::Unwatched(no_log(&what))),
            Err(error) => return Err(error),
        };
        let Noted { cursor, asked } = &mut state.noted;
        for place in cursor.follow(&log, &self.watched, asked).map_err(alarm)? {
            self.asked_at.borrow_mut().remove(place);
        }
        self.has_looked.set(true);
        state.is_unsettled = false;
        if log.unlogged > state.unlogged {
            // A boot in permit mode, when the log is full. Signatures are refused then, so none is hidden.
            tracing::warn!("the device could not log {} boots and sessions: its log was full", log.unlogged);
        }
        state.unlogged = log.unlogged;
        Ok(log)
    }

    /// The newest stays, as an anchor: who finds the log empty knows that another reads it.
    async fn mark_read(&self, state: &mut State, log: &AuditLog) -> Result<(), DeviceError> {
        let Some(last) = log.entries.len().checked_sub(2).map(|at| log.entries[at].item()) else {
            return Ok(());
        };
        // Before the device forgets: a cursor on disk that is older would find a gap.
        self.note(state).await?;
        self.inner.execute(Request::MarkRead(last)).await.map(drop)
    }

    /// After a failed write the kernel may have dropped the page: as with the record, nothing more is signed.
    async fn note(&self, state: &mut State) -> Result<(), DeviceError> {
        let State { file, noted, .. } = state;
        file.note(noted).await.map_err(|error| {
            let failed = format!(
                "`{}` could not be written: {error}\nhint: see to the disk, then restart the signer",
                self.path.display()
            );
            *self.failed.borrow_mut() = Some(failed.clone());
            DeviceError::Unwatched(failed)
        })
    }

    /// Makes room for one entry, if there is none.
    async fn make_place(&self, log: &AuditLog) -> Result<(), DeviceError> {
        match log.entries.first() {
            Some(oldest) if log.entries.len() >= CAPACITY => {
                self.inner.execute(Request::MarkRead(oldest.item())).await.map(drop)
            }
            _ => Ok(()),
        }
    }
}

impl Executor for Witnessed {
    fn execute(&self, request: Request) -> Local<'_, Result<Reply, DeviceError>> {
        Box::pin(self.perform(request))
    }

    fn has_looked(&self) -> bool {
        self.has_looked.get()
    }
}

fn alarm(alarm: Alarm) -> DeviceError {
    DeviceError::Alarm(alarm.to_string())
}

fn no_log(what: &str) -> String {
    let what = what.split("\nhint:").next().unwrap_or(what);
    format!(
        "it does not show its log: {what}\nhint: the authentication key needs the capability `get-log-entries`"
    )
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::BTreeSet;

    use sha2::{Digest as _, Sha256};

    use super::*;
    use crate::backend::yubihsm::witness::LogEntry;
    use crate::seams::StdDisk;

    const SIGNS: Request = Request::Sign { key: 1, message: Vec::new() };
    const SIGN: u8 = 0x6a;

    /// A device that logs, and does as it is told.
    #[derive(Default)]
    struct Fake {
        log: RefCell<AuditLog>,
        last: Cell<(u16, [u8; 16])>,
        does: Cell<Does>,
        forces: Cell<bool>,
    }

    #[derive(Default, Clone, Copy, PartialEq)]
    enum Does {
        #[default]
        Sign,
        SignAndLoseAnswer,
        LoseRequest,
        Refuse,
        SignUnlogged,
    }

    impl Fake {
        fn logs(&self, command: u8) {
            let (item, digest) = self.last.get();
            let mut bytes = [0; 16];
            bytes[..2].copy_from_slice(&(item + 1).to_be_bytes());
            bytes[2] = command;
            bytes[4] = 2;
            bytes[6] = 4;
            bytes[8] = 1;
            bytes[11] = command | 0x80;
            let hash = Sha256::new().chain_update(bytes).chain_update(digest).finalize();
            let mut digest = [0; 16];
            digest.copy_from_slice(&hash[..16]);
            self.last.set((item + 1, digest));
            self.log.borrow_mut().entries.push(LogEntry { bytes, digest });
        }

        fn sign(&self) -> Result<Reply, DeviceError> {
            if self.forces.get() && self.log.borrow().entries.len() >= CAPACITY {
                return Err(DeviceError::LogFull);
            }
            let does = self.does.get();
            if matches!(does, Does::Sign | Does::SignAndLoseAnswer) {
                self.logs(SIGN);
            }
            match does {
                Does::Sign | Does::SignUnlogged => Ok(Reply::Signature(Box::new([7; 64]))),
                Does::Refuse => Err(DeviceError::Refused("no".into())),
                _ => Err(DeviceError::Lost { reason: "lost".into(), session_spent: true }),
            }
        }

        fn perform(&self, request: &Request) -> Result<Reply, DeviceError> {
            match request {
                Request::Sign { .. } => self.sign(),
                Request::Log => Ok(Reply::Log(self.log.borrow().clone())),
                Request::MarkRead(item) => {
                    self.log.borrow_mut().entries.retain(|entry| entry.item() > *item);
                    Ok(Reply::Done)
                }
                _ => Ok(Reply::Done),
            }
        }
    }

    impl Executor for Rc<Fake> {
        fn execute(&self, request: Request) -> Local<'_, Result<Reply, DeviceError>> {
            Box::pin(async move { self.perform(&request) })
        }
    }

    /// A device, and what watches it.
    struct Rig {
        fake: Rc<Fake>,
        witnessed: Witnessed,
        dir: tempfile::TempDir,
    }

    impl Rig {
        fn new(fake: Rc<Fake>, dir: tempfile::TempDir) -> Self {
            let (disk, path) = (Rc::new(StdDisk::default()), dir.path().join("audit"));
            let watched = Watched { auth_key: 4, keys: BTreeSet::from([1]) };
            let executor = Rc::new(Rc::clone(&fake));
            let witnessed = Witnessed::new(executor, Audit::Detect, watched, disk, path);
            Self { fake, witnessed, dir }
        }

        /// The same after a crash.
        fn restart(self) -> Self {
            let Self { fake, witnessed, dir } = self;
            drop(witnessed);
            Self::new(fake, dir)
        }

        async fn sign(&self) -> Result<Reply, DeviceError> {
            self.witnessed.execute(SIGNS).await
        }

        async fn must_sign(&self) {
            let signed = self.sign().await;
            assert!(signed.is_ok(), "{signed:?}");
        }

        async fn must_alarm(&self) {
            let found = self.sign().await;
            assert!(matches!(found, Err(DeviceError::Alarm(_))), "{found:?}");
        }

        /// Signs in vain.
        async fn while_it(&self, does: Does) {
            self.fake.does.set(does);
            let failed = self.sign().await;
            assert!(matches!(failed, Err(DeviceError::Lost { .. } | DeviceError::Refused(_))), "{failed:?}");
            self.fake.does.set(Does::Sign);
        }
    }

    fn run(test: impl AsyncFnOnce(Rig)) {
        crate::deadline::for_this_test();
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.unwrap();
        runtime.block_on(async {
            let fake = Rc::new(Fake::default());
            fake.logs(0);
            let log = fake.log.borrow().clone();
            Witnessed::init(&StdDisk::default(), &dir.path().join("audit"), &log).await.unwrap();
            test(Rig::new(fake, dir)).await;
        });
    }

    #[test]
    fn any_number_of_lost_answers_is_no_signature_of_somebody_else() {
        run(async |rig| {
            for _ in 0..3 * MAX_ASKED {
                rig.while_it(Does::SignAndLoseAnswer).await;
            }
            rig.must_sign().await;
        });
    }

    #[test]
    fn what_the_device_refused_to_sign_excuses_no_signature_of_somebody_else() {
        run(async |rig| {
            rig.while_it(Does::Refuse).await;
            rig.fake.logs(SIGN);
            rig.must_alarm().await;
        });
    }

    #[test]
    fn what_the_device_refused_to_sign_before_a_crash_excuses_nothing_after_it() {
        run(async |rig| {
            rig.while_it(Does::Refuse).await;
            let rig = rig.restart();
            rig.fake.logs(SIGN);
            rig.must_alarm().await;
        });
    }

    #[test]
    fn a_lost_request_may_be_done_late_and_excuses_nothing_once_that_is_over() {
        for (pause, restarts) in [(Duration::ZERO, false), (SETTLED_AFTER, false), (SETTLED_AFTER, true)] {
            run(async |mut rig| {
                rig.while_it(Does::LoseRequest).await;
                if restarts {
                    rig = rig.restart();
                    rig.must_sign().await;
                }
                tokio::time::advance(pause).await;
                rig.must_sign().await;
                rig.fake.logs(SIGN);
                if pause.is_zero() { rig.must_sign().await } else { rig.must_alarm().await }
            });
        }
    }

    #[test]
    fn what_stood_in_the_log_before_a_request_is_not_excused_by_it() {
        for does in [Does::LoseRequest, Does::SignAndLoseAnswer, Does::Sign] {
            run(async |rig| {
                rig.must_sign().await;
                rig.fake.logs(SIGN);
                rig.fake.does.set(does);
                rig.must_alarm().await;
            });
        }
    }

    #[test]
    fn each_lost_request_is_settled_by_its_own_time() {
        run(async |rig| {
            rig.while_it(Does::LoseRequest).await;
            tokio::time::advance(SETTLED_AFTER - Duration::from_secs(1)).await;
            // Another loss, of an answer: that signature is found in the log, and does not make the first loss a later one.
            rig.while_it(Does::SignAndLoseAnswer).await;
            tokio::time::advance(Duration::from_secs(2)).await;
            rig.must_sign().await;
            rig.fake.logs(SIGN);
            rig.must_alarm().await;
        });
    }

    #[test]
    fn a_device_that_is_back_is_not_ready_before_its_log_was_looked_at() {
        run(async |rig| {
            rig.must_sign().await;
            rig.while_it(Does::LoseRequest).await;
            (0..2).for_each(|_| rig.fake.logs(SIGN));
            let probed = rig.witnessed.execute(Request::PublicKey(1)).await;
            assert!(matches!(probed, Err(DeviceError::Alarm(_))), "{probed:?}");
        });
    }

    #[test]
    fn where_nothing_is_known_of_the_log_it_is_said_that_nothing_is_watched() {
        run(async |rig| {
            let path = rig.dir.path().join("audit");
            let noted = std::fs::read(&path).unwrap();
            let unwatched = async || {
                let found = rig.witnessed.execute(Request::PublicKey(1)).await;
                assert!(matches!(found, Err(DeviceError::Unwatched(_))), "{found:?}");
                assert!(!rig.witnessed.has_looked());
            };
            std::fs::remove_file(&path).unwrap();
            unwatched().await;
            std::fs::write(&path, [1; 8192]).unwrap();
            unwatched().await;
            std::fs::write(&path, &noted).unwrap();
            let held = AuditFile::open(&StdDisk::default(), &path).await.unwrap();
            unwatched().await;
            drop(held);
            rig.must_sign().await;
            assert!(rig.witnessed.has_looked());
        });
    }

    #[test]
    fn after_many_lost_requests_signing_waits_until_they_are_settled() {
        run(async |rig| {
            for _ in 0..MAX_ASKED {
                rig.while_it(Does::LoseRequest).await;
            }
            assert!(matches!(rig.sign().await, Err(DeviceError::Lost { session_spent: false, .. })));
            tokio::time::advance(SETTLED_AFTER).await;
            rig.must_sign().await;
        });
    }

    #[test]
    fn a_signature_that_the_log_does_not_show_is_an_alarm_at_any_time() {
        for pause in [Duration::ZERO, SETTLED_AFTER] {
            run(async |rig| {
                rig.must_sign().await;
                tokio::time::advance(pause).await;
                rig.fake.does.set(Does::SignUnlogged);
                rig.must_alarm().await;
            });
        }
    }

    #[test]
    fn a_log_that_others_have_filled_is_read_and_signing_goes_on() {
        run(async |rig| {
            rig.fake.forces.set(true);
            (1..CAPACITY).for_each(|_| rig.fake.logs(0x58));
            rig.must_sign().await;
            assert!(!rig.fake.log.borrow().entries.is_empty(), "the newest stays as an anchor");
        });
    }

    #[test]
    fn a_signature_of_somebody_else_that_filled_the_log_is_found() {
        run(async |rig| {
            rig.fake.forces.set(true);
            (2..CAPACITY).for_each(|_| rig.fake.logs(0x58));
            rig.fake.logs(SIGN);
            rig.must_alarm().await;
        });
    }
}
