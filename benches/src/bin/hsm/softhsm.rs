//! A SoftHSM 2 token, bare and behind our layers.

use std::path::PathBuf;
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use monosign::backend::device::{Device, DeviceKey, Driver as _, Request};
use monosign::backend::pkcs11::{ChildProcess, KeyName, Settings, Token};
use monosign::pubkey::PublicKey;

const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
const SEED: [u8; 32] = [7; 32];

/// The library in this process: cryptoki's calls, which our driver only forwards.
pub(crate) struct Bare(Token);

impl Bare {
    pub(crate) fn sign(&mut self, message: &[u8]) -> anyhow::Result<()> {
        self.0.perform(&Request::Sign { key: 0, message: message.to_vec() })?;
        Ok(())
    }
}

/// A token with one key.
pub(crate) struct Rig {
    pub(crate) bare: Bare,
    pub(crate) key: DeviceKey,
}

impl Rig {
    /// The token that [`make_token`] made, found by what is in the environment.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let settings = Settings {
            module: MODULE.into(),
            token_label: "bench".into(),
            pin: "987654".into(),
            keys: vec![KeyName { label: Some("k".into()), id: None }],
            timeout: Duration::from_millis(1500),
        };
        let open = |settings: &Settings| {
            Token::open(&settings.module, &settings.token_label, &settings.pin, settings.keys.clone())
        };
        let token = open(&settings)?;
        let public_key = PublicKey::from_bytes(SigningKey::from_bytes(&SEED).verifying_key().to_bytes());
        token.import("k", &[1], &SEED, &public_key)?;
        let limits = settings.limits();
        let device =
            Device::new("bench", Rc::new(ChildProcess::new(Rc::new(settings))), limits, Rc::default());
        Ok(Self { bare: Bare(token), key: device.key(0, public_key) })
    }
}

/// Whether it can be measured.
pub(crate) fn is_installed() -> bool {
    Command::new("softhsm2-util").arg("--version").output().is_ok()
}

/// Makes a token in a directory, and the configuration that finds it.
pub(crate) fn make_token(dir: &std::path::Path) -> anyhow::Result<PathBuf> {
    let (conf, tokens) = (dir.join("softhsm2.conf"), dir.join("tokens"));
    std::fs::create_dir(&tokens)?;
    let text = format!(
        "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
        tokens.display()
    );
    std::fs::write(&conf, text)?;
    let mut init = Command::new("softhsm2-util");
    init.args(["--init-token", "--free", "--label", "bench", "--so-pin", "12345678", "--pin", "987654"]);
    let made = init.env("SOFTHSM2_CONF", &conf).output()?;
    anyhow::ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Ok(conf)
}
