//! `monosign check`.

use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use clap::Args;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout};

use super::leave::Leave;
use super::yubihsm::options;
use super::{ConfigArgs, Failure, advice, block_on, custody, unlock_env};
use crate::backend::BackendError;
use crate::backend::locks::{lock_of, lock_path};
use crate::backend::softsign::unlock::{self, Loaded};
use crate::backend::yubihsm::Audit;
use crate::config::{ChainConfig, Config, KeyConfig, ThresholdConfig, ValidatorConfig, YubihsmProvider};
use crate::guard::Watermark;
use crate::link::{Protection, session_for};
use crate::ops::access::{self, Trust};
use crate::pubkey::PublicKey;
use crate::record::Record;
use crate::seams::{Holder, Seams};
use crate::session::Event;
use crate::start::{Devices, StartError, link_settings};
use crate::threshold::ceremony::journal::Journal;
use crate::threshold::open as cosigner;

/// Arguments of `monosign check`.
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Do not dial the validators.
    #[arg(long)]
    offline: bool,
}

/// How long a validator may take to connect and to shake hands.
const DIAL: Duration = Duration::from_secs(3);
/// How many writes the disk is timed by.
const WRITES: u32 = 100;

pub(super) fn run(args: &CheckArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let config = args.config.load()?;
    let mut report = Report { out, worst: Finding::Good };
    report.line(Finding::Good, format!("configuration {}", config.path.display()))?;
    for warning in &config.warnings {
        report.line(Finding::Warning, warning)?;
    }
    let trust = whom_to_trust(&config);
    if let Trust::User(user) = trust {
        let text = format!("the records are of user {user}: the signer has to run as that user, not as root");
        report.line(Finding::Warning, text)?;
    }
    if let Some(told) = access::told(&custody::of_all(&config, trust)) {
        report.line(Finding::Unsafe, told)?;
    }
    if config.validators.is_empty() && config.chains.iter().all(|chain| chain.key.threshold().is_none()) {
        report.line(Finding::Bad, "no [[validator]] to sign for")?;
    }
    for chain in &config.chains {
        check_chain(chain, &config.chains, &mut report)?;
    }
    for device in config.yubihsm.iter().filter(|device| device.audit != Audit::Off) {
        check_device(device, &mut report)?;
    }
    for validator in &config.validators {
        check_validator(validator, args.offline, &mut report)?;
    }
    match report.worst {
        Finding::Unsafe => Err(Failure::for_safety("the signer would refuse to start: see above")),
        Finding::Bad => Err(Failure::new("something is wrong: see above")),
        Finding::Good | Finding::Warning => Ok(()),
    }
}

/// Root looks after the signer of another user: the one that the records are of.
fn whom_to_trust(config: &Config) -> Trust {
    let owner = |chain: &ChainConfig| std::fs::metadata(&chain.record).ok().map(|found| found.uid());
    let owners: BTreeSet<_> = config.chains.iter().filter_map(owner).collect();
    match (rustix::process::geteuid().is_root(), owners.first()) {
        (true, Some(owner)) if owners.len() == 1 && *owner != 0 => Trust::User(*owner),
        _ => Trust::Nobody,
    }
}

struct Report<'a> {
    out: &'a mut dyn Write,
    worst: Finding,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Finding {
    Good,
    Warning,
    Bad,
    Unsafe,
}

impl Report<'_> {
    fn line(&mut self, finding: Finding, text: impl AsRef<str>) -> Result<(), Failure> {
        self.worst = self.worst.max(finding);
        let mark = match finding {
            Finding::Good => "ok     ",
            Finding::Warning => "warning",
            Finding::Bad => "BAD    ",
            Finding::Unsafe => "UNSAFE ",
        };
        Ok(writeln!(self.out, "{mark} {}", text.as_ref().replace('\n', "\n        "))?)
    }
}

