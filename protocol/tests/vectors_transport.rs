//! The transports against the bytes of real CometBFT releases, and of hostile peers.

mod common;

use chacha20poly1305::{AeadInPlace, ChaCha20Poly1305, KeyInit, Nonce, Tag};
use common::{dirs_with, feed, hex, hex32, lines, name, text};
use ed25519_dalek::{Signature, SigningKey};
use monosign_protocol::{
    noise::{self, Entropy},
    secret_connection::{self, FRAME_SIZE},
};
use serde_json::Value;
use x25519_dalek::{PublicKey, StaticSecret};

#[test]
fn secret_connection_vectors() {
    for dir in dirs_with("secret_connection.jsonl") {
        for vector in lines(&dir, "secret_connection.jsonl") {
            let name = name(&dir, &vector);
            for chunk in [1, 7, FRAME_SIZE, usize::MAX] {
                let a = secret_connection_side(&name, &vector, ("a", "b"), chunk);
                let b = secret_connection_side(&name, &vector, ("b", "a"), chunk);
                secret_connection_writes(&name, &vector, a, b, chunk);
            }
        }
    }
}

#[test]
fn secret_connection_reject_vectors() {
    for dir in dirs_with("secret_connection_rejects.jsonl") {
        for vector in lines(&dir, "secret_connection_rejects.jsonl") {
            let name = name(&dir, &vector);
            let ok = vector["ok"].as_bool().expect("a verdict");
            for chunk in [1, 7, FRAME_SIZE, usize::MAX] {
                let identity = SigningKey::from_bytes(&hex32(&vector, "identity_seed_a"));
                let mut handshake =
                    secret_connection::Handshake::new(&identity, hex32(&vector, "eph_priv_a"));
                let result = feed(&hex(&vector, "peer_sends"), chunk, |input| {
                    while handshake.poll_transmit().is_some() {}
                    handshake.handle(input)
                });
                // What a peer leaves unfinished ends with the connection: it never gets established.
                while handshake.poll_transmit().is_some() {}
                let accepted = result.is_ok() && handshake.is_established();
                assert_eq!(accepted, ok, "{name} in pieces of {chunk}: {result:?}");
                assert_eq!(handshake.established().is_some(), ok, "{name}");
            }
        }
    }
}

#[test]
fn noise_vectors() {
    for dir in dirs_with("noise.jsonl") {
        for vector in lines(&dir, "noise.jsonl") {
            for chunk in [1, 7, usize::MAX] {
                noise_vector(&name(&dir, &vector), &vector, chunk);
            }
        }
    }
}

/// Runs one side against the recorded bytes of the other; compares what it sends and whom it meets.
fn secret_connection_side(
    name: &str,
    vector: &Value,
    (ours, theirs): (&str, &str),
    chunk: usize,
) -> secret_connection::Established {
    let our = |key: &str| format!("{key}_{ours}");
    let their = |key: &str| format!("{key}_{theirs}");
    let identity = SigningKey::from_bytes(&hex32(vector, &our("identity_seed")));
    assert_eq!(identity.verifying_key().to_bytes(), hex32(vector, &our("identity_pub")), "{name}");

    let mut handshake = secret_connection::Handshake::new(&identity, hex32(vector, &our("eph_priv")));
    let sent = handshake.poll_transmit().expect("the ephemeral key comes first");
    assert_eq!(sent, hex(vector, &our("eph_msg")), "{name}: ephemeral message {ours}");
    assert_eq!(handshake.poll_transmit(), None, "{name}: the proof waits for the peer's key");

    let mut proof = Vec::new();
    let received = [hex(vector, &their("eph_msg")), hex(vector, &their("auth_frame"))].concat();
    let unused = feed(&received, chunk, |input| {
        let used = handshake.handle(input);
        proof.extend(handshake.poll_transmit());
        used
    });
    assert_eq!(unused, Ok(vec![]), "{name}: side {ours}");

    // The padding of a recorded frame may be stale memory, so frames are compared by what is in them.
    let key = hex32(vector, &our("send_key"));
    let message = hex(vector, &our("auth_msg"));
    assert_eq!(proof.len(), 1, "{name}");
    assert_eq!(open_frames(&key, 0, &proof[0]), message, "{name}: our proof {ours}");
    assert_eq!(open_frames(&key, 0, &hex(vector, &our("auth_frame"))), message, "{name}: their proof {ours}");
    let signature = Signature::from_slice(&message[message.len() - 64..]).expect("a signature");
    identity.verifying_key().verify_strict(&hex32(vector, "challenge"), &signature).expect(name);
    let secret = StaticSecret::from(hex32(vector, &our("eph_priv")));
    let dh = secret.diffie_hellman(&PublicKey::from(hex32(vector, &their("eph_pub"))));
    assert_eq!(dh.as_bytes(), &hex32(vector, "dh_secret"), "{name}");

    let established = handshake.established().unwrap_or_else(|| panic!("{name}: not established"));
    assert_eq!(established.peer.key().to_bytes(), hex32(vector, &their("identity_pub")), "{name}");
    assert!(established.leftover.is_empty(), "{name}");
    established
}

