mod contract;
mod faults;
mod probes;
mod processes;
mod record;

use std::future::Future;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use monosign::seams::{Disk, DiskFile, Open};
use tokio::time::timeout;

use super::{HostDisk, Loss};
use crate::reach::Reach;
use crate::scenario::SpanRange;
use crate::streams::Streams;

const DIR: &str = "/state";
const FILE: &str = "/state/file";
const NEW: &str = "/state/file.new";

/// Runs a future under a clock that jumps from timer to timer.
fn simulated<T>(body: impl Future<Output = T>) -> T {
    crate::deadline::for_this_test();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    tokio::task::LocalSet::new().block_on(&runtime.expect("a runtime"), body)
}

/// What an operation gives, or `None` if it never returns.
async fn ever<T>(operation: impl Future<Output = T>) -> Option<T> {
    timeout(Duration::from_secs(3600), operation).await.ok()
}

fn host(seed: u64) -> Rc<HostDisk> {
    host_of(seed, Reach::default())
}

fn host_of(seed: u64, reach: Reach) -> Rc<HostDisk> {
    HostDisk::new("signer", SpanRange::millis(0, 4), Streams::new(seed).of("disk/signer"), reach)
}

/// A file with a durable content, open.
async fn durable(host: &Rc<HostDisk>, bytes: &[u8]) -> Box<dyn DiskFile> {
    host.write_file(FILE, bytes);
    open(&*host.mount(), FILE).await
}

async fn open(disk: &dyn Disk, path: &str) -> Box<dyn DiskFile> {
    disk.open(Path::new(path), Open::Existing).await.expect("there")
}

async fn create(disk: &dyn Disk, path: &str) -> Box<dyn DiskFile> {
    disk.open(Path::new(path), Open::New).await.expect("not there yet")
}

async fn rename(disk: &dyn Disk, from: &str, to: &str) {
    disk.rename(Path::new(from), Path::new(to)).await.expect("renamed");
}

async fn sync_dir(disk: &dyn Disk) {
    disk.sync_dir(Path::new(DIR)).await.expect("synced");
}

/// What a file holds after a power cut.
fn after_cut(host: &HostDisk, loss: Loss) -> Option<Vec<u8>> {
    host.power_cut(loss);
    host.cached_file(FILE, <[u8]>::to_vec)
}
