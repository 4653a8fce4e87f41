//! What cosigners are asked to sign together.
//!
//! Each party parses what it is asked for by itself and builds the bytes that are signed by itself: nothing that
//! a coordinator says about a message is believed.

use monosign_protocol::message::{Proposal, Timestamp, Vote};
use monosign_protocol::sign_bytes::Canonical;
use monosign_protocol::{ChainId, Hrs, Step, sign_bytes};
use serde::{Deserialize, Serialize};

use crate::chain::RawSigning;
use crate::guard::{Question, Refusal};
use crate::record::Permit;

/// What is to be signed, as it goes over the wire.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Subject {
    /// The sign bytes of a vote or proposal.
    Message(Vec<u8>),
    /// The extension of a vote, which is named by its sign bytes. Whoever signs the extension stands by the vote.
    Extension {
        /// The vote's sign bytes.
        vote: Vec<u8>,
        /// The extension.
        #[serde(with = "super::bytes")]
        extension: Vec<u8>,
    },
    /// Raw bytes: v1's `SignBytes`, and v2.0-rc's extensions without replay protection.
    Raw(#[serde(with = "super::bytes")] Vec<u8>),
    /// Celestia's `SignRawBytes`.
    Celestia {
        /// The bytes.
        #[serde(with = "super::bytes")]
        raw_bytes: Vec<u8>,
        /// Their purpose.
        unique_id: Vec<u8>,
    },
    /// A message of no meaning, which proves that a set of cosigners can sign.
    Drill([u8; 16]),
}

/// A vote or proposal, read from its sign bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    content: Content,
    bytes: Vec<u8>,
    hrs: Hrs,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Content {
    Vote(Vote),
    Proposal(Proposal),
}

impl Asked {
    /// Reads sign bytes. They must be exactly what this signer would make of their content for this chain, so that no two
    /// readers can take them for different messages.
    ///
    /// # Errors
    /// [`Refusal::Malformed`], [`Refusal::WrongChain`], [`Refusal::MalformedBlockId`].
    pub fn parse(chain_id: &ChainId, bytes: &[u8]) -> Result<Self, Refusal> {
        let malformed = || Refusal::Malformed("the sign bytes are not canonical".into());
        let canonical = Canonical::parse(bytes).ok_or_else(malformed)?;
        if !canonical.chain_id.is(chain_id.as_str()) {
            let (asked, expected) = (canonical.chain_id.to_string(), chain_id.to_string());
            return Err(Refusal::WrongChain { asked, expected });
        }
        let asked = Self { hrs: canonical.hrs, content: Content::of(canonical), bytes: bytes.to_vec() };
        if asked.question(chain_id)?.sign_bytes() != bytes {
            return Err(malformed());
        }
        Ok(asked)
    }

    /// Where in consensus the message stands.
    pub fn hrs(&self) -> Hrs {
        self.hrs
    }

    /// The sign bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The timestamp.
    pub fn timestamp(&self) -> Timestamp {
        match &self.content {
            Content::Vote(vote) => vote.timestamp,
            Content::Proposal(proposal) => proposal.timestamp,
        }
    }

    /// The question that a guard is asked.
    ///
    /// # Errors
    /// [`Refusal::MalformedBlockId`] and [`Refusal::NotAVote`].
    pub fn question<'a>(&'a self, chain_id: &'a ChainId) -> Result<Question<'a>, Refusal> {
        match &self.content {
            Content::Vote(vote) => Question::vote(chain_id.as_str(), vote, false),
            Content::Proposal(proposal) => Question::proposal(chain_id.as_str(), proposal),
        }
    }

    /// Whether it is the same message, but perhaps for the timestamp.
    pub fn is_alike(&self, chain_id: &ChainId, other: &Self) -> bool {
        let at = self.question(chain_id).map(|question| question.sign_bytes_at(other.timestamp()));
        at.is_ok_and(|bytes| bytes == other.bytes)
    }

    /// The vote, if it is a precommit for a block: the only kind that has an extension.
    fn extendable(&self) -> Option<&Vote> {
        match &self.content {
            Content::Vote(vote) if vote.is_extendable() => Some(vote),
            _ => None,
        }
    }
}

