//! Signers as processes, set up as an operator would.

use std::{
    env, fs,
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, bail};
use data_encoding::BASE64;
use mock_validator::link::Listener;

use crate::setup::Setup;

/// A running signer, killed when dropped.
pub(crate) struct Signer {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Signer {
    /// Imports the key, makes the record and starts monosign.
    pub(crate) fn monosign(path: &Path, setup: &Setup, listener: &Listener) -> anyhow::Result<Self> {
        if !path.exists() {
            bail!(
                "no signer at `{}`: build it with `cargo build --release -p monosign`, or name one with --signer",
                path.display()
            );
        }
        setup.write("monosign.toml", &monosign_toml(setup, listener))?;
        let config = setup.path("monosign.toml");
        let mut import = Command::new(path);
        import.args(["softsign", "import"]).arg(setup.path("priv_validator_key.json"));
        finish(import.arg("--output").arg(setup.path("consensus.key")).arg("--plaintext"))?;
        let mut init = Command::new(path);
        finish(init.args(["state", "init", "-c"]).arg(&config).args(["--chain", setup.chain_id.as_str()]))?;
        Self::start("monosign", Command::new(path).args(["start", "-c"]).arg(&config), setup)
    }

    /// Starts tmkms 0.15 with softsign.
    pub(crate) fn tmkms(path: &Path, setup: &Setup, listener: &Listener) -> anyhow::Result<Self> {
        setup.write("tmkms-consensus.key", &BASE64.encode(setup.key.as_bytes()))?;
        setup.write("tmkms.toml", &tmkms_toml(setup, listener))?;
        Self::start("tmkms", Command::new(path).args(["start", "-c"]).arg(setup.path("tmkms.toml")), setup)
    }

    fn start(name: &'static str, command: &mut Command, setup: &Setup) -> anyhow::Result<Self> {
        let log = setup.path(&format!("{name}.log"));
        let out = File::create(&log)?;
        let child = command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).spawn();
        let child = child.with_context(|| format!("starting {name}"))?;
        Ok(Self { name, child, log })
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// The memory that the process occupies now, in MiB.
    pub(crate) fn resident_mib(&self) -> anyhow::Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).context("no VmRSS in its status")?;
        Ok(kib.trim().parse::<f64>()? / 1024.0)
    }

    pub(crate) fn log_tail(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().rev().take(10).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Signer {
    fn drop(&mut self) {
        // It may be gone already, and there is nobody left to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program of this name in PATH.
pub(crate) fn in_path(name: &str) -> Option<PathBuf> {
    let paths = env::var_os("PATH")?;
    env::split_paths(&paths).map(|dir| dir.join(name)).find(|path| path.is_file())
}

fn finish(command: &mut Command) -> anyhow::Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        bail!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

fn monosign_toml(setup: &Setup, listener: &Listener) -> String {
    format!(
        r#"[[chain]]
id = "{chain}"
key_format = {{ type = "hex" }}
state_file = {record:?}

[[validator]]
chain_id = "{chain}"
addr = "{addr}"
secret_key = {secret:?}
protocol_version = "auto"
reconnect = true

[[providers.softsign]]
chain_ids = ["{chain}"]
path = {key:?}
allow_plaintext_key = true
"#,
        chain = setup.chain_id,
        record = setup.path("bench-1.record"),
        addr = listener.address(),
        secret = setup.path("secret_connection.key"),
        key = setup.path("consensus.key"),
    )
}

fn tmkms_toml(setup: &Setup, listener: &Listener) -> String {
    format!(
        r#"[[chain]]
id = "{chain}"
key_format = {{ type = "hex" }}
state_file = {state:?}

[[validator]]
chain_id = "{chain}"
addr = "{addr}"
secret_key = {secret:?}
protocol_version = "v0.34"
reconnect = true

[[providers.softsign]]
chain_ids = ["{chain}"]
key_type = "consensus"
path = {key:?}
"#,
        chain = setup.chain_id,
        state = setup.path("tmkms-state.json"),
        addr = listener.address(),
        secret = setup.path("secret_connection.key"),
        key = setup.path("tmkms-consensus.key"),
    )
}
