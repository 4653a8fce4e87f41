//! `monosign threshold identity`, `dkg`, `refresh`, `reshare` and `repair`.

mod report;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::rc::Rc;
use std::str::FromStr;
use std::time::Duration;

use age::x25519;
use clap::Args;
use data_encoding::HEXLOWER_PERMISSIVE;
use monosign_protocol::{ChainId, Height};

use crate::backend::softsign::unlock::{self, parse_identities};
use crate::cli::{ChainArgs, Failure, block_on, group_of, unlock_env};
use crate::config::{Addr, ChainConfig, Endpoint, ThresholdConfig};
use crate::guard::JumpLimit;
use crate::ops::{private_file, process};
use crate::seams::{Seams, StdDisk};
use crate::start::StartError;
use crate::threshold::ceremony::journal::Journal;
use crate::threshold::ceremony::links::{Links, Party};
use crate::threshold::ceremony::plan::{Act, Key, Plan, PlanError};
use crate::threshold::ceremony::{
    CeremonyError, Ended, Files, Own, Workshop, group_to_begin_with, identity_of,
    repair::repair as make_again, succession,
};
use crate::threshold::group::{Group, Shape};
use crate::threshold::open::OpenError;
use crate::threshold::rounds::MemberId;

/// Arguments of `monosign threshold identity`.
#[derive(Debug, Args)]
pub(super) struct IdentityArgs {
    /// The file that `monosign threshold recipient` made on this host.
    file: PathBuf,
}

/// Arguments of `monosign threshold dkg`.
#[derive(Debug, Args)]
pub(super) struct DkgArgs {
    /// The chain to sign for.
    #[arg(long, value_name = "ID")]
    chain: ChainId,
    /// How many cosigners must sign together. Twice as many must be more than there are members.
    #[arg(long, value_name = "T")]
    threshold: u16,
    /// A cosigner: the identity that `monosign threshold identity` printed on its host, and where it is reached for this. One for
    /// each, in the same order on every host.
    #[arg(long = "member", value_name = "KEY@HOST:PORT", required = true)]
    members: Vec<Place>,
    /// The file that `monosign threshold recipient` made on this host.
    #[arg(long, value_name = "FILE")]
    identity: PathBuf,
    /// The directory for the group file and this host's share. Nothing in it is overwritten.
    #[arg(short, long, value_name = "DIR", default_value = "shares")]
    output: PathBuf,
    #[command(flatten)]
    meet: MeetArgs,
}

/// Arguments of `monosign threshold refresh`.
#[derive(Debug, Args)]
pub(super) struct RefreshArgs {
    #[command(flatten)]
    chain: ChainArgs,
    #[command(flatten)]
    ports: PortArgs,
    #[command(flatten)]
    go_on: GoOnArgs,
    #[command(flatten)]
    meet: MeetArgs,
}

/// Arguments of `monosign threshold reshare`.
#[derive(Debug, Args)]
pub(super) struct ReshareArgs {
    #[command(flatten)]
    chain: ChainArgs,
    /// How many cosigners must sign together from now on. Twice as many must be more than there are members.
    #[arg(long, value_name = "T")]
    threshold: u16,
    /// A cosigner from now on, in the order of their new numbers: one that is there by its present number, a new one by the
    /// identity that `monosign threshold identity` printed on its host; and where it is reached for this.
    #[arg(long = "member", value_name = "N|KEY@HOST:PORT", required = true)]
    members: Vec<Place>,
    /// A cosigner that is no member from now on, and takes part in this. At least t of the present ones must.
    #[arg(long, value_name = "N@HOST:PORT")]
    leaving: Vec<Place>,
    #[command(flatten)]
    go_on: GoOnArgs,
    #[command(flatten)]
    meet: MeetArgs,
}

