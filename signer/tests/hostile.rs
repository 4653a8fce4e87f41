//! Everything bad that a peer can send, over a real socket.
//!
//! A request that is wrong is answered in its own arm, on a connection that stays; a peer that breaks framing or
//! cryptography is disconnected and dialed again. Neither moves the record: the last signature is repeated afterwards,
//! which a raised record would refuse.

#[path = "../../protocol/tests/common/mod.rs"]
mod common;
mod rig;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use mock_validator::link::{NodeLink, Socket};
use mock_validator::node::Signed;
use monosign_protocol::Step;
use monosign_protocol::frame;
use monosign_protocol::message::{
    BlockId, Message, PubKeyResponse, RawRequest, RawResponse, SignProposalRequest, SignVoteRequest,
    SignedProposalResponse, SignedVoteResponse, Text, Vote,
};
use rig::{CHAIN, Conversation, DEADLINE, Home, NodeSide, Oracle, Random, Signer, validator_table};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

/// A signer that has signed something, and its node.
struct Rig {
    // First, so that its log is still there to be shown when it is dropped.
    signer: Signer,
    home: Home,
    node: NodeSide,
    talk: Conversation,
    last: (Message, Signed),
    state: String,
}

const HEIGHT: i64 = 1000;

impl Rig {
    async fn new() -> Self {
        let node = NodeSide::tcp().await;
        let home = Home::with_one_chain(&node.addr());
        Self::start(home, node).await
    }

    async fn start(home: Home, node: NodeSide) -> Self {
        let signer = home.start();
        let mut talk = node.converse(CHAIN).await;
        let request = talk.request(HEIGHT, 2, Step::Prevote);
        let signed = talk.signs(&request).await;
        let state = home.state(CHAIN);
        Self { home, signer, node, talk, last: (request, signed), state }
    }

    /// The connection works, and the record is where it was.
    async fn stands(&mut self, after: &str) {
        self.talk.answers_ping().await;
        let again = self.talk.signs(&self.last.0).await;
        assert_eq!(again, self.last.1, "after {after}");
    }

    /// The same, on a new connection.
    async fn comes_back(&mut self, after: &str) {
        self.talk = self.node.converse(CHAIN).await;
        self.stands(after).await;
    }

    fn finish(&mut self) {
        assert_eq!(self.home.state(CHAIN), self.state);
        assert!(self.signer.is_running());
    }
}

#[tokio::test]
async fn a_wrong_request_is_refused_in_its_arm_and_changes_nothing() {
    let mut rig = Rig::new().await;
    for (name, request, words) in wrong_requests(&rig.talk) {
        let refusal = rig.talk.refuses(&request).await;
        assert!(refusal.description.to_string().contains(words), "{name}: {refusal}");
        rig.stands(name).await;
    }
    let raw = Message::RawRequest(RawRequest { value_or_chain_id: vec![1; 32], ..RawRequest::default() });
    match rig.talk.ask(&raw).await {
        Ok(Some(Message::RawResponse(RawResponse { signature, error: Some(_) }))) => {
            assert!(signature.is_empty())
        }
        other => panic!("{other:?} to raw bytes"),
    }
    rig.stands("raw bytes").await;
    rig.finish();
}

