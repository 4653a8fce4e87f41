//! What is wrong with a file, told without anything that stands in it.
//!
//! Parsers quote what they stumble over, and in a file with a password that is the password, or the line it stands on. So nothing
//! of a file is shown but the names of settings: where it is, which setting it is, and what is expected there.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

/// The longest name of a setting that is shown; a longer word is none.
const LONGEST_NAME: usize = 32;

/// The start of an age identity. It is a secret by its form, wherever it stands.
const AGE_IDENTITY: &str = "AGE-SECRET-KEY-";

/// What a path is refused with that is no path but a key.
const NOT_A_PATH: &str = "this looks like a key itself, and the name of a file is expected";

/// Why `text` is no TOML of the expected form: line, column, setting, and what is expected there.
pub fn toml(text: &str, error: &toml::de::Error) -> String {
    let mut told = Vec::new();
    if let Some(Range { start, .. }) = error.span() {
        let (line, column) = position(text, start);
        told.push(format!("line {line}, column {column}"));
    }
    // The parser's own words hold nothing of the text. Only what is said of values does, which is said after all was parsed.
    let Ok(table) = DeTable::parse(text) else {
        return format!("{}: {}", told.join(", "), error.message());
    };
    let mut path = error.span().and_then(|span| path_of(table.get_ref(), &span)).unwrap_or_default();
    if error.message().starts_with("unknown field") {
        // Its own name is told below, if at all.
        path.pop();
    }
    let shown: Vec<_> = path.iter().map(|name| if is_name(name) { name.as_str() } else { "…" }).collect();
    if !shown.is_empty() {
        told.push(format!("in `{}`", shown.join(".")));
    }
    // Where passwords are, a word that is no setting may be one.
    let among_secrets = path.iter().any(|name| name == "auth");
    format!("{}: {}", told.join(", "), without_values(error.message(), among_secrets))
}

/// Why a text is no JSON of the expected form: which field, and where; without what it holds.
pub fn json(text: &[u8], error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    let at = format!(" at line {line} column {column}");
    let message = error.to_string();
    let message = message.strip_suffix(&at).unwrap_or(&message);
    if !error.is_data() {
        return format!("{message}{at}");
    }
    let path = json_path(text, line, column);
    let shown: Vec<_> = path.iter().map(|name| if is_name(name) { name } else { "…" }).collect();
    let within = if shown.is_empty() { String::new() } else { format!("`{}`: ", shown.join(".")) };
    format!("{within}{}{at}", without_values(message, false))
}

/// The fields that a place in a JSON text is within, by their names. The text is well-formed up to there.
fn json_path(text: &[u8], line: usize, column: usize) -> Vec<&str> {
    let start: usize =
        text.split_inclusive(|byte| *byte == b'\n').take(line.saturating_sub(1)).map(<[u8]>::len).sum();
    let text = &text[..(start + column).min(text.len())];
    // For each object that is open, the field that is being read; arrays have none.
    let (mut open, mut word, mut string) = (Vec::new(), "", None);
    let mut bytes = text.iter().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match (byte, string) {
            (b'\\', Some(_)) => drop(bytes.next()),
            (b'"', Some(from)) => {
                word = std::str::from_utf8(&text[from..at]).unwrap_or("…");
                string = None;
            }
            (_, Some(_)) => {}
            (b'"', None) => string = Some(at + 1),
            (b'{' | b'[', None) => open.push(None),
            (b'}' | b']', None) => drop(open.pop()),
            (b':', None) => open.iter_mut().next_back().into_iter().for_each(|field| *field = Some(word)),
            (b',', None) => open.iter_mut().next_back().into_iter().for_each(|field| *field = None),
            _ => {}
        }
    }
    open.into_iter().flatten().collect()
}

/// Whether a text is a secret key by its form, which its place should not hold: age identities, and base64 or hexadecimal of as many bytes as
/// keys have.
pub fn is_key(text: &str) -> bool {
    let text = text.trim();
    let is_long = |bytes: Option<usize>| matches!(bytes, Some(32 | 64 | 96));
    let base64 = text.ends_with('=') || text.len() == 128 || text.contains('+');
    holds_identity(text)
        || text.starts_with('{')
        || is_long(data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok().map(|bytes| bytes.len()))
        || base64 && is_long(data_encoding::BASE64.decode(text.as_bytes()).ok().map(|bytes| bytes.len()))
}

