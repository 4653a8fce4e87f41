//! Which CometBFT speaks: named in settings for compatibility, recognised from what the node sends.
//!
//! No setting is needed to serve any release. What a node says narrows down which one it is, bit by bit
//! ([`Recognised`]), so that a setting that disagrees can be named with the right one.

use std::fmt;
use std::str::FromStr;

use crate::message::{Message, PubKeyResponse, PublicKey, Vote};

/// A release line of tendermint or CometBFT, as far as privval differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dialect {
    /// tendermint and CometBFT v0.34.
    V0_34,
    /// CometBFT v0.37.
    V0_37,
    /// CometBFT v0.38: vote extensions.
    V0_38,
    /// CometBFT v0.39.
    V0_39,
    /// CometBFT v0.40: noise transport, longer messages.
    V0_40,
    /// CometBFT v1.0: other public key answer, `skip_extension_signing`, `SignBytes`.
    V1_0,
    /// CometBFT v2.0.0-rc1: extensions without replay protection.
    V2_0,
}

/// A setting that names no dialect we speak.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDialect {
    /// v0.33 and older.
    #[error("`{0}` is amino (tendermint v0.33 or older), which is not supported: v0.34 is the oldest")]
    Amino(String),
    /// No release's name.
    #[error("`{0}` is no protocol version: use one of v0.34, v0.37, v0.38, v0.39, v0.40, v1.0, v2.0-rc")]
    Unknown(String),
}

/// What the node has shown of its dialect so far: the dialects that fit all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recognised {
    oldest: Dialect,
    newest: Dialect,
}

impl Dialect {
    /// Every dialect, oldest first.
    pub const ALL: [Self; 7] =
        [Self::V0_34, Self::V0_37, Self::V0_38, Self::V0_39, Self::V0_40, Self::V1_0, Self::V2_0];

    /// Whether votes carry extensions.
    pub fn has_extensions(self) -> bool {
        self >= Self::V0_38
    }

    /// Whether this is v1.0 or later, which has its own privval package.
    pub fn is_v1_or_later(self) -> bool {
        self >= Self::V1_0
    }

    /// Whether extensions without replay protection exist.
    pub fn has_non_rp_extensions(self) -> bool {
        self == Self::V2_0
    }

    /// What a node or stock signer of this dialect would make of `message`: fields it does not know are dropped.
    ///
    /// `None` if it does not know the message.
    pub fn restrict(self, message: Message) -> Option<Message> {
        Some(match message {
            Message::SignVoteRequest(mut m) => {
                m.vote = m.vote.map(|vote| self.restrict_vote(vote));
                m.skip_extension_signing &= self.is_v1_or_later();
                Message::SignVoteRequest(m)
            }
            Message::SignedVoteResponse(mut m) => {
                m.vote = self.restrict_vote(m.vote);
                Message::SignedVoteResponse(m)
            }
            Message::PubKeyResponse(m) => Message::PubKeyResponse(self.restrict_pub_key(m)),
            Message::RawRequest(mut m) if self.is_v1_or_later() => {
                m.raw_bytes.clear();
                m.unique_id.0.clear();
                Message::RawRequest(m)
            }
            Message::RawRequest(_) | Message::RawResponse(_) if !self.is_v1_or_later() => return None,
            other => other,
        })
    }

    fn restrict_vote(self, mut vote: Vote) -> Vote {
        if !self.has_extensions() {
            vote.extension.clear();
            vote.extension_signature.clear();
        }
        if !self.has_non_rp_extensions() {
            vote.non_rp_extension.clear();
            vote.non_rp_extension_signature.clear();
        }
        vote
    }

    fn restrict_pub_key(self, mut m: PubKeyResponse) -> PubKeyResponse {
        if self.is_v1_or_later() {
            m.pub_key = None;
            return m;
        }
        m.pub_key_bytes.clear();
        m.pub_key_type.0.clear();
        let known = |kind: u32| match self {
            Self::V0_34 | Self::V0_37 => kind <= 2,
            Self::V0_38 => kind <= 2 || kind == 4,
            Self::V0_39 => kind <= 3,
            _ => true,
        };
        let key = m.pub_key.unwrap_or_default();
        m.pub_key = Some(PublicKey { sum: key.sum.filter(|(kind, _)| known(*kind as u32)) });
        m
    }
}

impl Default for Recognised {
    /// Nothing is known: any dialect fits.
    fn default() -> Self {
        Self { oldest: Dialect::V0_34, newest: Dialect::V2_0 }
    }
}

impl Recognised {
    /// Takes what a request shows into account; true if that narrowed the answer.
    ///
    /// Evidence: an extension is v0.38 or later, `skip_extension_signing` is v1.0 or later (its absence says nothing:
    /// v1.0 sets it only at heights without extensions), an extension without replay protection is v2.0.
    pub fn observe(&mut self, request: &Message) -> bool {
        let before = *self;
        match request {
            Message::SignVoteRequest(m) => {
                if let Some(vote) = &m.vote {
                    self.observe_vote(vote, m.skip_extension_signing);
                }
            }
            Message::RawRequest(m) if m.raw_bytes.is_empty() => self.at_least(Dialect::V1_0),
            _ => {}
        }
        *self != before
    }

