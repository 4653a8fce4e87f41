//! `monosign yubihsm selftest`: what the mock device assumes, tried on a real one.

use std::io::Write;

use clap::Args;
use ed25519_dalek::{Signature, VerifyingKey};
use tokio::time::Instant;
use yubihsm::asymmetric::Algorithm;
use yubihsm::audit::AuditOption;
use yubihsm::command::Code;
use yubihsm::device::ErrorKind;
use yubihsm::object::Type;
use yubihsm::{Capability, Client, Domain, wrap};

use super::roles::{DOMAIN, Role};
use super::session::{DeviceArgs, Session, open, told};
use super::{Failure, options, setup};
use crate::backend::yubihsm::MAX_MESSAGE;
use crate::config::YubihsmProvider;

/// Arguments of `monosign yubihsm selftest`.
#[derive(Debug, Args)]
pub(super) struct SelftestArgs {
    #[command(flatten)]
    device: DeviceArgs,
    /// Erase the device of this serial number without asking for it to be typed.
    #[arg(long, value_name = "SERIAL")]
    erase: Option<String>,
    /// Sign until the log's numbers go from 65535 to 0 too, which takes hours.
    #[arg(long)]
    long: bool,
}

type Seen = Result<String, yubihsm::client::Error>;

/// One thing to try: what it is, what is assumed, and how it is seen.
struct Trial {
    what: &'static str,
    assumed: &'static str,
    see: fn(&Client) -> Seen,
}

const KEY: u16 = 0x0101;
const SPARE: u16 = 0x0102;
/// An authentication key.
const OTHER: u16 = 0x0103;

pub(super) fn run(args: &SelftestArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let provider = args.device.provider()?;
    let session = args.device.open_provider(&provider)?;
    setup::confirm(&session, args.erase.as_deref(), out)?;
    let session = setup::erase(session, &provider)?;
    let info = session.info()?;
    writeln!(out, "\nmonosign {} yubihsm selftest", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "serial number {}, firmware {}", info.serial, info.firmware)?;
    let mut different = 0;
    for trial in trials(audits_by_default(&info.firmware)) {
        let seen = (trial.see)(session.client());
        let seen = seen.unwrap_or_else(|error| format!("error: {error}"));
        different += u32::from(told_of(trial.what, trial.assumed, &seen, out)?);
    }
    measure(&session, out)?;
    let seen = outside_of_domain(&session, &provider)?;
    different += u32::from(told_of("a key outside of the asker's domains", "ObjectNotFound", &seen, out)?);
    different += u32::from(told_of("sessions at once", "16", &sessions(&provider)?, out)?);
    if args.long {
        let seen = wraps(session.client()).unwrap_or_else(|error| format!("error: {error}"));
        different += u32::from(told_of("the number after 65535 in the log", "0", &seen, out)?);
    }
    writeln!(out, "\n{different} differ from what is assumed. Please send this report to the authors.")?;
    Ok(())
}

/// Prints one line, and says whether what was seen is not what is assumed.
fn told_of(what: &str, assumed: &str, seen: &str, out: &mut dyn Write) -> Result<bool, Failure> {
    let differs = assumed != seen;
    match differs {
        false => writeln!(out, "as assumed  {what}: {seen}")?,
        true => writeln!(out, "DIFFERENT   {what}: {seen}, and {assumed} is assumed")?,
    }
    Ok(differs)
}

/// Firmware before 2.3.1 does.
fn audits_by_default(firmware: &str) -> bool {
    let numbers: Vec<u8> = firmware.split('.').filter_map(|number| number.parse().ok()).collect();
    numbers < vec![2, 3, 1]
}

