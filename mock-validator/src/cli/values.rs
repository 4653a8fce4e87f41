//! What commands read from their arguments and from the system.

use std::time::Duration;

use data_encoding::HEXLOWER_PERMISSIVE;
use ed25519_dalek::VerifyingKey;
use monosign_protocol::message::Timestamp;

#[allow(
    clippy::disallowed_methods,
    reason = "this binary runs in real time: here the engine's time comes in"
)]
pub(crate) fn wall_clock() -> anyhow::Result<Timestamp> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    Ok(Timestamp { seconds: now.as_secs().try_into()?, nanos: now.subsec_nanos().try_into()? })
}

/// Ends the process if the system has no entropy: no handshake is possible then.
pub(crate) fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    if let Err(error) = getrandom::getrandom(&mut bytes) {
        eprintln!("error: no entropy from the operating system: {error}");
        std::process::exit(2);
    }
    bytes
}

pub(crate) fn public_key(text: &str) -> Result<VerifyingKey, String> {
    let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
    bytes
        .and_then(|bytes: [u8; 32]| VerifyingKey::from_bytes(&bytes).ok())
        .ok_or_else(|| "expected the 64 hexadecimal digits of an ed25519 public key".to_owned())
}

pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().map_err(|error| error.to_string())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}
