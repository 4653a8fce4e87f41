//! `monosign pkcs11`: what is done to a token by hand.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use data_encoding::HEXLOWER_PERMISSIVE;
use ed25519_dalek::{Signature, VerifyingKey};
use secrecy::SecretString;
use tokio::time::Instant;

use super::{ConfigArgs, Failure, softsign, unlock_env};
use crate::backend::device::{Driver as _, Reply, Request};
use crate::backend::pkcs11::{KeyName, Token, slots};
use crate::ops::secret_source::SecretSource;
use crate::record::Permit;
use crate::start::StartError;

/// Arguments of `monosign pkcs11`.
#[derive(Debug, Args)]
pub(super) struct Pkcs11Args {
    #[command(subcommand)]
    command: Pkcs11Command,
}

#[derive(Debug, Subcommand)]
enum Pkcs11Command {
    /// Show the slots of a library and their tokens. No PIN is needed.
    Slots(SlotsArgs),
    /// Make, list and import keys.
    Keys(KeysArgs),
    /// Time signatures of a text that is no vote, and verify them.
    Test(TestArgs),
}

#[derive(Debug, Args)]
struct KeysArgs {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Show the Ed25519 keys.
    List(TokenArgs),
    /// Make a key that does not leave the token.
    Generate(GenerateArgs),
    /// Import a key file.
    Import(ImportArgs),
}

#[derive(Debug, Args)]
struct SlotsArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The vendor's library, instead of that of the configuration.
    #[arg(long, value_name = "LIBRARY")]
    module: Option<PathBuf>,
}

/// Which token.
#[derive(Debug, Args)]
struct TokenArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The vendor's library, instead of that of the configuration.
    #[arg(long, value_name = "LIBRARY", requires = "token_label")]
    module: Option<PathBuf>,
    /// The label of the token; can be left out if the configuration has one.
    #[arg(long, value_name = "LABEL")]
    token_label: Option<String>,
    /// A file with the PIN. Without it and without a configuration, the PIN is asked for.
    #[arg(long, value_name = "FILE")]
    pin_file: Option<PathBuf>,
}

/// Which key.
#[derive(Debug, Args)]
struct NameArgs {
    /// The label of the key.
    #[arg(long)]
    label: String,
    /// The id of the key, in hexadecimal.
    #[arg(long, value_name = "HEX", default_value = "01", value_parser = hex)]
    id: Id,
}

#[derive(Debug, Clone)]
struct Id(Vec<u8>);

#[derive(Debug, Args)]
struct GenerateArgs {
    #[command(flatten)]
    token: TokenArgs,
    #[command(flatten)]
    name: NameArgs,
}

#[derive(Debug, Args)]
struct ImportArgs {
    #[command(flatten)]
    token: TokenArgs,
    /// What to import: CometBFT's priv_validator_key.json, a key file of tmkms or of monosign.
    file: PathBuf,
    #[command(flatten)]
    name: NameArgs,
}

#[derive(Debug, Args)]
struct TestArgs {
    #[command(flatten)]
    token: TokenArgs,
    #[command(flatten)]
    name: NameArgs,
    /// How many signatures.
    #[arg(short = 'n', long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    count: u32,
}

pub(super) fn run(args: &Pkcs11Args, out: &mut dyn Write) -> Result<(), Failure> {
    match &args.command {
        Pkcs11Command::Slots(args) => show_slots(args, out),
        Pkcs11Command::Keys(KeysArgs { command }) => match command {
            KeysCommand::List(args) => list(&args.open(Vec::new())?, out),
            KeysCommand::Generate(args) => generate(args, out),
            KeysCommand::Import(args) => import(args, out),
        },
        Pkcs11Command::Test(args) => test(args, out),
    }
}

impl TokenArgs {
    /// Tries the PIN once.
    fn open(&self, keys: Vec<KeyName>) -> Result<Token, Failure> {
        let (module, label, pin) = match (&self.module, &self.token_label) {
            (Some(module), Some(label)) => (module.clone(), label.clone(), None),
            _ => self.configured()?,
        };
        let pin = match (&self.pin_file, pin) {
            (Some(path), _) => read(&SecretSource::File(path.clone()))?,
            (None, Some(pin)) => read(&pin)?,
            (None, None) => rpassword::prompt_password(format!("PIN of token {label}: "))?.into(),
        };
        Token::open(&module, &label, &pin, keys).map_err(Failure::new)
    }

