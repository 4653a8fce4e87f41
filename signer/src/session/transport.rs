//! What protects a session: nothing, SecretConnection or noise.

use std::fmt;
use std::mem;

use monosign_protocol::{noise, secret_connection};

use super::PeerMisbehaved;

pub(super) enum Transport {
    Plain {
        announced: bool,
    },
    SecretHandshake {
        handshake: Box<secret_connection::Handshake>,
        pinned: Option<secret_connection::PeerId>,
    },
    Secret {
        sealer: secret_connection::Sealer,
        opener: secret_connection::Opener,
    },
    NoiseHandshake(Box<noise::Handshake>),
    Noise {
        sealer: noise::Sealer,
        opener: noise::Opener,
    },
}

/// Who is at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// Whoever can open the socket file.
    Local,
    /// The node of this peer id; it makes a new one at each start.
    Secret(secret_connection::PeerId),
    /// The node of this libp2p peer id, which the configuration pins.
    Noise(noise::PeerId),
}

impl Transport {
    pub(super) fn is_established(&self) -> bool {
        matches!(self, Self::Plain { announced: true } | Self::Secret { .. } | Self::Noise { .. })
    }

    pub(super) fn poll_transmit(&mut self, outbox: &mut Vec<u8>) {
        let mut next = || match self {
            Self::SecretHandshake { handshake, .. } => handshake.poll_transmit(),
            Self::NoiseHandshake(handshake) => handshake.poll_transmit(),
            _ => None,
        };
        while let Some(bytes) = next() {
            outbox.extend_from_slice(&bytes);
        }
    }

    /// Unseals what is whole and says how much of `wire` that took.
    pub(super) fn open(&mut self, wire: &[u8], plain: &mut Vec<u8>) -> Result<usize, PeerMisbehaved> {
        Ok(match self {
            Self::Plain { .. } => {
                plain.extend_from_slice(wire);
                wire.len()
            }
            Self::SecretHandshake { handshake, .. } => handshake.handle(wire)?,
            Self::Secret { opener, .. } => opener.open(wire, plain)?,
            Self::NoiseHandshake(handshake) => handshake.handle(wire)?,
            Self::Noise { opener, .. } => opener.open(wire, plain)?,
        })
    }

    /// The peer, once, when the handshake is done.
    pub(super) fn poll_established(&mut self, plain: &mut Vec<u8>) -> Result<Option<Peer>, PeerMisbehaved> {
        match self {
            // The first byte shows that somebody serves this connection: before, it may wait in the node's queue.
            Self::Plain { announced } if !*announced && !plain.is_empty() => {
                *announced = true;
                Ok(Some(Peer::Local))
            }
            Self::SecretHandshake { handshake, .. } if handshake.is_established() => {
                self.establish_secret(plain).map(Some)
            }
            Self::NoiseHandshake(handshake) if handshake.is_established() => Ok(self.establish_noise()),
            _ => Ok(None),
        }
    }

    fn establish_secret(&mut self, plain: &mut Vec<u8>) -> Result<Peer, PeerMisbehaved> {
        let Self::SecretHandshake { handshake, pinned } = mem::replace(self, Self::Plain { announced: true })
        else {
            return Err(PeerMisbehaved::Failed);
        };
        let done = handshake.established().ok_or(PeerMisbehaved::Failed)?;
        let found = done.peer.id();
        if let Some(expected) = pinned.filter(|expected| *expected != found) {
            return Err(PeerMisbehaved::WrongPeer {
                found: found.to_string(),
                expected: expected.to_string(),
            });
        }
        plain.extend_from_slice(&done.leftover);
        *self = Self::Secret { sealer: done.sealer, opener: done.opener };
        Ok(Peer::Secret(found))
    }

    fn establish_noise(&mut self) -> Option<Peer> {
        let Self::NoiseHandshake(handshake) = mem::replace(self, Self::Plain { announced: true }) else {
            return None;
        };
        let done = handshake.established()?;
        *self = Self::Noise { sealer: done.sealer, opener: done.opener };
        Some(Peer::Noise(done.peer))
    }

    pub(super) fn seal(&mut self, plain: &[u8], outbox: &mut Vec<u8>) -> Result<(), PeerMisbehaved> {
        match self {
            Self::Plain { .. } => outbox.extend_from_slice(plain),
            Self::Secret { sealer, .. } => {
                sealer.seal(plain, outbox).map_err(|_| PeerMisbehaved::NoncesUsedUp)?;
            }
            Self::Noise { sealer, .. } => {
                sealer.seal(plain, outbox).map_err(|_| PeerMisbehaved::NoncesUsedUp)?;
            }
            Self::SecretHandshake { .. } | Self::NoiseHandshake(_) => return Err(PeerMisbehaved::Failed),
        }
        Ok(())
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("local"),
            Self::Secret(id) => id.fmt(f),
            Self::Noise(id) => id.fmt(f),
        }
    }
}
