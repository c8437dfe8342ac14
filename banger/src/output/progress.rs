//! How a long operation shows where it is.

use std::collections::HashMap;
use std::io::{self, IsTerminal};
use std::time::Duration;

use banger_bus::ErrorKind;
use banger_model::JobResult;
use clap::Args;
use serde::Serialize;
use zbus::OwnedVariant;

use super::bar::Bars;
use super::{json_line, line, note, plain};
use crate::error::{Error, Result};

/// Options of every command that waits for the daemon's work.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct ProgressArgs {
    /// Show no progress, only results and errors
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Write progress and results as JSON on standard output, one object a line
    #[arg(long)]
    pub(crate) json: bool,
}

/// Where a job is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Step {
    pub(crate) stage: String,
    /// 0 to 1 within the stage, negative when it cannot be told.
    pub(crate) fraction: f64,
    pub(crate) message: String,
}

/// The view of one job, or of several that go on at once, each with a subject.
#[derive(Debug, Clone)]
pub(crate) enum Progress {
    Quiet,
    Json,
    Lines,
    Bars(Bars),
}

/// The view of one job, until it is dropped.
#[derive(Debug)]
pub(crate) struct View {
    progress: Progress,
    subject: String,
    shown: Step,
    bar: Option<indicatif::ProgressBar>,
}

#[derive(Serialize)]
struct ProgressEvent<'a> {
    event: &'static str,
    subject: &'a str,
    stage: &'a str,
    /// `null` when it cannot be told.
    fraction: Option<f64>,
    message: &'a str,
}

#[derive(Serialize)]
struct ResultEvent<'a> {
    event: &'static str,
    subject: &'a str,
    /// One of [`JobResult`]'s words.
    result: &'static str,
    /// The D-Bus name, empty when it is done.
    error: &'static str,
    message: String,
}

/// How long a change waits for others that belong to it: a stage and its message may come in
/// two signals, and are one line.
pub(crate) const SETTLE: Duration = Duration::from_millis(50);

/// The daemon marks what the user must not miss.
const WARNING: &str = "Warning: ";

impl Step {
    /// Of a job of which nothing has been heard.
    pub(crate) fn unknown() -> Self {
        Self {
            stage: String::new(),
            fraction: -1.0,
            message: String::new(),
        }
    }

    /// Takes what has changed of a job's properties.
    pub(crate) fn apply(&mut self, properties: &HashMap<String, OwnedVariant>) {
        let text = |key: &str| {
            properties
                .get(key)
                .and_then(|value| <&str>::try_from(value).ok())
                .map(str::to_owned)
        };
        if let Some(stage) = text("Stage") {
            self.stage = stage;
        }
        if let Some(message) = text("Message") {
            self.message = message;
        }
        if let Some(fraction) = properties
            .get("Fraction")
            .and_then(|value| f64::try_from(value).ok())
        {
            self.fraction = fraction;
        }
    }
}

impl Progress {
    pub(crate) fn new(args: ProgressArgs) -> Self {
        if args.json {
            Self::Json
        } else if args.quiet {
            Self::Quiet
        } else if io::stderr().is_terminal() {
            Self::Bars(Bars::new())
        } else {
            Self::Lines
        }
    }

    /// Begins to show a job. `subject` is the object's name, and may be empty when there is one only.
    pub(crate) fn view(&self, subject: &str) -> View {
        let bar = match self {
            Self::Bars(bars) => Some(bars.add(subject)),
            _ => None,
        };
        View {
            progress: self.clone(),
            subject: subject.to_owned(),
            shown: Step::unknown(),
            bar,
        }
    }

    /// Tells people something on standard error.
    pub(crate) fn note(&self, text: &str) {
        self.around(|| note(text));
    }

    /// Lets `write` write to the terminal while the bars are away.
    pub(crate) fn around<T>(&self, write: impl FnOnce() -> T) -> T {
        match self {
            Self::Bars(bars) => bars.suspend(write),
            _ => write(),
        }
    }

    /// Tells how the work on an object ended: `line` on standard output, an error on standard
    /// error, and for programs an event instead of the line.
    pub(crate) fn result(&self, subject: &str, result: std::result::Result<&str, &Error>) -> Result<()> {
        if matches!(self, Self::Json) {
            return json_line(&ResultEvent::new(subject, result));
        }
        match result {
            Ok(text) => self.around(|| line(&plain(text))),
            Err(_) => Ok(()),
        }
    }
}

impl View {
    /// Shows where the job is now.
    pub(crate) fn show(&mut self, step: &Step) {
        if *step == self.shown {
            return;
        }
        match &self.progress {
            Progress::Quiet => {}
            // A closed standard output shows when the result is written.
            Progress::Json => {
                let _ = json_line(&ProgressEvent {
                    event: "progress",
                    subject: &self.subject,
                    stage: &step.stage,
                    fraction: (step.fraction >= 0.0).then_some(step.fraction),
                    message: &step.message,
                });
            }
            Progress::Lines => self.show_line(step),
            Progress::Bars(bars) => {
                if let Some(bar) = &self.bar {
                    bars.show(bar, step);
                }
            }
        }
        if step.message != self.shown.message && !matches!(self.progress, Progress::Json) {
            self.show_warning(step);
        }
        self.shown = step.clone();
    }

    /// Tells people something above the bars, unless they want to hear nothing.
    pub(crate) fn note(&self, text: &str) {
        if !matches!(self.progress, Progress::Quiet | Progress::Json) {
            self.progress.note(text);
        }
    }

    /// One line for each stage.
    fn show_line(&self, step: &Step) {
        if step.stage.is_empty() || step.stage == self.shown.stage {
            return;
        }
        let mut line = String::new();
        for part in [&self.subject, &step.stage, &step.message] {
            if !part.is_empty() && !part.starts_with(WARNING) {
                if !line.is_empty() {
                    line.push_str(": ");
                }
                line.push_str(&plain(part));
            }
        }
        note(&line);
    }

    fn show_warning(&self, step: &Step) {
        if step.message.starts_with(WARNING) {
            self.progress.note(&format!("banger: {}", plain(&step.message)));
        }
    }
}

impl<'a> ResultEvent<'a> {
    fn new(subject: &'a str, result: std::result::Result<&str, &Error>) -> Self {
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
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