    /// Takes a noise transport into account: only v0.40 has it.
    pub fn observe_noise(&mut self) {
        *self = Self { oldest: Dialect::V0_40, newest: Dialect::V0_40 };
    }

    /// Whether `dialect` fits all that was seen.
    pub fn allows(&self, dialect: Dialect) -> bool {
        (self.oldest..=self.newest).contains(&dialect)
    }

    /// Whether the node is certainly v1.0 or later.
    pub fn is_v1_or_later(&self) -> bool {
        self.oldest.is_v1_or_later()
    }

    fn observe_vote(&mut self, vote: &Vote, skip_extension_signing: bool) {
        if !vote.extension.is_empty() {
            self.at_least(Dialect::V0_38);
        }
        if !vote.non_rp_extension.is_empty() {
            self.at_least(Dialect::V2_0);
        }
        if skip_extension_signing {
            self.at_least(Dialect::V1_0);
        }
    }

    /// Later evidence wins: a node may have been upgraded between two connections.
    fn at_least(&mut self, dialect: Dialect) {
        self.oldest = self.oldest.max(dialect);
        if self.newest < self.oldest {
            self.newest = Dialect::V2_0;
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V0_34 => "v0.34",
            Self::V0_37 => "v0.37",
            Self::V0_38 => "v0.38",
            Self::V0_39 => "v0.39",
            Self::V0_40 => "v0.40",
            Self::V1_0 => "v1.0",
            Self::V2_0 => "v2.0-rc",
        })
    }
}

impl fmt::Display for Recognised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.oldest == self.newest {
            return self.oldest.fmt(f);
        }
        write!(f, "{} to {}", self.oldest, self.newest)
    }
}

impl FromStr for Dialect {
    type Err = InvalidDialect;

    /// A release line or a release of it, with or without `v`: `v0.38`, `0.38`, `v0.38.17`.
    fn from_str(text: &str) -> Result<Self, InvalidDialect> {
        let numbers = text.strip_prefix('v').unwrap_or(text);
        // What follows a hyphen names a candidate or a build of that release.
        let mut parts = numbers.split_once('-').map_or(numbers, |(numbers, _)| numbers).split('.');
        let mut next = || parts.next().map(|part| part.parse::<u16>().ok());
        let line = (next(), next().unwrap_or(Some(0)), next().unwrap_or(Some(0)), next());
        Ok(match line {
            (Some(Some(0)), Some(34), Some(_), None) => Self::V0_34,
            (Some(Some(0)), Some(37), Some(_), None) => Self::V0_37,
            (Some(Some(0)), Some(38), Some(_), None) => Self::V0_38,
            (Some(Some(0)), Some(39), Some(_), None) => Self::V0_39,
            (Some(Some(0)), Some(40), Some(_), None) => Self::V0_40,
            (Some(Some(1)), Some(0), Some(_), None) => Self::V1_0,
            (Some(Some(2)), Some(0), Some(_), None) => Self::V2_0,
            (Some(Some(0)), Some(1..=33), Some(_), None) => return Err(InvalidDialect::Amino(text.into())),
            _ if matches!(text, "legacy" | "amino") => return Err(InvalidDialect::Amino(text.into())),
            _ => return Err(InvalidDialect::Unknown(text.into())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::SignVoteRequest;

    fn request(vote: Vote, skip_extension_signing: bool) -> Message {
        Message::SignVoteRequest(SignVoteRequest {
            vote: Some(vote),
            skip_extension_signing,
            ..Default::default()
        })
    }

    #[test]
    fn recognises_extensions_and_the_skip_flag() {
        let prevote = Vote { vote_type: 1, ..Vote::default() };
        let mut seen = Recognised::default();
        assert!(!seen.observe(&request(prevote.clone(), false)), "every dialect sends such a prevote");
        let extended = Vote { vote_type: 2, extension: vec![1], ..Vote::default() };
        assert!(seen.observe(&request(extended, false)));
        assert_eq!(seen.to_string(), "v0.38 to v2.0-rc");
        assert!(seen.observe(&request(prevote, true)));
        assert!(seen.is_v1_or_later() && seen.allows(Dialect::V1_0) && !seen.allows(Dialect::V0_38));
    }

    #[test]
    fn every_name_is_read_back_and_amino_is_refused_by_name() {
        for dialect in Dialect::ALL {
            assert_eq!(dialect.to_string().parse(), Ok(dialect));
        }
        assert!(matches!("v0.33".parse::<Dialect>(), Err(InvalidDialect::Amino(_))));
        for (name, dialect) in [
            ("0.38", Dialect::V0_38),
            ("v0.38.17", Dialect::V0_38),
            ("1.0", Dialect::V1_0),
            ("v1", Dialect::V1_0),
            ("v1.0.1", Dialect::V1_0),
            ("v2.0.0-rc1", Dialect::V2_0),
        ] {
            assert_eq!(name.parse(), Ok(dialect), "{name}");
        }
        for name in ["auto", "", "v", "v0.35", "v1.1", "v0.38.x", "v1.0.0.0", "v-1"] {
            assert!(matches!(name.parse::<Dialect>(), Err(InvalidDialect::Unknown(_))), "{name}");
        }
    }
}
