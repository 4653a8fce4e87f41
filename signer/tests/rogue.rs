//! A malicious cosigner, and strangers, at the sockets of cosigners that run as in production: with TLS, on disks. They cost the others
//! nothing that matters: own requests are answered, and memory, descriptors and log lines stay within bounds.

mod rig;

use std::fs;
use std::io;
use std::time::Duration;

use monosign::seams::{Net as _, Stream, TokioNet};
use monosign::threshold::asked::Subject;
use monosign::threshold::connection::read;
use monosign::threshold::group::Group as GroupFile;
use monosign::threshold::incarnation::Incarnation;
use monosign::threshold::message::{Hello, Place, Proof, Reply, Request, VERSION, encode};
use monosign::threshold::rounds::MemberId;
use monosign::threshold::share::Share;
use monosign_protocol::message::{Timestamp, Vote};
use monosign_protocol::{Height, sign_bytes};
use rig::cosigners::{FLOOR, Group, Host};
use rig::{CHAIN, Conversation, poll, within_deadline};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf, split};
use tokio::net::TcpStream;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep};

/// More than an honest answer ever takes here, and far less than a starved one.
const SOON: Duration = Duration::from_secs(3);
/// How long an attack lasts: long enough to see what it leads to.
const ATTACK: Duration = Duration::from_secs(4);

/// A member with its share and the identity of its connections, and no will to sign.
struct Rogue {
    share: Share,
    group: GroupFile,
    /// Where the others listen.
    addrs: Vec<(MemberId, String)>,
}

impl Rogue {
    /// The last host of the group, which does not run.
    fn instead_of(host: &Host) -> Self {
        let text = |name: &str| fs::read_to_string(host.home.path(name)).expect("a file");
        let group = GroupFile::parse(text("group.json").as_bytes()).expect("a group");
        let member = group.members().last().expect("a member");
        let identity = text("share.identity");
        let identity = identity.lines().find(|line| line.starts_with("AGE-SECRET")).expect("an identity");
        let identity: age::x25519::Identity = identity.parse().expect("an identity of age");
        let sealed = text(&format!("cosigner-{member}.age"));
        let share = Share::open(sealed.as_bytes(), &[identity]).expect("a share");
        let config = text("monosign.toml");
        let addr = |member: MemberId| {
            let (_, rest) = config.split_once(&format!("id = {member}\naddr = \"tcp://")).expect("a peer");
            rest.split('"').next().expect("an address").to_owned()
        };
        let addrs =
            group.members().filter(|other| *other != member).map(|other| (other, addr(other))).collect();
        Self { share, group, addrs }
    }

    /// A connection to a cosigner, on which nothing was said.
    async fn connect(&self, to: usize) -> io::Result<Box<dyn Stream>> {
        let (member, addr) = &self.addrs[to];
        let identity = *self.group.identity(*member).expect("a member");
        let transport = TokioNet.transport(self.share.identity(), &[])?;
        transport.dial(Box::new(TcpStream::connect(addr).await?), &identity).await
    }

    /// The same, after a hello.
    async fn enter(&self, to: usize) -> (ReadHalf<Box<dyn Stream>>, WriteHalf<Box<dyn Stream>>) {
        let stream = within_deadline("a connection", self.connect(to)).await.expect("a connection");
        let (mut reader, mut writer) = split(stream);
        let hello = Hello {
            versions: (VERSION, VERSION),
            group: self.group.verifying_key().to_bytes(),
            epoch: self.group.epoch(),
            incarnation: Incarnation { count: 1000, id: 1 },
            seen_of_you: Place::default(),
        };
        say(&mut writer, &encode(&Request::Hello(hello))).await.expect("said");
        let mut buffer = Vec::new();
        let welcomed = within_deadline("a welcome", read::<Reply>(&mut reader, &mut buffer)).await;
        assert!(matches!(welcomed, Ok((Reply::Welcome(_), _))), "{welcomed:?}");
        (reader, writer)
    }

    /// Says the same again and again to all of the others, until a time has come or they hang up. What they answer is read and forgotten.
    async fn flood(&self, bytes: &[u8], until: Instant) -> u64 {
        let mut floods = Vec::new();
        for to in 0..self.addrs.len() {
            let (mut reader, mut writer) = self.enter(to).await;
            let bytes = bytes.to_vec();
            spawn_local(async move {
                let mut buffer = vec![0; 1 << 16];
                while reader.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
            });
            floods.push(spawn_local(async move {
                let mut times = 0;
                while Instant::now() < until {
                    let written = tokio::time::timeout(ATTACK, say(&mut writer, &bytes)).await;
                    if !matches!(written, Ok(Ok(()))) {
                        break;
                    }
                    times += 1;
                }
                times
            }));
        }
        let mut times = 0;
        for flood in floods {
            times += flood.await.expect("no panic");
        }
        times
    }
}

