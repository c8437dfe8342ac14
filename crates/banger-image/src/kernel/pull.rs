//! A kernel from a distribution's signed archive.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use banger_model::KernelName;

use super::bzimage::{self, KernelError, MAX_KERNEL};
use super::check::{Facts, MAX_TEXT};
use super::{CONFIG, Kernel, METADATA, MODULES, Origin, VMLINUX, bundle, list, load};
use crate::Cancel;
use crate::apt::{self, Apt, Mirrors, Package};
use crate::catalog::{KernelEntry, KernelSource, Word, first_of};
use crate::error::{Error, Result};
use crate::oci::Registry;
use crate::process::DPKG_DEB;
use crate::progress::Progress;
use crate::store::{self, Build, make_dir};
use crate::unpack::Unpacker;

/// What one package, or the modules of one bundle, may unpack to.
pub(crate) const MAX_ENTRIES: usize = 100_000;
pub(crate) const MAX_UNPACKED: u64 = 2 << 30;
pub(crate) const MAX_DEPTH: usize = 32;

/// What to pull, and where to.
#[derive(Debug, Clone, Copy)]
pub struct Pull<'a> {
    /// The store of kernels.
    pub kernels: &'a Path,
    /// Where package lists are kept for the next time.
    pub cache: &'a Path,
    pub entry: &'a KernelEntry,
    pub mirrors: &'a Mirrors,
    /// How bundles are fetched.
    pub registry: Registry<'a>,
    /// What reads them.
    pub unpacker: &'a Unpacker,
}

/// Pulls the newest kernel of a catalogue entry. When it is here already it only takes the
/// entry's name as an alias.
///
/// # Errors
/// What apt says, a full disk, or a package without a usable kernel. Nothing half-made stays.
pub fn pull(pull: &Pull<'_>, progress: &dyn Progress, cancel: &Cancel) -> Result<Kernel> {
    store::sweep(pull.kernels)?;
    first_of(
        pull.entry.name.as_str(),
        &pull.entry.sources,
        progress,
        |source| match source {
            KernelSource::DebianPackage { suite, package } => {
                pull_package(pull, suite, package, progress, cancel)
            }
            KernelSource::Bundle(source) => bundle::pull(pull, source, progress, cancel),
        },
    )
}

