//! Operations, and the crash points before and after each.

use std::cell::Cell;

macro_rules! operations {
    ($($op:ident $name:literal,)*) => {
        /// What is asked of a disk.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Op {
            $($op,)*
        }

        impl Op {
            pub(super) fn name(self) -> &'static str {
                match self {
                    $(Self::$op => $name,)*
                }
            }

            /// The name of the crash point before the effect.
            pub(super) fn before(self) -> &'static str {
                match self {
                    $(Self::$op => concat!("crash point before ", $name),)*
                }
            }

            /// The name of the crash point after the effect.
            pub(super) fn after(self) -> &'static str {
                match self {
                    $(Self::$op => concat!("crash point after ", $name),)*
                }
            }
        }
    };
}

operations! {
    Open "open",
    Create "create",
    Rename "rename",
    RenameNew "rename_new",
    Remove "remove",
    SyncDir "sync_dir",
    ReadSmall "read_small",
    TryLock "try_lock",
    ReadAll "read_all",
    WriteAt "write_at",
    SyncData "sync_data",
}

/// The crash points of a host, counted since it was made.
#[derive(Debug, Default)]
pub(super) struct Points {
    passed: Cell<u64>,
    armed: Cell<Option<u64>>,
    hit: Cell<Option<&'static str>>,
}

impl Points {
    pub(super) fn passed(&self) -> u64 {
        self.passed.get()
    }

    pub(super) fn hit(&self) -> Option<&'static str> {
        self.hit.get()
    }

    pub(super) fn arm(&self, after: Option<u64>) {
        self.armed.set(after.map(|after| self.passed.get() + after));
    }

    /// True if the process dies here.
    pub(super) fn is_deadly(&self, name: &'static str) -> bool {
        let point = self.passed.get();
        self.passed.set(point + 1);
        let deadly = self.armed.get() == Some(point);
        if deadly {
            self.armed.set(None);
            self.hit.set(Some(name));
        }
        deadly
    }

    pub(super) fn restart(&self) {
        self.hit.set(None);
    }
}
