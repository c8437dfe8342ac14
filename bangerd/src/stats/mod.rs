//! Figures of a running VM: of its VMM by the kernel, of its disk by the file system, of its
//! guest by the guest's own word.

mod cgroup;
mod process;
mod rows;

pub(crate) use rows::rows;

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

use banger_model::figures::GuestMemory;
use banger_sys::pidfd::ProcessIdentity;
use rustix::time::{ClockId, clock_gettime};
use tokio::time::timeout;

use crate::core::Measured;
use crate::guest::{Agent, figures};

/// How long a guest may take for its memory; the rest is told without it.
const GUEST_LIMIT: Duration = Duration::from_secs(2);
/// A block of `st_blocks` (stat(3type)).
const BLOCK: u64 = 512;

/// What the kernel counts of a VMM. What cannot be told is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Usage {
    cpu_us: Option<u64>,
    memory: Option<u64>,
    memory_max: Option<u64>,
    read: Option<u64>,
    written: Option<u64>,
    /// In hundredths of a percent over 10 s.
    cpu_pressure: Option<u64>,
    memory_pressure: Option<u64>,
    io_pressure: Option<u64>,
}

/// All that can be told, by the names that `org.banger.VM.Stats` lists. `agent`: of a guest that
/// is up.
pub(crate) async fn figures(measured: Measured, agent: Option<Arc<Agent>>) -> HashMap<String, u64> {
    let host = tokio::task::spawn_blocking(move || host(&measured));
    let guest = async {
        let memory = figures::memory(agent.as_ref()?);
        let answer = timeout(GUEST_LIMIT, memory).await.ok()?;
        answer
            .inspect_err(|error| tracing::debug!(%error, "A guest does not tell its memory"))
            .ok()
    };
    let (host, guest) = tokio::join!(host, guest);
    let (usage, disk, time) = host.unwrap_or_default();
    named(usage, guest, disk, time)
}

fn host(measured: &Measured) -> (Usage, Option<u64>, Option<u64>) {
    let pid = measured.vmm.pid;
    // Another process may have the number of one that has just ended.
    let same = ProcessIdentity::of(pid).is_ok_and(|it| it.start_time == measured.vmm.start_time);
    let usage = if same {
        let scope = cgroup::of(pid, &measured.unit).unwrap_or_default();
        scope.or(process::of(pid))
    } else {
        Usage::default()
    };
    let disk = measured.disk.symlink_metadata().ok();
    let now = clock_gettime(ClockId::Monotonic);
    let now = u64::try_from(now.tv_sec)
        .ok()
        .zip(u64::try_from(now.tv_nsec).ok());
    (
        usage,
        disk.map(|disk| disk.blocks().saturating_mul(BLOCK)),
        now.map(|(seconds, nanoseconds)| seconds * 1_000_000 + nanoseconds / 1000),
    )
}

fn named(
    usage: Usage,
    guest: Option<GuestMemory>,
    disk: Option<u64>,
    time: Option<u64>,
) -> HashMap<String, u64> {
    let figures = [
        ("CpuUSec", usage.cpu_us),
        ("MemoryBytes", usage.memory),
        ("MemoryMaxBytes", usage.memory_max),
        ("ReadBytes", usage.read),
        ("WrittenBytes", usage.written),
        ("CpuPressure", usage.cpu_pressure),
        ("MemoryPressure", usage.memory_pressure),
        ("IoPressure", usage.io_pressure),
        ("GuestMemoryBytes", guest.map(|it| it.total_bytes)),
        ("GuestAvailableBytes", guest.map(|it| it.available_bytes)),
        ("DiskUsedBytes", disk),
        ("TimeUSec", time),
    ];
    figures
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
}

impl Usage {
    /// What is missing, from another source.
    fn or(self, other: Self) -> Self {
        Self {
            cpu_us: self.cpu_us.or(other.cpu_us),
            memory: self.memory.or(other.memory),
            memory_max: self.memory_max.or(other.memory_max),
            read: self.read.or(other.read),
            written: self.written.or(other.written),
            cpu_pressure: self.cpu_pressure.or(other.cpu_pressure),
            memory_pressure: self.memory_pressure.or(other.memory_pressure),
            io_pressure: self.io_pressure.or(other.io_pressure),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_store::VmmProcess;

    fn measured(disk: &std::path::Path, start_time_off: u64) -> Measured {
        let own = ProcessIdentity::of(std::process::id()).unwrap();
        Measured {
            vmm: VmmProcess {
                pid: own.pid,
                start_time: own.start_time + start_time_off,
                boot_id: own.boot_id,
            },
            unit: String::new(),
            disk: disk.to_owned(),
        }
    }

    #[tokio::test]
    async fn a_process_without_a_scope_is_measured_by_itself() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("root.ext4");
        let file = std::fs::File::create(&disk).unwrap();
        file.set_len(1 << 30).unwrap();
        let told = figures(measured(&disk, 0), None).await;
        assert!(told["MemoryBytes"] > 1 << 20, "{told:?}");
        assert!(told["DiskUsedBytes"] < 1 << 20, "a hole is not used: {told:?}");
        assert!(told.contains_key("CpuUSec") && told["TimeUSec"] > 0);
        assert!(!told.contains_key("GuestMemoryBytes") && !told.contains_key("CpuPressure"));
    }

    #[tokio::test]
    async fn a_number_that_another_process_has_is_not_measured() {
        let told = figures(measured(std::path::Path::new("/nowhere"), 1), None).await;
        assert_eq!(told.keys().collect::<Vec<_>>(), ["TimeUSec"]);
    }
}
