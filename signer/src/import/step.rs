//! The three signed steps of a round.

/// What a validator signs in a round, in the order of the round.
///
/// A floor at which nothing was signed yet is `Option::<Step>::None`, which orders below every step. The numbers
/// of the steps differ between signers and therefore live in their codecs only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// The block of the round, signed by its proposer.
    Proposal,
    /// The first vote of the round.
    Prevote,
    /// The second vote of the round.
    Precommit,
}
