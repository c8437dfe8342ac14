//! The store of kernels: pulled from a signed archive, or imported from files.
//!
//! A kernel is a directory `<kernels>/<name>` with `vmlinux`, `kernel.json`, and where there
//! are any `config` and `modules/`, which has the content of `lib/modules/<version>`.

mod bundle;
mod bzimage;
mod check;
mod export;
mod import;
mod publish;
mod pull;

use std::fs;
use std::path::{Path, PathBuf};

use banger_model::KernelName;
use serde::{Deserialize, Serialize};

pub use bzimage::{KernelError, vmlinux};
pub use export::export;
pub use import::{Import, import};
pub use publish::publish;
pub use pull::{Pull, pull};

pub(crate) use bzimage::MAX_KERNEL;
pub(crate) use check::MAX_TEXT as MAX_CONFIG;
pub(crate) use pull::{MAX_DEPTH, MAX_ENTRIES, MAX_UNPACKED};

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::store;

const METADATA: &str = "kernel.json";
const VMLINUX: &str = "vmlinux";
const CONFIG: &str = "config";
const MODULES: &str = "modules";

/// A kernel of the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    pub name: KernelName,
    /// What `uname -r` says in the guest.
    pub version: String,
    /// Names of the catalogue under which it was pulled.
    #[serde(default)]
    pub aliases: Vec<String>,
    pub origin: Origin,
    /// Bytes of the kernel itself.
    pub kernel_bytes: u64,
    /// Bytes of its modules on the disk.
    pub modules_bytes: u64,
    /// What a guest will miss.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Seconds since 1970.
    pub created: u64,
    /// Where it is.
    #[serde(skip)]
    pub dir: PathBuf,
}

/// Where a kernel comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Origin {
    /// A package of a signed archive.
    Archive {
        url: String,
        suite: String,
        package: String,
        version: String,
        /// Of the package, as the archive signed it.
        sha256: String,
    },
    /// Files of the host.
    Files {
        kernel: PathBuf,
        modules: Option<PathBuf>,
        config: Option<PathBuf>,
    },
    /// A kernel that was exported, here or elsewhere.
    Bundle {
        /// Where it was fetched from.
        url: String,
        /// Of the bundle.
        sha256: Digest,
    },
}

impl Kernel {
    /// The kernel as ELF, to be started by its PVH or 64-bit entry.
    pub fn vmlinux(&self) -> PathBuf {
        self.dir.join(VMLINUX)
    }

    /// Its configuration, if it was given.
    pub fn config(&self) -> Option<PathBuf> {
        Some(self.dir.join(CONFIG)).filter(|file| file.is_file())
    }

    /// The content of its `lib/modules/<version>`, if it has any.
    pub fn modules(&self) -> Option<PathBuf> {
        Some(self.dir.join(MODULES)).filter(|dir| dir.is_dir())
    }

    /// Whether a name means this kernel: its own, or one of the catalogue.
    pub fn answers_to(&self, reference: &KernelName) -> bool {
        self.name == *reference || self.aliases.iter().any(|alias| alias == reference.as_str())
    }
}

/// All kernels of a store by their names. A damaged one is left out, with a warning in the
/// log.
///
/// # Errors
/// When the store cannot be read.
pub fn list(kernels: &Path) -> Result<Vec<Kernel>> {
    let mut found = Vec::new();
    for name in store::names(kernels)? {
        let Ok(name) = name.parse() else { continue };
        match load(kernels, &name) {
            Ok(kernel) => found.push(kernel),
            Err(error) => tracing::warn!(%name, %error, "Skipping a damaged kernel"),
        }
    }
    Ok(found)
}

