//! What people and programs see: data on standard output, everything else on standard error.

mod bar;
mod progress;
mod style;
mod table;
mod text;
mod time;

use std::io::{self, Write};

use serde::Serialize;

use crate::error::{Error, Result};

pub(crate) use progress::{Progress, ProgressArgs, SETTLE, Step, View};
pub(crate) use style::Style;
pub(crate) use table::{Table, Tone};
pub(crate) use text::{Sanitizer, plain};
pub(crate) use time::{age, bytes, date};

/// Writes a line of data.
pub(crate) fn line(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")
        .and_then(|()| out.flush())
        .map_err(Error::Output)
}

/// Writes data as it is.
pub(crate) fn data(bytes: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .map_err(Error::Output)
}

/// Writes a document for programs, indented, because people read it too.
pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::Output(e.into()))?;
    line(&text)
}

/// Writes one event for programs: one line.
pub(crate) fn json_line(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string(value).map_err(|e| Error::Output(e.into()))?;
    line(&text)
}

/// Tells people something on standard error. That nobody listens is no failure of the command.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
