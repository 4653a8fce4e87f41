//! The three JSON layouts.

use std::fmt::{self, Write as _};

use data_encoding::{BASE64, HEXLOWER_PERMISSIVE, HEXUPPER};
use serde::Deserialize;
use serde::de::{Deserializer, Error, Unexpected, Visitor};

use crate::ops::redact;

use super::{ForeignState, SignedBlock, StateDialect, StateError, Step};

pub(super) fn parse(content: &[u8], dialect: Option<StateDialect>) -> Result<ForeignState, StateError> {
    let file: StateJson = serde_json::from_slice(content)
        .map_err(|error| StateError::Malformed { reason: redact::json(content, &error) })?;
    let dialect = match dialect {
        Some(dialect) => file.check(dialect)?,
        None => file.recognise()?,
    };
    file.into_state(dialect)
}

pub(super) fn write(state: &ForeignState, dialect: StateDialect) -> Result<String, StateError> {
    match dialect {
        StateDialect::CometBft => Ok(write_cometbft(state)),
        StateDialect::Tmkms => write_tmkms(state),
        StateDialect::Horcrux => Ok(write_horcrux(state)),
    }
}

/// The fields of all three, so that an unknown one is noticed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StateJson {
    height: Option<Number>,
    round: Option<Number>,
    step: Option<i64>,
    signature: Option<String>,
    signbytes: Option<String>,
    /// tmkms; `Some(None)` is JSON's `null`.
    #[serde(default, deserialize_with = "present")]
    block_id: Option<Option<BlockIdJson>>,
    /// Horcrux v3.
    #[serde(default, deserialize_with = "present")]
    nonce_public: Option<Option<String>>,
    /// Horcrux v2.
    #[serde(default, deserialize_with = "present")]
    ephemeral_public: Option<Option<String>>,
    /// Horcrux since v3.3.
    vote_ext_signature: Option<String>,
    /// Horcrux versions that exported the field by mistake.
    #[serde(rename = "FilePath")]
    file_path: Option<String>,
}

/// CometBFT's JSON writes 64-bit integers as strings and smaller ones as numbers; tmkms writes both as strings.
enum Number {
    Text(String),
    Bare(i64),
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Numbers;
        impl Visitor<'_> for Numbers {
            type Value = Number;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number, in quotes or without")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Number, E> {
                Ok(Number::Text(text.to_owned()))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Number, E> {
                Ok(Number::Bare(number))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Number, E> {
                i64::try_from(number)
                    .map(Number::Bare)
                    .map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &self))
            }
        }
        deserializer.deserialize_any(Numbers)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BlockIdJson {
    hash: String,
    /// tmkms up to v0.12 called them otherwise, and up to v0.9 had none in some states.
    #[serde(alias = "part_set_header")]
    parts: Option<PartsJson>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PartsJson {
    /// In quotes up to v0.9.
    total: Number,
    hash: String,
}

fn present<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Some)
}

impl StateJson {
    fn recognise(&self) -> Result<StateDialect, StateError> {
        let fits = [StateDialect::CometBft, StateDialect::Tmkms, StateDialect::Horcrux]
            .into_iter()
            .filter(|dialect| self.check(*dialect).is_ok());
        match fits.collect::<Vec<_>>()[..] {
            // A round in quotes alone is not proof: people edit CometBFT's file into Horcrux's by hand, and
            // Tendermint up to v0.33 wrote it so as well.
            [StateDialect::Horcrux] if !self.shows_horcrux() => Err(StateError::Ambiguous),
            [dialect] => Ok(dialect),
            _ if self.round.is_none() => Err(StateError::Missing { field: "round" }),
            _ => Err(StateError::Inconsistent { reason: "the fields are those of several signers" }),
        }
    }

    /// That nothing in the file speaks against `dialect`.
    fn check(&self, dialect: StateDialect) -> Result<StateDialect, StateError> {
        let round_is_text = matches!(self.round, Some(Number::Text(_))) || self.is_old_tmkms();
        let reason = match dialect {
            StateDialect::CometBft if round_is_text => "CometBFT writes `round` without quotes",
            StateDialect::CometBft if self.shows_tmkms() => "CometBFT has no `block_id`",
            StateDialect::CometBft if self.shows_horcrux() => "CometBFT has no `nonce_public`",
            StateDialect::Tmkms if !round_is_text => "tmkms writes `round` in quotes",
            StateDialect::Tmkms if !self.shows_tmkms() => "tmkms always writes `block_id`",
            StateDialect::Tmkms if self.shows_horcrux() => "tmkms has no `nonce_public`",
            StateDialect::Tmkms if self.signature.is_some() => "tmkms has no `signature`",
            StateDialect::Tmkms if self.signbytes.is_some() => "tmkms has no `signbytes`",
            StateDialect::Horcrux if !round_is_text => "Horcrux writes `round` in quotes",
            StateDialect::Horcrux if self.shows_tmkms() => "Horcrux has no `block_id`",
            _ => return Ok(dialect),
        };
        Err(StateError::OtherDialect { dialect, reason })
    }

