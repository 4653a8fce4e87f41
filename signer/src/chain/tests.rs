//! The one path, on a disk that tells what happened in which order and fails when told to.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::Path;

use ed25519_dalek::Verifier as _;
use monosign_protocol::message::{
    BlockId, PartSetHeader, RawRequest, SignVoteRequest, SignedVoteResponse, Text,
};
use monosign_protocol::{Height, Round, sign_bytes};
use tokio::task::{JoinHandle, LocalSet, spawn_local};

use super::*;
use crate::backend::softsign::vault::Vault;
use crate::consensus_key::ConsensusKey;
use crate::guard::Watermark;
use crate::record::{FILE_LEN, Header};
use crate::seams::{Claim, DiskFile, Holder, Local, Open};

const CHAIN: &str = "test-1";

/// What happened, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Happened {
    /// A jump.
    Counted,
    Written,
    Synced,
    Signed,
}

#[derive(Default)]
struct World {
    log: RefCell<Vec<Happened>>,
    content: RefCell<Vec<u8>>,
    fail_sync: Cell<bool>,
    is_elsewhere: Cell<bool>,
    allowance: RefCell<Option<String>>,
    /// What was skipped.
    skipped: RefCell<Option<Vec<u8>>>,
}

/// A disk of a record, and of what is counted beside it.
struct OneFile(Rc<World>);

/// The file of what was skipped.
struct SkippedFile(Rc<World>);

fn is_skipped(path: &Path) -> bool {
    path.to_string_lossy().contains(".skipped")
}

impl Disk for OneFile {
    fn open<'a>(&'a self, path: &'a Path, how: Open) -> Local<'a, io::Result<Box<dyn DiskFile>>> {
        if is_skipped(path) {
            return Box::pin(async { Ok(Box::new(SkippedFile(Rc::clone(&self.0))) as _) });
        }
        let missing = how == Open::Existing && self.0.content.borrow().is_empty();
        let file: io::Result<Box<dyn DiskFile>> = match missing {
            true => Err(io::ErrorKind::NotFound.into()),
            false => Ok(Box::new(OneFile(Rc::clone(&self.0)))),
        };
        Box::pin(async { file })
    }

    fn rename_new<'a>(&'a self, _: &'a Path, _: &'a Path) -> Local<'a, io::Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn remove<'a>(&'a self, _: &'a Path) -> Local<'a, io::Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn rename<'a>(&'a self, _: &'a Path, _: &'a Path) -> Local<'a, io::Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn sync_dir<'a>(&'a self, _: &'a Path) -> Local<'a, io::Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn claim<'a>(&'a self, _: &'a str) -> Local<'a, io::Result<Claim>> {
        Box::pin(async { Ok(Claim::Ours(Box::new(()))) })
    }

    fn holder<'a>(&'a self, _: &'a str) -> Local<'a, io::Result<Option<Holder>>> {
        Box::pin(async { Ok(None) })
    }

    fn read_small<'a>(&'a self, path: &'a Path) -> Local<'a, io::Result<Option<String>>> {
        let skipped = self.0.skipped.borrow().clone().map(|text| String::from_utf8(text).expect("text"));
        let text = if is_skipped(path) { skipped } else { self.0.allowance.borrow().clone() };
        Box::pin(async { Ok(text) })
    }
}

impl DiskFile for SkippedFile {
    fn try_lock(&self) -> Local<'_, io::Result<bool>> {
        Box::pin(async { Ok(true) })
    }

    fn is_at<'a>(&'a self, _: &'a Path) -> Local<'a, io::Result<bool>> {
        Box::pin(async { Ok(true) })
    }

    fn read_all(&self, _: usize) -> Local<'_, io::Result<Vec<u8>>> {
        Box::pin(async { Ok(self.0.skipped.borrow().clone().unwrap_or_default()) })
    }

    fn write_at<'a>(&'a self, _: u64, bytes: &'a [u8]) -> Local<'a, io::Result<()>> {
        *self.0.skipped.borrow_mut() = Some(bytes.to_vec());
        Box::pin(async { Ok(()) })
    }

    fn sync_data(&self) -> Local<'_, io::Result<()>> {
        if self.0.fail_sync.get() {
            return Box::pin(async { Err(io::Error::other("the disk is broken")) });
        }
        self.0.log.borrow_mut().push(Happened::Counted);
        Box::pin(async { Ok(()) })
    }
}

