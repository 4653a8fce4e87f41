//! How many of how many cosigners sign.

use std::fmt;

/// So many of so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quorum {
    /// How many sign.
    pub threshold: u16,
    /// How many there are.
    pub members: u16,
}

impl Quorum {
    /// Bears crashes: one cosigner may be down.
    pub const TWO_OF_THREE: Self = Self { threshold: 2, members: 3 };
    /// Bears crashes: two cosigners may be down.
    pub const THREE_OF_FIVE: Self = Self { threshold: 3, members: 5 };
    /// Bears one cosigner that is copied, set back or malicious.
    pub const THREE_OF_FOUR: Self = Self { threshold: 3, members: 4 };
    /// Bears two such cosigners.
    pub const FIVE_OF_SEVEN: Self = Self { threshold: 5, members: 7 };
    /// Not safe, and refused by the signer. It comes about if a key is dealt twice, to two pairs: each has a group file that
    /// is a good one, and neither knows of the other.
    pub const TWO_OF_FOUR: Self = Self { threshold: 2, members: 4 };

    /// In how many groups the members are, none of which knows of another.
    pub fn dealings(self) -> u16 {
        match self {
            Self::TWO_OF_FOUR => 2,
            _ => 1,
        }
    }

    /// How many members each of those groups has.
    pub fn members_of_one(self) -> u16 {
        self.members / self.dealings()
    }
}

impl fmt::Display for Quorum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-of-{}", self.threshold, self.members)
    }
}

#[cfg(test)]
mod tests {
    use monosign::threshold::group::Shape;

    use super::Quorum;

    #[test]
    fn each_group_is_one_that_the_signer_takes_and_two_of_four_is_none() {
        for quorum in [
            Quorum::TWO_OF_THREE,
            Quorum::THREE_OF_FIVE,
            Quorum::THREE_OF_FOUR,
            Quorum::FIVE_OF_SEVEN,
            Quorum::TWO_OF_FOUR,
        ] {
            assert!(Shape::new(quorum.threshold, quorum.members_of_one()).is_ok(), "{quorum}");
        }
        assert!(Shape::new(2, 4).is_err());
    }
}
