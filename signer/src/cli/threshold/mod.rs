//! `monosign threshold`: sharing a key among cosigners, and looking after them.

mod admin;
mod ceremony;
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
    /// Print by what the others know this host in a ceremony: dkg, reshare, repair.
    Identity(ceremony::IdentityArgs),
    /// Make a key that never exists in one place, together with the other hosts.
    Dkg(Box<ceremony::DkgArgs>),
    /// Make new shares of the same key for the same cosigners; the old ones sign no more.
    Refresh(Box<ceremony::RefreshArgs>),
    /// Make new shares of the same key for other cosigners, or with another threshold; the old ones sign no more.
    Reshare(Box<ceremony::ReshareArgs>),
    /// Make a lost share again, from those of t others.
    Repair(Box<ceremony::RepairArgs>),
    /// Show how a running cosigner and its peers are.
    Status(admin::StatusArgs),
    /// Have every set of t cosigners that can be reached sign a message of no meaning.
    Drill(admin::DrillArgs),
}

pub(super) fn run(args: &ThresholdArgs, out: &mut dyn Write) -> Result<(), Failure> {
    match &args.command {
        ThresholdCommand::Recipient(args) => recipient::run(args, out),
        ThresholdCommand::Split(args) => split::run(args, out),
        ThresholdCommand::Identity(args) => ceremony::identity(args, out),
        ThresholdCommand::Dkg(args) => ceremony::dkg(args, out),
        ThresholdCommand::Refresh(args) => ceremony::refresh(args, out),
        ThresholdCommand::Reshare(args) => ceremony::reshare(args, out),
        ThresholdCommand::Repair(args) => ceremony::repair(args, out),
        ThresholdCommand::Status(args) => admin::status(args, out),
        ThresholdCommand::Drill(args) => admin::drill(args, out),
    }
}
