//! What cosigners say to each other.
//!
//! Each cosigner dials every other. Whoever dialed coordinates on that connection and says [`Request`]s; whoever was dialed signs and
//! says [`Reply`]s. So a role is a type: what does not belong to it cannot be decoded. A message is a version byte and
//! postcard, in a frame with its length before it, four bytes little-endian.

use monosign_protocol::{ChainId, Height, Round, Step};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::asked::{Asked, Subject};
use super::incarnation::Incarnation;
use super::rounds::MemberId;
use crate::guard::{Refusal, Watermark};

/// The version of these messages. A cosigner speaks this one and, during an upgrade, the one before.
pub const VERSION: u8 = 1;

/// The longest message: an extension may have a mebibyte, as on the link to a validator.
pub const MAX_MESSAGE: usize = (1 << 20) + (64 << 10);

/// The longest message but those that carry what a validator may want signed: names, places, sign bytes and one signature.
pub const MAX_SHORT: usize = 8 << 10;

/// What can be read from a frame.
pub trait Framed: DeserializeOwned {
    /// How long a message may be that begins with this byte, which says its kind.
    fn longest(kind: u8) -> usize;
}

impl Framed for Request {
    fn longest(kind: u8) -> usize {
        match kind {
            // Share and Forward.
            1 | 2 => MAX_MESSAGE,
            _ => MAX_SHORT,
        }
    }
}

impl Framed for Reply {
    fn longest(_: u8) -> usize {
        MAX_SHORT
    }
}

/// Said by the dialer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// The first message.
    Hello(Hello),
    /// Asks for a share.
    Share {
        /// Names this request in its answer.
        request: u64,
        /// Which nonces are to be used.
        nonce: u64,
        /// What is to be signed.
        subject: Subject,
        /// The other signers of the session.
        others: Vec<Signer>,
    },
    /// Asks for a whole signature: the peer is to coordinate.
    Forward {
        /// Names this request in its answer.
        request: u64,
        /// What is to be signed.
        subject: Subject,
    },
    /// Tells what the group has signed.
    Done {
        /// The signature.
        proof: Proof,
        /// Whose shares are in it, as the coordinator says.
        signers: Vec<MemberId>,
    },
    /// Asks for a [`Reply::Pong`].
    Ping(u64),
}

/// Said by the dialed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The answer to [`Request::Hello`].
    Welcome(Welcome),
    /// The dialer is a copy of a cosigner that has been started anew.
    Fenced(Incarnation),
    /// Nonces that this connection may use, each once.
    Commitments(Vec<(u64, Vec<u8>)>),
    /// From now on shares are given.
    Active,
    /// A share.
    Share {
        /// The request.
        request: u64,
        /// The share, 32 bytes.
        share: Vec<u8>,
    },
    /// No share, or no signature.
    Refused {
        /// The request.
        request: u64,
        /// Why.
        why: Why,
        /// What the group has signed there or above, if it has.
        proof: Option<Proof>,
    },
    /// A signature, made or remembered.
    Signed {
        /// The request.
        request: u64,
        /// For a vote or proposal its sign bytes, whose timestamp may be another than was asked for.
        message: Option<Vec<u8>>,
        /// The signature, 64 bytes.
        signature: Vec<u8>,
    },
    /// The answer to [`Request::Ping`].
    Pong(u64),
}

/// Who dials, and what it knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The lowest and the highest version of messages that it speaks.
    pub versions: (u8, u8),
    /// The group's public key.
    pub group: [u8; 32],
    /// Which sharing of it.
    pub epoch: u32,
    /// Which life of the cosigner.
    pub incarnation: Incarnation,
    /// The highest place for which it has seen a share of the dialed.
    pub seen_of_you: Place,
}

/// Who was dialed, and what it knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The version of all further messages.
    pub version: u8,
    /// Which life of the cosigner. By now it has refused, durably, every earlier life of the dialer.
    pub incarnation: Incarnation,
    /// Whether it gives shares.
    pub active: bool,
    /// What its guard stands at.
    pub guard: Claim,
    /// The highest place for which it has seen a share of the dialer.
    pub seen_of_you: Place,
    /// The highest place for which it was told that the dialer is among the signers. Hearsay.
    pub signed_by_you: Place,
    /// The last signature of the group that it knows.
    pub proof: Option<Proof>,
}

