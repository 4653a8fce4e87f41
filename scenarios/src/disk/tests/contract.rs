//! What the signer may rely on, tried on both forms of the seam: on production's disk, inline and with its threads, and on the
//! simulated one. What only the kernel can tell (that a sync is one, and which mode a file has) is counted in `signer/tests/durable.rs`.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use monosign::seams::{Claim, Disk, DiskFile, Open, StdDisk};

use super::{host, simulated};

/// One form: two processes on one host, and a directory.
struct Form {
    name: &'static str,
    one: Rc<dyn Disk>,
    other: Rc<dyn Disk>,
    dir: PathBuf,
}

impl Form {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    async fn create(&self, name: &str, content: &[u8]) -> Box<dyn DiskFile> {
        let file = self.one.open(&self.path(name), Open::New).await.expect("not there yet");
        file.write_durable(0, content).await.expect("written");
        file
    }

    async fn read(&self, name: &str) -> Vec<u8> {
        let file = self.other.open(&self.path(name), Open::Existing).await.expect("there");
        file.read_all(1 << 20).await.expect("readable")
    }
}

/// Tries a part of the contract on each form.
fn on_each(part: impl AsyncFn(&Form)) {
    let temporary = tempfile::tempdir().expect("a directory");
    let production = |name: &'static str, others_wait: bool| {
        let (one, other) = (StdDisk::default(), StdDisk::default());
        one.others_wait(others_wait);
        other.others_wait(others_wait);
        let dir = temporary.path().join(name);
        std::fs::create_dir(&dir).expect("a directory");
        Form { name, one: Rc::new(one), other: Rc::new(other), dir }
    };
    let host = host(1);
    let simulation =
        Form { name: "simulated", one: host.mount(), other: host.mount(), dir: crate::disk::HOME.into() };
    for form in [production("inline", false), production("threads", true), simulation] {
        println!("{}", form.name);
        simulated(part(&form));
    }
}