fn pull_package(
    pull: &Pull<'_>,
    suite: &Word,
    package: &Word,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Kernel> {
    let main = Word::try_from("main".to_owned()).map_err(|reason| Error::Package {
        package: package.to_string(),
        reason,
    })?;
    let sources = apt::sources(pull.mirrors, suite, &[main])?;
    let build = Build::begin(pull.kernels)?;
    let scratch = build.dir().join("apt");
    progress.stage("Reading the package lists");
    let shared = pull.cache.join("apt").join(suite.as_str());
    let apt = Apt::update(&shared, &scratch, &sources, progress, cancel)?;
    let package = resolve(&apt, package, cancel)?;
    let same =
        |origin: &Origin| matches!(origin, Origin::Archive { sha256, .. } if *sha256 == package.sha256);
    if let Some(kernel) = already_here(pull, same)? {
        return Ok(kernel);
    }
    progress.stage(&format!("Downloading {}", package.name));
    let deb = apt.download(&package, &scratch.join("deb"), progress, cancel)?;
    drop(apt);

    progress.stage("Unpacking the kernel");
    let unpacked = unpack(&deb, build.dir(), cancel)?;
    fs::remove_dir_all(&scratch).map_err(Error::io("remove", &scratch))?;
    let origin = Origin::Archive {
        url: pull.mirrors.debian.clone(),
        suite: suite.to_string(),
        package: package.name.clone(),
        version: package.version.clone(),
        sha256: package.sha256.clone(),
    };
    let mut kernel = describe(&build, origin, &deb)?;
    if unpacked.version != kernel.version {
        return Err(Error::Package {
            package: package.name,
            reason: format!("it has {} and {}", unpacked.version, kernel.version),
        });
    }
    kernel.aliases.push(pull.entry.name.to_string());
    finish(build, pull.kernels, kernel, true)
}

/// The package with the kernel: the one that is named, or what it depends on.
fn resolve(apt: &Apt, package: &Word, cancel: &Cancel) -> Result<Package> {
    let named = apt.show(package.as_str(), None, cancel)?;
    let real = named
        .depends
        .iter()
        .find(|name| name.starts_with("linux-image-") && name.contains("-amd64"));
    match real {
        Some(real) => apt.show(real, None, cancel),
        None => Ok(named),
    }
}

/// The kernel that came from this very package or bundle, with the entry's name as an alias.
pub(super) fn already_here(pull: &Pull<'_>, same: impl Fn(&Origin) -> bool) -> Result<Option<Kernel>> {
    let kernels = list(pull.kernels)?;
    let Some(mut kernel) = kernels.into_iter().find(|kernel| same(&kernel.origin)) else {
        return Ok(None);
    };
    if !kernel.answers_to(&pull.entry.name) {
        kernel.aliases.push(pull.entry.name.to_string());
        store::write_metadata(&kernel.dir, METADATA, &kernel)?;
    }
    Ok(Some(kernel))
}

/// What a package brought.
struct Unpacked {
    /// The last part of the kernel's file name.
    version: String,
}

/// Takes the kernel, its configuration and its modules out of a package.
fn unpack(deb: &Path, dir: &Path, cancel: &Cancel) -> Result<Unpacked> {
    let mut command = DPKG_DEB.command()?;
    command.arg("--fsys-tarfile").arg(deb);
    let bad = |reason: String| Error::Package {
        package: deb.display().to_string(),
        reason,
    };
    DPKG_DEB.run(
        command,
        cancel,
        |_| {},
        |out| {
            let mut version = None;
            let mut left = MAX_UNPACKED;
            let mut archive = tar::Archive::new(out);
            let entries = archive.entries().map_err(Error::io("read", deb))?;
            for (count, entry) in entries.enumerate() {
                let mut entry = entry.map_err(Error::io("read", deb))?;
                cancel.check()?;
                left = left.saturating_sub(entry.size());
                if count >= MAX_ENTRIES || left == 0 {
                    return Err(bad("it is too large".to_owned()));
                }
                if !entry.header().entry_type().is_file() {
                    continue;
                }
                let path = entry.path().map_err(Error::io("read", deb))?.into_owned();
                let Some(place) = Place::of(&path) else {
                    continue;
                };
                match place {
                    Place::Kernel(found) => {
                        write_kernel(&mut entry, &path, &dir.join(VMLINUX))?;
                        version = Some(found);
                    }
                    Place::Config => write_file(&mut entry.take(MAX_TEXT), &dir.join(CONFIG))?,
                    Place::Module(below) => write_file(&mut entry, &dir.join(MODULES).join(below))?,
                }
            }
            let version = version.ok_or_else(|| bad("there is no kernel in it".to_owned()))?;
            Ok(Unpacked { version })
        },
    )
}

/// What a file of a package is for us.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// With its version.
    Kernel(String),
    Config,
    /// Below the directory of the modules.
    Module(PathBuf),
}

impl Place {
    fn of(path: &Path) -> Option<Self> {
        let mut names = Vec::new();
        for part in path.components() {
            match part {
                Component::Normal(name) => names.push(name.to_str()?),
                Component::CurDir | Component::RootDir => {}
                _ => return None,
            }
        }
        if names.len() > MAX_DEPTH {
            return None;
        }
        match names.strip_prefix(&["usr"]).unwrap_or(&names) {
            ["boot", file] => {
                if file.starts_with("config-") {
                    return Some(Self::Config);
                }
                Some(Self::Kernel(file.strip_prefix("vmlinuz-")?.to_owned()))
            }
            // Links to the sources are no files; the rest is modules and their lists.
            ["lib", "modules", _, below @ ..] if !below.is_empty() => {
                Some(Self::Module(below.iter().collect()))
            }
            _ => None,
        }
    }
}

