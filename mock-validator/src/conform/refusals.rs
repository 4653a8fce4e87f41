//! Refusals are answers: an error in the arm of the request, on a connection that stays up. And what is no proper request is
//! survived.

use monosign_protocol::message::{BlockId, Message, PubKeyRequest, RawRequest, Text, Vote};
use monosign_protocol::{Dialect, Step, frame, sign_bytes};

use super::bench::{Reply, hrs};
use super::case::{Case, Failed, Verdict};
use super::{Bench, source};
use crate::node::probes::{block_of, conflict, extended, of_another_chain};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = answered();
    cases.extend(oracles());
    cases
}

/// What no unmodified node sends. They come last of all, since not every signer is there afterwards.
pub(super) fn hostile_cases() -> Vec<Case> {
    survived()
}

/// A node asks again up to 50 times, within its consensus, if a refusal is no answer.
fn answered() -> Vec<Case> {
    vec![
        Case::missed_blocks(
            "refusal/conflict-is-answered",
            "A conflict is answered with an error, and the connection stays up.",
            source::RETRY,
            |bench| Box::pin(conflict_is_answered(bench)),
        ),
        Case::missed_blocks(
            "refusal/regression-is-answered",
            "A lower height, round or step is answered with an error, and the connection stays up.",
            source::RETRY,
            |bench| Box::pin(regression_is_answered(bench)),
        ),
        Case::slashing(
            "refusal/vote-of-another-chain",
            "A vote of another chain is refused above all that was signed, and does not count as signed.",
            source::HANDLER,
            |bench| Box::pin(of_other_chain(bench, Step::Precommit)),
        ),
        Case::robustness(
            "refusal/proposal-of-another-chain",
            "So is a proposal.",
            source::HANDLER,
            |bench| Box::pin(of_other_chain(bench, Step::Proposal)),
        ),
        Case::robustness(
            "refusal/key-of-another-chain",
            "The public key is not shown for another chain.",
            source::HANDLER,
            |bench| Box::pin(key_of_other_chain(bench)),
        ),
        Case::advisory(
            "refusal/another-chain-is-answered",
            "What is asked for another chain is answered with an error in its own arm: the node's log then says what is wrong.",
            source::HANDLER,
            |bench| Box::pin(another_chain_is_answered(bench)),
        ),
        Case::advisory(
            "refusal/extension-on-a-prevote",
            "A prevote with an extension is refused.",
            source::SIGN_VOTE,
            |bench| Box::pin(misplaced_extension(bench, Step::Prevote)),
        )
        .with_extensions(),
        Case::advisory(
            "refusal/extension-on-a-nil-precommit",
            "A precommit for nil with an extension is refused.",
            source::SIGN_VOTE,
            |bench| Box::pin(misplaced_extension(bench, Step::Precommit)),
        )
        .with_extensions(),
    ]
}

/// CometBFT's own signer dies of some of these.
fn survived() -> Vec<Case> {
    vec![
        Case::robustness(
            "refusal/vote-of-unknown-type",
            "A vote whose type is neither prevote nor precommit is refused, and does no harm. A proposal's type is none.",
            source::VOTE_TYPE,
            |bench| Box::pin(unknown_type(bench)),
        ),
        Case::robustness(
            "refusal/block-hash-of-31-bytes",
            "A block hash that has neither 0 nor 32 bytes is refused, and does no harm.",
            source::BLOCK_ID,
            |bench| Box::pin(odd_hash(bench, |block| &mut block.hash)),
        ),
        Case::robustness(
            "refusal/parts-hash-of-33-bytes",
            "Neither does a hash of parts that has neither 0 nor 32 bytes.",
            source::BLOCK_ID,
            |bench| Box::pin(odd_hash(bench, |block| &mut block.part_set_header.hash)),
        ),
        Case::robustness(
            "refusal/request-without-a-vote",
            "A request for a vote that holds none is refused, and does no harm.",
            source::HANDLER,
            |bench| Box::pin(without_content(bench, 3)),
        ),
        Case::robustness(
            "refusal/request-without-a-proposal",
            "A request for a proposal that holds none is refused, and does no harm.",
            source::HANDLER,
            |bench| Box::pin(without_content(bench, 5)),
        ),
        Case::robustness(
            "refusal/unknown-message",
            "A message of a kind that does not exist does no harm.",
            source::HANDLER,
            |bench| Box::pin(harmless(bench, &[0x7a, 0x02, 0x08, 0x01])),
        ),
        Case::robustness(
            "refusal/malformed-message",
            "Bytes in a frame that are no message do no harm.",
            source::PROTOIO,
            |bench| Box::pin(malformed(bench)),
        ),
        Case::robustness(
            "refusal/answer-as-request",
            "An answer that comes as a request does no harm.",
            source::HANDLER,
            |bench| Box::pin(answer_as_request(bench)),
        ),
        Case::advisory(
            "refusal/malformed-is-answered",
            "A malformed request is answered with an error in its arm, so that the node does not wait 5 s for nothing.",
            source::SERVER,
            |bench| Box::pin(malformed_is_answered(bench)),
        ),
    ]
}

