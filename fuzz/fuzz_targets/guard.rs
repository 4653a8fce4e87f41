//! The guard, asked anything in any order, against a model that remembers every signature: no height, round and step
//! ever has two messages, nothing below what was signed is signed, and what was signed is repeated on demand.
//!
//! Input: jump limit (0: off), floor height and round, flags (1: small numbers, 2: skip extensions, 4: fresh record),
//! then a stream of framed requests.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use monosign::guard::{Guard, JumpLimit, Question, Recorded, Refusal, Verdict, Watermark};
use monosign_fuzz::{head, messages};
use monosign_protocol::message::{Message, Timestamp};
use monosign_protocol::sign_bytes::Canonical;
use monosign_protocol::{Height, Hrs, Round};

const CHAIN: &str = "test-1";

fuzz_target!(|input: &[u8]| {
    let mut input = input;
    let [limit, height, round, flags] = head(&mut input);
    let jump_limit = if limit == 0 { JumpLimit::Off } else { JumpLimit::Heights(limit.into()) };
    let mut chain = Chain {
        guard: Guard { jump_limit },
        watermark: Watermark::floor(Height(height.into()), Round(round.into()), None),
        unused: flags & 4 != 0,
        released: BTreeMap::new(),
    };
    for mut message in messages(input) {
        if flags & 1 != 0 {
            make_small(&mut message);
        }
        match &message {
            Message::SignVoteRequest(m) => {
                let signs_extension = flags & 2 == 0 && !m.skip_extension_signing;
                let vote = m.vote.clone().unwrap_or_default();
                chain.ask(Question::vote(CHAIN, &vote, signs_extension));
            }
            Message::SignProposalRequest(m) => {
                let proposal = m.proposal.clone().unwrap_or_default();
                chain.ask(Question::proposal(CHAIN, &proposal));
            }
            _ => {}
        }
    }
});

/// Brings heights, rounds and timestamps close together, so that requests meet.
fn make_small(message: &mut Message) {
    let small = |place: (&mut Height, &mut Round, &mut Timestamp)| {
        place.0.0 &= 7;
        place.1.0 &= 1;
        place.2.seconds &= 1;
    };
    match message {
        Message::SignVoteRequest(m) => {
            if let Some(v) = &mut m.vote {
                small((&mut v.height, &mut v.round, &mut v.timestamp));
            }
        }
        Message::SignProposalRequest(m) => {
            if let Some(p) = &mut m.proposal {
                small((&mut p.height, &mut p.round, &mut p.timestamp));
            }
        }
        _ => {}
    }
}

struct Chain {
    guard: Guard,
    watermark: Watermark,
    unused: bool,
    /// The model: every message that was ever released.
    released: BTreeMap<Hrs, Vec<u8>>,
}

impl Chain {
    fn ask(&mut self, question: Result<Question<'_>, Refusal>) {
        let Ok(question) = question else { return };
        drop(question.block());
        let recorded = Recorded { watermark: &self.watermark, unused: self.unused };
        let verdict = self.guard.judge(recorded, &question);
        assert_eq!(self.guard.judge(recorded, &question), verdict, "the guard remembers nothing");
        match verdict {
            Verdict::Sign(next) => self.sign(&question, next),
            Verdict::Replay(timestamp) => self.replay(&question, timestamp),
            Verdict::Refuse(refusal) => self.refused(&question, &refusal),
        }
    }

    fn sign(&mut self, question: &Question<'_>, next: Watermark) {
        let (asked, floor) = (question.hrs(), &self.watermark);
        assert!(asked.height >= Height(0) && asked.round >= Round(0));
        assert!((asked.height, asked.round, Some(asked.step)) > floor.place());
        assert_eq!(next.place(), (asked.height, asked.round, Some(asked.step)));
        let last = self.released.last_key_value().map(|(hrs, _)| *hrs);
        assert!(last < Some(asked), "at or below a signature");
        if let JumpLimit::Heights(limit) = self.guard.jump_limit {
            let limit = if self.unused { monosign::guard::HIGHEST_FIRST.unsigned_abs() } else { limit };
            assert!(i128::from(asked.height.0) - i128::from(floor.height.0) <= i128::from(limit));
        }
        let signed = next.signed.as_ref().expect("a message");
        assert_eq!((&signed.sign_bytes, signed.timestamp), (&question.sign_bytes(), question.timestamp()));
        assert!(signed.sign_bytes.len() <= monosign::record::MAX_SIGN_BYTES, "the record holds it");
        self.release(asked, signed.sign_bytes.clone());
        (self.watermark, self.unused) = (next, false);
    }

    fn replay(&mut self, question: &Question<'_>, timestamp: Timestamp) {
        let signed = self.watermark.signed.clone().expect("only what was signed is repeated");
        assert_eq!(signed.timestamp, timestamp);
        assert_eq!(question.sign_bytes_at(timestamp), signed.sign_bytes);
        let read = Canonical::parse(&signed.sign_bytes).expect("sign bytes");
        assert_eq!((read.hrs, read.timestamp), (question.hrs(), timestamp));
        self.release(question.hrs(), signed.sign_bytes);
    }

    /// A refusal has a reason: a place below, a conflict, a floor, a jump or a misplaced extension.
    fn refused(&self, question: &Question<'_>, refusal: &Refusal) {
        assert!(!refusal.to_string().is_empty() && !refusal.reason().is_empty());
        let asked = question.hrs();
        let place = (asked.height, asked.round, Some(asked.step));
        match refusal {
            Refusal::HeightRegression { .. }
            | Refusal::RoundRegression { .. }
            | Refusal::StepRegression { .. } => {
                assert!(place < self.watermark.place());
            }
            Refusal::ConflictingData { .. } => {
                let mine = question.sign_bytes();
                assert!(self.released.get(&asked).is_some_and(|theirs| *theirs != mine));
            }
            Refusal::NoSignBytes { .. } => assert!(!self.released.contains_key(&asked)),
            Refusal::NegativeRound { .. } => assert!(asked.round < Round(0)),
            Refusal::HeightJump { .. } => assert!(place > self.watermark.place() && !self.unused),
            Refusal::UnexpectedExtension { .. } => assert!(place >= self.watermark.place()),
            other => panic!("{other:?} is not the guard's"),
        }
    }

    fn release(&mut self, hrs: Hrs, sign_bytes: Vec<u8>) {
        let first = self.released.entry(hrs).or_insert_with(|| sign_bytes.clone());
        assert_eq!(*first, sign_bytes, "two messages for {hrs}");
    }
}