/// What a node must not ask, and a word of the answer.
fn wrong_requests(talk: &Conversation) -> Vec<(&'static str, Message, &'static str)> {
    let next = HEIGHT + 1;
    let vote = |change: &dyn Fn(&mut Vote)| vote_with(talk, next, Step::Precommit, change);
    let prevote = |change: &dyn Fn(&mut Vote)| vote_with(talk, next, Step::Prevote, change);
    let no_vote = SignVoteRequest { vote: None, chain_id: CHAIN.into(), skip_extension_signing: false };
    let no_proposal = SignProposalRequest { proposal: None, chain_id: CHAIN.into() };
    let long = "x".repeat(100_000);
    vec![
        ("prevote of another chain", of_chain(&talk.request(next, 0, Step::Prevote), "other"), "chain"),
        ("proposal of another chain", of_chain(&talk.request(next, 0, Step::Proposal), "other"), "chain"),
        ("prevote of no chain", of_chain(&talk.request(next, 0, Step::Prevote), ""), "chain"),
        ("prevote of a long chain", of_chain(&talk.request(next, 0, Step::Prevote), &long), "chain"),
        ("height -1", talk.request(-1, 0, Step::Precommit), "height regression"),
        ("the lowest height", talk.request(i64::MIN, 0, Step::Precommit), "height regression"),
        ("proposal at height -1", talk.request(-1, 0, Step::Proposal), "height regression"),
        ("the highest height", talk.request(i64::MAX, 0, Step::Precommit), "height jump"),
        ("round -1", talk.request(HEIGHT, -1, Step::Precommit), "round"),
        ("round -1 above", talk.request(next, -1, Step::Precommit), "round"),
        ("the lowest round above", talk.request(next, i32::MIN, Step::Prevote), "round"),
        ("proposal in round -1 above", talk.request(next, -1, Step::Proposal), "round"),
        ("height below", talk.request(HEIGHT - 1, 9, Step::Precommit), "height regression"),
        ("round below", talk.request(HEIGHT, 1, Step::Precommit), "round regression"),
        ("step below", talk.request(HEIGHT, 2, Step::Proposal), "step regression"),
        ("another block", at_block(&talk.request(HEIGHT, 2, Step::Prevote), talk.block(1)), "double sign"),
        (
            "nil after a block",
            at_block(&talk.request(HEIGHT, 2, Step::Prevote), BlockId::default()),
            "double sign",
        ),
        ("type 0", vote(&|vote| vote.vote_type = 0), "vote type 0"),
        ("type 3", vote(&|vote| vote.vote_type = 3), "vote type 3"),
        ("a proposal's type in a vote", vote(&|vote| vote.vote_type = 32), "vote type 32"),
        ("type -1", vote(&|vote| vote.vote_type = -1), "vote type -1"),
        ("a short hash", vote(&|vote| vote.block_id.hash.truncate(3)), "block id"),
        ("a long hash", vote(&|vote| vote.block_id.hash.push(0)), "block id"),
        ("a short part-set hash", vote(&|vote| vote.block_id.part_set_header.hash.truncate(31)), "block id"),
        ("no vote", Message::SignVoteRequest(no_vote), "no vote"),
        ("no proposal", Message::SignProposalRequest(no_proposal), "no proposal"),
        ("an extended prevote", prevote(&|vote| vote.extension = vec![1]), "extension"),
        (
            "an extended nil precommit",
            vote(&|vote| {
                vote.block_id = BlockId::default();
                vote.extension = vec![1];
            }),
            "extension",
        ),
        (
            "an extension without replay protection",
            vote(&|vote| vote.non_rp_extension = vec![1]),
            "switched off",
        ),
    ]
}

#[tokio::test]
async fn the_key_of_another_chain_is_not_shown() {
    let mut rig = Rig::new().await;
    for chain in ["other", "", "test-chain-1 ", "test-chain-1\0"] {
        let request = of_chain(&rig.talk.requests.public_key(), chain);
        match rig.talk.ask(&request).await {
            Ok(Some(Message::PubKeyResponse(PubKeyResponse { error: Some(_), pub_key_bytes, .. }))) => {
                assert!(pub_key_bytes.is_empty());
            }
            other => panic!("{other:?} to `{chain}`"),
        }
        rig.stands(chain).await;
    }
    rig.finish();
}

#[tokio::test]
async fn what_cannot_be_read_is_answered_in_the_arm_of_its_first_tag() {
    let mut rig = Rig::new().await;
    for (name, body, arm) in [
        ("a group in a vote", &[0x1a, 2, 0x0b, 0x0c][..], Arm::Vote),
        ("a vote cut short", &[0x1a, 0x7f, 0x0a], Arm::Vote),
        ("a vote as a number", &[0x18, 1], Arm::Vote),
        (
            "a time of -1 ns",
            &[
                0x1a, 17, 0x0a, 15, 0x2a, 13, 0x08, 1, 0x10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                0xff, 1,
            ],
            Arm::Vote,
        ),
        ("field 0 in a proposal", &[0x2a, 2, 0x00, 0x00], Arm::Proposal),
        ("a key request cut short", &[0x0a, 5, 0x0a], Arm::PubKey),
        ("raw bytes cut short", &[0x4a, 5, 0x0a], Arm::Raw),
    ] {
        send_body(&mut rig.talk.link, body).await;
        let answer = receive(&mut rig.talk.link).await;
        assert_eq!(answer.as_ref().map(arm_of), Some(arm), "{name}: {answer:?}");
        assert!(answer.as_ref().is_some_and(is_refusal), "{name}: {answer:?}");
        rig.stands(name).await;
    }
    rig.finish();
}