/// Whether an age identity stands in a text.
pub fn holds_identity(text: &str) -> bool {
    text.to_ascii_uppercase().contains(AGE_IDENTITY)
}

/// The name of a variable or credential for people; without it, where it may be a secret that was put in the wrong place.
pub fn name(name: &str) -> Option<&str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let one_case = name.to_ascii_uppercase() == name || name.to_ascii_lowercase() == name;
    let several_words = name.len() < 16 || name.contains(['.', '_', '-']);
    (name.len() <= 64 && name.chars().all(plain) && one_case && several_words).then_some(name)
}

/// A file's path out of a configuration.
#[derive(Debug, Clone)]
pub struct FilePath(pub std::path::PathBuf);

impl<'de> serde::Deserialize<'de> for FilePath {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if is_key(&text) {
            return Err(serde::de::Error::custom(NOT_A_PATH));
        }
        Ok(Self(text.into()))
    }
}

/// Line and column of a place, from 1.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = &text.as_bytes()[..offset.min(text.len())];
    let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    (line, String::from_utf8_lossy(&before[start..]).chars().count() + 1)
}

/// The setting at a place, by the names of tables that lead to it.
fn path_of(table: &DeTable<'_>, at: &Range<usize>) -> Option<Vec<String>> {
    let mut within = None;
    for (key, value) in table.iter() {
        let name = || key.get_ref().to_string();
        if let Some(mut path) = path_in(value.get_ref(), at) {
            path.insert(0, name());
            return Some(path);
        }
        let is_here = |span: Range<usize>| span.contains(&at.start) || span == *at;
        if is_here(value.span()) || is_here(key.span()) {
            within = Some(vec![name()]);
        }
    }
    within
}

fn path_in(value: &DeValue<'_>, at: &Range<usize>) -> Option<Vec<String>> {
    match value {
        DeValue::Table(table) => path_of(table, at),
        DeValue::Array(array) => array.iter().find_map(|item| {
            let inner = path_in(item.get_ref(), at);
            inner.or_else(|| item.span().contains(&at.start).then(Vec::new))
        }),
        _ => None,
    }
}

/// The words of serde, by their known forms, without what they quote. Whatever has another form is not passed on.
fn without_values(message: &str, among_secrets: bool) -> String {
    let expected = |rest: &str, end: &str| rest.rsplit_once(end).map(|(_, expected)| expected.to_owned());
    for start in ["invalid type", "invalid value"] {
        if let Some(rest) = message.strip_prefix(start).and_then(|rest| rest.strip_prefix(": ")) {
            let kind = KINDS.into_iter().find(|kind| rest.starts_with(kind)).unwrap_or("another one");
            // The last one: what is quoted may hold the same words.
            return match expected(rest, ", expected ") {
                Some(expected) => format!("{start}: {kind}, expected {expected}"),
                None => format!("{start}: {kind}"),
            };
        }
    }
    for start in ["unknown field", "unknown variant"] {
        if let Some(rest) = message.strip_prefix(start).and_then(|rest| rest.strip_prefix(" `")) {
            let quoted = rest.split('`').next().unwrap_or_default();
            let shown = start == "unknown field" && is_name(quoted) && !among_secrets;
            let what = if shown { format!("{start} `{quoted}`") } else { start.to_owned() };
            return match expected(rest, "`, expected ") {
                Some(expected) => format!("{what}, expected {expected}"),
                None => what,
            };
        }
    }
    // All of these are our own names and words.
    let plain = [
        "missing field `",
        "duplicate field `",
        "invalid length ",
        "data did not match any variant",
        NOT_A_PATH,
    ];
    if plain.iter().any(|start| message.starts_with(start)) {
        return message.to_owned();
    }
    "it has another form than is expected here".to_owned()
}

