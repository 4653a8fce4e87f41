//! Vote extensions (v0.38 on): signed with a precommit for a block, and with nothing else.

use monosign_protocol::message::{Message, Vote};
use monosign_protocol::{Dialect, Step};

use super::bench::hrs;
use super::case::{Case, Failed, Verdict};
use super::{Bench, source};
use crate::node::probes::extended;
use crate::node::{Answer, Blocks, Misbehaviour, Requests, Signed, Verifier};

pub(super) fn cases() -> Vec<Case> {
    let all = vec![
        Case::missed_blocks(
            "extension/small",
            "An extension of up to 1 KiB is signed with its precommit.",
            source::SIGN_AND_CHECK,
            |bench| Box::pin(sizes(bench, &[1, 32, 1000, 1024])),
        ),
        Case::missed_blocks(
            "extension/eight-kibibytes",
            "An extension of up to 8 KiB is signed with its precommit.",
            source::SIGN_AND_CHECK,
            |bench| Box::pin(sizes(bench, &[2048, 8 * 1024])),
        ),
        Case::missed_blocks(
            "extension/empty",
            "An empty extension is signed like any other: nodes stop without its signature.",
            source::SIGN_AND_CHECK,
            |bench| Box::pin(sizes(bench, &[0])),
        ),
        Case::missed_blocks(
            "extension/none-on-a-prevote",
            "A prevote has no extension signature: nodes stop when there is one.",
            source::SIGN_AND_CHECK,
            |bench| Box::pin(none_on(bench, Step::Prevote, false)),
        ),
        Case::missed_blocks(
            "extension/none-on-a-nil-precommit",
            "A precommit for nil has no extension signature: nodes stop when there is one.",
            source::SIGN_AND_CHECK,
            |bench| Box::pin(none_on(bench, Step::Precommit, true)),
        ),
        Case::missed_blocks(
            "extension/another-is-no-conflict",
            "A precommit that differs in its extension alone gets its old signature and a signature of the new extension: \
             a node that starts again extends anew.",
            source::SIGN_VOTE,
            |bench| Box::pin(another_is_no_conflict(bench)),
        ),
    ];
    let mut cases: Vec<_> = all.into_iter().map(Case::with_extensions).collect();
    cases.extend(long_ones());
    cases.extend([
        Case::advisory(
            "extension/skipped-when-told",
            "A precommit with `skip_extension_signing` gets no extension signature.",
            "privval/file.go, signVote (v1.0)",
            |bench| Box::pin(skipped_when_told(bench)),
        )
        .of(Dialect::is_v1_or_later),
        Case::missed_blocks(
            "extension/without-replay-protection-empty",
            "An empty extension without replay protection is signed: nodes of v2.0-rc stop without its signature.",
            "types/vote.go, SignAndCheckVote (v2.0.0-rc1)",
            |bench| Box::pin(sizes(bench, &[16])),
        )
        .of(Dialect::has_non_rp_extensions),
    ]);
    cases
}

/// v0.40 reads 1 MiB; other nodes read 10 KiB, but write more, and do not need the extension back.
fn long_ones() -> [Case; 3] {
    let required = |dialect| dialect == Dialect::V0_40;
    let advisory = |dialect: Dialect| dialect.has_extensions() && dialect != Dialect::V0_40;
    [
        Case::missed_blocks(
            "extension/one-mebibyte",
            "An extension of up to 1 MiB is signed with its precommit.",
            "types/vote.go, MaxVoteExtensionSize (v0.40)",
            |bench| Box::pin(sizes(bench, &[10_000, 64 * 1024, 1024 * 1024])),
        )
        .of(required),
        Case::advisory(
            "extension/ten-thousand-bytes",
            "An extension of 10 000 bytes, near what such a node reads, is signed; the answer has to be shorter than that.",
            "privval/signer_endpoint.go:95, maxRemoteSignerMsgSize (v0.38.26)",
            |bench| Box::pin(sizes(bench, &[10_000])),
        )
        .of(advisory),
        Case::advisory(
            "extension/one-mebibyte-to-a-short-reader",
            "An extension of up to 1 MiB is signed though the node reads 10 KiB at the most: it writes more.",
            "privval/signer_endpoint.go:113, WriteMessage (v0.38.26)",
            |bench| Box::pin(sizes(bench, &[64 * 1024, 1024 * 1024])),
        )
        .of(advisory),
    ]
}

/// Asks as a node of a chain with extensions does, and takes answers as it does.
struct Extending {
    requests: Requests,
    verifier: Verifier,
}

impl Extending {
    fn new(bench: &Bench, bytes: usize) -> Self {
        let blocks: Blocks = bench.requests.blocks().clone();
        Self {
            requests: Requests::new(bench.chain_id.clone(), bench.dialect, Some(bytes), blocks),
            verifier: Verifier::new(bench.chain_id.clone(), bench.dialect, true, bench.key()),
        }
    }

    fn precommit(&self, bench: &mut Bench, height: i64) -> Message {
        let time = bench.now();
        self.requests.sign(hrs(height, 0, Step::Precommit), bench.block(height, 0), time)
    }

    async fn signs(&self, bench: &mut Bench, request: &Message) -> Result<Signed, Failed> {
        let answer = bench.answer(request).await?;
        match self.verifier.check(request, answer)? {
            Answer::Signed(signed) => Ok(signed),
            Answer::Refused { error, .. } => Err(Failed::Refused(error)),
            Answer::PublicKey(_) => Err(Misbehaviour::Unasked.into()),
        }
    }
}

async fn sizes(bench: &mut Bench, sizes: &[usize]) -> Verdict {
    for bytes in sizes {
        let height = bench.fresh();
        let extending = Extending::new(bench, *bytes);
        let request = extending.precommit(bench, height);
        extending.signs(bench, &request).await?;
    }
    Ok(())
}

async fn none_on(bench: &mut Bench, step: Step, nil: bool) -> Verdict {
    let height = bench.fresh();
    let extending = Extending::new(bench, 32);
    let block = if nil { Default::default() } else { bench.block(height, 0) };
    let time = bench.now();
    let request = extending.requests.sign(hrs(height, 0, step), block, time);
    extending.signs(bench, &request).await?;
    Ok(())
}

async fn another_is_no_conflict(bench: &mut Bench) -> Verdict {
    let height = bench.fresh();
    let extending = Extending::new(bench, 32);
    let request = extending.precommit(bench, height);
    let first = extending.signs(bench, &request).await?;
    for extension in [vec![1; 48], Vec::new(), vec![2; 1]] {
        let again = extended(&bench.asked_anew(&request), extension);
        let second = extending.signs(bench, &again).await?;
        if (&first.signature, first.timestamp) != (&second.signature, second.timestamp) {
            return Err(Failed::NotRepeated { hrs: first.hrs }.into());
        }
    }
    Ok(())
}

async fn skipped_when_told(bench: &mut Bench) -> Verdict {
    let height = bench.fresh();
    let request = bench.ask(height, 0, Step::Precommit);
    let answer = bench.answer(&request).await?;
    bench.check(&request, answer.clone())?;
    match answer {
        Some(Message::SignedVoteResponse(answer)) if has_extension_signature(&answer.vote) => {
            Err(Failed::because("signed an extension that it was told to skip").into())
        }
        _ => Ok(()),
    }
}

fn has_extension_signature(vote: &Vote) -> bool {
    !(vote.extension_signature.is_empty() && vote.non_rp_extension_signature.is_empty())
}
