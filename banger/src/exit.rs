//! Exit statuses, and how a failure is told. The one place that knows both.

use std::io;
use std::process::ExitCode;

use banger_bus::{ErrorKind, JobOutcome};
use banger_model::signal;

use crate::error::Error;
use crate::output::{self, Style};

/// A command failed. (Usage errors are clap's: 2.)
pub(crate) const FAILED: u8 = 1;
/// What is asked about does not run (`daemon status`, as in the LSB).
pub(crate) const NOT_RUNNING: u8 = 3;
/// `vm run`, `vm exec`, `vm ssh`: banger itself failed, and not the guest's command.
pub(crate) const BANGER_FAILED: u8 = 125;
/// The guest's command is there and cannot be executed.
pub(crate) const NOT_EXECUTABLE: u8 = 126;
/// Ctrl-C, as a shell counts it: 128 and SIGINT's number.
pub(crate) const INTERRUPTED: u8 = 130;
/// A signal N ends a command with 128 and N.
pub(crate) const SIGNAL_BASE: u8 = 128;

/// The status of an ordinary command that ended with `error`.
pub(crate) fn ordinary(error: &Error) -> u8 {
    match error {
        Error::Reported(status) | Error::Interrupted { status, .. } => *status,
        _ if error.kind() == Some(ErrorKind::Cancelled) => INTERRUPTED,
        _ => FAILED,
    }
}

/// The status of a command that runs something in a guest, when banger could not run it.
pub(crate) fn in_guest(error: &Error) -> u8 {
    match error {
        Error::Reported(status) | Error::Interrupted { status, .. } => *status,
        _ => match error.kind() {
            Some(ErrorKind::NotExecutable) => NOT_EXECUTABLE,
            Some(ErrorKind::Cancelled) => INTERRUPTED,
            _ => BANGER_FAILED,
        },
    }
}

/// The status of a guest's command that has ended: its own, or 128 and the signal's number.
/// `None` when the job says neither.
pub(crate) fn of_process(outcome: &JobOutcome) -> Option<u8> {
    if let Some(signal) = &outcome.signal {
        let number = signal::number(signal).and_then(|number| u8::try_from(number).ok());
        if let Some(number) = number {
            return Some(SIGNAL_BASE + number);
        }
    }
    // Statuses are eight bits; what is beyond them must not become success.
    outcome
        .exit_status
        .map(|status| u8::try_from(status).unwrap_or(u8::MAX))
}

/// Tells an error on standard error and gives the exit status.
pub(crate) fn report(error: &Error, status: u8) -> ExitCode {
    if !matches!(error, Error::Reported(_)) && !is_closed_output(error) {
        tell(None, error);
    }
    ExitCode::from(status)
}

/// Tells an error without ending; with a subject where several are worked on.
pub(crate) fn tell(subject: Option<&str>, error: &Error) {
    let subject = subject
        .map(|name| format!("{}: ", output::plain(name)))
        .unwrap_or_default();
    let style = Style::stderr();
    let text = describe(error);
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    output::note(&format!("{} {subject}{first}", style.bad("banger: error:")));
    for hint in lines {
        output::note(&format!("{} {}", style.strong("hint:"), output::plain(hint)));
    }
}

/// The chain of an error in one line, and each hint in a line of its own.
fn describe(error: &Error) -> String {
    let text = error.to_string();
    let (first, hints) = text.split_once('\n').unwrap_or((&text, ""));
    let mut line = first.trim_end().to_owned();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        line.push_str(": ");
        line.push_str(cause.to_string().trim_end());
        source = cause.source();
    }
    format!("{}\n{hints}", output::plain(&line))
}

/// Who closed the pipe knows why, as `banger ps | head -1` does.
fn is_closed_output(error: &Error) -> bool {
    matches!(error, Error::Output(e) if e.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use banger_model::JobResult;

    use super::*;

    fn outcome(exit_status: Option<i32>, signal: Option<&str>) -> JobOutcome {
        JobOutcome {
            result: JobResult::Done,
            exit_status,
            signal: signal.map(str::to_owned),
            ..JobOutcome::done()
        }
    }

    #[test]
    fn a_process_gives_its_own_status() {
        for (status, signal, expected) in [
            (Some(0), None, Some(0)),
            (Some(7), None, Some(7)),
            (Some(143), Some("TERM"), Some(143)),
            (None, Some("INT"), Some(130)),
            (None, Some("KILL"), Some(137)),
            (Some(140), Some("ODD"), Some(140)),
            (Some(256), None, Some(255)),
            (Some(-1), None, Some(255)),
            (None, None, None),
        ] {
            assert_eq!(
                of_process(&outcome(status, signal)),
                expected,
                "{status:?} {signal:?}"
            );
        }
    }

    #[test]
    fn kinds_have_their_status() {
        let error = |kind| Error::Bus(banger_bus::Error::new(kind, "x"));
        assert_eq!(in_guest(&error(ErrorKind::NotExecutable)), 126);
        assert_eq!(in_guest(&error(ErrorKind::NoSuchVm)), 125);
        assert_eq!(ordinary(&error(ErrorKind::NoSuchVm)), 1);
        assert_eq!(ordinary(&error(ErrorKind::Cancelled)), 130);
        assert_eq!(in_guest(&Error::Reported(7)), 7);
    }

    #[test]
    fn a_chain_is_one_line_and_hints_follow() {
        let error = Error::io("Cannot read \"a\"", io::Error::other("worn out"));
        assert_eq!(describe(&error), "Cannot read \"a\": worn out\n");
        let error =
            Error::Bus(banger_bus::Error::new(ErrorKind::Failed, "No such thing\u{1b}[2J").hint("Make one"));
        assert_eq!(describe(&error), "No such thing\nMake one");
    }
}
