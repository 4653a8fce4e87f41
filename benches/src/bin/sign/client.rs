//! The node: asks for signatures at rising heights, times each answer and checks it.

use anyhow::{Context, bail};
use ed25519_dalek::SigningKey;
use mock_validator::link::{Listener, NodeLink, Socket};
use mock_validator::node::{Answer, Blocks, Requests, Verifier};
use monosign_protocol::frame::MAX_MESSAGE_LEN;
use monosign_protocol::message::{Message, Timestamp};
use monosign_protocol::{Dialect, Height, Hrs, Round, Step};
use tokio::time::{Duration, Instant};

use crate::{report::Latencies, setup::Setup};

pub(crate) struct Client {
    link: NodeLink<Socket>,
    dialect: Dialect,
    plain: Requests,
    extended: Requests,
    verifier: Verifier,
    height: Height,
    /// Whether answers are looked at for errors alone, which are counted.
    trusts: bool,
    errors: u64,
}

/// The longer extension, in bytes: its request takes several packets and frames.
const EXTENSION: usize = 4096;

const TIME: Timestamp = Timestamp { seconds: 1_700_000_000, nanos: 123_456_789 };

impl Client {
    /// Waits for a signer and asks for its key.
    pub(crate) async fn accept(setup: &Setup, listener: &Listener, dialect: Dialect) -> anyhow::Result<Self> {
        let requests = |extension_bytes| {
            Requests::new(setup.chain_id.clone(), dialect, extension_bytes, Blocks::new([44; 32]))
        };
        // A dialect with extensions gets an extension signature even for an empty extension.
        let extensions = dialect.has_extensions();
        let (plain, extended) =
            (requests(extensions.then_some(0)), requests(extensions.then_some(EXTENSION)));
        let key = setup.key.verifying_key();
        let verifier = Verifier::new(setup.chain_id.clone(), dialect, extensions, Some(key));
        let socket = listener.accept().await?;
        let link = NodeLink::accept_secret(socket, &SigningKey::from_bytes(&[45; 32]), [46; 32]).await?;
        let link = link.with_read_limit(MAX_MESSAGE_LEN);
        let mut client =
            Self { link, dialect, plain, extended, verifier, height: Height(1), trusts: false, errors: 0 };
        let request = client.plain.public_key();
        let answer = client.link.ask(&request).await?;
        client.verifier.check(&request, answer)?;
        Ok(client)
    }

    /// A prevote request and its answer, for the echo to send the same bytes.
    pub(crate) async fn exchange(&mut self) -> anyhow::Result<(Message, Message)> {
        let request = self.request(&self.plain, Step::Prevote);
        let answer = self.link.ask(&request).await?.context("the signer answered with an empty message")?;
        self.height.0 += 1;
        Ok((request, answer))
    }

    /// Signs `count` heights: proposal, prevote, precommit; every other precommit has the longer extension.
    pub(crate) async fn heights(&mut self, count: u64, latencies: &mut Latencies) -> anyhow::Result<()> {
        for _ in 0..count {
            self.sign(&self.request(&self.plain, Step::Proposal), &mut latencies.proposal).await?;
            self.sign(&self.request(&self.plain, Step::Prevote), &mut latencies.prevote).await?;
            if self.dialect.has_extensions() && self.height.0 % 2 == 0 {
                let request = self.request(&self.extended, Step::Precommit);
                self.sign(&request, &mut latencies.precommit_extended).await?;
            } else {
                self.sign(&self.request(&self.plain, Step::Precommit), &mut latencies.precommit).await?;
            }
            self.height.0 += 1;
        }
        Ok(())
    }

    /// Signs one proposal at the next height.
    #[allow(dead_code, reason = "for the `threshold` bench")]
    pub(crate) async fn next_proposal(&mut self, latencies: &mut crate::report::Nanos) -> anyhow::Result<()> {
        self.sign(&self.request(&self.plain, Step::Proposal), latencies).await?;
        self.height.0 += 1;
        Ok(())
    }

    /// Goes on at a height, since another client has signed below it.
    #[allow(dead_code, reason = "for the `threshold` bench")]
    pub(crate) fn skip_to(&mut self, height: i64) {
        self.height = Height(height);
    }

    /// Takes answers that leave out what was signed, and goes on after errors.
    #[allow(dead_code, reason = "for the `threshold` bench")]
    pub(crate) fn trusting(self) -> Self {
        Self { trusts: true, ..self }
    }

    /// How many errors a trusting client was answered with, in the place of signatures.
    #[allow(dead_code, reason = "for the `threshold` bench")]
    pub(crate) fn errors(&self) -> u64 {
        self.errors
    }

    /// Asks for one proposal at the next height. Returns how long it took, and whether it was signed and not refused.
    #[allow(dead_code, reason = "for the `threshold` bench")]
    pub(crate) async fn try_proposal(&mut self) -> anyhow::Result<(Duration, bool)> {
        let request = self.request(&self.plain, Step::Proposal);
        self.height.0 += 1;
        let begin = Instant::now();
        let answer = self.link.ask(&request).await?;
        let took = begin.elapsed();
        if self.trusts {
            return Ok((took, is_signed(answer.as_ref())));
        }
        Ok((took, matches!(self.verifier.check(&request, answer)?, Answer::Signed(_))))
    }

    async fn sign(&mut self, request: &Message, latencies: &mut crate::report::Nanos) -> anyhow::Result<()> {
        let begin = Instant::now();
        let answer = self.link.ask(request).await?;
        let took = begin.elapsed().as_nanos() as u64;
        if self.trusts && !is_signed(answer.as_ref()) {
            self.errors += 1;
            return Ok(());
        }
        latencies.record(took)?;
        if self.trusts {
            return Ok(());
        }
        match self.verifier.check(request, answer)? {
            Answer::Signed(_) => Ok(()),
            other => bail!("height {}: expected a signature, got {other:?}", self.height),
        }
    }

    fn request(&self, requests: &Requests, step: Step) -> Message {
        // tmkms refuses a precommit after a prevote of another block, so all of a height are for one.
        let hrs = Hrs { height: self.height, round: Round(0), step };
        requests.sign(hrs, requests.blocks().block(self.height, 0), TIME)
    }
}

fn is_signed(answer: Option<&Message>) -> bool {
    match answer {
        Some(Message::SignedVoteResponse(response)) => response.error.is_none(),
        Some(Message::SignedProposalResponse(response)) => response.error.is_none(),
        _ => false,
    }
}