    fn configured(&self) -> Result<(PathBuf, String, Option<SecretSource>), Failure> {
        let config = self.config.load()?;
        let meant = |label: &str| self.token_label.as_deref().is_none_or(|asked| asked == label);
        let mut tokens = config.pkcs11.iter().filter(|provider| meant(&provider.token_label));
        match (tokens.next(), tokens.next()) {
            (Some(one), None) => Ok((one.module.clone(), one.token_label.clone(), Some(one.pin.clone()))),
            (None, _) => Err(Failure::usage(
                "no such token is configured\nhint: --module LIBRARY --token-label LABEL, or a [[providers.pkcs11]]",
            )),
            (Some(_), Some(_)) => Err(Failure::usage("which token?\nhint: --token-label LABEL")),
        }
    }
}

fn read(source: &SecretSource) -> Result<SecretString, Failure> {
    Ok(source.read(&unlock_env()).map_err(StartError::from)?)
}

fn show_slots(args: &SlotsArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let modules = match &args.module {
        Some(module) => vec![module.clone()],
        None => args.config.load()?.pkcs11.iter().map(|provider| provider.module.clone()).collect(),
    };
    for module in modules {
        writeln!(out, "{}", module.display())?;
        for slot in slots(&module).map_err(Failure::new)? {
            writeln!(out, "  {slot}")?;
        }
    }
    Ok(())
}

fn list(token: &Token, out: &mut dyn Write) -> Result<(), Failure> {
    let keys = token.list().map_err(Failure::new)?;
    if keys.is_empty() {
        writeln!(out, "no Ed25519 keys")?;
    }
    for key in keys {
        let public_key = key.public_key.map_or("no public key beside it".into(), |key| key.to_string());
        writeln!(out, "id {}  {public_key}  label `{}`", key.id, key.label)?;
    }
    Ok(())
}

fn generate(args: &GenerateArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let token = args.token.open(Vec::new())?;
    must_be_free(&token, &args.name)?;
    token.generate(&args.name.label, &args.name.id.0).map_err(Failure::new)?;
    list(&token, out)?;
    Ok(writeln!(out, "the key exists on this token alone: if the token is lost, so is the key")?)
}

fn import(args: &ImportArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let token = args.token.open(Vec::new())?;
    must_be_free(&token, &args.name)?;
    let key = softsign::read_key(&args.file, out)?;
    let seed =
        key.expose_seed().ok_or_else(|| Failure::new("the key has no seed, and a token takes seeds only"))?;
    token.import(&args.name.label, &args.name.id.0, seed, key.public_key()).map_err(Failure::new)?;
    list(&token, out)?;
    let file = args.file.display();
    Ok(writeln!(out, "{file} still holds the key: whoever has a copy of it can sign")?)
}

/// A second key of the same name could not be told from the first.
fn must_be_free(token: &Token, name: &NameArgs) -> Result<(), Failure> {
    let id = data_encoding::HEXLOWER.encode(&name.id.0);
    let keys = token.list().map_err(Failure::new)?;
    match keys.iter().find(|key| key.label == name.label || key.id == id) {
        Some(there) => Err(Failure::new(format!(
            "there is a key with label `{}` and id {} already\nhint: choose another --label and --id",
            there.label, there.id
        ))),
        None => Ok(()),
    }
}

fn test(args: &TestArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let name = KeyName { label: Some(args.name.label.clone()), id: Some(args.name.id.0.clone()) };
    let mut token = args.token.open(vec![name])?;
    let Reply::PublicKey(public_key) = token.perform(&Request::PublicKey(0)).map_err(Failure::new)? else {
        return Err(Failure::new("the token answered something else"));
    };
    let key =
        VerifyingKey::from_bytes(public_key.as_bytes()).map_err(|_| Failure::new("it is no Ed25519 key"))?;
    let mut times = Vec::new();
    for n in 0..args.count {
        let text = format!("monosign pkcs11 test {n}: this is no vote, {}", "x".repeat(80));
        // What has the shape of a consensus message is not signed here either.
        let permit = Permit::raw(text.as_bytes()).map_err(Failure::new)?;
        let asked = Instant::now();
        let request = Request::Sign { key: 0, message: permit.bytes().to_vec() };
        let Reply::Signature(signature) = token.perform(&request).map_err(Failure::new)? else {
            return Err(Failure::new("the token answered something else"));
        };
        times.push(asked.elapsed());
        key.verify_strict(permit.bytes(), &Signature::from_bytes(&signature))
            .map_err(|_| Failure::new("a signature does not verify: do not use this token"))?;
    }
    times.sort();
    let ms = |time: Duration| format!("{:.2}", time.as_secs_f64() * 1000.0);
    let (median, slowest) = (ms(times[(times.len() - 1) / 2]), ms(times[times.len() - 1]));
    Ok(writeln!(out, "{} signatures, all verified: median {median} ms, slowest {slowest} ms", times.len())?)
}

fn hex(text: &str) -> Result<Id, String> {
    let id = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok().filter(|id| !id.is_empty());
    id.map(Id).ok_or_else(|| format!("`{text}` is not hexadecimal"))
}