    /// tmkms up to v0.5 wrote numbers without quotes.
    fn is_old_tmkms(&self) -> bool {
        matches!((&self.height, &self.round), (Some(Number::Bare(_)), Some(Number::Bare(_))))
            && self.shows_tmkms()
    }

    fn shows_tmkms(&self) -> bool {
        self.block_id.is_some()
    }

    fn shows_horcrux(&self) -> bool {
        self.nonce_public.is_some()
            || self.ephemeral_public.is_some()
            || self.vote_ext_signature.is_some()
            || self.file_path.is_some()
    }

    fn into_state(self, dialect: StateDialect) -> Result<ForeignState, StateError> {
        let expected = "a height in quotes, from 0 to 9223372036854775807";
        let is_old = self.is_old_tmkms();
        let height = match self.height.ok_or(StateError::Missing { field: "height" })? {
            Number::Text(digits) => decimal(&digits),
            Number::Bare(number) => Some(number).filter(|number| is_old && *number >= 0),
        };
        let height = height.ok_or(StateError::BadValue { field: "height", expected })?;

        let round = match self.round.ok_or(StateError::Missing { field: "round" })? {
            Number::Text(digits) => decimal(&digits),
            Number::Bare(number) => Some(number),
        };
        let round = round.and_then(|round| i32::try_from(round).ok()).filter(|round| *round >= 0);
        let round =
            round.ok_or(StateError::BadValue { field: "round", expected: "a round from 0 to 2147483647" })?;

        let block = self.block_id.flatten();
        let has_parts = block.as_ref().is_none_or(|block| block.parts.is_some());
        let block = block.map(BlockIdJson::into_block).transpose()?.flatten();
        let step = self.step.ok_or(StateError::Missing { field: "step" })?;
        let step = match dialect {
            // tmkms writes its starting state, in which nothing was signed, as a proposal at height 0.
            StateDialect::Tmkms if (height, round, step, block) == (0, 0, 0, None) => None,
            // What is not known of its last height is taken as signed, all of it.
            StateDialect::Tmkms if is_old => return above(height, dialect, OLD_NUMBERS),
            StateDialect::Tmkms if !has_parts => return above(height, dialect, NO_PARTS),
            StateDialect::Tmkms if i8::try_from(step).is_ok() && tmkms_step(step).is_err() => {
                return above(height, dialect, ODD_STEP);
            }
            StateDialect::Tmkms => Some(tmkms_step(step)?),
            StateDialect::CometBft | StateDialect::Horcrux => cometbft_step(step)?,
        };

        let signature = decode(self.signature, &BASE64, "signature", "base64")?;
        let sign_bytes = decode(self.signbytes, &HEXUPPER, "signbytes", "upper-case hex")?;
        check_consistency(dialect, step, sign_bytes.is_some(), signature.is_some())?;
        let block = match (dialect, step) {
            // In tmkms's own rules `null` and nil are the same.
            (StateDialect::Tmkms, Some(_)) => block.or(Some(SignedBlock::Nil)),
            _ => block,
        };
        Ok(ForeignState { dialect, height, round, step, sign_bytes, signature, block, above: None })
    }
}

/// Why a height is taken as signed, all of it.
const OLD_NUMBERS: &str = "it has no quotes around its numbers, as tmkms up to v0.5 wrote it";
const NO_PARTS: &str = "it does not say which block was signed, as tmkms up to v0.9 wrote it";
const ODD_STEP: &str = "its step is none that tmkms signs, as in a floor that was set by hand";

/// Nothing signed above a height, and that height taken as signed.
fn above(height: i64, dialect: StateDialect, why: &'static str) -> Result<ForeignState, StateError> {
    let next = height.checked_add(1);
    let height =
        next.ok_or(StateError::BadValue { field: "height", expected: "one that another follows" })?;
    let (sign_bytes, signature, block) = (None, None, None);
    Ok(ForeignState { dialect, height, round: 0, step: None, sign_bytes, signature, block, above: Some(why) })
}

impl BlockIdJson {
    /// `None` if it does not say which.
    fn into_block(self) -> Result<Option<SignedBlock>, StateError> {
        let Some(parts) = self.parts else { return Ok(None) };
        let total = match parts.total {
            Number::Bare(total) => Some(total),
            Number::Text(digits) => decimal(&digits),
        };
        let total = total.and_then(|total| u32::try_from(total).ok());
        if self.hash.is_empty() && parts.hash.is_empty() && total == Some(0) {
            return Ok(Some(SignedBlock::Nil));
        }
        let hash32 = |text: &str| {
            HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok())
        };
        let expected = "a block id: two hashes of 64 hex digits and a part count, or all empty";
        let bad = StateError::BadValue { field: "block_id", expected };
        match (hash32(&self.hash), hash32(&parts.hash), total) {
            (Some(hash), Some(part_set_hash), Some(part_set_total)) if part_set_total > 0 => {
                Ok(Some(SignedBlock::Block { hash, part_set_total, part_set_hash }))
            }
            _ => Err(bad),
        }
    }
}