async fn say(writer: &mut WriteHalf<Box<dyn Stream>>, bytes: &[u8]) -> io::Result<()> {
    writer.write_all(bytes).await?;
    writer.flush().await
}

/// Three of four, of which the last does not run.
async fn three_of_four() -> (Group, Rogue) {
    let mut group = Group::split(3, 4).await;
    for host in &mut group.hosts[..3] {
        host.start();
    }
    for host in &group.hosts[..3] {
        host.takes_part(1).await;
    }
    let rogue = Rogue::instead_of(&group.hosts[3]);
    (group, rogue)
}

/// Has prevotes signed until a time has come. Returns how long each took.
async fn keeps_signing(node: &mut Conversation, from: &mut i64, until: Instant) -> Vec<Duration> {
    let mut took = Vec::new();
    while Instant::now() < until {
        let begin = Instant::now();
        node.signs_prevote(*from).await;
        took.push(begin.elapsed());
        *from += 1;
        sleep(Duration::from_millis(20)).await;
    }
    took
}

fn descriptors(host: &mut Host) -> usize {
    let dir = format!("/proc/{}/fd", host.process().id());
    fs::read_dir(dir).expect("a running process").count()
}

#[tokio::test]
async fn floods_of_one_member_keep_no_other_from_signing_and_take_neither_memory_nor_log() {
    let (mut group, rogue) = three_of_four().await;
    LocalSet::new()
        .run_until(async {
            let mut node = group.hosts[0].converse().await;
            let mut height = FLOOR;
            node.signs_prevote(height).await;
            height += 1;
            let proof = Proof { message: vec![], signature: vec![] };
            let nonsense = encode(&Request::Done { proof, signers: vec![] }).repeat(256);
            let longest = Subject::Raw(vec![9; 1 << 20]);
            let longest = Request::Share { request: 1, nonce: u64::MAX, subject: longest, others: vec![] };
            for (what, bytes) in [
                ("pings", encode(&Request::Ping(1)).repeat(256)),
                ("nonsense", nonsense),
                ("long frames", encode(&longest)),
            ] {
                let until = Instant::now() + ATTACK;
                let (times, took) =
                    tokio::join!(rogue.flood(&bytes, until), keeps_signing(&mut node, &mut height, until));
                let longest = took.iter().max().copied().unwrap_or_default();
                println!("{what}: {times} writes, {} signatures, the slowest {longest:?}", took.len());
                assert!(took.len() > 3 && longest < SOON, "{what}: {took:?}");
            }
            for host in &mut group.hosts[..3] {
                let kib = host.process().resident_kib();
                let log = host.process().log();
                println!("{kib} KiB, {} lines", log.lines().count());
                assert!(kib < 150 << 10, "{kib} KiB");
                assert!(log.lines().count() < 1000, "{} lines", log.lines().count());
                assert!(log.contains("cosigner 4: it passes on a signature that is none"), "it is named");
            }
        })
        .await;
}

#[tokio::test]
async fn connections_of_one_member_and_of_strangers_are_bounded_and_another_member_gets_in() {
    let (mut group, rogue) = three_of_four().await;
    let mut node = group.hosts[0].converse().await;
    node.signs_prevote(FLOOR).await;
    let before = descriptors(&mut group.hosts[0]);
    let mut held = Vec::new();
    for _ in 0..200 {
        // It is let in no more when it dials too often.
        held.extend(rogue.connect(0).await);
    }
    // Those that say nothing, and those that begin a handshake and say no more.
    let hello = [0x16, 0x03, 0x01, 0x02, 0x00];
    let mut strangers = Vec::new();
    for n in 0..600 {
        let Ok(mut stranger) = TcpStream::connect(&rogue.addrs[0].1).await else { continue };
        if n % 2 == 0 {
            let _ = stranger.write_all(&hello).await;
        }
        strangers.push(stranger);
    }
    // What was turned away is closed a moment later where the machine is busy.
    let during = descriptors(&mut group.hosts[0]);
    println!("{before} descriptors, then {during}");
    poll("bounded descriptors", || (descriptors(&mut group.hosts[0]) < before + 300).then_some(())).await;
    node.signs_prevote(FLOOR + 1).await;
    // Another one is restarted, and all of them hear of its new life.
    group.hosts[1].kill();
    group.hosts[1].start();
    group.hosts[1].takes_part(2).await;
    group.hosts[2].kill();
    group.hosts[2].start();
    group.hosts[2].takes_part(2).await;
    node.signs_prevote(FLOOR + 2).await;
    poll("the strangers to be gone", || (descriptors(&mut group.hosts[0]) < before + 20).then_some(())).await;
}

