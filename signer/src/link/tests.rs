//! How long a link waits for what, on a clock of its own.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::task::{Context, Poll};

use monosign_protocol::frame;
use monosign_protocol::message::{SignVoteRequest, Vote};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf, duplex};
use tokio::task::{LocalSet, spawn_local, yield_now};

use super::*;
use crate::backend::Backend as _;
use crate::backend::softsign::vault::Vault;
use crate::chain::{Chain, RawSigning, Rules};
use crate::consensus_key::ConsensusKey;
use crate::guard::{JumpLimit, Watermark};
use crate::record::{Header, Record};
use crate::seams::{Local, Net, OsEntropy, StdDisk};

const TIMEOUT: Duration = Duration::from_secs(10);

/// Gives out one connection.
struct OneDial(RefCell<Option<Box<dyn Stream>>>);

impl Net for OneDial {
    fn dial<'a>(&'a self, _: &'a Endpoint) -> Local<'a, io::Result<Box<dyn Stream>>> {
        let stream = self.0.borrow_mut().take();
        Box::pin(async { stream.ok_or(io::ErrorKind::ConnectionRefused.into()) })
    }
}

/// A chain that nobody runs, as one whose disk hangs.
async fn chain() -> (ChainHandle, crate::chain::ChainQueue) {
    crate::deadline::for_this_test();
    let (dir, disk) = (tempfile::tempdir().expect("a directory"), StdDisk::default());
    // Of this test alone: on one host, one record at a time is open of a chain and key.
    let mut seed = [0; 32];
    OsEntropy.fill(&mut seed);
    let vault = Vault::open(ConsensusKey::from_seed(&seed));
    let chain_id = "test-1".parse().expect("a chain id");
    let header = Header { chain_id, public_key: *vault.public_key().as_bytes() };
    let path = dir.path().join("record");
    let record = Record::create(&disk, &path, header, Watermark::default()).await.expect("a record");
    let rules = Rules { jump_limit: JumpLimit::Off, raw: RawSigning::default() };
    let (_, handle, queue) = Chain::new(record, Rc::new(vault), rules, Rc::new(disk)).expect("a good key");
    (handle, queue)
}

fn settings(protection: Protection) -> LinkSettings {
    LinkSettings {
        endpoint: Endpoint::Tcp { host: "node".into(), port: 1 },
        protection,
        timeout: TIMEOUT,
        reconnect: true,
        max_height: None,
        dialect: None,
        label: "node".into(),
    }
}

/// How a session over this connection ends.
async fn session(stream: impl Stream + 'static, protection: Protection) -> LinkError {
    let net = Rc::new(OneDial(RefCell::new(Some(Box::new(stream)))));
    let seams = Seams { net, disk: Rc::new(StdDisk::default()), entropy: Rc::new(OsEntropy) };
    let (_stop, stopped) = watch::channel(false);
    let (chain, _queue) = chain().await;
    Link::new(settings(protection), chain, seams, stopped).serve().await.expect_err("nobody stops it")
}

/// How a session with a peer ends that writes its first byte after `silence` and the next ones every `pause`, and after which
/// time.
fn ends(silence: Duration, pause: Duration) -> (LinkError, Duration) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    LocalSet::new().block_on(&runtime.expect("a runtime"), async {
        let (ours, mut theirs) = duplex(1024);
        spawn_local(async move {
            sleep(silence).await;
            // The beginning of a SecretConnection: a message with a key of 32 bytes.
            let hello = [&[34, 10, 32], [9; 32].as_slice()].concat();
            for byte in hello {
                if theirs.write_all(&[byte]).await.is_err() {
                    return;
                }
                sleep(pause).await;
            }
        });
        let identity = Rc::new(SigningKey::from_bytes(&[4; 32]));
        let began = Instant::now();
        (session(ours, Protection::Secret { identity, pinned: None }).await, began.elapsed())
    })
}

#[test]
fn a_peer_that_trickles_its_handshake_is_given_up() {
    let (error, after) = ends(Duration::ZERO, Duration::from_secs(1));
    assert!(matches!(error, LinkError::Handshake(LONGEST_HANDSHAKE)), "{error}");
    assert!(after < LONGEST_HANDSHAKE + Duration::from_millis(10), "{after:?}");
}

