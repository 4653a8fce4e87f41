//! The simulated disk under a host: what the kernel's page cache and a journaling file system promise, and nothing more.
//!
//! What always holds:
//!
//! * reads show what was written, whether it was synced or not;
//! * what [`sync_data`](DiskFile::sync_data) returned for survives every power cut, and so do the names of a directory that was
//!   synced; of all else a power cut decides, sector by sector and name by name (see [`Loss`]);
//! * a kill loses nothing that was written;
//! * what a dead process asked for never completes and has no effect; its locks are free. Destructors do no I/O;
//! * each operation passes two crash points, one before its effect and one after it.
//!
//! Operations on one file take effect in the order in which they were asked for, also if nobody waits for them any more, as those
//! of the signer's thread do. The exact outcomes are measured and drawn, so that the same seed gives the same run.

mod content;
mod faults;
mod image;
mod loss;
mod mount;
mod names;
mod points;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::{Rc, Weak};
use std::time::Duration;

use monosign::seams::Disk;
#[cfg(doc)]
use monosign::seams::DiskFile;
use tokio::sync::Notify;

pub use image::Image;
pub use loss::Loss;
use loss::PowerCut;
use mount::Process;
use names::Names;
use points::Points;

use crate::reach::Reach;
use crate::scenario::{DiskFault, SpanRange};
use crate::streams::Stream;

/// Where a host keeps what its processes write. Files elsewhere never change: they are read from the real disk.
pub const HOME: &str = "/var/lib/monosign";

/// How long an operation takes on a disk that is slow.
const SLOW: Duration = Duration::from_millis(500);

/// Whose a name of the host is: void once the process is gone, or has dropped it.
struct Claimed {
    incarnation: u64,
    held: Weak<()>,
}

/// The disk of one host. It outlives the processes on it.
pub struct HostDisk {
    host: String,
    latency: SpanRange,
    reach: Reach,
    /// Which processes are alive: those that were mounted under this number.
    incarnation: Cell<u64>,
    points: Points,
    fault: Cell<Option<DiskFault>>,
    fault_changed: Notify,
    names: RefCell<Names>,
    /// Names of the host that processes have claimed.
    claims: RefCell<BTreeMap<String, Claimed>>,
    delays: RefCell<Stream>,
    losses: RefCell<Stream>,
}

impl HostDisk {
    /// An empty disk. Each operation takes as long as `latency` says, half of it before and half of it after its effect.
    ///
    /// Counted in `reach`: power cuts and kills between write and sync, torn writes, lost names, errors, and each crash point that
    /// was hit.
    pub fn new(host: &str, latency: SpanRange, mut stream: Stream, reach: Reach) -> Rc<Self> {
        Rc::new(Self {
            host: host.into(),
            latency,
            reach,
            incarnation: Cell::default(),
            points: Points::default(),
            fault: Cell::default(),
            fault_changed: Notify::new(),
            names: RefCell::default(),
            claims: RefCell::default(),
            delays: RefCell::new(stream.fork()),
            losses: RefCell::new(stream.fork()),
        })
    }

    /// What a process that starts now sees, until the next [`kill`](Self::kill), [`power_cut`](Self::power_cut) or
    /// [`restore`](Self::restore). Two mounts are two processes: they see the same files and each other's locks.
    ///
    /// Its operations need a `LocalSet` around them.
    pub fn mount(self: &Rc<Self>) -> Rc<dyn Disk> {
        Rc::new(Process::new(Rc::clone(self)))
    }

    /// All processes of the host die. The page cache stays.
    pub fn kill(&self) {
        if self.names.borrow().has_unsynced_content() {
            self.reach.hit("kill between write and sync");
        }
        self.end_processes("kill");
    }

    /// The host loses power: all processes die, and what was not synced is lost, kept or torn as `loss` says.
    pub fn power_cut(&self, loss: Loss) {
        if self.names.borrow().has_unsynced_content() {
            self.reach.hit("power cut between write and sync");
        }
        let mut cut = PowerCut::new(loss, self.losses.borrow_mut().fork());
        let settled = self.names.borrow_mut().settle(&mut cut);
        for (reached, what) in [
            (settled.torn, "power cut tore a write"),
            (settled.lost > 0, "unsynced name lost"),
            (settled.kept > 0, "unsynced name kept"),
        ] {
            if reached {
                self.reach.hit(what);
            }
        }
        self.end_processes("power cut");
    }