#[tokio::test]
async fn what_is_no_request_gets_an_empty_answer_as_from_the_stock_signer() {
    let mut rig = Rig::new().await;
    let responses = [
        Message::PingResponse,
        Message::PubKeyResponse(PubKeyResponse::universal([9; 32])),
        Message::SignedVoteResponse(SignedVoteResponse::default()),
        Message::SignedProposalResponse(SignedProposalResponse::default()),
        Message::RawResponse(RawResponse::default()),
    ];
    let mut bodies: Vec<Vec<u8>> = responses.iter().map(body_of).collect();
    bodies.extend([
        vec![],
        vec![0x7a, 1, 0],
        vec![0xff; 40],
        vec![0; 3],
        vec![0x80],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
    ]);
    for body in bodies {
        send_body(&mut rig.talk.link, &body).await;
        assert_eq!(receive(&mut rig.talk.link).await, None, "{body:x?}");
        rig.stands(&format!("{body:x?}")).await;
    }
    rig.finish();
}

#[tokio::test]
async fn fields_of_releases_to_come_are_skipped() {
    let mut rig = Rig::new().await;
    let mut body = body_of(&rig.last.0);
    body.extend([0xfa, 0x06, 3, 1, 2, 3]);
    send_body(&mut rig.talk.link, &body).await;
    let answer = receive(&mut rig.talk.link).await;
    assert_eq!(rig.talk.judge(&rig.last.0, answer), mock_validator::node::Answer::Signed(rig.last.1.clone()));
    rig.finish();
}