/// Arguments of `monosign threshold repair`.
#[derive(Debug, Args)]
pub(super) struct RepairArgs {
    #[command(flatten)]
    chain: ChainArgs,
    /// Whose share is lost.
    #[arg(long, value_name = "N")]
    cosigner: u16,
    /// The identity that `monosign threshold identity` printed on its new host.
    #[arg(long, value_name = "KEY", value_parser = parse_key)]
    identity: Key,
    /// Who helps: at least t. Without it, all the others.
    #[arg(long = "helper", value_name = "N")]
    helpers: Vec<u16>,
    #[command(flatten)]
    ports: PortArgs,
    #[command(flatten)]
    meet: MeetArgs,
}

#[derive(Debug, Args)]
struct PortArgs {
    /// The hosts meet on the ports of the configuration plus this: the cosigners may run meanwhile.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    port_offset: u16,
}

#[derive(Debug, Args)]
struct GoOnArgs {
    /// Go on without this host, which is lost, in a ceremony that was interrupted after shares were destroyed.
    #[arg(long, value_name = "N|KEY")]
    without: Vec<Who>,
    /// Believe a host that says that it has stood at this height, far above the others.
    #[arg(long, value_name = "H")]
    accept_floor: Option<i64>,
    /// Begin anew, though it is not known whether the last ceremony has ended on every host.
    #[arg(long)]
    anew: bool,
}

#[derive(Debug, Args)]
struct MeetArgs {
    /// Where this host listens meanwhile, if not on the port that it was named with, on all addresses.
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<Addr>,
    /// How long the others are waited for, in seconds.
    #[arg(long, value_name = "S", default_value_t = 900)]
    wait: u64,
}

/// A host: by its number in the group, or by its identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Number(u16),
    Identity(Key),
}

/// A host, and where it is.
#[derive(Debug, Clone)]
struct Place {
    who: Who,
    endpoint: Endpoint,
}

impl FromStr for Who {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // By its length: an identity may happen to have no digit above 9.
        match text.parse() {
            Ok(number) if text.len() <= 5 => Ok(Self::Number(number)),
            _ => parse_key(text).map(Self::Identity),
        }
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (who, addr) = text.rsplit_once('@').ok_or("the form is KEY@HOST:PORT")?;
        let addr: Addr = addr.parse().map_err(|e| format!("{e}"))?;
        Ok(Self { who: who.parse()?, endpoint: addr.endpoint })
    }
}

fn parse_key(text: &str) -> Result<Key, String> {
    let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok().and_then(|bytes| Key::try_from(bytes).ok());
    bytes.ok_or_else(|| {
        format!("`{text}` is no identity: 64 hexadecimal digits, from `monosign threshold identity`")
    })
}

impl From<CeremonyError> for Failure {
    fn from(error: CeremonyError) -> Self {
        if error.is_for_safety() { Self::for_safety(error) } else { Self::new(error) }
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        StartError::from(error).into()
    }
}

impl From<PlanError> for Failure {
    fn from(error: PlanError) -> Self {
        Self::usage(error)
    }
}

pub(super) fn identity(args: &IdentityArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let identity = identity_of(&read_age(&args.file)?);
    Ok(writeln!(out, "{}", HEXLOWER_PERMISSIVE.encode(identity.verifying_key().as_bytes()))?)
}

