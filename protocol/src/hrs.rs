//! Height, round and step: the place in consensus at which a signature counts.

use std::fmt;

/// A block height. Signed as on the wire; a negative one is never signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Height(pub i64);

/// A round within a height. CometBFT's type is `int32`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Round(pub i32);

/// What is signed in a round, in the order in which a validator signs it.
///
/// The order is CometBFT's (`privval/file.go`: `stepPropose`, `stepPrevote`, `stepPrecommit`). Numbers belong to
/// file formats and differ between signers, so they live with those formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// A block is proposed.
    Proposal,
    /// The first vote on a block, or on nil.
    Prevote,
    /// The second vote on a block, or on nil.
    Precommit,
}

/// Height, round and step together: at most one signature exists for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hrs {
    /// The block height.
    pub height: Height,
    /// The round within the height.
    pub round: Round,
    /// The step within the round.
    pub step: Step,
}

impl fmt::Display for Height {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Step {
    /// The step's number in CometBFT's state file and in logs: 1, 2 or 3.
    pub const fn number(self) -> u8 {
        match self {
            Self::Proposal => 1,
            Self::Prevote => 2,
            Self::Precommit => 3,
        }
    }
}

/// As operators' guides write it: `Proposal`, `PreVote`, `PreCommit`.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Proposal => "Proposal",
            Self::Prevote => "PreVote",
            Self::Precommit => "PreCommit",
        })
    }
}

/// `height/round/step` with CometBFT's step number, as in `12/0/2`.
impl fmt::Display for Hrs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.height, self.round, self.step.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_by_height_then_round_then_step() {
        let hrs = |h, r, step| Hrs { height: Height(h), round: Round(r), step };
        let rising = [
            hrs(1, 9, Step::Precommit),
            hrs(2, 0, Step::Proposal),
            hrs(2, 0, Step::Prevote),
            hrs(2, 0, Step::Precommit),
            hrs(2, 1, Step::Proposal),
        ];
        assert!(rising.is_sorted_by(|a, b| a < b));
        assert_eq!(rising[3].to_string(), "2/0/3");
    }
}
