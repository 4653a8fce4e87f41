//! SIGKILL at random moments while a node asks as fast as it can.
//!
//! What must hold is told by an oracle that sees what was *released*, and nothing else of the signer: for one height,
//! round and step there is one message, every signature verifies, and what was answered once is answered so again.

mod rig;

use std::time::Duration;

use mock_validator::link::{LinkError, NodeLink, Socket};
use mock_validator::node::{Requests, probes};
use monosign_protocol::message::{Message, Timestamp};
use monosign_protocol::{Height, Hrs, Round, Step};
use rig::{CHAIN, DEADLINE, Home, NOW, NodeSide, Oracle, Random, Signer, requests};
use tokio::time::{Instant, timeout};

const RESTARTS: usize = 220;

#[tokio::test]
async fn sigkill_at_any_moment_never_gives_two_messages_one_place() {
    let node = NodeSide::tcp().await;
    let home = Home::with_one_chain(&node.addr());
    let mut test = Test {
        node,
        requests: requests(CHAIN, Some(32)),
        oracle: Oracle::default(),
        random: Random::from_env(),
        place: Hrs { height: Height(0), round: Round(0), step: Step::Precommit },
        in_flight: None,
        typical: Duration::from_millis(2),
        tally: Tally::default(),
    };
    for _ in 0..RESTARTS {
        test.one_life(home.start()).await;
    }
    let signer = home.start();
    test.check_after_restart().await;
    drop(signer);
    let last = test.oracle.highest().expect("signatures");
    assert_eq!(home.watermark(CHAIN), (last.height.0, last.round.0, last.step.number()));
    println!("{} signatures released, {:?}", test.oracle.len(), test.tally);
    assert!(test.tally.killed_unanswered > 0, "no kill hit a request: {:?}", test.tally);
}

struct Test {
    node: NodeSide,
    requests: Requests,
    oracle: Oracle,
    random: Random,
    /// The highest place that was asked for.
    place: Hrs,
    /// Sent, and not answered before the end of the signer that it was sent to.
    in_flight: Option<Message>,
    /// What an answer takes on this machine, so that kills hit all of it.
    typical: Duration,
    tally: Tally,
}

/// What the kills hit: a run in which it is always the same proves little.
#[derive(Debug, Default)]
struct Tally {
    killed_at_start: usize,
    killed_unanswered: usize,
    unanswered_but_recorded: usize,
    unanswered_and_unknown: usize,
}

