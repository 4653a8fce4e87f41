//! What secures the connections of cosigners: each end learns who the other is.
//!
//! Production has TLS alone. It is behind a trait because its handshake takes entropy that no seam gives: a simulated network brings a
//! transport of its own, which carries the same messages.

use std::io;

use crate::seams::{Local, Stream};

/// A connection, and the identity key that who dialed has proven to hold.
pub type Accepted = (Box<dyn Stream>, [u8; 32]);

/// A cosigner's end of its connections. What goes through them is secret and cannot be changed, and each end is who it says it is.
pub trait Transport {
    /// Secures a connection that we dialed, if the peer holds the identity key `peer`.
    ///
    /// # Errors
    /// The handshake's, or that it is somebody else.
    fn dial<'a>(
        &'a self,
        stream: Box<dyn Stream>,
        peer: &'a [u8; 32],
    ) -> Local<'a, io::Result<Box<dyn Stream>>>;

    /// Secures a connection that was accepted.
    ///
    /// # Errors
    /// The handshake's, or that it is nobody of the group.
    fn accept(&self, stream: Box<dyn Stream>) -> Local<'_, io::Result<Accepted>>;
}
