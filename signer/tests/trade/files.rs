//! States, keys and configurations.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;

use super::*;

#[test]
fn states_are_taken_over_or_the_way_on_is_named() {
    // The file, what is said of it, and where the record is then.
    for (name, said, height, round, step) in [
        ("tmkms-0.12.json", "read tmkms state", "1000", 0, 3),
        ("tmkms-0.5.json", "all of height 1000 is taken as signed: it has no quotes", "1001", 0, 0),
        ("tmkms-floor.json", "all of height 1000 is taken as signed: its step is none", "1001", 0, 0),
    ] {
        // In the place of the record, as tmkms has it, and from elsewhere.
        for words in ["state import -c tmkms.toml", "state import -c tmkms.toml other.json"] {
            let desk = Desk::new("plain.toml");
            let there = if words.ends_with("other.json") { "other.json" } else { "state.json" };
            desk.home.write(there, &file(name));
            let imported = desk.monosign(words).must_succeed();
            assert!(imported.stdout.contains(said), "{name}: {}", imported.stdout);
            assert_eq!(desk.watermark(), (height.to_owned(), round, step), "{name}");
            // As a deployment that imports at each start.
            let again = desk.monosign("state import -c tmkms.toml").must_succeed();
            let is_one = format!("is a monosign record already, last signed h/r/s {height}/{round}/");
            assert!(again.stdout.contains(&is_one), "{name}: {}", again.stdout);
            desk.monosign("check --offline -c tmkms.toml").must_succeed();
        }
    }
    let desk = Desk::new("plain.toml");
    desk.home.write("by-hand.json", &file("horcrux-by-hand.json"));
    let import = "state import -c tmkms.toml by-hand.json";
    desk.monosign(import).must_fail(1, &["`--dialect horcrux`"]);
    desk.monosign(&format!("{import} --dialect horcrux")).must_succeed();
    assert_eq!(desk.watermark(), ("1000".to_owned(), 0, 3));
}

#[test]
fn a_state_that_cannot_be_read_is_told_by_its_field_and_how_to_go_on_without() {
    let text = String::from_utf8(file("tmkms-0.12.json")).expect("text");
    for (from, to, told) in [
        ("\"step\":2", "\"step\":\"2\"", "`step`: invalid type: string"),
        ("\"round\":\"0\"", "\"round\":[]", "`round`: invalid type: sequence"),
        ("\"total\":1", "\"total\":true", "`block_id.part_set_header.total`: invalid type: boolean"),
        ("\"round\":\"0\",", "", "`round` is missing"),
        ("\"height\":\"1000\"", "\"height\":\"1e3\"", "`height` is not a height"),
    ] {
        let desk = Desk::new("plain.toml");
        desk.home.write("bad.json", text.replace(from, to).as_bytes());
        let failed = desk.monosign("state import -c tmkms.toml bad.json").must_fail(1, &[told]);
        let hint = super::told(&failed).replace("--height H", "--height 1001");
        follow(&desk, &hint, "monosign state init").must_succeed();
        assert_eq!(desk.watermark(), ("1001".to_owned(), 0, 0));
    }
}

#[test]
fn keys_are_read_wherever_one_is_named() {
    for name in
        ["key-babylon.json", "key-lower-case-address.json", "key-without-address.json", "key-hex-pair.key"]
    {
        let desk = Desk::new("plain.toml");
        desk.home.write("given", &file(name));
        let imported = desk.monosign("softsign import given -o new.key").must_succeed().stdout;
        assert!(imported.contains(PUBLIC_KEY), "{name}: {imported}");
        // The rest of the file is the node's: it is named, and not to be destroyed with the key.
        assert_eq!(imported.contains("`bls_priv_key`"), name == "key-babylon.json", "{imported}");
        assert_eq!(imported.contains("shred -u given`"), name != "key-babylon.json", "{imported}");
        assert!(!imported.contains("a2tra2tr") && !imported.contains("GbEk7"), "{imported}");
        desk.monosign("state init -c tmkms.toml").must_succeed();
        // The path that is printed is one that the configuration can have, wherever it lies.
        let path =
            imported.split("path = \"").nth(1).and_then(|rest| rest.split('"').next()).expect("a path");
        for path in [path, "given"] {
            desk.configure(&String::from_utf8(file("plain.toml")).expect("text"));
            desk.edit("\"consensus.key\"", &format!("\"{path}\""));
            desk.monosign("check --offline -c tmkms.toml").must_succeed();
        }
    }
}