fn kind<T>(result: std::io::Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

#[test]
fn a_file_is_made_once_and_opened_if_it_is_there() {
    on_each(async |form| {
        let path = form.path("a");
        assert_eq!(kind(form.one.open(&path, Open::Existing).await), Some(ErrorKind::NotFound));
        assert_eq!(form.one.read_small(&path).await.expect("no error"), None);
        form.create("a", b"content").await;
        assert_eq!(kind(form.other.open(&path, Open::New).await), Some(ErrorKind::AlreadyExists));
        assert_eq!(form.read("a").await, b"content");
        assert_eq!(form.other.read_small(&path).await.expect("no error").as_deref(), Some("content"));
        assert!(form.other.is_there(&path).await.expect("no error"));
    });
}

#[test]
fn what_was_written_is_read_by_everybody_and_in_the_order_that_it_was_asked_for() {
    on_each(async |form| {
        let file = form.create("a", b"0123456789").await;
        file.write_at(12, b"xy").await.expect("written");
        assert_eq!(form.read("a").await, b"0123456789\0\0xy");
        // Nobody waits for the first, and it is done all the same.
        drop(file.write_at(0, b"first"));
        let second = file.write_at(0, b"2");
        second.await.expect("written");
        assert_eq!(&form.read("a").await[..5], b"2irst");
        assert_eq!(kind(file.read_all(13).await), Some(ErrorKind::FileTooLarge));
        assert_eq!(file.read_all(14).await.expect("exactly so long").len(), 14);
    });
}

#[test]
fn only_the_beginning_of_a_file_is_small() {
    on_each(async |form| {
        form.create("a", &[b'x'; 5000]).await;
        let read = form.one.read_small(&form.path("a")).await.expect("no error").expect("there");
        assert_eq!(read.len(), 4096);
    });
}

#[test]
fn a_lock_is_one_handles_goes_with_the_file_and_ends_with_the_handle() {
    on_each(async |form| {
        let file = form.create("a", b"").await;
        let again = form.other.open(&form.path("a"), Open::Existing).await.expect("there");
        assert!(file.try_lock().await.expect("no error"));
        assert!(file.try_lock().await.expect("no error"), "its own");
        assert!(!again.try_lock().await.expect("no error"));
        form.one.rename(&form.path("a"), &form.path("b")).await.expect("renamed");
        let moved = form.other.open(&form.path("b"), Open::Existing).await.expect("there");
        assert!(!moved.try_lock().await.expect("no error"), "wherever it lies");
        let new = form.create("a", b"").await;
        assert!(new.try_lock().await.expect("no error"), "another file of the old name");
        drop(file);
        // A thread that has nothing left to do ends when it comes to it.
        for _ in 0..1000 {
            if moved.try_lock().await.expect("no error") {
                return;
            }
            std::thread::yield_now();
        }
        panic!("still locked");
    });
}

#[test]
fn a_new_name_is_never_anothers_and_a_rename_replaces() {
    on_each(async |form| {
        let (a, b, c) = (form.path("a"), form.path("b"), form.path("c"));
        form.create("a", b"a").await;
        form.create("b", b"b").await;
        assert_eq!(kind(form.one.rename_new(&a, &b).await), Some(ErrorKind::AlreadyExists));
        assert_eq!((form.read("a").await, form.read("b").await), (b"a".to_vec(), b"b".to_vec()));
        form.one.rename_new(&a, &c).await.expect("free");
        assert_eq!(kind(form.other.open(&a, Open::Existing).await), Some(ErrorKind::NotFound));
        assert_eq!(form.read("c").await, b"a");
        form.one.rename(&c, &b).await.expect("replaced");
        assert_eq!(form.read("b").await, b"a");
        assert_eq!(kind(form.other.open(&c, Open::Existing).await), Some(ErrorKind::NotFound));
        assert_eq!(kind(form.one.rename(&c, &b).await), Some(ErrorKind::NotFound));
        assert_eq!(kind(form.one.rename_new(&c, &a).await), Some(ErrorKind::NotFound));
        form.one.sync_dir(&form.dir).await.expect("synced");
    });
}

#[test]
fn a_name_that_is_taken_away_leaves_the_file_to_who_has_it_open() {
    on_each(async |form| {
        let file = form.create("a", b"old").await;
        form.other.remove(&form.path("a")).await.expect("removed");
        assert_eq!(kind(form.other.remove(&form.path("a")).await), Some(ErrorKind::NotFound));
        form.create("a", b"new").await;
        file.write_durable(0, b"OLD").await.expect("written");
        assert_eq!(file.read_all(100).await.expect("readable"), b"OLD");
        assert_eq!(form.read("a").await, b"new");
    });
}

#[test]
fn a_file_knows_whether_a_path_leads_to_it() {
    on_each(async |form| {
        let (a, b) = (form.path("a"), form.path("b"));
        let file = form.create("a", b"one").await;
        let is_at = async |path: &Path| file.is_at(path).await.expect("no error");
        assert!(is_at(&a).await && !is_at(&b).await);
        assert!(file.write_durable_at(&a, 0, b"two").await.expect("written"));
        form.other.rename(&a, &b).await.expect("renamed");
        assert!(!is_at(&a).await && is_at(&b).await);
        // Another file of the same content.
        form.create("a", b"two").await;
        assert!(!is_at(&a).await);
        assert!(!file.write_durable_at(&a, 0, b"III").await.expect("written"), "written, and elsewhere");
        assert_eq!((form.read("a").await, form.read("b").await), (b"two".to_vec(), b"III".to_vec()));
        form.other.rename(&b, &a).await.expect("put back");
        assert!(is_at(&a).await);
        form.other.remove(&a).await.expect("removed");
        assert!(!is_at(&a).await && !file.write_durable_at(&a, 0, b"4").await.expect("written"));
    });
}

#[test]
fn a_name_of_the_host_is_one_holders_at_a_time() {
    on_each(async |form| {
        let name = format!("monosign-contract-{}-{}", std::process::id(), form.name);
        let other_name = format!("{name}-other");
        assert_eq!(form.one.holder(&name).await.expect("no error"), None);
        let Claim::Ours(held) = form.one.claim(&name).await.expect("no error") else { panic!("free") };
        for disk in [&form.one, &form.other] {
            assert!(matches!(disk.claim(&name).await.expect("no error"), Claim::Others(_)));
            assert!(disk.holder(&name).await.expect("no error").is_some());
            assert!(matches!(disk.claim(&other_name).await.expect("no error"), Claim::Ours(_)));
        }
        // Whatever becomes of files.
        form.create("a", b"").await;
        form.one.remove(&form.path("a")).await.expect("removed");
        assert!(matches!(form.other.claim(&name).await.expect("no error"), Claim::Others(_)));
        drop(held);
        assert_eq!(form.other.holder(&name).await.expect("no error"), None);
        assert!(matches!(form.other.claim(&name).await.expect("no error"), Claim::Ours(_)));
    });
}
