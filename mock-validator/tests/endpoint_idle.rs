//! When a node accepts, pings and starts: what its signer endpoint does of itself, under a paused clock.
#![allow(clippy::unwrap_used, reason = "also in helpers, which clippy does not take for tests")]

mod common;

use common::dials::{Rig, millis, vote_answer};
use common::{NOW, TestSigner, hrs, requests};
use mock_validator::endpoint::Failure;
use mock_validator::link::{NodeLink, Transport};
use monosign_protocol::message::Message;
use monosign_protocol::{Dialect, Height, Step};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::sleep;

fn a_vote() -> Message {
    let requests = requests(Dialect::V0_38, None);
    requests.sign(hrs(1, Step::Prevote), requests.blocks().block(Height(1), 0), NOW)
}

#[tokio::test(start_paused = true)]
async fn a_second_signer_waits_in_the_backlog_and_may_be_picked_up_dead() {
    let rig = Rig::new(Dialect::V0_38, Transport::SecretConnection);
    let request = a_vote();
    let (answer, ()) = rig
        .play(rig.client.ask(&request), async {
            let mut first = rig.dials.secret().await;
            first.receive().await.unwrap();
            let dead = rig.dials.dial();
            let third = rig.dials.secret();
            tokio::pin!(third);
            assert!(
                tokio::time::timeout(millis(1000), &mut third).await.is_err(),
                "a handshake in the backlog"
            );
            drop((first, dead));
            let mut third = third.await;
            third.receive().await.unwrap();
            third.send(&vote_answer(3)).await.unwrap();
        })
        .await;
    assert_eq!(answer.unwrap(), vote_answer(3));
    let accepted = ["0 accepted 1", "1200 accepted 2", "1200 accepted 3"];
    assert_eq!(rig.log.with("accepted"), accepted);
    assert_eq!(rig.log.with("refused").len(), 1, "{:?}", rig.log.lines());
}