#[tokio::test]
async fn strangers_that_dial_without_end_keep_no_member_out() {
    let (mut group, rogue) = three_of_four().await;
    let mut node = group.hosts[0].converse().await;
    node.signs_prevote(FLOOR).await;
    LocalSet::new()
        .run_until(async {
            let addr = rogue.addrs[0].1.clone();
            let strangers = spawn_local(async move {
                let mut held = std::collections::VecDeque::new();
                for n in 0u64.. {
                    if let Ok(mut stranger) = TcpStream::connect(&addr).await {
                        if n.is_multiple_of(2) {
                            let _ = stranger.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00]).await;
                        }
                        held.push_back(stranger);
                    }
                    if held.len() > 800 {
                        held.pop_front();
                    }
                    sleep(Duration::from_millis(2)).await;
                }
            });
            sleep(Duration::from_secs(1)).await;
            group.hosts[1].kill();
            group.hosts[1].start();
            group.hosts[1].takes_part(2).await;
            // Both others are needed, so the one that was restarted has to have got in.
            for height in FLOOR + 1..FLOOR + 5 {
                node.signs_prevote(height).await;
            }
            strangers.abort();
        })
        .await;
}

/// As after a ceremony of which one host has not heard: the other's identity is not in its group file.
#[tokio::test]
async fn cosigners_that_do_not_know_each_other_say_what_to_do_and_not_again_and_again() {
    let (mut group, other) = (Group::split(2, 3).await, Group::split(2, 3).await);
    for name in ["group.json", "cosigner-2.age", "share.identity"] {
        let foreign = fs::read(other.hosts[1].home.path(name)).expect("a file");
        group.hosts[1].home.write(name, &foreign);
    }
    for host in &mut group.hosts[..2] {
        host.start();
    }
    for host in &mut group.hosts[..2] {
        host.process().logs("restart this cosigner with the group file of that ceremony").await;
    }
    sleep(ATTACK).await;
    for host in &mut group.hosts[..2] {
        let log = host.process().log();
        assert!(log.lines().count() < 40, "{log}");
    }
}

#[tokio::test]
async fn who_says_no_hello_in_time_is_hung_up_on() {
    let (_group, rogue) = three_of_four().await;
    let mut silent = rogue.connect(0).await.expect("a connection");
    let begin = Instant::now();
    let ended = within_deadline("the end of a silent connection", silent.read(&mut [0; 1])).await;
    assert!(!matches!(ended, Ok(read) if read > 0));
    assert!(begin.elapsed() > Duration::from_secs(2), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_share_far_ahead_of_the_chain_is_refused_and_the_chain_goes_on() {
    let (mut group, rogue) = three_of_four().await;
    let mut node = group.hosts[0].converse().await;
    node.signs_prevote(FLOOR).await;
    let (mut reader, mut writer) = rogue.enter(1).await;
    let timestamp = Timestamp { seconds: 1_700_000_000, nanos: 0 };
    let vote = Vote { vote_type: 1, height: Height(FLOOR + 100_000), timestamp, ..Vote::default() };
    let bytes = sign_bytes::vote(CHAIN, &vote);
    let request = Request::Forward { request: 7, subject: Subject::Message(bytes) };
    say(&mut writer, &encode(&request)).await.expect("said");
    let mut buffer = Vec::new();
    let why = within_deadline("a refusal", async {
        loop {
            match read::<Reply>(&mut reader, &mut buffer).await.expect("a reply").0 {
                Reply::Refused { request: 7, why, .. } => return why,
                Reply::Signed { .. } => panic!("signed"),
                _ => {}
            }
        }
    })
    .await;
    assert!(format!("{why:?}").contains("above"), "{why:?}");
    for height in FLOOR + 1..FLOOR + 4 {
        node.signs_prevote(height).await;
    }
    group.hosts[1].process().log();
}
