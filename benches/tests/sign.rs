//! What the bench says when it cannot measure.

use std::process::Command;

#[test]
fn says_how_to_build_the_signer_that_is_missing() {
    let dir = env!("CARGO_TARGET_TMPDIR");
    let output = Command::new(env!("CARGO_BIN_EXE_sign"))
        .args(["--signer", "/nonexistent/monosign", "--dir", dir])
        .output()
        .expect("the bench runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(text.contains("no signer at `/nonexistent/monosign`: build it with `cargo build"), "{text}");
}
