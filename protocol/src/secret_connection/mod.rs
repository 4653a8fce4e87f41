//! SecretConnection: the encryption of `tcp://` between a validator and its remote signer.
//!
//! A station-to-station handshake on X25519 and Ed25519, then frames of fixed size under ChaCha20-Poly1305. Its
//! bytes are the same in every release from tendermint v0.34 to CometBFT v2.0 (`p2p/conn/secret_connection.go`);
//! v0.33 and older speak amino and are refused by name. The protocol is symmetric, so the signer and the mock
//! validator use the same code.
//!
//! Nothing here reads a socket, a clock or entropy. The calls come in this order:
//!
//! 1. [`Handshake::new`], with 32 fresh random bytes.
//! 2. Until [`Handshake::is_established`]: send everything [`Handshake::poll_transmit`] gives, then pass what
//!    was received to [`Handshake::handle`] and drop as many bytes as it says it used.
//! 3. [`Handshake::established`] gives a [`Sealer`], an [`Opener`] and the peer's proven identity.
//!    What `handle` did not use is the beginning of what the [`Opener`] wants.
//!
//! An error ends the connection: nothing after it can be trusted. The caller never has to hold more than
//! [`MAX_UNUSED`] bytes that `handle` or `open` left over.
//!
//! The handshake proves *which* key the peer has, not that it is the right one: a validator makes a new identity
//! key at each start, so there is nothing to pin on that side. Comparing [`PeerIdentity::id`] with an expected
//! one is the caller's to do.
//!
//! ```
//! use ed25519_dalek::SigningKey;
//! use monosign_protocol::secret_connection::{Handshake, HandshakeError};
//!
//! // Real callers take these bytes from the operating system.
//! let mut signer = Handshake::new(&SigningKey::from_bytes(&[1; 32]), [2; 32]);
//! let mut validator = Handshake::new(&SigningKey::from_bytes(&[3; 32]), [4; 32]);
//! while !(signer.is_established() && validator.is_established()) {
//!     while let Some(bytes) = signer.poll_transmit() {
//!         assert_eq!(validator.handle(&bytes)?, bytes.len());
//!     }
//!     while let Some(bytes) = validator.poll_transmit() {
//!         assert_eq!(signer.handle(&bytes)?, bytes.len());
//!     }
//! }
//! let (mut signer, mut validator) = (signer.established().unwrap(), validator.established().unwrap());
//!
//! let (mut wire, mut plain) = (Vec::new(), Vec::new());
//! validator.sealer.seal(b"sign this", &mut wire).unwrap();
//! assert_eq!(signer.opener.open(&wire, &mut plain).unwrap(), wire.len());
//! assert_eq!(plain, b"sign this");
//! # Ok::<(), HandshakeError>(())
//! ```

mod auth;
mod handshake;
mod keys;
mod peer;
mod seal;
#[cfg(test)]
mod tests;

pub use handshake::{Established, Handshake, HandshakeError, MAX_AUTH_MESSAGE, MAX_EPHEMERAL_MESSAGE};
pub use peer::{ParsePeerIdError, PeerId, PeerIdentity};
pub use seal::{FRAME_DATA, FRAME_SIZE, OpenError, Opener, SealError, Sealer};

/// The most bytes a caller has to keep because [`Handshake::handle`] or [`Opener::open`] left them unused: one
/// byte less than the larger of a frame and an ephemeral message with its length.
pub const MAX_UNUSED: usize = FRAME_SIZE - 1;

const _: () = assert!(MAX_UNUSED >= MAX_EPHEMERAL_MESSAGE + crate::wire::MAX_VARINT - 1);
