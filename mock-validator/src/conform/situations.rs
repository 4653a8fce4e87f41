//! What real nodes were seen to ask: after crashes (C), when the link fails (L), and under attack or by an operator's mistake (A).
//!
//! Each was recorded with nodes of v0.34 to v1.0, or read in their source; the file is `consensus/state.go` where none is named.

mod crashes;
mod faulty_links;
mod twins;

use monosign_protocol::Step;

use super::Bench;
use super::case::{Case, Verdict};

const STEPS: [Step; 3] = [Step::Proposal, Step::Prevote, Step::Precommit];

pub(super) fn cases() -> Vec<Case> {
    [crashes::cases(), faulty_links::cases(), twins::cases()].into_iter().flatten().collect()
}

/// The three signatures of a height that nothing was asked of.
async fn a_height(bench: &mut Bench) -> Verdict {
    let height = bench.fresh();
    for step in STEPS {
        let request = bench.ask(height, 0, step);
        bench.signs(&request).await?;
    }
    Ok(())
}