/// Every recorded write is sealed alike and opened by the other side.
fn secret_connection_writes(
    name: &str,
    vector: &Value,
    mut a: secret_connection::Established,
    mut b: secret_connection::Established,
    chunk: usize,
) {
    // Each side's proof was the frame with nonce 0.
    let (mut sent_a, mut sent_b) = (1, 1);
    for write in vector["writes"].as_array().expect("writes") {
        let (key, writer, reader, sent) = match text(write, "side") {
            "A" => ("send_key_a", &mut a.sealer, &mut b.opener, &mut sent_a),
            "B" => ("send_key_b", &mut b.sealer, &mut a.opener, &mut sent_b),
            side => panic!("{name}: side `{side}`"),
        };
        let plain = hex(write, "plain");
        let recorded = write.get("sealed").map(|_| hex(write, "sealed")).unwrap_or_default();
        let mut sealed = Vec::new();
        writer.seal(&plain, &mut sealed).expect(name);
        assert_eq!(sealed.len(), recorded.len(), "{name}");
        assert_eq!(Some((sealed.len() / FRAME_SIZE) as u64), write["frames"].as_u64(), "{name}");
        assert_eq!(open_frames(&hex32(vector, key), *sent, &sealed), plain, "{name}");
        *sent += (sealed.len() / FRAME_SIZE) as u64;

        let mut opened = Vec::new();
        let unused = feed(&recorded, chunk, |wire| reader.open(wire, &mut opened));
        assert_eq!(unused, Ok(vec![]), "{name}");
        assert_eq!(opened, plain, "{name}");
    }
}

/// The data of SecretConnection frames, opened with nothing but the cipher.
fn open_frames(key: &[u8; 32], first_nonce: u64, frames: &[u8]) -> Vec<u8> {
    let cipher = ChaCha20Poly1305::new(key.into());
    let mut data = Vec::new();
    for (frame, counter) in frames.chunks(FRAME_SIZE).zip(first_nonce..) {
        let mut nonce = Nonce::default();
        nonce[4..].copy_from_slice(&counter.to_le_bytes());
        let (sealed, tag) = frame.split_at(FRAME_SIZE - 16);
        let mut opened = sealed.to_vec();
        cipher
            .decrypt_in_place_detached(&nonce, &[], &mut opened, Tag::from_slice(tag))
            .expect("a frame under this key and nonce");
        let length = u32::from_le_bytes(opened[..4].try_into().expect("four bytes")) as usize;
        data.extend_from_slice(&opened[4..4 + length]);
    }
    data
}

