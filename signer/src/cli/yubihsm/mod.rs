//! `monosign yubihsm`: what is done to a device by hand.

mod audit;
mod keys;
pub(super) mod options;
mod roles;
mod selftest;
mod session;
mod setup;
mod test;
mod unlock;

use std::io::Write;

use clap::{Args, Subcommand};

use super::Failure;
use session::DeviceArgs;

/// Arguments of `monosign yubihsm`.
#[derive(Debug, Args)]
pub(super) struct YubihsmArgs {
    #[command(subcommand)]
    command: YubihsmCommand,
}

#[derive(Debug, Subcommand)]
enum YubihsmCommand {
    /// Show the devices that can be reached.
    Detect(DetectArgs),
    /// Erase a device and set it up: roles with passwords, a key for backups, the audit log.
    Setup(setup::SetupArgs),
    /// Make, list, import and export keys.
    Keys(keys::KeysArgs),
    /// Begin and show what the device's log is compared with: see `audit` in the configuration.
    Audit(audit::AuditArgs),
    /// Show what the witness has stopped the signer at, and let it go on above what was signed elsewhere.
    Unlock(unlock::UnlockArgs),
    /// Time signatures of a text that is no vote, and verify them.
    Test(test::TestArgs),
    /// Try on a device what is only known from documents, and print a report. Erases the device.
    Selftest(selftest::SelftestArgs),
}

#[derive(Debug, Args)]
struct DetectArgs {
    #[command(flatten)]
    device: DeviceArgs,
}

pub(super) fn run(args: &YubihsmArgs, out: &mut dyn Write) -> Result<(), Failure> {
    match &args.command {
        YubihsmCommand::Detect(args) => detect(args, out),
        YubihsmCommand::Setup(args) => setup::run(args, out),
        YubihsmCommand::Keys(args) => keys::run(args, out),
        YubihsmCommand::Audit(args) => audit::run(args, out),
        YubihsmCommand::Unlock(args) => unlock::run(args, out),
        YubihsmCommand::Test(args) => test::run(args, out),
        YubihsmCommand::Selftest(args) => selftest::run(args, out),
    }
}

/// Those of the configuration, and those on USB.
fn detect(args: &DetectArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let mut found = detect_usb(out)?;
    for provider in args.device.providers()? {
        match args.device.open_provider(&provider) {
            Ok(session) => {
                let info = session.info()?;
                found += 1;
                writeln!(
                    out,
                    "{}: serial number {}, firmware {}, {} of {} log entries used",
                    provider.name(),
                    info.serial,
                    info.firmware,
                    info.log_used,
                    info.log_capacity
                )?;
            }
            Err(error) => {
                writeln!(out, "{}: {}", provider.name(), error.message.unwrap_or_default())?;
            }
        }
    }
    if found == 0 {
        return Err(Failure::new(
            "no YubiHSM was found\nhint: a connector is named by --connector tcp://HOST:PORT or a configuration; USB takes a \
             build with `--features usb` and leave to use the device",
        ));
    }
    Ok(())
}

#[cfg(feature = "usb")]
fn detect_usb(out: &mut dyn Write) -> Result<usize, Failure> {
    use yubihsm::connector::usb::{Devices, UsbTimeout};
    let devices = Devices::detect(UsbTimeout::default()).map_err(Failure::new)?;
    for device in devices.iter() {
        writeln!(
            out,
            "usb: serial number {}, bus {}, {}",
            device.serial_number,
            device.bus_number(),
            device.product_name
        )?;
    }
    Ok(devices.len())
}

#[cfg(not(feature = "usb"))]
fn detect_usb(_: &mut dyn Write) -> Result<usize, Failure> {
    Ok(0)
}
