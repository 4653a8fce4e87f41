//! What the process gives up before it holds a key, and what it asks for.

use std::fs::File;

use rustix::io::fcntl_dupfd_cloexec;
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use rustix::stdio::{dup2_stdin, dup2_stdout};

/// Keeps secrets out of core dumps and away from debuggers of the same user.
///
/// # Errors
/// If the kernel refuses; the caller goes on and says so.
pub fn harden() -> std::io::Result<()> {
    let nothing = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, nothing)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Keeps all memory of this process out of swap: what it has now, and what it will have, as it comes to be used.
///
/// All or nothing. Under a limit, memory that is asked for later would be refused once the limit is reached, and unlocking a key takes 256 MiB: a
/// signer must not end by that. So all is locked where no limit holds for this process, and else nothing is, which the caller says.
///
/// # Errors
/// If a limit holds, or the kernel refuses.
pub fn lock_memory() -> Result<(), NotLocked> {
    let limit = getrlimit(Resource::Memlock);
    let set = |current| setrlimit(Resource::Memlock, Rlimit { current, maximum: limit.maximum });
    let all = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    let refused = |error: rustix::io::Errno| NotLocked::Refused(error.into());
    if limit.maximum.is_some() {
        // Whether the limit holds for this process, which depends on capabilities, namespaces and security modules, shows where nothing is allowed.
        set(Some(0)).map_err(refused)?;
        let locked = mlockall(all);
        // As much as is allowed, for the libraries of vendors, which may lock pages of their own.
        set(limit.maximum).map_err(refused)?;
        return locked.map_err(|_| NotLocked::Limited(limit.maximum.unwrap_or_default()));
    }
    set(None).map_err(refused)?;
    mlockall(all).map_err(refused)
}

/// Why memory may be written to swap.
#[derive(Debug, thiserror::Error)]
pub enum NotLocked {
    /// So many bytes may be locked.
    #[error(
        "keys may be written to swap: {} KiB of memory may be locked, and all of it has to be (`LimitMEMLOCK=infinity` in the unit, `ulimit -l \
         unlimited` in a shell, `--ulimit memlock=-1` for a container; or no swap)", .0 / 1024
    )]
    Limited(u64),
    /// The kernel said no.
    #[error("keys may be written to swap: memory cannot be locked: {0}")]
    Refused(std::io::Error),
}

/// Takes standard output away from everything else in this process: what a vendor's library prints there goes to standard error,
/// and not between what a person, a script or a parent process reads.
///
/// # Errors
/// If there is no descriptor left.
pub fn take_stdout() -> std::io::Result<File> {
    let own = fcntl_dupfd_cloexec(std::io::stdout(), FIRST_FREE)?;
    dup2_stdout(std::io::stderr())?;
    Ok(own.into())
}

/// The same for standard input: a library that asks for a PIN there finds its end.
///
/// # Errors
/// If there is no descriptor left, or no `/dev/null`.
pub fn take_stdin() -> std::io::Result<File> {
    let own = fcntl_dupfd_cloexec(std::io::stdin(), FIRST_FREE)?;
    dup2_stdin(File::open("/dev/null")?)?;
    Ok(own.into())
}

/// The first descriptor that is none of the standard ones.
const FIRST_FREE: i32 = 3;

#[cfg(test)]
mod tests {
    use rustix::process::{DumpableBehavior, Resource, dumpable_behavior, getrlimit};

    /// Of this process, in KiB.
    fn locked() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").expect("a status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmLck:")).expect("VmLck");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    #[test]
    fn memory_is_locked_or_it_is_said_that_it_is_not() {
        match super::lock_memory() {
            Ok(()) => assert!(locked() > 0),
            Err(error) => {
                assert_eq!(locked(), 0, "all or nothing");
                assert!(error.to_string().contains("may be written to swap"), "{error}");
            }
        }
        let limit = getrlimit(Resource::Memlock);
        assert_eq!(limit.current, limit.maximum);
        // Not to make the other tests of this process pay.
        rustix::mm::munlockall().expect("allowed to anybody");
    }

    #[test]
    fn leaves_no_core_dump_and_nothing_to_read_for_other_processes() {
        super::harden().expect("any process may");
        let limit = getrlimit(Resource::Core);
        assert_eq!((limit.current, limit.maximum), (Some(0), Some(0)), "and it cannot be raised again");
        assert_eq!(dumpable_behavior().expect("any process may ask"), DumpableBehavior::NotDumpable);
    }
}