fn write_kernel(content: &mut impl Read, path: &Path, target: &Path) -> Result<()> {
    let mut image = Vec::new();
    content
        .take(MAX_KERNEL + 1)
        .read_to_end(&mut image)
        .map_err(Error::io("read", path))?;
    let elf = bzimage::vmlinux(image).map_err(|source| Error::Kernel {
        path: path.to_owned(),
        source,
    })?;
    write_file(&mut &elf[..], target)
}

pub(super) fn write_file(content: &mut impl Read, target: &Path) -> Result<()> {
    if let Some(parent) = target.parent() {
        make_dir(parent)?;
    }
    let mut file: File = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(target)
        .map_err(Error::io("make", target))?;
    io::copy(content, &mut file).map_err(Error::io("write", target))?;
    Ok(())
}

/// Looks at what was put into a build, and refuses what no guest could boot.
pub(super) fn describe(build: &Build, origin: Origin, source: &Path) -> Result<Kernel> {
    let dir = build.dir();
    let unusable = |reason: KernelError| Error::Kernel {
        path: source.to_owned(),
        source: reason,
    };
    let vmlinux = dir.join(VMLINUX);
    let elf = fs::read(&vmlinux).map_err(Error::io("read", &vmlinux))?;
    let version = bzimage::version(&elf).map_err(unusable)?;
    let config = Some(dir.join(CONFIG)).filter(|file| file.is_file());
    let config = match config {
        Some(file) => Some(fs::read_to_string(&file).map_err(Error::io("read", &file))?),
        None => None,
    };
    let modules = Some(dir.join(MODULES)).filter(|dir| dir.is_dir());
    let verdict = Facts::read(config.as_deref(), modules.as_deref())?.verdict();
    if !verdict.lacks.is_empty() {
        return Err(unusable(KernelError::Lacks(verdict.lacks)));
    }
    let name = version
        .parse()
        .map_err(|_| unusable(KernelError::BadVersion(version.clone())))?;
    Ok(Kernel {
        name,
        version,
        aliases: Vec::new(),
        origin,
        kernel_bytes: elf.len() as u64,
        modules_bytes: modules.map_or(Ok(0), |dir| store::disk_usage(&dir))?,
        warnings: verdict.warnings,
        created: store::now(),
        dir: PathBuf::new(),
    })
}

/// Gives a built kernel its name in the store.
pub(super) fn finish(build: Build, kernels: &Path, kernel: Kernel, replace: bool) -> Result<Kernel> {
    store::write_metadata(build.dir(), METADATA, &kernel)?;
    let name: KernelName = kernel.name;
    build.publish(&kernels.join(name.as_str()), "Kernel", replace)?;
    load(kernels, &name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_belongs_to_a_kernel_is_taken() {
        let place = |path: &str| Place::of(Path::new(path));
        assert_eq!(
            place("./boot/vmlinuz-6.1.0-9-cloud-amd64"),
            Some(Place::Kernel("6.1.0-9-cloud-amd64".to_owned()))
        );
        assert_eq!(place("./boot/config-6.1.0-9"), Some(Place::Config));
        for root in ["./lib", "usr/lib", "/lib"] {
            assert_eq!(
                place(&format!("{root}/modules/6.1.0-9/kernel/fs/x.ko")),
                Some(Place::Module("kernel/fs/x.ko".into()))
            );
        }
        for path in [
            "./boot/System.map-6.1.0-9",
            "./boot/../etc/passwd",
            "./lib/modules/6.1.0-9",
            "./lib/modules/6.1/../../../etc/x",
            "usr/share/doc/x",
            "",
        ] {
            assert_eq!(place(path), None, "{path}");
        }
    }
}