#[tokio::test(start_paused = true)]
async fn later_nodes_accept_until_somebody_comes_and_v0_34_only_near_a_request() {
    // v0.34 opens for 3 s at its start, and then for its first ping.
    for (dialect, expected) in [(Dialect::V0_34, "3333 accepted 1"), (Dialect::V0_37, "3100 accepted 1")] {
        let rig = Rig::plain(dialect);
        rig.play(async {}, async {
            sleep(millis(3100)).await;
            assert_eq!(rig.dials.plain().receive().await.unwrap(), Some(Message::PingRequest));
        })
        .await;
        assert_eq!(rig.log.with("accepted"), [expected], "{dialect}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_handshake_serves_the_next_attempt() {
    let rig = Rig::new(Dialect::V0_38, Transport::SecretConnection);
    let request = a_vote();
    rig.play(rig.client.ask(&request), async {
        let mut raw = rig.dials.dial();
        sleep(millis(4900)).await;
        let key = ed25519_dalek::SigningKey::from_bytes(&[2; 32]);
        let mut link = NodeLink::accept_secret(&mut raw, &key, [4; 32]).await.unwrap();
        while link.receive().await.unwrap() == Some(Message::PingRequest) {
            link.send(&Message::PingResponse).await.unwrap();
        }
        link.send(&vote_answer(1)).await.unwrap();
    })
    .await
    .0
    .unwrap();
    let failed = rig.log.with("failed SignVoteRequest");
    assert_eq!(failed, ["3000 failed SignVoteRequest 1: no signer connected in time"]);
    assert_eq!(rig.log.with("accepted"), ["0 accepted 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_handshake_leaves_the_stream_open_but_in_v0_39_and_v0_40() {
    for (dialect, closed_at) in [(Dialect::V0_38, 120_000), (Dialect::V0_40, 0), (Dialect::V1_0, 120_000)] {
        let rig = Rig::new(dialect, Transport::SecretConnection);
        rig.play(async {}, async {
            let mut signer = rig.dials.dial();
            signer.write_all(&[0xff; 64]).await.unwrap();
            let mut read = Vec::new();
            signer.read_to_end(&mut read).await.unwrap();
            assert_eq!(rig.millis(), closed_at, "{dialect}");
        })
        .await;
        assert_eq!(rig.log.with("refused").len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_dialler_blocks_the_door_for_five_seconds() {
    let rig = Rig::new(Dialect::V0_38, Transport::SecretConnection);
    let _silent = rig.dials.dial();
    rig.play(rig.client.endpoint().wait_for_connection(millis(6000)), rig.dials.secret()).await.0.unwrap();
    let refused = ["5000 refused 1: the signer was silent for 5 s"];
    assert_eq!(rig.log.with("refused"), refused);
    assert_eq!(rig.log.with("ready"), ["5000 ready 2"]);
}

#[tokio::test(start_paused = true)]
async fn pings_when_nothing_was_answered_for_two_thirds_of_the_limit() {
    let rig = Rig::plain(Dialect::V0_38);
    let (request, mut signer) = (a_vote(), rig.dials.plain());
    let ask = async {
        sleep(millis(5000)).await;
        rig.client.ask(&request).await.unwrap();
        sleep(millis(4000)).await;
    };
    let answering = async {
        while let Ok(Some(request)) = signer.receive().await {
            let answer = match request {
                Message::PingRequest => Message::PingResponse,
                _ => vote_answer(1),
            };
            signer.send(&answer).await.unwrap();
        }
    };
    tokio::select! { biased; _ = rig.play(ask, std::future::pending::<()>()) => {}, () = answering => {}, () = sleep(millis(9000)) => {} }
    let sent =
        ["3333 sent PingRequest 1 on 1", "5000 sent SignVoteRequest 1 on 1", "8333 sent PingRequest 1 on 1"];
    assert_eq!(rig.log.with("sent"), sent);
}

#[tokio::test(start_paused = true)]
async fn a_ping_drops_a_connection_that_has_ended() {
    let rig = Rig::plain(Dialect::V0_38);
    let mut signer = rig.dials.plain();
    rig.play(rig.client.endpoint().wait_for_connection(millis(1)), async {
        // Reads the ping, and closes instead of an answer.
        assert_eq!(signer.receive().await.unwrap(), Some(Message::PingRequest));
        drop(signer);
        let mut next = rig.dials.plain();
        // The node accepts at once and asks nothing before the next ping.
        assert_eq!(next.receive().await.unwrap(), Some(Message::PingRequest));
    })
    .await
    .0
    .unwrap();
    let lines = ["3333 lost 1 by Ping", "3333 accepted 2", "3333 ready 2", "6666 connected 2"];
    let seen = rig.log.lines().into_iter().filter(|line| lines.contains(&line.as_str()));
    assert_eq!(seen.collect::<Vec<_>>(), lines, "{:?}", rig.log.lines());
}

#[tokio::test(start_paused = true)]
async fn pings_wait_for_a_blocked_request_and_come_before_the_retried_one() {
    let rig = Rig::plain(Dialect::V0_38);
    let request = a_vote();
    let ask = async {
        sleep(millis(1000)).await;
        rig.client.ask(&request).await.unwrap()
    };
    rig.play(ask, async {
        // Away while the request waits, and back while a ping does.
        sleep(millis(5000)).await;
        let mut signer = rig.dials.plain();
        while signer.receive().await.unwrap() == Some(Message::PingRequest) {
            signer.send(&Message::PingResponse).await.unwrap();
        }
        signer.send(&vote_answer(1)).await.unwrap();
    })
    .await;
    // The tick of 3.333 s waits until the request's first attempt has ended.
    assert_eq!(rig.log.with("failed"), ["4000 failed SignVoteRequest 1: no signer connected in time"]);
    let sent = ["5000 sent PingRequest 1 on 1", "5000 sent SignVoteRequest 2 on 1"];
    assert_eq!(rig.log.with("sent"), sent);
}

#[tokio::test(start_paused = true)]
async fn a_ping_that_was_due_meanwhile_is_sent_too_before_go_1_23() {
    for (dialect, pings) in [(Dialect::V0_38, 2), (Dialect::V0_40, 1)] {
        let rig = Rig::plain(dialect);
        let request = a_vote();
        let ask = async {
            sleep(millis(1000)).await;
            rig.client.ask(&request).await.unwrap()
        };
        rig.play(ask, async {
            // The ping of 3.333 s waits for a signer from 4 s to 7 s, the next tick comes at 6.666 s.
            sleep(millis(6700)).await;
            let mut signer = rig.dials.plain();
            while signer.receive().await.unwrap() == Some(Message::PingRequest) {
                signer.send(&Message::PingResponse).await.unwrap();
            }
            signer.send(&vote_answer(1)).await.unwrap();
        })
        .await;
        assert_eq!(rig.log.with("sent PingRequest").len(), pings, "{dialect}: {:?}", rig.log.lines());
        assert_eq!(rig.log.lines().last().unwrap(), "6700 answered SignVoteRequest 2 on 1 after 5700");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_without_a_signer_asks_for_seven_minutes() {
    let rig = Rig::plain(Dialect::V0_38);
    let request = a_vote();
    let (answer, ()) = rig.play(rig.client.ask(&request), async {}).await;
    assert!(answer.is_err());
    // Fifty times 3 s and a pause, and a ping or two of 3 s each in between. CometBFT's own code (v0.38.25) took 430 s
    // and 436 s.
    assert!((425_000..445_000).contains(&rig.millis()), "{}", rig.millis());
    assert_eq!(rig.log.with("failed SignVoteRequest").len(), 50);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_starts_gives_its_signer_three_seconds() {
    let request = requests(Dialect::V0_38, None).public_key();
    for (late, is_started) in [(2800, true), (3300, false)] {
        let rig = Rig::plain(Dialect::V0_38);
        let (answer, _) = rig
            .play(rig.client.ask_once(&request), async {
                sleep(millis(late)).await;
                let mut signer = rig.dials.plain();
                let first = tokio::time::timeout(millis(10), signer.receive()).await;
                signer.send(&TestSigner::new().answer(request.clone())).await.unwrap();
                first
            })
            .await;
        assert_eq!(answer.is_ok(), is_started, "{late} ms: {:?}", rig.log.lines());
        if !is_started {
            assert!(matches!(answer, Err(Failure::NoSigner(_))));
            assert_eq!(rig.log.with("failed"), ["3000 failed PubKeyRequest 1: no signer connected in time"]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_signer_that_closes_while_idle_costs_no_request() {
    let rig = Rig::plain(Dialect::V0_38);
    let (request, mut first) = (a_vote(), rig.dials.plain());
    let ask = async {
        rig.client.ask(&request).await.unwrap();
        sleep(millis(1000)).await;
        rig.client.ask(&request).await.unwrap()
    };
    let (answer, ()) = rig
        .play(ask, async {
            first.receive().await.unwrap();
            first.send(&vote_answer(1)).await.unwrap();
            sleep(millis(500)).await;
            drop(first);
            let mut second = rig.dials.plain();
            second.receive().await.unwrap();
            assert_eq!(rig.millis(), 1100);
            second.send(&vote_answer(2)).await.unwrap();
        })
        .await;
    assert_eq!(answer, vote_answer(2));
    assert!(!rig.log.lines().iter().any(|line| line.contains("gave up")));
}