/// A signer of a session, by what it committed itself to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signer {
    /// Who.
    pub member: MemberId,
    /// In which life.
    pub incarnation: Incarnation,
    /// Its commitments, as [`commitments`](super::commitments) has them.
    pub commitments: Vec<u8>,
}

/// Why there is no share, or no signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Why {
    /// The guard stands by another message, or higher. It will not change its mind.
    Guard(String),
    /// The nonces are used up or too old. Others will do.
    Nonce,
    /// It has just started and does not give shares yet.
    NotActive,
    /// This signer of the session is an earlier life of a cosigner.
    Fenced(MemberId),
    /// The request makes no sense to it.
    Malformed(String),
    /// Too few cosigners could be reached in time.
    NoQuorum,
}

/// What the group has signed. It proves itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// The sign bytes of a vote or proposal.
    pub message: Vec<u8>,
    /// The signature, 64 bytes.
    pub signature: Vec<u8>,
}

/// A place in consensus, with CometBFT's step numbers; 0 for a floor without a step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The height.
    pub height: i64,
    /// The round.
    pub round: i32,
    /// The step.
    pub step: u8,
}

/// A watermark, as its holder tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Where.
    pub place: Place,
    /// What, unless it is a floor that was set.
    pub message: Option<Vec<u8>>,
}

impl Place {
    /// The place of a watermark.
    pub fn of(watermark: &Watermark) -> Self {
        let step = watermark.step.map_or(0, Step::number);
        Self { height: watermark.height.0, round: watermark.round.0, step }
    }

    /// The place of a message.
    pub fn of_asked(asked: &Asked) -> Self {
        let hrs = asked.hrs();
        Self { height: hrs.height.0, round: hrs.round.0, step: hrs.step.number() }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.height, self.round, self.step)
    }
}

impl Claim {
    /// What a watermark claims.
    pub fn of(watermark: &Watermark) -> Self {
        let message = watermark.signed.as_ref().map(|signed| signed.sign_bytes.clone());
        Self { place: Place::of(watermark), message }
    }

    /// The watermark, if its parts agree. A message that cannot be read is one all the same: then it is a floor.
    ///
    /// # Errors
    /// [`Refusal`] for a message of another place, and for a step that there is not.
    pub fn watermark(&self, chain_id: &ChainId) -> Result<Watermark, Refusal> {
        let malformed = || Refusal::Malformed("a watermark contradicts itself".into());
        if let Some((message, asked)) =
            self.message.as_ref().and_then(|message| Some((message, Asked::parse(chain_id, message).ok()?)))
        {
            if Place::of_asked(&asked) != self.place {
                return Err(malformed());
            }
            return Ok(Watermark::signed(asked.hrs(), message.clone(), asked.timestamp()));
        }
        let step = match self.place.step {
            0 => None,
            1 => Some(Step::Proposal),
            2 => Some(Step::Prevote),
            3 => Some(Step::Precommit),
            _ => return Err(malformed()),
        };
        Ok(Watermark::floor(Height(self.place.height), Round(self.place.round), step))
    }
}

/// Bytes that are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// Of another version.
    #[error("message of version {0}, and this cosigner speaks {VERSION}")]
    Version(u8),
    /// Not what this role says.
    #[error("malformed message")]
    Malformed,
    /// Longer than any message.
    #[error("message of {0} bytes: at most {MAX_MESSAGE}")]
    TooLong(usize),
}

/// A message in its frame.
pub fn encode(message: &impl Serialize) -> Vec<u8> {
    let mut frame = vec![0, 0, 0, 0, VERSION];
    frame = postcard::to_extend(message, frame).unwrap_or_default();
    let len = u32::try_from(frame.len().saturating_sub(4)).unwrap_or(u32::MAX);
    if let Some(head) = frame.first_chunk_mut::<4>() {
        *head = len.to_le_bytes();
    }
    frame
}

/// The length of the message that follows a frame's head.
///
/// # Errors
/// [`MessageError::TooLong`], and [`MessageError::Malformed`] for none at all.
pub fn length(head: [u8; 4]) -> Result<usize, MessageError> {
    match usize::try_from(u32::from_le_bytes(head)).unwrap_or(usize::MAX) {
        0 => Err(MessageError::Malformed),
        len if len > MAX_MESSAGE => Err(MessageError::TooLong(len)),
        len => Ok(len),
    }
}

