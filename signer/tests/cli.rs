//! The command line as reviewed files: what each command prints, and with which code it ends, stands in `cmd/*.md`.
//!
//! After a change that is meant, `TRYCMD=overwrite cargo test --test cli` writes what is printed now, and the diff shows
//! what became of the words; what differs from run to run has to be elided again.

use std::process::{Command, Stdio};

#[test]
fn commands_print_what_is_written_down() {
    // One after the other: on one host, one process at a time uses the records of a chain and key, and they have one in common.
    for file in ["check", "demo", "help", "setup", "state", "threshold", "usage"] {
        let file = format!("tests/cmd/{file}.md");
        trycmd::TestCases::new().env("COLUMNS", "100").env("NO_COLOR", "1").case(file).run();
    }
}

#[test]
fn every_command_and_subcommand_has_its_help_written_down() {
    let written = include_str!("cmd/help.md");
    let mut commands = vec![Vec::new()];
    while let Some(command) = commands.pop() {
        let line = command.iter().map(|word| format!("{word} ")).collect::<String>();
        assert!(written.contains(&format!("$ monosign {line}--help\n")), "`{line}` is not in cmd/help.md");
        commands.extend(subcommands(&command));
    }
}

/// As the help lists them.
fn subcommands(command: &[String]) -> Vec<Vec<String>> {
    let help = Command::new(env!("CARGO_BIN_EXE_monosign"))
        .args(command)
        .arg("--help")
        .env("COLUMNS", "100")
        .stdin(Stdio::null())
        .output()
        .expect("a help text");
    let help = String::from_utf8(help.stdout).expect("text");
    let list =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names =
        list.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(|name| [command, &[name.to_owned()]].concat()).collect()
}

#[test]
fn completions_and_manual_pages_name_every_command() {
    let print = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_monosign")).args(args).output().expect("it runs");
        assert!(output.status.success(), "{args:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let commands = subcommands(&[]);
    for shell in ["bash", "zsh", "fish"] {
        let completions = print(&["completions", shell]);
        assert!(commands.iter().all(|command| completions.contains(&command[0])), "{shell}");
    }
    let page = print(&["man"]);
    assert!(page.contains(".TH monosign 1"), "{page}");
    // A hyphen is escaped in a manual page.
    assert!(commands.iter().all(|command| page.contains(&command[0].replace('-', "\\-"))), "{page}");
}
