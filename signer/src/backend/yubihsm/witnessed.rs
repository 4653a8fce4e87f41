//! A device whose log is looked at with each signature.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::rc::Rc;

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
pub struct Witnessed {
    inner: Rc<dyn Executor>,
    mode: Audit,
    watched: Watched,
    disk: Rc<dyn Disk>,
    path: PathBuf,
    state: RefCell<Option<State>>,
}

struct State {
    file: AuditFile,
    noted: Noted,
    /// How many boots and sessions the device could not log, as told last.
    unlogged: u32,
}

/// What fits into the log.
const CAPACITY: usize = 62;
/// In detect mode, all but the newest entry are marked as read when there are so many.
const READ_AT: usize = 31;

impl Witnessed {
    /// Watches what `inner` signs; what is known of the log is in the file at `path`.
    pub fn new(
        inner: Rc<dyn Executor>,
        mode: Audit,
        watched: Watched,
        disk: Rc<dyn Disk>,
        path: PathBuf,
    ) -> Self {
        Self { inner, mode, watched, disk, path, state: RefCell::new(None) }
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
        // Taken out while it works: one thing is asked at a time, and what was abandoned is read from the file again.
        let taken = self.state.borrow_mut().take();
        let mut state = match taken {
            Some(state) => state,
            None => self.open().await?,
        };
        let reply = match request {
            Request::Sign { key, message } => self.sign(&mut state, key, message).await,
            other => self.inner.execute(other).await,
        };
        if !matches!(reply, Err(DeviceError::Alarm(_))) {
            *self.state.borrow_mut() = Some(state);
        }
        reply
    }

    /// The file, and a look at the log, before anything is asked.
    async fn open(&self) -> Result<State, DeviceError> {
        let opened = AuditFile::open(&*self.disk, &self.path).await;
        let (file, noted) = opened.map_err(|error| match error {
            AuditFileError::Missing(_) | AuditFileError::Damaged(_) => DeviceError::Alarm(error.to_string()),
            // What may pass, as when an abandoned write still holds the file.
            other => DeviceError::Lost { reason: other.to_string(), session_spent: false },
        })?;
        let mut state = State { file, noted, unlogged: 0 };
        self.look(&mut state).await?;
        Ok(state)
    }

    async fn sign(&self, state: &mut State, key: u16, message: Vec<u8>) -> Result<Reply, DeviceError> {
        if self.mode == Audit::Permit {
            self.make_place(state).await?;
        }
        let asked = &mut state.noted.asked;
        if asked.len() == MAX_ASKED {
            asked.pop_front();
        }
        asked.push_back(Asked { key, length: (message.len() + 2) as u16 });
        note(state).await?;
        let reply = self.inner.execute(Request::Sign { key, message }).await;
        match reply {
            Err(DeviceError::LogFull) if self.mode == Audit::Permit => {
                Err(DeviceError::Alarm(Alarm::PlaceTaken.to_string()))
            }
            Ok(reply) => {
                let log = self.look(state).await?;
                if self.mode == Audit::Detect && log.entries.len() >= READ_AT {
                    self.mark_read(state, &log).await?;
                }
                Ok(reply)
            }
            failed => failed,
        }
    }

    /// Reads the log and accounts for what is new in it.
    async fn look(&self, state: &mut State) -> Result<AuditLog, DeviceError> {
        let Reply::Log(log) = self.inner.execute(Request::Log).await? else {
            return Err(DeviceError::Refused("it answered something else".into()));
        };
        let Noted { cursor, asked } = &mut state.noted;
        cursor.follow(&log, &self.watched, asked).map_err(|alarm| DeviceError::Alarm(alarm.to_string()))?;
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
        note(state).await?;
        self.inner.execute(Request::MarkRead(last)).await.map(drop)
    }

    /// Makes room for one entry, if there is none.
    async fn make_place(&self, state: &mut State) -> Result<(), DeviceError> {
        let log = self.look(state).await?;
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
}

/// After a failed write the kernel may have dropped the page: as with the record, nothing more is signed.
async fn note(state: &mut State) -> Result<(), DeviceError> {
    let noted = Noted { cursor: state.noted.cursor, asked: VecDeque::clone(&state.noted.asked) };
    let done = state.file.note(&noted).await;
    done.map_err(|error| DeviceError::Alarm(format!("the audit file could not be written: {error}")))
}
