//! `monosign pubkey`.

use std::io::Write;

use clap::{Args, ValueEnum};
use monosign_protocol::{noise, secret_connection};

use super::{ChainArgs, Failure, block_on, device_key, group_of, unlock_env};
use crate::backend::softsign::unlock::{Loaded, load};
use crate::config::{ChainConfig, KeyConfig, KeyFormat};
use crate::pubkey::{PrefixError, PublicKey, valcons_prefix};
use crate::record::Record;
use crate::seams::Seams;
use crate::start::{StartError, read_identity};

/// Arguments of `monosign pubkey`.
#[derive(Debug, Args)]
pub(super) struct PubkeyArgs {
    #[command(flatten)]
    chain: ChainArgs,
    /// One form alone; without it, all of them.
    #[arg(long, value_enum)]
    format: Option<Form>,
    /// The bech32 prefix of the account, for instance `cosmos`; taken from `key_format` if that is bech32.
    #[arg(long)]
    prefix: Option<String>,
    /// Show the signer's connection identities instead: the peer ids, of which a node's noise:// address pins
    /// one, and the public key in
    /// hex, of which other nodes keep a list.
    #[arg(long, conflicts_with_all = ["format", "prefix"])]
    peer_id: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Form {
    /// 64 hex digits.
    Hex,
    /// The Cosmos SDK's JSON, as in create-validator.
    Json,
    /// CometBFT's JSON, as in genesis.json.
    Cometbft,
    /// The validator address, 40 hex digits.
    Address,
    /// The validator address in bech32.
    Valcons,
    /// The public key in bech32.
    Valconspub,
}

pub(super) fn run(args: &PubkeyArgs, out: &mut dyn Write) -> Result<(), Failure> {
    if args.peer_id {
        return peer_ids(args, out);
    }
    let chain = args.chain.load()?;
    let key = public_key(&chain)?;
    let forms = match args.format {
        Some(form) => vec![form],
        None => Form::value_variants().to_vec(),
    };
    for form in forms {
        match (show(key, form, &chain, args.prefix.as_deref()), args.format) {
            (Some(Ok(text)), Some(_)) => writeln!(out, "{text}")?,
            (Some(Ok(text)), None) => writeln!(out, "{:<12}{text}", name(form))?,
            (Some(Err(error)), Some(_)) => return Err(Failure::usage(error)),
            (Some(Err(error)), None) => writeln!(out, "{:<12}none: {error}", name(form))?,
            (None, Some(_)) => return Err(Failure::usage("which prefix?\nhint: --prefix cosmos")),
            (None, None) => {}
        }
    }
    Ok(())
}

/// From the key file, or from the record while the key is sealed. For a key on a device, from the record, which names it, or
/// from the device if there is none yet. For a share, from the group file.
fn public_key(chain: &ChainConfig) -> Result<PublicKey, Failure> {
    let source = match &chain.key {
        KeyConfig::Softsign(source) => source,
        KeyConfig::OnDevices(keys) if !chain.record.exists() => return device_key::public_key(keys),
        KeyConfig::OnDevices(_) => return recorded(chain),
        KeyConfig::Threshold(share) => {
            let group = group_of(share, &chain.id)?;
            return Ok(group.public_key());
        }
    };
    match load(source, &unlock_env()).map_err(StartError::from)? {
        Loaded::Open(key) => Ok(*key.public_key()),
        Loaded::Sealed(_) => recorded(chain),
    }
}

fn recorded(chain: &ChainConfig) -> Result<PublicKey, Failure> {
    let seams = Seams::production();
    let (header, _) = block_on(Record::peek(&*seams.disk, &chain.record))??;
    Ok(PublicKey::from_bytes(header.public_key))
}

/// `None` if it takes a prefix, and there is none.
fn show(
    key: PublicKey,
    form: Form,
    chain: &ChainConfig,
    prefix: Option<&str>,
) -> Option<Result<String, PrefixError>> {
    let configured = match &chain.key_format {
        KeyFormat::Bech32 { consensus_key_prefix, .. } => Some(consensus_key_prefix.as_str()),
        _ => None,
    };
    let valcons = prefix
        .map(|prefix| format!("{prefix}valcons"))
        .or_else(|| configured.and_then(valcons_prefix).map(str::to_owned));
    let valconspub =
        prefix.map(|prefix| format!("{prefix}valconspub")).or_else(|| configured.map(str::to_owned));
    match form {
        Form::Hex => Some(Ok(key.to_string())),
        Form::Json => Some(Ok(key.to_cosmos_json())),
        Form::Cometbft => Some(Ok(key.to_cometbft_json())),
        Form::Address => Some(Ok(key.address().to_string())),
        Form::Valcons => Some(key.valcons(&valcons?)),
        Form::Valconspub => Some(key.valconspub(&valconspub?)),
    }
}

fn name(form: Form) -> &'static str {
    match form {
        Form::Hex => "hex",
        Form::Json => "json",
        Form::Cometbft => "cometbft",
        Form::Address => "address",
        Form::Valcons => "valcons",
        Form::Valconspub => "valconspub",
    }
}

fn peer_ids(args: &PubkeyArgs, out: &mut dyn Write) -> Result<(), Failure> {
    for validator in &args.chain.config.load()?.validators {
        let Some(path) = &validator.identity else { continue };
        let key = read_identity(path)?.verifying_key();
        let tcp = secret_connection::PeerIdentity::new(key).id();
        let hex = PublicKey::from_bytes(key.to_bytes());
        writeln!(
            out,
            "{}  tcp {tcp}  noise {}  public key {hex}",
            validator.addr,
            noise::PeerId::from(&key)
        )?;
    }
    Ok(())
}
