//! A malicious cosigner: it has a share, the identity of its connections and no guard. It asks every set of the others that is large
//! enough for different blocks at one place, and completes with its own share what it gets. Several of them share what they have. Or it
//! keeps the others from signing, as far as they let it.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context as _;
use ed25519_dalek::SigningKey;
use frost_core::round2;
use monosign::backend::softsign::unlock::UnlockEnv;
use monosign::config::{Config, Endpoint};
use monosign::seams::{Seams, Stream};
use monosign::threshold::asked::Subject;
use monosign::threshold::commitments;
use monosign::threshold::connection::read;
use monosign::threshold::deal::subsets;
use monosign::threshold::frost::{self, Identifier, KeyPackage, SignatureShare, SigningPackage};
use monosign::threshold::group::Group;
use monosign::threshold::incarnation::{Incarnation, Lives};
use monosign::threshold::message::{Hello, Place, Reply, Request, Signer, VERSION, encode};
use monosign::threshold::open;
use monosign::threshold::rounds::{self, Commitments, MemberId, NonceMaker, Shares};
use monosign_protocol::message::{BlockId, PartSetHeader, Timestamp, Vote};
use monosign_protocol::sign_bytes;
use monosign_protocol::{ChainId, Height};
use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, sleep, timeout};

use super::signer_host::{RECORD, SignerHost};
use crate::scenario::Cheat;

/// How often it tries.
const EVERY: Duration = Duration::from_secs(2);
/// How long it waits for an answer.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often it writes pings when it floods, and long frames, which take the simulator long.
const GUSH: Duration = Duration::from_millis(10);
const LONG_GUSH: Duration = Duration::from_millis(200);
/// How many pings it writes then.
const PINGS: usize = 100;
/// How far ahead of the chain it asks.
const AHEAD: [i64; 3] = [100_000, 50_000, 2000];

/// A malicious process, until it is killed.
pub(super) async fn run(
    host: &Rc<SignerHost>,
    config: &Config,
    seams: &Seams,
    how: Cheat,
) -> turmoil::Result {
    let rogue = Rogue::new(host, config, seams).await?;
    loop {
        // By then whoever is malicious as well has come.
        sleep(EVERY).await;
        match how {
            Cheat::PingFlood => {
                rogue.flood("pings without end", &encode(&Request::Ping(1)).repeat(PINGS), GUSH).await
            }
            Cheat::LongFrames => {
                let subject = Subject::Raw(vec![9; 1 << 20]);
                let longest = Request::Share { request: 1, nonce: u64::MAX, subject, others: vec![] };
                rogue.flood("frames as long as may be", &encode(&longest), LONG_GUSH).await;
            }
            Cheat::AheadOfTheChain => rogue.run_ahead().await,
            Cheat::LaterLives => rogue.claim_lives().await,
            Cheat::OtherBlocks | Cheat::BadShare | Cheat::ReplayedCommitment | Cheat::NonceTwice => {
                rogue.attack().await;
            }
        }
    }
}

struct Rogue {
    host: Rc<SignerHost>,
    seams: Seams,
    chain_id: ChainId,
    group: Rc<Group>,
    identity: SigningKey,
    peers: BTreeMap<MemberId, Endpoint>,
    life: Incarnation,
}

/// A share that malicious cosigners have.
struct Hand {
    member: MemberId,
    key: Rc<KeyPackage>,
    /// The life that the others take its cosigner to be in.
    life: Incarnation,
}

/// A peer that it has got in with.
struct Peer {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
    life: Incarnation,
    nonces: Vec<(u64, Vec<u8>)>,
    /// Where its guard stands.
    height: i64,
}

impl Rogue {
    async fn new(host: &Rc<SignerHost>, config: &Config, seams: &Seams) -> anyhow::Result<Self> {
        let chain = config.chains.first().context("a chain")?;
        let settings = chain.key.threshold().context("a share of a key")?;
        let opened = open::open(settings, &chain.id, &UnlockEnv::default(), &*seams.disk).await?;
        let known = Lives::load(&*seams.disk, &Lives::path(RECORD.as_ref())).await.ok().flatten();
        // The last one that the honest process was in is known to everybody.
        let life = known.unwrap_or_default().own.next(&*seams.entropy);
        host.turns_malicious(life);
        Ok(Self {
            host: Rc::clone(host),
            seams: seams.clone(),
            chain_id: chain.id.clone(),
            identity: opened.share.identity().clone(),
            group: opened.group,
            peers: settings.peers.clone(),
            life,
        })
    }

