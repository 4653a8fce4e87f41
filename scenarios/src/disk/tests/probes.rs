//! What Linux and POSIX answer to the questions that tell models of a disk apart.

use std::collections::BTreeSet;
use std::io;

use super::*;
use crate::disk::content::SECTOR;

#[test]
fn an_overwrite_that_was_not_synced_may_be_lost_or_kept() {
    simulated(async {
        for (loss, left) in [(Loss::All, b"old"), (Loss::None, b"new")] {
            let host = host(1);
            durable(&host, b"old").await.write_at(0, b"new").await.expect("written");
            assert_eq!(host.cached_file(FILE, <[u8]>::to_vec).as_deref(), Some(&b"new"[..]), "reads show it");
            assert_eq!(after_cut(&host, loss).as_deref(), Some(&left[..]));
        }
    });
}

#[test]
fn a_new_file_that_was_synced_without_its_directory_may_be_gone() {
    simulated(async {
        for (loss, left) in [(Loss::All, None), (Loss::None, Some(b"data".to_vec()))] {
            let host = host(1);
            let file = create(&*host.mount(), FILE).await;
            file.write_at(0, b"data").await.expect("written");
            file.sync_data().await.expect("synced");
            assert_eq!(after_cut(&host, loss), left);
        }
    });
}

#[test]
fn a_new_file_whose_directory_alone_was_synced_may_be_empty() {
    simulated(async {
        let host = host(1);
        let disk = host.mount();
        create(&*disk, FILE).await.write_at(0, b"data").await.expect("written");
        sync_dir(&*disk).await;
        assert_eq!(after_cut(&host, Loss::All), Some(vec![]));
    });
}

/// Writes a new file, syncs it and renames it over the old one.
async fn replace(disk: &dyn Disk) {
    let file = create(disk, NEW).await;
    file.write_at(0, b"new").await.expect("written");
    file.sync_data().await.expect("synced");
    rename(disk, NEW, FILE).await;
}

#[test]
fn a_replacement_is_durable_once_the_directory_was_synced() {
    simulated(async {
        let host = host(1);
        host.write_file(FILE, b"old");
        replace(&*host.mount()).await;
        assert_eq!(after_cut(&host, Loss::All).as_deref(), Some(&b"old"[..]));
        assert_eq!(host.cached_file(NEW, |_| ()), None);

        let disk = host.mount();
        replace(&*disk).await;
        sync_dir(&*disk).await;
        assert_eq!(after_cut(&host, Loss::All).as_deref(), Some(&b"new"[..]));
        assert_eq!(host.cached_file(NEW, |_| ()), None);
    });
}

#[test]
fn a_rename_of_unsynced_data_shows_the_data_and_may_lose_it() {
    simulated(async {
        let host = host(1);
        host.write_file(FILE, b"old");
        let disk = host.mount();
        create(&*disk, NEW).await.write_at(0, b"new").await.expect("written");
        rename(&*disk, NEW, FILE).await;
        sync_dir(&*disk).await;
        assert_eq!(open(&*disk, FILE).await.read_all(9).await.expect("readable"), b"new");
        assert_eq!(
            after_cut(&host, Loss::All),
            Some(vec![]),
            "the name without the data: no old content either"
        );
    });
}

#[test]
fn a_handle_follows_its_file_through_renames_and_removal() {
    simulated(async {
        let host = host(1);
        let disk = host.mount();
        let file = create(&*disk, NEW).await;
        rename(&*disk, NEW, FILE).await;
        file.write_at(0, b"late").await.expect("written");
        file.sync_data().await.expect("synced through the older handle");
        sync_dir(&*disk).await;
        assert_eq!(host.durable_file(FILE, <[u8]>::to_vec).as_deref(), Some(&b"late"[..]));
        disk.remove(Path::new(FILE)).await.expect("removed");
        assert_eq!(file.read_all(9).await.expect("still open"), b"late");
        let missing = disk.open(Path::new(FILE), Open::Existing).await.err().expect("gone");
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        assert_eq!(after_cut(&host, Loss::All).as_deref(), Some(&b"late"[..]), "the removal was not synced");
    });
}

/// The different contents, as the first byte of each part, that power cuts under many seeds leave of one write over zeros.
async fn left_of_a_write(parts: usize, part: usize, loss: Loss) -> BTreeSet<Vec<u8>> {
    let mut left = BTreeSet::new();
    for seed in 0..400 {
        let host = host(seed);
        let file = durable(&host, &vec![0; parts * part]).await;
        file.write_at(0, &vec![1; parts * part]).await.expect("written");
        let bytes = after_cut(&host, loss).expect("there");
        left.insert(bytes.chunks(part).map(|part| part[0]).collect());
    }
    left
}

#[test]
fn a_write_tears_between_sectors_in_every_way_and_inside_of_none() {
    simulated(async {
        assert_eq!(
            left_of_a_write(3, SECTOR, Loss::Random).await.len(),
            8,
            "every subset, not only prefixes"
        );
        let whole = left_of_a_write(SECTOR, 1, Loss::Random).await;
        assert_eq!(whole, [vec![0; SECTOR], vec![1; SECTOR]].into());
        let torn = left_of_a_write(SECTOR, 1, Loss::Torn).await;
        assert!(torn.iter().any(|left| left[0] == 0 && left[SECTOR - 1] == 1));
        assert!(torn.iter().any(|left| left[0] == 1 && left[SECTOR - 1] == 0));
    });
}

