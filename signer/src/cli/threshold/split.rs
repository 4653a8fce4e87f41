//! `monosign threshold split`.

use std::fs;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use age::x25519;
use clap::Args;
use monosign_protocol::{ChainId, Height};

use crate::backend::softsign::key_file::{self, KeyFileForm};
use crate::backend::softsign::unlock::{KeySource, Loaded, load};
use crate::cli::bounds::{BoundArgs, Purpose};
use crate::cli::{Failure, unlock_env};
use crate::consensus_key::ConsensusKey;
use crate::guard::JumpLimit;
use crate::import::key::parse_plain;
use crate::import::state::{ForeignState, StateDialect};
use crate::ops::private_file::{self, create_private};
use crate::seams::OsEntropy;
use crate::start::StartError;
use crate::threshold::deal::{Dealt, deal};
use crate::threshold::group::Shape;

/// Arguments of `monosign threshold split`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("floor").required(true))]
pub(super) struct SplitArgs {
    /// The key: a priv_validator_key.json, a key of tmkms or a key file of monosign.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// A file with the age identity that opens the key, if it is encrypted and the identity is not beside it.
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// The chain to sign for.
    #[arg(long, value_name = "ID")]
    chain: ChainId,
    /// How many cosigners must sign together. Twice as many must be more than there are shares.
    #[arg(long, value_name = "T")]
    threshold: u16,
    /// How many cosigners there are.
    #[arg(long, value_name = "N")]
    shares: u16,
    /// Whom a share is encrypted to: the recipient (age1…) that `monosign threshold recipient` printed on the cosigner's
    /// host. One for each share, in the order of the cosigners.
    #[arg(long = "recipient", value_name = "AGE", required = true)]
    recipients: Vec<x25519::Recipient>,
    /// What the key has signed so far: a priv_validator_state.json, or the state of tmkms or Horcrux. May be repeated, as
    /// for the cosigners of Horcrux: the highest counts.
    #[arg(long = "state", value_name = "FILE", group = "floor")]
    states: Vec<PathBuf>,
    /// Whose states they are; recognised if left out.
    #[arg(long, requires = "states")]
    dialect: Option<StateDialect>,
    /// The first height that may be signed with the shares.
    #[arg(long, value_name = "H", group = "floor", value_parser = clap::value_parser!(i64).range(1..))]
    start_height: Option<i64>,
    /// The key has never signed.
    #[arg(long, group = "floor")]
    new_validator: bool,
    /// The directory for the group file and the shares. Nothing in it is overwritten.
    #[arg(short, long, value_name = "DIR", default_value = "shares")]
    output: PathBuf,
    #[command(flatten)]
    bounds: BoundArgs,
}

pub(super) fn run(args: &SplitArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let shape = Shape::new(args.threshold, args.shares).map_err(Failure::for_safety)?;
    if args.recipients.len() != usize::from(args.shares) {
        return Err(Failure::usage(format!(
            "{} recipients for {} shares\nhint: one --recipient for each share: each is opened on its own host alone",
            args.recipients.len(),
            args.shares
        )));
    }
    let floor = floor(args)?;
    let tip = args.bounds.chain_height(&args.chain)?;
    args.bounds.admit(floor, None, tip, Purpose::NewFloor, JumpLimit::Off, out)?;
    let key = read_key(args, out)?;
    let dealt = deal(&key, &args.chain, shape, floor, &OsEntropy).map_err(Failure::new)?;
    drop(key);
    let files = files(args, &dealt)?;
    write_all(&args.output, &files)?;
    report(args, &dealt, floor, out)
}

/// The first height that may be signed: nothing that may have been signed is signed again, not even the rest of its height.
fn floor(args: &SplitArgs) -> Result<Height, Failure> {
    let mut floor = args.start_height.unwrap_or(0);
    for path in &args.states {
        let content =
            fs::read(path).map_err(|e| Failure::new(format!("cannot read `{}`: {e}", path.display())))?;
        let state = ForeignState::parse(&content, args.dialect)
            .map_err(|e| Failure::new(format!("`{}`: {e}", path.display())))?;
        let after = state.height.checked_add(1);
        floor = floor.max(after.ok_or_else(|| {
            Failure::new(format!("`{}`: there is no height after {}", path.display(), state.height))
        })?);
    }
    Ok(Height(floor))
}