/// In this order: some build on what those before them left.
fn trials(audits: bool) -> Vec<Trial> {
    let trial = |what, assumed, see| Trial { what, assumed, see };
    let (log, option, commands) = match audits {
        false => ("1: HsmInitialization, 2: Unknown", "Off", "none"),
        true => (
            "1: HsmInitialization, 2: Unknown, 3: CreateSession, 4: AuthenticateSession",
            "On",
            "46, with 0x03, 0x04, 0x40, 0x54 and 0x67",
        ),
    };
    vec![
        trial("entries in the log after a reset", log, entries),
        trial("audit of signatures by default", option, |client| {
            Ok(format!("{:?}", client.get_command_audit_option(Code::SignEddsa)?))
        }),
        trial("commands that are audited by default", commands, audited),
        trial("commands that are audited after all were set", "8", |client| {
            options::set_all(client)?;
            Ok(audited_codes(client)?.len().to_string())
        }),
        trial("force audit by default", "Off", |client| {
            Ok(format!("{:?}", client.get_force_audit_option()?))
        }),
        trial("length of an Ed25519 key's info", "32", |client| {
            make_key(client, KEY, Capability::SIGN_EDDSA | Capability::EXPORTABLE_UNDER_WRAP)?;
            Ok(client.get_object_info(KEY, Type::AsymmetricKey)?.length.to_string())
        }),
        trial("a message signed twice", "one signature, and it verifies", signed_twice),
        trial("the longest message", "signed", |client| {
            client.sign_ed25519(KEY, vec![1; MAX_MESSAGE])?;
            Ok("signed".into())
        }),
        trial("sequence of a key made again", "1", |client| {
            make_key(client, SPARE, Capability::SIGN_EDDSA)?;
            client.delete_object(SPARE, Type::AsymmetricKey)?;
            make_key(client, SPARE, Capability::SIGN_EDDSA)?;
            Ok(client.get_object_info(SPARE, Type::AsymmetricKey)?.sequence.to_string())
        }),
        trial("bytes of a wrapped Ed25519 key", "191", |client| {
            let may = Capability::EXPORT_WRAPPED | Capability::IMPORT_WRAPPED;
            let (all, kind) = (Capability::all(), wrap::Algorithm::Aes256Ccm);
            client.put_wrap_key(1, "w".into(), Domain::DOM1, may, all, kind, vec![9; 32])?;
            Ok(client.export_wrapped(1, Type::AsymmetricKey, KEY)?.into_vec().len().to_string())
        }),
        trial("a wrapped key that comes back", "the same public key", |client| {
            let before = client.get_public_key(KEY)?;
            let wrapped = client.export_wrapped(1, Type::AsymmetricKey, KEY)?;
            client.delete_object(KEY, Type::AsymmetricKey)?;
            client.import_wrapped(1, wrapped)?;
            let same = client.get_public_key(KEY)? == before;
            Ok(if same { "the same public key" } else { "another public key" }.into())
        }),
        trial("entry of a signature", "length 122, session key 1, target key 257", |client| {
            client.sign_ed25519(KEY, vec![1; 120])?;
            let log = client.get_log_entries()?;
            let entry = log.entries.last();
            Ok(entry.map_or("none".into(), |entry| {
                let (length, session, target) = (entry.length, entry.session_key, entry.target_key);
                format!("length {length}, session key {session}, target key {target}")
            }))
        }),
        trial("entries shown after one was marked as read", "one less", |client| {
            let log = client.get_log_entries()?;
            let oldest = log.entries.first().map_or(0, |entry| entry.item);
            client.set_log_index(oldest)?;
            let now = client.get_log_entries()?.num_entries;
            Ok(if now + 1 == log.num_entries {
                "one less".into()
            } else {
                format!("{now} of {}", log.num_entries)
            })
        }),
        trial("signatures until a full log refuses", "62 entries, LogFull", |client| {
            client.set_force_audit_option(AuditOption::On)?;
            let refused = loop {
                if let Err(error) = client.sign_ed25519(KEY, vec![1; 120]) {
                    break error;
                }
            };
            let entries = client.get_log_entries()?.num_entries;
            Ok(format!("{entries} entries, {}", kind(&refused)))
        }),
        trial(
            "the place that one entry makes when it is marked as read",
            "one signature, LogFull",
            |client| {
                let oldest = client.get_log_entries()?.entries.first().map_or(0, |entry| entry.item);
                client.set_log_index(oldest)?;
                client.sign_ed25519(KEY, vec![1; 120])?;
                let refused = client.sign_ed25519(KEY, vec![1; 120]).map(drop);
                Ok(format!("one signature, {}", refused.err().map_or("another".into(), |error| kind(&error))))
            },
        ),
        trial("marking as read up to an entry above 60", "taken, and one is left", |client| {
            let log = client.get_log_entries()?;
            let last_but_one = log.entries.iter().rev().nth(1).map_or(0, |entry| entry.item);
            let refused = client.set_log_index(last_but_one).err();
            let left = client.get_log_entries()?.num_entries;
            Ok(match (refused, left) {
                (Some(error), _) => format!("{} at {last_but_one}", kind(&error)),
                (None, 1) => "taken, and one is left".into(),
                (None, left) => format!("taken, and {left} are left"),
            })
        }),
        trial("marking as read what was read before", "InvalidData", |client| {
            let refused = client.set_log_index(1).err();
            Ok(refused.map_or("taken".into(), |error| kind(&error)))
        }),
        trial("marking as read what is not there yet", "InvalidData", |client| {
            let newest = client.get_log_entries()?.entries.last().map_or(0, |entry| entry.item);
            let refused = client.set_log_index(newest.wrapping_add(9)).err();
            Ok(refused.map_or("taken".into(), |error| kind(&error)))
        }),
        trial("a key that is not there", "ObjectNotFound", |client| {
            let refused = client.get_public_key(0x0ff0).err();
            Ok(refused.map_or("found".into(), |error| kind(&error)))
        }),
        trial("force audit switched off again", "Off", |client| {
            client.set_force_audit_option(AuditOption::Off)?;
            Ok(format!("{:?}", client.get_force_audit_option()?))
        }),
    ]
}

