//! Nonces, made ahead.
//!
//! What always holds:
//!
//! * nonces live in memory and belong to one connection, or to sessions of our own: when it ends, they are gone;
//! * they are taken out before anything else is done with the request that names them, so that no two requests get the same,
//!   whatever they are;
//! * they are dropped when they are old: a machine that was suspended, or copied with its memory, must not use them for long.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::commitments;
use super::frost::{SigningCommitments, SigningNonces};
use super::rounds::NonceMaker;

/// How many a connection has: as many requests can be under way at once.
pub const POOL: usize = 16;
/// How many the coordinator is told of at once, instead of those that it has used: a message each would cost more than they do.
const BATCH: usize = POOL / 2;
/// How long nonces are kept. The coordinator stops using them a little earlier.
pub const LIFETIME: Duration = Duration::from_secs(60);
/// At which age others are offered beside them: so long before the coordinator stops using them that it has the others by then, however
/// long nobody has used any.
pub const RENEWED: Duration = Duration::from_secs(40);

/// What one connection may use.
#[derive(Default)]
pub struct NoncePool {
    nonces: BTreeMap<u64, Nonces>,
    next: u64,
    /// Made, and not yet told to the coordinator.
    untold: Vec<(u64, Vec<u8>)>,
}

struct Nonces {
    secret: SigningNonces,
    public: SigningCommitments,
    made: Instant,
}

impl NoncePool {
    /// Fills up with those that will last, and drops what is old. Returns what the coordinator does not know yet.
    pub fn refill(&mut self, now: Instant, maker: &NonceMaker) -> Vec<(u64, Vec<u8>)> {
        self.nonces.retain(|_, nonces| now.duration_since(nonces.made) < LIFETIME);
        let lasting = self.nonces.values().filter(|nonces| now.duration_since(nonces.made) < RENEWED);
        for _ in lasting.count()..POOL {
            let (secret, public) = maker.fresh();
            let Some(bytes) = commitments::write(&public) else { break };
            self.untold.push((self.next, bytes));
            self.nonces.insert(self.next, Nonces { secret, public, made: now });
            self.next += 1;
        }
        let nonces = &self.nonces;
        self.untold.retain(|(id, _)| nonces.contains_key(id));
        std::mem::take(&mut self.untold)
    }

    /// Fills up after some were used. Returns what the coordinator does not know yet, once that is a batch.
    pub fn replace_used(&mut self, now: Instant, maker: &NonceMaker) -> Vec<(u64, Vec<u8>)> {
        self.untold = self.refill(now, maker);
        if self.untold.len() < BATCH { Vec::new() } else { std::mem::take(&mut self.untold) }
    }

    /// Takes nonces out, for good.
    pub fn take(&mut self, id: u64, now: Instant) -> Option<(SigningNonces, SigningCommitments)> {
        let nonces = self.nonces.remove(&id)?;
        (now.duration_since(nonces.made) < LIFETIME).then_some((nonces.secret, nonces.public))
    }
}

/// How many are made ahead for sessions of our own.
const STOCK: usize = 4;

/// Nonces for sessions that this cosigner coordinates.
#[derive(Default)]
pub struct Stock(VecDeque<Nonces>);

impl Stock {
    /// Whether there are too few.
    pub fn is_low(&self) -> bool {
        self.0.len() < STOCK
    }

    /// Adds one pair, and drops what is old. False if there were enough.
    pub fn fill_up(&mut self, now: Instant, maker: &NonceMaker) -> bool {
        self.0.retain(|nonces| now.duration_since(nonces.made) < LIFETIME);
        if !self.is_low() {
            return false;
        }
        let (secret, public) = maker.fresh();
        self.0.push_back(Nonces { secret, public, made: now });
        true
    }

