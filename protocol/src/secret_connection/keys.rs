//! What both sides derive from the two ephemeral keys (CometBFT v0.38 `p2p/conn/secret_connection.go`,
//! `MakeSecretConnection` and `deriveSecrets`).

use hkdf::Hkdf;
use merlin::Transcript;
use sha2::Sha256;
use x25519_dalek::SharedSecret;
use zeroize::Zeroizing;

use super::seal::{Opener, Sealer};

const HKDF_INFO: &[u8] = b"TENDERMINT_SECRET_CONNECTION_KEY_AND_CHALLENGE_GEN";

/// The sealer and opener of the side whose ephemeral public key is `ours`.
///
/// The side with the lower key receives under the first key and sends under the second. HKDF's last 32 bytes
/// were the challenge up to tendermint v0.32 and are unused since.
pub(super) fn seals(ours: &[u8; 32], theirs: &[u8; 32], dh: &SharedSecret) -> (Sealer, Opener) {
    let mut okm = Zeroizing::new([0u8; 96]);
    Hkdf::<Sha256>::new(None, dh.as_bytes())
        .expand(HKDF_INFO, &mut *okm)
        .expect("96 bytes are less than HKDF-SHA256's limit of 8160");
    let (first, rest) = okm.split_at(32);
    let second = &rest[..32];
    let (receive, send) = if ours < theirs { (first, second) } else { (second, first) };
    (Sealer::new(send), Opener::new(receive))
}

/// What each side signs with its identity key: it binds the identity to this pair of ephemeral keys and to the
/// secret that only their holders know.
pub(super) fn challenge(ours: &[u8; 32], theirs: &[u8; 32], dh: &SharedSecret) -> [u8; 32] {
    let (lower, upper) = if ours < theirs { (ours, theirs) } else { (theirs, ours) };
    let mut transcript = Transcript::new(b"TENDERMINT_SECRET_CONNECTION_TRANSCRIPT_HASH");
    transcript.append_message(b"EPHEMERAL_LOWER_PUBLIC_KEY", lower);
    transcript.append_message(b"EPHEMERAL_UPPER_PUBLIC_KEY", upper);
    transcript.append_message(b"DH_SECRET", dh.as_bytes());
    let mut challenge = [0; 32];
    transcript.challenge_bytes(b"SECRET_CONNECTION_MAC", &mut challenge);
    challenge
}
