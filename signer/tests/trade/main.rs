//! Files and words of the trade: what other signers and their operators have written, as it was found, and
//! what becomes of it here.
//!
//! Each file in `files/` is read, or refused with words that tell the next step, and then the next step is
//! done.

#[path = "../rig/mod.rs"]
mod rig;

mod devices;
mod files;
mod running;
mod words;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rig::{Finished, Home};

/// The public key of `files/consensus.key`.
const PUBLIC_KEY: &str = "41ea338fe8bfe2da9e49108db8e96c702dea824c5e7642a72d7df75bf8775c38";

/// A directory with a configuration of the trade, its keys, and a chain of its own: one process at a time
/// signs for a chain and key.
struct Desk {
    home: Home,
    chain: String,
}

impl Desk {
    fn new(config: &str) -> Self {
        static DESKS: AtomicU32 = AtomicU32::new(0);
        let home = Home::new();
        for key in ["consensus.key", "identity.key"] {
            home.write(key, &file(key));
        }
        let n = DESKS.fetch_add(1, Ordering::Relaxed);
        let desk = Self { home, chain: format!("trade-{}-{n}", std::process::id()) };
        desk.configure(&String::from_utf8(file(config)).expect("text"));
        desk
    }

    fn configure(&self, text: &str) {
        self.home.write("tmkms.toml", text.replace("test-1", &self.chain).as_bytes());
    }

    fn edit(&self, from: &str, to: &str) {
        let text = fs::read_to_string(self.home.path("tmkms.toml")).expect("a configuration");
        assert!(text.contains(from), "`{from}` is not in {text}");
        self.configure(&text.replace(from, to));
    }

    /// A command of which the words are given in one text.
    fn monosign(&self, words: &str) -> Finished {
        Finished::of(&mut self.command(words))
    }

    fn command(&self, words: &str) -> Command {
        let mut command = self.home.command(&words.split_whitespace().collect::<Vec<_>>());
        command.stdin(std::process::Stdio::null());
        command
    }

    /// Height, round and step of the record.
    fn watermark(&self) -> (String, i64, i64) {
        let shown = self.monosign("state show -c tmkms.toml").must_succeed().stdout;
        let state: serde_json::Value = serde_json::from_str(&shown).expect("a state");
        let height = state["height"].as_str().expect("a height").to_owned();
        (height, state["round"].as_i64().expect("a round"), state["step"].as_i64().expect("a step"))
    }
}

/// A file as it was found.
fn file(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/trade/files").join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn told(finished: &Finished) -> String {
    format!("{}{}", finished.stdout, finished.stderr)
}

/// Does what is quoted in a hint, to the letter.
fn follow(desk: &Desk, text: &str, begins: &str) -> Finished {
    let hint = text.split("hint: ").nth(1).unwrap_or_else(|| panic!("nothing is advised: {text}"));
    let quoted = hint.split('`').skip(1).step_by(2).find(|quoted| quoted.starts_with(begins));
    let command = quoted.unwrap_or_else(|| panic!("no `{begins}` is advised: {text}"));
    sh(desk, command)
}

fn sh(desk: &Desk, command: &str) -> Finished {
    let bin = Path::new(env!("CARGO_BIN_EXE_monosign")).parent().expect("a directory");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").expect("a path"));
    let mut sh = Command::new("sh");
    sh.args(["-c", command]).env("PATH", path).current_dir(desk.home.path("."));
    Finished::of(sh.stdin(std::process::Stdio::null()))
}
