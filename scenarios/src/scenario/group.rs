//! What a scenario is in the modes of groups.
//!
//! With one `[[signer]]`, a group is grown around it: it is one of the cosigners, which one the seed says, and the only one that
//! serves nodes. So whatever befalls the signer of a scenario befalls the cosigner that the nodes talk to. With as many as the group has
//! members, they are its cosigners in this order, and those beyond that are `off` and get copies.

use super::{Do, Scenario, Signer};
use crate::quorum::Quorum;
use crate::streams::Streams;

/// A host of a signer, and which cosigner it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Cosigner {
    /// The host.
    pub host: Signer,
    /// Whether it serves nodes.
    pub serves: bool,
    /// Which cosigner it is: of which dealing, and its number there, both from 0 and 1. None for a host that gets a copy.
    pub seat: Option<Seat>,
}

/// A cosigner's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seat {
    /// Which dealing of the key, from 0.
    pub dealing: u16,
    /// The number in its group, from 1.
    pub member: u16,
}

impl Seat {
    fn nth(quorum: Quorum, n: u16) -> Self {
        let size = quorum.members_of_one();
        Self { dealing: n / size, member: n % size + 1 }
    }
}

impl Scenario {
    /// The hosts of signers in a mode of groups.
    pub fn cosigners(&self, quorum: Quorum, streams: &Streams) -> Vec<Cosigner> {
        let hosts = self.signer_hosts();
        let [signer] = hosts.as_slice() else {
            let seat = |n| u16::try_from(n).ok().filter(|n| *n < quorum.members);
            let cosigner =
                |(n, host)| Cosigner { host, serves: true, seat: seat(n).map(|n| Seat::nth(quorum, n)) };
            return hosts.into_iter().enumerate().map(cosigner).collect();
        };
        let drawn = streams.of("which cosigner the signer is").below(quorum.members.into());
        (0..quorum.members)
            .map(|n| {
                let seat = Some(Seat::nth(quorum, n));
                if u64::from(n) == drawn {
                    return Cosigner { host: signer.clone(), serves: true, seat };
                }
                let (chain, link) = (signer.chain.clone(), signer.link.clone());
                let host = Signer { chain, link, ..Signer::named(&format!("cosigner-{}", n + 1)) };
                Cosigner { host, serves: false, seat }
            })
            .collect()
    }

    /// Whether all that it says makes sense for a group that is grown around its signer.
    pub fn makes_sense_for_groups(&self) -> bool {
        let is_for_sole = |act: &Do| {
            matches!(
                act,
                Do::DeviceFault { .. } | Do::LoseRecord { .. } | Do::Clone { .. } | Do::SecondProcess { .. }
            )
        };
        !self.sole
            && self.signers.len() <= 1
            && !self.expect.signer_stays_down
            && self.tick.0.as_millis() == 1
            && !self.acts.iter().any(|act| is_for_sole(&act.act))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::parse;
    use super::*;

    fn scenario(text: &str) -> Scenario {
        parse(&format!("about = \"some\"\nduration = \"20s\"\n{text}")).unwrap()
    }

    #[test]
    fn a_group_is_grown_around_a_signer_which_any_of_its_cosigners_may_be() {
        let scenario = scenario("");
        let mut drawn = BTreeSet::new();
        for seed in 0..30 {
            let cosigners = scenario.cosigners(Quorum::TWO_OF_THREE, &Streams::new(seed));
            let seats: Vec<_> = cosigners.iter().filter_map(|cosigner| cosigner.seat).collect();
            assert_eq!(seats, [1, 2, 3].map(|member| Seat { dealing: 0, member }));
            let serving: Vec<_> = cosigners.iter().filter(|cosigner| cosigner.serves).collect();
            assert_eq!(serving.len(), 1);
            assert_eq!(serving[0].host.name, "signer");
            drawn.extend(serving[0].seat.map(|seat| seat.member));
        }
        assert_eq!(drawn, [1, 2, 3].into());
    }

    #[test]
    fn four_who_were_dealt_the_key_twice_are_two_pairs() {
        let names = ["one", "two", "three", "four"].map(|name| format!("[[signer]]\nname = \"{name}\"\n"));
        let scenario = scenario(&format!("modes = [\"threshold-2-of-4\"]\n{}", names.concat()));
        let cosigners = scenario.cosigners(Quorum::TWO_OF_FOUR, &Streams::new(1));
        let seats: Vec<_> = cosigners.iter().filter_map(|cosigner| cosigner.seat).collect();
        assert_eq!(
            seats.iter().map(|seat| (seat.dealing, seat.member)).collect::<Vec<_>>(),
            [(0, 1), (0, 2), (1, 1), (1, 2)]
        );
        assert!(cosigners.iter().all(|cosigner| cosigner.serves));
    }

    #[test]
    fn what_befalls_a_key_in_one_place_says_nothing_of_a_group() {
        let absent = "[[act]]\nat = \"1s\"\ndo = \"device-fault\"\nhost = \"signer\"\nfault = \"absent\"\nfor = \"1s\"\n";
        let standby = "[[signer]]\nname = \"signer\"\n[[signer]]\nname = \"standby\"\n";
        assert!(scenario("").makes_sense_for_groups());
        for text in ["sole = true", absent, standby] {
            assert!(!scenario(text).makes_sense_for_groups(), "{text}");
        }
    }
}
