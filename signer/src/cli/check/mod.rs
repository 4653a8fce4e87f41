//! `monosign check`: whether the signer will sign, and if not, why and what to do.
//!
//! It looks at all that a start would look at, in the same order, and takes and writes nothing. A signer that
//! runs is asked what it knows, which a look from outside does not show. What would keep a start from signing
//! counts also while the running signer still signs: it is what the next start will meet.

mod cosigner;
mod device;
mod report;
mod validators;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::time::Duration;

use clap::Args;
use monosign_protocol::ChainId;
use serde_json::json;
use tokio::time::Instant;

use super::leave::Leave;
use super::status_socket::{self, Answer};
use super::{ConfigArgs, Failure, admin_socket, advice, block_on, custody, unlock_env};
use crate::backend::locks::{lock_of, lock_path};
use crate::backend::softsign::unlock::{self, Loaded};
use crate::config::{ChainConfig, Config, KeyConfig};
use crate::guard::Watermark;
use crate::ops::access::{self, Changeable, Trust, shell};
use crate::pubkey::PublicKey;
use crate::record::{Header, Record, RecordError};
use crate::seams::{Holder, Seams};
use crate::start::{ChainStands, ChainState, StartError};
use report::{Finding, Level, Report, Seen};

/// Arguments of `monosign check`.
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Do not dial the validators, nor other cosigners.
    #[arg(long)]
    offline: bool,
    /// Print the verdict and what it comes from as JSON.
    #[arg(long)]
    json: bool,
}

/// How long a validator, a cosigner or a device may take to answer.
const DIAL: Duration = Duration::from_secs(3);
/// How many writes the disk is timed by, and for how long at the most.
const WRITES: u32 = 100;
const TIMED: Duration = Duration::from_secs(2);

pub(super) fn run(args: &CheckArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let mut report = Report::new(out, args.json, args.offline);
    let config = match args.config.load() {
        Ok(config) => config,
        // Wrong usage: no configuration is named.
        Err(failure) if failure.code == 2 => return Err(failure),
        Err(failure) => {
            let level = if failure.code == 3 { Level::Unsafe } else { Level::Bad };
            let finding = Finding::at(level, "configuration", failure.text());
            report.add(finding.next("correct the file, then look again"))?;
            return report.finish();
        }
    };
    let running = of_config(&config, &mut report)?;
    let mut told = Told::default();
    let trust = whom_to_trust(&config, &mut report)?;
    told.tell("configuration", None, custody::of_config(&config, trust), &mut report)?;
    if config.chains.is_empty() {
        report.add(
            Finding::at(Level::Bad, "configuration", "it has no [[chain]]")
                .next("`monosign init NEWDIR` makes one that has"),
        )?;
    }
    let mut watermarks = BTreeMap::new();
    let mut examined = BTreeMap::new();
    for chain in &config.chains {
        let place = format!("chain {}", chain.id);
        told.tell(&place, Some(&chain.id), custody::of_chain(chain, trust), &mut report)?;
        let found = Look { chain, config: &config, running: &running, offline: args.offline };
        let looked = found.look(&mut examined)?;
        for finding in looked.findings {
            report.add(finding)?;
        }
        report.add(of_disk(chain))?;
        watermarks.extend(looked.watermark.clone().map(|watermark| (chain.id.clone(), watermark)));
        let signer = running.chain(chain).map(|stands| json!({ "state": stands.state, "why": stands.why }));
        let Looked { public_key, watermark, .. } = looked;
        report.chains.push(Seen { id: chain.id.clone(), public_key, watermark, signer });
    }
    of_validators(&config, trust, &mut told, &watermarks, &running, args.offline, &mut report)?;
    report.finish()
}

/// What was found about a chain.
#[derive(Default)]
struct Looked {
    findings: Vec<Finding>,
    public_key: Option<PublicKey>,
    watermark: Option<Watermark>,
    /// Who signs with it now.
    user: Option<Holder>,
}

/// The signer that runs with this configuration, as far as it answers.
struct Running {
    /// It runs with this configuration.
    ours: Option<Answer>,
    /// It listens where ours would, and runs with another one.
    other: Option<Answer>,
}

impl Running {
    fn chain(&self, chain: &ChainConfig) -> Option<&ChainStands> {
        self.ours.as_ref()?.chains.iter().find(|stands| stands.id == chain.id.as_str())
    }
}

