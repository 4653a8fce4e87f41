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

use super::advice::{self, Lying};
use super::bounds::{BoundArgs, Purpose, reached_in};
use super::leave::Leave;
use super::{ChainArgs, Failure, block_on, device_key, group_of, unlock_env};
use crate::backend::softsign::unlock::{Loaded, load};
use crate::chain::jump_allowance_path;
use crate::config::{ChainConfig, KeyConfig};
use crate::guard::{Signed, Watermark};
use crate::import::state::{ForeignState, SignedBlock, StateDialect, StateError};
use crate::ops::durable_file;
use crate::ops::private_file::create_private;
use crate::pubkey::PublicKey;
use crate::record::{Header, MAX_SIGN_BYTES, Opener, Record, RecordError};
use crate::seams::{Disk, Seams};
use crate::start::{self, Devices, Opened, StartError, patiently};
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
    /// Let requests jump above the record, up to a height, for a day. Works while the signer runs.
    AllowJump(AllowJumpArgs),
}

#[derive(Debug, Args)]
struct InitArgs {
    #[command(flatten)]
    chain: ChainArgs,
    /// The first height that may be signed. Without it 0, or the chain's height if --rpc names a node.
    #[arg(long, value_parser = clap::value_parser!(i64).range(0..))]
    height: Option<i64>,
    /// The public key, if the key is sealed, or on a device that is not here.
    #[arg(long, value_name = "HEX")]
    public_key: Option<PublicKey>,
    #[command(flatten)]
    bounds: BoundArgs,
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
    /// The state file; without it, the one that lies where the record will be, or where tmkms keeps it if it is started in this
    /// directory.
    file: Option<PathBuf>,
    /// Whose file it is; recognised if left out.
    #[arg(long)]
    dialect: Option<StateDialect>,
    #[command(flatten)]
    bounds: BoundArgs,
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
    #[command(flatten)]
    bounds: BoundArgs,
}

#[derive(Debug, Args)]
struct AllowJumpArgs {
    #[command(flatten)]
    chain: ChainArgs,
    /// The highest height that may be jumped to.
    #[arg(long = "to-height", alias = "height", value_parser = clap::value_parser!(i64).range(1..))]
    height: i64,
    #[command(flatten)]
    bounds: BoundArgs,
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
        StateCommand::Init(args) => {
            let chain = args.chain.load()?;
            let tip = args.bounds.chain_height(&chain.id)?;
            if let Some(height) = args.height {
                let limit = chain.rules.jump_limit;
                args.bounds.admit(Height(height), None, tip, Purpose::NewFloor, limit, out)?;
            }
            let height = args.height.map(Height).or(tip).unwrap_or_default();
            init_at(&chain, args.public_key, height, out)
        }
        StateCommand::Show(args) => show(&args.chain.load()?, out),
        StateCommand::Import(args) => {
            let chain = args.chain.load()?;
            let file = args.file.clone().map_or_else(|| advice::to_import(&chain), Ok)?;
            import_into(&chain, &file, args.dialect, &args.bounds, out)
        }
        StateCommand::Export(args) => export(&args.chain.load()?, args, out),
        StateCommand::Raise(args) => raise(&args.chain.load()?, args, out),
        StateCommand::AllowJump(args) => allow_jump(&args.chain.load()?, args, out),
    }
}

/// Makes a record for the chain's key, with a floor at `height`.
fn init_at(
    chain: &ChainConfig,
    public_key: Option<PublicKey>,
    height: Height,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    if let Some(failure) = advice::something_to_import(chain, height > Height(0)) {
        return Err(failure);
    }
    let public_key = public_key_of(chain, public_key)?;
    if let Lying::Record(header, _) = Lying::at(&chain.record) {
        header.is_of(&chain.record, &chain.id, Some(public_key.as_bytes()))?;
    }
    let floor = Watermark::floor(height, Round(0), None);
    let seams = Seams::production();
    let header = header(chain, public_key);
    // Given for a record that is there, as by a script at each start, it changes nothing of what a cosigner knows.
    if !matches!(Lying::at(&chain.record), Lying::Record(..)) {
        anew(chain, &seams)?;
    }
    let opener = opener(&*seams.disk, &chain.record, chain)?;
    let create = async || opener.create(header.clone(), floor.clone()).await;
    let created = block_on(patiently(create))?;
    created.map_err(|e| advice::of_record(chain, &e))?;
    writeln!(out, "made {} for chain {} and key {public_key}", chain.record.display(), chain.id)?;
    if height > Height(0) {
        writeln!(out, "nothing below height {height} is signed, ever")?;
    }
    Ok(())
}

/// Makes the record of a key that has never signed, or keeps the one that is there, if it is that of this chain and key.
pub(super) fn init_or_keep(chain: &ChainConfig, out: &mut dyn Write) -> Result<(), Failure> {
    if !matches!(Lying::at(&chain.record), Lying::Record(..)) {
        return init_at(chain, None, Height(0), out);
    }
    let public_key = public_key_of(chain, None)?;
    let seams = Seams::production();
    let (header, watermark) = peek(chain, &seams)?;
    header.is_of(&chain.record, &chain.id, Some(public_key.as_bytes()))?;
    Ok(writeln!(out, "kept {}, last signed h/r/s {watermark}", chain.record.display())?)
}

