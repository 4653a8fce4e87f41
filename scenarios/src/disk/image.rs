//! A picture of a disk.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// The files of a host at one moment: to be looked at, put back, or put on another host.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Image {
    files: BTreeMap<PathBuf, Vec<u8>>,
}

impl Image {
    /// The bytes of a file, if there is one of that name.
    pub fn file(&self, path: impl AsRef<Path>) -> Option<&[u8]> {
        self.files.get(path.as_ref()).map(Vec::as_slice)
    }

    /// All files, by their paths.
    pub fn files(&self) -> impl Iterator<Item = (&Path, &[u8])> {
        self.files.iter().map(|(path, bytes)| (path.as_path(), bytes.as_slice()))
    }

    /// Puts a file in, in the place of one of the same name.
    pub fn insert(&mut self, path: impl Into<PathBuf>, bytes: impl Into<Vec<u8>>) {
        self.files.insert(path.into(), bytes.into());
    }

    /// Takes a file out; false if there was none.
    pub fn remove(&mut self, path: impl AsRef<Path>) -> bool {
        self.files.remove(path.as_ref()).is_some()
    }
}

impl FromIterator<(PathBuf, Vec<u8>)> for Image {
    fn from_iter<I: IntoIterator<Item = (PathBuf, Vec<u8>)>>(files: I) -> Self {
        Self { files: files.into_iter().collect() }
    }
}

/// Names and lengths: the bytes are of no use to a reader.
impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.files.iter().map(|(path, bytes)| (path, bytes.len()))).finish()
    }
}
