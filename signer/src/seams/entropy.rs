//! Where randomness comes from.

/// A source of random bytes fit for keys.
pub trait Entropy {
    /// Fills `bytes`.
    ///
    /// # Panics
    /// If the source fails: a signer without entropy must not go on.
    fn fill(&self, bytes: &mut [u8]);
}

/// The operating system's source.
#[derive(Debug, Clone, Copy)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        if let Err(error) = getrandom::getrandom(bytes) {
            panic!("the operating system gives no entropy: {error}");
        }
    }
}

impl dyn Entropy + '_ {
    /// 32 fresh bytes.
    pub fn key(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        self.fill(&mut bytes);
        bytes
    }
}
