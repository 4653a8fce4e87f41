//! What was found, and what follows from it: whether the signer will sign.

use std::io::Write;

use monosign_protocol::ChainId;
use serde_json::{Value, json};

use crate::cli::Failure;
use crate::guard::Watermark;
use crate::pubkey::PublicKey;
use crate::threshold::message::Place;

/// How grave a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// As it should be.
    Good,
    /// The signer signs all the same.
    Warning,
    /// It does not.
    Bad,
    /// It does not, and must not.
    Unsafe,
}

/// What follows from all findings about a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Will,
    But,
    WillNot,
}

/// One thing that was found.
#[derive(Debug, Clone)]
pub(super) struct Finding {
    pub(super) level: Level,
    /// Where: the chain, the validator, the device.
    pub(super) place: String,
    pub(super) what: String,
    /// What to do about it.
    pub(super) next: Option<String>,
    /// About which chain; all of them if none is named.
    pub(super) chain: Option<ChainId>,
}

/// A chain, as far as it was seen.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) id: ChainId,
    pub(super) public_key: Option<PublicKey>,
    pub(super) watermark: Option<Watermark>,
    /// What the running signer says of it.
    pub(super) signer: Option<Value>,
}

/// What is told, while it is found or at the end.
pub(super) struct Report<'a> {
    out: &'a mut dyn Write,
    as_json: bool,
    offline: bool,
    findings: Vec<Finding>,
    pub(super) chains: Vec<Seen>,
    pub(super) signer: Option<Value>,
}

/// What a look leaves out that must not contact anybody elsewhere.
const NOT_LOOKED_AT: [&str; 2] = ["validators", "other cosigners"];

impl Finding {
    /// About a chain. What stands behind `hint:` in the text is what to do.
    pub(super) fn of_chain(level: Level, chain: &ChainId, text: impl AsRef<str>) -> Self {
        Self::at(level, format!("chain {chain}"), text).about(chain)
    }

    /// About something else.
    pub(super) fn at(level: Level, place: impl Into<String>, text: impl AsRef<str>) -> Self {
        let text = text.as_ref();
        let (what, next) = match text.split_once("\nhint: ") {
            Some((what, next)) => (what, Some(next.to_owned())),
            None => (text, None),
        };
        Self { level, place: place.into(), what: what.to_owned(), next, chain: None }
    }

    pub(super) fn about(self, chain: &ChainId) -> Self {
        Self { chain: Some(chain.clone()), ..self }
    }

    /// What ends in its way on, after a colon.
    pub(super) fn with_command(level: Level, id: &ChainId, text: &str) -> Self {
        let finding = Self::of_chain(level, id, text);
        match text.split_once(": ") {
            Some((_, next)) => finding.next(next),
            None => finding,
        }
    }

    /// Whether this says again, in other words before it, what another one says.
    pub(super) fn repeats(&self, other: &Self) -> bool {
        self.level == other.level && self.what.ends_with(&other.what)
    }

    /// What to do, unless the text itself has said so.
    pub(super) fn next(self, next: impl Into<String>) -> Self {
        Self { next: self.next.or_else(|| Some(next.into())), ..self }
    }

    /// The same as something that does not keep the signer from signing.
    pub(super) fn at_most(self, level: Level, because: &str) -> Self {
        if self.level <= level {
            return self;
        }
        Self { level, what: format!("{}; {because}", self.what), ..self }
    }

    fn to_json(&self) -> Value {
        json!({
            "level": self.level.word(),
            "where": self.place,
            "chain": self.chain.as_ref().map(ChainId::as_str),
            "what": self.what,
            "next": self.next,
        })
    }
}

impl Level {
    fn mark(self) -> &'static str {
        match self {
            Self::Good => "ok     ",
            Self::Warning => "warning",
            Self::Bad => "BAD    ",
            Self::Unsafe => "UNSAFE ",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Warning => "warning",
            Self::Bad => "bad",
            Self::Unsafe => "unsafe",
        }
    }

    fn verdict(self) -> Verdict {
        match self {
            Self::Good => Verdict::Will,
            Self::Warning => Verdict::But,
            Self::Bad | Self::Unsafe => Verdict::WillNot,
        }
    }

    fn exit_code(self) -> u8 {
        match self {
            Self::Good | Self::Warning => 0,
            Self::Bad => 1,
            Self::Unsafe => 3,
        }
    }
}

