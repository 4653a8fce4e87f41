//! `monosign threshold status` and `drill`, and the socket on which a running cosigner answers them.
//!
//! It is a unix socket of mode 0600. A request is one line, `status CHAIN` or `drill CHAIN`; the answer is text up to the end, and its
//! first line is `ok`, `cannot sign` or what is wrong.

use std::io::{self, BufRead as _, BufReader, Read as _, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use clap::Args;
use monosign_protocol::ChainId;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;

use crate::cli::admin_socket::{self, AdminSocket, CannotListen};
use crate::cli::{ChainArgs, Failure, group_of};
use crate::seams::{Entropy as _, OsEntropy};
use crate::start::{ChainState, of_cosigner};
use crate::threshold::asked::Subject;
use crate::threshold::cosigner::Status;
use crate::threshold::deal::subsets;
use crate::threshold::rounds::MemberId;
use crate::threshold::run::GroupHandle;

/// Arguments of `monosign threshold status`.
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    chain: ChainArgs,
}

/// Arguments of `monosign threshold drill`.
#[derive(Debug, Args)]
pub(super) struct DrillArgs {
    #[command(flatten)]
    chain: ChainArgs,
}

/// The longest request.
const MAX_REQUEST: u64 = 256;
/// How many are answered at once.
const AT_ONCE: usize = 8;

/// What is said of a group that would not sign.
const CANNOT_SIGN: &str = "cannot sign";

pub(super) fn status(args: &StatusArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let chain = args.chain.load()?;
    if chain.key.threshold().is_none() {
        return Err(not_shared(&chain.id));
    }
    let Said { signs, text } = say(&format!("status {}", chain.id), &args.chain)?;
    write!(out, "{text}")?;
    // What is wrong is the last line of that.
    if signs { Ok(()) } else { Err(Failure { message: None, code: 1 }) }
}

pub(super) fn drill(args: &DrillArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let chain = args.chain.load()?;
    let share = chain.key.threshold().ok_or_else(|| not_shared(&chain.id))?;
    let group = group_of(share, &chain.id)?;
    let members: Vec<MemberId> = group.members().collect();
    let mut failed = 0;
    let sets = subsets(&members, usize::from(group.shape().threshold()));
    for set in &sets {
        let signers = set.iter().map(MemberId::to_string).collect::<Vec<_>>().join(",");
        match say(&format!("drill {} {signers}", chain.id), &args.chain) {
            Ok(Said { text, .. }) => write!(out, "ok      cosigners {signers}: {text}")?,
            Err(error) => {
                failed += 1;
                let why = error.message.unwrap_or_default();
                writeln!(out, "FAILED  cosigners {signers}: {}", why.replace('\n', "; "))?;
            }
        }
    }
    match failed {
        0 => Ok(()),
        n => Err(Failure::new(format!("{n} of {} sets do not sign: see above", sets.len()))),
    }
}

pub(super) fn not_shared(id: &ChainId) -> Failure {
    Failure::usage(format!("the key of chain `{id}` is not shared\nhint: it has no [[providers.threshold]]"))
}

/// What a running cosigner answers.
struct Said {
    /// Whether the group would sign.
    signs: bool,
    text: String,
}

/// Says one line to the running cosigner. Returns what it answers.
fn say(request: &str, args: &ChainArgs) -> Result<Said, Failure> {
    let path = socket_path(&args.config.load()?.admin_socket);
    let mut stream =
        admin_socket::connect(&path, None, "a cosigner listens there while `monosign start` runs")?;
    writeln!(stream, "{request}")?;
    let mut answer = BufReader::new(stream);
    let (mut verdict, mut text) = (String::new(), String::new());
    answer.read_line(&mut verdict)?;
    answer.read_to_string(&mut text)?;
    match verdict.trim_end() {
        "ok" => Ok(Said { signs: true, text }),
        CANNOT_SIGN => Ok(Said { signs: false, text }),
        other => Err(Failure::new(other)),
    }
}

