//! For tests of two that make the same file: a disk on which others come between, and futures that are done at once.

use std::cell::Cell;
use std::io;
use std::path::Path;

use super::{Claim, Disk, DiskFile, Holder, Local, Open, StdDisk};

/// A disk that has others do something right before one of its operations.
pub(crate) struct Interrupted<'a> {
    disk: StdDisk,
    steps: Cell<u32>,
    at: u32,
    others: &'a dyn Fn(),
    sees_claims: bool,
}

impl<'a> Interrupted<'a> {
    /// Before the operation `at`, counted from 0.
    pub(crate) fn new(at: u32, others: &'a dyn Fn()) -> Self {
        Self { disk: StdDisk::default(), steps: Cell::new(0), at, others, sees_claims: true }
    }

    /// Of a process in a container: it sees no claims of others, and others see none of its.
    pub(crate) fn contained(self) -> Self {
        Self { sees_claims: false, ..self }
    }

    fn step(&self) {
        let step = self.steps.replace(self.steps.get() + 1);
        if step == self.at {
            (self.others)();
        }
    }
}

impl Disk for Interrupted<'_> {
    fn open<'a>(&'a self, path: &'a Path, how: Open) -> Local<'a, io::Result<Box<dyn DiskFile>>> {
        self.step();
        self.disk.open(path, how)
    }

    fn rename_new<'a>(&'a self, from: &'a Path, to: &'a Path) -> Local<'a, io::Result<()>> {
        self.step();
        self.disk.rename_new(from, to)
    }

    fn remove<'a>(&'a self, path: &'a Path) -> Local<'a, io::Result<()>> {
        self.step();
        self.disk.remove(path)
    }

    fn rename<'a>(&'a self, from: &'a Path, to: &'a Path) -> Local<'a, io::Result<()>> {
        self.step();
        self.disk.rename(from, to)
    }

    fn sync_dir<'a>(&'a self, dir: &'a Path) -> Local<'a, io::Result<()>> {
        self.step();
        self.disk.sync_dir(dir)
    }

    fn read_small<'a>(&'a self, path: &'a Path) -> Local<'a, io::Result<Option<String>>> {
        self.disk.read_small(path)
    }

    fn claim<'a>(&'a self, name: &'a str) -> Local<'a, io::Result<Claim>> {
        match self.sees_claims {
            true => self.disk.claim(name),
            false => Box::pin(async { Ok(Claim::Ours(Box::new(()))) }),
        }
    }

    fn holder<'a>(&'a self, name: &'a str) -> Local<'a, io::Result<Option<Holder>>> {
        match self.sees_claims {
            true => self.disk.holder(name),
            false => Box::pin(async { Ok(None) }),
        }
    }
}

/// The result of what waits for nothing, as the calls of that disk do.
pub(crate) fn now<T>(future: impl Future<Output = T>) -> T {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => panic!("a disk that waits"),
    }
}
