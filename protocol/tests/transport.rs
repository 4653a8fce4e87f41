//! Both transports end to end: whatever is sent arrives, however it is cut, and nothing that was altered does.

mod common;

use common::feed;
use ed25519_dalek::SigningKey;
use monosign_protocol::{
    noise::{self, Entropy, PeerId},
    secret_connection,
};
use proptest::prelude::*;

fn identity(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

mod over_secret_connection {
    use secret_connection::{Established, FRAME_SIZE, Handshake, HandshakeError};

    use super::*;

    fn sides() -> (Handshake, Handshake) {
        (Handshake::new(&identity(1), [2; 32]), Handshake::new(&identity(3), [4; 32]))
    }

    fn established() -> (Established, Established) {
        let (mut a, mut b) = sides();
        let (key_a, key_b) = (a.poll_transmit().expect("a key"), b.poll_transmit().expect("a key"));
        a.handle(&key_b).expect("a good key");
        b.handle(&key_a).expect("a good key");
        let (proof_a, proof_b) = (a.poll_transmit().expect("a proof"), b.poll_transmit().expect("a proof"));
        a.handle(&proof_b).expect("a good proof");
        b.handle(&proof_a).expect("a good proof");
        (a.established().expect("established"), b.established().expect("established"))
    }

    /// Key and proof of side `b` if both arrive at `a` with bit `bit` flipped on the way.
    fn with_flipped_bit(bit: usize) -> Result<bool, HandshakeError> {
        let (mut a, mut b) = sides();
        let key_a = a.poll_transmit().expect("a key");
        let mut wire = b.poll_transmit().expect("a key");
        b.handle(&key_a).expect("a good key");
        wire.extend(b.poll_transmit().expect("a proof"));
        wire[bit / 8] ^= 1 << (bit % 8);
        a.handle(&wire)?;
        while a.poll_transmit().is_some() {}
        Ok(a.is_established())
    }

    #[test]
    fn a_handshake_with_any_bit_flipped_is_not_established() {
        // Every bit of the key, and one in each byte of the proof's frame.
        let bits = (0..35 * 8).chain((35..35 + FRAME_SIZE).map(|byte| byte * 8 + byte % 8));
        for bit in bits {
            assert_ne!(with_flipped_bit(bit), Ok(true), "bit {bit}");
        }
    }

    #[test]
    fn the_top_bit_of_the_key_is_signed_although_x25519_ignores_it() {
        assert_eq!(with_flipped_bit(35 * 8 - 1), Err(HandshakeError::SignatureInvalid));
    }

    #[test]
    fn a_frame_with_any_bit_flipped_is_refused() {
        for byte in 0..FRAME_SIZE {
            let (mut a, mut b) = established();
            let (mut wire, mut plain) = (Vec::new(), Vec::new());
            a.sealer.seal(b"sign this", &mut wire).expect("nonces");
            wire[byte] ^= 1 << (byte % 8);
            assert!(b.opener.open(&wire, &mut plain).is_err(), "byte {byte}");
            assert!(plain.is_empty());
        }
    }

    #[test]
    fn a_frame_is_opened_once_and_in_order() {
        let (mut a, mut b) = established();
        let (mut first, mut second) = (Vec::new(), Vec::new());
        a.sealer.seal(b"first", &mut first).expect("nonces");
        a.sealer.seal(b"second", &mut second).expect("nonces");
        let mut plain = Vec::new();
        assert_eq!(b.opener.open(&first, &mut plain), Ok(FRAME_SIZE));
        assert!(b.opener.open(&first, &mut plain).is_err(), "sent twice");
        let (_, mut b) = established();
        assert!(b.opener.open(&second, &mut plain).is_err(), "out of order");
        let (mut a, _) = established();
        assert!(a.opener.open(&first, &mut plain).is_err(), "sent back");
        assert_eq!(plain, b"first");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn whatever_is_sent_arrives(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..5000), 0..4),
            size in 1usize..3000,
        ) {
            let (mut a, mut b) = established();
            for (from, to) in [(&mut a.sealer, &mut b.opener), (&mut b.sealer, &mut a.opener)] {
                let (mut wire, mut plain) = (Vec::new(), Vec::new());
                for message in &messages {
                    let before = wire.len();
                    from.seal(message, &mut wire).expect("nonces");
                    prop_assert_eq!(wire.len() - before, message.len().div_ceil(1024) * FRAME_SIZE);
                }
                prop_assert_eq!(feed(&wire, size, |wire| to.open(wire, &mut plain)), Ok(vec![]));
                prop_assert_eq!(plain, messages.concat());
            }
        }

        #[test]
        fn garbage_never_establishes_and_is_judged_alike_however_it_is_cut(
            head in prop::sample::select(vec![&[][..], &[0x22, 0x0a, 0x20], &[0x21, 0x20], &[0x16, 0x03]]),
            garbage in prop::collection::vec(any::<u8>(), 0..3000),
            size in 1usize..1500,
        ) {
            let garbage = [head, &garbage].concat();
            let run = |size| {
                let mut a = sides().0;
                let unused = feed(&garbage, size, |input| a.handle(input));
                (unused, a.is_established())
            };
            let whole = run(usize::MAX);
            prop_assert!(!whole.1);
            prop_assert_eq!(run(size), whole);
        }
    }
}