    /// All shares that malicious cosigners have.
    async fn hands(&self) -> anyhow::Result<Vec<Hand>> {
        let mut hands = Vec::new();
        for (config, life) in self.host.malicious() {
            let chain = config.chains.first().context("a chain")?;
            let settings = chain.key.threshold().context("a share of a key")?;
            let opened = open::open(settings, &chain.id, &UnlockEnv::default(), &*self.seams.disk).await?;
            let key = opened.share.key_package(&self.group)?;
            hands.push(Hand { member: opened.share.id(), key, life });
        }
        Ok(hands)
    }

    async fn attack(&self) {
        let Ok(hands) = self.hands().await else { return };
        let is_honest = |member: MemberId| hands.iter().all(|hand| hand.member != member);
        let mut peers = BTreeMap::new();
        for (member, endpoint) in self.peers.iter().filter(|(member, _)| is_honest(**member)) {
            if let Ok(Ok(peer)) = timeout(PATIENCE, self.enter(*member, endpoint)).await {
                peers.insert(*member, peer);
            }
        }
        let Some(height) = peers.values().map(|peer| peer.height).max() else { return };
        let members: Vec<_> = peers.keys().copied().collect();
        let missing = usize::from(self.group.shape().threshold()).saturating_sub(hands.len());
        let sets = subsets(&members, missing);
        for (n, set) in sets.iter().enumerate() {
            let block = if n == 0 { 1 } else { 2 };
            let bytes = sign_bytes::vote(self.chain_id.as_str(), &prevote(height + 1, block));
            self.try_to_sign(&mut peers, &hands, set, &bytes).await;
        }
        for set in sets.iter().take(1) {
            let foreign = sign_bytes::vote("another-1", &prevote(height + 2, 1));
            let mut unreadable = sign_bytes::vote(self.chain_id.as_str(), &prevote(height + 2, 1));
            unreadable[0] += 2;
            unreadable.extend([0x48, 0x01]);
            for bytes in [foreign, unreadable] {
                self.try_to_sign(&mut peers, &hands, set, &bytes).await;
            }
        }
    }

    /// Gets in with each of the others.
    async fn enter_all(&self) -> BTreeMap<MemberId, Peer> {
        let mut peers = BTreeMap::new();
        for (member, endpoint) in &self.peers {
            if let Ok(Ok(peer)) = timeout(PATIENCE, self.enter(*member, endpoint)).await {
                peers.insert(*member, peer);
            }
        }
        peers
    }

    /// Writes the same to all of the others, and reads nothing, as long as they let it.
    async fn flood(&self, what: &'static str, bytes: &[u8], every: Duration) {
        let mut peers = self.enter_all().await;
        let until = Instant::now() + EVERY;
        while Instant::now() < until && !peers.is_empty() {
            let mut left = BTreeMap::new();
            for (member, mut peer) in std::mem::take(&mut peers) {
                if let Ok(Ok(())) = timeout(every, peer.stream.write_all(bytes)).await {
                    self.host.reach().hit(what);
                    left.insert(member, peer);
                }
            }
            peers = left;
            sleep(every).await;
        }
    }

    /// Asks each of the others for a share far ahead of the chain.
    async fn run_ahead(&self) {
        let Ok(hands) = self.hands().await else { return };
        let mut peers = self.enter_all().await;
        let members: Vec<_> = peers.keys().copied().collect();
        let missing = usize::from(self.group.shape().threshold()).saturating_sub(hands.len());
        let Some(height) = peers.values().map(|peer| peer.height).max() else { return };
        for (set, ahead) in subsets(&members, missing).iter().zip(AHEAD) {
            let bytes = sign_bytes::vote(self.chain_id.as_str(), &prevote(height + ahead, 1));
            self.try_to_sign(&mut peers, &hands, set, &bytes).await;
        }
    }

    /// Says hello to each of the others as the last of all lives.
    async fn claim_lives(&self) {
        for (member, endpoint) in &self.peers {
            let life = Incarnation { count: u64::MAX, id: u64::MAX };
            let _ = timeout(PATIENCE, self.enter_as(life, *member, endpoint)).await;
            self.host.reach().hit("last of all lives claimed");
        }
    }

    /// Gets in with a peer, and hears what it knows and what nonces it offers.
    async fn enter(&self, member: MemberId, endpoint: &Endpoint) -> anyhow::Result<Peer> {
        self.enter_as(self.life, member, endpoint).await
    }