/// Ways to get a signature under a vote without asking for a vote.
fn oracles() -> [Case; 2] {
    [
        Case::slashing(
            "refusal/vote-as-raw-bytes",
            "`SignBytes` does not sign what is a conflicting vote: no node asks for such a thing.",
            "privval/file.go, SignBytes (v1.0)",
            |bench| Box::pin(vote_as_raw_bytes(bench)),
        )
        .of(Dialect::is_v1_or_later),
        Case::slashing(
            "refusal/vote-as-extension",
            "An extension without replay protection is not signed if it is a conflicting vote.",
            "privval/file.go, signVote (v2.0.0-rc1)",
            |bench| Box::pin(vote_as_extension(bench)),
        )
        .of(Dialect::has_non_rp_extensions),
    ]
}

async fn conflict_is_answered(bench: &mut Bench) -> Verdict {
    let height = bench.fresh();
    for step in [Step::Proposal, Step::Prevote, Step::Precommit] {
        let request = bench.ask(height, 0, step);
        bench.signs(&request).await?;
        bench.answers_refusal(&conflict(&request).unwrap_or(request)).await?;
    }
    Ok(())
}

async fn regression_is_answered(bench: &mut Bench) -> Verdict {
    bench.skip_heights(1);
    let height = bench.fresh();
    let request = bench.ask(height, 2, Step::Precommit);
    bench.signs(&request).await?;
    for (height, round, step) in
        [(height - 1, 2, Step::Precommit), (height, 1, Step::Precommit), (height, 2, Step::Prevote)]
    {
        let request = bench.ask(height, round, step);
        bench.answers_refusal(&request).await?;
    }
    Ok(())
}

async fn of_other_chain(bench: &mut Bench, step: Step) -> Verdict {
    let height = bench.fresh();
    let above = bench.fresh();
    let request = bench.ask(above, 0, step);
    bench.refuses(&of_another_chain(&request)).await?;
    let request = bench.ask(height, 0, step);
    bench.signs(&request).await?;
    Ok(())
}

async fn another_chain_is_answered(bench: &mut Bench) -> Verdict {
    let height = bench.fresh();
    for step in [Step::Proposal, Step::Precommit] {
        let request = bench.ask(height, 0, step);
        bench.answers_refusal(&of_another_chain(&request)).await?;
    }
    bench.answers_refusal(&key_of_another_chain()).await?;
    Ok(())
}

async fn key_of_other_chain(bench: &mut Bench) -> Verdict {
    bench.refuses(&key_of_another_chain()).await?;
    Ok(())
}

fn key_of_another_chain() -> Message {
    Message::PubKeyRequest(PubKeyRequest { chain_id: Text::from("some-other-chain") })
}

async fn misplaced_extension(bench: &mut Bench, step: Step) -> Verdict {
    let height = bench.fresh();
    let request = match step {
        Step::Precommit => bench.ask_nil(height, 0, step),
        _ => bench.ask(height, 0, step),
    };
    // v1.0 would not look at the extension if it was told to skip it.
    let mut extended = extended(&request, vec![1; 16]);
    if let Message::SignVoteRequest(request) = &mut extended {
        request.skip_extension_signing = false;
    }
    bench.refuses(&extended).await?;
    bench.signs(&request).await?;
    Ok(())
}

/// It must not be signed, and the signer must be there afterwards, be it on another connection.
async fn does_no_harm(bench: &mut Bench, request: &Message) -> Verdict {
    let reply = bench.reply(request).await;
    if let Reply::Answer(answer) = reply
        && has_signature(answer.as_ref())
    {
        return Err(Failed::because("gave a signature for what no node would take").into());
    }
    still_signs(bench).await
}

async fn still_signs(bench: &mut Bench) -> Verdict {
    bench.survived().await?;
    let height = bench.fresh();
    let request = bench.ask(height, 0, Step::Prevote);
    bench.signs(&request).await?;
    Ok(())
}

fn has_signature(answer: Option<&Message>) -> bool {
    match answer {
        Some(Message::SignedVoteResponse(answer)) => !answer.vote.signature.is_empty(),
        Some(Message::SignedProposalResponse(answer)) => !answer.proposal.signature.is_empty(),
        Some(Message::RawResponse(answer)) => !answer.signature.is_empty(),
        _ => false,
    }
}

async fn unknown_type(bench: &mut Bench) -> Verdict {
    for vote_type in [0, 3, 32, -1] {
        let height = bench.fresh();
        let mut request = bench.ask(height, 0, Step::Prevote);
        if let Message::SignVoteRequest(request) = &mut request
            && let Some(vote) = &mut request.vote
        {
            vote.vote_type = vote_type;
        }
        does_no_harm(bench, &request).await?;
    }
    Ok(())
}