#[test]
fn keys_that_cannot_be_read_are_named_with_what_to_do() {
    let hex = "19b124eff24f1b9b521012677ba680986ecccc70034d4e58cb58a34465774391";
    let pair = "GbEk7/JPG5tSEBJne6aAmG7MzHADTU5Yy1ijRGV3Q5FB6jOP6L/i2p5JEI246WxwLeqCTF52Qqctffdb+HdcOA==";
    let good = String::from_utf8(file("key-without-address.json")).expect("text");
    for (content, told) in [
        (file("key-horcrux-shard.json"), "it is a file of Horcrux"),
        (hex.as_bytes().to_vec(), "it looks like hex"),
        (good.replace("priv_key", "privkey").into_bytes(), "`priv_key` is missing"),
        (good.replace(pair, "").into_bytes(), "`priv_key` holds 0 bytes"),
        (good.replace(&format!("\"{pair}\""), "null").into_bytes(), "`priv_key.value` is no text"),
        (good.as_bytes()[..200].to_vec(), "no JSON: EOF while parsing"),
    ] {
        let desk = Desk::new("plain.toml");
        desk.home.write("given", &content);
        desk.monosign("softsign import given -o new.key").must_fail(1, &[told, "hint: "]);
        desk.edit("\"consensus.key\"", "\"given\"");
        desk.home.write("state.json", &file("tmkms-0.12.json"));
        desk.monosign("start -c tmkms.toml").must_fail(1, &[told, "hint: "]);
    }
    let desk = Desk::new("plain.toml");
    desk.home.write("given", hex.as_bytes());
    let imported = desk.monosign("softsign import given -o new.key --format hex").must_succeed();
    assert!(imported.stdout.contains(PUBLIC_KEY), "{}", imported.stdout);
}

#[test]
fn every_prefix_that_bech32_allows_is_used_and_another_is_named() {
    let desk = Desk::new("prefix-with-colon.toml");
    let shown = desk.monosign("pubkey -c tmkms.toml").must_succeed().stdout;
    assert!(shown.contains("did:abc:valconspub1") && shown.contains("did:abc:valcons1"), "{shown}");
    for form in ["valcons", "valconspub"] {
        let shown = desk.monosign(&format!("pubkey -c tmkms.toml --format {form}")).must_succeed().stdout;
        assert!(shown.starts_with(&format!("did:abc:{form}1")), "{shown}");
        let other = desk.monosign(&format!("pubkey -c tmkms.toml --format {form} --prefix did:x:"));
        assert!(other.must_succeed().stdout.starts_with(&format!("did:x:{form}1")));
    }
    desk.edit("did:abc:valconspub", "UPPER");
    let shown = desk.monosign("pubkey -c tmkms.toml").must_succeed().stdout;
    assert!(shown.contains("`UPPER` is no bech32 prefix") && shown.contains(PUBLIC_KEY), "{shown}");
    desk.monosign("state init -c tmkms.toml").must_succeed();
    let checked = desk.monosign("check --offline -c tmkms.toml").must_succeed().stdout;
    assert!(checked.contains("key_format: `UPPER` is no bech32 prefix"), "{checked}");
}

