//! The guest's memory.

use std::fs;
use std::io;

use banger_model::figures::GuestMemory;

/// As `/proc/meminfo` has it.
pub(crate) fn now() -> io::Result<GuestMemory> {
    parse(&fs::read_to_string("/proc/meminfo")?).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn parse(text: &str) -> Option<GuestMemory> {
    let bytes = |name: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = rest.strip_prefix(':')?.trim().strip_suffix(" kB")?.parse().ok()?;
        kib.checked_mul(1024)
    };
    Some(GuestMemory {
        total_bytes: bytes("MemTotal")?,
        available_bytes: bytes("MemAvailable")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kibibytes_become_bytes() {
        let text = "MemTotal:         500000 kB\nMemFree:   1 kB\nMemAvailable:     300000 kB\n";
        let memory = parse(text).unwrap();
        assert_eq!(memory.total_bytes, 512_000_000);
        assert_eq!(memory.available_bytes, 307_200_000);
        assert_eq!(parse("MemTotal: 5 kB\n"), None);
    }

    #[test]
    fn this_kernel_tells_its_memory() {
        let memory = now().unwrap();
        assert!(memory.available_bytes <= memory.total_bytes);
    }
}
