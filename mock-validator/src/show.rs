//! A run that people can watch: a node asks a signer for some heights, and at the end for a double sign.

use std::{
    cell::RefCell,
    fmt,
    io::{self, Write},
    rc::Rc,
    time::Duration,
};

use data_encoding::HEXLOWER;
use ed25519_dalek::{SigningKey, VerifyingKey};
use monosign_protocol::Hrs;
use monosign_protocol::message::{Message, RemoteSignerError, Timestamp};
use tokio::time::{Instant, sleep, timeout};

use crate::endpoint::{self, Event, Failure, Loss, NoAnswer, RetryClient, SignerEndpoint};
use crate::link::{Listener, Peer, Transport};
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
    /// How long to wait for the signer's first answer, and for each after that. A node alone has more patience
    /// ([`endpoint::RetryClient`]): seven minutes.
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
    /// No signer connected in time, or none stayed for an answer.
    #[error("no signer {} within {} s; {seen}", if seen.dials == 0 { "connected" } else { "answered" }, wait.as_secs_f64())]
    NoSigner {
        /// How long was waited.
        wait: Duration,
        /// Who came meanwhile.
        seen: Dials,
    },
    /// The signer had answered before, and gave no answer any more.
    #[error("the signer gave no answer to {asked} within {} s; since it answered last, {seen}", wait.as_secs_f64())]
    Lost {
        /// The request's name.
        asked: &'static str,
        /// How long was waited.
        wait: Duration,
        /// Who came meanwhile.
        seen: Dials,
    },
    /// The signer gave no answer for as long as a node asks.
    // It has its reason in its words, so it is no source: those who print a chain of causes would say it twice.
    #[error("the signer gave {0}")]
    NoAnswer(NoAnswer),
    /// The signer refused to show its key.
    #[error("the signer refused to show its public key: {0}")]
    KeyRefused(RemoteSignerError),
    /// The signer refused what is safe to sign.
    #[error("the signer refused `{hrs}`: {error}{}", hint_of(error))]
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
    // As above.
    #[error("output failed: {0}")]
    Output(io::Error),
}

impl From<NoAnswer> for ShowError {
    fn from(error: NoAnswer) -> Self {
        Self::NoAnswer(error)
    }
}

impl From<io::Error> for ShowError {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Who dialed since the last answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dials {
    /// How many dials were accepted.
    pub dials: u64,
    /// What became of the last of them, if it is known.
    pub last: Option<String>,
}

impl Dials {
    fn note(&mut self, event: Event<'_>) {
        match event {
            Event::Accepted { .. } => self.dials += 1,
            Event::Answered { .. } => *self = Self::default(),
            Event::HandshakeFailed { error, .. }
            | Event::Lost { why: Loss::Error(error), .. }
            | Event::Failed { failure: Failure::Link(error), .. } => self.last = Some(error.to_string()),
            _ => {}
        }
    }
}

impl fmt::Display for Dials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.dials, &self.last) {
            (0, None) => f.write_str("nobody dialed: point the signer's `[[validator]] addr` here"),
            (0, Some(last)) => write!(f, "nobody dialed again: {last}"),
            (dials, last) => {
                let times = if dials == 1 {
                    "somebody dialed once".into()
                } else {
                    format!("there were {dials} dials")
                };
                write!(f, "{times}, and no answer came: {}", last.as_deref().unwrap_or("nothing was said"))
            }
        }
    }
}

/// Waits on `listener` for a signer, asks it for the signatures of some heights with one line for each on `out`, and at
/// the end for a precommit that conflicts with the last one, which must be refused.
///
/// # Errors
/// [`ShowError`] at the first answer that is not as it should be.
pub async fn show(listener: &Listener, options: Options, out: &mut dyn Write) -> Result<Summary, ShowError> {
    let Options { node, blocks, block_time, wait, start, identity, entropy } = options;
    let dials = Rc::new(RefCell::new(Dials::default()));
    let settings = endpoint::Settings {
        dialect: node.dialect,
        transport: Transport::from(listener.address()),
        identity,
        entropy,
        observer: {
            let dials = dials.clone();
            Box::new(move |event| dials.borrow_mut().note(event))
        },
    };
    let client = RetryClient::new(SignerEndpoint::new(listener, settings));
    let clock = Clock { start, origin: Instant::now() };
    let mut show = Show { client: &client, dials, wait, node: Node::new(node), clock, signatures: 0, out };

    writeln!(show.out, "waiting for a signer on {}", listener.address())?;
    tokio::select! {
        biased;
        summary = show.run(blocks.max(1), block_time) => summary,
        never = client.run() => match never {},
    }
}

struct Show<'a> {
    client: &'a RetryClient<&'a Listener>,
    dials: Rc<RefCell<Dials>>,
    wait: Duration,
    node: Node,
    clock: Clock,
    signatures: u64,
    out: &'a mut dyn Write,
}

impl Show<'_> {
    async fn run(&mut self, blocks: u64, block_time: Duration) -> Result<Summary, ShowError> {
        // One time for all of it: a signer that dials and hangs up, again and again, has connected each time.
        let wait = self.wait;
        let first = timeout(wait, async {
            self.connect().await?;
            self.public_key().await
        });
        let public_key = match first.await {
            Ok(Err(ShowError::Lost { wait, seen, .. })) => return Err(ShowError::NoSigner { wait, seen }),
            Ok(shown) => shown?,
            Err(_) => return Err(ShowError::NoSigner { wait, seen: self.dials.borrow().clone() }),
        };
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

    async fn connect(&mut self) -> Result<(), ShowError> {
        let wait = self.wait;
        let peer = self.client.endpoint().wait_for_connection(wait).await;
        let peer = peer.map_err(|_| ShowError::NoSigner { wait, seen: self.dials.borrow().clone() })?;
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
        let answer = self.answer(&request).await?;
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
        let request = self.node.poll_request(self.clock.now()).clone();
        let answer = self.answer(&request).await?;
        Ok(self.node.handle_answer(answer)?)
    }

    async fn answer(&mut self, request: &Message) -> Result<Option<Message>, ShowError> {
        let (asked, wait) = (request.name(), self.wait);
        match timeout(wait, self.client.ask(request)).await {
            Ok(answer) => Ok(last_word(answer)?),
            Err(_) => Err(ShowError::Lost { asked, wait, seen: self.dials.borrow().clone() }),
        }
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

/// Only a place that was signed before is mended by another height.
fn hint_of(error: &RemoteSignerError) -> &'static str {
    let text = error.description.to_string();
    let words = ["regression", "conflicting data", "double sign", "no SignBytes found"];
    match words.iter().any(|word| text.contains(word)) {
        true => "\nhint: it has signed there before: begin above that height, with `--height`",
        false => "",
    }
}
