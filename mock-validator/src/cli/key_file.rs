//! The public key in CometBFT's `priv_validator_key.json`.

use std::{fs, path::Path};

use anyhow::Context as _;
use data_encoding::BASE64;
use ed25519_dalek::VerifyingKey;

/// Reads the public key of a key file. The private key is passed over.
pub(crate) fn public_key(path: &Path) -> anyhow::Result<VerifyingKey> {
    let text = fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    parse(&text).with_context(|| {
        format!("`{}` holds no ed25519 public key as CometBFT's priv_validator_key.json does", path.display())
    })
}

fn parse(text: &[u8]) -> Option<VerifyingKey> {
    let file: serde_json::Value = serde_json::from_slice(text).ok()?;
    let key = file.get("pub_key")?;
    if key.get("type")?.as_str()? != "tendermint/PubKeyEd25519" {
        return None;
    }
    let bytes = BASE64.decode(key.get("value")?.as_str()?.as_bytes()).ok()?;
    VerifyingKey::from_bytes(&bytes.try_into().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_public_key_and_nothing_else() {
        let key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]).verifying_key();
        let value = BASE64.encode(key.as_bytes());
        let file =
            |kind: &str| format!(r#"{{"pub_key": {{"type": "{kind}", "value": "{value}"}}, "priv_key": 7}}"#);
        assert_eq!(parse(file("tendermint/PubKeyEd25519").as_bytes()), Some(key));
        for text in [&file("tendermint/PubKeySecp256k1"), "{}", "", r#"{"pub_key": "x"}"#] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }
}
