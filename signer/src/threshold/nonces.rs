//! The nonces that one connection may use.
//!
//! What always holds:
//!
//! * nonces live in memory and belong to one connection: when it ends, they are gone;
//! * they are taken out before anything else is done with the request that names them, so that no two requests get the same,
//!   whatever they are;
//! * they are dropped when they are old: a machine that was suspended, or copied with its memory, must not use them for long.

use std::collections::BTreeMap;
use std::time::Duration;

use frost_ed25519::round1::{SigningCommitments, SigningNonces};
use tokio::time::Instant;

use super::rounds::NonceMaker;

/// How many a connection has: as many requests can be under way at once.
pub const POOL: usize = 16;
/// How long nonces are kept. The coordinator stops using them a little earlier.
pub const LIFETIME: Duration = Duration::from_secs(60);

/// What one connection may use.
#[derive(Default)]
pub struct NoncePool {
    nonces: BTreeMap<u64, Nonces>,
    next: u64,
}

struct Nonces {
    secret: SigningNonces,
    public: SigningCommitments,
    made: Instant,
}

impl NoncePool {
    /// Fills up, and drops what is old. Returns what is new, for the coordinator.
    pub fn refill(&mut self, now: Instant, maker: &NonceMaker) -> Vec<(u64, Vec<u8>)> {
        self.nonces.retain(|_, nonces| now.duration_since(nonces.made) < LIFETIME);
        let mut fresh = Vec::new();
        while self.nonces.len() < POOL {
            let (secret, public) = maker.fresh();
            let Ok(bytes) = public.serialize() else { break };
            fresh.push((self.next, bytes));
            self.nonces.insert(self.next, Nonces { secret, public, made: now });
            self.next += 1;
        }
        fresh
    }

    /// Takes nonces out, for good.
    pub fn take(&mut self, id: u64, now: Instant) -> Option<(SigningNonces, SigningCommitments)> {
        let nonces = self.nonces.remove(&id)?;
        (now.duration_since(nonces.made) < LIFETIME).then_some((nonces.secret, nonces.public))
    }
}
