//! Which operations a fault lets through, and the error of those that it does not.

use rustix::io::Errno;

use super::points::Op;
use crate::scenario::DiskFault;

/// The error that a fault gives an operation. Hanging and slowness are no errors: they come before it.
pub(super) fn allows(fault: Option<DiskFault>, op: Op) -> Result<(), Errno> {
    match (fault, op) {
        // Locks are kept in memory.
        (_, Op::TryLock) => Ok(()),
        // So is, for a while, where a file lies.
        (Some(DiskFault::Eio), Op::Open) => Ok(()),
        (Some(DiskFault::Eio), _) => Err(Errno::IO),
        (Some(DiskFault::WriteError), Op::WriteAt) => Err(Errno::IO),
        (Some(DiskFault::SyncError), Op::SyncData | Op::SyncDir) => Err(Errno::IO),
        (Some(DiskFault::NoSpace), Op::Create | Op::WriteAt) => Err(Errno::NOSPC),
        (Some(DiskFault::ReadOnly), Op::ReadAll | Op::ReadSmall) => Ok(()),
        (Some(DiskFault::ReadOnly), _) => Err(Errno::ROFS),
        (Some(_) | None, _) => Ok(()),
    }
}

/// The counter of an error that a fault gave.
pub(super) fn counter(op: Op, errno: Errno) -> &'static str {
    match (op, errno) {
        (Op::SyncData | Op::SyncDir, Errno::IO) => "sync failed",
        (_, Errno::NOSPC) => "no space",
        (_, Errno::ROFS) => "disk read-only",
        _ => "disk error",
    }
}
