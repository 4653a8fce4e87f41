//! A device whose log is looked at with each signature.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::audit_file::{AuditFile, AuditFileError, MAX_ASKED, Noted};
use super::witness::{Alarm, Asked, AuditLog, Cursor, UNLOCK, Watched};
use crate::backend::device::{DeviceError, Executor, Reply, Request};
use crate::pubkey::PublicKey;
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
    /// take it. If it has signed with our key, that is an alarm; and if not, as a signer with another key, a place is made once more.
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
    /// The public keys behind numbers, ours and those that others have signed with: the same key may have two.
    whose: RefCell<BTreeMap<u16, PublicKey>>,
    only_looks: bool,
}

struct State {
    /// None for who only looks.
    file: Option<AuditFile>,
    noted: Noted,
    /// The number of the entry that the file's cursor is at.
    in_file: u16,
    /// Something was lost since the log was looked at.
    is_unsettled: bool,
    /// How many boots and sessions the device could not log, as told last.
    unlogged: u32,
}

/// What fits into the log.
pub const CAPACITY: usize = 62;
/// In detect mode, all but the newest entries are marked as read when there are so many.
const READ_AT: usize = 31;
/// So many are left. The last one is the anchor: who finds the log empty knows that another reads it. The others are for a signer on another
/// host that reads it too, so that it sees what it has not seen yet.
pub const KEPT: usize = 15;
/// The cursor is noted when it has moved so far since it was noted last, and nothing else has noted it: a start or a key that is waited for can
/// last longer than the log holds.
const NOTED_AFTER: u16 = 16;
/// How often a place is made for a signature, where what the signer itself asks takes it, or others do who share the device.
const PLACES: usize = 16;
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
            whose: RefCell::default(),
            only_looks: false,
        }
    }

    /// The same for a command that looks, and changes nothing: not the file, and not what is read of the log.
    pub fn that_only_looks(self) -> Self {
        Self { only_looks: true, ..self }
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
            Request::Sign { .. } if self.only_looks => Err(DeviceError::Refused("this only looks".into())),
            Request::Sign { key, message } => self.sign(state, key, message).await,
            other => {
                // While the device was away, anybody may have signed: it is not back before that is known.
                if state.is_unsettled {
                    self.look(state).await?;
                }
                let reply = self.ask_beside(state, other).await;
                // It was looked at just now.
                if reply.is_ok() && self.settle(state) {
                    self.note(state).await?;
                }
                reply
            }
        }
    }

    /// What is asked beside signatures may be logged as well, as by firmware before 2.3.1: it takes room, and pushes out of the log what was not
    /// seen yet.
    async fn ask_beside(&self, state: &mut State, request: Request) -> Result<Reply, DeviceError> {
        let mut reply = self.inner.execute(request.clone()).await;
        for _ in 0..PLACES {
            if reply != Err(DeviceError::LogFull) || self.only_looks {
                break;
            }
            let log = self.look(state).await?;
            self.make_room(state, &log).await?;
            reply = self.inner.execute(request.clone()).await;
        }
        if reply.as_ref().map_or_else(DeviceError::is_clean, |_| true) {
            self.look(state).await?;
        }
        reply
    }

    /// For one entry in permit mode, and for many otherwise.
    async fn make_room(&self, state: &mut State, log: &AuditLog) -> Result<(), DeviceError> {
        match self.mode {
            Audit::Permit => self.make_place(log).await,
            _ => self.mark_read(state, log).await,
        }
    }

    /// The file, and a look at the log, before anything is asked.
    async fn open(&self) -> Result<State, DeviceError> {
        let opened = match self.only_looks {
            true => AuditFile::peek(&*self.disk, &self.path).await.map(|noted| (None, noted)),
            false => AuditFile::open(&*self.disk, &self.path).await.map(|(file, noted)| (Some(file), noted)),
        };
        // Whatever it is: where nothing is known of the log, no other device must go on from there.
        let (file, noted) = opened.map_err(|error| DeviceError::Unwatched(error.to_string()))?;
        // Whether the device is there or not.
        if let Some(told) = &noted.alarm {
            return Err(DeviceError::Alarm(format!("{told}{UNLOCK}")));
        }
        self.asked_at.borrow_mut().resize_with(noted.asked.len(), Instant::now);
        let in_file = noted.cursor.item;
        let mut state = State { file, noted, in_file, is_unsettled: false, unlogged: 0 };
        self.look(&mut state).await?;
        // Each start may add to the log, and so may what others do before the first signature.
        if state.noted.cursor.item != state.in_file {
            self.note(&mut state).await?;
        }
        Ok(state)
    }

    async fn sign(&self, state: &mut State, key: u16, message: Vec<u8>) -> Result<Reply, DeviceError> {
        let log = self.look(state).await?;
        self.settle(state);
        if self.mode == Audit::Permit {
            self.make_place(&log).await?;
        }
        let mut signed = self.ask(state, key, &message).await;
        for _ in 0..PLACES {
            if signed != Err(DeviceError::LogFull) {
                break;
            }
            // Others have filled it, and what they did is accounted for: no signature with our key is among it. Who marks as read what we
            // have not seen leaves a gap, so it is for us to make room.
            let log = self.look(state).await?;
            self.make_room(state, &log).await?;
            signed = self.ask(state, key, &message).await;
        }
        if self.mode == Audit::Permit && signed == Err(DeviceError::LogFull) {
            return Err(DeviceError::Refused(NO_PLACE.into()));
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
    /// Whether there was any.
    fn settle(&self, state: &mut State) -> bool {
        let mut asked_at = self.asked_at.borrow_mut();
        let before = asked_at.len();
        while asked_at.front().is_some_and(|at| at.elapsed() >= SETTLED_AFTER) {
            asked_at.pop_front();
            state.noted.asked.pop_front();
        }
        asked_at.len() < before
    }

    async fn read_log(&self) -> Result<AuditLog, DeviceError> {
        match self.inner.execute(Request::Log).await {
            Ok(Reply::Log(log)) => Ok(log),
            Ok(_) => Err(DeviceError::Unwatched("it answered something else than its log".into())),
            Err(DeviceError::Refused(what)) => Err(DeviceError::Unwatched(no_log(&what))),
            Err(error) => Err(error),
        }
    }

    /// Reads the log and accounts for what is new in it.
    async fn look(&self, state: &mut State) -> Result<AuditLog, DeviceError> {
        let log = self.read_log().await?;
        let watched = self.watched_in(state.noted.cursor, &log).await?;
        let Noted { cursor, asked, .. } = &mut state.noted;
        for place in cursor.follow(&log, &watched, asked).map_err(alarm)? {
            self.asked_at.borrow_mut().remove(place);
        }
        self.has_looked.set(true);
        state.is_unsettled = false;
        if cursor.item.wrapping_sub(state.in_file) >= NOTED_AFTER {
            self.note(state).await?;
        }
        if log.unlogged > state.unlogged {
            // A boot in permit mode, when the log is full. Signatures are refused then, so none is hidden.
            tracing::warn!("the device could not log {} boots and sessions: its log was full", log.unlogged);
        }
        state.unlogged = log.unlogged;
        Ok(log)
    }

    /// Whose signatures are looked for: those by our keys, under whatever number they were made. A key that others have signed with is asked for
    /// once, and again when there is another one of its number.
    async fn watched_in(&self, cursor: Cursor, log: &AuditLog) -> Result<Watched, DeviceError> {
        let mut watched = self.watched.clone();
        // What is wrong with the log is told when it is followed.
        let news = cursor.news(log).unwrap_or_default();
        for (at, entry) in news.iter().enumerate() {
            let Some(key) = entry.signed_with().filter(|key| !self.watched.keys.contains(key)) else {
                continue;
            };
            let (before, after) = (&news[..at], &news[at + 1..]);
            let origin = before.iter().rev().find(|entry| entry.replaces(key));
            let is_known = origin.is_none() && self.whose.borrow().contains_key(&key);
            let is_ours = match origin {
                Some(origin) if origin.makes(key) => false,
                _ if is_known => self.is_ours(key, true).await?,
                // There is another one of its number now, or none: which one it was cannot be known.
                _ if after.iter().any(|entry| entry.replaces(key)) => true,
                _ => self.is_ours(key, false).await? || self.was_replaced(cursor, log, key).await?,
            };
            if is_ours {
                watched.keys.insert(key);
            }
        }
        self.whose.borrow_mut().retain(|key, _| !news.iter().any(|entry| entry.replaces(*key)));
        Ok(watched)
    }

    /// Whether the key that was asked for is another one than has signed: it was replaced after the log was read.
    async fn was_replaced(&self, cursor: Cursor, log: &AuditLog, key: u16) -> Result<bool, DeviceError> {
        let now = self.read_log().await?;
        let seen = log.newest().map_err(alarm)?;
        // Whatever else is wrong with it is found when it is followed.
        let since = seen.news(&now).or_else(|_| cursor.news(&now)).unwrap_or_default();
        Ok(since.iter().any(|entry| entry.replaces(key)))
    }

    /// Whether a key that is not watched is one of those that are, under another number.
    async fn is_ours(&self, key: u16, may_be_known: bool) -> Result<bool, DeviceError> {
        let known = self.whose.borrow().get(&key).copied().filter(|_| may_be_known);
        let public_key = match known {
            Some(public_key) => public_key,
            None => match self.public_key(key).await {
                Ok(public_key) => public_key,
                // Another kind of key, or outside of our domains.
                Err(error) if error.is_clean() => return Ok(false),
                Err(error) => return Err(error),
            },
        };
        for ours in &self.watched.keys {
            let known = self.whose.borrow().get(ours).copied();
            let our_key = match known {
                Some(our_key) => our_key,
                // Without it nothing is signed, and nothing is known.
                None => self.public_key(*ours).await?,
            };
            if our_key == public_key {
                tracing::error!("key {key:#06x} of the device is our key {ours:#06x} under another number");
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn public_key(&self, key: u16) -> Result<PublicKey, DeviceError> {
        match self.inner.execute(Request::PublicKey(key)).await {
            Ok(Reply::PublicKey(public_key)) => {
                self.whose.borrow_mut().insert(key, public_key);
                Ok(public_key)
            }
            Ok(_) => Err(DeviceError::Refused("it answered something else".into())),
            Err(DeviceError::LogFull) => Err(DeviceError::Unwatched(CANNOT_ASK.into())),
            Err(error) => Err(error),
        }
    }

    /// The newest stay, and the last one is the anchor.
    async fn mark_read(&self, state: &mut State, log: &AuditLog) -> Result<(), DeviceError> {
        let Some(last) = log.entries.len().checked_sub(1 + KEPT).map(|at| log.entries[at].item()) else {
            return Ok(());
        };
        // Before the device forgets: a cursor on disk that is older would find a gap.
        self.note(state).await?;
        match self.inner.execute(Request::MarkRead(last)).await {
            // A signer on another host has read further meanwhile: there is room.
            Err(DeviceError::Refused(_)) => Ok(()),
            other => other.map(drop),
        }
    }

    /// After a failed write the kernel may have dropped the page: as with the record, nothing more is signed.
    async fn note(&self, state: &mut State) -> Result<(), DeviceError> {
        let State { file, noted, in_file, .. } = state;
        let Some(file) = file else { return Ok(()) };
        *in_file = noted.cursor.item;
        file.note(noted).await.map_err(|error| {
            let failed = format!(
                "`{}` could not be written: {error}\nhint: see to the disk, then restart the signer",
                self.path.display()
            );
            *self.failed.borrow_mut() = Some(failed.clone());
            DeviceError::Unwatched(failed)
        })
    }

    /// Makes room for one entry, if there is none; and for one more where it is logged that this was done.
    async fn make_place(&self, log: &AuditLog) -> Result<(), DeviceError> {
        if log.entries.len() < CAPACITY {
            return Ok(());
        }
        let is_logged = log.entries.iter().any(|entry| entry.command() == SET_LOG_INDEX);
        match log.entries.get(usize::from(is_logged)) {
            Some(last) => match self.inner.execute(Request::MarkRead(last.item())).await {
                // A signer of another key has made one meanwhile.
                Err(DeviceError::Refused(_)) => Ok(()),
                other => other.map(drop),
            },
            None => Ok(()),
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

    /// When a request that was lost will not be done any more. What is signed after that is nobody's that we asked for, so it must not be in
    /// the log before this is looked at.
    fn due(&self) -> Option<Instant> {
        self.asked_at.borrow().front().map(|at| *at + SETTLED_AFTER)
    }

    fn keep_alarm<'a>(&'a self, alarm: &'a str) -> Local<'a, Result<(), DeviceError>> {
        Box::pin(async move {
            if self.only_looks {
                return Ok(());
            }
            let kept = AuditFile::keep_alarm(&*self.disk, &self.path, alarm).await;
            kept.map_err(|error| DeviceError::Unwatched(error.to_string()))
        })
    }
}

const SET_LOG_INDEX: u8 = 0x67;
const NO_PLACE: &str = "each place that is made in its log is taken, by others on the device or by what the signer itself asks\nhint: `monosign yubihsm \
                        audit options --auth-key 1`, with the administrator's password, sets what is audited";
const CANNOT_ASK: &str = "somebody has signed with a key that is not known, and which one it is cannot be asked: its log is full, and it audits that\n\
                          hint: `monosign yubihsm unlock` makes room; then `monosign yubihsm audit options --auth-key 1`, with the administrator's \
                          password, sets what is audited";

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
        /// What is asked beside signatures is logged, into a ring.
        audits_all: Cell<bool>,
        /// It cannot be reached.
        is_away: Cell<bool>,
        /// Its keys, where it matters which they are.
        keys: RefCell<BTreeMap<u16, PublicKey>>,
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
            self.logs_of(command, 1);
        }

        fn logs_of(&self, command: u8, key: u8) {
            let (item, digest) = self.last.get();
            let mut bytes = [0; 16];
            bytes[..2].copy_from_slice(&(item + 1).to_be_bytes());
            bytes[2] = command;
            bytes[4] = 2;
            bytes[6] = 4;
            bytes[8] = key;
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
            if self.is_away.get() {
                return Err(DeviceError::Lost { reason: "away".into(), session_spent: false });
            }
            match request {
                Request::Sign { .. } => self.sign(),
                Request::PublicKey(key) if !self.keys.borrow().is_empty() => {
                    let found = self.keys.borrow().get(key).copied();
                    found.map(Reply::PublicKey).ok_or(DeviceError::NoKey { key: *key, reason: "none".into() })
                }
                Request::Log => Ok(Reply::Log(self.log.borrow().clone())),
                Request::MarkRead(item) => {
                    self.log.borrow_mut().entries.retain(|entry| entry.item() > *item);
                    Ok(Reply::Done)
                }
                Request::PublicKey(_) if self.audits_all.get() => {
                    self.logs(0x54);
                    let mut log = self.log.borrow_mut();
                    let surplus = log.entries.len().saturating_sub(CAPACITY);
                    log.entries.drain(..surplus);
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
    fn a_lost_request_excuses_nothing_that_is_signed_after_its_time_though_nothing_was_asked_since() {
        for restarts in [false, true] {
            run(async |mut rig| {
                rig.must_sign().await;
                assert_eq!(rig.witnessed.due(), None);
                rig.while_it(Does::LoseRequest).await;
                let due = rig.witnessed.due().expect("it must be looked at");
                assert_eq!(due, Instant::now() + SETTLED_AFTER);
                tokio::time::sleep_until(due).await;
                // As the owner does when it is due.
                rig.witnessed.execute(Request::LogHasRoom).await.unwrap();
                assert_eq!(rig.witnessed.due(), None);
                if restarts {
                    rig = rig.restart();
                }
                rig.fake.logs(SIGN);
                rig.must_alarm().await;
            });
        }
    }

    #[test]
    fn a_copy_under_another_number_is_found_though_it_is_gone_by_the_time_that_it_is_asked_for() {
        const DELETE: u8 = 0x58;
        let (ours, foreign) = (PublicKey::from_bytes([7; 32]), PublicKey::from_bytes([8; 32]));
        for (copied, deleted, is_alarm) in
            [(ours, true, true), (ours, false, true), (foreign, true, true), (foreign, false, false)]
        {
            run(async |rig| {
                rig.fake.keys.borrow_mut().extend([(1, ours), (9, copied)]);
                rig.must_sign().await;
                rig.fake.logs_of(SIGN, 9);
                if deleted {
                    // Whose it was cannot be known any more.
                    rig.fake.logs_of(DELETE, 9);
                    rig.fake.keys.borrow_mut().remove(&9);
                }
                if is_alarm { rig.must_alarm().await } else { rig.must_sign().await }
            });
        }
        // A key that was known to be another's when it was deleted is no alarm.
        run(async |rig| {
            rig.fake.keys.borrow_mut().extend([(1, ours), (9, foreign)]);
            rig.fake.logs_of(SIGN, 9);
            rig.must_sign().await;
            rig.fake.logs_of(SIGN, 9);
            rig.fake.logs_of(DELETE, 9);
            rig.fake.keys.borrow_mut().remove(&9);
            rig.must_sign().await;
        });
    }

    #[test]
    fn a_copy_that_is_deleted_while_it_is_asked_for_is_found() {
        const DELETE: u8 = 0x58;
        /// Deletes a key when it is asked for.
        struct Deletes(Rc<Fake>);
        impl Executor for Deletes {
            fn execute(&self, request: Request) -> Local<'_, Result<Reply, DeviceError>> {
                Box::pin(async move {
                    if request == Request::PublicKey(9) && self.0.keys.borrow_mut().remove(&9).is_some() {
                        self.0.logs_of(DELETE, 9);
                    }
                    self.0.perform(&request)
                })
            }
        }
        run(async |mut rig| {
            let ours = PublicKey::from_bytes([7; 32]);
            rig.fake.keys.borrow_mut().extend([(1, ours), (9, ours)]);
            rig.witnessed.inner = Rc::new(Deletes(Rc::clone(&rig.fake)));
            rig.must_sign().await;
            rig.fake.logs_of(SIGN, 9);
            rig.must_alarm().await;
        });
    }

    #[test]
    fn an_alarm_is_noted_where_the_next_start_looks_before_it_asks_the_device() {
        run(async |rig| {
            let path = rig.dir.path().join("audit");
            rig.fake.does.set(Does::SignUnlogged);
            rig.must_alarm().await;
            rig.witnessed.keep_alarm("what was found").await.unwrap();
            rig.fake.does.set(Does::Sign);
            let rig = rig.restart();
            rig.fake.is_away.set(true);
            let alarmed = rig.witnessed.execute(Request::PublicKey(1)).await;
            let is_it = |error: &DeviceError| matches!(error, DeviceError::Alarm(why) if why.contains("what was found\nhint:"));
            assert!(alarmed.as_ref().is_err_and(is_it), "{alarmed:?}");
            assert!(!rig.witnessed.has_looked());
            // What was found first stays.
            rig.witnessed.keep_alarm("what was found later").await.unwrap();
            let rig = rig.restart();
            rig.fake.is_away.set(false);
            assert!(rig.sign().await.as_ref().is_err_and(is_it));
            AuditFile::forget_alarm(&StdDisk::default(), &path).await.unwrap();
            rig.restart().must_sign().await;
        });
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
    fn a_key_that_is_asked_for_longer_than_the_log_holds_leaves_no_gap_and_few_notes() {
        run(async |rig| {
            rig.must_sign().await;
            rig.fake.audits_all.set(true);
            for _ in 0..5 * CAPACITY {
                rig.witnessed.execute(Request::PublicKey(1)).await.unwrap();
            }
            let written = std::fs::metadata(rig.dir.path().join("audit")).unwrap();
            assert_eq!(written.len(), 8192);
            let rig = rig.restart();
            rig.must_sign().await;
        });
    }

    #[test]
    fn who_only_looks_writes_nothing_and_signs_nothing() {
        run(async |rig| {
            rig.must_sign().await;
            let file = std::fs::read(rig.dir.path().join("audit")).unwrap();
            let Rig { fake, witnessed, dir } = rig.restart();
            let rig = Rig { fake, witnessed: witnessed.that_only_looks(), dir };
            (0..40).for_each(|_| rig.fake.logs(0x58));
            rig.witnessed.execute(Request::PublicKey(1)).await.unwrap();
            assert!(matches!(rig.sign().await, Err(DeviceError::Refused(_))));
            assert_eq!(std::fs::read(rig.dir.path().join("audit")).unwrap(), file);
            rig.fake.logs(SIGN);
            let found = rig.witnessed.execute(Request::PublicKey(1)).await;
            assert!(matches!(found, Err(DeviceError::Alarm(_))), "{found:?}");
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
