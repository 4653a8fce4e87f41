//! The golden files of real CometBFT releases, for tests: `MONOSIGN_VECTORS`, or `vectors` in the repository.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// Every line of every `files*.jsonl`, of every release.
pub(crate) fn files() -> Vec<Value> {
    let root = std::env::var_os("MONOSIGN_VECTORS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../vectors"), PathBuf::from);
    let mut vectors = Vec::new();
    for release in
        std::fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir())
    {
        for file in ["files.jsonl", "files_bls12381.jsonl"] {
            let Ok(lines) = std::fs::read_to_string(release.join(file)) else { continue };
            vectors.extend(lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
        }
    }
    assert!(!vectors.is_empty(), "no vectors in {}", root.display());
    vectors
}

/// A field that must be text.
pub(crate) fn text<'a>(vector: &'a Value, field: &str) -> &'a str {
    vector[field].as_str().unwrap_or_else(|| panic!("{field} missing in {}", vector["name"]))
}
