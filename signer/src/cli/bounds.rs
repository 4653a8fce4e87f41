//! Heights that people type: a record never comes down again, so what is far from all that is known is confirmed first.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write};
use std::time::Duration;

use clap::Args;
use monosign_protocol::{ChainId, Height};
use tokio::time::timeout;

use super::{Failure, block_on, rpc};
use crate::guard::{HIGHEST_FIRST, JumpLimit};

/// With what a height is compared.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct BoundArgs {
    /// The RPC of a node of the chain, http://HOST:26657: heights are compared with the chain's.
    #[arg(long, value_name = "URL")]
    rpc: Option<String>,
    /// Do not ask whether a height that is far off is meant.
    #[arg(long)]
    yes: bool,
}

/// What the height is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The floor of a new record, given by a person.
    NewFloor,
    /// Another signer's state.
    Import,
    /// A higher floor.
    Raise,
    /// Leave to jump.
    Allow,
}

/// How far above the chain a floor may be: above an hour at 6 s a block.
const ABOVE_CHAIN: i64 = 1_000;
/// How far a floor may be above the record, where no limit is configured.
const ABOVE_RECORD: u64 = 100_000;
/// How long a node may take to answer.
const RPC: Duration = Duration::from_secs(5);

impl BoundArgs {
    /// The chain's height, if a node was named.
    pub(super) fn chain_height(&self, chain: &ChainId) -> Result<Option<Height>, Failure> {
        let Some(url) = &self.rpc else { return Ok(None) };
        let hint = "\nhint: nothing was done; name the RPC of a node of the chain, http://HOST:26657, or leave --rpc out";
        let failed = |why: &str| Failure::new(format!("`{url}`: {why}{hint}"));
        let status = match block_on(async { timeout(RPC, rpc::status(url)).await })? {
            Err(_) => return Err(failed("it does not answer")),
            Ok(status) => status.map_err(|e| failed(&e))?,
        };
        if status.network != chain.as_str() {
            return Err(Failure::for_safety(format!(
                "`{url}` is a node of chain `{}`, not of `{chain}`{hint}",
                status.network
            )));
        }
        if status.catching_up {
            return Err(failed("the node is catching up, and does not know the chain's height yet"));
        }
        Ok(Some(status.height))
    }

    /// Lets a height pass that is near to what is known, and asks about any other. `recorded` is where the record is, if it has a
    /// height.
    pub(super) fn admit(
        &self,
        height: Height,
        recorded: Option<Height>,
        tip: Option<Height>,
        purpose: Purpose,
        limit: JumpLimit,
        out: &mut dyn Write,
    ) -> Result<(), Failure> {
        let Some(doubt) = doubt(height, recorded, tip, purpose, limit) else { return Ok(()) };
        if self.yes {
            return Ok(());
        }
        if io::stdin().is_terminal() {
            write!(out, "{doubt}.\nType `yes` to go on: ")?;
            out.flush()?;
            let mut line = String::new();
            io::stdin().read_line(&mut line)?;
            if line.trim() == "yes" {
                return Ok(());
            }
            return Err(Failure::for_safety("that is not `yes`: nothing was done"));
        }
        let compare =
            if tip.is_none() { "; `--rpc http://NODE:26657` compares it with the chain" } else { "" };
        Err(Failure::for_safety(format!(
            "{doubt}: nothing was done\nhint: look at the number again; if it is meant, give the same command with --yes{compare}"
        )))
    }
}

