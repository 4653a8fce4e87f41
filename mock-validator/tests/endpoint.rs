//! What a node does with a signer that answers, refuses, hangs up, hangs or babbles: the rules of CometBFT's retry client and
//! signer endpoint, under a paused clock.
#![allow(clippy::unwrap_used, reason = "also in helpers, which clippy does not take for tests")]

mod common;

use common::dials::{Rig, millis, vote_answer};
use common::{NOW, TestSigner, error, hrs, initiate, requests};
use ed25519_dalek::SigningKey;
use mock_validator::endpoint::{Failure, NoAnswer, RetryClient, Settings, SignerEndpoint};
use mock_validator::link::{Address, LinkError, Listener, NodeLink, Transport};
use monosign_protocol::message::{Message, SignedVoteResponse, Vote};
use monosign_protocol::{Dialect, Height, Step, frame, noise};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::sleep;

fn a_vote() -> Message {
    let requests = requests(Dialect::V0_38, None);
    requests.sign(hrs(1, Step::Prevote), requests.blocks().block(Height(1), 0), NOW)
}

fn key_request() -> Message {
    requests(Dialect::V0_38, None).public_key()
}

#[tokio::test(start_paused = true)]
async fn an_error_is_an_answer_and_is_not_asked_about_again() {
    let rig = Rig::plain(Dialect::V0_38);
    let refusal = Message::SignedVoteResponse(SignedVoteResponse {
        error: Some(error("no")),
        ..SignedVoteResponse::default()
    });
    let (request, mut signer) = (a_vote(), rig.dials.plain());
    let (answer, ()) = rig
        .play(rig.client.ask(&request), async {
            signer.receive().await.unwrap();
            signer.send(&refusal).await.unwrap();
            assert!(tokio::time::timeout(millis(3000), signer.receive()).await.is_err(), "asked again");
        })
        .await;
    assert_eq!(answer.unwrap(), refusal);
    assert_eq!(
        rig.log.lines(),
        [
            "0 accepted 1",
            "0 ready 1",
            "0 connected 1",
            "0 sent SignVoteRequest 1 on 1",
            "0 answered SignVoteRequest 1 on 1 after 0",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn asks_fifty_times_with_the_same_bytes_and_goes_on_without() {
    let rig = Rig::plain(Dialect::V0_38);
    let (request, mut signer) = (a_vote(), rig.dials.plain());
    let (answer, asked) = rig
        .play(rig.client.ask(&request), async {
            let mut asked = Vec::new();
            // A message of the wrong kind, or none at all, is no answer.
            for wrong in [&[0x02, 0x42, 0x00][..], &[0x00]].into_iter().cycle().take(50) {
                asked.push(signer.receive().await.unwrap());
                signer.send_plain_bytes(wrong).await.unwrap();
            }
            asked
        })
        .await;
    assert!(asked.iter().all(|asked| asked.as_ref() == Some(&request)));
    let Err(NoAnswer::Exhausted { attempts: 50, last: Failure::Unexpected { answer: None } }) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(rig.log.lines().last().unwrap(), "5000 gave up SignVoteRequest 50 after 5000");
    assert_eq!(rig.log.with("sent PingRequest"), [""; 0], "an exchange with a wrong answer is an exchange");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_the_node_cannot_read_is_no_answer() {
    let key = TestSigner::new().answer(key_request());
    for (dialect, is_taken) in [(Dialect::V0_38, true), (Dialect::V1_0, false)] {
        let rig = Rig::plain(dialect);
        let Message::PubKeyResponse(mut old) = key.clone() else { panic!("{key:?}") };
        old.pub_key_bytes.clear();
        let (request, mut signer) = (key_request(), rig.dials.plain());
        let (answer, ()) = rig
            .play(rig.client.ask_once(&request), async {
                signer.receive().await.unwrap();
                signer.send(&Message::PubKeyResponse(old)).await.unwrap();
            })
            .await;
        assert_eq!(answer.is_ok(), is_taken, "{dialect}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_lost_with_its_connection_is_asked_for_on_the_next_after_two_pauses() {
    let rig = Rig::plain(Dialect::V0_38);
    let (request, mut first) = (a_vote(), rig.dials.plain());
    let (answer, asked) = rig
        .play(rig.client.ask(&request), async {
            let before = first.receive().await.unwrap();
            drop(first);
            let mut second = rig.dials.plain();
            let after = second.receive().await.unwrap();
            second.send(&vote_answer(2)).await.unwrap();
            (before, after)
        })
        .await;
    assert_eq!(asked.0, asked.1);
    assert_eq!(answer.unwrap(), vote_answer(2));
    // The end of the stream keeps the connection; the failed write after it does not.
    let closed = "the signer closed the connection; its log says why";
    assert_eq!(
        rig.log.lines()[4..],
        [
            &format!("0 failed SignVoteRequest 1: {closed}"),
            "100 lost 1",
            "100 failed SignVoteRequest 2: connection failed: broken pipe",
            "200 accepted 2",
            "200 ready 2",
            "200 connected 2",
            "200 sent SignVoteRequest 3 on 2",
            "200 answered SignVoteRequest 3 on 2 after 200",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_buffered_secret_connection_notices_a_failed_write_one_write_later() {
    for (dialect, found) in [(Dialect::V0_38, 200), (Dialect::V0_39, 300), (Dialect::V2_0, 300)] {
        let rig = Rig::new(dialect, Transport::SecretConnection);
        let request = a_vote();
        rig.play(rig.client.ask(&request), async {
            rig.dials.secret().await.receive().await.unwrap();
            let mut second = rig.dials.secret().await;
            second.receive().await.unwrap();
            assert_eq!(rig.millis(), found, "{dialect}");
            second.send(&vote_answer(2)).await.unwrap();
        })
        .await
        .0
        .unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_signer_is_dropped_after_five_seconds_and_its_late_answer_lost() {
    let rig = Rig::plain(Dialect::V0_38);
    let (request, mut slow) = (a_vote(), rig.dials.plain());
    let (answer, ()) = rig
        .play(rig.client.ask(&request), async {
            slow.receive().await.unwrap();
            // The ping that was due meanwhile comes first: it waited for the turn.
            let mut next = rig.dials.plain();
            assert_eq!(next.receive().await.unwrap(), Some(Message::PingRequest));
            assert_eq!(rig.millis(), 5000);
            assert!(slow.send(&vote_answer(1)).await.is_err());
            next.send(&Message::PingResponse).await.unwrap();
            assert_eq!(next.receive().await.unwrap().as_ref(), Some(&request));
            assert_eq!(rig.millis(), 5100);
            next.send(&vote_answer(2)).await.unwrap();
        })
        .await;
    assert_eq!(answer.unwrap(), vote_answer(2));
    assert_eq!(rig.log.with("silent"), ["5000 failed SignVoteRequest 1: the signer was silent for 5 s"]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_trickles_in_may_take_longer_than_the_limit() {
    let rig = Rig::plain(Dialect::V0_38);
    let (request, mut signer) = (a_vote(), rig.dials.dial());
    let mut bytes = Vec::new();
    frame::encode(&vote_answer(1), &mut bytes);
    let (answer, ()) = rig
        .play(rig.client.ask(&request), async {
            signer.read_u8().await.unwrap();
            for part in bytes.chunks(bytes.len() / 3) {
                sleep(millis(4900)).await;
                signer.write_all(part).await.unwrap();
            }
        })
        .await;
    assert_eq!(answer.unwrap(), vote_answer(1));
    assert!(rig.millis() > 14_000);
}

#[tokio::test(start_paused = true)]
async fn over_noise_a_whole_message_has_to_come_within_the_limit() {
    let key = |n| SigningKey::from_bytes(&[n; 32]);
    let pinned = noise::PeerId::from(&key(2).verifying_key());
    let rig = Rig::new(Dialect::V0_40, Transport::Noise { signer: pinned });
    let request = a_vote();
    let (answer, ()) = rig
        .play(rig.client.ask_once(&request), async {
            let mut io = rig.dials.dial();
            let entropy = noise::Entropy { static_key: [5; 32], ephemeral: [6; 32] };
            let mut connection = initiate(&mut io, &key(2), &key(1), entropy).await.unwrap();
            let (mut bytes, mut sealed) = (Vec::new(), Vec::new());
            frame::encode(&vote_answer(1), &mut bytes);
            connection.sealer.seal(&bytes, &mut sealed).unwrap();
            let (half, rest) = sealed.split_at(sealed.len() / 2);
            sleep(millis(3000)).await;
            io.write_all(half).await.unwrap();
            sleep(millis(3000)).await;
            assert!(io.write_all(rest).await.is_err());
        })
        .await;
    assert!(matches!(answer, Err(Failure::Link(LinkError::Silent { .. }))), "{answer:?}");
    assert_eq!(rig.log.with("lost"), ["5000 lost 1"]);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_decode_fails_on_the_same_connection() {
    let rig = Rig::plain(Dialect::V0_38);
    let (request, mut signer) = (a_vote(), rig.dials.plain());
    let (answer, ()) = rig
        .play(rig.client.ask(&request), async {
            signer.receive().await.unwrap();
            signer.send_plain_bytes(&[0x02, 0xff, 0xff]).await.unwrap();
            assert_eq!(signer.receive().await.unwrap().as_ref(), Some(&request));
            signer.send(&vote_answer(1)).await.unwrap();
        })
        .await;
    assert_eq!(answer.unwrap(), vote_answer(1));
    assert_eq!(rig.log.with("sent").last().unwrap(), "100 sent SignVoteRequest 2 on 1");
    assert_eq!(rig.log.with("lost"), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn after_a_message_too_long_the_stream_is_out_of_step_until_a_ping_fails() {
    let rig = Rig::plain(Dialect::V0_38);
    let vote = Vote { extension: vec![0xff; 12_000], ..Vote::default() };
    let too_long = Message::SignedVoteResponse(SignedVoteResponse { vote, error: None });
    let (request, mut signer) = (a_vote(), rig.dials.plain());
    let (answer, ()) = rig
        .play(rig.client.ask(&request), async {
            signer.receive().await.unwrap();
            signer.send(&too_long).await.unwrap();
            let mut next = rig.dials.plain();
            while next.receive().await.unwrap() == Some(Message::PingRequest) {
                next.send(&Message::PingResponse).await.unwrap();
            }
            next.send(&vote_answer(2)).await.unwrap();
        })
        .await;
    assert_eq!(answer.unwrap(), vote_answer(2));
    assert_eq!(rig.log.with("lost"), ["3333 lost 1 by Ping"]);
    assert!(rig.log.with("failed")[0].contains("exceeds the limit of 10240 bytes"), "{:?}", rig.log.lines());
}

#[tokio::test(start_paused = true)]
async fn a_left_over_message_is_taken_for_the_answer_to_the_next_request() {
    let rig = Rig::plain(Dialect::V0_38);
    let (request, mut signer) = (a_vote(), rig.dials.plain());
    rig.play(
        async {
            assert_eq!(rig.client.ask(&request).await.unwrap(), vote_answer(1));
            assert_eq!(rig.client.ask(&request).await.unwrap(), vote_answer(2));
        },
        async {
            signer.receive().await.unwrap();
            signer.send(&vote_answer(1)).await.unwrap();
            signer.send(&vote_answer(2)).await.unwrap();
        },
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stops_gives_up_at_once_in_v0_40_alone() {
    for (dialect, attempts) in [(Dialect::V0_40, "1"), (Dialect::V0_38, "50")] {
        let rig = Rig::plain(dialect);
        let (request, mut signer) = (a_vote(), rig.dials.plain());
        let (answer, ()) = rig
            .play(rig.client.ask(&request), async {
                signer.receive().await.unwrap();
                signer.send(&Message::PingResponse).await.unwrap();
                sleep(millis(10)).await;
                rig.client.stop().await;
                while signer.receive().await.is_ok() {
                    if signer.send(&Message::PingResponse).await.is_err() || rig.millis() >= 4900 {
                        break;
                    }
                }
            })
            .await;
        assert_eq!(matches!(answer, Err(NoAnswer::Stopped { .. })), dialect == Dialect::V0_40, "{answer:?}");
        let gave_up = rig.log.with("gave up");
        assert!(gave_up[0].contains(&format!("SignVoteRequest {attempts} after")), "{gave_up:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_dies_after_sending_closes_its_connection() {
    let rig = Rig::plain(Dialect::V0_38);
    let (request, mut signer) = (a_vote(), rig.dials.plain());
    let asking = tokio::time::timeout(millis(1), rig.client.ask(&request));
    let (dead, ()) = rig
        .play(asking, async {
            assert_eq!(signer.receive().await.unwrap().as_ref(), Some(&request));
            assert!(matches!(signer.receive().await, Err(LinkError::Closed)));
            assert_eq!(rig.millis(), 1);
        })
        .await;
    assert!(dead.is_err());
}

#[tokio::test]
async fn asks_again_over_real_sockets() {
    let address: Address = "tcp://127.0.0.1:0".parse().unwrap();
    let listener = Listener::bind(&address).await.unwrap();
    let Address::Tcp(addr) = *listener.address() else { panic!("{}", listener.address()) };
    let settings = Settings {
        dialect: Dialect::V0_40,
        transport: Transport::from(listener.address()),
        identity: SigningKey::from_bytes(&[1; 32]),
        entropy: Box::new(|| [3; 32]),
        observer: Box::new(|_| {}),
    };
    let endpoint = SignerEndpoint::new(listener, settings);
    let client = RetryClient::new(endpoint);
    let dial = async || {
        let stream = tokio::net::TcpStream::connect(addr).await.unwrap();
        let key = SigningKey::from_bytes(&[2; 32]);
        NodeLink::accept_secret(stream, &key, [4; 32]).await.unwrap()
    };
    let request = a_vote();
    let asking = async {
        tokio::join!(client.ask(&request), async {
            let lost = dial().await.receive().await.unwrap();
            let mut link = dial().await;
            assert_eq!(link.receive().await.unwrap(), lost);
            link.send(&vote_answer(1)).await.unwrap();
        })
    };
    let (answer, ()) =
        tokio::select! { biased; both = asking => both, never = client.run() => match never {} };
    assert_eq!(answer.unwrap(), vote_answer(1));
}
