use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use ed25519_dalek::{SigningKey, VerifyingKey};
use mock_validator::link::{Address, LinkError, Listener, NodeLink, Socket};
use mock_validator::node::{Answer, Blocks, Requests, Settings, Signed, Verifier};
use mock_validator::show::{Options, show};
use monosign_protocol::message::{BlockId, Message, RemoteSignerError, Timestamp};
use monosign_protocol::{Dialect, Height, Hrs, Round, Step};

use super::{DEADLINE, Home, POLL, Signer, signing_key, within_deadline};

/// A listening node.
pub(crate) struct NodeSide {
    listener: Listener,
    identity: SigningKey,
    fresh: Cell<u64>,
}

impl NodeSide {
    pub(crate) async fn tcp() -> Self {
        Self::listen("tcp://127.0.0.1:0").await
    }

    pub(crate) async fn listen(address: &str) -> Self {
        Self::listen_as(address, SigningKey::from_bytes(&[4; 32])).await
    }

    pub(crate) async fn listen_as(address: &str, identity: SigningKey) -> Self {
        let address: Address = address.parse().expect("an address");
        // A port that was free a moment ago may be the source of somebody's connection.
        let listener = within_deadline("a free port", async {
            loop {
                match Listener::bind(&address).await {
                    Err(error) if error.kind() == io::ErrorKind::AddrInUse => tokio::time::sleep(POLL).await,
                    other => return other.expect("a listener"),
                }
            }
        })
        .await;
        Self { listener, identity, fresh: Cell::new(0) }
    }

    /// What the signer's configuration says.
    pub(crate) fn addr(&self) -> String {
        self.listener.address().to_string()
    }

    pub(crate) fn socket_addr(&self) -> SocketAddr {
        match self.listener.address() {
            Address::Tcp(addr) | Address::Noise { addr, .. } => *addr,
            other => panic!("{other} has no port"),
        }
    }

    /// The next socket, without a handshake.
    pub(crate) async fn accept_socket(&self) -> Socket {
        within_deadline("a signer to dial", self.listener.accept()).await.expect("a socket")
    }

    /// The next signer that gets through the handshake: as a node's, the backlog may hold dead ones.
    pub(crate) async fn accept(&self) -> NodeLink<Socket> {
        within_deadline("a signer to shake hands", async {
            loop {
                if let Ok(link) = self.handshake(self.accept_socket().await).await {
                    return link;
                }
            }
        })
        .await
    }

    pub(crate) async fn handshake(&self, socket: Socket) -> Result<NodeLink<Socket>, LinkError> {
        let mut entropy = || {
            self.fresh.set(self.fresh.get() + 1);
            let mut bytes = [5; 32];
            bytes[..8].copy_from_slice(&self.fresh.get().to_le_bytes());
            bytes
        };
        self.listener.handshake(socket, &self.identity, &mut entropy).await
    }

    /// The next signer, ready to be asked about `chain`.
    pub(crate) async fn converse(&self, chain: &str) -> Conversation {
        Conversation::new(self.accept().await, chain)
    }

    /// The same, once the signer has logged that it is ready, and has signed at height 1.
    pub(crate) async fn converse_once(&self, chain: &str, signer: &Signer, ready: &str) -> Conversation {
        signer.logs(ready).await;
        let mut conversation = self.converse(chain).await;
        conversation.signs_prevote(1).await;
        conversation
    }
}

/// A connection on which a node of v0.38 without extensions asks for a chain's signatures.
pub(crate) struct Conversation {
    pub(crate) link: NodeLink<Socket>,
    pub(crate) requests: Requests,
    pub(crate) verifier: Verifier,
}

impl Conversation {
    pub(crate) fn new(link: NodeLink<Socket>, chain: &str) -> Self {
        let key = signing_key(chain).verifying_key();
        Self { link, requests: requests(chain, None), verifier: verifier(chain, false, key) }
    }

    /// The answer, whatever it is.
    pub(crate) async fn ask(&mut self, request: &Message) -> Result<Option<Message>, LinkError> {
        match tokio::time::timeout(DEADLINE, self.link.ask(request)).await {
            Ok(answer) => answer,
            Err(_) => panic!("no answer to {request:?}"),
        }
    }

    /// The answer as a node takes it; one that it could not use fails the test.
    #[track_caller]
    pub(crate) fn judge(&self, request: &Message, answer: Option<Message>) -> Answer {
        match self.verifier.check(request, answer) {
            Ok(answer) => answer,
            Err(error) => panic!("{error} in the answer to {request:?}"),
        }
    }

