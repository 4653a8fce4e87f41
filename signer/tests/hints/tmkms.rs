//! tmkms keeps its state in the directory that it was started in, and we look for it beside the configuration.

use super::*;

/// tmkms's name for a state that has none.
fn default_name() -> String {
    format!("{CHAIN}_priv_validator_state.json")
}

/// All that says that there is no record.
const COMMANDS: &[&[&str]] = &[
    &["start"],
    &["check", "--offline"],
    &["state", "show"],
    &["state", "raise", "--to-height", "7"],
    &["state", "export"],
    &["state", "allow-jump", "--to-height", "7"],
];

#[test]
fn a_state_where_tmkms_was_started_is_found_and_taken_over() {
    for (state_file, name) in [(None, default_name()), (Some("./state/a.json"), "state/a.json".into())] {
        let desk = Desk::from_tmkms(state_file);
        let state = desk.home.write(&format!("run/{name}"), tmkms_state(500_000).as_bytes());
        for words in COMMANDS.iter().copied().chain([&["state", "init"][..]]) {
            let failed = desk.monosign(words);
            let text = told(&failed);
            assert_eq!(failed.code, Some(3), "{words:?}: {text}");
            assert!(
                text.contains("500000/0/3") && text.contains("monosign state import -c"),
                "{words:?}: {text}"
            );
            assert!(!text.contains("state init"), "{words:?}: {text}");
        }
        let record = desk.home.path("etc").join(&name);
        fs::create_dir_all(record.parent().expect("a directory")).expect("a directory");
        desk.monosign(&["state", "import"]).must_succeed();
        assert_eq!(desk.watermark(), (500_000, 0, 3));
        assert_eq!(
            fs::read_to_string(&state).expect("a state"),
            tmkms_state(500_000),
            "it is left as it was"
        );
        desk.monosign(&["check", "--offline"]).must_succeed();
        // As a deployment that imports at each start.
        desk.monosign(&["state", "import"]).must_succeed();
    }
}

#[test]
fn who_comes_from_tmkms_is_told_where_it_keeps_its_state_and_not_to_begin_anew() {
    let absolute = Home::new().path("gone.json").display().to_string();
    for state_file in [None, Some("state.json"), Some("./state/a.json"), Some(&*absolute)] {
        let desk = Desk::from_tmkms(state_file);
        for words in COMMANDS.iter().copied().chain([&["state", "import"][..]]) {
            let failed = desk.monosign(words);
            let text = told(&failed);
            assert_eq!(failed.code, Some(3), "{words:?}: {text}");
            assert!(text.contains("no record at") && text.contains("tmkms keeps"), "{words:?}: {text}");
            assert!(text.contains("state import") && !text.contains("state init"), "{words:?}: {text}");
        }
    }
    let desk = Desk::from_tmkms(None);
    let text = told(&desk.monosign(&["start"]));
    let would_be = desk.home.path("run").join(default_name());
    assert!(text.contains(&format!("no state of tmkms at `{}`", would_be.display())), "{text}");
    assert!(text.contains("WorkingDirectory="), "{text}");
}

#[test]
fn of_two_states_none_is_taken_unasked_and_the_lower_one_never() {
    for (beside, here) in [(100, 500_000), (500_000, 100)] {
        let desk = Desk::from_tmkms(None);
        let name = default_name();
        let beside = (beside, desk.home.write(&format!("etc/{name}"), tmkms_state(beside).as_bytes()));
        let here = (here, desk.home.write(&format!("run/{name}"), tmkms_state(here).as_bytes()));
        let text = told(&desk.monosign(&["state", "import"]).must_fail(3, &["two states", "state import"]));
        for (height, path) in [&beside, &here] {
            assert!(
                text.contains(&format!("{height}/0/3")) && text.contains(&*path.to_string_lossy()),
                "{text}"
            );
        }
        desk.monosign(&["state", "init"]).must_fail(3, &["state import"]);
        let (lower, higher) = if beside.0 < here.0 { (&beside, &here) } else { (&here, &beside) };
        desk.monosign(&["state", "import", &lower.1.to_string_lossy()]).must_fail(3, &["which is above"]);
        desk.monosign(&["state", "import", &higher.1.to_string_lossy()]).must_succeed();
        assert_eq!(desk.watermark(), (500_000, 0, 3));
        desk.monosign(&["check", "--offline"]).must_succeed();
        let kept = desk.home.path(format!("etc/{name}.tmkms.bak"));
        assert_eq!(fs::read_to_string(kept).expect("the old file"), tmkms_state(beside.0));
    }
}

#[test]
fn a_record_below_the_state_of_tmkms_is_not_signed_from() {
    let desk = Desk::from_tmkms(None);
    desk.monosign(&["state", "init"]).must_succeed();
    let state = desk.home.write(&format!("run/{}", default_name()), tmkms_state(500_000).as_bytes());
    for words in [&["start"][..], &["check", "--offline"], &["state", "import"]] {
        let failed = desk.monosign(words).must_fail(3, &["500000/0/3, which is above"]);
        assert!(told(&failed).contains(&*state.to_string_lossy()));
    }
    desk.monosign(&["state", "import", &state.to_string_lossy()]).must_succeed();
    assert_eq!(desk.watermark(), (500_000, 0, 3));
    desk.monosign(&["check", "--offline"]).must_succeed();
}

#[test]
fn a_file_where_tmkms_was_started_that_cannot_be_read_is_not_passed_over() {
    for content in ["", "{}", "{\"height\":\"5\"", "\0\0\0"] {
        let desk = Desk::from_tmkms(None);
        let state = desk.home.write(&format!("run/{}", default_name()), content.as_bytes());
        desk.monosign(&["start"]).must_fail(3, &["which is no state", "--height H"]);
        desk.monosign(&["state", "init"]).must_fail(3, &["which is no state", "--height H"]);
        fs::rename(&state, state.with_added_extension("unreadable")).expect("moved");
        desk.monosign(&["state", "init", "--height", "600000"]).must_succeed();
        assert_eq!(desk.watermark(), (600_000, 0, 0));
    }
}

#[test]
fn whose_configuration_is_ours_is_told_of_both_ways() {
    let home = Home::new();
    home.configure(&[(CHAIN, "tcp://127.0.0.1:1")]);
    let shown = home.monosign(&["state", "show", "-c", "monosign.toml"]);
    shown.must_fail(3, &["no record at", "monosign state import -c", "monosign state init -c"]);
}
