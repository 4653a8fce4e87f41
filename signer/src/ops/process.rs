//! What the process gives up before it holds a key.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

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

#[cfg(test)]
mod tests {
    use rustix::process::{Resource, getrlimit};

    #[test]
    fn leaves_no_core_dump() {
        super::harden().expect("any process may");
        assert_eq!(getrlimit(Resource::Core).current, Some(0));
    }
}
