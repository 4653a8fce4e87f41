//! `monosign state`: the record of what was signed last.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use ed25519_dalek::{Signature, VerifyingKey};
use monosign_protocol::sign_bytes::Canonical;
use monosign_protocol::{ChainId, Height, Round, Step};
use tokio::time::timeout;

use super::{ChainArgs, Failure, block_on, device_key, group_of, unlock_env};
use crate::backend::softsign::unlock::{Loaded, load};
use crate::chain::jump_allowance_path;
use crate::config::{ChainConfig, KeyConfig};
use crate::guard::{Signed, Watermark};
use crate::import::state::{ForeignState, SignedBlock, StateDialect};
use crate::ops::private_file::create_private;
use crate::pubkey::PublicKey;
use crate::record::{Header, MAX_SIGN_BYTES, Record, RecordError};
use crate::seams::Seams;
use crate::start::{self, Devices, Opened, StartError};
use crate::threshold::incarnation::Lives;

/// Arguments of `monosign state`.
#[derive(Debug, Args)]
pub(super) struct StateArgs {
    #[command(subcommand)]
    command: StateCommand,
}

#[derive(Debug, Subcommand)]
enum StateCommand {
    /// Make the record of a key that has never signed, or not from a given height on.
    Init(InitArgs),
    /// Print the record in the form of CometBFT's priv_validator_state.json; also while a signer runs.
    Show(ShowArgs),
    /// Take over the state of CometBFT, tmkms or Horcrux. Never lowers an existing record.
    Import(ImportArgs),
    /// Write the record in the form of another signer.
    Export(ExportArgs),
    /// Raise the record. There is no way to lower it.
    Raise(RaiseArgs),
    /// Let requests jump above the record, up to a height. Works while the signer runs.
    AllowJump(AllowJumpArgs),
}

#[derive(Debug, Args)]
struct InitArgs {
    #[command(flatten)]
    chain: ChainArgs,
    /// The first height that may be signed.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..))]
    height: i64,
    /// The public key, if the key is sealed, or on a device that is not here.
    #[arg(long, value_name = "HEX")]
    public_key: Option<PublicKey>,
}

#[derive(Debug, Args)]
struct ShowArgs {
    #[command(flatten)]
    chain: ChainArgs,
}

#[derive(Debug, Args)]
struct ImportArgs {
    #[command(flatten)]
    chain: ChainArgs,
    /// The state file; without it, the one that lies where the record will be, as after a change from tmkms.
    file: Option<PathBuf>,
    /// Whose file it is; recognised if left out.
    #[arg(long)]
    dialect: Option<StateDialect>,
}

#[derive(Debug, Args)]
struct ExportArgs {
    #[command(flatten)]
    chain: ChainArgs,
    /// Whose form to write: cometbft, tmkms (which counts steps from 0) or horcrux.
    #[arg(long, default_value = "cometbft")]
    dialect: StateDialect,
    /// The file to write; it must not exist. Without it, standard output.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct RaiseArgs {
    #[command(flatten)]
    chain: ChainArgs,
    /// The height to raise to: nothing below it is signed any more.
    #[arg(long = "to-height", alias = "height", value_parser = clap::value_parser!(i64).range(0..))]
    height: i64,
    /// The round to raise to.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(i32).range(0..))]
    round: i32,
    /// The last step that is not signed any more.
    #[arg(long)]
    step: Option<StepName>,
}

