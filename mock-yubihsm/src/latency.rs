//! How long the device takes.

use std::time::Duration;

use crate::device::codes::command;

/// A model of a device's speed. It is a function of the command and its length alone, so that runs repeat.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Latency {
    /// As fast as the mock can.
    #[default]
    None,
    /// About what Yubico publishes of the YubiHSM 2: EdDSA takes 115 ms for 32 bytes and 146 ms for 1 KiB.
    ///
    /// assume: all that lies between grows evenly, and that other commands take 3 ms.
    Published,
    /// Each signature takes this long, and nothing else takes any time.
    Fixed(Duration),
}

const SHORT: (u64, u64) = (32, 115_000);
const LONG: (u64, u64) = (1024, 146_000);
const OTHER: Duration = Duration::from_millis(3);

impl Latency {
    /// What one command takes; `len` is the length of what it signs, in bytes.
    pub fn of(self, code: u8, len: usize) -> Duration {
        let signs = matches!(code, command::SIGN_EDDSA | command::GENERATE_ASYMMETRIC_KEY);
        match (self, signs) {
            (Self::None, _) | (Self::Fixed(_), false) => Duration::ZERO,
            (Self::Fixed(time), true) => time,
            (Self::Published, false) => OTHER,
            (Self::Published, true) => Duration::from_micros(published_micros(len as u64)),
        }
    }
}

fn published_micros(len: u64) -> u64 {
    let len = len.clamp(SHORT.0, LONG.0);
    SHORT.1 + (LONG.1 - SHORT.1) * (len - SHORT.0) / (LONG.0 - SHORT.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_take_what_is_published() {
        let of = |len| Latency::Published.of(command::SIGN_EDDSA, len).as_millis();
        assert_eq!((of(0), of(32), of(120), of(1024), of(2000)), (115, 115, 117, 146, 146));
    }
}