#[tokio::test]
async fn broken_framing_and_sealing_end_the_connection_and_a_new_one_works() {
    let mut rig = Rig::new().await;
    let too_long = varint(2 * 1024 * 1024 + 1);
    for (name, bytes) in [
        ("a length over 2 MiB", &too_long[..]),
        ("a length of 2^63 - 1", &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
        ("a length that is no number", &[0xff; 11]),
    ] {
        rig.talk.link.send_plain_bytes(bytes).await.expect("sent");
        rig.talk.is_closed().await;
        rig.comes_back(name).await;
    }
    for bytes in [&[0; 1044][..], &[0xff; 4000]] {
        rig.talk.link.send_raw(bytes).await.expect("sent");
        rig.talk.is_closed().await;
        rig.comes_back("a frame that does not open").await;
    }
    rig.finish();
}

#[tokio::test]
async fn a_node_of_v0_33_is_told_by_name() {
    let mut rig = Rig::new().await;
    let amino = [0x08, 0xcb, 0x94, 0xd6, 0x20, 0x0a, 0x01, 0x78, 0x00];
    rig.talk.link.send_plain_bytes(&amino).await.expect("sent");
    rig.talk.is_closed().await;
    rig.signer.logs("speaks amino (tendermint v0.33 or older)").await;
    rig.comes_back("amino").await;
    rig.finish();
}

#[tokio::test]
async fn messages_may_come_in_any_pieces() {
    let mut rig = Rig::new().await;
    let mut three = Vec::new();
    for message in [&Message::PingRequest, &rig.last.0, &Message::PingRequest] {
        frame::encode(message, &mut three);
    }
    rig.talk.link.send_plain_bytes(&three).await.expect("sent");
    assert_eq!(receive(&mut rig.talk.link).await, Some(Message::PingResponse));
    assert!(!is_refusal(&receive(&mut rig.talk.link).await.expect("an answer")));
    assert_eq!(receive(&mut rig.talk.link).await, Some(Message::PingResponse));
    // A sealed frame for each byte.
    for byte in &three {
        rig.talk.link.send_plain_bytes(std::slice::from_ref(byte)).await.expect("sent");
    }
    for _ in 0..3 {
        assert!(!is_refusal(&receive(&mut rig.talk.link).await.expect("an answer")));
    }
    // Half a message, and gone.
    rig.talk.link.send_plain_bytes(&three[..40]).await.expect("sent");
    rig.comes_back("half a message").await;
    rig.finish();
}

#[tokio::test]
async fn an_extension_of_1_mib_is_signed_in_an_answer_that_every_node_reads() {
    let mut rig = Rig::new().await;
    let extension = vec![0xee; 1024 * 1024];
    let request =
        vote_with(&rig.talk, HEIGHT + 1, Step::Precommit, &|vote| vote.extension = extension.clone());
    let key = rig.home.public_key(CHAIN);
    rig.talk.verifier = rig::verifier(CHAIN, true, key);
    // The link reads 10 240 bytes, as nodes before v0.40 do.
    assert!(rig.talk.signs(&request).await.extension_signature.is_some());
    // The longest message that is read at all.
    let most = vec![0xee; 2 * 1024 * 1024 - 300];
    let request = vote_with(&rig.talk, HEIGHT + 2, Step::Precommit, &|vote| vote.extension = most.clone());
    rig.talk.signs(&request).await;
    let more = vec![0xee; 2 * 1024 * 1024];
    let request = vote_with(&rig.talk, HEIGHT + 3, Step::Precommit, &|vote| vote.extension = more.clone());
    // It may hang up before it has all.
    let _ = rig.talk.link.send(&request).await;
    rig.talk.is_closed().await;
    let mut talk = rig.node.converse(CHAIN).await;
    talk.signs_prevote(HEIGHT + 3).await;
}

#[tokio::test]
async fn no_handshake_harms_the_next_one() {
    let mut rig = Rig::new().await;
    let before = rig.signer.resident_kib();
    let mut hostile: Vec<Vec<u8>> =
        vec![vec![], vec![0xff; 4096], vec![0; 34], b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()];
    let dirs = common::dirs_with("secret_connection_rejects.jsonl");
    // Low-order points, keys of wrong lengths, unreadable and unproven identities.
    let rejects = common::lines(dirs.first().expect("vectors"), "secret_connection_rejects.jsonl");
    hostile.extend(rejects.iter().map(|v| common::hex(v, "peer_sends")));
    for (n, bytes) in hostile.iter().enumerate() {
        drop(rig.talk.link);
        let mut socket = rig.node.accept_socket().await;
        let mut ours = [0; 16];
        timeout(DEADLINE, socket.read_exact(&mut ours)).await.expect("in time").expect("it speaks first");
        // It may hang up before it has all.
        let _ = socket.write_all(bytes).await;
        let _ = socket.shutdown().await;
        let mut rest = Vec::new();
        let _ = timeout(DEADLINE, socket.read_to_end(&mut rest)).await.expect("the signer hangs up");
        rig.talk = rig.node.converse(CHAIN).await;
        rig.talk.answers_ping().await;
        assert_eq!(rig.talk.signs(&rig.last.0).await, rig.last.1, "after handshake {n}");
    }
    assert!(rig.signer.resident_kib() <= before + 2048, "memory grew");
    rig.finish();
}

#[tokio::test]
async fn a_peer_that_says_nothing_is_waited_for_before_the_handshake_and_left_after_it() {
    let node = NodeSide::tcp().await;
    let home = Home::new();
    home.write("monosign.toml", home.chain_tables(CHAIN).as_bytes());
    // The shortest there is.
    home.append_config(&validator_table(CHAIN, &node.addr(), "timeout = 4"));
    home.make_record(CHAIN);
    let mut rig = Rig::start(home, node).await;
    // Without a word from the start, as in the queue of a node that is served by another signer.
    drop(rig.talk.link);
    let socket = rig.node.accept_socket().await;
    rig.signer.logs("standing by").await;
    let link = rig.node.handshake(socket).await.expect("the signer is there still");
    rig.talk = Conversation::new(link, CHAIN);
    rig.stands("a long wait in line").await;
    // In the midst of a session.
    rig.talk.is_closed().await;
    rig.signer.logs("silent for 4s").await;
    rig.comes_back("silence").await;
    rig.finish();
}

/// A peer that sends without end, and reads what comes back.
struct Flooding {
    answered: Arc<AtomicU64>,
    socket: std::os::unix::net::UnixStream,
    threads: Vec<JoinHandle<()>>,
}

impl Flooding {
    /// Sends these bytes again and again.
    #[allow(clippy::disallowed_methods, reason = "threads of another process, as far as the signer knows")]
    fn with(socket: Socket, bytes: &[u8]) -> Self {
        let Socket::Unix(socket) = socket else { panic!("not a unix socket") };
        let socket = socket.into_std().expect("a socket");
        socket.set_nonblocking(false).expect("an option");
        let (mut writer, mut reader) =
            (socket.try_clone().expect("a handle"), socket.try_clone().expect("a handle"));
        let bytes = bytes.repeat((64 << 10) / bytes.len());
        let writing =
            std::thread::spawn(move || while std::io::Write::write_all(&mut writer, &bytes).is_ok() {});
        let answered = Arc::<AtomicU64>::default();
        let count = Arc::clone(&answered);
        let reading = std::thread::spawn(move || {
            let mut answers = vec![0; 64 << 10];
            while let Ok(n @ 1..) = std::io::Read::read(&mut reader, &mut answers) {
                count.fetch_add(n as u64, Ordering::Relaxed);
            }
        });
        Self { answered, socket, threads: vec![writing, reading] }
    }

    fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }
}

