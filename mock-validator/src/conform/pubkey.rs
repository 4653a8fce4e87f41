//! The public key: in the form that the release reads, and always the same.

use monosign_protocol::message::Message;

use super::case::{Case, Failed, Verdict};
use super::{Bench, source};
use crate::node::Answer;

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::missed_blocks(
            "pubkey/form",
            "The public key is shown in the form that this release reads, and is the expected one.",
            source::CLIENT,
            |bench| Box::pin(form(bench)),
        ),
        Case::missed_blocks(
            "pubkey/after-reconnect",
            "The public key is the same on each connection: nodes ask again after each commit and take what they get.",
            "consensus/state.go:1682, finalizeCommit (v0.38.26)",
            |bench| Box::pin(after_reconnect(bench)),
        ),
    ]
}

async fn form(bench: &mut Bench) -> Verdict {
    shows_key(bench).await
}

async fn after_reconnect(bench: &mut Bench) -> Verdict {
    for _ in 0..2 {
        bench.hang_up();
        bench.ready().await?;
        let (request, key) = (bench.requests.public_key(), bench.key());
        let answer = bench.answer(&request).await?;
        // In whatever form: that is another case's matter.
        if let (Some(shown), Some(key)) = (key_in(answer.as_ref()), key)
            && shown != key.as_bytes()
        {
            return Err(Failed::because("showed another public key on another connection").into());
        }
    }
    Ok(())
}

async fn shows_key(bench: &mut Bench) -> Verdict {
    let request = bench.requests.public_key();
    let answer = bench.answer(&request).await?;
    match bench.check(&request, answer)? {
        Answer::PublicKey(_) => Ok(()),
        Answer::Refused { error, .. } => Err(Failed::Refused(error).into()),
        Answer::Signed(_) => Err(Failed::because("a signature instead of a key").into()),
    }
}

/// The 32 bytes of the key in either form.
pub(super) fn key_in(answer: Option<&Message>) -> Option<&[u8]> {
    let Some(Message::PubKeyResponse(answer)) = answer else { return None };
    let old = answer.pub_key.as_ref().and_then(|key| key.sum.as_ref()).map(|(_, bytes)| bytes);
    [old, Some(&answer.pub_key_bytes)].into_iter().flatten().find(|key| key.len() == 32).map(Vec::as_slice)
}
