//! Finds and reads the golden vectors, for every test crate that compares with them.
#![allow(dead_code, unreachable_pub, reason = "each test crate uses its own part of this module")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

/// Where the vectors are: `MONOSIGN_VECTORS` if it is set, else the project's own copy.
pub(crate) fn vectors_dir() -> PathBuf {
    match std::env::var_os("MONOSIGN_VECTORS") {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../vectors")),
    }
}

/// Every version directory that holds `file`, by name. Panics if there is none: a vector test that reads
/// nothing must not pass.
pub(crate) fn dirs_with(file: &str) -> Vec<PathBuf> {
    let root = vectors_dir();
    let entries = fs::read_dir(&root).unwrap_or_else(|e| panic!("vectors in `{}`: {e}", root.display()));
    let mut dirs: Vec<PathBuf> = entries
        .map(|entry| entry.expect("a readable vectors directory").path())
        .filter(|dir| dir.join(file).exists())
        .collect();
    dirs.sort();
    assert!(!dirs.is_empty(), "no `{file}` in any directory of `{}`", root.display());
    dirs
}

/// The JSON objects of `dir/file`, one a line, in order.
pub(crate) fn lines(dir: &Path, file: &str) -> Vec<Value> {
    let path = dir.join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("`{}`: {e}", path.display()));
    let parse = |(n, line): (usize, &str)| {
        serde_json::from_str(line).unwrap_or_else(|e| panic!("`{}` line {}: {e}", path.display(), n + 1))
    };
    text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).map(parse).collect()
}

/// The vector's name, for messages: `dir/id`.
pub(crate) fn name(dir: &Path, vector: &Value) -> String {
    let version = dir.file_name().unwrap_or_default().to_string_lossy();
    let id = vector.get("id").and_then(Value::as_str).unwrap_or("?");
    match vector.get("why").and_then(Value::as_str) {
        Some(why) => format!("{version}/{id} ({why})"),
        None => format!("{version}/{id}"),
    }
}

/// The text of field `key`.
pub(crate) fn text<'a>(vector: &'a Value, key: &str) -> &'a str {
    vector[key].as_str().unwrap_or_else(|| panic!("no text `{key}` in {vector}"))
}

/// The bytes of the hexadecimal field `key`.
pub(crate) fn hex(vector: &Value, key: &str) -> Vec<u8> {
    decode_hex(text(vector, key))
}

/// The 32 bytes of the hexadecimal field `key`.
pub(crate) fn hex32(vector: &Value, key: &str) -> [u8; 32] {
    hex(vector, key).try_into().unwrap_or_else(|_| panic!("`{key}` is not 32 bytes in {vector}"))
}

/// Bytes from hexadecimal digits of either case.
pub(crate) fn decode_hex(digits: &str) -> Vec<u8> {
    data_encoding::HEXLOWER_PERMISSIVE
        .decode(digits.as_bytes())
        .unwrap_or_else(|e| panic!("`{digits}` is not hexadecimal: {e}"))
}

/// Passes `bytes` to `take` in pieces of `size`, as a link does: what `take` does not use is kept and passed
/// again with the next piece behind it. Gives what was unused in the end.
pub(crate) fn feed<E>(
    bytes: &[u8],
    size: usize,
    mut take: impl FnMut(&[u8]) -> Result<usize, E>,
) -> Result<Vec<u8>, E> {
    let mut pending = Vec::new();
    for piece in bytes.chunks(size) {
        pending.extend_from_slice(piece);
        let used = take(&pending)?;
        pending.drain(..used);
    }
    Ok(pending)
}
