//! The changes to a configuration as a diff, which is kept and shown to others: so no line is part of it that may hold a secret.
//!
//! A diff shows three lines before and after each change, so that `patch` finds the place. Here it shows as many as hold settings that are
//! never secret, and stops before any other: providers' settings, and comments that speak of passwords. Only tables of chains and
//! validators are changed, and what is changed is shown, but for a line that speaks of a password itself.

use std::fmt::Write as _;
use std::ops::Range;
use std::path::Path;

use similar::{DiffTag, TextDiff};
use toml::de::{DeTable, DeValue};

/// How many lines are shown around a change.
const CONTEXT: usize = 3;

/// A diff that `patch` takes; empty if there is no difference.
pub(super) fn unified(before: &str, after: &str, path: &Path) -> String {
    let (old, new): (Vec<_>, Vec<_>) =
        (before.split_inclusive('\n').collect(), after.split_inclusive('\n').collect());
    let diff = TextDiff::from_lines(before, after);
    let changes = diff.ops().iter().filter(|op| op.tag() != DiffTag::Equal);
    let changes: Vec<_> = changes.map(|op| (op.old_range(), op.new_range())).collect();
    let mut text = String::new();
    for hunk in hunks(&changes, &shown(before, &old)) {
        if text.is_empty() {
            let name = path.display();
            let _ = writeln!(text, "--- {name}\n+++ {name}");
        }
        hunk.write(&old, &new, &mut text);
    }
    text
}

/// Changes that are shown together, with the lines around them.
struct Hunk<'a> {
    old: Range<usize>,
    changes: &'a [(Range<usize>, Range<usize>)],
}

fn hunks<'a>(changes: &'a [(Range<usize>, Range<usize>)], shown: &[bool]) -> Vec<Hunk<'a>> {
    let mut hunks: Vec<Hunk<'_>> = Vec::new();
    for (n, (old, _)) in changes.iter().enumerate() {
        let limit = changes.get(n + 1).map_or(shown.len(), |(next, _)| next.start);
        let after = old.end..limit.min(old.end + CONTEXT);
        let after = after.take_while(|line| shown[*line]).count();
        let begin = hunks.last().map_or(0, |hunk| hunk.old.end);
        let before = (begin..old.start).rev().take(CONTEXT).take_while(|line| shown[*line]).count();
        match hunks.last_mut() {
            // Nothing between them is left out.
            Some(last) if last.old.end == old.start - before => {
                last.old.end = old.end + after;
                let first = n - last.changes.len();
                last.changes = &changes[first..=n];
            }
            _ => hunks.push(Hunk { old: old.start - before..old.end + after, changes: &changes[n..=n] }),
        }
    }
    // `patch` takes a place with less after it than before it for the end of the file.
    for hunk in hunks.iter_mut().filter(|hunk| hunk.old.end < shown.len()) {
        let Some(((first, _), (last, _))) = hunk.changes.first().zip(hunk.changes.last()) else { continue };
        let after = hunk.old.end - last.end;
        hunk.old.start = hunk.old.start.max(first.start.saturating_sub(after));
    }
    hunks
}

impl Hunk<'_> {
    fn write(&self, old: &[&str], new: &[&str], text: &mut String) {
        let Some((first, _)) = self.changes.first().zip(self.changes.last()) else { return };
        let begin = first.1.start - (first.0.start - self.old.start);
        let grown: usize = self.changes.iter().map(|(_, new)| new.len()).sum();
        let shrunk: usize = self.changes.iter().map(|(old, _)| old.len()).sum();
        let (old_len, new_len) = (self.old.len(), self.old.len() + grown - shrunk);
        // Of nothing, the line before it is named.
        let at = |begin: usize, len: usize| if len == 0 { begin } else { begin + 1 };
        let (old_at, new_at) = (at(self.old.start, old_len), at(begin, new_len));
        let _ = writeln!(text, "@@ -{old_at},{old_len} +{new_at},{new_len} @@");
        let mut line = self.old.start;
        for (from, to) in self.changes {
            old[line..from.start].iter().for_each(|line| write_line(' ', line, text));
            old[from.clone()].iter().for_each(|line| write_line('-', line, text));
            new[to.clone()].iter().for_each(|line| write_line('+', line, text));
            line = from.end;
        }
        old[line..self.old.end].iter().for_each(|line| write_line(' ', line, text));
    }
}

fn write_line(sign: char, line: &str, text: &mut String) {
    let content = line.strip_suffix('\n');
    let shown = content.unwrap_or(line);
    let _ = match speaks_of_secrets(shown) {
        true => writeln!(text, "{sign}(not shown, as it may hold a secret: change this line by hand)"),
        false => writeln!(text, "{sign}{shown}"),
    };
    if content.is_none() {
        text.push_str("\\ No newline at end of file\n");
    }
}

