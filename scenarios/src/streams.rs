//! Random numbers, a stream for each purpose.
//!
//! Streams are independent: what one purpose draws, or that it draws at all, never shifts another. So a fault can be taken out of a
//! plan and the rest of the run stays what it was, which is what makes plans shrink.

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore as _, SeedableRng as _};
use sha2::{Digest as _, Sha256};

/// The root of a run's randomness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Streams {
    seed: u64,
}

impl Streams {
    /// The streams of a seed.
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The stream of a purpose, such as `"disk/signer"`; always the same for the same seed and purpose.
    pub fn of(&self, purpose: &str) -> Stream {
        let mut hash = Sha256::new();
        hash.update(self.seed.to_le_bytes());
        hash.update(purpose);
        Stream { rng: ChaCha8Rng::from_seed(hash.finalize().into()) }
    }
}

/// One purpose's random numbers.
#[derive(Debug, Clone)]
pub struct Stream {
    rng: ChaCha8Rng,
}

impl Stream {
    /// A stream of its own for a part of this one's purpose: what either draws from now on does not shift the other.
    pub fn fork(&mut self) -> Self {
        Self { rng: ChaCha8Rng::from_seed(self.key()) }
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.rng.fill_bytes(bytes);
    }

    /// 32 bytes.
    pub fn key(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        self.fill(&mut bytes);
        bytes
    }

    /// Any 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.rng.next_u64()
    }

    /// A number from `low` to `high`, both included.
    ///
    /// # Panics
    /// If `low` is above `high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high, "{low} to {high} is no range");
        match (high - low).checked_add(1) {
            // The bias of a 64-bit remainder is of no matter here.
            Some(width) => low + self.bits() % width,
            None => self.bits(),
        }
    }

    /// A number below `bound`.
    ///
    /// # Panics
    /// If `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.between(0, bound - 1)
    }

    /// True once in a hundred, `percent` times.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of `choices`.
    ///
    /// # Panics
    /// If there are none.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::Streams;

    #[test]
    fn streams_repeat_and_differ() {
        let draw = |seed, purpose| Streams::new(seed).of(purpose).bits();
        assert_eq!(draw(1, "disk"), draw(1, "disk"));
        assert_ne!(draw(1, "disk"), draw(2, "disk"));
        assert_ne!(draw(1, "disk"), draw(1, "link"));
    }

    #[test]
    fn a_fork_and_its_origin_do_not_shift_each_other() {
        let draw = |from_fork: usize| {
            let mut stream = Streams::new(1).of("disk");
            let mut fork = stream.fork();
            (0..from_fork).for_each(|_| {
                fork.bits();
            });
            stream.bits()
        };
        assert_eq!(draw(0), draw(3));
        let mut stream = Streams::new(1).of("disk");
        assert_ne!(stream.fork().bits(), stream.fork().bits());
    }

    #[test]
    fn numbers_stay_in_their_range() {
        let mut stream = Streams::new(7).of("range");
        let drawn: Vec<_> = (0..200).map(|_| stream.between(3, 5)).collect();
        assert!((3..=5).all(|n| drawn.contains(&n)), "{drawn:?}");
        assert!(drawn.iter().all(|n| (3..=5).contains(n)));
    }
}