impl DiskFile for OneFile {
    fn try_lock(&self) -> Local<'_, io::Result<bool>> {
        Box::pin(async { Ok(true) })
    }

    fn is_at<'a>(&'a self, _: &'a Path) -> Local<'a, io::Result<bool>> {
        Box::pin(async { Ok(!self.0.is_elsewhere.get()) })
    }

    fn read_all(&self, _: usize) -> Local<'_, io::Result<Vec<u8>>> {
        Box::pin(async { Ok(self.0.content.borrow().clone()) })
    }

    fn write_at<'a>(&'a self, offset: u64, bytes: &'a [u8]) -> Local<'a, io::Result<()>> {
        Box::pin(async move {
            self.0.log.borrow_mut().push(Happened::Written);
            let mut content = self.0.content.borrow_mut();
            content.resize(FILE_LEN, 0);
            content[offset as usize..][..bytes.len()].copy_from_slice(bytes);
            Ok(())
        })
    }

    fn sync_data(&self) -> Local<'_, io::Result<()>> {
        Box::pin(async move {
            if self.0.fail_sync.get() {
                return Err(io::Error::other("the disk is broken"));
            }
            self.0.log.borrow_mut().push(Happened::Synced);
            Ok(())
        })
    }
}

/// A key that tells when it signs, and lies when told to.
struct Witness {
    vault: Vault,
    world: Rc<World>,
    lies: Cell<bool>,
    sealed: Cell<bool>,
    distrusted: Cell<u32>,
    /// How long a signature takes.
    takes: Cell<Duration>,
    max_message: Cell<usize>,
}

impl Backend for Witness {
    fn public_key(&self) -> PublicKey {
        self.vault.public_key()
    }

    fn ready(&self) -> Result<(), BackendError> {
        if self.sealed.get() { Err(BackendError::Sealed) } else { Ok(()) }
    }

    fn sign<'a>(&'a self, permit: &'a Permit<'_>) -> Local<'a, Result<[u8; 64], BackendError>> {
        Box::pin(async move {
            self.world.log.borrow_mut().push(Happened::Signed);
            if self.takes.get() > Duration::ZERO {
                tokio::time::sleep(self.takes.get()).await;
            }
            let mut signature = self.vault.sign(permit).await?;
            signature[0] ^= u8::from(self.lies.get());
            Ok(signature)
        })
    }

    fn max_message(&self) -> usize {
        self.max_message.get()
    }

    fn distrust(&self) {
        self.distrusted.set(self.distrusted.get() + 1);
    }
}

struct Rig {
    world: Rc<World>,
    backend: Rc<Witness>,
    chain: ChainHandle,
    running: JoinHandle<Result<(), Stopped>>,
}

fn rules(raw: RawSigning) -> Rules {
    Rules { jump_limit: JumpLimit::Heights(1000), raw }
}

impl Rig {
    async fn new(raw: RawSigning) -> Self {
        crate::deadline::for_this_test();
        let world = Rc::new(World::default());
        let vault = Vault::open(ConsensusKey::from_seed(&[7; 32]));
        let header = Header {
            chain_id: CHAIN.parse().expect("a chain id"),
            public_key: *vault.public_key().as_bytes(),
        };
        let disk = OneFile(Rc::clone(&world));
        Record::create(&disk, Path::new("x"), header, Watermark::default()).await.expect("a record");
        Self::restarted(world, raw).await
    }

    async fn restarted(world: Rc<World>, raw: RawSigning) -> Self {
        let vault = Vault::open(ConsensusKey::from_seed(&[7; 32]));
        let public_key = *vault.public_key().as_bytes();
        let disk = Rc::new(OneFile(Rc::clone(&world)));
        let chain_id = CHAIN.parse().expect("a chain id");
        let record = Record::open(&*disk, Path::new("x"), &chain_id, &public_key).await.expect("the record");
        world.log.borrow_mut().clear();
        let (lies, sealed) = (Cell::new(false), Cell::new(false));
        let (distrusted, takes) = (Cell::default(), Cell::default());
        let (world_of_key, max_message) = (Rc::clone(&world), Cell::new(usize::MAX));
        let backend =
            Rc::new(Witness { vault, world: world_of_key, lies, sealed, distrusted, takes, max_message });
        let (chain, handle, queue) =
            Chain::new(record, Rc::clone(&backend) as _, rules(raw), disk).expect("a good key");
        let running = spawn_local(chain.run(queue));
        Self { world, backend, chain: handle, running }
    }