    /// Takes nonces out, for good.
    pub fn take(&mut self, now: Instant) -> Option<(SigningNonces, SigningCommitments)> {
        self.0.retain(|nonces| now.duration_since(nonces.made) < LIFETIME);
        self.0.pop_front().map(|nonces| (nonces.secret, nonces.public))
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use monosign_protocol::Height;

    use super::*;
    use crate::consensus_key::ConsensusKey;
    use crate::seams::OsEntropy;
    use crate::threshold::deal::deal;
    use crate::threshold::group::Shape;

    fn maker() -> NonceMaker {
        let key = ConsensusKey::from_seed(&[7; 32]);
        let shape = Shape::new(2, 3).expect("allowed");
        let dealt = deal(&key, &"test-1".parse().expect("an id"), shape, Height(0), &OsEntropy);
        let dealt = dealt.expect("a split key");
        NonceMaker::new(dealt.shares[0].key_package(&dealt.group).expect("its share"), Rc::new(OsEntropy))
    }

    #[test]
    fn nonces_are_given_once_and_not_when_they_are_old() {
        let (maker, now) = (maker(), Instant::now());
        let mut pool = NoncePool::default();
        let fresh = pool.refill(now, &maker);
        assert_eq!(fresh.len(), POOL);
        assert!(pool.take(fresh[0].0, now).is_some() && pool.take(fresh[0].0, now).is_none());
        assert!(pool.take(fresh[1].0, now + LIFETIME).is_none());
        // What was taken or is old is replaced by others of new numbers.
        let more = pool.refill(now + LIFETIME, &maker);
        assert_eq!(more.len(), POOL);
        assert!(more.iter().all(|(id, bytes)| fresh.iter().all(|(old, of)| id != old && bytes != of)));
    }

    #[test]
    fn the_coordinator_is_told_of_new_nonces_by_the_batch() {
        let (maker, now) = (maker(), Instant::now());
        let mut pool = NoncePool::default();
        let first = pool.refill(now, &maker);
        for (id, _) in &first[..BATCH - 1] {
            assert!(pool.take(*id, now).is_some());
            assert!(pool.replace_used(now, &maker).is_empty());
        }
        assert!(pool.take(first[BATCH - 1].0, now).is_some());
        let batch = pool.replace_used(now, &maker);
        assert_eq!(batch.len(), BATCH);
        assert!(batch.iter().all(|(id, _)| pool.take(*id, now).is_some()), "each of them is there");
        // What is not a batch yet is told at once when everything is.
        assert_eq!(pool.refill(now, &maker).len(), BATCH);
    }

    #[test]
    fn the_stock_is_bounded_and_ages_too() {
        let (maker, now) = (maker(), Instant::now());
        let mut stock = Stock::default();
        assert_eq!((0..2 * STOCK).filter(|_| stock.fill_up(now, &maker)).count(), STOCK);
        let taken: Vec<_> =
            std::iter::from_fn(|| stock.take(now)).take(2 * STOCK).map(|(_, public)| public).collect();
        assert_eq!(taken.len(), STOCK, "what was taken is in the stock no more");
        assert!((0..STOCK).all(|n| taken[n + 1..].iter().all(|other| *other != taken[n])));
        assert_eq!((0..2 * STOCK).filter(|_| stock.fill_up(now, &maker)).count(), STOCK);
        assert!(stock.take(now + LIFETIME).is_none());
    }

    #[test]
    fn a_pool_that_grows_old_has_another_one_beside_it_and_no_third() {
        let (maker, now) = (maker(), Instant::now());
        let mut pool = NoncePool::default();
        let old = pool.refill(now, &maker);
        assert!(pool.refill(now + RENEWED - Duration::from_secs(1), &maker).is_empty());
        let fresh = pool.refill(now + RENEWED, &maker);
        assert_eq!((fresh.len(), pool.nonces.len()), (POOL, 2 * POOL));
        assert!(pool.refill(now + RENEWED, &maker).is_empty());
        // The old ones are as good as before until they are too old, each once.
        assert!(pool.take(old[0].0, now + RENEWED).is_some() && pool.take(old[0].0, now + RENEWED).is_none());
        assert_eq!(pool.refill(now + LIFETIME, &maker).len(), 0);
        assert!(
            pool.take(old[1].0, now + LIFETIME).is_none() && pool.take(fresh[0].0, now + LIFETIME).is_some()
        );
        assert!(pool.nonces.len() < POOL, "the old ones are gone");
    }
}
