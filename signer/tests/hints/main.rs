//! What is advised is done, to the letter, in the situation in which it is printed, and leads nowhere below what was signed.

mod bounds;
#[path = "../rig/mod.rs"]
mod rig;
mod tmkms;
mod walk;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rig::{CHAIN, Finished, Home};

/// tmkms's state after a precommit: it counts steps from 0.
fn tmkms_state(height: i64) -> String {
    let hash = "AB".repeat(32);
    format!(
        r#"{{"height":"{height}","round":"0","step":2,"block_id":{{"hash":"{hash}","parts":{{"total":1,"hash":"{hash}"}}}}}}"#
    )
}

/// A configuration and the directory in which commands are given, which need not be one.
struct Desk {
    home: Home,
    /// The configuration, relative to `home`.
    config: &'static str,
    /// The working directory, relative to `home`.
    cwd: &'static str,
}

impl Desk {
    /// tmkms's own settings, with `state_file` as given, in a directory of their own; commands are given in another.
    fn from_tmkms(state_file: Option<&str>) -> Self {
        let desk = Self { home: Home::new(), config: "etc/tmkms.toml", cwd: "run" };
        fs::create_dir_all(desk.home.path("run")).expect("a directory");
        let key = data_encoding::BASE64.encode(rig::signing_key(CHAIN).as_bytes());
        desk.home.write("etc/consensus.key", key.as_bytes());
        desk.home.write("etc/identity.key", data_encoding::BASE64.encode(&[3; 32]).as_bytes());
        let state_file = state_file.map_or(String::new(), |path| format!("state_file = \"{path}\"\n"));
        let config = format!(
            "[[chain]]\nid = \"{CHAIN}\"\nkey_format = {{ type = \"hex\" }}\n{state_file}\
             [[validator]]\nchain_id = \"{CHAIN}\"\naddr = \"tcp://127.0.0.1:1\"\nsecret_key = \"identity.key\"\n\
             [[providers.softsign]]\nchain_ids = [\"{CHAIN}\"]\npath = \"consensus.key\"\nallow_plaintext_key = true\n"
        );
        desk.home.write(desk.config, config.as_bytes());
        desk
    }

    /// The configuration as it is named from the working directory.
    fn config(&self) -> PathBuf {
        self.home.path(self.config)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_monosign"));
        command.args(words).arg("-c").arg(self.config()).current_dir(self.home.path(self.cwd));
        command.stdin(Stdio::null());
        command
    }

    fn monosign(&self, words: &[&str]) -> Finished {
        Finished::of(&mut self.command(words))
    }

    /// Height, round and step of the record.
    fn watermark(&self) -> (i64, i64, i64) {
        let shown = self.monosign(&["state", "show"]).must_succeed().stdout;
        let state: serde_json::Value = serde_json::from_str(&shown).expect("a state");
        let height = state["height"].as_str().and_then(|height| height.parse().ok()).expect("a height");
        (height, state["round"].as_i64().expect("a round"), state["step"].as_i64().expect("a step"))
    }
}

fn told(finished: &Finished) -> String {
    format!("{}{}", finished.stdout, finished.stderr)
}
