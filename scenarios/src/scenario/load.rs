//! Reading a scenario's file: every key known, every name there, every plan possible, or else file, line, column and field of what is not.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use super::check::check;
use super::place::{Misread, Place, Positions, line_column, read};
use super::{Act, Scenario};

/// A file that is no scenario.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It cannot be read.
    #[error("cannot read `{}`: {why}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        why: std::io::Error,
    },
    /// Its text is wrong.
    #[error("{}", listed(path, mistakes))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// All that was found, in the order of the file.
        mistakes: Vec<Mistake>,
    },
}

/// What is wrong in a file, and where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The field, for instance `act 2: host`; empty for the file as a whole.
    pub field: String,
    /// What is wrong with it, and what would be right.
    pub what: String,
}

/// Reads and checks a file.
///
/// # Errors
/// [`LoadError`], with every mistake that can be told from the others.
pub fn load(path: &Path) -> Result<Scenario, LoadError> {
    let text = fs::read_to_string(path).map_err(|why| LoadError::Read { path: path.into(), why })?;
    parse(&text).map_err(|mistakes| LoadError::Invalid { path: path.into(), mistakes })
}

/// Checks the text of a file.
///
/// # Errors
/// The mistakes, in the order of the text.
pub fn parse(text: &str) -> Result<Scenario, Vec<Mistake>> {
    let syntax = |error: toml::de::Error| {
        let (line, column) = line_column(text, error.span().map_or(0, |span| span.start));
        vec![Mistake { line, column, field: String::new(), what: error.message().into() }]
    };
    let positions = Positions::of(text).map_err(syntax)?;
    let table = text.parse().map_err(syntax)?;
    let scenario = scenario(table);
    let misread = match scenario {
        Ok(scenario) => match check(&scenario) {
            found if found.is_empty() => return Ok(scenario),
            found => found,
        },
        Err(misread) => misread,
    };
    let located = misread.into_iter().map(|Misread { place, what }| {
        let (line, column) = match what.contains("unknown field") {
            true => positions.find_key(&place),
            false => positions.find(&place),
        };
        Mistake { line, column, field: place.to_string(), what: with_suggestion(what) }
    });
    let mut mistakes: Vec<_> = located.collect();
    mistakes.sort();
    Err(mistakes)
}

/// The name of the scenario in a file: that of the file, without `.toml`.
pub fn name_of(path: &Path) -> String {
    path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Reads the acts one by one, so that a mistake in one does not hide those in others.
fn scenario(mut table: toml::Table) -> Result<Scenario, Vec<Misread>> {
    let mut found = Vec::new();
    let mut acts = Vec::new();
    let place = Place::top("act");
    match table.remove("act") {
        None => {}
        Some(toml::Value::Array(array)) => {
            for (n, value) in array.into_iter().enumerate() {
                let place = place.index(n);
                let act = match value {
                    toml::Value::Table(table) => Act::from_table(table),
                    _ => Err(Misread::at([], "an act is a table: write `[[act]]`")),
                };
                match act {
                    Ok(act) => acts.push(act),
                    Err(misread) => found.push(misread.within(&place)),
                }
            }
        }
        Some(_) => {
            found.push(Misread::at([], "acts are tables of their own: write `[[act]]`").within(&place))
        }
    }
    match read::<Scenario>(table.into()) {
        Ok(mut scenario) if found.is_empty() => {
            scenario.acts = acts;
            return Ok(scenario);
        }
        Ok(_) => {}
        Err(misread) => found.push(misread),
    }
    Err(found)
}

/// Adds the nearest of the names that a message lists as allowed. serde and our own checks word such messages alike:
/// the wrong name first, then `expected` and those that would be right.
fn with_suggestion(what: String) -> String {
    let Some((wrong, allowed)) = what.split_once("expected") else { return what };
    let named = |text: &'_ str| text.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let Some(wrong) = named(wrong).pop() else { return what };
    // Names that differ in their numbers only are as near to one another as to what was meant.
    let letters = |name: &str| name.chars().filter(|c| c.is_alphabetic()).collect::<String>();
    let nearest = named(allowed)
        .into_iter()
        .filter(|name| letters(name) != letters(&wrong) || wrong.chars().all(|c| !c.is_ascii_digit()))
        .map(|name| (strsim::jaro_winkler(&wrong, &name), name))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b));
    match nearest {
        Some((_, name)) => format!("{what}\nhint: did you mean `{name}`?"),
        None => what,
    }
}

fn listed(path: &Path, mistakes: &[Mistake]) -> String {
    let lines = mistakes.iter().map(|mistake| format!("{}:{mistake}", path.display()));
    lines.collect::<Vec<_>>().join("\n")
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, column, field, what } = self;
        let separator = if field.is_empty() { "" } else { ": " };
        write!(f, "{line}:{column}: {field}{separator}{}", what.trim_end().replace('\n', "\n  "))
    }
}

#[cfg(test)]
mod tests;
