//! Keys, configuration and directory of a run.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use data_encoding::{BASE64, HEXUPPER};
use ed25519_dalek::SigningKey;
use mock_validator::link::{Address, Listener};
use monosign_protocol::ChainId;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// The directory of a run, removed at its end, and the consensus key in it.
pub(crate) struct Setup {
    dir: TempDir,
    pub(crate) chain_id: ChainId,
    pub(crate) key: SigningKey,
}

/// tmpfs's `f_type`, linux/magic.h.
const TMPFS_MAGIC: u64 = 0x0102_1994;

impl Setup {
    pub(crate) fn new(parent: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(parent).with_context(|| format!("making `{}`", parent.display()))?;
        let parent = parent.canonicalize()?;
        if rustix::fs::statfs(&parent)?.f_type as u64 == TMPFS_MAGIC {
            bail!("`{}` is on tmpfs, where a sync costs nothing: choose a disk with --dir", parent.display());
        }
        let dir = tempfile::Builder::new().prefix("sign-").tempdir_in(&parent)?;
        // Not a secret: it signs for a chain that does not exist, and is gone with the directory.
        let setup = Self { dir, chain_id: "bench-1".parse()?, key: SigningKey::from_bytes(&[42; 32]) };
        setup.write("priv_validator_key.json", &setup.key_json())?;
        setup.write("secret_connection.key", &BASE64.encode(&[43; 32]))?;
        Ok(setup)
    }

    /// The absolute path of a file of this run.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a new file that only its owner reads.
    pub(crate) fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let path = self.path(name);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        file.and_then(|mut file| file.write_all(text.as_bytes()))
            .with_context(|| format!("writing `{}`", path.display()))
    }

    pub(crate) async fn listen(&self) -> anyhow::Result<Listener> {
        Ok(Listener::bind(&"tcp://127.0.0.1:0".parse::<Address>()?).await?)
    }

    fn key_json(&self) -> String {
        let public = self.key.verifying_key();
        let address = HEXUPPER.encode(&Sha256::digest(public.as_bytes())[..20]);
        let (public, private) =
            (BASE64.encode(public.as_bytes()), BASE64.encode(&self.key.to_keypair_bytes()));
        format!(
            r#"{{
  "address": "{address}",
  "pub_key": {{ "type": "tendermint/PubKeyEd25519", "value": "{public}" }},
  "priv_key": {{ "type": "tendermint/PrivKeyEd25519", "value": "{private}" }}
}}
"#
        )
    }
}
