//! Files that are changed whole or not at all, and are on stable storage when a function returns; over the disk's seam.
//!
//! A file is made under a name of its own, synced, and then renamed. What always holds:
//!
//! * the name is made by its maker, who holds a lock on the file; nobody else writes, renames or removes it meanwhile;
//! * a name whose file nobody has locked was left by a crash; whoever makes the same file next takes it away;
//! * success is said only if the name that was wanted leads to the very file that was written.

use std::io;
use std::path::{Path, PathBuf};

use crate::seams::{Disk, DiskFile, Open};

/// The disk failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} `{}`: {source}", path.display())]
pub struct DurableFileError {
    /// What was done.
    pub doing: &'static str,
    /// The file.
    pub path: PathBuf,
    /// The disk's error.
    pub source: io::Error,
}

impl DurableFileError {
    pub(crate) fn at(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { doing, path: path.into(), source }
    }
}

/// How many may make a file of one name at once.
const MAKERS: u32 = 16;

/// A file without content under a temporary name, which is ours as long as this is there.
pub(crate) struct Fresh {
    pub(crate) file: Box<dyn DiskFile>,
    temporary: PathBuf,
}

impl Fresh {
    /// Makes a file that is to be named `path`.
    pub(crate) async fn make(disk: &dyn Disk, path: &Path) -> Result<Self, DurableFileError> {
        for maker in 0..MAKERS {
            let temporary = temporary(path, maker);
            if !clear(disk, &temporary).await? {
                continue;
            }
            let file = match disk.open(&temporary, Open::New).await {
                // Another was faster.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                other => other.map_err(DurableFileError::at("create", &temporary))?,
            };
            if is_ours(&*file, &temporary).await? {
                return Ok(Self { file, temporary });
            }
        }
        let busy = io::Error::new(io::ErrorKind::ResourceBusy, "too many processes make it at once");
        Err(DurableFileError::at("create", path)(busy))
    }

    /// Writes the content from the start, and syncs it.
    pub(crate) async fn fill(self, disk: &dyn Disk, content: &[u8]) -> Result<Self, DurableFileError> {
        match self.file.write_durable(0, content).await {
            Ok(()) => Ok(self),
            Err(error) => {
                let failed = DurableFileError::at("write", &self.temporary)(error);
                self.give_up(disk).await;
                Err(failed)
            }
        }
    }

    /// Gives it its name, which nothing has yet: an error of kind `AlreadyExists` if something has.
    pub(crate) async fn name_new(
        self,
        disk: &dyn Disk,
        path: &Path,
    ) -> Result<Box<dyn DiskFile>, DurableFileError> {
        let renamed = disk.rename_new(&self.temporary, path).await;
        self.named(disk, path, renamed).await
    }

    /// Gives it its name, in the place of what has it.
    pub(crate) async fn name(
        self,
        disk: &dyn Disk,
        path: &Path,
    ) -> Result<Box<dyn DiskFile>, DurableFileError> {
        let renamed = disk.rename(&self.temporary, path).await;
        self.named(disk, path, renamed).await
    }

    async fn named(
        self,
        disk: &dyn Disk,
        path: &Path,
        renamed: io::Result<()>,
    ) -> Result<Box<dyn DiskFile>, DurableFileError> {
        if let Err(error) = renamed {
            let failed = DurableFileError::at("rename", &self.temporary)(error);
            self.give_up(disk).await;
            return Err(failed);
        }
        sync(disk, path).await?;
        match self.file.is_at(path).await.map_err(DurableFileError::at("look at", path))? {
            true => Ok(self.file),
            false => {
                let other = io::Error::other("another process has put a file there meanwhile");
                Err(DurableFileError::at("name", path)(other))
            }
        }
    }

    /// Takes the temporary name away; if that fails, the next maker does.
    pub(crate) async fn give_up(self, disk: &dyn Disk) {
        let _ = disk.remove(&self.temporary).await;
    }
}

/// Gives a file new content.
pub(crate) async fn replace(disk: &dyn Disk, path: &Path, content: &[u8]) -> Result<(), DurableFileError> {
    let file = Fresh::make(disk, path).await?.fill(disk, content).await?;
    file.name(disk, path).await.map(drop)
}

/// Makes a file; an error of kind `AlreadyExists` if there is anything of that name.
pub(crate) async fn create(disk: &dyn Disk, path: &Path, content: &[u8]) -> Result<(), DurableFileError> {
    let file = Fresh::make(disk, path).await?.fill(disk, content).await?;
    file.name_new(disk, path).await.map(drop)
}

/// Takes a name away, if there is one.
pub(crate) async fn remove(disk: &dyn Disk, path: &Path) -> Result<(), DurableFileError> {
    match disk.remove(path).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(DurableFileError::at("remove", path)(error)),
        Ok(()) => sync(disk, path).await,
    }
}

/// Renames, over what has the name.
pub(crate) async fn rename(disk: &dyn Disk, from: &Path, to: &Path) -> Result<(), DurableFileError> {
    disk.rename(from, to).await.map_err(DurableFileError::at("rename", from))?;
    sync(disk, to).await
}