    async fn ask(&self, vote: &Vote) -> SignedVoteResponse {
        let chain_id = Text::from(CHAIN);
        let request = SignVoteRequest { vote: Some(vote.clone()), chain_id, skip_extension_signing: false };
        match self.chain.ask(Box::new(Message::SignVoteRequest(request)), "peer".into()).await {
            Message::SignedVoteResponse(response) => response,
            other => panic!("the answer is in another arm: {other:?}"),
        }
    }

    async fn signs(&self, vote: &Vote) -> Vote {
        let response = self.ask(vote).await;
        assert_eq!(response.error, None);
        let key = VerifyingKey::from_bytes(self.chain.public_key().as_bytes()).expect("a key");
        let signature = Signature::from_slice(&response.vote.signature).expect("64 bytes");
        key.verify(&sign_bytes::vote(CHAIN, &response.vote), &signature).expect("a good signature");
        response.vote
    }

    async fn refuses(&self, vote: &Vote, because: &str) {
        let response = self.ask(vote).await;
        let error = response.error.expect("a refusal").description.to_string();
        assert!(error.contains(because), "`{because}` expected in `{error}`");
        assert_eq!(response.vote, Vote::default(), "a refusal holds no signature");
    }

    fn log(&self) -> Vec<Happened> {
        std::mem::take(&mut self.world.log.borrow_mut())
    }
}

fn vote(height: i64, vote_type: i32, block: u8) -> Vote {
    let block_id =
        BlockId { hash: vec![block; 32], part_set_header: PartSetHeader { total: 1, hash: vec![block; 32] } };
    Vote {
        vote_type,
        height: Height(height),
        round: Round(0),
        block_id,
        timestamp: Timestamp { seconds: 1_700_000_000, nanos: 1 },
        ..Vote::default()
    }
}

fn run(test: impl Future<Output = ()>) {
    crate::deadline::for_this_test();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, test);
}

#[test]
fn signs_only_what_is_on_stable_storage() {
    run(async {
        let rig = Rig::new(RawSigning::default()).await;
        rig.signs(&vote(5, 1, 1)).await;
        assert_eq!(rig.log(), [Happened::Written, Happened::Synced, Happened::Signed]);
    });
}

#[test]
fn answers_a_repeat_without_disk_or_key() {
    run(async {
        let rig = Rig::new(RawSigning::default()).await;
        let first = rig.signs(&vote(5, 1, 1)).await;
        rig.log();
        let later = Vote { timestamp: Timestamp { seconds: 1_800_000_000, nanos: 0 }, ..vote(5, 1, 1) };
        assert_eq!(rig.signs(&later).await, first, "the stored timestamp and signature");
        assert_eq!(rig.log(), []);
    });
}

#[test]
fn repeats_its_last_message_bit_for_bit_after_a_restart() {
    run(async {
        let rig = Rig::new(RawSigning::default()).await;
        let first = rig.signs(&vote(5, 1, 1)).await;
        let rig = Rig::restarted(rig.world, RawSigning::default()).await;
        assert_eq!(rig.signs(&vote(5, 1, 1)).await, first);
        assert_eq!(rig.log(), [Happened::Signed], "nothing is written for a repeat");
        rig.refuses(&vote(5, 1, 2), "attempted double sign").await;
        rig.refuses(&vote(4, 1, 1), "height regression").await;
    });
}

#[test]
fn after_a_failed_sync_nothing_is_signed_ever_again() {
    run(async {
        let rig = Rig::new(RawSigning::default()).await;
        rig.signs(&vote(5, 1, 1)).await;
        rig.log();
        rig.world.fail_sync.set(true);
        rig.refuses(&vote(6, 1, 1), "the disk is broken").await;
        rig.world.fail_sync.set(false);
        for height in [5, 6, 7] {
            rig.refuses(&vote(height, 1, 1), "has stopped").await;
        }
        assert!(!rig.log().contains(&Happened::Signed));
    });
}

