//! `monosign yubihsm audit`.

use std::io::Write;

use clap::{Args, Subcommand};
use data_encoding::HEXLOWER;

use super::session::{DeviceArgs, told};
use super::{Failure, options};
use crate::backend::yubihsm::witness::LogEntry;
use crate::backend::yubihsm::{Audit, AuditFileError, Witnessed, read_log};
use crate::cli::block_on;
use crate::seams::Seams;

/// Arguments of `monosign yubihsm audit`.
#[derive(Debug, Args)]
pub(super) struct AuditArgs {
    #[command(subcommand)]
    command: AuditCommand,
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// Begin: all that the device signs from now on has to be ours.
    Init(LogArgs),
    /// Show the device's log.
    Show(LogArgs),
    /// Set which commands the device audits, as `setup` does, and erase nothing. It takes the administrator: --auth-key 1.
    Options(LogArgs),
}

#[derive(Debug, Args)]
struct LogArgs {
    #[command(flatten)]
    device: DeviceArgs,
}

pub(super) fn run(args: &AuditArgs, out: &mut dyn Write) -> Result<(), Failure> {
    match &args.command {
        AuditCommand::Init(args) => init(&args.device, out),
        AuditCommand::Show(args) => show(&args.device, out),
        AuditCommand::Options(args) => set_options(&args.device, out),
    }
}

fn set_options(device: &DeviceArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let provider = device.provider()?;
    let session = device.open_provider(&provider)?;
    options::set_all(session.client()).map_err(|error| told(&error))?;
    let wrong = options::wrong(session.client(), device.auth_key(&provider), options::ANY_KEY)
        .map_err(Failure::new)?
        .told();
    if let Some(first) = wrong.first() {
        let what = first.split("\nhint:").next().unwrap_or(first);
        return Err(Failure::new(format!(
            "{what}\nhint: what is fixed ends with a reset: `monosign yubihsm setup` erases the device and sets it up anew"
        )));
    }
    Ok(writeln!(
        out,
        "{} audits signatures, what makes and deletes objects, and resets, and nothing else",
        provider.name()
    )?)
}

fn init(device: &DeviceArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let provider = device.provider()?;
    if provider.audit == Audit::Off {
        return Err(Failure::usage(
            "the device's `audit` is off\nhint: audit = \"detect\" in its [[providers.yubihsm]]",
        ));
    }
    let session = device.open_provider(&provider)?;
    let (is_blind, told) = options::findings_of(session.client(), device.auth_key(&provider), &provider)?;
    let name = provider.name();
    if is_blind {
        return Err(Failure::new(format!("device {name}: {}", told.join("\n"))));
    }
    for told in told {
        writeln!(out, "warning: device {name}: {told}")?;
    }
    let log = read_log(session.client()).map_err(Failure::new)?;
    let (seams, path) = (Seams::production(), &provider.audit_file);
    block_on(Witnessed::init(&*seams.disk, path, &log))?.map_err(|error| match error {
        AuditFileError::Exists(_) => Failure::for_safety(error),
        other => Failure::new(other),
    })?;
    let newest = log.entries.last().map_or(0, LogEntry::item);
    Ok(writeln!(
        out,
        "made {}: what {} logs after entry {newest} is accounted for",
        path.display(),
        provider.name()
    )?)
}

fn show(device: &DeviceArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let log = read_log(device.open()?.client()).map_err(Failure::new)?;
    if log.unlogged > 0 {
        writeln!(out, "{} boots and sessions were not logged: the log was full", log.unlogged)?;
    }
    log.entries.iter().try_for_each(|entry| show_entry(entry, out))
}

/// One line.
pub(super) fn show_entry(entry: &LogEntry, out: &mut dyn Write) -> Result<(), Failure> {
    let two = |at: usize| u16::from_be_bytes([entry.bytes[at], entry.bytes[at + 1]]);
    Ok(writeln!(
        out,
        "{:>5}  command {:#04x}  length {:>5}  authentication key {:#06x}  key {:#06x}  result {:#04x}  digest {}",
        entry.item(),
        entry.bytes[2],
        two(3),
        two(5),
        two(7),
        entry.bytes[11],
        HEXLOWER.encode(&entry.digest)
    )?)
}
