//! Files that hold secrets: read only if nobody else can, written once and never over another file.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use rustix::fs::OFlags;
use thiserror::Error;
use zeroize::Zeroizing;

use super::access;
use super::durable_file::{self, DurableFileError};
use crate::seams::StdDisk;

/// More than any key, identity or passphrase file has, in bytes.
const MAX_LENGTH: usize = 64 * 1024;

/// Reads a file that only its owner can read or write; or root's, that this process reads as one of its group (see [`access`]).
///
/// A symbolic link is followed; what it points to is what must be private. The content is wiped on drop.
///
/// # Errors
/// If the file can't be read, is no regular file, is larger than 64 KiB, or if others have any permission on it.
pub fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, PrivateFileError> {
    read(path, Some(access::is_private))
}

/// Reads a secret out of systemd's credentials directory.
///
/// systemd grants a service under its own user access by an ACL, which shows as permission of the group; the
/// directory around it is closed. So only permissions of others are refused.
///
/// # Errors
/// As [`read_private`], but permissions of the group are allowed.
pub fn read_credential(path: &Path) -> Result<Zeroizing<Vec<u8>>, PrivateFileError> {
    read(path, Some(|metadata| metadata.mode() & 0o007 == 0))
}

/// Reads a small regular file whoever may read it, into a buffer that is wiped on drop.
///
/// For files of other programs that are read once and whose permissions are not ours to demand.
///
/// # Errors
/// If the file can't be read, is no regular file, or is larger than 64 KiB.
pub fn read_wiping(path: &Path) -> Result<Zeroizing<Vec<u8>>, PrivateFileError> {
    read(path, None)
}

/// Reads `/dev/fd/N`, a descriptor that the process was started with: a file, a pipe, a memfd.
///
/// Whoever started the process opened it and handed it over, so that permissions say nothing. Waits until the
/// writing end of a pipe is closed.
///
/// # Errors
/// If the descriptor can't be read or gives more than 64 KiB.
pub fn read_inherited(path: &Path) -> Result<Zeroizing<Vec<u8>>, PrivateFileError> {
    let file = File::open(path).map_err(|error| PrivateFileError::read(path, &error))?;
    read_all(path, file)
}

/// Whether group or others have any permission on the file.
///
/// # Errors
/// If the file can't be looked at.
pub fn is_exposed(path: &Path) -> io::Result<bool> {
    Ok(std::fs::metadata(path)?.mode() & 0o077 != 0)
}

/// Refuses a file that holds a secret and that others can read. It is open, so it is the one that was read.
///
/// # Errors
/// [`PrivateFileError::Exposed`].
pub fn must_be_private(path: &Path, file: &File) -> Result<(), PrivateFileError> {
    let metadata = file.metadata().map_err(|error| PrivateFileError::read(path, &error))?;
    if access::is_private(&metadata) { Ok(()) } else { Err(PrivateFileError::exposed(path, &metadata)) }
}

/// Writes a new file with mode 0600, and syncs it and its directory.
///
/// # Errors
/// If anything of that name is there already, a dangling symbolic link included; it is left as it is. If writing
/// fails, the incomplete file is removed.
pub fn create_private(path: &Path, content: &[u8]) -> Result<(), PrivateFileError> {
    // Under another name first: a half of a key must not be found and trusted later.
    let created = at_once(durable_file::create(&StdDisk::default(), path, content));
    created.map_err(|error| match error.source.kind() {
        io::ErrorKind::AlreadyExists => PrivateFileError::Exists { path: path.to_owned() },
        _ => PrivateFileError::write(path, &error.source),
    })
}

/// A disk for which nobody waits does at once what it is asked.
fn at_once(created: impl Future<Output = Result<(), DurableFileError>>) -> Result<(), DurableFileError> {
    match pin!(created).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => unreachable!("a disk that is asked inline never waits"),
    }
}

fn read(
    path: &Path,
    is_private: Option<fn(&Metadata) -> bool>,
) -> Result<Zeroizing<Vec<u8>>, PrivateFileError> {
    // Not to hang on a pipe that somebody put in the place of the file.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)
        .map_err(|error| PrivateFileError::read(path, &error))?;
    // Of the open file, not of the path, which may be another one by now.
    let metadata = file.metadata().map_err(|error| PrivateFileError::read(path, &error))?;
    if !metadata.is_file() {
        return Err(PrivateFileError::NotAFile { path: path.to_owned() });
    }
    if is_private.is_some_and(|is_private| !is_private(&metadata)) {
        return Err(PrivateFileError::exposed(path, &metadata));
    }
    read_all(path, file)
}

fn read_all(path: &Path, file: File) -> Result<Zeroizing<Vec<u8>>, PrivateFileError> {
    // Of full capacity from the start: a growing buffer leaves copies behind that nobody wipes.
    let mut content = Zeroizing::new(Vec::with_capacity(MAX_LENGTH + 1));
    let limit = u64::try_from(MAX_LENGTH).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit).read_to_end(&mut content).map_err(|error| PrivateFileError::read(path, &error))?;
    if content.len() > MAX_LENGTH {
        return Err(PrivateFileError::TooLarge { path: path.to_owned() });
    }
    Ok(content)
}