fn check_chain(chain: &ChainConfig, chains: &[ChainConfig], report: &mut Report<'_>) -> Result<(), Failure> {
    match &chain.key {
        KeyConfig::Threshold(share) => check_cosigner(chain, share, report)?,
        KeyConfig::Softsign(_) | KeyConfig::OnDevices(_) => check_key(chain, chains, report)?,
    }
    let dir = chain.record.parent().unwrap_or(Path::new("."));
    match sync_time(dir) {
        Ok(median) => report.line(disk_finding(median), disk_verdict(dir, median)),
        // The record is made, and no other file is: this user need not be able to.
        Err(e) if access::is_denied(&e) && chain.key.threshold().is_none() && chain.record.exists() => {
            report.line(Finding::Good, format!("disk under {}: not measured: {e}", dir.display()))
        }
        Err(e) => {
            report.line(Finding::Bad, format!("chain {}: cannot write in {}: {e}", chain.id, dir.display()))
        }
    }
}

/// The share, the group and the record. That the others can be reached shows `monosign threshold status`.
fn check_cosigner(
    chain: &ChainConfig,
    share: &ThresholdConfig,
    report: &mut Report<'_>,
) -> Result<(), Failure> {
    let id = &chain.id;
    let seams = Seams::production();
    let opened = block_on(async {
        cosigner::explain(share, &chain.record, &seams).await?;
        let opened = cosigner::open(share, id, &unlock_env(), &*seams.disk).await?;
        Journal::admit(&*seams.disk, &chain.record, opened.share.epoch()).await?;
        Ok::<_, cosigner::OpenError>(opened)
    });
    let opened = match opened? {
        Ok(opened) => opened,
        Err(error) => {
            return refused(chain, StartError::from(error), report);
        }
    };
    let (me, key) = (opened.share.id(), opened.group.public_key());
    report.line(Finding::Good, format!("chain {id}: cosigner {me} of key {key}"))?;
    let profile = opened.group.shape().profile();
    report.line(Finding::Good, format!("chain {id}: {profile}"))?;
    check_lock(chain, &seams, report)?;
    let peeked = block_on(Record::peek(&*seams.disk, &chain.record))?;
    let checked = peeked.and_then(|(header, watermark)| {
        header.is_of(&chain.record, id, Some(key.as_bytes())).map(|()| watermark)
    });
    match checked.map_err(StartError::from) {
        Ok(watermark) => {
            let path = chain.record.display();
            report.line(Finding::Good, format!("chain {id}: record {path}, last signed h/r/s {watermark}"))
        }
        Err(error) => refused(chain, error, report),
    }
}

/// The start would be refused.
fn refused(chain: &ChainConfig, error: StartError, report: &mut Report<'_>) -> Result<(), Failure> {
    let (finding, failure) = (finding_of(&error), advice::of_start(chain, error));
    report.line(finding, format!("chain {}: {}", chain.id, failure.text()))
}

fn check_key(chain: &ChainConfig, chains: &[ChainConfig], report: &mut Report<'_>) -> Result<(), Failure> {
    let id = &chain.id;
    let seams = Seams::production();
    match block_on(look(chain, chains, &seams))? {
        Ok(Seen { key, watermark, user }) => {
            let (finding, text) = match key {
                Ok(public_key) => (Finding::Good, format!("chain {id}: key {public_key}")),
                Err(locked @ BackendError::Locked(_)) => (Finding::Unsafe, format!("chain {id}: {locked}")),
                Err(waits_for) => (Finding::Warning, format!("chain {id}: {waits_for}")),
            };
            report.line(finding, text)?;
            let path = chain.record.display();
            report
                .line(Finding::Good, format!("chain {id}: record {path}, last signed h/r/s {watermark}"))?;
            if let Some(user) = user {
                report.line(Finding::Good, format!("chain {id}: a signer runs with this key: {user}"))?;
            }
        }
        Err(error) => {
            refused(chain, error, report)?;
            check_lock(chain, &seams, report)?;
        }
    }
    if let Some(leave) = Leave::of(chain) {
        report.line(Finding::Warning, format!("chain {id}: {}", leave.told()))?;
    }
    if let Some(failure) = advice::something_above(chain) {
        report.line(Finding::Unsafe, format!("chain {id}: {}", failure.text()))?;
    }
    if let Some(told) = advice::plaintext(chain) {
        report.line(Finding::Warning, format!("chain {id}: {told}"))?;
    }
    Ok(())
}