#[test]
fn a_serial_number_that_no_device_has_is_taken_for_a_placeholder() {
    let desk = Desk::new("serial-above-u32.toml");
    for words in ["check -c tmkms.toml", "start -c tmkms.toml", "state init -c tmkms.toml"] {
        desk.monosign(words).must_fail(1, &["a placeholder?", "4294967295", "`monosign yubihsm detect`"]);
    }
}

#[test]
fn a_setting_without_effect_is_said_to_have_none() {
    let desk = Desk::new("sign-extensions-false.toml");
    desk.monosign("state init -c tmkms.toml").must_succeed();
    let checked = desk.monosign("check --offline -c tmkms.toml").must_succeed().stdout;
    assert!(
        checked.contains("warning") && checked.contains("sign_extensions = false is ignored"),
        "{checked}"
    );
    desk.edit("sign_extensions = false\n", "");
    let checked = desk.monosign("check --offline -c tmkms.toml").must_succeed().stdout;
    assert!(!checked.contains("sign_extensions"), "{checked}");
}

#[test]
fn a_relative_socket_is_relative_to_the_file() {
    let desk = Desk::new("unix-relative.toml");
    desk.monosign("state init -c tmkms.toml").must_succeed();
    std::fs::create_dir_all(desk.home.path("run")).expect("a directory");
    let _node = UnixListener::bind(desk.home.path("run/privval.sock")).expect("a socket");
    let mut check = desk.command("check -c ../tmkms.toml");
    std::fs::create_dir_all(desk.home.path("elsewhere")).expect("a directory");
    let checked = Finished::of(check.current_dir(desk.home.path("elsewhere"))).must_succeed().stdout;
    assert!(checked.contains("run/privval.sock: reached"), "{checked}");
}

#[test]
fn a_password_in_a_file_that_all_can_read_is_refused() {
    let desk = Desk::new("inline-password.toml");
    let path = desk.home.path("tmkms.toml");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("a mode");
    for words in ["check -c tmkms.toml", "start -c tmkms.toml"] {
        let refused = desk.monosign(words).must_fail(3, &["a password stands in it", "chmod"]);
        assert!(!told(&refused).contains("kms-validator-password"));
    }
}

/// The state that tmkms has without `state_file` lies where it was started; more of it is in `hints`.
#[test]
fn a_configuration_without_a_state_file_says_where_tmkms_keeps_it() {
    let desk = Desk::new("no-state-file.toml");
    desk.monosign("start -c tmkms.toml").must_fail(3, &["tmkms keeps", "state import"]);
    let name = format!("{}_priv_validator_state.json", desk.chain);
    desk.home.write(&name, &file("tmkms-0.12.json"));
    desk.monosign("state import -c tmkms.toml").must_succeed();
    assert_eq!(desk.watermark(), ("1000".to_owned(), 0, 3));
}

#[test]
fn of_an_encrypted_key_it_is_not_said_that_it_is_plain() {
    let desk = Desk::new("plain.toml");
    desk.monosign("state init -c tmkms.toml").must_succeed();
    let checked = desk.monosign("check --offline -c tmkms.toml").must_succeed();
    assert!(checked.stdout.contains("the key is not encrypted"), "{}", checked.stdout);
    // The hint, to the letter.
    let advised = checked.stdout.split('`').find(|quoted| quoted.starts_with("monosign softsign import"));
    sh(&desk, advised.expect("a command")).must_succeed();
    let text =
        checked.stdout.split("then `").nth(1).and_then(|rest| rest.split('`').next()).expect("a setting");
    desk.edit("path = \"consensus.key\"", text);
    let checked = desk.monosign("check --offline -c tmkms.toml").must_succeed().stdout;
    assert!(
        checked.contains("is encrypted: the setting can go") && !checked.contains("is not encrypted"),
        "{checked}"
    );
    desk.edit("allow_plaintext_key = true\n", "");
    let checked = desk.monosign("check --offline -c tmkms.toml").must_succeed().stdout;
    assert!(!checked.contains("allow_plaintext_key") && !checked.contains("encrypted"), "{checked}");
}
