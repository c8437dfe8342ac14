//! What people and programs see: data on standard output, everything else on standard error.

mod bar;
mod event;
mod parts;
mod progress;
mod rate;
mod style;
mod table;
mod text;
mod time;

use std::io::{self, Write};

use rustix::termios::tcgetwinsize;
use serde::Serialize;

use crate::error::{Error, Result};

pub(crate) use event::Finished;
pub(crate) use parts::Parts;
pub(crate) use progress::{Progress, ProgressArgs, SETTLE, Step, View};
pub(crate) use style::Style;
pub(crate) use table::{Table, Tone};
pub(crate) use text::{Sanitizer, escaped, plain};
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

/// The columns of the terminal that standard output is; `None` when it is none.
pub(crate) fn columns() -> Option<usize> {
    let size = tcgetwinsize(io::stdout()).ok()?;
    (size.ws_col > 0).then_some(size.ws_col.into())
}

/// Columns and rows of the terminal that standard error is; the classic ones when it does not know.
fn terminal_size() -> (usize, usize) {
    match tcgetwinsize(io::stderr()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => (80, 24),
    }
}