/// How a device's log is written. One that cannot be reached was told of with its chain.
fn check_device(device: &YubihsmProvider, report: &mut Report<'_>) -> Result<(), Failure> {
    let Ok((is_blind, told)) = options::findings(device) else { return Ok(()) };
    let finding = if is_blind { Finding::Bad } else { Finding::Warning };
    told.iter().try_for_each(|told| report.line(finding, format!("device {}: {told}", device.name())))
}

/// Whether the key is locked, of a chain whose key was not opened.
fn check_lock(chain: &ChainConfig, seams: &Seams, report: &mut Report<'_>) -> Result<(), Failure> {
    let id = &chain.id;
    match block_on(lock_of(&*seams.disk, &chain.record))? {
        Ok(None) => Ok(()),
        Ok(Some(why)) => report.line(Finding::Unsafe, format!("chain {id}: the key is locked: {why}")),
        Err(error) => {
            let path = lock_path(&chain.record);
            report.line(Finding::Unsafe, format!("chain {id}: `{}` cannot be read: {error}", path.display()))
        }
    }
}

/// What there is to sign with.
struct Seen {
    /// The key, or what it waits for.
    key: Result<PublicKey, BackendError>,
    watermark: Watermark,
    /// Who signs with it now.
    user: Option<Holder>,
}

/// Looks at a chain's record and key, and takes neither: a signer may start meanwhile. Others with the same key are looked at as well: what is
/// found there stops this one.
async fn look(chain: &ChainConfig, chains: &[ChainConfig], seams: &Seams) -> Result<Seen, StartError> {
    let (env, mut devices) = (unlock_env(), Devices::new(Rc::clone(&seams.disk)).that_only_look());
    let loaded = chain.key.softsign().map(|source| unlock::load(source, &env)).transpose()?;
    let (header, watermark) = Record::peek(&*seams.disk, &chain.record).await?;
    let open = match &loaded {
        Some(Loaded::Open(key)) => Some(key.public_key().as_bytes()),
        _ => None,
    };
    header.is_of(&chain.record, &chain.id, open)?;
    let user = Record::user(&*seams.disk, &header).await;
    let public_key = PublicKey::from_bytes(header.public_key);
    devices.admit(public_key, &chain.record).await;
    let KeyConfig::OnDevices(keys) = &chain.key else {
        let sealed =
            || BackendError::Failed("the key is sealed: `monosign unlock` is needed after each start".into());
        let key = match devices.locks().check(public_key) {
            Ok(()) => open.map(|_| public_key).ok_or_else(sealed),
            Err(locked) => Err(locked),
        };
        return Ok(Seen { key, watermark, user });
    };
    // Each device, where one alone would do to sign.
    let mut on_devices = Vec::new();
    for key in keys {
        on_devices.push(devices.key(key, public_key, &env)?);
    }
    for other in chains.iter().filter(|other| other.id != chain.id) {
        let peeked = Record::peek(&*seams.disk, &other.record).await;
        if peeked.is_ok_and(|(header, _)| header.public_key == *public_key.as_bytes()) {
            devices.admit(public_key, &other.record).await;
            for key in other.key.on_devices() {
                on_devices.push(devices.key(key, public_key, &env)?);
            }
        }
    }
    let mut waits_for = Vec::new();
    for key in on_devices {
        if timeout(DIAL, key.until_ready()).await.is_err() {
            // Two chains may have the same key on one device.
            let waits = key.ready().err().map(|error| error.to_string());
            waits_for.extend(waits.filter(|waits| !waits_for.contains(waits)));
        }
    }
    // What any of them has found is about the key.
    let key = match devices.locks().check(public_key) {
        Err(locked @ BackendError::Locked(_)) => Err(locked),
        _ if waits_for.is_empty() => Ok(public_key),
        _ => Err(BackendError::Failed(waits_for.join("; "))),
    };
    Ok(Seen { key, watermark, user })
}

