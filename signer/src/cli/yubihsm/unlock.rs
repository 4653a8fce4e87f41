//! `monosign yubihsm unlock`: for an operator who has found out what the witness stopped at.
//!
//! The records are raised first, and durably: whatever was signed elsewhere, this signer signs above it.

use std::collections::BTreeMap;
use std::io::Write;

use clap::Args;
use monosign_protocol::{ChainId, Height, Round};

use super::Failure;
use super::audit::show_entry;
use super::session::{DeviceArgs, read_line, serial_is_typed};
use crate::backend::yubihsm::unlock::Examined;
use crate::backend::yubihsm::witness::AuditLog;
use crate::backend::yubihsm::{Audit, AuditFileError, read_log};
use crate::cli::{advice, block_on};
use crate::config::ChainConfig;
use crate::guard::{HIGHEST_FIRST, JumpLimit, Recorded, Watermark};
use crate::record::{Record, RecordError};
use crate::seams::Seams;

/// Arguments of `monosign yubihsm unlock`.
#[derive(Debug, Args)]
pub(super) struct UnlockArgs {
    #[command(flatten)]
    device: DeviceArgs,
    /// Unlock the device of this serial number without asking for it to be typed.
    #[arg(long, value_name = "SERIAL")]
    confirm: Option<String>,
    /// The highest height that was signed on a chain with its key, by whatever signer, instead of asking for it. Once for each
    /// chain of the device.
    #[arg(long, value_name = "CHAIN=HEIGHT", value_parser = chain_and_height)]
    signed_up_to: Vec<(ChainId, i64)>,
}

pub(super) fn run(args: &UnlockArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let provider = args.device.provider()?;
    if provider.audit == Audit::Off {
        return Err(Failure::usage(
            "the device's `audit` is off: there is no witness, and nothing to unlock",
        ));
    }
    let chains = args.device.chains_of(&provider)?;
    let session = args.device.open_provider(&provider)?;
    let serial = session.info()?.serial;
    let log = read_log(session.client()).map_err(Failure::new)?;
    let (seams, path, watched) = (Seams::production(), &provider.audit_file, provider.watched());
    block_on(async {
        let disk = &*seams.disk;
        let examined = Examined::new(disk, path, &log, &watched).await.map_err(not_examined)?;
        let Some(alarm) = examined.alarm() else {
            return Ok(writeln!(
                out,
                "all that YubiHSM {serial} has logged is accounted for: nothing is locked"
            )?);
        };
        let cursor = log.newest().map_err(Failure::new)?;
        // Before anything is asked: a signer that still runs has them.
        let mut records = Vec::new();
        for chain in &chains {
            let opened = Record::open_of_chain(disk, &chain.record, &chain.id).await;
            records.push(opened.map_err(|error| advice::of_record(chain, &error))?);
        }
        show(&serial, &alarm.to_string(), &log, &examined, out)?;
        let heights = ask(args, &serial, chains.iter().zip(&records), out)?;
        for (record, height) in records.iter_mut().zip(heights) {
            raise_above(record, height, out).await?;
        }
        examined.go_on_from(cursor).await.map_err(Failure::new)?;
        writeln!(
            out,
            "\nYubiHSM {serial} is unlocked: what it logs after entry {} is accounted for",
            cursor.item
        )?;
        Ok(writeln!(out, "start the signer once no other can sign with its keys")?)
    })?
}

fn not_examined(error: AuditFileError) -> Failure {
    match error {
        AuditFileError::Locked(_) => Failure::for_safety(format!("{error}\nhint: stop it first")),
        AuditFileError::Missing(_) | AuditFileError::Damaged(_) => Failure::for_safety(error),
        other => Failure::new(other),
    }
}

fn show(
    serial: &str,
    alarm: &str,
    log: &AuditLog,
    examined: &Examined,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let alarm = alarm.split("\nhint:").next().unwrap_or(alarm);
    writeln!(out, "YubiHSM {serial}: {alarm}\n")?;
    writeln!(
        out,
        "The log was accounted for up to entry {}. `>` marks signatures that this signer did not ask for:",
        examined.last()
    )?;
    for entry in &log.entries {
        write!(out, "{} ", if examined.is_unaccounted(entry) { '>' } else { ' ' })?;
        show_entry(entry, out)?;
    }
    Ok(())
}

/// Wants the serial number, then the height of each chain.
fn ask<'a>(
    args: &UnlockArgs,
    serial: &str,
    chains: impl Iterator<Item = (&'a ChainConfig, &'a Record)>,
    out: &mut dyn Write,
) -> Result<Vec<i64>, Failure> {
    writeln!(
        out,
        "\nWHOEVER MADE THEM MAY HAVE SIGNED ABOVE THE RECORD OF THIS SIGNER, AND TO SIGN THERE AGAIN IS A DOUBLE SIGN.\n\
         Stop every other signer with these keys for good, and look up how high they have signed: in their own logs and states, and \
         as votes of this validator on the chain."
    )?;
    if !serial_is_typed(serial, args.confirm.as_deref(), out)? {
        return Err(Failure::for_safety("that is not its serial number: nothing was unlocked"));
    }
    let given: BTreeMap<_, _> = args.signed_up_to.iter().map(|(chain, height)| (chain, *height)).collect();
    let heights = chains.map(|(chain, record)| {
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