#[test]
fn a_chain_that_can_sign_nothing_more_answers_what_was_asked_and_ends_with_the_reason() {
    run(async {
        let rig = Rig::new(RawSigning::default()).await;
        rig.world.fail_sync.set(true);
        let (first, second) = (vote(6, 1, 1), vote(7, 1, 1));
        let asked = tokio::join!(rig.ask(&first), rig.ask(&second));
        for answer in [asked.0, asked.1] {
            let error = answer.error.expect("a refusal").description.to_string();
            assert!(error.contains("the disk is broken") && !error.contains('\n'), "{error}");
        }
        let Stopped(why) = rig.running.await.expect("no panic").expect_err("it has ended");
        assert!(why.contains("the disk is broken") && why.contains("\nhint: "), "{why}");
        assert!(why.ends_with("; then start the signer anew"), "{why}");
    });
}

#[test]
fn a_chain_that_refuses_for_another_reason_goes_on() {
    run(async {
        let rig = Rig::new(RawSigning::default()).await;
        rig.backend.sealed.set(true);
        rig.refuses(&vote(5, 1, 1), "sealed").await;
        rig.backend.sealed.set(false);
        rig.signs(&vote(5, 1, 1)).await;
        rig.refuses(&vote(5, 1, 2), "attempted double sign").await;
        assert!(!rig.running.is_finished());
    });
}

#[test]
fn a_restart_brings_what_it_read_to_stable_storage_before_it_answers() {
    run(async {
        let rig = Rig::new(RawSigning::default()).await;
        rig.world.fail_sync.set(true);
        rig.refuses(&vote(6, 1, 1), "the disk is broken").await;
        // The kernel's cache still shows the entry, though the disk may not hold it.
        let (world, public_key) = (rig.world, rig.chain.public_key());
        let open = async || {
            let chain_id = CHAIN.parse().expect("a chain id");
            Record::open(&OneFile(Rc::clone(&world)), Path::new("x"), &chain_id, public_key.as_bytes()).await
        };
        assert!(matches!(open().await, Err(RecordError::Io { .. })), "a disk that is still broken");
        world.fail_sync.set(false);
        world.log.borrow_mut().clear();
        assert_eq!(open().await.expect("a sound disk").watermark().height, Height(6));
        assert_eq!(*world.log.borrow(), [Happened::Written, Happened::Synced]);
    });
}

#[test]
fn the_record_of_another_chain_or_key_is_not_written_to() {
    run(async {
        let rig = Rig::new(RawSigning::default()).await;
        let (disk, path, other) = (OneFile(rig.world), Path::new("x"), "test-2".parse().expect("a chain id"));
        assert!(matches!(
            Record::open_of_chain(&disk, path, &other).await,
            Err(RecordError::ForeignChain { .. })
        ));
        let id = CHAIN.parse().expect("a chain id");
        assert!(matches!(
            Record::open(&disk, path, &id, &[0; 32]).await,
            Err(RecordError::ForeignKey { .. })
        ));
        assert_eq!(*disk.0.log.borrow(), []);
    });
}

#[test]
fn a_chain_whose_disk_hangs_does_not_hold_up_a_reload() {
    run(async {
        let rig = Rig::new(RawSigning::default()).await;
        // Nobody runs this chain, so that its queue only fills.
        let disk = Rc::new(OneFile(rig.world));
        let id = CHAIN.parse().expect("a chain id");
        let record = Record::open_of_chain(&*disk, Path::new("x"), &id).await.expect("the record");
        let new = rules(RawSigning::default());
        let (_chain, handle, queue) = Chain::new(record, rig.backend as _, new, disk).expect("a good key");
        while handle.reload(new).is_ok() {}
        assert_eq!(handle.reload(new), Err(ReloadError::Busy));
        drop(queue);
        assert_eq!(handle.reload(new), Err(ReloadError::Stopped));
    });
}

#[test]
fn withholds_a_signature_that_does_not_verify() {
    run(async {
        let rig = Rig::new(RawSigning::default()).await;
        rig.backend.lies.set(true);
        rig.refuses(&vote(5, 1, 1), "does not verify").await;
        rig.backend.lies.set(false);
        rig.signs(&vote(5, 1, 1)).await;
        rig.refuses(&vote(5, 1, 2), "attempted double sign").await;
    });
}