/// The configuration itself, and who runs with it.
fn of_config(config: &Config, report: &mut Report<'_>) -> Result<Running, Failure> {
    let file = config.path.display().to_string();
    report.add(Finding::at(Level::Good, "configuration", format!("{file} can be used")))?;
    for warning in &config.warnings {
        let finding = Finding::at(Level::Warning, "configuration", warning);
        report.add(finding.next(format!("change it in {}", shell(&config.path))))?;
    }
    let mut running = Running { ours: None, other: None };
    match status_socket::ask(config) {
        Ok(None) => {}
        Ok(Some(answer)) => {
            let is_ours = config.path.canonicalize().is_ok_and(|path| path == answer.config);
            let (process, theirs) = (answer.process, answer.config.display());
            if is_ours {
                report.signer = Some(json!({ "process": process, "configuration": answer.config }));
                let text = format!("process {process} runs with this configuration");
                report.add(Finding::at(Level::Good, "signer", text))?;
                running.ours = Some(answer);
            } else {
                let text = format!("process {process} listens where this one would, and runs with {theirs}");
                report.add(Finding::at(Level::Warning, "admin socket", text).next(own_socket(config)))?;
                running.other = Some(answer);
            }
        }
        Err(why) => {
            let text =
                format!("a signer may run with this configuration, and cannot be asked how it stands: {why}");
            let next = "its log says more; what follows is what a look from outside shows";
            report.add(Finding::at(Level::Warning, "signer", text).next(next))?;
        }
    }
    Ok(running)
}

fn own_socket(config: &Config) -> String {
    format!(
        "in {}, above the tables, set `admin_socket` to a path that no other signer has, in a \
         directory that the signer's user can write",
        shell(&config.path)
    )
}

/// Root looks after the signer of another user: the one that the records are of.
fn whom_to_trust(config: &Config, report: &mut Report<'_>) -> Result<Trust, Failure> {
    let owner = |chain: &ChainConfig| std::fs::metadata(&chain.record).ok().map(|found| found.uid());
    let owners: BTreeSet<_> = config.chains.iter().filter_map(owner).collect();
    match (rustix::process::geteuid().is_root(), owners.first()) {
        (true, Some(user)) if owners.len() == 1 && *user != 0 => {
            let text =
                format!("the records are of user {user}: the signer has to run as that user, not as root");
            let next = format!("`User={user}` in its unit");
            report.add(Finding::at(Level::Warning, "records", text).next(next))?;
            Ok(Trust::User(*user))
        }
        _ => Ok(Trust::Nobody),
    }
}

/// What others can change, each told once.
#[derive(Default)]
struct Told(Vec<Changeable>);

impl Told {
    fn news(&mut self, found: Vec<Changeable>) -> Vec<Changeable> {
        let news: Vec<_> = found.into_iter().filter(|one| !self.0.contains(one)).collect();
        self.0.extend(news.iter().cloned());
        news
    }

    fn tell(
        &mut self,
        place: &str,
        chain: Option<&ChainId>,
        found: Vec<Changeable>,
        report: &mut Report<'_>,
    ) -> Result<(), Failure> {
        let Some(text) = access::told(&self.news(found)) else { return Ok(()) };
        let finding = Finding::at(Level::Unsafe, place, text);
        report.add(match chain {
            Some(chain) => finding.about(chain),
            None => finding,
        })
    }
}

/// One chain, and what is known beside it.
struct Look<'a> {
    chain: &'a ChainConfig,
    config: &'a Config,
    running: &'a Running,
    offline: bool,
}

