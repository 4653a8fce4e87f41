//! What is told in one line, and what is advised: one event of the log, for people and for machines.

use tracing::field::{DisplayValue, display};

/// Errors end with what to do, on a line of its own.
const HINT: &str = "\nhint: ";

/// A text without its advice, in one line; and the advice, for the field `hint` of an event.
pub fn told(text: &str) -> (String, Option<DisplayValue<String>>) {
    let (what, hint) = split(text);
    (what, hint.map(display))
}

fn split(text: &str) -> (String, Option<String>) {
    match text.split_once(HINT) {
        Some((what, hint)) => (one_line(what), Some(one_line(hint))),
        None => (one_line(text), None),
    }
}

/// Lines as one: a second one would be an event without time or level for whatever reads the log.
pub fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_is_apart_and_both_are_one_line() {
        assert_eq!(split("a: b\nhint: c `d`\n e"), ("a: b".into(), Some("c `d`; e".into())));
        assert_eq!(split("a\n  b\n"), ("a; b".into(), None));
    }
}
