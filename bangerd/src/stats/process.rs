//! What the kernel counts of one process (proc_pid_stat(5), proc_pid_io(5)). Others' numbers of
//! I/O are not shown to everybody.

use std::fs;

use super::Usage;

/// `USER_HZ`, the same for every architecture of ours.
const TICKS_PER_SECOND: u64 = 100;

pub(super) fn of(pid: u32) -> Usage {
    let file = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).ok();
    let io = file("io");
    let io = |key: &str| io.as_deref().and_then(|text| value(text, key));
    let status = file("status");
    Usage {
        cpu_us: file("stat").as_deref().and_then(cpu),
        memory: status
            .as_deref()
            .and_then(|text| value(text, "VmRSS"))
            .and_then(|kib| kib.checked_mul(1024)),
        read: io("read_bytes"),
        written: io("write_bytes"),
        ..Usage::default()
    }
}

/// Fields 14 and 15, in microseconds; the name in field 2 may hold anything.
fn cpu(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(") ")?;
    let mut fields = after_name.split(' ').skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let ticks = ticks()?.checked_add(ticks()?)?;
    ticks.checked_mul(1_000_000 / TICKS_PER_SECOND)
}

fn value(text: &str, key: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 1 0 4711";
        assert_eq!(cpu(stat), Some(2_000_000));
        assert_eq!(cpu("7 (a) S 1"), None);
    }

    #[test]
    fn a_process_reads_its_own_figures() {
        let usage = of(std::process::id());
        assert!(usage.cpu_us.is_some() && usage.memory.is_some());
        assert_eq!(of(u32::MAX), Usage::default());
    }

    #[test]
    fn a_key_is_matched_whole() {
        let io = "rchar: 9\nread_bytes: 4096\nwrite_bytes: 0\ncancelled_write_bytes: 3\n";
        assert_eq!(value(io, "read_bytes"), Some(4096));
        assert_eq!(value(io, "write_bytes"), Some(0));
        assert_eq!(value(io, "bytes"), None);
    }
}
