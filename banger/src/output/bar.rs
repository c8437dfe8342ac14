//! Bars and spinners on a terminal.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::progress::{SharedParts, Step};
use super::{plain, terminal_size};

/// Several jobs, a line each, and below it a line for each of its parts.
#[derive(Debug, Clone)]
pub(crate) struct Bars {
    all: MultiProgress,
    /// The bars that are there: they share the terminal's height.
    number: Arc<AtomicUsize>,
}

/// One job's, until it is dropped.
#[derive(Debug)]
pub(super) struct Bar {
    bar: ProgressBar,
    below: Below,
}

/// What a bar has behind and below its line.
#[derive(Debug, Clone)]
struct Below {
    parts: SharedParts,
    number: Arc<AtomicUsize>,
}

const SPINNER: &str = "{spinner} {prefix}{msg} {elapsed:.dim}{parts}";
const BAR: &str = "{spinner} {prefix}{msg} [{bar:24}] {percent}% {elapsed:.dim}{parts}";
/// A bar counts in thousandths of a stage.
const WHOLE: u64 = 1000;
/// How often the spinner turns while nothing is heard.
const TURN: Duration = Duration::from_millis(120);
/// Rows that stay free: the cursor's, and one for a stage that needs a second line.
const SPARE: usize = 2;

impl Bars {
    pub(crate) fn new() -> Self {
        Self {
            all: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()),
            number: Arc::default(),
        }
    }

    pub(super) fn add(&self, subject: &str, parts: &SharedParts) -> Bar {
        self.number.fetch_add(1, Ordering::Relaxed);
        let below = Below {
            parts: parts.clone(),
            number: Arc::clone(&self.number),
        };
        let bar = self.all.add(ProgressBar::new(WHOLE));
        bar.set_style(below.style(SPINNER));
        if !subject.is_empty() {
            bar.set_prefix(format!("{}: ", plain(subject)));
        }
        bar.enable_steady_tick(TURN);
        Bar { bar, below }
    }

    /// Takes the bars away while `write` writes to the terminal.
    pub(crate) fn suspend<T>(&self, write: impl FnOnce() -> T) -> T {
        self.all.suspend(write)
    }
}

impl Bar {
    pub(super) fn show(&self, step: &Step) {
        let known = step.fraction >= 0.0;
        self.bar
            .set_style(self.below.style(if known { BAR } else { SPINNER }));
        if known {
            // In range: the fraction is at most 1 by contract, and a bar bounds what is not.
            self.bar
                .set_position((step.fraction.clamp(0.0, 1.0) * WHOLE as f64) as u64);
        }
        let text = if step.message.is_empty() {
            plain(&step.stage)
        } else {
            format!("{}: {}", plain(&step.stage), plain(&step.message))
        };
        self.bar.set_message(text);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.below.number.fetch_sub(1, Ordering::Relaxed);
        self.bar.finish_and_clear();
    }
}

impl Below {
    /// The parts are looked at whenever the bar is drawn, so a rate falls while nothing is heard.
    fn style(&self, template: &str) -> ProgressStyle {
        let below = self.clone();
        ProgressStyle::with_template(template)
            .expect("the templates are constants")
            .with_key("parts", move |_: &ProgressState, text: &mut dyn fmt::Write| {
                // A text takes what is written to it.
                let _ = below.write(text);
            })
            .progress_chars("=> ")
    }

    fn write(&self, text: &mut dyn fmt::Write) -> fmt::Result {
        let (columns, rows) = terminal_size();
        let jobs = self.number.load(Ordering::Relaxed).max(1);
        let height = (rows.saturating_sub(SPARE) / jobs).saturating_sub(1);
        let parts = self.parts.lock();
        let now = Instant::now();
        text.write_str(&parts.summary(now))?;
        for line in parts.lines(columns, height, now) {
            text.write_char('\n')?;
            text.write_str(&line)?;
        }
        Ok(())
    }
}