/// A plain key is another program's file, whose permissions are not ours to demand.
fn read_key(args: &SplitArgs, out: &mut dyn Write) -> Result<ConsensusKey, Failure> {
    let path = args.key.display();
    let content = private_file::read_wiping(&args.key)?;
    let in_file = |e: &dyn std::fmt::Display| Failure::new(format!("key file `{path}`: {e}"));
    if let KeyFileForm::Plain(format) = key_file::recognise(&content).map_err(|e| in_file(&e))? {
        if private_file::is_exposed(&args.key)? {
            writeln!(out, "warning: {path} can be read by other users of this machine")?;
        }
        return Ok(parse_plain(&content, Some(format)).map_err(|e| in_file(&e))?.key);
    }
    let source =
        KeySource { path: args.key.clone(), identity_file: args.identity.clone(), ..KeySource::default() };
    match load(&source, &unlock_env()).map_err(StartError::from)? {
        Loaded::Open(key) => Ok(key),
        Loaded::Sealed(sealed) => {
            let prompt = format!("passphrase of {path}: ");
            let passphrase = rpassword::prompt_password(prompt)?;
            Ok(sealed.unlock(passphrase.into()).map_err(StartError::from)?)
        }
    }
}

/// Everything that is to be written, before anything is.
fn files(args: &SplitArgs, dealt: &Dealt) -> Result<Vec<(PathBuf, String)>, Failure> {
    let mut files = vec![(args.output.join("group.json"), dealt.group.to_json())];
    for (share, recipient) in dealt.shares.iter().zip(&args.recipients) {
        let content = share.seal(recipient).map_err(Failure::new)?;
        files.push((args.output.join(format!("cosigner-{}.age", share.id())), content));
    }
    Ok(files)
}

fn write_all(dir: &Path, files: &[(PathBuf, String)]) -> Result<(), Failure> {
    if let Some((path, _)) = files.iter().find(|(path, _)| path.symlink_metadata().is_ok()) {
        return Err(Failure::for_safety(format!(
            "`{}` exists and is never overwritten\nhint: give another directory with --output",
            path.display()
        )));
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|e| Failure::new(format!("cannot make `{}`: {e}", dir.display())))?;
    for (path, content) in files {
        create_private(path, content.as_bytes())?;
    }
    Ok(())
}

fn report(args: &SplitArgs, dealt: &Dealt, floor: Height, out: &mut dyn Write) -> Result<(), Failure> {
    let dir = args.output.display();
    let (group, shape) = (&dealt.group, dealt.group.shape());
    writeln!(out, "public key   {} (unchanged)", group.public_key())?;
    writeln!(out, "group file   {dir}/group.json (the same for all; nothing in it is secret)")?;
    for share in &dealt.shares {
        writeln!(out, "share {}      {dir}/cosigner-{}.age", share.id(), share.id())?;
    }
    let sets = dealt.proven;
    writeln!(out, "proven       all {sets} sets of {} sign", shape.threshold())?;
    match floor.0 {
        0 => writeln!(out, "floor        none: this key has never signed")?,
        height => writeln!(out, "floor        nothing below height {height} is signed")?,
    }
    writeln!(out, "profile      {}", shape.profile())?;
    if shape.faults() == 0 {
        writeln!(
            out,
            "             {} of {} would also bear one that is cloned, rolled back or malicious",
            shape.threshold() + 1,
            shape.members() + 1
        )?;
    }
    writeln!(
        out,
        "\nOn the host of each cosigner N, with its share and the group file, in monosign.toml (`monosign init` makes one),\nin place of its [[providers.softsign]]:\n"
    )?;
    writeln!(out, "{}", template(&args.chain, shape))?;
    writeln!(
        out,
        "Then:  monosign state init --chain {} --height {floor}  and  monosign start\n\n\
         `{}` still signs alone, and so does every copy of it. Before the cosigners start, stop whatever\n\
         uses it; then destroy it, or keep it offline: the shares give back its scalar, and never the file.",
        args.chain,
        args.key.display()
    )?;
    Ok(())
}

fn template(chain: &ChainId, shape: Shape) -> String {
    let mut text = provider_table(chain, "cosigner-N.age");
    text += "# One for each of the others: leave out this cosigner's own.\n";
    for member in 1..=shape.members() {
        text += &peer_table(member, &format!("HOST-{member}"));
    }
    text
}

/// A cosigner's table, without those of its peers.
pub(super) fn provider_table(chain: &ChainId, share: &str) -> String {
    let credential = share.trim_end_matches(".age");
    format!(
        "[[providers.threshold]]\nchain_ids = [\"{chain}\"]\ngroup = \"group.json\"\nshare = \"{share}\"\n\
         # What opens the share; or a systemd credential `{credential}`, or {share}.identity beside it.\n\
         identity_file = \"cosigner.identity\"\nlisten = \"tcp://0.0.0.0:26660\"\n"
    )
}

/// The table of a peer that listens on the port of [`provider_table`].
pub(super) fn peer_table(member: u16, host: &str) -> String {
    format!("[[providers.threshold.peer]]\nid = {member}\naddr = \"tcp://{host}:26660\"\n")
}