#[test]
fn two_writes_survive_without_each_other() {
    simulated(async {
        let mut left = BTreeSet::new();
        for seed in 0..200 {
            let host = host(seed);
            let file = durable(&host, &[0; 2 * SECTOR]).await;
            for (offset, byte) in [(0, 1), (SECTOR, 2), (0, 3)] {
                file.write_at(offset as u64, &[byte; SECTOR]).await.expect("written");
            }
            let bytes = after_cut(&host, Loss::Random).expect("there");
            left.insert((bytes[0], bytes[SECTOR]));
        }
        let all = [0, 1, 3].into_iter().flat_map(|first| [(first, 0), (first, 2)]).collect();
        assert_eq!(left, all, "the later without the earlier, and the first sector as it was in between");
    });
}

#[test]
fn names_survive_in_any_order_but_with_what_they_depend_on() {
    simulated(async {
        let mut left = BTreeSet::new();
        for seed in 0..400 {
            let host = host(seed);
            host.write_file(FILE, b"old");
            let disk = host.mount();
            replace(&*disk).await;
            create(&*disk, "/state/other").await;
            host.power_cut(Loss::Random);
            let image = host.snapshot();
            let content = image.file(FILE).map(<[u8]>::to_vec).expect("old or new, never neither");
            left.insert((content, image.file(NEW).is_some(), image.file("/state/other").is_some()));
        }
        let (old, new) = (b"old".to_vec(), b"new".to_vec());
        let files = [(old.clone(), false), (old, true), (new, false)];
        let all =
            files.into_iter().flat_map(|(content, there)| [true, false].map(|o| (content.clone(), there, o)));
        assert_eq!(left, all.collect(), "the last creation without the rename before it too");
    });
}

#[test]
fn a_file_that_was_moved_away_is_not_lost_to_the_one_that_took_its_name() {
    simulated(async {
        let mut left = BTreeSet::new();
        for seed in 0..200 {
            let host = host(seed);
            host.write_file(FILE, b"old");
            let disk = host.mount();
            rename(&*disk, FILE, NEW).await;
            create(&*disk, FILE).await;
            host.power_cut(Loss::Random);
            let content = |path| host.cached_file(path, <[u8]>::to_vec);
            left.insert((content(FILE), content(NEW)));
        }
        let old = Some(b"old".to_vec());
        assert_eq!(left, [(old.clone(), None), (None, old.clone()), (Some(vec![]), old)].into());
    });
}

#[test]
fn a_directory_sync_takes_along_what_its_names_follow_from_and_nothing_else() {
    simulated(async {
        for (loss, left) in [(Loss::All, &[FILE][..]), (Loss::None, &["/elsewhere/stays", FILE])] {
            let host = host(1);
            let disk = host.mount();
            create(&*disk, "/elsewhere/moved").await;
            create(&*disk, "/elsewhere/stays").await;
            rename(&*disk, "/elsewhere/moved", FILE).await;
            sync_dir(&*disk).await;
            host.power_cut(loss);
            let image = host.snapshot();
            let paths: Vec<_> = image.files().filter_map(|(path, _)| path.to_str()).collect();
            assert_eq!(paths, left);
        }
    });
}

#[test]
fn a_length_that_was_not_synced_is_lost_with_its_bytes() {
    simulated(async {
        let mut lengths = BTreeSet::new();
        for seed in 0..100 {
            let host = host(seed);
            let file = durable(&host, b"1234").await;
            for (offset, bytes) in [(4, b"56"), (6, b"78")] {
                file.write_at(offset, bytes).await.expect("written");
            }
            let left = after_cut(&host, Loss::Random).expect("there");
            assert!(left.starts_with(b"1234"), "{left:?}");
            lengths.insert(left.len());
        }
        assert_eq!(lengths, [4, 6, 8].into());
    });
}

/// Turmoil runs destructors at a power cut, and what they write survives.
#[test]
fn a_destructor_writes_nothing_after_a_power_cut() {
    struct WritesWhenDropped(Box<dyn DiskFile>);
    impl Drop for WritesWhenDropped {
        fn drop(&mut self) {
            drop(self.0.write_at(0, b"too late"));
        }
    }
    simulated(async {
        // Each operation takes as long as any other, so one that is asked for later is done later.
        let latency = SpanRange::always(Duration::from_millis(4));
        let host = HostDisk::new("signer", latency, Streams::new(1).of("disk/signer"), Reach::default());
        let file = WritesWhenDropped(durable(&host, b"old").await);
        host.power_cut(Loss::None);
        drop(file);
        assert_eq!(open(&*host.mount(), FILE).await.read_all(9).await.expect("readable"), b"old");
        assert_eq!(host.snapshot().file(FILE), Some(&b"old"[..]));
    });
}