fn show(chain: &ChainConfig, out: &mut dyn Write) -> Result<(), Failure> {
    let seams = Seams::production();
    let (header, watermark) = peek(chain, &seams)?;
    header.is_of(&chain.record, &chain.id, None)?;
    // Without the key there is no signature: a floor is what a copy of this may be.
    let state = foreign(&watermark, None, StateDialect::CometBft);
    writeln!(out, "{}", state.write(StateDialect::CometBft).map_err(Failure::new)?)?;
    if let Some(leave) = Leave::of(chain) {
        // What is printed is a file's content, and this is not part of it.
        out.flush()?;
        let _ = writeln!(std::io::stderr(), "warning: {}", leave.told());
    }
    Ok(())
}

fn peek(chain: &ChainConfig, seams: &Seams) -> Result<(Header, Watermark), Failure> {
    block_on(Record::peek(&*seams.disk, &chain.record))?.map_err(|e| advice::of_record(chain, &e))
}

/// Raises the chain's record to another signer's state, or makes it there.
pub(super) fn import_into(
    chain: &ChainConfig,
    file: &Path,
    dialect: Option<StateDialect>,
    bounds: &BoundArgs,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let (there, here) = (Lying::at(file), Lying::at(&chain.record));
    if let Lying::Record(header, watermark) = &there {
        return import_record(chain, file, header, watermark, out);
    }
    if matches!(there, Lying::Directory | Lying::Special) {
        return Err(Failure::new(format!(
            "`{}` is no file\nhint: name the state file itself",
            file.display()
        )));
    }
    let content = fs::read(file).map_err(|e| {
        let file = file.display();
        Failure::new(format!(
            "cannot read `{file}`: {e}\nhint: check the path, and who may read it: `ls -l {file}`"
        ))
    })?;
    let state = ForeignState::parse(&content, dialect).map_err(|e| {
        let not_one = advice::not_a_state(chain, file, &e.to_string());
        not_one.unwrap_or_else(|| advice::of_state(chain, file, &e))
    })?;
    let public_key = public_key_of(chain, None)?;
    let watermark = watermark(&state, &chain.id, public_key)
        .map_err(|e| Failure::for_safety(format!("`{}`: {e}", file.display())))?;
    writeln!(out, "read {} state of {}: last signed h/r/s {watermark}", state.dialect, file.display())?;
    if let Some(why) = state.above {
        writeln!(out, "all of height {} is taken as signed: {why}", state.height.saturating_sub(1))?;
    }
    if let Some(failure) = advice::rival(chain, file, &watermark, None) {
        return Err(failure);
    }
    let recorded = match &here {
        Lying::Record(_, recorded) => Some(recorded.height).filter(|height| *height > Height(0)),
        _ => None,
    };
    let tip = bounds.chain_height(&chain.id)?;
    bounds.admit(watermark.height, recorded, tip, Purpose::Import, chain.rules.jump_limit, out)?;

    let seams = Seams::production();
    let disk = &*seams.disk;
    match here {
        // The file itself, or one that says no more than it: both are kept.
        Lying::State(_) => {
            // A link in its place would be replaced by the record, and the file be left as it is.
            let path = fs::canonicalize(&chain.record)?;
            let old = fs::read(&path)?;
            let kept = path.with_added_extension(format!("{}.bak", state.dialect));
            if !fs::read(&kept).is_ok_and(|before| before == old) {
                create_private(&kept, &old)?;
            }
            writeln!(out, "kept the old file as {}", kept.display())?;
            let header = header(chain, public_key);
            anew(chain, &seams)?;
            let opener = opener(disk, &path, chain)?;
            let replace = async || opener.replace_foreign(&old, header.clone(), watermark.clone()).await;
            block_on(patiently(replace))??;
        }
        Lying::Record(..) => return raise_existing(chain, public_key, watermark, out),
        _ => {
            anew(chain, &seams)?;
            let opener = opener(disk, &chain.record, chain)?;
            let create = async || opener.create(header(chain, public_key), watermark.clone()).await;
            let created = patiently(create);
            block_on(created)?.map_err(|e| advice::of_record(chain, &e))?;
        }
    }
    writeln!(out, "made {} for chain {} and key {public_key}", chain.record.display(), chain.id)?;
    Ok(())
}