/// Why a private file was not read or not written.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PrivateFileError {
    /// Group or others have permissions on the file.
    #[error(
        "`{path}` is open to other users (mode {mode:04o})\nhint: {way_on}",
        path = path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// What makes it private.
        way_on: String,
    },
    /// A directory, pipe, socket or device.
    #[error("`{path}` is not a regular file\nhint: give the path of the file itself", path = path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// Larger than any key file.
    #[error("`{path}` is larger than 64 KiB\nhint: this is no key file; check the path", path = path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Something of that name is there already.
    #[error(
        "`{path}` exists already and is never overwritten\n\
         hint: choose another name, or move the old file away if you are sure that no chain needs it",
        path = path.display()
    )]
    Exists {
        /// The path.
        path: PathBuf,
    },
    /// Reading failed.
    #[error("cannot read `{path}`: {reason}\nhint: check the path, and the user that the signer runs as", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        reason: String,
        /// Its kind.
        kind: io::ErrorKind,
    },
    /// Writing failed.
    #[error("cannot write `{path}`: {reason}\nhint: check that the directory exists and has room", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        reason: String,
    },
}

impl PrivateFileError {
    /// Whether it was refused for safety: a secret that others can read, or a file that would be overwritten.
    pub fn is_for_safety(&self) -> bool {
        matches!(self, Self::Exposed { .. } | Self::Exists { .. })
    }

    /// Whether there is no such file.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Read { kind: io::ErrorKind::NotFound, .. })
    }

    fn exposed(path: &Path, metadata: &Metadata) -> Self {
        let way_on = access::way_to_privacy(path, metadata);
        Self::Exposed { path: path.to_owned(), mode: metadata.mode() & 0o7777, way_on }
    }

    fn read(path: &Path, error: &io::Error) -> Self {
        Self::Read { path: path.to_owned(), reason: error.to_string(), kind: error.kind() }
    }

    fn write(path: &Path, error: &io::Error) -> Self {
        Self::Write { path: path.to_owned(), reason: error.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn written(directory: &tempfile::TempDir, mode: u32) -> PathBuf {
        let path = directory.path().join(format!("{mode:o}"));
        fs::write(&path, "secret").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn reads_what_only_the_owner_can_read() {
        let directory = tempfile::tempdir().unwrap();
        for mode in [0o600, 0o400, 0o700] {
            assert_eq!(**read_private(&written(&directory, mode)).unwrap(), *b"secret");
        }
    }

    #[test]
    fn refuses_any_permission_of_group_or_others() {
        let directory = tempfile::tempdir().unwrap();
        for mode in [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o644] {
            let path = written(&directory, mode);
            let error = read_private(&path).unwrap_err();
            assert!(matches!(&error, PrivateFileError::Exposed { mode: found, .. } if *found == mode));
            assert!(error.to_string().ends_with(&format!(
                "hint: run `chmod 600 {}`, and think about who read it",
                path.display()
            )));
            assert!(is_exposed(&path).unwrap());
            assert!(read_wiping(&path).is_ok());
        }
    }

    #[test]
    fn allows_the_group_on_a_credential_but_not_others() {
        let directory = tempfile::tempdir().unwrap();
        assert!(read_credential(&written(&directory, 0o440)).is_ok());
        assert!(read_credential(&written(&directory, 0o444)).is_err());
    }

    #[test]
    fn follows_a_link_and_checks_its_target() {
        let directory = tempfile::tempdir().unwrap();
        for (mode, good) in [(0o600, true), (0o644, false)] {
            let link = directory.path().join(format!("link-{mode:o}"));
            symlink(written(&directory, mode), &link).unwrap();
            assert_eq!(read_private(&link).is_ok(), good);
        }
    }

    #[test]
    fn refuses_directories_pipes_and_large_files() {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o700)).unwrap();
        assert!(matches!(read_private(directory.path()), Err(PrivateFileError::NotAFile { .. })));

        let pipe = directory.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(matches!(read_private(&pipe), Err(PrivateFileError::NotAFile { .. })), "and does not hang");

        let large = directory.path().join("large");
        create_private(&large, &vec![0; MAX_LENGTH + 1]).unwrap();
        assert!(matches!(read_private(&large), Err(PrivateFileError::TooLarge { .. })));
    }

    #[test]
    fn missing_file_is_told_from_other_failures() {
        let directory = tempfile::tempdir().unwrap();
        assert!(read_private(&directory.path().join("none")).unwrap_err().is_not_found());
        assert!(!read_private(directory.path()).unwrap_err().is_not_found());
    }

    #[test]
    fn creates_with_mode_0600_and_reads_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new");
        create_private(&path, b"content").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(**read_private(&path).unwrap(), *b"content");
    }

    #[test]
    fn never_overwrites_a_file_or_writes_through_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let path = written(&directory, 0o600);
        let error = create_private(&path, b"other").unwrap_err();
        assert_eq!(error, PrivateFileError::Exists { path: path.clone() });
        assert!(error.to_string().contains("\nhint: "));
        assert_eq!(fs::read(&path).unwrap(), b"secret");

        let link = directory.path().join("dangling");
        symlink(directory.path().join("target"), &link).unwrap();
        assert!(matches!(create_private(&link, b"other"), Err(PrivateFileError::Exists { .. })));
        assert!(!directory.path().join("target").exists());
    }
}