/// What serde calls the kinds of values.
const KINDS: [&str; 9] =
    ["string", "integer", "floating point", "boolean", "character", "sequence", "map", "null", "unit value"];

/// Whether a word has the form of a setting's name, and is short enough to be one.
pub fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= LONGEST_NAME
        && text.chars().all(|c| c.is_ascii_alphabetic() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only read by tests of what is refused")]
    struct Table {
        key: u16,
        mode: Option<Mode>,
        auth: Option<Box<Table>>,
        file: Option<FilePath>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Mode {
        Off,
    }

    fn told(text: &str) -> String {
        toml(text, &toml::from_str::<Table>(text).expect_err("refused"))
    }

    #[test]
    fn line_column_setting_and_what_is_expected_are_told_and_values_are_not() {
        for (text, expected) in [
            ("a = 1\n", "line 1, column 1: unknown field `a`, expected one of `key`, `mode`, `auth`, `file`"),
            ("\nkey = \"hunter2\"", "line 2, column 7, in `key`: invalid type: string, expected u16"),
            (
                "key = \"x, expected hunter2\"",
                "line 1, column 7, in `key`: invalid type: string, expected u16",
            ),
            ("key = 77777777", "line 1, column 7, in `key`: invalid value: integer, expected u16"),
            ("key = 1\nmode = \"hunter2\"", "line 2, column 8, in `mode`: unknown variant, expected `off`"),
            ("hunter2 = 1", "line 1, column 1: unknown field, expected one of `key`, `mode`, `auth`, `file`"),
            (
                "key = 1\nauth = { key = 1, hunter = 2 }",
                "line 2, column 19, in `auth`: unknown field, expected one of `key`, `mode`, `auth`, `file`",
            ),
            (
                "key = 1\nauth = { key = \"ä\" }",
                "line 2, column 16, in `auth.key`: invalid type: string, expected u16",
            ),
        ] {
            assert_eq!(told(text), expected, "{text}");
        }
        assert!(told("key = 1\nkey = 2").contains("line 2, column 1: duplicate key"));
        assert!(told("key = \"hunter2").starts_with("line 1, column 15: invalid basic string"));
    }

    #[test]
    fn a_key_in_the_place_of_a_path_is_not_taken_for_one() {
        let base64 = data_encoding::BASE64.encode(&[7; 32]);
        let hex = "07".repeat(32);
        for key in [base64.as_str(), &hex, "AGE-SECRET-KEY-1QQQQ", "age-secret-key-1qq", "{\\\"seed\\\":1}"] {
            let told = told(&format!("key = 1\nfile = \"{key}\""));
            assert_eq!(told, format!("line 2, column 8, in `file`: {NOT_A_PATH}"), "{key}");
        }
        for path in ["secrets/consensus.key", "/etc/monosign/identity", "pw", "deadbeef", "a.age"] {
            assert!(!is_key(path), "{path}");
        }
    }

    #[test]
    fn a_name_is_shown_and_what_may_be_a_secret_is_not() {
        for shown in ["HSM_PASSWORD", "PIN", "yubihsm.password", "validator-pin"] {
            assert_eq!(name(shown), Some(shown));
        }
        for withheld in ["Hunter2-secret", "MFRGGZDFMZTWQ2LKNNWG23TPOBYXE43U", "two words", "pass/word"] {
            assert_eq!(name(withheld), None);
        }
    }

    #[test]
    fn json_is_told_by_place_and_kind() {
        let error =
            |text: &str| json(text.as_bytes(), &serde_json::from_str::<Table>(text).expect_err("refused"));
        assert_eq!(
            error("{\"key\": \"hunter2\"}"),
            "`key`: invalid type: string, expected u16 at line 1 column 17"
        );
        assert_eq!(
            error("{\n\"key\": 1, \"auth\": {\"file\": [\"a\", {\"b\": 1}]}}"),
            "`auth.file`: invalid type: sequence, expected a string at line 2 column 27"
        );
        assert_eq!(error("{\"key\": 1,\n \"auth\": {}}"), "`auth`: missing field `key` at line 2 column 11");
        assert_eq!(error("hunter2"), "expected value at line 1 column 1");
    }
}
