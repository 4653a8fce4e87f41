//! Processes on a disk: their death, their locks, their crash points, and what passes from host to host.

use std::io;

use super::*;
use crate::disk::Image;

#[test]
fn a_kill_keeps_the_page_cache_and_frees_the_lock() {
    simulated(async {
        let host = host(1);
        let file = durable(&host, b"old").await;
        assert!(file.try_lock().await.expect("no fault"));
        file.write_at(0, b"new").await.expect("written");
        let second = open(&*host.mount(), FILE).await;
        assert!(!second.try_lock().await.expect("no fault"), "another process on the host");
        host.kill();
        let file = open(&*host.mount(), FILE).await;
        assert!(file.try_lock().await.expect("no fault"), "though the dead one's handle is still about");
        assert_eq!(file.read_all(9).await.expect("readable"), b"new");
        assert_eq!(host.durable_file(FILE, |bytes| bytes == b"old"), Some(true));
        assert_eq!(host.reach.counts(), [("kill between write and sync", 1)].into());
    });
}

#[test]
fn a_lock_belongs_to_the_handle_and_goes_with_it() {
    simulated(async {
        let host = host(1);
        let first = durable(&host, b"").await;
        let second = open(&*host.mount(), FILE).await;
        assert!(first.try_lock().await.expect("no fault"));
        assert!(first.try_lock().await.expect("no fault"), "its own");
        assert!(!second.try_lock().await.expect("no fault"));
        drop(first);
        assert!(second.try_lock().await.expect("no fault"));
    });
}

#[test]
fn the_dead_neither_write_nor_return() {
    simulated(async {
        for cut in [true, false] {
            let host = host(1);
            let disk = host.mount();
            let file = durable(&host, b"old").await;
            let write = file.write_at(0, b"new");
            if cut {
                host.power_cut(Loss::None)
            } else {
                host.kill()
            }
            assert!(ever(write).await.is_none());
            assert!(ever(file.sync_data()).await.is_none());
            assert!(ever(disk.remove(Path::new(FILE))).await.is_none());
            assert!(ever(disk.read_small(Path::new(FILE))).await.is_none());
            assert_eq!(host.snapshot().file(FILE), Some(&b"old"[..]));
        }
    });
}

/// The signer's files have a thread each, which does what it was asked for also if nobody waits.
#[test]
fn an_operation_goes_on_when_nobody_waits_for_it() {
    simulated(async {
        for seed in 0..20 {
            let host = host(seed);
            let file = durable(&host, b"old").await;
            drop(file.write_at(0, b"1st"));
            file.write_at(1, b"2").await.expect("written");
            assert_eq!(host.snapshot().file(FILE), Some(&b"12t"[..]), "in order");
        }
    });
}

#[test]
fn an_operation_takes_half_its_time_before_its_effect() {
    simulated(async {
        let latency = SpanRange::always(Duration::from_millis(10));
        let host = HostDisk::new("signer", latency, Streams::new(1).of("disk"), Reach::default());
        host.write_file(FILE, b"old");
        let file = open(&*host.mount(), FILE).await;
        let start = tokio::time::Instant::now();
        let write = file.write_at(0, b"new");
        for (at, shows) in [(4, b"old"), (6, b"new")] {
            tokio::time::sleep_until(start + Duration::from_millis(at)).await;
            assert_eq!(host.snapshot().file(FILE), Some(&shows[..]), "after {at} ms");
        }
        write.await.expect("written");
        assert_eq!(start.elapsed(), Duration::from_millis(10));
    });
}

