//! How often a process has flushed something to the disk, read from what strace wrote of its calls.

/// The calls that are looked at.
pub(super) const CALLS: &str =
    "trace=fsync,fdatasync,sync,syncfs,msync,open,openat,write,writev,pwrite64,pwritev,pwritev2,connect";

/// What strace saw.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Calls that end when something is on the disk.
    pub(super) flushes: u64,
    /// Dials: a process that makes none is not the signer.
    pub(super) dials: u64,
}

/// Counts in the output of `strace -f -y`. A call that was interrupted by another thread's stands on two lines, the first of
/// which is counted: it holds the name and the paths.
pub(super) fn count(trace: &str) -> Seen {
    let mut synced_files = std::collections::BTreeSet::new();
    let mut seen = Seen::default();
    for line in trace.lines() {
        let call = line.split_once(' ').map_or(line, |(_, call)| call).trim_start();
        let Some((name, arguments)) = call.split_once('(') else { continue };
        match name {
            "fsync" | "fdatasync" | "sync" | "syncfs" => seen.flushes += 1,
            "msync" if arguments.contains("MS_SYNC") => seen.flushes += 1,
            "pwritev2" if arguments.contains("RWF_DSYNC") || arguments.contains("RWF_SYNC") => {
                seen.flushes += 1
            }
            "connect" => seen.dials += 1,
            "open" | "openat" if arguments.contains("O_SYNC") || arguments.contains("O_DSYNC") => {
                synced_files.extend(arguments.split('"').nth(1).map(file_name));
            }
            "write" | "writev" | "pwrite64" | "pwritev" | "pwritev2" => {
                // `7</path/of/file>`
                let path = arguments.split_once('<').and_then(|(_, path)| path.split_once('>'));
                seen.flushes +=
                    u64::from(path.is_some_and(|(path, _)| synced_files.contains(file_name(path))));
            }
            _ => {}
        }
    }
    seen
}

/// Paths are relative where a file is opened, and whole where it is written.
fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_ends_on_the_disk() {
        let trace = r#"41 connect(3<socket:[7]>, {sa_family=AF_INET, ...}, 16) = 0
41 openat(AT_FDCWD</srv>, "state.json", O_WRONLY|O_CREAT|O_SYNC|O_CLOEXEC, 0600) = 4</srv/state.json>
41 openat(AT_FDCWD</srv>, "log", O_WRONLY) = 5</srv/log>
41 write(4</srv/state.json>, ""..., 90) = 90
42 pwrite64(4</srv/state.json>, ""..., 90, 0 <unfinished ...>
41 write(5</srv/log>, ""..., 3) = 3
42 <... pwrite64 resumed>) = 90
41 fdatasync(5</srv/log> <unfinished ...>
42 write(3<socket:[7]>, ""..., 9) = 9
41 <... fdatasync resumed>) = 0
41 msync(0x7f, 4096, MS_ASYNC) = 0
41 msync(0x7f, 4096, MS_SYNC) = 0
41 rename("a", "b") = 0
"#;
        assert_eq!(count(trace), Seen { flushes: 4, dials: 1 });
        assert_eq!(count("41 write(5</srv/log>, \"\"..., 3) = 3\n+++ killed +++\n"), Seen::default());
    }
}
