//! Signals by their names, which is how SSH and D-Bus clients speak of them.

/// Names without `SIG`, with their numbers on x86-64 and arm64 (signal(7), "Standard signals").
const SIGNALS: [(&str, i32); 31] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// The number of a signal; `name` is without `SIG`.
pub fn number(name: &str) -> Option<i32> {
    SIGNALS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|&(_, number)| number)
}

/// The name of a standard signal, without `SIG`.
pub fn name(number: i32) -> Option<&'static str> {
    SIGNALS
        .iter()
        .find(|(_, known)| *known == number)
        .map(|&(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_agree_both_ways() {
        for standard in 1..=31 {
            assert_eq!(name(standard).and_then(number), Some(standard));
        }
        for real_time in [0, -1, 32, 34, 64] {
            assert_eq!(name(real_time), None);
        }
        for unknown in ["", "term", "SIGTERM", "RTMIN"] {
            assert_eq!(number(unknown), None);
        }
    }
}
