//! `monosign yubihsm unlock`: for an operator who has found out what the witness stopped at.
//!
//! The order is what makes it safe to be interrupted: the records are raised first, and durably, since whatever was signed elsewhere, this signer signs
//! above it; then what is in the logs is taken for known; and only then the locks beside the records go. Given again, it goes on from where it
//! was.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::Arc;

use clap::Args;
use monosign_protocol::{ChainId, Height, Round};

use super::audit::show_entry;
use super::session::{DeviceArgs, Session, is_typed, read_line, told};
use super::{Failure, options};
use crate::backend::locks;
use crate::backend::yubihsm::unlock::{Examined, forget_alarm};
use crate::backend::yubihsm::witness::{AuditLog, Cursor};
use crate::backend::yubihsm::{Audit, AuditFileError, CAPACITY, KEPT, read_log};
use crate::cli::{advice, block_on};
use crate::config::{ChainConfig, DeviceKey, YubihsmProvider};
use crate::guard::{HIGHEST_FIRST, JumpLimit, Recorded, Watermark};
use crate::record::{Record, RecordError};
use crate::seams::{Disk, Seams};

/// Arguments of `monosign yubihsm unlock`.
#[derive(Debug, Args)]
pub(super) struct UnlockArgs {
    #[command(flatten)]
    device: DeviceArgs,
    /// Unlock the device of this serial number without asking for it to be typed. Once for each device that is asked for.
    #[arg(long, value_name = "SERIAL")]
    confirm: Vec<String>,
    /// The highest height that was signed on a chain with its key, by whatever signer, instead of asking for it. Once for each
    /// chain that is asked for.
    #[arg(long, value_name = "CHAIN=HEIGHT", value_parser = chain_and_height)]
    signed_up_to: Vec<(ChainId, i64)>,
}

/// A device, and its log held against what is known of it.
struct Looked {
    provider: Arc<YubihsmProvider>,
    serial: String,
    session: Session,
    log: AuditLog,
    examined: Examined,
}

/// A chain whose key signs nothing, and why, if that is written beside its record.
struct LockedChain {
    chain: ChainConfig,
    record: Record,
    lock: Option<String>,
}

pub(super) fn run(args: &UnlockArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let providers = args.device.providers()?;
    let watched: Vec<_> = providers.iter().filter(|provider| provider.audit != Audit::Off).cloned().collect();
    if watched.is_empty() && args.device.names_one() {
        return Err(Failure::usage(
            "the device's `audit` is off: there is no witness, and nothing to unlock",
        ));
    }
    let chains = args.device.chains()?;
    let seams = Seams::production();
    block_on(async {
        let disk = &*seams.disk;
        let mut looked = Vec::new();
        for provider in &watched {
            looked.push(look(args, provider, watched.len(), disk).await?);
        }
        // Before anything is asked: a signer that still runs has the records.
        let locked = locked(&chains, &looked, disk).await?;
        if locked.is_empty() {
            if looked.is_empty() {
                return Ok(writeln!(out, "nothing is locked")?);
            }
            for device in &mut looked {
                writeln!(
                    out,
                    "all that YubiHSM {} has logged is accounted for: nothing is locked",
                    device.serial
                )?;
                make_room(device, out).await?;
            }
            return Ok(());
        }
        // A log that holds nothing to go on from is told of before anything is asked.
        let cursors: Vec<Cursor> = looked
            .iter()
            .map(|device| device.log.newest().map_err(Failure::new))
            .collect::<Result<_, _>>()?;
        show(&looked, &locked, out)?;
        let heights = ask(args, &looked, &locked, out)?;
        go_on(looked, cursors, locked, heights, disk, out).await
    })?
}

async fn look(
    args: &UnlockArgs,
    provider: &Arc<YubihsmProvider>,
    devices: usize,
    disk: &dyn Disk,
) -> Result<Looked, Failure> {
    let away = |failure: Failure| {
        let hint = match devices {
            1 => "hint: a device that will not come back has to be taken out of the configuration",
            _ => {
                "hint: `--serial NUMBER` goes by the log of another device; what this one's log tells is found when the signer \
                 reaches it"
            }
        };
        let message = failure.message.map(|message| format!("{message}\n{hint}"));
        Failure { message, ..failure }
    };
    let session = args.device.open_provider(provider).map_err(away)?;
    let serial = session.info()?.serial;
    let log = read_log(session.client()).map_err(Failure::new)?;
    let mut watched = provider.watched();
    watched.keys.extend(options::copies(session.client(), &provider.keys).into_iter().map(|(copy, _)| copy));
    let examined = Examined::new(disk, &provider.audit_file, &log, &watched).await.map_err(not_examined)?;
    Ok(Looked { provider: Arc::clone(provider), serial, session, log, examined })
}