async fn odd_hash(bench: &mut Bench, hash: fn(&mut BlockId) -> &mut Vec<u8>) -> Verdict {
    for (step, length) in [(Step::Precommit, 31), (Step::Proposal, 33)] {
        let height = bench.fresh();
        let mut request = bench.ask(height, 0, step);
        if let Some(block) = block_of(&mut request) {
            hash(block).resize(length, 0);
        }
        does_no_harm(bench, &request).await?;
    }
    Ok(())
}

/// A request that holds a chain id and nothing else; `arm` is its field in the message.
async fn without_content(bench: &mut Bench, arm: u8) -> Verdict {
    let chain = bench.chain_id.as_str().as_bytes();
    let (length, outer) = (chain.len() as u8, chain.len() as u8 + 2);
    let body = [&[arm << 3 | 2, outer, 0x12, length], chain].concat();
    harmless(bench, &body).await
}

/// Sends the body of a frame, whatever it is.
async fn harmless(bench: &mut Bench, body: &[u8]) -> Verdict {
    let answer = say(bench, body).await?;
    if has_signature(answer.as_ref()) {
        return Err(Failed::because("gave a signature for what no node would take").into());
    }
    still_signs(bench).await
}

/// What comes of it within the time that a signer takes for an answer; `None` if nothing comes.
async fn say(bench: &mut Bench, body: &[u8]) -> Result<Option<Message>, Failed> {
    bench.ready().await?;
    let limit = bench.limits.answer.min(SHORT);
    let framed = [&[body.len() as u8], body].concat();
    let link = bench.link()?;
    link.send_plain_bytes(&framed).await?;
    match tokio::time::timeout(limit, link.receive()).await {
        Ok(Ok(answer)) => Ok(answer),
        // Out of step perhaps: a node's ping would find out.
        _ => {
            bench.hang_up();
            Ok(None)
        }
    }
}

/// No signer has to answer that, so nobody waits for long.
const SHORT: std::time::Duration = std::time::Duration::from_secs(1);

async fn malformed(bench: &mut Bench) -> Verdict {
    // A field 0, a truncated field, a vote that is a number, a timestamp of 10^9 nanoseconds.
    for body in [
        &[0x02, 0x01, 0x00][..],
        &[0x1a, 0x10, 0x0a],
        &[0x18, 0x01],
        &[0x1a, 0x0b, 0x0a, 0x09, 0x08, 0x01, 0x2a, 0x05, 0x10, 0x80, 0x94, 0xeb, 0xdc],
        &[0xff; 16],
    ] {
        harmless(bench, body).await?;
    }
    Ok(())
}

async fn answer_as_request(bench: &mut Bench) -> Verdict {
    let mut framed = Vec::new();
    frame::encode(&Message::PingResponse, &mut framed);
    harmless(bench, &framed[1..]).await
}

async fn malformed_is_answered(bench: &mut Bench) -> Verdict {
    let answer = say(bench, &[0x1a, 0x02, 0x0a, 0x05]).await?;
    match answer {
        Some(Message::SignedVoteResponse(answer)) if answer.error.is_some() => {}
        _ => return Err(Failed::because("gave no error in the arm of the request").into()),
    }
    bench.is_still_there().await?;
    Ok(())
}

/// The sign bytes of a precommit that conflicts with one that is signed.
async fn conflicting_sign_bytes(bench: &mut Bench) -> Result<(i64, Vec<u8>), Failed> {
    let height = bench.fresh();
    let request = bench.ask(height, 0, Step::Precommit);
    bench.signs(&request).await?;
    let vote = match conflict(&request) {
        Some(Message::SignVoteRequest(request)) => request.vote.unwrap_or_default(),
        _ => Vote::default(),
    };
    Ok((height, sign_bytes::vote(bench.chain_id.as_str(), &vote)))
}

async fn vote_as_raw_bytes(bench: &mut Bench) -> Verdict {
    let (height, bytes) = conflicting_sign_bytes(bench).await?;
    let request = Message::RawRequest(RawRequest { value_or_chain_id: bytes, ..RawRequest::default() });
    match bench.reply(&request).await {
        Reply::Answer(answer) if has_signature(answer.as_ref()) => {
            Err(Failed::SignedTwice { hrs: hrs(height, 0, Step::Precommit) }.into())
        }
        _ => still_signs(bench).await,
    }
}

async fn vote_as_extension(bench: &mut Bench) -> Verdict {
    let (height, bytes) = conflicting_sign_bytes(bench).await?;
    let above = bench.fresh();
    let mut request = bench.ask(above, 0, Step::Precommit);
    if let Message::SignVoteRequest(request) = &mut request {
        request.skip_extension_signing = false;
        if let Some(vote) = &mut request.vote {
            vote.non_rp_extension = bytes;
        }
    }
    match bench.reply(&request).await {
        Reply::Answer(Some(Message::SignedVoteResponse(answer)))
            if !answer.vote.non_rp_extension_signature.is_empty() =>
        {
            Err(Failed::SignedTwice { hrs: hrs(height, 0, Step::Precommit) }.into())
        }
        _ => still_signs(bench).await,
    }
}
