//! libp2p Noise: the encryption of `noise://` between a validator and its remote signer, since CometBFT v0.40.
//!
//! `Noise_XX_25519_ChaChaPoly_SHA256` with an empty prologue, as libp2p defines it
//! (<https://github.com/libp2p/specs/blob/master/noise/README.md>), and nothing of libp2p around it: no
//! multistream, no muxer. Each Noise message goes with its length in two bytes, big-endian, before it. The
//! **signer is the initiator**. Both sides have an Ed25519 identity whose [`PeerId`] ("12D3KooW…") the other
//! pins; the Noise static keys are fresh for each connection and signed by the identity.
//!
//! Nothing here reads a socket, a clock or entropy. The calls come in the same order as in
//! [`secret_connection`](crate::secret_connection):
//!
//! 1. [`Handshake::initiator`] or [`Handshake::responder`], with fresh [`Entropy`].
//! 2. Until [`Handshake::is_established`]: send everything [`Handshake::poll_transmit`] gives, then pass what
//!    was received to [`Handshake::handle`] and drop as many bytes as it says it used.
//! 3. [`Handshake::established`] gives a [`Sealer`], an [`Opener`] and the peer's proven identity.
//!    What `handle` did not use is the beginning of what the [`Opener`] wants.
//!
//! An error ends the connection. The caller never has to hold more than [`MAX_UNUSED`] bytes that `handle` or
//! `open` left over.
//!
//! The state machine is the crate `snow`. X25519, the cipher and the randomness are this module's own: points of
//! low order are refused, keys are wiped on drop, and the entropy is the caller's.
//!
//! ```
//! use ed25519_dalek::SigningKey;
//! use monosign_protocol::noise::{Entropy, Handshake, HandshakeError, PeerId};
//!
//! let (signer_key, node_key) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32]));
//! // Real callers take these bytes from the operating system.
//! let entropy = |n| Entropy { static_key: [n; 32], ephemeral: [n + 1; 32] };
//! let mut signer = Handshake::initiator(&signer_key, PeerId::from(&node_key.verifying_key()), entropy(3));
//! let mut node = Handshake::responder(&node_key, Some(PeerId::from(&signer_key.verifying_key())), entropy(5));
//! while !(signer.is_established() && node.is_established()) {
//!     while let Some(bytes) = signer.poll_transmit() {
//!         assert_eq!(node.handle(&bytes)?, bytes.len());
//!     }
//!     while let Some(bytes) = node.poll_transmit() {
//!         assert_eq!(signer.handle(&bytes)?, bytes.len());
//!     }
//! }
//! let (mut signer, mut node) = (signer.established().unwrap(), node.established().unwrap());
//!
//! let (mut wire, mut plain) = (Vec::new(), Vec::new());
//! node.sealer.seal(b"sign this", &mut wire).unwrap();
//! assert_eq!(signer.opener.open(&wire, &mut plain).unwrap(), wire.len());
//! assert_eq!(plain, b"sign this");
//! # Ok::<(), HandshakeError>(())
//! ```

mod crypto;
mod handshake;
mod payload;
mod peer_id;
mod seal;

pub use handshake::{Entropy, Established, Handshake, HandshakeError, MAX_HANDSHAKE_MESSAGE};
pub use peer_id::{ParsePeerIdError, PeerId};
pub use seal::{MAX_MESSAGE, MAX_PLAIN, OpenError, Opener, SealError, Sealer};

/// The most bytes a caller has to keep because [`Handshake::handle`] or [`Opener::open`] left them unused: one
/// byte less than the longest message with its length.
pub const MAX_UNUSED: usize = PREFIX + MAX_MESSAGE - 1;

/// Bytes of length before each message.
const PREFIX: usize = 2;

/// The first message of `wire` without its length prefix, as far as it is there.
enum Framed<'a> {
    Complete(&'a [u8]),
    /// The message will have this many bytes; not all came.
    Partial(usize),
    /// Not even the length came.
    Unknown,
}

fn unframe(wire: &[u8]) -> Framed<'_> {
    let Some((&length, rest)) = wire.split_first_chunk::<PREFIX>() else { return Framed::Unknown };
    let length = usize::from(u16::from_be_bytes(length));
    rest.get(..length).map_or(Framed::Partial(length), Framed::Complete)
}
