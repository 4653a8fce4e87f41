//! `monosign softsign`: make, import and show key files.
//!
//! No command overwrites a file, and none prints a secret.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use age::x25519;
use clap::{Args, Subcommand, ValueEnum};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::unlock_env;
use crate::backend::softsign::key_file::{self, KeyFileForm, Protection};
use crate::backend::softsign::unlock::{
    KeySource, Loaded, UnlockEnv, default_identity_path, load, parse_identities,
};
use crate::consensus_key::ConsensusKey;
use crate::import::key::{self, KeyForm, PlainFormat};
use crate::ops::private_file::{self, PrivateFileError};
use crate::ops::redact;
use crate::pubkey::PublicKey;

mod error;
mod report;

pub use error::SoftsignError;

/// Make, import and show consensus key files.
#[derive(Debug, Args)]
pub struct SoftsignArgs {
    #[command(subcommand)]
    command: SoftsignCommand,
}

impl SoftsignArgs {
    /// `softsign import KEY --output FILE [--plaintext]`.
    pub(super) fn import(key: &Path, output: &Path, plaintext: bool) -> Self {
        Self { command: SoftsignCommand::Import(ImportArgs::new(key, output, plaintext)) }
    }
}

impl ImportArgs {
    fn new(key: &Path, output: &Path, plaintext: bool) -> Self {
        let target = TargetArgs {
            output: Some(output.into()),
            out: None,
            plaintext,
            identity: Vec::new(),
            passphrase: false,
            prefix: PrefixArg::default(),
        };
        Self { key: key.into(), target, format: None, public_key: None }
    }
}

#[derive(Debug, Subcommand)]
enum SoftsignCommand {
    /// Import the consensus key of CometBFT or tmkms into an encrypted key file.
    Import(ImportArgs),
    /// Make a new consensus key in an encrypted key file.
    Keygen(KeygenArgs),
    /// Show the public key of a key file, in every form.
    Show(ShowArgs),
}

#[derive(Debug, Args)]
struct ImportArgs {
    /// The key to import: CometBFT's priv_validator_key.json, a key file of tmkms, or one of monosign.
    key: PathBuf,
    #[command(flatten)]
    target: TargetArgs,
    /// The form of KEY. Recognised by its content if left out.
    #[arg(short, long, value_enum, requires_if("base64-expanded", "public_key"))]
    format: Option<ImportFormat>,
    /// The public key that KEY must have, 64 hex digits.
    #[arg(long, value_name = "HEX")]
    public_key: Option<PublicKey>,
}

#[derive(Debug, Args)]
struct KeygenArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Kind of key, as for tmkms.
    #[arg(short = 't', long = "type", value_enum, default_value = "consensus", hide = true)]
    kind: KeyKind,
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// The key file; plain keys of CometBFT and tmkms too.
    file: PathBuf,
    /// A file with the age identity that opens FILE, if it is not beside it.
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
    #[command(flatten)]
    prefix: PrefixArg,
}

/// Where the key goes and who can open it.
#[derive(Debug, Args)]
struct TargetArgs {
    /// The key file to write [default: consensus.key]. Never overwritten.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The same as --output, as tmkms takes it.
    #[arg(value_name = "OUT", conflicts_with = "output")]
    out: Option<PathBuf>,
    /// Do not encrypt: write base64 as tmkms does. Needs `allow_plaintext_key = true` at start.
    #[arg(long, conflicts_with_all = ["identity", "passphrase"])]
    plaintext: bool,
    /// Encrypt to this age recipient (age1…) or to those in this file of recipients or identities. May be repeated.
    /// Without it, a new identity is written to FILE.identity.
    #[arg(long, value_name = "FILE_OR_RECIPIENT", conflicts_with = "passphrase")]
    identity: Vec<String>,
    /// Encrypt with a passphrase, which is asked for: the signer then starts sealed.
    #[arg(long)]
    passphrase: bool,
    #[command(flatten)]
    prefix: PrefixArg,
}

#[derive(Debug, Args)]
struct PrefixArg {
    /// The chain's bech32 prefix, for `…valcons` and `…valconspub`.
    #[arg(long, value_name = "PREFIX", default_value = DEFAULT_PREFIX)]
    prefix: String,
}

const DEFAULT_PREFIX: &str = "cosmos";

