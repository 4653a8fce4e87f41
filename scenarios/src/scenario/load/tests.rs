use std::fs;

use super::{LoadError, load, parse, with_suggestion};
use crate::scenario::{Act, Do, SpanRange};
use crate::testing::SMALL;

/// Every act there is but those of groups, in a plan where it can happen.
const ALL_ACTS: &str = include_str!("all_acts.toml");

/// Those of groups.
const GROUP_ACTS: &str = r#"about = "What befalls cosigners alone."
duration = "20s"
modes = ["threshold-2-of-3"]
group = { rejoin = "strict" }

[[signer]]
name = "one"

[[signer]]
name = "two"

[[signer]]
name = "three"

[[act]]
at = "5s"
do = "cheat"
host = "two"
how = "bad-share"
for = "5s"

[[act]]
at = "12s"
do = "ceremony"
threshold = 2
members = ["one", "two", "three"]

[[act]]
at = "3s"
do = "repair"
host = "two"

[[act]]
at = "4s"
do = "dkg"
threshold = 2
members = ["one", "two", "three"]
"#;

#[test]
fn what_is_written_reads_back() {
    for text in [SMALL, ALL_ACTS, GROUP_ACTS] {
        let scenario = parse(text).unwrap();
        let written = toml::to_string(&scenario).unwrap();
        assert_eq!(parse(&written).as_ref(), Ok(&scenario), "{written}");
        assert_eq!(toml::from_str(&written).as_ref(), Ok(&scenario), "as serde alone reads it");
    }
}

#[test]
fn every_act_of_the_schema_is_read() {
    let schema = crate::scenario::schema();
    let acts = schema["definitions"]["Act"]["oneOf"].as_array().unwrap();
    let mut named: Vec<_> =
        acts.iter().map(|act| act["properties"]["do"]["const"].as_str().unwrap()).collect();
    let plans = [ALL_ACTS, GROUP_ACTS].map(|text| parse(text).unwrap());
    let mut read: Vec<_> = plans.iter().flat_map(|plan| &plan.acts).map(|act| act.act.name()).collect();
    named.sort();
    read.sort();
    read.dedup();
    assert_eq!(read, named);
}

#[test]
fn an_act_has_its_time_and_what_it_takes() {
    let [Act { when, act }] = &parse(SMALL).unwrap().acts[..] else { panic!() };
    assert_eq!(when.at, SpanRange::millis(1000, 1000));
    assert_eq!(*act, Do::PowerCut { host: "signer".into(), down: Some(SpanRange::millis(1000, 1000)) });
}

#[test]
fn mistakes_are_told_all_at_once_in_the_order_of_the_file() {
    let text = SMALL.replace("power-cut", "power-cat").replace("about", "abuot");
    let mistakes = parse(&text).unwrap_err();
    let places: Vec<_> =
        mistakes.iter().map(|mistake| (mistake.line, mistake.column, mistake.field.as_str())).collect();
    assert_eq!(places, [(1, 1, "abuot"), (6, 6, "act 1: do")]);
}

#[test]
fn the_nearest_name_is_suggested_and_only_if_it_is_near() {
    let suggested = with_suggestion("unknown host `singer`, expected one of `signer`, `validator`".into());
    assert!(suggested.ends_with("\nhint: did you mean `signer`?"), "{suggested}");
    for far in [
        "unknown host `x`, expected one of `signer`, `validator`",
        "unknown dialect `v0.33`, expected one of `v0.34`, `v0.37`",
        "no names at all",
    ] {
        assert_eq!(with_suggestion(far.into()), far);
    }
}

#[test]
fn errors_name_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("night.toml");
    assert!(matches!(load(&path), Err(LoadError::Read { .. })));
    fs::write(&path, "duration = \"5s\"\n").unwrap();
    let error = load(&path).unwrap_err().to_string();
    assert_eq!(error, format!("{}:1:1: missing field `about`", path.display()));
    assert_eq!(super::name_of(&path), "night");
}