impl Look<'_> {
    fn look(
        &self,
        examined: &mut BTreeMap<String, super::yubihsm::options::Examined>,
    ) -> Result<Looked, Failure> {
        let Self { chain, .. } = self;
        let id = &chain.id;
        let stands = self.running.chain(chain);
        let mut looked = match &chain.key {
            KeyConfig::Threshold(share) => {
                let (mut looked, opened) = cosigner::look(chain, share)?;
                looked.findings.extend(of_lock(chain, &Seams::production())?);
                if let (Some(opened), None) = (opened, stands) {
                    let runs = looked.user.is_some();
                    looked.findings.extend(opened.look_around(chain, share, self.offline, runs)?);
                }
                looked
            }
            KeyConfig::Softsign(_) | KeyConfig::OnDevices(_) => self.look_at_key(examined)?,
        };
        if looked.watermark.is_some()
            && let Err(error) = OpenOptions::new().read(true).write(true).open(&chain.record)
        {
            let error = RecordError::Io { doing: "write", path: chain.record.clone(), source: error };
            looked.findings.push(refused(chain, StartError::from(error)));
        }
        if let Some(leave) = Leave::of(chain) {
            looked.findings.push(Finding::with_command(Level::Warning, id, &leave.told()));
        }
        if let Some(failure) = advice::something_above(chain) {
            looked.findings.push(Finding::of_chain(Level::Unsafe, id, failure.text()));
        }
        if let Some(told) = advice::plaintext(chain) {
            looked.findings.push(Finding::with_command(Level::Warning, id, &told));
        }
        looked.findings.extend(self.of_user(looked.user));
        // What keeps the running signer from signing may be what was found already.
        let is_told = |told: &Finding| looked.findings.iter().any(|found| told.repeats(found));
        let running = self.of_running().filter(|told| !is_told(told));
        looked.findings.extend(running);
        Ok(looked)
    }

    fn look_at_key(
        &self,
        examined: &mut BTreeMap<String, super::yubihsm::options::Examined>,
    ) -> Result<Looked, Failure> {
        let Self { chain, config, .. } = self;
        let id = &chain.id;
        let seams = Seams::production();
        let mut looked = Looked::default();
        let seen = block_on(async {
            let (key, header, watermark) = open(chain, &seams).await?;
            let public_key = PublicKey::from_bytes(header.public_key);
            let user = Record::user(&*seams.disk, &header).await;
            let state = device::look(chain, &config.chains, public_key, &seams).await?;
            Ok::<_, StartError>((key, public_key, watermark, user, state))
        })?;
        let (key, public_key, watermark, user, state) = match seen {
            Ok(seen) => seen,
            Err(error) => {
                looked.findings.push(refused(chain, error));
                looked.findings.extend(of_lock(chain, &seams)?);
                return Ok(looked);
            }
        };
        let signs_now = self.running.chain(chain).is_some_and(|stands| stands.state == ChainState::Ready);
        let findings = device::findings(chain, state, examined, signs_now);
        if findings.iter().all(|finding| finding.level <= Level::Warning) && key == Key::There {
            looked.findings.push(Finding::of_chain(Level::Good, id, format!("key {public_key}")));
        }
        looked.findings.extend(findings);
        if key == Key::Sealed {
            looked.findings.extend(self.of_sealed(signs_now));
        }
        let path = chain.record.display();
        let text = format!("record {path}, last signed h/r/s {watermark}");
        looked.findings.push(Finding::of_chain(Level::Good, id, text));
        Ok(Looked { public_key: Some(public_key), watermark: Some(watermark), user, ..looked })
    }

    /// A key that waits for its passphrase after each start.
    fn of_sealed(&self, signs_now: bool) -> Vec<Finding> {
        let Self { chain, config, running, .. } = self;
        let id = &chain.id;
        let Sealed { start, unlock } = device::sealed(chain);
        if signs_now {
            let text =
                format!("the key is unlocked in the running signer; after each start it takes `{unlock}`");
            return vec![Finding::of_chain(Level::Good, id, text)];
        }
        if running.chain(chain).is_some_and(|stands| stands.state == ChainState::Sealed) {
            // It says so itself.
            return Vec::new();
        }
        let text = "the key is sealed: nothing is signed until it is unlocked, after each start";
        let next = format!("`{start}`, then `{unlock}`");
        let mut findings = vec![Finding::of_chain(Level::Bad, id, text).next(next)];
        let other = running.other.as_ref().map(|other| format!("process {} listens there", other.process));
        let obstacle = || admin_socket::obstacle(&config.admin_socket);
        if running.ours.is_none()
            && let Some(why) = other.or_else(obstacle)
        {
            let text = format!("nobody could unlock its key, since no admin socket can be made: {why}");
            findings.push(Finding::of_chain(Level::Bad, id, text).next(own_socket(config)));
        }
        findings
    }

    /// Another process that has the chain and key keeps a start away. One that runs with this configuration is
    /// asked.
    fn of_user(&self, user: Option<Holder>) -> Option<Finding> {
        let Self { chain, running, .. } = self;
        let (id, user) = (&chain.id, user?);
        let is = |answer: &Answer| user.process == Some(answer.process);
        if running.ours.as_ref().is_some_and(is) {
            return None;
        }
        let runs_with = running.other.as_ref().filter(|other| is(other));
        let has_record = match (runs_with, user.process) {
            (Some(_), _) => Some(false),
            (None, Some(process)) => has_open(process, &chain.record),
            (None, None) => None,
        };
        Some(match has_record {
            Some(false) => {
                let with = runs_with.map(|other| format!(" and runs with {}", other.config.display()));
                let text =
                    format!("{user} signs with this key{}: a start is refused", with.unwrap_or_default());
                let next = "stop that process first: on one host, one process at a time uses the records of a chain and key";
                Finding::of_chain(Level::Unsafe, id, text).next(next)
            }
            Some(true) => {
                let text = format!("a signer runs with this key: {user}, and it does not say how it stands");
                Finding::of_chain(Level::Warning, id, text).next("its log says more")
            }
            None => {
                let text = format!("a signer runs with this key: {user}; which one, this user cannot see");
                Finding::of_chain(Level::Warning, id, text)
                    .next("run `monosign check` as the user of that process")
            }
        })
    }

    /// What the running signer knows.
    fn of_running(&self) -> Option<Finding> {
        let Self { chain, running, .. } = self;
        let id = &chain.id;
        let answer = running.ours.as_ref()?;
        let process = answer.process;
        let told = |level, text: String, next: &str| Some(Finding::of_chain(level, id, text).next(next));
        let restart = "start the signer anew: its log says more";
        let Some(stands) = running.chain(chain) else {
            return told(
                Level::Bad,
                format!("the running signer (process {process}) does not have it"),
                restart,
            );
        };
        let why = stands.why.as_deref().unwrap_or("its log says more");
        let Sealed { unlock, .. } = device::sealed(chain);
        match stands.state {
            ChainState::Ready => {
                let more = stands.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
                let text = format!("the running signer (process {process}) signs for it{more}");
                Some(Finding::of_chain(Level::Good, id, text))
            }
            ChainState::Sealed => {
                told(Level::Bad, "the running signer waits for its passphrase".into(), &format!("`{unlock}`"))
            }
            ChainState::Locked => {
                let next = format!("find out why, then `{}`", advice::command(chain, "yubihsm unlock"));
                told(Level::Unsafe, format!("the running signer signs nothing with its key: {why}"), &next)
            }
            ChainState::NoDevice => {
                told(Level::Bad, format!("the running signer does not sign: {why}"), restart)
            }
            ChainState::Joining | ChainState::NoQuorum => {
                let status = device::command(chain, "threshold status");
                let next = format!("`{status}` names them: start those that are missing");
                told(Level::Bad, format!("the running signer does not sign: {why}"), &next)
            }
            ChainState::Stopped | ChainState::NotServed => {
                told(Level::Bad, format!("the running signer has given it up: {why}"), restart)
            }
            _ => told(
                Level::Warning,
                format!("the running signer does not tell how it stands: {why}"),
                "look again",
            ),
        }
    }
}

