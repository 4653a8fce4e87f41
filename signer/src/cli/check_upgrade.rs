//! `monosign check-upgrade`: will this signer, as it is configured, sign for another release of CometBFT?
//!
//! The configuration is the operator's own; the key, the chain id, the record and the validator are not: they are made for the
//! check and thrown away. The operator's key and record are not opened.

mod changes;
mod diff;
mod releases;
mod report;
mod trial;

use std::fs;
use std::io::Write;

use clap::Args;
use monosign_protocol::{ChainId, Dialect};
use zeroize::Zeroizing;

use super::{ConfigArgs, Failure, block_on};
use crate::config::Config;
use changes::Plan;
use releases::Upgrade;
use report::Report;
use trial::Trial;

/// Arguments of `monosign check-upgrade`.
#[derive(Debug, Args)]
pub(super) struct CheckUpgradeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The release that the validators will run: v0.34, v0.37, v0.38, v0.39, v0.40, v1.0 or v2.0-rc.
    #[arg(long, value_name = "VERSION")]
    to: Dialect,
    /// The release that they run now. Without it, the protocol_version of the configuration, if it names one.
    #[arg(long, value_name = "VERSION")]
    from: Option<Dialect>,
    /// Check this chain alone.
    #[arg(long, value_name = "ID")]
    chain: Option<ChainId>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &CheckUpgradeArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let config = args.config.load()?;
    let text = Zeroizing::new(fs::read_to_string(&config.path).map_err(Failure::new)?);
    // Not the parser's own words, which quote the text. It was TOML a moment ago.
    let changed = |_| Failure::new(format!("`{}` was changed meanwhile: try again", config.path.display()));
    let plan = Plan::new(&text, &config, args.to).map_err(changed)?;
    let changed = Config::parse(&plan.changed(), &config.path).map_err(Failure::new)?;
    let chains: Vec<_> =
        changed.chains.iter().filter(|chain| args.chain.as_ref().is_none_or(|id| *id == chain.id)).collect();
    if let (Some(id), true) = (&args.chain, chains.is_empty()) {
        return Err(Failure::new(format!("`{}` has no [[chain]] with id `{id}`", config.path.display())));
    }
    let from = args.from.or_else(|| config.validators.iter().find_map(|validator| validator.dialect));
    let mut trials = Vec::new();
    for chain in chains {
        trials.push(block_on(Trial::of(chain, &changed.validators, args.to))?);
    }
    let report = Report {
        path: &config.path,
        upgrade: Upgrade { from, to: args.to },
        plan: &plan,
        max_heights: config.validators.iter().filter_map(|validator| validator.max_height).collect(),
        trials,
    };
    if args.json {
        report.write_json(out)?
    } else {
        report.write(out)?
    }
    if report.is_ready() { Ok(()) } else { Err(report.failure()) }
}