impl Default for PrefixArg {
    fn default() -> Self {
        Self { prefix: DEFAULT_PREFIX.into() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ImportFormat {
    /// CometBFT's priv_validator_key.json.
    Json,
    /// base64 of 32 bytes (seed) or of 96 (YubiHSM export), as tmkms keeps it.
    Base64,
    /// base64 of a 64-byte expanded secret; needs --public-key.
    Base64Expanded,
    /// 64 hex digits of a seed, or 128 of a seed and its public key.
    Hex,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum KeyKind {
    Consensus,
    Account,
}

/// What the commands need from outside: a terminal, entropy, the environment.
pub struct Surroundings<'a> {
    /// Where the report goes.
    pub out: &'a mut dyn Write,
    /// Asks for a passphrase without showing it.
    pub ask_passphrase: &'a mut dyn FnMut(&str) -> io::Result<SecretString>,
    /// Fills a buffer with random bytes.
    pub fill_random: &'a mut dyn FnMut(&mut [u8]) -> io::Result<()>,
    /// The process's environment.
    pub env: UnlockEnv,
    /// scrypt's cost; lower in tests.
    work_factor: u8,
}

/// Runs a command with the process's own terminal, entropy and environment.
///
/// # Errors
/// See [`run_in`].
pub fn run(args: &SoftsignArgs, out: &mut dyn Write) -> Result<(), SoftsignError> {
    in_process(out, |surroundings| run_in(args, surroundings))
}

/// Whether the key file `output` holds the key that `key` holds.
pub(super) fn is_imported(key: &Path, output: &Path, out: &mut dyn Write) -> Result<bool, SoftsignError> {
    in_process(out, |surroundings| {
        let read = read_import(&ImportArgs::new(key, output, false), surroundings)?;
        Ok(open_key_file(output, None, surroundings)?.public_key() == read.key.public_key())
    })
}

/// A key in any form that `softsign import` reads.
pub(super) fn read_key(path: &Path, out: &mut dyn Write) -> Result<ConsensusKey, SoftsignError> {
    in_process(out, |surroundings| Ok(read_import(&ImportArgs::new(path, path, false), surroundings)?.key))
}

fn in_process<T>(out: &mut dyn Write, run: impl FnOnce(&mut Surroundings<'_>) -> T) -> T {
    run(&mut Surroundings::new(out, &mut ask_on_terminal, &mut fill_from_os, unlock_env()))
}

/// Runs a command.
///
/// # Errors
/// If a key can't be read, is not what it is said to be, or can't be written. Nothing was overwritten then.
pub fn run_in(args: &SoftsignArgs, surroundings: &mut Surroundings<'_>) -> Result<(), SoftsignError> {
    match &args.command {
        SoftsignCommand::Import(args) => import(args, surroundings),
        SoftsignCommand::Keygen(args) => keygen(args, surroundings),
        SoftsignCommand::Show(args) => show(args, surroundings),
    }
}

impl<'a> Surroundings<'a> {
    /// Puts them together.
    pub fn new(
        out: &'a mut dyn Write,
        ask_passphrase: &'a mut dyn FnMut(&str) -> io::Result<SecretString>,
        fill_random: &'a mut dyn FnMut(&mut [u8]) -> io::Result<()>,
        env: UnlockEnv,
    ) -> Self {
        Self { out, ask_passphrase, fill_random, env, work_factor: key_file::WORK_FACTOR }
    }
}

fn import(args: &ImportArgs, surroundings: &mut Surroundings<'_>) -> Result<(), SoftsignError> {
    // Before anything is asked or computed.
    args.target.check_free()?;
    let Read { key, form, unread } = read_import(args, surroundings)?;
    if let Some(expected) = args.public_key.filter(|expected| expected != key.public_key()) {
        return Err(SoftsignError::OtherPublicKey {
            path: args.key.clone(),
            expected,
            found: *key.public_key(),
        });
    }
    let exposed = private_file::is_exposed(&args.key).unwrap_or(false);
    let written = write_key_file(&key, &args.target, surroundings)?;
    report::imported(surroundings.out, &args.key, form, &unread, exposed)?;
    report::written(surroundings.out, &written, key.public_key(), &args.target.prefix.prefix)?;
    report::next_steps(surroundings.out, &written, Some((&args.key, &unread)))
}

fn keygen(args: &KeygenArgs, surroundings: &mut Surroundings<'_>) -> Result<(), SoftsignError> {
    if args.kind == KeyKind::Account {
        return Err(SoftsignError::AccountKey);
    }
    args.target.check_free()?;
    let mut seed = Zeroizing::new([0; 32]);
    (surroundings.fill_random)(seed.as_mut_slice()).map_err(|error| SoftsignError::entropy(&error))?;
    let key = ConsensusKey::from_seed(&seed);
    let written = write_key_file(&key, &args.target, surroundings)?;
    report::written(surroundings.out, &written, key.public_key(), &args.target.prefix.prefix)?;
    report::next_steps(surroundings.out, &written, None)
}

fn show(args: &ShowArgs, surroundings: &mut Surroundings<'_>) -> Result<(), SoftsignError> {
    let key = open_key_file(&args.file, args.identity.clone(), surroundings)?;
    report::public_key(surroundings.out, key.public_key(), &args.prefix.prefix)
}

/// A key that was read.
struct Read {
    key: ConsensusKey,
    /// The form of a plain one.
    form: Option<KeyForm>,
    /// What else the file has, by name.
    unread: Vec<String>,
}

fn read_import(args: &ImportArgs, surroundings: &mut Surroundings<'_>) -> Result<Read, SoftsignError> {
    let content = private_file::read_wiping(&args.key)?;
    let is_key_file =
        matches!(key_file::recognise(&content), Ok(KeyFileForm::Identity | KeyFileForm::Passphrase));
    let parsed = match (args.format, args.public_key) {
        (None, _) if is_key_file => {
            let key = open_key_file(&args.key, None, surroundings)?;
            return Ok(Read { key, form: None, unread: Vec::new() });
        }
        (Some(ImportFormat::Base64Expanded), Some(public_key)) => {
            key::parse_tmkms_base64_expanded(&content, &public_key)
        }
        (Some(ImportFormat::Base64Expanded), None) => return Err(SoftsignError::NeedsPublicKey),
        (Some(ImportFormat::Hex), _) => key::parse_hex(&content),
        (Some(ImportFormat::Json), _) => key::parse_plain(&content, Some(PlainFormat::Json)),
        (Some(ImportFormat::Base64), _) => key::parse_plain(&content, Some(PlainFormat::Base64)),
        (None, _) => key::parse_plain(&content, None),
    };
    let parsed = parsed.map_err(|error| SoftsignError::Import { path: args.key.clone(), error })?;
    Ok(Read { key: parsed.key, form: Some(parsed.form), unread: parsed.unread })
}

fn open_key_file(
    path: &Path,
    identity_file: Option<PathBuf>,
    surroundings: &mut Surroundings<'_>,
) -> Result<ConsensusKey, SoftsignError> {
    let source =
        KeySource { path: path.to_owned(), allow_plaintext: true, identity_file, ..KeySource::default() };
    match load(&source, &surroundings.env)? {
        Loaded::Open(key) => Ok(key),
        Loaded::Sealed(sealed) => {
            let prompt = format!("passphrase of {}: ", path.display());
            let passphrase =
                (surroundings.ask_passphrase)(&prompt).map_err(|error| SoftsignError::ask(&error))?;
            Ok(sealed.unlock(passphrase)?)
        }
    }
}

/// A key file that was written, and how it is opened.
struct Written {
    path: PathBuf,
    opened_by: OpenedBy,
}

enum OpenedBy {
    Anybody,
    Passphrase,
    /// A new identity, in a file of its own.
    NewIdentity {
        file: PathBuf,
        recipient: String,
    },
    /// The identities of these recipients.
    Recipients(Vec<String>),
}

fn write_key_file(
    key: &ConsensusKey,
    target: &TargetArgs,
    surroundings: &mut Surroundings<'_>,
) -> Result<Written, SoftsignError> {
    let path = target.path();
    let opened_by = if target.plaintext {
        write_plain(key, &path)?;
        OpenedBy::Anybody
    } else if target.passphrase {
        write_with_passphrase(key, &path, surroundings)?;
        OpenedBy::Passphrase
    } else if target.identity.is_empty() {
        write_with_new_identity(key, &path)?
    } else {
        write_to_recipients(key, &path, &target.identity)?
    };
    Ok(Written { path, opened_by })
}

fn write_plain(key: &ConsensusKey, path: &Path) -> Result<(), SoftsignError> {
    private_file::create_private(path, key::to_tmkms_base64(key).as_bytes())?;
    read_back(key, path, |content| key::parse_tmkms_base64(content).ok().map(|parsed| parsed.key))
}

fn write_with_passphrase(
    key: &ConsensusKey,
    path: &Path,
    surroundings: &mut Surroundings<'_>,
) -> Result<(), SoftsignError> {
    let mut ask =
        |prompt: &str| (surroundings.ask_passphrase)(prompt).map_err(|error| SoftsignError::ask(&error));
    let passphrase = ask("new passphrase: ")?;
    if passphrase.expose_secret().is_empty() {
        return Err(SoftsignError::EmptyPassphrase);
    }
    if ask("again: ")?.expose_secret() != passphrase.expose_secret() {
        return Err(SoftsignError::PassphrasesDiffer);
    }
    let protection = Protection::Passphrase(passphrase.clone());
    let content = key_file::seal_with_work_factor(key, &protection, surroundings.work_factor)?;
    private_file::create_private(path, content.as_bytes())?;
    read_back(key, path, |content| key_file::open_with_passphrase(content, passphrase).ok())
}

fn write_with_new_identity(key: &ConsensusKey, path: &Path) -> Result<OpenedBy, SoftsignError> {
    let identity = x25519::Identity::generate();
    let recipient = identity.to_public();
    let content = key_file::seal(key, &Protection::Recipients(vec![recipient.clone()]))?;

    let file = default_identity_path(path);
    let text = identity.to_string();
    let text = Zeroizing::new(format!("# public key: {recipient}\n{}\n", text.expose_secret()));
    // The identity first: a key file without its identity would be a lost key.
    private_file::create_private(&file, text.as_bytes())?;
    if let Err(error) = private_file::create_private(path, content.as_bytes()) {
        // Ours, new, and of no use.
        let _ = std::fs::remove_file(&file);
        return Err(error.into());
    }
    let identities = private_file::read_private(&file)?;
    read_back(key, path, |content| {
        key_file::open_with_identities(content, &parse_identities(&identities).ok()?).ok()
    })?;
    Ok(OpenedBy::NewIdentity { file, recipient: recipient.to_string() })
}

fn write_to_recipients(key: &ConsensusKey, path: &Path, given: &[String]) -> Result<OpenedBy, SoftsignError> {
    let mut recipients = Vec::new();
    let mut identities = Vec::new();
    for value in given {
        read_recipients(value, &mut recipients, &mut identities)?;
    }
    let names = recipients.iter().map(ToString::to_string).collect();
    let content = key_file::seal(key, &Protection::Recipients(recipients))?;
    private_file::create_private(path, content.as_bytes())?;
    // With recipients alone, there is nothing here to open it with.
    if !identities.is_empty() {
        read_back(key, path, |content| key_file::open_with_identities(content, &identities).ok())?;
    }
    Ok(OpenedBy::Recipients(names))
}

/// Takes a recipient, or a file of recipients or identities.
fn read_recipients(
    value: &str,
    recipients: &mut Vec<x25519::Recipient>,
    identities: &mut Vec<x25519::Identity>,
) -> Result<(), SoftsignError> {
    if value.starts_with("age1") {
        recipients.push(value.parse().map_err(|_| SoftsignError::BadRecipient { value: value.to_owned() })?);
        return Ok(());
    }
    if redact::holds_identity(value) {
        return Err(SoftsignError::IdentityGiven);
    }
    let path = Path::new(value);
    let content = private_file::read_wiping(path)?;
    if let Ok(found) = parse_identities(&content) {
        // It is a secret after all.
        private_file::read_private(path)?;
        recipients.extend(found.iter().map(x25519::Identity::to_public));
        identities.extend(found);
        return Ok(());
    }
    let bad = || SoftsignError::BadRecipient { value: value.to_owned() };
    let text = std::str::from_utf8(&content).map_err(|_| bad())?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let found = lines.map(str::parse).collect::<Result<Vec<_>, _>>().map_err(|_| bad())?;
    recipients.extend(found);
    Ok(())
}

/// Nobody should find out at the next restart that the file on the disk does not hold the key.
fn read_back(
    key: &ConsensusKey,
    path: &Path,
    open: impl FnOnce(&[u8]) -> Option<ConsensusKey>,
) -> Result<(), SoftsignError> {
    let content = private_file::read_private(path)?;
    match open(&content) {
        Some(found) if found.public_key() == key.public_key() => Ok(()),
        _ => Err(SoftsignError::ReadBack { path: path.to_owned() }),
    }
}

impl TargetArgs {
    fn path(&self) -> PathBuf {
        self.output.clone().or_else(|| self.out.clone()).unwrap_or_else(|| PathBuf::from("consensus.key"))
    }

    /// That nothing is in the way of the files to be written, and that the rest of the report can be printed.
    fn check_free(&self) -> Result<(), SoftsignError> {
        report::check_prefix(&self.prefix.prefix)?;
        let path = self.path();
        let identity = default_identity_path(&path);
        let writes_identity = !self.plaintext && !self.passphrase && self.identity.is_empty();
        for path in [Some(path), writes_identity.then_some(identity)].into_iter().flatten() {
            if path.symlink_metadata().is_ok() {
                return Err(PrivateFileError::Exists { path }.into());
            }
        }
        Ok(())
    }
}

fn ask_on_terminal(prompt: &str) -> io::Result<SecretString> {
    rpassword::prompt_password(prompt).map(SecretString::from)
}

fn fill_from_os(bytes: &mut [u8]) -> io::Result<()> {
    getrandom::getrandom(bytes).map_err(io::Error::other)
}

#[cfg(test)]
mod tests;
