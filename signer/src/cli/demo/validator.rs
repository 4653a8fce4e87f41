//! The validator of a demo: it asks, checks each answer, and says in words what became of it.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::HEXLOWER;
use ed25519_dalek::SigningKey;
use mock_validator::endpoint::{self, Event, NoAnswer, NoSigner, RetryClient, SignerEndpoint};
use mock_validator::link::{Listener, Transport};
use mock_validator::node::probes::conflict;
use mock_validator::node::{Answer, Node, Outcome, Settings, Signed};
use monosign_protocol::message::{Message, Timestamp};
use monosign_protocol::{ChainId, Dialect, Height};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::CHAIN;
use super::process::Signer;
use crate::cli::Failure;
use crate::seams::{Entropy, OsEntropy};

/// How long the signer may take to connect.
const WAIT: Duration = Duration::from_secs(20);

/// A validator with its link.
pub(super) struct Validator<'a> {
    client: RetryClient<&'a Listener>,
    node: Node,
    killer: Rc<Killer>,
    precommit: Option<Signed>,
    blocks: u64,
    signatures: u64,
}

/// Kills a process when the next vote is on its way to it.
#[derive(Default)]
struct Killer {
    target: Cell<Option<Pid>>,
    killed: Notify,
}

impl Killer {
    fn sees(&self, event: Event<'_>) {
        if let Event::Sent { request: Message::SignVoteRequest(_), .. } = event
            && let Some(target) = self.target.take()
        {
            // One that has died by itself is found when it is started again.
            let _ = kill_process(target, Signal::KILL);
            self.killed.notify_one();
        }
    }
}

/// A vote in words, with its signature.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SignedVote {
    pub(super) vote: String,
    signature: Vec<u8>,
}

impl SignedVote {
    /// The first bytes of the signature.
    pub(super) fn short(&self) -> String {
        format!("{}…", HEXLOWER.encode(&self.signature[..self.signature.len().min(16)]))
    }
}

/// Two votes in words that exclude each other.
pub(super) struct DoubleSign {
    pub(super) signed: String,
    pub(super) conflicting: String,
}

/// What became of the request for the second vote.
pub(super) enum Answered {
    Refused(String),
    Signed,
}

impl<'a> Validator<'a> {
    pub(super) fn new(listener: &'a Listener, dialect: Dialect) -> Result<Self, Failure> {
        let fresh = || (&OsEntropy as &dyn Entropy).key();
        let chain_id: ChainId = CHAIN.parse().map_err(Failure::new)?;
        let node = Settings {
            chain_id,
            dialect,
            first_height: Height(1),
            extension_bytes: dialect.has_extensions().then_some(64),
            expected_key: None,
            seed: fresh(),
        };
        let killer = Rc::<Killer>::default();
        let observer = Rc::clone(&killer);
        let settings = endpoint::Settings {
            dialect,
            transport: Transport::from(listener.address()),
            identity: SigningKey::from_bytes(&fresh()),
            entropy: Box::new(fresh),
            observer: Box::new(move |event| observer.sees(event)),
        };
        let client = RetryClient::new(SignerEndpoint::new(listener, settings));
        Ok(Self { client, node: Node::new(node), killer, precommit: None, blocks: 0, signatures: 0 })
    }

    pub(super) fn blocks(&self) -> u64 {
        self.blocks
    }

    /// How many signatures were checked, without those of extensions.
    pub(super) fn signatures(&self) -> u64 {
        self.signatures
    }

    /// Waits for the signer and asks for its public key, which is given in hex.
    pub(super) async fn connect(&mut self) -> Result<String, Failure> {
        let wait = self.client.endpoint().wait_for_connection(WAIT);
        let connected = with_link(&self.client, wait).await;
        connected.map_err(|NoSigner { .. }| Failure::new("the signer did not connect in 20 s"))?;
        match self.ask().await? {
            Outcome::PublicKey(key) => Ok(HEXLOWER.encode(key.as_bytes())),
            other => Err(unexpected(&other)),
        }
    }

    /// A pause between two blocks.
    pub(super) async fn pause(&self, time: Duration) {
        with_link(&self.client, sleep(time)).await;
    }

    /// Asks for all signatures of one height.
    pub(super) async fn make_block(&mut self) -> Result<String, Failure> {
        let height = self.node.height();
        let mut took = Duration::ZERO;
        while self.node.height() == height {
            let begin = Instant::now();
            match self.ask().await? {
                Outcome::Signed(signed) => {
                    self.signatures += 1;
                    took += begin.elapsed();
                    self.precommit = Some(signed);
                }
                Outcome::PublicKey(_) => {}
                refused => return Err(unexpected(&refused)),
            }
        }
        self.blocks += 1;
        let ms = took.as_secs_f64() * 1e3;
        Ok(format!("block {height}: proposal, prevote and precommit signed in {ms:.1} ms"))
    }

