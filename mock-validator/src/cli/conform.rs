//! `mock-validator conform`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use ed25519_dalek::{SigningKey, VerifyingKey};
use mock_validator::conform::{
    self, Case, Door, Finding, Level, Limits, Options, Outcome, Process, ShellCommand, SocketDoor, Summary,
};
use mock_validator::link::{Address, Listener};
use monosign_protocol::{ChainId, Dialect, Height};
use monosign_reports::{Report, Status, Suite};

use super::identity::identity;
use super::key_file;
use super::table;
use super::unread::Unread;
use super::values::{public_key, random, seconds, wall_clock};

/// Arguments of `mock-validator conform`.
#[derive(clap::Args)]
pub(crate) struct Conform {
    /// Where to wait: tcp://IP:PORT, unix:///PATH, unix://@NAME or noise://SIGNER_PEER_ID@IP:PORT. Given twice, for a signer
    /// that serves two validators: what happens when both ask at once is tried, too.
    #[arg(long, value_name = "ADDRESS", required_unless_present = "list")]
    listen: Vec<Address>,
    /// The release that the validators run: v0.34, v0.37, v0.38, v0.39, v0.40, v1.0 or v2.0-rc.
    #[arg(long, value_name = "VERSION", default_value = "v0.38")]
    dialect: Dialect,
    /// The chain, as the signer knows it.
    #[arg(long, value_name = "ID", default_value = "conform-1")]
    chain_id: ChainId,
    /// The first height; it has to be above what the signer has signed on this chain.
    #[arg(long, value_name = "HEIGHT", default_value_t = 1, value_parser = clap::value_parser!(i64).range(1..))]
    height: i64,
    /// The public key that the signer must have, from a priv_validator_key.json.
    #[arg(long, value_name = "FILE", conflicts_with = "pubkey")]
    key: Option<PathBuf>,
    /// The public key that the signer must have, as 64 hexadecimal digits.
    #[arg(long, value_name = "HEX", value_parser = public_key)]
    pubkey: Option<VerifyingKey>,
    /// A shell command that runs the signer in the foreground. The suite starts it, kills it in mid-request, and starts it
    /// again. It finds the addresses that the signer has to dial in $ADDR and $ADDR_2.
    #[arg(long, value_name = "COMMAND")]
    signer_cmd: Option<String>,
    /// Where the output of that command goes.
    #[arg(long, value_name = "FILE", requires = "signer_cmd")]
    signer_log: Option<PathBuf>,
    /// The file of the signer's state, which is removed, truncated and put back between starts.
    #[arg(long, value_name = "FILE", requires = "signer_cmd")]
    state: Option<PathBuf>,
    /// Try these cases alone, or groups: the part before the slash.
    #[arg(long, value_name = "ID", num_args = 1..)]
    only: Vec<String>,
    /// Cases that the signer is known to fail, advisory ones aside, an id on each line, `#` before remarks: the run passes if these fail
    /// and no others do. One with `?` before it may fail or not, as what depends on the machine.
    #[arg(long, value_name = "FILE")]
    known_failures: Option<PathBuf>,
    /// Print the cases with their rules, and do nothing else.
    #[arg(long)]
    list: bool,
    /// Write NAME.json, NAME.junit.xml and NAME.html into this directory.
    #[arg(long, value_name = "DIR")]
    reports: Option<PathBuf>,
    /// What the signer is called in reports, and with which the names of their files begin.
    #[arg(long, value_name = "NAME", default_value = "signer")]
    name: String,
    /// How many signatures to ask for in a row.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    signatures: u32,
    /// How long the signer stays dead before it is started again: for a device that keeps the sessions of dead processes for a while.
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = seconds, requires = "signer_cmd")]
    restart_pause: Duration,
    /// How long to wait for the signer's first dial.
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    wait: Duration,
    /// The file of the validators' identity on encrypted transports, made if there is none: base64 of 32 bytes, or CometBFT's
    /// node_key.json. Without it they have a new one each time, which a signer that dials noise:// learns from $ADDR alone.
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
}