#[test]
fn a_sealed_key_burns_no_height() {
    run(async {
        let rig = Rig::new(RawSigning::default()).await;
        rig.backend.sealed.set(true);
        rig.refuses(&vote(5, 1, 1), "sealed").await;
        assert_eq!(rig.log(), []);
        rig.backend.sealed.set(false);
        rig.signs(&vote(5, 1, 2)).await;
    });
}

#[test]
fn a_jump_passes_once_an_operator_allows_it() {
    run(async {
        let rig = Rig::new(RawSigning::default()).await;
        rig.signs(&vote(5, 1, 1)).await;
        rig.refuses(&vote(5000, 1, 1), "height jump").await;
        *rig.world.allowance.borrow_mut() = Some("5000\n".into());
        rig.refuses(&vote(5001, 1, 1), "height jump").await;
        rig.signs(&vote(5000, 1, 1)).await;
        rig.refuses(&vote(50_000, 1, 1), "height jump").await;
    });
}

#[test]
fn the_extension_is_signed_and_not_sent_back() {
    run(async {
        let rig = Rig::new(RawSigning::default()).await;
        let asked = Vote { extension: vec![9; 1 << 20], ..vote(5, 2, 1) };
        let signed = rig.signs(&asked).await;
        assert!(signed.extension.is_empty());
        let key = VerifyingKey::from_bytes(rig.chain.public_key().as_bytes()).expect("a key");
        let signature = Signature::from_slice(&signed.extension_signature).expect("64 bytes");
        key.verify(&sign_bytes::vote_extension(CHAIN, &asked), &signature).expect("a good signature");
        let nil = Vote { block_id: BlockId::default(), ..vote(6, 2, 1) };
        assert!(rig.signs(&nil).await.extension_signature.is_empty());
    });
}

#[test]
fn raw_signing_is_off_unless_switched_on_and_never_signs_a_vote() {
    run(async {
        let canonical = sign_bytes::vote(CHAIN, &vote(5, 2, 2));
        let v1 = |value: &[u8]| RawRequest { value_or_chain_id: value.to_vec(), ..RawRequest::default() };
        let celestia = |chain: &str, raw: &[u8]| RawRequest {
            value_or_chain_id: chain.into(),
            raw_bytes: raw.to_vec(),
            unique_id: Text::from("id"),
        };
        let ask = async |rig: &Rig, request: RawRequest| match rig
            .chain
            .ask(Box::new(Message::RawRequest(request)), "p".into())
            .await
        {
            Message::RawResponse(response) => {
                response.error.map_or(Ok(response.signature), |e| Err(e.to_string()))
            }
            other => panic!("the answer is in another arm: {other:?}"),
        };
        let off = Rig::new(RawSigning::default()).await;
        for request in [v1(b"anything"), celestia(CHAIN, b"anything")] {
            assert!(ask(&off, request).await.expect_err("off").contains("switched off"));
        }
        let on = Rig::new(RawSigning { sign_bytes: true, ..RawSigning::default() }).await;
        assert!(ask(&on, v1(b"anything")).await.is_ok());
        assert!(ask(&on, v1(&canonical)).await.expect_err("a vote").contains("never signed"));
        assert!(ask(&on, celestia(CHAIN, &canonical)).await.is_err());
        let on = Rig::new(RawSigning { celestia_raw_bytes: true, ..RawSigning::default() }).await;
        assert!(ask(&on, v1(&canonical)).await.is_err());
        assert!(ask(&on, celestia("other", b"x")).await.expect_err("chain").contains("unexpected chain ID"));
        let signature = ask(&on, celestia(CHAIN, &canonical)).await.expect("behind its prefix");
        let key = VerifyingKey::from_bytes(on.chain.public_key().as_bytes()).expect("a key");
        let signature = Signature::from_slice(&signature).expect("64 bytes");
        assert!(key.verify(&canonical, &signature).is_err());
    });
}

#[test]
fn extensions_without_replay_protection_cannot_be_made_a_vote() {
    run(async {
        let canonical = sign_bytes::vote(CHAIN, &vote(5, 2, 2));
        let asked = |bytes: &[u8]| Vote { non_rp_extension: bytes.to_vec(), ..vote(5, 2, 1) };
        let off = Rig::new(RawSigning::default()).await;
        off.refuses(&asked(b"data"), "sign_non_rp_extensions").await;
        assert_eq!(off.log(), [], "nothing was recorded");
        assert_eq!(off.signs(&asked(b"")).await.non_rp_extension_signature.len(), 64);
        let on = Rig::new(RawSigning { non_rp_extensions: true, ..RawSigning::default() }).await;
        on.refuses(&asked(&canonical), "never signed").await;
        assert_eq!(on.signs(&asked(b"data")).await.non_rp_extension_signature.len(), 64);
    });
}