impl Content {
    fn of(canonical: Canonical) -> Self {
        let Canonical { hrs, pol_round, block_id, timestamp, .. } = canonical;
        let (height, round) = (hrs.height, hrs.round);
        let vote_type = match hrs.step {
            Step::Proposal => {
                let proposal =
                    Proposal { height, round, pol_round, block_id, timestamp, ..Proposal::default() };
                return Self::Proposal(proposal);
            }
            Step::Prevote => 1,
            Step::Precommit => 2,
        };
        Self::Vote(Vote { vote_type, height, round, block_id, timestamp, ..Vote::default() })
    }
}

/// What of a [`Subject`] is for the guard to judge, and what is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meaning {
    /// The message that the guard must stand by; `None` for what has no place in consensus.
    pub guarded: Option<Asked>,
    /// The bytes that are signed.
    pub bytes: Vec<u8>,
    extended: Option<Vote>,
}

impl Meaning {
    /// The vote with the extension that is to be signed, if that is what was asked.
    pub(super) fn extended_vote(&self) -> Option<&Vote> {
        self.extended.as_ref()
    }
}

impl Subject {
    /// How many bytes it has, more or less.
    pub fn size(&self) -> usize {
        match self {
            Self::Message(bytes) | Self::Raw(bytes) => bytes.len(),
            Self::Extension { vote, extension } => vote.len() + extension.len(),
            Self::Celestia { raw_bytes, unique_id } => raw_bytes.len() + unique_id.len(),
            Self::Drill(number) => number.len(),
        }
    }

    /// Reads it by the rules of this chain.
    ///
    /// # Errors
    /// [`Refusal`]: malformed, of another chain, or of a kind that is switched off here.
    pub fn read(&self, chain_id: &ChainId, rules: RawSigning) -> Result<Meaning, Refusal> {
        match self {
            Self::Message(bytes) => {
                let asked = Asked::parse(chain_id, bytes)?;
                Ok(Meaning { guarded: Some(asked), bytes: bytes.clone(), extended: None })
            }
            Self::Extension { vote, extension } => {
                let asked = Asked::parse(chain_id, vote)?;
                let unexpected = Refusal::UnexpectedExtension { asked: asked.hrs() };
                let vote = asked.extendable().ok_or(unexpected)?;
                let vote = Vote { extension: extension.clone(), ..vote.clone() };
                let bytes = sign_bytes::vote_extension(chain_id.as_str(), &vote);
                Ok(Meaning { guarded: Some(asked), bytes, extended: Some(vote) })
            }
            other => {
                let bytes = other.unguarded(chain_id, rules)?.bytes().to_vec();
                Ok(Meaning { guarded: None, bytes, extended: None })
            }
        }
    }

    /// Leave to sign what has no place in consensus.
    ///
    /// # Errors
    /// [`Refusal`] if it could be a consensus message, if this kind is switched off, or if it has a place in consensus.
    pub fn unguarded(&self, chain_id: &ChainId, rules: RawSigning) -> Result<Permit<'static>, Refusal> {
        match self {
            Self::Message(_) | Self::Extension { .. } => Err(Refusal::WrongDomain),
            Self::Raw(bytes) => {
                if !bytes.is_empty() && !rules.sign_bytes && !rules.non_rp_extensions {
                    return Err(Refusal::SwitchedOff { what: "signing raw bytes", setting: "sign_bytes" });
                }
                Permit::raw(bytes).map(Permit::into_owned)
            }
            Self::Celestia { raw_bytes, unique_id } => {
                if !rules.celestia_raw_bytes {
                    return Err(Refusal::SwitchedOff {
                        what: "signing raw bytes",
                        setting: "sign_raw_bytes",
                    });
                }
                Permit::celestia(chain_id, raw_bytes, unique_id)
            }
            Self::Drill(number) => Permit::raw(&drill(number)).map(Permit::into_owned),
        }
    }
}

/// What a drill signs: no message of consensus, since it does not begin with its own length.
fn drill(number: &[u8; 16]) -> Vec<u8> {
    [b"MONOSIGN::DRILL::".as_slice(), number].concat()
}

