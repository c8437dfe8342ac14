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
    say(format_args!("{what}: {}", chain(error)));
}

/// An error with everything it comes from.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
