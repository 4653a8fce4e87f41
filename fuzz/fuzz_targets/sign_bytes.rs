//! Sign bytes: two messages have the same only if everything that is signed is the same; votes, proposals, extensions
//! and Celestia's raw bytes never share any; what is stored can be read back.
//!
//! Input: a stream of framed requests; also read as sign bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use monosign_fuzz::messages;
use monosign_protocol::Step;
use monosign_protocol::message::{BlockId, Message, Proposal, Text, Timestamp, Vote};
use monosign_protocol::sign_bytes::{self, Canonical, looks_length_delimited};

fuzz_target!(|input: &[u8]| {
    if Canonical::parse(input).is_some() {
        assert!(
            looks_length_delimited(input),
            "what reads as a vote or proposal is never signed as raw bytes"
        );
    }
    let asked: Vec<Asked> = messages(input).into_iter().filter_map(Asked::from_request).take(4).collect();
    for one in &asked {
        one.check_alone();
        for other in &asked {
            check_apart(one, other);
            for hybrid in one.hybrids(other) {
                check_apart(one, &hybrid);
                check_apart(other, &hybrid);
            }
        }
    }
});

/// Something to sign, for a chain. Votes are prevotes and precommits: nothing else is ever signed.
#[derive(Clone)]
enum Asked {
    Vote(String, Vote),
    Proposal(String, Proposal),
}

/// All that a signature covers.
#[derive(PartialEq)]
enum Covered<'a> {
    Vote(&'a str, i32, i64, i32, &'a BlockId, Timestamp),
    Proposal(&'a str, i64, i32, i32, &'a BlockId, Timestamp),
}

impl Asked {
    fn from_request(message: Message) -> Option<Self> {
        // A chain's name comes from the configuration and is text.
        let name = |chain_id: Text| String::from_utf8(chain_id.0).ok();
        Some(match message {
            Message::SignVoteRequest(m) => {
                Self::Vote(name(m.chain_id)?, m.vote.filter(|vote| vote.step().is_some())?)
            }
            Message::SignProposalRequest(m) => Self::Proposal(name(m.chain_id)?, m.proposal?),
            _ => return None,
        })
    }

    fn covered(&self) -> Covered<'_> {
        match self {
            Self::Vote(chain, v) => {
                Covered::Vote(chain, v.vote_type, v.height.0, v.round.0, &v.block_id, v.timestamp)
            }
            Self::Proposal(chain, p) => {
                Covered::Proposal(chain, p.height.0, p.round.0, p.pol_round.0, &p.block_id, p.timestamp)
            }
        }
    }

    fn sign_bytes(&self) -> Vec<u8> {
        match self {
            Self::Vote(chain, vote) => sign_bytes::vote(chain, vote),
            Self::Proposal(chain, proposal) => sign_bytes::proposal(chain, proposal),
        }
    }

    fn check_alone(&self) {
        let bytes = self.sign_bytes();
        assert!(looks_length_delimited(&bytes));
        let read = Canonical::parse(&bytes).expect("our own sign bytes");
        let (chain, hrs, block_id, timestamp) = match self {
            Self::Vote(chain, v) => (chain, v.hrs().expect("a vote"), &v.block_id, v.timestamp),
            Self::Proposal(chain, p) => (chain, p.hrs(), &p.block_id, p.timestamp),
        };
        assert_eq!((read.hrs, &read.block_id, read.timestamp), (hrs, block_id, timestamp));
        assert!(read.chain_id.is(chain));
        if let Self::Vote(chain, vote) = self {
            check_extension(chain, vote);
        }
    }

    /// This, with each part of `other` in its place in turn.
    fn hybrids(&self, other: &Self) -> Vec<Self> {
        match (self, other) {
            (Self::Vote(chain, vote), Self::Vote(other_chain, o)) => {
                let with = |change: &dyn Fn(&mut Vote)| {
                    let mut vote = vote.clone();
                    change(&mut vote);
                    Self::Vote(chain.clone(), vote)
                };
                vec![
                    Self::Vote(other_chain.clone(), vote.clone()),
                    with(&|v| v.vote_type = o.vote_type),
                    with(&|v| v.height = o.height),
                    with(&|v| v.round = o.round),
                    with(&|v| v.block_id = o.block_id.clone()),
                    with(&|v| v.block_id.hash = o.block_id.hash.clone()),
                    with(&|v| v.block_id.part_set_header.total = o.block_id.part_set_header.total),
                    with(&|v| v.block_id.part_set_header.hash = o.block_id.part_set_header.hash.clone()),
                    with(&|v| v.timestamp = o.timestamp),
                    with(&|v| v.extension = o.extension.clone()),
                ]
            }
            (Self::Proposal(chain, proposal), Self::Proposal(other_chain, o)) => {
                let with = |change: &dyn Fn(&mut Proposal)| {
                    let mut proposal = proposal.clone();
                    change(&mut proposal);
                    Self::Proposal(chain.clone(), proposal)
                };
                vec![
                    Self::Proposal(other_chain.clone(), proposal.clone()),
                    with(&|p| p.height = o.height),
                    with(&|p| p.round = o.round),
                    with(&|p| p.pol_round = o.pol_round),
                    with(&|p| p.block_id = o.block_id.clone()),
                    with(&|p| p.timestamp = o.timestamp),
                ]
            }
            _ => Vec::new(),
        }
    }
}

fn check_apart(one: &Asked, other: &Asked) {
    let same = one.covered() == other.covered();
    assert_eq!(one.sign_bytes() == other.sign_bytes(), same);
    for (a, b) in [(one, other), (other, one)] {
        if let Asked::Vote(chain, vote) = a {
            assert_ne!(sign_bytes::vote_extension(chain, vote), b.sign_bytes());
        }
    }
    if let (Asked::Vote(chain, a), Asked::Vote(other_chain, b)) = (one, other) {
        let same = (chain, a.height, a.round, &a.extension) == (other_chain, b.height, b.round, &b.extension);
        let extension = sign_bytes::vote_extension;
        assert_eq!(extension(chain, a) == extension(other_chain, b), same);
    }
}

fn check_extension(chain: &str, vote: &Vote) {
    let bytes = sign_bytes::vote_extension(chain, vote);
    assert!(looks_length_delimited(&bytes));
    assert_eq!(Canonical::parse(&bytes), None);

    // Celestia's prefix begins with a `C`, that is 67: raw bytes of 68 bytes in all do look length-delimited. Their
    // body then begins with `O`, a tag that does not exist, where sign bytes have 08, 0a, 11, 19 or 22.
    let raw = sign_bytes::celestia_raw_bytes(chain, &vote.extension, &vote.validator_address);
    assert_eq!(looks_length_delimited(&raw), raw.len() == 68);
    assert_eq!(raw[1], b'O');
    assert_eq!(Canonical::parse(&raw), None);
    for ours in [bytes, sign_bytes::vote(chain, vote)] {
        let body = ours.iter().position(|byte| byte & 0x80 == 0).expect("a length") + 1;
        assert!(matches!(ours.get(body), None | Some(0x08 | 0x0a | 0x11 | 0x19 | 0x22)));
        assert!(!ours.starts_with(sign_bytes::RAW_BYTES_PREFIX));
    }
    assert_eq!(vote.step().map(Step::number), Some(if vote.vote_type == 1 { 2 } else { 3 }));
}