    /// The precommit that was signed last.
    pub(super) fn last_precommit(&self) -> Result<SignedVote, Failure> {
        let (request, signed) =
            self.node.last_precommit().zip(self.precommit.as_ref()).ok_or_else(no_vote)?;
        Ok(SignedVote { vote: Words(request).to_string(), signature: signed.signature.clone() })
    }

    /// Asks for the same precommit again, kills the signer as soon as the request is on its way, and starts it again. The node goes
    /// on asking, as CometBFT does. Gives the time from the kill to an answer.
    pub(super) async fn ask_again_under_sigkill(&self, signer: &mut Signer) -> Result<Duration, Failure> {
        let request = self.node.last_precommit().ok_or_else(no_vote)?;
        self.killer.target.set(Some(signer.pid()));
        let restart = async {
            self.killer.killed.notified().await;
            let killed = Instant::now();
            signer.start_again()?;
            Ok::<_, Failure>(killed)
        };
        let both = async { tokio::join!(self.client.ask(request), restart) };
        let (answer, killed) = with_link(&self.client, both).await;
        answer.map_err(no_answer)?;
        let killed = killed?;
        // An answer that was faster than the kill is from the process before.
        self.ask_again().await?;
        Ok(killed.elapsed())
    }

    /// Asks for the same precommit again.
    pub(super) async fn ask_again(&self) -> Result<SignedVote, Failure> {
        let request = self.node.last_precommit().ok_or_else(no_vote)?;
        let answer = with_link(&self.client, self.client.ask(request)).await.map_err(no_answer)?;
        match self.node.verifier().check(request, Some(answer)).map_err(Failure::new)? {
            Answer::Signed(signed) => {
                Ok(SignedVote { vote: Words(request).to_string(), signature: signed.signature })
            }
            other => Err(Failure::new(format!("the signer gave {other:?} to a vote that it had signed"))),
        }
    }

    /// Asks for a precommit for another block where one was signed.
    pub(super) async fn ask_for_double_sign(&self) -> Result<(DoubleSign, Answered), Failure> {
        let signed = self.node.last_precommit().ok_or_else(no_vote)?;
        let conflicting = conflict(signed).ok_or_else(no_vote)?;
        let asked =
            DoubleSign { signed: Words(signed).to_string(), conflicting: Words(&conflicting).to_string() };
        let answer = with_link(&self.client, self.client.ask(&conflicting)).await.map_err(no_answer)?;
        let answered = match self.node.verifier().check(&conflicting, Some(answer)).map_err(Failure::new)? {
            Answer::Refused { error, .. } => Answered::Refused(error.description.to_string()),
            _ => Answered::Signed,
        };
        Ok((asked, answered))
    }

    async fn ask(&mut self) -> Result<Outcome, Failure> {
        let request = self.node.poll_request(now());
        let answer = with_link(&self.client, self.client.ask(request)).await.map_err(no_answer)?;
        self.node.handle_answer(Some(answer)).map_err(Failure::new)
    }
}

/// Works on something while the link is served.
async fn with_link<T>(client: &RetryClient<&Listener>, work: impl Future<Output = T>) -> T {
    tokio::select! {
        biased;
        done = work => done,
        never = client.run() => match never {},
    }
}

fn no_vote() -> Failure {
    Failure::new("no precommit was signed yet")
}

fn no_answer(error: NoAnswer) -> Failure {
    Failure::new(format!("the signer gave {error}"))
}

fn unexpected(outcome: &Outcome) -> Failure {
    match outcome {
        Outcome::Refused { hrs: Some(hrs), error } => {
            Failure::new(format!("the signer refused h/r/s {hrs}: {error}"))
        }
        other => Failure::new(format!("the signer gave an answer that was not asked for: {other:?}")),
    }
}

/// A vote as people read it.
struct Words<'a>(&'a Message);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Message::SignVoteRequest(request) = self.0 else { return f.write_str("a message") };
        let Some(vote) = &request.vote else { return f.write_str("a vote") };
        let block = HEXLOWER.encode(&vote.block_id.hash[..vote.block_id.hash.len().min(6)]);
        write!(f, "precommit at height {}, round {}, for block {block}…", vote.height, vote.round)
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "the demo's validator tells the time; the signer does not read it"
)]
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(0),
        nanos: since.subsec_nanos().cast_signed(),
    }
}
