//! `monosign yubihsm keys`.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use data_encoding::BASE64;
use yubihsm::asymmetric::Algorithm;
use yubihsm::object::{Filter, Type};
use yubihsm::{Capability, wrap};

use super::Failure;
use super::roles::{DOMAIN, EXPORTABLE, WRAP_KEY};
use super::session::{DeviceArgs, Session, object_id, told};
use crate::cli::softsign;
use crate::ops::private_file::{self, create_private};
use crate::pubkey::PublicKey;

/// Arguments of `monosign yubihsm keys`.
#[derive(Debug, Args)]
pub(super) struct KeysArgs {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Show the signing keys.
    List(ListArgs),
    /// Make a signing key on the device, which never leaves it unless asked for.
    Generate(GenerateArgs),
    /// Import a key file, or the wrapped backup of a key.
    Import(ImportArgs),
    /// Write a wrapped backup of a key that was made to be exported.
    Export(ExportArgs),
}

#[derive(Debug, Args)]
struct ListArgs {
    #[command(flatten)]
    device: DeviceArgs,
}

#[derive(Debug, Args)]
struct GenerateArgs {
    #[command(flatten)]
    device: DeviceArgs,
    /// The number of the key, decimal or with 0x.
    #[arg(value_parser = object_id)]
    id: u16,
    /// A name, 40 bytes at the most.
    #[arg(short, long, default_value = "consensus", value_parser = label)]
    label: String,
    /// Let the key be exported under a wrap key: whoever has the operator's password and wrap.key can then copy it.
    #[arg(long)]
    exportable: bool,
    /// Write a wrapped backup at once, to this file. Needs --exportable.
    #[arg(long, value_name = "FILE", requires = "exportable")]
    backup: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct ImportArgs {
    #[command(flatten)]
    device: DeviceArgs,
    /// What to import: CometBFT's priv_validator_key.json, a key file of tmkms or of monosign, or a wrapped backup.
    file: PathBuf,
    /// The number of the key. A backup has its own.
    #[arg(short, long, value_parser = object_id)]
    id: Option<u16>,
    /// A name, 40 bytes at the most. A backup has its own.
    #[arg(long, default_value = "consensus", value_parser = label)]
    label: String,
    /// Let the key be exported under a wrap key.
    #[arg(long)]
    exportable: bool,
    /// The wrap key that opens a backup.
    #[arg(short, long, value_name = "ID", default_value_t = WRAP_KEY, value_parser = object_id)]
    wrap_key: u16,
}

#[derive(Debug, Args)]
struct ExportArgs {
    #[command(flatten)]
    device: DeviceArgs,
    /// The number of the key.
    #[arg(short, long, value_parser = object_id)]
    id: u16,
    /// The file to write. Never overwritten.
    file: PathBuf,
    /// The wrap key that the backup is encrypted under.
    #[arg(short, long, value_name = "ID", default_value_t = WRAP_KEY, value_parser = object_id)]
    wrap_key: u16,
}

pub(super) fn run(args: &KeysArgs, out: &mut dyn Write) -> Result<(), Failure> {
    match &args.command {
        KeysCommand::List(args) => list(&args.device.open()?, out),
        KeysCommand::Generate(args) => generate(args, out),
        KeysCommand::Import(args) => import(args, out),
        KeysCommand::Export(args) => {
            export(&args.device.open()?, args.id, args.wrap_key, &args.file)?;
            Ok(writeln!(
                out,
                "wrote {}: only a device with the same wrap key can read it",
                args.file.display()
            )?)
        }
    }
}

fn list(session: &Session, out: &mut dyn Write) -> Result<(), Failure> {
    let keys = session.client().list_objects(&[Filter::Type(Type::AsymmetricKey)]);
    let keys = keys.map_err(|error| told(&error))?;
    if keys.is_empty() {
        writeln!(out, "no signing keys")?;
    }
    for key in keys {
        show(session, key.object_id, out)?;
    }
    Ok(())
}

fn show(session: &Session, id: u16, out: &mut dyn Write) -> Result<(), Failure> {
    let info = session.client().get_object_info(id, Type::AsymmetricKey).map_err(|error| told(&error))?;
    let key = match public_key(session, id)? {
        Some(key) => key.to_string(),
        None => "not an Ed25519 key".into(),
    };
    let exportable = match info.capabilities.contains(Capability::EXPORTABLE_UNDER_WRAP) {
        true => "exportable",
        false => "not exportable",
    };
    Ok(writeln!(out, "{id:#06x}  {key}  {:?}, {exportable}, label `{}`", info.origin, info.label)?)
}

fn public_key(session: &Session, id: u16) -> Result<Option<PublicKey>, Failure> {
    let found = session.client().get_public_key(id).map_err(|error| told(&error))?;
    Ok(found.ed25519().map(|key| PublicKey::from_bytes(*key.as_bytes())))
}

fn generate(args: &GenerateArgs, out: &mut dyn Write) -> Result<(), Failure> {
    if let Some(path) = args.backup.as_deref().filter(|path| path.exists()) {
        return Err(Failure::for_safety(format!("`{}` exists and is never overwritten", path.display())));
    }
    let session = args.device.open()?;
    let label = args.label.as_str().into();
    let made = session.client().generate_asymmetric_key(
        args.id,
        label,
        DOMAIN,
        capabilities(args.exportable),
        Algorithm::Ed25519,
    );
    made.map_err(|error| told(&error))?;
    show(&session, args.id, out)?;
    match &args.backup {
        Some(path) => {
            export(&session, args.id, WRAP_KEY, path)?;
            writeln!(out, "wrote {}: keep it, and wrap.key elsewhere", path.display())?;
        }
        None if !args.exportable => {
            writeln!(out, "the key exists on this device alone: if the device is lost, so is the key")?;
        }
        None => {}
    }
    Ok(())
}

fn import(args: &ImportArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let session = args.device.open()?;
    let content = private_file::read_wiping(&args.file)?;
    if let Some(message) = wrapped(&content) {
        let there = session.client().import_wrapped(args.wrap_key, message);
        let handle = there.map_err(|error| {
            let Failure { message, .. } = told(&error);
            Failure::new(format!(
                "{}\nhint: a backup opens only under the wrap key that it was made with",
                message.unwrap_or_default()
            ))
        })?;
        return show(&session, handle.object_id, out);
    }
    let id = args.id.ok_or_else(|| Failure::usage("which number shall the key have?\nhint: --id 1"))?;
    let key = softsign::read_key(&args.file, out)?;
    let seed = key.expose_seed().ok_or_else(|| {
        Failure::new("the key has no seed, and a device takes seeds only\nhint: import the file it was made from, or its wrapped backup")
    })?;
    let (label, may) = (args.label.as_str().into(), capabilities(args.exportable));
    let put = session.client().put_asymmetric_key(id, label, DOMAIN, may, Algorithm::Ed25519, seed.to_vec());
    put.map_err(|error| told(&error))?;
    if public_key(&session, id)? != Some(*key.public_key()) {
        return Err(Failure::new("the device shows another public key than the file: do not use it"));
    }
    show(&session, id, out)?;
    writeln!(
        out,
        "{} still holds the key: whoever has a copy of it can sign, and this device does not see it",
        args.file.display()
    )?;
    Ok(())
}

fn export(session: &Session, id: u16, wrap_key: u16, path: &std::path::Path) -> Result<(), Failure> {
    let wrapped = session.client().export_wrapped(wrap_key, Type::AsymmetricKey, id);
    let wrapped = wrapped.map_err(|error| told(&error))?.into_vec();
    Ok(create_private(path, BASE64.encode(&wrapped).as_bytes())?)
}

fn capabilities(exportable: bool) -> Capability {
    if exportable { EXPORTABLE } else { Capability::SIGN_EDDSA }
}

/// A backup is base64 of more than any plain key has.
fn wrapped(content: &[u8]) -> Option<wrap::Message> {
    let bytes = BASE64.decode(content.trim_ascii()).ok()?;
    wrap::Message::from_vec(bytes).ok().filter(|message| message.ciphertext.len() > 96)
}

fn label(text: &str) -> Result<String, String> {
    if text.len() > 40 { Err("a label has 40 bytes at the most".into()) } else { Ok(text.into()) }
}
