use monosign_protocol::message::{BlockId, PartSetHeader, Proposal, Timestamp, Vote};
use monosign_protocol::{Height, Round, Step};
use proptest::prelude::*;

use super::*;

const CHAIN: &str = "test";

/// The guard and what the record says.
struct Rig {
    guard: Guard,
    watermark: Watermark,
    unused: bool,
}

impl Rig {
    fn at(watermark: Watermark, jump_limit: JumpLimit) -> Self {
        Self { guard: Guard { jump_limit }, watermark, unused: true }
    }

    fn judge(&self, question: &Question<'_>) -> Verdict {
        self.guard.judge(Recorded { watermark: &self.watermark, unused: self.unused }, question)
    }

    fn record(&mut self, watermark: Watermark) {
        assert!(watermark.place() > self.watermark.place(), "the watermark only rises");
        self.watermark = watermark;
        self.unused = false;
    }
}

fn guard() -> Rig {
    Rig::at(Watermark::default(), JumpLimit::Heights(100))
}

fn block(n: u8) -> BlockId {
    BlockId { hash: vec![n; 32], part_set_header: PartSetHeader { total: 1, hash: vec![n; 32] } }
}

fn vote(height: i64, round: i32, step: Step, block_id: BlockId) -> Vote {
    Vote {
        vote_type: if step == Step::Prevote { 1 } else { 2 },
        height: Height(height),
        round: Round(round),
        block_id,
        timestamp: Timestamp { seconds: 1_700_000_000, nanos: 0 },
        ..Vote::default()
    }
}

fn judge(guard: &Rig, vote: &Vote) -> Verdict {
    match Question::vote(CHAIN, vote, true) {
        Ok(question) => guard.judge(&question),
        Err(refusal) => Verdict::Refuse(refusal),
    }
}

/// Signs, as the chain does after the record is durable.
fn sign(guard: &mut Rig, vote: &Vote) {
    match judge(guard, vote) {
        Verdict::Sign(watermark) => guard.record(watermark),
        other => panic!("{vote:?} must be signed: {other:?}"),
    }
}

fn reason(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Refuse(refusal) => refusal.reason(),
        other => panic!("must be refused: {other:?}"),
    }
}

#[test]
fn refuses_nil_after_block_at_same_step() {
    let mut guard = guard();
    sign(&mut guard, &vote(5, 0, Step::Prevote, block(1)));
    assert_eq!(reason(judge(&guard, &vote(5, 0, Step::Prevote, BlockId::default()))), "conflicting_data");
}

#[test]
fn refuses_a_block_after_nil_and_another_part_set_header() {
    let mut guard = guard();
    sign(&mut guard, &vote(5, 0, Step::Prevote, BlockId::default()));
    assert_eq!(reason(judge(&guard, &vote(5, 0, Step::Prevote, block(1)))), "conflicting_data");
    sign(&mut guard, &vote(5, 0, Step::Precommit, block(1)));
    let mut other = block(1);
    other.part_set_header.total = 2;
    assert_eq!(reason(judge(&guard, &vote(5, 0, Step::Precommit, other))), "conflicting_data");
}

#[test]
fn replays_the_stored_timestamp_when_only_the_timestamp_differs() {
    let mut guard = guard();
    let first = vote(5, 0, Step::Precommit, block(1));
    sign(&mut guard, &first);
    for seconds in [1_600_000_000, 1_800_000_000] {
        let later = Vote { timestamp: Timestamp { seconds, nanos: 1 }, ..first.clone() };
        match judge(&guard, &later) {
            Verdict::Replay(timestamp) => assert_eq!(timestamp, first.timestamp),
            other => panic!("must be replayed: {other:?}"),
        }
    }
}

#[test]
fn refuses_another_proof_of_lock_round_for_the_same_proposal() {
    let mut guard = guard();
    let proposal =
        |pol| Proposal { height: Height(3), pol_round: Round(pol), block_id: block(1), ..Default::default() };
    let (first, second) = (proposal(-1), proposal(0));
    let Verdict::Sign(watermark) = guard.judge(&Question::proposal(CHAIN, &first).expect("well formed"))
    else {
        panic!("must be signed")
    };
    guard.record(watermark);
    assert_eq!(
        reason(guard.judge(&Question::proposal(CHAIN, &second).expect("well formed"))),
        "conflicting_data"
    );
}

