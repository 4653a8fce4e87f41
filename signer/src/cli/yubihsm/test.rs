//! `monosign yubihsm test`.

use std::io::Write;
use std::time::Duration;

use clap::Args;
use ed25519_dalek::{Signature, VerifyingKey};
use tokio::time::Instant;

use super::Failure;
use super::session::{DeviceArgs, object_id, told};
use crate::backend::yubihsm::Audit;
use crate::record::Permit;

/// Arguments of `monosign yubihsm test`.
#[derive(Debug, Args)]
pub(super) struct TestArgs {
    #[command(flatten)]
    device: DeviceArgs,
    /// The number of the key.
    #[arg(value_parser = object_id)]
    id: u16,
    /// How many signatures.
    #[arg(short = 'n', long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    count: u32,
}

pub(super) fn run(args: &TestArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let provider = args.device.provider()?;
    if provider.audit != Audit::Off && provider.keys.contains(&args.id) {
        return Err(Failure::for_safety(format!(
            "key {:#06x} signs for a chain, and the witness would take these signatures for somebody else's\nhint: try another key of the device",
            args.id
        )));
    }
    let session = args.device.open_provider(&provider)?;
    let client = session.client();
    let key = client.get_public_key(args.id).map_err(|error| told(&error))?.ed25519();
    let key = key.and_then(|key| VerifyingKey::from_bytes(key.as_bytes()).ok());
    let key = key.ok_or_else(|| Failure::new("it is no Ed25519 key"))?;
    let mut times = Vec::new();
    for n in 0..args.count {
        let text = format!("monosign yubihsm test {n}: this is no vote, {}", "x".repeat(80));
        // What has the shape of a consensus message is not signed here either.
        let permit = Permit::raw(text.as_bytes()).map_err(Failure::new)?;
        let asked = Instant::now();
        let signature = client.sign_ed25519(args.id, permit.bytes()).map_err(|error| told(&error))?;
        times.push(asked.elapsed());
        key.verify_strict(permit.bytes(), &Signature::from_bytes(&signature.to_bytes()))
            .map_err(|_| Failure::new("a signature does not verify: do not use this device"))?;
    }
    times.sort();
    let at = |part: usize| ms(times[(times.len() - 1) * part / 100]);
    writeln!(out, "{} signatures, all verified: median {} ms, slowest {} ms", times.len(), at(50), at(100))?;
    Ok(())
}

fn ms(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64() * 1000.0)
}
