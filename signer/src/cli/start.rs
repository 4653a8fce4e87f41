//! `monosign start`.

use std::io::IsTerminal as _;
use std::time::Duration;

use clap::{Args, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_local;
use tokio::time::interval;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::format::debug_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::admin_socket::AdminSocket;
use super::leave::{self, Leave};
use super::{
    ConfigArgs, Failure, advice, block_on, custody, status_socket, threshold, unlock, unlock_env, version,
};
use crate::config::{ChainConfig, Config};
use crate::ops::access::{self, Changeable, Trust};
use crate::ops::log_limit::LogLimit;
use crate::ops::log_sink::LogSink;
use crate::ops::process;
use crate::ops::told::{one_line, told};
use crate::seams::Seams;
use crate::start::Signer;

/// Arguments of `monosign start`.
#[derive(Debug, Args)]
pub(super) struct StartArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    log: LogArgs,
}

#[derive(Debug, Args)]
struct LogArgs {
    /// How log lines are written, to standard output.
    #[arg(long, value_enum, default_value = "text")]
    log_format: LogFormat,
    /// What is logged: error, warn, info, debug or trace.
    #[arg(long, default_value = "info", value_name = "LEVEL")]
    log_level: LevelFilter,
    /// The same as `--log-level debug`.
    #[arg(short, long)]
    verbose: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// One JSON object in each line.
    Json,
}

pub(super) fn run(args: &StartArgs) -> Result<(), Failure> {
    let (hardened, locked) = (process::harden(), process::lock_memory());
    let config = args.config.load()?;
    let (sink, limit) = start_log(&args.log)?;
    let (version, commit, file) = (version::RELEASE, version::COMMIT, config.path.display());
    tracing::info!(version, commit, config = %file, "monosign {version} ({commit}) starts with {file}");
    if let Err(error) = hardened {
        tracing::warn!("core dumps could not be switched off: {error}");
    }
    if let Err(error) = locked {
        tracing::warn!("{error}");
    }
    let running = async {
        spawn_local(limit.clone().report());
        serve(&config).await
    };
    let result = block_on(running).and_then(|result| result).map_err(logged);
    limit.report_all();
    sink.flush(Duration::from_secs(1));
    result
}

/// Told once, where the rest is told: standard error often ends in the same journal as the log.
fn logged(failure: Failure) -> Failure {
    if let Some(message) = &failure.message {
        let (what, hint) = told(message);
        tracing::error!(hint, "{what}");
    }
    Failure { message: None, ..failure }
}

/// Serves until SIGTERM or SIGINT.
async fn serve(config: &Config) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut signer = start(config).await?;
    let mut sockets = Sockets::default();
    sockets.open(config, &mut signer);
    if signer.is_over() {
        return Err(Failure::new("nothing can be served: see the log above"));
    }
    let mut look = interval(leave::LOOK);
    loop {
        tokio::select! {
            biased;
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => reload(&mut signer, config, &mut sockets).await,
            _ = look.tick() => config.chains.iter().for_each(end_leave),
            () = signer.wait() => return Err(Failure::new("nothing is left to serve: see the log above")),
        }
    }
    tracing::info!("stopping");
    drop(sockets);
    signer.stop().await;
    tracing::info!("stopped");
    Ok(())
}

/// Leave to jump that has ended goes.
fn end_leave(chain: &ChainConfig) {
    match Leave::end(chain) {
        None => {}
        Some(Ok(ended)) => tracing::info!(chain_id = %chain.id, "{ended}"),
        Some(Err(error)) => {
            tracing::warn!(chain_id = %chain.id, "leave of chain {} to jump has ended, and stays on the disk: {error}", chain.id);
        }
    }
}

/// What the operator should know of a chain that is about to be served.
fn warn_of(chain: &ChainConfig) {
    if let Some(leave) = Leave::of(chain) {
        tracing::warn!(chain_id = %chain.id, "chain {}: {}", chain.id, leave.told());
    }
    if let Some(text) = advice::plaintext(chain) {
        tracing::warn!(chain_id = %chain.id, "chain {}: {text}", chain.id);
    }
}

