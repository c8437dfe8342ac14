//! What a VM should be.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::image::{Process, ProcessError};
use crate::limits::{MAX_DISK_BYTES, MAX_MEMORY_MIB, MAX_PAIR_BYTES, MAX_PAIRS, MAX_VCPUS, MIN_MEMORY_MIB};
use crate::name::{ImageName, KernelName, VmName};
use crate::size::Size;
use crate::state::UnknownWord;

/// Everything that the owner decides about a VM, as it passed [`VmSpec::check`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmSpec {
    pub name: VmName,
    pub image: ImageName,
    /// `None`: the image's own choice, else the default kernel.
    pub kernel: Option<KernelName>,
    /// 1 to [`MAX_VCPUS`].
    pub vcpus: u32,
    /// In MiB, [`MIN_MEMORY_MIB`] to [`MAX_MEMORY_MIB`].
    pub memory_mib: u64,
    /// The root disk's size in bytes; the guest grows its file system to it.
    pub disk_bytes: u64,
    pub engine: EngineChoice,
    pub network: NetworkMode,
    /// Environment of everything that the agent runs: the image's, and the owner's over it.
    pub env: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    /// What the image says about its processes.
    #[serde(default)]
    pub process: Process,
    /// Ports of the host's loopback, and those of the guest to which they lead.
    #[serde(default)]
    pub ports: BTreeMap<u16, u16>,
}

/// Which engine runs a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EngineChoice {
    /// The best one that works here.
    #[default]
    Auto,
    Qemu,
    Firecracker,
}

/// What a VM's network reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkMode {
    /// The Internet, by user-mode networking or the bridge.
    #[default]
    Public,
    /// Nothing: only the owner reaches the guest.
    None,
}

/// What is wrong with a specification. The host's own limits are checked where they are known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    #[error("Cannot give a VM {0} virtual CPUs (1 to {MAX_VCPUS})")]
    Vcpus(u32),
    #[error("Cannot give a VM {mib} MiB of memory ({MIN_MEMORY_MIB} to {MAX_MEMORY_MIB} MiB)")]
    Memory { mib: u64 },
    #[error(
        "Cannot give a VM a disk of {size} (more than 0, at most {})",
        Size::from_bytes(MAX_DISK_BYTES)
    )]
    Disk { size: Size },
    #[error("Too many {what}: {count} (at most {MAX_PAIRS})")]
    TooMany { what: &'static str, count: usize },
    #[error("Cannot use what the image says about its processes")]
    Process(#[from] ProcessError),
    #[error(
        "Not a valid {what}: {key:?} (use letters, digits, '_', '-', '.' and '/', a letter or '_' first; key and value together at most {MAX_PAIR_BYTES} bytes, without NUL)"
    )]
    Pair { what: &'static str, key: String },
}

impl VmSpec {
    /// Checks everything that can be told without looking at the host.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn check(&self) -> Result<(), SpecError> {
        if !(1..=MAX_VCPUS).contains(&self.vcpus) {
            return Err(SpecError::Vcpus(self.vcpus));
        }
        if !(MIN_MEMORY_MIB..=MAX_MEMORY_MIB).contains(&self.memory_mib) {
            return Err(SpecError::Memory { mib: self.memory_mib });
        }
        if !(1..=MAX_DISK_BYTES).contains(&self.disk_bytes) {
            return Err(SpecError::Disk {
                size: Size::from_bytes(self.disk_bytes),
            });
        }
        self.process.check()?;
        check_pairs("labels", "label", &self.labels)?;
        check_pairs("environment variables", "environment variable", &self.env)
    }
}

/// Whether a VM can have this label or environment variable.
pub fn is_pair(key: &str, value: &str) -> bool {
    key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && key
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c))
        && key.len() + value.len() <= MAX_PAIR_BYTES
        && !value.contains('\0')
}

fn check_pairs(
    many: &'static str,
    one: &'static str,
    pairs: &BTreeMap<String, String>,
) -> Result<(), SpecError> {
    if pairs.len() > MAX_PAIRS {
        return Err(SpecError::TooMany {
            what: many,
            count: pairs.len(),
        });
    }
    for (key, value) in pairs {
        if !is_pair(key, value) {
            return Err(SpecError::Pair {
                what: one,
                key: key.clone(),
            });
        }
    }
    Ok(())
}

impl EngineChoice {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Qemu => "qemu",
            Self::Firecracker => "firecracker",
        }
    }
}

impl std::str::FromStr for EngineChoice {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "auto" => Ok(Self::Auto),
            "qemu" => Ok(Self::Qemu),
            "firecracker" => Ok(Self::Firecracker),
            _ => Err(UnknownWord {
                what: "engine",
                word: word.to_owned(),
            }),
        }
    }
}

impl NetworkMode {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::None => "none",
        }
    }
}

impl std::str::FromStr for NetworkMode {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "public" => Ok(Self::Public),
            "none" => Ok(Self::None),
            _ => Err(UnknownWord {
                what: "network mode",
                word: word.to_owned(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> VmSpec {
        VmSpec {
            name: "a".parse().unwrap(),
            image: "debian-minimal".parse().unwrap(),
            kernel: None,
            vcpus: 1,
            memory_mib: 512,
            disk_bytes: 1 << 30,
            engine: EngineChoice::Auto,
            network: NetworkMode::Public,
            env: BTreeMap::new(),
            labels: BTreeMap::new(),
            process: Process::default(),
            ports: BTreeMap::new(),
        }
    }

    #[test]
    fn bounds_are_inclusive_and_named() {
        assert_eq!(spec().check(), Ok(()));
        for vcpus in [0, MAX_VCPUS + 1, u32::MAX] {
            assert_eq!(VmSpec { vcpus, ..spec() }.check(), Err(SpecError::Vcpus(vcpus)));
        }
        for memory_mib in [0, MIN_MEMORY_MIB - 1, MAX_MEMORY_MIB + 1, u64::MAX] {
            assert_eq!(
                VmSpec { memory_mib, ..spec() }.check(),
                Err(SpecError::Memory { mib: memory_mib })
            );
        }
        for disk_bytes in [0, MAX_DISK_BYTES + 1, u64::MAX] {
            assert_eq!(
                VmSpec { disk_bytes, ..spec() }.check(),
                Err(SpecError::Disk {
                    size: Size::from_bytes(disk_bytes)
                })
            );
        }
        assert_eq!(
            SpecError::Disk {
                size: Size::from_bytes(0)
            }
            .to_string(),
            "Cannot give a VM a disk of 0 (more than 0, at most 16T)"
        );
    }

    #[test]
    fn labels_are_held_to_their_form() {
        for (key, value) in [
            ("", "x"),
            ("1a", "x"),
            ("a=b", "x"),
            ("a", "x\0"),
            ("a", &*"x".repeat(MAX_PAIR_BYTES)),
        ] {
            let labels = BTreeMap::from([(key.to_owned(), value.to_owned())]);
            assert!(VmSpec { labels, ..spec() }.check().is_err(), "{key:?}");
        }
        let many = (0..=MAX_PAIRS)
            .map(|i| (format!("k{i}"), String::new()))
            .collect();
        assert!(matches!(
            VmSpec { env: many, ..spec() }.check(),
            Err(SpecError::TooMany { .. })
        ));
    }
}
