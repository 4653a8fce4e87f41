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
        case("need not", Status::Advisory, Some("does not")),
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
    for count in [r#"tests="5""#, r#"skipped="2""#, r#"failures="1""#, r#"errors="1""#] {
        assert!(suites.contains(count), "no {count} in {suites}");
    }
    assert!(xml.contains(r#"<testcase name="fails" classname="power-cut" time="1.500">"#), "{xml}");
    assert!(xml.contains("OneSignature at 12 ms: &lt;two&gt; &amp; more"), "{xml}");
    assert!(xml.contains("and a second line"), "{xml}");
    assert!(xml.contains(r#"<skipped message="advisory: does not""#), "{xml}");
    assert!(xml.contains(r#"<property name="commit" value="39062d0-dirty"/>"#), "{xml}");
}

#[test]
fn every_form_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let reports = dir.path().join("target/reports");
    report().write(&reports, "scenarios").unwrap();
    for file in ["scenarios.json", "scenarios.junit.xml", "scenarios.html"] {
        assert!(reports.join(file).metadata().unwrap().len() > 0, "{file}");
    }
}

#[test]
fn html_shows_what_failed_and_escapes_it() {
    let html = report().html();
    assert!(html.contains("1 passed") && html.contains("1 skipped"), "{html}");
    assert!(html.contains("OneSignature at 12 ms: &lt;two&gt; &amp; more"), "{html}");
    assert!(!html.contains("http://") && !html.contains("https://"), "it needs nothing but itself");
}

#[test]
fn side_by_side_has_a_column_for_each_and_a_dash_for_what_was_not_tried() {
    let mut other = report();
    other.title = "other".into();
    other.suites[0].cases[1].properties.insert("level".into(), "slashing".into());
    other.suites[0].cases.remove(0);
    let html = Report::side_by_side("both", &[report(), other]);
    assert!(html.contains("<th>scenarios</th><th>other</th>"), "{html}");
    assert!(
        html.contains(r#"<code>holds</code></td><td class="passed">passed</td><td class="faint">–</td>"#),
        "{html}"
    );
    assert!(html.contains(r#"second line">failed: slashing</td>"#), "{html}");
    assert!(html.contains(r#"<td>1, 2, 1, 1</td><td>0, 2, 1, 1</td>"#), "{html}");
}