pub(super) fn dkg(args: &DkgArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let members = u16::try_from(args.members.len()).unwrap_or(u16::MAX);
    let shape = Shape::new(args.threshold, members).map_err(Failure::for_safety)?;
    let places = resolve(&args.members, None)?;
    let keys: Vec<Key> = places.iter().map(|(key, _)| *key).collect();
    let plan = Plan::generate(args.chain.clone(), shape, &keys)?;
    let age = read_age(&args.identity)?;
    let me = identity_of(&age).verifying_key().to_bytes();
    let id = plan.role(&me).and_then(|role| role.new);
    let id = id.ok_or_else(|| PlanError::NotOne(HEXLOWER_PERMISSIVE.encode(&me)))?;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&args.output)
        .map_err(|e| Failure::new(format!("cannot make `{}`: {e}", args.output.display())))?;
    let files = Files {
        group: args.output.join("group.json"),
        share: args.output.join(format!("cosigner-{id}.age")),
        record: None,
        journal: args.output.join("dkg.journal"),
    };
    if !files.journal.exists()
        && let Some(path) = [&files.group, &files.share].into_iter().find(|path| path.exists())
    {
        return Err(CeremonyError::Exists(path.clone()).into());
    }
    let own = read_own(&files, age)?;
    let hall = Hall {
        places: places.iter().cloned().collect(),
        without: Vec::new(),
        meet: &args.meet,
        listen: None,
    };
    let bench = Bench { files: &files, own: &own, jump_limit: JumpLimit::Off, go_on: None };
    let ended = hold(&plan, &bench, &hall, out)?;
    report::dkg(&plan, &places, &files, id, &ended, out)
}

pub(super) fn refresh(args: &RefreshArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let chain = args.chain.load()?;
    let share = shared(&chain)?;
    let (files, own) = own_of(&chain, share)?;
    let group = Rc::new(base_group(&chain, &files, args.go_on.anew)?);
    let plan = Plan::refresh(Rc::clone(&group));
    let without = keys_of(&args.go_on.without, Some(&group))?;
    let places = configured(share, &group, &args.ports)?;
    let listen = shifted(&share.listen, &args.ports)?;
    let hall = Hall { places, without, meet: &args.meet, listen: Some(listen) };
    let jump_limit = chain.rules.jump_limit;
    let bench = Bench { files: &files, own: &own, jump_limit, go_on: Some(&args.go_on) };
    let ended = hold(&plan, &bench, &hall, out)?;
    report::refreshed(&files, &ended, out)
}

pub(super) fn reshare(args: &ReshareArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let chain = args.chain.load()?;
    let share = shared(&chain)?;
    let members = u16::try_from(args.members.len()).unwrap_or(u16::MAX);
    let shape = Shape::new(args.threshold, members).map_err(Failure::for_safety)?;
    let (files, own) = own_of(&chain, share)?;
    let group = Rc::new(base_group(&chain, &files, args.go_on.anew)?);
    let members = resolve(&args.members, Some(&group))?;
    let leaving = resolve(&args.leaving, Some(&group))?;
    let keys = |places: &[(Key, Endpoint)]| places.iter().map(|(key, _)| *key).collect::<Vec<_>>();
    let plan = Plan::reshare(Rc::clone(&group), shape, &keys(&members), &keys(&leaving))?;
    let without = keys_of(&args.go_on.without, Some(&group))?;
    let places = members.iter().chain(&leaving).cloned().collect();
    let hall = Hall { places, without, meet: &args.meet, listen: None };
    let jump_limit = chain.rules.jump_limit;
    let bench = Bench { files: &files, own: &own, jump_limit, go_on: Some(&args.go_on) };
    let ended = hold(&plan, &bench, &hall, out)?;
    let me = own.identity.verifying_key().to_bytes();
    report::reshared(&plan, &me, &members, &files, &ended, out)
}

pub(super) fn repair(args: &RepairArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let chain = args.chain.load()?;
    let share = shared(&chain)?;
    let (files, own) = own_of(&chain, share)?;
    let lost = MemberId(args.cosigner);
    let group = group_of(share, &chain.id)?;
    let group = group.with_identity(lost, args.identity).map_err(|_| PlanError::NoMember(lost))?;
    let group = Rc::new(group);
    let helpers: Vec<MemberId> = match args.helpers.as_slice() {
        [] => group.members().filter(|member| *member != lost).collect(),
        some => some.iter().copied().map(MemberId).collect(),
    };
    let plan = Plan::repair(Rc::clone(&group), lost, args.identity, &helpers)?;
    let places = configured(share, &group, &args.ports)?;
    let listen = shifted(&share.listen, &args.ports)?;
    let hall = Hall { places, without: Vec::new(), meet: &args.meet, listen: Some(listen) };
    let bench = Bench { files: &files, own: &own, jump_limit: chain.rules.jump_limit, go_on: None };
    let ended = hold(&plan, &bench, &hall, out)?;
    let me = own.identity.verifying_key().to_bytes();
    report::repaired(&plan, &me, lost, &files, &ended, out)
}

