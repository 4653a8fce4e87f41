//! The command line as reviewed files: what each command prints, and with which code it ends, stands in `cmd/*.md`.
//!
//! After a change that is meant, `TRYCMD=overwrite cargo test --test cli` writes what is printed now, and the diff shows
//! what became of the words.

#[test]
fn commands_print_what_is_written_down() {
    trycmd::TestCases::new().env("COLUMNS", "100").env("NO_COLOR", "1").case("tests/cmd/*.md").run();
}