    pub(crate) async fn signs(&mut self, request: &Message) -> Signed {
        let answer = self.ask(request).await.expect("an answer");
        match self.judge(request, answer) {
            Answer::Signed(signed) => signed,
            other => panic!("{other:?} to {request:?}"),
        }
    }

    pub(crate) async fn refuses(&mut self, request: &Message) -> RemoteSignerError {
        let answer = self.ask(request).await.expect("an answer");
        match self.judge(request, answer) {
            Answer::Refused { error, .. } => error,
            other => panic!("{other:?} to {request:?}"),
        }
    }

    /// A prevote, a precommit or a proposal for the block of that height.
    pub(crate) fn request(&self, height: i64, round: i32, step: Step) -> Message {
        let hrs = Hrs { height: Height(height), round: Round(round), step };
        self.requests.sign(hrs, self.block(height), NOW)
    }

    pub(crate) fn block(&self, height: i64) -> BlockId {
        self.requests.blocks().block(Height(height), 0)
    }

    pub(crate) async fn signs_prevote(&mut self, height: i64) -> Signed {
        let request = self.request(height, 0, Step::Prevote);
        self.signs(&request).await
    }

    /// Three heights are refused with these words, and the record stays where it is.
    pub(crate) async fn records_nothing(&mut self, home: &Home, chain: &str, words: &str) {
        let recorded = home.watermark(chain);
        for height in recorded.0 + 1..recorded.0 + 4 {
            let request = self.request(height, 0, Step::Prevote);
            let error = self.refuses(&request).await.description.to_string();
            assert!(error.contains(words), "{error}");
            assert_eq!(home.watermark(chain), recorded);
        }
    }

    pub(crate) async fn shows_key(&mut self) -> VerifyingKey {
        let request = self.requests.public_key();
        let answer = self.ask(&request).await.expect("an answer");
        match self.judge(&request, answer) {
            Answer::PublicKey(key) => key,
            other => panic!("{other:?} instead of a key"),
        }
    }

    pub(crate) async fn answers_ping(&mut self) {
        assert_eq!(self.ask(&Message::PingRequest).await.expect("an answer"), Some(Message::PingResponse));
    }

    /// Waits until the signer has closed the connection.
    pub(crate) async fn is_closed(&mut self) {
        match tokio::time::timeout(DEADLINE, self.link.receive()).await {
            Ok(Err(LinkError::Closed | LinkError::Io(_))) => {}
            Ok(other) => panic!("{other:?} on a connection that should be closed"),
            Err(_) => panic!("the connection is still open"),
        }
    }
}

/// The time of every request, unless the test says otherwise.
pub(crate) const NOW: Timestamp = Timestamp { seconds: 1_700_000_000, nanos: 5 };

pub(crate) fn requests(chain: &str, extension_bytes: Option<usize>) -> Requests {
    let id = chain.parse().expect("a chain id");
    Requests::new(id, Dialect::V0_38, extension_bytes, Blocks::new([7; 32]))
}

pub(crate) fn verifier(chain: &str, extensions: bool, key: VerifyingKey) -> Verifier {
    Verifier::new(chain.parse().expect("a chain id"), Dialect::V0_38, extensions, Some(key))
}

impl NodeSide {
    /// A validator of each release asks for some heights, with extensions where it has them, and ends with a double sign, which
    /// must be refused.
    pub(crate) async fn is_served_in_every_dialect(&self, chain: &str) {
        for (n, dialect) in (0..).zip(Dialect::ALL) {
            let node = Settings {
                chain_id: chain.parse().expect("a chain id"),
                dialect,
                first_height: Height(1 + 10 * n),
                extension_bytes: dialect.has_extensions().then_some(1500),
                expected_key: Some(signing_key(chain).verifying_key()),
                seed: [7; 32],
            };
            let mut fresh = 100 * n as u64;
            let entropy = move || {
                fresh += 1;
                let mut bytes = [6; 32];
                bytes[..8].copy_from_slice(&fresh.to_le_bytes());
                bytes
            };
            let options = Options {
                node,
                blocks: 3,
                block_time: Duration::ZERO,
                wait: DEADLINE,
                start: Timestamp { seconds: NOW.seconds + 1000 * n, nanos: 0 },
                identity: self.identity.clone(),
                entropy: Box::new(entropy),
            };
            let mut out = Vec::new();
            let shown = show(&self.listener, options, &mut out).await;
            if let Err(error) = shown {
                panic!("{dialect}: {error}\n{}", String::from_utf8_lossy(&out));
            }
        }
    }
}
