//! What the tests of several files start from.

use monosign_protocol::Dialect;

use crate::run::{Mode, Run};
use crate::scenario;

/// The text of a small scenario.
pub(crate) const SMALL: &str = "about = \"a power cut\"\nduration = \"10s\"\n\n[[act]]\nat = \"1s\"\ndo = \"power-cut\"\n\
                                host = \"signer\"\nfor = \"1s\"\n";

/// A run of it.
pub(crate) fn run() -> Run {
    crate::deadline::for_this_test();
    let scenario = scenario::parse(SMALL).expect("a scenario");
    Run { scenario, name: "small".into(), mode: Mode::Softsign, dialect: Dialect::V0_38, seed: 1 }
}
