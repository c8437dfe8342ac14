//! How a process ended, in SSH's terms (RFC 4254, section 6.10).

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use banger_model::signal;
use russh::Sig;

/// What the client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Status(u32),
    Signal { number: i32, core_dumped: bool },
}

/// Translates what wait(2) says.
pub(super) fn outcome(status: ExitStatus) -> Outcome {
    match (status.code(), status.signal()) {
        (Some(code), _) => Outcome::Status(code.unsigned_abs()),
        (None, Some(signal)) => Outcome::Signal {
            number: signal,
            core_dumped: status.core_dumped(),
        },
        // A process that was waited for has ended in one of the two ways.
        (None, None) => Outcome::Status(255),
    }
}

/// The number of the signal that a client names.
pub(super) fn number_of(signal: &Sig) -> Option<i32> {
    let name = match signal {
        Sig::ABRT => "ABRT",
        Sig::ALRM => "ALRM",
        Sig::FPE => "FPE",
        Sig::HUP => "HUP",
        Sig::ILL => "ILL",
        Sig::INT => "INT",
        Sig::KILL => "KILL",
        Sig::PIPE => "PIPE",
        Sig::QUIT => "QUIT",
        Sig::SEGV => "SEGV",
        Sig::TERM => "TERM",
        Sig::USR1 => "USR1",
        Sig::Custom(name) => name.trim_start_matches("SIG"),
    };
    signal::number(name)
}

/// The name of a signal. Where the standard has none, it says whose it is.
pub(super) fn name_of(number: i32) -> Sig {
    match signal::name(number) {
        Some("ABRT") => Sig::ABRT,
        Some("ALRM") => Sig::ALRM,
        Some("FPE") => Sig::FPE,
        Some("HUP") => Sig::HUP,
        Some("ILL") => Sig::ILL,
        Some("INT") => Sig::INT,
        Some("KILL") => Sig::KILL,
        Some("PIPE") => Sig::PIPE,
        Some("QUIT") => Sig::QUIT,
        Some("SEGV") => Sig::SEGV,
        Some("TERM") => Sig::TERM,
        Some("USR1") => Sig::USR1,
        Some(other) => Sig::Custom(other.to_owned()),
        None => Sig::Custom(format!("{number}@banger")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_and_signals_are_told_apart() {
        assert_eq!(outcome(ExitStatus::from_raw(7 << 8)), Outcome::Status(7));
        let term = outcome(ExitStatus::from_raw(15));
        assert_eq!(
            term,
            Outcome::Signal {
                number: 15,
                core_dumped: false
            }
        );
        let segv = outcome(ExitStatus::from_raw(11 | 0x80));
        assert!(matches!(
            segv,
            Outcome::Signal {
                core_dumped: true,
                ..
            }
        ));
        assert!(matches!(name_of(34), Sig::Custom(name) if name == "34@banger"));
    }

    #[test]
    fn names_and_numbers_agree_both_ways() {
        for number in 1..=31 {
            assert_eq!(number_of(&name_of(number)), Some(number));
        }
        assert_eq!(number_of(&Sig::Custom("SIGUSR2".into())), Some(12));
        assert_eq!(number_of(&Sig::Custom("NONE".into())), None);
    }
}
