use std::collections::BTreeMap;

use ed25519_dalek::{Signature, VerifyingKey};
use monosign_protocol::message::Message;
use monosign_protocol::{Hrs, sign_bytes};

use super::{CHAIN, signing_key};

/// Everything that was ever released for the rig's chain, told from the answers alone.
#[derive(Default)]
pub(crate) struct Oracle {
    released: BTreeMap<Hrs, Released>,
    last_request: Option<Message>,
}

#[derive(Debug, PartialEq, Eq)]
struct Released {
    sign_bytes: Vec<u8>,
    signature: Vec<u8>,
    extension: Option<(Vec<u8>, Vec<u8>)>,
}

impl Oracle {
    /// The highest place that has a signature.
    pub(crate) fn highest(&self) -> Option<Hrs> {
        self.released.keys().next_back().copied()
    }

    /// How many places have a signature.
    pub(crate) fn len(&self) -> usize {
        self.released.len()
    }

    /// The request that got the highest signature.
    pub(crate) fn last_request(&self) -> Option<&Message> {
        self.last_request.as_ref()
    }

    /// Takes in a signature. A second one for its place must be the first one again.
    pub(crate) fn release(&mut self, request: &Message, answer: Message) {
        let (hrs, released) = read(request, answer);
        let key = signing_key(CHAIN).verifying_key();
        verify(&key, &released.sign_bytes, &released.signature);
        if let Some((bytes, signature)) = &released.extension {
            verify(&key, bytes, signature);
        }
        match self.released.get(&hrs) {
            Some(first) => assert_eq!(*first, released, "two answers for {hrs}"),
            None => drop(self.released.insert(hrs, released)),
        }
        if self.released.keys().next_back() == Some(&hrs) {
            self.last_request = Some(request.clone());
        }
    }
}

/// What was signed is told by the answer alone: by the message in it, and not by the one that was asked for.
fn read(request: &Message, answer: Message) -> (Hrs, Released) {
    match (request, answer) {
        (Message::SignVoteRequest(request), Message::SignedVoteResponse(answer)) => {
            assert_eq!(answer.error, None, "{request:?}");
            let (vote, asked) = (answer.vote, request.vote.clone().expect("a vote"));
            assert_eq!(vote.hrs(), asked.hrs(), "the answer belongs to another request");
            assert_eq!(vote.is_extendable(), !vote.extension_signature.is_empty());
            // Extensions are not sent back.
            let extension = vote
                .is_extendable()
                .then(|| (sign_bytes::vote_extension(CHAIN, &asked), vote.extension_signature.clone()));
            let sign_bytes = sign_bytes::vote(CHAIN, &vote);
            (vote.hrs().expect("a vote"), Released { sign_bytes, signature: vote.signature, extension })
        }
        (Message::SignProposalRequest(_), Message::SignedProposalResponse(answer)) => {
            assert_eq!(answer.error, None, "{request:?}");
            let sign_bytes = sign_bytes::proposal(CHAIN, &answer.proposal);
            let signature = answer.proposal.signature.clone();
            (answer.proposal.hrs(), Released { sign_bytes, signature, extension: None })
        }
        (request, answer) => panic!("{answer:?} to {request:?}"),
    }
}

#[track_caller]
fn verify(key: &VerifyingKey, bytes: &[u8], signature: &[u8]) {
    let signature = Signature::from_slice(signature).expect("64 bytes");
    key.verify_strict(bytes, &signature).expect("a signature");
}
