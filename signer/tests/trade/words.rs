//! What is typed, and what is printed.

use std::io::Read as _;
use std::process::Stdio;

use super::*;

#[test]
fn without_a_configuration_it_is_said_where_was_looked() {
    let desk = Desk::new("plain.toml");
    let empty = desk.home.path("empty");
    fs::create_dir(&empty).expect("a directory");
    let run = |words: &str, variable: Option<&str>| {
        let mut command = desk.command(words);
        command.current_dir(&empty).env_remove("TMKMS_CONFIG_FILE");
        if let Some(path) = variable {
            command.env("TMKMS_CONFIG_FILE", path);
        }
        Finished::of(&mut command)
    };
    for words in ["start", "check", "state show"] {
        let place = empty.display().to_string();
        let texts = ["monosign.toml", "tmkms.toml", &place, "$TMKMS_CONFIG_FILE is not set", "-c "];
        run(words, None).must_fail(2, &texts);
        run(words, Some("")).must_fail(2, &texts);
    }
    // tmkms's variable is heeded, and the command line goes before it.
    run("state init", Some("../tmkms.toml")).must_succeed();
    run("state show", Some("../tmkms.toml")).must_succeed();
    run("state show", Some("missing.toml")).must_fail(1, &["missing.toml"]);
    run("state show -c ../tmkms.toml", Some("missing.toml")).must_succeed();
}

#[test]
fn what_tmkms_calls_otherwise_is_named_with_our_words() {
    let desk = Desk::new("plain.toml");
    for (words, way_on) in [
        ("init -n cosmoshub new", "`--chain CHAIN-ID`"),
        ("init --networks cosmoshub new", "`--chain CHAIN-ID`"),
        ("yubihsm keys import -t json -i 1 consensus.key", "leave `-t` out"),
        ("yubihsm keys generate 1 -p cosmosvalconspub", "`monosign pubkey --prefix cosmos`"),
        ("yubihsm keys generate 1 -b backup.enc", "`--exportable --backup FILE`"),
        ("yubihsm keys generate 1 -t consensus", "leave `-t` out"),
        ("yubihsm setup -r", "`monosign yubihsm keys import BACKUP`"),
        ("yubihsm setup -p", "leave `-p` out"),
    ] {
        let failed = desk.monosign(words).must_fail(2, &["hint: ", way_on]);
        assert!(failed.stdout.is_empty());
    }
    // What is only mistyped is not taken for tmkms's.
    let failed = desk.monosign("softsign import --typo").must_fail(2, &["--typo"]);
    assert!(!failed.stderr.contains("hint: "), "{}", failed.stderr);
    let failed = desk.monosign("yubihsm keys generate 1 -l name --connector tcp://127.0.0.1:1");
    assert_eq!(failed.code, Some(1), "{}", told(&failed));
}

#[test]
fn identities_are_shown_in_hex_too() {
    let desk = Desk::new("plain.toml");
    let shown = desk.monosign("pubkey --peer-id -c tmkms.toml").must_succeed().stdout;
    let hex = shown.trim().rsplit(' ').next().expect("a word");
    let seed: [u8; 32] =
        data_encoding::BASE64.decode(&file("identity.key")).expect("base64").try_into().expect("a seed");
    let key = ed25519_dalek::SigningKey::from_bytes(&seed).verifying_key();
    assert_eq!(hex, data_encoding::HEXLOWER.encode(key.as_bytes()));
}

#[test]
fn a_build_says_what_it_is_of() {
    let desk = Desk::new("plain.toml");
    let shown = desk.monosign("version").must_succeed().stdout;
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!(lines.len(), 4, "{shown}");
    for (line, begins) in lines.iter().zip(["monosign ", "commit   ", "features ", "rustc    "]) {
        assert!(line.strip_prefix(begins).is_some_and(|rest| !rest.is_empty()), "{shown}");
    }
}

/// `monosign … | head`: what is done is done to its end, and nothing is said of a reader that is gone.
#[test]
fn a_reader_that_goes_away_is_no_error() {
    let desk = Desk::new("plain.toml");
    desk.home.write("state.json", &file("tmkms-0.12.json"));
    for words in [
        "state import -c tmkms.toml",
        "check --offline -c tmkms.toml",
        "pubkey -c tmkms.toml",
        "softsign show consensus.key",
        "softsign keygen new.key",
        "man",
        "completions bash",
        "init fresh",
        "version",
        "--help",
    ] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut child = desk.command(words).stdout(writer).stderr(Stdio::piped()).spawn().expect("it starts");
        let mut said = String::new();
        child.stderr.take().expect("a pipe").read_to_string(&mut said).expect("text");
        let code = child.wait().expect("an end").code();
        assert_eq!((code, said.as_str()), (Some(0), ""), "{words}");
    }
    assert_eq!(desk.watermark(), ("1000".to_owned(), 0, 3));
    for made in ["new.key", "new.key.identity", "fresh/monosign.toml", "fresh/secrets/secret_connection.key"]
    {
        assert!(desk.home.path(made).exists(), "{made}");
    }
}