fn finding_of(error: &StartError) -> Finding {
    if error.is_for_safety() { Finding::Unsafe } else { Finding::Bad }
}

/// The median time of a write in place and its flush, as each signature makes one.
fn sync_time(dir: &Path) -> std::io::Result<Duration> {
    let file = tempfile_in(dir)?;
    let page = vec![1; crate::record::PAGE];
    file.write_all_at(&page, 0)?;
    file.sync_all()?;
    let mut times = Vec::new();
    for _ in 0..WRITES {
        let start = Instant::now();
        file.write_all_at(&page, 0)?;
        file.sync_data()?;
        times.push(start.elapsed());
    }
    times.sort();
    Ok(times[times.len() / 2])
}

/// A nameless file, gone when it is closed.
fn tempfile_in(dir: &Path) -> std::io::Result<std::fs::File> {
    use rustix::fs::{Mode, OFlags, open};
    let fd = open(dir, OFlags::TMPFILE | OFlags::RDWR, Mode::RUSR | Mode::WUSR)?;
    Ok(fd.into())
}

fn disk_finding(median: Duration) -> Finding {
    if median > Duration::from_millis(5) { Finding::Warning } else { Finding::Good }
}

fn disk_verdict(dir: &Path, median: Duration) -> String {
    let what = match median.as_micros() {
        0..100 => "a disk with a protected cache, or one that does not really write (tmpfs, a virtual disk)",
        100..2000 => "good",
        2000..=5000 => "usable",
        _ => "slow: not recommended for a validator",
    };
    format!("disk under {}: {} µs for a durable write: {what}", dir.display(), median.as_micros())
}

fn check_validator(
    validator: &ValidatorConfig,
    offline: bool,
    report: &mut Report<'_>,
) -> Result<(), Failure> {
    let addr = &validator.addr;
    let settings = match link_settings(validator) {
        Ok(settings) => settings,
        Err(error) => return report.line(finding_of(&error), format!("validator {addr}: {error}")),
    };
    if offline {
        return report.line(Finding::Good, format!("validator {addr}: not dialed"));
    }
    let dialed = block_on(async { timeout(DIAL, handshake(&settings)).await })?;
    let (finding, text) = match dialed {
        Ok(Ok(peer)) => (Finding::Good, format!("reached, peer id {peer}")),
        Ok(Err(error)) => (
            Finding::Warning,
            format!("{error}\nhint: is the node running, with priv_validator_laddr set to this address?"),
        ),
        Err(_) => (
            Finding::Warning,
            "accepts connections, but does not answer: another signer seems to be connected, perhaps this one".into(),
        ),
    };
    report.line(finding, format!("validator {addr}: {text}"))
}

async fn handshake(settings: &crate::link::LinkSettings) -> Result<String, String> {
    let seams = Seams::production();
    let mut stream = seams.net.dial(&settings.endpoint).await.map_err(|e| e.to_string())?;
    if matches!(settings.protection, Protection::Plain) {
        return Ok("local".into());
    }
    let mut session = session_for(&settings.protection, &*seams.entropy);
    let mut chunk = vec![0; 4096];
    loop {
        if let Some(Event::Established(peer)) = session.poll_event().map_err(|e| e.to_string())? {
            return Ok(peer.to_string());
        }
        stream.write_all(session.outbox()).await.map_err(|e| e.to_string())?;
        session.sent();
        let n = stream.read(&mut chunk).await.map_err(|e| e.to_string())?;
        if n == 0 {
            return Err("closed in the handshake".into());
        }
        session.handle_bytes(&chunk[..n]).map_err(|e| e.to_string())?;
    }
}