/// Runs it and says how it ended.
pub(crate) fn run(args: Conform) -> ExitCode {
    let done = if args.list { list(&args) } else { args.run() };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn list(args: &Conform) -> anyhow::Result<bool> {
    let mut out = Unread::new(io::stdout().lock());
    for case in conform::cases().iter().filter(|case| case.is_for(args.dialect)) {
        let Case { id, rule, source, level, .. } = case;
        writeln!(out, "{id} ({})\n    {rule}\n    {source}", level.name())?;
    }
    writeln!(out, "\nwhat is at stake:")?;
    for level in Level::ALL {
        writeln!(out, "{}: {}", level.name(), level.reason())?;
    }
    Ok(true)
}

impl Conform {
    /// Whether all that is required has passed.
    fn run(self) -> anyhow::Result<bool> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut out = Unread::new(io::stdout().lock());
            let mut doors: Vec<Box<dyn Door>> = Vec::new();
            let identity = identity(self.identity.as_deref())?;
            let mut addresses = Vec::new();
            for address in &self.listen {
                let listener = Listener::bind(address).await;
                let listener = listener
                    .with_context(|| format!("listening on `{address}`; is another process there?"))?;
                write!(out, "waiting for a {} signer on {}", self.dialect, listener.address())?;
                let dialed = listener.address().as_dialed(&identity);
                match matches!(listener.address(), Address::Noise { .. }) {
                    true => writeln!(out, ", which it dials as {dialed}")?,
                    false => writeln!(out)?,
                }
                addresses.push(dialed);
                doors.push(Box::new(SocketDoor::new(listener)));
            }
            let (name, dialect, reports) = (self.name.clone(), self.dialect, self.reports.clone());
            let known = self.known_failures.as_deref().map(KnownFailures::read).transpose()?;
            let options = self.options(doors, addresses, identity)?;
            let mut told = Ok(());
            let summary = conform::run(options, |finding| {
                if told.is_ok() {
                    told = table::line(&mut out, finding);
                }
            })
            .await?;
            told?;
            table::end(&mut out, &summary)?;
            if let Some(dir) = reports {
                let file = format!("{name}-{dialect}");
                report(&name, dialect, &summary).write(&dir, &file)?;
                writeln!(out, "reports: {}", dir.join(file + ".html").display())?;
            }
            match known {
                Some(known) => Ok(known.are_those_of(&summary, &mut out)?),
                None => Ok(summary.is_conformant()),
            }
        })
    }

    fn options(
        self,
        doors: Vec<Box<dyn Door>>,
        addresses: Vec<String>,
        identity: SigningKey,
    ) -> anyhow::Result<Options> {
        let expected_key = match &self.key {
            Some(path) => Some(key_file::public_key(path)?),
            None => self.pubkey,
        };
        let process = self.signer_cmd.map(|command| {
            let shell = ShellCommand::new(command, self.state, self.signer_log);
            let named = ["ADDR", "ADDR_2"].into_iter().zip(addresses);
            Box::new(named.fold(shell, |shell, (name, addr)| shell.with_variable(name, addr)))
                as Box<dyn Process>
        });
        Ok(Options {
            chain_id: self.chain_id,
            dialect: self.dialect,
            first_height: Height(self.height),
            expected_key,
            doors,
            process,
            only: self.only,
            signatures: self.signatures,
            limits: Limits { wait: self.wait, pause: self.restart_pause, ..Limits::default() },
            start: wall_clock()?,
            seed: random(),
            identity,
            entropy: Box::new(random),
        })
    }
}

/// Cases that must fail, at a level that counts.
struct KnownFailures(BTreeSet<String>);

impl KnownFailures {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))?;
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
        Ok(Self(lines.filter(|id| !id.is_empty()).map(str::to_owned).collect()))
    }

    /// Whether the cases that failed are these; says what is not as it is known.
    fn are_those_of(&self, summary: &Summary, out: &mut dyn io::Write) -> io::Result<bool> {
        let mut as_known = true;
        for finding in &summary.results {
            let (known, fails) = (self.0.contains(finding.id), finding.breaks_conformance());
            let skipped = matches!(finding.outcome, Outcome::Skipped { .. });
            let may_fail = self.0.contains(&format!("?{}", finding.id));
            if known != fails && !skipped && !may_fail {
                as_known = false;
                let what = if fails { "fails, which is not known" } else { "passes, and is known to fail" };
                writeln!(out, "{} {what}", finding.id)?;
            }
        }
        Ok(as_known)
    }
}

/// The results in the form that reports are made of: a suite for each group.
fn report(name: &str, dialect: Dialect, summary: &Summary) -> Report {
    let mut suites: Vec<Suite> = Vec::new();
    for finding in &summary.results {
        let (group, _) = finding.id.split_once('/').unwrap_or((finding.id, ""));
        let place = suites.iter().position(|suite| suite.name == group).unwrap_or_else(|| {
            let (name, about) = (group.to_owned(), String::new());
            suites.push(Suite { name, about, properties: BTreeMap::new(), cases: Vec::new() });
            suites.len() - 1
        });
        suites[place].cases.push(case(finding));
    }
    Report { title: format!("{name}, {dialect}"), commit: String::new(), suites }
}

fn case(finding: &Finding) -> monosign_reports::Case {
    let (status, message) = match &finding.outcome {
        Outcome::Passed => (Status::Passed, None),
        Outcome::Failed { reason } if finding.level == Level::Advisory => {
            (Status::Advisory, Some(reason.clone()))
        }
        Outcome::Failed { reason } => (Status::Failed, Some(reason.clone())),
        Outcome::Skipped { reason } => (Status::Skipped, Some(reason.clone())),
    };
    let mut properties: BTreeMap<String, String> =
        [("rule", finding.rule), ("source", finding.source), ("level", finding.level.name())]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
    if !finding.notes.is_empty() {
        properties.insert("seen".into(), finding.notes.join("; "));
    }
    monosign_reports::Case { name: finding.id.into(), status, duration: finding.took, message, properties }
}
