//! What differs between releases: the lock rule and the times.

use std::time::Duration;

use monosign_protocol::Dialect;

/// What a lock binds a validator to, after it precommitted a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockRule {
    /// v0.34 to v0.40: the locked block is prevoted in every round, whatever is proposed. Two thirds of prevotes for
    /// nil undo the lock, and so do those for another block in a later round (`consensus/state.go`,
    /// defaultDoPrevote, enterPrecommit, addVote).
    Unlocking,
    /// v1.0 on: the rule of the Tendermint paper (arXiv:1807.04938). A proposal is prevoted if it is the locked block
    /// or proves two thirds of prevotes in a round not before the lock's; a lock is only ever replaced
    /// (`internal/consensus/state.go`, defaultDoPrevote).
    Paper,
}

impl LockRule {
    /// The rule of a release.
    pub fn of(dialect: Dialect) -> Self {
        if dialect.is_v1_or_later() { Self::Paper } else { Self::Unlocking }
    }
}

/// By how much a vote's time is after the block's, at the least.
///
/// v0.34 takes the consensus parameter `time_iota_ms`, 1000 unless genesis says otherwise; later releases 1 ms
/// (`consensus/state.go`, voteTime).
pub(crate) fn time_iota(dialect: Dialect) -> Duration {
    if dialect == Dialect::V0_34 { Duration::from_secs(1) } else { Duration::from_millis(1) }
}
