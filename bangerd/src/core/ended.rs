//! Why a VMM ended, from what was seen of it.

use banger_model::StopReason;
use banger_sys::pidfd::Exit;

/// What the monitor told before the end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Traces {
    /// The reason of the last SHUTDOWN event.
    pub shutdown: Option<String>,
    pub panicked: bool,
    /// The guest's agent said last that it ends.
    pub ending: bool,
}

impl Traces {
    /// What Firecracker, which tells nothing, leaves behind: it ends well when the guest resets the
    /// machine, also after a panic. How it ended, whose parent is the helper, nobody tells; then
    /// the guest's last words say it. `console` is the end of what its console said.
    pub(super) fn of_firecracker(&mut self, exit: Exit, console: &str) {
        let well = match exit {
            Exit::Code(code) => code == 0,
            Exit::Signal(_) => false,
            Exit::Unknown => true,
        };
        self.panicked = well && console.contains("Kernel panic - not syncing");
        if well && (exit != Exit::Unknown || self.ending) {
            self.shutdown = Some("guest-shutdown".to_owned());
        }
    }
}

/// The reason of an end that the daemon did not ask for, and a sentence about it. `stderr` is
/// the end of what the VMM said.
pub(super) fn why(exit: Exit, traces: &Traces, stderr: &str) -> (StopReason, String) {
    let shutdown = traces.shutdown.as_deref().unwrap_or_default();
    if traces.panicked || shutdown == "guest-panic" {
        return (
            StopReason::GuestPanic,
            "The guest's kernel panicked: its console says why".to_owned(),
        );
    }
    match exit {
        Exit::Signal(signal) => (
            StopReason::VmmKilled,
            format!("The VMM was ended by signal {signal} ({})", signal_name(signal)),
        ),
        Exit::Code(code) if code != 0 => (StopReason::VmmFailed, failed(code, stderr)),
        _ if shutdown == "guest-shutdown" => (StopReason::GuestPoweroff, String::new()),
        _ if shutdown == "host-signal" => (
            StopReason::VmmKilled,
            "The VMM was told to end by a signal from outside".to_owned(),
        ),
        Exit::Code(_) => (StopReason::VmmFailed, failed(0, stderr)),
        Exit::Unknown => (
            StopReason::Vanished,
            "The VMM ended while nobody watched it".to_owned(),
        ),
    }
}

fn failed(code: i32, stderr: &str) -> String {
    match last_words(stderr).as_str() {
        "" => format!("The VMM ended with status {code} and said nothing"),
        words => format!("The VMM ended with status {code}{words}"),
    }
}

/// What a VMM said last, after a colon; empty when it said nothing.
pub(super) fn last_words(stderr: &str) -> String {
    // The last lines say what it was; those before are often warnings.
    let lines: Vec<&str> = stderr.lines().filter(|line| !line.trim().is_empty()).collect();
    let last: Vec<String> = lines[lines.len().saturating_sub(3)..]
        .iter()
        .map(|line| {
            line.chars()
                .map(|c| if c.is_control() { ' ' } else { c })
                .collect()
        })
        .collect();
    if last.is_empty() {
        String::new()
    } else {
        format!(": {}", last.join("; "))
    }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        6 => "SIGABRT",
        7 => "SIGBUS",
        9 => "SIGKILL: by somebody, or because memory ran out",
        11 => "SIGSEGV",
        15 => "SIGTERM",
        25 => "SIGXFSZ",
        31 => "SIGSYS: it did what its sandbox forbids",
        _ => "see signal(7)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table() {
        let shut = |reason: &str| Traces {
            shutdown: Some(reason.to_owned()),
            ..Traces::default()
        };
        let panicked = Traces {
            panicked: true,
            ..Traces::default()
        };
        for (exit, traces, reason) in [
            (Exit::Code(0), shut("guest-shutdown"), StopReason::GuestPoweroff),
            (Exit::Unknown, shut("guest-shutdown"), StopReason::GuestPoweroff),
            (Exit::Code(0), shut("guest-panic"), StopReason::GuestPanic),
            (Exit::Code(0), panicked, StopReason::GuestPanic),
            (Exit::Signal(9), Traces::default(), StopReason::VmmKilled),
            (Exit::Signal(9), shut("guest-shutdown"), StopReason::VmmKilled),
            (Exit::Code(0), shut("host-signal"), StopReason::VmmKilled),
            (Exit::Code(1), Traces::default(), StopReason::VmmFailed),
            (Exit::Code(0), Traces::default(), StopReason::VmmFailed),
            (Exit::Unknown, Traces::default(), StopReason::Vanished),
        ] {
            assert_eq!(why(exit, &traces, "").0, reason, "{exit:?} {traces:?}");
        }
    }

    #[test]
    fn firecracker_ends_well_when_its_guest_ends() {
        let ended = |exit, console: &str, ending| {
            let mut traces = Traces {
                ending,
                ..Traces::default()
            };
            traces.of_firecracker(exit, console);
            why(exit, &traces, "").0
        };
        let reason = |exit, console| ended(exit, console, false);
        assert_eq!(reason(Exit::Code(0), "bye\n"), StopReason::GuestPoweroff);
        let panic = "[    1.0] Kernel panic - not syncing: No working init found.\n";
        assert_eq!(reason(Exit::Code(0), panic), StopReason::GuestPanic);
        assert_eq!(reason(Exit::Code(148), ""), StopReason::VmmFailed);
        assert_eq!(reason(Exit::Signal(9), panic), StopReason::VmmKilled);
        // Under the helper.
        assert_eq!(reason(Exit::Unknown, ""), StopReason::Vanished);
        assert_eq!(reason(Exit::Unknown, panic), StopReason::GuestPanic);
        assert_eq!(ended(Exit::Unknown, "", true), StopReason::GuestPoweroff);
        assert_eq!(ended(Exit::Signal(9), "", true), StopReason::VmmKilled);
    }

    #[test]
    fn the_vmms_own_words_are_repeated_without_control_characters() {
        let words = "warning: a\nwarning: b\nqemu: \x1b[31mno memory\n\n";
        let (_, detail) = why(Exit::Code(1), &Traces::default(), words);
        assert_eq!(
            detail,
            "The VMM ended with status 1: warning: a; warning: b; qemu:  [31mno memory"
        );
        let (_, detail) = why(Exit::Code(1), &Traces::default(), "");
        assert_eq!(detail, "The VMM ended with status 1 and said nothing");
    }
}
