//! What requests have skipped of late, kept beside the record.
//!
//! What always holds:
//!
//! * a jump is counted durably before the record rises by it, so that no restart, and no loop of them, gives it back;
//! * it is given back by the time that processes have run. That is written down each time when half is given back, so a restart may
//!   lose some of it and never adds to it;
//! * a jump that was counted and not made, because the power went in between, does not count.

use std::path::{Path, PathBuf};

use monosign_protocol::Height;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::guard::Skipped;
use crate::ops::durable_file::{self, DurableFileError};
use crate::seams::Disk;

/// The file, and what has changed since it was read or written.
pub(super) struct Jumps {
    path: PathBuf,
    /// Since when the clock has run for what `stored` says.
    since: Instant,
    /// `None` until it is read.
    stored: Option<Stored>,
}

/// As it lies on the disk.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    /// With the jump, if it was made.
    skipped: u64,
    /// Where the record was before the last jump.
    from: i64,
    /// What that jump skipped.
    last: u64,
}

impl Jumps {
    pub(super) fn new(record: &Path) -> Self {
        Self { path: record.with_added_extension("skipped"), since: Instant::now(), stored: None }
    }

    /// What counts against a jump from the record's height now.
    pub(super) async fn counted(&mut self, disk: &dyn Disk, recorded: Height, limit: u64) -> Skipped {
        let stored = match self.stored {
            Some(stored) => stored,
            None => self.load(disk, recorded, limit).await,
        };
        self.stored = Some(stored);
        Skipped(stored.skipped).after(self.since.elapsed())
    }

    async fn load(&self, disk: &dyn Disk, recorded: Height, limit: u64) -> Stored {
        let text = match disk.read_small(&self.path).await {
            Ok(None) => return Stored::default(),
            Ok(Some(text)) => text,
            Err(_) => String::new(),
        };
        match serde_json::from_str::<Stored>(&text) {
            Ok(stored) if recorded.0 <= stored.from => {
                Stored { skipped: stored.skipped.saturating_sub(stored.last), ..stored }
            }
            Ok(stored) => stored,
            Err(_) => {
                let path = self.path.display();
                tracing::warn!(
                    "`{path}` cannot be read: no height may be skipped until the clock explains {limit}"
                );
                Stored { skipped: limit, ..Stored::default() }
            }
        }
    }

    /// Counts a jump; when this returns, that is on stable storage.
    pub(super) async fn add(
        &mut self,
        disk: &dyn Disk,
        counted: Skipped,
        from: Height,
        jump: Skipped,
    ) -> Result<(), DurableFileError> {
        self.store(disk, Stored { skipped: counted.and(jump).0, from: from.0, last: jump.0 }).await
    }

    /// Writes down what the clock has explained, once it is half of what is stored. If that fails, it counts on.
    pub(super) async fn give_back(&mut self, disk: &dyn Disk, counted: Skipped) {
        let Some(stored) = self.stored.filter(|stored| counted.0 <= stored.skipped / 2 && stored.skipped > 0)
        else {
            return;
        };
        // The jump has been made by now, or is part of what was given back.
        if let Err(error) = self.store(disk, Stored { skipped: counted.0, last: 0, ..stored }).await {
            tracing::warn!("heights that were skipped count on: {error}");
        }
    }

    async fn store(&mut self, disk: &dyn Disk, stored: Stored) -> Result<(), DurableFileError> {
        let text = serde_json::to_string(&stored).unwrap_or_default();
        durable_file::replace(disk, &self.path, text.as_bytes()).await?;
        (self.stored, self.since) = (Some(stored), Instant::now());
        Ok(())
    }
}