/// With force audit, a device whose log is full refuses what it audits, and no alarm tells of it.
async fn make_room(device: &mut Looked, out: &mut dyn Write) -> Result<(), Failure> {
    let entries = &device.log.entries;
    let Some(last) = entries.len().checked_sub(1 + KEPT).filter(|_| entries.len() >= CAPACITY) else {
        return Ok(());
    };
    let last = entries[last].item();
    device.examined.keep().await.map_err(Failure::new)?;
    device.session.client().set_log_index(last).map_err(|error| told(&error))?;
    Ok(writeln!(
        out,
        "its log was full, and with force audit it does nothing then that it audits: all but the newest {KEPT} entries are marked as read"
    )?)
}

/// The chains whose keys are locked: by a file beside the record of any chain with the same key, or by what a log tells now.
async fn locked(
    chains: &[ChainConfig],
    looked: &[Looked],
    disk: &dyn Disk,
) -> Result<Vec<LockedChain>, Failure> {
    let alarmed: BTreeSet<_> = looked
        .iter()
        .filter(|device| device.examined.alarm().is_some())
        .map(|device| device.provider.name())
        .collect();
    let mut keys = BTreeSet::new();
    let mut found = Vec::new();
    for chain in chains {
        let is_alarmed = chain.key.on_devices().iter().any(|key| alarmed.contains(&key.device()));
        let lock = locks::lock_of(disk, &chain.record).await.map_err(|error| {
            Failure::new(format!("`{}` cannot be read: {error}", locks::lock_path(&chain.record).display()))
        })?;
        let public_key = match Record::peek(disk, &chain.record).await {
            Ok((header, _)) => header.public_key,
            Err(error) if lock.is_some() || is_alarmed => return Err(error.into()),
            // It cannot be started, and nothing says that its key is one of these.
            Err(_) => continue,
        };
        if lock.is_some() || is_alarmed {
            keys.insert(public_key);
        }
        found.push((chain, public_key, lock));
    }
    let mut locked = Vec::new();
    for (chain, _, lock) in found.into_iter().filter(|(_, key, _)| keys.contains(key)) {
        let opened = Record::open_of_chain(disk, &chain.record, &chain.id).await;
        let record = opened.map_err(|error| advice::of_record(chain, &error))?;
        locked.push(LockedChain { chain: chain.clone(), record, lock });
    }
    Ok(locked)
}

fn not_examined(error: AuditFileError) -> Failure {
    match error {
        AuditFileError::Locked(_) => Failure::for_safety(format!("{error}\nhint: stop it first")),
        AuditFileError::Missing(_) | AuditFileError::Damaged(_) => Failure::for_safety(error),
        other => Failure::new(other),
    }
}

fn show(looked: &[Looked], locked: &[LockedChain], out: &mut dyn Write) -> Result<(), Failure> {
    for LockedChain { chain, lock, .. } in locked {
        if let Some(why) = lock {
            writeln!(out, "The key of {} is locked: {}\n", chain.id, without_hint(why))?;
        }
    }
    for Looked { serial, log, examined, .. } in looked {
        match examined.alarm() {
            Some(alarm) => writeln!(out, "YubiHSM {serial}: {}\n", without_hint(alarm))?,
            None => writeln!(out, "YubiHSM {serial}: all that it has logged is accounted for\n")?,
        }
        writeln!(
            out,
            "The log was accounted for up to entry {}. `>` marks signatures that this signer did not ask for:",
            examined.last()
        )?;
        for entry in &log.entries {
            write!(out, "{} ", if examined.is_unaccounted(entry) { '>' } else { ' ' })?;
            show_entry(entry, out)?;
        }
    }
    Ok(())
}

fn without_hint(text: &str) -> &str {
    text.split("\nhint:").next().unwrap_or(text)
}

