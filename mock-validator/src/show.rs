//! A run that people can watch: a node asks a signer for some heights, and at the end for a double sign.

use std::{
    fmt,
    io::{self, Write},
    sync::Arc,
    time::Duration,
};

use data_encoding::HEXLOWER;
use ed25519_dalek::{SigningKey, VerifyingKey};
use monosign_protocol::Hrs;
use monosign_protocol::message::{Message, RemoteSignerError, Timestamp};
use tokio::time::{Instant, sleep};

use crate::endpoint::{self, Failure, NoAnswer, NoSigner, RetryClient, SignerEndpoint};
use crate::link::{LinkError, Listener, Peer, Transport};
use crate::node::probes::conflict;
use crate::node::{Answer, Misbehaviour, Node, Outcome, Settings};

/// What to show.
pub struct Options {
    /// The chain, the dialect and the first height.
    pub node: Settings,
    /// How many heights to run, at least one.
    pub blocks: u64,
    /// The pause between two heights.
    pub block_time: Duration,
    /// How long to wait for a signer to connect at first. A node that runs has its own patience
    /// ([`endpoint::RetryClient`]).
    pub wait: Duration,
    /// The time of the first request; later ones follow tokio's clock.
    pub start: Timestamp,
    /// The node's identity on encrypted transports.
    pub identity: SigningKey,
    /// Gives 32 fresh random bytes at each call, for the handshakes.
    pub entropy: Box<dyn FnMut() -> [u8; 32]>,
}

/// What was shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// How many heights were signed.
    pub blocks: u64,
    /// How many signatures were made and checked, without those of extensions.
    pub signatures: u64,
    /// The signer's public key.
    pub public_key: VerifyingKey,
    /// What the signer answered to the double sign.
    pub refusal: RemoteSignerError,
}

/// Why a run did not come to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShowError {
    /// No signer connected in time.
    #[error("no signer connected within {} s{}; point the signer's `[[validator]] addr` here", wait.as_secs_f64(), because(last))]
    NoSigner {
        /// How long was waited.
        wait: Duration,
        /// What became of the last one that tried.
        last: Option<Arc<LinkError>>,
    },
    /// The signer gave no answer for as long as a node asks.
    #[error("the signer gave {0}")]
    NoAnswer(#[from] NoAnswer),
    /// The signer refused to show its key.
    #[error("the signer refused to show its public key: {0}")]
    KeyRefused(RemoteSignerError),
    /// The signer refused what is safe to sign.
    #[error(
        "the signer refused `{hrs}`: {error}\nhint: if it has signed higher before, begin above that height"
    )]
    Refused {
        /// What was to be signed.
        hrs: Hrs,
        /// What the signer said.
        error: RemoteSignerError,
    },
    /// The signer gave an answer that no node could use.
    #[error(transparent)]
    Misbehaved(#[from] Misbehaviour),
    /// The signer signed two blocks at one height, round and step.
    #[error("DOUBLE SIGN: the signer signed two blocks at `{hrs}`; do not use it")]
    SignedTwice {
        /// Where.
        hrs: Hrs,
    },
    /// The lines could not be written.
    #[error("output failed: {0}")]
    Output(#[from] io::Error),
}

/// Waits on `listener` for a signer, asks it for the signatures of some heights with one line for each on `out`, and at
/// the end for a precommit that conflicts with the last one, which must be refused.
///
/// # Errors
/// [`ShowError`] at the first answer that is not as it should be.
pub async fn show(listener: &Listener, options: Options, out: &mut dyn Write) -> Result<Summary, ShowError> {
    let Options { node, blocks, block_time, wait, start, identity, entropy } = options;
    let settings = endpoint::Settings {
        dialect: node.dialect,
        transport: Transport::from(listener.address()),
        identity,
        entropy,
        observer: Box::new(|_| {}),
    };
    let client = RetryClient::new(SignerEndpoint::new(listener, settings));
    let clock = Clock { start, origin: Instant::now() };
    let mut show = Show { client: &client, node: Node::new(node), clock, signatures: 0, out };

    writeln!(show.out, "waiting for a signer on {}", listener.address())?;
    tokio::select! {
        biased;
        summary = show.run(wait, blocks.max(1), block_time) => summary,
        never = client.run() => match never {},
    }
}

struct Show<'a> {
    client: &'a RetryClient<&'a Listener>,
    node: Node,
    clock: Clock,
    signatures: u64,
    out: &'a mut dyn Write,
}

