//! How many heights four validators decide in a second of processor time.
//!
//! `cargo run --release -p mock-validator --example heights [HEIGHTS]`
#![allow(clippy::disallowed_methods, reason = "a measurement needs a clock")]

use std::time::{Duration, Instant};

use mock_validator::consensus::Scheme;
use mock_validator::network::{Network, Options};
use monosign_protocol::{Dialect, Height};

fn main() -> anyhow::Result<()> {
    let heights = std::env::args().nth(1).map_or(Ok(20_000), |text| text.parse())?;
    for (name, scheme) in [("ed25519", Scheme::Ed25519), ("digest", Scheme::Digest)] {
        let options = Options { scheme, ..Options::new("heights".parse()?, Dialect::V0_38, 1) };
        let mut network = Network::of_validators(4, options);
        let start = Instant::now();
        while network.lowest_height() <= Height(heights) {
            let next = network.now() + Duration::from_secs(1);
            network.advance_to(next);
        }
        // One thread that never waits: the time that passed is processor time, if the machine is idle.
        let spent = start.elapsed().as_secs_f64();
        let simulated = network.now().as_secs();
        println!(
            "{name}: {heights} heights, {simulated} s simulated, {spent:.2} s: {:.0} heights/s",
            heights as f64 / spent
        );
    }
    Ok(())
}