/// Reads what a frame holds.
///
/// # Errors
/// [`MessageError`]; bytes that are left over are an error too.
pub fn decode<M: DeserializeOwned>(body: &[u8]) -> Result<M, MessageError> {
    let (version, body) = body.split_first().ok_or(MessageError::Malformed)?;
    if *version != VERSION {
        return Err(MessageError::Version(*version));
    }
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        _ => Err(MessageError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::MAX_SIGN_BYTES;
    use crate::threshold::nonces::POOL;

    #[test]
    fn messages_come_back_as_they_were_and_only_in_their_role() {
        let proof = Proof { message: vec![1; 120], signature: vec![2; 64] };
        let signers = vec![MemberId(1), MemberId(3)];
        let done = Request::Done { proof, signers };
        let frame = encode(&done);
        let body = &frame[4..];
        assert_eq!(length([frame[0], frame[1], frame[2], frame[3]]), Ok(body.len()));
        assert_eq!(decode::<Request>(body), Ok(done));
        assert_eq!(decode::<Reply>(body), Err(MessageError::Malformed));
    }

    /// The longest of each kind that an honest cosigner says.
    #[test]
    fn each_kind_of_message_fits_its_bound_and_only_what_carries_a_subject_may_be_long() {
        let incarnation = Incarnation { count: u64::MAX, id: u64::MAX };
        let place = Place { height: i64::MAX, round: i32::MAX, step: 3 };
        let message = vec![1; MAX_SIGN_BYTES];
        let proof = Proof { message: message.clone(), signature: vec![2; 64] };
        let members: Vec<MemberId> = (0..256).map(MemberId).collect();
        let signer = Signer { member: MemberId(u16::MAX), incarnation, commitments: vec![1; 64] };
        let subject = Subject::Extension { vote: message.clone(), extension: vec![7; 1 << 20] };
        let requests = [
            Request::Hello(Hello {
                versions: (VERSION, VERSION),
                group: [0xff; 32],
                epoch: u32::MAX,
                incarnation,
                seen_of_you: place,
            }),
            Request::Share {
                request: u64::MAX,
                nonce: u64::MAX,
                subject: subject.clone(),
                others: vec![signer; 256],
            },
            Request::Forward { request: u64::MAX, subject },
            Request::Done { proof: proof.clone(), signers: members },
            Request::Ping(u64::MAX),
        ];
        for (kind, request) in (0..).zip(requests) {
            let body = &encode(&request)[4..];
            assert_eq!(body[1], kind, "the byte that says the kind");
            assert!(body.len() <= Request::longest(kind), "{} bytes of {request:?}", body.len());
            assert_eq!(Request::longest(kind) > MAX_SHORT, matches!(kind, 1 | 2));
        }
        let claim = Claim { place, message: Some(message.clone()) };
        let welcome = Welcome {
            version: VERSION,
            incarnation,
            active: true,
            guard: claim,
            seen_of_you: place,
            signed_by_you: place,
            proof: Some(proof.clone()),
        };
        let why = Why::Guard("\u{10ffff}".repeat(1000));
        let replies = [
            Reply::Welcome(welcome),
            Reply::Fenced(incarnation),
            Reply::Commitments(vec![(u64::MAX, vec![0xff; 64]); 2 * POOL]),
            Reply::Active,
            Reply::Share { request: u64::MAX, share: vec![0xff; 32] },
            Reply::Refused { request: u64::MAX, why, proof: Some(proof) },
            Reply::Signed { request: u64::MAX, message: Some(message), signature: vec![0xff; 64] },
            Reply::Pong(u64::MAX),
        ];
        for reply in replies {
            let len = encode(&reply).len() - 4;
            assert!(len <= Reply::longest(0), "{len} bytes of {reply:?}");
        }
    }

    #[test]
    fn other_versions_lengths_and_trailing_bytes_are_named() {
        let mut frame = encode(&Request::Ping(7));
        frame.push(0);
        assert_eq!(decode::<Request>(&frame[4..]), Err(MessageError::Malformed));
        frame[4] = 9;
        assert_eq!(decode::<Request>(&frame[4..]), Err(MessageError::Version(9)));
        assert_eq!(length([0; 4]), Err(MessageError::Malformed));
        assert!(matches!(length([0xff; 4]), Err(MessageError::TooLong(_))));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(body: Vec<u8>) {
            let _ = decode::<Request>(&body);
            let _ = decode::<Reply>(&body);
        }
    }
}
