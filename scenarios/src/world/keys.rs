//! Key files, which the signer reads from the real disk: they never change, so a run does not depend on it.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use ed25519_dalek::SigningKey;

/// The seed of the consensus key of every world.
pub(super) const CONSENSUS_SEED: [u8; 32] = [42; 32];

/// The keys that simulated signers hold: the same in every run, and worth nothing.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    /// The consensus key's file.
    pub(super) consensus: PathBuf,
    /// The connection identity's file.
    pub(super) identity: PathBuf,
    /// The consensus key.
    pub(super) key: SigningKey,
    /// The file with the password of devices.
    pub(super) password: PathBuf,
}

/// What is in that file.
pub(super) const PASSWORD: &str = "simulated";

impl Keys {
    /// Writes the files into a directory of the user's own, unless they are there.
    ///
    /// # Errors
    /// What the disk says.
    pub(super) fn provide() -> std::io::Result<Self> {
        let key = SigningKey::from_bytes(&CONSENSUS_SEED);
        // Of a fixed name: paths stand in log lines, and log lines in the trace.
        let dir = std::env::temp_dir().join(format!("monosign-scenarios-{}", own_uid()?));
        if !dir.is_dir() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        }
        let (consensus, identity) = (dir.join("consensus.key"), dir.join("identity.key"));
        write_once(&consensus, &BASE64.encode(key.as_bytes()))?;
        write_once(&identity, &BASE64.encode(&[43; 32]))?;
        let password = dir.join("password");
        write_once(&password, PASSWORD)?;
        Ok(Self { consensus, identity, key, password })
    }

    /// The directory of the files.
    pub(super) fn dir(&self) -> &Path {
        self.identity.parent().unwrap_or(Path::new("/"))
    }
}

fn own_uid() -> std::io::Result<u32> {
    Ok(fs::metadata("/proc/self")?.uid())
}

/// Whole or not at all, also if several processes do it at once.
fn write_once(path: &Path, text: &str) -> std::io::Result<()> {
    if fs::read_to_string(path).is_ok_and(|there| there == text) {
        return Ok(());
    }
    let dir = path.parent().unwrap_or(Path::new("/"));
    // Temporary files are the owner's alone, as keys must be.
    let mut temporary = tempfile::NamedTempFile::new_in(dir)?;
    temporary.write_all(text.as_bytes())?;
    temporary.persist(path).map_err(|error| error.error)?;
    Ok(())
}
