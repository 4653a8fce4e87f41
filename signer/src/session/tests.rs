use ed25519_dalek::SigningKey;
use monosign_protocol::message::{PubKeyRequest, Text};
use proptest::prelude::*;

use super::*;

/// A signer's session and the node's end of it.
struct Rig {
    session: Session,
    sealer: secret_connection::Sealer,
    opener: secret_connection::Opener,
}

fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

impl Rig {
    fn new() -> Self {
        let mut session = Session::secret(secret_connection::Handshake::new(&key(1), [2; 32]), None);
        let mut node = secret_connection::Handshake::new(&key(3), [4; 32]);
        let mut to_node = Vec::new();
        while !(session.is_established() && node.is_established()) {
            to_node.extend_from_slice(session.outbox());
            session.sent();
            let used = node.handle(&to_node).expect("an honest signer");
            to_node.drain(..used);
            while let Some(bytes) = node.poll_transmit() {
                session.handle_bytes(&bytes).expect("an honest node");
            }
            while let Some(event) = session.poll_event().expect("an honest node") {
                assert!(matches!(event, Event::Established(Peer::Secret(_))));
            }
        }
        let done = node.established().expect("established");
        Self { session, sealer: done.sealer, opener: done.opener }
    }

    fn seal(&mut self, plain: &[u8]) -> Vec<u8> {
        let mut wire = Vec::new();
        self.sealer.seal(plain, &mut wire).expect("nonces are left");
        wire
    }

    fn answers(&mut self) -> Vec<u8> {
        let mut plain = Vec::new();
        let used = self.opener.open(self.session.outbox(), &mut plain).expect("an honest signer");
        assert_eq!(used, self.session.outbox().len());
        self.session.sent();
        plain
    }
}

fn framed(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::encode(message, &mut bytes);
    bytes
}

