//! Files of other signers: consensus keys and sign states, each in its own dialect.
//!
//! Nothing here guesses. What can be read in two ways is refused until the operator says which one is meant,
//! because each wrong reading of these files has signed twice, or with another key, for somebody.

pub mod key;
pub mod state;
pub mod step;

#[cfg(test)]
mod vectors;
