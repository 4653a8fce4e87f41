//! Where in a file something is: the way to it through tables and arrays, and its line and column.

use std::fmt;

use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

/// One step on the way from the top of a file to a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Into the table's key.
    Key(String),
    /// To an element of an array, the first being 0.
    Index(usize),
}

/// The way to a value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Place(Vec<Step>);

/// A value that could not be read as what it should be.
#[derive(Debug, thiserror::Error)]
#[error("{place}{}{what}", if place.0.is_empty() { "" } else { ": " })]
pub(super) struct Misread {
    pub(super) place: Place,
    pub(super) what: String,
}

/// Reads a value, and says where in it a mistake is.
pub(super) fn read<T: DeserializeOwned>(value: toml::Value) -> Result<T, Misread> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let steps = error.path().iter().filter_map(|segment| match segment {
            Segment::Seq { index } => Some(Step::Index(*index)),
            Segment::Map { key } => Some(Step::Key(key.clone())),
            Segment::Enum { .. } | Segment::Unknown => None,
        });
        Misread { place: Place(steps.collect()), what: error.inner().message().to_owned() }
    })
}

impl Misread {
    pub(super) fn at(steps: impl IntoIterator<Item = Step>, what: impl Into<String>) -> Self {
        Self { place: Place(steps.into_iter().collect()), what: what.into() }
    }

    /// What went wrong in a table, when the table is looked at from `place`.
    pub(super) fn within(mut self, place: &Place) -> Self {
        self.place.0.splice(0..0, place.0.iter().cloned());
        self
    }
}

impl Place {
    /// The top-level key `key`.
    pub(super) fn top(key: &str) -> Self {
        Self::default().key(key)
    }

    /// The key `key` of the table that is here.
    pub(super) fn key(&self, key: &str) -> Self {
        self.step(key.into())
    }

    /// The element `index` of the array that is here.
    pub(super) fn index(&self, index: usize) -> Self {
        self.step(Step::Index(index))
    }

    fn step(&self, step: Step) -> Self {
        Self(self.0.iter().cloned().chain([step]).collect())
    }
}

impl From<&str> for Step {
    fn from(key: &str) -> Self {
        Self::Key(key.into())
    }
}

/// As people count: `act 2: host`.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if n == 0 => write!(f, "{key}")?,
                Step::Key(key) => write!(f, ": {key}")?,
                Step::Index(index) => write!(f, " {}", index + 1)?,
            }
        }
        Ok(())
    }
}

/// Where the values of a file begin.
pub(super) struct Positions<'a> {
    text: &'a str,
    root: Spanned<DeTable<'a>>,
}

impl<'a> Positions<'a> {
    /// The positions in a file's text, if it is TOML.
    pub(super) fn of(text: &'a str) -> Result<Self, toml::de::Error> {
        Ok(Self { text, root: DeTable::parse(text)? })
    }

    /// The line and column of the value at `place`; of its key where it is a table; of what would contain it, if it is not there.
    pub(super) fn find(&self, place: &Place) -> (usize, usize) {
        self.locate(place, |name, value| match value.get_ref() {
            DeValue::Table(_) => name.span().start,
            _ => value.span().start,
        })
    }

    /// The line and column of the key at `place`.
    pub(super) fn find_key(&self, place: &Place) -> (usize, usize) {
        self.locate(place, |name, _| name.span().start)
    }

    fn locate(&self, place: &Place, start_of: StartOf) -> (usize, usize) {
        let mut offset = 0;
        let mut here: Option<&DeValue<'_>> = None;
        for step in &place.0 {
            let next = match (step, here) {
                (Step::Key(key), None) => entry(self.root.get_ref(), key, start_of),
                (Step::Key(key), Some(DeValue::Table(table))) => entry(table, key, start_of),
                (Step::Index(index), Some(DeValue::Array(array))) => {
                    array.get(*index).map(|value| (value.span().start, value.get_ref()))
                }
                _ => None,
            };
            let Some((start, value)) = next else { break };
            (offset, here) = (start, Some(value));
        }
        line_column(self.text, offset)
    }
}

/// Where an entry of a table begins.
type StartOf = fn(&Spanned<DeString<'_>>, &Spanned<DeValue<'_>>) -> usize;

fn entry<'t, 'a>(table: &'t DeTable<'a>, key: &str, start_of: StartOf) -> Option<(usize, &'t DeValue<'a>)> {
    let (name, value) = table.iter().find(|(name, _)| name.get_ref() == key)?;
    Some((start_of(name, value), value.get_ref()))
}

/// The line and the column, in characters, of a byte; both count from 1.
pub(super) fn line_column(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::{Place, Positions, Step, line_column};

    const FILE: &str = "duration = \"5s\"\n\n[chain]\nvalidators = 4\n\n[[act]]\nat = \"1s\"\n\n[[act]]\nat = \"2s\"\n\
                        between = [\"a\", \"b\"]\n";

    #[test]
    fn values_are_found() {
        let positions = Positions::of(FILE).unwrap();
        let act = Place::top("act").index(1);
        assert_eq!(positions.find(&Place::top("duration")), (1, 12));
        assert_eq!(positions.find(&Place::top("chain").key("validators")), (4, 14));
        assert_eq!(positions.find(&act.key("at")), (10, 6));
        assert_eq!(positions.find_key(&act.key("at")), (10, 1));
        assert_eq!(positions.find(&act.key("between").index(1)), (11, 17));
        assert_eq!(positions.find(&act), (9, 1));
    }

    #[test]
    fn what_is_missing_would_stand_in_its_table() {
        let positions = Positions::of(FILE).unwrap();
        assert_eq!(positions.find(&Place::top("act").index(1).key("host")), (9, 1));
        assert_eq!(positions.find(&Place::top("chain").key("loss_percent")), (3, 2));
        assert_eq!(positions.find(&Place::top("about")), (1, 1));
    }

    #[test]
    fn columns_are_characters() {
        assert_eq!(line_column("a\nöü=1", 6), (2, 3));
        assert_eq!(Place::top("act").index(1).step(Step::from("host")).to_string(), "act 2: host");
    }
}