fn request(session: &mut Session) -> Option<Message> {
    match session.poll_event().expect("no misbehaviour") {
        Some(Event::Request(message)) => Some(*message),
        None => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn several_messages_in_one_sealed_frame_are_all_read_in_order() {
    let mut rig = Rig::new();
    let pub_key = Message::PubKeyRequest(PubKeyRequest { chain_id: Text::from("x") });
    let wire =
        rig.seal(&[framed(&Message::PingRequest), framed(&pub_key), framed(&Message::PingRequest)].concat());
    rig.session.handle_bytes(&wire).expect("honest");
    assert_eq!(request(&mut rig.session), Some(Message::PingRequest));
    assert_eq!(request(&mut rig.session), Some(pub_key));
    assert_eq!(request(&mut rig.session), Some(Message::PingRequest));
    assert_eq!(request(&mut rig.session), None);
    rig.session.respond(&Message::PingResponse).expect("nonces are left");
    assert_eq!(rig.answers(), [2, 0x42, 0]);
}

#[test]
fn an_unreadable_message_is_answered_in_its_arm_and_the_stream_goes_on() {
    let mut rig = Rig::new();
    // A vote request whose vote ends too early, a message without arm, and a response.
    let bytes =
        [&[4, 0x1a, 2, 0x0a, 9][..], &[0], &framed(&Message::PingResponse), &framed(&Message::PingRequest)];
    let wire = rig.seal(&bytes.concat());
    rig.session.handle_bytes(&wire).expect("honest");
    let mut arms = Vec::new();
    while let Some(event) = rig.session.poll_event().expect("in step") {
        arms.push(match event {
            Event::Unreadable { arm, .. } => arm,
            Event::Request(message) => {
                assert_eq!(*message, Message::PingRequest);
                None
            }
            Event::Established(_) => panic!("twice"),
        });
    }
    assert_eq!(arms, [Some(Arm::Vote), None, None, None]);
}

#[test]
fn amino_and_overlong_messages_end_the_session_by_name() {
    for (bytes, expected) in [
        (&[5, 0xcb, 0x94, 0xd6, 0x20, 0][..], FrameError::Amino),
        (&[0x81, 0x80, 0x80, 0x01], FrameError::TooLong { len: 0x20_0001, max: MAX_MESSAGE_LEN }),
    ] {
        let mut rig = Rig::new();
        let wire = rig.seal(bytes);
        rig.session.handle_bytes(&wire).expect("opens");
        assert_eq!(rig.session.poll_event().expect_err("misbehaved"), PeerMisbehaved::Framing(expected));
        assert_eq!(rig.session.poll_event().expect_err("over"), PeerMisbehaved::Failed);
    }
}

#[test]
fn a_flipped_bit_ends_the_session() {
    let mut rig = Rig::new();
    let mut wire = rig.seal(&framed(&Message::PingRequest));
    wire[500] ^= 1;
    assert!(matches!(rig.session.handle_bytes(&wire), Err(PeerMisbehaved::SecretFrame(_))));
}

#[test]
fn a_pinned_peer_that_is_another_is_refused() {
    let pinned = secret_connection::PeerIdentity::new(key(9).verifying_key()).id();
    let mut session = Session::secret(secret_connection::Handshake::new(&key(1), [2; 32]), Some(pinned));
    let mut node = secret_connection::Handshake::new(&key(3), [4; 32]);
    node.handle(session.outbox()).expect("honest");
    session.sent();
    while let Some(bytes) = node.poll_transmit() {
        session.handle_bytes(&bytes).expect("honest so far");
    }
    assert!(matches!(session.poll_event(), Err(PeerMisbehaved::WrongPeer { .. })));
}

#[test]
fn nothing_is_answered_after_misbehaviour() {
    // Found by fuzzing: a length of 2^64 - 1 ended the session, and a later answer still got into the outbox.
    let mut rig = Rig::new();
    let wire = rig.seal(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]);
    rig.session.handle_bytes(&wire).expect("opens");
    rig.session.poll_event().expect_err("misbehaved");
    assert_eq!(rig.session.respond(&Message::PingResponse), Err(PeerMisbehaved::Failed));
    assert_eq!(rig.session.respond_empty(), Err(PeerMisbehaved::Failed));
    assert!(rig.session.outbox().is_empty());
}

#[test]
fn memory_is_given_back_after_a_long_message() {
    let mut rig = Rig::new();
    let long = framed(&Message::PubKeyRequest(PubKeyRequest { chain_id: Text(vec![b'x'; 1 << 20]) }));
    let wire = rig.seal(&long);
    for chunk in wire.chunks(16 * 1024) {
        rig.session.handle_bytes(chunk).expect("honest");
    }
    assert!(request(&mut rig.session).is_some());
    assert!(rig.session.plain.capacity() <= KEEP_CAPACITY && rig.session.wire.capacity() <= KEEP_CAPACITY);
}

proptest! {
    #[test]
    fn however_the_wire_is_cut_the_requests_are_the_same(cuts in proptest::collection::vec(1usize..3000, 1..20)) {
        let mut rig = Rig::new();
        let pub_key = Message::PubKeyRequest(PubKeyRequest { chain_id: Text(vec![b'c'; 3000]) });
        let mut wire = Vec::new();
        for message in [&Message::PingRequest, &pub_key, &Message::PingRequest] {
            wire.extend(rig.seal(&framed(message)));
        }
        let (mut rest, mut got, mut cuts) = (&wire[..], Vec::new(), cuts.into_iter().cycle());
        while !rest.is_empty() {
            let (now, later) = rest.split_at(cuts.next().unwrap_or(1).min(rest.len()));
            rest = later;
            rig.session.handle_bytes(now).expect("honest");
            while let Some(message) = request(&mut rig.session) {
                got.push(message);
            }
        }
        prop_assert_eq!(got, vec![Message::PingRequest, pub_key, Message::PingRequest]);
    }

    /// Whatever a hostile peer sends, there is an event or a clean end, no panic, and no memory beyond the bound.
    #[test]
    fn garbage_ends_in_events_or_misbehaviour(bytes in proptest::collection::vec(any::<u8>(), 0..4000), sealed: bool) {
        let mut rig = Rig::new();
        let wire = if sealed { rig.seal(&bytes) } else { bytes };
        if rig.session.handle_bytes(&wire).is_ok() {
            while let Ok(Some(_)) = rig.session.poll_event() {}
        }
        prop_assert!(rig.session.plain.len() <= wire.len() && rig.session.wire.len() <= wire.len());
    }
}