/// What to type for a sealed key.
struct Sealed {
    start: String,
    unlock: String,
}

/// Whether a key file is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    /// Or on a device.
    There,
    Sealed,
}

/// Looks at a chain's key file and record, and takes neither: a signer may start meanwhile.
async fn open(chain: &ChainConfig, seams: &Seams) -> Result<(Key, Header, Watermark), StartError> {
    let env = unlock_env();
    let loaded = chain.key.softsign().map(|source| unlock::load(source, &env)).transpose()?;
    let (header, watermark) = Record::peek(&*seams.disk, &chain.record).await?;
    let open = match &loaded {
        Some(Loaded::Open(key)) => Some(key.public_key().as_bytes()),
        _ => None,
    };
    header.is_of(&chain.record, &chain.id, open)?;
    let key = if matches!(loaded, Some(Loaded::Sealed(_))) { Key::Sealed } else { Key::There };
    Ok((key, header, watermark))
}

/// The start would be refused.
fn refused(chain: &ChainConfig, error: StartError) -> Finding {
    let (level, failure) = (level_of(&error), advice::of_start(chain, error));
    let finding = Finding::of_chain(level, &chain.id, failure.text());
    finding.next(format!("put that right, then `{}` again", advice::command(chain, "check")))
}

fn level_of(error: &StartError) -> Level {
    if error.is_for_safety() { Level::Unsafe } else { Level::Bad }
}

/// Whether the key is locked, of a chain that was not opened.
fn of_lock(chain: &ChainConfig, seams: &Seams) -> Result<Option<Finding>, Failure> {
    let text = match block_on(lock_of(&*seams.disk, &chain.record))? {
        Ok(None) => return Ok(None),
        Ok(Some(why)) => format!("the key is locked: {why}"),
        Err(error) => format!("`{}` cannot be read: {error}", lock_path(&chain.record).display()),
    };
    Ok(Some(Finding::of_chain(Level::Unsafe, &chain.id, text).next(unlock_way(chain))))
}

/// What to do about a locked key.
fn unlock_way(chain: &ChainConfig) -> String {
    let unlock = advice::command(chain, "yubihsm unlock");
    format!("find out who has signed, stop that for good, then `{unlock}`")
}