mod over_noise {
    use noise::{Established, Handshake, HandshakeError};

    use super::*;

    fn sides() -> (Handshake, Handshake) {
        let entropy = |seed| Entropy { static_key: [seed; 32], ephemeral: [seed + 1; 32] };
        let id = |seed| PeerId::from(&identity(seed).verifying_key());
        (
            Handshake::initiator(&identity(1), id(2), entropy(3)),
            Handshake::responder(&identity(2), Some(id(1)), entropy(5)),
        )
    }

    /// The handshake with bit `bit` of the three messages flipped on the way.
    fn with_flipped_bit(bit: Option<usize>) -> Result<(Handshake, Handshake), HandshakeError> {
        let (mut a, mut b) = sides();
        let mut passed = 0;
        for turn in 0..3 {
            let (from, to) = if turn == 1 { (&mut b, &mut a) } else { (&mut a, &mut b) };
            let Some(mut message) = from.poll_transmit() else { break };
            if let Some(bit) =
                bit.and_then(|bit| bit.checked_sub(passed)).filter(|bit| *bit < 8 * message.len())
            {
                message[bit / 8] ^= 1 << (bit % 8);
            }
            passed += 8 * message.len();
            to.handle(&message)?;
        }
        Ok((a, b))
    }

    fn established() -> (Established, Established) {
        let (a, b) = with_flipped_bit(None).expect("a good handshake");
        (a.established().expect("established"), b.established().expect("established"))
    }

    #[test]
    fn a_handshake_with_any_bit_flipped_is_not_established_on_both_sides() {
        for byte in 0..34 + 204 + 172 {
            let bit = byte * 8 + byte % 8;
            if let Ok((a, b)) = with_flipped_bit(Some(bit)) {
                assert!(!(a.is_established() && b.is_established()), "bit {bit}");
            }
        }
    }

    #[test]
    fn a_message_with_any_bit_flipped_gives_nothing() {
        for byte in 0..2 + 9 + 16 {
            let (mut a, mut b) = established();
            let (mut wire, mut plain) = (Vec::new(), Vec::new());
            a.sealer.seal(b"sign this", &mut wire).expect("nonces");
            wire[byte] ^= 1 << (byte % 8);
            // A length that became larger waits for more bytes.
            assert!(matches!(b.opener.open(&wire, &mut plain), Ok(0) | Err(_)), "byte {byte}");
            assert!(plain.is_empty());
        }
    }

    #[test]
    fn long_data_takes_several_messages_in_one_buffer() {
        let (mut a, mut b) = established();
        let data = vec![7; 2 * noise::MAX_PLAIN + 1];
        let (mut wire, mut plain) = (Vec::new(), Vec::new());
        a.sealer.seal(&data, &mut wire).expect("nonces");
        assert_eq!(wire.len(), data.len() + 3 * 18);
        assert_eq!(wire[..2], [0xff, 0xff]);
        assert_eq!(b.opener.open(&wire[..noise::MAX_UNUSED], &mut plain), Ok(0));
        assert_eq!(b.opener.open(&wire, &mut plain), Ok(wire.len()));
        assert!(plain == data);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn whatever_is_sent_arrives(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..5000), 0..4),
            size in 1usize..3000,
        ) {
            let (mut a, mut b) = established();
            for (from, to) in [(&mut a.sealer, &mut b.opener), (&mut b.sealer, &mut a.opener)] {
                let (mut wire, mut plain) = (Vec::new(), Vec::new());
                for message in &messages {
                    from.seal(message, &mut wire).expect("nonces");
                }
                prop_assert_eq!(feed(&wire, size, |wire| to.open(wire, &mut plain)), Ok(vec![]));
                prop_assert_eq!(plain, messages.concat());
            }
        }

        #[test]
        fn garbage_never_establishes_and_is_judged_alike_however_it_is_cut(
            length in 0u16..5000,
            garbage in prop::collection::vec(any::<u8>(), 0..5000),
            size in 1usize..1500,
        ) {
            let garbage = [&length.to_be_bytes()[..], &garbage].concat();
            let run = |initiator: bool, size| {
                let (a, b) = sides();
                let mut side = if initiator { a } else { b };
                let unused = feed(&garbage, size, |input| side.handle(input));
                (unused, side.is_established())
            };
            for initiator in [true, false] {
                let whole = run(initiator, usize::MAX);
                prop_assert!(!whole.1);
                prop_assert_eq!(run(initiator, size), whole);
            }
        }
    }
}