/// What is to be imported is a record of ours: there is nothing to translate.
fn import_record(
    chain: &ChainConfig,
    file: &Path,
    header: &Header,
    watermark: &Watermark,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let public_key = public_key_of(chain, None)?;
    header.is_of(file, &chain.id, Some(public_key.as_bytes()))?;
    if let Some(failure) = advice::rival(chain, file, watermark, Some(header)) {
        return Err(failure);
    }
    let (path, at) = (file.display(), format!("last signed h/r/s {watermark}"));
    if advice::is_same(file, &chain.record) {
        return Ok(writeln!(out, "{path} is a monosign record already, {at}: nothing to import")?);
    }
    let hint = match Lying::at(&chain.record) {
        Lying::Record(_, recorded) if recorded.place() >= watermark.place() => {
            let record = chain.record.display();
            return Ok(writeln!(out, "{path}, {at}; {record} is at {recorded} already and stays there")?);
        }
        Lying::Record(..) => {
            let step = match watermark.step {
                None => "",
                Some(Step::Proposal) => " --step proposal",
                Some(Step::Prevote) => " --step prevote",
                Some(Step::Precommit) => " --step precommit",
            };
            let raise = advice::command(chain, "state raise");
            format!("`{raise} --to-height {} --round {}{step}`", watermark.height, watermark.round)
        }
        _ => format!(
            "while no signer runs on it: `mv {} {}`",
            advice::shell(file),
            advice::shell(&chain.record)
        ),
    };
    Err(Failure::for_safety(format!("`{path}` is a monosign record, {at}\nhint: {hint}")))
}

fn raise_existing(
    chain: &ChainConfig,
    public_key: PublicKey,
    watermark: Watermark,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let seams = Seams::production();
    let opener = opener(&*seams.disk, &chain.record, chain)?;
    block_on(async {
        let opened = patiently(async || opener.open(&chain.id, public_key.as_bytes()).await).await;
        let mut record = opened.map_err(|e| advice::of_record(chain, &e))?;
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
            start::open(chain, &unlock_env(), &seams, &mut Devices::new(Rc::clone(&seams.disk)))
                .await
                .map_err(|e| advice::of_start(chain, e))?;
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
    let text = state.write(args.dialect).map_err(|error| match error {
        // Above all that was signed, so nothing is lost but the rest of this round.
        StateError::BlockUnknown => Failure::new(format!(
            "{}\nhint: `{} --to-height {} --round {}` first, which gives up the rest of this round; or export it in another dialect",
            advice::first_line(&error.to_string()),
            advice::command(chain, "state raise"),
            state.height,
            state.round.saturating_add(1)
        )),
        other => Failure::new(other),
    })?;
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
    // Before anything is locked: a question may wait for long.
    let (_, recorded) = peek(chain, &seams)?;
    let tip = args.bounds.chain_height(&chain.id)?;
    let known = Some(recorded.height).filter(|height| *height > Height(0));
    args.bounds.admit(floor.height, known, tip, Purpose::Raise, chain.rules.jump_limit, out)?;
    let opener = opener(&*seams.disk, &chain.record, chain)?;
    block_on(async {
        let opened = patiently(async || opener.open_of_chain(&chain.id).await).await;
        let mut record = opened.map_err(|e| advice::of_record(chain, &e))?;
        let before = record.watermark().clone();
        record.raise(floor).await?;
        measure_from_record(chain, &seams).await?;
        writeln!(out, "raised {} from {before} to {}", chain.record.display(), record.watermark())?;
        let rise = record.watermark().height.0.saturating_sub(before.height.0);
        if rise > 0 && before.height > Height(0) {
            let (height, reached) = (record.watermark().height, reached_in(rise));
            writeln!(out, "nothing below height {height} is signed, ever: {reached}")?;
        }
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

fn allow_jump(chain: &ChainConfig, args: &AllowJumpArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let (seams, height) = (Seams::production(), args.height);
    let (header, watermark) = peek(chain, &seams)?;
    header.is_of(&chain.record, &chain.id, None)?;
    if height <= watermark.height.0 {
        return Err(Failure::new(format!("the record is at {watermark}: height {height} is no jump")));
    }
    let tip = args.bounds.chain_height(&chain.id)?;
    let known = Some(watermark.height).filter(|height| *height > Height(0));
    args.bounds.admit(Height(height), known, tip, Purpose::Allow, chain.rules.jump_limit, out)?;
    let path = jump_allowance_path(&chain.record);
    let allowance = format!("{height}\n");
    block_on(durable_file::replace(&*seams.disk, &path, allowance.as_bytes()))?.map_err(Failure::new)?;
    writeln!(
        out,
        "chain {} may jump from {watermark} to height {height} at the most, for a day or until the record is there",
        chain.id
    )?;
    Ok(())
}

/// Opens a record of the chain as what signs with it: the whole key, or this cosigner.
fn opener<'a>(disk: &'a dyn Disk, path: &'a Path, chain: &ChainConfig) -> Result<Opener<'a>, Failure> {
    let opener = Opener::new(disk, path);
    let KeyConfig::Threshold(share) = &chain.key else { return Ok(opener) };
    let group = group_of(share, &chain.id)?;
    let me = group.members().find(|member| !share.peers.contains_key(member));
    // Where each member is named as a peer, the start tells of it.
    Ok(match me.and_then(|me| group.identity(me)) {
        Some(identity) => opener.of_cosigner(*identity),
        None => opener,
    })
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
        above: None,
    }
}

#[cfg(test)]
mod tests;
