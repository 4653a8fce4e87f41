/// Numbers from a seed (SplitMix64), for tests that print theirs.
pub(crate) struct Random(u64);

impl Random {
    /// From `MONOSIGN_SEED`, or a new seed, which is printed: a failing test shows it.
    pub(crate) fn from_env() -> Self {
        let seed = match std::env::var("MONOSIGN_SEED") {
            Ok(seed) => seed.parse().expect("MONOSIGN_SEED is a number"),
            Err(_) => {
                let mut bytes = [0; 8];
                getrandom::getrandom(&mut bytes).expect("entropy");
                u64::from_le_bytes(bytes)
            }
        };
        println!("again with MONOSIGN_SEED={seed}");
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(crate) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("less than a usize")
    }
}