/// Runs both sides, each against the recorded bytes of the other, through handshake and writes.
fn noise_vector(name: &str, vector: &Value, chunk: usize) {
    let (mut initiator, mut responder) = noise_sides(name, vector);
    let (sent, result) = noise_replay(&mut initiator, &hex(vector, "wire_responder"), chunk);
    assert_eq!(sent, hex(vector, "wire_initiator"), "{name}: what the initiator sends");
    if !vector["ok"].as_bool().expect("a verdict") {
        assert!(matches!(result, Err(noise::HandshakeError::WrongPeer { .. })), "{name}: {result:?}");
        assert!(initiator.established().is_none(), "{name}");
        return;
    }
    assert_eq!(result, Ok(vec![]), "{name}: the initiator");
    let (sent, result) = noise_replay(&mut responder, &hex(vector, "wire_initiator"), chunk);
    assert_eq!(sent, hex(vector, "wire_responder"), "{name}: what the responder sends");
    assert_eq!(result, Ok(vec![]), "{name}: the responder");

    let a = initiator.established().unwrap_or_else(|| panic!("{name}: initiator not established"));
    let b = responder.established().unwrap_or_else(|| panic!("{name}: responder not established"));
    assert_eq!(a.peer.to_string(), text(vector, "responder_peer_id"), "{name}");
    assert_eq!(b.peer.to_string(), text(vector, "initiator_peer_id"), "{name}");
    noise_writes(name, vector, a, b, chunk);
}

fn noise_sides(name: &str, vector: &Value) -> (noise::Handshake, noise::Handshake) {
    let pinned = text(vector, "pinned_peer_id").parse().expect(name);
    let side = |role: &str| {
        let key = |key: &str| hex32(vector, &format!("{role}_{key}"));
        let identity = SigningKey::from_bytes(&key("identity_seed"));
        let id = noise::PeerId::from(&identity.verifying_key());
        assert_eq!(id.to_string(), text(vector, &format!("{role}_peer_id")), "{name}");
        (identity, id, Entropy { static_key: key("static_priv"), ephemeral: key("ephemeral_priv") })
    };
    let (initiator, initiator_id, initiator_entropy) = side("initiator");
    let (responder, _, responder_entropy) = side("responder");
    (
        noise::Handshake::initiator(&initiator, pinned, initiator_entropy),
        noise::Handshake::responder(&responder, Some(initiator_id), responder_entropy),
    )
}

/// What a side sends when it receives `wire`, and what it leaves unused or how it fails.
fn noise_replay(
    side: &mut noise::Handshake,
    wire: &[u8],
    chunk: usize,
) -> (Vec<u8>, Result<Vec<u8>, noise::HandshakeError>) {
    let mut sent = side.poll_transmit().unwrap_or_default();
    let unused = feed(wire, chunk, |input| {
        let used = side.handle(input);
        sent.extend(side.poll_transmit().unwrap_or_default());
        used
    });
    (sent, unused)
}

/// Every recorded write is sealed to the very same bytes and opened by the other side.
fn noise_writes(
    name: &str,
    vector: &Value,
    mut a: noise::Established,
    mut b: noise::Established,
    chunk: usize,
) {
    for write in vector["writes"].as_array().expect("writes") {
        let (writer, reader) = match text(write, "side") {
            "initiator" => (&mut a.sealer, &mut b.opener),
            "responder" => (&mut b.sealer, &mut a.opener),
            side => panic!("{name}: side `{side}`"),
        };
        let (plain, wire) = (hex(write, "plain"), hex(write, "wire"));
        let (mut sealed, mut opened) = (Vec::new(), Vec::new());
        writer.seal(&plain, &mut sealed).expect(name);
        assert_eq!(sealed, wire, "{name}");
        assert_eq!(feed(&wire, chunk, |wire| reader.open(wire, &mut opened)), Ok(vec![]), "{name}");
        assert_eq!(opened, plain, "{name}");
    }
}