async fn sync(disk: &dyn Disk, path: &Path) -> Result<(), DurableFileError> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    disk.sync_dir(dir).await.map_err(DurableFileError::at("sync", dir))
}

/// `.NAME.monosign-N` beside the file: no name that anybody gives to a file of theirs.
fn temporary(path: &Path, maker: u32) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".monosign-{maker}"));
    path.with_file_name(name)
}

/// Takes a temporary name away that a crash has left. False if its maker is at work.
async fn clear(disk: &dyn Disk, temporary: &Path) -> Result<bool, DurableFileError> {
    let file = match disk.open(temporary, Open::Existing).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        other => other.map_err(DurableFileError::at("open", temporary))?,
    };
    if !is_ours(&*file, temporary).await? {
        return Ok(false);
    }
    // The name goes, never the content: the file may have another name too.
    disk.remove(temporary).await.map_err(DurableFileError::at("remove", temporary))?;
    Ok(true)
}

/// Whether the file is ours alone, and of that name: who takes the name away has locked the file before.
async fn is_ours(file: &dyn DiskFile, path: &Path) -> Result<bool, DurableFileError> {
    let locked = file.try_lock().await.map_err(DurableFileError::at("lock", path))?;
    Ok(locked && file.is_at(path).await.map_err(DurableFileError::at("look at", path))?)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::fs;

    use super::*;
    use crate::seams::interrupted::{Interrupted, now};
    use crate::seams::{Local, StdDisk};

    type Make = for<'a> fn(&'a dyn Disk, &'a Path, &'a [u8]) -> Local<'a, Result<(), DurableFileError>>;

    /// One begins to make a file, and at each of its operations in turn another makes it. Gives what each said, and what is there.
    fn races(make: Make) -> Vec<(bool, bool, Vec<u8>)> {
        let mut seen = Vec::new();
        for at in 0.. {
            let dir = tempfile::tempdir().expect("a directory");
            let path = dir.path().join("file");
            let said = Cell::new(None);
            let others = || {
                let made = now(make(&StdDisk::default(), &path, b"the other's"));
                said.set(Some(made.is_ok()));
            };
            let disk = Interrupted::new(at, &others);
            let one = now(make(&disk, &path, b"the one's")).is_ok();
            let Some(other) = said.get() else { return seen };
            let left: Vec<_> = fs::read_dir(dir.path()).expect("readable").collect();
            assert_eq!(left.len(), 1, "nothing is left over at operation {at}: {left:?}");
            seen.push((one, other, fs::read(&path).expect("the file")));
        }
        seen
    }

    #[test]
    fn of_two_who_make_a_file_at_once_one_has_and_it_holds_what_that_one_wrote() {
        let seen = races(|disk, path, content| Box::pin(create(disk, path, content)));
        assert!(seen.len() >= 4, "{seen:?}");
        for (at, (one, other, content)) in seen.into_iter().enumerate() {
            let expected: &[u8] = match (one, other) {
                (true, false) => b"the one's",
                (false, true) => b"the other's",
                both => panic!("operation {at}: {both:?}"),
            };
            assert_eq!(content, expected, "operation {at}");
        }
    }

    #[test]
    fn of_two_who_replace_a_file_at_once_both_have_and_it_is_whole() {
        let seen = races(|disk, path, content| Box::pin(replace(disk, path, content)));
        for (at, (one, other, content)) in seen.into_iter().enumerate() {
            assert!(other, "operation {at}");
            // Who was replaced before it could look says so.
            assert!(content == b"the one's" || (content == b"the other's" && !one), "operation {at}");
        }
    }

    #[test]
    fn a_maker_at_work_is_left_alone_and_a_dead_one_is_cleared_away() {
        let dir = tempfile::tempdir().expect("a directory");
        let (disk, path) = (StdDisk::default(), dir.path().join("file"));
        let at_work = now(Fresh::make(&disk, &path)).expect("a file");
        now(create(&disk, &path, b"mine")).expect("made");
        assert!(at_work.temporary.exists(), "it is still at work");
        let left = at_work.temporary.clone();
        drop(at_work);
        now(replace(&disk, &path, b"mine again")).expect("made");
        assert!(!left.exists() && fs::read(&path).expect("the file") == b"mine again");
    }

    #[test]
    fn too_many_makers_are_an_error_and_not_a_loop() {
        let dir = tempfile::tempdir().expect("a directory");
        let (disk, path) = (StdDisk::default(), dir.path().join("file"));
        let at_work: Vec<_> = (0..MAKERS).map(|_| now(Fresh::make(&disk, &path)).expect("a file")).collect();
        let error = now(create(&disk, &path, b"mine")).expect_err("too many");
        assert_eq!(error.source.kind(), io::ErrorKind::ResourceBusy);
        drop(at_work);
        now(create(&disk, &path, b"mine")).expect("made");
    }
}