fn socket_path(admin: &Path) -> PathBuf {
    admin.with_added_extension("cosigner")
}

/// Answers for the cosigners of this process.
pub(in crate::cli) fn listen(
    admin: &Path,
    cosigners: Vec<(ChainId, GroupHandle)>,
) -> Result<AdminSocket, CannotListen> {
    let cosigners = Rc::new(cosigners);
    AdminSocket::bind(&socket_path(admin), AT_ONCE, move |stream| answer(stream, Rc::clone(&cosigners)))
}

async fn answer(
    mut stream: tokio::net::UnixStream,
    cosigners: Rc<Vec<(ChainId, GroupHandle)>>,
) -> io::Result<()> {
    let (read, mut write) = stream.split();
    let mut line = String::new();
    let mut lines = tokio::io::BufReader::new(read.take(MAX_REQUEST));
    admin_socket::heard(lines.read_line(&mut line)).await?;
    let answer = match carry_out(line.trim_end(), &cosigners).await {
        Ok(Said { signs: true, text }) => format!("ok\n{text}"),
        Ok(Said { signs: false, text }) => format!("{CANNOT_SIGN}\n{text}"),
        Err(error) => format!("{}\n", error.replace('\n', "; ")),
    };
    write.write_all(answer.as_bytes()).await
}

async fn carry_out(line: &str, cosigners: &[(ChainId, GroupHandle)]) -> Result<Said, String> {
    let mut words = line.split(' ');
    let (what, chain) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let found = cosigners.iter().find(|(id, _)| id.as_str() == chain);
    let (id, group) = found.ok_or_else(|| format!("chain `{chain}` is not cosigned here"))?;
    match (what, words.next()) {
        ("status", None) => match group.status().await {
            Some(status) => {
                let (state, there) = of_cosigner(&status);
                let (signs, why) = (state == ChainState::Ready, there.unwrap_or_default());
                let verdict = if signs { "can sign" } else { "CANNOT SIGN" };
                Ok(Said { signs, text: describe(id, &status) + &format!("{verdict}: {why}\n") })
            }
            None => Err("the cosigner has ended after an internal error: restart it".into()),
        },
        ("drill", Some(signers)) => {
            let signers = signers.split(',').map(|member| member.parse().map(MemberId));
            let signers = signers.collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())?;
            let mut number = [0; 16];
            OsEntropy.fill(&mut number);
            let start = Instant::now();
            group.sign_with(Subject::Drill(number), Some(signers)).await.map_err(|e| e.to_string())?;
            let text = format!("signed in {:.1} ms\n", start.elapsed().as_secs_f64() * 1000.0);
            Ok(Said { signs: true, text })
        }
        _ => Err(format!("`{line}` is no request")),
    }
}

fn describe(id: &ChainId, status: &Status) -> String {
    let last = status.last_signed.map_or("nothing since the start".into(), |place| place.to_string());
    let Status { state, me, shape, .. } = status;
    let (threshold, members) = (shape.threshold(), shape.members());
    let mut text = format!(
        "chain {id}: cosigner {me} of {threshold} of {members}: {state}\nthe group has signed h/r/s {last}\n\
         asked  cosigner  state          round trip  guard\n"
    );
    for (peer, rank) in status.peers.iter().zip(1..) {
        let state = match (peer.up, peer.active, peer.suspected) {
            (false, ..) => "not connected",
            (true, false, _) => "joining",
            (true, true, true) => "slow",
            (true, true, false) => "up",
        };
        let round_trip = peer.round_trip.filter(|_| peer.up);
        let round_trip =
            round_trip.map_or("-".into(), |time| format!("{:.2} ms", time.as_secs_f64() * 1000.0));
        let guard = peer.guard.map_or("-".into(), |place| place.to_string());
        text += &format!("{rank:<6} {:<9} {state:<14} {round_trip:<11} {guard}\n", peer.member.0);
    }
    text
}
