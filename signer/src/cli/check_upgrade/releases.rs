//! What differs between releases for a signer and for who runs the validator.

use monosign_protocol::Dialect;

/// From which release, if that is known, to which.
#[derive(Debug, Clone, Copy)]
pub(super) struct Upgrade {
    pub(super) from: Option<Dialect>,
    pub(super) to: Dialect,
}

/// Something that some releases have.
struct Feature {
    is_in: fn(Dialect) -> bool,
    what: &'static str,
}

/// What changes on the validator's side by itself.
const VALIDATOR_SIDE: &[Feature] = &[
    Feature {
        is_in: Dialect::is_v1_or_later,
        what: "the node reads the public key in another form, as bytes and type; both forms are sent here. Older signers (tmkms \
               0.15, Horcrux 3.3) do not start with such a node",
    },
    Feature {
        is_in: Dialect::is_v1_or_later,
        what: "requests say whether extensions are to be signed (`skip_extension_signing`), which is heeded here",
    },
    Feature {
        is_in: Dialect::is_v1_or_later,
        what: "there is a request `SignBytes`, which no node makes. It stays switched off here: it would sign votes",
    },
    Feature {
        is_in: |dialect| matches!(dialect, Dialect::V0_39 | Dialect::V0_40),
        what: "there is `adaptive_sync`. Leave it off on a validator: it can vote while it takes in another block, at another \
               height, where no signer sees the conflict",
    },
    Feature {
        is_in: |dialect| dialect == Dialect::V0_40,
        what: "the node reads messages of 1 MiB; other releases read 10 KiB. No setting: up to 2 MiB are read here, and \
               extensions are not sent back",
    },
    Feature {
        is_in: |dialect| dialect == Dialect::V0_40,
        what: "priv_validator_laddr may be noise://SIGNER_PEER_ID@IP:PORT (`monosign pubkey --peer-id`): both ends know each \
               other then",
    },
    Feature {
        is_in: Dialect::has_non_rp_extensions,
        what: "precommits have a second extension signature. It is given here for empty ones",
    },
];

/// What a chain may turn on by its parameters or its application.
const CHAIN_FEATURES: &[Feature] = &[
    Feature {
        is_in: Dialect::has_extensions,
        what: "vote extensions (consensus_params.abci.vote_extensions_enable_height; from v1.0 on in `feature` instead of `abci`): \
               signed here without a setting",
    },
    Feature {
        is_in: Dialect::is_v1_or_later,
        what: "proposer-based timestamps (consensus_params.feature.pbts_enable_height): times are signed as the node asks",
    },
    Feature {
        is_in: Dialect::has_non_rp_extensions,
        what: "extensions without replay protection that are not empty: they need sign_non_rp_extensions = true in the [[chain]] \
               table, and what could be a vote is refused all the same",
    },
    Feature {
        is_in: |dialect| dialect == Dialect::V0_39 || dialect.is_v1_or_later(),
        what: "validator keys of type bls12_381, if the node is built with them: this signer signs with ed25519 alone",
    },
    Feature {
        is_in: |dialect| dialect == Dialect::V0_40,
        what: "validator keys of types ML-DSA-65 and secp256k1eth: this signer signs with ed25519 alone",
    },
];

impl Upgrade {
    /// What is new on the validator's side, and what is gone.
    pub(super) fn validator_side(&self) -> Vec<String> {
        let mut lines = self.differences(VALIDATOR_SIDE);
        lines.push(
            "the node starts anew, and waits 3 s for its signer: leave the signer running, it dials several times in a second"
                .into(),
        );
        lines
    }

    /// What the chain may turn on, and what it can no longer have.
    pub(super) fn chain_features(&self) -> Vec<String> {
        self.differences(CHAIN_FEATURES)
    }

    fn differences(&self, features: &[Feature]) -> Vec<String> {
        let was_in = |feature: &Feature| self.from.is_some_and(|from| (feature.is_in)(from));
        let new = features.iter().filter(|feature| (feature.is_in)(self.to) && !was_in(feature));
        let gone = features.iter().filter(|feature| !(feature.is_in)(self.to) && was_in(feature));
        let new = new.map(|feature| feature.what.to_owned());
        new.chain(gone.map(|feature| format!("no longer: {}", feature.what))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_one_way_is_gone_the_other_way() {
        for from in Dialect::ALL {
            for to in Dialect::ALL {
                let [there, back] = [Upgrade { from: Some(from), to }, Upgrade { from: Some(to), to: from }]
                    .map(|upgrade| upgrade.chain_features());
                assert_eq!(there.len(), back.len(), "{from} {to}");
                let gone =
                    |lines: &[String]| lines.iter().filter(|line| line.starts_with("no longer")).count();
                assert_eq!(gone(&there), back.len() - gone(&back), "{from} {to}");
                assert_eq!(there.is_empty(), from == to || same_features(from, to), "{from} {to}");
            }
        }
    }

    fn same_features(one: Dialect, other: Dialect) -> bool {
        CHAIN_FEATURES.iter().all(|feature| (feature.is_in)(one) == (feature.is_in)(other))
    }
}
