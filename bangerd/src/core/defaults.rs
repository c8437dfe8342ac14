//! What a VM gets when nobody says otherwise, and where that came from.

use banger_bus::{Error, ErrorKind};
use banger_model::config::VmDefaults;
use banger_model::limits::{MAX_MEMORY_MIB, MAX_VCPUS, MIN_MEMORY_MIB};
use banger_model::{Size, VmSpec};

const MAX_DEFAULT_VCPUS: u32 = 4;
const MIN_DEFAULT_MEMORY_MIB: u64 = 512;
const MAX_DEFAULT_MEMORY_MIB: u64 = 8 << 10;
const DEFAULT_DISK: Size = Size::from_mib(8 << 10);

/// What the host has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Host {
    /// CPUs that this process may use.
    pub cpus: u32,
    pub memory_mib: u64,
    /// The size of the file system that holds the VMs' disks, in bytes.
    pub disk_bytes: u64,
}

/// A value and where it came from, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Default<T> {
    pub value: T,
    pub source: String,
}

/// The defaults of a new VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Defaults {
    pub vcpus: Default<u32>,
    pub memory_mib: Default<u64>,
    pub disk_bytes: Default<u64>,
}

impl Host {
    /// Reads this host's sizes; `state` is a directory of the file system that holds disks.
    pub(crate) fn of(state: &std::path::Path) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1));
        let info = rustix::system::sysinfo();
        #[allow(clippy::useless_conversion, reason = "the type differs between architectures")]
        let memory = u64::from(info.totalram).saturating_mul(u64::from(info.mem_unit.max(1)));
        let disk_bytes =
            rustix::fs::statvfs(state).map_or(u64::MAX, |fs| fs.f_blocks.saturating_mul(fs.f_frsize));
        Self {
            cpus,
            memory_mib: memory >> 20,
            disk_bytes,
        }
    }
}

impl Defaults {
    /// From the configuration, else from the host.
    pub(crate) fn new(config: &VmDefaults, host: Host) -> Self {
        let configured = |key: &str| format!("[vm_defaults] {key}");
        let vcpus = match config.vcpu {
            Some(value) => Default::new(value, configured("vcpu")),
            None => Default::new(
                (host.cpus / 4).clamp(1, MAX_DEFAULT_VCPUS),
                format!(
                    "a quarter of the host's {} CPUs, at most {MAX_DEFAULT_VCPUS}",
                    host.cpus
                ),
            ),
        };
        let memory_mib = match config.memory {
            Some(value) => Default::new(value.0.mib(), configured("memory")),
            None => Default::new(
                (host.memory_mib / 8).clamp(MIN_DEFAULT_MEMORY_MIB, MAX_DEFAULT_MEMORY_MIB),
                format!(
                    "an eighth of the host's {} MiB, {MIN_DEFAULT_MEMORY_MIB} to {MAX_DEFAULT_MEMORY_MIB} MiB",
                    host.memory_mib
                ),
            ),
        };
        let disk_bytes = match config.disk_size {
            Some(value) => Default::new(value.0.bytes(), configured("disk_size")),
            None => Default::new(DEFAULT_DISK.bytes(), "built in".to_owned()),
        };
        Self {
            vcpus,
            memory_mib,
            disk_bytes,
        }
    }

    /// Key, value and source, as the bus gives them.
    pub(crate) fn rows(&self) -> Vec<(String, String, String)> {
        vec![
            (
                "vcpu".to_owned(),
                self.vcpus.value.to_string(),
                self.vcpus.source.clone(),
            ),
            (
                "memory".to_owned(),
                Size::from_mib(self.memory_mib.value).to_string(),
                self.memory_mib.source.clone(),
            ),
            (
                "disk_size".to_owned(),
                Size::from_bytes(self.disk_bytes.value).to_string(),
                self.disk_bytes.source.clone(),
            ),
        ]
    }
}

impl<T> Default<T> {
    fn new(value: T, source: String) -> Self {
        Self { value, source }
    }
}

