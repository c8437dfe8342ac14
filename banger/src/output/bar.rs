//! Bars and spinners on a terminal.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::plain;
use super::progress::Step;

/// Several jobs, a line each.
#[derive(Debug, Clone)]
pub(crate) struct Bars {
    all: MultiProgress,
}

const SPINNER: &str = "{spinner} {prefix}{msg} {elapsed:.dim}";
const BAR: &str = "{spinner} {prefix}{msg} [{bar:24}] {percent}% {elapsed:.dim}";
/// A bar counts in thousandths of a stage.
const WHOLE: u64 = 1000;
/// How often the spinner turns while nothing is heard.
const TURN: Duration = Duration::from_millis(120);

impl Bars {
    pub(crate) fn new() -> Self {
        Self {
            all: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()),
        }
    }

    pub(crate) fn add(&self, subject: &str) -> ProgressBar {
        let bar = self.all.add(ProgressBar::new(WHOLE));
        bar.set_style(style(SPINNER));
        if !subject.is_empty() {
            bar.set_prefix(format!("{}: ", plain(subject)));
        }
        bar.enable_steady_tick(TURN);
        bar
    }

    pub(crate) fn show(&self, bar: &ProgressBar, step: &Step) {
        let known = step.fraction >= 0.0;
        bar.set_style(style(if known { BAR } else { SPINNER }));
        if known {
            // In range: the fraction is at most 1 by contract, and a bar bounds what is not.
            bar.set_position((step.fraction.clamp(0.0, 1.0) * WHOLE as f64) as u64);
        }
        let text = if step.message.is_empty() {
            plain(&step.stage)
        } else {
            format!("{}: {}", plain(&step.stage), plain(&step.message))
        };
        bar.set_message(text);
    }

    /// Takes the bars away while `write` writes to the terminal.
    pub(crate) fn suspend<T>(&self, write: impl FnOnce() -> T) -> T {
        self.all.suspend(write)
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .expect("the templates are constants")
        .progress_chars("=> ")
}
