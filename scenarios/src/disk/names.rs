//! The names of files, as the kernel knows them and as the platter holds them.
//!
//! A name is durable once its directory was synced, and may be before. What was not synced survives a power cut in any order, but
//! for one rule, which every journal keeps: a change of a name survives only with the changes of the same names before it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::io::Errno;

use super::content::Content;
use super::image::Image;
use super::loss::PowerCut;

pub(super) type File = Rc<RefCell<Content>>;

type Directory = BTreeMap<PathBuf, File>;

/// All directories of a host. Every directory exists.
#[derive(Debug, Default)]
pub(super) struct Names {
    cache: Directory,
    platter: Directory,
    /// What was not synced, oldest first.
    unsynced: Vec<Change>,
}

/// One change, whole or not at all: a name goes, a name comes, or both.
#[derive(Debug)]
struct Change {
    gone: Option<PathBuf>,
    come: Option<(PathBuf, File)>,
}

/// What a power cut did to names that were not synced.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Settled {
    pub(super) kept: u64,
    pub(super) lost: u64,
    pub(super) torn: bool,
}

impl Change {
    fn paths(&self) -> impl Iterator<Item = &Path> {
        self.gone.as_deref().into_iter().chain(self.come.as_ref().map(|(path, _)| path.as_path()))
    }

    fn apply(&self, directory: &mut Directory) {
        if let Some(path) = &self.gone {
            directory.remove(path);
        }
        if let Some((path, file)) = &self.come {
            directory.insert(path.clone(), Rc::clone(file));
        }
    }
}

impl Names {
    /// The names and contents of an image, all of it durable.
    pub(super) fn restored(image: &Image) -> Self {
        let file = |bytes: &[u8]| Rc::new(RefCell::new(Content::durable_from(bytes.to_vec())));
        let cache: Directory = image.files().map(|(path, bytes)| (path.to_owned(), file(bytes))).collect();
        Self { platter: cache.clone(), cache, unsynced: Vec::new() }
    }

    pub(super) fn find(&self, path: &Path) -> Result<File, Errno> {
        self.cache.get(path).cloned().ok_or(Errno::NOENT)
    }

    pub(super) fn find_durable(&self, path: &Path) -> Option<&File> {
        self.platter.get(path)
    }

    pub(super) fn create(&mut self, path: &Path) -> File {
        let file = File::default();
        self.change(None, Some((path.to_owned(), Rc::clone(&file))));
        file
    }

    pub(super) fn remove(&mut self, path: &Path) -> Result<(), Errno> {
        self.find(path)?;
        self.change(Some(path.to_owned()), None);
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> Result<(), Errno> {
        let file = self.find(from)?;
        // rename(2) of a name to itself does nothing.
        if from != to {
            self.change(Some(from.to_owned()), Some((to.to_owned(), file)));
        }
        Ok(())
    }

    pub(super) fn rename_new(&mut self, from: &Path, to: &Path) -> Result<(), Errno> {
        self.find(from)?;
        match self.cache.contains_key(to) {
            true => Err(Errno::EXIST),
            false => self.rename(from, to),
        }
    }

    fn change(&mut self, gone: Option<PathBuf>, come: Option<(PathBuf, File)>) {
        let change = Change { gone, come };
        change.apply(&mut self.cache);
        self.unsynced.push(change);
    }

    /// Makes the names in a directory durable, and those elsewhere that they followed from.
    pub(super) fn sync(&mut self, dir: &Path) {
        for change in self.take_unsynced(dir) {
            change.apply(&mut self.platter);
        }
    }

    /// A sync that fails: no later one makes these changes durable.
    pub(super) fn fail_sync(&mut self, dir: &Path) {
        drop(self.take_unsynced(dir));
    }

    fn take_unsynced(&mut self, dir: &Path) -> Vec<Change> {
        let mut paths = Vec::<PathBuf>::new();
        let (mut taken, mut left) = (Vec::new(), Vec::new());
        for change in std::mem::take(&mut self.unsynced).into_iter().rev() {
            let wanted = |path: &Path| directory_of(path) == dir || paths.iter().any(|other| other == path);
            if change.paths().any(wanted) {
                paths.extend(change.paths().map(Path::to_owned));
                taken.push(change);
            } else {
                left.push(change);
            }
        }
        taken.reverse();
        left.reverse();
        self.unsynced = left;
        taken
    }

    /// Puts a file there, or takes it away, as another program that syncs everything.
    pub(super) fn provision(&mut self, path: &Path, bytes: Option<&[u8]>) {
        for change in std::mem::take(&mut self.unsynced) {
            change.apply(&mut self.platter);
        }
        let come = bytes.map(|bytes| {
            let file = Rc::new(RefCell::new(Content::durable_from(bytes.to_vec())));
            (path.to_owned(), file)
        });
        let change = Change { gone: Some(path.to_owned()), come };
        change.apply(&mut self.cache);
        change.apply(&mut self.platter);
    }

    /// Renames a file, as another program that syncs everything; false if there is none.
    pub(super) fn move_durably(&mut self, from: &Path, to: &Path) -> bool {
        let moved = self.rename(from, to).is_ok();
        for change in std::mem::take(&mut self.unsynced) {
            change.apply(&mut self.platter);
        }
        moved
    }

    /// The power is cut.
    pub(super) fn settle(&mut self, cut: &mut PowerCut) -> Settled {
        let mut settled = Settled::default();
        for file in self.files() {
            settled.torn |= file.borrow_mut().settle(cut);
        }
        let mut lost = Vec::<PathBuf>::new();
        for change in std::mem::take(&mut self.unsynced) {
            let follows = change.paths().any(|path| lost.iter().any(|other| other == path));
            if cut.keeps() && !follows {
                change.apply(&mut self.platter);
                settled.kept += 1;
            } else {
                lost.extend(change.paths().map(Path::to_owned));
                settled.lost += 1;
            }
        }
        self.cache.clone_from(&self.platter);
        settled
    }

    /// Whether a power cut could lose content.
    pub(super) fn has_unsynced_content(&self) -> bool {
        self.files().iter().any(|file| file.borrow().is_unsynced())
    }

    /// Every file that a name may lead to after a power cut, once, in an order that repeats.
    fn files(&self) -> Vec<File> {
        let changed = self.unsynced.iter().filter_map(|change| change.come.as_ref().map(|(_, file)| file));
        let mut files = Vec::<File>::new();
        for file in self.platter.values().chain(changed).chain(self.cache.values()) {
            if !files.iter().any(|other| Rc::ptr_eq(other, file)) {
                files.push(Rc::clone(file));
            }
        }
        files
    }

    pub(super) fn cached_image(&self) -> Image {
        self.cache.iter().map(|(path, file)| (path.clone(), file.borrow().cached().to_vec())).collect()
    }

    pub(super) fn durable_image(&self) -> Image {
        self.platter.iter().map(|(path, file)| (path.clone(), file.borrow().durable().to_vec())).collect()
    }
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
