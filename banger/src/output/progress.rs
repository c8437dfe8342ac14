//! How a long operation shows where it is.

use std::collections::HashMap;
use std::io::{self, IsTerminal};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use banger_bus::JobPart;
use clap::Args;
use zbus::OwnedVariant;

use super::bar::{Bar, Bars};
use super::event::{Finished, ProgressEvent, ResultEvent};
use super::parts::{Part, Parts};
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
    /// What goes on at once.
    pub(crate) parts: Vec<Part>,
}

/// What is remembered of a job's parts; it outlives the view of the job.
#[derive(Debug, Clone, Default)]
pub(crate) struct SharedParts(Arc<Mutex<Parts>>);

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
    parts: SharedParts,
    bar: Option<Bar>,
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
            parts: Vec::new(),
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
        if let Some(parts) = properties
            .get("Parts")
            .and_then(|value| value.try_clone().ok())
            .and_then(|value| Vec::<JobPart>::try_from(value).ok())
        {
            self.parts = parts.into_iter().map(Part::from).collect();
        }
    }
}

impl SharedParts {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Parts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
        let parts = SharedParts::default();
        let bar = match self {
            Self::Bars(bars) => Some(bars.add(subject, &parts)),
            _ => None,
        };
        View {
            progress: self.clone(),
            subject: subject.to_owned(),
            shown: Step::unknown(),
            parts,
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

    /// Tells how the work on an object ended: its line on standard output, an error on standard
    /// error, and for programs an event instead of the line.
    pub(crate) fn result(&self, subject: &str, result: std::result::Result<&Finished, &Error>) -> Result<()> {
        if matches!(self, Self::Json) {
            return json_line(&ResultEvent::new(subject, result));
        }
        match result {
            Ok(finished) => self.around(|| line(&plain(&finished.line))),
            Err(_) => Ok(()),
        }
    }
}

impl View {
    /// What is remembered of the job's parts.
    pub(crate) fn parts(&self) -> SharedParts {
        self.parts.clone()
    }

    /// Takes note of where the job is, at every change; [`View::show`] may see only the last of
    /// several.
    pub(crate) fn hear(&self, step: &Step) {
        self.parts.lock().update(&step.parts, Instant::now());
    }

    /// Shows where the job is now.
    pub(crate) fn show(&mut self, step: &Step) {
        if *step == self.shown {
            return;
        }
        match &self.progress {
            Progress::Quiet => {}
            // A closed standard output shows when the result is written.
            Progress::Json => {
                let _ = json_line(&ProgressEvent::new(&self.subject, step));
            }
            Progress::Lines => self.show_line(step),
            Progress::Bars(_) => {
                if let Some(bar) = &self.bar {
                    bar.show(step);
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

    /// One line for each stage, and one for each part that has ended.
    fn show_line(&self, step: &Step) {
        if !step.stage.is_empty() && step.stage != self.shown.stage {
            let message = Some(&step.message).filter(|text| !text.starts_with(WARNING));
            self.note_line(&[&step.stage, message.map_or("", String::as_str)]);
        }
        let ended = self.parts.lock().ended();
        for text in ended {
            self.note_line(&[&text]);
        }
    }

    fn note_line(&self, words: &[&str]) {
        let words = [&[self.subject.as_str()], words].concat();
        let words = words.iter().filter(|word| !word.is_empty());
        note(&words.map(|word| plain(word)).collect::<Vec<_>>().join(": "));
    }

    fn show_warning(&self, step: &Step) {
        if step.message.starts_with(WARNING) {
            self.progress.note(&format!("banger: {}", plain(&step.message)));
        }
    }
}