/// Where the hosts meet.
struct Hall<'a> {
    places: BTreeMap<Key, Endpoint>,
    without: Vec<Key>,
    meet: &'a MeetArgs,
    /// Where this host listens unless it is told otherwise; without it, on the port that it was named with.
    listen: Option<Endpoint>,
}

/// What this host brings along.
struct Bench<'a> {
    files: &'a Files,
    own: &'a Own,
    jump_limit: JumpLimit,
    go_on: Option<&'a GoOnArgs>,
}

/// Meets the others and goes through the ceremony with them.
fn hold(plan: &Plan, bench: &Bench<'_>, hall: &Hall<'_>, out: &mut dyn Write) -> Result<Ended, Failure> {
    if let Err(error) = process::harden() {
        writeln!(out, "warning: secrets could get into a core dump: {error}")?;
    }
    let out = RefCell::new(out);
    let tell = |line: &str| {
        let mut out = out.borrow_mut();
        // As much as can be told: whether anybody reads it changes nothing of what is done.
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    };
    let seams = Seams::production();
    let shop = Workshop {
        files: bench.files,
        own: bench.own,
        disk: &*seams.disk,
        entropy: &*seams.entropy,
        jump_limit: bench.jump_limit,
        accept_floor: bench.go_on.and_then(|args| args.accept_floor).map(Height),
        anew: bench.go_on.is_some_and(|args| args.anew),
        tell: &tell,
    };
    block_on(async {
        let mut links = meet(plan, bench.own, hall, &seams, &tell).await?;
        let ended = match plan.act() {
            Act::Repair { .. } => make_again(&shop, plan, &mut links).await,
            _ => succession::succeed(&shop, plan, &mut links).await,
        };
        links.part().await;
        Ok(ended?)
    })?
}

async fn meet(
    plan: &Plan,
    own: &Own,
    hall: &Hall<'_>,
    seams: &Seams,
    tell: &dyn Fn(&str),
) -> Result<Links, Failure> {
    let me = own.identity.verifying_key().to_bytes();
    plan.must_have(&me)?;
    let others = plan.parties().map(|(key, _)| *key);
    let others = others.filter(|key| *key != me && !hall.without.contains(key));
    let party = |key: Key| {
        let endpoint = hall.places.get(&key).cloned();
        let name = plan.name(&key);
        let endpoint = endpoint.ok_or_else(|| Failure::new(format!("it is not known where {name} is")));
        Ok::<_, Failure>(Party { key, endpoint: endpoint?, name })
    };
    let parties = others.map(party).collect::<Result<Vec<_>, _>>()?;
    let listen = match (&hall.meet.listen, &hall.listen, hall.places.get(&me)) {
        (Some(told), ..) => told.endpoint.clone(),
        (None, Some(configured), _) => configured.clone(),
        (None, None, Some(Endpoint::Tcp { port, .. })) => {
            Endpoint::Tcp { host: "0.0.0.0".into(), port: *port }
        }
        _ => return Err(Failure::usage("where is this host to listen?\nhint: --listen HOST:PORT")),
    };
    let keys: Vec<Key> = parties.iter().map(|party| party.key).collect();
    let transport = seams.net.transport(&own.identity, &keys).map_err(Failure::new)?;
    let listener = seams.net.listen(&listen).await.map_err(|e| {
        Failure::new(format!("cannot listen on `{listen}`: {e}\nhint: choose another place with --listen"))
    })?;
    let mut names: Vec<&str> = parties.iter().map(|party| party.name.as_str()).collect();
    names.sort_unstable();
    tell(&format!("this is {}; waiting on {listen} for {}", plan.name(&me), names.join(", ")));
    let patience = Duration::from_secs(hall.meet.wait);
    let links = Links::meet(Rc::clone(&seams.net), transport, me, listener, parties, patience).await;
    Ok(links.map_err(CeremonyError::from)?)
}

