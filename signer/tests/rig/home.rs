use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use data_encoding::BASE64;
use ed25519_dalek::{SigningKey, VerifyingKey};
use tempfile::TempDir;

use super::{CHAIN, Finished, Signer};

/// A signer's directory, on the disk that the build is on: `/tmp` may be memory, which a flush costs nothing.
pub(crate) struct Home {
    dir: TempDir,
}

/// The file of the identity on the connection.
pub(crate) const IDENTITY: &str = "identity.key";
const CONFIG: &str = "monosign.toml";

/// A consensus key that is its chain's and this test's alone: on one host, one process at a time signs with a key for a chain. Each test
/// has a thread of its own.
pub(crate) fn signing_key(chain: &str) -> SigningKey {
    use sha2::Digest as _;
    static TESTS: AtomicU32 = AtomicU32::new(0);
    thread_local!(static TEST: u32 = TESTS.fetch_add(1, Ordering::Relaxed));
    let test = TEST.with(|test| format!("{chain} {} {test}", std::process::id()));
    SigningKey::from_bytes(&sha2::Sha256::digest(test).into())
}

impl Home {
    /// An empty one, with an identity.
    pub(crate) fn new() -> Self {
        super::deadline::for_this_test();
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).expect("a private directory");
        let home = Self { dir };
        home.write(IDENTITY, BASE64.encode(&[3; 32]).as_bytes());
        home
    }

    /// One chain, with a record, served to one validator.
    pub(crate) fn with_one_chain(addr: &str) -> Self {
        let home = Self::new();
        home.configure(&[(CHAIN, addr)]);
        home.make_record(CHAIN);
        home
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path(CONFIG)
    }

    pub(crate) fn record(&self, chain: &str) -> PathBuf {
        self.path(format!("{chain}.record"))
    }

    /// Writes a file that only its owner reads.
    pub(crate) fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path(name);
        if let Some(dir) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).expect("a directory");
        }
        fs::write(&path, content).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a private file");
        path
    }

    /// Writes a configuration that serves each chain to each of its validators, and the chains' keys.
    pub(crate) fn configure(&self, validators: &[(&str, &str)]) {
        let mut chains: Vec<&str> = Vec::new();
        for (chain, _) in validators {
            if !chains.contains(chain) {
                chains.push(chain);
            }
        }
        let mut text = String::new();
        for chain in chains {
            text += &self.chain_tables(chain);
        }
        for (chain, addr) in validators {
            text += &validator_table(chain, addr, "");
        }
        self.write(CONFIG, text.as_bytes());
    }

    /// Adds a line to the only `[[chain]]` or to a table of another kind, by the line that it is to follow.
    pub(crate) fn edit_config(&self, from: &str, to: &str) {
        let text = fs::read_to_string(self.config()).expect("a configuration");
        assert!(text.contains(from), "`{from}` is not in {text}");
        self.write(CONFIG, text.replace(from, to).as_bytes());
    }

    /// Adds tables at the end.
    pub(crate) fn append_config(&self, tables: &str) {
        let text = fs::read_to_string(self.config()).expect("a configuration") + tables;
        self.write(CONFIG, text.as_bytes());
    }

    /// `[[chain]]` and `[[providers.softsign]]` with a plain key, which is written too.
    pub(crate) fn chain_tables(&self, chain: &str) -> String {
        let key = BASE64.encode(signing_key(chain).as_bytes());
        self.write(&format!("{chain}.key"), key.as_bytes());
        format!(
            "[[chain]]\nid = \"{chain}\"\nkey_format = {{ type = \"hex\" }}\nstate_file = \"{chain}.record\"\n\n\
             [[providers.softsign]]\nchain_ids = [\"{chain}\"]\npath = \"{chain}.key\"\nallow_plaintext_key = true\n\n"
        )
    }

    pub(crate) fn make_record(&self, chain: &str) {
        self.monosign(&["state", "init", "-c", CONFIG, "--chain", chain]).must_succeed();
    }

    /// The watermark as `monosign state show` prints it, all of it.
    pub(crate) fn state(&self, chain: &str) -> String {
        self.monosign(&["state", "show", "-c", CONFIG, "--chain", chain]).must_succeed().stdout
    }

    /// Height, round and step of the watermark, with CometBFT's numbers.
    pub(crate) fn watermark(&self, chain: &str) -> (i64, i32, u8) {
        let state: serde_json::Value = serde_json::from_str(&self.state(chain)).expect("a state");
        let height = state["height"].as_str().and_then(|height| height.parse().ok());
        let round = state["round"].as_i64().and_then(|round| i32::try_from(round).ok());
        let step = state["step"].as_u64().and_then(|step| u8::try_from(step).ok());
        (height.expect("a height"), round.expect("a round"), step.expect("a step"))
    }

    /// Runs a command to its end, in this directory.
    pub(crate) fn monosign(&self, args: &[&str]) -> Finished {
        Finished::of(self.command(args).stdin(Stdio::null()))
    }

    pub(crate) fn monosign_with_input(&self, args: &[&str], input: &str) -> Finished {
        let file = self.write("input", input.as_bytes());
        Finished::of(self.command(args).stdin(fs::File::open(file).expect("the input")))
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_monosign"));
        command.args(args).current_dir(self.dir.path());
        command
    }

    /// Runs the signer.
    pub(crate) fn start(&self) -> Signer {
        Signer::start(self.command(&["start", "-c", CONFIG]), self.path("log"))
    }

    /// Runs the signer where it has to refuse.
    pub(crate) async fn start_and_fail(&self) -> Finished {
        self.start_and_fail_with(CONFIG).await
    }

    pub(crate) async fn start_and_fail_with(&self, config: &str) -> Finished {
        let (out, err) = (self.path("out"), self.path("err"));
        let mut command = self.command(&["start", "-c", config]);
        command.stdin(Stdio::null());
        command
            .stdout(fs::File::create(&out).expect("a file"))
            .stderr(fs::File::create(&err).expect("a file"));
        let status = Signer::spawn(&mut command, out.clone()).ended().await;
        let text = |path| fs::read_to_string(path).expect("text");
        Finished { code: status.code(), stdout: text(out), stderr: text(err) }
    }

    pub(crate) fn public_key(&self, chain: &str) -> VerifyingKey {
        signing_key(chain).verifying_key()
    }
}

/// A `[[validator]]`; `more` are lines to add.
pub(crate) fn validator_table(chain: &str, addr: &str, more: &str) -> String {
    format!("[[validator]]\nchain_id = \"{chain}\"\naddr = \"{addr}\"\nsecret_key = \"{IDENTITY}\"\n{more}\n")
}