    /// Claims a name for a process; `None` if another has it.
    fn claim(&self, name: &str, incarnation: u64) -> Option<Rc<()>> {
        if self.is_claimed(name) {
            self.reach.hit("chain and key in use on this host");
            return None;
        }
        let held = Rc::new(());
        let claimed = Claimed { incarnation, held: Rc::downgrade(&held) };
        self.claims.borrow_mut().insert(name.into(), claimed);
        Some(held)
    }

    fn is_claimed(&self, name: &str) -> bool {
        let is_alive = |claimed: &Claimed| {
            claimed.incarnation == self.incarnation.get() && claimed.held.strong_count() > 0
        };
        self.claims.borrow().get(name).is_some_and(is_alive)
    }

    fn end_processes(&self, how: &str) {
        self.incarnation.set(self.incarnation.get() + 1);
        self.points.restart();
        self.trace(how, Path::new("/"), 0, 0, true);
    }

    /// How many crash points have been passed since the disk was made.
    pub fn points_passed(&self) -> u64 {
        self.points.passed()
    }

    /// Lets the processes of the host die at a crash point: the next for 0, the one after it for 1. From then on no operation returns
    /// or has an effect, and [`crash_hit`](Self::crash_hit) names the point; the death itself is for the caller to do, by a
    /// [`power_cut`](Self::power_cut) or a [`kill`](Self::kill).
    ///
    /// It replaces one that was not hit yet, and a process that dies earlier leaves it to the next.
    pub fn crash_at(&self, after: u64) {
        self.points.arm(Some(after));
    }

    /// Takes back a [`crash_at`](Self::crash_at) that was not hit yet.
    pub fn disarm(&self) {
        self.points.arm(None);
    }

    /// The crash point that was hit, such as `crash point after write_at`; none again once the processes are dead.
    pub fn crash_hit(&self) -> Option<&'static str> {
        self.points.hit()
    }

    /// Lets the disk fail from now on, or be sound again.
    pub fn set_fault(&self, fault: Option<DiskFault>) {
        self.fault.set(fault);
        self.fault_changed.notify_waiters();
    }

    /// What is there after a shutdown in good order.
    pub fn snapshot(&self) -> Image {
        self.names.borrow().cached_image()
    }

    /// What is there after the worst power cut.
    pub fn durable_image(&self) -> Image {
        self.names.borrow().durable_image()
    }

    /// Sets the disk back, or to the state of another host's. All processes die.
    pub fn restore(&self, image: &Image) {
        *self.names.borrow_mut() = Names::restored(image);
        self.end_processes("restore");
    }

    /// Puts a file there, as another program that syncs the whole file system. Who has a file of that name open keeps the old one.
    pub fn write_file(&self, path: impl AsRef<Path>, bytes: &[u8]) {
        self.names.borrow_mut().provision(path.as_ref(), Some(bytes));
        self.trace("write_file", path.as_ref(), 0, bytes.len(), true);
    }

    /// Gives a file another name, as another program that syncs the whole file system; false if there was none. Who has it open keeps
    /// it.
    pub fn move_file(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> bool {
        let (from, to) = (from.as_ref(), to.as_ref());
        let moved = self.names.borrow_mut().move_durably(from, to);
        self.trace("move_file", to, 0, 0, moved);
        moved
    }

    /// Takes a file away, as another program that syncs the whole file system; false if there was none.
    pub fn remove_file(&self, path: impl AsRef<Path>) -> bool {
        let there = self.names.borrow().find(path.as_ref()).is_ok();
        self.names.borrow_mut().provision(path.as_ref(), None);
        self.trace("remove_file", path.as_ref(), 0, 0, there);
        there
    }

    /// Shows `look` what a file holds after the worst power cut; `None` if its name would be gone. Nothing is copied.
    pub fn durable_file<T>(&self, path: impl AsRef<Path>, look: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let names = self.names.borrow();
        names.find_durable(path.as_ref()).map(|file| look(file.borrow().durable()))
    }

    /// Shows `look` what a file holds as reads show it; `None` if there is none of that name. Nothing is copied.
    pub fn cached_file<T>(&self, path: impl AsRef<Path>, look: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let file = self.names.borrow().find(path.as_ref()).ok()?;
        Some(look(file.borrow().cached()))
    }

    fn trace(&self, op: &str, path: &Path, offset: u64, len: usize, ok: bool) {
        let host = &*self.host;
        tracing::trace!(target: "sim::disk", host, op, path = %path.display(), offset, len, ok);
    }
}
