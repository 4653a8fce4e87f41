//! `monosign init`.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use clap::Args;
use data_encoding::BASE64;
use monosign_protocol::{ChainId, noise};
use zeroize::Zeroizing;

use super::{Failure, softsign, state};
use crate::config::{Addr, Config, PinnedPeer, TemplateChain, template};
use crate::ops::private_file::create_private;
use crate::seams::{Entropy, OsEntropy};
use crate::start::read_identity;

/// Arguments of `monosign init`.
#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// The directory to make; it may exist, but not hold a signer.
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
    create_new(&config, template(&dir, &chain).as_bytes())?;
    make_identity(&dir.join("secrets/secret_connection.key"))?;
    writeln!(out, "made {}", config.display())?;
    writeln!(out, "made {}", dir.join("secrets/secret_connection.key").display())?;
    match &args.key {
        Some(key) => import(args, &config, key, out)?,
        None => next_steps(&dir, &args.chain, out)?,
    }
    writeln!(out, "\nOn the validator, in config.toml:  priv_validator_laddr = \"{}\"", laddr(&addr, &dir)?)?;
    writeln!(out, "Then:  monosign check -c {0}  and  monosign start -c {0}", config.display())?;
    Ok(())
}

fn import(args: &InitArgs, config: &Path, key: &Path, out: &mut dyn Write) -> Result<(), Failure> {
    let chain = Config::load(config).map_err(Failure::new)?.chains.remove(0);
    let import = softsign::SoftsignArgs::import(key, &chain.key.path, args.plaintext);
    softsign::run(&import, out).map_err(Failure::new)?;
    match &args.state {
        Some(file) => state::import_into(&chain, file, None, out),
        None => state::init_at(&chain, None, 0, out),
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

fn make_identity(path: &Path) -> Result<(), Failure> {
    let seed = Zeroizing::new((&OsEntropy as &dyn Entropy).key());
    let text = Zeroizing::new(BASE64.encode(&*seed));
    create_private(path, text.as_bytes()).map_err(Failure::new)
}

fn create_new(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(path);
    let mut file = file.map_err(|e| match e.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Failure::for_safety(format!("`{}` exists and is never overwritten", path.display()))
        }
        _ => Failure::new(format!("cannot make `{}`: {e}", path.display())),
    })?;
    file.write_all(content)?;
    Ok(file.sync_all()?)
}
