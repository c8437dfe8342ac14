//! The archive of the modules that a guest needs to reach its root disk, its console to the
//! host and its network.
//!
//! The order comes from the modules' own `depends=` entries and not from `modules.dep`: a
//! distribution's kernel package does not carry that file, depmod makes it where the package
//! is installed, and the entries are what it is made of.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use banger_model::guest::{MODULES_DIR, MODULES_LATER, MODULES_ORDER};

use super::cpio::Writer;
use super::unpack::{ENDINGS, read_module};
use super::{Error, elf};

/// One of each row must be there, built in or as a module; all that are there are taken.
/// The order is that in which a guest waits for them.
const NEEDED: [&[&str]; 5] = [
    &["virtio_pci", "virtio_mmio"],
    &["virtio_blk"],
    &["ext4"],
    &["virtio_console"],
    &["virtio_net"],
];
/// What is good to have, and what no guest waits for.
const WANTED: [&str; 6] = [
    // The control channel of a VMM that has no virtio ports.
    "vsock",
    "vmw_vsock_virtio_transport",
    "virtio_rng",
    // By it the guest gives back memory that it does not use.
    "virtio_balloon",
    "overlay",
    // By it the host learns of a panic, instead of a restart.
    "pvpanic_pci",
];
/// More modules than any kernel has, and deeper directories.
const MAX_FILES: usize = 50_000;
const MAX_DEPTH: usize = 16;
/// Modules of one archive: several times what any kernel needs for it. Each is in memory, and
/// its dependencies are found by recursion.
const MAX_PLANNED: usize = 256;

/// What an archive of modules holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModulesArchive {
    /// The names of the modules' files in the order in which the guest loads them.
    pub modules: Vec<String>,
    /// How many of them, from the first, the guest loads before its agent runs.
    pub first: usize,
}

