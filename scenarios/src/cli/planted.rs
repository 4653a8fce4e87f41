//! `scenarios planted`.

use std::io::Write;

use clap::Args;

use super::{JobArgs, Verdict};
use crate::planted::{self, Ended, Options};

/// Arguments of `scenarios planted`.
#[derive(Debug, Args)]
pub(super) struct PlantedArgs {
    /// Try six mistakes only, others for each number: counting N up tries all of them.
    #[arg(long, value_name = "N", conflicts_with = "only")]
    turn: Option<usize>,
    /// Try these mistakes only: file names in scenarios/planted, without `.patch`, with or without the number.
    #[arg(long, value_name = "NAME", num_args = 1..)]
    only: Vec<String>,
    /// Do not try the tree without any mistake first: everything was just run on it.
    #[arg(long)]
    trust_tree: bool,
    #[command(flatten)]
    jobs: JobArgs,
}

pub(super) fn run(args: &PlantedArgs, out: &mut dyn Write) -> anyhow::Result<Verdict> {
    let jobs = args.jobs.jobs.map(usize::from);
    let options = Options { turn: args.turn, only: args.only.clone(), trust_tree: args.trust_tree, jobs };
    Ok(match planted::run(&options, out)? {
        Ended::AllCaught => Verdict::Held,
        Ended::Missed => Verdict::Violated,
    })
}