/// tmkms v0.15 `src/chain/state.rs`.
fn tmkms_step(step: i64) -> Result<Step, StateError> {
    match step {
        0 => Ok(Step::Proposal),
        1 => Ok(Step::Prevote),
        2 => Ok(Step::Precommit),
        _ => Err(StateError::BadValue { field: "step", expected: "a step of tmkms, 0, 1 or 2" }),
    }
}

/// CometBFT v0.38 `privval/file.go`: `stepNone` to `stepPrecommit`. Horcrux's are the same.
fn cometbft_step(step: i64) -> Result<Option<Step>, StateError> {
    match step {
        0 => Ok(None),
        1 => Ok(Some(Step::Proposal)),
        2 => Ok(Some(Step::Prevote)),
        3 => Ok(Some(Step::Precommit)),
        _ => Err(StateError::BadValue { field: "step", expected: "a step of CometBFT, 0, 1, 2 or 3" }),
    }
}

fn check_consistency(
    dialect: StateDialect,
    step: Option<Step>,
    sign_bytes: bool,
    signature: bool,
) -> Result<(), StateError> {
    let reason = match (step, sign_bytes, signature) {
        (None, true, _) | (None, _, true) => "there is a signature, but `step` says that nothing was signed",
        (_, false, true) => "there is a `signature` without `signbytes`",
        // Horcrux notes what it is about to sign; FilePV panics on such a file.
        (_, true, false) if dialect == StateDialect::CometBft => {
            "there are `signbytes` without a `signature`"
        }
        _ => return Ok(()),
    };
    Err(StateError::Inconsistent { reason })
}

/// A decimal number as every JSON encoder writes it: digits, no sign, no leading zero.
fn decimal(digits: &str) -> Option<i64> {
    let canonical = digits == "0" || !digits.starts_with('0');
    let only_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
    if canonical && only_digits { digits.parse().ok() } else { None }
}

/// `None` for a field that is missing or empty.
fn decode(
    text: Option<String>,
    encoding: &data_encoding::Encoding,
    field: &'static str,
    expected: &'static str,
) -> Result<Option<Vec<u8>>, StateError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    encoding.decode(text.as_bytes()).map(Some).map_err(|_| StateError::BadValue { field, expected })
}

fn cometbft_number(step: Option<Step>) -> u8 {
    match step {
        None => 0,
        Some(Step::Proposal) => 1,
        Some(Step::Prevote) => 2,
        Some(Step::Precommit) => 3,
    }
}

fn write_cometbft(state: &ForeignState) -> String {
    let ForeignState { height, round, step, .. } = state;
    let step = cometbft_number(*step);
    let mut text = format!("{{\n  \"height\": \"{height}\",\n  \"round\": {round},\n  \"step\": {step}");
    write_signature(&mut text, state, StateDialect::CometBft);
    text + "\n}"
}

fn write_horcrux(state: &ForeignState) -> String {
    let ForeignState { height, round, step, .. } = state;
    let step = cometbft_number(*step);
    let mut text = format!("{{\n  \"height\": \"{height}\",\n  \"round\": \"{round}\",\n  \"step\": {step}");
    text.push_str(",\n  \"nonce_public\": \"\"");
    write_signature(&mut text, state, StateDialect::Horcrux);
    text + "\n}"
}

/// CometBFT omits empty fields; the order is that of its struct. What its signer would not read is left out: the rest is a
/// floor, at which nothing is signed again.
fn write_signature(text: &mut String, state: &ForeignState, dialect: StateDialect) {
    let (sign_bytes, signature) = (state.sign_bytes.is_some(), state.signature.is_some());
    if check_consistency(dialect, state.step, sign_bytes, signature).is_err() {
        return;
    }
    if let Some(signature) = &state.signature {
        let _ = write!(text, ",\n  \"signature\": \"{}\"", BASE64.encode(signature));
    }
    if let Some(sign_bytes) = &state.sign_bytes {
        let _ = write!(text, ",\n  \"signbytes\": \"{}\"", HEXUPPER.encode(sign_bytes));
    }
}

fn write_tmkms(state: &ForeignState) -> Result<String, StateError> {
    let step = match state.step {
        None | Some(Step::Proposal) => 0,
        Some(Step::Prevote) => 1,
        Some(Step::Precommit) => 2,
    };
    let block = match (state.step, state.block) {
        (None, _) => "null".to_owned(),
        (Some(_), Some(SignedBlock::Nil)) => r#"{"hash":"","parts":{"total":0,"hash":""}}"#.to_owned(),
        (Some(_), Some(SignedBlock::Block { hash, part_set_total, part_set_hash })) => {
            let (hash, part_set_hash) = (HEXUPPER.encode(&hash), HEXUPPER.encode(&part_set_hash));
            format!(r#"{{"hash":"{hash}","parts":{{"total":{part_set_total},"hash":"{part_set_hash}"}}}}"#)
        }
        (Some(_), None) => return Err(StateError::BlockUnknown),
    };
    let ForeignState { height, round, .. } = state;
    Ok(format!(r#"{{"height":"{height}","round":"{round}","step":{step},"block_id":{block}}}"#))
}
