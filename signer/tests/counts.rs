//! What a signature costs, in counts that are the same on every machine: flushes, writes, system calls, allocations.

mod rig;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;

use allocation_counter::AllocationInfo;
use monosign::backend::Backend as _;
use monosign::backend::softsign::vault::Vault;
use monosign::chain::{Chain, ChainHandle, RawSigning, Rules};
use monosign::consensus_key::ConsensusKey;
use monosign::guard::{JumpLimit, Watermark};
use monosign::record::{Header, Record};
use monosign::seams::StdDisk;
use monosign_protocol::message::Message;
use monosign_protocol::{Height, Hrs, Round, Step};
use rig::{CHAIN, Conversation, Home, NOW, NodeSide, Signer, requests, signing_key, skip_without_strace};
use rustix::process::{Signal, kill_process};
use tokio::task::LocalSet;

/// Each is counted for so many signatures and for twice as many, so that what a start costs cancels out.
const SIGNATURES: i64 = 300;

#[tokio::test]
async fn a_signature_is_one_write_one_flush_and_one_answer() {
    if skip_without_strace() {
        return;
    }
    let once = count(async |talk| sign(talk, SIGNATURES).await).await;
    let twice = count(async |talk| sign(talk, 2 * SIGNATURES).await).await;
    let more = |call: &str| calls(&twice, call) - calls(&once, call);
    assert_eq!(more("fdatasync"), SIGNATURES, "{twice:?}");
    assert_eq!(more("pwrite64"), SIGNATURES, "{twice:?}");
    assert_eq!(more("sendto"), SIGNATURES, "{twice:?}");
    for flush in ["fsync", "sync_file_range", "msync"] {
        assert_eq!(more(flush), 0, "{twice:?}");
    }
    for call in ["rename", "unlink", "openat"] {
        assert_eq!(more(call), 0, "no files come and go: {twice:?}");
    }
    let memory = more("mmap") + more("brk") + more("munmap") + more("mremap");
    assert!(memory <= 4, "{memory} more calls for memory: {once:?}, {twice:?}");
}

#[tokio::test]
async fn a_repeated_answer_and_a_refusal_touch_no_disk() {
    if skip_without_strace() {
        return;
    }
    let once = count(async |talk| drop(talk.signs_prevote(1).await)).await;
    let counts = count(async |talk| {
        let first = talk.signs_prevote(1).await;
        let conflict =
            mock_validator::node::probes::conflict(&talk.request(1, 0, Step::Prevote)).expect("a conflict");
        for _ in 0..50 {
            assert_eq!(talk.signs_prevote(1).await, first);
            talk.refuses(&conflict).await;
            talk.shows_key().await;
            talk.answers_ping().await;
        }
    })
    .await;
    for call in ["pwrite64", "fdatasync", "fsync"] {
        assert_eq!(calls(&counts, call), calls(&once, call), "{counts:?}");
    }
    assert!(calls(&once, "fdatasync") > 0, "nothing was counted: {once:?}");
}

#[tokio::test]
async fn memory_is_the_same_after_20_000_signatures_as_after_2_000() {
    let home = Home::new();
    let socket = format!("unix://{}", home.path("node.sock").display());
    let node = NodeSide::listen(&socket).await;
    home.configure(&[(CHAIN, &socket)]);
    home.make_record(CHAIN);
    let signer = home.start();
    let mut talk = node.converse(CHAIN).await;
    let mut resident = Vec::new();
    for (from, to) in [(1, 2_000), (2_001, 20_000)] {
        for height in from..=to {
            // Repeats are as good for memory, and cost no flush: a tenth is signed.
            talk.signs_prevote(height / 10 + 1).await;
        }
        resident.push(signer.resident_kib());
    }
    assert!(resident[1] <= resident[0] + 512, "{resident:?} KiB");
}

