//! `monosign init`.

use std::fs;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use data_encoding::BASE64;
use monosign_protocol::{ChainId, noise};
use zeroize::Zeroizing;

use super::bounds::BoundArgs;
use super::{Failure, softsign, state};
use crate::config::{Addr, Config, PinnedPeer, TemplateChain, template};
use crate::import::state::StateDialect;
use crate::ops::access::{self, Trust};
use crate::ops::private_file::create_private;
use crate::seams::{Entropy, OsEntropy};
use crate::start::read_identity;

/// Arguments of `monosign init`.
#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// The directory to make. What is there already is kept, so that the same command can be given again after it failed.
    dir: PathBuf,
    /// The chain to sign for.
    #[arg(long, value_name = "ID", default_value = "my-chain-1")]
    chain: ChainId,
    /// The validator's priv_validator_laddr, as seen from here.
    #[arg(long, default_value = "tcp://127.0.0.1:26658")]
    addr: String,
    /// Import this consensus key too: a priv_validator_key.json or a key of tmkms.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Do not encrypt the imported key.
    #[arg(long, requires = "key")]
    plaintext: bool,
    /// What the key has signed so far: a priv_validator_state.json, or the state of tmkms or Horcrux.
    #[arg(long, value_name = "FILE", requires = "key")]
    state: Option<PathBuf>,
    /// Whose state it is; recognised if left out.
    #[arg(long, requires = "state")]
    dialect: Option<StateDialect>,
    #[command(flatten)]
    bounds: BoundArgs,
    /// The key has never signed.
    #[arg(long, requires = "key", conflicts_with = "state")]
    new_validator: bool,
}

pub(super) fn run(args: &InitArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let addr: Addr = args.addr.parse().map_err(Failure::usage)?;
    if args.key.is_some() && args.state.is_none() && !args.new_validator {
        return Err(Failure::usage(
            "what has this key signed so far?\nhint: --state priv_validator_state.json, or --new-validator if it has never \
             signed",
        ));
    }
    for dir in [args.dir.clone(), args.dir.join("secrets"), args.dir.join("state")] {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .map_err(|e| Failure::new(format!("cannot make `{}`: {e}", dir.display())))?;
    }
    let dir = fs::canonicalize(&args.dir)?;
    let chain = TemplateChain { chain_id: args.chain.as_str(), addr: &args.addr, plaintext: args.plaintext };
    let config = dir.join("monosign.toml");
    make_config(&config, &template(&dir, &chain), out)?;
    make_identity(&dir.join("secrets/secret_connection.key"), out)?;
    match &args.key {
        Some(key) => import(args, &config, key, out)?,
        None => next_steps(&dir, &args.chain, out)?,
    }
    // A directory that was there before keeps its mode.
    let held = [&dir, &dir.join("secrets"), &dir.join("state"), &config];
    let found: Vec<_> = held.into_iter().filter_map(|path| access::changeable(path, Trust::Nobody)).collect();
    if let Some(told) = access::told(&found) {
        writeln!(out, "\nwarning: the signer will refuse to start, as {told}")?;
    }
    writeln!(out, "\nOn the validator, in config.toml:  priv_validator_laddr = \"{}\"", laddr(&addr, &dir)?)?;
    writeln!(out, "Then:  monosign check -c {0}  and  monosign start -c {0}", config.display())?;
    Ok(())
}

fn import(args: &InitArgs, config: &Path, key: &Path, out: &mut dyn Write) -> Result<(), Failure> {
    let chain = Config::load(config)?.chains.remove(0);
    let source = chain.key.softsign().ok_or_else(|| Failure::new("the key is not in a file"))?;
    let output = &source.path;
    if is_there(output) {
        if !softsign::is_imported(key, output, out)? {
            let (output, key) = (output.display(), key.display());
            return Err(Failure::for_safety(format!(
                "`{output}` holds another key than `{key}` and is never overwritten\nhint: make a directory for each key"
            )));
        }
        writeln!(out, "kept {}", output.display())?;
    } else {
        softsign::run(&softsign::SoftsignArgs::import(key, output, args.plaintext), out)?;
    }
    match &args.state {
        Some(file) => state::import_into(&chain, file, args.dialect, &args.bounds, out),
        None => state::init_or_keep(&chain, out),
    }
}

fn next_steps(dir: &Path, chain: &ChainId, out: &mut dyn Write) -> Result<(), Failure> {
    let dir = dir.display();
    writeln!(
        out,
        "\nNext:\n  1. the consensus key:   monosign softsign import priv_validator_key.json --output {dir}/secrets/consensus.key\n  \
         2. what it has signed:  monosign state import -c {dir}/monosign.toml --chain {chain} priv_validator_state.json\n     \
         (a new validator:   monosign state init -c {dir}/monosign.toml --chain {chain})"
    )?;
    Ok(())
}

/// What the node listens on; for noise it names this signer.
fn laddr(addr: &Addr, dir: &Path) -> Result<String, Failure> {
    if !matches!(addr.peer, PinnedPeer::Noise(_)) {
        return Ok(addr.to_string());
    }
    let identity = read_identity(&dir.join("secrets/secret_connection.key"))?;
    let peer_id = noise::PeerId::from(&identity.verifying_key());
    Ok(addr.to_string().replacen("noise://", &format!("noise://{peer_id}@"), 1))
}

fn make_config(path: &Path, content: &str, out: &mut dyn Write) -> Result<(), Failure> {
    if is_there(path) {
        if fs::read(path)? != content.as_bytes() {
            return Err(Failure::for_safety(format!(
                "`{}` exists, says something else than these arguments, and is never overwritten\nhint: go on with it as it \
                 is, or make another directory",
                path.display()
            )));
        }
        return Ok(writeln!(out, "kept {}", path.display())?);
    }
    create_private(path, content.as_bytes())?;
    Ok(writeln!(out, "made {}", path.display())?)
}

fn make_identity(path: &Path, out: &mut dyn Write) -> Result<(), Failure> {
    if is_there(path) {
        read_identity(path)?;
        return Ok(writeln!(out, "kept {}", path.display())?);
    }
    let seed = Zeroizing::new((&OsEntropy as &dyn Entropy).key());
    let text = Zeroizing::new(BASE64.encode(&*seed));
    create_private(path, text.as_bytes())?;
    Ok(writeln!(out, "made {}", path.display())?)
}

/// Something of that name, a dangling link included.
fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
