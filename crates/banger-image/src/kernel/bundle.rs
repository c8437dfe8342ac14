//! A kernel that was exported.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use super::bzimage::{self, KernelError};
use super::pull::{Pull, already_here, describe, write_file};
use super::{CONFIG, Kernel, METADATA, MODULES, Origin, VMLINUX, load};
use crate::Cancel;
use crate::bundle::{BundleError, KernelManifest, Manifest, Modules, Verified};
use crate::catalog::BundleSource;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::store::{self, Build};

/// Makes a kernel of a bundle. It keeps the name that it was exported under, and answers to
/// the one of the catalogue.
pub(super) fn pull(
    pull: &Pull<'_>,
    source: &BundleSource,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Kernel> {
    let same = |origin: &Origin| matches!(origin, Origin::Bundle { sha256, .. } if *sha256 == source.sha256);
    if let Some(kernel) = already_here(pull, same)? {
        return Ok(kernel);
    }
    let bundle = Verified::open(source, &pull.registry, progress, cancel)?;
    let build = Build::begin(pull.kernels)?;
    // It has no name, and is gone with its last descriptor.
    let mut parts = tempfile::tempfile_in(build.dir()).map_err(Error::io("write in", build.dir()))?;
    let target = parts.try_clone().map_err(Error::io("write in", build.dir()))?;
    let manifest = match bundle.unpack(pull.unpacker, target, progress, cancel)? {
        Manifest::Kernel(manifest) => manifest,
        other => {
            return Err(bundle.refused(BundleError::Other {
                found: other.kind(),
                name: other.name().to_owned(),
                expected: format!("kernel {}", pull.entry.name),
            }));
        }
    };
    replaceable(pull, &manifest)?;
    progress.stage("Writing the kernel");
    place(&mut parts, &manifest, build.dir(), &bundle, cancel)?;
    let origin = Origin::Bundle {
        url: bundle.url.clone(),
        sha256: bundle.sha256,
    };
    let mut kernel = describe(&build, origin, Path::new(&bundle.url))?;
    if kernel.version != manifest.release {
        return Err(bundle.refused(BundleError::Other {
            found: "kernel",
            name: kernel.version,
            expected: format!("release {}", manifest.release),
        }));
    }
    kernel.name = manifest.name;
    if kernel.name != pull.entry.name {
        kernel.aliases.push(pull.entry.name.to_string());
    }
    store::write_metadata(build.dir(), METADATA, &kernel)?;
    build.publish_soon(&pull.kernels.join(kernel.name.as_str()), "Kernel", true)?;
    load(pull.kernels, &kernel.name)
}

/// A bundle may only take the place of what the same entry brought: its name is its own choice.
fn replaceable(pull: &Pull<'_>, manifest: &KernelManifest) -> Result<()> {
    match load(pull.kernels, &manifest.name) {
        Ok(kernel) if !kernel.answers_to(&pull.entry.name) => Err(Error::Exists {
            what: "Kernel",
            name: manifest.name.to_string(),
        }),
        _ => Ok(()),
    }
}

/// Makes the files of the parts, which follow each other as long as the manifest says.
fn place(
    parts: &mut File,
    manifest: &KernelManifest,
    dir: &Path,
    bundle: &Verified,
    cancel: &Cancel,
) -> Result<()> {
    let failed = |error| Error::io("read", dir)(error);
    parts.seek(SeekFrom::Start(0)).map_err(failed)?;
    let mut image = Vec::new();
    let part = parts.by_ref().take(manifest.vmlinux);
    part.take(bzimage::MAX_KERNEL)
        .read_to_end(&mut image)
        .map_err(failed)?;
    // Nothing is decompressed here, where nothing is confined.
    if !image.starts_with(b"\x7fELF") {
        return Err(unusable(bundle, KernelError::Unknown));
    }
    let elf = bzimage::vmlinux(image).map_err(|reason| unusable(bundle, reason))?;
    write_file(&mut &elf[..], &dir.join(VMLINUX))?;
    drop(elf);
    if let Some(bytes) = manifest.config {
        write_file(&mut parts.by_ref().take(bytes), &dir.join(CONFIG))?;
    }
    let Some(bytes) = manifest.modules else {
        return Ok(());
    };
    let refused = |source| bundle.refused(source);
    let mut modules = Modules::new(io::BufReader::new(parts), bytes).map_err(refused)?;
    while let Some(path) = modules.next().map_err(refused)? {
        cancel.check()?;
        write_file(&mut modules, &dir.join(MODULES).join(path))?;
    }
    Ok(())
}

fn unusable(bundle: &Verified, source: KernelError) -> Error {
    Error::Kernel {
        path: Path::new(&bundle.url).to_owned(),
        source,
    }
}
