//! Disks that fail.

use std::io;

use super::*;
use crate::scenario::DiskFault;

fn errno<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

#[test]
fn a_failed_sync_leaves_pages_that_are_shown_and_never_written() {
    simulated(async {
        let host = host(1);
        let file = durable(&host, b"old").await;
        file.write_at(0, b"new").await.expect("written");
        host.set_fault(Some(DiskFault::SyncError));
        assert_eq!(errno(file.sync_data().await), Some(5));
        file.sync_data().await.expect("the error is told once, and nothing is left to write");
        assert_eq!(file.read_all(9).await.expect("readable"), b"new");
        assert_eq!(host.durable_file(FILE, |bytes| bytes == b"old"), Some(true));
        assert_eq!(host.reach.count("sync failed"), 1);
        assert_eq!(after_cut(&host, Loss::None).as_deref(), Some(&b"old"[..]));
    });
}

#[test]
fn a_failed_sync_is_healed_by_writing_again() {
    simulated(async {
        let host = host(1);
        let file = durable(&host, b"").await;
        file.write_at(0, b"new").await.expect("written");
        host.set_fault(Some(DiskFault::SyncError));
        assert!(file.sync_data().await.is_err());
        file.write_durable(0, b"new").await.expect("sound again");
        assert_eq!(after_cut(&host, Loss::All).as_deref(), Some(&b"new"[..]));
    });
}

#[test]
fn a_failed_directory_sync_leaves_names_that_are_never_written() {
    simulated(async {
        let host = host(1);
        let disk = host.mount();
        create(&*disk, FILE).await;
        host.set_fault(Some(DiskFault::SyncError));
        assert_eq!(errno(disk.sync_dir(Path::new(DIR)).await), Some(5));
        sync_dir(&*disk).await;
        assert!(host.cached_file(FILE, |_| ()).is_some());
        assert_eq!(after_cut(&host, Loss::None), None);
    });
}

#[test]
fn a_full_disk_takes_nothing_new_and_lets_be_written_over() {
    simulated(async {
        let host = host(1);
        let file = durable(&host, b"old").await;
        host.set_fault(Some(DiskFault::NoSpace));
        let grown = file.write_at(1, b"new").await.expect_err("no room");
        assert_eq!((grown.kind(), grown.raw_os_error()), (io::ErrorKind::StorageFull, Some(28)));
        assert_eq!(errno(host.mount().open(Path::new(NEW), Open::New).await), Some(28));
        file.write_durable(0, b"new").await.expect("in place");
        assert_eq!(after_cut(&host, Loss::All).as_deref(), Some(&b"new"[..]));
        assert_eq!(host.reach.count("no space"), 2);
    });
}

#[test]
fn a_read_only_disk_is_read_and_not_changed() {
    simulated(async {
        let host = host(1);
        let disk = host.mount();
        let file = durable(&host, b"old").await;
        host.set_fault(Some(DiskFault::ReadOnly));
        let (path, new) = (Path::new(FILE), Path::new(NEW));
        let opened = disk.open(path, Open::Existing).await.err().expect("for writing");
        assert_eq!((opened.kind(), opened.raw_os_error()), (io::ErrorKind::ReadOnlyFilesystem, Some(30)));
        assert_eq!(errno(disk.open(new, Open::New).await), Some(30));
        assert_eq!(errno(disk.open(path, Open::New).await), Some(17), "this is found out first");
        let changes = [
            file.write_at(0, b"new").await,
            disk.rename(path, new).await,
            disk.remove(path).await,
            file.sync_data().await,
        ];
        assert_eq!(changes.map(errno), [Some(30); 4]);
        assert_eq!(disk.read_small(path).await.expect("readable").as_deref(), Some("old"));
        assert_eq!(file.read_all(9).await.expect("readable"), b"old");
    });
}

#[test]
fn a_read_only_disk_forgets_nothing_that_waits_to_be_written() {
    simulated(async {
        let host = host(1);
        let file = durable(&host, b"old").await;
        file.write_at(0, b"new").await.expect("written");
        host.set_fault(Some(DiskFault::ReadOnly));
        assert!(file.sync_data().await.is_err());
        assert_eq!(host.durable_file(FILE, |bytes| bytes == b"old"), Some(true));
        host.set_fault(None);
        file.sync_data().await.expect("sound again");
        assert_eq!(host.durable_file(FILE, |bytes| bytes == b"new"), Some(true));
    });
}

#[test]
fn a_disk_with_input_and_output_errors_answers_with_them() {
    simulated(async {
        let host = host(1);
        let file = durable(&host, b"old").await;
        host.set_fault(Some(DiskFault::Eio));
        let path = Path::new(FILE);
        assert_eq!(errno(file.read_all(9).await), Some(5));
        assert_eq!(errno(file.write_at(0, b"new").await), Some(5));
        assert_eq!(errno(host.mount().read_small(path).await), Some(5));
        assert!(file.try_lock().await.expect("no matter of the disk"));
        assert_eq!(host.snapshot().file(FILE), Some(&b"old"[..]));
        host.set_fault(None);
        assert_eq!(file.read_all(9).await.expect("sound again"), b"old");
        assert_eq!(host.reach.count("disk error"), 3);
    });
}

#[test]
fn what_hangs_goes_on_when_the_fault_ends_unless_it_died_meanwhile() {
    simulated(async {
        for killed in [false, true] {
            let host = host(1);
            let file = durable(&host, b"old").await;
            host.set_fault(Some(DiskFault::Hang));
            let mut write = file.write_at(0, b"new");
            assert!(ever(&mut write).await.is_none());
            assert_eq!(host.snapshot().file(FILE), Some(&b"old"[..]));
            if killed {
                host.kill();
            }
            host.set_fault(None);
            assert_eq!(ever(write).await.is_some(), !killed);
            let left = if killed { b"old" } else { b"new" };
            assert_eq!(host.snapshot().file(FILE), Some(&left[..]));
        }
    });
}

#[test]
fn a_slow_disk_takes_half_a_second() {
    simulated(async {
        let host = host(1);
        let file = durable(&host, b"old").await;
        host.set_fault(Some(DiskFault::Slow));
        let start = tokio::time::Instant::now();
        file.sync_data().await.expect("synced");
        assert_eq!(start.elapsed(), Duration::from_millis(500));
    });
}
