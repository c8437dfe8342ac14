//! What the kernel counts of a scope (the kernel's `admin-guide/cgroup-v2`). Everybody may read
//! it, also of a scope of the system manager.

use std::fs;
use std::path::{Path, PathBuf};

use super::Usage;

/// Where the unified hierarchy is mounted, the second beside the old ones.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// The figures of a process's scope; nothing where it is in none of its own.
pub(super) fn of(pid: u32, unit: &str) -> Option<Usage> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = scope_of(&text, unit)?;
    let directory = MOUNTS
        .iter()
        .map(|mount| Path::new(mount).join(path))
        .find(|directory| directory.join("cgroup.procs").exists())?;
    Some(read(&directory))
}

/// The path below the mount, when the scope is the VM's: figures of a group that it shares
/// with others would not be its own.
fn scope_of<'a>(text: &'a str, unit: &str) -> Option<&'a str> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let last = path.rsplit('/').next()?;
    (!unit.is_empty() && last == unit && !path.split('/').any(|part| part == "..")).then_some(path)
}

fn read(directory: &Path) -> Usage {
    let file = |name: &str| fs::read_to_string(PathBuf::from(directory).join(name)).ok();
    let number = |name: &str| file(name)?.trim_end().parse().ok();
    let pressure = |name: &str| file(name).as_deref().and_then(average);
    let io = file("io.stat");
    let sum = |key: &str| io.as_deref().map(|text| sum(text, key));
    Usage {
        cpu_us: file("cpu.stat")
            .as_deref()
            .and_then(|text| value(text, "usage_usec")),
        memory: number("memory.current"),
        // `max`, where there is no limit, is no number.
        memory_max: number("memory.max"),
        read: sum("rbytes="),
        written: sum("wbytes="),
        cpu_pressure: pressure("cpu.pressure"),
        memory_pressure: pressure("memory.pressure"),
        io_pressure: pressure("io.pressure"),
    }
}

fn value(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().parse().ok()
}

/// Over all devices.
fn sum(text: &str, key: &str) -> u64 {
    text.split_ascii_whitespace()
        .filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok())
        .fold(0, u64::saturating_add)
}

/// The share of 10 s in which something waited, in hundredths of a percent.
fn average(text: &str) -> Option<u64> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let number = some.split(' ').find_map(|word| word.strip_prefix("avg10="))?;
    let (whole, part) = number.split_once('.')?;
    let part: u64 = part.get(..2)?.parse().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(100)?.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_scope_of_its_own_counts() {
        let text = "1:name=systemd:/x\n0::/user.slice/banger.slice/banger-vm-a.scope\n";
        assert_eq!(
            scope_of(text, "banger-vm-a.scope"),
            Some("user.slice/banger.slice/banger-vm-a.scope")
        );
        assert_eq!(scope_of(text, "banger-vm-b.scope"), None);
        assert_eq!(scope_of("0::/user.slice/bangerd.service\n", ""), None);
        assert_eq!(
            scope_of("0::/../../banger-vm-a.scope\n", "banger-vm-a.scope"),
            None
        );
    }

    #[test]
    fn files_of_a_scope_are_read_and_what_is_missing_stays_missing() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write("cpu.stat", "usage_usec 123456\nuser_usec 100000\n");
        write("memory.current", "1048576\n");
        write("memory.max", "max\n");
        write(
            "io.stat",
            "8:0 rbytes=1000 wbytes=10 rios=1 wios=2\n8:16 rbytes=24 wbytes=6\n",
        );
        write(
            "cpu.pressure",
            "some avg10=12.34 avg60=0.00 avg300=0.00 total=9\nfull avg10=99.99\n",
        );
        let usage = read(dir.path());
        let expected = Usage {
            cpu_us: Some(123_456),
            memory: Some(1 << 20),
            read: Some(1024),
            written: Some(16),
            cpu_pressure: Some(1234),
            ..Usage::default()
        };
        assert_eq!(usage, expected);
    }

    #[test]
    fn an_average_is_in_hundredths() {
        assert_eq!(average("some avg10=0.07 avg60=1.00\n"), Some(7));
        assert_eq!(average("some avg10=100.00"), Some(10_000));
        assert_eq!(average("some avg10=x.00"), None);
        assert_eq!(average("full avg10=1.00"), None);
    }
}