/// Starts what can be started: a chain that cannot does not take the others with it. If none can, that is the failure.
async fn start(config: &Config) -> Result<Signer, Failure> {
    for warning in &config.warnings {
        let (what, hint) = told(warning);
        tracing::warn!(hint, "{}: {what}", config.path.display());
    }
    // A cosigner may have no validator of its own.
    let serves_cosigners = config.chains.iter().any(|chain| chain.key.threshold().is_some());
    if config.validators.is_empty() && !serves_cosigners {
        return Err(Failure::new(format!("`{}` has no [[validator]] to sign for", config.path.display())));
    }
    refuse(&custody::of_config(config, Trust::Nobody))?;
    let env = unlock_env();
    let mut signer = Signer::new(Seams::production());
    let mut failures = Vec::new();
    for chain in &config.chains {
        if let Some(text) = access::told(&custody::of_chain(chain, Trust::Nobody)) {
            let (what, hint) = told(&text);
            tracing::error!(chain_id = %chain.id, hint, "chain {} is not served: {what}", chain.id);
            signer.standing().not_served(&chain.id, &chain.record, &text);
            failures.push(Failure { message: None, ..Failure::for_safety("") });
            continue;
        }
        end_leave(chain);
        warn_of(chain);
        let started = match advice::something_above(chain) {
            Some(failure) => Err(failure),
            None => signer.start_chain(chain, &env).await.map_err(|e| advice::of_start(chain, e)),
        };
        if let Err(failure) = started {
            let (what, hint) = told(failure.text());
            tracing::error!(chain_id = %chain.id, hint, "chain {} is not served: {what}", chain.id);
            signer.standing().not_served(&chain.id, &chain.record, failure.text());
            failures.push(Failure { message: None, ..failure });
        }
    }
    if !signer.serves() {
        return Err(gravest(failures, "the configuration has no [[chain]]"));
    }
    for validator in &config.validators {
        if let Some(text) = access::told(&custody::of_validator(validator, Trust::Nobody)) {
            let (chain_id, peer) = (&validator.chain_id, &validator.addr);
            let (what, hint) = told(&text);
            tracing::error!(%chain_id, %peer, hint, "validator {peer} is not served: {what}");
            failures.push(Failure { message: None, ..Failure::for_safety("") });
            continue;
        }
        if let Err(error) = signer.start_link(validator) {
            let (chain_id, peer) = (&validator.chain_id, &validator.addr);
            let (what, hint) = told(&error.to_string());
            tracing::error!(%chain_id, %peer, hint, "validator {peer} is not served: {what}");
            failures.push(Failure { message: None, ..error.into() });
        }
    }
    // A cosigner without a validator of its own serves the others.
    if !signer.has_links() && signer.cosigners().is_empty() {
        return Err(gravest(failures, "no validator is served"));
    }
    Ok(signer)
}

fn gravest(failures: Vec<Failure>, otherwise: &str) -> Failure {
    failures.into_iter().max_by_key(|failure| failure.code).unwrap_or_else(|| Failure::new(otherwise))
}

/// What others can change is not gone by.
fn refuse(found: &[Changeable]) -> Result<(), Failure> {
    access::told(found).map_or(Ok(()), |told| Err(Failure::for_safety(told)))
}

/// The sockets on which commands ask this process. Chains are signed for with or without them; but nobody can unlock a sealed key without.
#[derive(Default)]
struct Sockets {
    status: Option<AdminSocket>,
    unlock: Option<AdminSocket>,
    cosigners: Option<AdminSocket>,
}

