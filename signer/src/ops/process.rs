//! What the process gives up before it holds a key.

use std::fs::File;

use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
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

    #[test]
    fn leaves_no_core_dump_and_nothing_to_read_for_other_processes() {
        super::harden().expect("any process may");
        let limit = getrlimit(Resource::Core);
        assert_eq!((limit.current, limit.maximum), (Some(0), Some(0)), "and it cannot be raised again");
        assert_eq!(dumpable_behavior().expect("any process may ask"), DumpableBehavior::NotDumpable);
    }
}