/// Holds a specification to banger's bounds and to the host's. Disks are sparse: only one
/// that could never be filled is refused.
///
/// # Errors
/// `InvalidArgument` for what no host could do, `LimitExceeded` for what this one cannot.
pub(crate) fn check(spec: &VmSpec, host: Host) -> Result<(), Error> {
    spec.check()
        .map_err(|e| Error::new(ErrorKind::InvalidArgument, e.to_string()))?;
    let refused = |text: String| Err(Error::new(ErrorKind::LimitExceeded, text));
    if spec.vcpus > host.cpus {
        return refused(format!(
            "Cannot give a VM {} virtual CPUs: this host has {} (1 to {})",
            spec.vcpus,
            host.cpus,
            host.cpus.min(MAX_VCPUS)
        ));
    }
    if spec.memory_mib > host.memory_mib {
        return refused(format!(
            "Cannot give a VM {} MiB of memory: this host has {} MiB ({MIN_MEMORY_MIB} to {} MiB)",
            spec.memory_mib,
            host.memory_mib,
            host.memory_mib.min(MAX_MEMORY_MIB)
        ));
    }
    if spec.disk_bytes > host.disk_bytes {
        return refused(format!(
            "Cannot give a VM a disk of {}: the file system for disks has {}",
            Size::from_bytes(spec.disk_bytes),
            Size::from_bytes(host.disk_bytes)
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use banger_model::config::SizeText;

    use super::*;

    const HOST: Host = Host {
        cpus: 16,
        memory_mib: 32 << 10,
        disk_bytes: 100 << 30,
    };

    #[test]
    fn the_configuration_wins_over_the_host() {
        let config = VmDefaults {
            vcpu: Some(3),
            memory: Some(SizeText(Size::from_mib(700))),
            disk_size: None,
        };
        let defaults = Defaults::new(&config, HOST);
        assert_eq!((defaults.vcpus.value, defaults.memory_mib.value), (3, 700));
        assert_eq!(defaults.rows()[0].2, "[vm_defaults] vcpu");
        assert_eq!(
            defaults.rows()[2],
            ("disk_size".into(), "8G".into(), "built in".into())
        );
    }

    #[test]
    fn the_host_bounds_what_is_not_configured() {
        for (cpus, memory_mib, expected) in [
            (1, 1 << 10, (1, 512)),
            (16, 32 << 10, (4, 4 << 10)),
            (128, 1 << 20, (4, 8 << 10)),
        ] {
            let host = Host {
                cpus,
                memory_mib,
                ..HOST
            };
            let defaults = Defaults::new(&VmDefaults::default(), host);
            assert_eq!((defaults.vcpus.value, defaults.memory_mib.value), expected);
        }
    }

    #[test]
    fn beyond_the_host_is_refused_with_its_number() {
        let spec = VmSpec {
            name: "a".parse().unwrap(),
            image: "a".parse().unwrap(),
            kernel: None,
            vcpus: 16,
            memory_mib: 32 << 10,
            disk_bytes: 100 << 30,
            engine: banger_model::EngineChoice::Auto,
            network: banger_model::NetworkMode::Public,
            env: std::collections::BTreeMap::new(),
            labels: std::collections::BTreeMap::new(),
            process: banger_model::Process::default(),
            ports: std::collections::BTreeMap::new(),
        };
        assert_eq!(check(&spec, HOST), Ok(()));
        for (bad, number) in [
            (
                VmSpec {
                    vcpus: 17,
                    ..spec.clone()
                },
                "16",
            ),
            (
                VmSpec {
                    memory_mib: (32 << 10) + 1,
                    ..spec.clone()
                },
                "32768 MiB",
            ),
            (
                VmSpec {
                    disk_bytes: (100 << 30) + 1,
                    ..spec.clone()
                },
                "100G",
            ),
        ] {
            let error = check(&bad, HOST).unwrap_err();
            assert_eq!(error.kind, ErrorKind::LimitExceeded);
            assert!(error.message.contains(number), "{}", error.message);
        }
        let zero = VmSpec { vcpus: 0, ..spec };
        assert_eq!(check(&zero, HOST).unwrap_err().kind, ErrorKind::InvalidArgument);
    }
}