/// Which lines may be shown around a change.
fn shown(text: &str, lines: &[&str]) -> Vec<bool> {
    // Lines with values in tables that hold secrets, and with values in tables that hold none.
    let (mut secret, mut plain) = (vec![false; lines.len()], vec![false; lines.len()]);
    let Ok(document) = DeTable::parse(text) else { return secret };
    for (key, value) in document.get_ref().iter() {
        let marked = if key.get_ref() == "providers" { &mut secret } else { &mut plain };
        let mut mark = |span: Range<usize>| {
            let (first, last) = (line_at(text, span.start), line_at(text, span.end.saturating_sub(1)));
            (first..=last).for_each(|line| marked[line] = true);
        };
        values(value.get_ref(), value.span(), &mut mark);
    }
    let is_shown = |(n, line): (usize, &&str)| {
        let trimmed = line.trim();
        let is_outside = trimmed.is_empty() || trimmed.starts_with(['[', '#']);
        !secret[n] && (plain[n] || is_outside) && !speaks_of_secrets(line)
    };
    lines.iter().enumerate().map(is_shown).collect()
}

/// Calls back with the place of each value that is no table.
fn values(value: &DeValue<'_>, span: Range<usize>, mark: &mut dyn FnMut(Range<usize>)) {
    match value {
        DeValue::Table(table) => {
            table.iter().for_each(|(_, value)| values(value.get_ref(), value.span(), mark));
        }
        DeValue::Array(array) => array.iter().for_each(|item| values(item.get_ref(), item.span(), mark)),
        _ => mark(span),
    }
}

fn line_at(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count()
}

/// A comment may hold a setting that is switched off.
fn speaks_of_secrets(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    const WORDS: [&str; 9] =
        ["passw", "passphrase", "pin ", "pin=", "auth", "token", "age-secret-key", "private", "credential"];
    WORDS.iter().any(|word| line.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    /// Each setting of a chain or validator that may change, among lines that hold a secret.
    const BEFORE: &str = r#"# auth = { key = 1, password = "hunter2-0" }
[[chain]]
sign_bytes = true
id = "a"
[[providers.yubihsm]]
auth = { key = 4, password = "hunter2-1" }
adapter = { type = "usb" }
[[validator]]
addr = "tcp://0123@127.0.0.1:1" # the node
reconnect = false
# the password was hunter2-2
[[providers.yubihsm]]
adapter = { type = "usb" }
[providers.yubihsm.auth]
key = 4
password = """
[hunter2-3]
# hunter2-4
"""
[[validator]]
chain_id = "a"
# no secret
addr = "tcp://0123@127.0.0.1:2"

# auth=hunter2-5

reconnect = false"#;

    fn after() -> String {
        let gone = BEFORE.replace("sign_bytes = true\n", "").replace("0123@", "");
        gone.replace("reconnect = false", "reconnect = true")
    }

    #[test]
    fn no_secret_is_shown_and_every_change_is() {
        let diff = unified(BEFORE, &after(), Path::new("x.toml"));
        assert!(!diff.contains("hunter2"), "{diff}");
        for line in [
            "-sign_bytes = true",
            "+addr = \"tcp://127.0.0.1:1\" # the node",
            "+addr = \"tcp://127.0.0.1:2\"",
            " # no secret",
            "+reconnect = true\n\\ No newline at end of file",
        ] {
            assert!(diff.contains(line), "{line}: {diff}");
        }
        assert!(unified(BEFORE, BEFORE, Path::new("x")).is_empty());
    }

    #[test]
    fn patch_takes_it() {
        let dir = tempfile::tempdir().expect("a directory");
        // With secrets next to changes, and with none, where a version control's own tool takes it as well.
        let plain = "[[chain]]\nid = \"a\"\n\n[[validator]]\nchain_id = \"a\"\nreconnect = false\ntimeout = 5\nmax_height = \"9\"\n";
        let changed =
            plain.replace("false", "true").replace("id = \"a\"\n\n", "id = \"a\"\nsign_bytes = true\n\n");
        for (before, after) in [(BEFORE, after()), (plain, changed), ("a = 1\nb = 2\n", "b = 2\n".to_owned())]
        {
            let file = dir.path().join("x.toml");
            std::fs::write(&file, before).expect("a file");
            std::fs::write(dir.path().join("diff"), unified(before, &after, Path::new("x.toml")))
                .expect("a file");
            let diff = std::fs::File::open(dir.path().join("diff")).expect("the diff");
            let patched =
                Command::new("patch").arg("-p0").current_dir(&dir).stdin(Stdio::from(diff)).output();
            let patched = patched.expect("patch is installed");
            assert!(patched.status.success(), "{}", String::from_utf8_lossy(&patched.stdout));
            assert_eq!(std::fs::read_to_string(&file).expect("patched"), after);
        }
    }

    #[test]
    fn a_changed_line_that_speaks_of_a_password_is_not_shown() {
        let before = "[[chain]]\n# password = \"hunter2\"\nsign_bytes = true\nid = \"a\"\n";
        let diff = unified(before, "[[chain]]\nid = \"a\"\n", Path::new("x"));
        assert!(
            !diff.contains("hunter2") && diff.contains("-(not shown") && diff.contains("-sign_bytes"),
            "{diff}"
        );
    }
}