#[test]
fn a_floor_without_its_message_refuses_its_own_place() {
    let guard = Rig::at(Watermark::floor(Height(5), Round(0), Some(Step::Prevote)), JumpLimit::Off);
    assert_eq!(reason(judge(&guard, &vote(5, 0, Step::Prevote, block(1)))), "no_signbytes_found");
    assert!(matches!(judge(&guard, &vote(5, 0, Step::Precommit, block(1))), Verdict::Sign(_)));
}

#[test]
fn refuses_a_jump_unless_it_is_the_first_signature() {
    let mut guard = guard();
    sign(&mut guard, &vote(1_000_000, 0, Step::Prevote, block(1)));
    let far = vote(1_000_101, 0, Step::Prevote, block(1));
    assert_eq!(reason(judge(&guard, &far)), "height_jump");
    sign(&mut guard, &vote(1_000_100, 0, Step::Prevote, block(1)));
    assert_eq!(reason(judge(&guard, &vote(i64::MAX, 0, Step::Prevote, block(1)))), "height_jump");
}

#[test]
fn refuses_a_negative_round_at_a_new_height() {
    let mut guard = guard();
    sign(&mut guard, &vote(1, 0, Step::Prevote, block(1)));
    for round in [-1, i32::MIN] {
        let verdict = judge(&guard, &vote(2, round, Step::Prevote, block(1)));
        assert_eq!(reason(verdict), "negative_round");
    }
}

#[test]
fn refuses_what_cometbfts_own_signer_panics_on() {
    let guard = guard();
    let mut odd = vote(1, 0, Step::Prevote, block(1));
    odd.vote_type = 32;
    assert_eq!(reason(judge(&guard, &odd)), "not_a_vote");
    let mut odd = vote(1, 0, Step::Prevote, block(1));
    odd.block_id.hash.truncate(3);
    assert_eq!(reason(judge(&guard, &odd)), "malformed_block_id");
}

#[test]
fn refuses_extensions_on_prevotes_and_nil_precommits_unless_the_node_skips_them() {
    let guard = guard();
    for (step, block_id) in [(Step::Prevote, block(1)), (Step::Precommit, BlockId::default())] {
        let extended = Vote { extension: vec![1], ..vote(1, 0, step, block_id) };
        assert_eq!(reason(judge(&guard, &extended)), "unexpected_vote_extension");
        let skipped = Question::vote(CHAIN, &extended, false).expect("well formed");
        assert!(matches!(guard.judge(&skipped), Verdict::Sign(_)));
        assert!(skipped.extended_vote().is_none());
    }
}

/// Twenty lines that say what a signer must never do, against which the guard is run.
#[derive(Default)]
struct Naive {
    signed: Vec<(Hrs, BlockId)>,
}

impl Naive {
    fn allows(&self, hrs: Hrs, block: &BlockId) -> bool {
        match self.signed.iter().max_by_key(|(hrs, _)| *hrs) {
            None => hrs.height.0 >= 0 && hrs.round.0 >= 0,
            Some((last, _)) if hrs > *last => hrs.round.0 >= 0,
            Some((last, same)) => hrs == *last && block == same,
        }
    }
}

proptest! {
    #[test]
    fn agrees_with_a_naive_model(asks in proptest::collection::vec(
        (-1i64..6, -1i32..4, any::<bool>(), 0u8..3, 0i64..3), 1..60,
    )) {
        let mut guard = Rig::at(Watermark::default(), JumpLimit::Off);
        let mut naive = Naive::default();
        for (height, round, precommit, n, seconds) in asks {
            let step = if precommit { Step::Precommit } else { Step::Prevote };
            let block_id = if n == 0 { BlockId::default() } else { block(n) };
            let mut v = vote(height, round, step, block_id);
            v.timestamp.seconds = seconds;
            let hrs = v.hrs().expect("a vote");
            let allowed = naive.allows(hrs, &v.block_id);
            match judge(&guard, &v) {
                Verdict::Sign(watermark) => {
                    prop_assert!(allowed);
                    prop_assert!(naive.signed.iter().all(|(signed, _)| *signed != hrs));
                    guard.record(watermark);
                    naive.signed.push((hrs, v.block_id));
                }
                Verdict::Replay(_) => prop_assert!(allowed && naive.signed.iter().any(|(s, _)| *s == hrs)),
                Verdict::Refuse(_) => prop_assert!(!allowed),
            }
        }
    }
}