#[test]
fn two_validators_racing_for_one_place_get_one_message() {
    run(async {
        let rig = Rig::new(RawSigning::default()).await;
        let (a, b) = (vote(5, 1, 1), vote(5, 1, 2));
        let (first, second) = tokio::join!(rig.ask(&a), rig.ask(&b));
        assert!(first.error.is_none() && second.error.is_some());
        let same = Vote { timestamp: Timestamp { seconds: 1, nanos: 0 }, ..vote(6, 1, 1) };
        let again = vote(6, 1, 1);
        let (first, second) = tokio::join!(rig.signs(&again), rig.signs(&same));
        assert_eq!(first, second);
    });
}

#[test]
fn a_key_that_lied_is_reported_to_its_backend() {
    run(async {
        let rig = Rig::new(RawSigning::default()).await;
        rig.signs(&vote(5, 1, 1)).await;
        assert_eq!(rig.backend.distrusted.get(), 0);
        rig.backend.lies.set(true);
        rig.refuses(&vote(6, 1, 1), "does not verify").await;
        assert_eq!(rig.backend.distrusted.get(), 1);
    });
}

#[test]
fn an_extension_too_long_for_the_device_is_refused_before_the_watermark_rises() {
    run(async {
        let rig = Rig::new(RawSigning::default()).await;
        rig.backend.max_message.set(2000);
        let extended = |len| Vote { extension: vec![1; len], ..vote(5, 2, 1) };
        rig.refuses(&extended(2000), "signs 2000 at the most").await;
        assert_eq!(rig.log(), []);
        rig.signs(&extended(1900)).await;
    });
}

#[test]
fn a_request_that_nobody_waits_for_any_more_is_not_begun() {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime");
    LocalSet::new().block_on(&runtime, async {
        let rig = Rc::new(Rig::new(RawSigning::default()).await);
        rig.backend.takes.set(Duration::from_secs(6));
        let asks = |height| {
            let rig = Rc::clone(&rig);
            spawn_local(async move { rig.ask(&vote(height, 1, 1)).await.error })
        };
        let (first, late, gone) = (asks(5), asks(6), asks(7));
        tokio::task::yield_now().await;
        gone.abort();
        assert_eq!(first.await.expect("an answer"), None);
        let late = late.await.expect("an answer").expect("a refusal").description.to_string();
        assert!(late.contains("nobody waits"), "{late}");
        rig.backend.takes.set(Duration::ZERO);
        rig.signs(&vote(6, 1, 1)).await;
        assert_eq!(rig.chain.dropped(), 2);
    });
}

/// As [`run`], with a clock that goes when it is told to.
fn run_with_clock(test: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime");
    LocalSet::new().block_on(&runtime, test);
}

/// The limit of these chains is 1000 heights.
#[test]
fn jumps_in_a_row_come_out_of_one_limit() {
    run_with_clock(async {
        let rig = Rig::new(RawSigning::default()).await;
        rig.signs(&vote(10_000, 1, 1)).await;
        let (mut height, mut signed) = (10_000, 0);
        for _ in 0..200 {
            height += 100;
            match rig.ask(&vote(height, 1, 1)).await.error {
                None => signed += 1,
                Some(error) => assert!(error.description.to_string().contains("height jump"), "{error:?}"),
            }
        }
        assert_eq!(signed, 10, "of 200 jumps by 100 heights");
        rig.refuses(&vote(11_102, 1, 1), "height jump").await;
    });
}

#[test]
fn the_next_height_is_signed_whatever_was_skipped_before_and_however_fast() {
    run_with_clock(async {
        let rig = Rig::new(RawSigning::default()).await;
        rig.signs(&vote(1, 1, 1)).await;
        rig.signs(&vote(1001, 1, 1)).await;
        rig.refuses(&vote(1003, 1, 1), "more than 1 above").await;
        for height in 1002..4000 {
            rig.signs(&vote(height, 1, 1)).await;
        }
    });
}

