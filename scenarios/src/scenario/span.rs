//! Durations as people write them: `500ms`, `3s`, `1h`, and ranges of them: `5s..15s`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::streams::Stream;

/// A duration, written `500ms`, `3s`, `2m`, `1h` or `1day`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub Duration);

/// A duration between two, written `5s..15s`, both included; or always the same one, written `5s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanRange {
    /// The shortest.
    pub from: Duration,
    /// The longest.
    pub to: Duration,
}

/// What is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSpan {
    /// Not even one.
    #[error("`{0}` is no duration: write for instance `500ms`, `3s`, `2m` or `1h`")]
    Form(String),
    /// The wrong way round.
    #[error("`{0}` ends before it begins")]
    Backwards(String),
}

impl Span {
    /// Whole milliseconds.
    pub const fn millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }
}

impl SpanRange {
    /// Always the same.
    pub const fn always(duration: Duration) -> Self {
        Self { from: duration, to: duration }
    }

    /// A range of whole milliseconds.
    pub const fn millis(from: u64, to: u64) -> Self {
        Self { from: Duration::from_millis(from), to: Duration::from_millis(to) }
    }

    /// A duration of the range, drawn from a stream in steps of a microsecond.
    pub fn draw(&self, stream: &mut Stream) -> Duration {
        let micros = |duration: Duration| duration.as_micros() as u64;
        Duration::from_micros(stream.between(micros(self.from), micros(self.to)))
    }
}

impl FromStr for Span {
    type Err = InvalidSpan;

    fn from_str(text: &str) -> Result<Self, InvalidSpan> {
        humantime::parse_duration(text).map(Self).map_err(|_| InvalidSpan::Form(text.into()))
    }
}

impl FromStr for SpanRange {
    type Err = InvalidSpan;

    fn from_str(text: &str) -> Result<Self, InvalidSpan> {
        let (from, to) = text.split_once("..").unwrap_or((text, text));
        let (Span(from), Span(to)) = (from.parse()?, to.parse()?);
        if from > to {
            return Err(InvalidSpan::Backwards(text.into()));
        }
        Ok(Self { from, to })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // humantime writes `1s 500ms`, and reads it too.
        write!(f, "{}", humantime::format_duration(self.0))
    }
}

impl fmt::Display for SpanRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.from == self.to {
            true => write!(f, "{}", Span(self.from)),
            false => write!(f, "{}..{}", Span(self.from), Span(self.to)),
        }
    }
}

macro_rules! as_text {
    ($type:ty, $name:literal, $description:literal) => {
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "description": $description })
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

as_text!(Span, "Span", "A duration: `500ms`, `3s`, `2m`, `1h`, `1day`.");
as_text!(
    SpanRange,
    "SpanRange",
    "A duration, or a range of durations that one is drawn from: `3s`, `500ms..2s`."
);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{InvalidSpan, Span, SpanRange};

    #[test]
    fn reads_what_it_writes() {
        for text in ["0s", "500ms", "1s 500ms", "2m", "1h", "1day"] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span.to_string().parse(), Ok(span));
        }
        let range: SpanRange = "500ms..2s".parse().unwrap();
        assert_eq!(range, SpanRange::millis(500, 2000));
        assert_eq!(range.to_string(), "500ms..2s");
    }

    #[test]
    fn refuses_what_is_no_duration() {
        assert_eq!("5".parse::<Span>(), Err(InvalidSpan::Form("5".into())));
        assert_eq!("2s..1s".parse::<SpanRange>(), Err(InvalidSpan::Backwards("2s..1s".into())));
        assert_eq!("3s".parse(), Ok(SpanRange::always(Duration::from_secs(3))));
    }
}
