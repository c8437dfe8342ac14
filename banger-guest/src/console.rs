//! Lines for whoever reads the VM's console. There is nothing else to log to so early.

use std::fmt::Display;
use std::io::Write;

/// Writes one line; a console that is gone is no reason to stop.
pub(crate) fn say(message: impl Display) {
    let line = format!("banger: {message}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// As [`say`], with an error and everything it comes from.
pub(crate) fn warn(what: impl Display, error: &dyn std::error::Error) {
    let mut line = format!("{what}: {error}");
    let mut source = error.source();
    while let Some(error) = source {
        line.push_str(": ");
        line.push_str(&error.to_string());
        source = error.source();
    }
    say(line);
}
