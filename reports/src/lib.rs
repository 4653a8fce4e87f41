//! Reports of monosign's simulations and tests: results in; JSON, JUnit and HTML out.
//!
//! It knows results only, not what made them: no signer, no simulator. A [`Report`] holds suites of cases;
//! [`Report::write`] writes it in each form there is.
//!
//! ```
//! use monosign_reports::{Case, Report, Status, Suite};
//!
//! let case = Case {
//!     name: "softsign v0.38 seed 7".into(),
//!     status: Status::Passed,
//!     duration: std::time::Duration::from_millis(120),
//!     message: None,
//!     properties: [("blocks".into(), "42".into())].into(),
//! };
//! let suite = Suite { name: "power-cut".into(), about: String::new(), properties: [].into(), cases: vec![case] };
//! let report = Report { title: "scenarios".into(), commit: "39062d0".into(), suites: vec![suite] };
//! assert!(report.junit()?.contains("softsign v0.38 seed 7"));
//! # Ok::<(), monosign_reports::ReportError>(())
//! ```

mod html;
mod junit;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The results of one run of a test program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// What was tested.
    pub title: String,
    /// The commit that was tested, and whether there were changes beside it; empty if what was tested is none of ours.
    pub commit: String,
    /// The results.
    pub suites: Vec<Suite>,
}

/// Cases that belong together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suite {
    /// Its name, which no other suite of the report has.
    pub name: String,
    /// What it shows, in a sentence.
    #[serde(default)]
    pub about: String,
    /// What else is known of it.
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
    /// Its cases.
    pub cases: Vec<Case>,
}

/// One result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    /// Its name within the suite.
    pub name: String,
    /// How it ended.
    pub status: Status,
    /// How long it took of a processor's time; in JSON in seconds.
    #[serde(rename = "seconds", with = "seconds")]
    pub duration: Duration,
    /// Why it failed or was skipped, a line for each reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What else is known of it.
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
}

/// How a case ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// All held.
    Passed,
    /// Something did not hold.
    Failed,
    /// Something did not hold that need not.
    Advisory,
    /// It could not be carried out to its end.
    Error,
    /// It was not carried out.
    Skipped,
}

/// Why a report could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// A file cannot be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It does not go into JSON.
    #[error("the report does not go into JSON")]
    Json(#[from] serde_json::Error),
    /// It does not go into XML.
    #[error("the report does not go into JUnit XML")]
    Junit(#[from] quick_junit::SerializeError),
}

impl Report {
    /// Writes `NAME.json`, `NAME.junit.xml` and `NAME.html` into a directory, which is made if there is none.
    ///
    /// # Errors
    /// [`ReportError`].
    pub fn write(&self, dir: &Path, name: &str) -> Result<(), ReportError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| ReportError::Write { path, source }
        };
        fs::create_dir_all(dir).map_err(failed(dir))?;
        for (form, text) in [("json", self.json()?), ("junit.xml", self.junit()?), ("html", self.html())] {
            let path = dir.join(format!("{name}.{form}"));
            fs::write(&path, text).map_err(failed(&path))?;
        }
        Ok(())
    }

    /// The report as JSON, which reads back as it was.
    ///
    /// # Errors
    /// [`ReportError::Json`].
    pub fn json(&self) -> Result<String, ReportError> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// The report as JUnit XML, which CI systems show.
    ///
    /// # Errors
    /// [`ReportError::Junit`].
    pub fn junit(&self) -> Result<String, ReportError> {
        Ok(junit::report(self).to_string()?)
    }

    /// The report as an HTML page that needs nothing but itself.
    pub fn html(&self) -> String {
        html::page(self)
    }

    /// An HTML page with a column for each of several reports on the same cases.
    pub fn side_by_side(title: &str, reports: &[Self]) -> String {
        html::side_by_side(title, reports)
    }
}

mod seconds {
    use std::time::Duration;

    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(duration.as_secs_f64())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests;