#[test]
fn the_clock_gives_back_what_was_skipped_as_fast_as_blocks_are_made() {
    run_with_clock(async {
        let rig = Rig::new(RawSigning::default()).await;
        rig.signs(&vote(1, 1, 1)).await;
        rig.signs(&vote(1001, 1, 1)).await;
        tokio::time::advance(Duration::from_secs(20)).await;
        // A hundred blocks.
        rig.refuses(&vote(1103, 1, 1), "more than 101 above").await;
        rig.signs(&vote(1102, 1, 1)).await;
        tokio::time::advance(Duration::from_secs(3600)).await;
        rig.signs(&vote(2102, 1, 1)).await;
    });
}

#[test]
fn a_restart_gives_nothing_back_that_was_skipped() {
    run_with_clock(async {
        let mut rig = Rig::new(RawSigning::default()).await;
        rig.signs(&vote(1, 1, 1)).await;
        let mut height = 1;
        for _ in 0..50 {
            rig = Rig::restarted(rig.world, RawSigning::default()).await;
            if rig.ask(&vote(height + 300, 1, 1)).await.error.is_none() {
                height += 300;
            }
        }
        assert_eq!(height, 901, "three jumps of 300, and no more");
        // What the clock has explained is written down by the time that half is, and outlives a restart.
        tokio::time::advance(Duration::from_secs(150)).await;
        rig.signs(&vote(902, 1, 1)).await;
        let rig = Rig::restarted(rig.world, RawSigning::default()).await;
        rig.signs(&vote(902 + 800, 1, 1)).await;
    });
}

#[test]
fn a_jump_is_counted_before_the_record_rises() {
    run_with_clock(async {
        let rig = Rig::new(RawSigning::default()).await;
        rig.signs(&vote(1, 1, 1)).await;
        rig.log();
        rig.signs(&vote(500, 1, 1)).await;
        use Happened::{Counted, Signed, Synced, Written};
        assert_eq!(rig.log(), [Counted, Written, Synced, Signed]);
        // The power goes before the record has risen: the jump was not made, and can be.
        let before = rig.world.content.borrow().clone();
        rig.signs(&vote(1000, 1, 1)).await;
        *rig.world.content.borrow_mut() = before;
        let rig = Rig::restarted(rig.world, RawSigning::default()).await;
        rig.signs(&vote(1000, 1, 1)).await;
    });
}

#[test]
fn a_jump_that_cannot_be_counted_is_not_made() {
    run(async {
        let rig = Rig::new(RawSigning::default()).await;
        rig.signs(&vote(1, 1, 1)).await;
        rig.world.fail_sync.set(true);
        rig.refuses(&vote(500, 1, 1), "could not be written down").await;
        rig.world.fail_sync.set(false);
        // Nothing has risen, and the record is as good as before.
        rig.signs(&vote(2, 1, 1)).await;
    });
}

#[test]
fn what_was_skipped_and_cannot_be_read_counts_as_all() {
    run_with_clock(async {
        let rig = Rig::new(RawSigning::default()).await;
        rig.signs(&vote(1, 1, 1)).await;
        for text in ["", "{}", "1000", "\u{0}"] {
            *rig.world.skipped.borrow_mut() = Some(text.into());
            let again = Rig::restarted(Rc::clone(&rig.world), RawSigning::default()).await;
            again.refuses(&vote(10, 1, 1), "height jump").await;
        }
        let again = Rig::restarted(Rc::clone(&rig.world), RawSigning::default()).await;
        again.signs(&vote(2, 1, 1)).await;
    });
}

#[test]
fn a_jump_that_an_operator_allowed_is_not_counted() {
    run_with_clock(async {
        let rig = Rig::new(RawSigning::default()).await;
        rig.signs(&vote(1, 1, 1)).await;
        *rig.world.allowance.borrow_mut() = Some("50000".into());
        rig.signs(&vote(50_000, 1, 1)).await;
        rig.signs(&vote(51_000, 1, 1)).await;
    });
}

#[test]
fn the_first_height_is_one_that_a_chain_can_have() {
    run(async {
        for height in [i64::MAX, 5_000_000_001] {
            let rig = Rig::new(RawSigning::default()).await;
            rig.refuses(&vote(height, 1, 1), "height jump").await;
            rig.signs(&vote(30_000_000, 1, 1)).await;
        }
    });
}