/// Wants the serial number of each device that it is about, then the height of each chain.
fn ask(
    args: &UnlockArgs,
    looked: &[Looked],
    locked: &[LockedChain],
    out: &mut dyn Write,
) -> Result<Vec<i64>, Failure> {
    writeln!(
        out,
        "\nWHOEVER SIGNED MAY HAVE SIGNED ABOVE THE RECORD OF THIS SIGNER, AND TO SIGN THERE AGAIN IS A DOUBLE SIGN.\n\
         Stop every other signer with these keys for good, and look up how high they have signed: in their own logs and states, and \
         as votes of this validator on the chain."
    )?;
    let is_alarmed = |device: &&Looked| device.examined.alarm().is_some();
    let serial = |device: &Looked| device.serial.clone();
    let mut about: Vec<_> = looked.iter().filter(is_alarmed).map(serial).collect();
    if about.is_empty() {
        about = looked.iter().map(serial).collect();
    }
    for serial in about {
        if !is_typed(&format!("the serial number of YubiHSM {serial}"), &serial, &args.confirm, out)? {
            return Err(Failure::for_safety("that is not its serial number: nothing was unlocked"));
        }
    }
    let given: BTreeMap<_, _> = args.signed_up_to.iter().map(|(chain, height)| (chain, *height)).collect();
    let heights = locked.iter().map(|LockedChain { chain, record, .. }| {
        let recorded = record.watermark();
        let height = match given.get(&chain.id) {
            Some(height) => *height,
            None => {
                write!(
                    out,
                    "Highest height signed with the key of {}, by whatever signer; the record is at {recorded}: ",
                    chain.id
                )?;
                height(&read_line(out)?).map_err(|error| {
                    Failure::for_safety(format!("{error}: nothing was unlocked"))
                })?
            }
        };
        within_reach(chain, record.recorded(), height)?;
        Ok(height)
    });
    heights.collect()
}

async fn go_on(
    looked: Vec<Looked>,
    cursors: Vec<Cursor>,
    mut locked: Vec<LockedChain>,
    heights: Vec<i64>,
    disk: &dyn Disk,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    for (LockedChain { record, .. }, height) in locked.iter_mut().zip(heights) {
        raise_above(record, height, out).await?;
    }
    writeln!(out)?;
    for (Looked { serial, examined, .. }, cursor) in looked.into_iter().zip(cursors) {
        examined.go_on_from(cursor).await.map_err(Failure::new)?;
        writeln!(
            out,
            "YubiHSM {serial} is unlocked: what it logs after entry {} is accounted for",
            cursor.item
        )?;
    }
    // A device that was left out may have raised the alarm. What its log shows is found again when it is reached.
    for LockedChain { chain, .. } in &locked {
        for path in chain.key.on_devices().iter().filter_map(DeviceKey::audit_file) {
            forget_alarm(disk, path).await.map_err(not_examined)?;
        }
    }
    for LockedChain { chain, record, .. } in &locked {
        locks::unlock(disk, record.path()).await.map_err(Failure::new)?;
        writeln!(out, "the key of {} is unlocked", chain.id)?;
    }
    Ok(writeln!(out, "start the signer once no other can sign with its keys")?)
}

/// A record never comes down again, so a slip of the finger must not raise it beyond the chain.
fn within_reach(chain: &ChainConfig, recorded: Recorded<'_>, height: i64) -> Result<(), Failure> {
    let JumpLimit::Heights(limit) = chain.rules.jump_limit else { return Ok(()) };
    let limit = if recorded.unused { HIGHEST_FIRST.unsigned_abs() } else { limit };
    let jump = u64::try_from(height.saturating_sub(recorded.watermark.height.0)).unwrap_or(0);
    if jump <= limit {
        return Ok(());
    }
    Err(Failure::for_safety(format!(
        "height {height} is more than {limit} above {}, the record of chain {}, which never comes down again: nothing was unlocked\n\
         hint: if it is right, `{} --to-height {height} --yes` first",
        recorded.watermark,
        chain.id,
        advice::command(chain, "state raise")
    )))
}

/// Nothing at the height itself is signed any more either.
async fn raise_above(record: &mut Record, height: i64, out: &mut dyn Write) -> Result<(), Failure> {
    let floor = Watermark::floor(Height(height.saturating_add(1)), Round(0), None);
    let before = record.watermark().to_string();
    match record.raise(floor).await {
        Ok(()) => {
            writeln!(out, "raised {} from {before} to {}", record.path().display(), record.watermark())?;
        }
        Err(RecordError::NotRising { recorded, .. }) => {
            writeln!(out, "{} is at {recorded} already and stays there", record.path().display())?;
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

fn chain_and_height(text: &str) -> Result<(ChainId, i64), String> {
    let (chain, text) = text.rsplit_once('=').ok_or_else(|| format!("`{text}` is not CHAIN=HEIGHT"))?;
    Ok((chain.parse().map_err(|error| format!("{error}"))?, height(text)?))
}

fn height(text: &str) -> Result<i64, String> {
    let parsed = text.trim().parse().ok().filter(|height| *height >= 0);
    parsed.ok_or_else(|| format!("`{}` is no height", text.trim()))
}