#[cfg(test)]
mod tests {
    use monosign_protocol::message::{BlockId, PartSetHeader};
    use monosign_protocol::{Height, Round};

    use super::*;

    fn chain() -> ChainId {
        "test-1".parse().expect("a chain id")
    }

    fn block() -> BlockId {
        BlockId { hash: vec![1; 32], part_set_header: PartSetHeader { total: 1, hash: vec![2; 32] } }
    }

    fn precommit(extension: &[u8]) -> Vote {
        Vote {
            vote_type: 2,
            height: Height(5),
            block_id: block(),
            timestamp: Timestamp { seconds: 9, nanos: 1 },
            extension: extension.to_vec(),
            ..Vote::default()
        }
    }

    #[test]
    fn reads_back_votes_and_proposals() {
        let vote = precommit(b"");
        let bytes = sign_bytes::vote("test-1", &vote);
        let asked = Asked::parse(&chain(), &bytes).expect("a vote");
        assert_eq!((Some(asked.hrs()), asked.timestamp()), (vote.hrs(), vote.timestamp));
        for pol_round in [-1, 0, 3] {
            let proposal = Proposal {
                height: Height(3),
                pol_round: Round(pol_round),
                block_id: block(),
                ..Proposal::default()
            };
            assert!(Asked::parse(&chain(), &sign_bytes::proposal("test-1", &proposal)).is_ok());
        }
    }

    #[test]
    fn refuses_sign_bytes_of_another_chain_and_any_that_are_not_canonical() {
        let vote = precommit(b"");
        let foreign = Asked::parse(&chain(), &sign_bytes::vote("test-2", &vote));
        assert!(matches!(foreign, Err(Refusal::WrongChain { .. })));
        let bytes = sign_bytes::vote("test-1", &vote);
        // An unknown field at the end, and the same field twice.
        for more in [&[0x48, 0x01][..], &[0x08, 0x02]] {
            let mut longer = bytes.clone();
            longer.extend_from_slice(more);
            longer[0] += 2;
            assert!(matches!(Asked::parse(&chain(), &longer), Err(Refusal::Malformed(_))), "{more:?}");
        }
    }

    #[test]
    fn only_the_timestamp_may_differ_between_messages_alike() {
        let asked = |vote: &Vote| Asked::parse(&chain(), &sign_bytes::vote("test-1", vote)).expect("a vote");
        let vote = precommit(b"");
        let later = Vote { timestamp: Timestamp { seconds: 77, nanos: 3 }, ..vote.clone() };
        let nil = Vote { block_id: BlockId::default(), ..vote.clone() };
        assert!(asked(&vote).is_alike(&chain(), &asked(&later)));
        assert!(!asked(&vote).is_alike(&chain(), &asked(&nil)));
    }

    #[test]
    fn the_extension_is_built_from_the_vote_and_only_for_a_precommit_for_a_block() {
        let vote = precommit(b"ext");
        let subject =
            Subject::Extension { vote: sign_bytes::vote("test-1", &vote), extension: vote.extension.clone() };
        let read = subject.read(&chain(), RawSigning::default()).expect("an extension");
        assert_eq!(read.bytes, sign_bytes::vote_extension("test-1", &vote));
        let prevote = sign_bytes::vote("test-1", &Vote { vote_type: 1, ..vote });
        let subject = Subject::Extension { vote: prevote, extension: vec![1] };
        assert!(matches!(
            subject.read(&chain(), RawSigning::default()),
            Err(Refusal::UnexpectedExtension { .. })
        ));
    }

    #[test]
    fn a_drill_is_no_consensus_message_and_raw_bytes_are_off_unless_empty() {
        for number in [[0; 16], [0xff; 16]] {
            assert!(!sign_bytes::looks_length_delimited(&drill(&number)));
            assert!(Subject::Drill(number).read(&chain(), RawSigning::default()).is_ok());
        }
        assert!(Subject::Raw(vec![]).read(&chain(), RawSigning::default()).is_ok());
        let raw = Subject::Raw(b"COMET::X".to_vec());
        assert!(matches!(raw.read(&chain(), RawSigning::default()), Err(Refusal::SwitchedOff { .. })));
    }
}
