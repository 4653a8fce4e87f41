//! `mock-yubihsm`: a YubiHSM 2 behind a connector's HTTP, for trying things out.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use mock_yubihsm::device::Firmware;
use mock_yubihsm::faults::Fault;
use mock_yubihsm::latency::Latency;
use mock_yubihsm::{Connector, Device};

/// A YubiHSM 2 at the wire level, fresh from the factory, behind the HTTP of yubihsm-connector. For tests: its keys are in
/// memory, unprotected, and gone when it ends.
///
/// Faults: `curl -X POST http://ADDRESS/mock/FAULT` with lose-request, lose-answer, truncate, power-cycle, split/on, hang/on,
/// unplug/on, sign-wrongly/on, list-hosts/on (each also /off), delay/MILLISECONDS, close-idle, idle-close/SECONDS (or /off).
#[derive(Parser)]
#[command(name = "mock-yubihsm", version)]
struct Cli {
    /// Where to listen.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:12345")]
    listen: SocketAddr,
    /// The device's serial number.
    #[arg(long, value_name = "NUMBER", default_value_t = 12_345_678)]
    serial: u32,
    /// The firmware: `2.2`, which audits nearly all commands by default, or `2.4`, which audits nothing.
    #[arg(long, value_name = "VERSION", default_value = "2.4")]
    firmware: Firmware,
    /// How long signatures take: `none`, `published` (115 to 146 ms), or milliseconds.
    #[arg(long, value_name = "MODEL", default_value = "published", value_parser = latency)]
    latency: Latency,
    /// After how many seconds an idle connection is closed; 0 is never. The real connector's are 5.
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    idle_close: u64,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(never) => never,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    let mut device = Device::new(
        b"password",
        Box::new(|bytes| {
            if let Err(error) = getrandom::getrandom(bytes) {
                panic!("the operating system gives no entropy: {error}");
            }
        }),
    );
    device.set_serial(cli.serial);
    device.set_firmware(cli.firmware);
    let connector = Connector::serve(cli.listen, device, cli.latency)
        .with_context(|| format!("cannot listen on `{}`", cli.listen))?;
    let idle_close = Some(Duration::from_secs(cli.idle_close)).filter(|after| !after.is_zero());
    connector.set(Fault::IdleClose(idle_close));
    println!(
        "YubiHSM 2 double {:010} at http://{}, authentication key 1 with password `password`",
        cli.serial,
        connector.address()
    );
    loop {
        std::thread::park();
    }
}

fn latency(text: &str) -> Result<Latency, String> {
    match text {
        "none" => Ok(Latency::None),
        "published" => Ok(Latency::Published),
        ms => ms
            .parse()
            .map(|ms| Latency::Fixed(Duration::from_millis(ms)))
            .map_err(|_| format!("`{ms}` is neither `none`, `published` nor milliseconds")),
    }
}