#[test]
fn a_crash_point_stops_the_process_before_or_after_the_effect() {
    simulated(async {
        for (point, name, shows) in
            [(0, "crash point before write_at", b"old"), (1, "crash point after write_at", b"new")]
        {
            let host = host(1);
            let file = durable(&host, b"old").await;
            let other = open(&*host.mount(), FILE).await;
            let passed = host.points_passed();
            host.crash_at(point);
            assert!(ever(file.write_at(0, b"new")).await.is_none());
            assert_eq!((host.crash_hit(), host.points_passed()), (Some(name), passed + point + 1));
            assert!(ever(other.write_at(0, b"???")).await.is_none(), "all of the process stops");
            assert_eq!(host.snapshot().file(FILE), Some(&shows[..]));
            host.power_cut(Loss::None);
            assert_eq!((host.crash_hit(), host.reach.count(name)), (None, 1));
            assert!(ever(open(&*host.mount(), FILE)).await.is_some());
        }
    });
}

#[test]
fn a_crash_point_waits_for_the_next_process_and_can_be_taken_back() {
    simulated(async {
        let host = host(1);
        let file = durable(&host, b"old").await;
        host.crash_at(0);
        host.kill();
        assert!(ever(file.sync_data()).await.is_none());
        assert_eq!(host.crash_hit(), None, "the dead pass no points");
        host.disarm();
        assert!(ever(host.mount().sync_dir(Path::new(DIR))).await.is_some());
        host.crash_at(0);
        assert!(ever(host.mount().sync_dir(Path::new(DIR))).await.is_none());
        assert_eq!(host.crash_hit(), Some("crash point before sync_dir"));
    });
}

#[test]
fn an_image_can_be_put_back_and_put_elsewhere() {
    simulated(async {
        let (from, to) = (host(1), host(2));
        let file = durable(&from, b"old").await;
        let before = from.snapshot();
        file.write_at(0, b"new").await.expect("written");
        assert_eq!(from.durable_image(), before);
        to.restore(&from.snapshot());
        assert_eq!(to.durable_file(FILE, <[u8]>::to_vec).as_deref(), Some(&b"new"[..]));
        from.restore(&before);
        assert!(ever(file.write_at(0, b"???")).await.is_none(), "who ran on it is dead");
        assert_eq!(from.snapshot(), before);
        assert_eq!(to.snapshot().file(FILE), Some(&b"new"[..]), "a copy of its own");
    });
}

#[test]
fn a_provisioned_file_is_durable_and_a_removed_one_is_gone_for_good() {
    simulated(async {
        let host = host(1);
        host.write_file("/etc/monosign.toml", b"[[chain]]");
        create(&*host.mount(), FILE).await;
        assert!(host.remove_file(FILE) && !host.remove_file(FILE));
        host.power_cut(Loss::None);
        let image: Image = [("/etc/monosign.toml".into(), b"[[chain]]".to_vec())].into_iter().collect();
        assert_eq!((host.snapshot(), host.durable_image()), (image.clone(), image));
    });
}

#[test]
fn opening_creating_and_renaming_answer_as_the_kernel_does() {
    simulated(async {
        let host = host(1);
        let disk = host.mount();
        let (file, new) = (Path::new(FILE), Path::new(NEW));
        let missing = disk.open(file, Open::Existing).await.err().expect("missing");
        assert_eq!((missing.kind(), missing.raw_os_error()), (io::ErrorKind::NotFound, Some(2)));
        assert_eq!(disk.read_small(file).await.expect("no error"), None);
        for missing in
            [disk.rename(new, file).await, disk.rename_new(new, file).await, disk.remove(file).await]
        {
            assert_eq!(missing.expect_err("missing").kind(), io::ErrorKind::NotFound);
        }
        create(&*disk, FILE).await.write_at(0, b"text").await.expect("written");
        let there = disk.open(file, Open::New).await.err().expect("taken");
        assert_eq!((there.kind(), there.raw_os_error()), (io::ErrorKind::AlreadyExists, Some(17)));
        create(&*disk, NEW).await;
        assert_eq!(disk.rename_new(new, file).await.expect_err("taken").kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(disk.read_small(file).await.expect("small").as_deref(), Some("text"));
        disk.rename(file, file).await.expect("to itself");
        let long = open(&*disk, FILE).await.read_all(3).await.expect_err("too long");
        assert_eq!(long.kind(), io::ErrorKind::FileTooLarge);
    });
}
