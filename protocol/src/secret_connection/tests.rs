//! What a scripted peer can do to a handshake.

use ed25519_dalek::{Signer, SigningKey};
use x25519_dalek::{PublicKey, StaticSecret};

use super::*;

fn identity(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

/// Our side, whose peer's key has come, and the peer's sealer and the challenge.
fn keyed() -> (Handshake, Sealer, [u8; 32]) {
    let mut handshake = Handshake::new(&identity(1), [2; 32]);
    let ours = handshake.poll_transmit().expect("our key");
    let ours: [u8; 32] = ours[3..].try_into().expect("35 bytes");
    let secret = StaticSecret::from([3; 32]);
    let theirs = PublicKey::from(&secret).to_bytes();
    let dh = secret.diffie_hellman(&PublicKey::from(ours));
    handshake.handle(&[&[0x22, 0x0a, 0x20][..], &theirs].concat()).expect("a good key");
    (handshake, keys::seals(&theirs, &ours, &dh).0, keys::challenge(&theirs, &ours, &dh))
}

/// How the handshake ends for a peer whose proof is `message`, with its length before it.
fn after_proof(message: impl FnOnce([u8; 32]) -> Vec<u8>) -> Result<Option<Established>, HandshakeError> {
    let (mut handshake, mut sealer, challenge) = keyed();
    let mut wire = Vec::new();
    sealer.seal(&message(challenge), &mut wire).expect("nonces");
    handshake.poll_transmit();
    handshake.handle(&wire)?;
    Ok(handshake.established())
}

/// A proof from its two fields.
fn proof(public_key: &[u8], signature: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    crate::wire::put_bytes_always(&mut message, 1, public_key);
    crate::wire::put_bytes_always(&mut message, 2, signature);
    message.insert(0, message.len() as u8);
    message
}

fn public_key(arm: u32, key: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    crate::wire::put_bytes_always(&mut message, arm, key);
    message
}

fn refused(message: impl FnOnce([u8; 32]) -> Vec<u8>) -> HandshakeError {
    after_proof(message).expect_err("a refusal")
}

#[test]
fn accepts_a_peer_that_signs_the_challenge() {
    let established = after_proof(|challenge| auth::encode(&identity(4), &challenge));
    let established = established.expect("no error").expect("established");
    assert_eq!(established.peer, PeerIdentity::new(identity(4).verifying_key()));
    assert!(established.leftover.is_empty());
}

#[test]
fn hands_over_what_came_behind_the_proof() {
    let with_data = |challenge| [auth::encode(&identity(4), &challenge), b"data".to_vec()].concat();
    let established = after_proof(with_data).expect("no error").expect("established");
    assert_eq!(established.leftover, b"data");
}

#[test]
fn skips_fields_it_does_not_know_in_the_proof() {
    let longer = |challenge| {
        let mut message = auth::encode(&identity(4), &challenge);
        message.extend([0x1a, 0x02, 0xff, 0xff, 0x20, 0x07]);
        message[0] += 6;
        message
    };
    assert!(after_proof(longer).expect("no error").is_some());
}

#[test]
fn is_not_established_before_its_own_proof_is_taken() {
    let (mut handshake, mut sealer, challenge) = keyed();
    let mut wire = Vec::new();
    sealer.seal(&auth::encode(&identity(4), &challenge), &mut wire).expect("nonces");
    assert_eq!(handshake.handle(&wire), Ok(FRAME_SIZE));
    assert!(!handshake.is_established());
    assert_eq!(handshake.poll_transmit().map(|frame| frame.len()), Some(FRAME_SIZE));
    assert!(handshake.is_established());
    assert_eq!(handshake.handle(&[0; 5000]), Ok(0), "frames after the proof are the opener's");
}

#[test]
fn names_tendermint_v0_33_by_its_first_two_bytes() {
    let mut handshake = Handshake::new(&identity(1), [2; 32]);
    assert_eq!(handshake.handle(&[0x21]), Ok(0));
    assert_eq!(handshake.handle(&[0x21, 0x20]), Err(HandshakeError::AminoPeer));
    assert_eq!(handshake.handle(&[]), Err(HandshakeError::AminoPeer), "an error stays");
    assert_eq!(handshake.poll_transmit(), None);
}

#[test]
fn refuses_its_own_key_back() {
    let mut handshake = Handshake::new(&identity(1), [2; 32]);
    let ours = handshake.poll_transmit().expect("our key");
    assert_eq!(handshake.handle(&ours), Err(HandshakeError::Reflected));
}

#[test]
fn refuses_identities_of_other_types_by_name() {
    for (arm, kind) in [(2, "secp256k1"), (3, "bls12_381"), (4, "mldsa65"), (5, "secp256k1eth")] {
        let error = refused(|_| proof(&public_key(arm, &[7; 33]), &[0; 64]));
        assert_eq!(error, HandshakeError::IdentityNotEd25519 { kind });
    }
}

#[test]
fn names_an_identity_of_the_largest_type_although_it_takes_several_frames() {
    let mut key = vec![0x22, 0xa0, 0x0f];
    key.extend([7; 1952]);
    let mut message = vec![0xa6, 0x0f, 0x0a, 0xa3, 0x0f];
    message.extend(key);
    let error = refused(|_| message);
    assert_eq!(error, HandshakeError::IdentityNotEd25519 { kind: "mldsa65" });
}

#[test]
fn refuses_a_proof_without_a_usable_key_or_signature() {
    let key = public_key(1, identity(4).verifying_key().as_bytes());
    assert_eq!(refused(|_| vec![0]), HandshakeError::NoIdentity);
    assert_eq!(refused(|_| proof(&[], &[0; 64])), HandshakeError::NoIdentity);
    assert_eq!(
        refused(|_| proof(&public_key(1, &[1; 31]), &[])),
        HandshakeError::IdentityInvalid { length: 31 }
    );
    assert_eq!(
        refused(|_| proof(&public_key(1, &[2; 32]), &[])),
        HandshakeError::IdentityInvalid { length: 32 }
    );
    for length in [0, 63, 64, 65] {
        assert_eq!(refused(|_| proof(&key, &vec![0; length])), HandshakeError::SignatureInvalid);
    }
    assert_eq!(refused(|_| vec![2, 0x0a, 0x05]), HandshakeError::AuthMalformed);
    assert_eq!(refused(|_| vec![0xff; 10]), HandshakeError::AuthMalformed);
}

#[test]
fn refuses_a_proof_for_another_connection() {
    let key = public_key(1, identity(4).verifying_key().as_bytes());
    let signature = identity(4).sign(&[0; 32]).to_bytes();
    assert_eq!(refused(|_| proof(&key, &signature)), HandshakeError::SignatureInvalid);
}

#[test]
fn refuses_an_identity_whose_signature_fits_every_connection() {
    // The neutral element as key and nonce, S = 0: the equation of RFC 8032 holds for any challenge.
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let signature = [neutral, [0; 32]].concat();
    let error = refused(|_| proof(&public_key(1, &neutral), &signature));
    assert_eq!(error, HandshakeError::SignatureInvalid);
}

#[test]
fn a_peer_without_a_key_cannot_make_it_hold_much() {
    let fresh = || Handshake::new(&identity(1), [2; 32]);
    let announce = |length: u64| [length as u8 | 0x80, (length >> 7) as u8];
    assert_eq!(fresh().handle(&announce(1024)), Ok(0));
    assert_eq!(fresh().handle(&announce(1025)), Err(HandshakeError::EphemeralTooLong { length: 1025 }));
    assert_eq!(fresh().handle(&[0x80; 9]), Ok(0));
    assert_eq!(fresh().handle(&[0x80; 10]), Err(HandshakeError::EphemeralMalformed));
    // Whatever the first bytes: once the caller holds more than MAX_UNUSED, the handshake used some or failed.
    for first in 0..=u8::MAX {
        for second in [0, 7, 8, 9, 0x20, 0x7f, 0x80, 0xff] {
            let mut input = vec![0x80; MAX_UNUSED + 1];
            (input[0], input[1]) = (first, second);
            assert_ne!(fresh().handle(&input), Ok(0), "{first:02x} {second:02x}");
        }
    }
}

#[test]
fn a_peer_with_a_key_cannot_make_it_hold_much() {
    let announced = |length: u16| vec![length as u8 | 0x80, (length >> 7) as u8];
    assert_eq!(refused(|_| announced(8193)), HandshakeError::AuthTooLong { length: 8193 });
    assert!(after_proof(|_| announced(8192)).expect("not yet refused").is_none());

    // The longest proof, a byte a frame: the handshake ends with the message's last byte and holds no more.
    let (mut handshake, mut sealer, _) = keyed();
    let mut frames = 0;
    let error = loop {
        let mut wire = Vec::new();
        let byte = *announced(8192).get(frames).unwrap_or(&0x18);
        sealer.seal(&[byte], &mut wire).expect("nonces");
        frames += 1;
        if let Err(error) = handshake.handle(&wire) {
            break error;
        }
    };
    assert_eq!((error, frames), (HandshakeError::NoIdentity, 2 + MAX_AUTH_MESSAGE));
}

#[test]
fn refuses_frames_without_data_in_any_place_of_the_proof() {
    // The length says zero, the padding is not.
    let mut plain = vec![9; 4 + FRAME_DATA];
    plain[..4].fill(0);
    let empty_frame = |sealer: &mut Sealer| sealer.seal_raw(plain.clone());
    let (mut handshake, mut sealer, _) = keyed();
    assert_eq!(handshake.handle(&empty_frame(&mut sealer)), Err(HandshakeError::EmptyAuthFrame));
    let (mut handshake, mut sealer, _) = keyed();
    let mut wire = Vec::new();
    sealer.seal(&[102], &mut wire).expect("nonces");
    assert_eq!(handshake.handle(&wire), Ok(FRAME_SIZE));
    assert_eq!(handshake.handle(&empty_frame(&mut sealer)), Err(HandshakeError::EmptyAuthFrame));
}

#[test]
fn shows_no_secrets_when_printed() {
    let (handshake, sealer, _) = keyed();
    let text = format!("{handshake:?} {sealer:?}");
    assert_eq!(text, "Handshake { key_received: true, failed: None, .. } Sealer { .. }");
}