impl Show<'_> {
    async fn run(&mut self, wait: Duration, blocks: u64, block_time: Duration) -> Result<Summary, ShowError> {
        self.connect(wait).await?;
        let public_key = self.public_key().await?;
        for block in 0..blocks {
            if block > 0 {
                sleep(block_time).await;
                self.public_key().await?;
            }
            self.height().await?;
        }
        let refusal = self.double_sign().await?;
        let signatures = self.signatures;
        writeln!(self.out, "{blocks} blocks, {signatures} signatures, 1 double sign refused")?;
        Ok(Summary { blocks, signatures, public_key, refusal })
    }

    async fn connect(&mut self, wait: Duration) -> Result<(), ShowError> {
        let peer = self.client.endpoint().wait_for_connection(wait).await;
        let peer = peer.map_err(|NoSigner { last }| ShowError::NoSigner { wait, last })?;
        writeln!(self.out, "connected: {}", Shown(&peer))?;
        Ok(())
    }

    async fn public_key(&mut self) -> Result<VerifyingKey, ShowError> {
        let is_first = self.node.verifier().key().is_none() || self.signatures == 0;
        match self.ask().await? {
            Outcome::PublicKey(key) => {
                if is_first {
                    writeln!(self.out, "public key: ed25519 {}", HEXLOWER.encode(key.as_bytes()))?;
                }
                Ok(key)
            }
            Outcome::Refused { error, .. } => Err(ShowError::KeyRefused(error)),
            Outcome::Signed(_) => Err(Misbehaviour::Unasked.into()),
        }
    }

    async fn height(&mut self) -> Result<(), ShowError> {
        let height = self.node.height();
        let begin = Instant::now();
        let mut extension = "";
        while self.node.height() == height {
            match self.ask().await? {
                Outcome::Signed(signed) => {
                    self.signatures += 1;
                    if signed.extension_signature.is_some() {
                        extension = " with extension";
                    }
                }
                Outcome::Refused { hrs: Some(hrs), error } => return Err(ShowError::Refused { hrs, error }),
                Outcome::Refused { hrs: None, error } => return Err(ShowError::KeyRefused(error)),
                Outcome::PublicKey(_) => return Err(Misbehaviour::Unasked.into()),
            }
        }
        let took = begin.elapsed().as_secs_f64() * 1e3;
        writeln!(
            self.out,
            "height {height}: proposal, prevote, precommit{extension} signed in {took:.1} ms"
        )?;
        Ok(())
    }

    async fn double_sign(&mut self) -> Result<RemoteSignerError, ShowError> {
        let request = self.node.last_precommit().and_then(conflict).ok_or(Misbehaviour::Unasked)?;
        let answer = last_word(self.client.ask(&request).await)?;
        match self.node.verifier().check(&request, answer)? {
            Answer::Refused { hrs, error } => {
                if let Some(hrs) = hrs {
                    let (height, step) = (hrs.height, hrs.step);
                    writeln!(
                        self.out,
                        "height {height}: asked for a {step} of another block: refused: {error}"
                    )?;
                }
                Ok(error)
            }
            Answer::Signed(signed) => Err(ShowError::SignedTwice { hrs: signed.hrs }),
            Answer::PublicKey(_) => Err(Misbehaviour::Unasked.into()),
        }
    }

    async fn ask(&mut self) -> Result<Outcome, ShowError> {
        let request = self.node.poll_request(self.clock.now());
        let answer = last_word(self.client.ask(request).await)?;
        Ok(self.node.handle_answer(answer)?)
    }
}

/// The time of day as the start and what passed since.
struct Clock {
    start: Timestamp,
    origin: Instant,
}

impl Clock {
    fn now(&self) -> Timestamp {
        let passed = self.origin.elapsed();
        let nanos = i64::from(self.start.nanos) + i64::from(passed.subsec_nanos());
        Timestamp {
            seconds: self.start.seconds + passed.as_secs() as i64 + nanos / 1_000_000_000,
            nanos: (nanos % 1_000_000_000) as i32,
        }
    }
}

struct Shown<'a>(&'a Peer);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Peer::Unknown => f.write_str("a signer, not encrypted"),
            Peer::Secret(identity) => write!(f, "signer {} over SecretConnection", identity.id()),
            Peer::Noise(id) => write!(f, "signer {id} over noise"),
        }
    }
}

/// What the signer said, be it something else than an answer: the node's check names what is wrong with it.
fn last_word(answer: Result<Message, NoAnswer>) -> Result<Option<Message>, NoAnswer> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(NoAnswer::Exhausted { last: Failure::Unexpected { answer }, .. }) => {
            Ok(answer.map(|answer| *answer))
        }
        Err(error) => Err(error),
    }
}

fn because(last: &Option<Arc<LinkError>>) -> String {
    last.as_ref().map(|error| format!(" (the last one that tried: {error})")).unwrap_or_default()
}