/// The kernel of exactly this name.
///
/// # Errors
/// [`Error::NoSuchKernel`], [`Error::Damaged`].
pub fn load(kernels: &Path, name: &KernelName) -> Result<Kernel> {
    let dir = kernels.join(name.as_str());
    let kernel: Option<Kernel> = store::read_metadata(&dir, METADATA)?;
    let mut kernel = kernel.ok_or_else(|| Error::NoSuchKernel(name.to_string()))?;
    kernel.dir = dir;
    let bytes = fs::metadata(kernel.vmlinux()).map_or(0, |found| found.len());
    if kernel.name != *name || bytes != kernel.kernel_bytes {
        return Err(Error::Damaged {
            path: kernel.dir,
            reason: format!("{VMLINUX} is not what {METADATA} says"),
        });
    }
    Ok(kernel)
}

/// The kernel that a name means: that of this name, else the newest one that was pulled
/// under it.
///
/// # Errors
/// [`Error::NoSuchKernel`], [`Error::Damaged`].
pub fn find(kernels: &Path, reference: &KernelName) -> Result<Kernel> {
    match load(kernels, reference) {
        Err(Error::NoSuchKernel(_)) => {}
        other => return other,
    }
    list(kernels)?
        .into_iter()
        .filter(|kernel| kernel.answers_to(reference))
        .max_by_key(|kernel| kernel.created)
        .ok_or_else(|| Error::NoSuchKernel(reference.to_string()))
}

/// Removes a kernel by its own name. Whether a VM or an image needs it is the caller's to
/// know.
///
/// # Errors
/// [`Error::NoSuchKernel`], or when it cannot be removed.
pub fn remove(kernels: &Path, name: &KernelName) -> Result<()> {
    store::remove(kernels, name.as_str())?
        .then_some(())
        .ok_or_else(|| Error::NoSuchKernel(name.to_string()))
}

/// Removes what interrupted builds left. Returns how many.
///
/// # Errors
/// When the store cannot be read.
pub fn sweep(kernels: &Path) -> Result<usize> {
    store::sweep(kernels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(kernels: &Path, name: &str, alias: &str, created: u64) {
        let dir = kernels.join(name);
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join(VMLINUX), "12345").unwrap();
        let kernel = Kernel {
            name: name.parse().unwrap(),
            version: name.to_owned(),
            aliases: vec![alias.to_owned()],
            origin: Origin::Files {
                kernel: "/k".into(),
                modules: None,
                config: None,
            },
            kernel_bytes: 5,
            modules_bytes: 0,
            warnings: Vec::new(),
            created,
            dir: PathBuf::new(),
        };
        store::write_metadata(&dir, METADATA, &kernel).unwrap();
    }

    #[test]
    fn an_alias_means_the_newest() {
        let store = tempfile::tempdir().unwrap();
        put(store.path(), "6.1.0-9", "debian-6.1", 2);
        put(store.path(), "6.1.0-30", "debian-6.1", 3);
        put(store.path(), "6.12.1", "debian-6.12", 4);
        let find = |name: &str| find(store.path(), &name.parse().unwrap());
        assert_eq!(find("debian-6.1").unwrap().name.as_str(), "6.1.0-30");
        assert_eq!(find("6.1.0-9").unwrap().name.as_str(), "6.1.0-9");
        assert!(matches!(find("debian-7"), Err(Error::NoSuchKernel(_))));
        assert_eq!(list(store.path()).unwrap().len(), 3);
    }

    #[test]
    fn damage_is_seen() {
        let store = tempfile::tempdir().unwrap();
        put(store.path(), "a", "x", 1);
        fs::write(store.path().join("a/vmlinux"), "1234").unwrap();
        let name = "a".parse().unwrap();
        assert!(matches!(load(store.path(), &name), Err(Error::Damaged { .. })));
        assert!(list(store.path()).unwrap().is_empty());
        remove(store.path(), &name).unwrap();
        assert!(matches!(remove(store.path(), &name), Err(Error::NoSuchKernel(_))));
        assert_eq!(fs::read_dir(store.path()).unwrap().count(), 0);
    }
}