/// On the signer's thread, from the request to the answer; the session's buffers are kept from message to message.
#[test]
fn allocations_for_a_signature_are_few_and_leave_nothing_behind() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let local = LocalSet::new();
    let home = Home::new();
    let chain = local.block_on(&runtime, start_chain(&home.path("record")));
    let sign = |from: i64, count: i64| {
        let mut prevotes: Vec<Box<Message>> = Vec::new();
        let made = allocation_counter::measure(|| {
            prevotes.extend((from..from + count).map(|n| Box::new(prevote(n))))
        });
        let signed = allocation_counter::measure(|| {
            local.block_on(&runtime, async {
                for request in prevotes {
                    let answer = chain.ask(request, "node".into()).await;
                    assert!(matches!(answer, Message::SignedVoteResponse(answer) if answer.error.is_none()));
                }
            });
        });
        (made.count_current + signed.count_current, signed)
    };
    // The first fill queues and caches.
    sign(1, 40);
    let ((left, once), (still_left, twice)) = (sign(100, SIGNATURES), sign(1000, 2 * SIGNATURES));
    // The requests are gone with their answers.
    assert!(left <= 4 && still_left <= 4, "{left} and {still_left} allocations stay");
    let each = per_signature(&once, &twice);
    assert!(each <= 20, "{each} allocations for a signature: {once:?}, {twice:?}");
    assert!(twice.bytes_max <= once.bytes_max + 4096, "{once:?}, {twice:?}");
}

fn per_signature(once: &AllocationInfo, twice: &AllocationInfo) -> u64 {
    (twice.count_total - once.count_total).div_ceil(SIGNATURES.cast_unsigned())
}

async fn start_chain(path: &Path) -> ChainHandle {
    let vault = Vault::open(ConsensusKey::from_seed(signing_key(CHAIN).as_bytes()));
    let public_key = *vault.public_key().as_bytes();
    let header = Header { chain_id: CHAIN.parse().expect("an id"), public_key };
    let floor = Watermark::floor(Height(0), Round(0), None);
    let disk = StdDisk::default();
    let record = Record::create(&disk, path, header, floor).await.expect("a record");
    let rules = Rules { jump_limit: JumpLimit::Heights(100_000), raw: RawSigning::default() };
    let (chain, handle, queue) = Chain::new(record, Rc::new(vault), rules, Rc::new(disk)).expect("a key");
    tokio::task::spawn_local(chain.run(queue));
    handle
}

fn prevote(height: i64) -> Message {
    let requests = requests(CHAIN, None);
    let hrs = Hrs { height: Height(height), round: Round(0), step: Step::Prevote };
    requests.sign(hrs, requests.blocks().block(hrs.height, 0), NOW)
}

async fn sign(talk: &mut Conversation, signatures: i64) {
    for height in 1..=signatures {
        talk.signs_prevote(height).await;
    }
}

type Counts = BTreeMap<String, i64>;

fn calls(counts: &Counts, call: &str) -> i64 {
    // openat and rename have several forms.
    counts.iter().filter(|(name, _)| name.starts_with(call)).map(|(_, calls)| calls).sum()
}

/// The system calls of a signer's whole life, during which `talk` is had with it.
async fn count(talk: impl AsyncFnOnce(&mut Conversation)) -> Counts {
    let node = NodeSide::tcp().await;
    let home = Home::with_one_chain(&node.addr());
    let trace = home.path("strace");
    let mut command = Command::new("strace");
    command.args(["-f", "-c", "-o"]).arg(&trace).arg(env!("CARGO_BIN_EXE_monosign"));
    command.args(["start", "-c", "monosign.toml", "--log-level", "error"]).current_dir(home.path("."));
    let mut strace = Signer::start(command, home.path("log"));
    let mut conversation = node.converse(CHAIN).await;
    talk(&mut conversation).await;
    // strace itself ignores the signal while it has something to trace.
    kill_process(strace.traced().await, Signal::TERM).expect("signalled");
    assert_eq!(strace.ended().await.code(), Some(0));
    parse(&fs::read_to_string(trace).expect("a summary"))
}

/// The lines of `strace -c`: `% time, seconds, usecs/call, calls, [errors,] syscall`.
fn parse(summary: &str) -> Counts {
    let rows = summary.lines().filter_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        words[..].first()?.parse::<f64>().ok()?;
        Some(((*words.last()?).to_owned(), words.get(3)?.parse().ok()?))
    });
    let counts: Counts = rows.filter(|(name, _)| name != "total").collect();
    assert!(counts.contains_key("epoll_wait") || counts.contains_key("epoll_pwait"), "no summary: {summary}");
    counts
}