fn shared(chain: &ChainConfig) -> Result<&ThresholdConfig, Failure> {
    chain.key.threshold().ok_or_else(|| super::admin::not_shared(&chain.id))
}

fn own_of(chain: &ChainConfig, share: &ThresholdConfig) -> Result<(Files, Own), Failure> {
    let files = Files {
        group: share.group.clone(),
        share: share.share.path.clone(),
        record: Some(chain.record.clone()),
        journal: Journal::path(&chain.record),
    };
    let (_, identities) = unlock::identities(&share.share, &unlock_env()).map_err(StartError::from)?;
    // The first that opens what there is.
    let mut last = Failure::from(CeremonyError::NoShare);
    for age in identities {
        match read_own(&files, age) {
            Ok(own) => return Ok((files, own)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn base_group(chain: &ChainConfig, files: &Files, anew: bool) -> Result<Group, Failure> {
    Ok(block_on(group_to_begin_with(&StdDisk::default(), files, &chain.id, anew))??)
}

fn read_own(files: &Files, age: x25519::Identity) -> Result<Own, Failure> {
    Ok(block_on(Own::read(&StdDisk::default(), files, age))??)
}

fn read_age(path: &std::path::Path) -> Result<x25519::Identity, Failure> {
    let content = private_file::read_private(path)?;
    let identities = parse_identities(&content).ok();
    let first = identities.and_then(|identities| identities.into_iter().next());
    first.ok_or_else(|| {
        let path = path.display();
        Failure::new(format!(
            "`{path}` holds no age identity\nhint: make one with `monosign threshold recipient --output {path}`"
        ))
    })
}

fn key_of(who: Who, group: Option<&Group>) -> Result<Key, PlanError> {
    match who {
        Who::Identity(key) => Ok(key),
        Who::Number(number) => {
            let member = MemberId(number);
            group.and_then(|group| group.identity(member)).copied().ok_or(PlanError::NoMember(member))
        }
    }
}

fn keys_of(who: &[Who], group: Option<&Group>) -> Result<Vec<Key>, PlanError> {
    who.iter().map(|who| key_of(*who, group)).collect()
}

fn resolve(places: &[Place], group: Option<&Group>) -> Result<Vec<(Key, Endpoint)>, PlanError> {
    places.iter().map(|place| Ok((key_of(place.who, group)?, place.endpoint.clone()))).collect()
}

/// Where the configuration says that the others are, on the ports of ceremonies.
fn configured(
    share: &ThresholdConfig,
    group: &Group,
    ports: &PortArgs,
) -> Result<BTreeMap<Key, Endpoint>, Failure> {
    let mut places = BTreeMap::new();
    for (member, endpoint) in &share.peers {
        if let Some(key) = group.identity(*member) {
            places.insert(*key, shifted(endpoint, ports)?);
        }
    }
    Ok(places)
}

fn shifted(endpoint: &Endpoint, ports: &PortArgs) -> Result<Endpoint, Failure> {
    match endpoint {
        Endpoint::Tcp { host, port } => {
            let port = port.checked_add(ports.port_offset).ok_or_else(|| {
                Failure::usage(format!(
                    "`{endpoint}` has no port {} above\nhint: --port-offset",
                    ports.port_offset
                ))
            })?;
            Ok(Endpoint::Tcp { host: host.clone(), port })
        }
        other => Ok(other.clone()),
    }
}
