//! How long a link waits for what, on a clock of its own.

use std::cell::RefCell;

use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};
use tokio::task::{LocalSet, spawn_local};

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
struct OneDial(RefCell<Option<DuplexStream>>);

impl Net for OneDial {
    fn dial<'a>(&'a self, _: &'a Endpoint) -> Local<'a, io::Result<Box<dyn Stream>>> {
        let stream = self.0.borrow_mut().take().map(|stream| Box::new(stream) as Box<dyn Stream>);
        Box::pin(async { stream.ok_or(io::ErrorKind::ConnectionRefused.into()) })
    }
}

/// A chain that is asked for nothing.
async fn chain() -> ChainHandle {
    let (dir, disk) = (tempfile::tempdir().expect("a directory"), StdDisk::default());
    let vault = Vault::open(ConsensusKey::from_seed(&[7; 32]));
    let chain_id = "test-1".parse().expect("a chain id");
    let header = Header { chain_id, public_key: *vault.public_key().as_bytes() };
    let path = dir.path().join("record");
    let record = Record::create(&disk, &path, header, Watermark::default()).await.expect("a record");
    let rules = Rules { jump_limit: JumpLimit::Off, raw: RawSigning::default() };
    Chain::new(record, Rc::new(vault), rules, Rc::new(disk)).expect("a good key").1
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
        let settings = LinkSettings {
            endpoint: Endpoint::Tcp { host: "node".into(), port: 1 },
            protection: Protection::Secret { identity, pinned: None },
            timeout: TIMEOUT,
            reconnect: true,
            max_height: None,
            dialect: None,
            label: "node".into(),
        };
        let net = Rc::new(OneDial(RefCell::new(Some(ours))));
        let seams = Seams { net, disk: Rc::new(StdDisk::default()), entropy: Rc::new(OsEntropy) };
        let (_stop, stopped) = watch::channel(false);
        let began = Instant::now();
        let ended = Link::new(settings, chain().await, seams, stopped).serve().await;
        (ended.expect_err("nobody stops it"), began.elapsed())
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
