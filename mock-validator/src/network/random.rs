//! Randomness from a seed, in streams.

/// A stream of pseudo-random numbers (SplitMix64). Each purpose has its own, so that one more draw for one of them
/// leaves all others as they were.
#[derive(Debug, Clone)]
pub struct Stream(u64);

impl Stream {
    /// The stream of `seed` for a purpose, say a fault, and two numbers, say the ends of a link.
    pub fn new(seed: u64, purpose: &str, numbers: [usize; 2]) -> Self {
        let mut stream = Self(seed);
        let numbers = numbers.map(|number| number as u64);
        for part in purpose.bytes().map(u64::from).chain(numbers) {
            stream.0 = stream.next() ^ part;
        }
        stream
    }

    /// The next number.
    #[allow(clippy::should_implement_trait, reason = "a stream without an end is no iterator to loop over")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 if that is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next().checked_rem(end).unwrap_or(0)
    }

    /// True in so many of a million draws.
    pub fn happens(&mut self, per_million: u32) -> bool {
        per_million > 0 && self.below(1_000_000) < u64::from(per_million)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_repeat_and_differ() {
        let draw = |seed, purpose, numbers| Stream::new(seed, purpose, numbers).next();
        assert_eq!(draw(1, "link", [0, 1]), draw(1, "link", [0, 1]));
        let others = [draw(2, "link", [0, 1]), draw(1, "node", [0, 1]), draw(1, "link", [1, 0])];
        assert!(others.iter().all(|other| *other != draw(1, "link", [0, 1])));
    }
}
