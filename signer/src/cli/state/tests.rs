use ed25519_dalek::{Signer as _, SigningKey};
use monosign_protocol::message::{Timestamp, Vote};
use monosign_protocol::sign_bytes;

use super::*;

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn chain(id: &str) -> ChainId {
    id.parse().expect("a chain id")
}

fn public_key(key: &SigningKey) -> PublicKey {
    PublicKey::from_bytes(key.verifying_key().to_bytes())
}

/// The state of a prevote for nil at 5/0, as CometBFT would have left it.
fn state() -> ForeignState {
    let timestamp = Timestamp { seconds: 1_700_000_000, nanos: 0 };
    let vote = Vote { vote_type: 1, height: Height(5), timestamp, ..Vote::default() };
    let sign_bytes = sign_bytes::vote("test", &vote);
    let signature = key().sign(&sign_bytes).to_bytes().to_vec();
    ForeignState {
        dialect: StateDialect::CometBft,
        height: 5,
        round: 0,
        step: Some(Step::Prevote),
        sign_bytes: Some(sign_bytes),
        signature: Some(signature),
        block: None,
        above: None,
    }
}

#[test]
fn takes_over_the_message_of_its_own_key() {
    let watermark = watermark(&state(), &chain("test"), public_key(&key())).expect("a good state");
    let signed = watermark.signed.expect("its message");
    assert_eq!((signed.sign_bytes, signed.timestamp.seconds), (state().sign_bytes.unwrap(), 1_700_000_000));
}

#[test]
fn refuses_the_state_of_another_key() {
    let other = public_key(&SigningKey::from_bytes(&[8; 32]));
    assert!(matches!(watermark(&state(), &chain("test"), other), Err(ImportError::OtherKey(_))));
}

#[test]
fn refuses_the_state_of_another_chain_of_the_same_key() {
    let other = watermark(&state(), &chain("other"), public_key(&key()));
    assert!(matches!(other, Err(ImportError::OtherChain { .. })));
}

#[test]
fn refuses_a_state_whose_step_was_changed_by_hand() {
    // As when a precommit is copied from tmkms, which counts it 2, into CometBFT's form.
    for step in [Step::Proposal, Step::Precommit] {
        let changed = ForeignState { step: Some(step), ..state() };
        assert!(matches!(
            watermark(&changed, &chain("test"), public_key(&key())),
            Err(ImportError::Contradiction { .. })
        ));
    }
}

#[test]
fn a_state_without_its_message_is_a_floor() {
    let floor = ForeignState { sign_bytes: None, signature: None, ..state() };
    let watermark = watermark(&floor, &chain("test"), public_key(&key())).expect("a good state");
    assert_eq!((watermark.to_string().as_str(), watermark.signed), ("5/0/2", None));
}

#[test]
fn an_exported_state_says_the_same_in_every_dialect() {
    let watermark = watermark(&state(), &chain("test"), public_key(&key())).expect("a good state");
    for dialect in [StateDialect::CometBft, StateDialect::Tmkms, StateDialect::Horcrux] {
        let text = foreign(&watermark, Some([1; 64]), dialect).write(dialect).expect("a state");
        let read = ForeignState::parse(text.as_bytes(), Some(dialect)).expect(&text);
        assert_eq!((read.height, read.round, read.step), (5, 0, Some(Step::Prevote)), "{text}");
    }
}
