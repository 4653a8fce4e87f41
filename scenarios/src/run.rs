//! One run: a scenario in one mode, against one release, under one seed.

use std::fmt;
use std::str::FromStr;

use monosign_protocol::Dialect;
use sha2::{Digest as _, Sha256};

use crate::quorum::Quorum;
use crate::scenario::Scenario;

/// All that a run's events follow from, beside the build.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// What happens.
    pub scenario: Scenario,
    /// The scenario's name: that of its file, without `.toml`.
    pub name: String,
    /// How the signers sign.
    pub mode: Mode,
    /// The release that nodes run, where the scenario names no other.
    pub dialect: Dialect,
    /// The seed of all streams.
    pub seed: u64,
}

/// How signers sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// The production software key, which answers at once.
    Softsign,
    /// The same key behind a modelled device, which takes about 120 ms for a signature.
    Device,
    /// A YubiHSM 2 at the wire level, and all of the production code but the `yubihsm` crate, which cannot be run without sockets.
    Yubihsm,
    /// A PKCS#11 token behind a worker, and all of the production code but the process and the library.
    Pkcs11,
    /// The key is shared among cosigners, so many of so many of which sign together.
    Threshold(Quorum),
}

/// What names no mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no signing mode: use one of {all}", all = Mode::ALL.map(|mode| format!("`{mode}`")).join(", "))]
pub struct InvalidMode(String);

impl Run {
    /// The seed of a scenario's `index`th run in a mode and dialect; the same at every commit, or another at each where `fresh` is
    /// its hash.
    pub fn derive_seed(name: &str, mode: Mode, dialect: Dialect, index: u64, fresh: &str) -> u64 {
        let mut hash = Sha256::new();
        for part in [name, &mode.to_string(), &dialect.to_string(), &index.to_string(), fresh] {
            hash.update(part);
            hash.update([0]);
        }
        let [a, b, c, d, ..]: [u8; 32] = hash.finalize().into();
        // 32 bits are enough of them, and can be read out.
        u32::from_le_bytes([a, b, c, d]).into()
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}, {}, seed {}", self.name, self.mode, self.dialect, self.seed)
    }
}

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 9] = [
        Self::Softsign,
        Self::Device,
        Self::Yubihsm,
        Self::Pkcs11,
        Self::Threshold(Quorum::TWO_OF_THREE),
        Self::Threshold(Quorum::THREE_OF_FIVE),
        Self::Threshold(Quorum::THREE_OF_FOUR),
        Self::Threshold(Quorum::FIVE_OF_SEVEN),
        Self::Threshold(Quorum::TWO_OF_FOUR),
    ];
    /// The modes in which one process has the key, in memory or behind a modelled device.
    pub const SOLE: [Self; 2] = [Self::Softsign, Self::Device];
    /// The modes in which the production code for devices is what signs.
    pub const HARDWARE: [Self; 2] = [Self::Yubihsm, Self::Pkcs11];
    /// The modes of groups that a scenario is run in that does not say which.
    pub const USUAL_GROUPS: [Self; 2] =
        [Self::Threshold(Quorum::TWO_OF_THREE), Self::Threshold(Quorum::THREE_OF_FIVE)];
    /// The modes that a scenario is run in beside the sole ones if it does not say which.
    pub const EXTRA: [Self; 4] = [
        Self::Yubihsm,
        Self::Pkcs11,
        Self::Threshold(Quorum::TWO_OF_THREE),
        Self::Threshold(Quorum::THREE_OF_FIVE),
    ];

    /// Whether the production code for devices is what signs.
    pub fn is_hardware(self) -> bool {
        Self::HARDWARE.contains(&self)
    }

    /// How many of how many cosigners sign, in a mode of groups.
    pub fn quorum(self) -> Option<Quorum> {
        match self {
            Self::Threshold(quorum) => Some(quorum),
            _ => None,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Softsign => f.write_str("softsign"),
            Self::Device => f.write_str("device"),
            Self::Yubihsm => f.write_str("yubihsm"),
            Self::Pkcs11 => f.write_str("pkcs11"),
            Self::Threshold(quorum) => write!(f, "threshold-{quorum}"),
        }
    }
}

impl FromStr for Mode {
    type Err = InvalidMode;

    fn from_str(text: &str) -> Result<Self, InvalidMode> {
        Self::ALL.into_iter().find(|mode| mode.to_string() == text).ok_or_else(|| InvalidMode(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use monosign_protocol::Dialect;

    use super::{Mode, Run};

    #[test]
    fn modes_are_read_back_and_others_refused() {
        for mode in Mode::ALL {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        let refused = "ledger".parse::<Mode>().unwrap_err().to_string();
        assert!(Mode::ALL.iter().all(|mode| refused.contains(&format!("`{mode}`"))), "{refused}");
    }

    #[test]
    fn seeds_stay_what_they_are_and_differ_in_every_part() {
        let seed = |name, mode, index, fresh| Run::derive_seed(name, mode, Dialect::V0_38, index, fresh);
        let base = seed("power-cut", Mode::Softsign, 0, "");
        // A changed derivation would take every scenario to other runs than those that are known to pass.
        assert_eq!(base, 2_293_879_273);
        for other in [
            seed("power-cuts", Mode::Softsign, 0, ""),
            seed("power-cut", Mode::Device, 0, ""),
            seed("power-cut", Mode::Softsign, 1, ""),
            seed("power-cut", Mode::Softsign, 0, "39062d0"),
            Run::derive_seed("power-cut", Mode::Softsign, Dialect::V1_0, 0, ""),
        ] {
            assert_ne!(base, other);
        }
    }
}
