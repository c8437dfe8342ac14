//! A kernel from files of the host.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use banger_model::KernelName;

use super::bzimage::{self, MAX_KERNEL};
use super::check::MAX_TEXT;
use super::pull::{describe, finish, write_file};
use super::{CONFIG, Kernel, MODULES, Origin, VMLINUX};
use crate::Cancel;
use crate::error::{Error, Result};
use crate::store::{self, Build, make_dir};

const MAX_MODULES: usize = 100_000;
const MAX_DEPTH: usize = 32;

/// What to import.
#[derive(Debug, Clone, Copy)]
pub struct Import<'a> {
    /// The store of kernels.
    pub kernels: &'a Path,
    /// The name in the store; the kernel's own version by default.
    pub name: Option<&'a KernelName>,
    /// An ELF file, or a bzImage.
    pub kernel: &'a Path,
    /// A `lib/modules/<version>`.
    pub modules: Option<&'a Path>,
    /// By default `config-<version>` beside the kernel, or the `config` of the modules.
    pub config: Option<&'a Path>,
}

/// Imports a kernel from files, which are copied.
///
/// # Errors
/// When a file is not what it should be, or the kernel lacks what a guest cannot do without:
/// [`Error::Kernel`] says what. [`Error::Exists`] when the name is taken.
pub fn import(import: &Import<'_>, cancel: &Cancel) -> Result<Kernel> {
    store::sweep(import.kernels)?;
    let image = read_file(import.kernel, MAX_KERNEL)?;
    let unusable = |source| Error::Kernel {
        path: import.kernel.to_owned(),
        source,
    };
    let elf = bzimage::vmlinux(image).map_err(unusable)?;
    let version = bzimage::version(&elf).map_err(unusable)?;
    let build = Build::begin(import.kernels)?;
    write_file(&mut &elf[..], &build.dir().join(VMLINUX))?;
    if let Some(modules) = import.modules {
        let mut left = MAX_MODULES;
        copy_tree(modules, &build.dir().join(MODULES), 0, &mut left, cancel)?;
    }
    let config = match import.config {
        Some(config) => Some(config.to_owned()),
        None => find_config(import, &version),
    };
    if let Some(config) = &config {
        let text = read_file(config, MAX_TEXT)?;
        write_file(&mut &text[..], &build.dir().join(CONFIG))?;
    }
    let origin = Origin::Files {
        kernel: import.kernel.to_owned(),
        modules: import.modules.map(Path::to_owned),
        config,
    };
    let mut kernel = describe(&build, origin, import.kernel)?;
    if let Some(name) = import.name {
        kernel.name = name.clone();
    }
    finish(build, import.kernels, kernel, false)
}

fn find_config(import: &Import<'_>, version: &str) -> Option<PathBuf> {
    let beside = import.kernel.parent()?.join(format!("config-{version}"));
    let with_modules = import.modules.map(|dir| dir.join("config"));
    [Some(beside), with_modules]
        .into_iter()
        .flatten()
        .find(|file| file.is_file())
}

/// Copies a tree's regular files; links, as those to a kernel's sources, are left out.
fn copy_tree(from: &Path, to: &Path, depth: usize, left: &mut usize, cancel: &Cancel) -> Result<()> {
    make_dir(to)?;
    for entry in fs::read_dir(from).map_err(Error::io("read", from))? {
        let entry = entry.map_err(Error::io("read", from))?;
        cancel.check()?;
        let kind = entry.file_type().map_err(Error::io("look at", from))?;
        let target = to.join(entry.file_name());
        *left = left.checked_sub(1).ok_or_else(|| Error::Damaged {
            path: from.to_owned(),
            reason: "more files than any kernel has".to_owned(),
        })?;
        if kind.is_file() {
            fs::copy(entry.path(), &target).map_err(Error::io("copy", &target))?;
        } else if kind.is_dir() && depth < MAX_DEPTH {
            copy_tree(&entry.path(), &target, depth + 1, left, cancel)?;
        }
    }
    Ok(())
}

fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let found = fs::metadata(path).map_err(Error::io("read", path))?;
    if !found.is_file() {
        return Err(Error::NotAFile(path.to_owned()));
    }
    let file = File::open(path).map_err(Error::io("open", path))?;
    let mut content = Vec::new();
    file.take(limit + 1)
        .read_to_end(&mut content)
        .map_err(Error::io("read", path))?;
    if content.len() as u64 > limit {
        return Err(Error::Kernel {
            path: path.to_owned(),
            source: super::KernelError::TooLarge(limit),
        });
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::KernelError;
    use crate::kernel::bzimage::tests::{bzimage, elf};
    use crate::kernel::{find, list};

    const GOOD: &str = "CONFIG_VIRTIO_PCI=y\nCONFIG_VIRTIO_BLK=m\nCONFIG_VIRTIO_NET=y\n\
                        CONFIG_VIRTIO_CONSOLE=y\nCONFIG_EXT4_FS=y\nCONFIG_BLK_DEV_INITRD=y\n";

    struct Files {
        dir: tempfile::TempDir,
    }

    impl Files {
        fn new(kernel: &[u8]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("bzImage"), kernel).unwrap();
            fs::write(dir.path().join("config-6.1.0-test"), GOOD).unwrap();
            fs::create_dir_all(dir.path().join("modules/kernel")).unwrap();
            fs::write(dir.path().join("modules/kernel/virtio_blk.ko"), "x").unwrap();
            std::os::unix::fs::symlink("/etc", dir.path().join("modules/build")).unwrap();
            Self { dir }
        }

        fn import(&self, modules: bool) -> Result<Kernel> {
            import(
                &Import {
                    kernels: &self.dir.path().join("kernels"),
                    name: None,
                    kernel: &self.dir.path().join("bzImage"),
                    modules: modules.then(|| self.dir.path().join("modules")).as_deref(),
                    config: None,
                },
                &Cancel::new(),
            )
        }
    }

    #[test]
    fn a_bzimage_with_modules_is_imported() {
        let files = Files::new(&bzimage(&elf()));
        let kernel = files.import(true).unwrap();
        assert_eq!(kernel.name.as_str(), "6.1.0-test");
        assert_eq!(fs::read(kernel.vmlinux()).unwrap(), elf());
        assert!(kernel.config().is_some());
        let modules = kernel.modules().unwrap();
        assert!(modules.join("kernel/virtio_blk.ko").is_file());
        assert!(!modules.join("build").exists());
        assert!(kernel.warnings.iter().any(|w| w.contains("overlay")));
        let kernels = files.dir.path().join("kernels");
        assert_eq!(find(&kernels, &kernel.name).unwrap(), kernel);
        assert!(matches!(files.import(true), Err(Error::Exists { .. })));
        assert_eq!(fs::read_dir(kernels).unwrap().count(), 1);
    }

    #[test]
    fn a_configuration_that_is_none_is_named_with_its_limit() {
        let files = Files::new(&bzimage(&elf()));
        let config = File::create(files.dir.path().join("config-6.1.0-test")).unwrap();
        config.set_len(MAX_TEXT + 1).unwrap();
        let error = files.import(true).unwrap_err();
        assert!(error.to_string().contains("config-6.1.0-test"), "{error}");
        let source = std::error::Error::source(&error).unwrap();
        assert_eq!(source.to_string(), "Larger than 4 MiB");
    }

    #[test]
    fn what_cannot_boot_is_refused_and_leaves_nothing() {
        let files = Files::new(&bzimage(&elf()));
        let Err(Error::Kernel { source, .. }) = files.import(false) else {
            panic!("imported without its disk driver");
        };
        assert!(
            matches!(&source, KernelError::Lacks(what) if what.len() == 1),
            "{source}"
        );
        let files = Files::new(b"#!/bin/sh\n");
        assert!(matches!(
            files.import(true),
            Err(Error::Kernel {
                source: KernelError::Unknown,
                ..
            })
        ));
        assert!(list(&files.dir.path().join("kernels")).unwrap().is_empty());
    }
}