/// Whether a process has this very file open. `None` if that cannot be seen.
fn has_open(process: u32, file: &Path) -> Option<bool> {
    let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    let ours = std::fs::metadata(file).ok().map(identity)?;
    let mut found = std::fs::read_dir(format!("/proc/{process}/fd")).ok()?.filter_map(Result::ok);
    Some(found.any(|open| std::fs::metadata(open.path()).is_ok_and(|open| identity(open) == ours)))
}

/// What keeps the disk from taking what a start or a signature writes.
fn of_disk(chain: &ChainConfig) -> Finding {
    let dir = chain.record.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let place = format!("disk under {}", dir.display());
    let error = match sync_time(dir) {
        Ok(median) => {
            let (level, what) = (disk_level(median), disk_verdict(median));
            if level == Level::Good {
                return Finding::at(level, place, what).about(&chain.id);
            }
            let next = "put `state_file` on a local disk with a cache that outlives a power cut";
            return Finding::at(level, place, format!("{what}: {next}")).about(&chain.id).next(next);
        }
        Err(error) => error,
    };
    let is_full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let is_sole = chain.key.threshold().is_none();
    // The record is made, and no other file has to be.
    let (level, what) = match is_sole && chain.record.exists() {
        true if is_full => {
            let text = format!(
                "{error}: the record has its place and is signed on, but a request that leaves heights out is \
                 refused"
            );
            (Level::Warning, text)
        }
        true if access::is_denied(&error) => (Level::Good, format!("not measured: {error}")),
        true => (Level::Warning, format!("not measured: {error}")),
        false => (Level::Bad, format!("nothing can be written there: {error}")),
    };
    let finding = Finding::at(level, place, what).about(&chain.id);
    match (level, is_full) {
        (Level::Good, _) => finding,
        (_, true) => finding.next("make room on its file system"),
        _ => finding.next(format!("the user of the signer has to write there: `ls -ld {}`", shell(dir))),
    }
}

/// The nodes, and whether each chain has one that would be served.
fn of_validators(
    config: &Config,
    trust: Trust,
    told: &mut Told,
    watermarks: &BTreeMap<ChainId, Watermark>,
    running: &Running,
    offline: bool,
    report: &mut Report<'_>,
) -> Result<(), Failure> {
    let nodes: Vec<_> = config
        .validators
        .iter()
        .map(|validator| validators::Node {
            config: validator,
            changeable: told.news(custody::of_validator(validator, trust)),
            watermark: watermarks.get(&validator.chain_id),
        })
        .collect();
    let findings = validators::look(&nodes, running.ours.as_ref(), offline)?;
    let is_cosigner = |id: &ChainId| config.chain(id).is_some_and(|chain| chain.key.threshold().is_some());
    let is_served = |id: &ChainId| {
        let of_chain = |finding: &&Finding| finding.chain.as_ref() == Some(id);
        findings.iter().filter(of_chain).any(|finding| finding.level <= Level::Warning)
    };
    let served: BTreeMap<_, _> =
        config.chains.iter().map(|chain| (chain.id.clone(), is_served(&chain.id))).collect();
    for finding in findings {
        let id = finding.chain.clone();
        let is_served = id.as_ref().and_then(|id| served.get(id)).copied().unwrap_or(false);
        report.add(match id {
            Some(_) if is_served => {
                finding.at_most(Level::Warning, "other validators of the chain are served")
            }
            Some(id) if is_cosigner(&id) => finding.at_most(Level::Warning, "other cosigners are served"),
            _ => finding,
        })?;
    }
    for chain in config.chains.iter().filter(|chain| !is_cosigner(&chain.id)) {
        if !config.validators.iter().any(|validator| validator.chain_id == chain.id) {
            let finding = Finding::of_chain(Level::Bad, &chain.id, "no [[validator]] to sign for");
            report.add(finding.next("add a [[validator]] with its `chain_id`, `addr` and `secret_key`"))?;
        }
    }
    Ok(())
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
        if times.iter().sum::<Duration>() > TIMED {
            break;
        }
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

fn disk_level(median: Duration) -> Level {
    if median > Duration::from_millis(5) { Level::Warning } else { Level::Good }
}

fn disk_verdict(median: Duration) -> String {
    let what = match median.as_micros() {
        0..100 => "a disk with a protected cache, or one that does not really write (tmpfs, a virtual disk)",
        100..2000 => "good",
        2000..=5000 => "usable",
        _ => "slow: not recommended for a validator",
    };
    format!("{} µs for a durable write: {what}", median.as_micros())
}