impl Drop for Flooding {
    fn drop(&mut self) {
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

/// One chain that is served well, and one whose node, on a unix socket, is hostile.
async fn with_hostile_neighbour() -> (Home, Signer, Conversation, NodeSide) {
    let (node, home) = (NodeSide::tcp().await, Home::new());
    let hostile = NodeSide::listen(&format!("unix://{}", home.path("hostile.sock").display())).await;
    home.configure(&[(CHAIN, &node.addr()), ("hostile-1", &hostile.addr())]);
    home.make_record(CHAIN);
    home.make_record("hostile-1");
    let signer = home.start();
    let talk = node.converse(CHAIN).await;
    (home, signer, talk, hostile)
}

#[tokio::test]
async fn a_flood_of_tiny_frames_on_a_unix_socket_does_not_hold_up_another_chain() {
    let (_home, _signer, mut talk, hostile) = with_hostile_neighbour().await;
    let mut ping = Vec::new();
    frame::encode(&Message::PingRequest, &mut ping);
    for (name, bytes, answer) in [("empty frames", &[0][..], 1), ("pings", &ping, 3)] {
        let flood = Flooding::with(hostile.accept_socket().await, bytes);
        rig::poll("the flood", || (flood.answered() > 100_000).then_some(())).await;
        // Counted, and not timed: how many messages are served while another chain's node waits for one answer. A turn that ends by itself
        // only takes about a million.
        let mut meanwhile = Vec::new();
        for _ in 0..60 {
            let before = flood.answered();
            talk.answers_ping().await;
            meanwhile.push((flood.answered() - before) / answer);
        }
        meanwhile.sort_unstable();
        println!("{name}: {} served meanwhile in the median, {} at the most", meanwhile[30], meanwhile[59]);
        assert!(meanwhile[30] < 100_000, "{name}: {meanwhile:?}");
    }
    talk.signs_prevote(1).await;
}

#[tokio::test]
async fn refusals_and_repeats_without_end_are_a_few_lines_of_log_and_their_number() {
    let (home, signer, mut talk, hostile) = with_hostile_neighbour().await;
    let mut theirs = hostile.converse("hostile-1").await;
    let signed = theirs.request(5, 0, Step::Prevote);
    theirs.signs(&signed).await;
    let conflict = at_block(&signed, theirs.block(6));
    let lower = theirs.request(4, 0, Step::Prevote);
    let foreign = of_chain(&signed, "another");
    let mut flood = Vec::new();
    for request in [&conflict, &lower, &foreign, &signed] {
        frame::encode(request, &mut flood);
    }
    flood.extend([2, 0x1a, 0x7f]);
    let before = std::fs::metadata(home.path("log")).expect("a log").len();
    let flooding = Flooding::with(theirs.link.into_inner(), &flood);
    // Some 100 bytes each.
    rig::poll("20 000 answers", || (flooding.answered() > 2_000_000).then_some(())).await;
    for height in 1..=5 {
        talk.signs_prevote(height).await;
    }
    let line = signer.logs("more like this in the last").await;
    assert!(line.contains("chain_id=hostile-1"), "{line}");
    drop(flooding);
    let log = signer.log();
    for words in
        ["attempted double sign", "height regression", "unexpected chain ID", "repeated PreVote", "malformed"]
    {
        let lines = log.lines().filter(|line| line.contains(words)).count();
        assert!((1..=60).contains(&lines), "{lines} lines of `{words}`");
    }
    let grown = std::fs::metadata(home.path("log")).expect("a log").len() - before;
    assert!(grown < 100_000, "{grown} bytes of log");
    // What another chain signs is all there.
    assert_eq!(
        log.lines().filter(|line| line.contains(" signed PreVote") && line.contains(CHAIN)).count(),
        5,
        "{log}"
    );
}

#[tokio::test]
async fn sessions_that_come_and_go_without_end_are_a_few_lines_of_log() {
    let (home, signer, mut talk, hostile) = with_hostile_neighbour().await;
    for _ in 0..150 {
        // It asks, so that this is a session, and hangs up.
        let mut socket = hostile.accept_socket().await;
        socket.write_all(&[2, 0x3a, 0]).await.expect("sent");
        let mut answer = [0; 3];
        timeout(DEADLINE, socket.read_exact(&mut answer)).await.expect("in time").expect("an answer");
    }
    talk.signs_prevote(1).await;
    let log = signer.log();
    let lines = log.lines().filter(|line| line.contains("hostile-1")).count();
    assert!((2..=70).contains(&lines), "{lines} lines: {log}");
    assert_eq!(home.watermark(CHAIN).0, 1);
}

/// Every decoding vector and every kind of request, with some bytes changed: an answer to each.
#[tokio::test]
async fn mutated_messages_are_answered_and_never_sign_twice() {
    const ROUNDS: usize = 6000;
    let mut rig = Rig::new().await;
    let mut random = Random::from_env();
    let mut oracle = Oracle::default();
    let mut seeds = Vec::new();
    for dir in common::dirs_with("privval_decode.jsonl") {
        for vector in common::lines(&dir, "privval_decode.jsonl") {
            let raw = common::hex(&vector, "raw");
            if let Ok(frame::Frame::Complete { start, end }) = frame::find(&raw, 100_000) {
                seeds.push(raw[start..end].to_vec());
            }
        }
    }
    let decode_vectors = seeds.len();
    assert!(decode_vectors > 100, "{decode_vectors} vectors");
    let mut before = 0;
    for n in 0..ROUNDS {
        let mut body = if n % 2 == 0 {
            seeds[random.index(decode_vectors)].clone()
        } else {
            let step = [Step::Proposal, Step::Prevote, Step::Precommit][random.index(3)];
            let height = oracle.highest().map_or(HEIGHT, |hrs| hrs.height.0);
            body_of(&rig.talk.request(height + i64::from(random.below(4) == 0), 2, step))
        };
        for _ in 0..random.below(4) {
            mutate(&mut body, &mut random);
        }
        if frame::is_amino(&body) {
            continue;
        }
        send_body(&mut rig.talk.link, &body).await;
        let answer = receive(&mut rig.talk.link).await;
        let request = Message::decode(&body).ok().flatten();
        match (request, answer) {
            (
                Some(request @ (Message::SignVoteRequest(_) | Message::SignProposalRequest(_))),
                Some(answer),
            ) if !is_refusal(&answer) => {
                oracle.release(&request, answer);
            }
            (Some(Message::PingRequest), answer) => assert_eq!(answer, Some(Message::PingResponse)),
            (Some(Message::PubKeyRequest(_)), Some(Message::PubKeyResponse(_))) => {}
            (_, None) => {}
            (_, Some(answer)) => assert!(is_refusal(&answer), "{answer:?} to {body:x?}"),
        }
        if n == ROUNDS / 4 {
            before = rig.signer.resident_kib();
        }
    }
    rig.talk.answers_ping().await;
    let after = rig.signer.resident_kib();
    assert!(after <= before + 512, "memory grew from {before} to {after} KiB");
    assert!(oracle.len() > 100, "{} signatures: too few to mean anything", oracle.len());
    let highest = oracle.highest().expect("a signature");
    assert_eq!(rig.home.watermark(CHAIN), (highest.height.0, highest.round.0, highest.step.number()));
}

fn mutate(body: &mut Vec<u8>, random: &mut Random) {
    if body.is_empty() {
        body.push(0);
    }
    let at = random.index(body.len());
    match random.below(6) {
        0 => body[at] = 0xff,
        1 => body[at] ^= 1 << random.below(8),
        2 => body.truncate(at),
        3 => body.insert(at, u8::try_from(random.below(256)).expect("a byte")),
        4 => drop(body.remove(at)),
        _ => body[at] = body[at].wrapping_add(1),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Arm {
    PubKey,
    Vote,
    Proposal,
    Raw,
    Other,
}

fn arm_of(answer: &Message) -> Arm {
    match answer {
        Message::PubKeyResponse(_) => Arm::PubKey,
        Message::SignedVoteResponse(_) => Arm::Vote,
        Message::SignedProposalResponse(_) => Arm::Proposal,
        Message::RawResponse(_) => Arm::Raw,
        _ => Arm::Other,
    }
}

/// An error, and no signature with it.
fn is_refusal(answer: &Message) -> bool {
    match answer {
        Message::PubKeyResponse(answer) => answer.error.is_some(),
        Message::SignedVoteResponse(SignedVoteResponse { vote, error }) => {
            assert_eq!(error.is_some(), vote.signature.is_empty());
            error.is_some()
        }
        Message::SignedProposalResponse(SignedProposalResponse { proposal, error }) => {
            assert_eq!(error.is_some(), proposal.signature.is_empty());
            error.is_some()
        }
        Message::RawResponse(answer) => answer.error.is_some(),
        _ => false,
    }
}

fn of_chain(request: &Message, chain: &str) -> Message {
    let mut request = request.clone();
    let chain = Text::from(chain);
    match &mut request {
        Message::SignVoteRequest(request) => request.chain_id = chain,
        Message::SignProposalRequest(request) => request.chain_id = chain,
        Message::PubKeyRequest(request) => request.chain_id = chain,
        other => panic!("{other:?} is of no chain"),
    }
    request
}

fn vote_with(talk: &Conversation, height: i64, step: Step, change: &dyn Fn(&mut Vote)) -> Message {
    let mut request = talk.request(height, 0, step);
    if let Message::SignVoteRequest(SignVoteRequest { vote: Some(vote), .. }) = &mut request {
        change(vote);
    }
    request
}

fn at_block(request: &Message, block: BlockId) -> Message {
    let mut request = request.clone();
    if let Message::SignVoteRequest(SignVoteRequest { vote: Some(vote), .. }) = &mut request {
        vote.block_id = block;
    }
    request
}

fn body_of(message: &Message) -> Vec<u8> {
    let mut body = Vec::new();
    message.encode(&mut body);
    body
}

fn varint(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(u8::try_from(number & 0x7f).expect("7 bits") | 0x80);
        number >>= 7;
    }
    bytes.push(u8::try_from(number).expect("7 bits"));
    bytes
}

async fn send_body(link: &mut NodeLink<Socket>, body: &[u8]) {
    let mut framed = varint(body.len());
    framed.extend_from_slice(body);
    link.send_plain_bytes(&framed).await.expect("sent");
}

/// The next answer; `None` for an empty one.
async fn receive(link: &mut NodeLink<Socket>) -> Option<Message> {
    timeout(DEADLINE, link.receive()).await.expect("in time").expect("an answer")
}
