//! `monosign threshold`: sharing a key among cosigners, and looking after them.

mod admin;
mod recipient;
mod split;

use std::io::Write;

use clap::{Args, Subcommand};

use super::Failure;
pub(super) use admin::listen;

/// Arguments of `monosign threshold`.
#[derive(Debug, Args)]
pub(super) struct ThresholdArgs {
    #[command(subcommand)]
    command: ThresholdCommand,
}

#[derive(Debug, Subcommand)]
enum ThresholdCommand {
    /// Make an age identity for a cosigner's share, and print the recipient that `split` needs.
    Recipient(recipient::RecipientArgs),
    /// Split a consensus key into one encrypted share for each cosigner. The public key stays what it is.
    Split(Box<split::SplitArgs>),
    /// Show how a running cosigner and its peers are.
    Status(admin::StatusArgs),
    /// Have every set of t cosigners that can be reached sign a message of no meaning.
    Drill(admin::DrillArgs),
}

pub(super) fn run(args: &ThresholdArgs, out: &mut dyn Write) -> Result<(), Failure> {
    match &args.command {
        ThresholdCommand::Recipient(args) => recipient::run(args, out),
        ThresholdCommand::Split(args) => split::run(args, out),
        ThresholdCommand::Status(args) => admin::status(args, out),
        ThresholdCommand::Drill(args) => admin::drill(args, out),
    }
}