    async fn enter_as(
        &self,
        incarnation: Incarnation,
        member: MemberId,
        endpoint: &Endpoint,
    ) -> anyhow::Result<Peer> {
        let identity = *self.group.identity(member).context("a member")?;
        let transport = self.seams.net.transport(&self.identity, &[])?;
        let stream = self.seams.net.dial(endpoint).await?;
        let mut stream = transport.dial(stream, &identity).await?;
        let hello = Hello {
            versions: (VERSION, VERSION),
            group: self.group.verifying_key().to_bytes(),
            epoch: self.group.epoch(),
            incarnation,
            seen_of_you: Place::default(),
        };
        say(&mut stream, &Request::Hello(hello)).await?;
        let (mut buffer, mut welcome) = (Vec::new(), None);
        loop {
            match read(&mut stream, &mut buffer).await?.0 {
                Reply::Welcome(said) => welcome = Some(said),
                Reply::Commitments(nonces) => {
                    let welcome = welcome.context("a welcome first")?;
                    let (life, height) = (welcome.incarnation, welcome.guard.place.height);
                    return Ok(Peer { stream, buffer, life, nonces, height });
                }
                _ => {}
            }
        }
    }

    /// Has these peers make shares of a message, and completes the signature if all of them do.
    async fn try_to_sign(
        &self,
        peers: &mut BTreeMap<MemberId, Peer>,
        hands: &[Hand],
        set: &[MemberId],
        bytes: &[u8],
    ) {
        match timeout(PATIENCE, self.signed(peers, hands, set, bytes)).await {
            Ok(Ok(signature)) => {
                self.host.reach().hit("malicious cosigner got a signature");
                self.host.group_signed(bytes, &signature);
            }
            _ => self.host.reach().hit("malicious cosigner was refused"),
        }
    }

    async fn signed(
        &self,
        peers: &mut BTreeMap<MemberId, Peer>,
        hands: &[Hand],
        set: &[MemberId],
        bytes: &[u8],
    ) -> anyhow::Result<[u8; 64]> {
        let (mut commitments, mut signers, mut nonces) = (Commitments::new(), Vec::new(), BTreeMap::new());
        let mut own = Vec::new();
        for Hand { member, key, life } in hands {
            let (secret, public) = NonceMaker::new(Rc::clone(key), Rc::clone(&self.seams.entropy)).fresh();
            commitments.insert(*member, public);
            let bytes = commitments::write(&public).context("its own commitments")?;
            signers.push(Signer { member: *member, incarnation: *life, commitments: bytes });
            own.push((*member, secret, key));
        }
        for member in set {
            let peer = peers.get_mut(member).context("a peer")?;
            let (nonce, bytes) = peer.nonces.pop().context("nonces")?;
            commitments.insert(*member, commitments::read(&bytes).context("commitments")?);
            signers.push(Signer { member: *member, incarnation: peer.life, commitments: bytes });
            nonces.insert(*member, nonce);
        }
        let mut shares = Shares::new();
        for (member, nonce) in nonces {
            let others = signers.iter().filter(|signer| signer.member != member).cloned().collect();
            let request =
                Request::Share { request: nonce, nonce, subject: Subject::Message(bytes.into()), others };
            let peer = peers.get_mut(&member).context("a peer")?;
            say(&mut peer.stream, &request).await?;
            shares.insert(member, share_of(peer).await?);
        }
        for (member, secret, key) in own {
            shares.insert(member, round2::sign(&package(&commitments, bytes)?, &secret, key)?);
        }
        Ok(rounds::aggregate(&self.group, &commitments, &shares, None, bytes)?.signature())
    }
}

async fn say(stream: &mut Box<dyn Stream>, request: &Request) -> std::io::Result<()> {
    stream.write_all(&encode(request)).await?;
    stream.flush().await
}

async fn share_of(peer: &mut Peer) -> anyhow::Result<SignatureShare> {
    loop {
        match read(&mut peer.stream, &mut peer.buffer).await?.0 {
            Reply::Share { share, .. } => return Ok(SignatureShare::deserialize(&share)?),
            Reply::Refused { why, .. } => anyhow::bail!("{why:?}"),
            Reply::Commitments(more) => peer.nonces.extend(more),
            _ => {}
        }
    }
}

fn package(commitments: &Commitments, bytes: &[u8]) -> anyhow::Result<SigningPackage> {
    let named = commitments.iter().map(|(member, of)| Ok((Identifier::try_from(member.0)?, *of)));
    Ok(SigningPackage::new(named.collect::<Result<_, frost::Error>>()?, bytes))
}

/// A prevote for a block that no chain has.
fn prevote(height: i64, block: u8) -> Vote {
    let part_set_header = PartSetHeader { total: 1, hash: vec![block; 32] };
    Vote {
        vote_type: 1,
        height: Height(height),
        block_id: BlockId { hash: vec![block; 32], part_set_header },
        timestamp: Timestamp { seconds: 1_700_000_000, nanos: 0 },
        ..Vote::default()
    }
}