/// Writes the archive for the kernel whose modules lie in `modules_dir`
/// (`…/lib/modules/VERSION`), packed or not, to `out`.
///
/// # Errors
/// When a file cannot be read or is not a module, when something that a guest cannot boot
/// without is neither built in nor there, and when `out` fails.
pub fn build_modules_archive(modules_dir: &Path, out: &mut dyn Write) -> Result<ModulesArchive, Error> {
    let available = Available::find(modules_dir)?;
    let mut plan = Plan::default();
    for row in NEEDED {
        let mut found = false;
        for name in row {
            found |= available.contains(name);
            plan.add(name, &available)?;
        }
        if !found {
            return Err(Error::Missing {
                name: row.join(" or "),
                directory: modules_dir.to_owned(),
            });
        }
    }
    let first = plan.modules.len();
    for name in WANTED {
        match plan.add(name, &available) {
            Ok(()) | Err(Error::Missing { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    write_archive(&plan.modules, first, out).map_err(Error::Write)?;
    Ok(ModulesArchive {
        modules: plan.modules.into_iter().map(|(name, _)| name).collect(),
        first,
    })
}

/// Writes the archive for a kernel that has everything built in.
///
/// # Errors
/// When `out` fails.
pub fn build_empty_modules_archive(out: &mut dyn Write) -> Result<(), Error> {
    write_archive(&[], 0, out).map_err(Error::Write)
}

fn write_archive(modules: &[(String, Vec<u8>)], first: usize, out: &mut dyn Write) -> io::Result<()> {
    let mut archive = Writer::new(out);
    let mut parent = String::new();
    for part in MODULES_DIR.split('/') {
        parent.push_str(part);
        archive.directory(&parent, 0o755)?;
        parent.push('/');
    }
    let (before, after) = modules.split_at(first);
    for (list, modules) in [(MODULES_ORDER, before), (MODULES_LATER, after)] {
        let names: String = modules.iter().map(|(name, _)| format!("{name}\n")).collect();
        archive.file(&format!("{MODULES_DIR}/{list}"), 0o644, names.as_bytes())?;
    }
    for (name, content) in modules {
        archive.file(&format!("{MODULES_DIR}/{name}"), 0o644, content)?;
    }
    archive.finish()?.flush()
}

/// What one kernel offers, by the name with underscores that the kernel itself uses.
struct Available {
    files: BTreeMap<String, PathBuf>,
    built_in: BTreeSet<String>,
}

impl Available {
    fn find(directory: &Path) -> Result<Self, Error> {
        let builtin = directory.join("modules.builtin");
        let text = match fs::read(&builtin) {
            Ok(text) => String::from_utf8_lossy(&text).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(source) => {
                return Err(Error::Read {
                    path: builtin,
                    source,
                });
            }
        };
        let mut files = BTreeMap::new();
        collect(directory, MAX_DEPTH, &mut files)?;
        Ok(Self {
            files,
            built_in: text.lines().filter_map(module_name).collect(),
        })
    }

    fn contains(&self, name: &str) -> bool {
        self.built_in.contains(name) || self.files.contains_key(name)
    }
}

/// Finds module files below `directory`. Links are not followed: `build` and `source` point
/// out of the tree.
fn collect(directory: &Path, depth: usize, files: &mut BTreeMap<String, PathBuf>) -> Result<(), Error> {
    let read = |source| Error::Read {
        path: directory.to_owned(),
        source,
    };
    for entry in fs::read_dir(directory).map_err(read)? {
        let entry = entry.map_err(read)?;
        let kind = entry.file_type().map_err(read)?;
        let path = entry.path();
        if kind.is_dir() && depth > 0 {
            collect(&path, depth - 1, files)?;
        } else if kind.is_file()
            && files.len() < MAX_FILES
            && let Some(name) = path.to_str().and_then(module_name)
        {
            files.entry(name).or_insert(path);
        }
    }
    Ok(())
}

/// `kernel/drivers/char/hw_random/virtio-rng.ko.xz` is `virtio_rng`.
fn module_name(path: &str) -> Option<String> {
    let file = path.trim().rsplit('/').next()?;
    let name = ENDINGS.iter().find_map(|ending| file.strip_suffix(ending))?;
    Some(name.replace('-', "_"))
}

/// Modules with what they need before them.
#[derive(Default)]
struct Plan {
    modules: Vec<(String, Vec<u8>)>,
    seen: BTreeSet<String>,
}

impl Plan {
    /// Adds a module after its dependencies; what is built in or not there adds nothing. A
    /// circle ends where it closes, and the kernel says what it misses.
    fn add(&mut self, name: &str, available: &Available) -> Result<(), Error> {
        let Some(path) = available.files.get(name) else {
            return Ok(());
        };
        if available.built_in.contains(name) || !self.seen.insert(name.to_owned()) {
            return Ok(());
        }
        if self.seen.len() > MAX_PLANNED {
            return Err(Error::BadModule {
                path: path.clone(),
                reason: "a guest would need more than 256 modules with it",
            });
        }
        let content = read_module(path)?;
        let depends = elf::module_depends(&content).map_err(|reason| Error::BadModule {
            path: path.clone(),
            reason,
        })?;
        for dependency in depends {
            let dependency = dependency.replace('-', "_");
            if !available.contains(&dependency) {
                return Err(Error::Missing {
                    name: format!("{dependency} (which {name} depends on)"),
                    directory: path.parent().unwrap_or(Path::new("/")).to_owned(),
                });
            }
            self.add(&dependency, available)?;
        }
        self.modules.push((format!("{name}.ko"), content));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::cpio::tests::read;
    use super::super::elf::tests::module;
    use super::*;

    /// A kernel with everything built in except the named modules and their dependencies.
    fn kernel(modules: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let builtin = "kernel/fs/ext4/ext4.ko\nkernel/drivers/virtio/virtio_pci.ko\n\
                       kernel/a/virtio_blk.ko\nkernel/a/virtio_console.ko\nkernel/a/virtio_net.ko\n";
        fs::write(directory.path().join("modules.builtin"), builtin).unwrap();
        fs::create_dir_all(directory.path().join("kernel/deep")).unwrap();
        for (name, depends) in modules {
            let path = directory.path().join(format!("kernel/deep/{name}"));
            fs::write(path, module(depends)).unwrap();
        }
        directory
    }

    #[test]
    fn dependencies_come_first_and_once() {
        let kernel = kernel(&[
            ("vsock.ko", ""),
            ("vmw_vsock_virtio_transport.ko", "vmw-common,vsock"),
            ("vmw-common.ko", "vsock"),
            ("virtio-rng.ko", "virtio_net"),
            ("unrelated.ko", "nowhere"),
        ]);
        let mut out = Vec::new();
        let archive = build_modules_archive(kernel.path(), &mut out).unwrap();
        let expected = [
            "vsock.ko",
            "vmw_common.ko",
            "vmw_vsock_virtio_transport.ko",
            "virtio_rng.ko",
        ];
        assert_eq!(archive.modules, expected);
        assert_eq!(archive.first, 0);
        let members = read(&out);
        let (path, _, list) = &members[3];
        assert_eq!(path, "banger/modules/modules.later");
        assert_eq!(list, (expected.join("\n") + "\n").as_bytes());
        assert_eq!(members.len(), 8);
    }

    #[test]
    fn what_the_boot_waits_for_is_apart() {
        let kernel = kernel(&[("virtio_blk.ko", "ring"), ("ring.ko", ""), ("overlay.ko", "ring")]);
        fs::write(
            kernel.path().join("modules.builtin"),
            "virtio_pci.ko\next4.ko\nvirtio_console.ko\nvirtio_net.ko\n",
        )
        .unwrap();
        let mut out = Vec::new();
        let archive = build_modules_archive(kernel.path(), &mut out).unwrap();
        assert_eq!(archive.first, 2);
        let members = read(&out);
        assert_eq!(members[2].2, b"ring.ko\nvirtio_blk.ko\n");
        assert_eq!(members[3].2, b"overlay.ko\n");
    }

    #[test]
    fn a_circle_ends() {
        let kernel = kernel(&[("vsock.ko", "overlay,vsock"), ("overlay.ko", "vsock")]);
        let archive = build_modules_archive(kernel.path(), &mut Vec::new()).unwrap();
        assert_eq!(archive.modules, ["overlay.ko", "vsock.ko"]);
    }

    #[test]
    fn a_chain_without_an_end_is_refused() {
        let names: Vec<String> = (0..=1000).map(|index| format!("m{index}.ko")).collect();
        let modules: Vec<(&str, &str)> = names
            .windows(2)
            .map(|pair| (&*pair[0], pair[1].trim_end_matches(".ko")))
            .chain([("overlay.ko", "m0"), ("m1000.ko", "")])
            .collect();
        let kernel = kernel(&modules);
        let error = build_modules_archive(kernel.path(), &mut Vec::new()).unwrap_err();
        assert!(matches!(error, Error::BadModule { .. }), "{error}");
    }

    #[test]
    fn what_is_missing_is_named() {
        let kernel = kernel(&[]);
        fs::write(kernel.path().join("modules.builtin"), "kernel/virtio_pci.ko\n").unwrap();
        let error = build_modules_archive(kernel.path(), &mut Vec::new()).unwrap_err();
        assert!(matches!(&error, Error::Missing { name, .. } if name == "virtio_blk"));
    }

    #[test]
    fn a_file_that_is_no_module_is_named() {
        let kernel = kernel(&[]);
        fs::write(kernel.path().join("kernel/overlay.ko"), b"text").unwrap();
        let error = build_modules_archive(kernel.path(), &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("overlay.ko"), "{error}");
    }
}
