//! A run that people can watch: a node asks a signer for some heights, and at the end for a double sign.

use std::{
    fmt,
    io::{self, Write},
    time::Duration,
};

use data_encoding::HEXLOWER;
use ed25519_dalek::{SigningKey, VerifyingKey};
use monosign_protocol::Hrs;
use monosign_protocol::message::{RemoteSignerError, Timestamp};
use tokio::time::{Instant, sleep};

use crate::carrier::{Carrier, NoAnswer};
use crate::link::{LinkError, Listener, Peer, read_limit};
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
    /// How long to wait for a signer to connect, at first and after a lost connection.
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
        last: Option<LinkError>,
    },
    /// The signer's connection was lost at each attempt to ask.
    #[error("no answer from the signer: {0}")]
    Lost(LinkError),
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
    let carrier = Carrier::new(listener, identity, entropy, wait, read_limit(node.dialect));
    let clock = Clock { start, origin: Instant::now() };
    let mut show = Show { carrier, node: Node::new(node), clock, wait, signatures: 0, out };

    writeln!(show.out, "waiting for a signer on {}", listener.address())?;
    show.connect().await?;
    let public_key = show.public_key().await?;
    for block in 0..blocks.max(1) {
        if block > 0 {
            sleep(block_time).await;
            show.public_key().await?;
        }
        show.height().await?;
    }
    let refusal = show.double_sign().await?;
    let (blocks, signatures) = (blocks.max(1), show.signatures);
    writeln!(show.out, "{blocks} blocks, {signatures} signatures, 1 double sign refused")?;
    Ok(Summary { blocks, signatures, public_key, refusal })
}

struct Show<'a> {
    carrier: Carrier<'a>,
    node: Node,
    clock: Clock,
    wait: Duration,
    signatures: u64,
    out: &'a mut dyn Write,
}

impl Show<'_> {
    async fn connect(&mut self) -> Result<(), ShowError> {
        let peer = self.carrier.connect().await.map_err(|error| no_answer(error, self.wait))?;
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
        let answer = self.carrier.ask(&request).await.map_err(|error| no_answer(error, self.wait))?;
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
        let answer = self.carrier.ask(request).await.map_err(|error| no_answer(error, self.wait))?;
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

fn no_answer(error: NoAnswer, wait: Duration) -> ShowError {
    match error {
        NoAnswer::NoSigner { last } => ShowError::NoSigner { wait, last },
        NoAnswer::Lost(error) => ShowError::Lost(error),
    }
}

fn because(last: &Option<LinkError>) -> String {
    last.as_ref().map(|error| format!(" (the last one that tried: {error})")).unwrap_or_default()
}
