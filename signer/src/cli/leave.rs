//! Leave to jump, as `monosign state allow-jump` gives it: who can see it, and how it ends.
//!
//! The signer's own part is to read it where a jump would be refused ([`jump_allowance_path`]). It ends once
//! the record is there, a day
//! after it was given, or when somebody takes it back: leave that is forgotten would let through what it was
//! not meant for.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::advice::{Lying, shell};
use crate::chain::jump_allowance_path;
use crate::config::ChainConfig;
use crate::record::Header;

/// How long leave lasts.
pub(super) const LASTS: Duration = Duration::from_secs(24 * 3600);
/// How often a running signer looks for leave that has ended.
pub(super) const LOOK: Duration = Duration::from_secs(600);

/// Leave that was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Leave {
    /// Where it lies.
    pub(super) path: PathBuf,
    /// The highest height that may be jumped to.
    pub(super) height: i64,
    /// What is left of its day; `None` if that is over.
    left: Option<Duration>,
    /// Whether the record is there already.
    is_spent: bool,
}

impl Leave {
    /// What lies beside a chain's record, if anything does.
    fn given(chain: &ChainConfig) -> Option<Self> {
        let path = jump_allowance_path(&chain.record);
        // Mostly there is none, and no record is read.
        let metadata = fs::metadata(&path).ok()?;
        let height: i64 = fs::read_to_string(&path).ok()?.trim().parse().ok()?;
        let Lying::Record(Header { .. }, watermark) = Lying::at(&chain.record) else { return None };
        let age = metadata.modified().ok().and_then(|given| now().duration_since(given).ok());
        let left = LASTS.checked_sub(age.unwrap_or_default()).filter(|left| !left.is_zero());
        Some(Self { path, height, left, is_spent: height <= watermark.height.0 })
    }

    /// What a chain's requests may use now.
    pub(super) fn of(chain: &ChainConfig) -> Option<Self> {
        Self::given(chain).filter(|leave| !leave.is_spent && leave.left.is_some())
    }

    /// Takes back what has ended. Says so.
    pub(super) fn end(chain: &ChainConfig) -> Option<io::Result<String>> {
        let leave = Self::given(chain).filter(|leave| leave.is_spent || leave.left.is_none())?;
        let why = if leave.is_spent { "the record is there" } else { "a day is over" };
        let told = format!("leave of chain {} to jump to height {} has ended: {why}", chain.id, leave.height);
        Some(fs::remove_file(&leave.path).map(|()| told))
    }

    /// What there is to say of it, with how to take it back.
    pub(super) fn told(&self) -> String {
        let Self { path, height, left, .. } = self;
        let hours = left.unwrap_or_default().as_secs().div_ceil(3600);
        format!(
            "requests may jump to height {height}, as was allowed, for {hours} h more: `rm {}` takes it back",
            shell(path)
        )
    }
}

#[allow(clippy::disallowed_methods, reason = "commands, and what a signer does beside signing")]
fn now() -> SystemTime {
    SystemTime::now()
}