fn entries(client: &Client) -> Seen {
    let log = client.get_log_entries()?;
    let entries: Vec<_> =
        log.entries.iter().map(|entry| format!("{}: {:?}", entry.item, entry.cmd)).collect();
    Ok(entries.join(", "))
}

fn audited_codes(client: &Client) -> Result<Vec<u8>, yubihsm::client::Error> {
    let options = client.get_commands_audit_options()?;
    let audited = options.into_iter().filter(|option| option.audit_option() != AuditOption::Off);
    Ok(audited.map(|option| option.command_type().to_u8()).collect())
}

fn audited(client: &Client) -> Seen {
    let codes = audited_codes(client)?;
    let own = [0x03, 0x04, 0x40, 0x54, 0x67].iter().all(|code| codes.contains(code));
    Ok(match (codes.len(), own) {
        (0, _) => "none".into(),
        (count, true) => format!("{count}, with 0x03, 0x04, 0x40, 0x54 and 0x67"),
        (count, false) => format!("{count}: {codes:02x?}"),
    })
}

/// After a lost answer the same bytes are asked for again: what comes must be what was lost.
fn signed_twice(client: &Client) -> Seen {
    let [one, another] = [client.sign_ed25519(KEY, vec![1; 120])?, client.sign_ed25519(KEY, vec![1; 120])?];
    let key =
        client.get_public_key(KEY)?.ed25519().and_then(|key| VerifyingKey::from_bytes(key.as_bytes()).ok());
    let signature = Signature::from_bytes(&one.to_bytes());
    let verifies = key.is_some_and(|key| key.verify_strict(&[1; 120], &signature).is_ok());
    Ok(match (one.to_bytes() == another.to_bytes(), verifies) {
        (true, true) => "one signature, and it verifies",
        (true, false) => "one signature, which does not verify",
        (false, _) => "two signatures",
    }
    .into())
}

fn make_key(client: &Client, id: u16, may: Capability) -> Result<(), yubihsm::client::Error> {
    client.generate_asymmetric_key(id, "selftest".into(), Domain::DOM1, may, Algorithm::Ed25519).map(drop)
}

fn kind(error: &yubihsm::client::Error) -> String {
    error.device_error().map_or_else(|| error.to_string(), |kind: ErrorKind| format!("{kind:?}"))
}

/// Told without an assumption: times are what the latency of the mock will be set to.
fn measure(session: &Session, out: &mut dyn Write) -> Result<(), Failure> {
    let tick = || -> Result<u32, Failure> {
        let log = session.client().get_log_entries().map_err(|error| told(&error))?;
        Ok(log.entries.last().map_or(0, |entry| entry.tick))
    };
    let (ticks, began) = (tick()?, Instant::now());
    for len in [32, 120, 512, 1024, 2000] {
        let mut times = Vec::new();
        for _ in 0..10 {
            let asked = Instant::now();
            let signed = session.client().sign_ed25519(KEY, vec![1; len]);
            signed.map_err(|error| told(&error))?;
            times.push(asked.elapsed());
        }
        times.sort();
        writeln!(out, "measured    a signature of {len} bytes: {:.1} ms", times[5].as_secs_f64() * 1000.0)?;
    }
    let (ticks, seconds) = (tick()?.wrapping_sub(ticks), began.elapsed().as_secs_f64());
    writeln!(out, "measured    the log's clock: {ticks} ticks in {seconds:.2} s")?;
    let info = session.client().device_info().map_err(|error| told(&error))?;
    Ok(writeln!(out, "measured    algorithms that the crate can read: {}", info.algorithms.len())?)
}

/// What an authentication key of another domain is told of a key.
fn outside_of_domain(session: &Session, provider: &YubihsmProvider) -> Result<String, Failure> {
    let (all, none) = (Capability::all(), Capability::empty());
    let other = Role {
        id: OTHER,
        name: "selftest",
        domains: Domain::all() - DOMAIN,
        capabilities: all,
        delegated: none,
    };
    setup::put_role(session, &other, &"selftest".into())?;
    let refused = open(provider, OTHER, "selftest".into())?.client().get_public_key(KEY).err();
    Ok(refused.map_or("found".into(), |error| kind(&error)))
}

/// How many there can be, ours included.
fn sessions(provider: &YubihsmProvider) -> Result<String, Failure> {
    let mut sessions = Vec::new();
    while let Ok(session) = open(provider, 1, "password".into()) {
        sessions.push(session);
        if sessions.len() > 40 {
            break;
        }
    }
    // Those before the reset are gone; open are the one of this command and that of the other domain.
    Ok((sessions.len() + 2).to_string())
}

fn wraps(client: &Client) -> Seen {
    let mut before = 0;
    loop {
        client.sign_ed25519(KEY, vec![1; 120])?;
        let item = client.get_log_entries()?.entries.last().map_or(0, |entry| entry.item);
        if item < before {
            return Ok(item.to_string());
        }
        before = item;
    }
}
