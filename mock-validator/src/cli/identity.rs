//! The key by which a validator is known on encrypted transports.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::{fs, io};

use anyhow::Context as _;
use data_encoding::BASE64;
use ed25519_dalek::SigningKey;

use super::values::random;

/// Reads the identity in a file, and makes one where there is no such file. Without a file it is a new one.
pub(crate) fn identity(path: Option<&Path>) -> anyhow::Result<SigningKey> {
    let Some(path) = path else { return Ok(SigningKey::from_bytes(&random())) };
    match fs::read_to_string(path) {
        Ok(text) => parse(&text).with_context(|| {
            format!(
                "`{}` holds no identity: base64 of 32 bytes is one, and CometBFT's node_key.json",
                path.display()
            )
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(path),
        Err(error) => Err(error).with_context(|| format!("cannot read `{}`", path.display())),
    }
}

fn make(path: &Path) -> anyhow::Result<SigningKey> {
    let key = SigningKey::from_bytes(&random());
    let file = fs::File::options().write(true).create_new(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| writeln!(file, "{}", BASE64.encode(&key.to_bytes())));
    written.with_context(|| format!("cannot write `{}`", path.display()))?;
    Ok(key)
}

fn parse(text: &str) -> Option<SigningKey> {
    let decoded = |text: &str| BASE64.decode(text.trim().as_bytes()).ok();
    if let Ok(file) = serde_json::from_str::<serde_json::Value>(text) {
        // 64 bytes as Go has them: the public key stands behind the private one.
        let bytes: [u8; 64] = decoded(file.get("priv_key")?.get("value")?.as_str()?)?.try_into().ok()?;
        return SigningKey::from_keypair_bytes(&bytes).ok();
    }
    Some(SigningKey::from_bytes(&decoded(text)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_forms_and_nothing_else() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let value = BASE64.encode(&key.to_keypair_bytes());
        let node_key =
            format!(r#"{{"priv_key": {{"type": "tendermint/PrivKeyEd25519", "value": "{value}"}}}}"#);
        for text in [format!("{}\n", BASE64.encode(&[7; 32])), node_key] {
            assert_eq!(parse(&text).map(|read| read.to_bytes()), Some(key.to_bytes()), "{text}");
        }
        for text in ["", "{}", "AAAA", r#"{"priv_key": {"value": "AAAA"}}"#] {
            assert!(parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn makes_one_that_is_read_the_next_time() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("identity");
        let made = identity(Some(&path)).expect("made");
        assert_eq!(identity(Some(&path)).expect("read").to_bytes(), made.to_bytes());
    }
}
