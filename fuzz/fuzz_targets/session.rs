//! A session whose peer is hostile: over each transport, with raw bytes, with bytes under an honest handshake, and
//! with false proofs of identity under agreed keys. However the bytes are cut, the events are the same; memory is
//! bounded by the bytes; after misbehaviour nothing more comes out.
//!
//! Input: form 1 byte, two cut lengths 1 byte each, and what the peer says.
#![no_main]

use libfuzzer_sys::fuzz_target;
use monosign::session::{Event, PeerMisbehaved, Session};
use monosign_fuzz::head;
use monosign_fuzz::hostile::{self, SecretPeer};
use monosign_fuzz::meter::Meter;
use monosign_protocol::message::{Message, PubKeyResponse};

const PLAIN: u8 = 0;
const RAW_SECRET: u8 = 1;
const SEALED_SECRET: u8 = 2;
const FALSE_PROOF: u8 = 3;
const RAW_NOISE: u8 = 4;
const SEALED_NOISE: u8 = 5;
/// The last form is a false proof over noise.
const FORMS: u8 = 7;

/// How many events are answered.
const ANSWERS: usize = 40;
/// How much is answered before it is sent, in bytes.
const SEND_AT: usize = 32 * 1024;

fuzz_target!(|input: &[u8]| {
    let mut input = input;
    let [form, short, long] = head(&mut input);
    if input.is_empty() {
        return;
    }
    let cuts = [1 + usize::from(short), 1 + 16 * usize::from(long)];

    let (session, wire) = peer(form, input);
    let cut = run(session, &pieces(&wire, cuts));
    let (session, wire) = match form % FORMS {
        // What was sealed honestly says the same in the clear; handshakes are slow, so there is only one.
        SEALED_SECRET | SEALED_NOISE => peer(PLAIN, input),
        _ => peer(form, input),
    };
    let whole = run(session, &[wire.as_slice()]);

    // Misbehaviour ends a session at once, also before events of the same piece were taken out.
    match &whole.error {
        None => assert_eq!(whole, cut),
        Some(_) => assert!(cut.events.starts_with(&whole.events) && cut.error == whole.error),
    }
});

/// A session, and what its peer sends.
fn peer(form: u8, says: &[u8]) -> (Session, Vec<u8>) {
    let mut wire = Vec::new();
    let session = match form % FORMS {
        PLAIN => {
            wire.extend_from_slice(says);
            Session::plain()
        }
        RAW_SECRET => {
            wire.extend_from_slice(says);
            hostile::secret_session()
        }
        SEALED_SECRET => {
            let (session, mut sealer) = hostile::honest_secret();
            sealer.seal(says, &mut wire).expect("nonces are left");
            session
        }
        FALSE_PROOF => {
            let (mut peer, first) = SecretPeer::new();
            wire = first;
            seal_frames(&mut peer, says, &mut wire);
            hostile::secret_session()
        }
        RAW_NOISE => {
            wire.extend_from_slice(says);
            hostile::noise_session()
        }
        SEALED_NOISE => {
            let (session, mut sealer) = hostile::honest_noise();
            sealer.seal(says, &mut wire).expect("nonces are left");
            session
        }
        _ => {
            let session = hostile::noise_session();
            wire = hostile::noise_answer(session.outbox(), says);
            session
        }
    };
    (session, wire)
}

/// Frames of an attacker: each takes its length from two bytes; the highest bit makes it a lie.
fn seal_frames(peer: &mut SecretPeer, mut says: &[u8], wire: &mut Vec<u8>) {
    for _ in 0..16 {
        let announced = u16::from_le_bytes(head(&mut says));
        let data = &says[..says.len().min(usize::from(announced & 0x7ff))];
        let length = if announced & 0x8000 == 0 { data.len() as u32 } else { u32::from(announced) << 8 };
        peer.seal(length, data, wire);
        says = &says[data.len()..];
        if says.is_empty() {
            break;
        }
    }
}

fn pieces(mut wire: &[u8], cuts: [usize; 2]) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    for cut in cuts.into_iter().cycle() {
        let (piece, rest) = wire.split_at(cut.min(wire.len()));
        pieces.push(piece);
        wire = rest;
        if wire.is_empty() {
            break;
        }
    }
    pieces
}

/// Stands for the event in all transports.
const ESTABLISHED: &str = "established";

#[derive(Debug, Default, PartialEq)]
struct Run {
    events: Vec<String>,
    error: Option<PeerMisbehaved>,
}

fn run(mut session: Session, pieces: &[&[u8]]) -> Run {
    let mut run = Run::default();
    session.sent();
    if session.is_established() {
        run.events.push(ESTABLISHED.to_owned());
    }
    let meter = Meter::new();
    let (mut fed, mut noted) = (0, 0);
    for piece in pieces {
        fed += piece.len();
        if let Err(error) = step(&mut session, piece, &mut run.events) {
            check_over(&mut session);
            run.error = Some(error);
        }
        let events: usize = run.events.iter().map(|event| event.capacity() + 64).sum();
        noted = noted.max(events);
        // Unsealed and sealed bytes, each at most doubled by a growing buffer; 64 KiB and the answers are kept.
        let bound = 4 * fed + 8 * noted + 256 * 1024;
        assert!(meter.held() <= bound, "{} bytes held after {fed}", meter.held());
        if run.error.is_some() {
            break;
        }
    }
    run
}

/// Feeds a piece, and answers every event.
fn step(session: &mut Session, piece: &[u8], events: &mut Vec<String>) -> Result<(), PeerMisbehaved> {
    session.handle_bytes(piece)?;
    while let Some(event) = session.poll_event()? {
        assert!(session.is_established());
        match &event {
            Event::Established(peer) => {
                assert!(events.is_empty() && !peer.to_string().is_empty());
                events.push(ESTABLISHED.to_owned());
                continue;
            }
            // Sealing is slow, and one answer is like another.
            _ if events.len() > ANSWERS => {}
            Event::Request(request) if **request == Message::PingRequest => {
                session.respond(&Message::PingResponse)?
            }
            Event::Request(_) => {
                session.respond(&Message::PubKeyResponse(PubKeyResponse::universal([7; 32])))?
            }
            Event::Unreadable { .. } => session.respond_empty()?,
        }
        events.push(format!("{event:?}"));
        // As the link does: a small request may have a large answer.
        if session.outbox().len() > SEND_AT {
            session.sent();
        }
    }
    session.sent();
    Ok(())
}

/// After misbehaviour: no event, no byte to send, whatever is tried.
fn check_over(session: &mut Session) {
    assert!(session.outbox().is_empty());
    assert_eq!(session.handle_bytes(&[0]), Err(PeerMisbehaved::Failed));
    assert!(matches!(session.poll_event(), Err(PeerMisbehaved::Failed)));
    assert_eq!(session.respond(&Message::PingResponse), Err(PeerMisbehaved::Failed));
    assert_eq!(session.respond_empty(), Err(PeerMisbehaved::Failed));
    assert!(session.outbox().is_empty());
}
