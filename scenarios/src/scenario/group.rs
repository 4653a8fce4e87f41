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