#[test]
fn a_standby_waits_on_one_connection_for_the_first_byte_and_not_for_the_next() {
    let month = Duration::from_secs(30 * 24 * 3600);
    let (error, after) = ends(month, Duration::from_secs(9));
    assert!(matches!(error, LinkError::Handshake(LONGEST_HANDSHAKE)), "{error}");
    assert!((month..month + Duration::from_secs(6)).contains(&after), "{after:?}");
}

/// A peer that has always sent something already, and reads all answers: what a local node can be.
struct Flood {
    sends: Vec<u8>,
    sent: usize,
    /// How much it lets be read at once.
    piece: usize,
    answered: Rc<Cell<usize>>,
}

impl AsyncRead for Flood {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let end = self.sends.len().min(self.sent + self.piece.min(into.remaining()));
        into.put_slice(&self.sends[self.sent..end]);
        self.sent = end;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Flood {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.answered.set(self.answered.get() + bytes.len());
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// How many turns another task has while a peer sends so many of these messages, `piece` bytes at a time; and how many bytes of answers the
/// peer gets.
fn turns_of_others(message: &[u8], times: usize, piece: usize) -> (usize, usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    LocalSet::new().block_on(&runtime.expect("a runtime"), async {
        let (turns, answered) = (Rc::<Cell<usize>>::default(), Rc::<Cell<usize>>::default());
        let counted = Rc::clone(&turns);
        let other = spawn_local(async move {
            loop {
                counted.set(counted.get() + 1);
                yield_now().await;
            }
        });
        let flood = Flood { sends: message.repeat(times), sent: 0, piece, answered: Rc::clone(&answered) };
        let error = session(flood, Protection::Plain).await;
        assert!(matches!(error, LinkError::Closed), "{error}");
        other.abort();
        (turns.get(), answered.get())
    })
}

#[test]
fn a_flood_of_small_messages_leaves_others_their_turns() {
    const TIMES: usize = 100_000;
    let mut ping = Vec::new();
    frame::encode(&Message::PingRequest, &mut ping);
    let unreadable = [1, 0xff];
    for (name, message, answer) in
        [("empty", &[0][..], 1), ("pings", &ping, 3), ("unreadable", &unreadable, 1)]
    {
        let (turns, answered) = turns_of_others(message, TIMES, usize::MAX);
        assert!(turns >= TIMES / 64, "{name}: others had {turns} turns during {TIMES} messages");
        assert_eq!(answered, answer * TIMES, "{name}: each is answered");
    }
}

#[test]
fn a_flood_of_pieces_of_one_long_message_leaves_others_their_turns() {
    // The longest message there is, of which no end comes.
    let mut beginning = vec![0xff, 0xff, 0x7f];
    beginning.resize(1 << 20, 7);
    let (turns, answered) = turns_of_others(&beginning, 1, usize::MAX);
    assert!(turns >= (1 << 20) / (64 << 10), "{turns} turns");
    assert_eq!(answered, 0);
    // Byte by byte: each read is work, whatever it brings.
    let (turns, _) = turns_of_others(&beginning[..64 << 10], 1, 1);
    assert!(turns >= 1024, "{turns} turns");
}

#[test]
fn a_link_does_not_wait_for_a_chain_longer_than_its_node() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    LocalSet::new().block_on(&runtime.expect("a runtime"), async {
        let vote = Some(Vote { vote_type: 1, height: Height(5), ..Vote::default() });
        let chain_id = Text::from("test-1");
        let request =
            Message::SignVoteRequest(SignVoteRequest { vote, chain_id, skip_extension_signing: false });
        let (ours, mut node) = duplex(1024);
        let mut bytes = Vec::new();
        frame::encode(&request, &mut bytes);
        node.write_all(&bytes).await.expect("room");
        let began = Instant::now();
        let error = timeout(6 * PATIENCE, session(ours, Protection::Plain)).await.expect("it ends");
        assert!(matches!(error, LinkError::Unanswered(PATIENCE)), "{error}");
        assert!(began.elapsed() <= PATIENCE + Duration::from_millis(10), "{:?}", began.elapsed());
    });
}