/// Why a height may not be the one that was meant.
fn doubt(
    height: Height,
    recorded: Option<Height>,
    tip: Option<Height>,
    purpose: Purpose,
    limit: JumpLimit,
) -> Option<String> {
    let mut text = match purpose {
        Purpose::Allow => {
            format!("a request for height {height} would be signed, and nothing below it ever after")
        }
        Purpose::NewFloor | Purpose::Import | Purpose::Raise => {
            format!("nothing below height {height} would be signed, ever: a record never comes down again")
        }
    };
    if let Some(tip) = tip {
        let above = height.0.saturating_sub(tip.0);
        if above > ABOVE_CHAIN {
            let _ = write!(text, ".\nThe chain is at {tip}: {}", reached_in(above));
            return Some(text);
        }
        // What is voted on now is the next height.
        if purpose == Purpose::NewFloor && height.0 > 0 && above <= 1 {
            return Some(format!(
                "the chain is at {tip}: a key that has signed up to there would sign again at height {height}.\n\
                 A height from {} on is above all that can have been signed",
                tip.0.saturating_add(2)
            ));
        }
        return None;
    }
    if height.0 > HIGHEST_FIRST {
        let _ = write!(text, ".\nNo chain is that high: {}", reached_in(height.0));
        return Some(text);
    }
    let recorded = recorded?;
    let heights = match limit {
        JumpLimit::Heights(limit) => limit.max(ABOVE_RECORD),
        JumpLimit::Off => ABOVE_RECORD,
    };
    let above = height.0.saturating_sub(recorded.0);
    // Leave to jump is for what is above the limit.
    let heights = if purpose == Purpose::Allow { heights.saturating_mul(100) } else { heights };
    if u64::try_from(above).is_ok_and(|above| above > heights) {
        let _ = write!(text, ".\nThe record is at height {recorded}: {}", reached_in(above));
        return Some(text);
    }
    None
}

/// What a rise by so many heights means for a chain of slow and of fast blocks.
pub(super) fn reached_in(heights: i64) -> String {
    let time = |millis: i64| match heights.saturating_mul(millis) / 1000 {
        seconds @ ..7200 => format!("{} minutes", seconds / 60),
        seconds @ 7200..172_800 => format!("{} hours", seconds / 3600),
        seconds @ 172_800..63_072_000 => format!("{} days", seconds / 86_400),
        seconds => format!("{} years", seconds / 31_536_000),
    };
    format!("{heights} heights are {} at 6 s a block, and {} at 1 s", time(6000), time(1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: JumpLimit = JumpLimit::Heights(100_000);

    fn is_doubted(height: i64, recorded: Option<i64>, tip: Option<i64>, purpose: Purpose) -> bool {
        doubt(Height(height), recorded.map(Height), tip.map(Height), purpose, LIMIT).is_some()
    }

    #[test]
    fn a_floor_far_above_the_record_is_doubted() {
        for purpose in [Purpose::Raise, Purpose::Import] {
            assert!(!is_doubted(1_100_000, Some(1_000_000), None, purpose));
            assert!(is_doubted(1_100_001, Some(1_000_000), None, purpose));
            assert!(is_doubted(i64::MAX, Some(0), None, purpose));
        }
        assert!(is_doubted(100_001, Some(0), None, Purpose::Raise));
        assert!(doubt(Height(200_000), Some(Height(1)), None, Purpose::Raise, JumpLimit::Off).is_some());
    }

    #[test]
    fn a_first_floor_is_doubted_where_no_chain_can_be() {
        assert!(!is_doubted(25_000_000, None, None, Purpose::NewFloor));
        assert!(!is_doubted(0, None, None, Purpose::NewFloor));
        for height in [99_999_999_999, i64::MAX] {
            assert!(is_doubted(height, None, None, Purpose::NewFloor), "{height}");
            assert!(is_doubted(height, None, None, Purpose::Import), "{height}");
            assert!(is_doubted(height, Some(5), None, Purpose::Allow), "{height}");
        }
    }

    #[test]
    fn a_height_is_doubted_by_what_the_chain_says() {
        // Too high, where the record alone would not tell.
        assert!(is_doubted(250_000, Some(200_000), Some(200_100), Purpose::Raise));
        assert!(!is_doubted(200_200, Some(1_000), Some(200_100), Purpose::Raise));
        // Too low: the restored disk of a validator that has signed up to the tip.
        assert!(is_doubted(50, None, Some(102), Purpose::NewFloor));
        assert!(is_doubted(103, None, Some(102), Purpose::NewFloor));
        assert!(!is_doubted(104, None, Some(102), Purpose::NewFloor));
        assert!(!is_doubted(0, None, Some(102), Purpose::NewFloor));
        assert!(!is_doubted(50, Some(1), Some(102), Purpose::Import));
    }

    #[test]
    fn leave_to_jump_is_for_what_is_above_the_limit() {
        assert!(!is_doubted(1_000_000, Some(1), None, Purpose::Allow));
        assert!(is_doubted(20_000_000, Some(1), None, Purpose::Allow));
        assert!(is_doubted(20_000_000, Some(1), Some(500), Purpose::Allow));
    }
}
