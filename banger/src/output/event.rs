//! What programs are told with `--json`: one object a line.

use banger_bus::ErrorKind;
use banger_model::JobResult;
use serde::Serialize;
use serde_json::{Map, Value};

use super::parts::Part;
use super::progress::Step;
use crate::error::Error;

/// How the work on an object ended well.
#[derive(Debug, Default)]
pub(crate) struct Finished {
    /// For people.
    pub(crate) line: String,
    /// For programs: further members of the result's event.
    pub(crate) details: Map<String, Value>,
}

#[derive(Serialize)]
pub(super) struct ProgressEvent<'a> {
    event: &'static str,
    subject: &'a str,
    stage: &'a str,
    /// `null` when it cannot be told.
    fraction: Option<f64>,
    message: &'a str,
    parts: &'a [Part],
}

#[derive(Serialize)]
pub(super) struct ResultEvent<'a> {
    event: &'static str,
    subject: &'a str,
    /// One of [`JobResult`]'s words.
    result: &'static str,
    /// The D-Bus name, empty when it is done.
    error: &'static str,
    message: String,
    #[serde(flatten)]
    details: Option<&'a Map<String, Value>>,
}

impl Finished {
    /// Adds a member for programs.
    #[must_use]
    pub(crate) fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.details.insert(key.to_owned(), value.into());
        self
    }
}

impl From<String> for Finished {
    fn from(line: String) -> Self {
        Self {
            line,
            details: Map::new(),
        }
    }
}

impl<'a> ProgressEvent<'a> {
    pub(super) fn new(subject: &'a str, step: &'a Step) -> Self {
        Self {
            event: "progress",
            subject,
            stage: &step.stage,
            fraction: (step.fraction >= 0.0).then_some(step.fraction),
            message: &step.message,
            parts: &step.parts,
        }
    }
}

impl<'a> ResultEvent<'a> {
    pub(super) fn new(subject: &'a str, result: std::result::Result<&'a Finished, &Error>) -> Self {
        let (word, error, message) = match result {
            Ok(_) => (JobResult::Done, "", String::new()),
            Err(error) => {
                let kind = error.kind().unwrap_or(ErrorKind::Failed);
                let word = match kind {
                    ErrorKind::Cancelled => JobResult::Cancelled,
                    ErrorKind::Timeout => JobResult::Timeout,
                    _ => JobResult::Failed,
                };
                (word, kind.name(), error.to_string())
            }
        };
        Self {
            event: "result",
            subject,
            result: word.as_str(),
            error,
            message,
            details: result.ok().map(|finished| &finished.details),
        }
    }
}
