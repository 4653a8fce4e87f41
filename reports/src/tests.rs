use std::time::Duration;

use super::{Case, Report, Status, Suite};

fn case(name: &str, status: Status, message: Option<&str>) -> Case {
    Case {
        name: name.into(),
        status,
        duration: Duration::from_millis(1500),
        message: message.map(Into::into),
        properties: [("seed".into(), "7".into())].into(),
    }
}

fn report() -> Report {
    let cases = vec![
        case("holds", Status::Passed, None),
        case("fails", Status::Failed, Some("OneSignature at 12 ms: <two> & more\nand a second line")),
        case("breaks", Status::Error, Some("no room")),
        case("waits", Status::Skipped, None),
    ];
    let properties = [("incident".into(), "2025-03-06".into())].into();
    let suite = Suite { name: "power-cut".into(), about: "it is dark".into(), properties, cases };
    Report { title: "scenarios".into(), commit: "39062d0-dirty".into(), suites: vec![suite] }
}

#[test]
fn json_reads_back() {
    let report = report();
    assert_eq!(serde_json::from_str::<Report>(&report.json().unwrap()).unwrap(), report);
}

#[test]
fn junit_counts_and_names_what_failed() {
    let xml = report().junit().unwrap();
    let suites = xml.lines().find(|line| line.contains("<testsuites")).unwrap();
    for count in [r#"tests="4""#, r#"skipped="1""#, r#"failures="1""#, r#"errors="1""#] {
        assert!(suites.contains(count), "no {count} in {suites}");
    }
    assert!(xml.contains(r#"<testcase name="fails" classname="power-cut" time="1.500">"#), "{xml}");
    assert!(xml.contains("OneSignature at 12 ms: &lt;two&gt; &amp; more"), "{xml}");
    assert!(xml.contains("and a second line"), "{xml}");
    assert!(xml.contains(r#"<property name="commit" value="39062d0-dirty"/>"#), "{xml}");
}

#[test]
fn both_forms_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let reports = dir.path().join("target/reports");
    report().write(&reports, "scenarios").unwrap();
    for file in ["scenarios.json", "scenarios.junit.xml"] {
        assert!(reports.join(file).metadata().unwrap().len() > 0, "{file}");
    }
}