impl Sockets {
    /// Makes those that are wanted and not there.
    fn open(&mut self, config: &Config, signer: &mut Signer) {
        let (sealed, cosigners) = (signer.sealed(), signer.cosigners());
        let mut is_told = false;
        if self.cosigners.is_none() && !cosigners.is_empty() {
            match threshold::listen(&config.admin_socket, cosigners) {
                Ok(socket) => self.cosigners = Some(socket),
                Err(error) => {
                    let what = "`monosign threshold status` and `drill` are not answered";
                    let hint = way_on(config, false);
                    tracing::error!(%hint, "{what}: {error}");
                    is_told = true;
                }
            }
        }
        if self.unlock.is_none() && !sealed.is_empty() {
            let chains: Vec<_> = sealed.iter().map(|(id, _)| id.to_string()).collect();
            let made = unlock::listen(config, sealed);
            signer.set_unlockable(made.is_ok());
            match made {
                Ok(socket) => self.unlock = Some(socket),
                Err(error) => {
                    let what = format!("the keys of {} stay sealed", chains.join(", "));
                    let hint = way_on(config, signer.is_over());
                    tracing::error!(%hint, "{what}: {error}");
                    is_told = true;
                }
            }
        }
        if self.status.is_none() {
            match status_socket::listen(config, signer.standing()) {
                Ok(socket) => self.status = Some(socket),
                // The same keeps both away, and is put right in the same way.
                Err(_) if is_told => {}
                Err(error) => {
                    let what = "`monosign check` cannot ask this process how it stands";
                    let hint = way_on(config, false);
                    tracing::warn!(%hint, "{what}: {error}");
                }
            }
        }
    }
}

/// What to do about a socket; `ends` if nothing can be served without it.
fn way_on(config: &Config, ends: bool) -> String {
    let file = config.path.display();
    let then =
        if ends { "start the signer anew".into() } else { format!("`kill -HUP {}`", std::process::id()) };
    format!(
        "in `{file}`, above the tables, set `admin_socket` to a path that no other signer has, in a directory that this user can write; \
         then {then}"
    )
}

async fn reload(signer: &mut Signer, old: &Config, sockets: &mut Sockets) {
    let read = Config::load(&old.path).map_err(Failure::from);
    let read = read.and_then(|config| {
        refuse(&custody::of_all(&config, Trust::Nobody))?;
        Ok(config)
    });
    match read {
        Err(error) => {
            let (what, hint) = told(error.text());
            tracing::error!(hint, "SIGHUP: everything stays as it is: {what}");
        }
        Ok(config) => {
            tracing::info!("SIGHUP: reading {} again", config.path.display());
            let changed = signer.reload(&config).await;
            if changed.is_empty() {
                tracing::info!("SIGHUP: nothing has changed");
            }
            for line in config.warnings.iter().cloned().chain(changed) {
                let (what, hint) = told(&line);
                tracing::warn!(hint, "SIGHUP: {what}");
            }
            sockets.open(&config, signer);
        }
    }
}

fn start_log(args: &LogArgs) -> Result<(LogSink, LogLimit), Failure> {
    let limit = LogLimit::default();
    let sink = LogSink::new(std::io::stdout())?;
    let level = if args.verbose { LevelFilter::DEBUG } else { args.log_level };
    let builder = tracing_subscriber::fmt().with_max_level(level).with_writer(sink.clone());
    match args.log_format {
        // For people: the line says it all, and the other fields are for machines.
        LogFormat::Text => builder
            .with_target(false)
            .with_ansi(std::io::stdout().is_terminal())
            .fmt_fields(debug_fn(|out, field, value| match field.name() {
                // A second line would be an event without time or level.
                "message" => write!(out, "{}", one_line(&format!("{value:?}"))),
                "chain_id" => write!(out, " chain_id={value:?}"),
                "peer" => write!(out, " peer={value:?}"),
                "hint" => write!(out, " hint: {value:?}"),
                _ => Ok(()),
            }))
            .finish()
            .with(limit.clone())
            .init(),
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_target(false);
            builder.finish().with(limit.clone()).init();
        }
    }
    Ok((sink, limit))
}