impl Test {
    /// Lets the signer live until a random moment.
    async fn one_life(&mut self, mut signer: Signer) {
        if self.random.below(8) == 0 {
            // While it starts, connects, or has just done so.
            spin(Duration::from_micros(self.random.below(40_000)));
            signer.kill();
            self.tally.killed_at_start += 1;
            return;
        }
        let mut link = self.check_after_restart().await;
        for _ in 0..self.random.below(12) {
            let request = self.next_request();
            let asked = Instant::now();
            let answer = ask(&mut link, &request).await.expect("an answer");
            self.typical = (self.typical * 7 + asked.elapsed()) / 8;
            self.oracle.release(&request, answer);
        }
        let request = self.next_request();
        timeout(DEADLINE, link.send(&request)).await.expect("in time").expect("sent");
        let moment = self.typical.as_micros().try_into().unwrap_or(u64::MAX) * 5 / 4;
        spin(Duration::from_micros(self.random.below(moment.max(1))));
        signer.kill();
        match receive(&mut link).await {
            Ok(answer) => self.oracle.release(&request, answer),
            Err(LinkError::Closed | LinkError::Io(_)) => {
                self.in_flight = Some(request);
                self.tally.killed_unanswered += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }

    /// Asks again for what was answered last and for what was not: both get one answer, and it stays that one.
    async fn check_after_restart(&mut self) -> NodeLink<Socket> {
        let mut link = self.node.accept().await;
        let last_is_repeated = match self.oracle.last_request().cloned() {
            Some(last) => self.repeats(&mut link, &last).await,
            None => true,
        };
        if let Some(request) = self.in_flight.take() {
            let later = at_another_time(&request);
            let answer = ask(&mut link, &later).await.expect("an answer");
            let time = time_of_answer(&answer).expect("it is safe to sign what was never answered");
            let recorded = time == time_of(&request);
            assert!(recorded || time == time_of(&later), "the time of neither request");
            assert!(recorded || last_is_repeated, "it was recorded, and then signed with another time");
            if recorded {
                self.tally.unanswered_but_recorded += 1;
            } else {
                self.tally.unanswered_and_unknown += 1;
            }
            self.oracle.release(&later, answer);
            assert!(self.repeats(&mut link, &request).await, "the other time got another answer");
        } else {
            assert!(last_is_repeated, "the last answer was not repeated, and nothing came after it");
        }
        if let Some(last) = self.oracle.last_request().cloned() {
            let conflict = probes::conflict(&last).expect("a conflict");
            let answer = ask(&mut link, &conflict).await.expect("an answer");
            assert!(time_of_answer(&answer).is_none(), "signed a conflict: {answer:?}");
            assert!(self.repeats(&mut link, &last).await, "no answer after a conflict");
        }
        link
    }

    /// Whether the request is answered again; the oracle sees to it that it is answered so again.
    async fn repeats(&mut self, link: &mut NodeLink<Socket>, request: &Message) -> bool {
        let answer = ask(link, request).await.expect("an answer");
        let signed = time_of_answer(&answer).is_some();
        if signed {
            self.oracle.release(request, answer);
        }
        signed
    }

    fn next_request(&mut self) -> Message {
        let Hrs { height, round, step } = self.place;
        self.place = match step {
            Step::Proposal => Hrs { height, round, step: Step::Prevote },
            Step::Prevote => Hrs { height, round, step: Step::Precommit },
            Step::Precommit if self.random.below(4) == 0 => {
                Hrs { height, round: Round(round.0 + 1), step: Step::Proposal }
            }
            Step::Precommit => Hrs { height: Height(height.0 + 1), round: Round(0), step: Step::Proposal },
        };
        let block = match self.random.below(6) {
            0 if self.place.step != Step::Proposal => Default::default(),
            variant => self.requests.blocks().block(self.place.height, variant),
        };
        let time = Timestamp { seconds: NOW.seconds + self.place.height.0, nanos: 1 };
        self.requests.sign(self.place, block, time)
    }
}

async fn ask(link: &mut NodeLink<Socket>, request: &Message) -> Result<Message, LinkError> {
    timeout(DEADLINE, link.send(request)).await.expect("in time")?;
    receive(link).await
}

async fn receive(link: &mut NodeLink<Socket>) -> Result<Message, LinkError> {
    let answer = timeout(DEADLINE, link.receive()).await.expect("in time")?;
    Ok(answer.expect("an answer with content"))
}

/// The time that was signed; `None` for a refusal.
fn time_of_answer(answer: &Message) -> Option<Timestamp> {
    match answer {
        Message::SignedVoteResponse(answer) => answer.error.is_none().then_some(answer.vote.timestamp),
        Message::SignedProposalResponse(answer) => {
            answer.error.is_none().then_some(answer.proposal.timestamp)
        }
        other => panic!("{other:?} is no answer to a request for a signature"),
    }
}

fn time_of(request: &Message) -> Timestamp {
    match request {
        Message::SignVoteRequest(request) => request.vote.as_ref().expect("a vote").timestamp,
        Message::SignProposalRequest(request) => request.proposal.as_ref().expect("a proposal").timestamp,
        other => panic!("{other:?} is no request for a signature"),
    }
}

fn at_another_time(request: &Message) -> Message {
    let mut request = request.clone();
    match &mut request {
        Message::SignVoteRequest(request) => request.vote.as_mut().expect("a vote").timestamp.nanos = 2,
        Message::SignProposalRequest(request) => {
            request.proposal.as_mut().expect("a proposal").timestamp.nanos = 2
        }
        other => panic!("{other:?} is no request for a signature"),
    }
    request
}

/// Lets some microseconds pass, which no timer is fine enough for.
fn spin(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}
