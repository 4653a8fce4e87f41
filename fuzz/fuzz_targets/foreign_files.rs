//! Files that others wrote: sign states, keys and configurations. Any content is read or refused, with an error that can
//! be printed; a state that was read can be written in every dialect, and reads the same again.
//!
//! Input: which parser and with which hint, 1 byte, and the file.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use monosign::config::Config;
use monosign::import::key::{self, KeyForm, PlainFormat};
use monosign::import::state::{ForeignState, SignedBlock, StateDialect, StateError};
use monosign_fuzz::head;
use monosign_protocol::Step;

fuzz_target!(|input: &[u8]| {
    let mut content = input;
    let [parser] = head(&mut content);
    match parser % 8 {
        0 => state(content, None),
        1 => state(content, Some(StateDialect::CometBft)),
        2 => state(content, Some(StateDialect::Tmkms)),
        3 => state(content, Some(StateDialect::Horcrux)),
        4 => plain_key(content, None),
        5 => plain_key(content, Some(PlainFormat::Json)),
        6 => plain_key(content, Some(PlainFormat::Base64)),
        _ => config(content),
    }
});

fn state(content: &[u8], dialect: Option<StateDialect>) {
    let state = match ForeignState::parse(content, dialect) {
        Ok(state) => state,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    assert!(dialect.is_none_or(|dialect| state.dialect == dialect));
    assert!(state.height >= 0 && state.round >= 0);
    for dialect in [StateDialect::CometBft, StateDialect::Tmkms, StateDialect::Horcrux] {
        // Horcrux notes what it is about to sign. FilePV never has sign bytes alone, and such a file is refused.
        if dialect == StateDialect::CometBft && state.sign_bytes.is_some() && state.signature.is_none() {
            continue;
        }
        let text = match state.write(dialect) {
            Ok(text) => text,
            Err(StateError::BlockUnknown) if dialect == StateDialect::Tmkms => continue,
            Err(error) => panic!("{error}"),
        };
        let read = ForeignState::parse(text.as_bytes(), Some(dialect)).expect(&text);
        assert_eq!(read, expected(&state, dialect), "{text}");
        assert_eq!(ForeignState::parse(text.as_bytes(), None).as_ref(), Ok(&read), "recognised");
    }
}

/// The state, less what the dialect has no place for.
fn expected(state: &ForeignState, dialect: StateDialect) -> ForeignState {
    let mut state = ForeignState { dialect, above: None, ..state.clone() };
    if dialect != StateDialect::Tmkms {
        state.block = None;
        return state;
    }
    (state.sign_bytes, state.signature) = (None, None);
    if state.step.is_none() && (state.height, state.round) != (0, 0) {
        (state.step, state.block) = (Some(Step::Proposal), Some(SignedBlock::Nil));
    }
    state
}

fn plain_key(content: &[u8], format: Option<PlainFormat>) {
    let parsed = match key::parse_plain(content, format) {
        Ok(parsed) => parsed,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let written = key::to_tmkms_base64(&parsed.key);
    let again = key::parse_plain(written.as_bytes(), Some(PlainFormat::Base64)).expect("our own file");
    assert_eq!(again.key.public_key(), parsed.key.public_key());
    assert!(matches!(again.form, KeyForm::Seed | KeyForm::YubiHsmExport));
}

fn config(content: &[u8]) {
    let Ok(text) = std::str::from_utf8(content) else { return };
    match Config::parse(text, Path::new("/m/monosign.toml")) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(config) => {
            for chain in &config.chains {
                assert_eq!(config.chain(&chain.id).map(|found| &found.record), Some(&chain.record));
                assert!(chain.record.is_absolute());
                assert!(chain.key.softsign().is_none_or(|source| source.path.is_absolute()));
            }
            assert!(config.validators.iter().all(|validator| config.chain(&validator.chain_id).is_some()));
        }
    }
}