#[derive(Debug, Args)]
struct AllowJumpArgs {
    #[command(flatten)]
    chain: ChainArgs,
    /// The highest height that may be jumped to.
    #[arg(long = "to-height", alias = "height", value_parser = clap::value_parser!(i64).range(1..))]
    height: i64,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum StepName {
    Proposal,
    Prevote,
    Precommit,
}

impl From<StepName> for Step {
    fn from(name: StepName) -> Self {
        match name {
            StepName::Proposal => Self::Proposal,
            StepName::Prevote => Self::Prevote,
            StepName::Precommit => Self::Precommit,
        }
    }
}

/// How long a device with the key is waited for.
const DEVICE: Duration = Duration::from_secs(5);

pub(super) fn run(args: &StateArgs, out: &mut dyn Write) -> Result<(), Failure> {
    match &args.command {
        StateCommand::Init(args) => init_at(&args.chain.load()?, args.public_key, args.height, out),
        StateCommand::Show(args) => show(&args.chain.load()?, out),
        StateCommand::Import(args) => {
            let chain = args.chain.load()?;
            import_into(&chain, args.file.as_deref().unwrap_or(&chain.record), args.dialect, out)
        }
        StateCommand::Export(args) => export(&args.chain.load()?, args, out),
        StateCommand::Raise(args) => raise(&args.chain.load()?, args, out),
        StateCommand::AllowJump(args) => allow_jump(&args.chain.load()?, args.height, out),
    }
}

/// Makes a record for the chain's key, with a floor below `height`.
pub(super) fn init_at(
    chain: &ChainConfig,
    public_key: Option<PublicKey>,
    height: i64,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let public_key = public_key_of(chain, public_key)?;
    let floor = Watermark::floor(Height(height), Round(0), None);
    let seams = Seams::production();
    let header = header(chain, public_key);
    if is_foreign_state(&chain.record) {
        return Err(Failure::for_safety(format!(
            "`{}` is the state of another signer\nhint: `monosign state import` takes it over",
            chain.record.display()
        )));
    }
    anew(chain, &seams)?;
    block_on(Record::create(&*seams.disk, &chain.record, header, floor))??;
    writeln!(out, "made {} for chain {} and key {public_key}", chain.record.display(), chain.id)?;
    if height > 0 {
        writeln!(out, "nothing below height {height} is signed")?;
    }
    Ok(())
}

/// Makes the record of a key that has never signed, or keeps the one that is there, if it is that of this chain and key.
pub(super) fn init_or_keep(chain: &ChainConfig, out: &mut dyn Write) -> Result<(), Failure> {
    if !chain.record.exists() || is_foreign_state(&chain.record) {
        return init_at(chain, None, 0, out);
    }
    let public_key = public_key_of(chain, None)?;
    let seams = Seams::production();
    let (header, watermark) = block_on(Record::peek(&*seams.disk, &chain.record))??;
    header.is_of(&chain.record, &chain.id, Some(public_key.as_bytes()))?;
    Ok(writeln!(out, "kept {}, last signed h/r/s {watermark}", chain.record.display())?)
}

fn show(chain: &ChainConfig, out: &mut dyn Write) -> Result<(), Failure> {
    let seams = Seams::production();
    let (header, watermark) = block_on(Record::peek(&*seams.disk, &chain.record))??;
    header.is_of(&chain.record, &chain.id, None)?;
    // Without the key there is no signature: a floor is what a copy of this may be.
    let state = foreign(&watermark, None, StateDialect::CometBft);
    Ok(writeln!(out, "{}", state.write(StateDialect::CometBft).map_err(Failure::new)?)?)
}

/// Raises the chain's record to another signer's state, or makes it there.
pub(super) fn import_into(
    chain: &ChainConfig,
    file: &Path,
    dialect: Option<StateDialect>,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let content =
        fs::read(file).map_err(|e| Failure::new(format!("cannot read `{}`: {e}", file.display())))?;
    let in_file = |e: &dyn std::fmt::Display| Failure::new(format!("`{}`: {e}", file.display()));
    let state = ForeignState::parse(&content, dialect).map_err(|e| in_file(&e))?;
    let public_key = public_key_of(chain, None)?;
    let watermark = watermark(&state, &chain.id, public_key)
        .map_err(|e| Failure::for_safety(format!("`{}`: {e}", file.display())))?;
    writeln!(out, "read {} state of {}: last signed h/r/s {watermark}", state.dialect, file.display())?;

    let seams = Seams::production();
    let disk = &*seams.disk;
    if chain.record.exists() && same_file(file, &chain.record) {
        // The file itself: a link in its place would be replaced by the record, and the file be left as it is.
        let path = fs::canonicalize(&chain.record)?;
        let kept = path.with_added_extension(format!("{}.bak", state.dialect));
        if !fs::read(&kept).is_ok_and(|before| before == content) {
            create_private(&kept, &content)?;
        }
        writeln!(out, "kept the old file as {}", kept.display())?;
        let header = header(chain, public_key);
        anew(chain, &seams)?;
        block_on(Record::replace_foreign(disk, &path, &content, header, watermark))??;
    } else if chain.record.exists() {
        return raise_existing(chain, public_key, watermark, out);
    } else {
        anew(chain, &seams)?;
        block_on(Record::create(disk, &chain.record, header(chain, public_key), watermark))??;
    }
    writeln!(out, "made {} for chain {} and key {public_key}", chain.record.display(), chain.id)?;
    Ok(())
}

fn raise_existing(
    chain: &ChainConfig,
    public_key: PublicKey,
    watermark: Watermark,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let seams = Seams::production();
    block_on(async {
        let mut record = Record::open(&*seams.disk, &chain.record, &chain.id, public_key.as_bytes()).await?;
        let before = record.watermark().to_string();
        match record.raise(watermark).await {
            Ok(()) => {
                measure_from_record(chain, &seams).await?;
                writeln!(out, "raised {} from {before} to {}", chain.record.display(), record.watermark())?
            }
            Err(RecordError::NotRising { recorded, .. }) => {
                writeln!(out, "{} is at {recorded} already and stays there", chain.record.display())?;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    })?
}

fn export(chain: &ChainConfig, args: &ExportArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let seams = Seams::production();
    let state = block_on(async {
        let Opened { record, backend, .. } =
            start::open(chain, &unlock_env(), &seams, &mut Devices::new(Rc::clone(&seams.disk))).await?;
        // A device that does not come is told of below.
        let _ = timeout(DEVICE, backend.until_ready()).await;
        let signature = match record.permit() {
            Some(permit) => Some(backend.sign(&permit).await.map_err(|e| {
                Failure::new(format!("{e}\nhint: the exported state holds a signature, which takes the key"))
            })?),
            None => None,
        };
        Ok::<_, Failure>(foreign(record.watermark(), signature, args.dialect))
    })??;
    let text = state.write(args.dialect).map_err(Failure::new)?;
    match &args.output {
        Some(path) => {
            create_private(path, text.as_bytes())?;
            writeln!(
                out,
                "wrote {}; stop this signer for good before another one starts on it",
                path.display()
            )?;
        }
        None => out.write_all(text.as_bytes())?,
    }
    Ok(())
}

fn raise(chain: &ChainConfig, args: &RaiseArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let floor = Watermark::floor(Height(args.height), Round(args.round), args.step.map(Step::from));
    let seams = Seams::production();
    block_on(async {
        let mut record = Record::open_of_chain(&*seams.disk, &chain.record, &chain.id).await?;
        let before = record.watermark().to_string();
        record.raise(floor).await?;
        measure_from_record(chain, &seams).await?;
        writeln!(out, "raised {} from {before} to {}", chain.record.display(), record.watermark())?;
        Ok(())
    })?
}

/// Jumps are measured from what the operator says, also where a group has cosigners' word for less.
async fn measure_from_record(chain: &ChainConfig, seams: &Seams) -> Result<(), Failure> {
    Lives::measure_from_record(&*seams.disk, &chain.record).await.map_err(Failure::new)
}

/// A record is about to be made: a cosigner that finds it has a new disk, whatever is left of the one before.
fn anew(chain: &ChainConfig, seams: &Seams) -> Result<(), Failure> {
    block_on(Lives::unsettle(&*seams.disk, &chain.record))?.map_err(Failure::new)
}

fn allow_jump(chain: &ChainConfig, height: i64, out: &mut dyn Write) -> Result<(), Failure> {
    let seams = Seams::production();
    let (_, watermark) = block_on(Record::peek(&*seams.disk, &chain.record))??;
    if height <= watermark.height.0 {
        return Err(Failure::new(format!("the record is at {watermark}: height {height} is no jump")));
    }
    let path = jump_allowance_path(&chain.record);
    let temporary = path.with_added_extension("new");
    fs::write(&temporary, format!("{height}\n"))?;
    fs::rename(&temporary, &path)?;
    writeln!(out, "chain {} may jump from {watermark} to height {height} at the most", chain.id)?;
    Ok(())
}

fn header(chain: &ChainConfig, public_key: PublicKey) -> Header {
    Header { chain_id: chain.id.clone(), public_key: *public_key.as_bytes() }
}

fn public_key_of(chain: &ChainConfig, given: Option<PublicKey>) -> Result<PublicKey, Failure> {
    let source = match (&chain.key, given) {
        (KeyConfig::Softsign(source), _) => source,
        // A device that is elsewhere.
        (KeyConfig::OnDevices(_), Some(given)) => return Ok(given),
        (KeyConfig::OnDevices(keys), None) => return device_key::public_key(keys),
        (KeyConfig::Threshold(share), _) => {
            let group = group_of(share, &chain.id)?;
            return Ok(group.public_key());
        }
    };
    let loaded = load(source, &unlock_env()).map_err(StartError::from)?;
    match (loaded, given) {
        (Loaded::Open(key), Some(given)) if *key.public_key() != given => {
            Err(Failure::new(format!("the key file holds {}, not {given}", key.public_key())))
        }
        (Loaded::Open(key), _) => Ok(*key.public_key()),
        (Loaded::Sealed(_), Some(given)) => Ok(given),
        (Loaded::Sealed(sealed), None) => {
            let prompt = format!("passphrase of {}: ", sealed.path().display());
            let passphrase = rpassword::prompt_password(prompt).map_err(|e| {
                Failure::new(format!("cannot ask for the passphrase: {e}\nhint: or give --public-key HEX"))
            })?;
            let key = sealed.unlock(passphrase.into()).map_err(StartError::from)?;
            Ok(*key.public_key())
        }
    }
}

fn is_foreign_state(path: &Path) -> bool {
    fs::read(path).is_ok_and(|content| content.trim_ascii_start().starts_with(b"{"))
}

fn same_file(a: &Path, b: &Path) -> bool {
    matches!((fs::canonicalize(a), fs::canonicalize(b)), (Ok(a), Ok(b)) if a == b)
}

/// Why another signer's state is not taken over.
#[derive(Debug, thiserror::Error)]
enum ImportError {
    #[error("its signature is not of `{0}`: it is the state of another key")]
    OtherKey(PublicKey),
    #[error("it is the state of chain `{found}`, not of `{expected}`")]
    OtherChain { found: String, expected: ChainId },
    #[error("its sign bytes are those of {found}, and it says {says}: it was changed by hand or is damaged")]
    Contradiction { found: String, says: String },
}

/// The watermark of another signer's state. Its message is taken over if it is whole and signed by this key.
fn watermark(
    state: &ForeignState,
    chain_id: &ChainId,
    public_key: PublicKey,
) -> Result<Watermark, ImportError> {
    let mut watermark = Watermark::floor(Height(state.height), Round(state.round), state.step);
    let (Some(sign_bytes), Some(signature)) = (&state.sign_bytes, &state.signature) else {
        return Ok(watermark);
    };
    let other_key = || ImportError::OtherKey(public_key);
    let key = VerifyingKey::from_bytes(public_key.as_bytes()).map_err(|_| other_key())?;
    let signature = Signature::from_slice(signature).map_err(|_| other_key())?;
    key.verify_strict(sign_bytes, &signature).map_err(|_| other_key())?;
    let canonical = Canonical::parse(sign_bytes).filter(|_| sign_bytes.len() <= MAX_SIGN_BYTES);
    let Some(canonical) = canonical else { return Ok(watermark) };
    if !canonical.chain_id.is(chain_id.as_str()) {
        let (found, expected) = (canonical.chain_id.to_string(), chain_id.clone());
        return Err(ImportError::OtherChain { found, expected });
    }
    let place = (canonical.hrs.height, canonical.hrs.round, Some(canonical.hrs.step));
    if place != watermark.place() {
        return Err(ImportError::Contradiction {
            found: canonical.hrs.to_string(),
            says: watermark.to_string(),
        });
    }
    watermark.signed = Some(Signed { sign_bytes: sign_bytes.clone(), timestamp: canonical.timestamp });
    Ok(watermark)
}

fn foreign(watermark: &Watermark, signature: Option<[u8; 64]>, dialect: StateDialect) -> ForeignState {
    let sign_bytes = watermark.signed.as_ref().map(|signed| signed.sign_bytes.clone());
    let block = sign_bytes.as_deref().and_then(Canonical::parse).and_then(|canonical| {
        let id = canonical.block_id;
        if id.is_nil() {
            return Some(SignedBlock::Nil);
        }
        Some(SignedBlock::Block {
            hash: id.hash.try_into().ok()?,
            part_set_total: id.part_set_header.total,
            part_set_hash: id.part_set_header.hash.try_into().ok()?,
        })
    });
    ForeignState {
        dialect,
        height: watermark.height.0,
        round: watermark.round.0,
        step: watermark.step,
        sign_bytes,
        signature: signature.map(Vec::from),
        block,
    }
}

#[cfg(test)]
mod tests;