impl Verdict {
    fn words(self) -> &'static str {
        match self {
            Self::Will => "will sign",
            Self::But => "will sign, but",
            Self::WillNot => "will not sign",
        }
    }
}

impl<'a> Report<'a> {
    pub(super) fn new(out: &'a mut dyn Write, as_json: bool, offline: bool) -> Self {
        Self { out, as_json, offline, findings: Vec::new(), chains: Vec::new(), signer: None }
    }

    /// Notes a finding, and tells it.
    pub(super) fn add(&mut self, finding: Finding) -> Result<(), Failure> {
        if !self.as_json {
            let Finding { level, place, what, next, .. } = &finding;
            // What stands in the sentence is not told again.
            let next = next.as_ref().filter(|next| !what.contains(next.as_str()));
            let hint = next.map(|next| format!("\nhint: {next}")).unwrap_or_default();
            let text = format!("{place}: {what}{hint}").replace('\n', "\n        ");
            writeln!(self.out, "{} {text}", level.mark())?;
        }
        self.findings.push(finding);
        Ok(())
    }

    fn level_of(&self, chain: Option<&ChainId>) -> Level {
        let is_about = |finding: &&Finding| {
            chain.is_none() || finding.chain.is_none() || finding.chain.as_ref() == chain
        };
        let levels = self.findings.iter().filter(is_about).map(|finding| finding.level);
        levels.max().unwrap_or(Level::Good)
    }

    /// Tells the verdict, which is the last line. The failure is the exit code.
    pub(super) fn finish(self) -> Result<(), Failure> {
        let level = self.level_of(None);
        let verdict = level.verdict();
        if self.as_json {
            let text = serde_json::to_string_pretty(&self.to_json(level)).map_err(Failure::new)?;
            writeln!(self.out, "{text}")?;
        } else {
            if self.chains.len() > 1 {
                for seen in &self.chains {
                    let verdict = self.level_of(Some(&seen.id)).verdict();
                    writeln!(self.out, "chain {}: {}", seen.id, verdict.words())?;
                }
            }
            let warnings = self.findings.iter().filter(|finding| finding.level == Level::Warning).count();
            let offline = match self.offline {
                true => {
                    format!(", as far as can be seen offline: {} were not asked", NOT_LOOKED_AT.join(" and "))
                }
                false => String::new(),
            };
            let why = match verdict {
                Verdict::Will => "",
                Verdict::But if warnings == 1 => ": 1 warning, see above",
                Verdict::But => &format!(": {warnings} warnings, see above"),
                Verdict::WillNot if level == Level::Unsafe => ", for safety: see above",
                Verdict::WillNot => ": see above",
            };
            writeln!(self.out, "{}{why}{offline}", verdict.words())?;
        }
        match level.exit_code() {
            0 => Ok(()),
            code => Err(Failure { message: None, code }),
        }
    }

    fn to_json(&self, level: Level) -> Value {
        let chain = |seen: &Seen| {
            json!({
                "id": seen.id.as_str(),
                "verdict": self.level_of(Some(&seen.id)).verdict().words(),
                "public_key": seen.public_key.map(|key| key.to_string()),
                "last_signed": seen.watermark.as_ref().map(|watermark| {
                    let Place { height, round, step } = Place::of(watermark);
                    json!({ "height": height.to_string(), "round": round, "step": step })
                }),
                "signer": seen.signer,
            })
        };
        json!({
            "verdict": level.verdict().words(),
            "exit_code": level.exit_code(),
            "offline": self.offline,
            "not_looked_at": if self.offline { &NOT_LOOKED_AT[..] } else { &[] },
            "signer": self.signer,
            "chains": self.chains.iter().map(chain).collect::<Vec<_>>(),
            "findings": self.findings.iter().map(Finding::to_json).collect::<Vec<_>>(),
        })
    }
}
